"""One tensor as bytes: whichever of the exact forms is the smallest.

``encode`` finds the shared values itself (numbers count as equal when their bits are), so what
it is given is the tensor as the graph holds it: after sharing, and after rounding to float16
if the graph stores float16. ``decode`` gives back the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.coding import channels, parts, symbols
from squeezedet.coding.channels import Channels
from squeezedet.coding.cursor import Cursor, number_bytes
from squeezedet.coding.parts import CodedPart
from squeezedet.errors import ModelError, UsageError

MAX_VALUES = 1024
"""Different values of a tensor that is coded by symbols; one with more of them stays raw."""
MAX_SIZE = 25_000_000
"""Numbers in a tensor."""
RAW, WHOLE, GROUPED = 0, 1, 2
"""The forms: the numbers, codes in one part, codes in parts by the density of channels."""
FLOAT32, FLOAT16 = np.dtype("<f4"), np.dtype("<f2")
STORED = (FLOAT32, FLOAT16)
"""How numbers are stored, by the number in the bytes."""
GROUPED_FROM = 4096
"""Numbers; in smaller tensors further tables never pay."""
STEPS = (0.5, 1.0)
"""Of log-odds, between the levels of channels that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSummary:
    """What a report says of an encoded tensor.

    Attributes:
        form: "raw float32", "raw float16", "dense" (zero is a symbol), "sparse" (gaps) or
            "mixed" (some parts so, some so).
        parts: in which it is coded, by the density of channels; 0 for raw, mostly 1.
        coders: that occur: "constant" (which costs nothing), "huffman" or "rans".
        size: numbers in the tensor.
        values: in its codebook; 0 for raw.
        entries: codes that are stored: all of a dense tensor, those of a sparse one with its
            fillers; 0 for raw.
        size_bytes: encoded.
    """

    form: str
    parts: int
    coders: tuple[str, ...]
    size: int
    values: int
    entries: int
    size_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class _Parsed:
    """An encoded tensor whose streams are not decoded yet.

    Attributes:
        size: numbers in the tensor.
        numbers: the tensor itself if it is raw, otherwise its codebook; as stored.
        channels: whose levels order the kernels in the parts; None where all is one part.
        parts: none if it is raw.
    """

    size: int
    numbers: NDArray[np.floating[Any]]
    channels: Channels | None
    parts: tuple[CodedPart, ...]

    def assemble(
        self, numbers: NDArray[np.floating[Any]], decoded: Iterator[NDArray[np.uint16]]
    ) -> NDArray[np.floating[Any]]:
        """The tensor, flat; ``numbers`` are its own, in the kind that is asked for."""
        if not self.parts:
            return numbers.copy()  # not a window on the bytes
        codes = np.concatenate([part.assemble(decoded) for part in self.parts])
        if self.channels is not None:
            order = self.channels.order()
            kernels = codes.reshape(len(order), -1)
            codes = np.empty_like(kernels)
            codes[order] = kernels
        whole: NDArray[np.floating[Any]] = numbers[codes.ravel()]
        return whole


def encode(values: NDArray[np.float32]) -> bytes:
    """The tensor in its smallest exact form.

    Args:
        values: float32 of any shape; (outputs, inputs, ...) can be grouped by channel. At most
            ``MAX_VALUES`` different values are coded by symbols; of more, or if that is
            smaller, the numbers are stored as they are, as float16 where that is exact.

    Raises:
        UsageError: the values are not float32, or too many.
    """
    if values.dtype != np.float32 or values.size > MAX_SIZE:
        raise UsageError(
            f"a tensor is at most {MAX_SIZE} float32 numbers, not {values.size} {values.dtype}"
        )
    bits = np.ascontiguousarray(values).ravel().view(np.uint32)
    raw = bytes([RAW]) + number_bytes(bits.size) + _numbers(bits)
    book, codes = np.unique(bits, return_inverse=True)
    if not 0 < len(book) <= MAX_VALUES:
        return raw
    coded = _encode_codes(codes.astype(np.uint16).reshape(values.shape), book)
    return min(raw, coded, key=len)


def _encode_codes(codes: NDArray[np.uint16], book: NDArray[np.uint32]) -> bytes:
    """As one part or in groups; zero, if it occurs, is the first of the values."""
    zero = bool(book[0] == 0)
    whole = [parts.best(codes.ravel(), len(book), zero)]
    form, chosen, found = WHOLE, b"", whole
    if zero and codes.ndim > 1 and codes.size >= GROUPED_FROM:
        best = sum(part.cost(len(book)) for part in whole)
        for step in STEPS:
            levels = channels.by_density(codes > 0, step)
            head = b"".join(map(number_bytes, codes.shape[:2])) + levels.to_bytes()
            grouped = _group(codes, levels, len(book))
            cost = len(head) + sum(part.cost(len(book)) for part in grouped)
            if cost < best:
                form, chosen, found, best = GROUPED, head, grouped, cost
    coded = b"".join(part.to_bytes(len(book)) for part in found)
    head = bytes([form]) + number_bytes(codes.size) + number_bytes(len(book))
    return head + _numbers(book) + chosen + coded


def _group(codes: NDArray[np.uint16], levels: Channels, alphabet: int) -> list[parts.Part]:
    order = levels.order()
    kernels = codes.reshape(len(order), -1)[order]
    ends = np.cumsum(levels.group_sizes())[:-1].tolist()
    return [parts.best(group.ravel(), alphabet, True) for group in np.split(kernels, ends)]


