"""Which detection is which object, from frame to frame: ByteTrack (arXiv 2110.06864) in NumPy.

Its idea: a box of low score is no object by itself, but where a track is expected it is most
likely that object, half hidden or blurred. So the sure boxes are given to the tracks first, the
unsure ones to the tracks that got none; only sure boxes begin a track.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import iou
from squeezedet.detections import Detections
from squeezedet.tracking.match import Rows, match
from squeezedet.tracking.motion import Motion


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
        self._motion = Motion.start(np.empty((0, 4)))
        self._class_id = np.empty(0, np.int64)
        self._id = np.empty(0, np.int64)  # 0: seen once, and not yet worth an id
        self._unseen = np.empty(0, np.int64)  # frames since it was seen
        self._next_id = 1
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
