"""Where a module to be counted comes from: a constructor, or code of the user."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import nn

from squeezedet.errors import UsageError


def without_numbers(build: Callable[[], nn.Module]) -> nn.Module:
    """What ``build`` gives, on the meta device: no memory, no random numbers."""
    with torch.device("meta"):
        return build()


def from_code(place: str) -> nn.Module:
    """The module at ``package.module:name``, or what the callable there returns.

    This runs the code of that package. The current folder is searched, too.

    Raises:
        UsageError: there is nothing, or nothing that gives a module.
    """
    package, name = place.split(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does
    try:
        made: Any = import_module(package)
        for part in name.split("."):
            made = getattr(made, part)
        if not isinstance(made, nn.Module):
            made = made()
    except Exception as error:  # it is the user's code: anything can come
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"{place}: gives no network: {said[0]}") from error
    if not isinstance(made, nn.Module):
        raise UsageError(f"{place}: gives a {type(made).__name__}, not a torch module")
    return made
