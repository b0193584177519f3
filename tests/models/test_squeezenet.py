"""SqueezeNet against the figures of its paper, and with weights from everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from squeezedet.errors import ModelError
from squeezedet.models.squeezenet import SqueezeNet, SqueezeNetConfig, from_weights

V1_0 = SqueezeNetConfig()
V1_1 = SqueezeNetConfig(version="1.1")
SMALL = SqueezeNetConfig(version="1.1", classes=5, base_e=16, incr_e=16, squeeze_ratio=0.25)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(config: SqueezeNetConfig = SMALL) -> SqueezeNet:
    torch.manual_seed(0)
    return SqueezeNet(config).eval()


def pictures(count: int = 2, side: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (V1_0, 1_248_424),
        (V1_1, 1_235_496),
        (replace(V1_0, bypass="simple"), 1_248_424),
        (replace(V1_0, bypass="complex"), 1_589_672),
        (replace(V1_0, squeeze_ratio=0.25), 1_967_080),
        (replace(V1_0, squeeze_ratio=0.5), 3_404_392),
        (replace(V1_0, squeeze_ratio=0.75), 4_841_704),
        (replace(V1_0, squeeze_ratio=1.0), 6_279_016),
    ],
)
def test_parameters(config: SqueezeNetConfig, expected: int) -> None:
    with torch.device("meta"):
        assert parameters(SqueezeNet(config)) == expected


@pytest.mark.parametrize(
    ("pct_3x3", "millions"), [(0.01, 1.478), (0.125, 1.930), (0.25, 2.421), (0.5, 3.404), (0.75, 4.387), (0.99, 5.331)]
)
def test_share_of_3x3(pct_3x3: float, millions: float) -> None:
    """The sweep of section 5.3, at squeeze ratio 0.5."""
    with torch.device("meta"):
        network = SqueezeNet(SqueezeNetConfig(squeeze_ratio=0.5, pct_3x3=pct_3x3))
    assert round(parameters(network) / 1e6, 3) == millions


def test_fires() -> None:
    assert V1_0.fires[0] == (16, 64, 64)
    assert V1_0.fires[3] == (32, 128, 128)
    assert V1_0.fires[7] == (64, 256, 256)
    plus = replace(V1_0, squeeze_ratio=0.75).fires  # SqueezeDet+ begins with it
    assert [squeeze for squeeze, _, _ in plus] == [96, 96, 192, 192, 288, 288, 384, 384]


@torch.inference_mode()
@pytest.mark.parametrize(("version", "side", "cells"), [("1.0", 227, 13), ("1.1", 224, 13), ("1.1", 227, 14)])
def test_shapes(version: str, side: int, cells: int) -> None:
    """Pools round up: 27 cells become 13, and 111 become 55, as in table 1."""
    config = replace(SMALL, version=version)
    images = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    assert small(config).features(images).shape == (1, 64, cells, cells)
    assert small(config)(images).shape == (1, 5)


@torch.inference_mode()
@pytest.mark.parametrize(("version", "pixels"), [("1.0", 5), ("1.1", 1)])
def test_padded_images_give_a_cell_for_16_pixels(version: str, pixels: int) -> None:
    network = small(replace(SMALL, version=version))
    assert network.config.layout.conv1_kernel - 2 == pixels
    for width, height in ((32, 48), (208, 64), (176, 96)):
        padded = F.pad(torch.zeros(1, 3, height, width), (0, pixels, 0, pixels))
        assert network.features(padded).shape == (1, 64, height // 16, width // 16)


@torch.inference_mode()
def test_conv10_of_version_1_0_has_a_rim() -> None:
    """Its cells hold the bias, and count in the average: 15 x 15 of them, 13 x 13 with an image."""
    network = small(replace(SMALL, version="1.0"))
    network.conv10.weight.zero_()
    network.conv10.bias.fill_(2.0)
    torch.testing.assert_close(network(pictures(1, 227)), torch.full((1, 5), 2.0))
    network.conv10.bias.zero_()
    network.conv10.weight.fill_(1.0)
    inside = network.features(pictures(1, 227)).sum(1).sum()
    torch.testing.assert_close(network(pictures(1, 227))[0, 0], inside / 15**2)


@torch.inference_mode()
def test_pixels_become_bgr_minus_the_mean() -> None:
    network = small()
    seen: list[Tensor] = []
    network.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    images[:, 0] = 200  # red
    network(images)
    assert seen[0][0, :, 0, 0].tolist() == [-104, -117, 200 - 123]


def test_initial_weights() -> None:
    """Caffe's "xavier" and its Gaussian."""
    torch.manual_seed(0)
    network = SqueezeNet(V1_1)
    weight = network.get_parameter("fire9.expand3x3.weight")
    bound = (3 / (64 * 9)) ** 0.5
    assert 0.99 * bound < weight.abs().max() <= bound
    assert network.conv10.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert not any(p.any() for name, p in network.named_parameters() if name.endswith("bias"))


