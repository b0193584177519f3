"""Write ncnn's own files: model.ncnn.param and .bin up to ConvDet's map, the card beside them.

pnnx, ncnn's converter, makes them from the traced network. Decoding is left out, as ncnn has
no operators for it; the engine does it in NumPy from numbers in the card.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from squeezedet.detectors.network import DetectionNetwork
from squeezedet.errors import MissingExtraError, ModelError
from squeezedet.export.torchscript import TRACE_SIZE, trace
from squeezedet.runtime.card import Card
from squeezedet.runtime.convdet_decode import ConvDetDecoder

SECONDS = 600
"""The converter's time; SqueezeDet takes about a second."""


class _Convolutions(nn.Module):
    """(1, 3, H, W) float RGB of 0 to 255 to ConvDet's map."""

    def __init__(self, detector: DetectionNetwork) -> None:
        super().__init__()
        self.detector = detector.fused()

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.detector(images)
        return found


def write_ncnn(detector: DetectionNetwork, card: Card, path: Path) -> None:
    """Convert a detector.

    Args:
        detector: a ConvDet of the default geometry, with its weights.
        card: what is known of it; goes into the file .json.
        path: of model.ncnn.param; .bin and .json are written beside it.

    Raises:
        MissingExtraError: pnnx is not installed.
        ModelError: the network cannot be converted.
    """
    ConvDetDecoder.of(card)  # raises for what could not be decoded afterwards
    rule = card.input
    size = (rule.width, rule.height) if rule.fixed else TRACE_SIZE
    with tempfile.TemporaryDirectory(prefix="squeezedet-") as folder:
        _pnnx(detector, size, Path(folder))
        for suffix in (".param", ".bin"):
            content = (Path(folder) / f"model.ncnn{suffix}").read_bytes()
            path.with_suffix(suffix).write_bytes(content)
    content = path.read_bytes() + path.with_suffix(".bin").read_bytes()
    card = replace(card, graph_sha256=hashlib.sha256(content).hexdigest())
    path.with_suffix(".json").write_text(card.to_json(), encoding="utf-8")


def _pnnx(detector: DetectionNetwork, size: tuple[int, int], folder: Path) -> None:
    """Write model.ncnn.param and model.ncnn.bin into a folder; kernels become float16."""
    try:
        import pnnx
    except ImportError as error:
        raise MissingExtraError("export --to ncnn", "ncnn") from error
    width, height = size
    with torch.no_grad():
        script = trace(_Convolutions(detector), torch.zeros(1, 3, height, width))
    script.save(str(folder / "model.pt"))
    command = [pnnx.EXEC_PATH, "model.pt", f"inputshape=[1,3,{height},{width}]f32", "fp16=1"]
    try:
        done = subprocess.run(  # noqa: S603 - the converter that came with the package
            command, cwd=folder, capture_output=True, timeout=SECONDS, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"pnnx cannot convert the model: {error}") from error
    written = [folder / f"model.ncnn{suffix}" for suffix in (".param", ".bin")]
    if done.returncode or not all(path.is_file() for path in written):
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ModelError(
            f"pnnx cannot convert the model: {said[-1] if said else 'it says nothing'}"
        )
