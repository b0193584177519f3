"""The page of the server, in a browser."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from squeezedet.drawing import COLORS
from squeezedet.exporting.deploy import PAGE
from squeezedet.media.images import read_image
from squeezedet.preprocess import InputRule
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import WEIGHTS, Bundle
from squeezedet.runtime.detector import Detector

from .browser import Visit, chromium, launched, write_mjpeg, write_webm
from .conftest import running

DEMO = WEIGHTS / "demo.jpg"
TOKEN = "a-token-of-the-tests"
INDEXES = (PAGE / "index.html", PAGE / "cameras" / "index.html")
BOXES = "document.querySelectorAll('#found li').length"


# ------------------------------------------------------- without a browser


def scripts() -> list[Path]:
    return sorted(PAGE.rglob("*.js"))


def test_every_file_that_is_named_exists() -> None:
    for script in scripts():
        for name in re.findall(r'(?:from |import\(|URL\()"((?:\.{1,2}/)?[\w-]+\.\w+)"', script.read_text()):
            assert (script.parent / name).is_file(), f"{script.name} names {name}"
    for page in INDEXES:
        for name in re.findall(r'(?:href|src)="page/([^"]+)"', page.read_text()):
            assert (PAGE / name).is_file()


@pytest.mark.parametrize("index", INDEXES, ids=["pictures", "cameras"])
def test_every_element_that_is_asked_for_exists(index: Path) -> None:
    ids = re.findall(r'\bid="([^"]+)"', index.read_text())
    assert len(ids) == len(set(ids))
    if index.parent != PAGE:  # parts of a card are asked for by their class
        ids += re.findall(r'\bclass="(?:[\w ]+ )?([\w-]+)"', index.read_text())
    texts = [s.read_text() for s in scripts() if s.parent == index.parent]
    asked = {name for text in texts for name in re.findall(r'find\("([^"]+)"\)', text)}
    assert asked
    assert asked <= set(ids)


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in filter(Path.is_file, PAGE.rglob("*")):
        addresses = set(re.findall(r"https?://[^\"'\s]+", path.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path.name  # a name, not an address


# --------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def detector() -> Detector:
    """The shipped model at half its width and height: a quarter of its time."""
    shipped = bundle.read(bundle.find("street"))
    card = replace(shipped.card, input=InputRule(624, 192))
    return Detector(Bundle(card, shipped.graph), threads=1)


@pytest.fixture(scope="module")
def address(detector: Detector) -> Iterator[str]:
    with running(detector, timeout_s=60) as server:
        yield f"{server.url}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    opened = Visit(browser, address).ready()
    yield opened
    opened.close()


def saved_json(visit: Visit) -> str:
    with visit.page.expect_download() as download:
        visit.page.click("#save-json")
    return Path(download.value.path()).read_text()


def has_colour(visit: Visit, colour: tuple[int, int, int]) -> bool:
    """Whether the canvas has pixels of a class's colour, as the picture itself has none."""
    held = visit.page.evaluate(
        "colour => { const canvas = document.getElementById('canvas');"
        " const { data } = canvas.getContext('2d')"
        "   .getImageData(0, 0, canvas.width, canvas.height);"
        " for (let i = 0; i < data.length; i += 4)"
        "   if (colour.every((v, k) => data[i + k] === v)) return true;"
        " return false; }",
        list(colour),
    )
    return bool(held)


