from __future__ import annotations

import pytest

from squeezedet.errors import UsageError
from squeezedet.text import align, counted, parse_size


def test_columns() -> None:
    assert align([("a", "1", "x"), ("bcd", "22.5", "")], left=(0, 2), indent=" ") == (" a       1  x\n bcd  22.5")


def test_counted() -> None:
    assert [counted(n, "frame") for n in (0, 1, 1200)] == ["0 frames", "1 frame", "1,200 frames"]


def test_size() -> None:
    assert parse_size("1248x384") == parse_size(" 1248X384 ") == (1248, 384)
    for text in ("", "1248", "1248x", "axb", "-1x5", "0x5", "1x20000", "1x2x3", "1248 x384"):
        with pytest.raises(UsageError, match=r"^size: .* is not WIDTHxHEIGHT"):
            parse_size(text)
