"""Pedestrians and cyclists: jointed figures of tapered limbs, drawn far limb first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from squeezedet.data.synthetic.camera import Camera, Floats, Light, Patch, Pose

_SKINS = np.array([(214, 170, 142), (190, 140, 110), (140, 96, 70), (92, 62, 46)], dtype=np.float64)
_HAIR = np.array([(40, 30, 24), (70, 48, 30), (130, 98, 58), (24, 22, 22), (128, 124, 120)], float)
_TOPS = np.array(
    [
        (28, 30, 36), (60, 64, 72), (196, 196, 192), (36, 50, 92), (150, 32, 34), (92, 106, 84),
        (120, 90, 66), (186, 170, 140), (84, 120, 160), (210, 170, 60), (106, 58, 96),
    ],
    dtype=np.float64,
)  # fmt: skip
_TROUSERS = np.array(
    [(34, 40, 58), (26, 26, 28), (62, 74, 100), (104, 94, 78), (70, 70, 72)], float
)
_SHOE = np.array([30.0, 28.0, 28.0])
_FRAMES = np.array(
    [(30, 30, 32), (140, 30, 30), (40, 70, 120), (170, 172, 176), (40, 90, 60)], float
)
_WHEEL_RADIUS = 0.34
_AXLES = (-0.52, 0.53)


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """Size, clothes and posture of one person.

    Attributes:
        height: metres, standing.
        girth: factor on the thickness of the limbs.
        stride: phase of walking or pedalling in radians.
        swing: length of the steps, 0 (standing) to 1.
        skin, hair, top, legs: colours, (3,) 0 to 255.
        skirt, long_sleeves, pack, helmet: what is worn.
        frame: colour of the bicycle; None for a pedestrian.
    """

    height: float
    girth: float
    stride: float
    swing: float
    skin: Floats
    hair: Floats
    top: Floats
    legs: Floats
    skirt: bool
    long_sleeves: bool
    pack: bool
    helmet: bool
    frame: Floats | None


@dataclass(frozen=True, slots=True, eq=False)
class _Limb:
    """The hull of two or more balls.

    Attributes:
        points: (K, 3) of (forward, up, right) in metres.
        radii: (K,) metres.
        colour: (3,) 0 to 255.
    """

    points: Floats
    radii: Floats
    colour: Floats


def _bone(a: Floats, b: Floats, a_radius: float, b_radius: float, colour: Floats) -> _Limb:
    """A tapered limb from a to b."""
    return _Limb(np.stack([a, b]), np.array([a_radius, b_radius]), colour)


def _pick(rng: np.random.Generator, table: Floats, spread: float = 8) -> Floats:
    colour: Floats = np.clip(table[rng.integers(len(table))] + rng.normal(0, spread, 3), 8, 240)
    return colour


def random_person(rng: np.random.Generator, kind: str) -> Person:
    """A Pedestrian or a Cyclist with its own size, clothes and posture."""
    child = kind == "Pedestrian" and rng.random() < 0.12
    return Person(
        height=rng.uniform(1.1, 1.45) if child else rng.uniform(1.56, 1.92),
        girth=rng.uniform(0.9, 1.2),
        stride=rng.uniform(0, 2 * np.pi),
        swing=0.1 if rng.random() < 0.2 else rng.uniform(0.6, 1.0),
        skin=_pick(rng, _SKINS, 4),
        hair=_pick(rng, _HAIR, 4),
        top=_pick(rng, _TOPS),
        legs=_pick(rng, _TROUSERS),
        skirt=kind == "Pedestrian" and bool(rng.random() < 0.15),
        long_sleeves=bool(rng.random() < 0.65),
        pack=bool(rng.random() < 0.25),
        helmet=kind == "Cyclist" and bool(rng.random() < 0.5),
        frame=_pick(rng, _FRAMES) if kind == "Cyclist" else None,
    )


def _at(forward: float, up: float, right: float) -> Floats:
    return np.array([forward, up, right])


def _head(person: Person, neck: Floats, lean: float) -> list[_Limb]:
    h = person.height
    middle = neck + _at(0.02 * h + lean * 0.04 * h, 0.078 * h, 0)
    cover = np.array([200.0, 200.0, 205.0]) if person.helmet else person.hair
    scalp, skin = middle + _at(-0.014 * h, 0.022 * h, 0), person.skin
    return [
        _bone(neck - _at(0, 0.03 * h, 0), middle, 0.032 * h, 0.03 * h, skin * 0.85),
        _bone(
            middle - _at(0, 0.02 * h, 0), middle + _at(0, 0.01 * h, 0), 0.042 * h, 0.05 * h, skin
        ),
        _bone(scalp, scalp + _at(0.01 * h, 0.02 * h, 0), 0.052 * h, 0.05 * h, cover),
    ]


def _trunk(person: Person, hip: Floats, shoulder: Floats) -> list[_Limb]:
    """Hips to shoulders, wider above, and what is on the back."""
    h, g = person.height, person.girth
    across = np.array([(0, 0, -1.0), (0, 0, 1.0)])
    waist = hip * 0.62 + shoulder * 0.38
    points = [
        hip + across * 0.042 * h * g,
        waist + across * 0.048 * h * g,
        shoulder + across * 0.066 * h * g,
    ]
    radii = np.repeat([0.058, 0.05, 0.04], 2) * h * g
    limbs = [_Limb(np.concatenate(points), radii, person.top)]
    if person.pack:
        low = hip * 0.5 + shoulder * 0.5 + _at(-0.075 * h, -0.05 * h, 0)
        high = low + (shoulder - hip) * 0.55
        bag = np.concatenate([low + across * 0.035 * h, high + across * 0.03 * h])
        limbs.append(_Limb(bag, np.full(4, 0.055 * h), person.legs * 0.6 + 20))
    return limbs


def _arm(person: Person, shoulder: Floats, elbow: Floats, hand: Floats) -> list[_Limb]:
    h, g = person.height, person.girth
    sleeve = person.top if person.long_sleeves else person.skin
    return [
        _bone(shoulder, elbow, 0.034 * h * g, 0.027 * h * g, person.top * 0.94),
        _bone(elbow, hand, 0.026 * h * g, 0.02 * h * g, sleeve * 0.94),
        _bone(hand, hand + _at(0.005, -0.03 * h, 0), 0.022 * h, 0.018 * h, person.skin),
    ]


def _leg(person: Person, hip: Floats, knee: Floats, ankle: Floats, toe: Floats) -> list[_Limb]:
    h, g = person.height, person.girth
    shin = person.skin if person.skirt else person.legs
    return [
        _bone(hip, knee, 0.054 * h * g, 0.038 * h * g, person.legs),
        _bone(knee, ankle, 0.037 * h * g, 0.024 * h * g, shin * 0.97),
        _bone(ankle - _at(0.02 * h, 0.012 * h, 0), toe, 0.026 * h, 0.018 * h, _SHOE),
    ]


def _pedestrian(person: Person) -> list[_Limb]:
    h, swing = person.height, person.swing
    hip, shoulder = _at(0, 0.52 * h, 0), _at(0.015 * h, 0.815 * h, 0)
    limbs = _head(person, shoulder + _at(0, 0.045 * h, 0), 0.3)
    limbs += _trunk(person, hip, shoulder)
    for side in (-1, 1):
        phase = person.stride + (np.pi if side > 0 else 0)
        thigh = 0.5 * swing * np.sin(phase)
        shin = thigh - 0.55 * swing * max(0.0, np.cos(phase)) - 0.05
        joint = hip + _at(0, -0.01 * h, side * 0.045 * h)
        knee = joint + 0.245 * h * _at(np.sin(thigh), -np.cos(thigh), 0)
        ankle = knee + 0.235 * h * _at(np.sin(shin), -np.cos(shin), 0)
        limbs += _leg(person, joint, knee, ankle, ankle + _at(0.085 * h, -0.018 * h, 0))
        upper = -0.45 * swing * np.sin(phase)
        fore = upper + 0.15 + 0.35 * swing
        top = shoulder + _at(0, -0.01 * h, side * 0.098 * h * person.girth)
        elbow = top + 0.17 * h * _at(np.sin(upper), -np.cos(upper), side * 0.12)
        hand = elbow + 0.14 * h * _at(np.sin(fore), -np.cos(fore), 0)
        limbs += _arm(person, top, elbow, hand)
    if person.skirt:
        across = np.array([(0, 0, -1.0), (0, 0, 1.0)])
        points = [hip + across * 0.035 * h, hip - (0, 0.2 * h, 0) + across * 0.06 * h]
        limbs.append(_Limb(np.concatenate(points), np.repeat([0.06, 0.05], 2) * h, person.legs))
    # Whatever the step, the lower foot stands on the ground.
    low = min(float((limb.points[:, 1] - limb.radii).min()) for limb in limbs)
    return [_Limb(limb.points - _at(0, low, 0), limb.radii, limb.colour) for limb in limbs]


def _bent(start: Floats, stop: Floats, first: float, second: float, bend: float) -> Floats:
    """The joint of a two-bone limb in the plane of forward and up, bent to ``bend``'s side."""
    line = stop - start
    span = min(float(np.hypot(line[0], line[1])), 0.999 * (first + second))
    along = (first**2 - second**2 + span**2) / (2 * span)
    aside = bend * np.sqrt(max(first**2 - along**2, 0.0))
    unit = line[:2] / max(float(np.hypot(line[0], line[1])), 1e-6)
    across = (start[2] + stop[2]) / 2
    return _at(
        start[0] + along * unit[0] - aside * unit[1],
        start[1] + along * unit[1] + aside * unit[0],
        across,
    )


