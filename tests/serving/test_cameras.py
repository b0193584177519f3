"""The server's own cameras: what viewers see, what they may change, and what they never see."""

from __future__ import annotations

import io
import json
import re
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from squeezedet.media.video import VideoFile
from squeezedet.preprocess import InputRule
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.detector import Detector
from squeezedet.runtime.postprocess import RawBoxes
from squeezedet.serving import cameras
from squeezedet.serving.cameras import Cameras
from squeezedet.watch.config import Camera, Line, WatchConfig, cameras_of, read_config
from squeezedet.watch.counting import Event, Records

from ..media.rtsp import camera as rtsp_camera
from .running import DEMO, Running, running

WIDTH, HEIGHT, FRAMES = 160, 96, 30
GATE = {"name": "gate", "points": [[80, 96], [80, 0]], "directions": ["in", "out"]}
YARD = {"name": "yard", "points": [[100, 0], [160, 0], [160, 96], [100, 96]]}
TOKEN = "correct-horse-battery"


class BrightBox:
    """An engine that finds what is bright, as one car."""

    name = "bright"

    def __init__(self) -> None:
        self.runs = 0

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        self.runs += 1
        rows, columns = np.nonzero(pixels.mean(axis=2) > 128)
        boxes = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]] if len(rows) else []
        xyxy = np.array(boxes, np.float32).reshape(-1, 4)
        return RawBoxes(xyxy, np.full(len(xyxy), 0.9, np.float32), np.zeros(len(xyxy), np.int64))


@pytest.fixture
def bright() -> Detector:
    shipped = bundle.read(bundle.find("street"))
    made = Detector(Bundle(replace(shipped.card, input=InputRule(WIDTH, HEIGHT)), shipped.graph), threads=1)
    made.engine = BrightBox()
    return made


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Something bright goes from the left to the right, within a second and a half."""
    path = tmp_path_factory.mktemp("a secret folder") / "drive.mp4"
    with VideoFile(path) as file:
        for number in range(FRAMES):
            pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            pixels[30:70, 4 * number : 4 * number + 40] = 255
            file.write(Image.fromarray(pixels), number / 20)
    return path


Serve = Callable[..., Running]


@pytest.fixture
def serve(bright: Detector) -> Iterator[Serve]:
    """Servers with cameras; what they said is in ``serve.said``."""
    with ExitStack() as stack:

        def start(*sources: Path | str, path: Path | None = None, **settings: Any) -> Running:
            config = read_config(path) if path and path.exists() else None
            config = config or WatchConfig(cameras=tuple(cameras_of([str(source) for source in sources])))
            said: list[str] = []
            cameras = stack.enter_context(Cameras(bright, config, path, said.append))
            start.said = said  # type: ignore[attr-defined]
            return stack.enter_context(running(bright, cameras, **settings))

        yield start


class Viewer:
    """Asks for the newest picture of the cameras, as the page does."""

    def __init__(self, socket: ClientConnection, *names: str) -> None:
        self.socket, self.seen = socket, dict.fromkeys(names, -1)

    def next(self) -> tuple[dict[str, Any], bytes]:
        self.socket.send(json.dumps({"seen": self.seen}))
        message = self.socket.recv(timeout=60)
        assert isinstance(message, bytes), message
        (length,) = struct.unpack("!I", message[:4])
        header = json.loads(message[4 : 4 + length])
        self.seen.pop(header["camera"])
        self.seen[header["camera"]] = header["number"]
        return header, message[4 + length :]

    def until(self, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            header, _ = self.next()
            if wanted(header):
                return header
        raise AssertionError(header)


@contextmanager
def viewer(server: Running, *names: str, **settings: Any) -> Iterator[Viewer]:
    address = f"ws://127.0.0.1:{server.port}/stream"
    with connect(address, compression=None, max_size=None, **settings) as socket:
        yield Viewer(socket, *names)


def is_live(header: dict[str, Any]) -> bool:
    return header["state"] == "live"


def put(server: Running, name: str = "drive", version: int = 0, **places: Any) -> httpx.Response:
    body = {"version": version, "lines": [], "zones": []} | places
    return httpx.put(f"{server.url}/cameras/{name}/places", content=json.dumps(body), verify=False)


def frames_of(server: Running, name: str) -> int:
    """Of a camera, by the server's metrics."""
    text = httpx.get(f"{server.url}/metrics").text
    found = re.search(rf'squeezedet_camera_frames_total{{camera="{name}"}} (\d+)', text)
    return int(found[1]) if found else 0


