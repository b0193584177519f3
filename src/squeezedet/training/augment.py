"""Change an image and its boxes together: crop, scale, flip, colour; and the paper's drift.

Every function is pure: the same generator state gives the same result.
Boxes are xyxy in pixels of the image they come with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import area, clip
from squeezedet.detectors.normalise import MEAN_RGB

MEAN_PIXEL = tuple(round(v) for v in MEAN_RGB)

GREY = tuple(np.float32(share) for share in (0.299, 0.587, 0.114))
"""Red, green and blue in the brightness of a pixel."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One image with its boxes, on its way into a batch.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        xyxy: (N, 4) float32 boxes of the objects to learn.
        class_id: (N,) int64.
        regions: (M, 4) float32 areas without confidence loss.
    """

    pixels: NDArray[np.uint8]
    xyxy: NDArray[np.float32]
    class_id: NDArray[np.int64]
    regions: NDArray[np.float32]


def crop_and_scale(
    example: Example,
    scale: tuple[float, float],
    origin: tuple[float, float],
    size: tuple[int, int],
    min_visible: float,
) -> Example:
    """Scale the image, then cut a window out of it; outside the image lies the mean colour.

    An object of which less than ``min_visible`` of its area stays inside becomes a region.

    Args:
        example: image and boxes.
        scale: horizontal and vertical scale.
        origin: left and top of the window, in pixels of the scaled image.
        size: (width, height) of the window.
        min_visible: 0 to 1.
    """
    from PIL import Image

    sx, sy = scale
    width, height = size
    image_h, image_w = example.pixels.shape[:2]
    # The part of the window that lies on the image, in whole pixels of the window.
    left, top = max(0, round(-origin[0])), max(0, round(-origin[1]))
    right = min(width, round(image_w * sx - origin[0]))
    bottom = min(height, round(image_h * sy - origin[1]))
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = MEAN_PIXEL
    if right > left and bottom > top:
        box = (
            max(0.0, (left + origin[0]) / sx),
            max(0.0, (top + origin[1]) / sy),
            min(float(image_w), (right + origin[0]) / sx),
            min(float(image_h), (bottom + origin[1]) / sy),
        )
        part = Image.fromarray(example.pixels).resize(
            (right - left, bottom - top), Image.Resampling.BILINEAR, box=box
        )
        pixels[top:bottom, left:right] = np.asarray(part)

    def move(xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        shift = np.array([origin[0], origin[1]] * 2, np.float32)
        return xyxy * np.array([sx, sy] * 2, np.float32) - shift

    whole = move(example.xyxy)
    seen = clip(whole, width, height)
    share = area(seen) / np.maximum(area(whole), 1e-6)
    keep = (share >= min_visible) & ((seen[:, 2:] - seen[:, :2]).min(axis=1, initial=np.inf) > 1)
    cut_off = seen[~keep & (share > 0)]
    regions = clip(move(example.regions), width, height)
    regions = np.concatenate([regions[area(regions) > 0], cut_off])
    return Example(pixels, seen[keep], example.class_id[keep], regions)


def flip(example: Example) -> Example:
    """Mirror left to right, exactly: x becomes width - x (the code is off by one, trap 4)."""
    width = example.pixels.shape[1]

    def mirror(xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.stack([width - xyxy[:, 2], xyxy[:, 1], width - xyxy[:, 0], xyxy[:, 3]], axis=1)

    return replace(
        example,
        pixels=np.ascontiguousarray(example.pixels[:, ::-1]),
        xyxy=mirror(example.xyxy),
        regions=mirror(example.regions),
    )


def drift(example: Example, rng: np.random.Generator) -> Example:
    """The paper's drift: cut or pad at the left and at the top, never through an object.

    dx is drawn from [-150, min(151, least x1 + 1)), dy from [-100, min(101, least y1 + 1)),
    in pixels of the original image. Positive values cut, negative ones pad with the mean.
    """
    least = example.xyxy[:, :2].min(axis=0) if len(example.xyxy) else np.array([np.inf, np.inf])
    dx = int(rng.integers(-150, max(-149, int(min(151, least[0] + 1)))))
    dy = int(rng.integers(-100, max(-99, int(min(101, least[1] + 1)))))
    height, width = example.pixels.shape[:2]
    return crop_and_scale(example, (1.0, 1.0), (dx, dy), (width - dx, height - dy), 0.0)


def colour(example: Example, rng: np.random.Generator, strength: float) -> Example:
    """Change brightness, contrast, gamma, white balance and saturation.

    Args:
        example: image and boxes.
        rng: source of randomness.
        strength: 0 changes nothing, 1 a lot; each factor lies within exp(+-strength / 2) or so.
    """
    gamma, contrast, saturation = np.exp(rng.uniform(-0.5, 0.5, 3) * strength)
    brightness = rng.uniform(-40, 40) * strength
    balance = np.exp(rng.uniform(-0.15, 0.15, 3) * strength)
    level = np.arange(256) / 255
    curve = (level**gamma * 255 - 128) * contrast + 128 + brightness
    table = np.clip(curve[None] * balance[:, None], 0, 255).astype(np.float32)  # (3, 256)
    planes = [table[c][example.pixels[..., c]] for c in range(3)]
    grey = GREY[0] * planes[0] + GREY[1] * planes[1] + GREY[2] * planes[2]
    grey *= np.float32(1 - saturation)
    pixels = np.empty_like(example.pixels)
    for c, plane in enumerate(planes):
        np.multiply(plane, np.float32(saturation), out=plane)
        np.add(plane, grey, out=plane)
        np.rint(np.clip(plane, 0, 255, out=plane), out=pixels[..., c], casting="unsafe")
    return replace(example, pixels=pixels)
