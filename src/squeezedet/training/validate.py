"""How good the weights are now: the detector on labelled images, evaluated by a protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from squeezedet.data.sample import ClassMap, Sample
from squeezedet.detections import Detections
from squeezedet.evaluation import coco, kitti, voc
from squeezedet.evaluation.analysis import confuse
from squeezedet.evaluation.kitti import Level, assign, false_alarms, hits, matching_problems, rules_for
from squeezedet.evaluation.matching import concatenate
from squeezedet.evaluation.report import Result
from squeezedet.media.images import read_image
from squeezedet.models.network import DetectionNetwork
from squeezedet.preprocess import fit
from squeezedet.runtime.postprocess import RawBoxes, Selection, report
from squeezedet.training.distributed import SINGLE_PROCESS, Processes
from squeezedet.training.recipe import Protocol

SHOWN_SCORE = 0.4
"""From this score on a detection is shown."""
MEASURES: Mapping[Protocol, tuple[str, str]] = {
    "kitti": ("ap40", "AP40 moderate"),
    "voc": ("ap50", "AP50"),
    "coco": ("ap", "AP"),
}
"""What is compared: the name of its columns in the log, and how it is called."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Results of one validation.

    Attributes:
        result: of the protocol (KITTI: rules ``current``).
        ap: what is compared, of each class, 0 to 1: KITTI's AP40 at level moderate, VOC's area under the curve, COCO's
            AP; 0 for a class that was never detected, None for one without a labelled object, which is in no mean.
        found: what was detected in each image.
    """

    result: Result
    ap: Mapping[str, float | None]
    found: Sequence[Detections]

    @property
    def fitness(self) -> float:
        """What decides which weights are best: the mean over the classes that have objects."""
        values = [value for value in self.ap.values() if value is not None]
        return float(np.mean(values)) if values else 0.0


@torch.inference_mode()
def detect(detector: DetectionNetwork, pixels: NDArray[np.uint8], selection: Selection) -> Detections:
    """Detections in one (H, W, 3) uint8 RGB image, as the runtime would find them."""
    height, width = pixels.shape[:2]
    images = torch.from_numpy(fit(pixels, detector.input_rule).copy()).permute(2, 0, 1)[None]
    images = images.to(next(detector.parameters()).device)
    boxes, score, class_id = (t[0].cpu().numpy() for t in detector.decode(detector(images)))
    content = detector.input_rule.content(width, height)
    found = report(RawBoxes(boxes, score, class_id), selection, content, (width, height))
    return Detections(found.xyxy, found.score, found.class_id, detector.config.classes)


def detect_all(
    detector: DetectionNetwork, samples: Sequence[Sample], processes: Processes = SINGLE_PROCESS
) -> list[Detections]:
    """What is found in each image, whatever its score; in evaluation mode, and back.

    Each image is looked at by one process, and all processes get the whole list.
    """
    was_training = detector.training
    detector.eval()
    selection = replace(detector.selection, score=0.0)
    mine = [samples[i] for i in processes.share(len(samples))]
    found = [detect(detector, read_image(s.image).pixels, selection) for s in mine]
    detector.train(was_training)
    return processes.gather_shares(found)


def validate(
    detector: DetectionNetwork,
    samples: Sequence[Sample],
    class_map: ClassMap,
    protocol: Protocol = "kitti",
    processes: Processes = SINGLE_PROCESS,
) -> Validation:
    """Detect in every image and evaluate by a protocol; the processes share the images, and each evaluates all."""
    return evaluate_detections(samples, detect_all(detector, samples, processes), class_map, protocol)


def check_protocol(protocol: Protocol) -> None:
    """Find out before a run starts that its protocol can be used: COCO's wants faster-coco-eval."""
    if protocol == "coco":
        coco.check_installed()


def evaluate_detections(
    samples: Sequence[Sample], found: Sequence[Detections], class_map: ClassMap, protocol: Protocol = "kitti"
) -> Validation:
    """Evaluate what was found in each image; see ``validate``.

    By KITTI's rules regions and neighbouring classes count as KITTI says. By the others an object that is ignored, or
    an area that is a region, counts neither way.
    """
    names = class_map.names
    truth = [class_map.map_types(sample.objects) for sample in samples]
    result: Result
    if protocol == "kitti":
        raw = [sample.objects for sample in samples]
        result = kitti.evaluate(raw, found, "current", kitti.rules_for(names))
    elif protocol == "voc":
        result = voc.evaluate([voc.truth_of(objects, names) for objects in truth], found, names)
    else:
        files = [sample.image.name for sample in samples]
        labels = coco.labels_of(truth, files, names)
        result = coco.evaluate(labels, coco.records_of(found, names))
    return Validation(result, result.ap, found)


def figures(validation: Validation, samples: Sequence[Sample], class_map: ClassMap) -> dict[str, Any]:
    """Precision against recall of each class (KITTI's at level moderate), and the confusion, as plain numbers."""
    truth = [class_map.map_types(sample.objects) for sample in samples]
    curves = {name: c for name, c in validation.result.curves().items() if validation.ap.get(name) is not None}
    return {
        "precision": {name: c.get("moderate") or c["IoU 0.5"] for name, c in curves.items()},
        "classes": list(class_map.names),
        "confusion": confuse(truth, validation.found, class_map.names, SHOWN_SCORE).sum(axis=0).tolist(),
    }


# ------------------------------------------------------------ calibration of the score

OVERLAP = 0.5
VISIBLE = Level("visible", min_height_px=25, max_occluded=3, max_truncated=1.0)
THRESHOLDS = np.linspace(0.05, 0.95, 91)


def best_thresholds(
    samples: Sequence[Sample], detections: Sequence[Detections], names: Sequence[str]
) -> tuple[float, ...]:
    """The score threshold of the best F1 for each class; that of all together for one without objects.

    Objects above 25 px count, a match needs an IoU above 0.5, the rest is as KITTI has it.
    """
    scene = concatenate([s.objects for s in samples], detections)
    rules = [replace(rule, min_overlap=OVERLAP) for rule in rules_for(names)]
    shape = len(rules), len(THRESHOLDS)
    true, false, objects = np.zeros(shape), np.zeros(shape), np.zeros((len(rules), 1))
    for c, rule in enumerate(rules):
        for _, _, problem in matching_problems(scene, "current", [rule], [VISIBLE]):
            taken = assign(problem, THRESHOLDS)
            true[c] += hits(problem, taken).sum(axis=0)
            false[c] += false_alarms(problem, taken, THRESHOLDS).sum(axis=0)
            objects[c] += problem.gt_valid.sum()
    overall = _best_f1(true.sum(axis=0), false.sum(axis=0), objects.sum(axis=0))
    each = [_best_f1(*counts) for counts in zip(true, false, objects, strict=True)]
    return tuple(own if count else overall for own, count in zip(each, objects[:, 0], strict=True))


def _best_f1(true: NDArray[Any], false: NDArray[Any], objects: NDArray[Any]) -> float:
    f1 = 2 * true / np.maximum(objects + true + false, 1)
    return float(THRESHOLDS[int(f1.argmax())])


def score_odds(thresholds: Sequence[float], shown: float = SHOWN_SCORE) -> tuple[float, ...]:
    """What odds are divided by so that each class's threshold becomes the score ``shown``."""
    return tuple(round(t / (1 - t) * (1 - shown) / shown, 5) for t in thresholds)
