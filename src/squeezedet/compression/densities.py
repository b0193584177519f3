"""Which share of each layer stays: from one number, or from a file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from squeezedet.compression.layers import kernels
from squeezedet.errors import UsageError

PIXEL = 3
"""Numbers in a pixel."""
MAX_BYTES = 1_000_000


def uniform(network: nn.Module, density: float) -> dict[str, float]:
    """The same density in all layers but the one that sees the pixels, whole as in the paper.

    That kernel is small, and everything goes through it.
    """
    inner = [name for name, layer in kernels(network).items() if layer.weight.shape[1] != PIXEL]
    return dict.fromkeys(inner, density) if density < 1 else {}


def read_numbers(path: Path, layers: Sequence[str], low: float, high: float) -> dict[str, float]:
    """A number for each layer that a TOML or JSON file names.

    Keys are names of layers, with the wildcards of a shell; of several that fit a layer the last
    counts. Tables in TOML are the parts of a name: ``[backbone.fire2]``.

    Args:
        path: of the file, ``.toml`` or ``.json``.
        layers: names of all layers.
        low: the numbers are above it,
        high: and at most this.

    Raises:
        UsageError: it cannot be read, a key fits no layer, or a number is out of range.
    """
    found: dict[str, float] = {}
    for pattern, value in _flat(_read(path)):
        fitting = [name for name in layers if fnmatchcase(name, pattern)]
        if not fitting:
            raise UsageError(f"{path}: no layer {pattern!r}; there are {', '.join(layers)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
            raise UsageError(f"{path}: {pattern} must be above {low:g} to {high:g}, not {value!r}")
        found |= dict.fromkeys(fitting, value)
    return found


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path}: more than {MAX_BYTES} bytes are too many for a list")
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: neither TOML nor JSON with layers: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: must be a table of layers")
    return values


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
