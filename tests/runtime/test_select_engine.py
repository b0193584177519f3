"""``auto`` takes the fastest engine that agrees with onnxruntime, says why, and remembers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from squeezedet.errors import ModelError, UsageError
from squeezedet.files import cache_folder
from squeezedet.preprocess import InputRule
from squeezedet.runtime import bundle
from squeezedet.runtime import select_engine as select
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.detector import Detector
from squeezedet.runtime.engines import OpenVinoEngine
from squeezedet.runtime.postprocess import RawBoxes
from squeezedet.runtime.select_engine import Decision, EngineTrial, decide, open_engine, select_engine

PARENTS = Path(__file__).resolve().parents[2] / "parents"

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def model() -> Bundle:
    """The wide model at a small size."""
    shipped = bundle.read(PARENTS / "squeezedet-full.bundle")
    return replace(shipped, card=replace(shipped.card, input=InputRule(320, 96)))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setattr(select, "SECONDS", 0.0)
    found = cache_folder()
    assert found is not None
    return found


def verdict(decision: Decision, engine: str) -> EngineTrial:
    return next(v for v in decision.trials if v.engine == engine)


def test_the_fastest_is_taken_and_remembered(model: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, decision = select_engine(model, "auto", threads=1)
    assert decision is not None
    assert engine.name == decision.engine
    times = {v.engine: v.ms for v in decision.trials if v.ms is not None}
    assert times.keys() == {"onnxruntime", "openvino"}
    assert times[decision.engine] == min(times.values())
    (slower,) = times.keys() - {decision.engine}
    assert f"{slower} (slower: {times[slower]:.1f} ms)" in decision.describe()
    assert "ncnn (runs only a file made by `squeezedet export --to ncnn`)" in decision.describe()
    assert len(list(cache.iterdir())) == 1

    monkeypatch.delattr(select, "_try_all")
    again = decide(model, threads=1)
    assert again == replace(decision, remembered=True)
    assert again.describe().endswith("(measured before)")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Each measurement as its threads; all end with onnxruntime, in no time."""
    calls: list[int | None] = []

    def measure(model: Bundle, threads: int | None) -> Decision:
        calls.append(threads)
        return Decision("onnxruntime", (EngineTrial("onnxruntime", 1.0), EngineTrial("ncnn", why="slow")))

    monkeypatch.setattr(select, "_try_all", measure)
    return calls


def test_what_asks_for_another_measurement(
    model: Bundle, cache: Path, measured: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(model, 1)
    decide(model, 1)
    assert measured == [1]
    decide(model, 2)
    decide(replace(model, card=replace(model.card, graph_sha256="0" * 64)), 1)
    decide(replace(model, card=replace(model.card, input=InputRule(64, 32))), 1)
    monkeypatch.setattr(select, "version", lambda name: "99")
    decide(model, 1)
    assert measured == [1, 2, 1, 1, 1]
    assert len(list(cache.iterdir())) == 5


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"engine": "onnxruntime", "verdicts": []}',
        b'{"engine": "ncnn", "verdicts": [{"engine": "ncnn", "ms": null, "why": ""}]}',
        b'{"engine": "evil", "verdicts": [{"engine": "evil", "ms": 1.0, "why": ""}]}',
        b'{"engine": ["a"], "verdicts": [{"engine": "ncnn", "ms": 1.0, "why": ""}]}',
        b'{"engine": "ncnn", "verdicts": [{"engine": ["a"], "ms": 1.0, "why": ""}]}',
        b'{"engine": "ncnn", "verdicts": [{"engine": "ncnn", "ms": "1", "why": ""}]}',
        b'{"engine": "ncnn", "verdicts": 3}',
        b"[" * 100_000,
        b" " * 200_000,
    ],
)
def test_a_broken_file_is_measured_again(
    model: Bundle, cache: Path, measured: list[int | None], content: bytes
) -> None:
    first = decide(model, 1)
    (kept,) = cache.iterdir()
    kept.write_bytes(content)
    assert decide(model, 1) == first
    assert json.loads(kept.read_bytes())["engine"] == "onnxruntime"
    assert decide(model, 1).remembered
    assert len(measured) == 2


def test_a_home_that_cannot_be_written(model: Bundle, cache: Path, measured: list[int | None]) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder would be")  # holds for root, too
    assert decide(model, 1) == decide(model, 1)
    assert len(measured) == 2


def test_two_processes_at_once(cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from squeezedet.runtime.select_engine import Decision, EngineTrial, _keep, _remembered\n"
        "kept = Path(sys.argv[1]) / 'engine-0.json'\n"
        "decision = Decision('ncnn', (EngineTrial('ncnn', float(sys.argv[2])),) * 100)\n"
        "for _ in range(15):\n"
        "    _keep(kept, decision)\n"
        "    assert _remembered(kept).engine == 'ncnn'\n"
    )
    commands = [[sys.executable, "-c", code, str(cache), str(ms)] for ms in (1, 2)]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE) for command in commands]
    for worker in workers:
        assert worker.communicate(timeout=60)[1] == b""
        assert worker.returncode == 0
    assert [path.name for path in cache.iterdir()] == ["engine-0.json"]


def test_no_home(model: Bundle, measured: list[int | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "cache_folder", lambda: None)
    assert decide(model, 1).engine == "onnxruntime"


def test_falls_back_where_boxes_differ(model: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OpenVinoEngine.run

    def moved(self: OpenVinoEngine, pixels: np.ndarray) -> RawBoxes:
        raw = run(self, pixels)
        return replace(raw, xyxy=raw.xyxy + np.float32(0.75))

    monkeypatch.setattr(OpenVinoEngine, "run", moved)
    decision = decide(model, 1)
    assert decision.engine == "onnxruntime"
    assert "openvino (differs from onnxruntime: boxes by at most 0.75 px" in decision.describe()
    assert verdict(decision, "openvino").ms is None


def test_falls_back_where_an_engine_fails(model: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: OpenVinoEngine, pixels: np.ndarray) -> RawBoxes:
        raise ModelError("the model gives boxes or scores that are NaN or infinite")

    monkeypatch.setattr(OpenVinoEngine, "run", fail)
    detector = Detector(model, engine="auto", threads=1)
    assert detector.engine.name == "onnxruntime"
    assert detector.decision is not None
    assert "openvino (fails: the model gives boxes or" in detector.decision.describe()


def test_falls_back_where_nothing_else_is_installed(
    model: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = select.version
    monkeypatch.setattr(select, "version", lambda n: None if n == "openvino" else version(n))
    decision = decide(model, 1)
    assert decision.engine == "onnxruntime"
    assert "openvino (not installed: pip install 'squeezedet[openvino]')" in decision.describe()


def test_a_file_for_one_engine_leaves_no_choice(model: Bundle) -> None:
    decision = decide(replace(model, format="ncnn"))
    assert decision.engine == "ncnn"
    assert "onnxruntime (runs no file for ncnn)" in decision.describe()


@pytest.mark.parametrize(
    ("name", "form", "sentence"),
    [
        ("tensorrt", "onnx", "no engine 'tensorrt' .known: auto, onnxruntime, openvino"),
        ("ncnn", "onnx", "ncnn runs only a file made by `squeezedet export --to ncnn`"),
        ("onnxruntime", "openvino", "onnxruntime runs no file for openvino"),
    ],
)
def test_engines_that_do_not_fit(model: Bundle, name: str, form: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        open_engine(replace(model, format=form), name)
