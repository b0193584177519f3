"""The engines by name: which there are, which are installed, what each runs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from squeezedet.errors import UsageError
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines.engine import Engine

RUNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "onnxruntime": ("onnx",),
        "openvino": ("onnx", "openvino"),
        "ncnn": ("ncnn",),
        "torch": ("torchscript",),
    }
)
"""Engine -> the formats that it runs; the first engine of a format is its default."""
EXPORTED = {"ncnn": "ncnn", "torch": "torchscript"}
"""Engine -> what ``squeezedet export --to`` must say to make a file for it."""


def default_for(form: str) -> str:
    """The engine that runs a format unless another one is asked for."""
    return next(name for name, formats in RUNS.items() if form in formats)


def version(name: str) -> str | None:
    """The installed version of an engine; None if there is none. Nothing is imported."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def misfit(name: str, form: str) -> str | None:
    """Why an engine cannot run a format, after its name; None if it can."""
    if form in RUNS[name]:
        return None
    if form != "onnx":
        return f"runs no file for {default_for(form)}"
    return f"runs only a file made by `squeezedet export --to {EXPORTED[name]}`"


def open_named(model: Bundle, name: str, threads: int | None = None) -> Engine:
    """Load a model into the engine of a name.

    Raises:
        UsageError: there is no such engine, or it does not run this kind of file.
        MissingExtraError: it is not installed.
        ModelError: it cannot run the model.
    """
    if name not in RUNS:
        raise UsageError(f"--engine: no engine {name!r} (known: auto, {', '.join(RUNS)})")
    wrong = misfit(name, model.format)
    if wrong:
        raise UsageError(f"--engine: {name} {wrong}")
    match name:
        case "openvino":
            from squeezedet.runtime.engines.openvino import OpenVinoEngine

            return OpenVinoEngine(model.graph, model.weights, threads)
        case "ncnn":
            from squeezedet.runtime.engines.ncnn import NcnnEngine

            return NcnnEngine(model.card, model.graph, model.weights, threads)
        case "torch":
            from squeezedet.runtime.engines.torch import TorchEngine

            return TorchEngine(model.graph, threads)
    from squeezedet.runtime.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model.graph, threads)
