"""From a trained network to a narrower one: weigh the channels, time the layers, choose, cut."""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from squeezedet.data.sample import ClassMap, Sample
from squeezedet.errors import DataError, ModelError, UsageError
from squeezedet.exporting.bundle import bundle_detector, export
from squeezedet.models.network import DetectionNetwork
from squeezedet.models.squeezedet import ConvDet, ConvSpec, FireSpec, SqueezeDetBackbone, scaled
from squeezedet.preprocess import STRIDE
from squeezedet.runtime.engines import INPUT, import_onnxruntime
from squeezedet.training import checkpoint
from squeezedet.training.batches import Batch, Examples
from squeezedet.training.batches import batches as batches_of
from squeezedet.training.recipe import default_for
from squeezedet.version import __version__

# ------------------------------------------------------------ a SqueezeDet with fewer channels

Kept = Mapping[str, NDArray[np.intp]]
"""Layer name -> the output channels of it that stay, ascending."""


class Reader(NamedTuple):
    """A layer, and the convolutions whose outputs it reads, side by side."""

    name: str
    inputs: tuple[str, ...]


def chain(network: DetectionNetwork) -> tuple[Reader, ...]:
    """Every convolution of a SqueezeDet with what it reads, in the order of the data.

    Raises:
        UsageError: the network is no SqueezeDet or SqueezeDet+.
    """
    if not isinstance(network, ConvDet) or not isinstance(network.backbone, SqueezeDetBackbone):
        raise UsageError(f"channels are removed from SqueezeDet and SqueezeDet+ only, not {network.kind}")
    readers: list[Reader] = []
    before: tuple[str, ...] = ()
    for layer in network.backbone.layers:
        name = f"backbone.{layer.name}"
        match layer:
            case ConvSpec():
                readers.append(Reader(name, before))
                before = (name,)
            case FireSpec():
                squeeze, *expands = (f"{name}.{part}" for part in ("squeeze1x1", "expand1x1", "expand3x3"))
                readers += [Reader(squeeze, before), *(Reader(expand, (squeeze,)) for expand in expands)]
                before = tuple(expands)
    return (*readers, Reader("convdet", before))


def narrowed(network: DetectionNetwork, kept: Kept) -> ConvDet:
    """A network of the channels that stay, with their weights.

    Args:
        network: a SqueezeDet or SqueezeDet+; not changed.
        kept: for each convolution before ConvDet; all of a layer that is not named.

    Returns:
        In evaluation mode; exactly the wide one with the other channels at zero.

    Raises:
        UsageError: see ``chain``; or nothing of a layer stays.
    """
    readers = chain(network)
    wide = {reader.name: network.get_submodule(reader.name) for reader in readers}
    stay = {}
    for name, layer in wide.items():
        every = np.arange(layer.get_parameter("bias").numel())
        stay[name] = every if name == "convdet" else np.sort(kept.get(name, every))
        if not len(stay[name]):
            raise UsageError(f"{name}: one channel at least must stay")
    config = replace(network.config, widths=tuple(len(stay[r.name]) for r in readers if r.name != "convdet"))
    narrow = ConvDet(config)
    narrow.input_rule = network.input_rule
    with torch.no_grad():
        for reader in readers:
            layer = wide[reader.name]
            weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
            rows = torch.from_numpy(stay[reader.name])
            taken = weight[rows]
            if reader.inputs:  # the outputs of all layers that it reads, side by side
                starts = np.cumsum([0, *(wide[name].get_parameter("bias").numel() for name in reader.inputs)])
                inputs = [stay[name] + start for name, start in zip(reader.inputs, starts, strict=False)]
                taken = taken[:, torch.from_numpy(np.concatenate(inputs))]
            small = narrow.get_submodule(reader.name)
            small.get_parameter("weight").copy_(taken)
            small.get_parameter("bias").copy_(bias[rows])
    return narrow.eval()


# ------------------------------------------------------------ how much each channel matters to the loss

Importance = Mapping[str, NDArray[np.float64]]
"""Layer name -> a number for each of its output channels."""


def importance(network: DetectionNetwork, names: Iterable[str], some: Iterable[Batch]) -> Importance:
    """Measure it: (sum of gradient times weight)^2 of each filter with its bias, the mean of labelled batches.

    The network is in evaluation mode, without dropout; its gradients are used and left empty.
    """
    layers = {name: network.get_submodule(name) for name in names}
    sums: dict[str, list[NDArray[np.float64]]] = {name: [] for name in layers}
    for batch in some:
        network.zero_grad(set_to_none=True)
        terms = network.loss(network(batch.images), batch.targets)
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        for name, layer in layers.items():
            weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
            assert weight.grad is not None and bias.grad is not None  # noqa: S101 - just computed
            total = (weight.grad * weight).double().flatten(1).sum(1) + (bias.grad * bias).double()
            sums[name].append(total.square().detach().numpy())
    network.zero_grad(set_to_none=True)
    return {name: np.mean(values, axis=0) for name, values in sums.items()}