# ------------------------------------------------------------------ pictures


def test_pictures_and_their_records(serve: Serve, drive: Path) -> None:
    with viewer(serve(drive), "drive") as one:
        one.until(is_live)
        shown = [one.next() for _ in range(5)]
    numbers = [header["number"] for header, _ in shown]
    assert numbers == sorted(set(numbers))
    for header, picture in shown:
        assert Image.open(io.BytesIO(picture)).size == (WIDTH, HEIGHT)
        record = header["record"]
        assert (record["image"], record["width"], record["height"]) == ("drive", WIDTH, HEIGHT)
    assert {box["class"] for header, _ in shown for box in header["record"]["detections"]} == {"car"}


def test_several_viewers_cost_one_inference_a_frame(serve: Serve, drive: Path, bright: Detector) -> None:
    server = serve(drive)
    with ExitStack() as stack:
        viewers = [stack.enter_context(viewer(server, "drive")) for _ in range(4)]
        for _ in range(5):
            for one in viewers:
                one.next()
        frames, runs = frames_of(server, "drive"), bright.engine.runs  # type: ignore[attr-defined]
    warm_up = 1
    assert frames >= 5
    assert abs(runs - warm_up - frames) <= 2  # those under way


def test_who_is_slow_misses_pictures_and_holds_nobody_up(serve: Serve, drive: Path) -> None:
    server = serve(drive)
    with viewer(server, "drive") as slow, viewer(server, "drive") as quick:
        before, _ = slow.next()
        newest = quick.until(lambda header: header["number"] > before["number"] + 10)
        header, _ = slow.next()
        assert header["number"] >= newest["number"]


