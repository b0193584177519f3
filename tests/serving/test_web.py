"""The page that runs the model in the browser."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from squeezedet.boxes import iou
from squeezedet.detections import Detections
from squeezedet.drawing import COLORS
from squeezedet.errors import SqueezeDetError, UsageError
from squeezedet.exporting.deploy import export_site
from squeezedet.media.images import read_image
from squeezedet.preprocess import InputRule, fit, own_shape, resize
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import WEIGHTS, Bundle
from squeezedet.runtime.detector import Detector
from squeezedet.runtime.postprocess import RawBoxes, Selection, report

from .browser import Visit, chromium, static_host, write_webm

DEMO = WEIGHTS / "demo.jpg"
FLOOR = 0.1
"""The score that the page asks for."""


def shipped() -> Bundle:
    return bundle.read(bundle.find("street"))


# ------------------------------------------------------------------- writing


def stand_in_npm(folder: Path, script: str, patch: pytest.MonkeyPatch) -> None:
    """Let this script be the only ``npm``."""
    folder.mkdir()
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    patch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_without_npm_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"npm, which is not installed; install Node\.js"):
        export_site(shipped(), tmp_path / "site")
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo other > onnxruntime-web-1.30.0.tgz", "has not the checksum"),
        ("echo code E404 >&2; echo nobody knows it >&2; exit 1", "nobody knows it"),
        ("exit 7", "exit code 7"),
        ("true", "is its registry reachable"),
    ],
)
def test_a_failing_npm_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    stand_in_npm(tmp_path / "bin", script, monkeypatch)
    with pytest.raises(SqueezeDetError, match=message):
        export_site(shipped(), tmp_path / "site")
    assert not (tmp_path / "site").exists()


# ------------------------------------------------------------- in the browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm") is None:
        pytest.skip("no npm")
    folder = tmp_path_factory.mktemp("web") / "site"
    export_site(shipped(), folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def visit(site: Path, browser: Any) -> Iterator[Visit]:
    """One page for the tests that leave it as it was; the model is loaded once."""
    with static_host(site) as address:
        opened = Visit(browser, address).ready()
        yield opened
        opened.close()


@pytest.mark.slow
def test_the_folder_is_whole(site: Path) -> None:
    config = json.loads((site / "page" / "config.json").read_text())
    assert config["mode"] == "browser"
    assert all((site / path).is_file() for path in config["files"].values())
    parts = (config["files"][part] for part in ("runtime", "glue", "wasm", "graph"))
    assert config["bytes"] == sum((site / part).stat().st_size for part in parts)
    assert (site / "model.onnx").read_bytes() == shipped().graph
    assert "Microsoft Corporation" in (site / "runtime" / "LICENSE").read_text()
    assert not [path for path in site.rglob(".*")]  # temporary files


@pytest.mark.slow
def test_the_colours_are_those_of_the_drawings(visit: Visit) -> None:
    colours = visit.page.evaluate("async () => (await import('/page/drawing.js')).COLORS")
    assert [tuple(colour) for colour in colours] == list(COLORS)


@pytest.mark.slow
def test_input_sizes_are_those_of_the_runtime(visit: Visit) -> None:
    random = np.random.default_rng(0)
    cases = [(1242, 375, 1248, 384), (1280, 720, 1248, 384), (8, 4000, 624, 192), (1, 1, 64, 64)]
    for _ in range(200):
        width, height = (int(side) for side in random.integers(1, 5000, 2))
        cases.append((width, height, int(random.integers(2, 80)) * 16, 384))
    sizes = visit.page.evaluate(
        "async cases => { const { ownShape } = await import('/page/preprocess.js');"
        " return cases.map((c) => ownShape(...c)); }",
        [list(case) for case in cases],
    )
    assert [tuple(size) for size in sizes] == [own_shape(*case) for case in cases]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("original", "size"),
    [
        ((101, 67), (48, 32)),
        ((101, 67), (320, 208)),
        ((640, 2), (16, 64)),
        ((33, 47), (33, 16)),
        ((1, 1), (16, 16)),
        ((48, 200), (96, 64)),  # Pillow itself might go down first
    ],
)
def test_resizing_is_the_runtimes_bit_by_bit(visit: Visit, original: tuple[int, int], size: tuple[int, int]) -> None:
    width, height = original
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 4), np.uint8)
    resized = visit.page.evaluate(
        "async ([text, from, to]) => { const { resize } = await import('/page/preprocess.js');"
        " const bytes = Uint8ClampedArray.from(atob(text), (sign) => sign.charCodeAt(0));"
        " return Array.from(resize(bytes, from, to)); }",
        [base64.b64encode(pixels.tobytes()).decode(), list(original), list(size)],
    )
    wanted = resize(np.ascontiguousarray(pixels[..., :3]), size)
    assert np.array_equal(np.array(resized, np.uint8), wanted.ravel())


@pytest.mark.slow
def test_a_border_is_that_of_the_runtime(visit: Visit) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (375, 1242, 4), np.uint8)
    fitted = visit.page.evaluate(
        "async ([text, original, rule]) => { const { fit } = await import('/page/preprocess.js');"
        " const bytes = Uint8ClampedArray.from(atob(text), (sign) => sign.charCodeAt(0));"
        " return Array.from(fit(bytes, original, rule)); }",
        [base64.b64encode(pixels.tobytes()).decode(), [1242, 375], {"width": 1248, "height": 384, "fixed": False}],
    )
    wanted = fit(np.ascontiguousarray(pixels[..., :3]), InputRule(1248, 384))
    assert np.array_equal(np.array(fitted, np.uint8), wanted.ravel())


@pytest.mark.slow
def test_the_choice_of_boxes_is_that_of_the_runtime(visit: Visit) -> None:
    random = np.random.default_rng(2)
    corner = random.uniform(-20, 300, (400, 2))
    raw = RawBoxes(
        np.hstack([corner, corner + random.uniform(0, 90, (400, 2))]).astype(np.float32),
        random.uniform(0, 1, 400).astype(np.float32),
        random.integers(0, 3, 400),
    )
    selection = Selection(
        candidates=150, top_n=40, nms_iou=(0.4, 0.5, 0.4), vote_iou=(0.6, 0.5, 1.0), part_of=(-1, 2, -1), score=0.3
    )
    found = visit.page.evaluate(
        "async ([boxes, scores, classes, selection, size, original]) => {"
        " const { report } = await import('/page/postprocess.js');"
        " const raw = { boxes: Float32Array.from(boxes), scores: Float32Array.from(scores),"
        "   classes: BigInt64Array.from(classes, BigInt) };"
        " return report(raw, selection, size, original); }",
        [
            raw.xyxy.ravel().tolist(),
            raw.score.tolist(),
            raw.class_id.tolist(),
            asdict(selection),
            [320, 192],
            [640, 400],
        ],
    )
    wanted = report(raw, selection, (320, 192), (640, 400))
    assert 10 < len(wanted.score) <= 40
    assert [box["classId"] for box in found] == wanted.class_id.tolist()
    assert np.allclose([box["score"] for box in found], wanted.score)
    assert np.allclose([box["xyxy"] for box in found], wanted.xyxy, atol=1e-3)


def record_of(visit: Visit, picture: Path) -> dict[str, Any]:
    """What the page saves for one picture, every box that it asked for."""
    visit.page.reload()
    visit.ready()
    visit.page.fill("#score", str(FLOOR))
    visit.give(picture)
    visit.page.wait_for_selector("#save-json:enabled")
    with visit.page.expect_download() as download:
        visit.page.click("#save-json")
    (record,) = json.loads(Path(download.value.path()).read_text())
    assert isinstance(record, dict)
    return record


def assert_same(record: dict[str, Any], wanted: Detections) -> None:
    """Boxes within 1 pixel and 0.01 in score; only one as faint as the floor may be missing."""
    assert (record["width"], record["height"]) == (wanted.width, wanted.height)
    found = record["detections"]
    for box in [d for d in wanted if d.score > FLOOR + 0.01]:
        assert any(same(box.name, box.score, box.xyxy, other) for other in found), box
    assert len(found) <= sum(d.score > FLOOR - 0.01 for d in wanted)


def same(name: str, score: float, xyxy: tuple[float, ...], other: dict[str, Any]) -> bool:
    return (
        name == other["class"]
        and abs(score - other["score"]) <= 0.01
        and max(abs(a - b) for a, b in zip(xyxy, other["xyxy"], strict=True)) <= 1
    )


@pytest.mark.slow
def test_boxes_are_those_of_the_runtime(visit: Visit, tmp_path: Path) -> None:
    detector = Detector(shipped(), threads=1)
    turned, clear = tmp_path / "turned.jpg", tmp_path / "clear.png"
    picture = Image.open(DEMO)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.rotate(90, expand=True).save(turned, quality=92, exif=exif)
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(clear)
    for path in (DEMO, turned, clear):
        wanted = detector.detect(read_image(path), FLOOR - 0.02)
        assert len(wanted) > 2
        assert_same(record_of(visit, path), wanted)
    assert not visit.complaints
    assert not visit.foreign()
    assert {method for method, _ in visit.requests} == {"GET"}


@pytest.mark.slow
@pytest.mark.shared
def test_boxes_of_photographs_are_those_of_the_runtime(visit: Visit, shared: Path) -> None:
    photographs = sorted((shared / "data" / "roads" / "image_2").iterdir())
    detector = Detector(shipped(), threads=1)
    for path in photographs[:: len(photographs) // 4]:
        wanted = detector.detect(read_image(path), FLOOR - 0.02)
        assert_same(record_of(visit, path), wanted)


@pytest.mark.slow
def test_threads_where_the_page_is_isolated(site: Path, browser: Any) -> None:
    headers = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
    with static_host(site, headers) as address:
        visit = Visit(browser, address).ready()
        cores = visit.page.evaluate("navigator.hardwareConcurrency")
        said = visit.page.inner_text("#model")
        assert ("one thread" in said) == (cores == 1)
        assert cores == 1 or f"{min(cores, 4)} threads" in said
        visit.page.click("#example")
        visit.page.wait_for_selector("#found li")
        assert not visit.complaints
        visit.close()


@pytest.mark.slow
def test_a_video_in_the_browser(site: Path, browser: Any, tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(DEMO).resize((624, 192)))
    video = tmp_path / "street.webm"
    write_webm(video, pixels, frames=20)
    small = replace(shipped().card, input=InputRule(624, 192))
    site = Path(shutil.copytree(site, tmp_path / "site"))
    (site / "card.json").write_text(small.to_json())
    wanted = Detector(Bundle(small, shipped().graph), threads=1).detect(read_image(DEMO))
    with static_host(site) as address:
        visit = Visit(browser, address).ready()
        visit.give(video)
        visit.until("document.querySelectorAll('#found li').length > 0")
        visit.page.click("#stop")
        with visit.page.expect_download() as download:
            visit.page.click("#save-json")
        lines = Path(download.value.path()).read_text().splitlines()
        records = [json.loads(line) for line in lines]
        found = records[-1]["detections"]
        assert records[-1]["image"] == "street.webm"
        best = np.array([found[0]["xyxy"]]) * 2  # the video has half the picture's size
        assert found[0]["class"] == wanted[0].name
        assert iou(best, wanted.xyxy[:1])[0, 0] > 0.8
        assert not visit.complaints
        visit.close()
