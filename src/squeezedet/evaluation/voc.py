"""Pascal VOC: average precision over 11 points (2007) and as the area under the curve (2010 on).

The rules of the devkit in its well-known Python port: boxes are inclusive pixels
(widths are x2 - x1 + 1), a match needs an overlap above 0.5, each detection looks at
the labelled box of the largest overlap only, and difficult objects count neither way.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.sample import Objects, check_box, is_dont_care, number
from squeezedet.detections import Detections
from squeezedet.errors import DataError
from squeezedet.evaluation.matching import (
    Curve,
    Floats,
    Indices,
    Intervals,
    bootstrap,
    concatenate,
    mean_of,
    overlapping,
    per_class,
)
from squeezedet.files import read_text

MIN_OVERLAP = 0.5
RESULT_FIELDS = 6
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class ClassCurve:
    """One class.

    Attributes:
        objects: labelled boxes that count.
        detections: detections of the class.
        recall, precision: (K,) after each detection by falling score.
    """

    objects: int
    detections: int
    recall: Floats
    precision: Floats

    @property
    def ap11(self) -> float:
        """Mean over recall 0, 0.1, ..., 1 of the best precision at that recall or above."""
        # These steps, not k/10: the port's 0.30000000000000004 decides ties.
        best = [self.precision[self.recall >= step].max(initial=0) for step in np.arange(0, 1.1, 0.1)]
        return float(np.mean(best))

    @property
    def ap_area(self) -> float:
        """Area under the curve, whose precision is made to never rise."""
        envelope = np.maximum.accumulate(self.precision[::-1])[::-1]
        return float(np.sum(np.diff(self.recall, prepend=0) * envelope))


@dataclass(frozen=True, slots=True, eq=False)
class VocResult:
    """The answer of the protocol.

    Attributes:
        images: number of images.
        difficult: labelled boxes that count neither way.
        results: class -> curve; None for a class that was never detected.
        objects: class -> labelled boxes that count.
    """

    images: int
    difficult: int
    results: Mapping[str, ClassCurve | None]
    objects: Mapping[str, int]

    @property
    def map11(self) -> float:
        """Mean of ``ap11`` over the classes that have an object; one never detected counts 0."""
        return self._mean("ap11")

    @property
    def map_area(self) -> float:
        """Mean of ``ap_area`` over the classes that have an object; as for ``map11``."""
        return self._mean("ap_area")

    def _mean(self, what: str) -> float:
        return mean_of(per_class(self.results, self.objects, lambda curve: float(getattr(curve, what)))) or 0.0

    @property
    def ap(self) -> dict[str, float | None]:
        """Area under the curve of each class; None for a class without an object."""
        return per_class(self.results, self.objects, lambda curve: curve.ap_area)

    def curves(self) -> dict[str, dict[str, Curve]]:
        """Class -> overlap -> curve, of the classes that were detected."""
        return {
            name: {"IoU 0.5": (curve.recall.tolist(), curve.precision.tolist())}
            for name, curve in self.results.items()
            if curve
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        found = [c for c in self.results.values() if c]
        return {
            "protocol": "voc",
            "counts": {
                "images": self.images,
                "objects": sum(c.objects for c in found),
                "ignored": self.difficult,
                "detections": sum(c.detections for c in found),
            },
            "results": {
                name: c
                and {"voc07_11point": c.ap11, "area": c.ap_area, "objects": c.objects, "detections": c.detections}
                for name, c in self.results.items()
            },
            "map11": self.map11,
            "map_area": self.map_area,
        }


def truth_of(objects: Objects, classes: Sequence[str]) -> Objects:
    """Labels as VOC's: an ignored object is difficult, and a DontCare area is one of every class."""
    names = {name.lower() for name in classes}
    rows = [
        (name, k, is_dont_care(kind) or bool(objects.ignored[k]))
        for k, kind in enumerate(objects.types)
        for name in (classes if is_dont_care(kind) else [kind])
        if name.lower() in names
    ]
    index = [k for _, k, _ in rows]
    return Objects(
        tuple(name for name, _, _ in rows),
        objects.xyxy[index],
        objects.truncated[index],
        objects.occluded[index],
        np.array([difficult for _, _, difficult in rows], dtype=bool),
    )


def evaluate(ground_truth: Sequence[Objects], detections: Sequence[Detections], classes: Sequence[str]) -> VocResult:
    """Evaluate detections against labels.

    Args:
        ground_truth: the labels of each image, see ``truth_of``; the ignored are difficult.
        detections: what was found in the same images. The order of images and detections
            matters between equal scores only.
        classes: the classes to evaluate; compared without case.

    Raises:
        DataError: the numbers of images differ, or a value is not finite.
    """
    flat = concatenate(ground_truth, detections)
    difficult = np.concatenate([np.empty(0, bool), *(o.ignored for o in ground_truth)])
    pairs = overlapping(
        _inclusive(flat.det_xyxy), flat.det_count, _inclusive(flat.gt_xyxy), flat.gt_count, above=MIN_OVERLAP
    )
    results: dict[str, ClassCurve | None] = dict.fromkeys(classes)
    objects: dict[str, int] = {}
    for name in classes:
        mine = flat.det_type == name.lower()
        gts = flat.gt_type == name.lower()
        objects[name] = int((gts & ~difficult).sum())
        if mine.any():
            best = _best_partner(pairs, mine, gts)
            results[name] = _curve(flat.det_score, mine, best, difficult, objects[name])
    evaluated = np.isin(flat.gt_type, [name.lower() for name in classes])
    return VocResult(len(ground_truth), int((evaluated & difficult).sum()), results, objects)