# ------------------------------------------------------------ how long each layer takes on this machine

WARM_UP = 3
LAYER = re.compile(r"detector\.(.+)\.weight")
REST = "rest"
"""What is no convolution: pools, concatenations, decoding."""


def layer_latency_ms(
    graph: bytes, size: tuple[int, int], *, rounds: int = 20, threads: int | None = None
) -> dict[str, float]:
    """Milliseconds of each convolution, by layer, and of the rest: the least of all runs.

    What else the machine does can only add to a run. The graph, as ONNX bytes, may be in float or int8; ``size`` is
    (width, height); no ``threads`` are all cores. A ModelError where it cannot be run.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    pixels = np.random.default_rng(0).integers(0, 256, (1, size[1], size[0], 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        try:
            session = onnxruntime.InferenceSession(_named(graph), options, providers=["CPUExecutionProvider"])
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
    """Layer name -> ``work``, input times output channels at each width, rising, and the ``ms`` it then took."""

    work: Mapping[str, tuple[float, ...]]
    ms: Mapping[str, tuple[float, ...]]

    def predicted_ms(self, layer: str, work: float) -> float:
        """Between two measured widths by a straight line; below the least one, down to zero."""
        return float(np.interp(work, (0.0, *self.work[layer]), (0.0, *self.ms[layer])))


# ------------------------------------------------------------ which channels go

FACTORS = (0.25, 0.5, 0.75, 1.0)
"""The widths at which latency is measured, against the whole network's."""
GROUP = 8
"""Channels that go at a time: engines compute several at once."""
LEAST = 8
"""Channels that stay in each layer."""


def measure_table(network: DetectionNetwork, latency_ms: Callable[[ConvDet], Mapping[str, float]]) -> Table:
    """Time networks of several widths, with random weights, layer by layer."""
    readers = chain(network)
    names = [*(reader.name for reader in readers), REST]
    work: dict[str, list[float]] = {name: [] for name in names}
    ms: dict[str, list[float]] = {name: [] for name in names}
    for factor in FACTORS:
        narrow = _random(network, factor)
        taken = latency_ms(narrow)
        sizes = work_of(readers, counts_of(narrow, readers))
        for name in names:
            work[name].append(sizes[name])
            ms[name].append(max(taken.get(name, 0.0), ms[name][-1] if ms[name] else 0.0))
    return Table(
        {name: tuple(values) for name, values in work.items()}, {name: tuple(values) for name, values in ms.items()}
    )


def choose_widths(network: DetectionNetwork, worth: Importance, table: Table, target_ms: float) -> Kept:
    """Take the least important channels away until the network takes no more than so many milliseconds, by the table.

    Raises:
        UsageError: even the narrowest network that is tried is slower.
    """
    readers = chain(network)
    order = {name: np.argsort(values, kind="stable") for name, values in worth.items()}
    falling = {name: np.concatenate([[0], np.cumsum(values[order[name]])]) for name, values in worth.items()}
    gone = dict.fromkeys(worth, 0)
    counts = counts_of(network, readers)

    def predicted_ms(counts: Mapping[str, int]) -> float:
        return sum(table.predicted_ms(name, size) for name, size in work_of(readers, counts).items())

    now = predicted_ms(counts)
    while now > target_ms:
        best, price = "", np.inf
        for name in worth:
            if counts[name] - GROUP < LEAST:
                continue
            saved = now - predicted_ms({**counts, name: counts[name] - GROUP})
            damage = falling[name][gone[name] + GROUP] - falling[name][gone[name]]
            if saved > 0 and damage / saved < price:
                best, price = name, damage / saved
        if not best:
            raise UsageError(f"{target_ms:g} ms cannot be reached: the narrowest takes {now:.1f} ms")
        gone[best] += GROUP
        counts[best] -= GROUP
        now = predicted_ms(counts)
    return {name: np.sort(order[name][gone[name] :]) for name in worth}


def _random(network: DetectionNetwork, factor: float) -> ConvDet:
    """The same network with all widths times a factor, and random weights."""
    backbone = network.get_submodule("backbone")
    assert isinstance(backbone, SqueezeDetBackbone)  # noqa: S101 - chain has seen to it
    narrow = ConvDet(replace(network.config, widths=scaled(backbone.layers, factor)))
    narrow.input_rule = network.input_rule
    return narrow.eval()


def counts_of(network: DetectionNetwork, readers: tuple[Reader, ...]) -> dict[str, int]:
    """Output channels of each layer."""
    return {r.name: network.get_parameter(f"{r.name}.bias").numel() for r in readers}


