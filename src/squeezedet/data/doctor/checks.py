"""The checks of files, boxes, classes and sizes; each makes findings of a survey."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import area, clip, iou
from squeezedet.data.dataset import MAX_SKIPPED, Skipped, class_warnings, without_objects
from squeezedet.data.doctor.survey import Finding, Level, Location, Survey, place, some
from squeezedet.data.folders import images_in
from squeezedet.data.sample import Sample
from squeezedet.files import IMAGE_SUFFIXES

EDGE_PX = 1.0  # labels that count pixels from 1, or to the last one, are no mistake
SAME_IOU = 0.95
LONG = 8.0
MAX_PAIRS = 1000

Worst = list[tuple[float, Location]]
"""Places and how bad each is."""


def check_boxes(survey: Survey) -> list[Finding]:
    """All findings about single boxes."""
    return [*_outside(survey), *_twice(survey), *_long(survey)]


def _finding(level: Level, name: str, found: Worst, sentence: str) -> Iterable[Finding]:
    """A finding of the boxes found, the worst first; none if there is nothing."""
    if found:
        where = [where for _, where in sorted(found, key=lambda pair: -pair[0])]
        count = sum(len(where.boxes) for where in where)
        images = len({where.name for where in where})
        head = f"{some(count, 'box', 'boxes')} in {some(images, 'image')}"
        yield Finding(level, name, tuple(where), count, f"{head} {sentence}")


def _outside(survey: Survey) -> Iterable[Finding]:
    """Boxes beyond the image's edge, and boxes that do not touch the image at all."""
    partly: Worst = []
    wholly: Worst = []
    for split, sample in survey.samples():
        look = survey.look(sample)
        xyxy = sample.objects.xyxy
        if look is None or not len(xyxy):
            continue
        beyond = np.concatenate([-xyxy[:, :2], xyxy[:, 2:] - [look.width, look.height]], axis=1)
        solid = area(xyxy) > 0
        gone = solid & (area(clip(xyxy, look.width, look.height)) <= 0)
        over = solid & ~gone & (beyond > EDGE_PX).any(axis=1)
        for bad, found in ((gone, wholly), (over, partly)):
            if bad.any():
                boxes = tuple(np.flatnonzero(bad).tolist())
                found.append((float(beyond[bad].max()), place(split, sample, boxes)))
    yield from _finding(
        Level.error,
        "outside",
        wholly,
        "wholly outside the image: is the label that of another image, or of another size?",
    )
    yield from _finding(
        Level.warning,
        "beyond-edge",
        partly,
        f"reaching more than {EDGE_PX:g} px beyond the image's edge: training cuts them there",
    )


def _twice(survey: Survey) -> Iterable[Finding]:
    """Two boxes on one object: of one type, or of two types that are both learned."""
    same: Worst = []
    other: Worst = []
    for split, sample in survey.samples():
        objects = sample.objects
        chosen = np.flatnonzero(survey.learned(sample) & (area(objects.xyxy) > 0))
        class_id = survey.class_map.class_ids(objects.types)
        for i, j, overlap in _alike(objects.xyxy, chosen):
            found = same if class_id[i] == class_id[j] else other
            found.append((overlap, place(split, sample, (i, j))))
    yield from _finding(
        Level.warning,
        "twice",
        same,
        f"where one object is labelled twice (one class, IoU above {SAME_IOU}): "
        "every detector misses one of the two; remove it",
    )
    yield from _finding(
        Level.warning, "two-classes", other, f"where one object has two classes (IoU above {SAME_IOU}): decide for one"
    )


