"""Solids of closed rings, and the painter that turns their faces into lit patches.

A loft is a stack of rings. A ring is given by the points of its right half, from the
middle of the tail to the middle of the nose, and mirrored. What is painted on a loft has
its coordinates: index along the half ring, and height from 0 to 1.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.synthetic.camera import Camera, Floats, Light, Patch, Pose


class Loft:
    """Rings of points, (levels, ring, 3), with an inverse: loft coordinates to points."""

    def __init__(self, rings: Floats, levels: Floats, half: int) -> None:
        self.rings, self.levels, self.half = rings, levels, half

    def faces(self) -> Floats:
        """(F, 4, 3) quads, corners in order, seen counter-clockwise from outside."""
        a, b = self.rings[:-1], self.rings[1:]
        a2, b2 = np.roll(a, -1, axis=1), np.roll(b, -1, axis=1)
        walls = np.stack([a, a2, b2, b], axis=2).reshape(-1, 4, 3)
        top = self.rings[-1]
        i = np.arange(self.half - 1)
        left = (-i) % len(top)
        left2 = (-i - 1) % len(top)
        cap = np.stack([top[left], top[i], top[i + 1], top[left2]], axis=1)
        return np.concatenate([walls, cap])[:, ::-1]

    def at(self, index: Floats, height: Floats) -> Floats:
        """(N,) places on the half ring, negative on the left, to (N, 3) points."""
        size = len(self.rings[0])
        level = np.interp(height, self.levels, np.arange(len(self.levels)))
        low = np.clip(level.astype(int), 0, len(self.levels) - 2)
        up = (level - low)[:, None]
        start = np.floor(index).astype(int)
        share = (index - start)[:, None]

        def ring(k: NDArray[np.int64]) -> Floats:
            first, second = self.rings[k, start % size], self.rings[k, (start + 1) % size]
            points: Floats = first * (1 - share) + second * share
            return points

        points: Floats = ring(low) * (1 - up) + ring(low + 1) * up
        return points


def loft_rings(rear: Floats, front: Floats, half_width: Floats, plan: Floats, up: Floats) -> Floats:
    """Rings from per-level extents (L,), the plan (P, 2) and heights (L, P): (L, 2P - 2, 3)."""
    middle, half = (front + rear) / 2, (front - rear) / 2
    along = middle[:, None] + half[:, None] * plan[None, :, 0]
    across = half_width[:, None] * plan[None, :, 1]
    right = np.stack([along, up, across], axis=-1)
    left = right[:, -2:0:-1] * np.array([1, 1, -1])
    return np.concatenate([right, left], axis=1)


class Painter:
    """Collects faces in vehicle coordinates and turns them into lit patches in one pass."""

    def __init__(self, pose: Pose, camera: Camera, light: Light) -> None:
        self.pose, self.camera, self.light = pose, camera, light
        self.faces: list[Floats] = []
        self.traits: list[Floats] = []

    def add(self, faces: Floats, colour: Floats, gloss: float = 0.0, cull: bool = True) -> None:
        """Draw (F, K, 3) faces in a colour, over all that was added before, far ones first.

        Faces turned away from the camera are left out, or with ``cull`` False kept.
        """
        trait = np.array([*colour, gloss, float(cull), len(self.faces), faces.shape[1]])
        self.faces.append(faces.reshape(-1, 3))
        self.traits.append(np.broadcast_to(trait, (len(faces), 7)))

    def patches(self) -> list[Patch]:
        """Everything added, in the order of drawing."""
        world = self.pose.to_world(np.concatenate(self.faces))
        traits = np.concatenate(self.traits)
        colour, gloss, cull, layer = traits[:, :3], traits[:, 3], traits[:, 4] > 0, traits[:, 5]
        corners = traits[:, 6].astype(np.intp)
        start = np.concatenate([[0], np.cumsum(corners)[:-1]])
        across = world[start + corners // 2] - world[start]
        other = world[start + 3 * corners // 4] - world[start + corners // 4]
        normal = np.cross(across, other)
        normal /= np.maximum(np.linalg.norm(normal, axis=1), 1e-9)[:, None]
        ray = np.add.reduceat(world, start) / corners[:, None] - (0, self.camera.eye, 0)
        away = (normal * ray).sum(axis=1) >= 0
        normal[away] *= -1
        distance = np.linalg.norm(ray, axis=1)
        lit = self.light.shade(colour, normal)
        lit = self._reflect(lit, normal, ray / distance[:, None], gloss)
        lit = self.light.fade(lit, distance)
        pixels = self.camera.project(world)
        return [
            Patch(pixels[start[i] : start[i] + corners[i]], lit[i])
            for i in np.lexsort((-distance, layer))
            if not (away[i] and cull[i])
        ]

    def _reflect(self, lit: Floats, normal: Floats, ray: Floats, gloss: Floats) -> Floats:
        """Add the mirror image: sky above the horizon, dark road below it."""
        cosine = -(ray * normal).sum(axis=1)
        up = ray[:, 1] + 2 * cosine * normal[:, 1]
        fresnel = gloss * (0.35 + 0.65 * (1 - np.clip(cosine, 0, 1)) ** 3)
        sky = np.clip(up * 2.2 + 0.12, 0, 1)[:, None]
        mirror = sky * self.light.haze * 0.95 + (1 - sky) * np.array([42.0, 42.0, 44.0])
        glossy: Floats = lit * (1 - fresnel[:, None]) + mirror * fresnel[:, None]
        return glossy

    def on(self, loft: Loft, index: tuple[float, float], height: tuple[float, float],
           colour: Floats, *, gloss: float = 0.0, rows: int = 1) -> None:  # fmt: skip
        """Paint a strip of the loft between two indices and heights, on both sides."""
        faces = loft.at(*_strip(index, height, rows)).reshape(4, -1, 3).swapaxes(0, 1)
        mirrored = faces[:, ::-1] * np.array([1, 1, -1])
        self.add(np.concatenate([faces, mirrored]), colour, gloss)


@cache
def _strip(
    index: tuple[float, float], height: tuple[float, float], rows: int
) -> tuple[Floats, Floats]:
    """Loft coordinates of a strip's quads, first corners first, cut where the loft has edges."""
    low, high = index
    cuts = np.unique([low, *np.arange(np.ceil(low), np.floor(high) + 1), high])
    levels = np.linspace(height[0], height[1], rows + 1)
    a, c = (grid.ravel() for grid in np.meshgrid(cuts[:-1], levels[:-1]))
    b, d = (grid.ravel() for grid in np.meshgrid(cuts[1:], levels[1:]))
    return np.concatenate([a, a, b, b]), np.concatenate([c, d, d, c])
