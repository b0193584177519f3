"""How much memory the activations of a network need at one time.

An activation is live from the kernel that writes it to the last one that reads it; while a
kernel runs its inputs and outputs are live together. What an engine fuses, overwrites or
concatenates without work is in ``kernels``. In which order the branches run changes the
peak: ``plan`` looks for the order with the smallest one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

from squeezedet.cost.graph import Graph
from squeezedet.cost.kernels import Program, program
from squeezedet.cost.layers import MIB
from squeezedet.drawing import COLORS
from squeezedet.errors import ModelError

# ---- memory: How much memory the activations of a network need at one time.

MOVES = 100_000
"""How many moves the exact search may weigh; beyond it an order is taken that may be worse."""
LARGE = 1_000
"""A graph of more kernels (a loop over regions) is searched no further than its own order."""


@dataclass(frozen=True, slots=True)
class MemoryStep:
    """One kernel of the schedule while it runs, in bytes.

    Attributes:
        name: of the layer.
        reads, writes: its inputs and outputs; in place, what is overwritten is a read.
        kept: what later kernels need and this one does not touch.
    """

    name: str
    reads: int
    writes: int
    kept: int

    @property
    def live(self) -> int:
        """All that is in memory."""
        return self.reads + self.writes + self.kept

    @property
    def pair(self) -> int:
        """The activations on both sides of the layer."""
        return self.reads + self.writes


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """A schedule, and the memory that it needs.

    Attributes:
        moments: one for each kernel, in the order of the schedule.
        exact: whether no order has a smaller peak; otherwise none was found.
    """

    moments: tuple[MemoryStep, ...]
    exact: bool

    @property
    def peak(self) -> MemoryStep:
        """When most memory is in use."""
        return max(self.moments, key=lambda moment: moment.live)

    @property
    def largest_pair(self) -> MemoryStep:
        """The layer whose input and output together are largest.

        Section 3.4: when this and the parameters fit in the chip's SRAM together, a network
        runs without a single access to DRAM.
        """
        return max(self.moments, key=lambda moment: moment.pair)


def plan(graph: Graph, moves: int = MOVES) -> MemoryPlan:
    """The order with the smallest peak of live memory, and what is live at each step of it.

    A best-first search over the sets of kernels that have run, which finds the smallest peak
    of all orders. Two things keep it small without making it inexact: no order is better than
    its largest kernel alone, or its last one; and a kernel that ends with no more memory than
    there was, and does not raise the peak on its way, can run at once. If it weighs more than
    ``moves`` moves, the best of a greedy order and the order of the graph is taken (only the
    latter in a graph of more than ``LARGE`` kernels), and ``exact`` is False, unless that order
    needs no more than that one kernel.

    Raises:
        ModelError: there is nothing to run.
    """
    engine = program(graph)
    if not engine.kernels:
        raise ModelError("the network computes nothing of its input")
    scheduler = _Scheduler(engine)
    orders = [list(range(len(scheduler.program.kernels)))]
    if len(orders[0]) <= LARGE:
        order = scheduler.search(moves)
        if order is not None:
            return MemoryPlan(scheduler.moments(order), exact=True)
        orders.append(scheduler.greedy())
    memories = [MemoryPlan(scheduler.moments(order), exact=False) for order in orders]
    best = min(memories, key=lambda memory: memory.peak.live)
    return replace(best, exact=best.peak.live == scheduler.bound)


@dataclass(frozen=True, slots=True)
class _Move:
    """A kernel that could run next: bytes while it runs, and after it."""

    kernel: int
    during: int
    then: int


class _Scheduler:
    """The search; a set of kernels is an int with a bit for each."""

    def __init__(self, engine: Program) -> None:
        self.program = engine
        kernels, self.sizes = engine.kernels, engine.buffers
        self.all = (1 << len(kernels)) - 1
        self.after = [sum(1 << k for k in kernel.after) for kernel in kernels]
        self.followers: list[list[int]] = [[] for _ in kernels]
        self.readers = [0] * len(self.sizes)
        for index, kernel in enumerate(kernels):
            for maker in kernel.after:
                self.followers[maker].append(index)
            for buffer in kernel.reads:
                self.readers[buffer] |= 1 << index
        for buffer in engine.outputs:  # read by the caller, who comes last
            self.readers[buffer] |= 1 << len(kernels)
        self.reads = [sum(self.sizes[b] for b in kernel.reads) for kernel in kernels]
        self.writes = [sum(self.sizes[b] for b in kernel.writes) for kernel in kernels]
        self.start = sum(self.sizes[b] for b in engine.inputs)
        self.first = tuple(k for k, need in enumerate(self.after) if not need)
        self.bound = self._bound()

    def _bound(self) -> int:
        """No order has a smaller peak: each kernel needs its inputs and outputs, and the one that
        runs last, whichever it is, its inputs and all that the network returns.
        """
        pairs = (read + write for read, write in zip(self.reads, self.writes, strict=True))
        outputs = self.program.outputs
        last = (
            sum(self.sizes[b] for b in kernel.reads - outputs)
            for kernel, following in zip(self.program.kernels, self.followers, strict=True)
            if not following
        )
        returned = sum(self.sizes[b] for b in outputs)
        return max((self.start, *pairs, returned + min(last, default=0)))

    def next_ready(self, ready: tuple[int, ...], kernel: int, done: int) -> tuple[int, ...]:
        """Kernels that can run once ``kernel`` has; ``done`` holds it already."""
        new = tuple(k for k in self.followers[kernel] if not self.after[k] & ~done)
        return (*(k for k in ready if k != kernel), *new)

    def freed(self, done: int, kernel: int) -> int:
        """Bytes that nobody needs once ``kernel`` has run after ``done``."""
        touched = (*self.program.kernels[kernel].reads, *self.program.kernels[kernel].writes)
        done |= 1 << kernel
        return sum(self.sizes[b] for b in touched if not self.readers[b] & ~done)

    def moves(self, ready: tuple[int, ...], done: int, live: int, peak: int) -> list[_Move]:
        """What can run next; one move alone if it cannot harm."""
        found = []
        for kernel in ready:
            during = live + self.writes[kernel]
            move = _Move(kernel, during, during - self.freed(done, kernel))
            if move.then <= live and during <= peak:
                return [move]
            found.append(move)
        return found

    def search(self, moves: int) -> list[int] | None:
        """An order of the smallest peak, or None if that takes more than ``moves`` moves."""
        came: dict[int, tuple[int, int]] = {}  # set -> the one before it, and the kernel between
        lowest: dict[int, int] = {}  # set -> smallest peak on the way to it, so far
        closed: set[int] = set()
        heap = [(self.bound, 0, 0, self.start, self.first)]  # peak, -run, set, live, ready
        while heap:
            peak, count, done, live, ready = heapq.heappop(heap)
            if done == self.all:
                return self._way(came)
            if done in closed:
                continue
            closed.add(done)
            moves -= len(ready)
            if moves < 0:
                return None
            for move in self.moves(ready, done, live, peak):
                following, higher = done | 1 << move.kernel, max(peak, move.during)
                if higher < lowest.get(following, higher + 1):
                    lowest[following], came[following] = higher, (done, move.kernel)
                    then = self.next_ready(ready, move.kernel, following)
                    heapq.heappush(heap, (higher, count - 1, following, move.then, then))
        raise AssertionError("the kernels of a graph have an order")

    def _way(self, came: dict[int, tuple[int, int]]) -> list[int]:
        order, state = [], self.all
        while state:
            state, kernel = came[state]
            order.append(kernel)
        return order[::-1]

    def greedy(self) -> list[int]:
        """At each step the kernel after which least is live; of equal ones the first."""
        order: list[int] = []
        done, live, ready = 0, self.start, self.first
        while ready:
            moves = self.moves(ready, done, live, self.bound)
            best = min(moves, key=lambda move: (move.then, move.during, move.kernel))
            order.append(best.kernel)
            done |= 1 << best.kernel
            live, ready = best.then, self.next_ready(ready, best.kernel, done)
        return order

    def moments(self, order: list[int]) -> tuple[MemoryStep, ...]:
        """What is live at each step of an order."""
        made, done, live = [], 0, self.start
        for index in order:
            read, written = self.reads[index], self.writes[index]
            made.append(MemoryStep(self.program.kernels[index].name, read, written, live - read))
            live += written - self.freed(done, index)
            done |= 1 << index
        return tuple(made)


# ---- plot: A picture of the memory along the layers, as SVG text without a script.

BOTTOM, LEFT, RIGHT, TOP = 270, 64, 16, 52  # the bars stand on BOTTOM
BAR, NARROWEST, NARROW_FROM = 14.0, 0.5, 120
LETTER = 6.5  # pixels, about
PARTS = ("read", "written", "kept for later")
INKS = [f"rgb{colour}" for colour in COLORS[:3]]
SRAM_BYTES = 16 * MIB
"""The chip of section 3.4."""


def memory_chart(title: str, memory: MemoryPlan) -> str:
    """Bars of what is live while each layer runs, in the order of the schedule.

    A dashed line marks the 16 MiB of section 3.4.
    """
    moments = memory.moments
    step = max(NARROWEST, BAR * min(1.0, NARROW_FROM / len(moments)))
    width = LEFT + RIGHT + max(step * len(moments), 360.0)
    top = max(memory.peak.live, SRAM_BYTES) / MIB
    scale = (BOTTOM - TOP) / top
    height = BOTTOM + 16 + LETTER * max(len(moment.name) for moment in moments)
    parts = [_frame(title, width, height), *_grid(top, scale, width)]
    for index, moment in enumerate(moments):
        parts += _bar(LEFT + index * step, 0.8 * step, moment, scale)
    parts += _names(moments, step)
    line = BOTTOM - SRAM_BYTES / MIB * scale
    parts.append(
        f'<path d="M{LEFT} {line:.1f}H{width - RIGHT:.1f}" stroke="currentColor" '
        f'stroke-dasharray="6 3"/>'
        f'<text x="{width - RIGHT:.1f}" y="{line - 4:.1f}" text-anchor="end">16 MiB</text>'
    )
    return "\n".join([*parts, "</svg>\n"])


def _frame(title: str, width: float, height: float) -> str:
    head = (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
        f' height="{height:.0f}" role="img"'
        f' aria-label="{escape(title, quote=True)}" xmlns="http://www.w3.org/2000/svg"'
        ' font-family="sans-serif" font-size="11" fill="currentColor">\n'
        f'<text x="{LEFT}" y="16" font-size="13">{escape(title)}</text>'
    )
    for index, (ink, part) in enumerate(zip(INKS, PARTS, strict=True)):
        x = LEFT + 90 * index
        head += (
            f'\n<rect x="{x}" y="26" width="10" height="10" fill="{ink}"/>'
            f'<text x="{x + 14}" y="35">{part}</text>'
        )
    middle = (TOP + BOTTOM) / 2
    return (
        f'{head}\n<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">'
        "live memory, MiB</text>"
    )


def _grid(top: float, scale: float, width: float) -> list[str]:
    power = 10.0 ** math.floor(math.log10(top / 4))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= top / 6)
    lines = []
    for k in range(int(top / step) + 1):
        y = BOTTOM - k * step * scale
        lines.append(
            f'<path d="M{LEFT} {y:.1f}H{width - RIGHT:.1f}" stroke="currentColor"'
            f' stroke-opacity="0.2"/><text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{k * step:g}</text>"
        )
    return lines


def _bar(x: float, width: float, moment: MemoryStep, scale: float) -> list[str]:
    rects, y = [], float(BOTTOM)
    title = f"{escape(moment.name)}: {moment.live / MIB:.2f} MiB"
    for ink, size in zip(INKS, (moment.reads, moment.writes, moment.kept), strict=True):
        height = size / MIB * scale
        y -= height
        rects.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
            f' fill="{ink}"><title>{title}</title></rect>'
        )
    return rects


def _names(moments: Sequence[MemoryStep], step: float) -> list[str]:
    every = max(1, math.ceil(11 / step))  # a name needs eleven pixels
    y = BOTTOM + 10
    return [
        f'<text transform="translate({LEFT + (k + 0.7) * step:.1f} {y}) rotate(-90)" '
        f'text-anchor="end">{escape(moments[k].name)}</text>'
        for k in range(0, len(moments), every)
    ]
