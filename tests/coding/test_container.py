"""The container: what is packed comes back, and any other byte is noticed."""

from __future__ import annotations

import base64
import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.coding import container, tensor
from squeezedet.errors import ModelError

from .tensors import pruned

CARD = b'{"name": "tiny"}\n'
WEIGHTS = pruned((4, 6, 3, 3), 0.4, 3)
BIAS = np.array([0.25, -1, 1 / 3], np.float32)
GRAPH = b"".join(
    [b"head ", WEIGHTS.astype("<f2").tobytes(), b" between ", BIAS.tobytes(), b" and the end"]
)


def tiny() -> bytes:
    coded = {"bias": tensor.encode_tensor(BIAS), "weights": tensor.encode_tensor(WEIGHTS)}
    return container.pack(CARD, GRAPH, coded)


TINY = tiny()
GOLDEN = base64.b64decode(
    "iVNRWg0KGgoBAHIAAACKAAAAiTVXC3jaJco7DgIhFAXQvbz6FrwfjG6FTIGKOom/DCQWxr2LWp/zon1ZD7TN4uAE"
    "VnfWFN1nUK/Xx6X0OlQNEiG2YWPVP97afW3DMj3rcjr3RqCjEIQjEsNEJbAlnzB+pt1SfsMICvavO6cpcADbPL8/"
    "9rkjhXjaq1bKS8xNVbJSUCrJzKtUquUCADFhBUp42stITUxRUEhKLSlPTc1TUEjMS1EoyUhVSM1LAQB4DwjoAdgB"
    "BgEAALcuyTUgOTqwSbgAASFFNS8AQSHgE3Ahz2PPHAAI38HAgL0M0E3N9LDPBTHHo98bZyWHY/kQBnOnaZ4AJODg"
    "CiAAAwAAAIA+AACAv6uqqj4="
)


def test_what_is_packed_comes_back() -> None:
    assert container.unpack(TINY, "tiny.sqz") == (CARD, GRAPH)
    assert container.read_card(TINY, "tiny.sqz") == CARD
    found = container.encoded_tensors(TINY, "tiny.sqz")
    assert found == {"weights": tensor.encode_tensor(WEIGHTS), "bias": tensor.encode_tensor(BIAS)}


def test_the_summary_adds_up() -> None:
    summary = container.summarize(TINY, "tiny.sqz")
    weights, bias = summary.tensors
    assert (weights.name, weights.dtype, weights.size, weights.at) == ("weights", "f2", 216, 5)
    assert (bias.name, bias.dtype, bias.size, bias.at) == ("bias", "f4", 3, 14)
    sections = summary.head_bytes + summary.card_bytes + summary.template_bytes
    assert sections + weights.size_bytes + bias.size_bytes == len(TINY)


def test_the_format_does_not_drift() -> None:
    """A file of version 1 is read for ever (its deflated parts may be written otherwise)."""
    assert container.unpack(GOLDEN, "golden.sqz") == (CARD, GRAPH)
    assert container.encoded_tensors(GOLDEN, "x") == container.encoded_tensors(TINY, "x")


def test_nothing_coded_and_nothing_there() -> None:
    for graph in (b"", GRAPH):
        assert container.unpack(container.pack(b"", graph, {}), "x") == (b"", graph)


def test_equal_and_contained_tensors() -> None:
    """Each is cut out once, the larger ones first; which of two equal ones does not matter."""
    zeros, more = np.zeros(8, np.float32), np.zeros(40, np.float32)
    graph = b"a" + zeros.tobytes() + b"b" + more.tobytes() + b"c" + zeros.tobytes() + b"d"
    coded = {n: tensor.encode_tensor(v) for n, v in (("x", zeros), ("y", zeros), ("z", more))}
    packed = container.pack(CARD, graph, coded)
    assert container.unpack(packed, "x") == (CARD, graph)
    assert [e.at for e in container.summarize(packed, "x").tensors] == [1, 2, 3]


def test_numbers_that_the_graph_does_not_hold() -> None:
    for values in (BIAS * 2, np.zeros(0, np.float32)):
        with pytest.raises(ModelError, match="does not hold the numbers of the tensor 'other'"):
            container.pack(CARD, GRAPH, {"other": tensor.encode_tensor(values)})


