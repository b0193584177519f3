"""``POST /detect`` and what every route shares, on a real server."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from squeezedet.media.images import read_image
from squeezedet.runtime.detector import Detector

from .running import DEMO, Running, picture


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def without_times(record: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in record.items() if key != "timing_ms"}


def test_the_record_is_that_of_the_detector(client: httpx.Client, detector: Detector) -> None:
    response = client.post("/detect", content=DEMO)
    assert response.status_code == 200
    record = response.json()
    expected = detector.detect(read_image(DEMO, "x")).to_dict() | {"image": ""}
    assert expected["detections"]
    assert without_times(record) == without_times(expected)
    assert list(record["timing_ms"]) == ["load", "preprocess", "network", "postprocess"]


def test_score(client: httpx.Client) -> None:
    everything = client.post("/detect?score=0", content=DEMO).json()["detections"]
    nothing = client.post("/detect?score=1", content=DEMO).json()["detections"]
    assert min(box["score"] for box in everything) < 0.4
    assert nothing == []


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_formats(client: httpx.Client, form: str) -> None:
    kind = f"image/{form.lower()}"
    response = client.post("/detect", content=picture(form=form), headers={"Content-Type": kind})
    assert (response.status_code, response.json()["width"]) == (200, 64)


def bomb() -> bytes:
    """40 kB that would be 120 MB."""
    file = io.BytesIO()
    Image.new("L", (8000, 5000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (b"", "image/png", 400, "empty"),
        (b"\x00" * 1000, "image/jpeg", 400, "not an image"),
        (b"<svg/>", "image/svg+xml", 400, "not an image"),
        (DEMO[:5000], "image/jpeg", 400, "damaged"),
        (bomb(), "image/png", 400, "1000000"),
        (b"\x00" * 1_000_001, "image/png", 413, "1000000 bytes"),
        (DEMO, "multipart/form-data; boundary=x", 415, "--data-binary"),
        (b"{}", "application/json", 415, "as the body"),
    ],
)
def test_what_is_refused(client: httpx.Client, body: bytes, kind: str, status: int, said: str) -> None:
    response = client.post("/detect", content=body, headers={"Content-Type": kind})
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert said in response.json()["error"]


def test_a_long_body_without_its_length(client: httpx.Client) -> None:
    chunks = iter([b"\x00" * 100_000] * 30)
    response = client.post("/detect", content=chunks, headers={"Content-Type": "image/png"})
    assert response.status_code == 413


def test_a_compressed_body(client: httpx.Client) -> None:
    response = client.post("/detect", content=DEMO, headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415


@pytest.mark.parametrize("score", ["2", "-1", "nan", "high", ""])
def test_a_wrong_score(client: httpx.Client, score: str) -> None:
    response = client.post(f"/detect?score={score}", content=DEMO)
    assert response.status_code == 422
    assert "score" in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/detect", 405),
        ("GET", "/nothing", 404),
        ("GET", "/page/nothing.js", 404),
        ("GET", "/page/../config.py", 404),
        ("GET", "/page/..%2f..%2fconfig.py", 404),
        ("GET", "/page//etc/passwd", 404),
    ],
)
def test_wrong_addresses(client: httpx.Client, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert list(response.json()) == ["error"]


def test_no_answer_names_a_path_of_the_server(client: httpx.Client) -> None:
    answers = [
        client.post("/detect", content=body).text for body in (b"", b"x", DEMO[:999], picture(form="PNG")[:70], bomb())
    ]
    for text in answers:
        assert "/" not in text
        assert "Traceback" not in text
        assert ".py" not in text


def test_model(client: httpx.Client, detector: Detector) -> None:
    about = client.get("/model").json()
    assert about["name"] == "street"
    assert about["classes"] == list(detector.names)
    assert about["score"] == detector.card.selection.score
    assert about["input"] == {"width": 1248, "height": 384, "fixed": False}
    assert (about["engine"], about["max_pixels"]) == (detector.engine.name, 1_000_000)


def test_the_page_and_the_list_of_routes(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert client.get("/page/app.js").headers["content-type"].startswith("text/javascript")
    docs = client.get("/docs")
    assert "POST /detect" in docs.text
    assert "http:" not in docs.text  # nothing is loaded from elsewhere
    assert "https:" not in docs.text
    assert "script" not in docs.text


def test_security_headers_on_every_answer(client: httpx.Client) -> None:
    for response in (client.get("/"), client.get("/nothing"), client.post("/detect")):
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "server" not in response.headers
        assert not any(name.startswith("access-control-") for name in response.headers)


def test_metrics(client: httpx.Client) -> None:
    client.post("/detect", content=DEMO)
    client.post("/detect", content=b"")
    text = client.get("/metrics").text
    for line in (
        'squeezedet_requests_total{route="/detect",status="200"} ',
        'squeezedet_stage_seconds_count{stage="network"} ',
        'squeezedet_rejects_total{reason="image"} ',
        "squeezedet_queue_depth 0.0",
    ):
        assert line in text


def test_the_openapi_document_describes_the_record(client: httpx.Client) -> None:
    document = json.loads(client.get("/openapi.json").text)
    operation = document["paths"]["/detect"]["post"]
    assert "image/jpeg" in operation["requestBody"]["content"]
    box = document["components"]["schemas"]["Box"]
    assert set(box["required"]) == {"class", "score", "xyxy"}
