"""What was found, as text for people: a table for an image, a line for a video."""

from __future__ import annotations

from collections import Counter

from squeezedet.detections import Detections
from squeezedet.media.images import Frame, FrameTime
from squeezedet.media.sources import STDIN, STDIN_IN_WORDS
from squeezedet.text import align, counted


def describe(detections: Detections) -> str:
    """One image: its name, size and counts, and below a line per box in pixels.

    Of a frame of a video only the first line, with the time.
    """
    counts = ", ".join(f"{name} {n}" for name, n in detections.counts().items())
    name = STDIN_IN_WORDS if detections.image == STDIN else detections.image
    size = f"{detections.width}x{detections.height}"
    if detections.time_s is not None:
        return f"{name}  {detections.time_s:.3f} s  {size}  {counts or 'no boxes'}"
    head = f"{name}  {size}  {counts or 'no boxes'}"
    if not len(detections):
        return head
    tracked = detections.track_id is not None
    rows: list[tuple[str, ...]] = [("class", "score", "x1", "y1", "x2", "y2", *("track",) * tracked)]
    for box in detections:
        corners = (f"{value:.1f}" for value in box.xyxy)
        rows.append((box.name, f"{box.score:.2f}", *corners, *(str(box.track_id),) * tracked))
    return f"{head}\n{align(rows, indent='  ')}"


class Summary:
    """Counts over several images and videos.

    Attributes:
        images: images and frames.
    """

    def __init__(self) -> None:
        self.images = 0
        self._boxes: Counter[str] = Counter()
        self._tracks: dict[str, set[tuple[int, int]]] = {}
        self._videos = 0
        self._name = ""
        self._moment: FrameTime | None = None  # of the last frame

    def begins(self, frame: Frame) -> bool:
        """Whether the frame is the first of another video, or an image behind a video."""
        return self._moment is not None if frame.moment is None else frame.moment.first

    def add(self, frame: Frame, detections: Detections) -> None:
        """Count one image or frame."""
        self.images += 1
        self._videos += frame.moment is not None and frame.moment.first
        self._name, self._moment = frame.name, frame.moment
        self._boxes.update(detections.counts())
        for box in detections:
            if box.track_id is not None:
                self._tracks.setdefault(box.name, set()).add((self._videos, box.track_id))

    def video(self) -> str:
        """What came of the last video: frames, seconds, what was dropped or damaged; "" if none."""
        moment, self._moment = self._moment, None
        if moment is None:
            return ""
        frames = counted(moment.number + 1 - moment.dropped, "frame")
        text = f"{self._name}: {frames} of {moment.time_s:.1f} s"
        text += f", {moment.dropped} dropped" if moment.dropped else ""
        return text + (f", {moment.damaged} damaged" if moment.damaged else "")

    def total(self) -> str:
        """All images and frames together: boxes of each class, and tracked objects."""
        what = "frame" if self._videos else "image"
        parts = []
        for name, boxes in sorted(self._boxes.items()):
            ids = self._tracks.get(name)
            parts.append(f"{name} {boxes:,}" + (f" ({counted(len(ids), 'object')})" if ids else ""))
        return f"{counted(self.images, what)}: {', '.join(parts) or 'no boxes'}"
