"""Read the graph of an ONNX file, for the same counting as that of a torch module.

Shapes come from ONNX's own inference at a given image size; nothing is computed. Parameters
are the constants of convolutions, products, normalisations and PReLU, and the bias that is
added to a product. What an exporter folded (batch norm into a convolution) is gone here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from squeezedet.cost.graph import WEIGHTED, Graph, Kind, Step, Stored, UniqueNames, Value
from squeezedet.errors import MissingExtraError, ModelError, UsageError

WEIGHT_AT = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "QLinearConv": 3}
VIEWS = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"}
SHAPES = {"Shape", "Size"}  # their answers are known before the network runs
ELEMENTWISE = {
    *("Abs", "Add", "And", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Equal", "Erf"),
    *("Exp", "Floor", "Gelu", "Greater", "HardSigmoid", "HardSwish", "Less", "Log", "Max", "Min"),
    *("Mish", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Round", "Selu", "Sigmoid", "Sin"),
    *("Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "Where"),
}
POOLS = {"MaxPool", "AveragePool", "LpPool"}
GLOBAL_POOLS = {"GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"}
NORMS = {"BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"}
RELUS = {"Relu", "LeakyRelu", "PRelu"}
KINDS: dict[Kind, set[str]] = {
    "conv": set(WEIGHT_AT),
    "matmul": {"Gemm", "MatMul"},
    "pool": POOLS | GLOBAL_POOLS,
    "norm": NORMS,
    "relu": RELUS,
    "concat": {"Concat"},
    "pointwise": ELEMENTWISE,
}
KIND_OF = {operator: kind for kind, operators in KINDS.items() for operator in operators}
OWN = (*WEIGHTED, "norm", "relu")
"""The kinds whose constants are parameters."""
CHANNELS = (1, 3, 4)
STATISTICS_AT = 3
"""From this input on a BatchNormalization reads statistics, which are not learned."""


def read(content: bytes, name: str, size: tuple[int, int] | None = None) -> Graph:
    """The graph of an ONNX file.

    Args:
        content: of the file.
        name: of the file, for messages.
        size: (width, height) of the image input; by default what the file says.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelError: it is no ONNX file, or its shapes do not fit together at this size.
        UsageError: it takes any size, and none is given.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("counting the operations of an ONNX file", "int8") from error
    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # protobuf's errors share no base
        raise ModelError(f"{name}: not an ONNX file, or a damaged one") from error
    if not model.graph.node:
        raise ModelError(f"{name}: not an ONNX file, or one without a graph")
    constants = [a.t for node in model.graph.node for a in node.attribute if a.HasField("t")]
    for tensor in (*model.graph.initializer, *constants):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ModelError(f"{name}: its numbers are in another file; save it with all of them inside")
    _set_input(model.graph, name, size)
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:
        said = " ".join(str(error).split())
        raise ModelError(f"{name}: its shapes do not fit together: {said[:300]}") from error
    try:
        return _Reader(inferred.graph).graph()
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ModelError(f"{name}: a damaged graph: {error or type(error).__name__}") from error


def _set_input(graph: Any, name: str, size: tuple[int, int] | None) -> None:
    """Give the image input its size and every input a batch of one."""
    kept = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in kept]
    if not inputs:
        raise ModelError(f"{name}: the graph has no input")
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        if len(dims):
            dims[0].dim_value = 1
        if len(dims) == 4 and value is inputs[0]:
            last = dims[3].dim_value in CHANNELS and dims[1].dim_value not in CHANNELS
            rows, columns = (1, 2) if last else (2, 3)
            if size:
                dims[columns].dim_value, dims[rows].dim_value = size
        if any(dim.dim_value < 1 for dim in dims):
            raise UsageError(f"{name}: its input {value.name!r} takes any size; say which with `size`")


