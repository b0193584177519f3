"""OpenVINO answers as onnxruntime does, on a real picture, at any size, and reports to nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from squeezedet.errors import MissingExtraError, ModelError
from squeezedet.preprocess import resize
from squeezedet.runtime import bundle, parity
from squeezedet.runtime import engines as module
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines import OnnxRuntimeEngine, OpenVinoEngine

from ..conftest import SLIM

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def model() -> Bundle:
    return bundle.read(SLIM)


@pytest.fixture(scope="module")
def engine(model: Bundle) -> OpenVinoEngine:
    return OpenVinoEngine(model.graph, threads=1)


def picture(size: tuple[int, int]) -> NDArray[np.uint8]:
    return resize(parity.sample_frame().pixels, size)


@pytest.mark.parametrize("size", [(624, 192), (80, 112)])
def test_every_anchor_as_onnxruntime(model: Bundle, engine: OpenVinoEngine, size: tuple[int, int]) -> None:
    pixels = picture(size)
    wanted, found = OnnxRuntimeEngine(model.graph, 1).run(pixels), engine.run(pixels)
    np.testing.assert_allclose(found.xyxy, wanted.xyxy, atol=0.05)
    np.testing.assert_allclose(found.score, wanted.score, atol=1e-3)
    assert (found.class_id == wanted.class_id).mean() > 0.99


def test_only_a_few_sizes_are_kept(engine: OpenVinoEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SIZES", 1)
    engine._requests.clear()
    first = engine.run(picture((32, 32)))
    engine.run(picture((48, 32)))
    assert list(engine._requests) == [(32, 48, 3)]
    assert np.array_equal(engine.run(picture((32, 32))).xyxy, first.xyxy)
    assert list(engine._requests) == [(32, 32, 3)]


def test_an_answer_is_not_overwritten_by_the_next(engine: OpenVinoEngine) -> None:
    pixels = picture((64, 64))
    first = engine.run(pixels)
    before = first.score.copy()
    engine.run(255 - pixels)
    assert np.array_equal(first.score, before)


@pytest.mark.parametrize("cut", [0, 10, 1000, -1000])
def test_damaged_graphs(model: Bundle, cut: int) -> None:
    with pytest.raises(ModelError, match="cannot read the model"):
        OpenVinoEngine(model.graph[:cut])


def test_an_input_that_does_not_fit(engine: OpenVinoEngine) -> None:
    with pytest.raises(ModelError, match="fails on an input of 64x64 pixels"):
        engine.run(np.zeros((64, 64, 4), np.uint8))


def test_not_installed(model: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"squeezedet\[openvino\]"):
        OpenVinoEngine(model.graph)


def test_nothing_is_reported_or_left_at_home(tmp_path: Path) -> None:
    code = (
        "import sys, numpy, squeezedet\n"
        "squeezedet.load(engine='openvino')(numpy.zeros((16, 16, 3), numpy.uint8))\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]\n"
    )
    clean = {k: v for k, v in os.environ.items() if k != "CI"}
    home = {**clean, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, check=False)
    assert done.stderr == b""
    assert done.returncode == 0
    assert not list(tmp_path.rglob("*"))
