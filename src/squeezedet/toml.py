"""TOML files, and dataclasses made of their tables; every mistake is a UsageError that says where."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from squeezedet.errors import UsageError
from squeezedet.files import read_text
from squeezedet.text import did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Fields = TypeVar("Fields", bound="DataclassInstance")
MAX_BYTES = 1_000_000
MAX_NUMBER = 1e15
KINDS: Mapping[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
}


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The tables of a file; ``what`` it is, for errors: "recipe"."""
    text = read_text(path, what, max_bytes=MAX_BYTES, error=UsageError)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is no TOML: {error}") from error


def build(kind: type[Fields], values: Any, where: str) -> Fields:
    """A dataclass from a table, which has all fields without a default."""
    if not isinstance(values, dict):
        raise UsageError(f"{where}: is no table")
    called = f"{where} {values['name']!r}: " if isinstance(values.get("name"), str) else f"{where}: " if where else ""
    given = _fields(kind, values, called)
    for entry in fields(kind):
        if entry.default is MISSING and entry.default_factory is MISSING and entry.name not in given:
            raise UsageError(f"{called}{entry.name} is missing")
    return kind(**given)


def override(before: Fields, values: Mapping[str, Any], where: str) -> Fields:
    """A dataclass with the fields of a table in place of its own."""
    given = _fields(type(before), values, f"{where} ")
    try:
        return replace(before, **given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where} {error}") from error


def _fields(kind: type, values: Mapping[str, Any], called: str) -> dict[str, Any]:
    hints = get_type_hints(kind)
    given = {}
    for name, value in values.items():
        if name not in hints:
            raise UsageError(f"{called}has no {name!r}{did_you_mean(name, list(hints))}")
        given[name] = convert(value, hints[name], f"{called}{name}")
    return given


def convert(value: Any, wanted: Any, where: str) -> Any:
    """A value as the type of a field."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if is_dataclass(wanted):
        assert isinstance(wanted, type)  # noqa: S101 - a type hint
        return build(wanted, value, where)
    if origin is UnionType:
        return convert(value, next(kind for kind in arguments if kind is not NoneType), where)
    if origin is tuple:
        return _tuple(value, arguments, where)
    if origin is Literal:
        if value in arguments:
            return value
        raise UsageError(f"{where}: no {value!r}{did_you_mean(str(value), arguments)}")
    return _single(value, wanted, where)


def _single(value: Any, wanted: type, where: str) -> Any:
    if wanted is float and type(value) in (int, float) and -MAX_NUMBER < value < MAX_NUMBER:
        return float(value)
    if wanted is Path and isinstance(value, str) and value:
        return Path(value)
    if type(value) is wanted and wanted is not float:
        return value
    shown = "" if wanted is str else f"{value!r} "  # a text may be an address with a password
    raise UsageError(f"{where}: {shown}is not {KINDS[wanted]}")


def _tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise UsageError(f"{where}: is no list")
    if arguments[-1] is ...:
        return tuple(convert(part, arguments[0], where) for part in value)
    if len(value) != len(arguments):
        raise UsageError(f"{where}: {value!r} has not {len(arguments)} parts but {len(value)}")
    return tuple(convert(part, kind, where) for part, kind in zip(value, arguments, strict=True))
