"""Finds, in a set of labels, the frames of which the model is least sure, and no two of one picture.

The doubt of a frame is a sum, in boxes:

- margin: 1 - |2 s - 1| of each score s, which is a probability: 1 at one half, 0 where the model is sure;
- disagreement with a second set of labels: the scores of boxes that the other does not have, and the
  differences of the scores of those that both have;
- flicker, in videos: the scores of boxes that neither the frame before nor the one behind has, and of those
  that both of them have and this one does not.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import iou
from squeezedet.data.convert import new_folder
from squeezedet.data.duplicates import MAX_UNLIKE_BITS, MIN_CORRELATION, difference_hash, fine_detail, thumbnail
from squeezedet.detections import Detections
from squeezedet.drawing import encode_picture
from squeezedet.errors import DataError, UsageError
from squeezedet.fleet.label import read_frames
from squeezedet.fleet.labels import About, Found, LabelSet
from squeezedet.media.images import Frame

if TYPE_CHECKING:
    from PIL.Image import Image

SAME_IOU = 0.5
"""Boxes of one class that overlap so much are of one object."""
GAP_S = 1.0
"""Frames of one video that are both chosen are so far apart."""
AHEAD = 4
"""So many times the wanted number of frames are looked at together: many are twins."""
COLUMNS, ROWS, CELL_PX, GAP_PX = 4, 8, 320, 8
Place = tuple[int, int]
"""Part, and number of the frame among those of the part."""


@dataclass(frozen=True, slots=True)
class Mined:
    """A frame that is worth a person's labels, with what its doubt is the sum of."""

    path: str
    frame: int | None  # of a video
    time_s: float | None
    margin: float
    disagreement: float
    flicker: float

    @property
    def doubt(self) -> float:
        return self.margin + self.disagreement + self.flicker


def mine(labels: str, count: int, out: Path, *, other: str | None = None) -> list[Mined]:
    """Choose frames, and write ``frames.csv``, that of most doubt first, and contact sheets into a new folder.

    Args:
        labels: folder or URL of a set of labels; best of one made with a low score.
        count: how many frames; fewer come back where all others are twins of these or without doubt.
        out: the folder.
        other: labels of the same inputs by another model.

    Raises:
        UsageError: the folder is not empty; the labels are not of the same inputs.
        DataError: the labels are not complete.
        SqueezeDetError: a store does not answer, or the folder cannot be written.
    """
    if count < 1:
        raise UsageError(f"count: {count} frames are none")
    one = _complete(labels)
    two = None if other is None else _complete(other)
    if two and (two[1].inputs_sha256, two[1].parts) != (one[1].inputs_sha256, one[1].parts):
        raise UsageError(f"{labels}, {other}: are not labels of the same inputs")
    with new_folder(out) as folder:
        chosen = _choose(one, two, count)
        _write(folder, one, chosen)
    return list(chosen.values())


def _complete(url: str) -> tuple[LabelSet, About]:
    labels = LabelSet(url)
    about = labels.about()
    if about is None:
        raise DataError(f"{url}: is no set of labels; the verb label makes one")
    if missing := labels.missing(about):
        raise DataError(f"{url}: {len(missing):,} of {about.parts:,} parts are missing; finish the labels first")
    return labels, about


# ----------------------------------------------------------------- doubt


def doubts(frames: Sequence[Found], others: Mapping[tuple[str, int | None], Detections]) -> NDArray[np.float32]:
    """(N, 3) margin, disagreement and flicker of a part's frames; ``others``: path and frame -> another model's."""
    values = np.zeros((len(frames), 3), np.float32)
    for k, (number, found) in enumerate(frames):
        values[k, 0] = (1 - np.abs(2 * found.score - 1)).sum()
        if (twin := others.get((found.image, number))) is not None:
            values[k, 1] = _disagreement(found, twin)
        if number is not None and 0 < k < len(frames) - 1:
            before, behind = frames[k - 1][1], frames[k + 1][1]
            if before.image == found.image == behind.image:
                values[k, 2] = _flicker(before, found, behind)
    return values


def _partners(a: Detections, b: Detections) -> NDArray[np.intp]:
    """(N,) which box of ``b`` is that of each box of ``a``, -1 for none; the best scores choose first."""
    partner = np.full(len(a), -1)
    if not len(a) or not len(b):
        return partner
    same = np.array(a.names)[a.class_id][:, None] == np.array(b.names)[b.class_id]
    overlap = np.where(same, iou(a.xyxy, b.xyxy), 0)
    for k in np.argsort(-a.score, kind="stable"):
        best = int(overlap[k].argmax())
        if overlap[k, best] >= SAME_IOU:
            partner[k] = best
            overlap[:, best] = 0
    return partner


def _disagreement(a: Detections, b: Detections) -> float:
    partner = _partners(a, b)
    both = partner >= 0
    alone = a.score[~both].sum() + np.delete(b.score, partner[both]).sum()
    return float(alone + np.abs(a.score[both] - b.score[partner[both]]).sum())


def _flicker(before: Detections, found: Detections, behind: Detections) -> float:
    alone = (_partners(found, before) < 0) & (_partners(found, behind) < 0)
    lost = (_partners(before, found) < 0) & (_partners(before, behind) >= 0)
    return float(found.score[alone].sum() + before.score[lost].sum())


