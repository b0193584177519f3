"""Drawn road scenes with exact KITTI labels: for tests, and a first training without a download.

A street seen by a level pinhole camera; cars, vans, pedestrians and cyclists are drawn from
flat polygons, far things first. World coordinates are metres: x to the right, y up from the
road, z ahead of the camera. The same seed and size give the same pixels and labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

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
"""What stands nearer to the camera, in metres, is not drawn."""
SCALE = 2
"""Pixels are drawn so many times finer and averaged, which smooths the edges."""
JPEG_QUALITY = 92
KINDS, KIND_SHARES = ("Car", "Van", "Pedestrian", "Cyclist"), (0.58, 0.08, 0.2, 0.14)
PAINTS = (
    (212, 214, 216), (38, 40, 44), (128, 132, 138), (150, 34, 32), (38, 62, 118), (232, 230, 222),
    (74, 84, 76), (178, 160, 120), (196, 124, 34), (70, 108, 148),
)  # fmt: skip
CLOTHES = (
    (34, 38, 58), (120, 36, 40), (60, 92, 60), (196, 190, 178), (48, 48, 50), (70, 96, 152),
    (206, 168, 60), (112, 84, 66), (170, 96, 120),
)  # fmt: skip
SKINS = ((236, 200, 172), (198, 150, 112), (120, 82, 58))
GLASS, RUBBER = (52, 64, 76), (24, 24, 26)

Floats = NDArray[np.float64]
Color = tuple[int, int, int]


def generate(seed: int, width: int = 1248, height: int = 384) -> tuple[NDArray[np.uint8], Objects]:
    """Draw one road scene.

    Args:
        seed: 0 or more.
        width: of the picture in pixels, at least 64.
        height: of the picture in pixels, at least 32.

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
    street = Street(rng)
    street.draw(painter, rng)
    actors = sorted(random_actors(rng, street, painter), key=lambda actor: -actor.z)
    for actor in actors:
        actor.draw_shadow(painter)
    boxes, totals = [], []
    for number, actor in enumerate(actors, start=1):
        painter.begin(number)
        actor.draw(painter, np.random.default_rng(actor.seed))
        boxes.append(painter.extent())
        totals.append(painter.silhouette())
    visible = np.bincount(np.asarray(painter.owners).ravel(), minlength=len(actors) + 1)[1:]
    kinds = [actor.kind for actor in actors]
    return painter.photograph(rng), _labels(kinds, boxes, totals, visible, width, height)


