"""Which engine runs a model."""

from __future__ import annotations

import os
from collections.abc import Sequence

from squeezedet.errors import UsageError
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines.auto import Decision, decide
from squeezedet.runtime.engines.engine import Engine
from squeezedet.runtime.engines.named import RUNS, default_for, open_named

AUTO = "auto"
NAMES = (AUTO, *RUNS)


def open_engine(
    model: Bundle,
    name: str | None = None,
    threads: int | None = None,
    affinity: Sequence[int] | None = None,
) -> Engine:
    """Load a model into an engine.

    Args:
        model: what is loaded.
        name: one of ``NAMES``; ``auto`` for the fastest that answers as onnxruntime does, see
            ``auto.decide``. None for onnxruntime, or for the engine that a file was exported for.
        threads: processor threads; None for as many as there are cores in ``affinity``, or
            leaves the choice to the engine.
        affinity: the cores to compute on. The thread that calls, and all that it starts later,
            stay on them.

    Raises:
        UsageError: there is no such engine, it does not run this kind of file, or this machine
            has no such cores.
        MissingExtraError: it is not installed.
        ModelError: it cannot run the model.
    """
    return open_explained(model, name, threads, affinity)[0]


def open_explained(
    model: Bundle,
    name: str | None = None,
    threads: int | None = None,
    affinity: Sequence[int] | None = None,
) -> tuple[Engine, Decision | None]:
    """``open_engine``, and why ``auto`` chose this one; None where it did not choose."""
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    if affinity is not None:
        _pin(affinity)
        threads = threads or len(set(affinity))
    decision = decide(model, threads) if name == AUTO else None
    chosen = decision.engine if decision else name or default_for(model.format)
    return open_named(model, chosen, threads), decision


def _pin(cores: Sequence[int]) -> None:
    """Keep this thread, and those that it will start, on some cores."""
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("affinity: this system does not let a program choose its cores")
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, ValueError, OverflowError) as error:
        there = ", ".join(map(str, range(os.cpu_count() or 1)))
        wanted = ", ".join(map(str, cores)) or "none"
        raise UsageError(f"affinity: no such cores: {wanted} (there are {there})") from error
