"""Plain tables as TOML text; the standard library only reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def toml_text(table: Mapping[str, Any], name: str = "") -> str:
    """A table and the tables in it.

    Args:
        table: texts, numbers, truth values, sequences of them, and tables. None, which TOML
            does not know, is left out.
        name: of the table, with dots; none for the whole file.
    """
    lines = [f"[{name}]"] if name else []
    inner = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            inner[key] = value
        elif value is not None:
            lines.append(f"{_key(key)} = {_value(value)}")
    parts = ["\n".join(lines)] if len(lines) > bool(name) or not inner else []
    dot = f"{name}." if name else ""
    parts += [toml_text(value, f"{dot}{_key(key)}") for key, value in inner.items()]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "a").replace("-", "a").isalnum()
    return key if bare else _text(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, str):
        return _text(value)
    return repr(value)  # inf and nan are TOML's words, too


def _text(value: str) -> str:
    """A basic string; its escapes are JSON's, but for DEL and what is no character."""
    text = json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")
