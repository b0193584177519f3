"""How good the weights are now: the detector on the validation images, judged as KITTI does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from squeezedet.data.sample import Sample
from squeezedet.detections import Detections
from squeezedet.detectors.squeezedet import SqueezeDet
from squeezedet.evaluation.kitti import KITTI_CLASSES, ClassRule, KittiResult, evaluate
from squeezedet.media.images import read_image
from squeezedet.runtime.postprocess import RawBoxes, Selection, select, to_original
from squeezedet.runtime.preprocess import InputRule, resize

OTHER_OVERLAP = 0.5  # for classes that are not KITTI's


@dataclass(frozen=True, slots=True)
class Validation:
    """Results of one validation.

    Attributes:
        result: by KITTI's rules ``current``.
        moderate: AP40 at level moderate of each class, 0 to 1.
        fitness: what decides which weights are best: the mean of ``moderate``.
    """

    result: KittiResult
    moderate: Mapping[str, float]

    @property
    def fitness(self) -> float:
        return float(np.mean(list(self.moderate.values())))


@torch.inference_mode()
def detect(
    detector: SqueezeDet, pixels: NDArray[np.uint8], rule: InputRule, selection: Selection
) -> Detections:
    """Detections in one (H, W, 3) uint8 RGB image, as the runtime would find them."""
    height, width = pixels.shape[:2]
    size = rule.size(width, height)
    images = torch.from_numpy(resize(pixels, size).copy()).permute(2, 0, 1)[None]
    boxes, score, class_id = detector.decode(detector(images))
    raw = RawBoxes(
        to_original(boxes[0].numpy(), size, (width, height)), score[0].numpy(), class_id[0].numpy()
    )
    chosen = select(raw, selection)
    return Detections(chosen.xyxy, chosen.score, chosen.class_id, detector.config.classes)


def validate(detector: SqueezeDet, samples: Sequence[Sample], rule: InputRule) -> Validation:
    """Detect in every validation image and judge.

    Args:
        detector: put into evaluation mode and back.
        samples: labelled images; regions and neighbouring classes count as KITTI says.
        rule: which size an image gets.
    """
    was_training = detector.training
    detector.eval()
    selection = Selection(score=0.0)
    found = [detect(detector, read_image(s.image).pixels, rule, selection) for s in samples]
    detector.train(was_training)
    known = {rule.name: rule for rule in KITTI_CLASSES}
    classes = [known.get(name, ClassRule(name, OTHER_OVERLAP)) for name in detector.config.classes]
    result = evaluate([s.objects for s in samples], found, "current", classes)
    moderate = {
        name: levels["moderate"].ap40 if levels else 0.0 for name, levels in result.results.items()
    }
    return Validation(result, moderate)