def write_folder(
    root: Path | str, count: int, seed: int = 0, width: int = 1248, height: int = 384, val_fraction: float = 0.1
) -> None:
    """Write ``count`` scenes as a KITTI folder.

    Args:
        root: gets ``image_2/*.jpg``, ``label_2/*.txt`` and ``manifest.tsv`` with the splits.
        count: number of scenes; scene i has the seed ``seed + i``.
        seed: of the first scene.
        width: of the pictures in pixels.
        height: of the pictures in pixels.
        val_fraction: share of the scenes, the last ones, in split ``val``; the others are
            ``train``.

    Raises:
        UsageError: as ``generate``; no scenes asked for, or a share outside 0 to 1.
        OSError: the place cannot be written.
    """
    if count < 1:
        raise UsageError(f"a folder holds at least one scene, not {count}")
    if not 0 <= val_fraction <= 1:
        raise UsageError(f"the val fraction is a share from 0 to 1, not {val_fraction:g}")
    from squeezedet.data.kitti import format_labels

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
    """Camera, light and canvas of one scene; draws polygons given in the world's metres."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.focal = width * rng.uniform(0.54, 0.62)
        self.center_x = width * rng.uniform(0.47, 0.53)
        self.horizon = height * rng.uniform(0.43, 0.49)
        self.eye = rng.uniform(1.5, 1.75)
        overcast = rng.random() < 0.35
        azimuth, up = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 1.1)
        self.sun = np.array([np.cos(up) * np.sin(azimuth), np.sin(up), np.cos(up) * np.cos(azimuth)])
        self.sun_strength = rng.uniform(0.0, 0.15) if overcast else rng.uniform(0.35, 0.65)
        self.ambient = rng.uniform(0.65, 0.95) if overcast else rng.uniform(0.5, 0.65)
        self.haze = np.array([200.0, 212.0, 226.0]) * rng.uniform(0.9, 1.1)
        self.haze_m = float(np.exp(rng.uniform(np.log(140), np.log(600))))
        size = (width * SCALE, height * SCALE)
        self.image = Image.new("RGB", size)
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

    def project(self, points: Floats) -> Floats:
        """(N, 3) world points to (N, 2) columns and rows of the picture."""
        z = np.maximum(points[:, 2], 0.4)
        x = self.center_x + self.focal * points[:, 0] / z
        return np.stack([x, self.horizon - self.focal * (points[:, 1] - self.eye) / z], axis=1)

    def polygon(self, points: Floats, color: Sequence[float], shade: float = 1.0) -> None:
        """Fill (N, 3) world points with a color that the distance pales."""
        haze = 1 - float(np.exp(-points[:, 2].mean() / self.haze_m))
        lit = np.asarray(color, float) * shade * (self.ambient + 0.4 * self.sun_strength)
        fill = np.clip(lit * (1 - haze) + self.haze * haze, 0, 255).astype(int)
        flat = [(x, y) for x, y in (self.project(points) * SCALE).tolist()]
        self._canvas.polygon(flat, fill=(int(fill[0]), int(fill[1]), int(fill[2])))
        self._map.polygon(flat, fill=self._owner)
        self._drawn.append(flat)

    def sky(self, rng: np.random.Generator) -> None:
        """Brighter towards the horizon, with clouds."""
        share = np.linspace(0, 1, int(self.horizon * SCALE) + 4)[:, None]
        rows = self.haze * (np.array([0.6, 0.76, 0.98]) * (1 - share) + share)
        for row, color in enumerate(rows.clip(0, 255).astype(int).tolist()):
            self._canvas.line([(0, row), (self.image.width, row)], fill=tuple(color))
        for _ in range(rng.integers(0, 6)):
            x, y = rng.uniform(0, self.image.width), rng.uniform(0, self.horizon * SCALE * 0.7)
            w, h = self.image.width * rng.uniform(0.04, 0.16), self.image.height * 0.04
            light = tuple(np.clip(self.haze * 1.08, 0, 255).astype(int).tolist())
            self._canvas.ellipse((x - w, y - h, x + w, y + h), fill=light)

    def solid(self, base: Floats, top: Floats, color: Color) -> list[Floats]:
        """Draw the visible faces of a convex block, (4, 3) corners below and above, in order.

        Returns:
            The four corners of each side face that is seen, else an empty array.
        """
        middle = np.concatenate([base, top]).mean(axis=0)
        faces = [np.stack([base[k], base[(k + 1) % 4], top[(k + 1) % 4], top[k]]) for k in range(4)]
        seen = []
        for face in [*faces, top]:
            normal = np.cross(face[1] - face[0], face[2] - face[0])
            normal *= np.sign(normal @ (face.mean(axis=0) - middle)) / np.linalg.norm(normal)
            visible = normal @ (np.array([0.0, self.eye, 0.0]) - face.mean(axis=0)) > 0
            if visible:
                light = max(float(normal @ self.sun), 0.0) * self.sun_strength
                self.polygon(face, color, 0.78 + light)
            seen.append(face if visible else np.empty((0, 3)))
        return seen[:4]

    def photograph(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The picture as a camera would give it, with sensor noise."""
        fine = self.image.resize((self.width, self.height), Image.Resampling.BOX)
        grain = rng.normal(0, rng.uniform(1, 4), (self.height, self.width, 3))
        return np.clip(np.asarray(fine) + grain, 0, 255).astype(np.uint8)


