"""SSD's augmentation: color, a larger canvas, a crop that shows an object, a mirror.

Section 2.2 of arXiv 1512.02325 and section 3.6 (the canvas), with the numbers of the Caffe code. Canvas, crop and the
final resize are one resampling here. Every function is pure: the same generator state gives the same result.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from squeezedet.boxes import area, clip, iou
from squeezedet.models.tiny_ssd import MEAN_RGB
from squeezedet.training.augment import Example, flip

Window = tuple[float, float, float, float]
"""xyxy in pixels of the image; it may reach outside."""

BRIGHTNESS = 32.0
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 18 / 180  # of the circle
CANVAS = (1.0, 4.0)
MIN_IOUS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
TRIALS = 50
CROP_SCALE, CROP_ASPECT = (0.3, 1.0), (0.5, 2.0)
RESAMPLING = (
    Image.Resampling.NEAREST,
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)
LEVELS = np.arange(256)


def ssd_augment(example: Example, size: tuple[int, int], rng: np.random.Generator) -> Example:
    """A training image of (width, height) out of one image.

    Objects whose center lies in the crop are cut to it. The Caffe code forgets the others; here what is left of them is
    an area without loss, as in ``crop_and_scale``.
    """
    example = distort(example, rng)
    canvas = random_canvas(example, rng)
    window = random_crop(example, canvas, rng)
    example = warp(example, window, size, RESAMPLING[rng.integers(len(RESAMPLING))])
    return flip(example) if rng.random() < 0.5 else example


def distort(example: Example, rng: np.random.Generator) -> Example:
    """Brightness, contrast, saturation and hue, each with probability 1/2.

    Contrast comes before or after saturation and hue, by a coin.
    """
    levels = LEVELS.astype(np.float64)
    brightness = rng.uniform(-BRIGHTNESS, BRIGHTNESS) if rng.random() < 0.5 else 0.0
    contrast = rng.uniform(*CONTRAST) if rng.random() < 0.5 else 1.0
    saturation = rng.uniform(*SATURATION) if rng.random() < 0.5 else 1.0
    hue = rng.uniform(-HUE, HUE) if rng.random() < 0.5 else 0.0
    first = rng.random() < 0.5
    pixels = _curve(example.pixels, levels + brightness)
    if first:
        pixels = _curve(pixels, levels * contrast)
    pixels = _shift_colors(pixels, saturation, hue)
    if not first:
        pixels = _curve(pixels, levels * contrast)
    return replace(example, pixels=pixels)


def _curve(pixels: NDArray[np.uint8], table: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Every value by the table's number for it, rounded."""
    rounded: NDArray[np.uint8] = np.rint(np.clip(table, 0, 255)).astype(np.uint8)
    return pixels if (rounded == LEVELS).all() else rounded[pixels]


def _shift_colors(pixels: NDArray[np.uint8], saturation: float, hue: float) -> NDArray[np.uint8]:
    """Multiply the saturation; turn the hue by a share of the circle."""
    if saturation == 1 and hue == 0:
        return pixels
    h, s, v = Image.fromarray(pixels).convert("HSV").split()
    turned = (LEVELS + round(hue * 256)) % 256
    scaled = np.clip(np.rint(LEVELS * saturation), 0, 255).astype(int)
    bands = (h.point(turned.tolist()), s.point(scaled.tolist()), v)
    return np.asarray(Image.merge("HSV", bands).convert("RGB"))


def random_canvas(example: Example, rng: np.random.Generator) -> Window:
    """The image, or with probability 1/2 up to 4 times its sides, with the image within."""
    height, width = example.pixels.shape[:2]
    ratio = rng.uniform(*CANVAS) if rng.random() < 0.5 else 1.0
    left, top = rng.uniform(0, 1, 2) * (width * (ratio - 1), height * (ratio - 1))
    return float(-left), float(-top), float(width * ratio - left), float(height * ratio - top)


def random_crop(example: Example, canvas: Window, rng: np.random.Generator) -> Window:
    """The whole canvas, or a crop with a least IoU with some object.

    For each least IoU 50 crops are tried and the first that fulfils it is a candidate, so is the canvas; one of the
    candidates is taken. An image without objects has no other one.
    """
    left, top, right, bottom = canvas
    candidates = [canvas]
    for least in MIN_IOUS if len(example.xyxy) else ():
        scale = rng.uniform(*CROP_SCALE, TRIALS)
        low, high = np.maximum(CROP_ASPECT[0], scale**2), np.minimum(CROP_ASPECT[1], scale**-2)
        root = np.sqrt(rng.uniform(low, high))
        shares = np.stack([scale * root, scale / root], axis=1)
        start = rng.uniform(0, 1, (TRIALS, 2)) * (1 - shares)
        crops = np.concatenate([start, start + shares], axis=1)
        crops = crops * ((right - left, bottom - top) * 2) + (left, top) * 2
        overlaps = iou(crops, example.xyxy.astype(np.float64)).max(axis=1)
        good = np.flatnonzero(overlaps >= least)
        if len(good):
            x1, y1, x2, y2 = crops[good[0]].tolist()
            candidates.append((x1, y1, x2, y2))
    return candidates[rng.integers(len(candidates))]


def warp(example: Example, window: Window, size: tuple[int, int], resampling: Image.Resampling) -> Example:
    """Resize a window of the image to (width, height); outside the image lies the mean color.

    An object stays if its center lies in the window and more than one pixel of each of its sides does; of another one
    the part inside becomes an area without loss.
    """
    left, top, right, bottom = window
    origin = np.array([left, top] * 2)
    factor = np.array([size[0] / (right - left), size[1] / (bottom - top)] * 2)
    whole = (example.xyxy - origin) * factor
    seen = clip(whole, *size)
    center = (whole[:, :2] + whole[:, 2:]) / 2
    inside = ((center >= 0) & (center < size)).all(axis=1)
    keep = inside & ((seen[:, 2:] - seen[:, :2]) > 1).all(axis=1)
    regions = np.concatenate([clip((example.regions - origin) * factor, *size), seen[~keep]])
    return Example(
        _resample(example.pixels, window, size, resampling),
        seen[keep].astype(np.float32),
        example.class_id[keep],
        regions[area(regions) > 0].astype(np.float32),
    )


def _resample(
    pixels: NDArray[np.uint8], window: Window, size: tuple[int, int], resampling: Image.Resampling
) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    left, top, right, bottom = window
    sx, sy = size[0] / (right - left), size[1] / (bottom - top)
    # The part of the result that lies on the image, in whole pixels of the result.
    x1, x2 = (int(np.clip(round((x - left) * sx), 0, size[0])) for x in (0, width))
    y1, y2 = (int(np.clip(round((y - top) * sy), 0, size[1])) for y in (0, height))
    result = np.empty((size[1], size[0], 3), np.uint8)
    result[:] = MEAN_RGB
    # What that part shows, cut to the image, of which rounding may miss half a pixel.
    box = (
        max(0.0, left + x1 / sx),
        max(0.0, top + y1 / sy),
        min(float(width), left + x2 / sx),
        min(float(height), top + y2 / sy),
    )
    if x2 > x1 and y2 > y1 and box[2] > box[0] and box[3] > box[1]:
        part = Image.fromarray(pixels).resize((x2 - x1, y2 - y1), resampling, box=box)
        result[y1:y2, x1:x2] = np.asarray(part)
    return result
