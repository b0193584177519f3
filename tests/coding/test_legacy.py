"""Files of squeezedet 0.1 are read for ever: one with rANS, Huffman, groups and a raw tensor."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squeezedet.coding import legacy
from squeezedet.coding.graph import coded_graph, decode_graph
from squeezedet.coding.tensor import number_bytes
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


def test_only_the_card() -> None:
    old = legacy.read_sqz(OLD, "x", card_only=True)
    assert (json.loads(old.card), old.template, old.rows) == ({"name": "old"}, b"", ())


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


# ------------------------------------------------------------ tensors

GOLDEN = {
    "constant": (np.full(300, 0.25), "01 ac02 01 01 0034 00 0000"),
    "huffman": (np.array([0, 0, 1, 0, 2, 1, 0, 0] * 4), "01 20 03 01 0000003c0040 00 01 2102 0600 2704e09c1380"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_tensors_come_back(name: str) -> None:
    values, content = GOLDEN[name]
    np.testing.assert_array_equal(legacy.decode_tensor(bytes.fromhex(content), values.size), values)


def test_streams_of_many_lanes() -> None:
    """Random codes of 2, 2, 2, 3 and 3 bits, dealt to lanes, which end at whole bytes."""
    codes = ("00", "01", "10", "110", "111")
    sizes = (5, 3 * legacy.LANE_SYMBOLS + 17, legacy.LANE_SYMBOLS)
    rng = np.random.default_rng(0)
    tensors = [rng.integers(0, 5, size) for size in sizes]
    contents = []
    for symbols in tensors:
        lanes = -(-len(symbols) // legacy.LANE_SYMBOLS)
        bits = ["".join(codes[s] for s in symbols[lane::lanes]) for lane in range(lanes)]
        packed = [int(b.ljust(-(-len(b) // 8) * 8, "0"), 2).to_bytes(-(-len(b) // 8), "big") for b in bits]
        table = bytes([0x22, 0x32, 0x03])
        book = np.arange(5, dtype="<f2").tobytes()
        head = bytes([1]) + number_bytes(len(symbols)) + bytes([5, 1]) + book + bytes([0, 1]) + table
        contents.append(head + b"".join(len(p).to_bytes(2, "little") for p in packed) + b"".join(packed))
    for content, wanted in zip(contents, tensors, strict=True):
        np.testing.assert_array_equal(legacy.decode_tensor(content, len(wanted)), wanted)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("01 00 02 01 0000003c 00", "0 numbers instead of 5"),
        ("01 05 01 01 003c 00 00 01", "symbol 1 of an alphabet of 1"),
        ("01 05 01 01 003c 00 03", "coder 3 is unknown"),
        ("01 05 01 01 003c 04 05 00 00 00 0f", "gaps of 4 bits"),  # there is no zero
        ("01 05 02 01 0000003c 07 05 00 00 00 0f", "gaps of 7 bits"),
        ("01 05 02 01 0000003c 04 06 00 00 00 0f", "6 entries"),
        ("01 05 02 01 0000003c 04 02 0001 0003", "run to place 7 of 5"),
        ("01 05 02 01 0000003c 00 01 21 0100 00", "no full prefix code"),
        ("01 05 02 01 0000003c 00 01 00 0100 00", "no full prefix code"),
        ("01 05 02 01 0000003c 00 01 22 0100 00", "no full prefix code"),
        ("01 05 02 01 0000003c 00 01 03 0100 00", "no full prefix code"),
        ("01 05 02 01 0000003c 00 01 1d 0100 00", "impossible lengths"),
        ("01 05 03 01 0000003c0040 00 01 2112 0100 00", "something follows"),
        ("01 05 02 01 0000003c 00 01 11 0200 00", "2 bytes are declared"),
        ("01 05 02 01 0000003c 00 01 11 0200 0000", "do not end where"),
        ("01 05 02 01 0000003c 00 01 11 0000", "do not end where"),
        ("01 05 02 01 0000003c 00 02 01fe1f 0000 00000100", "add up to 4095"),
        ("01 05 02 01 0000003c 00 02 0102 0000 00000100", "add up to 3"),
        ("01 05 02 01 0000003c 00 02 01ff1f 0000 ffff0000", "a state is too small"),
        ("01 05 02 01 0000003c 00 02 01ff1f 0000 01000100", "do not end where"),
        ("02 05 02 01 0000003c 02 01 00 00 00", "2 by 1 channels for 5"),
        ("02 05 02 01 0000003c 00 05 00 00 00", "0 by 5 channels for 5"),
        ("02 05 02 01 0000003c ffffffff7f 01", "channels for 5"),
        ("02 05 02 01 0000003c 01 05 00 00 00 00 03", "coder 3 is unknown"),
    ],
)
def test_bad_tensors(content: str, sentence: str) -> None:
    with pytest.raises(ModelError, match="damaged") as caught:
        legacy.decode_tensor(bytes.fromhex(content), 5)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
