"""Webhooks that fail, hang and redirect; commands; clips. The other ends are real servers on this machine."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from squeezedet.errors import SqueezeDetError
from squeezedet.watch import actions
from squeezedet.watch.actions import (
    Actions,
    Background,
    Clips,
    Outbox,
    filled,
    post,
    run_command,
    signature,
    snapshot_path,
)
from squeezedet.watch.config import Camera, Rule, WatchConfig
from squeezedet.watch.counting import Event

from .broker import free_port
from .hooks import address, hook


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(actions, "ANSWER_S", 0.5)
    monkeypatch.setenv("no_proxy", "*")


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come true")


def test_a_signed_webhook() -> None:
    with hook() as server:
        post(address(server), b'{"a": 1}', "key")
    assert server.got == [(b'{"a": 1}', signature("key", b'{"a": 1}'), "/secret-path")]
    # RFC 4231, test case 2
    expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert signature("Jefe", b"what do ya want for nothing?") == expected


def test_what_a_webhook_answers() -> None:
    with hook(500, "hang", "302 http://127.0.0.1:1/", "307 http://127.0.0.1:1/") as server:
        for said in ("answers 500", "no answer within 0.5 seconds", "redirects elsewhere", "redirects elsewhere"):
            with pytest.raises(SqueezeDetError, match=f"^webhook 127.0.0.1: {said}"):
                post(address(server), b"{}")
        assert len(server.got) == 4
    with pytest.raises(SqueezeDetError, match="cannot be reached") as raised:
        post(address(server), b"{}")
    assert "secret" not in str(raised.value)


def test_a_redirect_on_the_same_host_is_followed() -> None:
    with hook() as server:
        server.answers.append(f"307 {address(server, 'there')}")
        post(address(server), b"{}", "key")
    assert [path for _, _, path in server.got] == ["/secret-path", "/there"]
    assert server.got[0][:2] == server.got[1][:2]


def waiting(outbox: Outbox) -> int:
    with outbox._changed:
        return int(outbox._database.execute("SELECT COUNT(*) FROM outbox").fetchone()[0])


def test_nothing_is_lost_while_the_other_end_is_down(tmp_path: Path) -> None:
    said: list[str] = []
    with hook() as server:
        target = address(server)
    outbox = Outbox(tmp_path / "queue", 100, "", {target}, said.append)
    for number in range(5):
        outbox.put(target, {"number": number})
    wait_for(lambda: bool(said))
    assert said[0].startswith("webhook 127.0.0.1: cannot be reached")
    outbox.close()

    with hook(500, 503, port=server.server_port) as back:
        again = Outbox(tmp_path / "queue", 100, "", {target}, said.append)
        again.put(target, {"number": 5})
        wait_for(lambda: not waiting(again))
        again.close()
    numbers = [json.loads(body)["number"] for body, _, _ in back.got]
    assert numbers == [0, 0, 0, 1, 2, 3, 4, 5]
    assert said[1:] == [
        f"webhook 127.0.0.1: answers 500; events wait in {tmp_path / 'queue'} and are sent again",
        "webhook 127.0.0.1: answers again",
    ]


def test_the_queue_is_bounded_and_a_dead_webhook_holds_up_no_other(tmp_path: Path) -> None:
    said: list[str] = []
    with hook() as good, hook(*["hang"] * 9) as dead:
        outbox = Outbox(tmp_path / "queue", 3, "", {address(good), address(dead)}, said.append)
        for number in range(5):
            outbox.put(address(dead), {"number": number})
        assert waiting(outbox) == 3
        assert said.count(f"{tmp_path / 'queue'}: more than 3 events wait for webhooks; the oldest was dropped") == 2
        outbox.put(address(good), {})
        wait_for(lambda: bool(good.got))
        dead.released.set()
        outbox.close()


def test_a_queue_on_a_full_disk_is_told_once(tmp_path: Path) -> None:
    said: list[str] = []
    with hook() as server:
        outbox = Outbox(tmp_path / "queue", 100, "", {address(server)}, said.append)
        with outbox._changed:
            outbox._database.execute("PRAGMA max_page_count = 1")
        for _ in range(3):
            outbox.put(address(server), {"long": "x" * 10_000})
        assert said == [f"{tmp_path / 'queue'}: database or disk is full; events are not sent to webhooks"]
        with outbox._changed:
            outbox._database.execute("PRAGMA max_page_count = 1000")
        outbox.put(address(server), {})
        wait_for(lambda: bool(server.got))
        outbox.close()


def test_what_waits_for_another_address_stays_with_a_sentence(tmp_path: Path) -> None:
    path, said = tmp_path / "queue", list[str]()
    dead = f"http://127.0.0.1:{free_port()}/"
    first = Outbox(path, 10, "", {dead}, lambda _: None)
    first.put(dead, {"a": 1})
    first.close()
    for _ in range(2):
        Outbox(path, 10, "", {"http://127.0.0.1:1/"}, said.append).close()
    assert said == [f"{path}: 1 event for webhooks that no rule here has; they stay in the file"] * 2


def test_a_queue_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "queue").write_text("something else, longer than a page of nothing")
    with pytest.raises(SqueezeDetError, match="cannot be used as the webhooks' queue"):
        Outbox(tmp_path / "queue", 3, "", set(), print)


# ------------------------------------------------------------------ commands


def test_arguments_are_filled_in_and_never_a_shells(tmp_path: Path) -> None:
    record = {"camera": "a; touch x", "event": "e", "class": "{event}", "count": 3, "time_s": 1.5}
    arguments = filled(["{camera}", "{camera}", "{class}{count}", "{time} {other} {", "}"], record)
    assert arguments == ["{camera}", "a; touch x", "{event}3", "1.5 {other} {", "}"]
    code = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
    run_command([sys.executable, "-c", code, str(tmp_path / "out"), "$(id) `id` ; id"], "e")
    assert (tmp_path / "out").read_text() == "$(id) `id` ; id"


def test_a_command_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SqueezeDetError, match=r"^event 'e': .*ended with 3$"):
        run_command([sys.executable, "-c", "raise SystemExit(3)"], "e")
    with pytest.raises(SqueezeDetError, match=r"^event 'e': no-such-command cannot be started"):
        run_command(["no-such-command"], "e")
    monkeypatch.setattr(actions, "COMMAND_S", 0.2)
    with pytest.raises(SqueezeDetError, match=r"was ended after 0.2 seconds"):
        run_command([sys.executable, "-c", "import time; time.sleep(60)"], "e")


def test_too_many_actions_are_left_out_with_one_sentence() -> None:
    said: list[str] = []
    release = threading.Event()
    background = Background(said.append, "commands")
    for _ in range(actions.WAITING + 5):
        background(release.wait)
    assert said == ["100 commands wait; further ones are left out"]
    release.set()
    background.close(60)
    assert background.lost


def test_whatever_fails_the_next_ones_are_called_and_the_end_tells_what_is_left() -> None:
    said: list[str] = []
    done, release = threading.Event(), threading.Event()
    background = Background(said.append, "commands")
    background(int, "no number")
    background(done.set)
    assert done.wait(60)
    background(release.wait)
    background(release.wait)
    background.close(0.01)
    release.set()
    assert said == ["invalid literal for int() with base 10: 'no number'", "commands: 2 not done at the end"]


def test_a_slow_command_holds_up_no_picture(tmp_path: Path) -> None:
    rule = Rule(name="e", when="nothing_for", seconds=1, run=("sleep", "9"), snapshot=True)
    config = WatchConfig(cameras=(Camera(name="a", source="0", events=(rule,)),), folder=tmp_path)
    said: list[str] = []
    doing = Actions(config, "", said.append)
    for second in range(3):
        event = Event(kind="alarm", camera="a", time_s=second, rule="e")
        doing.fire([event], "a", lambda: Image.new("RGB", (8, 8)), second)
    doing.close()
    assert len(list(tmp_path.iterdir())) == 3
    assert said == ["commands: 3 not done at the end"]
    assert doing.lost


# ------------------------------------------------------------------ clips


def test_a_clip_that_cannot_be_written_is_given_up_and_the_next_one_begins(tmp_path: Path) -> None:
    pytest.importorskip("av")
    clips = Clips(before_s=1.0, after_s=0.2)
    (tmp_path / "file").touch()
    picture = Image.new("RGB", (32, 32))
    with pytest.raises(SqueezeDetError, match="cannot be written"):
        clips.add(picture, 0.0, tmp_path / "file" / "a.mp4")
    clips.add(picture, 0.1, None)
    clips.add(picture, 0.2, tmp_path / "b.mp4")
    clips.add(picture, 0.4, None)
    assert (tmp_path / "b.mp4").stat().st_size


def test_a_clip_holds_the_seconds_around_its_alarm(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from squeezedet.media.video import read_video

    clips = Clips(before_s=1.0, after_s=0.5)
    event = Event(kind="alarm", camera="gate", time_s=3.0, rule="in out")
    path = snapshot_path(tmp_path, event, ".mp4")
    for number in range(60):
        alarm = path if number == 30 else tmp_path / "other.mp4" if number == 33 else None
        clips.add(Image.new("RGB", (32, 32), (number * 4, 0, 0)), number / 10, alarm)
    clips.close()
    assert [file.name for file in tmp_path.iterdir()] == ["gate-in_out-000003.000s.mp4"]
    frames = list(read_video(str(path)))
    assert len(frames) == 10 + 1 + 3 + 5  # a second before, the alarm, to half a second after the other one
    assert [round(frame.moment.time_s * 10) for frame in frames] == list(range(19))
    assert abs(int(frames[0].pixels[16, 16, 0]) - 80) < 12