def test_cameras_take_turns(serve: Serve, drive: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(drive.read_bytes())
    server = serve(drive, other)
    assert httpx.get(f"{server.url}/cameras").json() == {"names": ["drive", "other"], "editable": False}
    with viewer(server, "drive", "other") as one:
        names = [one.next()[0]["camera"] for _ in range(12)]
    assert min(names.count("drive"), names.count("other")) >= 3


def test_a_video_begins_again(serve: Serve, drive: Path) -> None:
    server = serve(drive)
    with viewer(server, "drive") as one:
        one.until(is_live)
        again = one.until(lambda header: header["record"]["time_s"] > FRAMES / 20)
    assert [box["class"] for box in again["record"]["detections"]] == ["car"]


def test_a_large_picture_is_shown_smaller(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    with VideoFile(path) as file:
        for number in range(3):
            file.write(Image.new("RGB", (2560, 1440)), number / 5)
    server = serve(path)
    with viewer(server, "large") as one:
        header, picture = one.next()
        while not picture:
            header, picture = one.next()
    assert (header["record"]["width"], header["record"]["height"]) == (2560, 1440)
    assert Image.open(io.BytesIO(picture)).size == (1280, 720)


@pytest.mark.parametrize("seen", ['{"other": 1}', '{"drive": "1"}', '{"drive": true}', '["drive"]', "7", "null"])
def test_what_a_viewer_cannot_ask(serve: Serve, drive: Path, seen: str) -> None:
    with viewer(serve(drive), "drive") as one:
        one.socket.send(f'{{"seen": {seen}}}')
        assert "/cameras lists them" in json.loads(one.socket.recv(timeout=60))["error"]
        one.next()
        one.socket.send(DEMO)  # it detects as well
        assert "detections" in json.loads(one.socket.recv(timeout=60))


def test_a_server_without_cameras(server: Running) -> None:
    assert httpx.get(f"{server.url}/cameras").status_code == 404
    assert "cameras" not in httpx.get(f"{server.url}/page/config.json").json()
    with viewer(server, "drive") as one:
        one.socket.send('{"seen": {"drive": 1}}')
        assert "error" in json.loads(one.socket.recv(timeout=60))


def test_a_stop_lets_viewers_go(serve: Serve, tmp_path: Path) -> None:
    server = serve(tmp_path / "none.mp4")
    with viewer(server, "none") as one:
        one.until(lambda header: header["state"] == "away")
        one.socket.send(json.dumps({"seen": one.seen}))  # waits for news that do not come
        server.stop()
        with pytest.raises(ConnectionClosed):
            while True:
                one.socket.recv(timeout=60)
        assert one.socket.close_code == 1001


# ------------------------------------------------------------------ lines and zones


def test_lines_and_zones_are_saved_and_count(serve: Serve, drive: Path, tmp_path: Path) -> None:
    path = tmp_path / "watch.toml"
    server = serve(drive, path=path)
    assert httpx.get(f"{server.url}/cameras").json()["editable"]
    with viewer(server, "drive") as one:
        one.until(is_live)
        assert put(server, lines=[GATE], zones=[YARD]).json() == {"version": 1}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        saved = read_config(path).cameras[0]
        assert (saved.source, saved.lines[0].directions) == (str(drive), ("in", "out"))
        assert saved.zones[0].points[2] == (160, 96)
        told: list[dict[str, Any]] = []

        def counted(header: dict[str, Any]) -> bool:
            told.extend(header["events"])
            return header["lines"][0]["counts"]["in"] >= 1 and header["zones"][0]["entered"] >= 1

        one.seen["drive"] = -1
        header = one.until(counted)
    assert header["version"] == 1
    assert header["lines"][0]["counts"]["out"] == 0
    assert {"crossed", "entered"} <= {event["kind"] for event in told}
    history = httpx.get(f"{server.url}/cameras/drive/history").json()
    assert sum(history["series"]["gate in"]) >= 1
    assert sum(history["series"]["yard entered"]) >= 1
    assert len(history["series"]["gate out"]) == 60
    assert (history["step_s"], history["begin_s"] % 60) == (60, 0)
    day = httpx.get(f"{server.url}/cameras/drive/history?span=day").json()
    assert len(day["series"]["gate in"]) == 24
    assert sum(day["series"]["gate in"]) >= 1
    again = serve(path=path)
    with viewer(again, "drive") as one:
        header, _ = one.next()
        assert [line["name"] for line in header["lines"]] == ["gate"]


def test_what_stays_keeps_its_counts(serve: Serve, drive: Path, tmp_path: Path) -> None:
    server = serve(drive, path=tmp_path / "watch.toml")
    with viewer(server, "drive") as one:
        one.until(is_live)
        put(server, lines=[GATE])
        one.until(lambda header: header["lines"] and header["lines"][0]["counts"]["in"] >= 1)
        assert put(server, lines=[GATE, GATE | {"name": "other"}], version=1).status_code == 200
        header = one.until(lambda header: header["version"] == 2)
        assert header["lines"][0]["counts"]["in"] >= 1
        put(server, lines=[GATE | {"points": [[90, 96], [90, 0]]}], version=2)
        header = one.until(lambda header: header["version"] == 3)
        assert [line["name"] for line in header["lines"]] == ["gate"]


def test_a_file_of_hand_keeps_what_it_says(serve: Serve, drive: Path, tmp_path: Path) -> None:
    path = tmp_path / "watch.toml"
    text = (
        f'# ours\nscore = 0.5\njsonl = "{tmp_path}/counts.jsonl"\n[[cameras]]\nname = "drive"\nsource = "{drive}"\n'
        '[[cameras.lines]]\nname = "gate"\npoints = [[80, 96], [80, 0]]\n'
        '[[cameras.events]]\nname = "told"\nwhen = "crossed"\nline = "gate"\n'
    )
    path.write_text(text)
    path.chmod(0o640)
    server = serve(path=path)
    with viewer(server, "drive") as one:
        one.until(is_live)
        refused = put(server, zones=[YARD])  # the event needs the line
        assert (refused.status_code, path.read_text()) == (422, text)
        assert refused.json()["error"] == "camera 'drive': event 'told': no line 'gate'; there are none"
        assert put(server, lines=[GATE], zones=[YARD]).status_code == 200
        assert (tmp_path / "watch.toml.orig").read_text() == text
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        config = read_config(path)
        assert (config.score, config.cameras[0].events[0].name) == (0.5, "told")
        assert config.cameras[0].lines[0].directions == ("in", "out")
        told = one.until(lambda header: any(event["kind"] == "alarm" for event in header["events"]))["events"]
        assert [event["event"] for event in told if event["kind"] == "alarm"] == ["told"]
    server.stop()
    assert "alarm" in (tmp_path / "counts.jsonl").read_text()


def test_the_chart_remembers_an_earlier_run(serve: Serve, drive: Path, tmp_path: Path) -> None:
    path = tmp_path / "watch.toml"
    camera = f'[[cameras]]\nname = "drive"\nsource = "{drive}"\n'
    line = '[[cameras.lines]]\nname = "gate"\npoints = [[9, 9], [9, 0]]\n'
    path.write_text(f'sqlite = "{tmp_path}/counts.sqlite"\n{camera}{line}')
    before = datetime.now().astimezone() - timedelta(minutes=61)
    seven = Event(kind="minute", camera="drive", time_s=0, wall_time=before, place="gate", direction="left", count=7)
    with Records(read_config(path), pytest.fail) as records:
        records.write([seven])
    server = serve(path=path)
    assert sum(httpx.get(f"{server.url}/cameras/drive/history?span=day").json()["series"]["gate left"]) == 7
    assert sum(httpx.get(f"{server.url}/cameras/drive/history").json()["series"]["gate left"]) == 0


def test_two_who_draw_at_once(serve: Serve, drive: Path, tmp_path: Path) -> None:
    server = serve(drive, path=tmp_path / "watch.toml")
    with viewer(server, "drive") as one:
        one.until(is_live)
    assert put(server, lines=[GATE]).status_code == 200
    late = put(server, zones=[YARD])
    assert (late.status_code, late.json()["error"]) == (409, "somebody else changed the lines and zones of this camera")
    assert len(read_config(tmp_path / "watch.toml").cameras[0].lines) == 1


HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"lines": [GATE | {"points": [[5, 5], [5, 5]]}]}, "line 'gate': has no length"),
    ({"lines": [GATE | {"points": [[5, 5], [500, 5]]}]}, "line 'gate': (500, 5) is outside of the picture"),
    ({"lines": [GATE | {"points": [[5, 5]]}]}, "has not 2 parts"),
    ({"lines": [GATE | {"points": [[5, 5], [1e308, 5]]}]}, "1e+308 is not a number"),
    ({"lines": [GATE | {"points": [[5, 5], [float("nan"), 5]]}]}, "nan is not a number"),
    ({"lines": [GATE | {"points": [[5, 5], [10**400, 5]]}]}, "lines 'gate': points: 1000"),
    ({"lines": [GATE | {"points": [[5, 5], [None, 5]]}]}, "None is not a number"),
    ({"lines": [GATE | {"points": [[5, 5], [True, 5]]}]}, "True is not a number"),
    ({"lines": [GATE, GATE]}, "two lines of the name 'gate'"),
    ({"lines": [GATE | {"name": "../../etc/passwd"}]}, "a name has 1 to 64 letters"),
    ({"lines": [GATE | {"name": "\ud800"}]}, "a name has 1 to 64 letters"),
    ({"lines": [GATE | {"name": 7}]}, "is not a text"),
    ({"lines": [GATE | {"directions": ["in", "in"]}]}, "both `directions` are called 'in'"),
    ({"lines": [GATE | {"directions": ["in", 'a"\n[mqtt]']}]}, "a name has 1 to 64 letters"),
    ({"lines": [GATE | {"run": ["sh"]}]}, "has no 'run'"),
    ({"lines": "all"}, "lines: at most 50"),
    ({"lines": [GATE] * 51}, "lines: at most 50"),
    ({"lines": [7]}, "is no table"),
    ({"zones": [YARD | {"points": [[0, 0], [50, 50], [50, 0], [0, 50]]}]}, "zone 'yard': crosses itself"),
    ({"zones": [YARD | {"points": [[0, 0], [50, 50]]}]}, "zone 'yard': has 2 corners"),
    ({"zones": [YARD | {"points": [[0, 0], [25, 25], [50, 50]]}]}, "zone 'yard': "),
    ({"zones": [YARD | {"points": [[k, k] for k in range(101)]}]}, "at most 100 corners"),
    ({"path": "/etc/cron.d/x"}, "`lines` and `zones` are wanted, and nothing else"),
    ({"events": []}, "`lines` and `zones` are wanted, and nothing else"),
    ({"source": "0"}, "`lines` and `zones` are wanted, and nothing else"),
]


