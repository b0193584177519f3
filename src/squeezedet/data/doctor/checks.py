"""The checks: what of files, boxes, classes, sizes and repeated images would harm a training.

A picture of which training saw a twin says nothing about what a detector has learned, so a twin
across splits is a leak. Two steps find it:

1. A difference hash: 16x16 bits, is a cell brighter than its left neighbor? Pairs of images with
   at most 64 of 256 bits unlike are candidates (chance gives 128 +- 8).
2. The correlation of two 34x32 thumbnails without their coarse brightness (a box blur of 9 is
   subtracted): fog and a bright sky are alike everywhere, edges are not. 0.6 is a twin.

On a set of KITTI drives and fog photographs true pairs (one standing camera, two times) have 0.70
and more, the best false one 0.56. Mirrored twins count. What is cropped, or turned, or a second of
driving away, is not found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import area, clip, iou
from squeezedet.data.dataset import MAX_SKIPPED, class_map_for, class_warnings, read_datasets, without_objects
from squeezedet.data.doctor.survey import Finding, Level, Location, Survey, look_at_all
from squeezedet.data.folders import images_in
from squeezedet.data.sample import DONT_CARE, ClassMap, Sample, Skipped
from squeezedet.errors import DataError
from squeezedet.files import IMAGE_SUFFIXES
from squeezedet.preprocess import InputRule
from squeezedet.text import counted

EDGE_PX = 1.0  # labels that count pixels from 1, or to the last one, are no mistake
SAME_IOU = 0.95
MAX_PAIRS = 1000  # of one image are told
LONG = 8.0
MANY_TIMES = 10
"""A class with so many times fewer objects than the largest is rare."""
SMALL_PX = 8.0
"""Half a cell of the feature map: what is narrower or lower is hardly seen."""
MANY_SMALL = 0.1
MAX_STRETCH = 1.1
TINY_IMAGE_PX = 64
MAX_UNLIKE_BITS = 64
MIN_CORRELATION = 0.6
BLUR = 9
NAMED = 8  # equal files whose names are told
MAX_TWINS = 20  # of one picture: a camera that never moves has many
FLAT = 1e-6  # a thumbnail with less detail has none but rounding

MALFORMED = "malformed"
LEFT_OUT = "training leaves them out"
# What one is called, what many are, and what is wrong with them.
KINDS: dict[str, tuple[str, str, str]] = {
    MALFORMED: ("label", "labels", "malformed: training stops there; mend or remove them"),
    "no-area": ("box", "boxes", f"without width or height: {LEFT_OUT}"),
    "no-label": ("image", "images", f"without a label: {LEFT_OUT}"),
    "no-image": ("label file", "label files", f"without an image: {LEFT_OUT}"),
    "left-out": ("label", "labels", f"of no use: {LEFT_OUT}"),
}

Bits = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Diagnosis:
    """What the doctor found.

    Attributes:
        survey: what was looked at.
        findings: errors first, then warnings, then notes.
    """

    survey: Survey
    findings: Sequence[Finding]

    def count(self, level: Level) -> int:
        """How many findings of a level there are."""
        return sum(finding.level is level for finding in self.findings)


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
    survey = Survey(dataset, class_map, rule, look_at_all(sample.image for sample in dataset.samples()))
    findings = [finding for check in CHECKS for finding in check(survey)]
    levels = list(Level)
    return Diagnosis(survey, sorted(findings, key=lambda finding: levels.index(finding.level)))


def _finding(level: Level, check: str, where: Iterable[Location], head: str, sentence: str) -> Iterator[Finding]:
    """A finding of these places, the worst first; none where there is no place.

    Args:
        level: how bad it is.
        check: its name.
        where: the places.
        head: what a place is, for a counted sentence.
        sentence: what is wrong with it.
    """
    places = tuple(sorted(where, key=lambda place: -place.badness))
    if places:
        yield Finding(level, check, places, len(places), f"{counted(len(places), head)} {sentence}")


def _box_finding(level: Level, check: str, where: Iterable[Location], sentence: str) -> Iterator[Finding]:
    """The same of boxes, which are counted instead of the places."""
    places = tuple(sorted(where, key=lambda place: -place.badness))
    if places:
        boxes = sum(len(place.boxes) for place in places)
        images = len({place.name for place in places})
        head = f"{counted(boxes, 'box', 'boxes')} in {counted(images, 'image')}"
        yield Finding(level, check, places, boxes, f"{head} {sentence}")


def _place(split: str, sample: Sample, boxes: NDArray[np.bool_] | None = None, badness: float = 0.0) -> Location:
    """The place of an image, or of the marked ones of its boxes."""
    marked = () if boxes is None else tuple(np.flatnonzero(boxes).tolist())
    return Location(f"{split}/{sample.id}", sample, marked, badness=badness)


# ----------------------------------------------------------------------- files


def _undecodable(survey: Survey) -> Iterator[Finding]:
    # The place is the sentence, which names the file.
    looks = [survey.looks[sample.image] for _, sample in survey.samples()]
    found = [Location(reason) for reason in looks if isinstance(reason, str)]
    sentence = "that cannot be decoded; replace or remove them"
    return _finding(Level.error, "unreadable-image", found, "image", sentence)


def _narrow(survey: Survey) -> Iterator[Finding]:
    """16-bit images that use a small part of their range, as cameras of heat write them."""
    found = [_place(split, s) for split, s, look in survey.seen() if any("16-bit" in note for note in look.notes)]
    sentence = (
        "of 16 bits with a narrow range of values: each is stretched by itself, and one value means "
        "another brightness in each"
    )
    return _finding(Level.warning, "narrow-range", found, "image", sentence)


def _left_out(survey: Survey) -> Iterator[Finding]:
    """What the reader left out, by kind."""
    kinds: dict[str, list[Skipped]] = defaultdict(list)
    for entry in survey.dataset.skipped:
        kinds[_kind(entry)].append(entry)
    labels = sum(len(sample.objects) for _, sample in survey.samples())
    useless = sum(len(entries) for kind, entries in kinds.items() if kind != MALFORMED)
    too_many = useless > MAX_SKIPPED * (labels + useless)
    for kind, entries in kinds.items():
        one, many, wrong = KINDS[kind]
        sentence = f"{counted(len(entries), one, many)} {wrong}"
        if too_many and kind != MALFORMED:
            sentence += f"; more than {MAX_SKIPPED:.0%} of all labels: training refuses the data"
        level = Level.error if too_many or kind == MALFORMED else Level.warning
        yield Finding(level, kind, tuple(Location(str(entry)) for entry in entries), len(entries), sentence)


def _kind(entry: Skipped) -> str:
    """The check that an entry of the reader's list belongs to."""
    if entry.malformed:
        return MALFORMED
    if entry.file.suffix.lower() in IMAGE_SUFFIXES:
        return "no-label"
    if "no area" in entry.reason:
        return "no-area"
    return "no-image" if "no image" in entry.reason else "left-out"