def _numbers(bits: NDArray[np.uint32]) -> bytes:
    """How they are stored, then the numbers: as float16 if that changes no bit."""
    half = _as_half(bits.view(np.float32))
    if half is None:
        return bytes([STORED.index(FLOAT32)]) + bits.astype("<u4").tobytes()
    return bytes([STORED.index(FLOAT16)]) + half.astype(FLOAT16).tobytes()


def _as_half(numbers: NDArray[np.float32]) -> NDArray[np.float16] | None:
    """The numbers as float16, or nothing if one does not come back bit for bit."""
    with np.errstate(all="ignore"):
        half = numbers.astype(np.float16)
        again = half.astype(np.float32)
    return half if np.array_equal(again.view(np.uint32), numbers.view(np.uint32)) else None


def decode(
    content: bytes, shape: tuple[int, ...], dtype: type[np.floating[Any]] = np.float32
) -> NDArray[np.floating[Any]]:
    """The tensor again, bit for bit.

    Args:
        content: from ``encode``.
        shape: of the tensor.
        dtype: float32 or float16; as float16, every number must fit exactly.

    Raises:
        ModelError: the bytes are damaged, or hold another number of values.
    """
    (flat,) = decode_all([content], [math.prod(shape)], [dtype])
    return flat.reshape(shape)


def decode_all(
    contents: Sequence[bytes], sizes: Sequence[int], dtypes: Sequence[type[np.floating[Any]]]
) -> list[NDArray[np.floating[Any]]]:
    """Many tensors at once, flat: far faster than one after another.

    Args:
        contents: from ``encode``.
        sizes: how many numbers each has; compared before memory is taken.
        dtypes: see ``decode``.

    Raises:
        ModelError: see ``decode``.
    """
    parsed = [_parse(content, size) for content, size in zip(contents, sizes, strict=True)]
    streams = [s for tensor in parsed for part in tensor.parts for s in part.streams]
    decoded = iter(symbols.decode(streams))
    return [
        tensor.assemble(_as(tensor.numbers, dtype), decoded)
        for tensor, dtype in zip(parsed, dtypes, strict=True)
    ]


def describe(content: bytes) -> TensorSummary:
    """What form an encoded tensor has, without decoding its codes.

    Raises:
        ModelError: the bytes are damaged.
    """
    parsed = _parse(content)
    streams = [stream for part in parsed.parts for stream in part.streams]
    forms = {"sparse" if part.gap_bits else "dense" for part in parsed.parts}
    return TensorSummary(
        form="mixed" if len(forms) > 1 else next(iter(forms), f"raw {parsed.numbers.dtype.name}"),
        parts=len(parsed.parts),
        coders=tuple(sorted({symbols.method_name(stream) for stream in streams})),
        size=parsed.size,
        values=len(parsed.numbers) if parsed.parts else 0,
        entries=sum(part.streams[0].size for part in parsed.parts if part.streams),
        size_bytes=len(content),
    )


def _parse(content: bytes, expected: int | None = None) -> _Parsed:
    cursor = Cursor(content, "an encoded tensor")
    form, size = cursor.byte(), cursor.number()
    if size > MAX_SIZE or expected not in (None, size):
        wanted = f"up to {MAX_SIZE}" if expected is None else expected
        raise cursor.error(f"it has {size} numbers instead of {wanted}")
    if form not in (RAW, WHOLE, GROUPED) or (form != RAW and not size):
        raise cursor.error(f"form {form} of {size} numbers")
    if form == RAW:
        parsed = _Parsed(size, _read_numbers(cursor, size), None, ())
    else:
        count = cursor.number()
        if not 0 < count <= MAX_VALUES:
            raise cursor.error(f"{count} values where 1 to {MAX_VALUES} can be")
        book = _read_numbers(cursor, count)
        zero = book[0].tobytes().count(0) == book.itemsize
        if form == WHOLE:
            parsed = _Parsed(size, book, None, (parts.read(cursor, size, count, zero),))
        else:
            levels = _read_channels(cursor, size)
            kernel = size // (len(levels.outputs) * len(levels.inputs))
            groups = [kernel * kernels for kernels in levels.group_sizes()]
            found = tuple(parts.read(cursor, n, count, zero) for n in groups)
            parsed = _Parsed(size, book, levels, found)
    cursor.end()
    return parsed


def _read_channels(cursor: Cursor, size: int) -> Channels:
    outputs, inputs = cursor.number(), cursor.number()
    kernels = outputs * inputs
    if not 0 < kernels <= size or size % kernels:
        raise cursor.error(f"{outputs} by {inputs} channels for {size} numbers")
    return channels.read(cursor, outputs, inputs)


def _read_numbers(cursor: Cursor, count: int) -> NDArray[np.floating[Any]]:
    stored = cursor.byte()
    if stored >= len(STORED):
        raise cursor.error(f"numbers of the unknown kind {stored}")
    return cursor.array(STORED[stored], count)


def _as(
    numbers: NDArray[np.floating[Any]], dtype: type[np.floating[Any]]
) -> NDArray[np.floating[Any]]:
    """The numbers as another kind, if that changes none."""
    if numbers.dtype == dtype:
        return numbers
    if dtype is np.float32:
        return numbers.astype(np.float32)
    half = _as_half(numbers.astype(np.float32, copy=False))
    if half is None:
        raise ModelError("an encoded tensor is damaged: its numbers are no float16")
    return half
