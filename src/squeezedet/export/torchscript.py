"""Write a TorchScript file: pixels in, boxes out, with the card in its extra files."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from squeezedet.detectors.network import DetectionNetwork
from squeezedet.export.onnx import Exported
from squeezedet.runtime.card import Card

CARD = "card.json"
TRACE_SIZE = (160, 96)
"""(width, height) of the input at which a network of any size is traced."""


def trace(module: torch.nn.Module, example: torch.Tensor) -> Any:
    """A module as TorchScript, without the warnings of its age and of checks on sizes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(  # type: ignore[no-untyped-call]
            module.eval(), example, check_trace=False
        )


@torch.no_grad()
def write_torchscript(detector: DetectionNetwork, card: Card, path: Path) -> None:
    """Trace a detector with its decoding.

    Args:
        detector: with its weights.
        card: what is known of it; goes into the file.
        path: of the file.
    """
    rule = card.input
    width, height = (rule.width, rule.height) if rule.fixed else TRACE_SIZE
    module = trace(Exported(detector), torch.zeros(1, height, width, 3, dtype=torch.uint8))
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.freeze(module), content, _extra_files={CARD: card.to_json()})
    path.write_bytes(_without_traces(content.getvalue()))


def _without_traces(content: bytes) -> bytes:
    """The file without its debug records: they name files of this machine."""
    clean = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(clean, "w") as new:
        for info in old.infolist():
            if not info.filename.endswith(".debug_pkl"):
                new.writestr(zipfile.ZipInfo(info.filename), old.read(info))
    return clean.getvalue()
