"""Change an image and its boxes together: crop, scale, flip, colors; the paper's drift, and SSD's augmentation.

Every function is pure: the same generator state gives the same result. Boxes are xyxy in pixels of their image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from squeezedet.boxes import area, clip, intersection, iou
from squeezedet.models.layers import MEAN_RGB
from squeezedet.models.tiny_ssd import MEAN_RGB as SSD_MEAN_RGB
from squeezedet.preprocess import InputRule
from squeezedet.training.recipe import Recipe

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
    example: Example, scale: tuple[float, float], origin: tuple[float, float], size: tuple[int, int], min_visible: float
) -> Example:
    """Scale the image, then cut a window out of it; outside the image lies the mean color.

    ``origin`` is left and top of the window of (width, height), in pixels of the scaled image. An object of which a
    smaller share of its area than ``min_visible`` stays inside becomes a region.
    """
    sx, sy = scale
    width, height = size
    pixels = _window(example.pixels, scale, origin, size, MEAN_PIXEL, Image.Resampling.BILINEAR)

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


def _window(
    pixels: NDArray[np.uint8],
    scale: tuple[float, float],
    origin: tuple[float, float],
    size: tuple[int, int],
    color: tuple[float, ...],
    resampling: Image.Resampling,
) -> NDArray[np.uint8]:
    """The window of ``crop_and_scale``, with a color outside the image."""
    (sx, sy), (width, height) = scale, size
    image_h, image_w = pixels.shape[:2]
    # The part of the window that lies on the image, in whole pixels of the window.
    left, top = max(0, round(-origin[0])), max(0, round(-origin[1]))
    right = min(width, round(image_w * sx - origin[0]))
    bottom = min(height, round(image_h * sy - origin[1]))
    window = np.empty((height, width, 3), np.uint8)
    window[:] = color
    # What that part shows, cut to the image, of which rounding may miss half a pixel.
    box = (
        max(0.0, (left + origin[0]) / sx),
        max(0.0, (top + origin[1]) / sy),
        min(float(image_w), (right + origin[0]) / sx),
        min(float(image_h), (bottom + origin[1]) / sy),
    )
    if right > left and bottom > top and box[2] > box[0] and box[3] > box[1]:
        part = Image.fromarray(pixels).resize((right - left, bottom - top), resampling, box=box)
        window[top:bottom, left:right] = np.asarray(part)
    return window


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

    dx is drawn from [-150, min(151, least x1 + 1)), dy from [-100, min(101, least y1 + 1)), in pixels of the original
    image. Positive values cut, negative ones pad with the mean.
    """
    least = example.xyxy[:, :2].min(axis=0) if len(example.xyxy) else np.array([np.inf, np.inf])
    dx = int(rng.integers(-150, max(-149, int(min(151, least[0] + 1)))))
    dy = int(rng.integers(-100, max(-99, int(min(101, least[1] + 1)))))
    height, width = example.pixels.shape[:2]
    return crop_and_scale(example, (1.0, 1.0), (dx, dy), (width - dx, height - dy), 0.0)


def change_colors(example: Example, rng: np.random.Generator, strength: float) -> Example:
    """Change brightness, contrast, gamma, white balance and saturation, each by exp(+-strength / 2) or so."""
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


# ------------------------------------------------------------ training windows

MIN_HEIGHT, MIN_WIDTH = 20, 7  # pixels of an object that is made smaller or pasted, and of one to paste


def augment(
    example: Example,
    recipe: Recipe,
    size: tuple[int, int],
    rng: np.random.Generator,
    rule: InputRule,
    others: Sequence[Example] = (),
) -> Example:
    """A training window of the given size out of one image, or out of four: with three ``others`` a mosaic."""
    if recipe.augmentation == "ssd":
        return ssd_augment(example, size, rng)
    if recipe.augmentation == "drift":
        example = drift(example, rng)
        h, w = example.pixels.shape[:2]
        example = crop_and_scale(example, (size[0] / w, size[1] / h), (0.0, 0.0), size, 0.0)
    elif others:
        example = mosaic((example, *others), recipe, size, rng, rule)
    else:
        example = random_window(example, recipe, size, rng, rule)
    if rng.random() < 0.5:
        example = flip(example)
    return change_colors(example, rng, recipe.color) if recipe.color else example


