"""The part of YAML that data files use, read strictly: no library, no surprises.

Mappings and lists, by indentation or in brackets; plain and quoted text; comments; block
text (``|``, ``>``), which is kept unread. Every scalar stays text: ``no`` is a class name,
not False. Anchors, tags and everything else are errors that name the line.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from squeezedet.errors import DataError
from squeezedet.files import read_text

Value = str | list["Value"] | dict[str, "Value"]
MAX_DEPTH = 16
QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'")
PLAIN_IN_FLOW = re.compile(r"(?:[^,\[\]{}#:\n]|:(?=[^\s,\[\]{}])|(?<=\S)#)+")
KEY = re.compile(
    r"(\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'|[^\s\[\]{}\"'#&*!|>%@`,-][^#]*?)\s*:(?=\s|$)"
)
COMMENT = re.compile(r"(?:^|\s)#.*$")
FORBIDDEN = "&*!%@`"


def read_yaml(path: Path) -> dict[str, Value]:
    """Read a YAML file whose top is a mapping.

    Raises:
        DataError: it cannot be read, or is not of this part of YAML; names the line.
    """
    value = _Parser(path, read_text(path)).document()
    if not isinstance(value, dict):
        raise DataError(f"{path}: the file holds no 'key: value' lines")
    return value


class _Parser:
    """Reads from top to bottom; ``at`` is the index of the next line."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.lines = text.splitlines()
        self.at = 0

    def fail(self, what: str, line: int | None = None) -> DataError:
        return DataError(f"{self.path}:{(self.at if line is None else line) + 1}: {what}")

    def peek(self) -> tuple[int, str] | None:
        """Indentation and text of the next line that says something."""
        while self.at < len(self.lines):
            line = self.lines[self.at]
            text = line.strip()
            if text in ("---", "...") or not text or text.startswith("#"):
                self.at += 1
                continue
            indent = len(line) - len(line.lstrip())
            if "\t" in line[:indent]:
                raise self.fail("indented by a tab; YAML wants blanks")
            return indent, text
        return None

    def document(self) -> Value:
        first = self.peek()
        value = self.block(first[0], 0) if first else ""
        if self.peek():
            raise self.fail("unexpected indentation")
        return value

    def block(self, indent: int, depth: int) -> Value:
        """A list or a mapping whose lines have this indentation."""
        if depth > MAX_DEPTH:
            raise self.fail("nested too deeply")
        line = self.peek()
        if line and (line[1] == "-" or line[1].startswith("- ")):
            return self.block_list(indent, depth)
        return self.block_mapping(indent, depth)

    def block_list(self, indent: int, depth: int) -> Value:
        items: list[Value] = []
        while (line := self.peek()) and line[0] == indent and (line[1] + " ").startswith("- "):
            text = line[1][1:].strip()
            if KEY.match(text):
                raise self.fail("a mapping inside a list is not understood here")
            items.append(self.value(text, indent, depth))
        return items

    def block_mapping(self, indent: int, depth: int) -> Value:
        found: dict[str, Value] = {}
        while (line := self.peek()) and line[0] == indent:
            match = KEY.match(line[1])
            if not match:
                raise self.fail(f"{line[1][:40]!r} is no 'key: value'")
            key = self.scalar(match[1])
            if key in found:
                raise self.fail(f"{key!r} is there twice")
            found[key] = self.value(line[1][match.end() :].strip(), indent, depth)
        return found

    def value(self, text: str, indent: int, depth: int) -> Value:
        """What follows a key or a dash on the line ``at``; moves on behind it."""
        if text.startswith(("[", "{")):
            return self.flow(text, depth)
        if re.match(r"[|>][-+0-9]*\s*(#.*)?$", text):
            return self.block_text(indent)
        if not text or text.startswith("#"):
            self.at += 1
            below = self.peek()
            if below and (
                below[0] > indent or (below[0] == indent and below[1][:2] in ("-", "- "))
            ):
                return self.block(below[0], depth + 1)
            return ""
        scalar = self.scalar(text)
        self.at += 1
        return scalar

    def block_text(self, indent: int) -> str:
        self.at += 1
        start = self.at
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.strip() and len(line) - len(line.lstrip()) <= indent:
                break
            self.at += 1
        return "\n".join(line.strip() for line in self.lines[start : self.at])

    def scalar(self, text: str) -> str:
        """Plain or quoted text, with a comment behind it at most."""
        quoted = QUOTED.match(text)
        if quoted and not text[quoted.end() :].split("#", maxsplit=1)[0].strip():
            return self.unquote(quoted[0])
        plain = COMMENT.sub("", text).strip()
        if plain[:1] in FORBIDDEN or plain[:1] in "\"'" or re.search(r":\s", plain):
            raise self.fail(f"{plain[:40]!r} is not understood; put it in quotes")
        return "" if plain in ("~", "null") else plain

    def unquote(self, text: str) -> str:
        if text[0] == "'":
            return text[1:-1].replace("''", "'")
        try:
            return str(json.loads(text))
        except ValueError:
            raise self.fail(f"{text[:40]} has an escape that is not understood") from None

    # ------------------------------------------------- lists and mappings in brackets

    def flow(self, text: str, depth: int) -> Value:
        """A value in brackets that begins with ``text`` and may go on over more lines."""
        whole = "\n".join([text, *self.lines[self.at + 1 :]])
        value, end = self.flow_value(whole, 0, depth)
        rest = whole[end:].split("\n", 1)[0].strip()
        if rest and not rest.startswith("#"):
            raise self.fail(f"{rest[:40]!r} behind the bracket")
        self.at += whole.count("\n", 0, end) + 1
        return value

    def flow_value(self, text: str, i: int, depth: int) -> tuple[Value, int]:
        if depth > MAX_DEPTH:
            raise self.fail("nested too deeply")
        opening = text[i : i + 1]
        if opening == "[":
            return self.flow_list(text, i + 1, depth)
        if opening == "{":
            return self.flow_mapping(text, i + 1, depth)
        return self.flow_scalar(text, i)

    def flow_scalar(self, text: str, i: int) -> tuple[str, int]:
        if quoted := QUOTED.match(text, i):
            return self.unquote(quoted[0]), quoted.end()
        plain = PLAIN_IN_FLOW.match(text, i)
        if not plain or plain[0][0] in FORBIDDEN + "\"'":
            raise self.fail("a bracket is not closed, or holds what is not understood")
        return plain[0].strip(), plain.end()

    def flow_list(self, text: str, i: int, depth: int) -> tuple[Value, int]:
        items: list[Value] = []
        i = _blank(text, i)
        while text[i : i + 1] != "]":
            value, i = self.flow_value(text, i, depth + 1)
            items.append(value)
            i = self.separator(text, i, "]")
        return items, i + 1

    def flow_mapping(self, text: str, i: int, depth: int) -> tuple[Value, int]:
        found: dict[str, Value] = {}
        i = _blank(text, i)
        while text[i : i + 1] != "}":
            key, i = self.flow_scalar(text, i)
            i = _blank(text, i)
            if text[i : i + 1] != ":" or key in found:
                raise self.fail(f"{key!r} is there twice or has no value")
            found[key], i = self.flow_value(text, _blank(text, i + 1), depth + 1)
            i = self.separator(text, i, "}")
        return found, i + 1

    def separator(self, text: str, i: int, closing: str) -> int:
        """The place behind a comma, or of the closing bracket."""
        i = _blank(text, i)
        if text[i : i + 1] == ",":
            return _blank(text, i + 1)
        if text[i : i + 1] != closing:
            raise self.fail(f"a bracket is not closed by {closing!r}")
        return i


def _blank(text: str, i: int) -> int:
    """The place behind blanks, line ends and comments."""
    match = re.compile(r"(?:\s+(?:#[^\n]*)?)*").match(text, i)
    return match.end() if match else i
