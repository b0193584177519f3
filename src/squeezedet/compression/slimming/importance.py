"""How much each channel matters to the loss.

Molchanov, Mallya, Tyree, Frosio, Kautz: "Importance Estimation for Neural Network Pruning",
CVPR 2019, eq. 8: what the loss would change by without a filter, to first order, squared:
(sum of gradient times weight)^2 over the filter, the mean of some batches. Figures of different
layers can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from squeezedet.detectors.network import DetectionNetwork
from squeezedet.training.batches import Batch

Importance = Mapping[str, NDArray[np.float64]]
"""Layer name -> a number for each of its output channels."""


def importance(
    network: DetectionNetwork, names: Iterable[str], some: Iterable[Batch]
) -> Importance:
    """Measure it on labelled images.

    Args:
        network: in evaluation mode: without dropout. Its gradients are used and left empty.
        names: of the layers.
        some: batches, one at least.
    """
    layers = {name: network.get_submodule(name) for name in names}
    sums = {name: np.zeros(layer.get_parameter("bias").numel()) for name, layer in layers.items()}
    count = 0
    for batch in some:
        network.zero_grad(set_to_none=True)
        terms = network.loss(network(batch.images), batch.targets)
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        for name, layer in layers.items():
            sums[name] += _first_order(layer.get_parameter("weight"), layer.get_parameter("bias"))
        count += 1
    network.zero_grad(set_to_none=True)
    return {name: values / count for name, values in sums.items()}


def _first_order(weight: Tensor, bias: Tensor) -> NDArray[np.float64]:
    """(sum of gradient times weight)^2 of each filter with its bias."""
    total = torch.zeros(len(bias), dtype=torch.float64)
    for parameter in (weight, bias):
        if parameter.grad is not None:
            total += (
                (parameter.grad * parameter)
                .detach()
                .double()
                .flatten(1 if parameter.ndim > 1 else 0)
                .reshape(len(bias), -1)
                .sum(1)
            )
    found: NDArray[np.float64] = total.square().numpy()
    return found
