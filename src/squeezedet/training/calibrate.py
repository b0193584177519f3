"""Move the confidences so that one score means a good trade wherever a model is used.

The loss weighs the few anchors with objects far above the many without, so that
a trained network is overconfident. Subtracting one number from all confidence logits
leaves the order of the scores, and so every average precision, as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from squeezedet.data.sample import Sample
from squeezedet.detections import Detections
from squeezedet.detectors.network import DetectionNetwork
from squeezedet.evaluation.kitti import Level, problems, rules_for
from squeezedet.evaluation.kitti_matching import assign, false_alarms, hits
from squeezedet.evaluation.scene import lay_out

SHOWN_SCORE = 0.4
BETA = 2.0
OVERLAP = 0.5
VISIBLE = Level("visible", min_height_px=25, max_occluded=3, max_truncated=1.0)
THRESHOLDS = np.linspace(0.05, 0.95, 91)


def best_threshold(
    samples: Sequence[Sample], detections: Sequence[Detections], names: Sequence[str]
) -> float:
    """The score threshold of the best F2, over all classes together.

    F2 weighs recall twice as much as precision: on the road a missed person is worse than
    a box too many. Objects above 25 px count, a match needs an IoU above 0.5, the rest
    is as KITTI has it.
    """
    scene = lay_out([s.objects for s in samples], detections)
    rules = [replace(rule, min_overlap=OVERLAP) for rule in rules_for(names)]
    true, false, objects = np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS)), 0
    for _, _, problem in problems(scene, "current", rules, [VISIBLE]):
        taken = assign(problem, THRESHOLDS)
        true += hits(problem, taken).sum(axis=0)
        false += false_alarms(problem, taken, THRESHOLDS).sum(axis=0)
        objects += int(problem.gt_valid.sum())
    weight = BETA**2
    f = (1 + weight) * true / np.maximum((1 + weight) * true + weight * (objects - true) + false, 1)
    return float(THRESHOLDS[int(f.argmax())])


def shift_confidence(
    detector: DetectionNetwork, threshold: float, shown: float = SHOWN_SCORE
) -> float:
    """Subtract from the confidence logits what turns the score ``threshold`` into ``shown``.

    Args:
        detector: changed in place.
        threshold: a score of today, as of ``best_threshold``.
        shown: what it shall become.

    Returns:
        The number subtracted; 0 for a network without confidences.
    """
    logit = math.log(threshold / (1 - threshold)) - math.log(shown / (1 - shown))
    return logit if detector.subtract_confidence(logit) else 0.0
