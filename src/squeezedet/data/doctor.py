"""The doctor: reads all of a data set before a training, and says what would harm it.

Its checks are of files, boxes, classes, sizes and repeated images.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import area, clip, iou
from squeezedet.data.dataset import MAX_SKIPPED, Dataset, class_map_for, class_warnings, read_datasets, without_objects
from squeezedet.data.duplicates import MIN_CORRELATION, Look, look_at_all, twins
from squeezedet.data.folders import images_in
from squeezedet.data.sample import DONT_CARE, ClassMap, Sample, Skipped
from squeezedet.drawing import draw_boxes, encode_picture
from squeezedet.errors import DataError, UsageError
from squeezedet.files import IMAGE_SUFFIXES, make_folder, write_atomic
from squeezedet.media.images import read_image
from squeezedet.preprocess import InputRule
from squeezedet.text import align, counted

if TYPE_CHECKING:
    from PIL.Image import Image

EDGE_PX = 1.0  # labels that count pixels from 1, or to the last one, are no mistake
SAME_IOU = 0.95
MAX_PAIRS = 1000  # of one image are told
MANY_TIMES = 10
"""A class with so many times fewer objects than the largest is rare."""
SMALL_PX = 8.0
"""Half a cell of the feature map: what is narrower or lower is hardly seen."""
MANY_SMALL = 0.1
MAX_STRETCH = 1.1
TINY_IMAGE_PX = 64
NAMED = 8  # equal files whose names are told
SHOWN = 5  # places of a finding
QUANTILES = (0.05, 0.5, 0.95)
WORST = 4  # pictures of a check
JPEG_QUALITY = 88
GAP_PX = 8


Level = Literal["error", "warning", "note"]
"""Training would stop, learn wrongly or be measured wrongly; worth a look before hours are spent; good to know."""
LEVELS: tuple[Level, ...] = get_args(Level)


LEFT_OUT = "training leaves them out"
TOO_MANY = f"; more than {MAX_SKIPPED:.0%} of all labels: training refuses the data"
SEEN = "what is measured on them was seen in training; remove them from one split"
# How bad a fault is, what is counted of it, and what is said of so many.
CHECKS: dict[str, tuple[Level, str, str]] = {
    "unreadable-image": ("error", "image", "that cannot be decoded; replace or remove them"),
    "narrow-range": ("warning", "image", "of 16 bits with a narrow range of values: each is stretched by itself"),
    "malformed": ("error", "label", "malformed: training stops there; mend or remove them"),
    "no-area": ("warning", "label", f"whose box has no width or height: {LEFT_OUT}"),
    "no-image": ("warning", "label file", f"without an image: {LEFT_OUT}"),
    "no-label": ("warning", "image", f"without a label: {LEFT_OUT}"),
    "left-out": ("warning", "label", f"of no use: {LEFT_OUT}"),
    "unlisted-image": ("warning", "image", f"beside the others without a label, or in no split: {LEFT_OUT}"),
    "background-image": ("note", "image", "without any box: learned as background; was nothing in them forgotten?"),
    "outside": ("error", "box", "wholly outside the image: is the label of another image, or of another size?"),
    "beyond-edge": ("warning", "box", f"reaching more than {EDGE_PX:g} px beyond the image's edge: training cuts them"),
    "twice": ("warning", "box", f"where one object is labelled twice (one class, IoU above {SAME_IOU}); remove one"),
    "two-classes": ("warning", "box", f"where one object has two classes (IoU above {SAME_IOU}): decide for one"),
    "another-size": (
        "error",
        "image",
        "of another size than their labels say: the boxes are in the wrong place; scale or turn them back",
    ),
    "small": ("note", "box", "hardly seen at the input size; a larger input size keeps them"),
    "stretched": ("warning", "image", "stretched by up to {most:.2f} to fit the input: objects look wider or taller"),
    "tiny-image": ("warning", "image", f"with a side below {TINY_IMAGE_PX} px: a thumbnail?"),
    "leak": ("error", "image", f"in more than one split as equal files: {SEEN}"),
    "copies": ("warning", "image", "there more than once in one split, as equal files; keep the better labelled one"),
    "shared": ("error", "image", f"named by two splits: {SEEN}"),
    "near-leak": (
        "warning",
        "pair",
        f"of nearly the same picture in two splits (correlation from {MIN_CORRELATION:g}): what is measured on them "
        "was half seen in training; put both into one split",
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Location:
    """Where something was found.

    Attributes:
        name: for people: a file and its line, or the split and the id of an image.
        sample: the image, if there is one that can be shown.
        boxes: which of its boxes.
        other: a second image to see beside the first.
        badness: the worst is told first.
    """

    name: str
    sample: Sample | None = None
    boxes: tuple[int, ...] = ()
    other: Sample | None = None
    badness: float = 0.0

    def __str__(self) -> str:
        if not self.boxes:
            return self.name
        return f"{self.name} box{'es' * (len(self.boxes) > 1)} {', '.join(map(str, self.boxes))}"


Places = Mapping[str, list[Location]]


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """What one check found.

    Attributes:
        level: how bad it is.
        check: name of the check.
        count: how many boxes, images or classes are concerned.
        sentence: what is wrong, what it does to training, what to do.
        where: the worst first; empty if it concerns all of the data.
    """

    level: Level
    check: str
    count: int
    sentence: str
    where: tuple[Location, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Diagnosis:
    """A data set, what a look at each of its images showed, and what is wrong with it.

    Attributes:
        dataset: every sample of every split, and what its reader skipped.
        class_map: which types are learned.
        rule: which input size an image gets.
        looks: by path of the image; a text says why it cannot be decoded.
        findings: errors first, then warnings, then notes.
    """

    dataset: Dataset
    class_map: ClassMap
    rule: InputRule
    looks: Mapping[Path, Look | str]
    findings: list[Finding] = field(default_factory=list)

    def count(self, level: Level) -> int:
        """How many findings of a level there are."""
        return sum(finding.level == level for finding in self.findings)

    def samples(self) -> Iterator[tuple[str, Sample]]:
        """Each image once, with the first split that has it: splits may contain each other."""
        seen: set[Path] = set()
        for split, samples in self.dataset.splits.items():
            for sample in samples:
                if sample.image not in seen:
                    seen.add(sample.image)
                    yield split, sample

    def look(self, sample: Sample) -> Look | None:
        """What was seen of an image; None if it cannot be decoded."""
        look = self.looks[sample.image]
        return look if isinstance(look, Look) else None

    def scale(self, look: Look) -> NDArray[np.float64]:
        """(2,) how an image is scaled to the input, across and down."""
        return np.divide(self.rule.content(look.width, look.height), (look.width, look.height))

    def input_boxes(self, sample: Sample) -> NDArray[np.float64]:
        """(N, 2) width and height of each box in pixels of the input; 0 if the image is unreadable."""
        look = self.look(sample)
        size = np.maximum(sample.objects.xyxy[:, 2:] - sample.objects.xyxy[:, :2], 0).astype(np.float64)
        return np.asarray(size * (self.scale(look) if look else 0.0))

    def learned_counts(self, samples: Iterable[Sample]) -> Counter[str]:
        """Objects of each class that is learned."""
        ids = (c for sample in samples for c in self.class_map.targets(sample.objects)[0].tolist())
        return Counter(self.class_map.names[c] for c in ids if c >= 0)


def examine(
    data: Path | Sequence[Path],
    rule: InputRule,
    classes: Sequence[str] | None = None,
    mapping: Mapping[str, str] | None = None,
) -> Diagnosis:
    """Read every label and decode every image of a data set, and run all checks.

    Args:
        data: folder or file of a data set in any of the layouts; or several, which are
            examined as one.
        rule: which input size an image gets.
        classes: see ``class_map_for``.
        mapping: see ``class_map_for``.

    Raises:
        UsageError: see ``class_map_for`` and ``read_datasets``.
        DataError: nothing at all can be read: no data set, no image.
    """
    paths = [data] if isinstance(data, Path) else list(data)
    dataset = read_datasets(paths, strict=False, max_skipped=1.0)
    try:
        class_map = class_map_for(dataset, classes, mapping)
    except DataError:
        if not dataset.skipped:  # else the findings say why there is no class
            raise
        class_map = ClassMap((), regions=(DONT_CARE,))
    diagnosis = Diagnosis(dataset, class_map, rule, look_at_all(sample.image for sample in dataset.samples()))
    places: Places = defaultdict(list)
    for split, sample in diagnosis.samples():
        _check_image(diagnosis, f"{split}/{sample.id}", sample, places)
    for entry in dataset.skipped:
        places[_kind(entry)].append(Location(str(entry)))
    places["unlisted-image"] += _unlisted(diagnosis)
    _find_repeated(diagnosis, places)
    findings = [_finding(diagnosis, check, places[check]) for check in CHECKS if places[check]]
    findings += _class_findings(diagnosis)
    diagnosis.findings.extend(sorted(findings, key=lambda finding: LEVELS.index(finding.level)))
    return diagnosis


def _finding(diagnosis: Diagnosis, check: str, found: list[Location]) -> Finding:
    """All places of one check, the worst first."""
    level, unit, sentence = CHECKS[check]
    where = tuple(sorted(found, key=lambda place: -place.badness))
    count, head = len(where), counted(len(where), unit)
    if unit == "box":
        count = sum(len(place.boxes) for place in where)
        images = len({place.name for place in where})
        head = f"{counted(count, 'box', 'boxes')} in {counted(images, 'image')}"
    if check in ("no-area", "no-label", "no-image", "left-out") and _useless_are_too_many(diagnosis):
        level, sentence = "error", sentence + TOO_MANY
    if check == "small":
        shares = _small_shares(diagnosis, where)
        parts = ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if share)
        sentence = f"narrower or lower than {SMALL_PX:g} px at the input size ({parts} of all), {sentence}"
        level = "warning" if max(shares.values()) > MANY_SMALL else level
    return Finding(level, check, count, f"{head} {sentence.format(most=where[0].badness)}", where)


# ---------------------------------------------------------------- one image


def _check_image(diagnosis: Diagnosis, name: str, sample: Sample, places: Places) -> None:
    """What is wrong with one image and its boxes."""
    look = diagnosis.looks[sample.image]
    objects = sample.objects
    if not len(objects):
        places["background-image"].append(Location(name, sample))
    _check_boxes(diagnosis, name, sample, places)
    if isinstance(look, str):  # the sentence names the file
        places["unreadable-image"].append(Location(look))
        return
    if any("16-bit pixels of a narrow range" in note for note in look.notes):  # as cameras of heat write them
        places["narrow-range"].append(Location(name, sample))
    if sample.size and sample.size != (look.width, look.height):
        sizes = "{}x{}, labelled as {}x{}".format(look.width, look.height, *sample.size)
        places["another-size"].append(Location(f"{name}: {sizes}", sample))
    if min(look.width, look.height) < TINY_IMAGE_PX:
        places["tiny-image"].append(Location(name, sample))
    across, down = diagnosis.scale(look)
    stretch = max(across / down, down / across)
    if stretch > MAX_STRETCH:
        places["stretched"].append(Location(name, sample, badness=stretch))


def _check_boxes(diagnosis: Diagnosis, name: str, sample: Sample, places: Places) -> None:
    def mark(check: str, boxes: NDArray[np.bool_], badness: NDArray[np.floating]) -> None:
        if boxes.any():
            indices = tuple(np.flatnonzero(boxes).tolist())
            places[check].append(Location(name, sample, indices, badness=float(badness[boxes].max())))

    look = diagnosis.look(sample)
    xyxy, size = sample.objects.xyxy, sample.objects.xyxy[:, 2:] - sample.objects.xyxy[:, :2]
    solid = (size > 0).all(axis=1)
    learned = solid & (diagnosis.class_map.targets(sample.objects)[0] >= 0)
    if look:
        beyond = np.concatenate([-xyxy[:, :2], xyxy[:, 2:] - [look.width, look.height]], axis=1).max(axis=1, initial=0)
        gone = solid & (area(clip(xyxy, look.width, look.height)) <= 0)
        mark("outside", gone, beyond)
        mark("beyond-edge", solid & ~gone & (beyond > EDGE_PX), beyond)
        small = learned & (diagnosis.input_boxes(sample) < SMALL_PX).any(axis=1)
        mark("small", small, np.full(len(small), small.sum(), float))
    class_id = diagnosis.class_map.class_ids(sample.objects.types)
    for i, j, overlap in _alike(xyxy, np.flatnonzero(learned)):
        check = "twice" if class_id[i] == class_id[j] else "two-classes"
        places[check].append(Location(name, sample, (i, j), badness=overlap))


def _alike(xyxy: NDArray[np.float32], chosen: NDArray[np.intp]) -> Iterator[tuple[int, int, float]]:
    """At most ``MAX_PAIRS`` pairs of the chosen boxes that are nearly the same box, and their IoU.

    Boxes whose left sides are far apart are never compared: thousands in an image cost no square
    of memory.
    """
    order = chosen[np.argsort(xyxy[chosen, 0], kind="stable")]
    left, width = xyxy[order, 0], xyxy[order, 2] - xyxy[order, 0]
    # With a larger IoU the left sides differ by less than this share of the width.
    last = np.searchsorted(left, left + width * (1 / SAME_IOU - 1 + 1e-3), side="right")
    told = 0
    for k, end in enumerate(last.tolist()):
        near = order[k + 1 : end]
        if not len(near):
            continue
        overlaps = iou(xyxy[order[k : k + 1]], xyxy[near])[0]
        for other in np.flatnonzero(overlaps > SAME_IOU).tolist():
            i, j = sorted((int(order[k]), int(near[other])))
            yield i, j, float(overlaps[other])
            told += 1
            if told == MAX_PAIRS:
                return


def _small_shares(diagnosis: Diagnosis, where: Sequence[Location]) -> dict[str, float]:
    """Share of the objects of each class that are small."""
    names = diagnosis.class_map.names
    total = diagnosis.learned_counts(sample for _, sample in diagnosis.samples())
    small = Counter[str]()
    for place in where:
        assert place.sample is not None  # noqa: S101 (boxes have one)
        class_id = diagnosis.class_map.targets(place.sample.objects)[0]
        small.update(names[class_id[box]] for box in place.boxes)
    return {name: small[name] / total[name] for name in names if total[name]}


# ------------------------------------------------------------ what is left out


def _kind(entry: Skipped) -> str:
    """The check that an entry of the reader's list belongs to."""
    if entry.malformed:
        return "malformed"
    if entry.file.suffix.lower() in IMAGE_SUFFIXES:
        return "no-label"
    if "no area" in entry.reason:
        return "no-area"
    return "no-image" if "no image" in entry.reason else "left-out"


