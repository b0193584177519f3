"""The pinhole camera of a scene, its light, and the flat patches that everything is drawn with.

World coordinates are metres: x to the right, y up from the road, z ahead of the camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Camera:
    """A level pinhole camera above the road, looking along z.

    Attributes:
        width, height: picture size in pixels.
        focal: focal length in pixels.
        centre_x: column of the optical axis.
        horizon: row of the optical axis, which is the horizon of a level camera.
        eye: height of the camera above the road in metres.
    """

    width: int
    height: int
    focal: float
    centre_x: float
    horizon: float
    eye: float

    def project(self, points: Floats) -> Floats:
        """(..., 3) world points with z > 0 to (..., 2) pixels."""
        scale = self.focal / points[..., 2]
        return np.stack(
            [
                self.centre_x + points[..., 0] * scale,
                self.horizon + (self.eye - points[..., 1]) * scale,
            ],
            axis=-1,
        )


@dataclass(frozen=True, slots=True)
class Light:
    """Sun, sky and air.

    Attributes:
        sun: (3,) unit vector towards the sun.
        sun_strength: 0 (overcast) to about 0.8.
        ambient: light from the whole sky.
        tint: (3,) colour of the light, about 1.
        haze: (3,) colour that distance fades to, 0 to 255.
        haze_length: metres after which 63 % of a colour is haze.
    """

    sun: Floats
    sun_strength: float
    ambient: float
    tint: Floats
    haze: Floats
    haze_length: float

    def shade(self, colour: Floats, normal: Floats) -> Floats:
        """(..., 3) colours of matt surfaces with (..., 3) unit normals, lit."""
        sky = self.ambient * (0.8 + 0.2 * normal[..., 1])
        sun = self.sun_strength * np.maximum(normal @ self.sun, 0)
        lit: Floats = colour * (sky + sun)[..., None] * self.tint
        return lit

    def fade(self, colour: Floats, distance: float | Floats) -> Floats:
        """(..., 3) colours seen through (...) metres of air."""
        share = 1 - np.exp(-np.asarray(distance) / self.haze_length)
        hazed: Floats = colour + (self.haze - colour) * share[..., None]
        return hazed


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A polygon of one colour.

    Attributes:
        points: (K, 2) corners in pixels of the picture.
        colour: (3,) 0 to 255, lit and hazed.
    """

    points: Floats
    colour: Floats


@dataclass(frozen=True, slots=True)
class Pose:
    """Where something stands and which way it heads.

    Attributes:
        x, y, z: middle of its foot in metres.
        yaw: heading in radians; 0 drives away from the camera, pi / 2 to the right.
    """

    x: float
    y: float
    z: float
    yaw: float

    def to_world(self, local: Floats) -> Floats:
        """(..., 3) of (forward, up, right) metres to (..., 3) world points."""
        forward, up, right = np.moveaxis(local, -1, 0)
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        return np.stack(
            [
                self.x + forward * sin + right * cos,
                self.y + up,
                self.z + forward * cos - right * sin,
            ],
            axis=-1,
        )
