"""Trees, bushes, lamp posts and signs beside the street, which may cover what is labelled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from squeezedet.data.synthetic.camera import Camera, Floats, Light
from squeezedet.data.synthetic.scene import Street
from squeezedet.data.synthetic.scenery import Pixels, cloud_noise


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """The picture as it grows, far to near.

    Attributes:
        picture: (H, W, 3) float32, 0 to 255.
        owner: (H, W) number of the actor that a pixel shows, 0 for none.
    """

    picture: Pixels
    owner: NDArray[np.int16]

    def blend(self, box: tuple[int, int, int, int], alpha: Pixels, colour: Pixels) -> None:
        """Lay (h, w, 3) colours with coverage (h, w) over a box, owned by nobody."""
        x1, y1, x2, y2 = box
        view = self.picture[y1:y2, x1:x2]
        view += (colour - view) * alpha[..., None]
        self.owner[y1:y2, x1:x2][alpha >= 0.5] = 0


@dataclass(frozen=True, slots=True, eq=False)
class Plant:
    """A tree, bush or pole beside the street: foliage on a trunk, or a bare post.

    Attributes:
        x, z: metres.
        crown: (low, high, width) of the foliage in metres; None for a post.
        trunk: (height, width) in metres.
        colour: of the foliage, or of the post.
        sign: a round sign at the top of the post.
    """

    x: float
    z: float
    crown: tuple[float, float, float] | None
    trunk: tuple[float, float]
    colour: Floats
    sign: bool = False


def random_plants(rng: np.random.Generator, street: Street) -> list[Plant]:
    """What stands beside the road, unordered."""
    plants = []
    trees = rng.choice([0.15, 0.5, 0.9])
    for side in (-1, 1):
        kerb = street.left if side < 0 else street.right
        walk = street.walk_left if side < 0 else street.walk_right
        front = street.front_left if side < 0 else street.front_right
        outer = kerb + side * (walk + max(front * 0.5, 0.3))
        inner = kerb + side * 0.45
        tree_line = outer if front > 1.5 else kerb + side * max(walk - 0.5, 0.8)
        for z in np.arange(rng.uniform(3, 12), 130, rng.uniform(7, 14)):
            if street.crossing is not None and abs(z - street.crossing) < 6:
                continue
            if rng.random() < trees:
                green = np.array([66.0, 88.0, 40.0]) * rng.uniform(0.7, 1.25) + rng.normal(0, 6, 3)
                high = rng.uniform(5, 11)
                crown = (rng.uniform(1.9, 2.8), high, high * rng.uniform(0.5, 0.8))
                plants.append(
                    Plant(tree_line, float(z), crown, (3.2, rng.uniform(0.2, 0.45)), green)
                )
            if front > 1.5 and rng.random() < 0.6:
                green = np.array([62.0, 82.0, 40.0]) * rng.uniform(0.6, 1.2)
                bush = (0.0, rng.uniform(0.9, 2.0), rng.uniform(2, 4))
                plants.append(Plant(outer, float(z) + 3.5, bush, (0.3, 0.3), green))
        for z in np.arange(rng.uniform(6, 25), 120, rng.uniform(18, 35)):
            lamp = rng.random() < 0.6
            tall = rng.uniform(5.5, 8) if lamp else rng.uniform(2.4, 3)
            post = Plant(
                inner,
                float(z),
                None,
                (tall, 0.16 if lamp else 0.08),
                np.array([112.0, 116.0, 118.0]),
                sign=not lamp,
            )
            plants.append(post)
    return plants


class Foliage:
    """Leaves: one field of noise for a scene, cut differently for every crown."""

    size = 512

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        coarse = cloud_noise(rng, self.size, self.size, 10, octaves=3)
        fine = cloud_noise(rng, self.size, self.size, 80)
        self.form = Image.fromarray(coarse)
        self.leaves = Image.fromarray(fine)

    def paint(self, layers: Layers, plant: Plant, camera: Camera, light: Light) -> None:
        """Draw a plant or a post over the picture; what it covers has no owner."""
        scale = camera.focal / plant.z
        column, foot = camera.project(np.array([plant.x, 0.0, plant.z]))
        height, width = plant.trunk
        bark = np.array([78.0, 66.0, 54.0]) if plant.crown else plant.colour
        _post(layers, (column, foot, height * scale, width * scale), bark, plant.z, light)
        if plant.sign:
            top = foot - height * scale
            _disc(layers, (column, top, 0.33 * scale), plant, light)
        if plant.crown is not None:
            low, high, wide = plant.crown
            box = (
                column - wide / 2 * scale,
                foot - high * scale,
                wide * scale,
                (high - low) * scale,
            )
            self._crown(layers, box, plant, light)

    def _crown(
        self, layers: Layers, place: tuple[float, float, float, float], plant: Plant, light: Light
    ) -> None:
        left, top, wide, tall = place
        cut = self.rng.uniform(0, self.size * 0.48, 2)
        box = _clip_box(left, top, left + wide, top + tall, layers)
        if box is None:
            return
        x = (np.arange(box[0], box[2], dtype=np.float32) + 0.5 - left) / wide * 2 - 1
        y = (np.arange(box[1], box[3], dtype=np.float32) + 0.5 - top) / tall * 2 - 1
        size = (box[2] - box[0], box[3] - box[1])
        # Noise is fixed to the crown, so a crown cut by the picture's edge is the same crown.
        half = self.size / 4
        ends = np.array([x[0], y[0], x[-1], y[-1]], dtype=np.float64)
        window = np.clip(np.tile(cut, 2) + (ends + 1) * half, 0, self.size - 1)
        window[2:] = np.maximum(window[2:], window[:2] + 1)
        area = (float(window[0]), float(window[1]), float(window[2]), float(window[3]))
        form = np.asarray(self.form.resize(size, Image.Resampling.BILINEAR, box=area))
        leaves = np.asarray(self.leaves.resize(size, Image.Resampling.BILINEAR, box=area))
        radial = 1 - (x**2)[None, :] - (np.abs(y) ** 2.5)[:, None]
        field = radial * 0.55 + (form - 0.5) * 1.1 + (leaves - 0.5) * 0.9
        alpha = np.clip((field - 0.1) * 12, 0, 1)
        sun = light.sun_strength
        tone = light.ambient * 0.5 + (leaves - 0.35) * (0.9 + 1.2 * sun) + (form - 0.5) * 0.9
        tone += 0.25 * sun * (np.sign(light.sun[0]) * x)[None, :] - 0.2 * y[:, None]
        tone = np.clip(tone, 0.12, 1.6).astype(np.float32)
        lit = tone[..., None] * (plant.colour * light.tint).astype(np.float32)
        share = np.float32(1 - np.exp(-plant.z / light.haze_length))
        lit += (light.haze.astype(np.float32) - lit) * share
        layers.blend(box, alpha.astype(np.float32), lit.astype(np.float32, copy=False))


def _post(layers: Layers, place: tuple[float, float, float, float], colour: Floats, depth: float,
          light: Light) -> None:  # fmt: skip
    """A round post: column and foot, height and width in pixels."""
    column, foot, tall, wide = place
    box = _clip_box(column - wide / 2 - 1, foot - tall, column + wide / 2 + 1, foot, layers)
    if box is None:
        return
    half = max(wide / 2, 0.3)
    across = (np.arange(box[0], box[2]) + 0.5 - column) / half
    alpha = np.clip((1 - np.abs(across)) * half + 0.5, 0, 1).astype(np.float32)
    side = np.sign(light.sun[0]) * np.clip(across, -1, 1)
    tone = light.ambient * 0.85 + light.sun_strength * np.clip(0.35 + 0.5 * side, 0, 1)
    lit = light.fade(colour * tone[:, None] * light.tint, depth).astype(np.float32)
    rows = box[3] - box[1]
    layers.blend(box, np.tile(alpha, (rows, 1)), np.broadcast_to(lit, (rows, *lit.shape)))


def _disc(layers: Layers, disc: tuple[float, float, float], plant: Plant, light: Light) -> None:
    """A round sign with a red rim: column, row and radius in pixels."""
    column, row, radius = disc
    r = radius + 1
    box = _clip_box(column - r, row - r, column + r, row + r, layers)
    if box is None:
        return
    y, x = np.mgrid[box[1] : box[3], box[0] : box[2]] + 0.5
    distance = np.hypot(x - column, y - row)
    tone = light.ambient + 0.3 * light.sun_strength
    white, red = np.array([225.0, 225.0, 225.0]), np.array([190.0, 30.0, 34.0])
    ring = np.clip(distance - 0.7 * radius + 0.5, 0, 1)[..., None]
    colour = light.fade((white * (1 - ring) + red * ring) * tone, plant.z)
    alpha = np.clip(radius - distance + 0.5, 0, 1)
    layers.blend(box, alpha.astype(np.float32), colour.astype(np.float32))


def _clip_box(
    x1: float, y1: float, x2: float, y2: float, layers: Layers
) -> tuple[int, int, int, int] | None:
    """Whole pixels of a box within the picture; None if there are none."""
    height, width = layers.owner.shape
    left, top = max(int(x1), 0), max(int(y1), 0)
    right, bottom = min(int(np.ceil(x2)), width), min(int(np.ceil(y2)), height)
    return (left, top, right, bottom) if right > left and bottom > top else None
