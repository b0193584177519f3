"""What a scene holds, and how one is drawn by lot: camera, light, street, and who is on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from squeezedet.data.synthetic.camera import Camera, Light, Pose
from squeezedet.data.synthetic.people import Person, random_person
from squeezedet.data.synthetic.vehicles import Vehicle, random_vehicle

KERB_HEIGHT = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticConfig:
    """What the generator may be told.

    Attributes:
        min_height: an object lower than this many pixels, or less than
            ``min_visible`` of which is seen, is labelled DontCare.
        min_visible: share of an object's pixels in the picture that must not be covered.
        max_truncated: an object with more than this share of its box outside is DontCare.
        max_objects: at most this many vehicles and people.
        empty_fraction: share of the scenes that hold no object.
        noise: standard deviation of the sensor noise, in grey levels, at most.
        blur: standard deviation of the optical blur at a width of 1248, in pixels, at most.
    """

    min_height: float = 11.0
    min_visible: float = 0.12
    max_truncated: float = 0.85
    max_objects: int = 12
    empty_fraction: float = 0.03
    noise: float = 4.0
    blur: float = 0.7


@dataclass(frozen=True, slots=True)
class Street:
    """A straight street along z; x in metres from the camera, left is negative.

    Attributes:
        left, right: kerbs.
        parking_left, parking_right: width of the parking lane inside each kerb, 0 for none.
        centre: line between the directions of traffic.
        lane: width of a lane.
        lanes: (oncoming, ahead).
        walk_left, walk_right: width of the sidewalks.
        front_left, front_right: distance from the sidewalk to the houses.
        crossing: z of the middle of a side street, None for none.
        zebra: z of a zebra crossing, None for none.
    """

    left: float
    right: float
    parking_left: float
    parking_right: float
    centre: float
    lane: float
    lanes: tuple[int, int]
    walk_left: float
    walk_right: float
    front_left: float
    front_right: float
    crossing: float | None
    zebra: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """A labelled thing: KITTI type, place and looks."""

    kind: str
    pose: Pose
    look: Vehicle | Person

    @property
    def footprint(self) -> tuple[float, float]:
        """Half extents along x and z in metres, a little generous."""
        if isinstance(self.look, Vehicle):
            length, width = self.look.shape.length, self.look.shape.width
        else:
            length, width = (1.9, 0.7) if self.look.frame is not None else (0.7, 0.7)
        sin, cos = abs(np.sin(self.pose.yaw)), abs(np.cos(self.pose.yaw))
        return (length * sin + width * cos) / 2 + 0.1, (length * cos + width * sin) / 2 + 0.1


@dataclass(frozen=True, slots=True, eq=False)
class DrawnScene:
    """All that is drawn and labelled. ``actors`` are in the order of their placing."""

    camera: Camera
    light: Light
    street: Street
    actors: tuple[Actor, ...]


def random_scene(
    rng: np.random.Generator, width: int, height: int, config: SyntheticConfig
) -> DrawnScene:
    """A scene for a picture of the given size in pixels."""
    camera = Camera(
        width=width,
        height=height,
        focal=width * rng.uniform(0.54, 0.62),
        centre_x=width * rng.uniform(0.47, 0.53),
        horizon=height * rng.uniform(0.43, 0.49),
        eye=rng.uniform(1.5, 1.75),
    )
    street = _random_street(rng)
    light = _random_light(rng)
    count = _random_count(rng, config)
    far = max(1.25 * camera.focal * 1.5 / config.min_height, 20.0)
    actors: list[Actor] = []
    for _ in range(12 * count):
        if len(actors) == count:
            break
        # The first stands near, so that a scene that is not empty shows something.
        limit = 20.0 if not actors else far
        actor = _random_actor(rng, street, limit)
        nearest = actor.pose.z - actor.footprint[1]
        if nearest > 1.3 and _in_view(actor, camera) and not _collides(actor, actors):
            actors.append(actor)
    return DrawnScene(camera, light, street, tuple(actors))


def _random_count(rng: np.random.Generator, config: SyntheticConfig) -> int:
    if rng.random() < config.empty_fraction:
        return 0
    return int(np.clip(1 + rng.gamma(1.6, 2.6), 1, config.max_objects))


def _random_street(rng: np.random.Generator) -> Street:
    lane = rng.uniform(3.0, 3.6)
    lanes = (int(rng.integers(1, 3)), 1 if rng.random() < 0.65 else 2)
    parking = [2.2 if rng.random() < p else 0.0 for p in (0.45, 0.5)]
    centre = -lane / 2 - (lane if lanes[1] == 2 and rng.random() < 0.5 else 0.0)
    centre += rng.uniform(-0.35, 0.35)
    crossing = rng.uniform(14, 45) if rng.random() < 0.35 else None
    return Street(
        left=centre - lanes[0] * lane - parking[0] - 0.3,
        right=centre + lanes[1] * lane + parking[1] + 0.3,
        parking_left=parking[0],
        parking_right=parking[1],
        centre=centre,
        lane=lane,
        lanes=lanes,
        walk_left=rng.uniform(1.8, 3.5),
        walk_right=rng.uniform(1.8, 3.5),
        front_left=rng.choice([0.0, 0.3, rng.uniform(2, 7)]),
        front_right=rng.choice([0.0, 0.3, rng.uniform(2, 7)]),
        crossing=crossing,
        zebra=crossing - 7.5 if crossing is not None and rng.random() < 0.6 else None,
    )


def _random_light(rng: np.random.Generator) -> Light:
    overcast = rng.random() < 0.35
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 1.1)
    sun = np.array(
        [np.cos(height) * np.sin(azimuth), np.sin(height), np.cos(height) * np.cos(azimuth)]
    )
    warm = rng.uniform(-1, 1)
    haze = np.array([206.0, 214.0, 224.0]) if overcast else np.array([196.0, 214.0, 236.0])
    return Light(
        sun=sun,
        sun_strength=rng.uniform(0.0, 0.12) if overcast else rng.uniform(0.4, 0.75),
        ambient=rng.uniform(0.6, 0.95) if overcast else rng.uniform(0.42, 0.62),
        tint=np.array([1 + 0.05 * warm, 1.0, 1 - 0.05 * warm]),
        haze=haze * rng.uniform(0.9, 1.05),
        haze_length=float(np.exp(rng.uniform(np.log(140), np.log(600)))),
    )


def _random_actor(rng: np.random.Generator, street: Street, far: float) -> Actor:
    kind = str(rng.choice(["Car", "Van", "Pedestrian", "Cyclist"], p=[0.62, 0.08, 0.19, 0.11]))
    if kind in ("Car", "Van"):
        return Actor(kind, _vehicle_pose(rng, street, far), random_vehicle(rng, kind))
    near = 4.0 if kind == "Pedestrian" else 4.5
    z = float(np.exp(rng.uniform(np.log(near), np.log(max(far * 0.75, near + 1)))))
    place = _walker_pose if kind == "Pedestrian" else _rider_pose
    return Actor(kind, place(rng, street, z), random_person(rng, kind))


def _vehicle_pose(rng: np.random.Generator, street: Street, far: float) -> Pose:
    """On a lane, parked, crossing at the side street or turning."""
    z = float(np.exp(rng.uniform(np.log(6.5), np.log(far))))
    way = rng.random()
    wobble = float(rng.normal(0, 0.02))
    if street.crossing is not None and way < 0.22 and street.crossing < far:
        z = street.crossing + float(rng.choice([-1.9, 1.9]))
        spread = min(0.7 * z, 22.0)
        yaw = float(rng.choice([-1, 1])) * np.pi / 2 + rng.normal(0, 0.06)
        return Pose(rng.uniform(-spread, spread), 0.0, z, yaw)
    if way < 0.3:
        x = rng.uniform(street.left + 1, street.right - 1)
        return Pose(x, 0.0, z, rng.uniform(0, 2 * np.pi))
    if way < 0.62 and street.parking_left + street.parking_right > 0:
        on_right = street.parking_left == 0 or (street.parking_right > 0 and rng.random() < 0.55)
        x = street.right - 1.15 if on_right else street.left + 1.15
        reverse = on_right == (rng.random() < 0.12)
        return Pose(x, 0.0, z - 2.5, (np.pi if reverse else 0.0) + wobble)
    if way < 0.8:
        lane = rng.integers(street.lanes[1])
        x = street.centre + (lane + 0.5) * street.lane
        return Pose(x + rng.normal(0, 0.15), 0.0, z + 1.0, wobble)
    lane = rng.integers(street.lanes[0])
    x = street.centre - (lane + 0.5) * street.lane
    return Pose(x + rng.normal(0, 0.15), 0.0, z, np.pi + wobble)


def _walker_pose(rng: np.random.Generator, street: Street, z: float) -> Pose:
    """Along a sidewalk, or crossing the road."""
    if rng.random() < 0.25:
        z = street.zebra if street.zebra is not None and rng.random() < 0.7 else z
        side = float(rng.choice([-1, 1])) * np.pi / 2
        x = rng.uniform(street.left, street.right)
        return Pose(x, 0.0, z + rng.uniform(-0.8, 0.8), side + rng.normal(0, 0.2))
    if rng.random() < 0.55:
        x = street.right + rng.uniform(0.4, street.walk_right - 0.3)
    else:
        x = street.left - rng.uniform(0.4, street.walk_left - 0.3)
    yaw = rng.choice([0.0, np.pi]) + rng.normal(0, 0.35)
    return Pose(x, KERB_HEIGHT, z, yaw)


def _rider_pose(rng: np.random.Generator, street: Street, z: float) -> Pose:
    """At the side of the road on either side, or crossing."""
    way = rng.random()
    if way < 0.25:
        side = float(rng.choice([-1, 1])) * np.pi / 2
        x = rng.uniform(street.left + 0.5, street.right - 0.5)
        return Pose(x, 0.0, max(z, 5.5), side + rng.normal(0, 0.3))
    if way < 0.7:
        x = street.right - street.parking_right - rng.uniform(0.5, 0.9)
        return Pose(x, 0.0, z, rng.normal(0, 0.08))
    x = street.left + street.parking_left + rng.uniform(0.5, 0.9)
    return Pose(x, 0.0, z, np.pi + rng.normal(0, 0.08))


def _in_view(actor: Actor, camera: Camera) -> bool:
    """Whether the middle of the thing is in the picture or just outside."""
    column = camera.centre_x + camera.focal * actor.pose.x / actor.pose.z
    margin = 0.6 * camera.focal * actor.footprint[0] / actor.pose.z
    return -margin < column < camera.width + margin


def _collides(actor: Actor, others: list[Actor]) -> bool:
    ax, az = actor.footprint
    for other in others:
        bx, bz = other.footprint
        if (
            abs(actor.pose.x - other.pose.x) < ax + bx
            and abs(actor.pose.z - other.pose.z) < az + bz
        ):
            return True
    return False
