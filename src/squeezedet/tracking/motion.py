"""How tracked boxes move: a Kalman filter of constant velocity, all boxes at once.

The state is that of SORT's successors, centre, width, height and the velocity of each. With noise
that does not couple them, the filter of eight numbers falls apart into four of two, so that no
matrix is ever inverted. Noise goes with the size of the box, as in DeepSORT (arXiv 1703.07402).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from squeezedet.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh

Array = NDArray[np.float64]

POSITION = 1 / 20
"""Standard deviation of a measured coordinate, in widths or heights of the box."""
VELOCITY = 1 / 160
"""By how much a velocity changes from one frame to the next, in the same unit."""
MIN_SIZE_PX = 1.0
"""A box does not shrink further."""


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Where N boxes are believed to be and how they move; every array is (N, 4) float64.

    Attributes:
        place: centre x, centre y, width, height in pixels.
        velocity: of each of these, in pixels a frame.
        place_var, covariance, velocity_var: the covariance matrix of each pair.
    """

    place: Array
    velocity: Array
    place_var: Array
    covariance: Array
    velocity_var: Array

    @classmethod
    def start(cls, xyxy: NDArray[np.floating]) -> Self:
        """Boxes seen for the first time: at rest, as far as one knows."""
        place = xyxy_to_cxcywh(xyxy).astype(np.float64)
        unit = _unit(place)
        return cls(
            place,
            np.zeros_like(place),
            (2 * POSITION * unit) ** 2,
            np.zeros_like(place),
            (10 * VELOCITY * unit) ** 2,
        )

    def __len__(self) -> int:
        return len(self.place)

    @property
    def xyxy(self) -> Array:
        """(N, 4) corners."""
        return np.asarray(cxcywh_to_xyxy(self.place))

    def step(self) -> Self:
        """One frame on."""
        unit = _unit(self.place)
        place = self.place + self.velocity
        place[:, 2:] = np.maximum(place[:, 2:], MIN_SIZE_PX)
        return replace(
            self,
            place=place,
            place_var=self.place_var
            + 2 * self.covariance
            + self.velocity_var
            + (POSITION * unit) ** 2,
            covariance=self.covariance + self.velocity_var,
            velocity_var=self.velocity_var + (VELOCITY * unit) ** 2,
        )

    def correct(self, rows: NDArray[np.intp], xyxy: NDArray[np.floating]) -> Self:
        """The same boxes after some of them were measured.

        Args:
            rows: (M,) which ones, each once.
            xyxy: (M, 4) where they were seen.
        """
        seen = xyxy_to_cxcywh(np.asarray(xyxy, np.float64))
        place_var, covariance = self.place_var[rows], self.covariance[rows]
        total = place_var + (POSITION * _unit(self.place[rows])) ** 2
        gain, velocity_gain = place_var / total, covariance / total
        off = seen - self.place[rows]
        return replace(
            self,
            place=_put(self.place, rows, self.place[rows] + gain * off),
            velocity=_put(self.velocity, rows, self.velocity[rows] + velocity_gain * off),
            place_var=_put(self.place_var, rows, (1 - gain) * place_var),
            covariance=_put(self.covariance, rows, (1 - gain) * covariance),
            velocity_var=_put(
                self.velocity_var, rows, self.velocity_var[rows] - velocity_gain * covariance
            ),
        )

    def keep_size(self, rows: NDArray[np.intp]) -> Self:
        """These boxes, which nobody sees, neither grow nor shrink from now on."""
        velocity = self.velocity.copy()
        velocity[rows, 2:] = 0
        return replace(self, velocity=velocity)

    def __getitem__(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        return type(self)(*(getattr(self, name)[rows] for name in self.__slots__))

    def __add__(self, other: Self) -> Self:
        """These boxes and, behind them, the others."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__slots__)
        return type(self)(*(np.concatenate(pair) for pair in pairs))


def _unit(place: NDArray[np.floating]) -> Array:
    """(N, 4): the width of each box for its x and width, the height for its y and height."""
    size = np.maximum(place[:, 2:], MIN_SIZE_PX)
    return np.concatenate([size, size], axis=1)


def _put(array: Array, rows: NDArray[np.intp], values: Array) -> Array:
    new = array.copy()
    new[rows] = values
    return new