def test_hostile_places_change_nothing(serve: Serve, drive: Path, tmp_path: Path) -> None:
    path = tmp_path / "watch.toml"
    server = serve(drive, path=path)
    with viewer(server, "drive") as one:
        one.until(is_live)
        for places, said in HOSTILE:
            refused = put(server, **places)
            assert refused.status_code == 422, places
            assert said in refused.json()["error"]
            assert len(refused.json()["error"]) <= 300
            assert str(tmp_path) not in refused.json()["error"]
        raw = [(b"", 400), (b"{", 400), (b"[]", 400), (b"[" * 10_000, 400), (b"7" * 30_000, 413)]
        address = f"{server.url}/cameras/drive/places"
        for body, status in raw:
            assert httpx.put(address, content=body).status_code == status
        assert put(server, name="other").status_code == 404
        assert put(server, name="..%2f..%2fetc").status_code == 404
        assert httpx.get(f"{server.url}/cameras/drive/history?span=year").status_code == 422
        assert list(tmp_path.iterdir()) == []
        assert one.until(is_live)["version"] == 0


def test_without_a_file_nobody_draws(serve: Serve, drive: Path) -> None:
    server = serve(drive)
    refused = put(server, lines=[GATE])
    assert (refused.status_code, refused.json()["error"]) == (
        403,
        "there is no file to save to: serve --watch-config FILE",
    )


