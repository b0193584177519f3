"""Reading SqueezeNet v1.1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from squeezedet.data.synthetic import generate
from squeezedet.detectors.convdet import ConvDet, ConvDetConfig
from squeezedet.errors import ModelError
from squeezedet.runtime import bundle
from squeezedet.runtime.engines.onnxruntime import OnnxRuntimeEngine
from squeezedet.training.start import load_bundle, load_squeezenet, new_detector


@pytest.mark.shared
def test_published_weights_fill_the_backbone(shared: Path) -> None:
    path = shared / "weights" / "squeezenet_v1_1_fp16.onnx"
    detector = ConvDet()
    assert load_squeezenet(detector, path) == ("fire10", "fire11", "convdet")
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    bgr = torch.from_numpy(tensors["conv1_w_0"].astype(np.float32))
    assert torch.equal(detector.backbone.conv1.weight, bgr.flip(1))
    fire9 = torch.from_numpy(tensors["fire9/expand3x3_w_0"].astype(np.float32))
    assert torch.equal(detector.backbone.fire9.expand3x3.weight, fire9)


@torch.inference_mode()
def test_a_bundle_is_taken_up_where_it_was(tmp_path: Path) -> None:
    """The detector of the shipped bundle answers as the bundle does."""
    detector = new_detector("convdet", ConvDetConfig(), "squeezedet").eval()
    pixels, _ = generate(2, 208, 96)
    boxes, score, _ = detector.decode(detector(torch.from_numpy(pixels).permute(2, 0, 1)[None]))
    answer = OnnxRuntimeEngine(bundle.read(bundle.find("squeezedet")).graph).run(pixels)
    assert np.abs(answer.score - score[0].numpy()).max() < 1e-3
    assert np.abs(answer.xyxy - boxes[0].numpy()).max() < 0.05


def test_other_classes_get_a_new_convdet() -> None:
    detector = ConvDet(ConvDetConfig(classes=("tram",)))
    kept = load_bundle(detector, bundle.find("squeezedet"))
    assert kept == ("convdet.weight", "convdet.bias")


def write_graph(path: Path, shape: tuple[int, ...]) -> None:
    weight = numpy_helper.from_array(np.zeros(shape, np.float32), "w")
    bias = numpy_helper.from_array(np.zeros(shape[0], np.float32), "b")
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    onnx.save(helper.make_model(helper.make_graph([node], "g", [x], [y], [weight, bias])), path)


def test_other_networks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    write_graph(path, (96, 3, 7, 7))
    with pytest.raises(ModelError, match=r"conv1 wants weights of shape \(64, 3, 3, 3\)"):
        load_squeezenet(ConvDet(), path)
    write_graph(path, (64, 3, 3, 3))
    with pytest.raises(ModelError, match=r"fire2.squeeze1x1 .* found None"):
        load_squeezenet(ConvDet(), path)


@pytest.mark.parametrize("content", [None, b"", b"no onnx at all" * 100])
def test_bad_files(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.onnx"):
        load_squeezenet(ConvDet(), path)
