"""The Open Inference Protocol, with Triton's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from squeezedet.detections import Detections
from squeezedet.media.images import Frame, read_image
from squeezedet.runtime.detector import Detector

from .running import DEMO, Running

tritonclient = pytest.importorskip("tritonclient.http")


@pytest.fixture
def triton(server: Running) -> Iterator[Any]:
    client = tritonclient.InferenceServerClient(f"127.0.0.1:{server.port}")
    yield client
    client.close()


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """Small enough for JSON."""
    return np.ascontiguousarray(read_image(DEMO).pixels[100:260, 200:700])


@pytest.fixture(scope="module")
def expected(detector: Detector, pixels: NDArray[np.uint8]) -> Detections:
    return detector.detect(Frame(pixels), 0.05)


def images(pixels: NDArray[np.uint8], *, binary: bool) -> Any:
    tensor = tritonclient.InferInput("images", [1, *pixels.shape], "UINT8")
    tensor.set_data_from_numpy(pixels[None], binary_data=binary)
    return tensor


def test_health_and_metadata(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("street")
    assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = triton.get_model_metadata("street")
    assert triton.is_model_ready("street", metadata["versions"][0])
    assert triton.get_model_metadata("street", "1") == metadata
    assert not triton.is_model_ready("street", "2")
    assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [1, -1, -1, 3]}]
    assert [o["name"] for o in metadata["outputs"]] == ["boxes", "scores", "class_ids"]


@pytest.mark.parametrize(("binary", "version"), [(True, ""), (False, ""), (True, "1")])
def test_infer(triton: Any, pixels: NDArray[np.uint8], expected: Detections, binary: bool, version: str) -> None:
    assert len(expected)
    tensor, options = images(pixels, binary=binary), {"score": 0.05}
    result = triton.infer("street", [tensor], model_version=version, request_id="7", parameters=options)
    assert result.get_response()["id"] == "7"
    np.testing.assert_array_equal(result.as_numpy("boxes"), expected.xyxy[None])
    np.testing.assert_array_equal(result.as_numpy("scores"), expected.score[None])
    np.testing.assert_array_equal(result.as_numpy("class_ids"), expected.class_id[None])
    assert result.as_numpy("boxes").dtype == np.float32
    assert result.as_numpy("class_ids").dtype == np.int64


def test_chosen_outputs_each_in_its_own_way(triton: Any, pixels: NDArray[np.uint8], expected: Detections) -> None:
    outputs = [
        tritonclient.InferRequestedOutput("scores", binary_data=False),
        tritonclient.InferRequestedOutput("boxes", binary_data=True),
    ]
    result = triton.infer("street", [images(pixels, binary=True)], outputs=outputs, parameters={"score": 0.05})
    np.testing.assert_allclose(result.as_numpy("scores"), expected.score[None], atol=1e-6)
    np.testing.assert_array_equal(result.as_numpy("boxes"), expected.xyxy[None])
    assert result.as_numpy("class_ids") is None


def test_nothing_found_is_an_empty_tensor(triton: Any) -> None:
    black = np.zeros((48, 64, 3), np.uint8)
    result = triton.infer("street", [images(black, binary=True)], parameters={"score": 1})
    assert result.as_numpy("boxes").shape == (1, 0, 4)


def tensor(**changes: Any) -> dict[str, Any]:
    good = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [0] * 6}
    return good | changes


def post(server: Running, body: object, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{server.url}/v2/models/street/infer", content=content, headers=headers, timeout=60)


def test_numbers_nested_as_the_shape(server: Running) -> None:
    nested = [[[[0, 1, 2], [253, 254, 255]]]]
    response = post(server, {"inputs": [tensor(data=nested)]})
    assert response.status_code == 200
    assert [o["shape"][0] for o in response.json()["outputs"]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"[" * 100_000, "nested more than 16"),
        (b"\xff\xfe", "no JSON"),
        ([], "object"),
        ({}, "'inputs'"),
        ({"inputs": [tensor(), tensor()]}, "one object"),
        ({"inputs": [tensor(name="image")]}, "name"),
        ({"inputs": [tensor(datatype="FP32")]}, "datatype"),
        ({"inputs": [tensor(shape=[2, 1, 1, 3])]}, "one image at a time"),
        ({"inputs": [tensor(shape=[1, 3, 1, 2])]}, "shape"),
        ({"inputs": [tensor(shape=[1, 10**9, 10**9, 3])]}, "pixels"),
        ({"inputs": [tensor(shape=[1, 0, 2, 3])]}, "shape"),
        ({"inputs": [tensor(data=[0] * 5)]}, "6 integers"),
        ({"inputs": [tensor(data=[0.5] * 6)]}, "integers"),
        ({"inputs": [tensor(data=[256] * 6)]}, "0 to 255"),
        ({"inputs": [tensor(data=[10**40] * 6)]}, "integers"),
        ({"inputs": [tensor(data=["0"] * 6)]}, "integers"),
        ({"inputs": [tensor(data=[[0], [0, 1]])]}, "nested"),
        ({"inputs": [tensor(data=None)]}, "integers"),
        ({"inputs": [tensor(parameters={"binary_data_size": 6})]}, "bytes"),
        ({"inputs": [tensor()], "id": 7}, "'id'"),
        ({"inputs": [tensor()], "parameters": []}, "'parameters'"),
        ({"inputs": [tensor()], "parameters": {"score": "high"}}, "score"),
        ({"inputs": [tensor()], "parameters": {"binary_data_output": 1}}, "true or false"),
        ({"inputs": [tensor()], "outputs": [{"name": "masks"}]}, "outputs"),
        ({"inputs": [tensor()], "outputs": [{}]}, "outputs"),
        ({"inputs": [tensor()], "outputs": {}}, "'outputs'"),
        ({"inputs": [tensor()], "outputs": [[]]}, "'outputs'"),
    ],
)
def test_malformed_requests(server: Running, body: object, said: str) -> None:
    response = post(server, body)
    assert response.status_code == 400
    assert said in response.json()["error"]


@pytest.mark.parametrize("length", ["x", "-1", "1e3", "99999999999", "999"])
def test_a_wrong_length_of_the_header(server: Running, length: str) -> None:
    response = post(server, {"inputs": [tensor()]}, **{"Inference-Header-Content-Length": length})
    assert response.status_code == 400


def test_another_model(server: Running) -> None:
    for path in ("", "/ready"):
        response = httpx.get(f"{server.url}/v2/models/other{path}")
        assert response.status_code == 404
        assert "'street'" in response.json()["error"]
