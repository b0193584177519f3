"""Which parameters learn, by what optimiser, and how far one step may go."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from squeezedet.errors import UsageError
from squeezedet.training.recipe import Recipe

MOMENTUM = 0.9
NAMES_SHOWN = 40


def freeze(network: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Let layers keep their weights.

    Args:
        network: changed in place.
        patterns: names of layers, with the wildcards of a shell: ``backbone.fire*``.

    Returns:
        The layers, to be kept in evaluation mode: batch norm has statistics, too.

    Raises:
        UsageError: a pattern fits no layer, or nothing is left to learn.
    """
    layers = {name: layer for name, layer in network.named_modules() if name}
    frozen = []
    for pattern in patterns:
        found = [layer for name, layer in layers.items() if fnmatchcase(name, pattern)]
        if not found:
            raise UsageError(
                f"no layer {pattern!r} to freeze; there are {_with_parameters(layers)}"
            )
        frozen += found
    for layer in frozen:
        layer.requires_grad_(False)
    if not any(p.requires_grad for p in network.parameters()):
        raise UsageError(f"freezing {', '.join(patterns)} leaves nothing to learn")
    return frozen


def _with_parameters(layers: dict[str, nn.Module]) -> str:
    """The names of the layers that could be frozen, the outer ones first."""
    names = [name for name, layer in layers.items() if next(layer.parameters(), None) is not None]
    names.sort(key=lambda name: name.count("."))
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def new_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of what is not frozen; weight decay on kernels only.

    A kernel is a ``weight`` of two axes or more: no bias, and no scale of a normalisation.
    """
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    kernels = [p for name, p in trained if _is_kernel(name, p)]
    others = [p for name, p in trained if not _is_kernel(name, p)]
    groups = [
        {"params": kernels, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=MOMENTUM)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _is_kernel(name: str, parameter: Tensor) -> bool:
    return name.endswith("weight") and parameter.ndim > 1


def clip_gradients(network: nn.Module, recipe: Recipe) -> float:
    """Shorten gradients to ``clip_norm``, all together or each tensor; the norm of all before."""
    parameters = [p for p in network.parameters() if p.grad is not None]
    if recipe.clip == "tensor":  # each on its own, as the paper's code (trap 10)
        norms = [torch.nn.utils.clip_grad_norm_([p], recipe.clip_norm) for p in parameters]
        return float(torch.stack(norms).norm())
    return float(torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm))
