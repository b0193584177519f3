"""The report: complete, self-contained, and readable in a real browser."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from squeezedet.evaluation.analysis import Case, RecallCurve
from squeezedet.evaluation.evaluate import apply_protocol
from squeezedet.evaluation.kitti import KITTI_CLASSES
from squeezedet.evaluation.report import SIDE_PX, EvaluationInput, Labels, Report, crop

from .scenes import found, labels, shift

MAGENTA = (200, 0, 200)
CAR = (100.0, 100.0, 200.0, 160.0)


@pytest.fixture
def report(tmp_path: Path) -> Report:
    image = tmp_path / "a&b.png"
    Image.new("RGB", (1242, 375), MAGENTA).save(image)
    truth = labels(("Car", CAR), ("Car", shift(CAR, 300)), ("Pedestrian", shift(CAR, 600)))
    detections = found(("car", 0.9, CAR), ("car", 0.8, shift(CAR, 340)), ("car", 0.7, shift(CAR, 800)))
    material = EvaluationInput(
        Labels(["a&b"], [image], [truth], ["Car", "Pedestrian"], "kitti", "all"), [detections], KITTI_CLASSES
    )
    result, intervals = apply_protocol(material, "kitti", "current", draws=5)
    curve = RecallCurve((8, 16, 100), (0.1, 0.4, 0.5), (0.2, 0.5, 0.6), 3)
    return Report(
        title="<model> on data",
        input=material,
        result=result,
        intervals=intervals,
        curve=curve,
        command="squeezedet evaluate",
    )


class Reader(HTMLParser):
    """Notes tags and addresses, and whether every tag is closed."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [v for k, v in attrs if k in ("src", "href") and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(report: Report, tmp_path: Path) -> None:
    page = report.write(tmp_path).read_text()
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert reader.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in reader.addresses)
    assert "<script" not in page
    assert "&lt;model&gt; on data" in page
    assert "a&amp;b" in page
    # Every table can scroll on its own.
    assert page.count("<table") == page.count('<div class="table"><table')
    for heading in ("Precision and recall", "Confusion", "Errors", "Worst cases", "Image by image"):
        assert f"<h2>{heading}</h2>" in page
    assert "pedestrian was never detected and counts 0 in the means" in page
    assert re.search(r"<td>localization</td><td>1</td>", page)
    assert re.search(r"What errors cost, after TIDE(.|\n)*<td>localization</td><td>1</td><td>25.0</td>", page)


@pytest.mark.parametrize("protocol", ["voc", "coco"])
def test_other_protocols_have_a_page_too(report: Report, protocol: str, tmp_path: Path) -> None:
    material = report.input
    plain = EvaluationInput(replace(material.labels, images=None), material.detections, KITTI_CLASSES)
    result, _ = apply_protocol(plain, protocol)
    page = Report(title="t", input=plain, result=result).write(tmp_path).read_text()
    assert f"<p>{protocol.upper()}: 1 images" in page
    assert "<polyline" in page
    assert "Worst cases" not in page


def test_a_crop_holds_both_boxes_and_stays_in_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "black.png"
    Image.new("RGB", (400, 200)).save(path)
    near_edge = Case(0, "localization", "car", 0.5, (350, 150, 399, 199), "car", (300, 150, 390, 190))
    data = crop(near_edge, path)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))))
    assert max(picture.shape[:2]) == SIDE_PX
    green = (picture[..., 1] > 100) & (picture[..., 0] < 80)
    orange = (picture[..., 0] > 180) & (picture[..., 2] < 100)
    assert green.any()
    assert orange.any()


def test_a_missed_object_has_the_colour_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "black.png"
    Image.new("RGB", (400, 200)).save(path)
    data = crop(Case(0, "missed", "car", -1, (100, 50, 200, 150)), path)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))))
    assert ((picture[..., 0] > 180) & (picture[..., 2] < 100)).any()
    assert not ((picture[..., 1] > 100) & (picture[..., 0] < 80)).any()


@pytest.mark.slow
def test_a_real_browser_shows_it(report: Report, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium)")
    page = report.write(tmp_path / "report")
    shot = tmp_path / "shot.png"
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--window-size=1200,3600",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={shot}",
        page.as_uri(),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert pixels.shape[:2] == (3600, 1200)
    # The green line of the first chart, the bars of the errors and the crops are there.
    green = (abs(pixels - (0, 158, 115)).sum(axis=2) < 30).any(axis=1)
    assert green.sum() > 20
    pictures = abs(pixels - MAGENTA).sum(axis=2) < 30
    assert pictures.sum() > 3 * 0.4 * SIDE_PX**2
    written = (pixels.max(axis=2) < 90).any(axis=1)
    assert written.sum() > 300
