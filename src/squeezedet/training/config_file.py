"""A recipe as a TOML file: fields of dataclasses, overridden strictly.

    [recipe]
    steps = 20000
    frozen = ["backbone.conv1"]

    [network]
    dropout = 0.3

``config.toml`` of a run folder is such a file; what else it says of the run is passed over.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from squeezedet.errors import MissingExtraError, UsageError
from squeezedet.files import read_text
from squeezedet.training.recipe import RENAMED

TABLES = ("recipe", "network")
PASSED_OVER = ("class_map", "input", "run")
"""Tables of a run's config.toml that say how it was made."""
MAX_BYTES = 1_000_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The overrides of a file.

    Attributes:
        path: of the file, for errors; None for no file.
        recipe: fields of the recipe.
        network: fields of the network's configuration.
    """

    path: Path | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)

    def override(self, table: str, values: T) -> T:
        """A dataclass with the fields of a table; a UsageError where it has no such field, or no such value."""
        changes: Mapping[str, Any] = getattr(self, table)
        where = f"{self.path}: [{table}]"
        hints = get_type_hints(type(values))
        converted = {}
        if table == "recipe":
            changes = {RENAMED.get(name, name): value for name, value in changes.items()}
        for name, value in changes.items():
            if name not in hints:
                raise UsageError(f"{where} has no {name!r}{did_you_mean(name, list(hints))}")
            try:
                converted[name] = _convert(value, hints[name])
            except TypeError as error:
                raise UsageError(f"{where} {name}: {error}") from None
        try:
            return replace(values, **converted)  # type: ignore[type-var]
        except (TypeError, ValueError) as error:
            raise UsageError(f"{where} {error}") from error


def read_config(path: Path) -> ConfigFile:
    """Read a file; a UsageError where it cannot be read, is no TOML, or has an unknown table."""
    text = read_text(path, "recipe", max_bytes=MAX_BYTES, error=UsageError)
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is no TOML: {error}") from error
    for name, table in values.items():
        if name not in (*TABLES, *PASSED_OVER) or not isinstance(table, dict):
            kind = "an unknown table" if isinstance(table, dict) else "outside of a table"
            raise UsageError(
                f"{path}: has {kind} {name!r}{did_you_mean(name, TABLES)}; a recipe's tables are [recipe] and [network]"
            )
    return ConfigFile(path, values.get("recipe", {}), values.get("network", {}))


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """``; did you mean 'steps'?``, or, when nothing is close, what there is."""
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"


def _convert(value: Any, wanted: Any) -> Any:
    """A value of TOML as the type of a field; a TypeError where it is none."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        wanted = next(argument for argument in arguments if argument is not NoneType)
        return _convert(value, wanted)
    if origin is Literal:
        if value not in arguments:
            raise TypeError(f"{value!r} is none of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _tuple(value, arguments)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted in (int, float, str, bool) and type(value) is not wanted:
        raise TypeError(f"{value!r} is no {wanted.__name__}")
    return value


def _tuple(value: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    if arguments[-1] is Ellipsis:
        return tuple(_convert(item, arguments[0]) for item in value)
    if len(value) != len(arguments):
        raise TypeError(f"{value!r} must have {len(arguments)} items")
    return tuple(_convert(item, kind) for item, kind in zip(value, arguments, strict=True))


def to_toml(table: Mapping[str, Any]) -> str:
    """A table as TOML text; None, which TOML does not know, is left out."""
    try:
        import tomli_w
    except ImportError as error:
        raise MissingExtraError("writing a recipe", "train") from error
    return tomli_w.dumps(_without_none(table))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    if isinstance(value, str):  # a lone surrogate of a file's name is no text
        return value.encode("utf-8", "replace").decode()
    return value