def _useless_are_too_many(diagnosis: Diagnosis) -> bool:
    labels = sum(len(sample.objects) for _, sample in diagnosis.samples())
    useless = sum(not entry.malformed for entry in diagnosis.dataset.skipped)
    return useless > MAX_SKIPPED * (labels + useless)


def _unlisted(diagnosis: Diagnosis) -> Iterator[Location]:
    """Images beside those of the data that neither a split nor the reader's list names."""
    known = {path.resolve() for path in diagnosis.looks}
    known |= {entry.file.resolve() for entry in diagnosis.dataset.skipped}
    for folder in sorted({path.parent for path in diagnosis.looks}):
        for path in images_in(folder, deep=False):
            if path.resolve() not in known:
                yield Location(str(path))


# ----------------------------------------------------------- repeated images


def _find_repeated(diagnosis: Diagnosis, places: Places) -> None:
    """Equal files, files that two splits name, and pictures that are nearly the same in two splits."""
    members: dict[bytes, list[tuple[str, Sample]]] = defaultdict(list)
    for split, sample in diagnosis.samples():
        if look := diagnosis.look(sample):
            members[look.digest].append((split, sample))
    for group in members.values():
        if len(group) > 1:
            name = " = ".join(f"{split}/{sample.id}" for split, sample in group[:NAMED])
            more = f" and {len(group) - NAMED:,} more" if len(group) > NAMED else ""
            check = "leak" if len({split for split, _ in group}) > 1 else "copies"
            places[check].append(Location(name + more, group[0][1], other=group[1][1]))
    splits = diagnosis.dataset.splits
    images = {split: {sample.image for sample in samples} for split, samples in splits.items()}
    for one, other in combinations(splits, 2):
        if images[one] <= images[other] or images[other] <= images[one]:
            continue  # as trainval holds train
        shared = images[one] & images[other]
        places["shared"] += [Location(f"{one}/{s.id} = {other}/{s.id}", s) for s in splits[one] if s.image in shared]
        here, there = ([(s, look) for s in splits[split] if (look := diagnosis.look(s))] for split in (one, other))
        for i, j, alike in twins([look for _, look in here], [look for _, look in there]):
            a, b = here[i][0], there[j][0]
            name = f"{one}/{a.id} ~ {other}/{b.id} ({alike:.2f})"
            places["near-leak"].append(Location(name, a, other=b, badness=alike))


