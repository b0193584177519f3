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
from squeezedet.pretrained.onnx_file import BYTES, FIXED32, FIXED64, VARINT, Field, WireReader

OPERATORS = frozenset(
    """
    Add ArgMax AveragePool BatchNormalization Cast Clip Concat Constant ConstantOfShape Conv CumSum
    DequantizeLinear Div Equal Exp Expand Flatten Floor Gather GatherElements GatherND Gemm
    GlobalAveragePool Greater GreaterOrEqual Identity LRN LeakyRelu Less LessOrEqual Log MatMul Max
    MaxPool Min Mod Mul Neg NonMaxSuppression NonZero Not And Or Pad Pow QuantizeLinear Range
    Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape ScatterElements
    ScatterND Shape Sigmoid Size Slice Softmax Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose
    Unsqueeze Where
    """.split()
)
"""Of the default domain; no operator with a graph inside, none with a state, none random."""
DOMAINS = ("", "ai.onnx")
MAX_NODES, MAX_TENSORS, MAX_NAMES = 20_000, 20_000, 200_000
MAX_AXES = 16
MAX_WINDOW = 4096
"""Of kernels, strides, dilations and pads."""
MIN_OF_WINDOW = {"kernel_shape": 1, "strides": 1, "dilations": 1, "pads": 0, "group": 1}

# Numbers of fields in onnx.proto.
MODEL_OPSETS, MODEL_GRAPH, MODEL_TRAINING, MODEL_FUNCTIONS = 8, 7, 20, 25
OPSET_DOMAIN = 1
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_SPARSE = 1, 5, 11, 15
NODE_INPUT, NODE_OUTPUT, NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 4, 5, 7
VALUE_NAME = 1
ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_INTS = 1, 3, 8
ATTRIBUTE_TENSORS = (5, 10)
ATTRIBUTE_REFUSED = {6: "a sub-graph", 11: "sub-graphs", 22: "a sparse tensor", 23: "sparse tensors"}
TENSOR_DIMS, TENSOR_TYPE, TENSOR_SEGMENT, TENSOR_NAME, TENSOR_RAW = 1, 2, 3, 8, 9
TENSOR_EXTERNAL, TENSOR_LOCATION = 13, 14
TENSOR_FIXED = {4: 4, 10: 8}
"""Fields of float and double numbers -> bytes of each."""
TENSOR_VARINTS = (5, 7, 11)
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
        self._nodes = self._tensors = 0

    def _refused(self, what: str) -> ModelError:
        return ModelError(
            f"{self._where}: the graph holds {what}, which no detector exported by squeezedet does"
        )

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
        graphs: list[Field] = []
        for field in self._reader.fields():
            if field.number == MODEL_GRAPH:
                graphs.append(self._message(field))
            elif field.number == MODEL_FUNCTIONS:
                raise self._refused("functions of its own")
            elif field.number == MODEL_TRAINING:
                raise self._refused("a training")
            elif field.number == MODEL_OPSETS:
                self._domain(*self._names(self._message(field), OPSET_DOMAIN))
        if len(graphs) != 1:
            raise ModelError(f"{self._where}: holds {len(graphs)} graphs instead of one")
        self._graph(graphs[0])

    def _domain(self, *names: str) -> None:
        for name in names:
            if name not in DOMAINS:
                raise self._refused(f"operators of the domain {name[:80]!r}")

    def _names(self, message: Field, number: int) -> list[str]:
        return [self._text(field) for field in self._fields(message) if field.number == number]

    def _graph(self, graph: Field) -> None:
        nodes = []
        for field in self._fields(graph):
            if field.number == GRAPH_NODE:
                nodes.append(self._message(field))
            elif field.number == GRAPH_INITIALIZER:
                self._learn(self._tensor(self._message(field)))
            elif field.number == GRAPH_INPUT:
                self._learn(*self._names(self._message(field), VALUE_NAME))
            elif field.number == GRAPH_SPARSE:
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
        operators = 0
        for field in self._fields(node):
            if field.number == NODE_OPERATOR:
                operators += 1
                if (operator := self._text(field)) not in OPERATORS:
                    raise self._refused(f"the operator {operator[:80]!r}")
            elif field.number == NODE_DOMAIN:
                self._domain(self._text(field))
            elif field.number == NODE_INPUT:
                if (name := self._text(field)) not in self._known:
                    raise self._refused(f"a cycle, or the unknown value {name[:80]!r}")
            elif field.number == NODE_OUTPUT:
                made.append(self._text(field))
            elif field.number == NODE_ATTRIBUTE:
                self._attribute(self._message(field))
        if operators != 1:
            raise self._refused(f"a node of {operators} operators")
        if any(name in self._known for name in made if name):
            raise self._refused("a value that two operators make")
        self._learn(*made)

    def _attribute(self, attribute: Field) -> None:
        name, numbers = "", []
        for field in self._fields(attribute):
            if field.number in ATTRIBUTE_REFUSED:
                raise self._refused(ATTRIBUTE_REFUSED[field.number])
            if field.number == ATTRIBUTE_NAME:
                name = self._text(field)
            elif field.number in ATTRIBUTE_TENSORS:
                self._tensor(self._message(field))
            elif field.number in (ATTRIBUTE_INT, ATTRIBUTE_INTS):
                numbers += list(self._reader.numbers(field))
        least = MIN_OF_WINDOW.get(name)
        if least is not None and not all(least <= number <= MAX_WINDOW for number in numbers):
            raise self._refused(f"the attribute {name} of {str(numbers)[:80]}")

    def _tensor(self, tensor: Field) -> str:
        """Check a tensor; returns its name."""
        self._tensors += 1
        if self._tensors > MAX_TENSORS:
            raise self._refused(f"more than {MAX_TENSORS:,} tensors")
        name, kind, shape, held = "", 0, [], []
        for field in self._fields(tensor):
            if field.number == TENSOR_EXTERNAL or (
                field.number == TENSOR_LOCATION and (field.wire != VARINT or field.value)
            ):
                raise self._refused("weights that lie in another file")
            if field.number == TENSOR_SEGMENT:
                raise self._refused("a part of a tensor")
            if field.number == TENSOR_NAME:
                name = self._text(field)
            elif field.number == TENSOR_TYPE:
                kind = field.value
            elif field.number == TENSOR_DIMS:
                shape += list(self._reader.numbers(field))
            elif (count := self._count(field, kind)) is not None:
                held.append((field.number, count))
        size = ITEM_BYTES.get(kind)
        if size is None or len(shape) > MAX_AXES:
            raise self._refused(f"the tensor {name[:80]!r} of type {kind} and {len(shape)} axes")
        held = [(number, count // size if number == TENSOR_RAW else count) for number, count in held]
        if len({number for number, _ in held}) > 1 or sum(n for _, n in held) != math.prod(shape):
            raise self._refused(f"the tensor {name[:80]!r} whose numbers do not fit its shape")
        return name

    def _count(self, field: Field, kind: int) -> int | None:
        """How many numbers (of raw data: bytes) a field of a tensor holds; None for others."""
        size = field.stop - field.start
        if field.number == TENSOR_RAW:
            return size
        if field.number in TENSOR_FIXED:
            if field.wire in (FIXED32, FIXED64):
                return 1
            return size // TENSOR_FIXED[field.number]
        if field.number in TENSOR_VARINTS:
            return sum(1 for _ in self._reader.numbers(field))
        return None
