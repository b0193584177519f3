"""From a trained network to a narrower one: weigh the channels, time the layers, choose, cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

from squeezedet.compression.slimming.channels import chain, narrowed
from squeezedet.compression.slimming.choose import choose, counts_of, measure_table, work_of
from squeezedet.compression.slimming.importance import importance
from squeezedet.compression.slimming.layer_latency import REST, layer_latency_ms
from squeezedet.data.sample import ClassMap, Sample
from squeezedet.detectors.convdet import ConvDet
from squeezedet.detectors.network import DetectionNetwork
from squeezedet.errors import DataError
from squeezedet.export.bundle import bundle_detector
from squeezedet.export.onnx import export
from squeezedet.runtime.bundle import Bundle
from squeezedet.training import checkpoint
from squeezedet.training.batches import batches as batches_of
from squeezedet.training.examples import Examples
from squeezedet.training.recipe import default_for
from squeezedet.version import __version__

CALIBRATION_IMAGES = 32
"""Enough to time a quantised network; its accuracy does not matter here."""


@dataclass(frozen=True, slots=True)
class Row:
    """One layer: its name, channels before and after, and milliseconds before and after.

    The last row is what is no convolution, and has no channels.
    """

    name: str
    channels: int
    kept: int
    ms: float
    guessed_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class Slimmed:
    """A narrower network.

    Attributes:
        network: with the weights that stay; it wants training.
        rows: layer by layer.
        before_ms: measured latency of the wide network, the sum of its layers.
        guessed_ms: of the narrow one.
    """

    network: ConvDet
    rows: Sequence[Row]
    before_ms: float
    guessed_ms: float

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
) -> Slimmed:
    """Take channels away from a SqueezeDet.

    Args:
        network: a SqueezeDet or SqueezeDet+, trained, in evaluation mode.
        samples: labelled images that tell which channels matter.
        class_map: of the data.
        speed_up: measured latency of the network against the wanted one.
        int8: time the layers quantised.
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
            f"the network detects {', '.join(network.config.classes)}, but the data have "
            f"{', '.join(class_map.names)}"
        )
    rule = network.input_rule
    at = size or (rule.width, rule.height)
    recipe = replace(default_for(network), steps=batches, workers=0)
    learnt = batches_of(Examples(samples, class_map), network, recipe, 0)
    names = [reader.name for reader in readers if reader.name != "convdet"]
    worth = importance(network, names, islice(learnt, batches))
    images = [sample.image for sample in samples[:CALIBRATION_IMAGES]]

    def latency_ms(narrow: ConvDet) -> Mapping[str, float]:
        return layer_latency_ms(_graph(narrow, at, images if int8 else ()), at, threads=threads)

    table = measure_table(network, latency_ms)
    before = sum(values[-1] for values in table.ms.values())
    choice = choose(network, worth, table, before / speed_up)
    narrow = narrowed(network, choice.kept)
    wide, thin = (counts_of(n, readers) for n in (network, narrow))
    work, less = (work_of(readers, counts) for counts in (wide, thin))
    rows = tuple(
        Row(name, wide[name], thin[name], *(table.guess_ms(name, w[name]) for w in (work, less)))
        for name in wide
    )
    rest = Row(REST, 0, 0, *(table.guess_ms(REST, w[REST]) for w in (work, less)))
    return Slimmed(narrow, (*rows, rest), before, choice.guessed_ms)


def _graph(network: ConvDet, size: tuple[int, int], images: Sequence[Path]) -> bytes:
    """The exported graph, quantised where there are images to calibrate on."""
    if not images:
        return export(network, size, half=False)
    from squeezedet.export.int8 import quantise

    quantised: Bundle = quantise(bundle_detector(network, "narrow"), images)
    return quantised.graph
