"""Scene: the labels and detections of all images side by side, as the protocols compare them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.sample import Objects
from squeezedet.detections import Detections
from squeezedet.errors import DataError
from squeezedet.evaluation.pairs import Floats, Indices, decimal

DONT_CARE = "dontcare"


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Labels and detections of I images, in the order of the images and of their files.

    Types and class names are compared without case, so they are lower case here.

    Attributes:
        gt_type: (N,) type of each labelled box, DontCare not among them.
        gt_xyxy: (N, 4) boxes in pixels.
        gt_truncated: (N,) 0 to 1. gt_occluded: (N,) 0 to 3.
        gt_count: (I,) labelled boxes of each image.
        dontcare_xyxy: (R, 4) DontCare boxes; ``dontcare_count`` (I,) in each image.
        det_type: (D,) class name of each detection.
        det_xyxy: (D, 4) boxes in pixels. det_score: (D,).
        det_count: (I,) detections of each image.
    """

    gt_type: NDArray[np.str_]
    gt_xyxy: Floats
    gt_truncated: Floats
    gt_occluded: NDArray[np.int64]
    gt_count: Indices
    dontcare_xyxy: Floats
    dontcare_count: Indices
    det_type: NDArray[np.str_]
    det_xyxy: Floats
    det_score: Floats
    det_count: Indices

    @property
    def gt_image(self) -> Indices:
        """(N,) index of the image of each labelled box."""
        return np.repeat(np.arange(len(self.gt_count)), self.gt_count)

    @property
    def det_image(self) -> Indices:
        """(D,) index of the image of each detection."""
        return np.repeat(np.arange(len(self.det_count)), self.det_count)


def lay_out(ground_truth: Sequence[Objects], detections: Sequence[Detections]) -> Scene:
    """Lay the images side by side.

    Args:
        ground_truth: the labels of I images.
        detections: what was found in the same I images.

    Raises:
        DataError: the numbers of images differ, or a box or score is not finite.
    """
    if len(ground_truth) != len(detections):
        raise DataError(
            f"{len(ground_truth)} labelled images against detections of {len(detections)}; "
            "evaluation needs one for each"
        )
    types = np.array([t.lower() for o in ground_truth for t in o.types], dtype=np.str_)
    xyxy = decimal(_stack([o.xyxy for o in ground_truth], (0, 4)))
    region = types == DONT_CARE
    counts = np.array([len(o) for o in ground_truth], np.intp)
    image = np.repeat(np.arange(len(counts)), counts)
    return Scene(
        gt_type=types[~region],
        gt_xyxy=xyxy[~region],
        gt_truncated=decimal(_stack([o.truncated for o in ground_truth], (0,)))[~region],
        gt_occluded=_stack([o.occluded for o in ground_truth], (0,)).astype(np.int64)[~region],
        gt_count=np.bincount(image[~region], minlength=len(counts)),
        dontcare_xyxy=xyxy[region],
        dontcare_count=np.bincount(image[region], minlength=len(counts)),
        **_detected(detections),
    )


def _detected(detections: Sequence[Detections]) -> dict[str, Any]:
    score = _stack([d.score for d in detections], (0,)).astype(np.float64)
    raw = _stack([d.xyxy for d in detections], (0, 4))
    if not (np.isfinite(score).all() and np.isfinite(raw).all()):
        bad = next(
            d for d in detections if not (np.isfinite(d.score).all() and np.isfinite(d.xyxy).all())
        )
        raise DataError(f"{bad.image or 'detections'}: a box or a score is not finite")
    lower = {names: tuple(n.lower() for n in names) for names in {d.names for d in detections}}
    types = [lower[d.names][c] for d in detections for c in d.class_id.tolist()]
    return {
        "det_type": np.array(types, dtype=np.str_),
        "det_xyxy": decimal(raw),
        "det_score": score,
        "det_count": np.array([len(d) for d in detections], np.intp),
    }


def _stack(arrays: list[NDArray[Any]], empty: tuple[int, ...]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.empty(empty, np.float32)