# ----------------------------------------------------------------- choice


def _choose(one: tuple[LabelSet, About], two: tuple[LabelSet, About] | None, count: int) -> dict[Place, Mined]:
    """The frames of most doubt of which no two are twins, the most doubtful first.

    Of every frame its doubt and its place are kept, 20 bytes: what else is wanted of it is read again.
    """
    values, places = [np.empty((0, 3), np.float32)], [np.empty((0, 2), np.int32)]
    for part in range(one[1].parts):
        frames = list(one[0].frames(part, one[1].classes))
        others = {} if two is None else {(f.image, k): f for k, f in two[0].frames(part, two[1].classes)}
        values.append(doubts(frames, others))
        places.append(np.array([(part, k) for k in range(len(frames))], np.int32).reshape(-1, 2))
    doubt, where = np.concatenate(values), np.concatenate(places)
    total = doubt.sum(axis=1)
    order = np.argsort(-total, kind="stable")[: int((total > 0).sum())]
    chosen: dict[Place, Mined] = {}
    twins = _Twins()
    for start in range(0, len(order), AHEAD * count):
        some = order[start : start + AHEAD * count]
        looked = {place: (k, f, thumbnail(frame.pixels)) for place, (k, f), frame in _look(one, where[some])}
        for index in some.tolist():
            place = (int(where[index, 0]), int(where[index, 1]))
            if place not in looked:  # it cannot be read any more
                continue
            number, found, grey = looked[place]
            if _at_one_time(found, chosen.values()) or not twins.take(grey):
                continue
            chosen[place] = Mined(found.image, number, found.time_s, *doubt[index].tolist())
            if len(chosen) == count:
                return chosen
    return chosen


def _at_one_time(found: Detections, chosen: Iterable[Mined]) -> bool:
    """Whether a frame of the same video and second was chosen."""
    times = (one.time_s for one in chosen if one.path == found.image)
    return any(t is not None and abs(t - (found.time_s or 0)) < GAP_S for t in times)


class _Twins:
    """The thumbnails that were taken so far."""

    def __init__(self) -> None:
        self._hashes = np.empty((0, 4), np.uint64)
        self._details = np.empty((0, 32, 34), np.float32)

    def take(self, grey: NDArray[np.uint8]) -> bool:
        """Take a (32, 34) thumbnail, unless it is nearly one that was taken."""
        own, detail = difference_hash(grey[None]), fine_detail(grey[None])
        near = np.bitwise_count(self._hashes ^ own).sum(axis=1) <= MAX_UNLIKE_BITS
        if (near & ((self._details * detail).sum(axis=(1, 2)) >= MIN_CORRELATION)).any():
            return False
        self._hashes = np.concatenate([self._hashes, own])
        self._details = np.concatenate([self._details, detail])
        return True


def _look(labels: tuple[LabelSet, About], places: NDArray[np.int32]) -> Iterator[tuple[Place, Found, Frame]]:
    """The frames at (N, 2) places with what was found in them, in the order of the inputs."""
    for part in np.unique(places[:, 0]).tolist():
        numbers = set(places[places[:, 0] == part, 1].tolist())
        wanted = {}
        for k, (number, found) in enumerate(labels[0].frames(part, labels[1].classes)):
            if k in numbers:
                wanted[found.image, number] = (part, k), (number, found)
        inputs = dict.fromkeys((path, number is not None) for path, number in wanted)
        with closing(read_frames(list(inputs))) as items:
            for item in items:
                if isinstance(item, Frame):
                    key = item.name, item.moment.number if item.moment else None
                    if key in wanted:
                        yield *wanted[key], item


# ----------------------------------------------------------------- what is written


def _write(folder: Path, labels: tuple[LabelSet, About], chosen: Mapping[Place, Mined]) -> None:
    """The list and the contact sheets."""
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "frame", "time_s", "doubt", "margin", "disagreement", "flicker", "sheet"))
    for k, one in enumerate(chosen.values()):
        values = (f"{value:.3f}" for value in (one.doubt, one.margin, one.disagreement, one.flicker))
        table.writerow((one.path, one.frame, one.time_s, *values, k // (COLUMNS * ROWS) + 1))
    (folder / "frames.csv").write_text(text.getvalue(), encoding="utf-8")
    pictures = {}
    for place, (_, found), frame in _look(labels, np.array(list(chosen), np.int32).reshape(-1, 2)):
        pictures[place] = found.draw(frame.pixels)
        pictures[place].thumbnail((CELL_PX, CELL_PX))
    for number, sheet in enumerate(_sheets([pictures[place] for place in chosen]), start=1):
        (folder / f"sheet-{number:02d}.jpg").write_bytes(encode_picture(sheet))


def _sheets(pictures: Sequence[Image]) -> Iterator[Image]:
    """Pictures side by side, in the order of the list: from left to right, then down."""
    from PIL import Image

    for start in range(0, len(pictures), COLUMNS * ROWS):
        some = pictures[start : start + COLUMNS * ROWS]
        width, height = CELL_PX + GAP_PX, max(picture.height for picture in some) + GAP_PX
        sheet = Image.new("RGB", (COLUMNS * width, height * -(-len(some) // COLUMNS)), "white")
        for k, picture in enumerate(some):
            sheet.paste(picture, (k % COLUMNS * width, k // COLUMNS * height))
        yield sheet