@pytest.mark.slow
def test_a_picture_gives_boxes_and_json(browser: Any, address: str, detector: Detector, tmp_path: Path) -> None:
    wanted = detector.detect(read_image(DEMO)).to_dict()["detections"]
    assert len(wanted) >= 2
    visit = Visit(browser, address, permissions=["clipboard-read", "clipboard-write"]).ready()
    assert "pictures are sent there and nowhere else" in visit.page.inner_text("#where")
    assert "street, onnxruntime" in visit.page.inner_text("#model")
    visit.page.click("#example")
    visit.status(f"demo.jpg: {sum(d['class'] == 'car' for d in wanted)} \N{MULTIPLICATION SIGN} car")
    assert visit.page.locator("#found li").count() == len(wanted)
    assert "demo.jpg: " in visit.page.get_attribute("#canvas", "aria-label")
    assert has_colour(visit, COLORS[detector.names.index(wanted[0]["class"])])
    assert re.fullmatch(r"\d+ ms", visit.page.inner_text("#network"))
    assert re.fullmatch(r"\d+ ms", visit.page.inner_text("#total"))
    visit.page.click("#copy")
    visit.status("on the clipboard")
    copied = json.loads(visit.page.evaluate("navigator.clipboard.readText()"))
    assert copied["image"] == "demo.jpg"
    assert (copied["width"], copied["height"]) == (1248, 384)
    assert copied["detections"] == wanted
    assert json.loads(saved_json(visit)) == [copied]
    with visit.page.expect_download() as download:
        visit.page.click("#save-picture")
    with Image.open(download.value.path()) as picture:
        assert picture.size == (1248, 384)
    assert download.value.suggested_filename == "demo-boxes.png"
    assert not visit.complaints
    assert not visit.foreign()
    visit.close()


@pytest.mark.slow
def test_score_and_classes_filter_without_a_request(visit: Visit, detector: Detector) -> None:
    visit.give(DEMO)
    visit.until(f"{BOXES} > 0")
    requests = len(visit.requests)
    for score in (0.2, 0.7):
        visit.page.fill("#score", str(score))
        wanted = detector.detect(read_image(DEMO), score)
        assert visit.page.locator("#found li").count() == len(wanted)
        assert f"{score:.2f}" in visit.page.inner_text("#score-value")
    visit.page.fill("#score", "0.2")
    visit.page.uncheck("input[name=car]")
    left = [d for d in detector.detect(read_image(DEMO), 0.2) if d.name != "car"]
    assert visit.page.locator("#found li").count() == len(left)
    assert not has_colour(visit, COLORS[detector.names.index("car")])
    assert all(d["class"] != "car" for d in json.loads(saved_json(visit))[0]["detections"])
    visit.page.fill("#score", "1")
    assert visit.page.locator("#found li").count() == 0
    assert len(visit.requests) == requests


@pytest.mark.slow
def test_several_pictures_and_a_broken_one(visit: Visit, tmp_path: Path) -> None:
    broken, small = tmp_path / "broken.jpg", tmp_path / "small.png"
    broken.write_bytes(b"no picture at all")
    Image.new("RGB", (90, 60), (120, 120, 120)).save(small)
    visit.give(DEMO, broken, small)
    visit.until("document.querySelectorAll('#strip .wrong').length === 1")
    visit.page.focus("#strip")
    visit.page.keyboard.press("ArrowRight")
    visit.until("document.getElementById('error').textContent.includes('broken.jpg: ')")
    visit.page.keyboard.press("End")
    visit.status("small.png: nothing")
    assert visit.page.inner_text("#error") == ""
    visit.page.keyboard.press("Home")
    visit.status("demo.jpg: ")
    visit.until(f"{BOXES} > 0")
    images = [record["image"] for record in json.loads(saved_json(visit))]
    assert images == ["demo.jpg", "small.png"]
    assert not visit.complaints


@pytest.mark.slow
@pytest.mark.parametrize("event", ["drop", "paste"])
def test_dropped_and_pasted_pictures(visit: Visit, event: str) -> None:
    visit.page.evaluate(
        "([text, kind]) => {"
        " const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));"
        " const data = new DataTransfer();"
        " data.items.add(new File([bytes], 'street.jpg', { type: 'image/jpeg' }));"
        " const given = kind === 'drop' ? new DragEvent('drop', { dataTransfer: data,"
        "   bubbles: true, cancelable: true }) : new ClipboardEvent('paste',"
        "   { clipboardData: data, bubbles: true });"
        " document.getElementById('stage').dispatchEvent(given); }",
        [base64.b64encode(DEMO.read_bytes()).decode(), event],
    )
    visit.status("street.jpg: ")
    visit.until(f"{BOXES} > 0")


