"""Tiny SSD: ten Fire modules of uneven widths under SSD's predictors.

Wong, Shafiee, Li, Chwyl: "Tiny SSD: A Tiny Single-shot Detection Deep Convolutional Neural
Network for Real-time Embedded Object Detection", arXiv 1802.06488. What the paper leaves
open (default boxes, where batch normalisation stands) follows the open Caffe description of
the network, which gives the paper's 1.13 M parameters and 571.09 M multiply-accumulates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.data.voc import VOC_CLASSES
from squeezedet.detectors.folding import Affine, fold, scale_and_shift
from squeezedet.detectors.normalise import SubtractMean
from squeezedet.detectors.ssd import SSD, FeatureMap
from squeezedet.errors import ModelError
from squeezedet.pretrained.fitting import check_fit
from squeezedet.pretrained.read import read_weights

PUBLISHED_SIZE = (300, 300)
PUBLISHED_STEPS = (8, 16, 32, 64, 100, 300)
MIN_SIDE = 65  # with less, Fire10 has no cell


@dataclass(frozen=True, slots=True)
class Fire:
    """Widths of a Fire module, and where batch normalisation stands before its ReLU."""

    squeeze: int
    expand1x1: int
    expand3x3: int
    squeeze_norm: bool = False
    expand_norm: bool = False

    @property
    def channels(self) -> int:
        """Of the output."""
        return self.expand1x1 + self.expand3x3


CONV1 = 57
FIRES = {
    "fire1": Fire(15, 49, 53),
    "fire2": Fire(15, 54, 52),
    "fire3": Fire(29, 92, 94),
    "fire4": Fire(29, 90, 83),
    "fire5": Fire(44, 166, 161),
    "fire6": Fire(45, 155, 146),
    "fire7": Fire(49, 163, 171),
    "fire8": Fire(25, 29, 54, expand_norm=True),
    "fire9": Fire(37, 45, 56, squeeze_norm=True, expand_norm=True),
    "fire10": Fire(38, 41, 44, squeeze_norm=True, expand_norm=True),
}
AUXILIARY = {"conv12_1": 51, "conv12_2": 46, "conv13_1": 55, "conv13_2": 85}
HEADS = ("fire4", "fire8", "fire9", "fire10", "conv12_2", "conv13_2")


@dataclass(frozen=True, slots=True, kw_only=True)
class TinySSDConfig:
    """What a Tiny SSD is built from.

    Attributes:
        classes: class names; the background comes before them.
        size: (width, height) of the input.
        scales: size of the smaller square of each map's default boxes, and one more for the
            larger square of the last map, as shares of the input's shorter side.
        ratios: for each map, width / height of its further default boxes; 1 / r is added.
        auxiliary_kernel: of Conv12-1 and Conv13-1. 1 gives the paper's totals; the paper's
            table prints 3, which does not.
        squeeze_relu: ReLU behind squeeze layers, as in SqueezeNet. The published backbone was
            trained without.

    Raises:
        ValueError: a value makes no network.
    """

    classes: tuple[str, ...] = VOC_CLASSES
    size: tuple[int, int] = PUBLISHED_SIZE
    scales: tuple[float, ...] = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
    ratios: tuple[tuple[float, ...], ...] = ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,))
    auxiliary_kernel: int = 1
    squeeze_relu: bool = True

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("classes: a detector has at least one class")
        if len(self.size) != 2 or min(self.size) < MIN_SIDE:
            raise ValueError(f"size: width and height of at least {MIN_SIDE}, not {self.size}")
        if len(self.scales) != len(HEADS) + 1 or min(self.scales) <= 0:
            raise ValueError(f"scales: {len(HEADS) + 1} shares above 0, not {self.scales}")
        if len(self.ratios) != len(HEADS) or min(r for m in self.ratios for r in (1, *m)) <= 0:
            raise ValueError(f"ratios: numbers above 0 for {len(HEADS)} maps, not {self.ratios}")
        if self.auxiliary_kernel not in (1, 3):
            raise ValueError(f"auxiliary_kernel: 1 or 3, not {self.auxiliary_kernel}")


def cells(side: int) -> tuple[int, ...]:
    """How many cells the six maps have along a side of the input, in pixels.

    Pools of 3 with stride 2 round up, as Caffe's do: n become n // 2.
    """
    pooled = [(side - 1) // stride for stride in (8, 16, 32, 64)]
    conv12_2 = (pooled[-1] + 1) // 2
    return (*pooled, conv12_2, (conv12_2 + 1) // 2)


def feature_maps(config: TinySSDConfig) -> tuple[FeatureMap, ...]:
    """The default boxes of the six maps.

    At 300x300 the centres lie on SSD300's steps, as in the open description, although its maps
    are smaller; at any other size the cells of a map share the input evenly.
    """
    width, height = config.size
    maps = []
    for i, (columns, rows) in enumerate(zip(cells(width), cells(height), strict=True)):
        step = (width / columns, height / rows)
        if config.size == PUBLISHED_SIZE:
            step = (PUBLISHED_STEPS[i], PUBLISHED_STEPS[i])
        small, large = (scale * min(config.size) for scale in config.scales[i : i + 2])
        maps.append(
            FeatureMap(
                columns=columns,
                rows=rows,
                step=step,
                min_size=small,
                max_size=large,
                ratios=config.ratios[i],
            )
        )
    return tuple(maps)


# -------------------------------------------------------------------- layers


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that takes the running statistics where a batch holds one value.

    The last map is one cell: with a batch of one image there is no variance to divide by.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class FireModule(nn.Module):
    """(N, C, H, W) to (N, expand1x1 + expand3x3, H, W)."""

    def __init__(self, in_channels: int, fire: Fire, *, squeeze_relu: bool) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(in_channels, fire.squeeze, 1)
        self.squeeze_norm: nn.Module = (
            BatchNorm(fire.squeeze) if fire.squeeze_norm else nn.Identity()
        )
        self.squeeze_act = nn.ReLU() if squeeze_relu else nn.Identity()
        self.expand1x1 = nn.Conv2d(fire.squeeze, fire.expand1x1, 1)
        self.expand3x3 = nn.Conv2d(fire.squeeze, fire.expand3x3, 3, padding=1)
        self.expand_norm: nn.Module = (
            BatchNorm(fire.channels) if fire.expand_norm else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_act(self.squeeze_norm(self.squeeze1x1(x)))
        expanded = torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1)
        return F.relu(self.expand_norm(expanded))

    def fold(self) -> None:
        """Let the convolutions take over their normalisation, in place."""
        if isinstance(self.squeeze_norm, BatchNorm):
            fold(self.squeeze1x1, *scale_and_shift(self.squeeze_norm))
            self.squeeze_norm = nn.Identity()
        if isinstance(self.expand_norm, BatchNorm):
            scale, shift = scale_and_shift(self.expand_norm)
            border = self.expand1x1.out_channels
            fold(self.expand1x1, scale[:border], shift[:border])
            fold(self.expand3x3, scale[border:], shift[border:])
            self.expand_norm = nn.Identity()


def conv_norm(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    """A convolution without bias, batch normalisation, ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, BatchNorm(out_channels), nn.ReLU())


