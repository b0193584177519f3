"""SqueezeNet: v1.0, v1.1, the two bypasses, and any point of its design space (Iandola et al., arXiv 1602.07360).

Eight fire modules between two convolutions; section 5 describes all sizes by a few metaparameters, section 6 adds
bypasses. What the paper leaves open is as in its Caffe model. Table 3 gives the complex bypass 7.7 MB, which no reading
does; its 1,589,672 parameters have 6.36.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from squeezedet.errors import ModelError
from squeezedet.models.layers import SubtractMean
from squeezedet.models.squeezedet import FireModule
from squeezedet.preprocess import resize
from squeezedet.pretrained.onnx_file import read_graph
from squeezedet.pretrained.read import BLOBS, check_fit, read_weights
from squeezedet.runtime import bundle
from squeezedet.runtime.card import CLASSIFIER

FIRES = range(2, 10)
"""The fire modules are counted from 2, for conv1 is the first layer."""
MEAN_RGB = (123.0, 117.0, 104.0)
"""As the published models were trained; SqueezeDet's code has a finer one."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What v1.0 and v1.1 differ in, beside the fire modules.

    Attributes:
        conv1_channels, conv1_kernel: of the first convolution, which has stride 2.
        pools: the layers that a pool follows: 1 is conv1, 2 to 9 the fire modules.
        conv10_padding: in pixels; a rim of cells that hold nothing but the bias.
        input_px: side of the square input that it was trained with.
    """

    conv1_channels: int
    conv1_kernel: int
    pools: tuple[int, ...]
    conv10_padding: int
    input_px: int


LAYOUTS = {
    "1.0": Layout(96, 7, pools=(1, 4, 8), conv10_padding=1, input_px=227),
    "1.1": Layout(64, 3, pools=(1, 3, 5), conv10_padding=0, input_px=224),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SqueezeNetConfig:
    """What a SqueezeNet is built from; the default is v1.0.

    Expand layers have ``base_e + incr_e * (i // freq)`` filters in fire module i = 0 to 7, of which the share
    ``pct_3x3`` is 3x3; squeeze layers have ``squeeze_ratio`` times as many (section 5.1).

    Attributes:
        version: "1.0" or "1.1", a key of ``LAYOUTS``.
        classes: number of classes; their names are no part of the network.
        base_e, incr_e, freq, pct_3x3, squeeze_ratio: the metaparameters.
        bypass: ``simple`` adds the input of each module that keeps the number of channels to its output; ``complex``
            also does so around the others, through a 1x1 convolution.
        dropout: probability of dropping an input of conv10.
    """

    version: Literal["1.0", "1.1"] = "1.0"
    classes: int = 1000
    base_e: int = 128
    incr_e: int = 128
    freq: int = 2
    pct_3x3: float = 0.5
    squeeze_ratio: float = 0.125
    bypass: Literal["none", "simple", "complex"] = "none"
    dropout: float = 0.5

    @property
    def layout(self) -> Layout:
        """conv1, pools and conv10."""
        return LAYOUTS[self.version]

    @property
    def fires(self) -> tuple[tuple[int, int, int], ...]:
        """(squeeze1x1, expand1x1, expand3x3) filters of fire2 to fire9."""
        modules = []
        for i in range(len(FIRES)):
            expand = self.base_e + self.incr_e * (i // self.freq)
            expand3x3 = round(self.pct_3x3 * expand)
            modules.append((round(self.squeeze_ratio * expand), expand - expand3x3, expand3x3))
        return tuple(modules)


class SqueezeNet(nn.Module):
    """The classifier; conv1 has the channel order of the published files, BGR, and the pixels are swapped for it."""

    kind = "squeezenet"
    config_type = SqueezeNetConfig

    def __init__(self, config: SqueezeNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SqueezeNetConfig()
        self.normalize = SubtractMean(MEAN_RGB)
        channels = config.layout.conv1_channels
        self.conv1 = nn.Conv2d(3, channels, config.layout.conv1_kernel, stride=2)
        for i, (squeeze, expand1x1, expand3x3) in zip(FIRES, config.fires, strict=True):
            self.add_module(f"fire{i}", FireModule(channels, squeeze, expand1x1, expand3x3))
            if config.bypass == "complex" and channels != expand1x1 + expand3x3:
                bypass = nn.Conv2d(channels, expand1x1 + expand3x3, 1)
                self.add_module(f"bypass{i}", bypass)
            channels = expand1x1 + expand3x3
        self.dropout = nn.Dropout(config.dropout)
        self.conv10 = nn.Conv2d(channels, config.classes, 1, padding=config.layout.conv10_padding)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Caffe's "xavier", uniform within sqrt(3 / fan-in); conv10 normal, 0.01; biases 0."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.startswith("conv10."):
                nn.init.normal_(parameter, std=0.01)
            else:
                bound = math.sqrt(3 / parameter[0].numel())
                nn.init.uniform_(parameter, -bound, bound)

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) RGB pixels from 0 to 255 to the output of fire9.

        Its sides are a sixteenth, rounded by conv1, which has no padding: 227 pixels give 13 cells in v1.0, 14 in v1.1.
        A detector that wants one cell for 16 pixels pads its images by ``conv1_kernel`` - 2 pixels.
        """
        x = self.normalize(images).flip(1)
        x = self._pool(1, F.relu(self.conv1(x), inplace=True))
        for i in FIRES:
            x = self._pool(i, self._bypass(i, x, self.get_submodule(f"fire{i}")(x)))
        return x

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) RGB pixels from 0 to 255, any dtype, to (N, classes) logits."""
        x = F.relu(self.conv10(self.dropout(self.features(images))), inplace=True)
        return x.mean((2, 3))

    def loss(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of (N, classes) logits and (N,) class ids, the mean of a batch."""
        return {"class": F.cross_entropy(logits.float(), labels)}

    def _pool(self, layer: int, x: Tensor) -> Tensor:
        if layer not in self.config.layout.pools:
            return x
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def _bypass(self, i: int, x: Tensor, out: Tensor) -> Tensor:
        """The output of fire module i with its input added; no ReLU follows."""
        if self.config.bypass == "none":
            return out
        if x.shape[1] == out.shape[1]:
            return out + x
        if self.config.bypass == "complex":
            x = self.get_submodule(f"bypass{i}")(x)
            return out + x
        return out