def intervals(
    ground_truth: Sequence[Objects], detections: Sequence[Detections], classes: Sequence[str], draws: int = 1000
) -> Intervals:
    """95 % intervals of both APs of each class, and of their means."""

    def figures(weights: NDArray[np.int64]) -> dict[str, float]:
        index = np.repeat(np.arange(len(weights)), weights).tolist()
        result = evaluate([ground_truth[i] for i in index], [detections[i] for i in index], classes)
        found = {"map11": result.map11, "map_area": result.map_area}
        for name, curve in result.results.items():
            found[f"{name}/voc07_11point"] = curve.ap11 if curve else 0.0
            found[f"{name}/area"] = curve.ap_area if curve else 0.0
        return found

    return bootstrap(figures, len(ground_truth), draws)


def _inclusive(xyxy: Floats) -> Floats:
    """Boxes whose last pixel belongs to them."""
    inclusive: Floats = xyxy + np.array([0.0, 0.0, 1.0, 1.0])
    return inclusive


def _best_partner(pairs: tuple[Indices, Indices, Floats], mine: Flags, gts: Flags) -> Indices:
    """(D,) labelled box of the largest overlap of each detection of the class, -1 for none."""
    det, gt, overlap = pairs
    keep = mine[det] & gts[gt]
    det, gt, overlap = det[keep], gt[keep], overlap[keep]
    order = np.lexsort((gt, -overlap, det))
    first, where = np.unique(det[order], return_index=True)
    best = np.full(len(mine), -1, np.intp)
    best[first] = gt[order][where]
    return best


def _curve(score: Floats, mine: Flags, best: Indices, difficult: Flags, objects: int) -> ClassCurve:
    ranked = np.flatnonzero(mine)
    ranked = ranked[np.argsort(-score[ranked], kind="stable")]
    partner = best[ranked]
    ignored = (partner >= 0) & np.append(difficult, False)[partner]
    hit = np.zeros(len(ranked), dtype=bool)
    taken, first = np.unique(partner, return_index=True)
    hit[first[taken >= 0]] = True
    hit &= ~ignored
    true = np.cumsum(hit)
    evaluated = np.cumsum(~ignored)
    return ClassCurve(objects, len(ranked), recall=true / max(objects, 1), precision=true / np.maximum(evaluated, 1))


# ------------------------------------------------------------ files


def read_detections(folder: Path, ids: Sequence[str], classes: Sequence[str] = ()) -> list[Detections]:
    """Read ``CLASS.txt`` files, lines of image, score, x1, y1, x2, y2.

    The development kit's names are known, too: ``comp4_det_test_CLASS.txt``.

    Args:
        folder: holds the files.
        ids: the labelled images.
        classes: of the labels; a file that is called after one of them, whatever stands before
            it, is of that class.

    Returns:
        The detections of each image; ``names`` are the classes that have a file.

    Raises:
        DataError: no file, none or two called after a class, an image without labels, or a
            malformed line.
    """
    files = _class_files(folder, classes)
    known = {Path(i).stem: i for i in ids} | {i: i for i in ids}
    rows: dict[str, list[tuple[int, list[float]]]] = defaultdict(list)
    for class_id, path in enumerate(files.values()):
        for line_number, line in enumerate(read_text(path).splitlines(), start=1):
            if line.strip():
                image, values = _read_line(line.split(), f"{path}:{line_number}", known)
                rows[image].append((class_id, values))
    names = tuple(files)
    return [_detections(rows[i], names, i) for i in ids]


def _class_files(folder: Path, classes: Sequence[str]) -> dict[str, Path]:
    """Class name -> its file."""
    paths = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not paths:
        raise DataError(f"{folder}: no detections; VOC wants one CLASS.txt for each class")
    files: dict[str, Path] = {}
    for path in paths:
        name = _class_of(path.stem, classes)
        if name in files:
            raise DataError(f"{folder}: {files[name].name} and {path.name} are both of {name!r}")
        files[name] = path
    if classes and not {n.lower() for n in files} & {n.lower() for n in classes}:
        raise DataError(
            f"{folder}: no file is called after a class of the labels ({', '.join(classes)}); "
            f"there are {', '.join(p.name for p in paths[:5])}"
        )
    return files


def _class_of(stem: str, classes: Sequence[str]) -> str:
    """Of which class a file is: the longest class that its name is, or ends with."""
    by_length = sorted(classes, key=len, reverse=True)
    for name in by_length:
        if stem.lower() == name.lower():
            return name
    for name in by_length:
        if re.search(rf"[_.\- ]{re.escape(name)}$", stem, re.IGNORECASE):
            return name
    devkit = re.fullmatch(r"comp\d+_det_[^_]+_(.+)", stem)
    return devkit[1] if devkit else stem


def _detections(rows: list[tuple[int, list[float]]], names: tuple[str, ...], image: str) -> Detections:
    values = np.array([v for _, v in rows], np.float64).reshape(-1, 5)
    return Detections(
        values[:, 1:].astype(np.float32),
        values[:, 0].astype(np.float32),
        np.array([c for c, _ in rows], np.int64),
        names,
        image=image,
    )


def _read_line(fields: list[str], where: str, known: Mapping[str, str]) -> tuple[str, list[float]]:
    if len(fields) != RESULT_FIELDS:
        raise DataError(
            f"{where}: a detection has {RESULT_FIELDS} fields (image, score, box), this line has {len(fields)}"
        )
    if fields[0] not in known:
        raise DataError(f"{where}: detection in {fields[0]!r}, an image without labels")
    values = [number(field, where) for field in fields[1:]]
    check_box(values[1:], where)
    return known[fields[0]], values
