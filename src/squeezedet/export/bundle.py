"""From a checkpoint to a bundle: the graph, and a card with all that is known of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from squeezedet.export.onnx import OPSET, export
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.card import Card
from squeezedet.runtime.preprocess import InputRule
from squeezedet.training.checkpoint import load_detector

UNKNOWN = "not stated"


def bundle_checkpoint(
    path: Path,
    name: str,
    *,
    licence: str = UNKNOWN,
    data: str = UNKNOWN,
    results: dict[str, Any] | None = None,
) -> Bundle:
    """Export the weights of a checkpoint with their card.

    Args:
        path: of the checkpoint.
        name: of the model.
        licence: of the weights, with the reason.
        data: what they were trained on, with licences.
        results: measured accuracy; by default what the checkpoint's validation found.

    Raises:
        ModelError: the checkpoint is damaged, or the exported graph differs from the detector.
    """
    detector, checkpoint = load_detector(path)
    rule = InputRule(**checkpoint.metadata["input"])
    graph = export(detector, (rule.width, rule.height))
    metadata = checkpoint.metadata
    card = Card(
        name=name,
        detector=metadata["config"]["detector"],
        classes=detector.config.classes,
        input=rule,
        parameters=sum(p.numel() for p in detector.parameters()),
        licence=licence,
        data=data,
        training={
            "steps": metadata["step"],
            "config": metadata["config"],
            "recipe": metadata["recipe"],
            "versions": metadata.get("versions", {}),
        },
        results=results or metadata.get("validation") or {},
        opset=OPSET,
        graph_sha256=hashlib.sha256(graph).hexdigest(),
    )
    return Bundle(card, graph)