class Street:
    """A straight street along z: kerbs, lanes, pavements, houses and trees beside them."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.lane = rng.uniform(3.0, 3.6)
        self.lanes = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))  # oncoming, ahead
        self.parking = tuple(2.2 if rng.random() < 0.5 else 0.0 for _ in range(2))
        self.center = -self.lane / 2 + rng.uniform(-0.35, 0.35)
        self.left = self.center - self.lanes[0] * self.lane - self.parking[0]
        self.right = self.center + self.lanes[1] * self.lane + self.parking[1]
        self.walk = rng.uniform(1.8, 3.5)

    def draw(self, painter: Painter, rng: np.random.Generator) -> None:
        """Sky, ground, markings, houses and trees."""
        painter.sky(rng)
        grey = rng.uniform(85, 125)
        green = (rng.uniform(70, 110), rng.uniform(95, 130), 62)
        near, far = 0.8, 400.0
        painter.polygon(_ground(-600, 600, near, far), green)
        painter.polygon(_ground(self.left - self.walk, self.right + self.walk, near, far), (158,) * 3)
        painter.polygon(_ground(self.left - 0.15, self.right + 0.15, near, far), (190, 188, 184))
        painter.polygon(_ground(self.left, self.right, near, far), (grey, grey, grey + 4))
        for _ in range(12):  # patches and cracks
            x, z = rng.uniform(self.left, self.right), rng.uniform(3, 50)
            shade = rng.uniform(0.86, 1.08)
            patch = _ground(x, x + rng.uniform(0.2, 1.5), z, z + rng.uniform(0.5, 8))
            painter.polygon(patch, (grey, grey, grey), shade)
        lines = [self.center + k * self.lane for k in range(1 - self.lanes[0], self.lanes[1])]
        for x in lines:
            for z in np.arange(3 + rng.uniform(0, 6), 120, 6.0):
                painter.polygon(_ground(x - 0.07, x + 0.07, z, z + 3), (225, 225, 218))
        if rng.random() < 0.3:
            z = rng.uniform(8, 30)
            for x in np.arange(self.left + 0.3, self.right - 0.5, 1.0):
                painter.polygon(_ground(x, x + 0.5, z, z + 3), (225, 225, 218))
        self._sides(painter, rng)

    def _sides(self, painter: Painter, rng: np.random.Generator) -> None:
        """Houses and trees on either side, the far ones first."""
        for side, edge in ((-1, self.left - self.walk), (1, self.right + self.walk)):
            back = edge + side * rng.choice([0.3, rng.uniform(2, 7)])
            starts = np.cumsum(rng.uniform(8, 22, 14))[::-1] - 6
            for z in starts.tolist():
                if rng.random() < 0.75:
                    _house(painter, rng, back, side, z, z + rng.uniform(7, 16))
                if rng.random() < 0.45:
                    _tree(painter, rng, edge - side * 0.5, z)


def _ground(x1: float, x2: float, z1: float, z2: float) -> Floats:
    return np.array([[x1, 0, z1], [x2, 0, z1], [x2, 0, z2], [x1, 0, z2]], float)


def _house(painter: Painter, rng: np.random.Generator, x: float, side: int, z1: float, z2: float) -> None:
    height, deep = rng.uniform(4, 14), x + side * 10
    z1 = max(z1, 0.8)
    wall = rng.uniform(110, 210) * np.array([1, rng.uniform(0.82, 1), rng.uniform(0.68, 0.95)])
    base = np.array([[x, 0, z1], [deep, 0, z1], [deep, 0, z2], [x, 0, z2]])
    color = (int(wall[0]), int(wall[1]), int(wall[2]))
    painter.solid(base, base + np.array([0, height, 0]), color)
    for y in np.arange(1.2, height - 1.5, 2.9):
        for z in np.arange(z1 + 1, z2 - 1.2, rng.uniform(2.2, 3.4)):
            window = np.array([[x, y, z], [x, y, z + 1], [x, y + 1.4, z + 1], [x, y + 1.4, z]])
            painter.polygon(window, GLASS, rng.uniform(0.8, 1.6))


def _tree(painter: Painter, rng: np.random.Generator, x: float, z: float) -> None:
    z, height = max(z, 5.0), rng.uniform(2.5, 5.0)
    _limb(painter, (x, 0, z), (x, height, z), 0.25, (84, 66, 50))
    green = (rng.uniform(40, 90), rng.uniform(80, 120), 40)
    for _ in range(9):
        center = np.array([x, height, z]) + rng.uniform(-1, 1, 3) * [1.1, 1.2, 0]
        painter.polygon(_disc(center, rng.uniform(0.6, 1.1)), green, rng.uniform(0.75, 1.15))


def _disc(center: Sequence[float] | Floats, radius: float, stretch: float = 1.0) -> Floats:
    """A circle that faces the camera, as 14 corners; ``stretch`` its width by its height."""
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    around = np.stack([np.cos(turn) * stretch, np.sin(turn), np.zeros(14)], axis=1)
    return np.asarray(center, float) + radius * around


def _limb(
    painter: Painter,
    start: Sequence[float],
    end: Sequence[float],
    width: float,
    color: Sequence[float],
    shade: float = 1.0,
) -> None:
    """A bar that faces the camera, metres wide."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    along = (b - a)[:2]
    across = np.array([-along[1], along[0], 0]) / max(float(np.hypot(*along)), 1e-6) * width / 2
    painter.polygon(np.stack([a + across, b + across, b - across, a - across]), color, shade)


