"""``export --to triton`` and ``--to kserve``, checked against the real schemas and run where they can be."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
import yaml
from typer.testing import CliRunner

from squeezedet.cli.main import app
from squeezedet.exporting import deploy
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import WEIGHTS
from squeezedet.runtime.detector import load

DEMO = WEIGHTS / "demo.jpg"


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["export", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


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


@pytest.mark.parametrize("to", ["triton", "kserve"])
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