def _unlisted(survey: Survey) -> Iterator[Finding]:
    """Images beside those of the data that neither a split nor the reader's list names."""
    known = {sample.image.resolve() for _, sample in survey.samples()}
    known |= {entry.file.resolve() for entry in survey.dataset.skipped}
    folders = sorted({sample.image.parent for _, sample in survey.samples()})
    beside = (path for folder in folders if folder.is_dir() for path in images_in(folder, deep=False))
    found = [Location(str(path)) for path in beside if path.resolve() not in known]
    sentence = "beside the others without a label, or in no split; they take no part in training"
    return _finding(Level.warning, "unlisted-image", found, "image", sentence)


def _empty(survey: Survey) -> Iterator[Finding]:
    found = [_place(split, s) for split, s in survey.samples() if not len(s.objects)]
    sentence = "without any box: learned as background; make sure that nothing in them was forgotten"
    return _finding(Level.note, "background-image", found, "image", sentence)


# ----------------------------------------------------------------------- boxes


def _outside(survey: Survey) -> Iterator[Finding]:
    """Boxes beyond the image's edge, and boxes that do not touch the image at all."""
    partly: list[Location] = []
    wholly: list[Location] = []
    for split, sample, look in survey.seen():
        xyxy = sample.objects.xyxy
        beyond = np.concatenate([-xyxy[:, :2], xyxy[:, 2:] - [look.width, look.height]], axis=1)
        solid = area(xyxy) > 0
        gone = solid & (area(clip(xyxy, look.width, look.height)) <= 0)
        over = solid & ~gone & (beyond > EDGE_PX).any(axis=1)
        for bad, found in ((gone, wholly), (over, partly)):
            if bad.any():
                found.append(_place(split, sample, bad, float(beyond[bad].max())))
    sentence = "wholly outside the image: is the label that of another image, or of another size?"
    yield from _box_finding(Level.error, "outside", wholly, sentence)
    sentence = f"reaching more than {EDGE_PX:g} px beyond the image's edge: training cuts them there"
    yield from _box_finding(Level.warning, "beyond-edge", partly, sentence)


