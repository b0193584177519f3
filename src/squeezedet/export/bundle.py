"""From a checkpoint to a bundle: the graph, and a card with all that is known of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from squeezedet.data.sample import Sample
from squeezedet.errors import ModelError
from squeezedet.export.onnx import OPSET, export
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.card import Card
from squeezedet.training.calibrate import best_threshold, shift_confidence
from squeezedet.training.checkpoint import load_detector
from squeezedet.training.validate import detect_all

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
        calibrate_on: labelled images on which the score threshold of the best F2 is found
            and made 0.4, see ``squeezedet.training.calibrate``; none leaves the scores alone.

    Raises:
        ModelError: the checkpoint is damaged, or the exported graph differs from the detector.
    """
    detector, checkpoint = load_detector(path)
    metadata = checkpoint.metadata
    try:
        training = {field: metadata[key] for field, key in TRAINING.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: says too little of itself to make a bundle: {error}") from error
    if calibrate_on:
        found = detect_all(detector, calibrate_on)
        threshold = best_threshold(calibrate_on, found, detector.config.classes)
        training["confidence_shift"] = shift_confidence(detector, threshold)
    rule = detector.input_rule
    graph = export(detector, (rule.width, rule.height))
    card = Card(
        name=name,
        detector=training["config"]["detector"],
        classes=detector.config.classes,
        input=rule,
        selection=detector.selection,
        parameters=sum(p.numel() for p in detector.parameters()),
        licence=licence,
        data=data,
        training=training,
        results=results or metadata.get("validation") or {},
        opset=OPSET,
        graph_sha256=hashlib.sha256(graph).hexdigest(),
    )
    return Bundle(card, graph)
