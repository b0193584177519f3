"""What every inference engine is: uint8 pixels in, the boxes of every anchor out; and the three that there are."""

from __future__ import annotations

import math
import os
import re
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import MissingExtraError, ModelError, UsageError
from squeezedet.preprocess import STRIDE
from squeezedet.runtime.card import Card
from squeezedet.runtime.postprocess import RawBoxes

INPUT = "images"
OUTPUTS = ("boxes", "scores", "class_ids")
"""The names in an exported graph: (1, H, W, 3) uint8 in; (1, A, 4), (1, A) and (1, A) out."""
OUTPUT_TYPES = ("float32", "float32", "int64")


class Engine(Protocol):
    """One model, loaded and ready. Threads may share one.

    Attributes:
        name: of the engine, as ``--engine`` takes it.
    """

    name: str

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        """Pixels to the boxes of every anchor, in pixels of the input.

        Args:
            pixels: (H, W, 3) uint8 RGB of a size that the model's input rule gives.

        Returns:
            Arrays of the caller's own: the next run leaves them alone.

        Raises:
            ModelError: the model fails, or what it gives are no boxes, scores and class ids.
        """
        ...


def raw_boxes(boxes: NDArray[np.float32], score: NDArray[np.float32], class_id: NDArray[np.int64]) -> RawBoxes:
    """The three outputs of a graph as boxes, if they are any; each engine ends with this.

    Raises:
        ModelError: the shapes are not (1, A, 4), (1, A) and (1, A), the types are others, or a box or a score is NaN
            or infinite.
    """
    shapes = [array.shape for array in (boxes, score, class_id)]
    anchors = score.shape[-1:]
    if shapes != [(1, *anchors, 4), (1, *anchors), (1, *anchors)] or not anchors:
        raise ModelError(f"the model gives arrays of the shapes {shapes}, not (1, A, 4), (1, A) and (1, A)")
    types = tuple(str(array.dtype) for array in (boxes, score, class_id))
    if types != OUTPUT_TYPES:
        raise ModelError(f"the model gives {', '.join(types)}, not {', '.join(OUTPUT_TYPES)}")
    if not (_finite(score) and _finite(boxes)):
        raise ModelError("the model gives boxes or scores that are NaN or infinite")
    return RawBoxes(boxes[0], score[0], class_id[0])


def _finite(array: NDArray[np.float32]) -> bool:
    """A sum is several times faster than a look at each number, and NaN or infinity stays in it."""
    with np.errstate(all="ignore"):
        return math.isfinite(float(array.sum())) or bool(np.isfinite(array).all())


def check_ports(inputs: Mapping[str, str], outputs: Mapping[str, str], types: Sequence[str]) -> None:
    """Raises ModelError for a graph that is no detector of ours.

    Args:
        inputs: name -> type, as the engine writes types.
        outputs: the same.
        types: that engine's words for uint8 and for the three outputs.
    """
    wanted = dict(zip(OUTPUTS, types[1:], strict=True))
    if inputs != {INPUT: types[0]} or outputs != wanted:
        raise ModelError(
            f"the graph takes {inputs} and gives {outputs}; a detector takes uint8 {INPUT!r} and gives {wanted}"
        )


def failed_run(pixels: NDArray[np.uint8], error: Exception) -> ModelError:
    """What to raise when an engine fails on these pixels."""
    height, width = pixels.shape[:2]
    return ModelError(f"the model fails on an input of {width}x{height} pixels: {first_line(error)}")


def first_line(error: Exception) -> str:
    """The first line of what an engine says that is no "Exception from FILE:LINE"."""
    lines = (line.strip() for line in str(error).splitlines())
    said = [line for line in lines if line and not line.startswith("Exception from")]
    return said[0] if said else type(error).__name__


# ---------------------------------------------------------------- onnxruntime, the default

ONNXRUNTIME_TYPES = ("tensor(uint8)", "tensor(float)", "tensor(float)", "tensor(int64)")
CPU = "CPUExecutionProvider"
PROVIDERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "cpu": (CPU, "onnxruntime"),
        "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
        "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu"),
        "coreml": ("CoreMLExecutionProvider", "onnxruntime"),
        "dml": ("DmlExecutionProvider", "onnxruntime-directml"),
    }
)
"""Name after ``onnxruntime:`` -> the provider, and the package of onnxruntime that has it."""
HAVE_CARDS = ("cuda", "tensorrt", "dml")


