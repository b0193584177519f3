"""How long each layer takes on this machine, measured by onnxruntime, and a guess for other widths.

Operations do not tell: a layer of few channels at high resolution is slower than its share of the
operations, and not every width suits the vector units.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from squeezedet.errors import ModelError

WARM_UP = 3
LAYER = re.compile(r"detector\.(.+)\.weight")
REST = "rest"
"""What is no convolution: pools, concatenations, decoding."""


def layer_latency_ms(
    graph: bytes, size: tuple[int, int], *, rounds: int = 20, threads: int | None = None
) -> dict[str, float]:
    """Milliseconds of each convolution, by layer, and of the rest: the least of all runs.

    What else the machine does can only add to a run.

    Args:
        graph: of a detector, float or int8, as ONNX bytes.
        size: (width, height) of the input.
        rounds: how often it is run.
        threads: processor threads; None for all cores.

    Raises:
        ModelError: the graph cannot be run.
    """
    import onnxruntime

    from squeezedet.runtime.engines.engine import INPUT

    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    pixels = np.random.default_rng(0).integers(0, 256, (1, size[1], size[0], 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = onnxruntime.InferenceSession(
                _named(graph), options, providers=["CPUExecutionProvider"]
            )
            for _ in range(WARM_UP + rounds):
                session.run(None, {INPUT: pixels})
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except Exception as error:  # onnxruntime's errors share no base class
            raise ModelError(f"the layers cannot be timed: {error}") from error
    return _least(events, WARM_UP + rounds)


def _named(graph: bytes) -> bytes:
    """The graph with its convolutions, and what they give, named after their layers."""
    import onnx

    model = onnx.load_from_string(graph)
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
        if node.op_type == "Conv":
            found = LAYER.search(node.input[1])
            node.name = f"layer:{found[1] if found else node.name}:"  # int8: named already
        elif node.op_type in ("Relu", "Clip") and node.input[0].startswith("layer:"):
            node.name = node.input[0]
        else:
            continue
        new = f"{node.name}{len(renamed)}"
        renamed[node.output[0]] = new
        node.output[0] = new
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


def _least(events: Sequence[Mapping[str, object]], runs: int) -> dict[str, float]:
    """What each kernel took in its best run, after the warm-up."""
    taken: dict[str, list[float]] = defaultdict(list)
    for event in events:
        name, duration = str(event.get("name")), event.get("dur")
        if name.endswith("_kernel_time") and isinstance(duration, int | float):
            taken[name].append(duration / 1000)
    sums: dict[str, float] = defaultdict(float)
    for name, values in taken.items():
        per_run = len(values) // runs or 1
        layer = name.split(":")[1] if ":" in name else REST
        sums[layer] += per_run * min(values[WARM_UP * per_run :])
    return dict(sums)


@dataclass(frozen=True, slots=True)
class Table:
    """What layers took at some widths.

    Attributes:
        work: layer name -> products of input and output channels at each width, rising.
        ms: layer name -> what they took, of the same length.
    """

    work: Mapping[str, tuple[float, ...]]
    ms: Mapping[str, tuple[float, ...]]

    def guess_ms(self, layer: str, work: float) -> float:
        """Between two measured widths by a straight line; below the least one, down to zero."""
        return float(np.interp(work, (0.0, *self.work[layer]), (0.0, *self.ms[layer])))