@torch.inference_mode()
@pytest.mark.parametrize("bypass", ["none", "simple", "complex"])
def test_bypass(bypass: str) -> None:
    """Around fire3, 5, 7, 9 the input itself, around the others a convolution of it; no ReLU."""
    network = small(replace(SMALL, version="1.0", bypass=bypass))
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def listen(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
            inputs[name], outputs[name] = given[0].clone(), out.clone()

        module.register_forward_hook(hook)

    for name, module in network.named_children():
        listen(name, module)
    network(pictures())
    for i in range(2, 10):
        x, expected = inputs[f"fire{i}"], outputs[f"fire{i}"]
        if i % 2 and bypass != "none":
            expected = expected + x
        elif bypass == "complex":
            expected = expected + network.get_submodule(f"bypass{i}")(x)
        if i in (4, 8):  # a pool follows
            expected = F.max_pool2d(expected, 3, 2, ceil_mode=True)
        torch.testing.assert_close(inputs[f"fire{i + 1}" if i < 9 else "dropout"], expected)


def test_loss_falls_on_one_batch() -> None:
    """Slowly: the ReLU behind conv10 leaves about half of the classes silent at first."""
    torch.manual_seed(0)
    network = SqueezeNet(replace(SMALL, base_e=32))
    images = F.interpolate(pictures(4, 4).float(), size=(48, 48))
    labels = torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(40):
        loss = network.loss(network(images), labels)["class"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(5), abs=0.05)
    assert max(losses[-5:]) < 0.8 * losses[0]


@pytest.mark.filterwarnings("ignore")
@torch.inference_mode()
def test_onnx_graph_answers_as_the_network() -> None:
    import onnxruntime

    network = small(replace(SMALL, bypass="complex"))
    images = pictures(1)
    program = torch.onnx.export(network, (images,), dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    np.testing.assert_allclose(answer, network(images).numpy(), atol=1e-4)


# ------------------------------------------------------------------ weights


def saved(folder: Path, network: SqueezeNet, **changes: Tensor | None) -> Path:
    """The network's weights in a file, some of them changed or left out."""
    tensors = dict(network.state_dict()) | {k.replace("__", "."): v for k, v in changes.items()}
    path = folder / "weights.safetensors"
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)
    return path


@pytest.mark.parametrize("bypass", ["none", "complex"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_shapes_tell_the_network(tmp_path: Path, version: str, bypass: str) -> None:
    torch.manual_seed(0)
    network = SqueezeNet(SqueezeNetConfig(version=version, bypass=bypass, classes=7))
    read = from_weights(saved(tmp_path, network))
    assert read.config == network.config
    assert not read.training
    for name, parameter in read.named_parameters():
        assert torch.equal(parameter, network.get_parameter(name))


def test_a_point_of_the_design_space_is_named(tmp_path: Path) -> None:
    network = small()
    path = saved(tmp_path, network)
    assert torch.equal(from_weights(path, SMALL).conv1.weight, network.conv1.weight)
    with pytest.raises(ModelError, match=r"expected fire2\.squeeze1x1\.weight of shape 16x64x1x1"):
        from_weights(path)


def test_files_of_another_network(tmp_path: Path) -> None:
    network = small()
    before = network.conv10.bias.clone()
    wrong = saved(tmp_path, network, fire3__expand1x1__weight=torch.zeros(9, 4, 1, 1))
    with pytest.raises(
        ModelError, match=r"expected fire3\.expand1x1\.weight of shape 8x4x1x1, but in the file it is 9x4x1x1"
    ):
        from_weights(wrong, network.config)
    with pytest.raises(ModelError, match=r"expected conv10\.bias of shape 5, but the file has"):
        from_weights(saved(tmp_path, network, conv10__bias=None), network.config)
    with pytest.raises(ModelError, match=r"no place for 'fire10\.bias'"):
        from_weights(saved(tmp_path, network, fire10__bias=torch.zeros(2)), network.config)
    assert torch.equal(network.conv10.bias, before)


def test_a_file_cannot_make_up_a_large_network(tmp_path: Path) -> None:
    """Two million classes would need 4 GB; the file has 8 MB."""
    many = torch.zeros(2_000_000, 1, 1, 1)
    path = saved(tmp_path, SqueezeNet(V1_1), conv10__weight=many, conv10__bias=None)
    with pytest.raises(ModelError, match=r"conv10\.weight of shape 2000000x512x1x1"):
        from_weights(path)


@pytest.mark.shared
def test_published_weights(shared: Path) -> None:
    folder = shared / "weights"
    archive = from_weights(folder / "squeezenet_v1_0_imagenet.npz")
    packed = from_weights(folder / "compressed_SqueezeNet.net")
    assert archive.config == packed.config == V1_0
    assert all(torch.equal(p, packed.get_parameter(name)) for name, p in archive.named_parameters())
    assert from_weights(folder / "squeezenet_v1_1_fp16.onnx").config == V1_1
    with pytest.raises(ModelError, match=r"conv1\.weight of shape 64x3x3x3, but .* 57x3x3x3"):
        from_weights(folder / "tinyssd_backbone_iter180000.caffemodel")