# ------------------------------------------------------------------- classes


def _class_findings(diagnosis: Diagnosis) -> Iterator[Finding]:
    """The balance of classes, splits and classes without an object, what types are learned as."""
    learned = {split: diagnosis.learned_counts(samples) for split, samples in diagnosis.dataset.splits.items()}
    train = "train" if "train" in learned else next(iter(learned))
    if not learned[train]:
        yield Finding("error", "no-objects", 0, f"split {train!r} has no object of any class: nothing can be learned")
    else:
        largest, most = learned[train].most_common(1)[0]
        rare = {n: learned[train][n] for n in diagnosis.class_map.names if learned[train][n] * MANY_TIMES <= most}
        if rare:
            few = ", ".join(f"{name} {number:,}" for name, number in rare.items())
            sentence = (
                f"{counted(len(rare), 'class', 'classes')} with a tenth or less of the {most:,} objects of {largest} "
                f"in split {train!r}: {few}; expect a low recall there, add images of them or drop the class"
            )
            yield Finding("warning", "imbalance", len(rare), sentence)
    for split, counts in learned.items():
        if split == train:
            continue
        if not counts:
            yield Finding("warning", "unjudged", 1, without_objects(split))
            continue
        unseen = [name for name in counts if not learned[train][name]]
        silent = [name for name in learned[train] if not counts[name]]
        for names, sentence in (
            (unseen, f"in split {split!r} and not in {train!r}: it is evaluated and never learned"),
            (silent, f"in split {train!r} and not in {split!r}: nothing is measured of it there"),
        ):
            if names:
                which = f"{counted(len(names), 'class', 'classes')} ({', '.join(names)})"
                yield Finding("warning", "one-sided", len(names), f"{which} {sentence}")
    for sentence in class_warnings(diagnosis.dataset, diagnosis.class_map):
        yield Finding("warning", "classes", 1, sentence)


