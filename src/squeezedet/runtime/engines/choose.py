"""Which engine runs a model."""

from __future__ import annotations

from squeezedet.errors import UsageError
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines.engine import Engine

DEFAULT = "onnxruntime"
NAMES = (DEFAULT,)


def open_engine(model: Bundle, name: str = DEFAULT, threads: int | None = None) -> Engine:
    """Load a model into an engine.

    Args:
        model: what is loaded.
        name: one of ``NAMES``.
        threads: processor threads; None leaves the choice to the engine.

    Raises:
        UsageError: there is no such engine.
        MissingExtraError: it is not installed.
        ModelError: it cannot run the model.
    """
    if name != DEFAULT:
        raise UsageError(f"--engine: no engine {name!r} (known: {', '.join(NAMES)})")
    from squeezedet.runtime.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model.graph, threads)