def random_window(
    example: Example, recipe: Recipe, size: tuple[int, int], rng: np.random.Generator, rule: InputRule
) -> Example:
    """Scale around the size that detection uses, and cut a window, often around an object."""
    height, width = example.pixels.shape[:2]
    fit = rule.size(width, height)
    zoom = np.exp(rng.uniform(*np.log(recipe.scale)))
    stretch = np.sqrt(np.exp(rng.uniform(*np.log(recipe.stretch))))
    sx, sy = fit[0] / width * zoom * stretch, fit[1] / height * zoom / stretch
    scaled = np.array([width * sx, height * sy])
    room = scaled - np.array(size)
    origin = rng.uniform(np.minimum(room, 0), np.maximum(room, 0))
    if len(example.xyxy) and rng.random() < 0.5:
        box = example.xyxy[rng.integers(len(example.xyxy))] * np.array([sx, sy] * 2)
        around = (box[:2] + box[2:]) / 2 - np.array(size) * rng.uniform(0.2, 0.8, 2)
        origin = np.clip(around, np.minimum(room, 0), np.maximum(room, 0))
    return crop_and_scale(
        example, (float(sx), float(sy)), (float(origin[0]), float(origin[1])), size, recipe.min_visible
    )


def mosaic(
    examples: Sequence[Example], recipe: Recipe, size: tuple[int, int], rng: np.random.Generator, rule: InputRule
) -> Example:
    """Windows of four images at half of their scale side by side (YOLOv4, arXiv 2004.10934, section 3.3): near objects
    become far ones. Those below ``MIN_HEIGHT`` or ``MIN_WIDTH`` become regions.
    """
    smaller = replace(recipe, scale=(recipe.scale[0] / 2, recipe.scale[1] / 2))
    columns, rows = ((0, side // 2, side) for side in size)
    pixels = np.empty((size[1], size[0], 3), np.uint8)
    parts: list[Example] = []
    for example, (i, j) in zip(examples, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        left, right, top, bottom = columns[i], columns[i + 1], rows[j], rows[j + 1]
        part = random_window(example, smaller, (right - left, bottom - top), rng, rule)
        pixels[top:bottom, left:right] = part.pixels
        shift = np.array([left, top] * 2, np.float32)
        small = ((part.xyxy[:, 2:] - part.xyxy[:, :2]) < (MIN_WIDTH, MIN_HEIGHT)).any(axis=1)
        regions = np.concatenate([part.regions, part.xyxy[small]]) + shift
        parts.append(replace(part, xyxy=part.xyxy[~small] + shift, class_id=part.class_id[~small], regions=regions))
    xyxy, class_id, regions = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("xyxy", "class_id", "regions")
    )
    return Example(pixels, xyxy, class_id, regions)


# ------------------------------------------------------------ pasting objects of rare classes

HORIZON = 0.48  # of the image's height, near enough for a camera that looks along the road
RIM = 0.12  # of the box's sides, on each side
MAX_COVERED = 0.15  # share of a labelled object that may vanish behind what is pasted
MAX_SHARE = 0.9  # of the image's sides
TRIES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Donor:
    """An object to paste: its image, its box in it, its class."""

    index: int
    xyxy: NDArray[np.float32]
    class_id: int


def donors(
    index: int, xyxy: NDArray[np.float32], class_id: NDArray[np.int64], whole: NDArray[np.bool_], rare: Sequence[int]
) -> list[Donor]:
    """The objects of rare classes of an image that can be cut out: whole (neither cut off nor covered, says the label),
    large enough, nothing before them.
    """
    sides = xyxy[:, 2:] - xyxy[:, :2]
    overlap = iou(xyxy, xyxy)
    np.fill_diagonal(overlap, 0)
    good = whole & np.isin(class_id, rare) & (overlap.max(axis=1, initial=0) < 0.1)
    good &= (sides[:, 0] >= MIN_WIDTH) & (sides[:, 1] >= MIN_HEIGHT)
    return [Donor(index, xyxy[i], int(class_id[i])) for i in np.flatnonzero(good)]


def paste(example: Example, donor: Donor, source: NDArray[np.uint8], rng: np.random.Generator) -> Example:
    """The example with one object more, out of the (H, W, 3) ``source``, or as it was where none of a few places will
    do.
    """
    place = _place(example, donor.xyxy, source.shape[:2], rng)
    if place is None:
        return example
    cut = donor.xyxy
    if rng.random() < 0.5:
        source = np.ascontiguousarray(source[:, ::-1])
        cut = np.array([source.shape[1], 0] * 2) + cut[[2, 1, 0, 3]] * np.array([-1, 1] * 2)
    pixels = _blend(example.pixels, source, cut, place)
    return replace(
        example,
        pixels=pixels,
        xyxy=np.concatenate([example.xyxy, place[None]]),
        class_id=np.append(example.class_id, np.int64(donor.class_id)),
    )


def paste_decoy(example: Example, like: Donor, source: Example, rng: np.random.Generator) -> Example:
    """The example with a patch of background of the scene ``source``, as large as the object ``like``."""
    height, width = source.pixels.shape[:2]
    w, h = np.minimum(like.xyxy[2:] - like.xyxy[:2], (width - 1, height - 1))
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    cut = np.array([x, y, x + w, y + h], np.float32)
    taken = np.concatenate([source.xyxy, source.regions])
    if len(taken) and iou(cut[None], taken).max() > 0:
        return example
    place = _place(example, cut, (height, width), rng)
    if place is None:
        return example
    return replace(example, pixels=_blend(example.pixels, source.pixels, cut, place))


def _place(
    example: Example, xyxy: NDArray[np.float32], source: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.float32] | None:
    """A box in the scene for what is ``xyxy`` in an image of (height, width), or None."""
    height, width = example.pixels.shape[:2]
    horizon = HORIZON * height
    to_scene = height / source[0]
    w, h = (xyxy[2:] - xyxy[:2]) * to_scene
    foot = xyxy[3] * to_scene
    for _ in range(TRIES):
        zoom = float(np.exp(rng.uniform(np.log(0.5), np.log(1.6))))
        bottom = horizon + (foot - horizon) * zoom if foot > horizon else foot
        bottom = min(float(bottom), height - 1.0)
        box_w, box_h = float(w * zoom), float(h * zoom)
        small = box_h < MIN_HEIGHT or box_w < MIN_WIDTH
        if small or box_h > min(bottom, MAX_SHARE * height) or box_w > MAX_SHARE * width:
            continue
        left = rng.uniform(0, width - box_w)
        place = np.array([left, bottom - box_h, left + box_w, bottom], np.float32)
        if _free(example, place):
            return place
    return None


def _free(example: Example, place: NDArray[np.float32]) -> bool:
    """Whether a box hides next to nothing of the labelled objects, and stands in no region."""
    taken = np.concatenate([example.xyxy, example.regions])
    if not len(taken):
        return True
    shared = intersection(taken, place[None])[:, 0]
    smaller = np.minimum(area(taken), area(place[None]))
    return bool((shared <= MAX_COVERED * np.maximum(smaller, 1e-6)).all())


def _blend(
    scene: NDArray[np.uint8], source: NDArray[np.uint8], cut: NDArray[np.float32], place: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """A copy of the scene with ``cut`` of the source at ``place``, with a soft rim around it."""
    target = np.rint(_with_rim(place)).astype(int)
    width, height = (target[2:] - target[:2]).tolist()
    patch = _cut_out(source, _with_rim(cut), (width, height))
    alpha = np.minimum.outer(_ramp(height), _ramp(width))[..., None]
    x1, y1 = np.maximum(target[:2], 0)
    x2, y2 = np.minimum(target[2:], scene.shape[1::-1])
    there = scene[y1:y2, x1:x2].astype(np.float32)
    seen = np.s_[y1 - target[1] : y2 - target[1], x1 - target[0] : x2 - target[0]]
    patch, alpha = patch[seen], alpha[seen]
    rim = alpha < 0.5
    weight = rim / max(float(rim.sum()), 1.0)  # half of the difference in light goes
    patch = patch + 0.5 * ((there - patch) * weight).sum(axis=(0, 1))
    mixed = there + alpha * (patch - there)
    pixels = scene.copy()
    pixels[y1:y2, x1:x2] = np.rint(mixed.clip(0, 255)).astype(np.uint8)
    return pixels


def _with_rim(box: NDArray[np.float32]) -> NDArray[np.float32]:
    rim = RIM * (box[2:] - box[:2])
    return np.concatenate([box[:2] - rim, box[2:] + rim])


def _cut_out(source: NDArray[np.uint8], window: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A window of an image at (width, height); outside the image its edge is repeated."""
    low, high = np.floor(window[:2]).astype(int), np.ceil(window[2:]).astype(int)
    columns = np.clip(np.arange(low[0], high[0]), 0, source.shape[1] - 1)
    rows = np.clip(np.arange(low[1], high[1]), 0, source.shape[0] - 1)
    part = Image.fromarray(source[rows[:, None], columns])
    box = tuple((window - np.tile(low, 2)).tolist())
    return np.asarray(part.resize(size, Image.Resampling.BILINEAR, box=box), np.float32)


def _ramp(n: int) -> NDArray[np.float32]:
    """(n,) from 0 at both ends to 1 over the rim."""
    rim = max(1.0, n * RIM / (1 + 2 * RIM))
    distance = np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5
    return np.clip(distance / rim, 0, 1).astype(np.float32)


# ------------------------------------------------------------ SSD's augmentation

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
    sx, sy = size[0] / (right - left), size[1] / (bottom - top)
    factor = np.array([sx, sy] * 2)
    whole = (example.xyxy - origin) * factor
    seen = clip(whole, *size)
    center = (whole[:, :2] + whole[:, 2:]) / 2
    inside = ((center >= 0) & (center < size)).all(axis=1)
    keep = inside & ((seen[:, 2:] - seen[:, :2]) > 1).all(axis=1)
    regions = np.concatenate([clip((example.regions - origin) * factor, *size), seen[~keep]])
    return Example(
        _window(example.pixels, (sx, sy), (left * sx, top * sy), size, SSD_MEAN_RGB, resampling),
        seen[keep].astype(np.float32),
        example.class_id[keep],
        regions[area(regions) > 0].astype(np.float32),
    )
