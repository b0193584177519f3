"""What one operation of torch is, and how much work it does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from squeezedet.cost.graph import Kind

aten = torch.ops.aten
# Product -> position of the first of its two factors.
PRODUCTS = {aten.mm: 0, aten.bmm: 0, aten.addmm: 1, aten.baddbmm: 1}
WINDOWED = {
    aten.max_pool2d_with_indices,
    aten.max_pool3d_with_indices,
    aten.avg_pool2d,
    aten.avg_pool3d,
}
KINDS: dict[Kind, set[Any]] = {
    "pool": WINDOWED | {aten.adaptive_max_pool2d, aten._adaptive_avg_pool2d},
    "norm": {
        aten.native_batch_norm,
        aten._native_batch_norm_legit_no_training,
        aten._native_batch_norm_legit,
        aten.native_group_norm,
        aten.native_layer_norm,
    },
    "relu": {
        aten.relu,
        aten.relu_,
        aten.leaky_relu,
        aten.leaky_relu_,
        aten.hardtanh,
        aten.hardtanh_,
        aten._prelu_kernel,
    },
    "concat": {aten.cat},
}
SHORT = {"max_pool2d_with_indices": "max_pool2d", "cat": "concat", "_adaptive_avg_pool2d": "pool"}
"""Operation -> what a person calls it."""


@dataclass(frozen=True, slots=True)
class Work:
    """The fields of a ``Step`` that the operation alone determines."""

    kind: Kind
    macs: int = 0
    weight: int = 0
    units: int = 0
    window: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()


def name_of(func: Any) -> str:
    """What an operation is called in the name of a layer."""
    name = str(func.overloadpacket).removeprefix("aten.").rstrip("_")
    return SHORT.get(name, name)


def work_of(
    func: Any,
    args: Sequence[Any],
    out: Any,
    is_constant: Callable[[Tensor], bool],
) -> Work:
    """What a call did.

    Args:
        func: the operation below autograd.
        args: what it was called with.
        out: what it returned.
        is_constant: whether a tensor is made of parameters and constants alone.
    """
    packet = func.overloadpacket
    if packet is aten.convolution:
        return _convolution(args, out, is_constant)
    if packet in PRODUCTS:
        return _product(args[PRODUCTS[packet] :][:2], out, is_constant)
    if str(packet).startswith("aten._scaled_dot_product"):
        return Work("matmul", macs=_attention(*args[:3]))
    if packet in WINDOWED and not _is_response_norm(args):
        window = tuple(args[1])
        return Work("pool", window=window, stride=tuple(args[2]) if args[2:3] else window)
    return Work(_kind(func, args))


def _is_response_norm(args: Sequence[Any]) -> bool:
    """Whether a pool is the mean over channels inside ``local_response_norm``."""
    images, window = args[:2]
    return len(window) == 3 and images.shape[-4] == 1 and tuple(window[1:]) == (1, 1)


def _kind(func: Any, args: Sequence[Any]) -> Kind:
    packet = func.overloadpacket
    if packet is aten.avg_pool3d and _is_response_norm(args):
        return "other"
    for kind, packets in KINDS.items():
        if packet in packets:
            return kind
    if packet is aten.mean and len(args) > 1 and _over_pixels(args[0], args[1]):
        return "pool"  # what adaptive pooling to one cell becomes
    return "pointwise" if torch.Tag.pointwise in func.tags else "other"


def _convolution(args: Sequence[Any], out: Tensor, is_constant: Callable[[Tensor], bool]) -> Work:
    images, kernel, stride, transposed, groups = args[0], args[1], args[3], args[6], args[8]
    spatial = (images if transposed else out).shape[2:]
    macs = out.shape[0] * math.prod(kernel.shape) * math.prod(spatial)
    if not is_constant(kernel):
        return Work("matmul", macs)
    return Work(
        "conv",
        macs,
        weight=kernel.numel(),
        units=kernel.shape[1] * groups if transposed else kernel.shape[0],
        window=tuple(kernel.shape[2:]),
        stride=tuple(stride),
    )


def _product(factors: Sequence[Tensor], out: Tensor, is_constant: Callable[[Tensor], bool]) -> Work:
    inner = factors[0].shape[-1]
    macs = out.numel() * inner
    weight = next((_distinct(factor) for factor in factors if is_constant(factor)), 0)
    return Work("linear", macs, weight, weight // inner) if weight else Work("matmul", macs)


def _distinct(tensor: Tensor) -> int:
    """How many numbers a tensor holds; one that is expanded holds the same ones many times."""
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(side for side, stride in sides if stride)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> int:
    """(..., L, E), (..., S, E) and (..., S, V): the two products, masked or not."""
    return query.numel() * key.shape[-2] + query.shape[:-1].numel() * value.shape[-2:].numel()


def _over_pixels(tensor: Tensor, dims: Sequence[int]) -> bool:
    """Whether ``dims`` are all dimensions behind batch and channels."""
    return tensor.ndim > 2 and {d % tensor.ndim for d in dims} == set(range(2, tensor.ndim))
