"""How good the weights are now: the detector on the validation images, judged as KITTI does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from squeezedet.data.sample import Sample
from squeezedet.detections import Detections
from squeezedet.detectors.network import DetectionNetwork
from squeezedet.evaluation.kitti import KittiResult, evaluate, rules_for
from squeezedet.media.images import read_image
from squeezedet.runtime.postprocess import RawBoxes, Selection, report
from squeezedet.runtime.preprocess import resize


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
    detector: DetectionNetwork, pixels: NDArray[np.uint8], selection: Selection
) -> Detections:
    """Detections in one (H, W, 3) uint8 RGB image, as the runtime would find them."""
    height, width = pixels.shape[:2]
    size = detector.input_rule.size(width, height)
    images = torch.from_numpy(resize(pixels, size).copy()).permute(2, 0, 1)[None]
    boxes, score, class_id = (t[0].numpy() for t in detector.decode(detector(images)))
    found = report(RawBoxes(boxes, score, class_id), selection, size, (width, height))
    return Detections(found.xyxy, found.score, found.class_id, detector.config.classes)


def detect_all(detector: DetectionNetwork, samples: Sequence[Sample]) -> list[Detections]:
    """What is found in each image, whatever its score; in evaluation mode, and back."""
    was_training = detector.training
    detector.eval()
    selection = replace(detector.selection, score=0.0)
    found = [detect(detector, read_image(s.image).pixels, selection) for s in samples]
    detector.train(was_training)
    return found


def validate(detector: DetectionNetwork, samples: Sequence[Sample]) -> Validation:
    """Detect in every validation image and judge.

    Args:
        detector: the network with its weights.
        samples: labelled images; regions and neighbouring classes count as KITTI says.
    """
    found = detect_all(detector, samples)
    classes = rules_for(detector.config.classes)
    result = evaluate([s.objects for s in samples], found, "current", classes)
    moderate = {
        name: levels["moderate"].ap40 if levels else 0.0 for name, levels in result.results.items()
    }
    return Validation(result, moderate)