def best_box(record: dict[str, Any], scale: float) -> tuple[str, list[float]]:
    best = record["detections"][0]
    return best["class"], [v * scale for v in best["xyxy"]]


@pytest.mark.slow
def test_a_video(visit: Visit, detector: Detector, tmp_path: Path) -> None:
    video = tmp_path / "street.webm"
    write_webm(video, np.asarray(Image.open(DEMO).resize((832, 256))), frames=40)
    visit.give(video)
    visit.status("street.webm: playing")
    visit.until("document.getElementById('rate').textContent.includes('a second')")
    visit.until(f"{BOXES} > 0")
    visit.page.click("#play")  # pause, if it has not ended yet
    visit.until("document.getElementById('play').textContent === 'Play'")
    visit.page.fill("#seek", "0.5")
    visit.until("Math.abs(document.getElementById('video').currentTime - 0.5) < 0.01")
    records = [json.loads(line) for line in saved_json(visit).splitlines()]
    times = [record["time_s"] for record in records[:-1]]  # the last is the frame gone back to
    assert times == sorted(times)
    wanted = detector.detect(read_image(DEMO))
    name, xyxy = best_box(records[0], 1248 / 832)
    assert name == wanted[0].name
    assert np.abs(np.array(xyxy) - wanted.xyxy[0]).max() < 6  # it was compressed twice
    visit.page.click("#stop")
    visit.page.wait_for_selector("#player", state="hidden")
    assert ("WS", visit.address.replace("http", "ws") + "stream") in visit.requests
    assert not visit.complaints
    assert not visit.foreign()


@pytest.mark.slow
def test_a_camera(browser: Any, address: str, detector: Detector, tmp_path: Path) -> None:
    film = tmp_path / "camera.mjpeg"
    write_mjpeg(film, np.asarray(Image.open(DEMO).resize((832, 256))))
    fake = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    )
    with launched(browser.browser_type, *fake) as with_camera:
        visit = Visit(with_camera, address).ready()
        visit.page.click("#camera")
        visit.status("camera: live")
        visit.until(f"{BOXES} > 0")
        visit.until("document.getElementById('rate').textContent.includes('a second')")
        assert visit.page.is_hidden("#seek")  # there is no way back in it
        visit.page.click("#stop")
        assert visit.page.evaluate("document.getElementById('video').srcObject") is None
        wanted = detector.detect(read_image(DEMO))
        records = [json.loads(line) for line in saved_json(visit).splitlines()]
        found = [d for record in records for d in record["detections"]]
        assert any(d["class"] == wanted[0].name for d in found)
        assert not visit.complaints
        visit.close()


@pytest.mark.slow
def test_no_camera_is_told(visit: Visit) -> None:
    visit.page.click("#camera")
    visit.until("document.getElementById('error').textContent.startsWith('No camera: ')")


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_needs_no_sideways_scrolling(browser: Any, address: str, width: int) -> None:
    viewport = {"width": width, "height": 700}
    visit = Visit(browser, address, viewport=viewport, device_scale_factor=3).ready()
    too_wide = "document.documentElement.scrollWidth > innerWidth"
    assert not visit.page.evaluate(too_wide)
    visit.give(DEMO, DEMO, DEMO, DEMO, DEMO, DEMO)
    visit.until(f"{BOXES} > 0")
    assert not visit.page.evaluate(too_wide)
    for button in visit.page.locator("button:visible").all():
        assert button.bounding_box()["height"] >= 36
    canvas = visit.page.evaluate("document.getElementById('canvas').width")
    assert canvas > 2.5 * (width - 60)  # sharp: as many pixels as the screen has
    visit.close()


