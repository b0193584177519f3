"""TorchScript files in the engine that is torch."""

from __future__ import annotations

import io
import sys
import warnings
from typing import Any

import numpy as np
import pytest

from squeezedet.errors import MissingExtraError, ModelError
from squeezedet.runtime.engines.torch import TorchEngine

torch = pytest.importorskip("torch")


class Mean(torch.nn.Module):  # type: ignore[name-defined,misc]
    """A network whose box and score are the mean of the pixels, and whose class is the first."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Any) -> Any:
        mean = images.float().mean().reshape(1, 1)
        box = mean.reshape(1, 1, 1).expand(1, 1, 4) * self.factor
        return box, mean / 255, images[:, 0, :1, 0].long()


def script(factor: float = 1.0) -> bytes:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.trace(Mean(factor), torch.zeros(1, 16, 32, 3, dtype=torch.uint8))
        torch.jit.save(module, content)
    return content.getvalue()


def test_pixels_go_in_as_they_are() -> None:
    pixels = np.full((16, 32, 3), 51, np.uint8)
    engine = TorchEngine(script(), 1)
    raw = engine.run(pixels)
    assert raw.xyxy.tolist() == [[51, 51, 51, 51]]
    assert raw.score.tolist() == pytest.approx([0.2])
    assert raw.class_id.tolist() == [51]
    pixels.flags.writeable = False  # as Pillow's are
    assert engine.run(pixels).class_id.tolist() == [51]


def test_infinite_boxes() -> None:
    with pytest.raises(ModelError, match="NaN or infinite"):
        TorchEngine(script(float("inf")), 1).run(np.full((16, 32, 3), 51, np.uint8))


@pytest.mark.parametrize("cut", [0, 100, -100])
def test_damaged_files(cut: int) -> None:
    with pytest.raises(ModelError, match="cannot load the model"):
        TorchEngine(script()[:cut])


def test_a_network_that_fails() -> None:
    with pytest.raises(ModelError, match="fails on an input of 16x16 pixels"):
        TorchEngine(script(), 1).run(np.zeros((16, 16), np.uint8))


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"squeezedet\[torch\]"):
        TorchEngine(b"")
