"""What ``squeezedet detect`` does with one frame after the other."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squeezedet.detections import Detections
    from squeezedet.media.images import Frame, Moment
    from squeezedet.media.sources import Failure
    from squeezedet.runtime.detector import Detector
    from squeezedet.tracking.tracker import Tracker

LOW_SHARE = 1 / 4
"""Boxes down to this share of the reported score may continue a track (0.1 of 0.4)."""


class Run:
    """Detects in one image after the other and keeps what the end of the command needs.

    Args:
        model, engine, threads: what to load, see ``squeezedet.runtime.detector.load``.
        score: lowest score to report; None for the model's own.
        track: give boxes the ids of their objects.
        quiet: say nothing but errors.

    Attributes:
        failures: number of sources that gave no image, or not all of it.
        timings: ``timing_ms`` of each image, if ``keep_timings``.
    """

    def __init__(
        self,
        model: str,
        engine: str | None,
        threads: int | None,
        *,
        score: float | None,
        track: bool,
        quiet: bool,
        keep_timings: bool,
    ) -> None:
        self.failures = 0
        self.timings: list[Mapping[str, float]] = []
        self._model, self._engine, self._threads = model, engine, threads
        self._score, self._track, self._quiet = score, track, quiet
        self._keep_timings = keep_timings
        self._tracker: Tracker | None = None
        self._last: tuple[str, Moment | None] | None = None  # name and moment of the last frame

    def detect(self, items: Iterable[Frame | Failure]) -> Iterator[tuple[Frame, Detections]]:
        """What is found in each image that can be used; the others are named and counted."""
        from squeezedet.media.sources import Failure

        detector = None
        for item in items:
            if isinstance(item, Failure):
                self.failures += 1
                print(f"squeezedet: {item.error}", file=sys.stderr)
                continue
            if detector is None:  # without any image there is no need to wait for the model
                detector = self._load()
            self._arrive(item)
            detections = self._detect(detector, item)
            if self._keep_timings:
                self.timings.append(detections.timing_ms)
            yield item, detections

    def end(self) -> None:
        """Say what is to be said of the last video."""
        name, moment = self._last or ("", None)
        self._last = None
        if moment is not None:
            from squeezedet.media.table import describe_video

            self.say(describe_video(name, moment))

    def say(self, sentence: str) -> None:
        """A note on standard error."""
        if not self._quiet:
            print(f"squeezedet: {sentence}", file=sys.stderr)

    def _load(self) -> Detector:
        from squeezedet.runtime.detector import load

        return load(self._model, engine=self._engine, threads=self._threads)

    def _arrive(self, frame: Frame) -> None:
        """Notes of the frame, and of the video that ended before it."""
        moment = frame.moment
        after_video = self._last is not None and self._last[1] is not None
        if moment.first if moment else after_video:
            self.end()
            self._tracker = None  # what follows shows other objects
        self._last = (frame.name, moment)
        for note in frame.notes:
            self.say(note)

    def _detect(self, detector: Detector, frame: Frame) -> Detections:
        lowest = self._score
        if self._track:
            lowest = detector.card.selection.score if lowest is None else lowest
            if self._tracker is None:
                from squeezedet.tracking.tracker import Tracker, TrackerConfig

                self._tracker = Tracker(TrackerConfig(high=lowest, low=lowest * LOW_SHARE))
            lowest = self._tracker.config.low
        detections = detector.detect(frame, lowest)
        if frame.moment is not None:
            detections = replace(detections, time_s=frame.moment.time_s)
        return self._tracker.update(detections) if self._tracker else detections