def test_a_file_that_cannot_be_written(serve: Serve, drive: Path, tmp_path: Path) -> None:
    path = tmp_path / "file" / "watch.toml"
    server = serve(drive, path=path)
    (tmp_path / "file").write_text("in the way")
    with viewer(server, "drive") as one:
        one.until(is_live)
        refused = put(server, lines=[GATE])
        assert refused.status_code == 500
        assert refused.json()["error"].startswith("watch.toml: cannot be written")
        assert one.until(is_live)["lines"] == []


def test_lines_of_another_size_are_told_of(serve: Serve, drive: Path, tmp_path: Path, bright: Detector) -> None:
    line = Line(name="far", points=((300, 0), (300, 90)))
    config = WatchConfig(cameras=(Camera(name="drive", source=str(drive), lines=(line,)),))
    with (
        Cameras(bright, config, tmp_path / "watch.toml", lambda sentence: None) as cameras,
        running(bright, cameras) as server,
        viewer(server, "drive") as one,
    ):
        assert "outside of the picture" in one.until(is_live)["said"]
        assert put(server, lines=[GATE]).status_code == 200
        assert one.until(lambda header: header["version"] == 1 and not header["said"])


# ------------------------------------------------------------------ who may look


def test_nothing_without_the_token(serve: Serve, drive: Path, tmp_path: Path) -> None:
    server = serve(drive, path=tmp_path / "watch.toml", token=TOKEN)
    for path in ("/cameras", "/cameras/drive/history", "/cameras/none/history"):
        assert httpx.get(f"{server.url}{path}").status_code == 401
    assert put(server, lines=[GATE]).status_code == 401
    with viewer(server, "drive") as one:
        one.socket.send('{"seen": {"drive": -1}}')
        with pytest.raises(ConnectionClosed):
            one.socket.recv(timeout=60)
        assert one.socket.close_code == 1008
    with viewer(server, "drive") as one:
        one.socket.send(json.dumps({"token": TOKEN}))
        assert one.until(is_live)
    assert httpx.get(f"{server.url}/").status_code == 200
    assert list(tmp_path.iterdir()) == []


