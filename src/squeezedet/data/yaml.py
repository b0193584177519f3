"""YAML of data files: PyYAML reads it, within limits, and every scalar stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from squeezedet.errors import DataError
from squeezedet.files import read_text

Value = str | list["Value"] | dict[str, "Value"]
MAX_BYTES = 1_000_000
MAX_DEPTH = 16
MAX_VALUES = 100_000
"""Values of a file, those that an alias repeats counted each time."""


def read_yaml(path: Path) -> dict[str, Value]:
    """Read a YAML file whose top is a mapping.

    ``no`` is a class name, not False: scalars stay text. Tags are passed over, aliases are
    the values that they stand for, ``<<`` merges.

    Raises:
        DataError: it cannot be read, is no YAML, or is beyond the limits; names the line.
    """
    import yaml

    text = read_text(path, "data file", max_bytes=MAX_BYTES)
    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        value = _Builder(path, yaml.parse(text, Loader=loader)).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise DataError(f"{where}: no YAML: {problem}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: the file holds no 'key: value' lines")
    return value


class _Builder:
    """Makes values of the parser's events, so that depth and size are known before memory is.

    Args:
        path: for messages.
        events: of one file.
    """

    def __init__(self, path: Path, events: Any) -> None:
        self.path, self.events = path, events
        self.anchors: dict[str, tuple[Value, int]] = {}
        self.left = MAX_VALUES

    def document(self) -> Value:
        """The first document."""
        for event in self.events:
            if hasattr(event, "anchor"):
                return self.value(event, 0)[0]
        return ""

    def value(self, event: Any, depth: int) -> tuple[Value, int]:
        """The value that an event begins, and how many values it holds."""
        kind = type(event).__name__
        line = event.start_mark.line + 1
        if depth > MAX_DEPTH:
            raise DataError(f"{self.path}:{line}: more than {MAX_DEPTH} levels")
        if kind == "AliasEvent":
            if event.anchor not in self.anchors:
                raise DataError(f"{self.path}:{line}: *{event.anchor} stands for nothing before it")
            found, size = self.anchors[event.anchor]
            self.count(size, line)
            return found, size
        before = self.left
        self.count(1, line)
        made: Value
        if kind == "ScalarEvent":
            made = event.value
        elif kind == "SequenceStartEvent":
            made = self.sequence(depth)
        else:
            made = self.mapping(depth, line)
        size = before - self.left
        if event.anchor:
            self.anchors[event.anchor] = made, size
        return made, size

    def count(self, size: int, line: int) -> None:
        """Take values off what the file may hold."""
        self.left -= size
        if self.left < 0:
            raise DataError(f"{self.path}:{line}: more than {MAX_VALUES:,} values")

    def sequence(self, depth: int) -> list[Value]:
        """A list up to its end."""
        made = []
        for event in self.events:
            if type(event).__name__ == "SequenceEndEvent":
                break
            made.append(self.value(event, depth + 1)[0])
        return made

    def mapping(self, depth: int, line: int) -> dict[str, Value]:
        """A mapping up to its end."""
        made: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        for event in self.events:
            if type(event).__name__ == "MappingEndEvent":
                break
            line = event.start_mark.line + 1
            key = self.value(event, depth + 1)[0]
            value = self.value(next(self.events), depth + 1)[0]
            if key == "<<":
                for part in reversed(value if isinstance(value, list) else [value]):
                    merged |= part if isinstance(part, dict) else {}
            elif not isinstance(key, str):
                raise DataError(f"{self.path}:{line}: a key is no text")
            elif key in made:
                raise DataError(f"{self.path}:{line}: {key!r} is there twice")
            else:
                made[key] = value
        return {**merged, **made}
