"""What was found, as text for people: a table for an image, a line for a video, stage times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from squeezedet.detections import STAGES, Detections
from squeezedet.media.images import FrameTime
from squeezedet.media.sources import STDIN, STDIN_IN_WORDS
from squeezedet.text import align


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
    rows: list[tuple[str, ...]] = [
        ("class", "score", "x1", "y1", "x2", "y2", *("track",) * tracked)
    ]
    for box in detections:
        corners = (f"{value:.1f}" for value in box.xyxy)
        rows.append((box.name, f"{box.score:.2f}", *corners, *(str(box.track_id),) * tracked))
    return f"{head}\n{align(rows, indent='  ')}"


def describe_video(name: str, moment: FrameTime) -> str:
    """What came of a video: frames, seconds, and what was dropped or damaged.

    Args:
        name: of the video.
        moment: of its last frame.
    """
    count = moment.number + 1 - moment.dropped
    text = f"{name}: {'1 frame' if count == 1 else f'{count} frames'} of {moment.time_s:.1f} s"
    if moment.dropped:
        text += f", {moment.dropped} dropped"
    return text + (f", {moment.damaged} damaged" if moment.damaged else "")


def describe_timing(timings: Sequence[Mapping[str, float]]) -> str:
    """Medians of each stage over the images, and what surrounds the network as a share of it.

    Args:
        timings: ``Detections.timing_ms`` of each image, one at least.
    """
    medians = {stage: median(t[stage] for t in timings) for stage in STAGES}
    share = (medians["preprocess"] + medians["postprocess"]) / medians["network"]
    rows = [(stage, f"{ms:.2f} ms") for stage, ms in medians.items()]
    images = "1 image" if len(timings) == 1 else f"{len(timings)} images"
    return (
        f"median of {images}\n{align(rows, indent='  ')}\n"
        f"  (preprocess + postprocess) / network: {share:.1%}"
    )
