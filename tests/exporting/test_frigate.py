"""Files for Frigate, run and read as its detectors ``onnx`` and ``openvino`` do it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from squeezedet.cli.main import app
from squeezedet.exporting import frigate
from squeezedet.exporting import graph as export_graph
from squeezedet.runtime import bundle, parity

from ..conftest import SLIM


def call(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frigate") / "squeezedet"
    call("export", SLIM, "--to", "frigate", "-o", folder)
    return folder


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A square of a frame, as Frigate cuts it out and resizes it."""
    path = tmp_path_factory.mktemp("region") / "region.png"
    demo = Image.fromarray(parity.sample_frame().pixels)
    demo.resize((1040, 320)).crop((180, 0, 500, 320)).save(path)
    return path


def with_onnxruntime(path: Path, tensor: NDArray[np.uint8]) -> NDArray[np.float32]:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rows: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: tensor})[0]
    return rows


def with_openvino(path: Path, tensor: NDArray[np.uint8]) -> NDArray[np.float32]:
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert len(model.inputs) == len(model.outputs) == 1
    assert list(model.inputs[0].get_shape()) == [1, 3, 320, 320]
    assert model.outputs[0].partial_shape[-1] == 7
    port = openvino.Tensor(model.inputs[0].get_element_type(), model.inputs[0].get_shape())
    np.copyto(port.data, tensor)
    request = model.create_infer_request()
    request.infer(port)
    return np.array(request.get_output_tensor(0).data)


@pytest.mark.parametrize("run", [with_onnxruntime, with_openvino])
def test_both_detectors_find_what_detect_finds(run: object, folder: Path, region: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((folder / "frigate.yml").read_text())["model"]
    tensor = np.asarray(Image.open(region))[None]
    assert tensor.shape[1:3] == (config["height"], config["width"])
    assert (config["input_tensor"], config["input_pixel_format"], config["input_dtype"]) == ("nchw", "rgb", "int")
    rows = run(folder / Path(config["path"]).name, tensor.transpose(0, 3, 1, 2))  # type: ignore[operator]
    assert config["model_type"] == "yolonas"
    labels = (folder / Path(config["labelmap_path"]).name).read_text().splitlines()
    found = []
    for _, x1, y1, x2, y2, score, class_id in rows[:20]:
        if class_id < 0:
            break
        found.append((labels[int(class_id)], score, x1, y1, x2, y2))

    call("export", SLIM, "-o", tmp_path / "fixed.bundle", "--fixed", "320x320")
    (image,) = json.loads(call("detect", region, "--model", tmp_path / "fixed.bundle", "--format", "json"))
    wanted = [(box["class"], box["score"], *box["xyxy"]) for box in image["detections"]]
    assert len(found) == len(wanted) >= 3
    assert [name for name, *_ in found] == [name for name, *_ in wanted]
    np.testing.assert_allclose([box[1] for box in found], [box[1] for box in wanted], atol=0.01)
    inside = np.clip([box[2:] for box in found], 0, 320)
    np.testing.assert_allclose(inside, [box[2:] for box in wanted], atol=0.5)
    assert (np.diff([box[1] for box in found]) <= 0).all()


def test_no_box_and_more_than_frigate_reads(folder: Path, region: Path) -> None:
    nothing = with_onnxruntime(folder / "model.onnx", np.zeros((1, 3, 320, 320), np.uint8))
    assert nothing.tolist() == [[0, 0, 0, 0, 0, 0, -1]] * 20
    model = bundle.read(SLIM)
    every = replace(model, card=replace(model.card, selection=replace(model.card.selection, score=0.0)))
    chosen = frigate.chosen_boxes(export_graph.fix_size(every, (320, 320)))
    found = frigate.FrigateEngine(frigate.frigate_graph(chosen)).run(np.asarray(Image.open(region)))
    assert len(found.score) == 20
    assert (np.diff(found.score) <= 0).all()


def test_another_size_and_a_file_in_the_way(folder: Path, tmp_path: Path) -> None:
    call("export", SLIM, "--to", "frigate", "-o", tmp_path / "wide", "--fixed", "640x384")
    config = yaml.safe_load((tmp_path / "wide" / "frigate.yml").read_text())
    assert (config["model"]["width"], config["model"]["height"]) == (640, 384)
    assert config["objects"]["track"] == ["car", "pedestrian", "cyclist"]
    file = folder / "labelmap.txt"
    failed = CliRunner().invoke(app, ["export", str(SLIM), "--to", "frigate", "-o", str(file)])
    assert (failed.exit_code, failed.stderr.count("\n")) == (2, 1)
    assert "is a file; Frigate's files need a folder" in failed.stderr