def _rider(person: Person) -> list[_Limb]:
    h = person.height
    hip = _at(-0.17, 0.98, 0)
    shoulder = hip + _at(0.16 * h, 0.25 * h, 0)
    limbs = _head(person, shoulder + _at(0.03 * h, 0.045 * h, 0), 0.6)
    limbs += _trunk(person, hip, shoulder)
    for side in (-1, 1):
        phase = person.stride + (np.pi if side > 0 else 0)
        pedal = _at(0.02 + 0.17 * np.cos(phase), 0.3 + 0.17 * np.sin(phase), side * 0.11)
        joint = hip + _at(0, -0.02, side * 0.08)
        ankle = pedal + _at(-0.06, 0.08, 0)
        knee = _bent(joint, ankle, 0.245 * h, 0.245 * h, 1.0)
        limbs += _leg(person, joint, knee, ankle, pedal + _at(0.09, 0.02, 0))
        top = shoulder + _at(0, -0.01 * h, side * 0.098 * h * person.girth)
        grip = _at(0.36, 1.02, side * 0.25)
        elbow = _bent(top, grip, 0.16 * h, 0.16 * h, -1.0) + _at(0, 0, side * 0.05)
        limbs += _arm(person, top, elbow, grip)
    return limbs


def _bicycle(frame: Floats) -> list[_Limb]:
    """Tubes, saddle, bars and mudguards; the wheels are drawn apart."""
    metal, black = np.array([90.0, 92.0, 96.0]), np.array([22.0, 22.0, 24.0])
    crank, seat, head = _at(0.0, 0.3, 0), _at(-0.17, 0.82, 0), _at(0.36, 0.84, 0)
    rear, front = _at(_AXLES[0], _WHEEL_RADIUS, 0), _at(_AXLES[1], _WHEEL_RADIUS, 0)
    tubes = [
        (crank, seat, frame), (crank, head, frame), (seat * 0.9 + crank * 0.1, head, frame),
        (crank, rear, frame), (seat * 0.8 + crank * 0.2, rear, frame), (head, front, frame),
        (head, _at(0.33, 1.02, 0), metal), (seat, _at(-0.19, 0.92, 0), metal),
    ]  # fmt: skip
    limbs = [_bone(a, b, 0.02, 0.018, colour) for a, b, colour in tubes]
    limbs.append(_bone(_at(-0.31, 0.94, 0), _at(-0.06, 0.94, 0), 0.055, 0.03, black))
    limbs.append(_bone(_at(0.35, 1.02, -0.27), _at(0.35, 1.02, 0.27), 0.018, 0.018, black))
    limbs.append(
        _bone(_at(-0.23, 0.78, 0), _at(-0.24, 0.72, 0), 0.03, 0.03, np.array([170.0, 20, 20]))
    )
    return limbs


