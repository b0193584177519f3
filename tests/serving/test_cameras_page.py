"""The page of the server's own cameras, in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from squeezedet.media.images import read_image
from squeezedet.media.video import VideoFile
from squeezedet.preprocess import InputRule
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import WEIGHTS, Bundle
from squeezedet.runtime.detector import Detector
from squeezedet.serving.cameras import Cameras
from squeezedet.watch.config import WatchConfig, cameras_of, read_config

from .browser import Visit, chromium
from .running import Running, running

pytest.importorskip("av")
pytestmark = pytest.mark.slow

TOKEN = "a-token-of-the-tests"
SIZES = {"wide": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}
LONG = "a rather long name of a place that fills all of 64 signs, nearly"[:60].replace(",", "")


@pytest.fixture(scope="module")
def detector() -> Detector:
    """The shipped model at half its width and height: a quarter of its time."""
    shipped = bundle.read(bundle.find("street"))
    card = replace(shipped.card, input=InputRule(624, 192))
    return Detector(Bundle(card, shipped.graph), threads=1)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory, detector: Detector) -> Path:
    """The nearest car of the demo picture drives to the right on an empty road."""
    path = tmp_path_factory.mktemp("video") / "street.mp4"
    demo = Image.fromarray(read_image(WEIGHTS / "demo.jpg").pixels)
    found = max((box for box in detector(demo) if box.name == "car"), key=lambda box: box.xyxy[3])
    left, top, right, bottom = (round(v) for v in found.xyxy)
    car = demo.crop((left - 12, top - 12, right + 12, bottom + 12))
    car = car.resize((160, round(160 * car.height / car.width)))
    with VideoFile(path) as file:
        for number in range(24):
            road = Image.new("RGB", (1248, 384), (120, 120, 118))
            road.paste(car, (300 + 20 * number, 150))
            file.write(road, number / 8)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def serve(detector: Detector, street: Path, tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as stack:

        def start(path: Path | None = tmp_path / "watch.toml", **settings: Any) -> Running:
            config = WatchConfig(cameras=tuple(cameras_of([str(street)])))
            cameras = stack.enter_context(Cameras(detector, config, path, lambda sentence: None))
            return stack.enter_context(running(detector, cameras, timeout_s=60, **settings))

        yield start


def visit(browser: Any, server: Running, size: str = "wide") -> Visit:
    opened = Visit(browser, f"{server.url}/", viewport=SIZES[size])
    opened.page.wait_for_selector(".state.live")
    return opened


def fits(opened: Visit) -> bool:
    """Whether nothing is wider than the window."""
    return bool(opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


class Pen:
    """Draws on the first picture of a page, in its pixels."""

    def __init__(self, opened: Visit) -> None:
        self.page = opened.page
        self.page.locator(".screen").scroll_into_view_if_needed()
        self.box = self.page.locator(".screen").bounding_box()

    def at(self, x: float, y: float) -> tuple[float, float]:
        scale = self.box["width"] / 1248
        return self.box["x"] + x * scale, self.box["y"] + y * scale

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.mouse.move(*self.at(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*end), steps=4)
        self.page.mouse.up()

    def click(self, *points: tuple[float, float]) -> None:
        for point in points:
            self.page.mouse.click(*self.at(*point))


def near(points: Any, wanted: list[tuple[float, float]], px: float = 4) -> bool:
    return len(points) == len(wanted) and all(
        abs(a - b) <= px for p, q in zip(points, wanted, strict=True) for a, b in zip(p, q, strict=True)
    )


def test_lines_and_zones_are_drawn_saved_and_counted(browser: Any, serve: Any, tmp_path: Path) -> None:
    server = serve()
    opened, phone = visit(browser, server), visit(browser, server, "phone")
    page = opened.page
    assert page.inner_text(".name") == "street"
    opened.until("document.querySelector('.screen').getAttribute('aria-label').includes('car')")
    page.click(".edit")
    page.click(".add-line")
    pen = Pen(opened)
    pen.drag((560, 370), (560, 20))
    page.click(".add-zone")
    pen.click((700, 30), (1200, 30), (1200, 370), (700, 370), (700, 30))
    page.get_by_label("Name").first.fill("gate")
    page.get_by_label("To the right").fill("out of town")
    assert fits(opened)
    page.screenshot(path=tmp_path / "edit.png")
    page.click("button[type=submit]")
    page.wait_for_selector(".edit:visible")
    (camera,) = read_config(tmp_path / "watch.toml").cameras
    assert (camera.lines[0].name, camera.lines[0].directions) == ("gate", ("out of town", "left"))
    assert near(camera.lines[0].points, [(560, 370), (560, 20)])
    assert near(camera.zones[0].points, [(700, 30), (1200, 30), (1200, 370), (700, 370)])
    for one in (opened, phone):  # who did not draw sees them, too
        one.until("[...document.querySelectorAll('.counts td')].some((cell) => cell.textContent === 'out of town')")
        one.until("Number(document.querySelector('.counts td:last-child').textContent) > 0")
        one.until("document.querySelectorAll('.plot rect').length > 0")
        one.until("document.querySelector('.events').textContent.includes('car crossed gate: out of town')")
        assert "gate out of town" in one.page.inner_text(".legend")
        assert fits(one)
        assert not one.complaints
        assert not one.foreign()
    page.screenshot(path=tmp_path / "wide.png", full_page=True)
    phone.page.screenshot(path=tmp_path / "phone.png", full_page=True)
    opened.close()
    phone.close()


def test_what_makes_no_sense_is_told_on_the_page(browser: Any, serve: Any, tmp_path: Path) -> None:
    server = serve()
    opened = visit(browser, server)
    page, refused = opened.page, []
    page.on("response", lambda response: refused.append(response.status) if response.status >= 400 else None)
    page.click(".edit")
    page.click(".add-zone")
    pen = Pen(opened)
    pen.click((100, 50), (400, 300), (400, 50), (100, 300), (100, 50))
    page.click("button[type=submit]")
    page.wait_for_selector("text=Not saved: zone 'zone 1': crosses itself; give its corners in order")
    page.get_by_label("Corners").fill("100,50 400,50 400,3000")
    page.click("button[type=submit]")
    page.wait_for_selector("text=(400, 3000) is outside of the picture, 1248x384 pixels")
    page.get_by_label("Corners").fill("what?")
    page.click("button[type=submit]")
    page.wait_for_selector("text=Not saved: zones 'zone 1': points")
    page.get_by_label("Corners").fill("100,50 400,50 400,300")
    page.get_by_label("Name").fill("../up")
    page.click("button[type=submit]")
    page.wait_for_selector("text=a name has 1 to 64 letters")
    assert not (tmp_path / "watch.toml").exists()
    assert refused == [422] * 4
    page.get_by_label("Name").fill(LONG)
    page.click("button[type=submit]")
    page.wait_for_selector(".edit:visible")
    assert read_config(tmp_path / "watch.toml").cameras[0].zones[0].name == LONG
    page.click(".edit")
    page.get_by_role("button", name="Remove").click()
    page.click(".cancel")
    opened.until("document.querySelectorAll('.counts td').length > 0")
    assert len(read_config(tmp_path / "watch.toml").cameras[0].zones) == 1
    opened.close()


def test_a_finger_on_a_phone(browser: Any, serve: Any, tmp_path: Path) -> None:
    server = serve()
    opened = Visit(browser, f"{server.url}/", viewport=SIZES["phone"], has_touch=True, is_mobile=True)
    page = opened.page
    page.wait_for_selector(".state.live")
    page.click(".edit")
    page.click(".add-line")
    pen = Pen(opened)
    for point in ((300, 200), (900, 200)):
        page.touchscreen.tap(*pen.at(*point))
    pen.drag((900, 200), (900, 300))
    page.get_by_label("Name").fill(LONG)
    page.get_by_label("To the left").fill(LONG)
    assert fits(opened)
    page.click("button[type=submit]")
    page.wait_for_selector(".edit:visible")
    opened.until("document.querySelectorAll('.legend li').length === 2")
    assert fits(opened)
    page.screenshot(path=tmp_path / "phone.png", full_page=True)
    assert near(read_config(tmp_path / "watch.toml").cameras[0].lines[0].points, [(300, 200), (900, 300)], 8)
    assert not opened.complaints
    opened.close()


def test_the_token_and_a_server_that_goes(browser: Any, serve: Any, tmp_path: Path) -> None:
    server = serve(path=None, token=TOKEN)
    opened = Visit(browser, f"{server.url}/")
    page = opened.page
    page.fill("#token", "wrong-token-wrong-token")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=That is not this server's token")
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector(".state.live")
    assert not page.is_visible(".edit")  # there is no file to save to
    page.click("text=Pictures and videos")
    opened.ready()
    page.click("#example")
    page.wait_for_selector("#found li")
    page.click("text=Cameras")
    page.wait_for_selector(".state.live")
    server.stop()
    page.wait_for_selector(".state.away")
    opened.close()