def _twice(survey: Survey) -> Iterator[Finding]:
    """Two boxes on one object: of one class, or of two classes."""
    same: list[Location] = []
    other: list[Location] = []
    for split, sample in survey.samples():
        objects = sample.objects
        chosen = np.flatnonzero(survey.learned(sample) & (area(objects.xyxy) > 0))
        class_id = survey.class_map.class_ids(objects.types)
        for i, j, overlap in _alike(objects.xyxy, chosen):
            found = same if class_id[i] == class_id[j] else other
            found.append(Location(f"{split}/{sample.id}", sample, (i, j), badness=overlap))
    sentence = (
        f"where one object is labelled twice (one class, IoU above {SAME_IOU}): every detector "
        "misses one of the two; remove it"
    )
    yield from _box_finding(Level.warning, "twice", same, sentence)
    sentence = f"where one object has two classes (IoU above {SAME_IOU}): decide for one"
    yield from _box_finding(Level.warning, "two-classes", other, sentence)


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


def _long(survey: Survey) -> Iterator[Finding]:
    found = []
    for split, sample in survey.samples():
        size = sample.objects.xyxy[:, 2:] - sample.objects.xyxy[:, :2]
        solid = survey.learned(sample) & (size > 0).all(axis=1)
        ratio = size.max(axis=1, initial=0) / np.where(solid, size.min(axis=1, initial=np.inf), 1)
        long = solid & (ratio > LONG)
        if long.any():
            found.append(_place(split, sample, long, float(ratio[long].max())))
    sentence = f"with one side more than {LONG:g} times the other: often a slip, or cut by the edge"
    return _box_finding(Level.note, "long", found, sentence)


# --------------------------------------------------------------------- classes


def type_counts(survey: Survey, split: str) -> Counter[str]:
    """Boxes of each type as the labels write it."""
    return Counter(t for sample in survey.splits[split] for t in sample.objects.types)


def learned_counts(survey: Survey, split: str) -> Counter[str]:
    """Objects of each class that is learned."""
    ids = (c for s in survey.splits[split] for c in survey.class_map.targets(s.objects)[0].tolist())
    return Counter(survey.class_map.names[c] for c in ids if c >= 0)


def _classes(survey: Survey) -> Iterator[Finding]:
    """The balance of classes, splits and classes without an object, what types are learned as."""
    train = survey.training_split
    learned = {split: learned_counts(survey, split) for split in survey.splits}
    yield from _balance(survey, train, learned[train])
    for split, counts in learned.items():
        if split == train:
            continue
        if not counts:
            yield Finding(Level.warning, "unjudged", (), 1, without_objects(split))
            continue
        unseen = [name for name in counts if not learned[train][name]]
        silent = [name for name in learned[train] if not counts[name]]
        for names, sentence in (
            (unseen, f"in split {split!r} and not in {train!r}: it is evaluated and never learned"),
            (silent, f"in split {train!r} and not in {split!r}: nothing is measured of it there"),
        ):
            if names:
                which = f"{counted(len(names), 'class', 'classes')} ({', '.join(names)})"
                yield Finding(Level.warning, "one-sided", (), len(names), f"{which} {sentence}")
    for sentence in class_warnings(survey.dataset, survey.class_map):
        yield Finding(Level.warning, "classes", (), 1, sentence)


def _balance(survey: Survey, split: str, counts: Counter[str]) -> Iterator[Finding]:
    if not counts:
        sentence = f"split {split!r} has no object of any class: nothing can be learned"
        yield Finding(Level.error, "no-objects", (), 0, sentence)
        return
    largest, most = counts.most_common(1)[0]
    rare = {n: counts[n] for n in survey.class_map.names if counts[n] * MANY_TIMES <= most}
    if rare:
        few = ", ".join(f"{name} {number:,}" for name, number in rare.items())
        sentence = (
            f"{counted(len(rare), 'class', 'classes')} with a tenth or less of the {most:,} objects of "
            f"{largest} in split {split!r}: {few}; expect a low recall there, add images of them or drop "
            "the class"
        )
        yield Finding(Level.warning, "imbalance", (), len(rare), sentence)


