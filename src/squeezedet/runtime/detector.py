"""Detector: an image goes in, ``Detections`` come out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.detections import Detections
from squeezedet.errors import DataError, ModelError, SqueezeDetError, UsageError
from squeezedet.media.images import Frame, FrameTime, frame_of, read_image
from squeezedet.preprocess import fit
from squeezedet.runtime import DEFAULT_MODEL, bundle
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.postprocess import RawBoxes, Selection, report, to_original
from squeezedet.runtime.select_engine import select_engine
from squeezedet.runtime.signature import read_keys
from squeezedet.tracking import Tracker, TrackerConfig

if TYPE_CHECKING:
    from PIL.Image import Image

    Picture = str | Path | bytes | Image | NDArray[np.uint8] | Any
    """What ``Detector`` takes for an image; ``Any`` stands for torch's Tensor."""

CHANNELS = 3
LEVELS = 255
LOW_SHARE = 1 / 4
"""Boxes down to this share of the reported score may continue a track (0.1 of 0.4)."""
WEB = ("http://", "https://")

log = logging.getLogger(__name__)


def load(
    model: str | Path = DEFAULT_MODEL,
    *,
    engine: str | None = None,
    threads: int | None = None,
    trust_model: bool = False,
    require_signature: str | Path | None = None,
) -> Detector:
    """Load a detector.

    Args:
        model: the name of a shipped model, or the path of a bundle or of a file made by
            ``squeezedet.export`` (.onnx, .xml, .param).
        engine: what runs it: onnxruntime, openvino, ncnn, or ``auto`` for the fastest
            (``Detector.decision`` says why); ``onnxruntime:cuda``, ``:tensorrt``, ``:coreml`` and
            ``:dml`` for its execution providers (``onnxruntime:cuda:1``: on the second card). By
            default onnxruntime, or the engine that the file was exported for.
        threads: processor threads; None for all cores.
        trust_model: a .xml or .param file is a program; one that was not exported
            by this user on this machine is only opened with this.
        require_signature: a file of public keys, or ``package`` for that of the shipped models:
            only a bundle that one of them has signed is opened, see ``runtime.signature``.

    Raises:
        UsageError: there is no such model, no such engine, or no such core.
        MissingExtraError: the engine is not installed.
        ModelError: the model is damaged, cannot be run, or is a program that is not trusted.
    """
    path = bundle.find(model)
    trusted_keys = None if require_signature is None else read_keys(require_signature)
    detector = Detector(
        bundle.read(path, trust_model=trust_model, trusted_keys=trusted_keys), engine=engine, threads=threads
    )
    options = {
        "engine": detector.engine.name,
        "threads": threads,
        "trust_model": trust_model,
        "require_signature": require_signature,
    }
    detector._reopen = (str(path.resolve()), detector.card.graph_sha256, options)
    return detector


def _load_again(path: str, graph_sha256: str, options: dict[str, Any]) -> Detector:
    """The detector that was pickled, opened anew in this process."""
    detector = load(path, **options)
    if detector.card.graph_sha256 != graph_sha256:
        raise ModelError(f"{path}: is another model than the one that was pickled")
    return detector


