"""Drawn road scenes with exact KITTI labels: for tests, and a first training without a download.

A street seen by a level pinhole camera; cars, vans, pedestrians and cyclists are flat polygons, far
things first. World coordinates are meters: x to the right, y up from the road, z ahead of the
camera. The same seed and size give the same pixels and labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from squeezedet.data.kitti import format_labels
from squeezedet.data.sample import DONT_CARE, Objects
from squeezedet.drawing import encode_picture
from squeezedet.errors import UsageError
from squeezedet.files import write_atomic

MIN_SIZE = (64, 32)
MIN_HEIGHT_PX = 11.0
"""An object that is lower is labelled DontCare."""
MIN_VISIBLE = 0.12
"""So is one of which a smaller share of the pixels is seen ..."""
MAX_TRUNCATED = 0.85
"""... or more of whose box is outside the picture."""
MAX_OBJECTS = 12
EMPTY_SHARE = 0.03
NEAREST = 1.3
"""What stands nearer to the camera, in meters, is not drawn."""
SCALE = 2
"""Pixels are drawn so many times finer and averaged, which smooths the edges."""
JPEG_QUALITY = 92
LANE_M, PARKING_M, WALK_M = 3.4, 2.2, 2.6
KINDS, KIND_SHARES = ("Car", "Van", "Pedestrian", "Cyclist"), (0.58, 0.08, 0.2, 0.14)
SIZES_M = {
    "Car": (4.2, 1.78, 1.48),
    "Van": (5.0, 1.95, 2.05),
    "Pedestrian": (0.5, 0.5, 1.75),
    "Cyclist": (1.75, 0.6, 1.75),
}
"""Length, width and height."""
PAINTS = ((212, 214, 216), (38, 40, 44), (128, 132, 138), (150, 34, 32), (38, 62, 118), (178, 160, 120), (70, 108, 148))
CLOTHES = ((34, 38, 58), (120, 36, 40), (60, 92, 60), (196, 190, 178), (70, 96, 152), (206, 168, 60), (112, 84, 66))
SKINS = ((236, 200, 172), (198, 150, 112), (120, 82, 58))
GLASS, RUBBER, SHADOW = (52, 64, 76), (24, 24, 26), (52, 52, 56)

Floats = NDArray[np.float64]
Color = Sequence[float]


def generate(seed: int, width: int = 1248, height: int = 384) -> tuple[NDArray[np.uint8], Objects]:
    """Draw one road scene; width and height in pixels.

    Returns:
        The picture, (height, width, 3) uint8 RGB, and its labels, nearest first. A box
        holds the whole silhouette, also where something nearer covers it, cut to the picture.
        ``truncated`` is the share of the uncut box outside; ``occluded`` follows from the
        share of the object's pixels that are seen: 0 from 90 %, 1 from 50 %, 2 below.

    Raises:
        UsageError: a negative seed, or a picture smaller than 64x32.
    """
    if seed < 0:
        raise UsageError(f"the seed of a drawn scene is 0 or more, not {seed}")
    if width < MIN_SIZE[0] or height < MIN_SIZE[1]:
        raise UsageError(f"a drawn scene has at least {MIN_SIZE[0]}x{MIN_SIZE[1]} pixels, not {width}x{height}")
    rng = np.random.default_rng(seed)
    painter = Painter(rng, width, height)
    lanes = int(rng.integers(1, 3))
    half_m = lanes * LANE_M + (PARKING_M if rng.random() < 0.5 else 0.0)
    _draw_street(painter, rng, half_m)
    actors = sorted(_random_actors(rng, painter, half_m, lanes), key=lambda actor: -actor.z)
    for actor in actors:
        actor.draw_shadow(painter)
    boxes, totals = [], []
    for number, actor in enumerate(actors, start=1):
        painter.begin(number)
        actor.draw(painter, rng)
        boxes.append(painter.extent())
        totals.append(painter.silhouette())
    visible = np.bincount(np.asarray(painter.owners).ravel(), minlength=len(actors) + 1)[1:]
    kinds = [actor.kind for actor in actors]
    return painter.photograph(rng), _labels(kinds, boxes, totals, visible, width, height)


def write_folder(
    root: Path | str, count: int, seed: int = 0, width: int = 1248, height: int = 384, val_fraction: float = 0.1
) -> None:
    """Write ``count`` scenes of the seeds from ``seed`` on as a KITTI folder.

    ``image_2/*.jpg``, ``label_2/*.txt``, and ``manifest.tsv`` with the splits: the share ``val_fraction`` of the
    scenes, the last ones, is ``val``, the others are ``train``.

    Raises:
        UsageError: as ``generate``; no scenes asked for, or a share outside 0 to 1.
        OSError: the place cannot be written.
    """
    if count < 1:
        raise UsageError(f"a folder holds at least one scene, not {count}")
    if not 0 <= val_fraction <= 1:
        raise UsageError(f"the val fraction is a share from 0 to 1, not {val_fraction:g}")
    root = Path(root)
    (root / "image_2").mkdir(parents=True, exist_ok=True)
    train = count - round(count * val_fraction)
    lines = ["id\tsplit"]
    for i in range(count):
        pixels, objects = generate(seed + i, width, height)
        name = f"{i:06d}"
        picture = encode_picture(Image.fromarray(pixels), quality=JPEG_QUALITY)
        write_atomic(root / "image_2" / f"{name}.jpg", picture)
        write_atomic(root / "label_2" / f"{name}.txt", format_labels(objects))
        lines.append(f"{name}\t{'train' if i < train else 'val'}")
    write_atomic(root / "manifest.tsv", "\n".join(lines) + "\n")


def _labels(
    kinds: Sequence[str],
    boxes: Sequence[tuple[float, float, float, float]],
    totals: Sequence[int],
    visible: NDArray[np.int64],
    width: int,
    height: int,
) -> Objects:
    """Labels of actors given far to near: uncut boxes, pixels of each silhouette, pixels seen."""
    rows = []
    for kind, (x1, y1, x2, y2), total, seen in zip(kinds, boxes, totals, visible, strict=True):
        cut = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        if cut[2] - cut[0] < 1 or cut[3] - cut[1] < 1 or not total:
            continue
        inside = (cut[2] - cut[0]) * (cut[3] - cut[1])
        truncated = 1 - inside / ((x2 - x1) * (y2 - y1))
        share = seen / total
        if cut[3] - cut[1] < MIN_HEIGHT_PX or share < MIN_VISIBLE or truncated > MAX_TRUNCATED:
            rows.append((DONT_CARE, cut, -1.0, -1))
        else:
            rows.append((kind, cut, truncated, 0 if share >= 0.9 else 1 if share >= 0.5 else 2))
    rows.reverse()
    return Objects(
        types=tuple(row[0] for row in rows),
        xyxy=np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        truncated=np.array([row[2] for row in rows], np.float32),
        occluded=np.array([row[3] for row in rows], np.int64),
    )


class Painter:
    """Camera, light and canvas of one scene; draws polygons given in the world's meters."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.focal = width * rng.uniform(0.54, 0.62)
        self.center_x = width * rng.uniform(0.47, 0.53)
        self.horizon = height * rng.uniform(0.43, 0.49)
        self.eye = rng.uniform(1.5, 1.75)
        azimuth, up = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 1.1)
        self.sun = np.array([np.cos(up) * np.sin(azimuth), np.sin(up), np.cos(up) * np.cos(azimuth)])
        self.sun_strength = rng.uniform(0.0, 0.65)
        self.ambient = rng.uniform(0.65, 0.95)
        self.haze = np.array([200.0, 212.0, 226.0]) * rng.uniform(0.9, 1.1)
        self.haze_m = float(np.exp(rng.uniform(np.log(140), np.log(600))))
        size = (width * SCALE, height * SCALE)
        sky = self.haze.clip(0, 255).astype(int).tolist()
        self.image = Image.new("RGB", size, (sky[0], sky[1], sky[2]))
        self.owners = Image.new("L", size)
        self._canvas, self._map = ImageDraw.Draw(self.image), ImageDraw.Draw(self.owners)
        self._owner, self._drawn = 0, list[list[tuple[float, float]]]()

    def begin(self, owner: int) -> None:
        """What follows belongs to this labelled object; 0 for none."""
        self._owner, self._drawn = owner, []

    def extent(self) -> tuple[float, float, float, float]:
        """(x1, y1, x2, y2) in pixels of all that was drawn since ``begin``, uncut."""
        points = np.concatenate(self._drawn) / SCALE
        (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return x1, y1, x2, y2

    def silhouette(self) -> int:
        """Number of fine pixels inside the picture that were drawn on since ``begin``."""
        alone = Image.new("L", self.owners.size)
        draw = ImageDraw.Draw(alone)
        for points in self._drawn:
            draw.polygon(points, fill=1)
        return int(np.count_nonzero(np.asarray(alone)))

    def polygon(self, points: Floats, color: Color, shade: float = 1.0) -> None:
        """Fill (N, 3) world points with a color that the distance pales."""
        haze = 1 - float(np.exp(-points[:, 2].mean() / self.haze_m))
        lit = np.asarray(color, float) * shade * (self.ambient + 0.4 * self.sun_strength)
        fill = np.clip(lit * (1 - haze) + self.haze * haze, 0, 255).astype(int).tolist()
        z = np.maximum(points[:, 2], 0.4)
        columns = self.center_x + self.focal * points[:, 0] / z
        rows = self.horizon - self.focal * (points[:, 1] - self.eye) / z
        flat = [(x, y) for x, y in (np.stack([columns, rows], axis=1) * SCALE).tolist()]
        self._canvas.polygon(flat, fill=(fill[0], fill[1], fill[2]))
        self._map.polygon(flat, fill=self._owner)
        self._drawn.append(flat)

    def solid(self, base: Floats, top: Floats, color: Color) -> list[Floats]:
        """Draw the visible faces of a convex block, (4, 3) corners below and above, in order.

        Returns:
            The four corners of each side face that is seen.
        """
        middle = np.concatenate([base, top]).mean(axis=0)
        faces = [np.stack([base[k], base[k - 3], top[k - 3], top[k]]) for k in range(4)]
        seen = []
        for face in [*faces, top]:
            normal = np.cross(face[1] - face[0], face[2] - face[0])
            normal *= np.sign(normal @ (face.mean(axis=0) - middle)) / np.linalg.norm(normal)
            if normal @ (np.array([0.0, self.eye, 0.0]) - face.mean(axis=0)) > 0:
                light = max(float(normal @ self.sun), 0.0) * self.sun_strength
                self.polygon(face, color, 0.78 + light)
                seen.append(face)
        return [face for face in seen if face is not top]

    def disc(self, center: Sequence[float], radius: float, color: Color, stretch: float = 1.0) -> None:
        """A disc that faces the camera; ``stretch`` its width by its height."""
        turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        around = np.stack([np.cos(turn) * stretch, np.sin(turn), np.zeros(14)], axis=1)
        self.polygon(np.asarray(center, float) + radius * around, color)

    def limb(self, start: Sequence[float], end: Sequence[float], width: float, color: Color) -> None:
        """A bar that faces the camera, meters wide."""
        a, b = np.asarray(start, float), np.asarray(end, float)
        along = (b - a)[:2]
        across = np.array([-along[1], along[0], 0]) / max(float(np.hypot(*along)), 1e-6) * width / 2
        self.polygon(np.stack([a + across, b + across, b - across, a - across]), color)

    def photograph(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The picture as a camera would give it, with sensor noise."""
        fine = self.image.resize((self.width, self.height), Image.Resampling.BOX)
        grain = rng.normal(0, rng.uniform(1, 4), (self.height, self.width, 3))
        return np.clip(np.asarray(fine) + grain, 0, 255).astype(np.uint8)


def _draw_street(painter: Painter, rng: np.random.Generator, half_m: float) -> None:
    """Ground, pavements, the center line, and houses on either side, the far ones first."""

    def ground(x1: float, x2: float, z1: float, z2: float) -> Floats:
        return np.array([[x1, 0, z1], [x2, 0, z1], [x2, 0, z2], [x1, 0, z2]], float)

    grey = rng.uniform(85, 125)
    for half, color in (
        (600, (rng.uniform(70, 110), rng.uniform(95, 130), 62)),
        (half_m + WALK_M, (158, 158, 158)),
        (half_m, (grey, grey, grey + 4)),
    ):
        painter.polygon(ground(-half, half, 0.8, 400.0), color)
    for z in np.arange(3 + rng.uniform(0, 6), 120, 6.0):
        painter.polygon(ground(-0.07, 0.07, z, z + 3), (225, 225, 218))
    for side in (-1, 1):
        x = side * (half_m + WALK_M + rng.uniform(0.3, 5))
        for z in np.arange(150, 0, -16.0):
            if rng.random() < 0.75:
                wall = rng.uniform(110, 210) * np.array([1, rng.uniform(0.82, 1), rng.uniform(0.68, 0.95)])
                base = ground(x, x + side * 10, max(z + rng.uniform(-4, 4), 0.8), z + 14)
                painter.solid(base, base + np.array([0, rng.uniform(4, 14), 0]), wall.tolist())


@dataclass(frozen=True, slots=True)
class Actor:
    """A labelled thing on the street.

    Attributes:
        kind: KITTI type.
        x, z: of its middle on the ground, in meters.
        yaw: heading; 0 is away from the camera, pi / 2 to the right.
        length, width, height: in meters.
    """

    kind: str
    x: float
    z: float
    yaw: float
    length: float
    width: float
    height: float

    def reach(self) -> tuple[float, float]:
        """Half extents along x and z in meters, a little generous."""
        sin, cos = abs(np.sin(self.yaw)), abs(np.cos(self.yaw))
        across, ahead = self.length * sin + self.width * cos, self.length * cos + self.width * sin
        return across / 2 + 0.1, ahead / 2 + 0.1

    def at(self, ahead: float, left: float, up: float) -> Floats:
        """A (3,) world point given in the thing's own directions."""
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        return np.array([self.x + ahead * sin - left * cos, up, self.z + ahead * cos + left * sin])

    def rectangle(self, back: float, front: float, side: float, up: float) -> Floats:
        """(4, 3) corners of a level rectangle."""
        corners = ((back, side), (front, side), (front, -side), (back, -side))
        return np.stack([self.at(ahead, left, up) for ahead, left in corners])

    def draw_shadow(self, painter: Painter) -> None:
        """What lies under it on the road."""
        half = self.length / 2
        painter.polygon(self.rectangle(-half, half, self.width / 2 + 0.1, 0.0), SHADOW)

    def draw(self, painter: Painter, rng: np.random.Generator) -> None:
        """The thing itself."""
        draw = {"Pedestrian": _draw_pedestrian, "Cyclist": _draw_cyclist}.get(self.kind, _draw_car)
        draw(painter, rng, self)


def _random_actors(rng: np.random.Generator, painter: Painter, half_m: float, lanes: int) -> list[Actor]:
    """Who is on the street: in view, and none in another's place."""
    if rng.random() < EMPTY_SHARE:
        return []
    count = int(np.clip(1 + rng.gamma(1.6, 2.6), 1, MAX_OBJECTS))
    far = max(1.25 * painter.focal * 1.5 / MIN_HEIGHT_PX, 20.0)
    actors: list[Actor] = []
    for _ in range(12 * count):
        if len(actors) == count:
            break
        # The first stands near, so that a scene that is not empty shows something.
        actor = _random_actor(rng, half_m, lanes, far if actors else 20.0)
        across, ahead = actor.reach()
        column = painter.center_x + painter.focal * actor.x / actor.z
        margin = 0.6 * painter.focal * across / actor.z
        free = all(
            abs(actor.x - other.x) > across + other.reach()[0] or abs(actor.z - other.z) > ahead + other.reach()[1]
            for other in actors
        )
        if free and actor.z - ahead > NEAREST and -margin < column < painter.width + margin:
            actors.append(actor)
    return actors


def _random_actor(rng: np.random.Generator, half_m: float, lanes: int, far: float) -> Actor:
    """Traffic keeps to the right; people walk beside the road or cross it."""
    kind = str(rng.choice(KINDS, p=KIND_SHARES))
    ahead = rng.random() < 0.5
    side = 1 if ahead else -1
    yaw = rng.normal(0, 0.03) + (0.0 if ahead else np.pi)
    crossing = rng.random() < 0.3
    length, width, height = (size * rng.uniform(0.9, 1.08) for size in SIZES_M[kind])
    if kind in ("Car", "Van"):
        z = float(np.exp(rng.uniform(np.log(6.5), np.log(far))))
        parked = half_m > lanes * LANE_M and rng.random() < 0.5
        x = side * (half_m - 1.1 if parked else (rng.integers(lanes) + 0.5) * LANE_M)
        if crossing:
            x, yaw = rng.uniform(1 - half_m, half_m - 1), rng.uniform(0, 2 * np.pi)
    else:
        z = float(np.exp(rng.uniform(np.log(4.5), np.log(max(far * 0.75, 5.5)))))
        x = side * (half_m + (rng.uniform(0.3, WALK_M - 0.3) if kind == "Pedestrian" else -rng.uniform(0.5, 1.2)))
        if crossing:
            x, yaw = rng.uniform(-half_m, half_m), np.pi / 2 * rng.choice([-1, 1]) + rng.normal(0, 0.2)
    return Actor(kind, x + rng.normal(0, 0.15), z, yaw, length, width, height)


def _draw_car(painter: Painter, rng: np.random.Generator, car: Actor) -> None:
    """A body, a cabin with panes, and the wheels; a van's cabin reaches over its length."""
    paint = PAINTS[rng.integers(len(PAINTS))]
    half, side, waist = car.length / 2, car.width / 2, car.height * rng.uniform(0.52, 0.6)

    def rectangle(back: float, front: float, inset: float, up: float) -> Floats:
        return car.rectangle(back * half, front * half, side * inset, up)

    painter.solid(rectangle(-1, 1, 1, 0.22), rectangle(-0.97, 0.95, 0.96, waist), paint)
    below, above = ((-0.96, 0.6), (-0.94, 0.36)) if car.kind == "Van" else ((-0.86, 0.42), (-0.6, 0.12))
    for pane in painter.solid(rectangle(*below, 0.93, waist), rectangle(*above, 0.76, car.height), paint):
        painter.polygon(pane.mean(axis=0) + (pane - pane.mean(axis=0)) * 0.82, GLASS)
    near = 1 if np.linalg.norm(car.at(0, side, 0)) < np.linalg.norm(car.at(0, -side, 0)) else -1
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    for ahead in (-0.6 * half, 0.62 * half):
        rim = [car.at(ahead + 0.32 * np.cos(t), near * side, 0.32 + 0.32 * np.sin(t)) for t in turn]
        painter.polygon(np.stack(rim), RUBBER)


def _draw_pedestrian(painter: Painter, rng: np.random.Generator, person: Actor) -> None:
    """Legs that walk, arms, a torso and a head."""
    top, legs = (CLOTHES[k] for k in rng.integers(len(CLOTHES), size=2))
    tall, sideways = person.height, abs(float(np.sin(person.yaw)))
    stride = (0.05 + rng.uniform(0.05, 0.16) * sideways) * tall
    half = (0.095 + 0.05 * (1 - sideways)) * tall

    def point(x: float, up: float) -> tuple[float, float, float]:
        return person.x + x, up * tall, person.z

    for way in (-1, 1):
        painter.limb(point(0.02 * way, 0.5), point(stride * way, 0.0), 0.09 * tall, legs)
        painter.limb(point(way * half * 0.85, 0.8), point(way * (half + stride / 2), 0.45), 0.06 * tall, top)
    painter.limb(point(0, 0.47), point(0, 0.85), 2 * half, top)
    painter.disc(point(0, 0.925), 0.075 * tall, SKINS[rng.integers(len(SKINS))], 0.8)


def _draw_cyclist(painter: Painter, rng: np.random.Generator, rider: Actor) -> None:
    """Two wheels, a frame, and who sits on it, leaning forward."""
    top, legs, frame = (CLOTHES[k] for k in rng.integers(len(CLOTHES), size=3))
    sin = float(np.sin(rider.yaw))
    along = float(np.copysign(max(abs(sin), 0.12), sin))

    def point(ahead: float, up: float) -> tuple[float, float, float]:
        return rider.x + ahead * along, up, rider.z

    for hub in (-0.53, 0.53):
        painter.disc(point(hub, 0.34), 0.34, RUBBER, abs(along))
        painter.disc(point(hub, 0.34), 0.27, (120, 122, 120), abs(along))
    saddle, bar, pedals = point(-0.2, 0.95), point(0.42, 1.02), point(0.0, 0.32)
    for a, b in ((saddle, pedals), (pedals, bar), (saddle, bar), (bar, point(0.53, 0.34))):
        painter.limb(a, b, 0.05, frame)
    painter.limb(saddle, point(0.18, 0.75), 0.15, legs)
    painter.limb(point(0.18, 0.75), pedals, 0.11, legs)
    neck = point(0.12, 0.86 * rider.height)
    painter.limb(neck, bar, 0.09, top)
    painter.limb(saddle, neck, 0.24 + 0.16 * (1 - abs(along)), top)
    painter.disc(point(0.17, 0.94 * rider.height), 0.12, SKINS[rng.integers(len(SKINS))], 0.85)
