"""How much memory the activations of a network need at one time.

An activation is live from the kernel that writes it to the last one that reads it; while a
kernel runs its inputs and outputs are live together. What an engine fuses, overwrites or
concatenates without work is in ``kernels``. In which order the branches run changes the
peak: ``plan`` looks for the order with the smallest one.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace

from squeezedet.cost.graph import Graph
from squeezedet.cost.kernels import Program, program
from squeezedet.errors import ModelError

MOVES = 100_000
"""How many moves the exact search may weigh; beyond it an order is taken that may be worse."""
LARGE = 1_000
"""A graph of more kernels (a loop over regions) is searched no further than its own order."""


@dataclass(frozen=True, slots=True)
class Moment:
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
class Memory:
    """A schedule, and the memory that it needs.

    Attributes:
        moments: one for each kernel, in the order of the schedule.
        exact: whether no order has a smaller peak; otherwise none was found.
    """

    moments: tuple[Moment, ...]
    exact: bool

    @property
    def peak(self) -> Moment:
        """When most memory is in use."""
        return max(self.moments, key=lambda moment: moment.live)

    @property
    def largest_pair(self) -> Moment:
        """The layer whose input and output together are largest.

        Section 3.4: when this and the parameters fit in the chip's SRAM together, a network
        runs without a single access to DRAM.
        """
        return max(self.moments, key=lambda moment: moment.pair)


def plan(graph: Graph, moves: int = MOVES) -> Memory:
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
            return Memory(scheduler.moments(order), exact=True)
        orders.append(scheduler.greedy())
    memories = [Memory(scheduler.moments(order), exact=False) for order in orders]
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

    def moments(self, order: list[int]) -> tuple[Moment, ...]:
        """What is live at each step of an order."""
        made, done, live = [], 0, self.start
        for index in order:
            read, written = self.reads[index], self.writes[index]
            made.append(Moment(self.program.kernels[index].name, read, written, live - read))
            live += written - self.freed(done, index)
            done |= 1 << index
        return tuple(made)
