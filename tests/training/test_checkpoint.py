"""The weights that a run starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from squeezedet.data.sample import KITTI_DEFAULT, ClassMap
from squeezedet.data.scenes import generate
from squeezedet.data.voc import VOC_CLASSES
from squeezedet.errors import ModelError
from squeezedet.exporting.int8 import quantize
from squeezedet.media.images import read_image
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
from squeezedet.models.tiny_ssd import TinySSDConfig
from squeezedet.papers.tiny_yolo_v2 import TinyYoloV2, TinyYoloV2Config
from squeezedet.runtime import bundle
from squeezedet.runtime.engines import OnnxRuntimeEngine
from squeezedet.training import checkpoint
from squeezedet.training.checkpoint import initialize, load_detector, load_squeezenet, network_of
from squeezedet.training.train import Plan

from ..conftest import SLIM
from ..papers.weights_file import write_weights

PARENTS = Path(__file__).resolve().parents[2] / "parents"


@pytest.mark.shared
def test_published_weights_fill_the_backbone(shared: Path) -> None:
    path = shared / "weights" / "squeezenet_v1_1_fp16.onnx"
    detector = ConvDet()
    random = load_squeezenet(detector, path)
    assert {name.removeprefix("backbone.").split(".")[0] for name in random} == {"fire10", "fire11", "convdet"}
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    bgr = torch.from_numpy(tensors["conv1_w_0"].astype(np.float32))
    assert torch.equal(detector.backbone.conv1.weight, bgr.flip(1))
    fire9 = torch.from_numpy(tensors["fire9/expand3x3_w_0"].astype(np.float32))
    assert torch.equal(detector.backbone.fire9.expand3x3.weight, fire9)


@torch.inference_mode()
def test_a_bundle_is_taken_up_where_it_was(tmp_path: Path) -> None:
    """The detector of the shipped bundle answers as the bundle does."""
    planned = Plan.create("squeezedet", KITTI_DEFAULT, (), init=str(SLIM))
    detector = planned.detector.eval()
    pixels, _ = generate(2, 208, 96)
    boxes, score, _ = detector.decode(detector(torch.from_numpy(pixels).permute(2, 0, 1)[None]))
    answer = OnnxRuntimeEngine(bundle.read(SLIM).graph).run(pixels)
    assert np.abs(answer.score - score[0].numpy()).max() < 1e-3
    assert np.abs(answer.xyxy - boxes[0].numpy()).max() < 0.05


def test_other_classes_get_a_new_convdet() -> None:
    """The backbone keeps its widths."""
    planned = Plan.create("squeezedet", ClassMap(("tram",)), (), init=str(SLIM))
    assert planned.start is not None
    assert planned.start.random == ("convdet.weight", "convdet.bias")
    shipped = bundle.read_card(SLIM)
    fewer = 9 * 2 * (9 * 208 + 1)
    assert sum(p.numel() for p in planned.detector.parameters()) == shipped.parameters - fewer


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
    with pytest.raises(ModelError, match=r"expected conv1.weight of shape 64x3x3x3, but in the file it is 96x3x7x7"):
        load_squeezenet(ConvDet(), path)
    write_graph(path, (64, 3, 3, 3))
    with pytest.raises(ModelError, match=r"expected fire2.squeeze1x1.weight of shape 16x64x1x1, but the file has only"):
        load_squeezenet(ConvDet(), path)


@pytest.mark.parametrize("content", [None, b"", b"no onnx at all" * 100])
def test_bad_files(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.onnx"):
        load_squeezenet(ConvDet(), path)


def write_checkpoint(path: Path, detector: ConvDet) -> None:
    tensors = {f"model.{k}": v for k, v in detector.state_dict().items()}
    checkpoint.write(path, tensors, {"config": checkpoint.describe(detector), "step": 1})


def test_a_checkpoint_of_other_classes(tmp_path: Path) -> None:
    """Everything that fits is taken; the head of another shape stays random and is named."""
    source = ConvDet(ConvDetConfig(size=(192, 96)))
    write_checkpoint(tmp_path / "a.safetensors", source)
    config = ConvDetConfig(classes=("tram",), size=(192, 96))
    start = initialize("convdet", config, str(tmp_path / "a.safetensors"))
    assert start.random == ("convdet.weight", "convdet.bias")
    assert torch.equal(
        start.detector.get_parameter("backbone.fire11.squeeze1x1.weight"),
        source.backbone.get_parameter("fire11.squeeze1x1.weight"),
    )
    assert start.describe().endswith("a.safetensors: backbone; random: convdet")
    assert initialize("convdet", config).describe() == "all weights are random"


def test_a_checkpoint_of_another_network(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a.safetensors", ConvDet(ConvDetConfig(size=(192, 96))))
    with pytest.raises(ModelError, match=r"nothing of it fits tiny-yolo-v2"):
        initialize("tiny-yolo-v2", TinyYoloV2Config(), str(tmp_path / "a.safetensors"))


def test_darknet_weights_of_vocs_classes(tmp_path: Path) -> None:
    """The last layer has another shape for other classes; all others are taken."""
    torch.manual_seed(3)
    voc = TinyYoloV2(TinyYoloV2Config(classes=VOC_CLASSES))
    write_weights(tmp_path / "voc.weights", voc)
    start = initialize("tiny-yolo-v2", TinyYoloV2Config(classes=("tram",)), str(tmp_path / "voc.weights"))
    names = [name for name, _ in voc.named_parameters()]
    assert start.random == tuple(names[-2:])
    assert torch.equal(start.detector.get_parameter(names[0]), voc.get_parameter(names[0]))
    with pytest.raises(ModelError, match="are for a YOLO, not for convdet"):
        initialize("convdet", ConvDetConfig(), str(tmp_path / "voc.weights"))
    (tmp_path / "cut.weights").write_bytes((tmp_path / "voc.weights").read_bytes()[:-8])
    with pytest.raises(ModelError, match=r"cut\.weights: too short"):
        initialize("tiny-yolo-v2", TinyYoloV2Config(classes=VOC_CLASSES), str(tmp_path / "cut.weights"))


@pytest.mark.shared
def test_published_files_fit_their_networks_only(shared: Path) -> None:
    caffe = str(shared / "weights" / "tinyssd_backbone_iter180000.caffemodel")
    start = initialize("tiny-ssd", TinySSDConfig(squeeze_relu=False), caffe)
    assert "conv1.weight" not in start.random
    assert any(name.startswith("fire9") for name in start.random)
    v10 = str(shared / "weights" / "squeezenet_v1_0_imagenet.npz")
    for backbone in ("squeezedet", "squeezedet-plus"):  # v1.0 is the backbone of neither
        with pytest.raises(ModelError, match=r"expected .* but (in the file it is|the file has)"):
            initialize("convdet", ConvDetConfig(backbone=backbone), v10)
    with pytest.raises(ModelError, match="no weights of a SqueezeNet fit tiny-yolo-v2"):
        initialize("tiny-yolo-v2", TinyYoloV2Config(), v10)


def test_the_network_is_that_of_the_start() -> None:
    assert network_of("street") == "squeezedet-two-scale"
    assert network_of(str(SLIM)) == network_of("weights.npz") == network_of(None) == "squeezedet"


@torch.inference_mode()
def test_an_int8_model_is_a_start(tmp_path: Path) -> None:
    """Its kernels are those of the float network, rounded: the answers stay close."""
    image = bundle.WEIGHTS / "demo.jpg"
    path = tmp_path / "int8.bundle"
    parent = PARENTS / "squeezedet-two-scale.bundle"
    bundle.write(path, quantize(bundle.read(parent), [image] * 16))
    pixels = torch.from_numpy(read_image(image).pixels.copy()).permute(2, 0, 1)[None, :, :368, :1232]
    wanted, found = (network.decode(network(pixels)) for network in map(load_detector, (str(parent), str(path))))
    best = int(wanted[1][0].argmax())
    assert found[1][0, best] == pytest.approx(wanted[1][0, best].item(), abs=0.1)
    assert (found[0][0, best] - wanted[0][0, best]).abs().max() < 4


def test_a_network_larger_than_its_file_takes_no_memory(tmp_path: Path) -> None:
    """Of 31 layers of 4,000 channels, more than 40 GB would be filled."""
    path = tmp_path / "evil.safetensors"
    config = checkpoint.describe(ConvDet()) | {"widths": [4000] * 31}
    checkpoint.write(path, {"model.a": torch.zeros(1)}, {"config": config})
    with pytest.raises(ModelError, match=r"numbers, more than the file holds"):
        checkpoint.read_detector(path)
