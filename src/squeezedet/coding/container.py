"""The ``.sqz`` container: a bundle whose weights are coded; docs/container.md has the bytes.

The graph is a template: the bytes of the ONNX file with the numbers of the coded tensors cut
out. Reading is decoding these and joining the pieces; no library of the format is needed. The
sections follow one another, so that there are no offsets that could overlap.
"""

from __future__ import annotations

import bisect
import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np

from squeezedet.coding import tensor
from squeezedet.errors import ModelError

# ---- template: A graph without some of its numbers, and how they come back.


class Slot(NamedTuple):
    """Where a tensor was cut out.

    Attributes:
        name: of the tensor.
        dtype: "f4" or "f2".
        size: numbers in it.
        at: how many bytes of the template come before it.
    """

    name: str
    dtype: str
    size: int
    at: int


class _Cut(NamedTuple):
    start: int
    stop: int
    name: str
    dtype: str
    size: int


def cut(graph: bytes, coded: Mapping[str, bytes]) -> tuple[bytes, list[Slot]]:
    """The graph without the numbers of the coded tensors.

    Args:
        graph: bytes of any format that stores numbers little endian.
        coded: name -> encoded tensor.

    Returns:
        The rest of the graph, and what was cut out of it, in its order.

    Raises:
        ModelError: the graph does not hold the numbers of a tensor.
    """
    sizes = {name: tensor.describe(encoded).size for name, encoded in coded.items()}
    cuts: list[_Cut] = []
    for name in sorted(coded, key=lambda name: (-sizes[name], name)):
        bisect.insort(cuts, _find(graph, name, coded[name], sizes[name], cuts))
    pieces, places = [], []
    end = length = 0
    for part in cuts:
        pieces.append(graph[end : part.start])
        length += part.start - end
        end = part.stop
        places.append(Slot(part.name, part.dtype, part.size, length))
    return b"".join([*pieces, graph[end:]]), places


def _find(graph: bytes, name: str, encoded: bytes, size: int, cuts: Sequence[_Cut]) -> _Cut:
    """The first place of a tensor's bytes that touches no other cut."""
    numbers = tensor.decode_tensor(encoded, (size,))
    forms = {"f4": numbers.astype("<f4").tobytes()}
    with np.errstate(all="ignore"):
        half = numbers.astype("<f2")
    if np.array_equal(half, numbers, equal_nan=True):
        forms["f2"] = half.tobytes()
    for dtype, content in forms.items():
        start = graph.find(content) if size else -1
        while start >= 0:
            stop = start + len(content)
            taken = next((c for c in cuts if c.start < stop and start < c.stop), None)
            if taken is None:
                return _Cut(start, stop, name, dtype, size)
            start = graph.find(content, taken.stop)
    raise ModelError(
        f"the graph does not hold the numbers of the tensor {name!r}: encode it as it is exported"
    )


def join(template: bytes, places: Sequence[int], parts: Sequence[bytes]) -> bytes:
    """The graph again: each part after so many bytes of the template, in order."""
    pieces, end = [], 0
    for at, part in zip(places, parts, strict=True):
        pieces += [template[end:at], part]
        end = at
    return b"".join([*pieces, template[end:]])


# ---- container: The ``.sqz`` container: a bundle whose weights are coded; docs/container.md has

