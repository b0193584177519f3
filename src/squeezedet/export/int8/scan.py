"""Which layers suffer from int8: each alone, and what should stay float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.export.int8.calibration import Ranges, Runner, choose, inputs, measure
from squeezedet.export.int8.prepare import prepare
from squeezedet.export.int8.qdq import with_qdq
from squeezedet.export.int8.region import Region, find_region
from squeezedet.media.table import align
from squeezedet.runtime.bundle import Bundle

PICTURES = 4
"""Compared in a scan; each layer is run on all of them."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The error of the raw maps, as a share of their standard deviation (root mean square).

    Attributes:
        alone: layer -> the error with this layer in int8 and all others in float32.
        together: the error with all of them in int8.
    """

    alone: Mapping[str, float]
    together: float

    def worst(self, limit: float) -> tuple[str, ...]:
        """The fewest layers to keep in float32 for an error of at most ``limit``.

        Errors of layers count as independent: their squares add up, and are scaled to what all
        layers do together. At least one layer is quantised.
        """
        ordered = sorted(self.alone, key=lambda layer: self.alone[layer])
        squares = np.cumsum([self.alone[layer] ** 2 for layer in ordered])
        if squares[-1] <= 0:
            return ()
        expected = self.together * np.sqrt(squares / squares[-1])
        return tuple(ordered[max(1, int((expected <= limit).sum())) :])

    def __str__(self) -> str:
        total = sum(error**2 for error in self.alone.values()) or 1.0
        rows = [("layer in int8", "error", "share")]
        for layer, error in sorted(self.alone.items(), key=lambda item: -item[1]):
            rows.append((layer, f"{error:.4f}", f"{error**2 / total:.0%}"))
        rows.append(("all", f"{self.together:.4f}", ""))
        return align(rows)


def scan(model: Bundle, images: Sequence[Path], *, method: str = "minmax") -> Scan:
    """Quantise each layer alone, and all, and compare the raw maps of the heads.

    Args:
        model: in float.
        images: to calibrate on, as for ``quantise``; four of them are compared on.
        method: how ranges are found, see ``calibration.measure``.

    Raises:
        UsageError, DataError, ModelError: as of ``quantise``.
    """
    chosen = choose(images)
    network = prepare(model.graph)
    region = find_region(network.graph)
    ranges = measure(network, region, inputs(model, chosen), method)
    pictures = list(inputs(model, chosen[:: len(chosen) // PICTURES]))
    return scan_network(network, region, ranges, pictures)


def scan_network(
    network: Any, region: Region, ranges: Ranges, pixels: Sequence[NDArray[np.uint8]]
) -> Scan:
    """See ``scan``.

    Args:
        network: of ``prepare``.
        region: whose layers are scanned.
        ranges: of its activations.
        pixels: to compare on.
    """
    heads = list(region.heads)
    runner = Runner(network, heads)
    wanted = [runner.run(image) for image in pixels]

    def error(layers: Sequence[str]) -> float:
        left_out = [name for name in region.layers if name not in layers]
        part = find_region(network.graph, [*region.float_layers, *left_out])
        quantised = Runner(with_qdq(network, part, ranges), heads)
        return _error([quantised.run(image) for image in pixels], wanted)

    return Scan({layer: error([layer]) for layer in region.layers}, error(region.layers))


def _error(found: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> float:
    """Root of the mean over heads of squared error by variance."""
    shares = []
    for head in wanted[0]:
        difference = np.concatenate(
            [(f[head] - w[head]).ravel() for f, w in zip(found, wanted, strict=True)]
        )
        values = np.concatenate([w[head].ravel() for w in wanted])
        shares.append(float(np.square(difference).mean() / max(values.var(), 1e-12)))
    return float(np.sqrt(np.mean(shares)))
