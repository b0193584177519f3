"""Data sets in any of four layouts: find out which, and read all of it into ``Sample``s.

Nothing is dropped silently. What is malformed is an error that names file and line; what is
merely useless (a box without area, an unlabelled image) is left out, counted and listed, and
above a limit an error too.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from squeezedet.data import coco, kitti, voc, yolo
from squeezedet.data.folders import is_file, is_folder
from squeezedet.data.sample import (
    DONT_CARE,
    KITTI_DEFAULT,
    ClassMap,
    LabelledSplits,
    Objects,
    ReadResult,
    Sample,
    Skipped,
    is_dont_care,
    size_warnings,
)
from squeezedet.errors import DataError, UsageError
from squeezedet.files import read_regular
from squeezedet.media.images import MAX_FILE_BYTES
from squeezedet.text import counted

Layout = Literal["kitti", "voc", "coco", "yolo"]
READERS: dict[Layout, Callable[..., LabelledSplits]] = {
    "kitti": kitti.LAYOUT.read,
    "voc": voc.LAYOUT.read,
    "coco": coco.read,
    "yolo": yolo.read,
}
HINTS = (
    "KITTI has image_2 and label_2; VOC Annotations/*.xml; COCO a JSON with images, annotations "
    "and categories; YOLO a data.yaml, or images, labels and classes.txt"
)
MAX_SKIPPED = 0.01
"""Share of the labels that may be left out before it is an error."""
IGNORE, BACKGROUND = "ignore", "background"
"""What a type may be mapped to that is no class."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Everything that was read of a data set.

    Attributes:
        path: the folder or file that was asked for.
        layout: how it is laid out.
        splits: the samples of each split in the order of the data; at least one, and ``all``
            only when nothing names splits. An image may be in several (VOC's ``trainval``).
        types: type names: in the order of COCO's category ids or YOLO's names, also those
            without an object; for KITTI and VOC by falling frequency, then by name.
        skipped: labels and images that were left out, in the order of reading.
        notes: what a user should know, one sentence each: what the files say beyond boxes
            (masks, 3D boxes), folders that were guessed.
        sources: the data sets that were joined into this one; none for a single one.
        weights: of each source; an image of weight 2 is seen twice as often as one of 1.
        shared: images of later sources that earlier ones hold, too -> the image there.
    """

    path: Path
    layout: Layout
    splits: Mapping[str, tuple[Sample, ...]]
    types: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    sources: tuple[Dataset, ...] = ()
    weights: tuple[float, ...] = ()
    shared: Mapping[Path, Path] = field(default_factory=dict)

    def samples(self) -> tuple[Sample, ...]:
        """Every sample once, in the order of the splits."""
        return tuple(LabelledSplits(self.splits, self.types).samples())

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of a split; ``all`` for every sample once.

        Raises:
            DataError: there is no such split.
        """
        if name == "all" and name not in self.splits:
            return self.samples()
        for one in self.sources:
            if name not in one.splits and not (name == "val" and name in self.splits):
                raise DataError(f"{one.path}: no split {name!r}; it has {', '.join(one.splits)}")
        if name not in self.splits:
            raise DataError(f"{self.path}: no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]

    def weighted(self, name: str) -> tuple[Sample, ...]:
        """The samples of a split, those of a source of more weight several times.

        One of 1.5 times the least weight gives each sample once and every second one twice.

        Raises:
            DataError: there is no such split.
        """
        samples = self.split(name)
        if not self.sources:
            return samples
        factor: dict[Path, float] = {}
        for one, weight in zip(self.sources, self.weights, strict=True):
            for sample in one.splits.get(name, ()) if name != "all" else one.samples():
                factor.setdefault(sample.image, weight / min(self.weights))
        repeated, owed = [], dict.fromkeys(factor.values(), 0.0)
        for sample in samples:
            times = factor[sample.image]
            owed[times] += times
            repeated += [sample] * int(owed[times] + 1e-9)
            owed[times] -= int(owed[times] + 1e-9)
        return tuple(repeated)


def detect_layout(path: Path | str) -> Layout:
    """Which layout a folder or a file has.

    A file is COCO's JSON, YOLO's ``data.yaml`` or ``obj.data``, or a ``.txt`` list of images
    (YOLO) or of ids (KITTI, VOC). A folder is told by what is in it.

    Raises:
        DataError: there is nothing at the path, it is none of the four, or more than one.
    """
    path = Path(path)
    if is_file(path):
        return _layout_of_file(path)
    if not is_folder(path):
        raise DataError(f"{path}: no such file or folder")
    looks: dict[Layout, Callable[[Path], object]] = {
        "kitti": kitti.LAYOUT.find,
        "voc": voc.LAYOUT.find,
        "coco": coco.label_files,
        "yolo": yolo.is_yolo,
    }
    found = [layout for layout, look in looks.items() if look(path)]
    if not found:
        raise DataError(f"{path}: no data set of a known layout; {HINTS}")
    if len(found) > 1 and not yolo.has_data_file(path):
        found = [layout for layout in found if layout != "yolo"]  # a list of class names alone makes none
    if len(found) > 1:
        raise DataError(
            f"{path}: holds labels in more than one layout ({', '.join(found)}); say which is "
            "meant, or give the JSON or data.yaml itself"
        )
    return found[0]


def _layout_of_file(path: Path) -> Layout:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return "coco"
    if suffix in (*yolo.CONFIG_SUFFIXES, ".data"):
        return "yolo"
    if suffix == ".txt":
        if kitti.LAYOUT.root_of_list(path):
            return "kitti"
        return "voc" if voc.LAYOUT.root_of_list(path) else "yolo"
    raise DataError(f"{path}: no data set; a file is COCO's JSON, YOLO's data.yaml or a .txt list")


def read_dataset(
    path: Path | str,
    *,
    layout: Layout | None = None,
    listing: Path | None = None,
    max_skipped: float = MAX_SKIPPED,
    strict: bool = True,
) -> Dataset:
    """Read every label of a data set; no image is decoded.

    Args:
        path: folder or file, see ``detect_layout``.
        layout: its layout, when it shall not be found out.
        listing: only the images of this list of ids, of a KITTI or VOC folder.
        max_skipped: share of the labels that may be left out as useless, 0 to 1.
        strict: a malformed label is an error. False: it is left out and listed in
            ``skipped`` like the useless ones, so that all of them can be shown.

    Raises:
        DataError: a file or folder cannot be read; a malformed label (``strict``); no image at
            all; or more labels skipped than ``max_skipped``.
    """
    path = Path(path)
    layout = layout or detect_layout(path)
    reading = ReadResult(strict=strict)
    if listing is None:
        found = READERS[layout](path, reading)
    elif layout in ("kitti", "voc"):
        found = READERS[layout](path, reading, listing)
    else:
        raise DataError(f"{listing}: a list of ids needs a KITTI or VOC folder, and {path} is {layout}")
    dataset = Dataset(
        path,
        layout,
        _unique_ids({name: tuple(samples) for name, samples in found.splits.items()}),
        tuple(found.types),
        tuple(reading.skipped),
        reading.notes,
    )
    samples = dataset.samples()
    if not samples:
        raise DataError(f"{path}: no images{reading.reason()}")
    skipped = len(reading.skipped)
    labels = skipped + sum(len(s.objects) for s in samples)
    if skipped > max_skipped * labels:
        share = f"{skipped:,} of {labels:,} labels cannot be used, more than {100 * max_skipped:g} %"
        raise DataError(f"{path}: {share}{reading.reason()}")
    return dataset


def read_datasets(
    paths: Sequence[Path | str],
    *,
    weights: Sequence[float] | None = None,
    max_skipped: float = MAX_SKIPPED,
    strict: bool = True,
) -> Dataset:
    """Read several data sets, in any layouts, and join them into one.

    Their types are joined by name, without case. An image that two of them have under the
    same split is taken once.

    Args:
        paths: folders or files, see ``read_dataset``.
        weights: of each; see ``Dataset.weighted``. None: all alike.
        max_skipped: see ``read_dataset``, of each.
        strict: see ``read_dataset``. False: also an image with two sets of labels stays.

    Raises:
        UsageError: no path, one twice, or weights that are none.
        DataError: see ``read_dataset``; one image has different labels in two of them.
    """
    places = [Path(path) for path in paths]
    weights = tuple(weights) if weights is not None else (1.0,) * len(paths)
    if not places or len({path.resolve() for path in places}) < len(places):
        raise UsageError(f"data: {', '.join(map(str, paths)) or 'none given'}: name each set once")
    if len(weights) != len(paths):
        raise UsageError(f"data_weights: {len(weights)} for {len(paths)} data sets; give one for each")
    for path, weight in zip(places, weights, strict=True):
        if not 0 < weight < math.inf:
            raise UsageError(f"data_weights: {weight:g} for {path}: a weight is above 0; leave the data set out")
    sources = [read_dataset(path, max_skipped=max_skipped, strict=strict) for path in places]
    return sources[0] if len(sources) == 1 else _joined(sources, weights, strict)


def _joined(sources: Sequence[Dataset], weights: Sequence[float], strict: bool) -> Dataset:
    again, mixed = _shared_images(sources, strict)
    notes = []
    if again:
        notes.append(f"images that two data sets share, taken once in a split: {len(again):,}")
    splits: dict[str, list[Sample]] = {}
    for one in sources:
        for name, samples in one.splits.items():
            known = {s.image for s in splits.setdefault(name, [])}
            splits[name] += [s for s in samples if again.get(s.image, s.image) not in known]
    for one in sources:
        if "val" in splits and "val" not in one.splits:
            notes.append(f"{one.path}: has no split val: nothing of it is evaluated")
    types = {t.lower(): t for one in reversed(sources) for t in reversed(one.types)}
    return Dataset(
        path=Path(" + ".join(str(one.path) for one in sources)),
        layout=next((one.layout for one in sources if one.layout != "kitti"), "kitti"),
        splits=_unique_ids({name: tuple(samples) for name, samples in splits.items()}),
        types=tuple(types[t] for t in reversed(types)),
        skipped=(*(entry for one in sources for entry in one.skipped), *mixed),
        notes=(*(f"{one.path}: {note}" for one in sources for note in one.notes), *notes),
        sources=tuple(sources),
        weights=tuple(weights),
        shared=again,
    )


def _shared_images(sources: Sequence[Dataset], strict: bool) -> tuple[dict[Path, Path], list[Skipped]]:
    """Images of later sources that earlier ones hold, too -> the image there.

    And those with other labels there.
    """
    sizes: dict[int, list[tuple[int, Sample]]] = {}
    for k, one in enumerate(sources):
        for sample in one.samples():
            with contextlib.suppress(OSError):  # what cannot be read, training says
                sizes.setdefault(sample.image.stat().st_size, []).append((k, sample))
    again: dict[Path, Path] = {}
    mixed = []
    for group in sizes.values():
        if len({k for k, _ in group}) < 2:
            continue
        first: dict[bytes, tuple[int, Sample]] = {}
        for k, sample in group:
            content = hashlib.blake2b(read_regular(sample.image, MAX_FILE_BYTES)).digest()
            before, other = first.setdefault(content, (k, sample))
            if before == k:
                continue
            if not same_labels(sample.objects, other.objects):
                why = f"is the image {other.image} with different labels; remove one of them"
                if strict:
                    raise DataError(f"{sample.image}: {why}")
                mixed.append(Skipped(sample.image, 0, why, malformed=True))
            else:
                again[sample.image] = other.image
    return again, mixed


def same_labels(a: Objects, b: Objects) -> bool:
    """Whether two images have the same objects, in any order, to half a pixel."""
    if a is b:
        return True
    if len(a) != len(b):
        return False
    rows = [sorted((t.lower(), *box) for t, box in zip(o.types, o.xyxy.tolist(), strict=True)) for o in (a, b)]
    return all(
        mine[0] == theirs[0] and np.allclose(mine[1:], theirs[1:], atol=0.5) for mine, theirs in zip(*rows, strict=True)
    )


def _unique_ids(splits: Mapping[str, tuple[Sample, ...]]) -> dict[str, tuple[Sample, ...]]:
    """Ids by which no two images are confused: with their folders where two have one name."""
    ids = {s.image: s.id.replace("/", "_") for samples in splits.values() for s in samples}
    for depth in range(1, 8):
        counts = Counter(name.lower() for name in ids.values())
        for image, name in ids.items():
            if counts[name.lower()] > 1 and depth < len(image.parts):
                parts = image.with_suffix("").parts[-depth - 1 :]
                ids[image] = "_".join(parts).replace("/", "_")
    return {
        name: tuple(s if ids[s.image] == s.id else replace(s, id=ids[s.image]) for s in samples)
        for name, samples in splits.items()
    }


def read_split(path: Path | str, split: str = "all") -> list[Sample]:
    """The samples of one split, in its order.

    The split of a KITTI or VOC folder may also be the path of a list of ids.

    Raises:
        DataError: see ``read_dataset``; there is no such split.
    """
    if Path(split).is_file():
        return list(read_dataset(path, listing=Path(split)).samples())
    return list(read_dataset(path).split(split))


def class_map_for(
    dataset: Dataset, classes: Sequence[str] | None = None, mapping: Mapping[str, str] | None = None
) -> ClassMap:
    """Which classes a detector learns from these data; names are compared without case.

    By default every type that has an object is a class, in the order of ``Dataset.types``;
    types that differ in case alone are one. In a KITTI folder of KITTI's own types it is
    ``KITTI_DEFAULT``: car (vans are cars), pedestrian, cyclist. DontCare is always an area
    without loss. ``dataset_warnings`` says which types become something else.

    Args:
        dataset: from ``read_dataset``.
        classes: the classes, in this order. Types that are none become background.
        mapping: type -> the class it is learned as, ``ignore`` (its area has no loss) or
            ``background``; goes before everything else.

    Raises:
        UsageError: a class is named twice, or the mapping names a type that the data do not
            have or a class that is none.
        DataError: the data have no object of any class.
    """
    counts = type_counts(dataset.samples())
    present = {t.lower(): t for t in reversed(dataset.types) if counts[t.lower()]}
    own_of_kitti = set(KITTI_DEFAULT.names)
    is_kitti = dataset.layout == "kitti" and present.keys() <= set(kitti.KITTI_TYPES) and present.keys() & own_of_kitti
    if is_kitti and classes is None and not mapping:
        return KITTI_DEFAULT
    known = {t.lower() for t in dataset.types}
    for name in mapping or {}:
        if name.lower() not in known and not is_dont_care(name):
            raise UsageError(f"mapping: {dataset.path} has no type {name!r}; it has {', '.join(dataset.types)}")
    moves = {name.lower(): target.strip() for name, target in (mapping or {}).items()}
    if classes is not None:
        names = _chosen(classes, moves)
    else:
        _check_same_classes(dataset, mapping or {})
        own = KITTI_DEFAULT.names if is_kitti else [t for t in reversed(present.values()) if not is_dont_care(t)]
        names = {}
        for t in (*(t for t in own if t.lower() not in moves), *moves.values()):
            if t.lower() not in (IGNORE, BACKGROUND):
                names.setdefault(t.lower(), t)
    if is_kitti and "car" in names and "van" not in names:
        moves.setdefault("van", "car")
    if is_kitti and "person_sitting" not in names:
        moves.setdefault("person_sitting", IGNORE)
    class_map = ClassMap(
        tuple(names.values()),
        aliases=tuple((t, names[target.lower()]) for t, target in moves.items() if target.lower() in names),
        regions=(DONT_CARE, *(t for t, target in moves.items() if target.lower() == IGNORE)),
    )
    if not names or (class_map.class_ids(tuple(present)) < 0).all():
        raise DataError(
            f"{dataset.path}: no object of a class to learn; the data have "
            f"{', '.join(dataset.types) or 'no type of object'}"
        )
    return class_map


def _check_same_classes(dataset: Dataset, mapping: Mapping[str, str]) -> None:
    """Joined data sets have one class list, unless the user names it.

    Raises:
        DataError: a class of one is not labelled in another, where it would be background.
    """
    lists: list[tuple[Path, set[str], set[str]]] = []
    for one in dataset.sources:
        own = {t.lower() for t in one.types}
        moves = {t: target for t, target in mapping.items() if t.lower() in own}
        names = {n.lower() for n in class_map_for(one, mapping=moves).names}
        # A class that a data file names is labelled there, also where no image shows one.
        lists.append((one.path, names, names | own))
    for path, names, labeled in lists[1:]:
        first, known, labeled_first = lists[0]
        lacking = ((first, known - labeled), (path, names - labeled_first))
        if any(some for _, some in lacking):
            only = "; ".join(f"only in {where}: {', '.join(sorted(some))}" for where, some in lacking if some)
            raise DataError(
                f"{first} and {path} have different classes ({only}), and what a set does not "
                "label would be background in it; name the `classes` or give a `mapping`"
            )


def _chosen(classes: Sequence[str], moves: Mapping[str, str]) -> dict[str, str]:
    """The classes that a user names, by their names in lower case."""
    names = {name.strip().lower(): name.strip() for name in classes}
    if not names or "" in names or len(names) < len(classes):
        raise UsageError(f"classes: {', '.join(classes)!r}: a class has no name or comes twice")
    for lower, target in moves.items():
        if target.lower() not in (*names, IGNORE, BACKGROUND):
            raise UsageError(
                f"mapping: {target!r} is none of the classes {', '.join(names.values())}, {IGNORE} or {BACKGROUND}"
            )
        if lower in names and target.lower() != lower:
            raise UsageError(f"mapping: {names[lower]!r} is one of the classes; leave one out")
    return names


def type_counts(samples: Iterable[Sample]) -> Counter[str]:
    """How many objects there are of each type, in lower case."""
    return Counter(t.lower() for sample in samples for t in sample.objects.types)


def dataset_warnings(dataset: Dataset, class_map: ClassMap, splits: Sequence[str] | None = None) -> tuple[str, ...]:
    """What a user should know before these data train or evaluate a detector, one sentence each.

    What ``class_warnings`` says, and of the splits that are used (every one when not given) those without
    an object, and labels made for images of another size (the headers of the images are read).
    """
    found = list(class_warnings(dataset, class_map))
    for split in splits if splits is not None else dataset.splits:
        samples = dataset.split(split) if splits is not None else dataset.splits[split]
        found += size_warnings(samples, split)
        if not any(class_map.has_objects(sample.objects) for sample in samples):
            found.append(without_objects(split))
    return tuple(found)


def without_objects(split: str) -> str:
    """What is said of a split without an object of any class."""
    what = "learned from it" if split == "train" else "measured there"
    return f"split {split!r} has no object of any class: nothing can be {what}"


def class_warnings(dataset: Dataset, class_map: ClassMap) -> tuple[str, ...]:
    """What becomes of types that are no class, and classes that lack objects, a sentence each."""
    counts = type_counts(dataset.samples())
    types = {t.lower(): t for t in reversed(dataset.types)}
    ids = dict(zip(types, class_map.class_ids(tuple(types)).tolist(), strict=True))
    found = []
    for lower in reversed(types):
        if class_map.is_region((lower,))[0] or is_dont_care(lower):
            continue
        name, objects = types[lower], counted(counts[lower], "object")
        if ids[lower] < 0 and counts[lower]:
            found.append(
                f"{name!r} is no class: {objects} learned as background; to change that, name "
                "it among the classes, or map it to one or to 'ignore'"
            )
        elif ids[lower] < 0:
            found.append(f"{name!r} has no object: it is no class")
        elif (learned := class_map.names[ids[lower]]).lower() != lower:
            found.append(f"{name!r} is learned as {learned!r} ({objects})")
    alive = {ids[t] for t in types if counts[t]}
    found += [f"class {name!r} has no object in these data" for k, name in enumerate(class_map.names) if k not in alive]
    for one in dataset.sources:
        seen = {ids[t.lower()] for t in one.types}
        found += [
            f"{one.path} labels no {name!r}: where its images show some, they are learned as background; "
            "cover them with areas DontCare, leave the class out of `classes`, or leave this data set out"
            for k, name in enumerate(class_map.names)
            if k in alive and k not in seen
        ]
    return tuple(found)