CONTRAST = """() => {
  const light = (text) => {
    const part = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255);
    const [r, g, b] = part.map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (node) => {
    const own = getComputedStyle(node).backgroundColor;
    return own === "rgba(0, 0, 0, 0)" ? back(node.parentElement) : own;
  };
  document.getElementById("error").textContent = "an error";
  const shown = [...document.querySelectorAll("h1, h2, p, button:enabled, label, legend, dt, dd")];
  return shown.filter((n) => n.textContent && n.offsetParent).map((node) => {
    const pair = [light(getComputedStyle(node).color), light(back(node))];
    return [node.id || node.tagName, (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)];
  });
}"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_be_read(browser: Any, address: str, scheme: str) -> None:
    visit = Visit(browser, address, color_scheme=scheme).ready()
    visit.give(DEMO)
    visit.until(f"{BOXES} > 0")
    paper = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", paper)[0]) < 60) == (scheme == "dark")
    contrasts = visit.page.evaluate(CONTRAST)
    assert len(contrasts) > 10
    assert not [pair for pair in contrasts if pair[1] < 4.5]  # WCAG 2.2, 1.4.3
    visit.close()


@pytest.mark.slow
def test_with_the_keyboard_alone(visit: Visit) -> None:
    page = visit.page
    # The browser has to know of the interest in the dialog before Enter opens it.
    page.on("filechooser", lambda chooser: None)

    def tab_to(wanted: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id || document.activeElement.name") == wanted:
                return
        raise AssertionError(f"the Tab key does not reach {wanted}")

    tab_to("choose")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(str(DEMO))
    visit.until(f"{BOXES} > 0")
    tab_to("score")
    before = page.inner_text("#score-value")
    page.keyboard.press("ArrowLeft")
    assert float(page.inner_text("#score-value")) == pytest.approx(float(before) - 0.01)
    tab_to("car")
    page.keyboard.press("Space")
    assert page.get_attribute("#canvas", "aria-label").count("car") == 0
    page.keyboard.press("Space")
    tab_to("found")
    page.keyboard.press("ArrowDown")
    assert page.get_attribute("#found", "aria-activedescendant") == "found-0"
    assert page.get_attribute("#found-0", "aria-selected") == "true"
    page.keyboard.press("Escape")
    assert page.get_attribute("#found", "aria-activedescendant") is None
    tab_to("save-json")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert json.loads(Path(download.value.path()).read_text())[0]["image"] == "demo.jpg"


@pytest.mark.slow
def test_every_control_has_a_name_and_a_role(visit: Visit) -> None:
    visit.give(DEMO, DEMO)
    visit.until(f"{BOXES} > 0")
    snapshot = visit.page.locator("body").aria_snapshot()
    for part in (
        'button "Choose files"',
        'slider "Lowest score',
        'group "Classes"',
        'checkbox "car',
        'listbox "Found"',
        'listbox "Pictures"',
        'img "demo.jpg: ',
        "status",
    ):
        assert part in snapshot, snapshot


@pytest.mark.slow
def test_with_a_token_the_page_asks_for_it(browser: Any, detector: Detector, tmp_path: Path) -> None:
    video = tmp_path / "street.webm"
    write_webm(video, np.asarray(Image.open(DEMO).resize((624, 192))), frames=30)
    with running(detector, token=TOKEN, timeout_s=60) as server:
        visit = Visit(browser, f"{server.url}/")
        for said, typed in (("asks for its", "not-the-right-token"), ("is not this", TOKEN)):
            visit.until(f"document.getElementById('ask-title')?.textContent.includes('{said}')")
            visit.page.wait_for_selector("#ask", state="visible")
            visit.page.keyboard.type(typed)
            visit.page.keyboard.press("Enter")
        visit.ready()
        visit.give(DEMO)
        visit.until(f"{BOXES} > 0")
        visit.give(video)
        visit.until("document.getElementById('rate').textContent.includes('a second')")
        assert [method for method, _ in visit.requests].count("POST") == 1  # frames: the stream
        visit.page.reload()
        visit.ready()  # it is still known
        visit.close()


@pytest.mark.slow
def test_a_server_that_goes_is_told(browser: Any, detector: Detector) -> None:
    with running(detector) as server:
        visit = Visit(browser, f"{server.url}/").ready()
    visit.give(DEMO)
    visit.until("document.getElementById('error').textContent === 'demo.jpg: the server does not answer'")
    visit.close()