def _wheel_quads() -> Floats:
    """(F, 4, 3) of both wheels: two side rings and the tread, as short quads."""
    angle = np.linspace(0, 2 * np.pi, 23)
    quads = []
    for axle in _AXLES:
        rim = [
            np.stack(
                [axle + r * np.cos(angle), _WHEEL_RADIUS + r * np.sin(angle), 0 * angle], axis=1
            )
            for r in (_WHEEL_RADIUS, _WHEEL_RADIUS - 0.045)
        ]
        side = np.array([0, 0, 0.02])
        quads.append(np.stack([rim[0][:-1], rim[0][1:], rim[1][1:], rim[1][:-1]], axis=1))
        a, b = rim[0] - side, rim[0] + side
        quads.append(np.stack([a[:-1], a[1:], b[1:], b[:-1]], axis=1))
    return np.concatenate(quads)


def person_patches(person: Person, pose: Pose, camera: Camera, light: Light) -> list[Patch]:
    """Everything to draw of a person, and of the bicycle under it, in order."""
    limbs = _pedestrian(person) if person.frame is None else _rider(person)
    parts: list[tuple[float, list[Patch]]] = []
    if person.frame is not None:
        limbs = limbs + _bicycle(person.frame)
        world = pose.to_world(_wheel_quads())
        dark = np.array([24.0, 24.0, 26.0])
        lit = light.shade(np.broadcast_to(dark, (len(world), 3)), np.array([0.0, 1.0, 0.0]))
        lit = light.fade(lit, world[..., 2].mean(axis=1))
        pixels = camera.project(world)
        parts += [
            (q[:, 2].mean(), [Patch(p, c)]) for q, p, c in zip(world, pixels, lit, strict=True)
        ]
    parts += [_limb_patches(limb, pose, camera, light) for limb in limbs]
    parts.sort(key=lambda part: -part[0])
    return [patch for _, patches in parts for patch in patches]