SUFFIX = ".sqz"
MAGIC = b"\x89SQZ\r\n\x1a\n"
"""Not text, and damaged by whatever changes line ends, like that of PNG."""
VERSION = 1
PREAMBLE = struct.Struct("<8sHIII")
"""Magic, version; of the header: its deflated bytes, inflated bytes, CRC-32 of the deflated."""
MAX_HEADER_BYTES = 1_000_000
MAX_CARD_BYTES = 1_000_000
MAX_GRAPH_BYTES = 200_000_000
MAX_BYTES = 250_000_000
"""Of a container, which no graph within its limit needs; a reader of files checks it."""
MAX_TENSORS = 10_000
MAX_NUMBER = 1 << 32
DTYPES: dict[str, type[np.floating[Any]]] = {"f4": np.float32, "f2": np.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One coded tensor as the header lists it.

    Attributes:
        name: of the initialiser in the graph.
        dtype: "f4" or "f2", what its bytes are in the graph.
        size: numbers in it.
        size_bytes: encoded.
        crc32: of the encoded bytes.
        at: where in the template its bytes were cut out.
    """

    name: str
    dtype: str
    size: int
    size_bytes: int
    crc32: int
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Where the bytes of a container are spent; they add up to its size.

    Attributes:
        head_bytes: magic, version and header.
        card_bytes: the card, deflated.
        template_bytes: the graph without coded tensors, deflated.
        tensors: the coded tensors.
    """

    head_bytes: int
    card_bytes: int
    template_bytes: int
    tensors: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """A deflated section: its bytes in the file and inflated, CRC-32 of those in the file."""

    size_bytes: int
    inflated_bytes: int
    crc32: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What the header says; ``end`` is where it ends in the file and the card begins."""

    end: int
    card: _Section
    template: _Section
    tensors: tuple[Entry, ...]


def pack(card: bytes, graph: bytes, coded: Mapping[str, bytes]) -> bytes:
    """A container.

    Args:
        card: JSON, as in a bundle (``Card.to_json().encode()``, with the checksum of ``graph``).
        graph: ONNX bytes.
        coded: name of an initialiser -> the bytes that ``tensor.encode`` made of it. Its numbers
            are looked for in the graph, as float32 or float16; tensors that are not named stay
            in the template, deflated.

    Raises:
        ModelError: the graph does not hold the numbers of a tensor, or a limit is exceeded.
    """
    template, places = cut(graph, coded)
    entries = [
        Entry(
            name=place.name,
            dtype=place.dtype,
            size=place.size,
            size_bytes=len(coded[place.name]),
            crc32=zlib.crc32(coded[place.name]),
            at=place.at,
        )
        for place in places
    ]
    packed = {"card": zlib.compress(card, 9), "template": zlib.compress(template, 9)}
    header = json.dumps(
        {
            "card": [len(packed["card"]), len(card), zlib.crc32(packed["card"])],
            "template": [len(packed["template"]), len(template), zlib.crc32(packed["template"])],
            "tensors": [astuple(entry) for entry in entries],
        },
        separators=(",", ":"),
    ).encode()
    deflated = zlib.compress(header, 9)
    content = b"".join(
        [
            PREAMBLE.pack(MAGIC, VERSION, len(deflated), len(header), zlib.crc32(deflated)),
            deflated,
            *packed.values(),
            *(coded[entry.name] for entry in entries),
        ]
    )
    if unpack(content, "the new container") != (card, graph):
        raise ModelError("the container does not give back what was packed")
    return content


def unpack(content: bytes, where: str) -> tuple[bytes, bytes]:
    """The card and the graph, byte for byte as they were packed.

    Args:
        content: of the container.
        where: its path, for the errors.

    Raises:
        ModelError: it is damaged, of another version, or larger than the limits.
    """
    header = _header(content, where)
    card, template = _card(content, header, where), _template(content, header, where)
    encoded = [part for _, part in _tensors(content, header, where)]
    try:
        decoded = tensor.decode_all(
            encoded, [e.size for e in header.tensors], [DTYPES[e.dtype] for e in header.tensors]
        )
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error
    return card, join(template, [e.at for e in header.tensors], [a.tobytes() for a in decoded])


def read_card(content: bytes, where: str) -> bytes:
    """Only the card: nothing is decoded.

    Raises:
        ModelError: see ``unpack``.
    """
    return _card(content, _header(content, where), where)


def summarize(content: bytes, where: str) -> Summary:
    """Where the bytes are spent.

    Raises:
        ModelError: see ``unpack``.
    """
    header = _header(content, where)
    return Summary(
        head_bytes=header.end,
        card_bytes=header.card.size_bytes,
        template_bytes=header.template.size_bytes,
        tensors=header.tensors,
    )


def encoded_tensors(content: bytes, where: str) -> dict[str, bytes]:
    """The encoded tensors by name, as ``pack`` got them: for ``tensor.describe``.

    Raises:
        ModelError: see ``unpack``.
    """
    return dict(_tensors(content, _header(content, where), where))


def _damaged(where: str, what: str) -> ModelError:
    return ModelError(f"{where}: not a .sqz container, or a truncated or damaged one: {what}")


def _header(content: bytes, where: str) -> _Header:
    """The header, all of whose numbers fit one another, the limits and the file's length."""
    if len(content) < PREAMBLE.size:
        raise _damaged(where, f"{len(content)} bytes")
    magic, version, size, inflated, crc32 = PREAMBLE.unpack_from(content)
    if magic != MAGIC:
        raise _damaged(where, "another magic number")
    if version != VERSION:
        raise ModelError(
            f"{where}: a container of version {version}; this squeezedet reads {VERSION}"
        )
    if inflated > MAX_HEADER_BYTES:
        raise _damaged(where, f"a header of {inflated} bytes")
    section = _Section(size_bytes=size, inflated_bytes=inflated, crc32=crc32)
    text = _inflate(content, PREAMBLE.size, section, "header", where)
    try:
        header = _parse(json.loads(text), PREAMBLE.size + size)
    except (ValueError, TypeError, RecursionError) as error:
        raise _damaged(where, f"the header is malformed ({error})") from error
    total = header.end + header.card.size_bytes + header.template.size_bytes
    total += sum(entry.size_bytes for entry in header.tensors)
    if total != len(content):
        raise _damaged(where, f"{len(content)} bytes where the header needs {total}")
    return header


def _parse(values: Any, end: int) -> _Header:
    """The header's JSON as an object.

    Raises:
        ValueError, TypeError: it is another one, or exceeds a limit.
    """
    if not isinstance(values, dict) or values.keys() != {"card", "template", "tensors"}:
        raise ValueError("other fields")
    card = _section(values["card"], MAX_CARD_BYTES)
    template = _section(values["template"], MAX_GRAPH_BYTES)
    if not isinstance(values["tensors"], list) or len(values["tensors"]) > MAX_TENSORS:
        raise ValueError(f"more than {MAX_TENSORS} tensors")
    entries = tuple(_entry(*row) for row in values["tensors"])
    if len({entry.name for entry in entries}) != len(entries):
        raise ValueError("two tensors of one name")
    ends = [0, *(entry.at for entry in entries), template.inflated_bytes]
    if sorted(ends) != ends:
        raise ValueError("tensors out of order or outside the template")
    graph_bytes = ends[-1] + sum(e.size * np.dtype(DTYPES[e.dtype]).itemsize for e in entries)
    if graph_bytes > MAX_GRAPH_BYTES:
        raise ValueError(f"a graph of {graph_bytes} bytes, more than {MAX_GRAPH_BYTES}")
    return _Header(end=end, card=card, template=template, tensors=entries)


def _section(values: Any, limit: int) -> _Section:
    size_bytes, inflated_bytes, crc32 = values
    return _Section(
        size_bytes=_whole(size_bytes),
        inflated_bytes=_whole(inflated_bytes, limit),
        crc32=_whole(crc32),
    )


def _entry(name: Any, dtype: Any, size: Any, size_bytes: Any, crc32: Any, at: Any) -> Entry:
    if not isinstance(name, str) or dtype not in DTYPES:
        raise ValueError("a tensor without name or of another type")
    return Entry(
        name=name,
        dtype=dtype,
        size=_whole(size),
        size_bytes=_whole(size_bytes),
        crc32=_whole(crc32),
        at=_whole(at),
    )


def _whole(value: Any, limit: int = MAX_NUMBER) -> int:
    if type(value) is not int or not 0 <= value <= limit:  # True is an int elsewhere
        raise ValueError(f"a number that is none from 0 to {limit}")
    return value


def _card(content: bytes, header: _Header, where: str) -> bytes:
    return _inflate(content, header.end, header.card, "card", where)


def _template(content: bytes, header: _Header, where: str) -> bytes:
    start = header.end + header.card.size_bytes
    return _inflate(content, start, header.template, "template", where)


def _inflate(content: bytes, at: int, section: _Section, name: str, where: str) -> bytes:
    """A deflated section; no more memory than it declares."""
    packed = content[at : at + section.size_bytes]
    if zlib.crc32(packed) != section.crc32:
        raise _damaged(where, f"the checksum of the {name} is another")
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(packed, section.inflated_bytes + 1)
    except zlib.error as error:
        raise _damaged(where, f"the {name} cannot be inflated ({error})") from error
    if len(inflated) != section.inflated_bytes or not inflater.eof or inflater.unused_data:
        raise _damaged(where, f"the {name} has not the declared length")
    return inflated


def _tensors(content: bytes, header: _Header, where: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each tensor, checked."""
    at = header.end + header.card.size_bytes + header.template.size_bytes
    for entry in header.tensors:
        encoded = content[at : at + entry.size_bytes]
        at += entry.size_bytes
        if zlib.crc32(encoded) != entry.crc32:
            raise _damaged(where, f"the checksum of the tensor {entry.name[:80]!r} is another")
        yield entry.name, encoded