# ----------------------------------------------------------------------- sizes


def _another_size(survey: Survey) -> Iterator[Finding]:
    """Images that were scaled after they were labelled, or whose labels know no EXIF turn."""
    found = []
    for split, sample, look in survey.seen():
        if sample.size and sample.size != (look.width, look.height):
            sizes = "{}x{}, labelled as {}x{}".format(look.width, look.height, *sample.size)
            found.append(Location(f"{split}/{sample.id}: {sizes}", sample))
    sentence = (
        "of another size than the labels say: the boxes are in the wrong place; scale or turn the "
        "image as it was when it was labelled"
    )
    return _finding(Level.error, "another-size", found, "image", sentence)


def _small_objects(survey: Survey) -> Iterator[Finding]:
    small: Counter[str] = Counter()
    total: Counter[str] = Counter()
    found = []
    names = survey.class_map.names
    for split, sample in survey.samples():
        size = survey.input_boxes(sample)
        class_id = survey.class_map.class_ids(sample.objects.types)
        seen = survey.learned(sample) & (size > 0).all(axis=1)
        lost = seen & (size < SMALL_PX).any(axis=1)
        total.update(names[c] for c in class_id[seen].tolist())
        small.update(names[c] for c in class_id[lost].tolist())
        if lost.any():
            found.append(_place(split, sample, lost, int(lost.sum())))
    if not found:
        return
    found.sort(key=lambda place: -place.badness)
    shares = {name: small[name] / total[name] for name in names if total[name]}
    parts = ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if share)
    sentence = (
        f"{small.total():,} of {counted(total.total(), 'object')} narrower or lower than {SMALL_PX:g} px at "
        f"the input size ({parts}), hardly seen; a larger input size keeps them"
    )
    level = Level.warning if max(shares.values()) > MANY_SMALL else Level.note
    yield Finding(level, "small", tuple(found), small.total(), sentence)


def _stretched(survey: Survey) -> Iterator[Finding]:
    found = []
    for split, sample, look in survey.seen():
        across, down = survey.scale(look)
        stretch = max(across / down, down / across)
        if stretch > MAX_STRETCH:
            found.append(_place(split, sample, badness=stretch))
    most = max((place.badness for place in found), default=1)
    sentence = f"stretched by up to {most:.2f} to fit the input: objects look wider or taller than they are"
    return _finding(Level.warning, "stretched", found, "image", sentence)


def _tiny_images(survey: Survey) -> Iterator[Finding]:
    found = [_place(split, s) for split, s, look in survey.seen() if min(look.width, look.height) < TINY_IMAGE_PX]
    sentence = f"with a side below {TINY_IMAGE_PX} px: a thumbnail?"
    return _finding(Level.warning, "tiny-image", found, "image", sentence)


# ----------------------------------------------------------------------- leaks


def _same_bytes(survey: Survey) -> Iterator[Finding]:
    """Files that are equal: in splits that must not share images, and elsewhere."""
    members: dict[bytes, list[tuple[str, Sample]]] = defaultdict(list)
    for split, sample, look in survey.seen():
        members[look.digest].append((split, sample))
    leaks: list[Location] = []
    copies: list[Location] = []
    for group in members.values():
        if len(group) > 1:
            found = leaks if len({split for split, _ in group}) > 1 else copies
            name = " = ".join(f"{split}/{sample.id}" for split, sample in group[:NAMED])
            more = f" and {len(group) - NAMED:,} more" if len(group) > NAMED else ""
            found.append(Location(name + more, group[0][1], other=group[1][1]))
    sentence = (
        "in more than one split as equal files: what is measured on them was seen in training; "
        "remove them from one split"
    )
    yield from _finding(Level.error, "leak", leaks, "image", sentence)
    sentence = "there more than once in one split, as equal files; keep one of each, with the better labels"
    yield from _finding(Level.warning, "copies", copies, "image", sentence)


def _shared_images(survey: Survey) -> Iterator[Finding]:
    """One file that two splits name, unless one split holds all of the other."""
    found = []
    for one, other in _pairs_of_splits(survey):
        shared = {s.image for s in survey.splits[one]} & {s.image for s in survey.splits[other]}
        found += [Location(f"{one}/{s.id} = {other}/{s.id}", s) for s in survey.splits[one] if s.image in shared]
    sentence = "named by two splits: what is measured on them was seen in training; remove them from one split"
    return _finding(Level.error, "shared", found, "image", sentence)


