"""Which engine runs a model: by its name, or the fastest whose answer is onnxruntime's.

For ``auto`` every engine that is installed and runs the format is timed once on the package's
picture, in the model's size of input. One whose boxes or scores differ from onnxruntime's is passed
over; of the others the one with the lowest median time is taken. The decision is kept in the
user's cache folder, for this model, machine, versions of the engines and number of threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError, SqueezeDetError, UsageError
from squeezedet.files import cache_folder, read_regular, write_atomic
from squeezedet.runtime import parity
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines import Engine, NcnnEngine, OnnxRuntimeEngine, OpenVinoEngine
from squeezedet.runtime.graph_check import check_graph
from squeezedet.runtime.postprocess import RawBoxes

SUPPORTED_FORMATS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"onnxruntime": ("onnx",), "openvino": ("onnx", "openvino"), "ncnn": ("ncnn",)}
)
"""Engine -> the formats that it runs; the first engine of a format is its default."""
AUTO = "auto"


def default_for(form: str) -> str:
    """The engine that runs a format unless another one is asked for."""
    return next(name for name, formats in SUPPORTED_FORMATS.items() if form in formats)


def version(name: str) -> str | None:
    """The installed version of an engine; None if there is none. Nothing is imported."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def why_unsupported(name: str, form: str) -> str | None:
    """Why an engine cannot run a format, after its name; None if it can."""
    if form in SUPPORTED_FORMATS[name]:
        return None
    if form != "onnx":
        return f"runs no file for {default_for(form)}"
    return f"runs only a file made by `squeezedet export --to {name}`"


def open_engine(model: Bundle, name: str | None = None, threads: int | None = None) -> Engine:
    """Load a model into an engine.

    Args:
        model: what is loaded; an ONNX graph is checked first, see ``graph_check``.
        name: of ``SUPPORTED_FORMATS``; onnxruntime also with a provider, ``onnxruntime:cuda``, whose answer must be
            the processor's. None for onnxruntime, or for the engine that a file was exported for.
        threads: processor threads; None leaves the choice to the engine.

    Raises:
        UsageError: there is no such engine or provider, or it does not run this kind of file.
        MissingExtraError: it is not installed.
        ModelError: it cannot run the model, or a provider's answer is another.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"`threads` must be at least 1, not {threads}")
    name = name or default_for(model.format)
    engine, _, provider = name.partition(":")
    if engine not in SUPPORTED_FORMATS or (provider and engine != "onnxruntime"):
        raise UsageError(f"`engine`: no engine {name!r} (known: {', '.join((AUTO, *SUPPORTED_FORMATS))})")
    if wrong := why_unsupported(engine, model.format):
        raise UsageError(f"`engine`: {name} {wrong}")
    if model.format == "onnx":
        check_graph(model.graph, model.card.name)
    match engine:
        case "openvino":
            return OpenVinoEngine(model.graph, model.weights, threads)
        case "ncnn":
            return NcnnEngine(model.card, model.graph, model.weights, threads)
    opened = OnnxRuntimeEngine(model.graph, threads, provider or "cpu")
    if opened.name != REFERENCE:
        _check_provider(model, opened, threads)
    return opened


def _check_provider(model: Bundle, engine: Engine, threads: int | None) -> None:
    """Raises ModelError if a provider's boxes are not those of the processor."""
    (pixels,) = parity.sample_pixels(model)
    wanted = open_engine(model, REFERENCE, threads).run(pixels)
    difference = parity.compare(wanted, engine.run(pixels), model.card.selection)
    if not difference.within(_tolerance(model)):
        raise ModelError(f"{engine.name} differs from {REFERENCE} on the processor: {difference}")


def _tolerance(model: Bundle) -> parity.Tolerance:
    return parity.INT8 if parity.is_int8(model) else parity.FLOAT


def select_engine(model: Bundle, name: str | None = None, threads: int | None = None) -> tuple[Engine, Decision | None]:
    """Load a model into an engine, and say why ``auto`` chose it; arguments and errors as ``open_engine``.

    ``name`` may be ``auto``: the fastest that answers as onnxruntime does, see ``decide``. The decision is None
    for all others.
    """
    if name != AUTO:
        return open_engine(model, name, threads), None
    decision = decide(model, threads)
    return open_engine(model, decision.engine, threads), decision


