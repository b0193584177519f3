"""A model as the difference from another one of the same network: what did not change costs next to nothing.

Tensors are found by their names in both ONNX graphs. One of the same numbers is a reference to the old bytes. Of any
other the differences are stored, number by number, or where it holds few different values, as deep compression leaves
them, its codebook and by how much each code moved; what lies between tensors is copied from wherever the old model has
it. Without an old model the same coder packs the whole new one.

The file is one LZMA stream: instructions in JSON, a line feed, and the bytes that they take, in turn. An instruction is
``[kind, bytes, place in the old model, ...]``; the old model is its parts one behind the other. Differences are coded
by ``coding.tensor`` wherever LZMA would need more.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from squeezedet.coding.tensor import MAX_SIZE, MAX_VALUES, decode_tensor, encode_tensor
from squeezedet.errors import ModelError
from squeezedet.pretrained.onnx_file import BYTES, DATA_TYPE, FLOAT_DATA, GRAPH, INITIALIZER, NAME, RAW_DATA, WireReader
from squeezedet.runtime.graph_check import ITEM_BYTES

INSERT, COPY, PLAIN, CODED, BOOK = range(5)
"""Kinds: new bytes; old bytes; differences as they are, coded, or of codes in a codebook."""
NOTHING = -1
"""In place of a place in the old model: zeros."""
MAX_MODEL_BYTES, MAX_STEPS = 202_000_000, 100_000
BLOCK = 32
"""Bytes that must be equal for a copy between tensors."""
LEAST_TENSOR = 64
"""A tensor of fewer bytes is a part of what lies between tensors."""
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "pb": 0, "dict_size": 1 << 24}]
ROUGH = [{"id": lzma.FILTER_LZMA2, "preset": 4, "lc": 0, "pb": 0, "dict_size": 1 << 18}]
"""Fast, to find out which form of a tensor is the smallest."""
LENGTH = np.dtype("<u4")
Parts = Mapping[str, bytes]
Step = tuple[int, ...]


class Tensor(NamedTuple):
    """Where the numbers of an initializer are."""

    start: int
    stop: int
    item_bytes: int


def tensors(graph: bytes) -> dict[str, Tensor]:
    """The initializers of an ONNX graph by name; none of what is no graph."""
    reader = WireReader(graph, Path("graph"), "an ONNX graph")
    found: dict[str, Tensor] = {}
    try:
        for top in reader.fields():
            if top.number != GRAPH or top.wire != BYTES:
                continue
            for tensor in reader.fields(top.start, top.stop):
                if tensor.number != INITIALIZER or tensor.wire != BYTES:
                    continue
                fields = {field.number: field for field in reader.fields(tensor.start, tensor.stop)}
                numbers = fields.get(RAW_DATA) or fields.get(FLOAT_DATA)
                width = ITEM_BYTES.get(fields[DATA_TYPE].value, 1) if DATA_TYPE in fields else 1
                if numbers and numbers.wire == BYTES and NAME in fields:
                    found[reader.name(fields[NAME])] = Tensor(numbers.start, numbers.stop, width)
    except ModelError:
        return {}
    return found


def encode(old: Parts, new: Parts) -> bytes:
    """The parts of a model as a difference from those of an old one, or packed, if there are none."""
    encoder = _Encoder(old)
    head: dict[str, list[Step]] = {}
    bodies: list[bytes] = []
    for name, content in new.items():
        steps = head[name] = []
        for step, body in encoder.steps(content):
            last = steps[-1] if steps else (INSERT,)
            if step[0] == last[0] == COPY and last[2] + last[1] == step[2]:
                steps[-1] = (COPY, last[1] + step[1], last[2])
            else:
                steps.append(step)
            bodies.append(body)
    text = json.dumps(head, separators=(",", ":")).encode()
    return lzma.compress(b"".join([text, b"\n", *bodies]), lzma.FORMAT_RAW, filters=FILTERS)


class _Encoder:
    def __init__(self, old: Parts) -> None:
        self._old = b"".join(old.values())
        self._tensors: dict[str, Tensor] = {}
        at = 0
        for content in old.values():
            self._tensors |= {n: Tensor(t.start + at, t.stop + at, t.item_bytes) for n, t in tensors(content).items()}
            at += len(content)
        places = range(0, len(self._old) - BLOCK + 1, BLOCK // 2)
        self._blocks = {self._old[place : place + BLOCK]: place for place in reversed(places)}

    def steps(self, content: bytes) -> Iterator[tuple[Step, bytes]]:
        """The instructions for one part, each with the bytes that it takes."""
        at = expected = 0
        for name, tensor in sorted(tensors(content).items(), key=lambda item: item[1].start):
            if LEAST_TENSOR <= tensor.stop - tensor.start <= MAX_SIZE and tensor.start >= at:
                known = self._tensors.get(name)
                yield from self._between(content[at : tensor.start], expected)
                yield self._numbers(content[tensor.start : tensor.stop], tensor.item_bytes, known)
                at, expected = tensor.stop, known.stop if known else len(self._old)
        yield from self._between(content[at:], expected)

    def _numbers(self, new: bytes, width: int, known: Tensor | None) -> tuple[Step, bytes]:
        place, old = NOTHING, bytes(len(new))
        if known and known.stop - known.start == len(new) and known.item_bytes == width:
            place, old = known.start, self._old[known.start : known.stop]
            if old == new:
                return (COPY, len(new), place), b""
        planes = _planes(old, new, width)
        choices = {INSERT: new, PLAIN: planes.tobytes(), CODED: _joined([_coded(plane) for plane in planes])}
        book = np.unique(np.frombuffer(new, f"<u{width}"))
        if width > 1 and len(book) <= MAX_VALUES:
            moves = _codes(new, book) - _codes(old, book)
            choices[BOOK] = book.tobytes() + _coded((moves + len(book) // 2) % len(book) - len(book) // 2)
        kind = min(choices, key=lambda kind: len(lzma.compress(choices[kind], lzma.FORMAT_RAW, filters=ROUGH)))
        if kind == INSERT:
            return (INSERT, len(new)), new
        return (kind, len(new), place, len(choices[kind]), width, len(book)), choices[kind]

    def _between(self, new: bytes, expected: int) -> Iterator[tuple[Step, bytes]]:
        """What is no tensor: copies of old bytes, first of those expected, and what the old model has not."""
        at = start = _equal(self._old[expected : expected + len(new)], new)
        if at:
            yield (COPY, at, expected), b""
        while at + BLOCK <= len(new):
            place = self._blocks.get(new[at : at + BLOCK])
            if place is None:
                at += 1
                continue
            back = _equal(self._old[max(0, place + start - at) : place][::-1], new[start:at][::-1])
            if at - back > start:
                yield (INSERT, at - back - start), new[start : at - back]
            length = back + _equal(self._old[place : place + len(new) - at], new[at:])
            yield (COPY, length, place - back), b""
            at = start = at - back + length
        if start < len(new):
            yield (INSERT, len(new) - start), new[start:]


def _equal(a: bytes, b: bytes) -> int:
    """How many bytes are equal from the beginning."""
    size = min(len(a), len(b))
    other = np.flatnonzero(np.frombuffer(a, np.uint8, size) != np.frombuffer(b, np.uint8, size))
    return int(other[0]) if len(other) else size


def _planes(old: bytes, new: bytes, width: int) -> NDArray[np.int8]:
    """(width, numbers): the differences, modulo 2^bits, byte by byte."""
    moves = np.frombuffer(new, f"<u{width}") - np.frombuffer(old, f"<u{width}")
    return np.ascontiguousarray(moves.view(np.int8).reshape(-1, width).T)


def _codes(numbers: bytes, book: NDArray[Any]) -> NDArray[np.int64]:
    """Which value of the codebook each number is; in another codebook of as many values, the one of its rank."""
    values, codes = np.unique(np.frombuffer(numbers, book.dtype), return_inverse=True)
    if len(values) != len(book):
        codes = np.searchsorted(book, values).clip(max=len(book) - 1)[codes]
    return codes.ravel().astype(np.int64)


def _coded(values: NDArray[Any]) -> bytes:
    return encode_tensor(values.astype(np.float32))


def _joined(contents: list[bytes]) -> bytes:
    lengths = np.array([len(content) for content in contents], LENGTH)
    return b"".join([lengths.tobytes(), *contents])


# ---------------------------------------------------------------- reading


def decode(delta: bytes, old: Parts) -> dict[str, bytes]:
    """The parts of the new model.

    Raises:
        ModelError: the delta is damaged, or belongs to another old model.
    """
    try:
        return _Decoder(delta, b"".join(old.values())).parts()
    except ModelError:
        raise
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError, EOFError, lzma.LZMAError) as error:
        raise ModelError(f"the delta is damaged ({error or type(error).__name__})") from error


class _Decoder:
    def __init__(self, delta: bytes, old: bytes) -> None:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=FILTERS)
        self._content = unpacker.decompress(delta, MAX_MODEL_BYTES)
        if not unpacker.eof or unpacker.unused_data:
            raise ValueError("it does not end where it should")
        self._old, self._at = old, self._content.index(b"\n") + 1

    def parts(self) -> dict[str, bytes]:
        """See ``decode``."""
        head = json.loads(self._content[: self._at])
        steps = [step for steps in head.values() for step in steps]
        numbers = [number for step in steps for number in step]
        if len(steps) > MAX_STEPS or not all(type(n) is int and NOTHING <= n <= MAX_MODEL_BYTES for n in numbers):
            raise ValueError("its instructions are none")
        if sum(step[1] for step in steps) > MAX_MODEL_BYTES:
            raise ValueError(f"a model of more than {MAX_MODEL_BYTES} bytes")
        return {name: b"".join([self._run(*step) for step in steps]) for name, steps in head.items()}

    def _run(
        self, kind: int, length: int, place: int = NOTHING, size: int = 0, width: int = 1, values: int = 0
    ) -> bytes:
        """The new bytes that an instruction stands for."""
        if kind == INSERT:
            return self._take(length)
        old = bytes(length) if place == NOTHING else self._old[place : place + length]
        if len(old) != length:
            raise ValueError("it takes bytes that the old model has not")
        if kind == COPY:
            return old
        body, form, shape = self._take(size), f"<u{width}", (length // width,)
        if kind == BOOK:
            book = np.frombuffer(body, form, values)
            moves = decode_tensor(body[width * values :], shape).astype(np.int64)
            return bytes(book[(_codes(old, book) + moves) % values].tobytes())
        if kind == PLAIN:
            planes = np.frombuffer(body, np.int8).reshape(width, -1)
        else:
            ends = np.cumsum([LENGTH.itemsize * width, *np.frombuffer(body, LENGTH, width)]).tolist()
            contents = [body[start:stop] for start, stop in pairwise(ends)]
            planes = np.stack([decode_tensor(content, shape).astype(np.int8) for content in contents])
        moves = np.ascontiguousarray(planes.T).view(form).ravel()
        return bytes((np.frombuffer(old, form) + moves).tobytes())

    def _take(self, count: int) -> bytes:
        taken = self._content[self._at : self._at + count]
        if len(taken) != count or count < 0:
            raise ValueError("it ends too early")
        self._at += count
        return taken


# ---------------------------------------------------------------- beside others


def sizes(old: Parts, new: Parts) -> dict[str, int]:
    """Bytes of an update by our delta, by zstd and bsdiff where they are installed, and whole."""
    before, after = (b"".join(parts.values()) for parts in (old, new))
    found = {"delta": len(encode(old, new))}
    with suppress(ModuleNotFoundError):
        import zstandard

        dictionary = zstandard.ZstdCompressionDict(before, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        settings = zstandard.ZstdCompressionParameters.from_level(22, window_log=27, enable_ldm=True)
        packer = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=settings)
        found["zstd with the old model as dictionary"] = len(packer.compress(after))
    with suppress(ModuleNotFoundError):
        import bsdiff4

        found["bsdiff"] = len(bsdiff4.diff(before, after))
    return found | {"whole model": len(encode({}, new))}
