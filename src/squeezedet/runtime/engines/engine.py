"""What every inference engine is: uint8 pixels in, the boxes of every anchor out."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from squeezedet.runtime.postprocess import RawBoxes


class Engine(Protocol):
    """One model, loaded and ready.

    Attributes:
        name: of the engine, as ``--engine`` takes it.
    """

    name: str

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        """Pixels to the boxes of every anchor, in pixels of the input.

        Args:
            pixels: (H, W, 3) uint8 RGB of a size that the model's input rule gives.

        Raises:
            ModelError: the model fails, or what it gives are no boxes, scores and class ids.
        """
        ...
