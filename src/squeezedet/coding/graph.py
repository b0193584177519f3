"""A graph whose weights are coded.

The template is the bytes of the ONNX file with the numbers of the coded tensors cut out. Reading
is decoding these and joining the pieces; no library of the format is needed.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np

from squeezedet.coding import legacy, tensor
from squeezedet.errors import ModelError

MAX_GRAPH_BYTES = 200_000_000
MAX_TENSORS = 10_000
MAX_NUMBER = 1 << 32
DTYPES: dict[str, type[np.floating[Any]]] = {"f4": np.float32, "f2": np.float16}


@dataclass(frozen=True, slots=True)
class CodedTensor:
    """One coded tensor.

    Attributes:
        name: of the initializer in the graph.
        dtype: "f4" or "f2", what its numbers are in the graph.
        size: numbers in it.
        size_bytes: coded.
        at: how many bytes of the template come before its numbers.

    Raises:
        ValueError: a field is of another type, or beyond the limits.
    """

    name: str
    dtype: str
    size: int
    size_bytes: int
    at: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.dtype not in DTYPES:
            raise ValueError("a tensor without name or of another type")
        for value in (self.size, self.size_bytes, self.at):
            if type(value) is not int or not 0 <= value <= MAX_NUMBER:  # True is an int elsewhere
                raise ValueError(f"a number that is none from 0 to {MAX_NUMBER}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CodedGraph:
    """A graph with coded weights.

    Attributes:
        template: the graph's bytes without the numbers of the coded tensors.
        tensors: these, in the order of the template.
        coded: their bytes, one behind the other.
    """

    template: bytes
    tensors: tuple[CodedTensor, ...]
    coded: bytes

    def index(self) -> bytes:
        """``tensors`` as JSON, which ``read_index`` reads."""
        return json.dumps([astuple(entry) for entry in self.tensors], separators=(",", ":")).encode()

    def parts(self) -> Iterator[tuple[CodedTensor, bytes]]:
        """Each tensor with its coded bytes."""
        at = 0
        for entry in self.tensors:
            yield entry, self.coded[at : at + entry.size_bytes]
            at += entry.size_bytes


def read_index(text: bytes) -> list[Any]:
    """The rows of ``CodedGraph.index``; ``coded_graph`` checks them.

    Raises:
        ValueError: it is no list in JSON.
    """
    rows = json.loads(text)
    if not isinstance(rows, list):
        raise ValueError("no list")
    return rows


def coded_graph(template: bytes, rows: Sequence[Any], coded: bytes, where: str) -> CodedGraph:
    """The parts of a file, if they fit one another and the limits.

    Args:
        template: see ``CodedGraph``.
        rows: what each tensor is, as the file says it.
        coded: see ``CodedGraph``.
        where: its path, for the error.

    Raises:
        ModelError: they do not.
    """
    try:
        if len(rows) > MAX_TENSORS:
            raise ValueError(f"more than {MAX_TENSORS} tensors")
        entries = tuple(CodedTensor(*row) for row in rows)
        if len({entry.name for entry in entries}) != len(entries):
            raise ValueError("two tensors of one name")
        places = [0, *(entry.at for entry in entries), len(template)]
        if sorted(places) != places:
            raise ValueError("tensors out of order or outside the template")
        if (total := sum(entry.size_bytes for entry in entries)) != len(coded):
            raise ValueError(f"{len(coded)} bytes of coded tensors where {total} are declared")
        size = len(template) + sum(np.dtype(DTYPES[e.dtype]).itemsize * e.size for e in entries)
        if size > MAX_GRAPH_BYTES:
            raise ValueError(f"a graph of {size} bytes, more than {MAX_GRAPH_BYTES}")
    except (TypeError, ValueError) as error:
        raise ModelError(f"{where}: the coded weights are damaged: {error}") from error
    return CodedGraph(template=template, tensors=entries, coded=coded)


def decode_graph(graph: CodedGraph, where: str) -> bytes:
    """The ONNX bytes, as they were coded; a ModelError where the coded tensors are damaged."""
    pieces, end = [], 0
    try:
        for entry, content in graph.parts():
            dtype = DTYPES[entry.dtype]
            if legacy.is_old(content):
                numbers = tensor.as_dtype(legacy.decode_tensor(content, entry.size), dtype)
            else:
                numbers = tensor.decode_tensor(content, (entry.size,), dtype)
            pieces += [graph.template[end : entry.at], numbers.tobytes()]
            end = entry.at
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error
    return b"".join([*pieces, graph.template[end:]])


def encode_graph(graph: bytes, coded: Mapping[str, bytes]) -> CodedGraph:
    """Cut the numbers of coded tensors out of a graph.

    Args:
        graph: ONNX bytes, or any that hold numbers little endian.
        coded: name of an initializer -> the bytes that ``tensor.encode_tensor`` made of it. Its
            numbers are looked for in the graph, as float32 or float16.

    Raises:
        ModelError: the graph does not hold the numbers of a tensor.
    """
    sizes = {name: tensor.describe(content).size for name, content in coded.items()}
    cuts: list[_Cut] = []
    for name in sorted(coded, key=lambda name: (-sizes[name], name)):
        bisect.insort(cuts, _find(graph, name, coded[name], sizes[name], cuts))
    pieces, entries = [], []
    end = length = 0
    for cut in cuts:
        pieces.append(graph[end : cut.start])
        length += cut.start - end
        end = cut.stop
        size_bytes = len(coded[cut.name])
        entries.append(CodedTensor(cut.name, cut.dtype, sizes[cut.name], size_bytes, length))
    content = b"".join(coded[entry.name] for entry in entries)
    template = b"".join([*pieces, graph[end:]])
    made = CodedGraph(template=template, tensors=tuple(entries), coded=content)
    if decode_graph(made, "the coded graph") != graph:
        raise ModelError("the coded graph does not give back what was coded")
    return made


class _Cut(NamedTuple):
    start: int
    stop: int
    name: str
    dtype: str


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
                return _Cut(start, stop, name, dtype)
            start = graph.find(content, taken.stop)
    raise ModelError(f"the graph does not hold the numbers of the tensor {name!r}: encode it as it is exported")
