"""From a checkpoint to a bundle: the graph, and a card with all that is known of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from squeezedet.data.sample import Sample
from squeezedet.errors import ModelError
from squeezedet.exporting.onnx import OPSET, export
from squeezedet.models.network import DetectionNetwork
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.card import Card
from squeezedet.training.checkpoint import load_detector
from squeezedet.training.validate import best_thresholds, detect_all, score_odds

UNKNOWN = "not stated"
TRAINING = {"steps": "step", "config": "config", "recipe": "recipe", "versions": "versions"}
"""What a card says of the training -> where a checkpoint has it."""


def bundle_checkpoint(
    path: Path,
    name: str,
    *,
    licence: str = UNKNOWN,
    data: str = UNKNOWN,
    results: dict[str, Any] | None = None,
    calibrate_on: Sequence[Sample] = (),
) -> Bundle:
    """Export the weights of a checkpoint with their card.

    Args:
        path: of the checkpoint.
        name: of the model.
        licence: of the weights, with the reason.
        data: what they were trained on, with licences.
        results: measured accuracy; by default what the checkpoint's validation found.
        calibrate_on: labelled images on which the score threshold of the best F1 is found
            and made 0.4 where the network has confidences, see ``squeezedet.training.validate``;
            none leaves scores and threshold alone.

    Raises:
        ModelError: the checkpoint is damaged, or the exported graph differs from the detector.
    """
    detector, checkpoint = load_detector(path)
    metadata = checkpoint.metadata
    try:
        training = {field: metadata[key] for field, key in TRAINING.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: says too little of itself to make a bundle: {error}") from error
    return bundle_detector(
        detector,
        name,
        licence=licence,
        data=data,
        training=training,
        results=results or metadata.get("validation") or {},
        calibrate_on=calibrate_on,
    )


def bundle_detector(
    detector: DetectionNetwork,
    name: str,
    *,
    licence: str = UNKNOWN,
    data: str = UNKNOWN,
    training: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
    calibrate_on: Sequence[Sample] = (),
) -> Bundle:
    """Export a detector with its card; see ``bundle_checkpoint``.

    Args:
        detector: with its weights; calibration sets its ``score_odds``.
        name: of the model.
        licence: of the weights, with the reason.
        data: what they were trained on, with licences.
        training: what the card says of how it was trained.
        results: measured accuracy.
        calibrate_on: labelled images.

    Raises:
        ModelError: the exported graph differs from the detector.
    """
    training = dict(training or {})
    if calibrate_on:
        found = detect_all(detector, calibrate_on)
        detector.score_odds = score_odds(best_thresholds(calibrate_on, found, detector.config.classes))
        training["score_odds"] = list(detector.score_odds)
    rule = detector.input_rule
    graph = export(detector, (rule.width, rule.height))
    card = Card(
        name=name,
        detector=detector.kind,
        classes=detector.config.classes,
        input=rule,
        selection=detector.selection,
        parameters=sum(p.numel() for p in detector.parameters()),
        licence=licence,
        data=data,
        training=training,
        results=results or {},
        opset=OPSET,
        graph_sha256=hashlib.sha256(graph).hexdigest(),
    )
    return Bundle(card, graph)
