"""A small detector as a graph, and pictures to calibrate it on; no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from squeezedet.preprocess import InputRule
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.card import Card


class Graph:
    """Collects nodes and numbers."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def constant(self, name: str, values: Any) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, kind: str, *inputs: str, to: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), to.split(), **attributes))
        return to

    def cast(self, read: str, to: str) -> str:
        self.nodes.append(helper.make_node("Cast", [read], [to], to=TensorProto.FLOAT))
        return to

    def conv(self, layer: str, read: str, shape: tuple[int, ...], **attributes: Any) -> str:
        """A convolution whose kernel is stored as float16, as the exporter does it."""
        kernel = self.random.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        half = self.constant(f"detector.{layer}.weight.half", kernel.astype(np.float16))
        weight = self.cast(half, f"detector.{layer}.weight")
        bias = self.constant(f"detector.{layer}.bias", self.random.normal(0, 0.1, shape[0]).astype(np.float32))
        same = [shape[2] // 2] * 4
        return self.add("Conv", read, weight, bias, to=f"{layer}.out", pads=same, **attributes)


def small_graph() -> bytes:
    """Two strided convolutions, a fire module, a head of six channels, and its decoding."""
    g = Graph()
    image = g.add("Transpose", "images", to="chw", perm=[0, 3, 1, 2])
    image = g.cast(image, "pixels")
    x = g.add("Relu", g.conv("conv1", image, (8, 3, 3, 3), strides=[4, 4]), to="relu1")
    x = g.add("MaxPool", x, to="pool", kernel_shape=[2, 2], strides=[2, 2])
    squeeze = g.add("Relu", g.conv("fire.squeeze", x, (4, 8, 1, 1)), to="relu2")
    one = g.conv("fire.expand1", squeeze, (8, 4, 1, 1))
    three = g.conv("fire.expand3", squeeze, (8, 4, 3, 3))
    x = g.add("Relu", g.add("Concat", one, three, to="joined", axis=1), to="relu3")
    x = g.add("MaxPool", x, to="pool2", kernel_shape=[2, 2], strides=[2, 2])
    raw = g.conv("head", x, (6, 16, 3, 3))
    x = g.add("Transpose", raw, to="hwc", perm=[0, 2, 3, 1])
    x = g.add("Reshape", x, g.constant("flat", np.array([1, -1, 6])), to="anchors")
    g.add("Split", x, g.constant("parts", np.array([4, 2])), to="boxes logits", axis=2)
    probability = g.add("Softmax", "logits", to="probability", axis=-1)
    axis = g.constant("last", np.array([-1]))
    g.add("ReduceMax", probability, axis, to="scores", keepdims=0)
    g.add("ArgMax", probability, to="class_ids", axis=-1, keepdims=0)
    graph = helper.make_graph(
        g.nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [1, "h", "w", 3])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, "a", 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, "a"]),
            helper.make_tensor_value_info("class_ids", TensorProto.INT64, [1, "a"]),
        ],
        g.tensors,
    )
    opset = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, ir_version=10, opset_imports=opset).SerializeToString())


@pytest.fixture(scope="session")
def small() -> Bundle:
    graph = small_graph()
    card = Card(
        name="small",
        detector="small",
        classes=("car", "person"),
        input=InputRule(96, 64),
        parameters=1,
        licence="none",
        data="none",
        training={"steps": 1},
        results={"ap": 0.5},
        opset=18,
        graph_sha256=hashlib.sha256(graph).hexdigest(),
    )
    return Bundle(card, graph)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sixteen small pictures of several sizes, smooth as real ones are."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(1)
    paths = []
    for i in range(16):
        rough = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
        paths.append(folder / f"{i:02}.png")
        rough.resize((96 + 16 * (i % 3), 64), Image.Resampling.BICUBIC).save(paths[-1])
    return paths