@dataclass(frozen=True, slots=True)
class _Constant:
    """What is known before the network runs: the stored tensors that it is made of."""

    roots: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reader:
    source: Any
    values: list[Value] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    stored: dict[str, Stored] = field(default_factory=dict)
    places: dict[str, int | _Constant] = field(default_factory=dict)
    shapes: dict[str, tuple[tuple[int, ...], int]] = field(default_factory=dict)
    unsized: list[str] = field(default_factory=list)
    unique: UniqueNames = field(default_factory=UniqueNames)

    def graph(self) -> Graph:
        source = self.source
        for value in (*source.input, *source.value_info, *source.output):
            self.shapes[value.name] = _declared(value)
        for tensor in source.initializer:
            self.shapes[tensor.name] = (tuple(tensor.dims), _item_bytes(tensor.data_type))
            self.places[tensor.name] = _Constant((tensor.name,))
        self.places[""] = _Constant()  # an optional input that is left out
        inputs = tuple(self.new(value.name) for value in source.input if value.name not in self.places)
        for node in source.node:
            self.node(node)
        found = (self.places[value.name] for value in source.output)
        outputs = tuple(dict.fromkeys(place for place in found if isinstance(place, int)))
        return Graph(tuple(self.values), tuple(self.steps), inputs, outputs, self.stored, tuple(self.unsized))

    def new(self, name: str) -> int:
        """A new activation; one whose size depends on the data counts as nothing."""
        shape, item = self.shapes.get(name, ((-1,), 0))
        if any(side < 0 for side in shape):
            self.unsized.append(name)
            shape = (1, 0)
        self.values.append(Value(shape, math.prod(shape) * item))
        self.places[name] = len(self.values) - 1
        return len(self.values) - 1

    def node(self, node: Any) -> None:
        places = [self.places[name] for name in node.input]
        reads = tuple(dict.fromkeys(p for p in places if isinstance(p, int)))
        outputs = [name for name in node.output if name]
        if not reads or node.op_type in SHAPES:
            roots = [r for p in places if isinstance(p, _Constant) for r in p.roots]
            for name in outputs:
                held = tuple(dict.fromkeys(roots)) or (name,)
                self.places[name] = _Constant(() if node.op_type in SHAPES else held)
        elif node.op_type in VIEWS:
            self.places[outputs[0]] = reads[0]
        else:
            writes = tuple(self.new(name) for name in outputs)
            self.steps.append(self.step(node, places, reads, writes))

    def step(
        self, node: Any, places: Sequence[int | _Constant], reads: tuple[int, ...], writes: tuple[int, ...]
    ) -> Step:
        kind = self.kind(node, places)
        macs = weight = units = 0
        window: tuple[int, ...] = ()
        shape = self.values[writes[0]].shape
        name = node.name or node.output[0]
        if kind == "conv":
            kernel = self.shape(node.input[WEIGHT_AT[node.op_type]])
            transposed = node.op_type == "ConvTranspose"
            self.check_channels(node, kernel[0] if transposed else kernel[1])
            spatial = self.shape(node.input[0])[2:] if transposed else shape[2:]
            macs = shape[0] * math.prod(kernel) * math.prod(spatial)
            weight, window = math.prod(kernel), kernel[2:]
            units = kernel[1] * _attribute(node, "group", 1) if transposed else kernel[0]
        elif node.op_type in KINDS["matmul"]:
            inner = self.inner(node)
            macs = math.prod(shape) * inner
            if kind == "linear":
                constant = next(i for i, p in enumerate(places) if isinstance(p, _Constant))
                weight = math.prod(self.shape(node.input[constant]))
                units = weight // inner
        elif node.op_type in POOLS:
            window = tuple(_attribute(node, "kernel_shape", ()))
        parameters = self.parameters(node, kind, places, reads)
        if kind in WEIGHTED and parameters:
            name = _layer(parameters[0])
        strides = tuple(_attribute(node, "strides", (1,) * len(window)))
        return Step(
            name=self.unique(name),
            kind=kind,
            reads=reads,
            writes=writes,
            parameters=parameters,
            macs=macs,
            weight=weight,
            units=units,
            window=window,
            stride=strides if window else (),
        )

    def check_channels(self, node: Any, expected: int) -> None:
        """ONNX's inference does not look at the channels of a convolution."""
        groups = 1 if node.op_type == "ConvTranspose" else _attribute(node, "group", 1)
        found = self.shape(node.input[0])[1]
        if found != expected * groups:
            raise ValueError(f"{node.output[0]!r} has weights for {expected * groups} channels and gets {found}")

    def kind(self, node: Any, places: Sequence[int | _Constant]) -> Kind:
        kind = KIND_OF.get(node.op_type, "other")
        if kind == "matmul" and any(isinstance(place, _Constant) for place in places[:2]):
            return "linear"
        if node.op_type == "Clip" and self.numbers(node, 1, "min") == [0]:
            return "relu"  # ReLU6
        if node.op_type == "ReduceMean" and self.over_pixels(node):
            return "pool"
        return kind

    def parameters(
        self, node: Any, kind: Kind, places: Sequence[int | _Constant], reads: tuple[int, ...]
    ) -> tuple[str, ...]:
        """Names of the stored tensors that the step owns; they are noted as parameters."""
        held = [(i, p) for i, p in enumerate(places) if isinstance(p, _Constant)]
        owns = kind in OWN and node.op_type != "Clip"  # whose constants are its limits
        if not owns and not self.is_bias(node, held, reads):
            return ()
        roots: dict[str, None] = {}
        for position, place in held:
            learned = node.op_type != "BatchNormalization" or position < STATISTICS_AT
            for root in place.roots:
                roots[root] = None
                elements = math.prod(self.shape(root))
                self.stored.setdefault(root, Stored(elements, learned))
        return tuple(roots)

    def is_bias(self, node: Any, held: Sequence[tuple[int, _Constant]], reads: tuple[int, ...]) -> bool:
        """Whether a sum adds one constant for each unit of a product."""
        if node.op_type != "Add" or len(held) != 1:
            return False
        maker = next((s for s in self.steps if s.kind == "linear" and reads[0] in s.writes), None)
        return maker is not None and (math.prod(self.shape(node.input[held[0][0]])) == maker.units)

    def shape(self, name: str) -> tuple[int, ...]:
        shape, _ = self.shapes[name]
        if any(side < 0 for side in shape):
            raise ValueError(f"the shape of {name!r} depends on the data")
        return shape

    def inner(self, node: Any) -> int:
        """The length of the sums of a product."""
        shape = self.shape(node.input[0])
        rows_last = node.op_type == "Gemm" and _attribute(node, "transA", 0)
        return shape[-2] if rows_last else shape[-1]

    def numbers(self, node: Any, position: int, attribute: str) -> list[float]:
        """A few numbers that older files hold as an attribute and newer ones as a constant."""
        from onnx import numpy_helper

        found = list(np.atleast_1d(_attribute(node, attribute, ())))
        if len(node.input) > position:
            name = node.input[position]
            tensors = [t for t in self.source.initializer if t.name == name]
            tensors += [
                n.attribute[0].t
                for n in self.source.node
                if n.op_type == "Constant" and n.output[0] == name and n.attribute[0].HasField("t")
            ]
            found += [x for t in tensors if math.prod(t.dims) <= 8 for x in numpy_helper.to_array(t).ravel()]
        return [float(x) for x in found]

    def over_pixels(self, node: Any) -> bool:
        """Whether a mean is taken over all dimensions behind batch and channels."""
        rank = len(self.shape(node.input[0]))
        axes = self.numbers(node, 1, "axes")
        return rank > 2 and {int(axis) % rank for axis in axes} == set(range(2, rank))


def _declared(value: Any) -> tuple[tuple[int, ...], int]:
    """Shape, -1 for what is unknown, and bytes of an element."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return (-1,), _item_bytes(tensor.elem_type)
    sides = (d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return tuple(sides), _item_bytes(tensor.elem_type)


def _item_bytes(data_type: int) -> int:
    from onnx import helper

    try:
        return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize)
    except (KeyError, TypeError):  # not a tensor
        return 0


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def _layer(parameter: str) -> str:
    """The name of a layer from that of its weight."""
    for end in (".half", ".weight", "_w_0", ".w_0"):
        parameter = parameter.removesuffix(end)
    return parameter