def pool(x: Tensor) -> Tensor:
    """3x3 max pooling with stride 2, no padding, rounding up."""
    return F.max_pool2d(x, 3, 2, ceil_mode=True)


class TinySSD(SSD):
    """The detector."""

    kind = "tiny-ssd"
    config_type = TinySSDConfig

    def __init__(self, config: TinySSDConfig | None = None) -> None:
        config = config or TinySSDConfig()
        widths = {name: fire.channels for name, fire in FIRES.items()} | AUXILIARY
        super().__init__(
            config, config.size, feature_maps(config), [widths[name] for name in HEADS]
        )
        self.conv1 = nn.Conv2d(3, CONV1, 3, 2)
        channels = CONV1
        for name, fire in FIRES.items():
            module = FireModule(channels, fire, squeeze_relu=config.squeeze_relu)
            self.add_module(name, module)
            channels = fire.channels
        # Fire4 is normalised for its predictors only; pool5 takes it as it is.
        self.fire4_norm: nn.Module = BatchNorm(FIRES["fire4"].channels)
        for name, out in AUXILIARY.items():
            kernel, stride = (config.auxiliary_kernel, 1) if name.endswith("_1") else (3, 2)
            self.add_module(name, conv_norm(channels, out, kernel, stride))
            channels = out
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Caffe's xavier, U(+-sqrt(3 / fan in)), in conv1 and fires; He's rule in the rest."""
        for name, module in self.named_modules():
            if not isinstance(module, nn.Conv2d):
                continue
            if name == "conv1" or name.startswith("fire"):
                fan_in = module.weight[0].numel()
                nn.init.uniform_(module.weight, -math.sqrt(3 / fan_in), math.sqrt(3 / fan_in))
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def folded(self) -> Self:
        """A copy without batch normalisation, see ``DetectionNetwork.folded``.

        Only that of fire4's predictors stays, as a factor and an addend of each channel.
        """
        network = super().folded()
        for module in network.children():
            if isinstance(module, FireModule):
                module.fold()
            elif isinstance(module, nn.Sequential):
                convolution, norm = module[0], module[1]
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, BatchNorm):
                    fold(convolution, *scale_and_shift(norm))
                    module[1] = nn.Identity()
        if isinstance(network.fire4_norm, BatchNorm):
            dtype = network.conv1.weight.dtype
            network.fire4_norm = Affine(*(t.to(dtype) for t in scale_and_shift(network.fire4_norm)))
        return network

    def fused(self) -> Self:
        """A folded copy of which conv1, which has no padding, also subtracts the mean."""
        network = self.folded()
        if isinstance(network.normalise, SubtractMean):
            mean = network.normalise.mean.double().view(3)
            weight, bias = (network.get_parameter(f"conv1.{part}") for part in ("weight", "bias"))
            with torch.no_grad():
                bias.sub_((weight.double().sum((2, 3)) @ mean).to(bias.dtype))
            network.normalise = nn.Identity()
        return network

    def features(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) RGB pixels minus the mean to the six feature maps."""
        layer = self.get_submodule
        x = pool(F.relu(self.conv1(x)))
        x = pool(layer("fire2")(layer("fire1")(x)))
        fire4 = layer("fire4")(layer("fire3")(x))
        x = pool(fire4)
        for name in ("fire5", "fire6", "fire7", "fire8"):
            x = layer(name)(x)
        fire8 = x
        fire9 = layer("fire9")(pool(fire8))
        fire10 = layer("fire10")(pool(fire9))
        conv12_2 = layer("conv12_2")(layer("conv12_1")(fire10))
        conv13_2 = layer("conv13_2")(layer("conv13_1")(conv12_2))
        return [self.fire4_norm(fire4), fire8, fire9, fire10, conv12_2, conv13_2]