def _alike(xyxy: NDArray[np.float32], chosen: NDArray[np.intp]) -> Iterable[tuple[int, int, float]]:
    """Pairs of the chosen boxes that are nearly the same box, and their IoU.

    Boxes whose left sides are far apart are never compared: thousands in an image cost no
    square of memory. Of one image at most ``MAX_PAIRS`` are told.
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


def _long(survey: Survey) -> Iterable[Finding]:
    found: Worst = []
    for split, sample in survey.samples():
        size = sample.objects.xyxy[:, 2:] - sample.objects.xyxy[:, :2]
        solid = survey.learned(sample) & (size > 0).all(axis=1)
        ratio = size.max(axis=1, initial=0) / np.where(solid, size.min(axis=1, initial=np.inf), 1)
        long = solid & (ratio > LONG)
        if long.any():
            boxes = tuple(np.flatnonzero(long).tolist())
            found.append((float(ratio[long].max()), place(split, sample, boxes)))
    return _finding(
        Level.note, "long", found, f"with one side more than {LONG:g} times the other: often a slip, or cut by the edge"
    )


MANY_TIMES = 10
"""A class with so many times fewer objects than the largest is rare."""


def check_classes(survey: Survey) -> list[Finding]:
    """All findings about the balance of classes."""
    learned = {split: learned_counts(survey, split) for split in survey.splits}
    return [*_balance(survey, learned), *_one_sided(survey, learned), *_unjudged(survey, learned), *_fates(survey)]


def type_counts(survey: Survey, split: str) -> Counter[str]:
    """Boxes of each type as the labels write it."""
    return Counter(t for sample in survey.splits[split] for t in sample.objects.types)


def learned_counts(survey: Survey, split: str) -> Counter[str]:
    """Objects of each class that is learned."""
    counts: Counter[str] = Counter()
    names = survey.class_map.names
    for sample in survey.splits[split]:
        class_id = survey.class_map.class_ids(sample.objects.types)
        counts.update(names[c] for c in class_id[survey.learned(sample)].tolist())
    return counts


def training_split(survey: Survey) -> str:
    """``train`` if there is one, else the first."""
    return "train" if "train" in survey.splits else next(iter(survey.splits))


def _balance(survey: Survey, learned: dict[str, Counter[str]]) -> Iterator[Finding]:
    split = training_split(survey)
    counts = learned[split]
    most = max(counts.values(), default=0)
    if not most:
        yield Finding(
            Level.error, "no-objects", (), 0, f"split {split!r} has no object of any class: nothing can be learned"
        )
        return
    rare = {n: counts[n] for n in survey.class_map.names if counts[n] * MANY_TIMES <= most}
    if rare:
        largest = counts.most_common(1)[0][0]
        few = ", ".join(f"{name} {number:,}" for name, number in rare.items())
        yield Finding(
            Level.warning,
            "imbalance",
            (),
            len(rare),
            f"{some(len(rare), 'class', 'classes')} with a tenth or less of the {most:,} objects "
            f"of {largest} in split {split!r}: {few}; expect a low recall there, add images "
            "of them or drop the class",
        )


def _one_sided(survey: Survey, learned: dict[str, Counter[str]]) -> Iterator[Finding]:
    """Classes that are evaluated and not learned, or learned and not evaluated."""
    train = training_split(survey)
    for split, counts in learned.items():
        if split == train:
            continue
        unseen = [name for name in counts if not learned[train][name]]
        silent = [name for name in learned[train] if not counts[name]]
        for names, sentence in (
            (unseen, f"in split {split!r} and not in {train!r}: it is evaluated and never learned"),
            (silent, f"in split {train!r} and not in {split!r}: nothing is measured of it there"),
        ):
            if names and counts:
                which = f"{some(len(names), 'class', 'classes')} ({', '.join(names)})"
                yield Finding(Level.warning, "one-sided", (), len(names), f"{which} {sentence}")


def _unjudged(survey: Survey, learned: dict[str, Counter[str]]) -> Iterator[Finding]:
    """Splits in which there is nothing to find."""
    for split, counts in learned.items():
        if split != training_split(survey) and not counts:
            yield Finding(Level.warning, "unjudged", (), 1, without_objects(split))


def _fates(survey: Survey) -> Iterator[Finding]:
    """Types that are learned as something else, and classes without an object."""
    for sentence in class_warnings(survey.dataset, survey.class_map):
        yield Finding(Level.warning, "classes", (), 1, sentence)


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


def check_files(survey: Survey) -> list[Finding]:
    """All findings about files."""
    return [*_undecodable(survey), *_narrow(survey), *_left_out(survey), *_unlisted(survey), *_empty(survey)]


def _undecodable(survey: Survey) -> Iterator[Finding]:
    """Images that cannot be decoded; the place is the sentence, which names the file."""
    found = [
        Location(reason)
        for _, sample in survey.samples()
        for reason in [survey.looks[sample.image]]
        if isinstance(reason, str)
    ]
    if found:
        yield Finding(
            Level.error,
            "unreadable-image",
            tuple(found),
            len(found),
            f"{some(len(found), 'image')} that cannot be decoded; replace or remove them",
        )


def _narrow(survey: Survey) -> Iterator[Finding]:
    """16-bit images that use a small part of their range, as cameras of heat write them."""
    found = [
        place(split, sample)
        for split, sample in survey.samples()
        for look in [survey.look(sample)]
        if look is not None and any("16-bit" in note for note in look.notes)
    ]
    if found:
        yield Finding(
            Level.warning,
            "narrow-range",
            tuple(found),
            len(found),
            f"{some(len(found), 'image')} of 16 bits with a narrow range of values: each is "
            "stretched by itself, and one value means another brightness in each",
        )


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
        sentence = f"{some(len(entries), one, many)} {wrong}"
        if too_many and kind != MALFORMED:
            sentence += f"; more than {MAX_SKIPPED:.0%} of all labels: training refuses the data"
        yield Finding(
            Level.error if too_many or kind == MALFORMED else Level.warning,
            kind,
            tuple(Location(str(entry)) for entry in entries),
            len(entries),
            sentence,
        )


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
    found = [
        Location(str(path))
        for folder in folders
        if folder.is_dir()
        for path in images_in(folder, deep=False)
        if path.resolve() not in known
    ]
    if found:
        yield Finding(
            Level.warning,
            "unlisted-image",
            tuple(found),
            len(found),
            f"{some(len(found), 'image')} beside the others without a label, or in no split; "
            "they take no part in training",
        )


def _empty(survey: Survey) -> Iterator[Finding]:
    """Images without any box: background, which is of use if it is true."""
    found = [place(split, s) for split, s in survey.samples() if not len(s.objects)]
    if found:
        yield Finding(
            Level.note,
            "background-image",
            tuple(found),
            len(found),
            f"{some(len(found), 'image')} without any box: learned as background; "
            "make sure that nothing in them was forgotten",
        )


SMALL_PX = 8.0
"""Half a cell of the feature map: what is narrower or lower is hardly seen."""
MANY_SMALL = 0.1
MAX_STRETCH = 1.1
TINY_IMAGE_PX = 64


def check_sizes(survey: Survey) -> list[Finding]:
    """All findings about sizes of boxes and images."""
    return [*_another_size(survey), *_small_objects(survey), *_shape(survey), *_tiny_images(survey)]


def _another_size(survey: Survey) -> Iterator[Finding]:
    """Images that were scaled after they were labelled, or whose labels know no EXIF turn."""
    found = []
    for split, sample in survey.samples():
        look = survey.look(sample)
        if look and sample.size and sample.size != (look.width, look.height):
            sizes = "{}x{}, labelled as {}x{}".format(look.width, look.height, *sample.size)
            found.append(Location(f"{split}/{sample.id}: {sizes}", sample))
    if found:
        yield Finding(
            Level.error,
            "another-size",
            tuple(found),
            len(found),
            f"{some(len(found), 'image')} of another size than the labels say: the boxes are in "
            "the wrong place; scale or turn the image as it was when it was labelled",
        )


def input_boxes(survey: Survey, sample: Sample) -> NDArray[np.float64]:
    """(N, 2) width and height of each box in pixels of the input; 0 if the image is unreadable."""
    look = survey.look(sample)
    size = np.maximum(sample.objects.xyxy[:, 2:] - sample.objects.xyxy[:, :2], 0).astype(float)
    if look is None:
        return np.zeros_like(size)
    scaled: NDArray[np.float64] = size * scale(survey, look.width, look.height)
    return scaled


def scale(survey: Survey, width: int, height: int) -> NDArray[np.float64]:
    """(2,) how an image of this size is scaled to the input, across and down."""
    return np.divide(survey.rule.content(width, height), (width, height))


def _small_objects(survey: Survey) -> Iterator[Finding]:
    small: Counter[str] = Counter()
    total: Counter[str] = Counter()
    found: list[tuple[int, Location]] = []
    names = survey.class_map.names
    for split, sample in survey.samples():
        size = input_boxes(survey, sample)
        class_id = survey.class_map.class_ids(sample.objects.types)
        seen = survey.learned(sample) & (size > 0).all(axis=1)
        total.update(names[c] for c in class_id[seen].tolist())
        lost = seen & (size < SMALL_PX).any(axis=1)
        small.update(names[c] for c in class_id[lost].tolist())
        if lost.any():
            boxes = tuple(np.flatnonzero(lost).tolist())
            found.append((len(boxes), place(split, sample, boxes)))
    if not found:
        return
    number = sum(small.values())
    shares = {name: small[name] / total[name] for name in names if total[name]}
    parts = ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if share)
    yield Finding(
        Level.warning if max(shares.values()) > MANY_SMALL else Level.note,
        "small",
        tuple(where for _, where in sorted(found, key=lambda pair: -pair[0])),
        number,
        f"{number:,} of {some(sum(total.values()), 'object')} narrower or lower than "
        f"{SMALL_PX:g} px at the input size ({parts}), hardly seen; a larger input size keeps them",
    )


def _shape(survey: Survey) -> Iterator[Finding]:
    """Images that the input rule stretches visibly."""
    found: list[tuple[float, Location]] = []
    for split, sample in survey.samples():
        look = survey.look(sample)
        if look is None:
            continue
        across, down = scale(survey, look.width, look.height)
        stretch = max(across / down, down / across)
        if stretch > MAX_STRETCH:
            found.append((stretch, place(split, sample)))
    if found:
        found.sort(key=lambda pair: -pair[0])
        yield Finding(
            Level.warning,
            "stretched",
            tuple(where for _, where in found),
            len(found),
            f"{some(len(found), 'image')} stretched by up to {found[0][0]:.2f} to fit the input: "
            "objects look wider or taller than they are",
        )


def _tiny_images(survey: Survey) -> Iterator[Finding]:
    found = [
        place(split, sample)
        for split, sample in survey.samples()
        for look in [survey.look(sample)]
        if look is not None and min(look.width, look.height) < TINY_IMAGE_PX
    ]
    if found:
        yield Finding(
            Level.warning,
            "tiny-image",
            tuple(found),
            len(found),
            f"{some(len(found), 'image')} with a side below {TINY_IMAGE_PX} px: a thumbnail?",
        )