def test_no_other_site(serve: Serve, drive: Path, tmp_path: Path) -> None:
    server = serve(drive, path=tmp_path / "watch.toml")
    evil = {"Origin": "http://evil.example"}
    body = json.dumps({"version": 0, "lines": [], "zones": []})
    assert httpx.put(f"{server.url}/cameras/drive/places", content=body, headers=evil).status_code == 403
    assert httpx.get(f"{server.url}/cameras", headers=evil).status_code == 403
    assert httpx.get(f"{server.url}/cameras", headers={"Host": "evil.example"}).status_code == 421
    with pytest.raises(InvalidStatus), viewer(server, "drive", origin="http://evil.example"):
        pass


def test_a_source_that_is_not_there(serve: Serve, drive: Path) -> None:
    path = drive.with_name("none.mp4")
    server = serve(path)
    with viewer(server, "none") as one:
        header = one.until(lambda header: header["state"] == "away")
    assert "no such file" in header["said"].lower()
    assert "secret" not in json.dumps(header)
    assert str(path) in serve.said[0]  # type: ignore[attr-defined] - on the operator's terminal


def test_a_source_that_was_given_up_is_opened_anew(
    serve: Serve, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cameras, "AGAIN_S", 0.05)
    path = tmp_path / "later.mp4"
    with viewer(serve(path), "later") as one:
        one.until(lambda header: header["state"] == "away")
        (tmp_path / "part").write_bytes(drive.read_bytes())
        (tmp_path / "part").rename(path)
        first = one.until(is_live)
        path.unlink()
        one.until(lambda header: header["state"] == "away")
        (tmp_path / "part").write_bytes(drive.read_bytes())
        (tmp_path / "part").rename(path)
        assert one.until(is_live)["record"]["time_s"] > first["record"]["time_s"]


@pytest.mark.slow
def test_a_camera_that_breaks_off_comes_back(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "watch.toml"
    with ExitStack() as stack:
        address = stack.enter_context(rtsp_camera())
        port = int(re.findall(r":(\d+)/", address)[0])
        server = serve(f"rtsp://me:secret@{address}", path=path)
        shown: list[str] = []
        with viewer(server, "street") as one:

            def told(header: dict[str, Any]) -> bool:
                shown.append(json.dumps(header))
                return is_live(header)

            one.until(told)
            line = GATE | {"points": [[10, 40], [30, 40]]}
            assert put(server, "street", lines=[line]).status_code == 200
            away = one.until(lambda header: not told(header))
            assert "opened again" in away["said"]
            assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200
            back = one.until(told)
            assert back["record"]["time_s"] > away["record"]["time_s"]
            assert back["lines"][0]["name"] == "gate"
            stack.close()  # the camera is gone
            assert "attempt 2" in one.until(lambda header: "attempt 2" in header["said"])["said"]
            with rtsp_camera(port=port):
                one.until(told)
        everything = [*shown, *serve.said, httpx.get(f"{server.url}/cameras").text]  # type: ignore[attr-defined]
        everything.append(httpx.get(f"{server.url}/metrics").text)
        assert not [text for text in everything if "secret" in text]
        assert address not in "".join(shown)
        assert "me:secret@" in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