_ARC = np.linspace(np.pi / 2, 3 * np.pi / 2, 8)
_DIRECTIONS = np.stack(
    [np.cos(np.arange(20) * np.pi / 10), np.sin(np.arange(20) * np.pi / 10)], axis=1
)


def _capsule(a: Floats, b: Floats, ra: float, rb: float) -> Floats:
    """The outline of two circles and what lies between them, in pixels."""
    line = b - a
    turn = np.arctan2(line[1], line[0])
    back, ahead = _ARC + turn, _ARC + turn + np.pi
    return np.concatenate(
        [
            a + ra * np.stack([np.cos(back), np.sin(back)], axis=1),
            b + rb * np.stack([np.cos(ahead), np.sin(ahead)], axis=1),
        ]
    )


def _hull(points: Floats, radii: Floats) -> Floats:
    """The outline of circles, in pixels: the farthest reach in each of 20 directions."""
    middle = points.mean(axis=0)
    reach = ((points - middle) @ _DIRECTIONS.T + radii[:, None]).max(axis=0)
    # Neighbouring support lines meet at the corners of the outline.
    following = np.roll(reach, -1)
    turn = 2 * np.pi / len(_DIRECTIONS)
    along = (following - reach * np.cos(turn)) / np.sin(turn)
    normal = np.stack([-_DIRECTIONS[:, 1], _DIRECTIONS[:, 0]], axis=1)
    outline: Floats = middle + reach[:, None] * _DIRECTIONS + along[:, None] * normal
    return outline


def _outline(points: Floats, radii: Floats) -> Floats:
    if len(points) == 2:
        return _capsule(points[0], points[1], float(radii[0]), float(radii[1]))
    return _hull(points, radii)


def _limb_patches(
    limb: _Limb, pose: Pose, camera: Camera, light: Light
) -> tuple[float, list[Patch]]:
    """Depth of a limb, and its shaded outline with a lit part towards the sun."""
    world = pose.to_world(limb.points)
    points = camera.project(world)
    radii = np.maximum(limb.radii * camera.focal / world[:, 2], 0.3)
    depth = float(world[:, 2].mean())
    base = limb.colour * (0.84 * light.ambient) * light.tint
    lit = limb.colour * (light.ambient + 0.75 * light.sun_strength) * light.tint
    side = np.array([0.3 * np.sign(light.sun[0]), -0.12])
    patches = [Patch(_outline(points, radii), light.fade(base, depth))]
    middle = points.mean(axis=0)
    for share, mix in ((0.8, 0.5), (0.55, 1.0)):
        shift = side * (1 - share) / 0.45 * radii.mean()
        # A limb keeps its length and grows thin; a trunk shrinks as a whole.
        inner = points if len(points) == 2 else middle + (points - middle) * (0.35 + 0.65 * share)
        outline = _outline(inner + shift, radii * share)
        patches.append(Patch(outline, light.fade(base + (lit - base) * mix, depth)))
    return depth, patches
