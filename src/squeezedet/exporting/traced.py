"""Files that are traced from the network: TorchScript with boxes and a card inside; ncnn up to ConvDet's map."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tempfile
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from squeezedet.errors import MissingExtraError, ModelError
from squeezedet.exporting.bundle import Exported
from squeezedet.models.network import DetectionNetwork
from squeezedet.runtime.card import Card
from squeezedet.runtime.engines.ncnn import ConvDetDecoder

# ------------------------------------------------------------ TorchScript

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


# ------------------------------------------------------------ ncnn

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
        raise MissingExtraError("export with `to=ncnn`", "ncnn") from error
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
        raise ModelError(f"pnnx cannot convert the model: {said[-1] if said else 'it says nothing'}")