# --------------------------------------------------- text, record and pictures


def describe(diagnosis: Diagnosis) -> str:
    """Tables of what is there, then each finding with its first places."""
    dataset = diagnosis.dataset
    images, boxes = len(diagnosis.looks), sum(len(s.objects) for _, s in diagnosis.samples())
    sizes = [
        (name, *(f"{value:.0f}" for value in (*width, *height)))
        for name, (width, height) in _quantiles(diagnosis).items()
    ]
    parts = [
        f"{dataset.path}: {dataset.layout} layout, {images:,} images, {boxes:,} boxes",
        align(_counts(diagnosis), left=(0, 1), indent="  "),
        "sizes in pixels: 5 %, median, 95 % (boxes at the input size)",
        align([("", "width", "", "", "height", "", ""), *sizes], indent="  "),
        *dataset.notes,
        *(_described(finding) for finding in diagnosis.findings),
        ", ".join(f"{diagnosis.count(level)} {level}s" for level in LEVELS),
    ]
    return "\n".join(parts)


def _counts(diagnosis: Diagnosis) -> list[tuple[str, ...]]:
    """A row per type, a column per split; also what becomes of the type."""
    splits, class_map = diagnosis.dataset.splits, diagnosis.class_map
    counts = {split: _type_counts(samples) for split, samples in splits.items()}

    def learned_as(name: str) -> str:
        if class_map.is_region((name,))[0]:
            return "(region)"
        class_id = int(class_map.class_ids((name,))[0])
        return class_map.names[class_id] if class_id >= 0 else "(background)"

    types = dict.fromkeys([*diagnosis.dataset.types, *(t for found in counts.values() for t in found)])
    return [
        ("type", "learned as", *splits),
        *((t, learned_as(t), *(f"{found[t]:,}" for found in counts.values())) for t in types),
        ("images", "", *(f"{len(samples):,}" for samples in splits.values())),
        ("  without boxes", "", *(f"{sum(not len(s.objects) for s in samples):,}" for samples in splits.values())),
    ]