@dataclass(frozen=True, slots=True)
class Actor:
    """A labelled thing on the street.

    Attributes:
        kind: KITTI type.
        x, z: of its middle on the ground, in metres.
        yaw: heading; 0 is away from the camera, pi / 2 to the right.
        seed: decides how it looks.
        length, width, height: in metres.
    """

    kind: str
    x: float
    z: float
    yaw: float
    seed: int
    length: float
    width: float
    height: float

    def reach(self) -> tuple[float, float]:
        """Half extents along x and z in metres, a little generous."""
        sin, cos = abs(np.sin(self.yaw)), abs(np.cos(self.yaw))
        across, ahead = self.length * sin + self.width * cos, self.length * cos + self.width * sin
        return across / 2 + 0.1, ahead / 2 + 0.1

    def at(self, ahead: float, left: float, up: float) -> Floats:
        """A (3,) world point given in the thing's own directions."""
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        return np.array([self.x + ahead * sin - left * cos, up, self.z + ahead * cos + left * sin])

    def rectangle(self, back: float, front: float, half: float, up: float) -> Floats:
        """(4, 3) corners of a level rectangle."""
        corners = ((back, half), (front, half), (front, -half), (back, -half))
        return np.stack([self.at(ahead, left, up) for ahead, left in corners])

    def draw_shadow(self, painter: Painter) -> None:
        """What lies under it on the road."""
        half = self.length / 2
        painter.polygon(self.rectangle(-half, half, self.width / 2 + 0.1, 0.0), (52, 52, 56))

    def draw(self, painter: Painter, rng: np.random.Generator) -> None:
        """The thing itself."""
        draw = {"Pedestrian": _draw_pedestrian, "Cyclist": _draw_cyclist}.get(self.kind, _draw_car)
        draw(painter, rng, self)


def random_actors(rng: np.random.Generator, street: Street, painter: Painter) -> list[Actor]:
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
        actor = _random_actor(rng, street, far if actors else 20.0)
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


