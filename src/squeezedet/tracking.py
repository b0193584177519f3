"""Which detection is which object, from frame to frame: ByteTrack (arXiv 2110.06864) in NumPy.

Its idea: a box of low score is no object by itself, but where a track is expected it is most
likely that object, half hidden or blurred. So the sure boxes are given to the tracks first, the
unsure ones to the tracks that got none; only sure boxes begin a track.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from squeezedet.detections import Detections

# ----------------------------------------------------------------- motion

Array = NDArray[np.float64]

POSITION = 1 / 20
"""Standard deviation of a measured coordinate, in widths or heights of the box."""
VELOCITY = 1 / 160
"""By how much a velocity changes from one frame to the next, in the same unit."""
MIN_SIZE_PX = 1.0
"""A box does not shrink further."""


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Where N boxes are believed to be and how they move; every array is (N, 4) float64.

    Attributes:
        place: center x, center y, width, height in pixels.
        velocity: of each of these, in pixels a frame.
        place_var, covariance, velocity_var: the covariance matrix of each pair.
    """

    place: Array
    velocity: Array
    place_var: Array
    covariance: Array
    velocity_var: Array

    @classmethod
    def start(cls, xyxy: NDArray[np.floating]) -> Self:
        """Boxes seen for the first time: at rest, as far as one knows."""
        place = xyxy_to_cxcywh(xyxy).astype(np.float64)
        unit = _unit(place)
        return cls(
            place, np.zeros_like(place), (2 * POSITION * unit) ** 2, np.zeros_like(place), (10 * VELOCITY * unit) ** 2
        )

    def __len__(self) -> int:
        return len(self.place)

    @property
    def xyxy(self) -> Array:
        """(N, 4) corners."""
        return np.asarray(cxcywh_to_xyxy(self.place))

    def step(self) -> Self:
        """One frame on."""
        unit = _unit(self.place)
        place = self.place + self.velocity
        place[:, 2:] = np.maximum(place[:, 2:], MIN_SIZE_PX)
        return replace(
            self,
            place=place,
            place_var=self.place_var + 2 * self.covariance + self.velocity_var + (POSITION * unit) ** 2,
            covariance=self.covariance + self.velocity_var,
            velocity_var=self.velocity_var + (VELOCITY * unit) ** 2,
        )

    def correct(self, rows: NDArray[np.intp], xyxy: NDArray[np.floating]) -> Self:
        """The same boxes after some of them were measured.

        Args:
            rows: (M,) which ones, each once.
            xyxy: (M, 4) where they were seen.
        """
        seen = xyxy_to_cxcywh(np.asarray(xyxy, np.float64))
        place_var, covariance = self.place_var[rows], self.covariance[rows]
        total = place_var + (POSITION * _unit(self.place[rows])) ** 2
        gain, velocity_gain = place_var / total, covariance / total
        off = seen - self.place[rows]
        return replace(
            self,
            place=_put(self.place, rows, self.place[rows] + gain * off),
            velocity=_put(self.velocity, rows, self.velocity[rows] + velocity_gain * off),
            place_var=_put(self.place_var, rows, (1 - gain) * place_var),
            covariance=_put(self.covariance, rows, (1 - gain) * covariance),
            velocity_var=_put(self.velocity_var, rows, self.velocity_var[rows] - velocity_gain * covariance),
        )

    def keep_size(self, rows: NDArray[np.intp]) -> Self:
        """These boxes, which nobody sees, neither grow nor shrink from now on."""
        velocity = self.velocity.copy()
        velocity[rows, 2:] = 0
        return replace(self, velocity=velocity)

    def __getitem__(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        return type(self)(*(getattr(self, name)[rows] for name in self.__slots__))

    def __add__(self, other: Self) -> Self:
        """These boxes and, behind them, the others."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__slots__)
        return type(self)(*(np.concatenate(pair) for pair in pairs))


def _unit(place: NDArray[np.floating]) -> Array:
    """(N, 4): the width of each box for its x and width, the height for its y and height."""
    size = np.maximum(place[:, 2:], MIN_SIZE_PX)
    return np.concatenate([size, size], axis=1)


def _put(array: Array, rows: NDArray[np.intp], values: Array) -> Array:
    new = array.copy()
    new[rows] = values
    return new


# ----------------------------------------------------------------- matching

Rows = NDArray[np.intp]


def match(overlap: NDArray[np.floating], least: float) -> tuple[Rows, Rows]:
    """Pairs of the largest overlaps first, each row and column at most once.

    With overlaps of boxes this greedy choice is nearly always the one of the largest sum, which
    the Hungarian method finds, and takes a tenth of the time in Python.

    Args:
        overlap: (N, M), how well row and column fit.
        least: a pair below is none.

    Returns:
        (K,) rows and (K,) columns of the pairs.
    """
    rows, columns = np.nonzero(overlap >= least)
    order = np.argsort(-overlap[rows, columns], kind="stable")
    free_row, free_column = [True] * overlap.shape[0], [True] * overlap.shape[1]
    pairs = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if free_row[row] and free_column[column]:
            free_row[row] = free_column[column] = False
            pairs.append((row, column))
    chosen = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    return chosen[:, 0], chosen[:, 1]


# ----------------------------------------------------------------- tracks


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerConfig:
    """When a box belongs to a track.

    Attributes:
        high: from this score on a box is sure; the threshold of what is reported.
        low: from this score on a box may continue a track.
        iou: least IoU of a sure box and the place where a track is expected.
        low_iou: the same for an unsure box.
        patience: a track that was not seen for more frames than these ends.

    Raises:
        ValueError: a number is out of its range.
    """

    high: float = 0.4
    low: float = 0.1
    iou: float = 0.2
    low_iou: float = 0.5
    patience: int = 30

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"0 <= low <= high <= 1 must hold, not {self.low} and {self.high}")
        if not (0 < self.iou <= 1 and 0 < self.low_iou <= 1):
            raise ValueError(f"IoU must be in (0, 1], not {self.iou} and {self.low_iou}")
        if self.patience < 0:
            raise ValueError(f"patience must not be negative, but is {self.patience}")


class Tracker:
    """Gives the detections of one frame after the other the ids of their objects.

    An id is never given again. A track begins with a sure box and is reported from its second
    frame on, in a row, so that what shows up once only is never seen; in the first frame of all
    every sure box is reported. Tracks keep their class.

    >>> tracker = Tracker()                                    # doctest: +SKIP
    >>> for frame in frames:                                   # doctest: +SKIP
    ...     found = tracker.update(detector.detect(frame, tracker.config.low))

    Attributes:
        config: when a box belongs to a track.
    """

    def __init__(self, config: TrackerConfig | None = None) -> None:
        self.config = config or TrackerConfig()
        self._next_id = 1
        self.forget()

    def forget(self) -> None:
        """End all tracks, as after a pause of the source; later ids are others."""
        self._motion = Motion.start(np.empty((0, 4)))
        self._class_id = np.empty(0, np.int64)
        self._id = np.empty(0, np.int64)  # 0: seen once, and not yet worth an id
        self._unseen = np.empty(0, np.int64)  # frames since it was seen
        self._begun = False

    def update(self, detections: Detections) -> Detections:
        """The boxes of the next frame that belong to tracks, with ``track_id``.

        Args:
            detections: everything found down to the low score, after NMS.

        Returns:
            A choice of these boxes, sure and unsure ones, in their order.
        """
        self._motion = self._motion.step()
        owner = self._assign(detections)
        boxes = np.flatnonzero(owner >= 0)
        tracks = owner[boxes]
        self._motion = self._motion.correct(tracks, detections.xyxy[boxes])
        self._unseen += 1
        self._unseen[tracks] = 0
        self._name(tracks[self._id[tracks] == 0])
        track_id = np.zeros(len(detections), np.int64)
        track_id[boxes] = self._id[tracks]

        self._end()
        born = np.flatnonzero((owner < 0) & (detections.score >= self.config.high))
        self._begin(detections.xyxy[born], detections.class_id[born])
        if not self._begun:
            self._name(np.arange(len(born)))
            track_id[born] = self._id
            self._begun = True
        told = np.flatnonzero(track_id)
        return replace(detections[told], track_id=track_id[told])

    def _assign(self, detections: Detections) -> Rows:
        """(M,) the track of each box, -1 where there is none."""
        config = self.config
        overlap = iou(self._motion.xyxy, detections.xyxy.astype(np.float64))
        overlap[self._class_id[:, None] != detections.class_id[None]] = 0
        sure = detections.score >= config.high
        unsure = (detections.score >= config.low) & ~sure
        known = self._id > 0
        owner = np.full(len(detections), -1, np.intp)

        def pair(tracks: NDArray[np.bool_], boxes: NDArray[np.bool_], least: float) -> None:
            rows, columns = np.flatnonzero(tracks), np.flatnonzero(boxes & (owner < 0))
            chosen, taken = match(overlap[np.ix_(rows, columns)], least)
            owner[columns[taken]] = rows[chosen]

        pair(known, sure, config.iou)
        waiting = known & (self._unseen == 0)
        waiting[owner[owner >= 0]] = False
        pair(waiting, unsure, config.low_iou)
        pair(~known, sure, config.iou)
        return owner

    def _name(self, tracks: Rows) -> None:
        """Give these tracks their ids."""
        self._id[tracks] = np.arange(self._next_id, self._next_id + len(tracks))
        self._next_id += len(tracks)

    def _end(self) -> None:
        """Forget tracks that were seen once and not again, or not for long."""
        unseen = self._unseen
        stay = unseen <= np.where(self._id > 0, self.config.patience, 0)
        self._motion = self._motion.keep_size(np.flatnonzero(unseen > 0))[stay]
        self._class_id, self._id, self._unseen = self._class_id[stay], self._id[stay], unseen[stay]

    def _begin(self, xyxy: NDArray[np.floating], class_id: NDArray[np.int64]) -> None:
        self._motion += Motion.start(xyxy)
        self._class_id = np.concatenate([self._class_id, class_id])
        none = np.zeros(len(class_id), np.int64)
        self._id, self._unseen = np.append(self._id, none), np.append(self._unseen, none)
