"""Images that come again: the same file, or nearly the same picture in two splits.

A picture of which training saw a twin says nothing about what a detector has learned, so a
twin across splits is a leak. Two steps find it:

1. A difference hash: 16x16 bits, is a cell brighter than its left neighbour? Pairs of
   images with at most 64 of 256 bits unlike are candidates (chance gives 128 +- 8).
2. The correlation of two 34x32 thumbnails without their coarse brightness (a box blur of 9 is
   subtracted): fog and a bright sky are alike everywhere, edges are not. 0.6 is a twin.

On a set of KITTI drives and fog photographs true pairs (one standing camera, two times)
have 0.70 and more, the best false one 0.56. Mirrored twins count. What is cropped, or
turned, or a second of driving away, is not found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.doctor.survey import Finding, Level, Location, Survey, some
from squeezedet.data.sample import Sample

MAX_UNLIKE_BITS = 64
MIN_CORRELATION = 0.6
BLUR = 9
NAMED = 8  # equal files whose names are told
MAX_TWINS = 20
FLAT = 1e-6  # a thumbnail with less detail has none but rounding

Member = tuple[str, Sample]
Bits = NDArray[np.uint64]


def check_leaks(survey: Survey) -> list[Finding]:
    """All findings about images that come again."""
    return [*_same_bytes(survey), *_shared_images(survey), *_twins(survey)]


def _same_bytes(survey: Survey) -> Iterator[Finding]:
    """Files that are equal: in splits that must not share images, and elsewhere."""
    members: dict[bytes, list[Member]] = defaultdict(list)
    for split, sample in survey.samples():
        look = survey.look(sample)
        if look:
            members[look.digest].append((split, sample))
    groups = [group for group in members.values() if len(group) > 1]
    leaks = [_beside(group) for group in groups if len({split for split, _ in group}) > 1]
    copies = [_beside(group) for group in groups if len({split for split, _ in group}) == 1]
    if leaks:
        yield Finding(
            Level.error,
            "leak",
            tuple(leaks),
            len(leaks),
            f"{some(len(leaks), 'image')} in more than one split as equal files: what is measured "
            "on them was seen in training; remove them from one split",
        )
    if copies:
        yield Finding(
            Level.warning,
            "copies",
            tuple(copies),
            len(copies),
            f"{some(len(copies), 'image')} there more than once in one split, as equal files; "
            "keep one of each, with the better labels",
        )


def _beside(group: Sequence[Member]) -> Location:
    """The place of a group of equal files; two of them can be shown."""
    (_, first), (_, second), *_ = group
    name = " = ".join(f"{split}/{sample.id}" for split, sample in group[:NAMED])
    if len(group) > NAMED:
        name += f" and {len(group) - NAMED:,} more"
    return Location(name, first, other=second)


def _shared_images(survey: Survey) -> Iterator[Finding]:
    """One file that two splits name, unless one split holds all of the other."""
    found = []
    for one, other in _pairs_of_splits(survey):
        shared = {s.image for s in survey.splits[one]} & {s.image for s in survey.splits[other]}
        found += [Location(f"{one}/{s.id} = {other}/{s.id}", s) for s in survey.splits[one] if s.image in shared]
    if found:
        yield Finding(
            Level.error,
            "shared",
            tuple(found),
            len(found),
            f"{some(len(found), 'image')} named by two splits: what is measured on them was "
            "seen in training; remove them from one split",
        )


def _pairs_of_splits(survey: Survey) -> list[tuple[str, str]]:
    return [pair for pair in combinations(survey.splits, 2) if not survey.nested(*pair)]


# ----------------------------------------------------------------------- twins


def _twins(survey: Survey) -> Iterator[Finding]:
    found: list[tuple[float, Location]] = []
    described = {split: _Pictures(survey, split) for split in survey.splits}
    for one, other in _pairs_of_splits(survey):
        for i, j, alike in described[one].twins(described[other]):
            a, b = described[one].samples[i], described[other].samples[j]
            name = f"{one}/{a.id} ~ {other}/{b.id} ({alike:.2f})"
            found.append((alike, Location(name, a, other=b)))
    if found:
        found.sort(key=lambda pair: -pair[0])
        yield Finding(
            Level.warning,
            "near-leak",
            tuple(where for _, where in found),
            len(found),
            f"{some(len(found), 'pair')} of nearly the same picture in two splits (correlation "
            f"from {MIN_CORRELATION:g}): what is measured on them was half seen in training; "
            "put both into one split",
        )


class _Pictures:
    """The images of one split in the form in which they are compared."""

    def __init__(self, survey: Survey, split: str) -> None:
        seen = [(s, look) for s in survey.splits[split] if (look := survey.look(s)) is not None]
        self.samples = [sample for sample, _ in seen]
        self.digests = np.array([look.digest for _, look in seen], dtype="V16")
        self.grey = np.array([look.grey for _, look in seen], dtype=np.uint8).reshape(-1, 32, 34)

    def twins(self, others: _Pictures) -> Iterator[tuple[int, int, float]]:
        """Indices of nearly equal pictures here and there, and their correlation.

        Of one picture here at most the best 20: a camera that never moves has many.
        """
        mine, theirs = difference_hash(self.grey), difference_hash(others.grey)
        mirrored = difference_hash(others.grey[..., ::-1])
        fine = fine_detail(others.grey)
        for i in range(len(mine)):
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
                    yield i, int(chosen[k]), float(alike[k])


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

    The product of two, summed, is their correlation, -1 to 1. A thumbnail that has
    nothing but coarse brightness is 0 everywhere.
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
