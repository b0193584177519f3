"""Weight sharing: all weights of a kernel take one of a few values, and the values learn.

Han, Mao, Dally: "Deep Compression", arXiv 1510.00149, section 3: k-means on the weights that survived pruning, which
starts linearly, assignments fixed afterwards, and a centroid's gradient is the sum of its members' (equation 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from squeezedet.compression.prune import kernels

MAX_ITERATIONS = 200
MAX_BITS = 10
"""The coder takes 1024 different values."""


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """The values of one kernel.

    Attributes:
        centroids: (k,) float32, ascending.
        codes: int64 in the shape of the kernel: 0 for a zero, c for ``centroids[c - 1]``.
    """

    centroids: NDArray[np.float32]
    codes: NDArray[np.int64]

    def weight(self) -> NDArray[np.float32]:
        """The kernel that is stored."""
        return np.concatenate([np.zeros(1, np.float32), self.centroids])[self.codes]


def start_centroids(values: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """What k-means begins with: evenly from the smallest of ``values`` to the largest, which ascend (section 3.2).

    The rare large weights, which matter most, so get their own. Where there are at most k different values, these.
    """
    distinct = np.unique(values)
    return distinct if len(distinct) <= k else np.linspace(values[0], values[-1], k)


def kmeans(values: NDArray[np.float64], centroids: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lloyd's algorithm on a line: the squared error falls with every iteration.

    The values are sorted, so a cluster is a slice: its borders are found by bisection and its
    mean by the difference of two prefix sums. An iteration costs k log n.

    Args:
        values: (n,) ascending.
        centroids: (k,) ascending, to begin with.

    Returns:
        (k,) ascending. A cluster that nothing belongs to keeps its centroid.
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    borders = np.empty(0, np.intp)
    for _ in range(MAX_ITERATIONS):
        middles = (centroids[1:] + centroids[:-1]) / 2
        found = np.searchsorted(values, middles)
        if np.array_equal(found, borders):
            break
        borders = found
        edges = np.concatenate([[0], borders, [len(values)]])
        sizes = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(sizes, 1)
        centroids = np.sort(np.where(sizes > 0, means, centroids))
    return centroids


def nearest(values: NDArray[np.float64], centroids: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the nearest centroid of each value; ``centroids`` ascend."""
    middles = (centroids[1:] + centroids[:-1]) / 2
    return np.searchsorted(middles, values).astype(np.int64)


def cluster(kernel: NDArray[np.float32], bits: int) -> Clusters:
    """Cluster the weights of a kernel that are not zero.

    Args:
        kernel: any shape, finite.
        bits: of a code; there are at most ``2**bits - 1`` values beside zero if there are zeros, or else ``2**bits``.
    """
    flat = kernel.reshape(-1).astype(np.float64)
    alive = flat != 0
    codes = np.zeros(flat.size, np.int64)
    values = np.sort(flat[alive])
    if not len(values):
        return Clusters(np.empty(0, np.float32), codes.reshape(kernel.shape))
    k = 2**bits - (0 if alive.all() else 1)
    centroids = kmeans(values, start_centroids(values, max(k, 1)))
    found = nearest(flat[alive], centroids)
    used, found = np.unique(found, return_inverse=True)
    codes[alive] = found + 1
    return Clusters(centroids[used].astype(np.float32), codes.reshape(kernel.shape))


class Shared(nn.Module):
    """A kernel as its centroids and its codes; the centroids learn, the codes are fixed.

    Autograd sums the gradients of all weights that have a centroid: equation 3.

    Attributes:
        codes: int64 in the shape of the kernel; 0 is zero and does not learn.
    """

    codes: Tensor

    def __init__(self, clusters: Clusters) -> None:
        super().__init__()
        self.register_buffer("codes", torch.from_numpy(clusters.codes))
        self._first = torch.tensor(clusters.centroids)  # a copy: it is what learns

    def forward(self, centroids: Tensor) -> Tensor:
        table = torch.cat([centroids.new_zeros(1), centroids])
        # Indexing would do the same; its gradient takes sixty times as long.
        return table.index_select(0, self.codes.flatten()).view(self.codes.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The centroids that ``forward`` makes the kernel of."""
        return self._first.to(weight.device)


def parametrize_centroids(network: nn.Module, clusters: Mapping[str, Clusters]) -> None:
    """Let kernels be made of their centroids, which learn, in place, until ``prune.remove``."""
    layers = kernels(network)
    for name, found in clusters.items():
        parametrize.register_parametrization(layers[name], "weight", Shared(found))
