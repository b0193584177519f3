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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import iou
from squeezedet.data.convert import new_folder
from squeezedet.data.doctor.pictures import MAX_UNLIKE_BITS, MIN_CORRELATION, difference_hash, fine_detail, thumbnail
from squeezedet.drawing import draw_boxes, encode_picture
from squeezedet.errors import DataError, UsageError
from squeezedet.fleet.label import read_frames
from squeezedet.fleet.labels import About, FrameLabels, LabelSet
from squeezedet.media.images import Frame

if TYPE_CHECKING:
    from PIL.Image import Image

Place = tuple[str, int | None]
"""Path and frame."""
SAME_IOU = 0.5
"""Boxes of one class that overlap so much are of one object."""
GAP_S = 1.0
"""Frames of one video that are both chosen are so far apart."""
AHEAD = 4
"""So many times the wanted number of frames are looked at together: many are twins."""
COLUMNS, ROWS, CELL_PX = 4, 8, 320


@dataclass(frozen=True, slots=True, eq=False)
class Mined:
    """A frame that is worth a person's labels.

    Attributes:
        labels: what was found in it.
        margin, disagreement, flicker: of which its doubt is the sum.
        picture: small, with the boxes.
    """

    labels: FrameLabels
    margin: float
    disagreement: float
    flicker: float
    picture: Image

    @property
    def doubt(self) -> float:
        """In boxes."""
        return self.margin + self.disagreement + self.flicker


def mine(labels: str, count: int, out: Path, *, other: str | None = None) -> list[Mined]:
    """Choose frames, and write ``frames.csv`` and contact sheets into a new folder.

    Args:
        labels: folder or URL of a set of labels; best of one made with a low score.
        count: how many frames.
        out: the folder; it holds the list, the frame of most doubt first, and ``sheet-01.jpg``, ...
        other: labels of the same inputs by another model.

    Returns:
        The frames; fewer than ``count`` where all others are twins of these or without doubt.

    Raises:
        UsageError: the folder is not empty; the labels are not of the same inputs.
        DataError: the labels are not complete, or a frame cannot be read.
    """
    if count < 1:
        raise UsageError(f"count: {count} frames are none")
    one, about = _complete(labels)
    two = None
    if other is not None:
        two, its = _complete(other)
        if (its.inputs_sha256, its.parts) != (about.inputs_sha256, about.parts):
            raise UsageError(f"{labels}, {other}: are not labels of the same inputs in the same order")
    with new_folder(out) as folder:
        chosen = _choose(one, two, about, count)
        _write(folder, chosen)
    return chosen


def _complete(url: str) -> tuple[LabelSet, About]:
    labels = LabelSet(url)
    about = labels.about()
    if about is None:
        raise DataError(f"{url}: is no set of labels; squeezedet.fleet.label.label makes one")
    if missing := labels.missing(about):
        raise DataError(f"{url}: {len(missing):,} of {about.parts:,} parts are missing; finish the labels first")
    return labels, about


# ----------------------------------------------------------------- doubt


def doubts(frames: Sequence[FrameLabels], others: Mapping[Place, FrameLabels] | None = None) -> NDArray[np.float32]:
    """(N, 3) margin, disagreement and flicker of the frames of a part.

    Args:
        frames: all of the part, in order.
        others: path and frame -> what another model found there.
    """
    found = np.zeros((len(frames), 3), np.float32)
    for k, frame in enumerate(frames):
        found[k, 0] = (1 - np.abs(2 * frame.score - 1)).sum()
        if others is not None and (twin := others.get((frame.path, frame.frame))) is not None:
            found[k, 1] = _disagreement(frame, twin)
        if 0 < k < len(frames) - 1 and frame.frame is not None:
            before, behind = frames[k - 1], frames[k + 1]
            if (before.path, before.frame, behind.path) == (frame.path, frame.frame - 1, frame.path):
                found[k, 2] = _flicker(before, frame, behind)
    return found


def _partners(a: FrameLabels, b: FrameLabels) -> NDArray[np.intp]:
    """(N,) which box of ``b`` is that of each box of ``a``, -1 for none; the best scores choose first."""
    partner = np.full(len(a.score), -1)
    if not len(a.score) or not len(b.score):
        return partner
    same = np.array(a.names)[:, None] == np.array(b.names)[None]
    overlap = np.where(same, iou(a.xyxy, b.xyxy), 0)
    for k in np.argsort(-a.score, kind="stable"):
        best = int(overlap[k].argmax())
        if overlap[k, best] >= SAME_IOU:
            partner[k] = best
            overlap[:, best] = 0
    return partner


def _disagreement(a: FrameLabels, b: FrameLabels) -> float:
    partner = _partners(a, b)
    both = partner >= 0
    alone = a.score[~both].sum() + np.delete(b.score, partner[both]).sum()
    return float(alone + np.abs(a.score[both] - b.score[partner[both]]).sum())


def _flicker(before: FrameLabels, frame: FrameLabels, behind: FrameLabels) -> float:
    alone = (_partners(frame, before) < 0) & (_partners(frame, behind) < 0)
    lost = (_partners(before, frame) < 0) & (_partners(before, behind) >= 0)
    return float(frame.score[alone].sum() + before.score[lost].sum())


# ----------------------------------------------------------------- choice


