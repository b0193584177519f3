"""A part of a tensor as codes: every place (dense), or only where it is not zero (sparse).

With a good entropy coder both come close to each other: zero as a symbol needs no gaps, and
gaps profit where zeros come in runs. The counts decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from squeezedet.coding import sparse, symbols
from squeezedet.coding.cursor import Cursor, number_bytes

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
        needs = symbols.rough_bytes(np.bincount(self.codes, minlength=alphabet))
        if self.gap_bits:
            needs += symbols.rough_bytes(np.bincount(self.gaps, minlength=1 << self.gap_bits))
        return needs

    def to_bytes(self, alphabet: int) -> bytes:
        """What ``read`` reads."""
        if not self.gap_bits:
            return bytes([DENSE]) + symbols.encode(self.codes, alphabet)
        head = bytes([self.gap_bits]) + number_bytes(len(self.codes))
        if not len(self.codes):
            return head
        gaps = symbols.encode(self.gaps, 1 << self.gap_bits)
        return head + symbols.encode(self.codes, alphabet) + gaps


def best(codes: NDArray[np.uint16], alphabet: int, zero: bool) -> Part:
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
            gaps, stored = sparse.to_gaps(places, codes[places], bits)
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
    streams: tuple[symbols.Stream, ...]

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
            whole[sparse.to_positions(gaps, self.size)] = codes
        return whole


def read(cursor: Cursor, size: int, alphabet: int, zero: bool) -> CodedPart:
    """The part at the cursor; see ``best``.

    Raises:
        ModelError: the bytes are damaged.
    """
    gap_bits = cursor.byte()
    if gap_bits == DENSE:
        return CodedPart(size, DENSE, (symbols.read(cursor, size, alphabet),))
    entries = cursor.number()
    if gap_bits not in GAP_BITS or not zero or entries > size:
        raise cursor.error(f"{entries} entries with gaps of {gap_bits} bits in {size} places")
    if not entries:
        return CodedPart(size, gap_bits, ())
    codes = symbols.read(cursor, entries, alphabet)
    return CodedPart(size, gap_bits, (codes, symbols.read(cursor, entries, 1 << gap_bits)))