# -------------------------------------------------------- published backbone

# The file counts Fire modules from 2. Behind them it has a classifier.
BACKBONE = ("conv1", *(f"fire{i}" for i in range(1, 9)))
CLASSIFIER = "conv10"


@dataclass(frozen=True, slots=True)
class BackboneReport:
    """What became of a backbone's file.

    Attributes:
        placed: the parameters that hold its weights now.
        unused: tensors of the file that the detector has no place for: its classifier.
        untouched: layers of the detector that keep their own weights.
    """

    placed: tuple[str, ...]
    unused: tuple[str, ...]
    untouched: tuple[str, ...]


def load_caffe_backbone(network: TinySSD, path: Path) -> BackboneReport:
    """Copy the ImageNet weights of conv1 and Fire1 to Fire8 from the published ``.caffemodel``.

    The file takes BGR; the detector takes RGB, so the input channels of conv1 are turned
    around. Nothing is copied unless everything fits.

    Args:
        network: changed in place; built with ``squeeze_relu=False``, since the classifier was
            trained without ReLU behind its squeeze layers and with them recognises nothing.
        path: of the file; the other formats of ``read_weights`` are taken, too.

    Raises:
        ModelError: the file cannot be read, or the first of its tensors that is missing, has
            another shape, or has no place in the network is named; or the network has a ReLU
            behind its squeeze layers.
    """
    weights = read_weights(path)
    parameters = {
        _published_name(name): name
        for name, _ in network.named_parameters()
        if name.split(".")[0] in BACKBONE and "_norm" not in name
    }
    shapes = {
        theirs: tuple(network.get_parameter(ours).shape) for theirs, ours in parameters.items()
    }
    check_fit(shapes, weights, path, left_over=(CLASSIFIER,))
    if network.config.squeeze_relu:
        raise ModelError(
            f"{path}: was trained without ReLU behind squeeze layers: "
            "build the network with squeeze_relu=False"
        )
    with torch.no_grad():
        for theirs, ours in parameters.items():
            value = weights[theirs]
            if ours == "conv1.weight":
                value = value[:, ::-1]
            network.get_parameter(ours).copy_(torch.from_numpy(value.copy()))
    placed = tuple(parameters.values())
    return BackboneReport(
        placed=placed,
        unused=tuple(name for name in weights if name not in parameters),
        untouched=tuple(
            name
            for name, child in network.named_children()
            if name not in BACKBONE and list(child.parameters())
        ),
    )


def _published_name(name: str) -> str:
    """``fire1.squeeze1x1.weight`` to ``fire2.squeeze1x1.weight``."""
    layer, part = name.split(".", 1)
    return f"fire{int(layer[4:]) + 1}.{part}" if layer.startswith("fire") else name