def _pairs_of_splits(survey: Survey) -> list[tuple[str, str]]:
    """Pairs of which none holds all of the other, as trainval holds train."""
    images = {split: {s.image for s in samples} for split, samples in survey.splits.items()}
    return [(a, b) for a, b in combinations(images, 2) if not (images[a] <= images[b] or images[b] <= images[a])]


def _twins(survey: Survey) -> Iterator[Finding]:
    """Pairs of nearly the same picture in two splits."""
    found = []
    described = {split: _Pictures(survey, split) for split in survey.splits}
    for one, other in _pairs_of_splits(survey):
        for a, b, alike in described[one].twins(described[other]):
            name = f"{one}/{a.id} ~ {other}/{b.id} ({alike:.2f})"
            found.append(Location(name, a, other=b, badness=alike))
    sentence = (
        f"of nearly the same picture in two splits (correlation from {MIN_CORRELATION:g}): what is "
        "measured on them was half seen in training; put both into one split"
    )
    return _finding(Level.warning, "near-leak", found, "pair", sentence)


class _Pictures:
    """The images of one split in the form in which they are compared."""

    def __init__(self, survey: Survey, split: str) -> None:
        seen = [(s, look) for s in survey.splits[split] if (look := survey.look(s)) is not None]
        self.samples = [sample for sample, _ in seen]
        self.digests = np.array([look.digest for _, look in seen], dtype="V16")
        self.grey = np.array([look.grey for _, look in seen], dtype=np.uint8).reshape(-1, 32, 34)

    def twins(self, others: _Pictures) -> Iterator[tuple[Sample, Sample, float]]:
        """Nearly equal pictures here and there, and their correlation; the best of each here."""
        mine, theirs = difference_hash(self.grey), difference_hash(others.grey)
        mirrored = difference_hash(others.grey[..., ::-1])
        fine = fine_detail(others.grey)
        for i, sample in enumerate(self.samples):
            near = _near(mine[i], theirs), _near(mine[i], mirrored)
            # Equal files are told elsewhere.
            chosen = np.flatnonzero((near[0] | near[1]) & (others.digests != self.digests[i]))
            if not len(chosen):
                continue
            own = fine_detail(self.grey[i : i + 1])[0]
            straight, turned = (
                np.where(close[chosen], (fine[chosen] * picture).sum(axis=(1, 2)), -1)
                for close, picture in zip(near, (own, own[:, ::-1]), strict=True)
            )
            alike = np.maximum(straight, turned)
            for k in np.argsort(-alike, kind="stable")[:MAX_TWINS]:
                if alike[k] >= MIN_CORRELATION:
                    yield sample, others.samples[chosen[k]], float(alike[k])


def difference_hash(grey: NDArray[np.uint8]) -> Bits:
    """(N, 32, 34) thumbnails to (N, 4) words of 16x16 bits: brighter than the cell to its left."""
    cells = grey.reshape(-1, 16, 2, 17, 2).sum(axis=(2, 4), dtype=np.int64)
    bits = cells[:, :, 1:] > cells[:, :, :-1]
    return np.packbits(bits.reshape(-1, 256), axis=1).view(np.uint64)


def _near(one: Bits, many: Bits) -> NDArray[np.bool_]:
    """(4,) words of one hash and (M, 4) of others: (M,) True where few bits are unlike."""
    unlike = np.bitwise_count(many ^ one).sum(axis=1, dtype=np.int64)
    return np.asarray(unlike <= MAX_UNLIKE_BITS)


def fine_detail(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 32, 34) thumbnails less their coarse brightness, with mean 0 and length 1.

    The product of two, summed, is their correlation, -1 to 1. A thumbnail that has nothing but
    coarse brightness is 0 everywhere.
    """
    fine = np.empty(grey.shape, dtype=np.float32)
    for k, picture in enumerate(grey.astype(np.float64)):
        padded = np.pad(picture, BLUR // 2, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (BLUR, BLUR))
        detail = picture - windows.mean(axis=(2, 3))
        detail -= detail.mean()
        length = float(np.linalg.norm(detail))
        fine[k] = detail / length if length > FLAT else 0
    return fine


CHECKS = (
    _undecodable, _narrow, _left_out, _unlisted, _empty, _outside, _twice, _long, _classes,
    _another_size, _small_objects, _stretched, _tiny_images, _same_bytes, _shared_images, _twins,
)  # fmt: skip
