"""Whether an ONNX graph of a stranger may come near an engine.

Engines trust their graphs: they open the files that a graph names as the home of its weights, run
loops that need not end, and crash on attributes that no exporter writes. So every graph is read
from the wire before, and only what this package's own exports hold is let through: operators
that compute one array from others, each once, on numbers that are inside the file.

What this cannot bound is the memory that a graph of such operators asks for; the engine then
fails, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from squeezedet.errors import ModelError
from squeezedet.pretrained.onnx_file import BYTES, FIXED32, FIXED64, Field, WireReader

OPERATORS = frozenset(
    """
    Add And ArgMax AveragePool BatchNormalization Cast Clip Concat Constant ConstantOfShape
    Conv CumSum DequantizeLinear Div Equal Exp Expand Flatten Floor Gather GatherElements
    GatherND Gemm GlobalAveragePool Greater GreaterOrEqual Identity LRN LeakyRelu Less
    LessOrEqual Log MatMul Max MaxPool MaxRoiPool Min Mod Mul Neg NonMaxSuppression NonZero Not Or
    Pad
    Pow QuantizeLinear Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    Relu Reshape Resize ScatterElements ScatterND Shape Sigmoid Size Slice Softmax Split Sqrt
    Squeeze Sub Sum Tanh Tile TopK Transpose Unsqueeze Where
    """.split()  # noqa: SIM905 - a list of words is read as one
)
"""Of the default domain; no operator with a graph inside, none with a state, none random."""
DOMAINS = ("", "ai.onnx")
MAX_NODES, MAX_TENSORS, MAX_NAMES = 20_000, 20_000, 200_000
MAX_AXES = 16
MAX_ATTRIBUTE = 10_000
"""Whole numbers of an attribute."""
MAX_WINDOW = 4096
"""Of kernels, strides, dilations and pads."""
MIN_OF_WINDOW = {"kernel_shape": 1, "strides": 1, "dilations": 1, "pads": 0, "group": 1}

# The numbers below are those of the fields in onnx.proto.
TENSOR_RAW = 9
TENSOR_FIXED = {4: 4, 10: 8}
"""Fields of float and double numbers -> bytes of each."""
TENSOR_NUMBERS = (4, 5, 7, 9, 10, 11)
ELSEWHERE = "weights that lie in another file"
TENSOR_REFUSED = {3: "a part of a tensor", 13: ELSEWHERE, 14: ELSEWHERE}
"""Location (14) may be 0: here."""
ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""TensorProto.DataType -> bytes of a number."""


def check_graph(graph: bytes, where: str) -> None:
    """Let only a plain, self-contained graph through.

    Args:
        graph: ONNX bytes.
        where: its path, for the errors.

    Raises:
        ModelError: it is damaged, names other files, holds sub-graphs, functions or operators
            that no export of this package has, or numbers that do not fit their shapes.
    """
    _Check(graph, where).model()