def import_onnxruntime() -> Any:
    """The package, with its telemetry off; every module that needs it gets it here.

    Since 1.29 its wheels report to their maker unless told not to before the import.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


class OnnxRuntimeEngine:
    """Runs an exported graph: uint8 pixels in, the boxes of every anchor out.

    Args:
        graph: ONNX bytes, checked before, see ``graph_check``.
        threads: processor threads; None leaves the choice to onnxruntime (all cores).
        provider: a key of ``PROVIDERS``; ``cuda:1``, ``tensorrt:1`` or ``dml:1`` for the second card.

    Raises:
        UsageError: there is no such provider, or this onnxruntime has it not.
        ModelError: onnxruntime cannot run the graph, or it is no detector of ours.
    """

    def __init__(self, graph: bytes, threads: int | None = None, provider: str = "cpu") -> None:
        self.name = "onnxruntime" if provider == "cpu" else f"onnxruntime:{provider}"
        onnxruntime = import_onnxruntime()
        kind, _, card = provider.partition(":")
        wanted = _provider(onnxruntime, kind)
        if card and (kind not in HAVE_CARDS or not re.fullmatch("[0-9]{1,3}", card)):
            raise UsageError(f"`engine`: {self.name}: onnxruntime has no such card")
        providers = {wanted: {"device_id": card} if card else {}, CPU: {}}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised below, once
        # A thread that waits sleeps: the core is decoding's and drawing's meanwhile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=list(providers), provider_options=list(providers.values())
            )
        except Exception as error:  # onnxruntime's errors share no base class
            raise ModelError(
                f"onnxruntime {onnxruntime.__version__} cannot run the model: {first_line(error)}"
            ) from error
        if wanted not in self._session.get_providers():  # it falls back without a word
            raise ModelError(
                f"{self.name}: {wanted} could not be started on this machine; its driver or its libraries are missing"
            )
        inputs = {i.name: i.type for i in self._session.get_inputs()}
        outputs = {o.name: o.type for o in self._session.get_outputs()}
        check_ports(inputs, outputs, ONNXRUNTIME_TYPES)

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        try:
            boxes, score, class_id = self._session.run(OUTPUTS, {INPUT: pixels[None]})
        except Exception as error:  # as above
            raise failed_run(pixels, error) from error
        return raw_boxes(boxes, score, class_id)


def _provider(onnxruntime: Any, name: str) -> str:
    if name not in PROVIDERS:
        raise UsageError(f"`engine`: onnxruntime has no {name!r} (known: {', '.join(PROVIDERS)})")
    wanted, package = PROVIDERS[name]
    there = onnxruntime.get_available_providers()
    if wanted not in there:
        raise UsageError(
            f"`engine`: onnxruntime:{name}: the installed onnxruntime has no {wanted} (it has "
            f"{', '.join(there)}); pip install {package} in its place"
        )
    return wanted


# ---------------------------------------------------------------- OpenVINO

OPENVINO_TYPES = ("u8", "f32", "f32", "i64")
MAX_SIZES = 4
"""Compiled networks that are kept; the input rule gives pictures of one camera one size."""


def import_openvino() -> Any:
    """The package, with its telemetry off.

    Importing openvino sends an event, unless the package that sends it cannot be imported.

    Raises:
        MissingExtraError: it is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("the engine openvino", "openvino") from error
    return openvino