class Detector:
    """Finds objects in images. Threads may share one; pickled, it opens its file anew.

    >>> detector = squeezedet.load()              # doctest: +SKIP
    >>> for found in detector("street.jpg"):      # doctest: +SKIP
    ...     print(found.name, found.score, found.xyxy)

    Attributes:
        card: what is known of the model.
        names: class names.
        engine: what runs the model.
        decision: which engines ``auto`` tried, and why it took this one; None without ``auto``.
    """

    def __init__(self, model: Bundle, *, engine: str | None = None, threads: int | None = None) -> None:
        if model.card.task != "detect":
            raise ModelError(f"{model.card.name}: is no detector but classifies images")
        self.card = model.card
        self.names = model.card.classes
        self.engine, self.decision = select_engine(model, engine, threads)
        self._reopen: tuple[str, str, dict[str, Any]] | None = None

    def __repr__(self) -> str:
        rule = self.card.input
        return f"<Detector {self.card.name}: {', '.join(self.names)}; {rule.width}x{rule.height}, {self.engine.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._reopen is None:
            raise TypeError(
                "this Detector was made of a model in memory and cannot be sent to another "
                "process: call squeezedet.load(path) in the worker"
            )
        return _load_again, self._reopen

    def newest(self) -> Detector:
        """Itself; one that follows a folder of updates may have another one by now, see ``ota.device``."""
        return self

    def warm_up(self) -> None:
        """Run once on a black image: the first run of an engine is a slow one."""
        rule = self.card.input
        self.engine.run(np.zeros((rule.height, rule.width, CHANNELS), np.uint8))

    # ------------------------------------------------------------ detecting

    def __call__(
        self, image: Picture, score: float | None = None, *, classes: Sequence[str] | None = None
    ) -> Detections:
        """Detect in one image.

        Args:
            image: a path, an http(s) address, the bytes of an image file, a PIL image, an
                (H, W, 3) uint8 RGB array, or a torch tensor: (3, H, W) or (H, W, 3) RGB, uint8 or
                floats from 0 to 1.
            score: boxes below are not reported; the model's own threshold by default.
            classes: names of the classes to report; all by default.

        Raises:
            DataError: the image cannot be used.
            UsageError: the score is not between 0 and 1, or there is no such class.
            ModelError: the model fails, or gives what no detector gives.
        """
        wanted = self._class_ids(classes)
        return _only(self.detect(_frame(image), score), wanted)

    def batch(
        self, images: Iterable[Picture], score: float | None = None, *, classes: Sequence[str] | None = None
    ) -> list[Detections]:
        """Detect in several images; arguments and errors as for one, and a DataError says which, counted from 0."""
        if isinstance(images, str | bytes | Path):
            raise UsageError("batch takes a list of images; for a folder or a video use stream")
        found = []
        for i, image in enumerate(images):
            try:
                found.append(self(image, score, classes=classes))
            except DataError as error:
                raise DataError(f"image {i}: {error}") from error
        return found

    def stream(
        self,
        source: str | Path | int | Sequence[str | Path],
        score: float | None = None,
        *,
        classes: Sequence[str] | None = None,
        track: bool = False,
        recursive: bool = False,
    ) -> Iterator[Detections]:
        """Detect in one frame after the other of folders, videos and cameras.

        A source that cannot be used is logged, and the others go on.

        Args:
            source: one or several: an image, a folder, a pattern ``'trip/*.jpg'``, a video, an
                address (http, rtsp), or the number of a camera.
            score: boxes below are not reported; the model's own threshold by default.
            classes: names of the classes to report; all by default.
            track: give boxes the ids of their objects, anew in each video.
            recursive: look into the folders of a folder, too.

        Raises:
            DataError: none of the sources gave a frame.
            MissingExtraError: there is a video, and PyAV is not installed.
            UsageError, ModelError: as for one image.
        """
        names = [source] if isinstance(source, str | Path | int) else source
        stream = FrameStream(self, score, classes=classes, track=track)
        return self._stream([str(name) for name in names], stream, recursive)

    def _stream(self, names: list[str], stream: FrameStream, recursive: bool) -> Iterator[Detections]:
        from squeezedet.media.sources import Failure, frames, locate
        from squeezedet.media.video import Reconnect

        failed: SqueezeDetError | None = None
        count = 0
        for frame in frames(locate(names, recursive=recursive), reconnect=Reconnect(say=log.warning)):
            if isinstance(frame, Failure):
                failed = failed or frame.error
                log.warning("squeezedet: %s", frame.error)
                continue
            count += 1
            yield stream.detect(frame)
        if failed and not count:
            raise failed

    def detect(self, frame: Frame, score: float | None = None) -> Detections:
        """Detect in one frame; ``timing_ms`` of the result says what each stage took."""
        start = time.perf_counter()
        pixels = fit(frame.pixels, self.card.input)
        timing_ms = {"load": frame.load_ms, "preprocess": (time.perf_counter() - start) * 1000}
        height, width = frame.pixels.shape[:2]
        return self.detect_fitted(pixels, (width, height), timing_ms, score, frame.name)

    def detect_fitted(
        self,
        pixels: NDArray[np.uint8],
        size: tuple[int, int],
        timing_ms: Mapping[str, float],
        score: float | None = None,
        name: str = "",
    ) -> Detections:
        """Detect in an image that was resized before.

        Args:
            pixels: (H, W, 3) uint8 RGB, of a size that the model's input rule gives.
            size: (width, height) of the image before that; boxes are in its pixels.
            timing_ms: what the stages took so far; ``network`` and ``postprocess`` are added.
            score: boxes below are not reported; the model's own threshold by default.
            name: of the image.

        Raises:
            UsageError: the score is not between 0 and 1.
            ModelError: the model fails, or gives a class that it does not have.
        """
        selection = self._selection(score)
        start = time.perf_counter()
        raw = self.engine.run(pixels)
        ran = time.perf_counter()
        found = report(raw, selection, self.card.input.content(*size), size)
        if not ((found.class_id >= 0) & (found.class_id < len(self.names))).all():
            raise ModelError(
                f"the model {self.card.name!r} gives a class id that none of its {len(self.names)} classes has"
            )
        stages = {"network": (ran - start) * 1000, "postprocess": (time.perf_counter() - ran) * 1000}
        return Detections(
            found.xyxy,
            found.score,
            found.class_id,
            self.names,
            image=name,
            width=size[0],
            height=size[1],
            timing_ms={**timing_ms, **stages},
        )

    def raw(self, frame: Frame) -> RawBoxes:
        """The boxes of every anchor in pixels of the frame, before top-N and NMS."""
        raw = self.engine.run(fit(frame.pixels, self.card.input))
        height, width = frame.pixels.shape[:2]
        content = self.card.input.content(width, height)
        return replace(raw, xyxy=to_original(raw.xyxy, content, (width, height)))

    # -------------------------------------------------------------- choices

    def _selection(self, score: float | None) -> Selection:
        if score is None:
            return self.card.selection
        try:
            return replace(self.card.selection, score=float(score))
        except (TypeError, ValueError) as error:
            raise UsageError(str(error)) from error

    def _class_ids(self, classes: Sequence[str] | None) -> NDArray[np.int64] | None:
        """The ids of class names; None for all."""
        if classes is None:
            return None
        names = [classes] if isinstance(classes, str) else list(classes)
        for name in names:
            if name not in self.names:
                near = get_close_matches(str(name), self.names, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise UsageError(f"`classes`: the model has no class {name!r} (it has {', '.join(self.names)}){hint}")
        return np.array([self.names.index(name) for name in names], np.int64)


class FrameStream:
    """Detects in one frame after the other; boxes can have the ids of their objects.

    Tracks begin anew in each video, and where a live source was opened again. Arguments and errors as for
    ``Detector.stream``.
    """

    def __init__(
        self,
        detector: Detector,
        score: float | None = None,
        *,
        classes: Sequence[str] | None = None,
        track: bool = False,
    ) -> None:
        self._detector = self._now = detector
        self._wanted, self._asked = classes, score
        self._track = track
        self._tracker = Tracker()
        self._take(detector)
        self._moment: FrameTime | None = None  # of the last frame

    def _take(self, detector: Detector) -> None:
        """Go on with a detector; tracks stay."""
        self._now = detector
        self._classes = detector._class_ids(self._wanted)
        self._score = detector._selection(self._asked).score
        self._tracker.config = TrackerConfig(high=self._score, low=self._score * LOW_SHARE)

    def detect(self, frame: Frame) -> Detections:
        """What is found in the next frame, with its times."""
        if (detector := self._detector.newest()) is not self._now:
            self._take(detector)
        moment, before = frame.moment, self._moment
        if moment.first if moment else before is not None:
            self._tracker = Tracker(self._tracker.config)  # what follows shows other objects
        elif moment and before and moment.reopened != before.reopened:
            self._tracker.forget()
        self._moment = moment
        found = self._now.detect(frame, self._tracker.config.low if self._track else self._score)
        if moment is not None:
            found = replace(found, time_s=moment.time_s, wall_time=moment.wall_time)
        if self._track:
            found = self._tracker.update(found)
        return _only(found, self._classes)


def _only(found: Detections, classes: NDArray[np.int64] | None) -> Detections:
    return found if classes is None else found[np.isin(found.class_id, classes)]


# ---------------------------------------------------------------- images


def _frame(image: Any) -> Frame:
    """Whatever stands for an image, as a frame; a DataError if it is none, or cannot be used."""
    import PIL.Image

    if isinstance(image, str) and image.lower().startswith(WEB):
        return _of_address(image)
    if isinstance(image, str | Path):
        path = Path(image)
        if path.is_dir():
            raise DataError(f"{path}: is a folder; use stream for all that is in it")
        return read_image(path)
    if isinstance(image, bytes | bytearray | memoryview):
        return read_image(bytes(image))
    if isinstance(image, np.ndarray):
        return _of_array(image)
    if isinstance(image, PIL.Image.Image):
        return frame_of(image)
    if type(image).__module__.partition(".")[0] == "torch" and hasattr(image, "detach"):
        return Frame(_of_tensor(image))
    raise DataError(
        f"an image is a path, an address, bytes, a PIL image, an array or a tensor, not {type(image).__name__}"
    )


def _of_address(url: str) -> Frame:
    from squeezedet.media.sources import Failure, frames, locate

    item = next(iter(frames(locate([url]))))
    if isinstance(item, Failure):
        raise item.error
    return item


def _of_array(array: NDArray[Any]) -> Frame:
    if array.ndim != 3 or array.shape[2] != CHANNELS or array.dtype != np.uint8 or not array.size:
        raise DataError(f"an array must be (H, W, 3) uint8 RGB and not empty, not {array.shape} {array.dtype}")
    return Frame(np.ascontiguousarray(array))


def _of_tensor(tensor: Any) -> NDArray[np.uint8]:
    """A torch tensor as (H, W, 3) uint8; (3, H, W) comes first where both could be."""
    array: Any = tensor.detach().cpu().contiguous().numpy() if _plain(tensor) else None
    shape = tuple(tensor.shape)
    if array is None or array.ndim != 3 or CHANNELS not in (shape[0], shape[2]) or not array.size:
        hint = "; for several images use batch" if len(shape) == 4 else ""
        raise DataError(
            f"a tensor must be (3, H, W) or (H, W, 3) RGB, uint8 or floats, not {shape} {tensor.dtype}{hint}"
        )
    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # also NaN
            raise DataError(
                f"a tensor of floats must be from 0 to 1, not {low:g} to {high:g}: divide by 255, "
                "or give uint8; do not subtract a mean"
            )
        array = np.rint(array * LEVELS).astype(np.uint8)
    if shape[0] == CHANNELS:
        array = array.transpose(1, 2, 0)
    pixels: NDArray[np.uint8] = np.ascontiguousarray(array)
    return pixels


def _plain(tensor: Any) -> bool:
    """Whether NumPy can have it: dense, on a real device, uint8 or float."""
    kinds = ("torch.uint8", "torch.float16", "torch.float32", "torch.float64")
    return str(tensor.dtype) in kinds and "strided" in str(tensor.layout) and not tensor.is_meta
