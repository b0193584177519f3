"""Composition of a scene, far to near, and the labels that follow from what is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from squeezedet.data.sample import Objects
from squeezedet.data.synthetic.camera import Camera, Floats, Light, Patch
from squeezedet.data.synthetic.people import person_patches
from squeezedet.data.synthetic.plants import Foliage, Layers, random_plants
from squeezedet.data.synthetic.scene import Actor, DrawnScene, SyntheticConfig
from squeezedet.data.synthetic.scenery import (
    Pixels,
    Stage,
    cloud_noise,
    paint_horizon,
    paint_houses,
    paint_sky,
    paint_street,
)
from squeezedet.data.synthetic.vehicles import Vehicle, vehicle_patches


@dataclass(frozen=True, slots=True, eq=False)
class Cutout:
    """An actor drawn alone.

    Attributes:
        full: (4,) xyxy of the whole silhouette, beyond the picture too.
        xyxy: (4,) xyxy of the silhouette within the picture; None if nothing is inside.
        corner: (x, y) pixel of the picture where ``layer`` begins.
        layer: (h, w, 4) float32, colours premultiplied by the coverage, coverage 0 to 1.
    """

    full: Floats
    xyxy: Floats | None
    corner: tuple[int, int]
    layer: Pixels


def render(
    rng: np.random.Generator, scene: DrawnScene, config: SyntheticConfig
) -> tuple[NDArray[np.uint8], Objects]:
    """The picture of a scene, (H, W, 3) uint8 RGB, and its labels."""
    camera, light = scene.camera, scene.light
    picture = _paint_stage(rng, scene)
    layers = Layers(picture, np.zeros(picture.shape[:2], dtype=np.int16))
    patches = [actor_patches(actor, camera, light) for actor in scene.actors]
    _cast_shadows(picture, scene)
    cutouts: dict[int, Cutout] = {}
    foliage = Foliage(rng)
    plants = random_plants(rng, scene.street)
    order = [(plant.z, -1, i) for i, plant in enumerate(plants)]
    order += [(actor.pose.z, 1, i) for i, actor in enumerate(scene.actors)]
    for _, sort, i in sorted(order, reverse=True):
        if sort < 0:
            foliage.paint(layers, plants[i], camera, light)
        else:
            cutouts[i] = cut_out(patches[i], camera)
            _lay(layers, cutouts[i], i + 1)
    objects = _label(scene, cutouts, layers.owner, config)
    return _expose(rng, picture, config), objects


def actor_patches(actor: Actor, camera: Camera, light: Light) -> list[Patch]:
    """What is drawn of an actor, in order."""
    if isinstance(actor.look, Vehicle):
        return vehicle_patches(actor.look, actor.pose, camera, light)
    return person_patches(actor.look, actor.pose, camera, light)


def _paint_stage(rng: np.random.Generator, scene: DrawnScene) -> Pixels:
    camera, light = scene.camera, scene.light
    sky = paint_sky(rng, camera, light)
    stage = Stage(camera, light)
    paint_horizon(rng, stage)
    paint_street(rng, stage, scene.street)
    paint_houses(rng, stage, scene.street)
    picture = stage.over(sky)
    _paint_grain(rng, picture, camera)
    return picture


def _paint_grain(rng: np.random.Generator, picture: Pixels, camera: Camera) -> None:
    """Unevenness of everything, and the grain of the ground, finer with distance."""
    width, height = camera.width, camera.height
    small = cloud_noise(rng, width // 2, height // 2, 9)
    broad = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))
    factor = 1 + np.float32(0.16) * (broad - np.float32(0.5))
    grain = (cloud_noise(rng, 256, 256, 45) - np.float32(0.5)) * np.float32(0.3)
    first = min(int(camera.horizon) + 3, height)
    depth = camera.focal * camera.eye / (np.arange(first, height) + 0.5 - camera.horizon)
    across = (np.arange(width) - camera.centre_x).astype(np.float32)[None, :]
    metres = (depth / camera.focal).astype(np.float32)[:, None]
    # The texture is laid out to and fro, so that it meets its mirror image at its edges.
    column = np.floor(across * (metres * 80)).astype(np.int32) & 511
    row = (depth * 60).astype(np.int32)[:, None] & 511
    column, row = np.minimum(column, 511 - column), np.minimum(row, 511 - row)
    strength = np.minimum(1, 9 / depth).astype(np.float32)[:, None]
    factor[first:] *= 1 + grain[row, column] * strength
    picture *= factor[..., None]


def cut_out(patches: list[Patch], camera: Camera) -> Cutout:
    """Draw patches alone on an empty canvas of two to four times the size."""
    points = np.concatenate([patch.points for patch in patches])
    low, high = points.min(axis=0), points.max(axis=0)
    full = np.concatenate([low, high])
    x1, y1 = np.maximum(np.floor(low).astype(int) - 1, 0)
    x2, y2 = np.minimum(np.ceil(high).astype(int) + 1, [camera.width, camera.height])
    if x2 <= x1 or y2 <= y1:
        return Cutout(full, None, (0, 0), np.zeros((0, 0, 4), dtype=np.float32))
    scale = 4 if (x2 - x1) * (y2 - y1) < 6000 else 2
    canvas = Image.new("RGBX", (int(x2 - x1) * scale, int(y2 - y1) * scale))
    pen = ImageDraw.Draw(canvas)
    fills = np.clip([patch.colour for patch in patches], 0, 255).astype(int).tolist()
    # Pillow's pixel i has its middle at i, ours at i + 0.5.
    points = (points - (x1, y1)) * scale - 0.5
    start = 0
    for patch, (r, g, b) in zip(patches, fills, strict=True):
        stop = start + len(patch.points)
        pen.polygon(points[start:stop].ravel().tolist(), fill=(r, g, b, 255))
        start = stop
    box = canvas.getchannel(3).getbbox()
    if box is None:
        return Cutout(full, None, (0, 0), np.zeros((0, 0, 4), dtype=np.float32))
    xyxy = np.array(box, dtype=np.float64) / scale + np.array([x1, y1, x1, y1])
    layer = np.asarray(canvas.reduce(scale), dtype=np.float32)
    layer = layer * np.array([1, 1, 1, 1 / 255], dtype=np.float32)
    return Cutout(full, xyxy, (int(x1), int(y1)), layer)


def _lay(layers: Layers, cutout: Cutout, number: int) -> None:
    x, y = cutout.corner
    height, width = cutout.layer.shape[:2]
    alpha = cutout.layer[..., 3]
    view = layers.picture[y : y + height, x : x + width]
    view *= 1 - alpha[..., None]
    view += cutout.layer[..., :3]
    layers.owner[y : y + height, x : x + width][alpha >= 0.5] = number


def _cast_shadows(picture: Pixels, scene: DrawnScene) -> None:
    """Darken the ground under every actor, and where it keeps the sun away."""
    camera, light = scene.camera, scene.light
    mask = Image.new("L", (camera.width, camera.height), 255)
    pen = ImageDraw.Draw(mask)
    if light.sun_strength > 0.2:
        dark = int(255 * light.ambient / (light.ambient + light.sun_strength * light.sun[1]))
        for actor in scene.actors:
            _shadow_of(pen, actor, camera, light, dark)
    soft = mask.filter(ImageFilter.GaussianBlur(camera.width / 900))
    pen = ImageDraw.Draw(mask)
    pen.rectangle((0, 0, camera.width, camera.height), fill=255)
    for actor in sorted(scene.actors, key=lambda a: -a.pose.z):
        for share, dark in ((1.12, 150), (1.0, 70), (0.8, 30)):
            corners = _footprint(actor, share)
            _fill_ground(pen, corners, camera, dark)
    contact = mask.filter(ImageFilter.GaussianBlur(camera.width / 800))
    first = int(camera.horizon)
    factor = np.asarray(soft, np.float32)[first:] * np.asarray(contact, np.float32)[first:] / 65025
    picture[first:] *= factor[..., None]


def _footprint(actor: Actor, share: float) -> Floats:
    """(4, 3) corners of the ground an actor stands on, grown by ``share``."""
    if isinstance(actor.look, Vehicle):
        length, width = actor.look.shape.length * 0.97, actor.look.shape.width * 0.95
    elif actor.look.frame is not None:
        length, width = 1.7, 0.22
    else:
        length, width = 0.5, 0.4
    a, b = length / 2 * share, width / 2 * share
    local = np.array([(a, 0.01, b), (a, 0.01, -b), (-a, 0.01, -b), (-a, 0.01, b)])
    return actor.pose.to_world(local)


def _shadow_of(
    pen: ImageDraw.ImageDraw, actor: Actor, camera: Camera, light: Light, dark: int
) -> None:
    """The shadow of the actor's box: foot and top outlines, moved along the sun's rays."""
    if isinstance(actor.look, Vehicle):
        shape = actor.look.shape
        tops = [(1.0, shape.belt), (0.72, shape.height * 0.97)]
    else:
        tall = 1.75 if actor.look.frame is not None else actor.look.height
        tops = [(0.8, 0.5 * tall), (0.6, 0.97 * tall)]
    foot = _footprint(actor, 1.0)
    points = [foot]
    for share, up in tops:
        ring = _footprint(actor, share)
        move = np.array([light.sun[0], 0, light.sun[2]]) / light.sun[1] * up
        points.append(ring - move)
    for a, b in pairwise(points):
        _fill_ground(pen, _hull(np.concatenate([a, b])), camera, dark)


def _hull(points: Floats) -> Floats:
    """Convex hull of (N, 3) ground points, around in order (Andrew's monotone chain)."""
    order = sorted(points.tolist(), key=lambda p: (p[0], p[2]))

    def half(chain: list[list[float]]) -> list[list[float]]:
        out: list[list[float]] = []
        for p in chain:
            while len(out) > 1:
                (ax, _, az), (bx, _, bz) = out[-2], out[-1]
                if (bx - ax) * (p[2] - az) - (bz - az) * (p[0] - ax) > 0:
                    break
                out.pop()
            out.append(p)
        return out[:-1]

    return np.array(half(order) + half(order[::-1]))


def _fill_ground(pen: ImageDraw.ImageDraw, points: Floats, camera: Camera, dark: int) -> None:
    points = points.copy()
    points[:, 2] = np.maximum(points[:, 2], 0.8)
    pen.polygon(np.clip(camera.project(points), -30000, 30000).ravel().tolist(), fill=dark)


def _label(
    scene: DrawnScene, cutouts: dict[int, Cutout], owner: NDArray[np.int16], config: SyntheticConfig
) -> Objects:
    """KITTI labels, nearest first; what cannot be seen at all has none."""
    rows = []
    for i in sorted(cutouts, key=lambda i: scene.actors[i].pose.z):
        cutout = cutouts[i]
        own, seen = int((cutout.layer[..., 3] >= 0.5).sum()), int((owner == i + 1).sum())
        if cutout.xyxy is None or seen == 0:
            continue
        inside = np.prod(cutout.xyxy[2:] - cutout.xyxy[:2])
        truncated = float(np.clip(1 - inside / np.prod(cutout.full[2:] - cutout.full[:2]), 0, 1))
        if _touches_no_edge(cutout.full, scene.camera):
            truncated = 0.0
        visible = seen / own
        kind, occluded = scene.actors[i].kind, _occlusion_level(visible)
        too_low = cutout.full[3] - cutout.full[1] < config.min_height
        if too_low or visible < config.min_visible or truncated > config.max_truncated:
            kind, truncated, occluded = "DontCare", -1.0, -1
        rows.append((kind, cutout.xyxy, truncated, occluded))
    return Objects(
        types=tuple(row[0] for row in rows),
        xyxy=np.array([row[1] for row in rows], dtype=np.float32).reshape(-1, 4),
        truncated=np.array([row[2] for row in rows], dtype=np.float32),
        occluded=np.array([row[3] for row in rows], dtype=np.int64),
    )


def _touches_no_edge(full: Floats, camera: Camera) -> bool:
    return bool((full[:2] >= 0).all() and full[2] <= camera.width and full[3] <= camera.height)


def _occlusion_level(visible: float) -> int:
    """KITTI's 0 visible, 1 partly, 2 largely covered, by the share of pixels seen."""
    if visible >= 0.9:
        return 0
    return 1 if visible >= 0.5 else 2


def _expose(
    rng: np.random.Generator, picture: Pixels, config: SyntheticConfig
) -> NDArray[np.uint8]:
    """What lens and sensor make of the light: contrast, blur, noise."""
    height, width = picture.shape[:2]
    gain, gamma = rng.uniform(1.0, 1.3), rng.uniform(0.9, 1.15)
    sigma = max(config.blur * rng.uniform(0.4, 1.0) * width / 1248, 0.05)
    noise = config.noise * rng.uniform(0.25, 1.0)
    curve = 255 * np.clip(np.arange(256) / 255 * gain, 0, 1) ** gamma
    tap = np.exp(-0.5 * (np.arange(-1, 2) / sigma) ** 2)
    kernel = np.outer(tap, tap).ravel().tolist()
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.Kernel((3, 3), kernel))
    image = image.point(curve.round().astype(int).tolist() * 3)
    grey = rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(noise)
    seen = np.asarray(image, dtype=np.int16) + np.rint(grey).astype(np.int16)
    result: NDArray[np.uint8] = np.clip(seen, 0, 255).astype(np.uint8)
    return result
