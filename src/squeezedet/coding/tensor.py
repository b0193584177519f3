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

from squeezedet.coding import huffman
from squeezedet.coding.cursor import Cursor, number_bytes
from squeezedet.coding.huffman import lane_count, schedule
from squeezedet.errors import ModelError, UsageError

# ---- sparse: Relative indices: where a tensor is not zero, as gaps (Deep Compression, section 2)

FILLER = 0
"""The code of a filler."""


def to_gaps(
    positions: NDArray[np.int64], codes: NDArray[np.uint16], bits: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """The gaps, and the codes with those of the fillers between them.

    Args:
        positions: (entries,) ascending places in the flattened tensor.
        codes: (entries,) what stands there; none is ``FILLER``.
        bits: of a gap.
    """
    zeros = np.diff(positions, prepend=-1) - 1
    fillers = zeros >> bits
    gaps = np.full(len(positions) + int(fillers.sum()), (1 << bits) - 1, np.uint16)
    all_codes = np.full(len(gaps), FILLER, np.uint16)
    ends = np.cumsum(fillers + 1) - 1
    gaps[ends] = zeros & ((1 << bits) - 1)
    all_codes[ends] = codes
    return gaps, all_codes


def to_positions(gaps: NDArray[np.uint16] | NDArray[np.uint8], size: int) -> NDArray[np.int64]:
    """The places of the entries in a flattened tensor of so many numbers.

    Raises:
        ModelError: they run past it.
    """
    positions: NDArray[np.int64] = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if len(positions) and positions[-1] >= size:
        raise ModelError(
            f"the gaps are damaged: they run to place {positions[-1]} of {size} in their part"
        )
    return positions


# ---- channels: Kernels of one density together: a table for each group codes them better than on

LEVELS = 16
"""So that a level fits four bits."""


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """The levels of a tensor's channels.

    Attributes:
        outputs: (rows,) levels, below ``LEVELS``.
        inputs: (columns,) levels.
    """

    outputs: NDArray[np.uint8]
    inputs: NDArray[np.uint8]

    def order(self) -> NDArray[np.int64]:
        """(rows * columns,) the kernels, group after group."""
        return np.argsort((self.outputs[:, None] + self.inputs).ravel(), kind="stable")

    def group_sizes(self) -> list[int]:
        """How many kernels each group has, without those that have none."""
        counts = np.convolve(np.bincount(self.outputs), np.bincount(self.inputs))
        return [n for n in counts.tolist() if n]

    def to_bytes(self) -> bytes:
        """What ``read`` reads, two levels a byte, the first in the lower half."""
        levels = np.concatenate([self.outputs, self.inputs])
        levels = np.concatenate([levels, np.zeros(len(levels) % 2, np.uint8)])
        return bytes((levels[::2] | levels[1::2] << 4).tobytes())


def by_density(nonzero: NDArray[np.bool_], step: float) -> Channels:
    """Levels from the densities of channels.

    Args:
        nonzero: (outputs, inputs, ...).
        step: of the log-odds, from level to level.
    """
    levels = []
    for axis in (0, 1):
        across = tuple(a for a in range(nonzero.ndim) if a != axis)
        count = nonzero.size / nonzero.shape[axis]
        share = (nonzero.sum(across) + 0.5) / (count + 1)
        odds = np.log(share / (1 - share))
        level = np.rint((odds - np.median(odds)) / step)
        level = np.clip(level, *np.rint((-2.5 / step, 2.5 / step)))  # the rest is one group
        levels.append((level - level.min()).clip(max=LEVELS - 1).astype(np.uint8))
    return Channels(*levels)


def read_channels(cursor: Cursor, outputs: int, inputs: int) -> Channels:
    """The levels at the cursor.

    Raises:
        ModelError: the bytes end early, or a half that is not used is not zero.
    """
    count = outputs + inputs
    pairs = cursor.array(np.dtype(np.uint8), (count + 1) // 2)
    levels = np.stack([pairs & 15, pairs >> 4], axis=1).ravel()
    if levels[count:].any():
        raise cursor.error("something follows the levels of the channels")
    return Channels(levels[:outputs], levels[outputs:count])


# ---- rans: Interleaved rANS: an entropy coder that comes within a hundredth of the entropy.

SCALE_BITS = 12
SCALE = 1 << SCALE_BITS
WORD_BITS = 16
LOW = 1 << WORD_BITS
"""Below it a state takes a word."""
WORD, STATE = np.dtype("<u2"), np.dtype("<u4")


def quantize(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Frequencies that add up to ``SCALE``, at least 1 for each symbol that occurs.

    Args:
        counts: (symbols,) how often each occurs; at least one and at most ``SCALE`` do.
    """
    used = counts > 0
    exact = counts * (SCALE / counts.sum())
    frequencies = np.where(used, np.maximum(np.rint(exact), 1), 0).astype(np.int64)
    while (excess := int(frequencies.sum()) - SCALE) != 0:
        # Where one step costs least (or brings most): the derivative of -count * log(frequency).
        step = -1 if excess > 0 else 1
        can = used & (frequencies + step >= 1)
        cost = np.full(len(counts), np.inf)
        cost[can] = -counts[can] * np.log((frequencies[can] + step) / frequencies[can])
        frequencies[np.argmin(cost)] += step
    return frequencies


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """One stream of symbols, coded.

    Attributes:
        size: symbols in it.
        frequencies: (alphabet,) that add up to ``SCALE``.
        states: (lanes,) from which decoding begins.
        lane_words: (lanes,) words of each lane.
        words: of the lanes, one after another.
    """

    size: int
    frequencies: NDArray[np.int64]
    states: NDArray[np.int64]
    lane_words: NDArray[np.int64]
    words: NDArray[np.uint16]


def encode_rans(symbols: NDArray[np.uint16], frequencies: NDArray[np.int64]) -> Coded:
    """Code symbols, each of which has a frequency."""
    lanes = lane_count(len(symbols))
    steps = -(-len(symbols) // lanes) if lanes else 0
    flat = np.zeros(steps * lanes, np.int64)
    flat[: len(symbols)] = symbols
    table = flat.reshape(steps, lanes)
    starts = np.cumsum(frequencies) - frequencies
    state = np.full(lanes, LOW, np.int64)
    words, emitted = np.zeros((steps, lanes), WORD), np.zeros((steps, lanes), bool)
    for step in reversed(range(steps)):  # the decoder runs the other way
        count = min(lanes, len(symbols) - step * lanes)
        x, symbol = state[:count], table[step, :count]
        frequency = frequencies[symbol]
        full = x >= frequency << (2 * WORD_BITS - SCALE_BITS)
        emitted[step, :count] = full
        words[step, :count] = x & (LOW - 1)
        x = np.where(full, x >> WORD_BITS, x)
        quotient, rest = np.divmod(x, frequency)
        state[:count] = (quotient << SCALE_BITS) + rest + starts[symbol]
    return Coded(
        len(symbols), frequencies, state, emitted.sum(0, dtype=np.int64), words.T[emitted.T]
    )


def decode_rans(streams: Sequence[Coded]) -> list[NDArray[np.uint16]]:
    """The symbols of many streams, side by side.

    Raises:
        ModelError: frequencies do not add up, or a lane does not end as it began.
    """
    plan = schedule([stream.size for stream in streams])
    lanes = [lane_count(stream.size) for stream in streams]
    symbol_of, frequency_of, offset_of = _tables(streams)
    base = np.repeat(np.arange(len(streams)) * SCALE, lanes)[plan.order]
    none = np.zeros(0, np.int64)
    state = np.concatenate([none, *(s.states for s in streams)])[plan.order]
    sizes = np.concatenate([none, *(s.lane_words for s in streams)])
    at, end = (np.cumsum(sizes) - sizes)[plan.order], np.cumsum(sizes)[plan.order]
    # A damaged lane may run on, by a word a step at most: there must be something to read.
    words = np.concatenate([*(s.words for s in streams), np.zeros(plan.steps + 1, WORD)])
    words = words.astype(np.int64)
    symbols = np.zeros((plan.steps, len(at)), np.uint16)
    for first, last, count in plan.phases:
        x, place, offset = state[:count], at[:count], base[:count]
        for step in range(first, last):
            slot = (x & (SCALE - 1)) + offset
            symbols[step, :count] = symbol_of[slot]
            x >>= SCALE_BITS
            x *= frequency_of[slot]
            x += offset_of[slot]
            low = np.flatnonzero(x < LOW)
            where = place[low]
            x[low] = x[low] << WORD_BITS | words[where]
            place[low] = where + 1
    if (state != LOW).any() or (at != end).any():
        raise ModelError("the codes are damaged: they do not end where their bytes do")
    return list(plan.split(symbols))


def _tables(
    streams: Sequence[Coded],
) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.int64]]:
    """For each slot, table after table: its symbol, that one's frequency, place within it."""
    symbols = np.zeros(len(streams) * SCALE, np.uint16)
    frequencies, offsets = (np.zeros(len(streams) * SCALE, np.int64) for _ in range(2))
    for i, stream in enumerate(streams):
        f = stream.frequencies
        if f.min(initial=0) < 0 or f.sum() != SCALE:
            raise ModelError(f"the frequency table is damaged: it adds up to {f.sum()}")
        mine = slice(i * SCALE, (i + 1) * SCALE)
        symbols[mine] = np.repeat(np.arange(len(f), dtype=np.uint16), f)
        frequencies[mine] = np.repeat(f, f)
        offsets[mine] = np.arange(SCALE) - np.repeat(np.cumsum(f) - f, f)
    return symbols, frequencies, offsets


# ---- symbols: A stream of symbols as bytes: which coder, its table, its lanes.

CONSTANT, HUFFMAN, RANS = 0, 1, 2
NAMES = {CONSTANT: "constant", HUFFMAN: "huffman", RANS: "rans"}
LANE_SIZE = np.dtype("<u2")
BATCH = 1024
"""Streams whose tables, of up to 72 KB, are in memory together."""


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A stream of one symbol only.

    Attributes:
        size: how many there are.
        symbol: which.
    """

    size: int
    symbol: int


Stream = Constant | huffman.Coded | Coded


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The coder for a stream, before it is coded.

    Attributes:
        method: ``CONSTANT``, ``HUFFMAN`` or ``RANS``.
        table: code lengths or frequencies; empty for a constant.
        size_bytes: what the stream will need, to a few bytes.
    """

    method: int
    table: NDArray[np.int64]
    size_bytes: float


def choose(counts: NDArray[np.int64]) -> Choice:
    """The cheapest coder for symbols that occur so often; at least one does."""
    used = counts > 0
    if np.count_nonzero(used) == 1:
        return Choice(CONSTANT, np.zeros(0, np.int64), 3)
    lanes = lane_count(int(counts.sum()))
    lengths, frequencies = huffman.code_lengths(counts), quantize(counts)
    codes = float(counts @ lengths) / 8 + lanes / 2
    bits = float(counts[used] @ np.log2(SCALE / frequencies[used]))
    table = len(counts) + np.count_nonzero(frequencies >= 0x80)
    # A state holds about eight bits of the codes.
    words = bits / 8 + lanes * (STATE.itemsize - 1)
    choices = (
        Choice(HUFFMAN, lengths, 1 + len(counts) / 2 + lanes * LANE_SIZE.itemsize + codes),
        Choice(RANS, frequencies, 1 + table + lanes * LANE_SIZE.itemsize + words),
    )
    return min(choices, key=lambda choice: choice.size_bytes)


def rough_bytes(counts: NDArray[np.int64]) -> float:
    """About what ``choose`` will find, in a hundredth of the time."""
    used, total = counts[counts > 0], int(counts.sum())
    if len(used) < 2:
        return 3
    bits = float(used @ np.log2(total / used))
    table = min(len(counts), len(counts) / 2 + 0.03 * bits / 8)
    return 1 + table + bits / 8 + 5 * lane_count(total)


def encode_symbols(symbols: NDArray[np.uint16], alphabet: int) -> bytes:
    """Code a stream; neither its size nor its alphabet are in the bytes.

    Args:
        symbols: at least one.
        alphabet: they are below it.
    """
    choice = choose(np.bincount(symbols, minlength=alphabet).astype(np.int64))
    head = bytes([choice.method])
    if choice.method == CONSTANT:
        return head + number_bytes(int(symbols[0]))
    if choice.method == HUFFMAN:
        coded = huffman.encode(symbols, choice.table)
        nibbles = np.concatenate([coded.lengths, np.zeros(alphabet % 2, np.int64)])
        table = (nibbles[::2] | nibbles[1::2] << 4).astype(np.uint8)
        lane_bytes = coded.lane_bytes.astype(LANE_SIZE)
        return b"".join([head, table.tobytes(), lane_bytes.tobytes(), coded.content])
    mixed = encode_rans(symbols, choice.table)
    return b"".join(
        [
            head,
            *(number_bytes(f) for f in mixed.frequencies.tolist()),
            mixed.lane_words.astype(LANE_SIZE).tobytes(),
            mixed.states.astype(STATE).tobytes(),
            mixed.words.tobytes(),
        ]
    )


def read_symbols(cursor: Cursor, size: int, alphabet: int) -> Stream:
    """The stream at the cursor; its codes are not decoded yet.

    Args:
        cursor: moves behind the stream.
        size: symbols in it, at least one.
        alphabet: they are below it; below 2^16.

    Raises:
        ModelError: the bytes are damaged.
    """
    method = cursor.byte()
    if method == CONSTANT:
        symbol = cursor.number()
        if symbol >= alphabet:
            raise cursor.error(f"symbol {symbol} of an alphabet of {alphabet}")
        return Constant(size, symbol)
    if method == HUFFMAN:
        pairs = cursor.array(np.dtype(np.uint8), (alphabet + 1) // 2)
        nibbles = np.stack([pairs & 15, pairs >> 4], axis=1).ravel().astype(np.int64)
        if nibbles[alphabet:].any() or nibbles.max() > huffman.MAX_LENGTH:
            raise cursor.error("the code table has impossible lengths")
        huffman.canonical_codes(nibbles[:alphabet])
        lane_bytes = _lane_sizes(cursor, size)
        return huffman.Coded(
            size, nibbles[:alphabet], lane_bytes, cursor.take(int(lane_bytes.sum()))
        )
    if method == RANS:
        frequencies = cursor.numbers(alphabet)
        if sum(frequencies) != SCALE:
            raise cursor.error(f"the frequencies add up to {sum(frequencies)}, not {SCALE}")
        lane_words = _lane_sizes(cursor, size)
        states = cursor.array(STATE, len(lane_words)).astype(np.int64)
        if (states < LOW).any():
            raise cursor.error("a state is too small")
        words = cursor.array(WORD, int(lane_words.sum()))
        return Coded(size, np.array(frequencies), states, lane_words, words)
    raise cursor.error(f"unknown coder {method}")


def _lane_sizes(cursor: Cursor, size: int) -> NDArray[np.int64]:
    return cursor.array(LANE_SIZE, lane_count(size)).astype(np.int64)


def method_name(stream: Stream) -> str:
    """What a report calls the coder of a stream."""
    kinds = {Constant: CONSTANT, huffman.Coded: HUFFMAN, Coded: RANS}
    return NAMES[kinds[type(stream)]]


def decode_symbols(streams: Sequence[Stream]) -> list[NDArray[np.uint16]]:
    """The symbols of many streams, those of one coder side by side.

    Raises:
        ModelError: the codes are damaged.
    """
    found: list[NDArray[np.uint16]] = []
    for first in range(0, len(streams), BATCH):
        found += _decode(streams[first : first + BATCH])
    return found


def _decode(streams: Sequence[Stream]) -> list[NDArray[np.uint16]]:
    tabled = [stream for stream in streams if isinstance(stream, huffman.Coded)]
    mixed = [stream for stream in streams if isinstance(stream, Coded)]
    decoded = {
        huffman.Coded: iter(huffman.decode(tabled)),
        Coded: iter(decode_rans(mixed)),
    }
    return [
        np.full(stream.size, stream.symbol, np.uint16)
        if isinstance(stream, Constant)
        else next(decoded[type(stream)])
        for stream in streams
    ]


# ---- parts: A part of a tensor as codes: every place (dense), or only where it is not zero (spar

DENSE = 0
GAP_BITS = (2, 3, 4, 5, 6, 8)
"""Tried in turn; Deep Compression has 4."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Codes of a part.

    Attributes:
        size: places in it.
        gap_bits: of a sparse one; ``DENSE`` for a dense one.
        codes: those that are stored, fillers among them.
        gaps: before each of them; empty for a dense one.
    """

    size: int
    gap_bits: int
    codes: NDArray[np.uint16]
    gaps: NDArray[np.uint16]

    def cost(self, alphabet: int) -> float:
        """Bytes that it will need, roughly."""
        needs = rough_bytes(np.bincount(self.codes, minlength=alphabet))
        if self.gap_bits:
            needs += rough_bytes(np.bincount(self.gaps, minlength=1 << self.gap_bits))
        return needs

    def to_bytes(self, alphabet: int) -> bytes:
        """What ``read`` reads."""
        if not self.gap_bits:
            return bytes([DENSE]) + encode_symbols(self.codes, alphabet)
        head = bytes([self.gap_bits]) + number_bytes(len(self.codes))
        if not len(self.codes):
            return head
        gaps = encode_symbols(self.gaps, 1 << self.gap_bits)
        return head + encode_symbols(self.codes, alphabet) + gaps


def best_part(codes: NDArray[np.uint16], alphabet: int, zero: bool) -> Part:
    """The part in the form that needs the fewest bytes.

    Args:
        codes: (places,) below ``alphabet``; at least one.
        alphabet: how many codes there are.
        zero: whether code 0 stands for zero; only then can a part be sparse.
    """
    none = np.zeros(0, np.uint16)
    forms = [Part(len(codes), DENSE, codes, none)]
    if zero:
        places = np.flatnonzero(codes)
        for bits in GAP_BITS:
            gaps, stored = to_gaps(places, codes[places], bits)
            forms.append(Part(len(codes), bits, stored, gaps))
    return min(forms, key=lambda part: part.cost(alphabet))


@dataclass(frozen=True, slots=True, eq=False)
class CodedPart:
    """A part whose streams are not decoded yet.

    Attributes:
        size: places in it.
        gap_bits: see ``Part``.
        streams: none (nothing but zeros), the codes, or the codes and the gaps.
    """

    size: int
    gap_bits: int
    streams: tuple[Stream, ...]

    def assemble(self, decoded: Iterator[NDArray[np.uint16]]) -> NDArray[np.uint16]:
        """(size,) the codes, once the streams are decoded.

        Raises:
            ModelError: gaps run past the part.
        """
        if not self.gap_bits:
            return next(decoded)
        whole = np.zeros(self.size, np.uint16)
        if self.streams:
            codes, gaps = next(decoded), next(decoded)
            whole[to_positions(gaps, self.size)] = codes
        return whole


def read_parts(cursor: Cursor, size: int, alphabet: int, zero: bool) -> CodedPart:
    """The part at the cursor; see ``best``.

    Raises:
        ModelError: the bytes are damaged.
    """
    gap_bits = cursor.byte()
    if gap_bits == DENSE:
        return CodedPart(size, DENSE, (read_symbols(cursor, size, alphabet),))
    entries = cursor.number()
    if gap_bits not in GAP_BITS or not zero or entries > size:
        raise cursor.error(f"{entries} entries with gaps of {gap_bits} bits in {size} places")
    if not entries:
        return CodedPart(size, gap_bits, ())
    codes = read_symbols(cursor, entries, alphabet)
    return CodedPart(size, gap_bits, (codes, read_symbols(cursor, entries, 1 << gap_bits)))


# ---- tensor: One tensor as bytes: whichever of the exact forms is the smallest.

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


def encode_tensor(values: NDArray[np.float32]) -> bytes:
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
    whole = [best_part(codes.ravel(), len(book), zero)]
    form, chosen, found = WHOLE, b"", whole
    if zero and codes.ndim > 1 and codes.size >= GROUPED_FROM:
        best = sum(part.cost(len(book)) for part in whole)
        for step in STEPS:
            levels = by_density(codes > 0, step)
            head = b"".join(map(number_bytes, codes.shape[:2])) + levels.to_bytes()
            grouped = _group(codes, levels, len(book))
            cost = len(head) + sum(part.cost(len(book)) for part in grouped)
            if cost < best:
                form, chosen, found, best = GROUPED, head, grouped, cost
    coded = b"".join(part.to_bytes(len(book)) for part in found)
    head = bytes([form]) + number_bytes(codes.size) + number_bytes(len(book))
    return head + _numbers(book) + chosen + coded


def _group(codes: NDArray[np.uint16], levels: Channels, alphabet: int) -> list[Part]:
    order = levels.order()
    kernels = codes.reshape(len(order), -1)[order]
    ends = np.cumsum(levels.group_sizes())[:-1].tolist()
    return [best_part(group.ravel(), alphabet, True) for group in np.split(kernels, ends)]


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


def decode_tensor(
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
    decoded = iter(decode_symbols(streams))
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
        coders=tuple(sorted({method_name(stream) for stream in streams})),
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
            parsed = _Parsed(size, book, None, (read_parts(cursor, size, count, zero),))
        else:
            levels = _read_channels(cursor, size)
            kernel = size // (len(levels.outputs) * len(levels.inputs))
            groups = [kernel * kernels for kernels in levels.group_sizes()]
            found = tuple(read_parts(cursor, n, count, zero) for n in groups)
            parsed = _Parsed(size, book, levels, found)
    cursor.end()
    return parsed


def _read_channels(cursor: Cursor, size: int) -> Channels:
    outputs, inputs = cursor.number(), cursor.number()
    kernels = outputs * inputs
    if not 0 < kernels <= size or size % kernels:
        raise cursor.error(f"{outputs} by {inputs} channels for {size} numbers")
    return read_channels(cursor, outputs, inputs)


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