REFERENCE = "onnxruntime"
WARM_UP, RUNS_AT_LEAST, RUNS_AT_MOST, SECONDS = 2, 3, 20, 1.0
"""Runs of each engine: so many uncounted, then until a second is over, within these limits."""
MAX_CACHE_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class EngineTrial:
    """What was found of one engine: the median time of a frame, or why it is passed over."""

    engine: str
    ms: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Which engine was chosen, by the trials of all, perhaps those of an earlier time (``remembered``)."""

    engine: str
    trials: tuple[EngineTrial, ...]
    remembered: bool = False

    def describe(self) -> str:
        """One line: "engine openvino (34.1 ms); passed over: onnxruntime (slower: 43.0 ms)"."""
        times = {v.engine: v.ms for v in self.trials}
        own = times.get(self.engine)
        chosen = f"engine {self.engine}" + (f" ({own:.1f} ms)" if own is not None else "")
        others = [f"{v.engine} ({v.why or f'slower: {v.ms:.1f} ms'})" for v in self.trials if v.engine != self.engine]
        passed = f"; passed over: {', '.join(others)}" if others else ""
        return chosen + passed + (" (measured before)" if self.remembered else "")


def decide(model: Bundle, threads: int | None = None) -> Decision:
    """The engine for a model on this machine.

    Raises:
        ModelError: no engine runs the model.
        MissingExtraError: the only engine for a file of this kind is not installed.
    """
    if model.format != "onnx":
        only = default_for(model.format)
        trials = (EngineTrial(name, why=why_unsupported(name, model.format) or "") for name in SUPPORTED_FORMATS)
        return Decision(only, tuple(trials))
    folder = cache_folder()
    kept = None if folder is None else folder / f"engine-{_key(model, threads)}.json"
    decision = None if kept is None else _remembered(kept)
    if decision is None:
        decision = _try_all(model, threads)
        if kept is not None:
            _keep(kept, decision)
    return decision


def _key(model: Bundle, threads: int | None) -> str:
    """What a decision depends on."""
    facts = {
        "graph": model.card.graph_sha256,
        "input": asdict(model.card.input),
        "machine": [platform.system(), platform.machine(), _processor(), os.cpu_count()],
        "cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "engines": {name: version(name) for name in SUPPORTED_FORMATS},
        "threads": threads,
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _processor() -> str:
    """The name of the processor, as well as this system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _try_all(model: Bundle, threads: int | None) -> Decision:
    (pixels,) = parity.sample_pixels(model)
    reference = open_engine(model, REFERENCE, threads)
    wanted = reference.run(pixels)
    trials = [EngineTrial(REFERENCE, _median_ms(reference, pixels))]
    del reference
    for name in SUPPORTED_FORMATS:
        if name != REFERENCE:
            trials.append(_try(model, name, threads, pixels, wanted))
    usable = [(trial.ms, trial.engine) for trial in trials if trial.ms is not None]
    return Decision(min(usable)[1], tuple(trials))


def _try(model: Bundle, name: str, threads: int | None, pixels: NDArray[np.uint8], wanted: RawBoxes) -> EngineTrial:
    if wrong := why_unsupported(name, model.format):
        return EngineTrial(name, why=wrong)
    if version(name) is None:
        return EngineTrial(name, why=f"not installed: pip install 'squeezedet[{name}]'")
    try:
        engine = open_engine(model, name, threads)
        found = engine.run(pixels)
    except SqueezeDetError as error:
        return EngineTrial(name, why=f"fails: {error}")
    difference = parity.compare(wanted, found, model.card.selection)
    if not difference.within(_tolerance(model)):
        return EngineTrial(name, why=f"differs from {REFERENCE}: {difference}")
    return EngineTrial(name, _median_ms(engine, pixels))


def _median_ms(engine: Engine, pixels: NDArray[np.uint8]) -> float:
    for _ in range(WARM_UP):
        engine.run(pixels)
    times: list[float] = []
    while len(times) < RUNS_AT_LEAST or (len(times) < RUNS_AT_MOST and sum(times) < SECONDS):
        start = time.perf_counter()
        engine.run(pixels)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1000


def _remembered(kept: Path) -> Decision | None:
    """What is in the cache; None if nothing is there, or nothing that makes sense."""
    try:
        values = json.loads(read_regular(kept, MAX_CACHE_BYTES))
        trials = tuple(EngineTrial(v["engine"], v["ms"], v["why"]) for v in values["verdicts"])
        engine = values["engine"]
        _check(engine, trials)
    except (SqueezeDetError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return Decision(engine, trials, remembered=True)


def _check(engine: object, trials: tuple[EngineTrial, ...]) -> None:
    """Raises ValueError for a decision that ``decide`` never made."""
    for trial in trials:
        measured = type(trial.ms) is float and not trial.why
        passed_over = trial.ms is None and isinstance(trial.why, str)
        if trial.engine not in SUPPORTED_FORMATS or not (measured or passed_over):
            raise ValueError("a trial is malformed")
    if engine not in [trial.engine for trial in trials if trial.ms is not None]:
        raise ValueError("the engine was not measured")


def _keep(kept: Path, decision: Decision) -> None:
    content = {"engine": decision.engine, "verdicts": [asdict(v) for v in decision.trials]}
    try:
        write_atomic(kept, json.dumps(content, indent=1) + "\n")
    except SqueezeDetError:
        return  # a read-only or full home: the next start measures again
