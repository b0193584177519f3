"""A float graph made ready for quantisation; what it computes stays the same."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from squeezedet.runtime.engines.engine import INPUT

PREFIX, SUFFIX = "detector.", ".weight"
"""Around the name of a layer in the name of its kernel, as the exporter writes it."""
IMAGE_SCALE, IMAGE_ZERO = "images.scale", "images.zero_point"


def prepare(graph: bytes) -> Any:
    """Read a graph and rewrite what would keep engines from running it in int8.

    - Kernels stored as float16 behind a Cast become float32.
    - ``Concat, Relu`` becomes ``Relu, Concat``: each convolution then has its Relu behind it, and
      both engines make one int8 operation of the two.
    - ``images, Transpose, Cast`` becomes ``images, DequantizeLinear (scale 1), Transpose``: pixels
      are 8-bit numbers already. OpenVINO runs the first convolution in int8 with this order only.
    - Layers are named as in the network ("backbone.fire2.squeeze1x1"), all other nodes by number.

    Args:
        graph: ONNX bytes.

    Returns:
        An ``onnx.ModelProto`` with the types of all tensors that could be inferred.
    """
    model = onnx.load_from_string(graph)
    _fold_casts(model.graph)
    _relu_first(model.graph)
    _image_as_quantised(model.graph)
    _name(model.graph)
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model)


def users(graph: Any) -> dict[str, list[Any]]:
    """Tensor -> the nodes that read it."""
    found = defaultdict(list)
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            found[name].append(node)
    return found


def constants(graph: Any) -> dict[str, Any]:
    """The initializers by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def set_nodes(graph: Any, nodes: list[Any]) -> None:
    """Replace all nodes of a graph."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _fold_casts(graph: Any) -> None:
    stored = constants(graph)
    nodes = []
    for node in graph.node:
        tensor = stored.get(node.input[0]) if node.op_type == "Cast" else None
        if tensor is None or tensor.data_type != TensorProto.FLOAT16:
            nodes.append(node)
            continue
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, node.output[0]))
    set_nodes(graph, nodes)


def _relu_first(graph: Any) -> None:
    readers = users(graph)
    outputs = {port.name for port in graph.output}
    nodes, moved = [], set()
    for node in graph.node:
        if node.op_type == "Relu" and node.output[0] in moved:
            continue
        behind = readers[node.output[0]] if node.op_type == "Concat" else []
        alone = len(behind) == 1 and behind[0].op_type == "Relu" and node.output[0] not in outputs
        if alone:
            for i, name in enumerate(node.input):
                nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"]))
                node.input[i] = f"{name}.relu"
            node.output[0] = behind[0].output[0]
            moved.add(node.output[0])
        nodes.append(node)
    set_nodes(graph, nodes)


def _image_as_quantised(graph: Any) -> None:
    readers = users(graph)
    for node in graph.node:
        cast = readers[node.output[0]][0] if readers[node.output[0]] else None
        if node.op_type != "Transpose" or list(node.input) != [INPUT] or cast is None:
            continue
        if len(readers[node.output[0]]) > 1 or cast.op_type != "Cast":
            continue
        transposed = cast.output[0]
        cast.CopyFrom(
            helper.make_node("DequantizeLinear", [INPUT, IMAGE_SCALE, IMAGE_ZERO], [node.output[0]])
        )
        node.input[0], node.output[0] = node.output[0], transposed
        graph.initializer.extend(
            [
                numpy_helper.from_array(np.array(1, np.float32), IMAGE_SCALE),
                numpy_helper.from_array(np.array(0, np.uint8), IMAGE_ZERO),
            ]
        )
        others = [n for n in graph.node if n not in (cast, node)]
        set_nodes(graph, [cast, node, *others])
        return


def _name(graph: Any) -> None:
    stored = constants(graph)
    taken: set[str] = set()
    for i, node in enumerate(graph.node):
        node.name = f"{node.op_type}.{i}"
        if node.op_type in ("Conv", "Gemm") and node.input[1] in stored:
            layer = node.input[1].removeprefix(PREFIX).removesuffix(SUFFIX)
            node.name = layer if layer not in taken else f"{layer}.{i}"
            taken.add(node.name)