def refused(content: bytes) -> str:
    """The sentence with which a container is refused; every reader must."""
    for read in (container.unpack, container.encoded_tensors):
        with pytest.raises(ModelError, match=r"^some\.sqz: ") as caught:
            read(content, "some.sqz")
        assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_prefix_is_refused() -> None:
    for length in range(len(TINY)):
        with pytest.raises(ModelError, match=r"^some\.sqz: "):
            container.unpack(TINY[:length], "some.sqz")
    refused(TINY + b"\0")


def test_every_flipped_bit_is_noticed() -> None:
    for place in range(8 * len(TINY)):
        content = bytearray(TINY)
        content[place // 8] ^= 1 << place % 8
        with pytest.raises(ModelError, match=r"^some\.sqz: "):
            container.unpack(bytes(content), "some.sqz")


def built(change: Callable[[dict[str, Any]], None], tail: bytes = b"") -> bytes:
    """The tiny container with another header, whose checksum is right."""
    (size,) = struct.unpack_from("<I", TINY, 10)
    header = json.loads(zlib.decompress(TINY[22 : 22 + size]))
    change(header)
    return with_header(json.dumps(header).encode(), TINY[22 + size :] + tail)


def with_header(header: bytes, rest: bytes = b"", inflated: int | None = None) -> bytes:
    packed = zlib.compress(header)
    sizes = (len(packed), len(header) if inflated is None else inflated, zlib.crc32(packed))
    return struct.pack("<8sHIII", container.MAGIC, 1, *sizes) + packed + rest


def put(*keys: Any) -> Callable[[dict[str, Any]], None]:
    """Change one value of a header: the keys that lead to it, then the value."""

    def change(header: dict[str, Any]) -> None:
        place: Any = header
        for key in keys[:-2]:
            place = place[key]
        place[keys[-2]] = keys[-1]

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("surprise", 1), "other fields"),
        (lambda header: header.pop("card"), "other fields"),
        (put("tensors", 3), "more than 10000 tensors"),
        (put("tensors", [[]] * 10_001), "more than 10000 tensors"),
        (put("tensors", 0, "name"), "malformed"),
        (put("tensors", 0, []), "malformed"),
        (put("tensors", 0, 0, 5), "without name"),
        (put("tensors", 0, 0, "bias"), "two tensors of one name"),
        (put("tensors", 0, 1, "f8"), "of another type"),
        (put("tensors", 0, 1, ["f4"]), "malformed"),
        (put("tensors", 0, 2, 108), "216 numbers instead of 108"),
        (put("tensors", 0, 2, -1), "a number that is none"),
        (put("tensors", 0, 2, 1e300), "a number that is none"),
        (put("tensors", 0, 2, True), "a number that is none"),
        (put("tensors", 0, 2, 100_000_000), "a graph of 200000038 bytes"),
        (put("tensors", 0, 3, 10), "where the header needs"),
        (put("tensors", 0, 3, 1 << 33), "a number that is none"),
        (put("tensors", 0, 4, 0), "the checksum of the tensor 'weights'"),
        (put("tensors", 0, 5, 15), "out of order"),
        (put("tensors", 1, 5, 100), "outside the template"),
        (put("card", 0, 5), "where the header needs"),
        (put("card", 1, 10**9), "a number that is none"),
        (put("card", 1, 5), "the card has not the declared length"),
        (put("card", 1, 500), "the card has not the declared length"),
        (put("card", 2, 5), "the checksum of the card"),
        (put("card", [1, 2]), "malformed"),
        (put("card", {"a": 1}), "malformed"),
        (put("template", 1, 10**9), "a number that is none"),
        (put("template", 1, 50), "the template has not the declared length"),
    ],
)
def test_bad_headers(change: Callable[[dict[str, Any]], None], sentence: str) -> None:
    with pytest.raises(ModelError, match=r"^some\.sqz: ") as caught:
        container.unpack(built(change), "some.sqz")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "0 bytes"),
        (b"PK\3\4" + bytes(100), "another magic number"),
        (TINY[:8] + b"\2\0" + TINY[10:], "a container of version 2"),
        (with_header(b"no json"), "malformed"),
        (with_header(b"[" * 100_000), "malformed"),
        (with_header(b"9" * 5000), "malformed"),
        (with_header(b"[1]"), "other fields"),
        (with_header(b"\xff{}"), "malformed"),
        (with_header(b" " * 1_000_001), "a header of 1000001 bytes"),
        (with_header(b" " * 2_000_000, inflated=10), "the header has not the declared length"),
        (with_header(b"{}", inflated=1 << 31), "a header of"),
        (built(lambda _: None, b"more"), "bytes where the header needs"),
    ],
)
def test_bad_files(content: bytes, sentence: str) -> None:
    assert sentence in refused(content)


