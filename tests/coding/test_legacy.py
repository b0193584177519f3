"""Files of squeezedet 0.1 are read for ever: one with rANS, Huffman, groups and a raw tensor."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from squeezedet.coding import legacy
from squeezedet.coding.graph import coded_graph, decode_graph
from squeezedet.coding.tensor import describe
from squeezedet.errors import ModelError

OLD = Path(__file__).with_name("legacy.sqz").read_bytes()
SHA256 = "b5b735c16f059095c7f4a15ccabc170d1c6c4afabe50b10928e8aa42f3232763"


def graph_of(content: bytes) -> bytes:
    old = legacy.read_sqz(content, "old.sqz")
    return decode_graph(coded_graph(old.template, old.rows, old.coded, "old.sqz"), "old.sqz")


def test_the_graph_comes_back() -> None:
    assert hashlib.sha256(graph_of(OLD)).hexdigest() == SHA256
    old = legacy.read_sqz(OLD, "old.sqz")
    assert json.loads(old.card) == {"name": "old"}
    parts = coded_graph(old.template, old.rows, old.coded, "old.sqz").parts()
    found = {entry.name: describe(content) for entry, content in parts}
    assert found["w"].parts == 5
    assert found["w"].coders == ("huffman", "rans")


def test_only_the_card() -> None:
    old = legacy.read_sqz(OLD, "x", card_only=True)
    assert (json.loads(old.card), old.template, old.rows) == ({"name": "old"}, b"", [])


def test_every_prefix_and_every_flipped_bit_is_refused() -> None:
    damaged = [OLD[:length] for length in range(0, len(OLD), 7)] + [OLD + b"\0"]
    for place in range(0, 8 * len(OLD), 11):
        content = bytearray(OLD)
        content[place // 8] ^= 1 << place % 8
        damaged.append(bytes(content))
    for content in damaged:
        with pytest.raises(ModelError, match=r"^old\.sqz: ") as caught:
            graph_of(content)
        assert "\n" not in str(caught.value)


def with_header(change: Callable[[dict[str, Any]], None]) -> bytes:
    """The old file with another header, whose checksum is right."""
    (size,) = struct.unpack_from("<I", OLD, 10)
    header = json.loads(zlib.decompress(OLD[22 : 22 + size]))
    change(header)
    text = json.dumps(header).encode()
    packed = zlib.compress(text)
    sizes = (len(packed), len(text), zlib.crc32(packed))
    return struct.pack("<8sHIII", legacy.MAGIC, 1, *sizes) + packed + OLD[22 + size :]


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.pop("card"),
        lambda header: header.update(card=[1, 2]),
        lambda header: header.update(card={"a": 1}),
        lambda header: header["card"].__setitem__(1, 10**9),
        lambda header: header["card"].__setitem__(1, 5),
        lambda header: header["card"].__setitem__(0, 1 << 40),
        lambda header: header["template"].__setitem__(1, "7"),
        lambda header: header.update(tensors=3),
        lambda header: header["tensors"].__setitem__(0, []),
        lambda header: header["tensors"].__setitem__(0, "name"),
        lambda header: header["tensors"][0].__setitem__(3, -1),
    ],
)
def test_headers_that_lie(change: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises(ModelError, match=r"^old\.sqz: "):
        graph_of(with_header(change))
