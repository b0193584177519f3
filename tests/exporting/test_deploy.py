"""Folders for Frigate, Triton and KServe, checked against the real schemas and run as those programs run them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from squeezedet.cli.main import app
from squeezedet.exporting import deploy
from squeezedet.exporting.graph import fix_size
from squeezedet.runtime import bundle, parity
from squeezedet.runtime.bundle import WEIGHTS
from squeezedet.runtime.detector import load

from ..conftest import SLIM

DEMO = WEIGHTS / "demo.jpg"


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["export", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


# ------------------------------------------------------------ Frigate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frigate") / "squeezedet"
    call(SLIM, "--to", "frigate", "-o", folder)
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

    call(SLIM, "-o", tmp_path / "fixed.bundle", "--fixed", "320x320")
    words = ["detect", region, "--model", tmp_path / "fixed.bundle", "--format", "json"]
    (image,) = json.loads(CliRunner().invoke(app, [str(word) for word in words]).stdout)
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
    chosen = deploy.chosen_boxes(fix_size(every, (320, 320)))
    found = deploy.FrigateEngine(deploy.frigate_graph(chosen)).run(np.asarray(Image.open(region)))
    assert len(found.score) == 20
    assert (np.diff(found.score) <= 0).all()


def test_another_size(tmp_path: Path) -> None:
    call(SLIM, "--to", "frigate", "-o", tmp_path / "wide", "--fixed", "640x384")
    config = yaml.safe_load((tmp_path / "wide" / "frigate.yml").read_text())
    assert (config["model"]["width"], config["model"]["height"]) == (640, 384)
    assert config["objects"]["track"] == ["car", "pedestrian", "cyclist"]


# ------------------------------------------------------------ Triton and KServe


def config_of(folder: Path) -> Any:
    """Its config.pbtxt, read by the message that Triton reads it with."""
    text_format = pytest.importorskip("google.protobuf.text_format")
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config.ModelConfig())


TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64"}


def ports_of(config: Any) -> dict[str, tuple[str, list[int]]]:
    """Name -> type and shape as Triton expects them of the graph: the batch first, where there is one."""
    batch = [-1] if config.max_batch_size else []
    return {
        port.name: (type(port).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[port.data_type].name,
                    batch + list(port.dims))
        for port in (*config.input, *config.output)
    }  # fmt: skip


def ports_of_graph(path: Path) -> tuple[Any, dict[str, tuple[str, list[int]]]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ports = (*session.get_inputs(), *session.get_outputs())
    return session, {
        port.name: (TYPES[port.type], [side if isinstance(side, int) else -1 for side in port.shape]) for port in ports
    }


@pytest.mark.parametrize("model", ["street", "street-ssd"])
def test_a_repository_for_triton(model: str, tmp_path: Path) -> None:
    """The real message reads it, the graph fits it, and a batch is answered as its images one by one."""
    said = call(model, "--to", "triton", "-o", tmp_path)
    assert "two images at once" in said
    folder = tmp_path / model
    config = config_of(folder)
    assert (config.name, config.backend, config.default_model_filename) == (model, "onnxruntime", "model.onnx")
    assert config.max_batch_size == 8
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    session, ports = ports_of_graph(folder / "1" / "model.onnx")
    expected = ports_of(config)
    assert {name: kind for name, (kind, _) in ports.items()} == {name: kind for name, (kind, _) in expected.items()}
    for name, (_, shape) in expected.items():  # as Triton compares them: -1 of the configuration is any
        assert len(shape) == len(ports[name][1])
        assert ports[name][1][0] == -1
        assert all(side in (-1, ours) for side, ours in zip(shape, ports[name][1], strict=True))
    (label_file,) = {port.label_filename for port in config.output} - {""}
    detector = load(model, threads=1)
    assert (folder / label_file).read_text().split() == list(detector.names)

    rule = detector.card.input
    size = (rule.height, rule.width) if rule.fixed else (192, 320)
    pixels = np.random.default_rng(0).integers(0, 256, (8, *size, 3), np.uint8)
    boxes, scores, class_ids = session.run(["boxes", "scores", "class_ids"], {"images": pixels})
    for i in (0, 3, 7):
        alone = detector.engine.run(pixels[i])
        np.testing.assert_allclose(boxes[i], alone.xyxy, atol=0.05)
        np.testing.assert_allclose(scores[i], alone.score, atol=1e-3)
        assert (class_ids[i] == alone.class_id).mean() > 0.99
    again = load(folder / "1" / "model.onnx", threads=1)(DEMO)  # and it still is a model of ours
    assert again.xyxy == pytest.approx(detector(DEMO).xyxy, abs=0.1)


def test_with_nms_triton_gives_one_image_at_once(tmp_path: Path) -> None:
    call("street", "--to", "triton", "-o", tmp_path, "--nms", "--fixed", "320x192", "--name", "My model/2")
    config = config_of(tmp_path / "My-model-2")
    assert config.name == "My-model-2"
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    _, ports = ports_of_graph(tmp_path / "My-model-2" / "1" / "model.onnx")
    assert ports_of(config) == ports


def test_a_graph_that_takes_one_image_is_no_repository(tmp_path: Path) -> None:
    model = bundle.read(bundle.find("street-ssd"))
    with pytest.raises(Exception, match=r"takes one image at once .* with `nms`"):
        deploy.BatchEngine(model.graph).run(np.zeros((300, 300, 3), np.uint8))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kserve")
    call("street", "--to", "kserve", "-o", folder)
    assert {path.name for path in folder.iterdir()} == {"model.bundle", "inferenceservice.yaml"}
    return folder / "inferenceservice.yaml"


def test_the_manifest_is_plain_yaml(manifest: Path) -> None:
    text = manifest.read_text()
    assert "&" not in text
    assert "kubectl create secret generic street-token" in text
    predictor = yaml.safe_load(text)["spec"]["predictor"]
    assert predictor["minReplicas"] < predictor["maxReplicas"]
    assert "cpu" in predictor["containers"][0]["resources"]["requests"]  # of which the autoscaler takes its percents


def check(value: Any, kind: str, models: Any, where: str = "") -> None:
    """Every field is one of the class that KServe's or Kubernetes' own package has for it, and none that it needs is
    missing: ``kind`` is a type as these packages write types.
    """
    if found := re.fullmatch(r"[lL]ist\[(.+)\]", kind):
        assert isinstance(value, list), where
        for i, item in enumerate(value):
            check(item, found[1], models, f"{where}[{i}]")
    elif found := re.fullmatch(r"[dD]ict[\[(](.+), (.+)[\])]", kind):
        for key, item in value.items():
            check(item, found[2], models, f"{where}.{key}")
    elif kind in ("str", "int", "float", "bool"):
        assert type(value).__name__ == kind, f"{where} is {value!r}, not {kind}"
    elif hasattr(models, kind):
        cls = getattr(models, kind)
        names = {json: python for python, json in cls.attribute_map.items()}
        assert set(value) <= set(names), f"{where}: no field {set(value) - set(names)}"
        cls(**{names[key]: item for key, item in value.items()})  # a ValueError for what is missing or not allowed
        for key, item in value.items():
            check(item, cls.openapi_types[names[key]], models, f"{where}.{key}")
    else:
        assert kind in ("object", "IntOrString"), f"{where}: {kind} is not known"


def test_the_manifest_has_only_fields_of_kserves_own_classes(manifest: Path) -> None:
    """Of the packages ``kserve`` and ``kubernetes`` (tried with 0.21.0 and 37.0.1, in an environment of their own)."""
    pytest.importorskip("kserve", reason="needs the package kserve, which wants other versions than ours")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kserve.models
        import kubernetes.client.models

    class Models:
        def __getattr__(self, name: str) -> Any:
            found = getattr(kserve.models, name, None) or getattr(kubernetes.client.models, name, None)
            if found is None:
                raise AttributeError(name)
            return found

    service = yaml.safe_load(manifest.read_text())
    check(service, "V1beta1InferenceService", Models())
    with pytest.raises(AssertionError, match="no field"):
        check(service | {"spec": {"predictor": {"minReplica": 1}}}, "V1beta1InferenceService", Models())


@pytest.mark.slow
def test_what_the_manifest_starts_answers_its_probes(manifest: Path, tmp_path: Path) -> None:
    """Its arguments behind the image's own, in this process's place of the container's folders."""
    container = yaml.safe_load(manifest.read_text())["spec"]["predictor"]["containers"][0]
    (tmp_path / "token").write_text("sixteen-signs-at-least\n")
    here = {deploy.MOUNT: str(manifest.parent), deploy.TOKEN: str(tmp_path)}
    arguments = [
        next((arg.replace(there, place) for there, place in here.items() if arg.startswith(there)), arg)
        for arg in container["args"]
    ]
    dockerfile = (Path(__file__).parents[2] / "examples" / "docker" / "Dockerfile").read_text()
    assert '"squeezedet", "serve"' in dockerfile.replace("/opt/squeezedet/bin/", "")
    arguments[arguments.index("--port") + 1] = "0"  # 8080 may be taken here
    command = [sys.executable, "-m", "squeezedet", "serve", "--host", "0.0.0.0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = re.search(r":(\d+)/", process.stdout.readline())
            assert port
            with httpx.Client(base_url=f"http://127.0.0.1:{port[1]}", timeout=120) as client:
                for probe in ("readinessProbe", "livenessProbe"):
                    path = container[probe]["httpGet"]["path"]
                    # kubelet calls the pod by its address and shows no token.
                    assert client.get(path, headers={"Host": "10.1.2.3:8080"}).status_code == 200
                token = {"Authorization": "Bearer sixteen-signs-at-least"}
                answer = client.post("/detect", content=DEMO.read_bytes(), headers=token)
                assert answer.json()["detections"]
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("street", "street"), ("My model/2", "my-model-2"), ("2-Straße_", "stra-e"), ("___", "squeezedet")],
)
def test_names_as_kubernetes_takes_them(name: str, expected: str) -> None:
    assert deploy.kserve_name(name) == expected


@pytest.mark.parametrize("to", ["frigate", "triton", "kserve", "web"])
def test_a_file_in_the_place_of_the_folder(to: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    failed = CliRunner().invoke(app, ["export", "street", "--to", to, "-o", str(tmp_path / "file")])
    assert failed.exit_code == 2
    assert "a folder is needed" in failed.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_kserve_runs_a_bundle_which_needs_no_nms() -> None:
    failed = CliRunner().invoke(app, ["export", "street", "--to", "kserve", "--nms", "-o", "x"])
    assert failed.exit_code == 2
    assert "not for kserve" in failed.stderr