def _random_actor(rng: np.random.Generator, street: Street, far: float) -> Actor:
    kind = str(rng.choice(KINDS, p=KIND_SHARES))
    seed = int(rng.integers(2**31))
    ahead = rng.random() < 0.5
    if kind in ("Car", "Van"):
        z = float(np.exp(rng.uniform(np.log(6.5), np.log(far))))
        parked = street.parking[ahead] > 0 and rng.random() < 0.5
        lane = (rng.integers(street.lanes[ahead]) + 0.5) * street.lane
        kerb = street.right - 1.1 if ahead else street.left + 1.1
        x = kerb if parked else street.center + (lane if ahead else -lane)
        yaw = rng.normal(0, 0.03) + (0.0 if ahead else np.pi)
        if rng.random() < 0.25:  # turning or crossing
            x, yaw = rng.uniform(street.left + 1, street.right - 1), rng.uniform(0, 2 * np.pi)
        size = (4.2, 1.78, 1.48) if kind == "Car" else (5.0, 1.95, 2.05)
        length, width, height = (side * rng.uniform(0.92, 1.08) for side in size)
        return Actor(kind, x + rng.normal(0, 0.15), z, yaw, seed, length, width, height)
    z = float(np.exp(rng.uniform(np.log(4.5), np.log(max(far * 0.75, 5.5)))))
    crossing = rng.random() < 0.35
    yaw = (np.pi / 2 * rng.choice([-1, 1]) if crossing else 0.0 if ahead else np.pi) + rng.normal(0, 0.2)
    if kind == "Pedestrian":
        beside = rng.uniform(0.3, street.walk - 0.3)
        x = street.right + beside if ahead else street.left - beside
        x = rng.uniform(street.left, street.right) if crossing else x
        height = rng.uniform(1.55, 1.9) if rng.random() < 0.9 else rng.uniform(1.1, 1.4)
        return Actor(kind, x, z, yaw, seed, 0.5, 0.5, height)
    x = street.right - rng.uniform(0.5, 1.2) if ahead else street.left + rng.uniform(0.5, 1.2)
    x = rng.uniform(street.left + 0.5, street.right - 0.5) if crossing else x
    return Actor(kind, x, z, yaw, seed, 1.75, 0.6, rng.uniform(1.6, 1.85))


def _draw_car(painter: Painter, rng: np.random.Generator, car: Actor) -> None:
    """A body, a cabin with panes, wheels and lights; a van's cabin reaches over its length."""
    paint = PAINTS[rng.integers(len(PAINTS))]
    half, side, waist = car.length / 2, car.width / 2, car.height * rng.uniform(0.52, 0.6)
    base = car.rectangle(-half, half, side, 0.22)
    wheels = [(ahead, left) for ahead in (-0.6 * half, 0.62 * half) for left in (side, -side)]
    wheels.sort(key=lambda w: -float(np.linalg.norm(car.at(w[0], w[1], 0.3)[[0, 2]])))
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    rims = [np.stack([car.at(a + 0.32 * np.cos(t), left, 0.32 + 0.32 * np.sin(t)) for t in turn]) for a, left in wheels]
    for rim in rims[:2]:
        painter.polygon(rim, RUBBER)
    shoulder = car.rectangle(-half * 0.97, half * 0.95, side * 0.96, waist)
    seen = painter.solid(base, shoulder, paint)
    if car.kind == "Van":
        below, above = (-0.96, 0.6), (-0.94, 0.36)
    else:
        below, above = (-0.86, 0.42), (rng.uniform(-0.72, -0.5), 0.12)
    panes = painter.solid(
        car.rectangle(below[0] * half, below[1] * half, side * 0.93, waist),
        car.rectangle(above[0] * half, above[1] * half, side * 0.76, car.height),
        paint,
    )
    for pane in panes:
        if len(pane):
            painter.polygon(pane.mean(axis=0) + (pane - pane.mean(axis=0)) * 0.82, GLASS)
    # Sides in the order of the corners: left, front, right, back.
    for face, color in ((seen[1], (236, 236, 214)), (seen[3], (176, 30, 30))):
        if len(face):
            across, up = face[1] - face[0], face[3] - face[0]
            for start, end, low, high, shade in (
                (0.03, 0.2, 0.55, 0.85, color),
                (0.8, 0.97, 0.55, 0.85, color),
                (0.38, 0.62, 0.3, 0.5, (226, 226, 216)),
                (0.02, 0.98, 0.0, 0.2, RUBBER),
            ):
                spots = ((start, low), (end, low), (end, high), (start, high))
                painter.polygon(np.stack([face[0] + a * across + b * up for a, b in spots]), shade)
    for (ahead, left), rim in zip(wheels[2:], rims[2:], strict=True):
        if len(seen[0] if left > 0 else seen[2]):
            hub = car.at(ahead, left, 0.32)
            painter.polygon(rim, RUBBER)
            painter.polygon(hub + (rim - hub) * 0.55, (150, 150, 154))