def _choose(one: LabelSet, two: LabelSet | None, about: About, count: int) -> list[Mined]:
    """The frames of most doubt of which no two are twins.

    Of every frame its doubt and its place are kept, 20 bytes: what else is wanted of it is read again.
    """
    doubt, places = [], []
    for part in range(about.parts):
        frames = list(one.frames(part))
        others = None if two is None else {(f.path, f.frame): f for f in two.frames(part)}
        doubt.append(doubts(frames, others))
        places.append(np.array([(part, k) for k in range(len(frames))], np.int32).reshape(-1, 2))
    values, where = np.concatenate(doubt), np.concatenate(places)
    order = np.argsort(-values.sum(axis=1), kind="stable")
    order = order[values[order].sum(axis=1) > 0]
    chosen = _Chosen()
    for start in range(0, len(order), AHEAD * count):
        some = order[start : start + AHEAD * count]
        looked = _look(one, where[some])
        for k, (part, row) in zip(some, where[some].tolist(), strict=True):
            if (part, row) in looked:
                labels, grey, picture = looked[part, row]
                margin, disagreement, flicker = values[k].tolist()
                chosen.offer(Mined(labels, margin, disagreement, flicker, picture), grey)
            if len(chosen.frames) == count:
                return chosen.frames
    return chosen.frames


class _Chosen:
    """The frames that were chosen so far; one that is a twin of these is not taken."""

    def __init__(self) -> None:
        self.frames: list[Mined] = []
        self._hashes = np.empty((0, 4), np.uint64)
        self._details = np.empty((0, 32, 34), np.float32)

    def offer(self, mined: Mined, grey: NDArray[np.uint8]) -> None:
        """Take a frame of this (32, 34) thumbnail, unless it is a twin."""
        own, detail = difference_hash(grey[None]), fine_detail(grey[None])
        near = np.bitwise_count(self._hashes ^ own).sum(axis=1) <= MAX_UNLIKE_BITS
        if (near & ((self._details * detail).sum(axis=(1, 2)) >= MIN_CORRELATION)).any():
            return
        if any(_at_one_time(mined.labels, other.labels) for other in self.frames):
            return
        self.frames.append(mined)
        self._hashes = np.concatenate([self._hashes, own])
        self._details = np.concatenate([self._details, detail])


def _at_one_time(a: FrameLabels, b: FrameLabels) -> bool:
    if a.path != b.path or a.time_s is None or b.time_s is None:
        return False
    return abs(a.time_s - b.time_s) < GAP_S


Look = tuple[FrameLabels, NDArray[np.uint8], "Image"]


def _look(labels: LabelSet, places: NDArray[np.int32]) -> dict[tuple[int, int], Look]:
    """Labels, thumbnail and small picture of the frames at (N, 2) places: part, and number in it."""
    looked: dict[tuple[int, int], Look] = {}
    for part in np.unique(places[:, 0]).tolist():
        rows = set(places[places[:, 0] == part, 1].tolist())
        wanted = {(f.path, f.frame): (k, f) for k, f in enumerate(labels.frames(part)) if k in rows}
        paths = dict.fromkeys(path for path, _ in wanted)
        inputs = [(path, any(frame is not None for p, frame in wanted if p == path)) for path in paths]
        with closing(read_frames(inputs)) as found:
            for frame in found:
                number = frame.moment.number if isinstance(frame, Frame) and frame.moment else None
                if isinstance(frame, Frame) and (frame.name, number) in wanted:
                    k, mined = wanted[frame.name, number]
                    looked[part, k] = mined, thumbnail(frame.pixels), _small(frame, mined)
    return looked


# ----------------------------------------------------------------- what is written


def _small(frame: Frame, labels: FrameLabels) -> Image:
    """The picture with its boxes, as it comes onto a contact sheet."""
    names = sorted(set(labels.names))
    texts = [f"{name} {score:.2f}" for name, score in zip(labels.names, labels.score, strict=True)]
    picture = draw_boxes(frame.pixels, labels.xyxy, texts, np.array([names.index(n) for n in labels.names], np.int64))
    picture.thumbnail((CELL_PX, CELL_PX))
    return picture


def _write(folder: Path, chosen: Sequence[Mined]) -> None:
    """The list and the contact sheets."""
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "frame", "time_s", "doubt", "margin", "disagreement", "flicker", "sheet"))
    for k, one in enumerate(chosen):
        place = one.labels
        values = (f"{value:.3f}" for value in (one.doubt, one.margin, one.disagreement, one.flicker))
        time_s = None if place.time_s is None else f"{place.time_s:.3f}"
        table.writerow((place.path, place.frame, time_s, *values, k // (COLUMNS * ROWS) + 1))
    (folder / "frames.csv").write_text(text.getvalue(), encoding="utf-8")
    for number, sheet in enumerate(_sheets([one.picture for one in chosen]), start=1):
        (folder / f"sheet-{number:02d}.jpg").write_bytes(encode_picture(sheet))


def _sheets(pictures: Sequence[Image]) -> Iterator[Image]:
    """Pictures side by side, in the order of the list: from left to right, then down."""
    from PIL import Image

    for start in range(0, len(pictures), COLUMNS * ROWS):
        some = pictures[start : start + COLUMNS * ROWS]
        cell_px = max(picture.height for picture in some) + 8
        sheet = Image.new("RGB", (COLUMNS * (CELL_PX + 8), cell_px * -(-len(some) // COLUMNS)), "white")
        for k, picture in enumerate(some):
            sheet.paste(picture, (k % COLUMNS * (CELL_PX + 8) + 4, k // COLUMNS * cell_px + 4))
        yield sheet
