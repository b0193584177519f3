"""A camera that speaks RTSP: one picture after the other, a password, and what goes wrong."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from squeezedet.errors import DataError, SourceEndedError
from squeezedet.media import video
from squeezedet.media.video import Reconnect, read_video

from .rtsp import FRAMES, camera

pytest.importorskip("av")


def sentence(address: str) -> str:
    with pytest.raises(DataError) as raised:
        list(read_video(address, live=True))
    assert "secret" not in str(raised.value)
    return str(raised.value)


def test_pictures_of_a_camera_with_a_password() -> None:
    greys, numbers = [], []
    with camera() as address, pytest.raises(SourceEndedError, match="the stream ended"):
        for frame in read_video(f"rtsp://me:secret@{address}", live=True):
            assert frame.moment is not None
            assert frame.name == f"rtsp://{address}"
            greys.append(round(frame.pixels.mean() / 5))
            numbers.append(frame.moment.number)
            time.sleep(0.05)
    assert greys == sorted(set(greys))
    assert greys[-1] >= FRAMES - 2
    assert numbers[-1] > len(numbers)  # some were dropped


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        ("", "wants a user name and password, or other ones than these"),
        ("403 Forbidden", "the server refuses it (403)"),
        ("404 Not Found", "the server has nothing at this address (404)"),
        ("503 Service Unavailable", "the server fails (an error of 5xx)"),
        ("silent", "no answer within 0.5 seconds"),
    ],
)
def test_what_a_camera_refuses(mood: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "SILENCE_S", 0.5)
    with camera(mood) as address:
        assert sentence(f"rtsp://me:wrong-secret@{address}").startswith(f"rtsp://{address}: {said}")


def test_a_host_that_does_not_exist() -> None:
    assert sentence("rtsp://me:secret@camera.invalid/street") == (
        "rtsp://camera.invalid/street: cannot be reached; is the name of the host right?"
    )


# ------------------------------------------------------------------ it comes back


def quick(said: list[str], attempts: int = 30, **options: float) -> Reconnect:
    return Reconnect(say=said.append, attempts=attempts, **options)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(video, "LONGEST_PAUSE_S", 0.2)


@pytest.mark.usefixtures("short_pauses")
def test_a_camera_that_is_stopped_and_started_comes_back() -> None:
    said: list[str] = []
    moments, notes = [], []
    with ExitStack() as first, ExitStack() as second:
        address = first.enter_context(camera())
        port = int(address.rpartition(":")[2].partition("/")[0])

        def say(sentence: str) -> None:
            said.append(sentence)
            if len(said) == 2:
                second.enter_context(camera(port=port))

        reconnect = replace(quick([]), say=say)
        for frame in read_video(f"rtsp://me:secret@{address}", live=True, reconnect=reconnect):
            assert frame.moment is not None
            moments.append(frame.moment)
            notes += frame.notes
            if len(moments) == 1:
                first.close()  # answers nobody any more; who is connected gets the rest
            if frame.moment.reopened and len(notes) == 1 and frame.moment.number > moments[-2].number:
                break
    times = [moment.time_s for moment in moments]
    assert times == sorted(set(times))
    assert [moment.first for moment in moments] == [True] + [False] * (len(moments) - 1)
    assert moments[-1].number > moments[-2].number
    assert all(moment.wall_time and moment.wall_time.tzinfo for moment in moments)
    assert "the stream ended after 40 frames" in said[0]
    assert said[0].endswith("opened again in 0.05 s (attempt 1 of 30)")
    assert "nobody answers at this address; opened again in 0.1 s (attempt 2 of 30)" in said[1]
    assert notes[0].startswith(f"rtsp://{address}: frames come again after ")
    assert "secret" not in "".join(said + notes)


@pytest.mark.usefixtures("short_pauses")
def test_a_camera_that_falls_silent_is_opened_again() -> None:
    said: list[str] = []
    with camera("stutter") as address:
        for frame in read_video(f"rtsp://me:secret@{address}", live=True, reconnect=quick(said, stall_s=0.5)):
            assert frame.moment is not None
            if frame.moment.reopened == 2:
                break
    assert [line.partition(";")[0] for line in said] == [f"rtsp://{address}: no frame for 0.5 seconds"] * 2


@pytest.mark.usefixtures("short_pauses")
def test_a_camera_that_stays_away_is_given_up() -> None:
    said: list[str] = []
    with camera() as address:
        frames = read_video(f"rtsp://me:secret@{address}", live=True, reconnect=quick(said, attempts=2))
        next(frames)
    with pytest.raises(
        SourceEndedError, match=f"^rtsp://{address}: nobody answers .* given up after 2 attempts"
    ) as raised:
        list(frames)
    assert raised.value.exit_code == 1
    assert len(said) == 2


@pytest.mark.usefixtures("short_pauses")
def test_a_source_that_never_gave_a_frame_is_waited_for_only_if_asked() -> None:
    said: list[str] = []
    with camera("404 Not Found") as address:
        name = f"rtsp://me:secret@{address}"
        with pytest.raises(DataError, match="nothing at this address"):
            list(read_video(name, live=True, reconnect=quick(said)))
        assert not said
        with pytest.raises(SourceEndedError, match="given up after 1 attempt"):
            list(read_video(name, live=True, reconnect=quick(said, attempts=1, patient=True)))
    assert len(said) == 1


def test_pauses_grow_to_a_limit() -> None:
    assert [video._pause_s(n) for n in (1, 2, 3, 7, 1000)] == [1, 2, 4, 60, 60]