def _draw_pedestrian(painter: Painter, rng: np.random.Generator, person: Actor) -> None:
    """Legs that walk, a torso, arms and a head."""
    top, legs = (CLOTHES[k] for k in rng.integers(len(CLOTHES), size=2))
    skin, hair = SKINS[rng.integers(3)], (rng.uniform(25, 120), rng.uniform(25, 90), 30)
    tall, stride = person.height, rng.uniform(0.05, 0.16) * person.height
    sideways = abs(float(np.sin(person.yaw)))
    spread = 0.05 * tall + stride * sideways
    half = (0.095 + 0.05 * (1 - sideways)) * tall

    def point(x: float, up: float) -> tuple[float, float, float]:
        return person.x + x, up * tall, person.z

    for way, shade in ((-1, 0.8), (1, 1.0)):
        _limb(painter, point(0.02 * way, 0.5), point(spread * way, 0.03), 0.09 * tall, legs, shade)
        _limb(painter, point(spread * way, 0.02), point(spread * way + 0.1, 0.02), 0.05, RUBBER)
        hand = point(way * (half + stride * 0.6 * sideways), 0.45)
        _limb(painter, point(way * half * 0.85, 0.8), hand, 0.06 * tall, top, shade * 0.9)
    corners = ((-0.9 * half, 0.47), (0.9 * half, 0.47), (half, 0.8), (0.3 * half, 0.85))
    torso = [point(*c) for c in (*corners, (-0.3 * half, 0.85), (-half, 0.8))]
    painter.polygon(np.array(torso), top)
    painter.polygon(_disc(point(0, 0.925), 0.075 * tall, 0.8), hair)
    if np.cos(person.yaw) < 0.5:
        painter.polygon(_disc(point(0, 0.91), 0.058 * tall, 0.8), skin)


def _draw_cyclist(painter: Painter, rng: np.random.Generator, rider: Actor) -> None:
    """Two wheels, a frame, and who sits on it, leaning forward."""
    top, legs, frame = (CLOTHES[k] for k in rng.integers(len(CLOTHES), size=3))
    skin, tall = SKINS[rng.integers(3)], rider.height
    along = float(np.sin(rider.yaw))
    along = float(np.copysign(max(abs(along), 0.12), along))

    def point(ahead: float, up: float, left: float = 0.0) -> tuple[float, float, float]:
        return rider.x + ahead * along - left * float(np.cos(rider.yaw)), up, rider.z

    for hub in (-0.53, 0.53):
        rim = _disc(point(hub, 0.34), 0.33, abs(along))
        for a, b in zip(rim, np.roll(rim, 1, axis=0), strict=True):
            _limb(painter, a.tolist(), b.tolist(), 0.05, RUBBER)
    saddle, bar, pedals = point(-0.2, 0.95), point(0.42, 1.02), point(0.0, 0.32)
    for a, b in ((saddle, pedals), (pedals, bar), (saddle, bar), (bar, point(0.53, 0.34)),
                 (saddle, point(-0.53, 0.34))):  # fmt: skip
        _limb(painter, a, b, 0.05, frame)
    _limb(painter, point(0.42, 1.05, -0.28), point(0.42, 1.05, 0.28), 0.05, RUBBER)
    for left, foot in ((-0.1, 0.16), (0.1, 0.42)):
        knee = point(0.18, 0.62 + foot / 2, left)
        _limb(painter, point(-0.18, 0.98, left), knee, 0.15, legs)
        _limb(painter, knee, point(0.02, foot, left), 0.11, legs)
    neck = point(0.12, 0.86 * tall)
    for left in (-0.2, 0.2):
        _limb(painter, point(0.1, 0.82 * tall, left), point(0.42, 1.06, left * 1.2), 0.09, top, 0.85)
    _limb(painter, point(-0.18, 0.92), neck, 0.24 + 0.16 * (1 - abs(along)), top)
    painter.polygon(_disc(point(0.17, 0.925 * tall), 0.12, 0.85), skin)
    helmet = _disc(point(0.16, 0.955 * tall), 0.12, 0.95)
    painter.polygon(helmet[:8], frame)
