"""Inference engines, one a file; and what each of them is: uint8 pixels in, the boxes of every anchor out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError
from squeezedet.runtime.postprocess import RawBoxes

INPUT = "images"
OUTPUTS = ("boxes", "scores", "class_ids")
"""The names in an exported graph: (1, H, W, 3) uint8 in; (1, A, 4), (1, A) and (1, A) out."""
OUTPUT_TYPES = ("float32", "float32", "int64")


class Engine(Protocol):
    """One model, loaded and ready. Threads may share one.

    Attributes:
        name: of the engine, as ``--engine`` takes it.
    """

    name: str

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        """Pixels to the boxes of every anchor, in pixels of the input.

        Args:
            pixels: (H, W, 3) uint8 RGB of a size that the model's input rule gives.

        Returns:
            Arrays of the caller's own: the next run leaves them alone.

        Raises:
            ModelError: the model fails, or what it gives are no boxes, scores and class ids.
        """
        ...


def raw_boxes(boxes: NDArray[np.float32], score: NDArray[np.float32], class_id: NDArray[np.int64]) -> RawBoxes:
    """The three outputs of a graph as boxes, if they are any; each engine ends with this.

    Raises:
        ModelError: the shapes are not (1, A, 4), (1, A) and (1, A), the types are others, or a box or a score is NaN
            or infinite.
    """
    shapes = [array.shape for array in (boxes, score, class_id)]
    anchors = score.shape[-1:]
    if shapes != [(1, *anchors, 4), (1, *anchors), (1, *anchors)] or not anchors:
        raise ModelError(f"the model gives arrays of the shapes {shapes}, not (1, A, 4), (1, A) and (1, A)")
    types = tuple(str(array.dtype) for array in (boxes, score, class_id))
    if types != OUTPUT_TYPES:
        raise ModelError(f"the model gives {', '.join(types)}, not {', '.join(OUTPUT_TYPES)}")
    if not (_finite(score) and _finite(boxes)):
        raise ModelError("the model gives boxes or scores that are NaN or infinite")
    return RawBoxes(boxes[0], score[0], class_id[0])


def _finite(array: NDArray[np.float32]) -> bool:
    """A sum is several times faster than a look at each number, and NaN or infinity stays in it."""
    with np.errstate(all="ignore"):
        return math.isfinite(float(array.sum())) or bool(np.isfinite(array).all())


def check_ports(inputs: Mapping[str, str], outputs: Mapping[str, str], types: Sequence[str]) -> None:
    """Raises ModelError for a graph that is no detector of ours.

    Args:
        inputs: name -> type, as the engine writes types.
        outputs: the same.
        types: that engine's words for uint8 and for the three outputs.
    """
    wanted = dict(zip(OUTPUTS, types[1:], strict=True))
    if inputs != {INPUT: types[0]} or outputs != wanted:
        raise ModelError(
            f"the graph takes {inputs} and gives {outputs}; a detector takes uint8 {INPUT!r} and gives {wanted}"
        )


def failed_run(pixels: NDArray[np.uint8], error: Exception) -> ModelError:
    """What to raise when an engine fails on these pixels."""
    height, width = pixels.shape[:2]
    return ModelError(f"the model fails on an input of {width}x{height} pixels: {first_line(error)}")


def first_line(error: Exception) -> str:
    """The first line of what an engine says that is no "Exception from FILE:LINE"."""
    lines = (line.strip() for line in str(error).splitlines())
    said = [line for line in lines if line and not line.startswith("Exception from")]
    return said[0] if said else type(error).__name__
