"""The stage: sky, ground, houses, trees and poles. None of it is labelled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from squeezedet.data.synthetic.camera import Camera, Floats, Light
from squeezedet.data.synthetic.scene import KERB_HEIGHT, Scene, Street

Pixels = NDArray[np.float32]
_FAR, _NEAR = 260.0, 1.2
_WALLS = np.array(
    [
        (206, 192, 166), (188, 170, 150), (214, 208, 196), (170, 132, 108), (148, 94, 76),
        (198, 180, 128), (160, 162, 164), (184, 150, 134), (222, 214, 186), (128, 116, 104),
    ],
    dtype=np.float64,
)  # fmt: skip
_ROOFS = np.array([(132, 68, 52), (96, 62, 54), (84, 84, 90), (110, 84, 70)], dtype=np.float64)
_UP = np.array([0.0, 1.0, 0.0])
_FROM_RIGHT, _FROM_LEFT = np.array([-1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0])


def cloud_noise(rng: np.random.Generator, width: int, height: int, cells: int) -> Pixels:
    """(height, width) smooth noise of four octaves, about 0 to 1."""
    total = np.zeros((height, width), dtype=np.float32)
    weight = 0.0
    for octave in range(4):
        columns = cells * 2**octave
        rows = max(2, columns * height // width + 1)
        grid = Image.fromarray(rng.random((rows + 2, columns + 2), dtype=np.float32))
        amplitude = 0.55**octave
        total += amplitude * np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
        weight += amplitude
    return total / np.float32(weight)


def paint_sky(rng: np.random.Generator, camera: Camera, light: Light) -> NDArray[np.uint8]:
    """(H, W, 3) sky down to the horizon and haze below it."""
    width = camera.width
    top = min(max(int(camera.horizon) + 2, 2), camera.height)
    up = np.clip((camera.horizon - np.arange(top)) / max(camera.horizon, 1), 0, 1)
    blue = np.array([92.0, 138.0, 198.0]) * rng.uniform(0.85, 1.15)
    clear = light.sun_strength > 0.2
    zenith = blue if clear else light.haze * 0.9
    share = (up**0.8)[:, None] * (0.95 if clear else 0.5)
    rows = (light.haze * (1 - share) + zenith * share).astype(np.float32)[:, None, :]
    noise = cloud_noise(rng, width, top, 4)
    cover = np.clip((noise - np.float32(rng.uniform(0.4, 0.6))) * 5, 0, 1) * np.float32(0.8)
    cloud = np.array([250.0, 251.0, 253.0] if clear else [214.0, 218.0, 224.0], dtype=np.float32)
    sky = rows + (cloud - rows) * cover[..., None]
    if light.sun[2] > 0:
        # The sun is ahead: its side of the sky is brighter.
        column = camera.centre_x + camera.focal * light.sun[0] / light.sun[2]
        glow = np.exp(-(((np.arange(width) - column) / (0.5 * width)) ** 2))
        sky += (light.sun_strength * 60 * glow).astype(np.float32)[None, :, None]
    picture = np.empty((camera.height, width, 3), dtype=np.uint8)
    picture[:top] = np.clip(sky, 0, 255)
    picture[top:] = np.clip(light.haze, 0, 255)
    return picture


class Stage:
    """A canvas of twice the size that flat world polygons are drawn on, over the sky."""

    scale = 2

    def __init__(self, camera: Camera, light: Light) -> None:
        self.camera, self.light = camera, light
        self.polygons: list[Floats] = []
        self.colours: list[Floats] = []
        self.normals: list[Floats] = []

    def polygon(self, points: Floats, colour: Floats, normal: Floats = _UP) -> None:
        """One (K, 3) polygon, lit by its normal and hazed by its mean distance."""
        self.polygons.append(points)
        self.colours.append(colour)
        self.normals.append(normal)

    def ground(self, left: float, right: float, near: float, far: float, colour: Floats,
               up: float = 0.0) -> None:  # fmt: skip
        """A level rectangle, cut into bands so that haze grows along it."""
        near = max(near, _NEAR)
        if far <= near:
            return
        for a, b in _bands(near, far):
            corners = np.array([(left, up, a), (right, up, a), (right, up, b), (left, up, b)])
            self.polygon(corners, colour)

    def wall(self, x: float, near: float, far: float, low: float, high: float, colour: Floats) -> None:  # fmt: skip
        """An upright rectangle along the street at x."""
        near = max(near, _NEAR)
        if far <= near:
            return
        corners = np.array([(x, low, near), (x, low, far), (x, high, far), (x, high, near)])
        self.polygon(corners, colour, _FROM_RIGHT if x > 0 else _FROM_LEFT)

    def over(self, sky: NDArray[np.uint8]) -> Pixels:
        """The picture: all polygons in the order of their adding over the sky."""
        size = (self.camera.width * self.scale, self.camera.height * self.scale)
        canvas = Image.fromarray(sky).resize(size, Image.Resampling.NEAREST)
        pen = ImageDraw.Draw(canvas)
        sizes = np.array([len(points) for points in self.polygons])
        start = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        world = np.concatenate(self.polygons)
        depth = np.add.reduceat(world[:, 2], start) / sizes
        lit = self.light.shade(np.stack(self.colours), np.stack(self.normals))
        fills = np.clip(self.light.fade(lit, depth), 0, 255).astype(int).tolist()
        pixels = np.clip(self.camera.project(world) * self.scale, -30000, 30000)
        for first, count, fill in zip(start.tolist(), sizes.tolist(), fills, strict=True):
            pen.polygon(pixels[first : first + count].ravel().tolist(), fill=tuple(fill))
        return np.asarray(canvas.reduce(self.scale), dtype=np.float32).copy()


def _bands(near: float, far: float) -> list[tuple[float, float]]:
    count = max(1, int(np.ceil(np.log(far / near) / np.log(1.35))))
    edges = np.geomspace(near, far, count + 1)
    return [(float(a), float(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def paint_street(rng: np.random.Generator, stage: Stage, street: Street) -> None:
    """Meadow, sidewalks, kerbs, road and its marks."""
    grass = np.array([98.0, 108.0, 62.0]) * rng.uniform(0.8, 1.1)
    asphalt = np.full(3, rng.uniform(92, 132)) + np.array([0.0, 0.0, rng.uniform(0, 5)])
    paving = np.array([158.0, 152.0, 144.0]) * rng.uniform(0.85, 1.1)
    stage.ground(-300, 300, _NEAR, _FAR, grass)
    outer_left, outer_right = street.left - street.walk_left, street.right + street.walk_right
    stage.ground(outer_left, street.left, _NEAR, _FAR, paving, KERB_HEIGHT)
    stage.ground(street.right, outer_right, _NEAR, _FAR, paving, KERB_HEIGHT)
    for edge, side in ((street.left, -1), (street.right, 1)):
        for a, b in _bands(_NEAR, _FAR):
            stage.wall(edge, a, b, 0.0, KERB_HEIGHT, paving * 0.62)
        stage.ground(min(edge, edge + side * 0.15), max(edge, edge + side * 0.15), _NEAR, _FAR,
                     paving * 1.15, KERB_HEIGHT)  # fmt: skip
    stage.ground(street.left, street.right, _NEAR, _FAR, asphalt)
    for edge, side in ((street.left, 1), (street.right, -1)):
        stage.ground(min(edge, edge + side * 0.3), max(edge, edge + side * 0.3), _NEAR, _FAR, asphalt * 0.8)  # fmt: skip
    for _ in range(rng.integers(0, 5)):
        x, z = rng.uniform(street.left, street.right - 1), rng.uniform(5, 40)
        patch = asphalt * rng.uniform(0.78, 1.08)
        stage.ground(x, x + rng.uniform(0.6, 1.6), z, z + rng.uniform(1, 8), patch)
    if street.crossing is not None:
        stage.ground(-120, 120, street.crossing - 4, street.crossing + 4, asphalt)
    _paint_marks(rng, stage, street)


def _paint_marks(rng: np.random.Generator, stage: Stage, street: Street) -> None:
    white = np.full(3, rng.uniform(205, 240))
    crossing = street.crossing if street.crossing is not None else -99.0

    def line(x: float, dash: float, gap: float) -> None:
        start = rng.uniform(-6, 2)
        for z in np.arange(start, 110, dash + gap):
            if abs(z + dash / 2 - crossing) > 6:
                stage.ground(x - 0.07, x + 0.07, z, z + dash, white)

    if rng.random() < 0.85:
        solid = rng.random() < 0.2
        line(street.centre, 6.0 if solid else 3.0, 0.0 if solid else 4.5)
    for k in range(1, street.lanes[1]):
        line(street.centre + k * street.lane, 3.0, 5.0)
    for k in range(1, street.lanes[0]):
        line(street.centre - k * street.lane, 3.0, 5.0)
    if street.parking_right and rng.random() < 0.7:
        line(street.right - 0.3 - street.parking_right, 6.0, 0.0)
    if street.parking_left and rng.random() < 0.7:
        line(street.left + 0.3 + street.parking_left, 6.0, 0.0)
    if street.zebra is not None:
        for x in np.arange(street.left + 0.4, street.right - 0.5, 1.0):
            stage.ground(x, x + 0.5, street.zebra - 1.6, street.zebra + 1.6, white)


def paint_houses(rng: np.random.Generator, stage: Stage, street: Street) -> None:
    """A row on each side, far ones first, with gaps and the opening of the side street."""
    for side in (-1, 1):
        if side < 0:
            base = street.left - street.walk_left - street.front_left
        else:
            base = street.right + street.walk_right + street.front_right
        density = rng.choice([0.95, 0.8, 0.35])
        z, lots = float(rng.uniform(-14, 0)), []
        while z < 170:
            depth = rng.uniform(8, 22)
            blocked = street.crossing is not None and z < street.crossing + 6 and z + depth > street.crossing - 6  # fmt: skip
            if not blocked and rng.random() < density:
                lots.append((z, z + depth))
            z += depth + (0.0 if rng.random() < 0.6 else rng.uniform(1, 6))
            z = street.crossing + 6.5 if blocked and street.crossing is not None else z
        for near, far in reversed(lots):
            _paint_house(rng, stage, base, side, near, far)


def _paint_house(rng: np.random.Generator, stage: Stage, x: float, side: int,
                 near: float, far: float) -> None:  # fmt: skip
    wall = np.clip(_WALLS[rng.integers(len(_WALLS))] + rng.normal(0, 8, 3), 40, 235)
    roof = _ROOFS[rng.integers(len(_ROOFS))]
    storey, storeys = rng.uniform(2.7, 3.3), int(rng.integers(2, 6))
    high = storey * storeys + 0.6
    if far < 2.5:
        return
    near = max(near, _NEAR)
    deep = x + side * 11
    middle = x + side * 5.5
    gable = np.array([(x, 0, near), (x, high, near), (middle, high + 4, near), (deep, high, near), (deep, 0, near)])  # fmt: skip
    stage.polygon(gable, wall * 0.92, np.array([0.0, 0.0, -1.0]))
    slope = np.array([(x, high, near), (x, high, far), (middle, high + 4, far), (middle, high + 4, near)])  # fmt: skip
    stage.polygon(slope, roof, np.array([-side * 0.6, 0.8, 0.0]))
    stage.wall(x, near, far, 0, high, wall)
    stage.wall(x - side * 0.01, near, far, 0, 0.7, wall * 0.72)
    stage.wall(x - side * 0.25, near, far, high - 0.12, high + 0.1, wall * 0.5)
    if near > 80:
        return
    _paint_windows(rng, stage, x - side * 0.02, near, far, storey, storeys, wall)


def _paint_windows(rng: np.random.Generator, stage: Stage, x: float, near: float, far: float,
                   storey: float, storeys: int, wall: Floats) -> None:  # fmt: skip
    glass, frame = np.array([54.0, 62.0, 72.0]), np.array([226.0, 224.0, 218.0])
    frame = frame if rng.random() < 0.7 else wall * 0.55
    pitch, wide, tall = rng.uniform(2.3, 3.4), rng.uniform(0.9, 1.5), rng.uniform(1.3, 1.7)
    shop = rng.random() < 0.25
    doors = int(rng.integers(0, 3))
    detail = near < 35
    for i, z in enumerate(np.arange(near + 0.8, far - wide, pitch)):
        for floor in range(storeys):
            low = floor * storey + (0.5 if shop and floor == 0 else 1.0)
            high = low + (2.0 if shop and floor == 0 else tall)
            if floor == 0 and i % 3 == doors:
                stage.wall(x, z, z + 1.1, 0.1, 2.2, wall * 0.35 + 15)
                continue
            if detail:
                stage.wall(x, z - 0.1, z + wide + 0.1, low - 0.12, high + 0.1, frame)
            tone = glass * rng.uniform(0.6, 1.7)
            stage.wall(x, z, z + wide, low, high, tone)
            if detail:
                if rng.random() < 0.4:
                    stage.wall(x, z, z + wide, low + 0.55 * tall, high, tone * 0.4 + 90)
                stage.wall(x, z + wide / 2 - 0.04, z + wide / 2 + 0.04, low, high, frame)


def paint_horizon(rng: np.random.Generator, stage: Stage) -> None:
    """Far trees and roofs where the street ends."""
    steps = 240
    for z, low in ((250.0, 6.0), (190.0, 2.5)):
        x = np.linspace(-1.1, 1.1, steps) * z
        hills = np.interp(np.arange(steps), np.linspace(0, steps, 25), rng.uniform(0, 9, 25))
        ridge = np.stack([x, low + hills + rng.uniform(0, 1.5, steps), np.full(steps, z)], axis=1)
        foot = np.array([(x[-1], -1.0, z), (x[0], -1.0, z)])
        green = np.array([58.0, 72.0, 46.0]) * rng.uniform(0.7, 1.1)
        stage.polygon(np.concatenate([ridge, foot]), green)


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
                plants.append(Plant(tree_line, float(z), crown, (3.2, rng.uniform(0.2, 0.45)), green))
            if front > 1.5 and rng.random() < 0.6:
                green = np.array([62.0, 82.0, 40.0]) * rng.uniform(0.6, 1.2)
                bush = (0.0, rng.uniform(0.9, 2.0), rng.uniform(2, 4))
                plants.append(Plant(outer, float(z) + 3.5, bush, (0.3, 0.3), green))
        for z in np.arange(rng.uniform(6, 25), 120, rng.uniform(18, 35)):
            lamp = rng.random() < 0.6
            tall = rng.uniform(5.5, 8) if lamp else rng.uniform(2.4, 3)
            post = Plant(inner, float(z), None, (tall, 0.16 if lamp else 0.08),
                         np.array([112.0, 116.0, 118.0]), sign=not lamp)  # fmt: skip
            plants.append(post)
    return plants


class Foliage:
    """Leaves: one field of noise for a scene, cut differently for every crown."""

    size = 512

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        coarse = cloud_noise(rng, self.size, self.size, 10)
        fine = cloud_noise(rng, self.size, self.size, 80)
        self.form = Image.fromarray(coarse)
        self.leaves = Image.fromarray(fine)

    def paint(self, picture: Pixels, ids: NDArray[np.int16], plant: Plant, scene: Scene) -> None:
        """Draw a plant or a post over the picture; where it covers, ``ids`` becomes -1."""
        camera, light = scene.camera, scene.light
        scale = camera.focal / plant.z
        column, foot = camera.project(np.array([plant.x, 0.0, plant.z]))
        height, width = plant.trunk
        bark = np.array([78.0, 66.0, 54.0]) if plant.crown else plant.colour
        self._post(picture, ids, (column, foot, height * scale, width * scale), bark, plant, light)
        if plant.sign:
            top = foot - height * scale
            self._disc(picture, ids, (column, top, 0.33 * scale), plant, light)
        if plant.crown is not None:
            low, high, wide = plant.crown
            box = (column - wide / 2 * scale, foot - high * scale, wide * scale, (high - low) * scale)
            self._crown(picture, ids, box, plant, light)

    @staticmethod
    def _blend(picture: Pixels, ids: NDArray[np.int16], box: tuple[int, int, int, int],
               alpha: Pixels, colour: Pixels) -> None:  # fmt: skip
        x1, y1, x2, y2 = box
        view = picture[y1:y2, x1:x2]
        view += (colour - view) * alpha[..., None]
        ids[y1:y2, x1:x2][alpha >= 0.5] = -1

    def _post(self, picture: Pixels, ids: NDArray[np.int16], place: tuple[float, float, float, float],
              colour: Floats, plant: Plant, light: Light) -> None:  # fmt: skip
        column, foot, tall, wide = place
        box = _clip_box(column - wide / 2 - 1, foot - tall, column + wide / 2 + 1, foot, picture)
        if box is None:
            return
        x = np.arange(box[0], box[2], dtype=np.float32) + 0.5
        across = (x - column) / max(wide / 2, 0.3)
        alpha = np.clip((1 - np.abs(across)) * max(wide / 2, 0.3) + 0.5, 0, 1)
        side = np.sign(light.sun[0]) * np.clip(across, -1, 1)
        tone = light.ambient * 0.85 + light.sun_strength * np.clip(0.35 + 0.5 * side, 0, 1)
        lit = light.fade(colour * tone[:, None] * light.tint, plant.z).astype(np.float32)
        rows = box[3] - box[1]
        self._blend(picture, ids, box, np.tile(alpha.astype(np.float32), (rows, 1)),
                    np.broadcast_to(lit, (rows, *lit.shape)))  # fmt: skip

    def _disc(self, picture: Pixels, ids: NDArray[np.int16], disc: tuple[float, float, float],
              plant: Plant, light: Light) -> None:  # fmt: skip
        column, row, radius = disc
        box = _clip_box(column - radius - 1, row - radius - 1, column + radius + 1, row + radius + 1, picture)  # fmt: skip
        if box is None:
            return
        y, x = np.mgrid[box[1] : box[3], box[0] : box[2]].astype(np.float32) + 0.5
        distance = np.hypot(x - column, y - row)
        tone = light.ambient + 0.3 * light.sun_strength
        white, red = np.array([225.0, 225.0, 225.0]), np.array([190.0, 30.0, 34.0])
        ring = np.clip(distance - 0.7 * radius + 0.5, 0, 1)[..., None]
        colour = light.fade((white * (1 - ring) + red * ring) * tone, plant.z).astype(np.float32)
        self._blend(picture, ids, box, np.clip(radius - distance + 0.5, 0, 1), colour)

    def _crown(self, picture: Pixels, ids: NDArray[np.int16], place: tuple[float, float, float, float],
               plant: Plant, light: Light) -> None:  # fmt: skip
        left, top, wide, tall = place
        cut = self.rng.uniform(0, self.size * 0.48, 2)
        box = _clip_box(left, top, left + wide, top + tall, picture)
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
        self._blend(picture, ids, box, alpha.astype(np.float32), lit)


def _clip_box(x1: float, y1: float, x2: float, y2: float,
              picture: Pixels) -> tuple[int, int, int, int] | None:  # fmt: skip
    height, width = picture.shape[:2]
    box = (max(int(x1), 0), max(int(y1), 0), min(int(np.ceil(x2)), width), min(int(np.ceil(y2)), height))
    return box if box[2] > box[0] and box[3] > box[1] else None