def test_a_deflated_bomb() -> None:
    """Thirty megabytes of zeros in a section that declares a hundred bytes."""
    deflate = zlib.compressobj(9)
    bomb = b"".join(deflate.compress(bytes(10_000_000)) for _ in range(3)) + deflate.flush()
    crc32 = zlib.crc32(bomb)
    header = {"card": [len(bomb), 100, crc32], "template": [0, 0, 0], "tensors": []}
    content = with_header(json.dumps(header).encode(), bomb)
    tracemalloc.start()
    with pytest.raises(ModelError, match="the card has not the declared length"):
        container.read_card(content, "bomb.sqz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, removed, or put in."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        place, kind = int(rng.integers(len(changed))), int(rng.integers(4))
        junk = rng.bytes(int(rng.integers(1, 5)))
        if kind == 0:
            changed[place : place + len(junk)] = junk
        elif kind == 1:
            changed[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            del changed[place : place + len(junk)]
        else:
            changed[place:place] = junk
    return bytes(changed)


def test_ten_thousand_mutations() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10_000):
        content = mutated(TINY, rng)
        if content != TINY:
            with pytest.raises(ModelError):
                container.unpack(content, "some.sqz")


def survived(content: bytes, shape: tuple[int, ...]) -> bool:
    """Decode a tensor: any error but one sentence is a bug."""
    try:
        tensor.decode_tensor(content, shape)
    except ModelError as error:
        assert "\n" not in str(error)
        return False
    return True


TENSORS = {
    name: (values.shape, tensor.encode_tensor(values))
    for name, values in {
        "dense": pruned((4, 6, 3, 3), 0.9, 3),
        "sparse": np.eye(60, dtype=np.float32),
        "grouped": pruned((16, 40, 3, 3), 0.5, 4, spread=1),
        "raw": BIAS,
    }.items()
}


def test_the_tensors_cover_the_forms() -> None:
    summaries = [tensor.describe(content) for _, content in TENSORS.values()]
    assert [s.form for s in summaries][:2] == ["dense", "sparse"]
    assert summaries[2].parts > 2
    assert {c for s in summaries for c in s.coders} >= {"huffman", "rans"}


@pytest.mark.slow
@pytest.mark.parametrize("name", TENSORS)
def test_ten_thousand_mutations_behind_the_checksums(name: str) -> None:
    shape, content = TENSORS[name]
    rng = np.random.default_rng(0)
    assert sum(survived(mutated(content, rng), shape) for _ in range(2500)) < 2000


@pytest.mark.parametrize("name", TENSORS)
def test_damage_costs_little_memory(name: str) -> None:
    shape, content = TENSORS[name]
    rng = np.random.default_rng(1)
    tracemalloc.start()
    for _ in range(20):
        survived(mutated(content, rng), shape)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@given(st.sampled_from(sorted(TENSORS)), st.integers(0, 2**32 - 1))
def test_mutations_behind_the_checksums(name: str, seed: int) -> None:
    shape, content = TENSORS[name]
    survived(mutated(content, np.random.default_rng(seed)), shape)


@given(st.sampled_from(sorted(TENSORS)), st.floats(0, 1, exclude_max=True))
def test_every_prefix_behind_the_checksums(name: str, share: float) -> None:
    shape, content = TENSORS[name]
    assert not survived(content[: int(share * len(content))], shape)
