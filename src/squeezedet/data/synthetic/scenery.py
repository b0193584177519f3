"""The stage: sky, ground, road marks and houses. None of it is labelled."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from squeezedet.data.synthetic.camera import Camera, Floats, Light
from squeezedet.data.synthetic.scene import KERB_HEIGHT, Street

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


def cloud_noise(
    rng: np.random.Generator, width: int, height: int, cells: int, octaves: int = 2
) -> Pixels:
    """(height, width) smooth noise, about 0 to 1, its largest features width / cells wide."""
    total = np.zeros((height, width), dtype=np.float32)
    weight = 0.0
    for octave in range(octaves):
        columns = cells * 2**octave
        rows = max(2, columns * height // width + 1)
        grid = Image.fromarray(rng.random((rows + 2, columns + 2), dtype=np.float32))
        amplitude = 0.55**octave
        total += amplitude * np.asarray(grid.resize((width, height), Image.Resampling.BILINEAR))
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
    noise = cloud_noise(rng, width, top, 4, octaves=4)
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

    def ground(
        self,
        across: tuple[float, float],
        along: tuple[float, float],
        colour: Floats,
        up: float = 0.0,
    ) -> None:
        """A level rectangle between two x and two z, cut into bands so that haze grows along it."""
        (left, right), (near, far) = sorted(across), along
        near = max(near, _NEAR)
        if far <= near:
            return
        for a, b in _bands(near, far):
            corners = np.array([(left, up, a), (right, up, a), (right, up, b), (left, up, b)])
            self.polygon(corners, colour)

    def wall(
        self, x: float, along: tuple[float, float], up: tuple[float, float], colour: Floats
    ) -> None:
        """An upright rectangle along the street at x, between two z and two heights."""
        (near, far), (low, high) = along, up
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
    return [(float(a), float(b)) for a, b in pairwise(edges)]


def paint_street(rng: np.random.Generator, stage: Stage, street: Street) -> None:
    """Meadow, sidewalks, kerbs, road and its marks."""
    grass = np.array([98.0, 108.0, 62.0]) * rng.uniform(0.8, 1.1)
    asphalt = np.full(3, rng.uniform(92, 132)) + np.array([0.0, 0.0, rng.uniform(0, 5)])
    paving = np.array([158.0, 152.0, 144.0]) * rng.uniform(0.85, 1.1)
    whole = (_NEAR, _FAR)
    stage.ground((-300, 300), whole, grass)
    for edge, out, walk in (
        (street.left, -1, street.walk_left),
        (street.right, 1, street.walk_right),
    ):
        stage.ground((edge, edge + out * walk), whole, paving, KERB_HEIGHT)
        for band in _bands(*whole):
            stage.wall(edge, band, (0.0, KERB_HEIGHT), paving * 0.62)
        stage.ground((edge, edge + out * 0.15), whole, paving * 1.15, KERB_HEIGHT)
    stage.ground((street.left, street.right), whole, asphalt)
    stage.ground((street.left, street.left + 0.3), whole, asphalt * 0.8)
    stage.ground((street.right - 0.3, street.right), whole, asphalt * 0.8)
    for _ in range(rng.integers(0, 5)):
        x, z = rng.uniform(street.left, street.right - 1), rng.uniform(5, 40)
        size = rng.uniform(0.6, 1.6), rng.uniform(1, 8)
        stage.ground((x, x + size[0]), (z, z + size[1]), asphalt * rng.uniform(0.78, 1.08))
    if street.crossing is not None:
        stage.ground((-120, 120), (street.crossing - 4, street.crossing + 4), asphalt)
    white = np.full(3, rng.uniform(205, 240))
    _paint_marks(rng, stage, street, white)
    if street.zebra is not None:
        for x in np.arange(street.left + 0.4, street.right - 0.5, 1.0):
            stage.ground((x, x + 0.5), (street.zebra - 1.6, street.zebra + 1.6), white)


def _paint_marks(rng: np.random.Generator, stage: Stage, street: Street, white: Floats) -> None:
    crossing = street.crossing if street.crossing is not None else -99.0

    def line(x: float, dash: float, gap: float) -> None:
        for z in np.arange(rng.uniform(-6, 2), 110, dash + gap):
            if abs(z + dash / 2 - crossing) > 6:
                stage.ground((x - 0.07, x + 0.07), (z, z + dash), white)

    if rng.random() < 0.85:
        line(street.centre, *((6.0, 0.0) if rng.random() < 0.2 else (3.0, 4.5)))
    for k in range(1 - street.lanes[0], street.lanes[1]):
        if k != 0:
            line(street.centre + k * street.lane, 3.0, 5.0)
    for x, width in (
        (street.right - 0.3 - street.parking_right, street.parking_right),
        (street.left + 0.3 + street.parking_left, street.parking_left),
    ):
        if width and rng.random() < 0.7:
            line(x, 6.0, 0.0)


def paint_houses(rng: np.random.Generator, stage: Stage, street: Street) -> None:
    """A row on each side, far ones first, with gaps and the opening of the side street."""
    crossing = street.crossing if street.crossing is not None else -99.0
    for side in (-1, 1):
        if side < 0:
            front = street.left - street.walk_left - street.front_left
        else:
            front = street.right + street.walk_right + street.front_right
        density = rng.choice([0.95, 0.8, 0.35])
        z, lots = float(rng.uniform(-14, 0)), []
        while z < 170:
            end = z + rng.uniform(8, 22)
            if z < crossing + 6 and end > crossing - 6:
                z = crossing + 6.5
                continue
            if rng.random() < density and end > 2.5:
                lots.append((max(z, _NEAR), end))
            z = end + (0.0 if rng.random() < 0.6 else rng.uniform(1, 6))
        for lot in reversed(lots):
            _paint_house(rng, stage, front, lot)


def _paint_house(
    rng: np.random.Generator, stage: Stage, x: float, lot: tuple[float, float]
) -> None:
    wall = np.clip(_WALLS[rng.integers(len(_WALLS))] + rng.normal(0, 8, 3), 40, 235)
    roof = _ROOFS[rng.integers(len(_ROOFS))]
    storey, storeys = rng.uniform(2.7, 3.3), int(rng.integers(2, 6))
    high = storey * storeys + 0.6
    (near, far), side = lot, np.sign(x)
    ridge, back, top = x + side * 5.5, x + side * 11, high + 4
    gable = [(x, 0, near), (x, high, near), (ridge, top, near), (back, high, near), (back, 0, near)]
    stage.polygon(np.array(gable), wall * 0.92, np.array([0.0, 0.0, -1.0]))
    slope = [(x, high, near), (x, high, far), (ridge, top, far), (ridge, top, near)]
    stage.polygon(np.array(slope), roof, np.array([-side * 0.6, 0.8, 0.0]))
    stage.wall(x, lot, (0, high), wall)
    stage.wall(x - side * 0.01, lot, (0, 0.7), wall * 0.72)
    stage.wall(x - side * 0.25, lot, (high - 0.12, high + 0.1), wall * 0.5)
    # Farther away windows are finer than pixels.
    if near < 80:
        floors = [k * storey for k in range(storeys)]
        _paint_windows(rng, stage, x - side * 0.02, lot, floors=floors, wall=wall)


def _paint_windows(rng: np.random.Generator, stage: Stage, x: float, lot: tuple[float, float],
                   *, floors: list[float], wall: Floats) -> None:  # fmt: skip
    """Windows and doors of a front; ``floors`` are the heights of the storeys."""
    glass, frame = np.array([54.0, 62.0, 72.0]), np.array([226.0, 224.0, 218.0])
    frame = frame if rng.random() < 0.7 else wall * 0.55
    pitch, wide, tall = rng.uniform(2.3, 3.4), rng.uniform(0.9, 1.5), rng.uniform(1.3, 1.7)
    shop, doors = rng.random() < 0.25, int(rng.integers(0, 3))
    detail = lot[0] < 35
    for i, z in enumerate(np.arange(lot[0] + 0.8, lot[1] - wide, pitch)):
        for floor in floors:
            if floor == 0 and i % 3 == doors:
                stage.wall(x, (z, z + 1.1), (0.1, 2.2), wall * 0.35 + 15)
                continue
            low, high = (0.5, 2.5) if shop and floor == 0 else (floor + 1, floor + 1 + tall)
            tone = glass * rng.uniform(0.6, 1.7)
            if detail:
                stage.wall(x, (z - 0.1, z + wide + 0.1), (low - 0.12, high + 0.1), frame)
            stage.wall(x, (z, z + wide), (low, high), tone)
            if detail:
                if rng.random() < 0.4:
                    stage.wall(x, (z, z + wide), (low + 0.55 * tall, high), tone * 0.4 + 90)
                bar = z + wide / 2
                stage.wall(x, (bar - 0.04, bar + 0.04), (low, high), frame)


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