class _Check:
    def __init__(self, graph: bytes, where: str) -> None:
        self._reader = WireReader(graph, Path(where), "an ONNX graph")
        self._where = where
        self._known: set[str] = {""}  # an input that is left out has no name
        self._tensors = 0

    def _refused(self, what: str) -> ModelError:
        return ModelError(f"{self._where}: the graph holds {what}, which no detector exported by squeezedet does")

    def _fields(self, message: Field) -> Iterator[Field]:
        return self._reader.fields(message.start, message.stop)

    def _text(self, field: Field) -> str:
        if field.wire != BYTES:
            raise self._reader.error(field.start, "a name that is no text")
        return self._reader.name(field)

    def _message(self, field: Field) -> Field:
        if field.wire != BYTES:
            raise self._reader.error(field.start, "a number where a message belongs")
        return field

    def model(self) -> None:
        """The fields of ModelProto."""
        graphs: list[Field] = []
        for field in self._reader.fields():
            match field.number:
                case 7:
                    graphs.append(self._message(field))
                case 8:
                    self._domain(*self._names(self._message(field)))
                case 20:
                    raise self._refused("a training")
                case 25:
                    raise self._refused("functions of its own")
        if len(graphs) != 1:
            raise ModelError(f"{self._where}: holds {len(graphs)} graphs instead of one")
        self._graph(graphs[0])

    def _domain(self, *names: str) -> None:
        for name in names:
            if name not in DOMAINS:
                raise self._refused(f"operators of the domain {name[:80]!r}")

    def _names(self, message: Field) -> list[str]:
        """Field 1 of a message: the domain of an operator set, the name of an input."""
        return [self._text(field) for field in self._fields(message) if field.number == 1]

    def _graph(self, graph: Field) -> None:
        """The fields of GraphProto; the operators only when all that they may use is known."""
        nodes = []
        for field in self._fields(graph):
            match field.number:
                case 1:
                    nodes.append(self._message(field))
                case 5:
                    self._learn(self._tensor(self._message(field)))
                case 11:
                    self._learn(*self._names(self._message(field)))
                case 15:
                    raise self._refused("sparse tensors")
        if len(nodes) > MAX_NODES:
            raise self._refused(f"more than {MAX_NODES:,} operators")
        for node in nodes:
            self._node(node)

    def _learn(self, *names: str) -> None:
        """Note which values there are from here on."""
        self._known.update(names)
        if len(self._known) > MAX_NAMES:
            raise self._refused(f"more than {MAX_NAMES:,} values")

    def _node(self, node: Field) -> None:
        made: list[str] = []
        operators: list[str] = []
        for field in self._fields(node):
            match field.number:
                case 1:
                    if (name := self._text(field)) not in self._known:
                        raise self._refused(f"a cycle, or the unknown value {name[:80]!r}")
                case 2:
                    made.append(self._text(field))
                case 4:
                    operators.append(self._text(field))
                case 5:
                    self._attribute(self._message(field))
                case 7:
                    self._domain(self._text(field))
        if len(operators) != 1 or operators[0] not in OPERATORS:
            raise self._refused(f"the operator {' '.join(operators)[:80]!r}")
        if any(name in self._known for name in made if name):
            raise self._refused("a value that two operators make")
        self._learn(*made)

    def _attribute(self, attribute: Field) -> None:
        name = ""
        numbers: list[int] = []
        for field in self._fields(attribute):
            match field.number:
                case 6 | 11:
                    raise self._refused("a sub-graph")
                case 22 | 23:
                    raise self._refused("a sparse tensor")
                case 1:
                    name = self._text(field)
                case 5 | 10:
                    self._tensor(self._message(field))
                case 3 | 8:
                    self._add(numbers, field, MAX_ATTRIBUTE)
        least = MIN_OF_WINDOW.get(name)
        if least is not None and not all(least <= number <= MAX_WINDOW for number in numbers):
            raise self._refused(f"the attribute {name} of {str(numbers)[:80]}")

    def _add(self, numbers: list[int], field: Field, most: int) -> None:
        """Append the whole numbers of a field; no more than ``most`` are looked at."""
        for number in self._reader.numbers(field):
            if len(numbers) == most:
                raise self._refused(f"an attribute or a shape of more than {most:,} numbers")
            numbers.append(number)

    def _tensor(self, tensor: Field) -> str:
        """Check a tensor; returns its name."""
        self._tensors += 1
        if self._tensors > MAX_TENSORS:
            raise self._refused(f"more than {MAX_TENSORS:,} tensors")
        name, kind = "", 0
        shape: list[int] = []
        held: dict[int, int] = {}
        for field in self._fields(tensor):
            if field.number in TENSOR_REFUSED and (field.number != 14 or field.value != 0):
                raise self._refused(TENSOR_REFUSED[field.number])
            match field.number:
                case 1:
                    self._add(shape, field, MAX_AXES)
                case 2:
                    kind = field.value
                case 8:
                    name = self._text(field)
                case number if number in TENSOR_NUMBERS:
                    held[number] = held.get(number, 0) + self._count(field)
        size = ITEM_BYTES.get(kind)
        if size is None:
            raise self._refused(f"the tensor {name[:80]!r} of type {kind}")
        wanted = math.prod(shape)
        right = ({TENSOR_RAW: wanted * size}, *({n: wanted} for n in TENSOR_NUMBERS if n != TENSOR_RAW))
        if held not in right and not (held == {} and wanted == 0):
            raise self._refused(f"the tensor {name[:80]!r} whose numbers do not fit its shape")
        return name

    def _count(self, field: Field) -> int:
        """How many numbers (of raw data: bytes) a field of a tensor holds."""
        size = field.stop - field.start
        if field.number == TENSOR_RAW:
            return size if field.wire == BYTES else -1
        if field.number in TENSOR_FIXED:
            if field.wire in (FIXED32, FIXED64):
                return 1
            return size // TENSOR_FIXED[field.number]
        return sum(1 for _ in self._reader.numbers(field))
