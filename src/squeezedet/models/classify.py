"""From an image to the names of what it may show."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from squeezedet.models.squeezenet import SqueezeNet
from squeezedet.preprocess import resize

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
    """The likeliest classes of an image, best first.

    Args:
        network: with its weights, in eval mode.
        pixels: (H, W, 3) uint8 RGB.
        top: how many classes.

    Returns:
        (name, probability); a network that has not ImageNet's 1000 classes has numbers as names.
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