def from_weights(path: Path, config: SqueezeNetConfig | None = None) -> SqueezeNet:
    """The network of a weight file, ready to classify; every tensor of it is used.

    Args:
        path: in any format that ``read_weights`` knows, or a bundle that ``compress`` made.
        config: which network it is; if not given the card of a bundle says it, and of other files the shapes tell v1.0,
            v1.1 and the complex bypass apart. The simple bypass has the shapes of v1.0 and must be named.

    Raises:
        ModelError: the file cannot be read, or its tensors are not those of the network; the first wrong one is named.
    """
    if path.suffix.lower() != ".npz" and bundle.is_bundle(path):  # an .npz is a zip archive, too
        weights, own = _weights_in(path)
    else:
        weights = read_weights(path)
        own = _config_of(weights)
    config = config or own
    with torch.device("meta"):  # before any memory is taken for what the file may make up
        wanted = {name: tuple(p.shape) for name, p in SqueezeNet(config).named_parameters()}
    check_fit(wanted, weights, path)
    network = SqueezeNet(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))
    return network.eval()


def _weights_in(path: Path) -> tuple[Mapping[str, NDArray[np.float32]], SqueezeNetConfig]:
    """What a bundle of a classifier holds; whether the weights fit is checked later."""
    model = bundle.read(path)
    if model.card.task != "classify" or model.card.detector != CLASSIFIER:
        raise ModelError(f"{path}: holds no classifier; detectors are for squeezedet detect")
    try:
        config = SqueezeNetConfig(**model.card.training["config"])
        with torch.device("meta"):
            SqueezeNet(config)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: its card describes no SqueezeNet: {error}") from error
    tensors = read_graph(model.graph, path).tensors
    weights = {n: t for n, t in tensors.items() if n.rpartition(".")[2] in BLOBS}
    for name in tensors:  # the exporter leaves a bias out that is zero
        layer, _, part = name.rpartition(".")
        if part == "weight" and f"{layer}.bias" not in weights:
            weights[f"{layer}.bias"] = np.zeros(len(weights[name]), np.float32)
    return weights, config


def _config_of(weights: Mapping[str, NDArray[np.float32]]) -> SqueezeNetConfig:
    """The published network that the weights look most like; whether they fit is checked later."""
    config = SqueezeNetConfig()
    if "conv1.weight" in weights and weights["conv1.weight"].shape[-1:] == (3,):
        config = replace(config, version="1.1")
    if any(name.startswith("bypass") for name in weights):
        config = replace(config, bypass="complex")
    classes = weights["conv10.weight"].shape[:1] if "conv10.weight" in weights else ()
    return replace(config, classes=classes[0]) if classes else config


# ------------------------------------------------------------ from an image to the names of what it may show

NAMES = Path(__file__).with_name("imagenet_classes.txt")
WARP_PX = 256


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, all different: WordNet's first word for each, but for one of two bathing
    suits.
    """
    return tuple(NAMES.read_text(encoding="utf-8").splitlines())


def crop(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB to (side, side, 3): warped to 256x256, then the middle, as Caffe's models want."""
    start = (WARP_PX - side) // 2
    return resize(pixels, (WARP_PX, WARP_PX))[start : start + side, start : start + side]


@torch.inference_mode()
def classify(network: SqueezeNet, pixels: NDArray[np.uint8], top: int = 5) -> list[tuple[str, float]]:
    """The likeliest classes of an image of (H, W, 3) uint8 RGB pixels, best first: (name, probability).

    A network in evaluation mode that has not ImageNet's 1000 classes has numbers as names.
    """
    side = network.config.layout.input_px
    images = torch.from_numpy(crop(pixels, side).copy()).permute(2, 0, 1)[None]
    probability = network(images)[0].softmax(0)
    names = imagenet_classes()
    if len(probability) != len(names):
        names = tuple(map(str, range(len(probability))))
    best = probability.topk(min(top, len(names)))
    found = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [(names[i], value) for i, value in found]