class OpenVinoEngine:
    """Runs an exported graph, compiled for each size of input.

    A network of one fixed size is faster than one of any size, so each size is compiled when it is first seen, and the
    last few are kept.

    Args:
        graph: ONNX bytes, or the text of model.xml.
        weights: the bytes of model.bin, for model.xml.
        threads: processor threads; None for all cores.

    Raises:
        MissingExtraError: openvino is not installed.
        ModelError: openvino cannot read the graph, or it is no detector of ours.
    """

    name = "openvino"

    def __init__(self, graph: bytes, weights: bytes = b"", threads: int | None = None) -> None:
        openvino = import_openvino()
        self._core = openvino.Core()
        try:
            read = self._core.read_model
            self._model = read(graph, weights) if weights else read(graph)
        except Exception as error:  # openvino raises RuntimeError for everything, and not only that
            version = openvino.__version__.split("-")[0]
            raise ModelError(f"openvino {version} cannot read the model: {first_line(error)}") from error
        inputs = {port.any_name: port.element_type.get_type_name() for port in self._model.inputs}
        outputs = {port.any_name: port.element_type.get_type_name() for port in self._model.outputs}
        check_ports(inputs, outputs, OPENVINO_TYPES)
        self._config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # or processors with bfloat16 would round
        }
        if threads:
            self._config["INFERENCE_NUM_THREADS"] = threads
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._lock = threading.Lock()  # a request answers one caller at a time

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        with self._lock:
            try:
                request = self._request(pixels.shape)
                found = request.infer({INPUT: pixels[None]}, share_inputs=True)
                boxes, score, class_id = (found[name] for name in OUTPUTS)
            except Exception as error:  # as above
                raise failed_run(pixels, error) from error
        return raw_boxes(boxes, score, class_id)

    def _request(self, shape: tuple[int, ...]) -> Any:
        """The request of a size, compiled if it is new; the size least used of late goes."""
        if shape not in self._requests:
            model = self._model.clone()
            model.reshape({INPUT: [1, *shape]})
            compiled = self._core.compile_model(model, "CPU", self._config)
            self._requests[shape] = compiled.create_infer_request()
            if len(self._requests) > MAX_SIZES:
                self._requests.popitem(last=False)
        self._requests.move_to_end(shape)
        return self._requests[shape]


# ---------------------------------------------------------------- ncnn

MAX_ANCHORS = 1000
EXP_THRESHOLD = 1.0