def _type_counts(samples: Iterable[Sample]) -> Counter[str]:
    """Boxes of each type as the labels write it."""
    return Counter(t for sample in samples for t in sample.objects.types)


def _quantiles(diagnosis: Diagnosis) -> dict[str, tuple[list[float], ...]]:
    """Quantiles of width and of height: of the images, and of each class's objects at the input size."""
    sizes, ids = [np.empty((0, 2))], [np.empty(0, np.int64)]
    for _, sample in diagnosis.samples():
        sizes.append(diagnosis.input_boxes(sample))
        ids.append(np.where((sizes[-1] > 0).all(axis=1), diagnosis.class_map.targets(sample.objects)[0], -1))
    size, class_id = np.concatenate(sizes), np.concatenate(ids)
    seen = [(look.width, look.height) for look in diagnosis.looks.values() if isinstance(look, Look)]
    table = {"images": np.array(seen, dtype=float)}
    table |= {name: size[class_id == c] for c, name in enumerate(diagnosis.class_map.names)}
    return {
        name: tuple(np.quantile(side, QUANTILES).tolist() for side in some.T)
        for name, some in table.items()
        if len(some)
    }


def _described(finding: Finding) -> str:
    lines = [f"{finding.level}: {finding.check}: {finding.sentence}"]
    lines += [f"    {place}" for place in finding.where[:SHOWN]]
    if len(finding.where) > SHOWN:
        lines.append(f"    and {len(finding.where) - SHOWN:,} more")
    return "\n".join(lines)


