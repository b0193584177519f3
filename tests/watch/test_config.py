"""What a configuration may say, and the sentence for what it may not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from squeezedet.errors import DataError, UsageError
from squeezedet.media.images import Frame
from squeezedet.watch.config import Camera, Line, WatchConfig, Zone, read_config

GOOD = """
model = "street-ssd"
sqlite = "counts.sqlite"
stall_s = 5

[mqtt]
host = "broker"

[[cameras]]
name = "gate"
source = "rtsp://camera/street"
classes = ["car", "cyclist"]

[[cameras.lines]]
name = "entrance"
points = [[600, 200], [600, 370.5]]
directions = ["in", "out"]

[[cameras.zones]]
name = "yard"
points = [[0, 0], [100, 0], [100, 100]]

[[cameras.events]]
name = "came in"
when = "crossed"
line = "entrance"
direction = "in"
run = ["notify-send", "{class} {direction}"]
mqtt = true
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "watch.toml"
    path.write_text(text)
    return path


def test_a_whole_configuration(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, GOOD))
    camera = config.cameras[0]
    assert (config.model, config.sqlite, config.stall_s) == ("street-ssd", Path("counts.sqlite"), 5.0)
    assert camera.lines[0].points == ((600.0, 200.0), (600.0, 370.5))
    assert camera.lines[0].directions == ("in", "out")
    assert camera.zones[0].points[2] == (100.0, 100.0)
    assert camera.events[0].run == ("notify-send", "{class} {direction}")
    assert config.mqtt and config.mqtt.port == 1883


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("sqlite =", "sqllite =", "has no 'sqllite'; did you mean 'sqlite'?"),
        ("[[cameras.lines]]", "[[cameras.line]]", "cameras 'gate': has no 'line'; did you mean 'lines'?"),
        ('when = "crossed"', 'when = "croxxed"', "when: no 'croxxed'; did you mean 'crossed'?"),
        ('line = "entrance"', 'line = "entrence"', "event 'came in': no line 'entrence'; did you mean 'entrance'?"),
        ('line = "entrance"', "", "event 'came in': 'crossed' needs a `line`"),
        ('direction = "in"', 'direction = "inn"', "no direction 'inn'; did you mean 'in'?"),
        ('directions = ["in", "out"]', 'directions = ["in", "in"]', "both `directions` are called 'in'"),
        ("[600, 370.5]]", "[600, 200]]", "line 'entrance': has no length"),
        ("[600, 370.5]]", "[600]]", "points: [600] has not 2 parts but 1"),
        ("[600, 370.5]]", '[600, "a"]]', "points: 'a' is not a number"),
        ("[600, 370.5]]", "[600, nan]]", "points: nan is not a number"),
        ("[100, 0], [100, 100]]", "[100, 0]]", "zone 'yard': has 2 corners"),
        ("[100, 0], [100, 100]]", "[100, 100], [100, 0], [0, 100]]", "zone 'yard': crosses itself"),
        ('name = "yard"', 'name = "a/b"', "zone 'a/b': a name has 1 to 64 letters"),
        ('name = "gate"', "", "cameras: name is missing"),
        ("[mqtt]\nhost", "[mqtt]\nhosts", "mqtt: has no 'hosts'; did you mean 'host'?"),
        ('[mqtt]\nhost = "broker"', "", "event 'came in': is to be published, and no broker is given"),
        ("mqtt = true", 'webhook = "ftp://x"', "a `webhook` is an http or https address"),
        ("mqtt = true", 'webhook = "http://[x/secret"', "a `webhook` is an http or https address"),
        ("mqtt = true", 'webhook = "http://x:secret/"', "a `webhook` is an http or https address"),
        ("mqtt = true", 'webhook = "http://x/a b?secret"', "a `webhook` is an http or https address"),
        ("mqtt = true", 'webhook = ["http://x/secret"]', "webhook: is not a text"),
        ('run = ["notify-send", "{class} {direction}"]', 'run = "notify secret"', "run: is no list"),
        ('host = "broker"', 'host = "mqtt://me:secret@broker"', "mqtt: `host` is a name or an IP address"),
        ('host = "broker"', 'host = "broker"\nport = 99999', "mqtt: `port`: 99999 is not 1 to 65535"),
        ('host = "broker"', 'host = "broker"\ntopic = "a/#"', "mqtt: `topic` and `discovery` are names without"),
        ("mqtt = true", "mqtt = 1", "mqtt: 1 is not true or false"),
        ("stall_s = 5", "stall_s = [", "is no TOML"),
        ("stall_s = 5", "stall_s = 0", "`stall_s`: 0 is not 0.1 to 86400"),
        ("stall_s = 5", "reconnect = -3", "`reconnect`: -3 is not 0 to 1e+06"),
        ("stall_s = 5", "queue_limit = -1", "`queue_limit`: -1 is not 1 to 1e+07"),
        ("stall_s = 5", "before_s = -4.0", "`before_s`: -4 is not 0 to 60"),
        ('run = ["notify-send", ', 'run = ["a\\u0000b", ', "event 'came in': a word of `run` holds a zero byte"),
    ],
)
def test_what_makes_no_sense(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(UsageError) as raised:
        read_config(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)


def test_two_cameras_of_one_name(tmp_path: Path) -> None:
    more = '\n[[cameras]]\nname = "gate"\nsource = "1"\n'
    with pytest.raises(UsageError, match="there are two cameras of the name 'gate'"):
        read_config(written(tmp_path, GOOD + more))


def test_no_camera() -> None:
    with pytest.raises(UsageError, match="no camera is given"):
        WatchConfig(cameras=())


def picture(width: int, height: int) -> Frame:
    return Frame(np.zeros((height, width, 3), np.uint8))


def test_outside_of_the_picture() -> None:
    camera = Camera(name="a", source="0", lines=(Line(name="x", points=((0, 0), (200, 10))),))
    camera.check_size(picture(200, 10))
    with pytest.raises(DataError, match=r"line 'x': \(200, 10\) is outside of the picture, 199x10 pixels"):
        camera.check_size(picture(199, 10))
    zone = Zone(name="z", points=((-1, 0), (5, 0), (5, 5)))
    with pytest.raises(DataError, match="zone 'z'"):
        Camera(name="a", source="0", zones=(zone,)).check_size(picture(10, 10))