@dataclass(frozen=True, slots=True)
class ConvDetDecoder:
    """What turns ConvDet's map into boxes: the number of classes, and each anchor's (width, height) in pixels."""

    classes: int
    anchors: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, card: Card) -> ConvDetDecoder:
        """The decoder of a model, by its card; a ModelError if that describes no ConvDet of the default geometry."""
        try:
            config = card.training["config"]
            if config["detector"] != "convdet" or config["geometry"] != "default":
                raise ValueError("only ConvDet of the default geometry is decoded in NumPy")
            anchors = tuple((float(width), float(height)) for width, height in config["anchors"])
            if not 0 < len(anchors) <= MAX_ANCHORS:
                raise ValueError(f"{len(anchors)} anchors")
            if not all(0 < side < 1e6 for anchor in anchors for side in anchor):
                raise ValueError("an anchor's side is no length")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelError(f"{card.name}: the card holds no ConvDet to decode: {error}") from error
        return cls(len(card.classes), anchors)

    def __call__(self, raw: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """ConvDet's map to boxes of every anchor, ordered by row, column, anchor.

        Args:
            raw: (K * (C + 5), rows, columns): for each of K anchors C class logits, then K
                confidence logits, then K x 4 deltas.

        Returns:
            (1, A, 4) xyxy boxes inside the input, (1, A) scores, (1, A) class ids.

        Raises:
            ModelError: the map has another number of channels.
        """
        k, c = len(self.anchors), self.classes
        if raw.ndim != 3 or len(raw) != k * (c + 5):
            raise ModelError(
                f"the model gives a map of the shape {raw.shape}; {k} anchors and {c} classes "
                f"need {k * (c + 5)} channels"
            )
        rows, columns = raw.shape[1:]
        cells = np.ascontiguousarray(raw.reshape(len(raw), -1).T)
        logits = cells[:, : k * c].reshape(-1, c)
        confidence = cells[:, k * c : k * (c + 1)].reshape(-1)
        deltas = cells[:, k * (c + 1) :].reshape(-1, 4)
        class_id = logits.argmax(axis=1)
        with np.errstate(over="ignore"):  # exp(1000) is infinite, and 1 / infinity is right
            best = logits.max(axis=1, keepdims=True)
            probability = 1 / np.exp(logits - best).sum(axis=1)
            score = probability / (1 + np.exp(-confidence))
        boxes = _boxes(deltas, _anchors(self.anchors, rows, columns), rows, columns)
        return boxes[None], score[None], class_id[None].astype(np.int64, copy=False)


def _boxes(deltas: NDArray[np.float32], anchors: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """(A, 4) deltas to (A, 4) xyxy (eq. 1); exp is replaced by its tangent e * x above 1."""
    growth = deltas[:, 2:]
    scale = np.where(growth > EXP_THRESHOLD, np.float32(np.e) * growth, np.exp(np.minimum(growth, EXP_THRESHOLD)))
    center = anchors[:, :2] + anchors[:, 2:] * deltas[:, :2]
    half = anchors[:, 2:] * scale / 2
    limit = np.array([columns, rows], np.float32) * STRIDE
    return np.concatenate([np.clip(center - half, 0, limit), np.clip(center + half, 0, limit)], axis=1)


@lru_cache(maxsize=8)
def _anchors(shapes: tuple[tuple[float, float], ...], rows: int, columns: int) -> NDArray[np.float32]:
    """(A, 4) anchors: center (that of the cell), width, height."""
    anchors = np.empty((rows, columns, len(shapes), 4), np.float32)
    anchors[..., 0] = ((np.arange(columns) + 0.5) * STRIDE)[None, :, None]
    anchors[..., 1] = ((np.arange(rows) + 0.5) * STRIDE)[:, None, None]
    anchors[..., 2:] = shapes
    return anchors.reshape(-1, 4)


NCNN_INPUT, NCNN_OUTPUT = "in0", "out0"
"""The blobs' names, as pnnx gives them: (3, H, W) RGB of 0 to 255 in, ConvDet's map out."""


class NcnnEngine:
    """Runs a network in ncnn's own files, which end with ConvDet's map: uint8 pixels in, the boxes of every anchor out.

    Args:
        card: of the model; its numbers decode the map.
        param: the text of model.ncnn.param.
        weights: the bytes of model.ncnn.bin.
        threads: processor threads; None for all cores.

    Raises:
        MissingExtraError: ncnn is not installed.
        ModelError: ncnn cannot read the files, or they hold no detector of ours.
    """

    name = "ncnn"

    def __init__(self, card: Card, param: bytes, weights: bytes, threads: int | None = None) -> None:
        try:
            import ncnn
        except ImportError as error:
            raise MissingExtraError("the engine ncnn", "ncnn") from error
        self._ncnn = ncnn
        self._process = os.getpid()
        self._decode = ConvDetDecoder.of(card)
        self._net = ncnn.Net()
        options = self._net.opt
        # Everything in float32: 16-bit arithmetic is faster on ARM, and moves boxes by pixels.
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        if threads:
            options.num_threads = threads
        self._load(param, weights)

    def _load(self, param: bytes, weights: bytes) -> None:
        try:
            read = self._net.load_param_mem(param.decode()) == 0
        except UnicodeDecodeError:
            read = False
        if read:
            # Given bytes in memory, ncnn reads beyond their end; of a file it knows the length.
            with tempfile.TemporaryDirectory(prefix="squeezedet-") as folder:
                path = Path(folder) / "model.ncnn.bin"
                path.write_bytes(weights)
                read = self._net.load_model(str(path)) == 0
        if not read:
            version = self._ncnn.__version__
            raise ModelError(f"ncnn {version} cannot read the model: the files are damaged")
        names = (tuple(self._net.input_names()), tuple(self._net.output_names()))
        if names != ((NCNN_INPUT,), (NCNN_OUTPUT,)):
            raise ModelError(
                f"the network takes {names[0]} and gives {names[1]}; "
                f"a detector takes {NCNN_INPUT!r} and gives {NCNN_OUTPUT!r}"
            )

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        if os.getpid() != self._process:  # ncnn's threads do not survive a fork: the run would hang
            raise ModelError(
                "the engine ncnn was opened before this process was forked, and its "
                "threads are not here: call squeezedet.load in the worker"
            )
        height, width = pixels.shape[:2]
        kind = self._ncnn.Mat.PixelType.PIXEL_RGB
        image = self._ncnn.Mat.from_pixels(np.ascontiguousarray(pixels), kind, width, height)
        extractor = self._net.create_extractor()
        extractor.input(NCNN_INPUT, image)
        code, found = extractor.extract(NCNN_OUTPUT)
        if code != 0:
            raise ModelError(f"the model fails on an input of {width}x{height} pixels")
        return raw_boxes(*self._decode(np.asarray(found)))