def work_of(readers: tuple[Reader, ...], counts: Mapping[str, int]) -> dict[str, float]:
    """Input times output channels of each layer; of the rest, the channels of all maps."""
    work = {r.name: float(counts[r.name] * sum(counts[name] for name in r.inputs) or counts[r.name]) for r in readers}
    return work | {REST: float(sum(counts.values()))}


# ------------------------------------------------------------ all of it

CALIBRATION_IMAGES = 32
"""Enough to time a quantized network; its accuracy does not matter here."""


@dataclass(frozen=True, slots=True)
class SlimRow:
    """One layer before and after; the last row is what is no convolution, and has no channels."""

    name: str
    channels: int
    kept: int
    ms: float
    predicted_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class SlimResult:
    """A narrower network.

    Attributes:
        network: with the weights that stay; it wants training.
        rows: layer by layer.
        before_ms: measured latency of the wide network, the sum of its layers.
    """

    network: ConvDet
    rows: Sequence[SlimRow]
    before_ms: float

    @property
    def predicted_ms(self) -> float:
        """Latency of the narrow network, by the table."""
        return sum(row.predicted_ms for row in self.rows)

    @property
    def parameters(self) -> int:
        """Trainable numbers that are left."""
        return sum(p.numel() for p in self.network.parameters())

    def write(self, path: Path) -> None:
        """Write a checkpoint to start a training from."""
        tensors = {f"model.{name}": tensor for name, tensor in self.network.state_dict().items()}
        checkpoint.write(
            path,
            tensors,
            {
                "config": checkpoint.describe(self.network),
                "recipe": asdict(default_for(self.network)),
                "input": asdict(self.network.input_rule),
                "step": 0,
                "versions": {"squeezedet": __version__},
            },
        )


def slim_network(
    network: DetectionNetwork,
    samples: Sequence[Sample],
    class_map: ClassMap,
    *,
    speed_up: float,
    int8: bool = False,
    size: tuple[int, int] | None = None,
    batches: int = 40,
    threads: int | None = None,
) -> SlimResult:
    """Take channels away from a SqueezeDet.

    Args:
        network: a SqueezeDet or SqueezeDet+, trained, in evaluation mode.
        samples: labelled images that tell which channels matter.
        class_map: of the data.
        speed_up: measured latency of the network against the wanted one.
        int8: time the layers quantized.
        size: (width, height) to time at; the network's own by default.
        batches: of eight images each.
        threads: processor threads of the engine; None for all cores.

    Raises:
        UsageError: the network is none of these, or cannot get so fast.
        DataError: an image cannot be decoded, or the data have other classes.
        MissingExtraError: ``int8`` without onnx.
    """
    readers = chain(network)
    if class_map.names != tuple(network.config.classes):
        raise DataError(
            f"the network detects {', '.join(network.config.classes)}, but the data have {', '.join(class_map.names)}"
        )
    rule = network.input_rule
    at = size or (rule.width, rule.height)
    if any(side < STRIDE or side % STRIDE for side in at):
        raise UsageError(f"`size`: {at[0]}x{at[1]}: the sides must be multiples of {STRIDE}")
    recipe = replace(default_for(network), steps=batches, workers=0)
    learned = batches_of(Examples(samples, class_map), network, recipe, 0)
    names = [reader.name for reader in readers if reader.name != "convdet"]
    worth = importance(network, names, islice(learned, batches))
    images = [sample.image for sample in samples[:CALIBRATION_IMAGES]]

    def latency_ms(narrow: ConvDet) -> Mapping[str, float]:
        return layer_latency_ms(_graph(narrow, at, images if int8 else ()), at, threads=threads)

    table = measure_table(network, latency_ms)
    before = sum(values[-1] for values in table.ms.values())
    narrow = narrowed(network, choose_widths(network, worth, table, before / speed_up))
    wide, thin = (counts_of(n, readers) for n in (network, narrow))
    work, less = (work_of(readers, counts) for counts in (wide, thin))
    rows = tuple(
        SlimRow(name, wide[name], thin[name], *(table.predicted_ms(name, w[name]) for w in (work, less)))
        for name in wide
    )
    rest = SlimRow(REST, 0, 0, *(table.predicted_ms(REST, w[REST]) for w in (work, less)))
    return SlimResult(narrow, (*rows, rest), before)


def _graph(network: ConvDet, size: tuple[int, int], images: Sequence[Path]) -> bytes:
    """The exported graph, quantized where there are images to calibrate on."""
    if not images:
        return export(network, size)
    from squeezedet.exporting.int8 import quantize

    return quantize(bundle_detector(network, "narrow"), images).graph
