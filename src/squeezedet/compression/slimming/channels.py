"""Structured pruning: a SqueezeDet with fewer channels, made from the weights of a wider one.

Where single weights are pruned, a dense engine computes as much as before. A channel that goes
takes its filter with it, and the input of every layer that reads it: what is left is an ordinary,
narrower network, faster on any engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from squeezedet.detectors.convdet import ConvDet
from squeezedet.detectors.network import DetectionNetwork
from squeezedet.detectors.squeezedet import Conv, Fire, SqueezeDetBackbone
from squeezedet.errors import UsageError

Kept = Mapping[str, NDArray[np.intp]]
"""Layer name -> the output channels of it that stay, ascending."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer that reads channels of another.

    Attributes:
        name: of the layer.
        inputs: the convolutions whose outputs it reads, side by side.
    """

    name: str
    inputs: tuple[str, ...]


def chain(network: DetectionNetwork) -> tuple[Reader, ...]:
    """Every convolution of a SqueezeDet with what it reads, in the order of the data.

    Raises:
        UsageError: the network is no SqueezeDet or SqueezeDet+.
    """
    if not isinstance(network, ConvDet) or not isinstance(network.backbone, SqueezeDetBackbone):
        raise UsageError(
            f"channels are removed from SqueezeDet and SqueezeDet+ only, not {network.kind}"
        )
    return tuple(_readers(network.backbone))


def _readers(backbone: SqueezeDetBackbone) -> Iterator[Reader]:
    before: tuple[str, ...] = ()
    for layer in backbone.layers:
        name = f"backbone.{layer.name}"
        match layer:
            case Conv():
                yield Reader(name, before)
                before = (name,)
            case Fire():
                squeeze, one, three = (
                    f"{name}.{part}" for part in ("squeeze1x1", "expand1x1", "expand3x3")
                )
                yield Reader(squeeze, before)
                yield Reader(one, (squeeze,))
                yield Reader(three, (squeeze,))
                before = (one, three)
    yield Reader("convdet", before)


def narrowed(network: DetectionNetwork, kept: Kept) -> ConvDet:
    """A network of the channels that stay, with their weights.

    Args:
        network: a SqueezeDet or SqueezeDet+; not changed.
        kept: for each convolution before ConvDet; all of a layer that is not named.

    Returns:
        The narrower network, in evaluation mode; exactly the wide one with the other channels
        at zero.

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
    config = replace(
        network.config, widths=tuple(len(stay[r.name]) for r in readers if r.name != "convdet")
    )
    narrow = ConvDet(config)
    narrow.input_rule = network.input_rule
    with torch.no_grad():
        for reader in readers:
            layer = wide[reader.name]
            weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
            rows = torch.from_numpy(stay[reader.name])
            columns = _columns(reader, wide, stay)
            small = narrow.get_submodule(reader.name)
            small.get_parameter("weight").copy_(_take(weight, rows, columns))
            small.get_parameter("bias").copy_(bias[rows])
    return narrow.eval()


def _columns(reader: Reader, wide: Mapping[str, nn.Module], stay: Kept) -> Tensor | None:
    """Which inputs of a layer stay: those of all layers that it reads, side by side."""
    found, start = [], 0
    for name in reader.inputs:
        found.append(stay[name] + start)
        start += wide[name].get_parameter("bias").numel()
    return torch.from_numpy(np.concatenate(found)) if found else None


def _take(weight: Tensor, rows: Tensor, columns: Tensor | None) -> Tensor:
    taken = weight[rows]
    return taken if columns is None else taken[:, columns]