def to_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    """Everything, with every place of every finding, for JSON; boxes are numbered from 0."""
    quantiles = {
        name: {"width_px": width, "height_px": height} for name, (width, height) in _quantiles(diagnosis).items()
    }
    return {
        "data": str(diagnosis.dataset.path),
        "layout": diagnosis.dataset.layout,
        "splits": {
            split: {
                "images": len(samples),
                "images_without_boxes": sum(not len(s.objects) for s in samples),
                "types": dict(sorted(_type_counts(samples).items())),
                "classes": dict(sorted(diagnosis.learned_counts(samples).items())),
            }
            for split, samples in diagnosis.dataset.splits.items()
        },
        "quantiles": {"of": list(QUANTILES), **quantiles},
        "notes": list(diagnosis.dataset.notes),
        "levels": {level: diagnosis.count(level) for level in LEVELS},
        "findings": [
            {
                "level": found.level,
                "check": found.check,
                "count": found.count,
                "sentence": found.sentence,
                "where": [str(place) for place in found.where],
            }
            for found in diagnosis.findings
        ],
    }


def write_pictures(folder: Path, diagnosis: Diagnosis) -> list[Path]:
    """Write ``CHECK-1.jpg``, ``CHECK-2.jpg``, ..., the worst first.

    Raises:
        UsageError: the folder holds images of the data, or cannot be made.
        SqueezeDetError: a file cannot be written.
    """
    if folder.resolve() in {path.parent.resolve() for path in diagnosis.looks}:
        raise UsageError(f"{folder}: holds images of the data; name another folder for `pictures`")
    make_folder(folder)
    written: list[Path] = []
    for finding in diagnosis.findings:
        shown = [p for p in finding.where if p.sample is not None and diagnosis.look(p.sample)]
        for number, place in enumerate(shown[:WORST], start=1):
            written.append(folder / f"{finding.check}-{number}.jpg")
            write_atomic(written[-1], encode_picture(_picture(place), quality=JPEG_QUALITY))
    return written


def _picture(place: Location) -> Image:
    """The image with the boxes in question, all of them if none is; a twin stands below it."""
    from PIL import Image

    assert place.sample is not None  # noqa: S101 (the caller chose those with a sample)
    above = _drawn(place.sample, place.boxes)
    if place.other is None:
        return above
    below = _drawn(place.other, ())
    both = Image.new("RGB", (max(above.width, below.width), above.height + GAP_PX + below.height), "white")
    both.paste(above, (0, 0))
    both.paste(below, (0, above.height + GAP_PX))
    return both


def _drawn(sample: Sample, boxes: tuple[int, ...]) -> Image:
    chosen = list(boxes) or list(range(len(sample.objects)))
    types = [sample.objects.types[i] for i in chosen]
    return draw_boxes(
        read_image(sample.image).pixels,
        sample.objects.xyxy[chosen],
        [f"{i} {name}" for i, name in zip(chosen, types, strict=True)],
        np.array([sorted(set(types)).index(name) for name in types], dtype=np.int64),
    )
