"""Which channels go: those that matter least for each millisecond that they take.

The latency of a layer depends on what it reads, too, so a channel is paid for by its own layer
and by all that read it. Greedy: a group of channels at a time, the least loss of importance for
a millisecond saved, until the network is as fast as wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from squeezedet.compression.slimming.channels import Kept, Reader, chain
from squeezedet.compression.slimming.importance import Importance
from squeezedet.compression.slimming.layer_latency import REST, Table
from squeezedet.detectors.convdet import ConvDet
from squeezedet.detectors.network import DetectionNetwork
from squeezedet.detectors.squeezedet import SqueezeDetBackbone, scaled
from squeezedet.errors import UsageError

FACTORS = (0.25, 0.5, 0.75, 1.0)
"""The widths at which latency is measured, against the whole network's."""
GROUP = 8
"""Channels that go at a time: engines compute several at once."""
LEAST = 8
"""Channels that stay in each layer."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What stays.

    Attributes:
        kept: see ``channels.narrowed``.
        guessed_ms: latency of the network, by the table.
        lost: importance of the channels that go, as a share of all.
    """

    kept: Kept
    guessed_ms: float
    lost: float


def measure_table(
    network: DetectionNetwork, latency_ms: Callable[[ConvDet], Mapping[str, float]]
) -> Table:
    """Time networks of several widths, layer by layer.

    Args:
        network: a SqueezeDet or SqueezeDet+.
        latency_ms: measures one, with random weights, see ``layer_latency.layer_latency_ms``.
    """
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
        {name: tuple(values) for name, values in work.items()},
        {name: tuple(values) for name, values in ms.items()},
    )


def choose(network: DetectionNetwork, worth: Importance, table: Table, target_ms: float) -> Choice:
    """Take channels away until the network is fast enough.

    Args:
        network: a SqueezeDet or SqueezeDet+.
        worth: of every channel before ConvDet.
        table: of what layers take.
        target_ms: wanted latency of the network.

    Raises:
        UsageError: even the narrowest network that is tried is slower.
    """
    readers = chain(network)
    order = {name: np.argsort(values, kind="stable") for name, values in worth.items()}
    falling = {
        name: np.concatenate([[0], np.cumsum(values[order[name]])])
        for name, values in worth.items()
    }
    gone = dict.fromkeys(worth, 0)
    counts = counts_of(network, readers)

    def guess(counts: Mapping[str, int]) -> float:
        return sum(table.guess_ms(name, size) for name, size in work_of(readers, counts).items())

    now = guess(counts)
    while now > target_ms:
        best, price = "", np.inf
        for name in worth:
            if counts[name] - GROUP < LEAST:
                continue
            saved = now - guess({**counts, name: counts[name] - GROUP})
            damage = falling[name][gone[name] + GROUP] - falling[name][gone[name]]
            if saved > 0 and damage / saved < price:
                best, price = name, damage / saved
        if not best:
            raise UsageError(
                f"{target_ms:g} ms cannot be reached: the narrowest takes {now:.1f} ms"
            )
        gone[best] += GROUP
        counts[best] -= GROUP
        now = guess(counts)
    kept = {name: np.sort(order[name][gone[name] :]) for name in worth}
    lost = sum(falling[name][gone[name]] for name in worth)
    return Choice(kept, now, float(lost / sum(values[-1] for values in falling.values())))


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
    work = {
        r.name: float(counts[r.name] * sum(counts[name] for name in r.inputs) or counts[r.name])
        for r in readers
    }
    return work | {REST: float(sum(counts.values()))}
