"""How good the weights are now: the detector on the validation images, judged as KITTI does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from squeezedet.data.sample import Sample
from squeezedet.detections import Detections
from squeezedet.detectors.squeezedet import SqueezeDet
from squeezedet.evaluation.kitti import KittiResult, evaluate
from squeezedet.media.images import read_image
from squeezedet.runtime.postprocess import RawBoxes, Selection, select, to_original
from squeezedet.runtime.preprocess import input_size, resize


@dataclass(frozen=True, slots=True)
class Validation:
    """Results of one validation.

    Attributes:
        result: by KITTI's rules ``current``.
        fitness: what decides which weights are best: mean AP40 at level moderate, 0 to 1,
            over the classes that occur.
    """

    result: KittiResult
    fitness: float

    def row(self) -> dict[str, float]:
        """AP40 at level moderate of each class, for the log."""
        return {name: level.ap40 for name, level in moderate(self.result).items()}


@torch.inference_mode()
def detect(
    detector: SqueezeDet, pixels: np.ndarray, budget: tuple[int, int], selection: Selection
) -> Detections:
    """Detections in one (H, W, 3) uint8 RGB image, as the runtime would find them."""
    height, width = pixels.shape[:2]
    size = input_size(width, height, budget)
    images = torch.from_numpy(resize(pixels, size).copy()).permute(2, 0, 1)[None]
    boxes, score, class_id = detector.decode(detector(images))
    raw = RawBoxes(
        to_original(boxes[0].numpy(), size, (width, height)), score[0].numpy(), class_id[0].numpy()
    )
    chosen = select(raw, selection)
    return Detections(chosen.xyxy, chosen.score, chosen.class_id, detector.config.classes)


def validate(
    detector: SqueezeDet, samples: Sequence[Sample], budget: tuple[int, int]
) -> Validation:
    """Detect in every validation image and judge.

    Args:
        detector: put into evaluation mode and back.
        samples: labelled images; regions and neighbouring classes count as KITTI says.
        budget: (width, height) whose product bounds the input's pixels.
    """
    was_training = detector.training
    detector.eval()
    selection = Selection(score=0.0)
    found = [detect(detector, read_image(s.image).pixels, budget, selection) for s in samples]
    detector.train(was_training)
    result = evaluate([s.objects for s in samples], found, rules="current")
    levels = [level.ap40 for level in moderate(result).values()]
    return Validation(result, float(np.mean(levels)) if levels else 0.0)
