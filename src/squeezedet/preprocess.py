"""From an image to what the network sees; training, evaluation and runtime all use this.

There is nothing but a resize, or a narrow border: pixels stay uint8 RGB, the mean and the
channel order are folded into the first convolution of the exported graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

STRIDE = 16
MAX_STRETCH = 1.03
MAX_SIDE = 4096
MAX_SIDES = 8  # an input's side is at most so many times the rule's longer one


@dataclass(frozen=True, slots=True)
class InputRule:
    """Which size an image gets before the network sees it.

    Attributes:
        width: in pixels.
        height: in pixels.
        fixed: every image is stretched to exactly this size, as the paper does. If not,
            an image keeps its own shape and gets at most so many pixels.

    Raises:
        ValueError: a side is not an integer of 16 to 4096, or, unless fixed, no multiple of 16.
    """

    width: int
    height: int
    fixed: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.fixed, bool):
            raise ValueError(f"fixed must be true or false, not {self.fixed!r}")
        for side in (self.width, self.height):
            if not isinstance(side, int) or not STRIDE <= side <= MAX_SIDE:
                raise ValueError(f"a side must be an integer of {STRIDE} to {MAX_SIDE}: {side!r}")
            if side % STRIDE and not self.fixed:
                raise ValueError(f"a side must be a multiple of {STRIDE}: {side}")

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the input for an image of (width, height)."""
        if self.fixed:
            return self.width, self.height
        return own_shape(width, height, self.width, self.height)

    def content(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) that an image of (width, height) has within its input.

        An image less than 16 pixels smaller than its input, such as KITTI's, keeps its pixels and
        gets a border at the right and at the bottom. Any other is stretched to the whole input.
        """
        size = self.size(width, height)
        near = 0 <= size[0] - width < STRIDE and 0 <= size[1] - height < STRIDE
        return (width, height) if near and not self.fixed else size


@lru_cache(maxsize=256)
def own_shape(width: int, height: int, budget_w: int, budget_h: int) -> tuple[int, int]:
    """The input size that keeps an image's shape, at most budget_w * budget_h pixels.

    Both sides are multiples of 16. Among the sizes that stretch the image by at most
    3 % the largest within the budget is taken: a KITTI image (1242x375) and a budget
    of 1248x384 give 1248x384, a 16:9 image gives 912x512. An image too narrow for
    that (a strip) gets the size that stretches it least.
    """
    pixels = budget_w * budget_h
    longest = min(pixels // STRIDE, MAX_SIDES * max(budget_w, budget_h)) // STRIDE * STRIDE

    def width_for(h: int) -> int:
        wanted = round(h * width / height / STRIDE) * STRIDE
        return max(STRIDE, min(wanted, longest, pixels // h // STRIDE * STRIDE))

    def rank(size: tuple[int, int]) -> tuple[bool, float]:
        stretch = abs(math.log(size[0] / size[1] / (width / height)))
        fits = stretch <= math.log(MAX_STRETCH)
        return fits, float(size[0] * size[1]) if fits else -stretch

    return max(((width_for(h), h) for h in range(STRIDE, longest + 1, STRIDE)), key=rank)


def fit(pixels: NDArray[np.uint8], rule: InputRule) -> NDArray[np.uint8]:
    """What the network sees of an image: (H, W, 3) uint8 to (height, width, 3) uint8.

    A border repeats the last column and the last row.
    """
    height, width = pixels.shape[:2]
    content, size = rule.content(width, height), rule.size(width, height)
    inside = resize(pixels, content)
    if content == size:
        return inside
    answer = np.empty((size[1], size[0], 3), np.uint8)
    answer[: content[1], : content[0]] = inside
    answer[: content[1], content[0] :] = inside[:, -1:]
    answer[content[1] :] = answer[content[1] - 1]
    return answer


def resize(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 to (height, width, 3) uint8, bilinear with antialiasing (Pillow's filter).

    First across, then down. In one call Pillow 13 goes down first where that is cheaper, and as
    the image between the two has 8 bits, the answer would be another by a grey level.

    Args:
        pixels: the image.
        size: (width, height) wanted.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    across = Image.fromarray(pixels).resize((size[0], height), Image.Resampling.BILINEAR)
    return np.asarray(across.resize(size, Image.Resampling.BILINEAR))
