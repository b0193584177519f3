"""Cars and vans: a lofted body, a lofted cabin, and what is painted on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from squeezedet.data.synthetic.camera import Camera, Floats, Light, Patch, Pose
from squeezedet.data.synthetic.loft import Loft, Painter, loft_rings

# (along, across), -1 to 1: tail, right flank, nose.
_BODY_PLAN = np.array(
    [
        (-1, 0), (-0.997, 0.4), (-0.985, 0.72), (-0.96, 0.9), (-0.91, 0.98), (-0.8, 1.0),
        (-0.6, 1.0), (-0.3, 1.0), (0, 1.0), (0.3, 1.0), (0.55, 1.0), (0.76, 0.985),
        (0.89, 0.95), (0.95, 0.86), (0.98, 0.66), (0.995, 0.33), (1, 0),
    ]
)  # fmt: skip
_CABIN_PLAN = np.array(
    [
        (-1, 0), (-0.995, 0.5), (-0.975, 0.86), (-0.9, 0.98), (-0.45, 1.0), (0, 1.0),
        (0.45, 1.0), (0.88, 0.98), (0.955, 0.84), (0.99, 0.5), (1, 0),
    ]
)  # fmt: skip
_BODY_LEVELS = np.array([0.0, 0.22, 0.45, 0.68, 0.88, 1.0])
_BODY_WIDTHS = np.array([0.92, 0.975, 1.0, 0.995, 0.965, 0.9])
_BODY_LENGTHS = np.array([0.955, 0.995, 1.0, 0.99, 0.975, 0.95])
_CABIN_LEVELS = np.array([0.0, 0.45, 0.86, 0.97, 1.0])
_CABIN_ROOF = np.array([0.0, 0.42, 0.86, 1.03, 1.25])
_RUBBER = np.array([17.0, 17.0, 18.0])
_TRIM = np.array([30.0, 31.0, 33.0])


@dataclass(frozen=True, slots=True)
class Shape:
    """The proportions of a vehicle in metres; along counts forward from its middle."""

    length: float
    width: float
    height: float
    clearance: float
    belt: float
    bonnet: float
    windscreen_foot: float
    windscreen_top: float
    tail_top: float
    tail_foot: float
    roof_width: float
    wheel_radius: float
    wheels: tuple[float, float]
    panel: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Vehicle:
    """A shape and its paint, (3,) 0 to 255."""

    shape: Shape
    paint: Floats
    rims: Floats
    plate: Floats
    lamps_on: bool


_SHAPES = {
    "hatchback": Shape(
        4.0, 1.74, 1.48, 0.19, 0.95, 0.74, 1.02, 0.35, -1.5, -1.93, 0.76, 0.31, (-1.24, 1.27)
    ),
    "saloon": Shape(
        4.55, 1.8, 1.44, 0.18, 0.95, 0.72, 0.98, 0.28, -1.1, -1.8, 0.75, 0.32, (-1.35, 1.42)
    ),
    "estate": Shape(
        4.6, 1.79, 1.48, 0.18, 0.95, 0.72, 1.02, 0.32, -1.85, -2.22, 0.76, 0.32, (-1.34, 1.42)
    ),
    "offroad": Shape(
        4.5, 1.86, 1.7, 0.25, 1.08, 0.92, 0.98, 0.4, -1.8, -2.14, 0.78, 0.37, (-1.32, 1.38)
    ),
    "minivan": Shape(
        4.7, 1.9, 1.92, 0.2, 1.1, 0.9, 1.5, 0.75, -2.1, -2.3, 0.85, 0.33, (-1.5, 1.55)
    ),
    "transporter": Shape(
        5.2, 1.98, 2.35, 0.22, 1.2, 1.02, 2.0, 1.3, -2.48, -2.56, 0.9, 0.35, (-1.65, 1.75), True
    ),
}
_CARS = ("hatchback", "saloon", "estate", "offroad")
_CAR_ODDS = (0.42, 0.24, 0.2, 0.14)
_PAINTS = np.array(
    [
        (196, 199, 203), (150, 154, 160), (92, 96, 102), (34, 35, 38), (24, 26, 34),
        (225, 226, 226), (240, 240, 238), (28, 42, 84), (52, 84, 138), (142, 24, 26),
        (108, 18, 26), (34, 66, 50), (168, 150, 118), (196, 150, 30), (70, 60, 54),
    ],
    dtype=np.float64,
)  # fmt: skip


def random_vehicle(rng: np.random.Generator, kind: str) -> Vehicle:
    """A Car or a Van with its own size, paint, rims and plate."""
    if kind == "Car":
        shape = _SHAPES[str(rng.choice(_CARS, p=_CAR_ODDS))]
        paint = _PAINTS[rng.integers(len(_PAINTS))]
    else:
        shape = _SHAPES["minivan" if rng.random() < 0.5 else "transporter"]
        paint = _PAINTS[5 if rng.random() < 0.55 else rng.integers(len(_PAINTS))]
    along, across, up = rng.uniform(0.95, 1.05), rng.uniform(0.97, 1.03), rng.uniform(0.97, 1.04)
    shape = Shape(
        shape.length * along, shape.width * across, shape.height * up, shape.clearance,
        shape.belt * up, shape.bonnet * up, shape.windscreen_foot * along,
        shape.windscreen_top * along, shape.tail_top * along, shape.tail_foot * along,
        shape.roof_width * rng.uniform(0.97, 1.03), shape.wheel_radius,
        (shape.wheels[0] * along, shape.wheels[1] * along), shape.panel,
    )  # fmt: skip
    return Vehicle(
        shape,
        np.clip(paint + rng.normal(0, 6, 3), 8, 245),
        np.full(3, rng.choice([70.0, 130.0, 165.0])),
        np.array([(228.0, 228.0, 222.0), (226.0, 200.0, 70.0)][int(rng.random() < 0.12)]),
        bool(rng.random() < 0.25),
    )


def _top_of_body(shape: Shape, along: Floats) -> Floats:
    nose = shape.length / 2
    boot = shape.belt * 1.02 if shape.tail_foot > -0.9 * nose else shape.belt
    return np.interp(
        along,
        [-nose, shape.tail_foot, shape.windscreen_foot, (shape.windscreen_foot + nose) / 2, nose],
        [boot * 0.97, boot, shape.belt, (shape.belt * 0.45 + shape.bonnet * 0.55), shape.bonnet],
    )


def _body(shape: Shape) -> Loft:
    nose, half_width = shape.length / 2, shape.width / 2
    top = _top_of_body(shape, nose * _BODY_PLAN[:, 0])
    up = shape.clearance + _BODY_LEVELS[:, None] * (top - shape.clearance)[None, :]
    extent = nose * _BODY_LENGTHS
    rings = loft_rings(-extent, extent, half_width * _BODY_WIDTHS, _BODY_PLAN, up)
    return Loft(rings, _BODY_LEVELS, len(_BODY_PLAN))


def _cabin(shape: Shape) -> Loft:
    lean = np.minimum(_CABIN_ROOF, 1.08)
    rear = shape.tail_foot + (shape.tail_top - shape.tail_foot) * _CABIN_ROOF
    front = shape.windscreen_foot + (shape.windscreen_top - shape.windscreen_foot) * _CABIN_ROOF
    foot = 0.9 * shape.width / 2
    half_width = foot + (shape.roof_width * shape.width / 2 - foot) * lean**1.2
    half_width[-1] *= 0.85
    base = shape.belt - 0.03
    up = base + _CABIN_LEVELS * (shape.height - base)
    rings = loft_rings(rear, front, half_width, _CABIN_PLAN, np.tile(up[:, None], len(_CABIN_PLAN)))
    return Loft(rings, _CABIN_LEVELS, len(_CABIN_PLAN))


def vehicle_patches(vehicle: Vehicle, pose: Pose, camera: Camera, light: Light) -> list[Patch]:
    """Everything to draw of a vehicle, in order."""
    shape = vehicle.shape
    painter = Painter(pose, camera, light)
    body, cabin = _body(shape), _cabin(shape)
    _underside(painter, shape)
    _mirrors(painter, vehicle, near=False)
    painter.add(body.faces(), vehicle.paint, gloss=0.5)
    _flanks(painter, vehicle, body)
    _tail(painter, vehicle, body)
    _nose(painter, vehicle, body)
    painter.add(cabin.faces(), vehicle.paint, gloss=0.5)
    _windows(painter, vehicle, cabin)
    _mirrors(painter, vehicle, near=True)
    return painter.patches()


def _circle(middle: tuple[float, float, float], radius: float,
            arc: tuple[float, float] = (0.0, 2 * np.pi), count: int = 18) -> Floats:  # fmt: skip
    """(count, 3) points around (forward, up, right) in the plane of the flank."""
    angle = np.linspace(*arc, count)
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], axis=1)
    return np.array(middle) + radius * circle


def _underside(painter: Painter, shape: Shape) -> None:
    """Tyres as far as they stand below the body, and the dark between them."""
    side, r = shape.width / 2 * 0.95, shape.wheel_radius
    low, high = shape.clearance * 0.62, shape.clearance + 0.08
    x = 0.93 * shape.length / 2
    across = side * 0.86
    for a, b in (
        ((-x, -across), (-x, across)),
        ((x, across), (x, -across)),
        ((-x, across), (x, across)),
        ((x, -across), (-x, -across)),
    ):
        quad = [(a[0], low, a[1]), (b[0], low, b[1]), (b[0], high, b[1]), (a[0], high, a[1])]
        painter.add(np.array([quad]), _RUBBER * 0.7, cull=False)
    angle = np.linspace(0, 2 * np.pi, 15)
    for along in shape.wheels:
        for sign in (-1, 1):
            ring = np.stack([along + r * np.cos(angle), r + r * np.sin(angle)], axis=1)
            inner = np.column_stack([ring, np.full(15, sign * (side - 0.2))])
            outer = np.column_stack([ring, np.full(15, sign * side)])
            tread = np.stack([inner[:-1], inner[1:], outer[1:], outer[:-1]], axis=1)
            painter.add(tread, _RUBBER, cull=False)


def _flanks(painter: Painter, vehicle: Vehicle, body: Loft) -> None:
    """Sills, doors, wheels and their arches."""
    shape = vehicle.shape
    painter.on(body, (5, 12), (0.0, 0.1), _TRIM)
    for door in (6.55, 8.15, 9.75):
        painter.on(body, (door, door + 0.03), (0.12, 1.0), vehicle.paint * 0.35)
    for handle in (6.85, 8.4):
        painter.on(body, (handle, handle + 0.3), (0.74, 0.78), vehicle.paint * 0.5)
    r = shape.wheel_radius
    for sign in (-1, 1):
        right = sign * shape.width / 2 * 0.985
        for along in shape.wheels:
            turn = slice(None, None, -sign)
            dip = np.arcsin(min((r - shape.clearance) / (1.16 * r), 0.9))
            hub = (along, r, right)
            arch = _circle(hub, 1.16 * r, (-dip, np.pi + dip))
            painter.add(arch[None, turn], _RUBBER * 0.6)
            painter.add(_circle(hub, r)[None, turn], _RUBBER * 1.5)
            painter.add(_circle(hub, 0.64 * r)[None, turn], vehicle.rims, gloss=0.2)
            for spoke in np.arange(5) * 2 * np.pi / 5:
                x, y = along + 0.4 * r * np.cos(spoke), r + 0.4 * r * np.sin(spoke)
                hole = _circle((x, y, right), 0.13 * r, count=9)
                painter.add(hole[None, turn], vehicle.rims * 0.3)


def _tail(painter: Painter, vehicle: Vehicle, body: Loft) -> None:
    """Bumper, lamps, plate and the lines of the boot."""
    tall = vehicle.shape.panel
    red = np.array([176.0, 16.0, 18.0]) * (1.35 if vehicle.lamps_on else 1.0)
    painter.on(body, (0, 4.4), (0.0, 0.16), _TRIM)
    painter.on(body, (0, 4.2), (0.425, 0.445), vehicle.paint * 0.4)
    painter.on(body, (2.35, 2.4), (0.45, 1.0), vehicle.paint * 0.4)
    low, high = (0.5, 0.98) if tall else (0.6, 0.9)
    painter.on(body, (2.45, 4.75), (low, high), red, gloss=0.15, rows=2)
    painter.on(body, (2.55, 4.3), (low + 0.03, low + 0.1), np.array([215.0, 205.0, 200.0]))
    painter.on(body, (2.6, 3.8), (high - 0.1, high - 0.04), red * 1.25)
    painter.on(body, (0, 0.66), (0.5, 0.64), vehicle.plate * 0.4)
    painter.on(body, (0, 0.62), (0.51, 0.625), vehicle.plate)
    painter.on(body, (0.08, 0.52), (0.545, 0.59), np.array([60.0, 60.0, 66.0]))
    painter.on(body, (0, 0.12), (0.76, 0.84), np.array([170.0, 172.0, 176.0]), gloss=0.3)


def _nose(painter: Painter, vehicle: Vehicle, body: Loft) -> None:
    """Bumper, grille, head lamps and plate."""
    lamp = np.array([252.0, 250.0, 240.0] if vehicle.lamps_on else [188.0, 194.0, 200.0])
    painter.on(body, (11.5, 16), (0.0, 0.1), _TRIM)
    painter.on(body, (14.6, 16), (0.13, 0.32), _TRIM * 0.6)
    painter.on(body, (13.3, 14.2), (0.17, 0.3), _TRIM * 0.9)
    painter.on(body, (14.75, 16), (0.58, 0.8), _TRIM * 0.7)
    painter.on(body, (14.75, 16), (0.67, 0.7), np.array([120.0, 122.0, 126.0]), gloss=0.3)
    painter.on(body, (15.88, 16), (0.62, 0.76), np.array([190.0, 192.0, 196.0]))
    painter.on(body, (12.0, 14.55), (0.6, 0.84), _TRIM)
    painter.on(body, (12.25, 14.45), (0.62, 0.82), lamp * 0.8, gloss=0.3, rows=2)
    painter.on(body, (13.2, 14.1), (0.66, 0.79), np.minimum(lamp * 1.15, 255))
    painter.on(body, (15.35, 16), (0.35, 0.47), vehicle.plate)
    painter.on(body, (15.45, 15.9), (0.385, 0.435), np.array([60.0, 60.0, 66.0]))


def _windows(painter: Painter, vehicle: Vehicle, cabin: Loft) -> None:
    """Dark glass that mirrors the sky, with a lighter roof edge left around it."""
    glass = np.array([26.0, 31.0, 35.0])
    frame = vehicle.paint * 0.25
    sides = ((6.0, 7.35),) if vehicle.shape.panel else ((3.35, 4.1), (4.2, 5.35), (5.5, 7.3))
    for start, stop in sides:
        painter.on(cabin, (start - 0.05, stop + 0.05), (0.07, 0.88), frame)
        painter.on(cabin, (start, stop), (0.11, 0.85), glass, gloss=0.45, rows=4)
    tail = (0.25, 1.9) if vehicle.shape.panel else (0.0, 1.95)
    painter.on(cabin, (tail[0], tail[1] + 0.07), (0.06, 0.88), frame)
    painter.on(cabin, tail, (0.1, 0.85), glass, gloss=0.5, rows=4)
    painter.on(cabin, (8.03, 10), (0.03, 0.89), frame)
    painter.on(cabin, (8.15, 10), (0.06, 0.86), glass, gloss=0.6, rows=5)
    if not vehicle.shape.panel:
        painter.on(cabin, (0.0, 0.35), (0.87, 0.91), np.array([120.0, 14.0, 16.0]))


def _mirrors(painter: Painter, vehicle: Vehicle, near: bool) -> None:
    """The outside mirrors on the flanks that the camera sees, or on those that it does not."""
    shape, pose = vehicle.shape, painter.pose
    along, up = shape.windscreen_foot - 0.42, shape.belt + 0.08
    camera_right = pose.z * np.sin(pose.yaw) - pose.x * np.cos(pose.yaw)
    for sign in (-1, 1):
        if bool(sign * camera_right > shape.width / 2) != near:
            continue
        inner, outer = sign * shape.width / 2 * 0.92, sign * (shape.width / 2 + 0.12)
        quad = [
            (along, up - 0.07, inner),
            (along, up - 0.06, outer),
            (along, up + 0.07, outer),
            (along, up + 0.06, inner),
        ]
        painter.add(np.array([quad]), vehicle.paint * 0.7, cull=False)
