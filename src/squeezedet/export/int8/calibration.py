"""The range of every activation, measured on real images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from squeezedet.errors import DataError, ModelError, UsageError
from squeezedet.export.int8.region import Region
from squeezedet.media.images import read_image
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines.engine import INPUT, first_line
from squeezedet.runtime.parity import input_pixels

AT_LEAST, AT_MOST = 16, 64
"""So many images are needed, and of more so many are taken, evenly spaced."""
BINS = 2048  # of each sign
LEVELS = 256
PERCENTILE = 99.99
METHODS = ("minmax", "percentile", "entropy")


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """What activations were seen to hold.

    Attributes:
        tensor: activation -> (lowest, highest) that its scale must reach.
        channels: output of a head -> (C,) lowest and (C,) highest of each channel.
    """

    tensor: Mapping[str, tuple[float, float]]
    channels: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


def choose(images: Sequence[Path]) -> list[Path]:
    """The images to calibrate on: all, or ``AT_MOST`` evenly spaced.

    Raises:
        DataError: there are too few.
    """
    if len(images) < AT_LEAST:
        have = "no image" if not images else f"only {len(images)} image{'s' * (len(images) > 1)}"
        raise DataError(
            f"{have} to calibrate int8 on: at least {AT_LEAST} are needed, "
            "like those that the camera will see"
        )
    step = max(1.0, len(images) / AT_MOST)
    return [images[int(i * step)] for i in range(min(len(images), AT_MOST))]


def inputs(model: Bundle, images: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """(1, H, W, 3) uint8 pixels of each image, in the size that the runtime gives it.

    Raises:
        DataError: an image cannot be read.
    """
    for path in images:
        yield input_pixels(read_image(path), model)[None]


class Runner:
    """Runs a graph, and gives any of its tensors.

    Args:
        network: an ``onnx.ModelProto``; not changed.
        names: the tensors wanted.
    """

    def __init__(self, network: Any, names: Sequence[str]) -> None:
        import onnxruntime

        self._names = list(names)
        asked = onnx.ModelProto()
        asked.CopyFrom(network)
        del asked.graph.output[:]
        for name in self._names:
            asked.graph.output.append(onnx.ValueInfoProto(name=name))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                asked.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no base class
            raise ModelError(f"onnxruntime cannot run the graph: {first_line(error)}") from error

    def run(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """(1, H, W, 3) pixels to the wanted tensors."""
        return dict(zip(self._names, self._session.run(self._names, {INPUT: pixels}), strict=True))


def measure(
    network: Any, region: Region, pixels: Iterable[NDArray[np.uint8]], method: str = "minmax"
) -> Ranges:
    """Run the float graph and find the range of each activation.

    Args:
        network: of ``prepare``.
        region: what will compute in int8.
        pixels: of the calibration images.
        method: ``minmax`` reaches everything that was seen; ``percentile`` leaves out the
            outermost 0.01 % at each side; ``entropy`` cuts where the 256 levels keep most of the
            distribution (least Kullback-Leibler divergence).

    Raises:
        UsageError: there is no such method.
        ModelError: an activation is not finite.
    """
    if method not in METHODS:
        raise UsageError(f"no calibration method {method!r} (there are {', '.join(METHODS)})")
    runner = Runner(network, list(dict.fromkeys([*region.measured, *region.heads])))
    seen = {scale: Histogram() for scale in region.measured.values()}
    channels: dict[str, tuple[Any, Any]] = {}
    for image in pixels:
        found = runner.run(image)
        for name, scale in region.measured.items():
            if not np.isfinite(found[name]).all():
                raise ModelError(f"the model gives numbers that are not finite in {name!r}")
            seen[scale].add(found[name], counted=method != "minmax")
        for name in region.heads:
            values = found[name].astype(np.float32, copy=False)
            axes = tuple(i for i in range(values.ndim) if i != 1)
            low, high = values.min(axis=axes), values.max(axis=axes)
            before = channels.get(name, (low, high))
            channels[name] = np.minimum(before[0], low), np.maximum(before[1], high)
    spans = {scale: histogram.range(method) for scale, histogram in seen.items()}
    return Ranges({name: spans[scale] for name, scale in region.scale_of.items()}, channels)


class Histogram:
    """Distribution of an activation; its width doubles until everything fits."""

    def __init__(self) -> None:
        self.lowest = self.highest = 0.0  # zero is always exact: the padding of convolutions
        self.width = 2.0**-10
        self.counts = np.zeros(2 * BINS, np.int64)  # from -width to width

    def add(self, values: NDArray[np.float32], *, counted: bool = True) -> None:
        """Add values of any shape; the outermost are kept even if they are not ``counted``."""
        self.lowest = min(self.lowest, float(values.min()))
        self.highest = max(self.highest, float(values.max()))
        if not counted:
            return
        while self.width <= max(-self.lowest, self.highest):
            self.width *= 2
            halved = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[BINS // 2 : BINS // 2 + BINS] = halved
        bins = (
            np.floor(values.ravel().astype(np.float64) * (BINS / self.width)).astype(np.int64)
            + BINS
        )
        self.counts += np.bincount(bins, minlength=2 * BINS)

    def range(self, method: str) -> tuple[float, float]:
        """(lowest, highest) that a scale shall reach; zero is always between them."""
        if method == "percentile":
            cut = (1 - PERCENTILE / 100) * self.counts.sum()
            low = int(np.searchsorted(self.counts.cumsum(), cut, side="right"))
            high = 2 * BINS - int(np.searchsorted(self.counts[::-1].cumsum(), cut, side="right"))
            return self._between(low - BINS, high - BINS)
        if method == "entropy":
            edge = self._least_divergence()
            return self._between(-edge, edge)
        return self.lowest, self.highest

    def _between(self, low: int, high: int) -> tuple[float, float]:
        """Edges of bins, counted from zero, to values; no wider than what was seen."""
        step = self.width / BINS
        return max(self.lowest, min(0.0, low * step)), min(self.highest, max(0.0, high * step))

    def _least_divergence(self) -> int:
        """The number of bins from zero at which clipping and rounding lose least information."""
        folded = (self.counts[BINS:] + self.counts[BINS - 1 :: -1]).astype(np.float64)
        levels = LEVELS if self.lowest >= 0 else LEVELS // 2
        edges = range(levels, BINS + 1, levels // 4)
        return min(edges, key=lambda edge: divergence(folded, edge, levels))


def divergence(counts: NDArray[np.float64], edge: int, levels: int) -> float:
    """Kullback-Leibler divergence of a histogram from what is left of it.

    What is left has the bins from ``edge`` on clipped to the last one before it, and the others
    merged to ``levels`` levels, each spread evenly over its bins that hold anything.

    Args:
        counts: (B,) histogram of magnitudes.
        edge: bins that are kept.
        levels: of the quantised numbers, at most ``edge``.
    """
    clipped = counts[:edge].copy()
    clipped[-1] += counts[edge:].sum()
    level = np.arange(edge) * levels // edge
    filled = counts[:edge] > 0
    total = np.bincount(level, counts[:edge], levels)
    share = total / np.maximum(np.bincount(level, filled, levels), 1)
    rounded = np.where(filled, share[level], 0.0)
    p, q = clipped / clipped.sum(), rounded / max(rounded.sum(), 1.0)
    both = (p > 0) & (q > 0)
    missing = p[(p > 0) & (q == 0)].sum()
    return float((p[both] * np.log(p[both] / q[both])).sum() + missing * np.log(1e6))
