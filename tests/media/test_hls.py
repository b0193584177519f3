"""A live HLS playlist over HTTP, whose server stops and starts again."""

from __future__ import annotations

import functools
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from squeezedet.errors import DataError, SourceEndedError
from squeezedet.media import video
from squeezedet.media.video import Reconnect, read_video

av = pytest.importorskip("av")

FRAMES, RATE, SEGMENT = 40, 25, 10


class Files(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four segments of 0.4 seconds each, without an end as of a camera, and the same with an end."""
    folder = tmp_path_factory.mktemp("hls")
    for name, flags in (("live", "omit_endlist"), ("whole", "independent_segments")):
        options = {"hls_time": str(SEGMENT / RATE), "hls_list_size": "0", "hls_flags": flags}
        with av.open(str(folder / f"{name}.m3u8"), "w", format="hls", options=options) as container:
            stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "g": str(SEGMENT)})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(FRAMES):
                pixels = np.full((48, 64, 3), 5 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
    return folder


@contextmanager
def server(folder: Path, port: int = 0) -> Iterator[int]:
    handler = functools.partial(Files, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield running.server_port
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(video, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(video, "LONGEST_PAUSE_S", 0.2)


def quick(say: Callable[[str], object], attempts: int = 30, patient: bool = False) -> Reconnect:
    return Reconnect(say=say, attempts=attempts, stall_s=0.8, patient=patient)


def test_a_playlist_with_an_end_is_a_video(folder: Path) -> None:
    with server(folder) as port:
        frames = list(read_video(f"http://127.0.0.1:{port}/whole.m3u8", reconnect=quick(print)))
    assert [round(frame.moment.time_s * RATE) for frame in frames] == list(range(FRAMES))
    assert {frame.moment.wall_time for frame in frames} == {None}


def test_a_live_playlist_comes_at_its_own_pace(folder: Path) -> None:
    moments = []
    with server(folder) as port, pytest.raises(SourceEndedError, match=r"no frame for 0\.8 seconds|the stream ended"):
        for frame in read_video(f"http://127.0.0.1:{port}/live.m3u8", reconnect=quick(print, attempts=0)):
            moments.append(frame.moment)
            time.sleep(0.01)
    first, last = moments[0], moments[-1]
    assert last.time_s - first.time_s > 1
    assert (last.wall_time - first.wall_time).total_seconds() > last.time_s - first.time_s - 0.05


def test_a_server_that_is_stopped_and_started(folder: Path) -> None:
    said: list[str] = []
    moments, notes = [], []
    with ExitStack() as first, ExitStack() as second:
        port = first.enter_context(server(folder))
        address = f"http://127.0.0.1:{port}/live.m3u8"

        def say(sentence: str) -> None:
            said.append(sentence)
            if len(said) == 3:
                second.enter_context(server(folder, port))

        for frame in read_video(f"{address}?token=secret", reconnect=quick(say)):
            moments.append(frame.moment)
            notes += frame.notes
            if len(moments) == 1:
                first.close()
            if sum(moment.reopened for moment in moments) == 3:
                break
    times = [moment.time_s for moment in moments]
    assert times == sorted(set(times))
    shown = f"{address}?token=..."
    assert re.search(r": (no frame for 0\.8 seconds|the stream ended after .*); opened again in 0\.05 s", said[0])
    assert said[1] == f"{shown}: nobody answers at this address; opened again in 0.1 s (attempt 2 of 30)"
    assert notes[0].startswith(f"{shown}: frames come again after ")
    assert "secret" not in "".join(said + notes)


def test_a_playlist_that_comes_to_its_end_is_given_up(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    for file in folder.iterdir():
        shutil.copy(file, tmp_path)
    playlist = tmp_path / "live.m3u8"
    with server(tmp_path) as port:
        frames = read_video(f"http://127.0.0.1:{port}/live.m3u8", reconnect=quick(said.append, attempts=1))
        next(frames)
        playlist.write_text(playlist.read_text() + "#EXT-X-ENDLIST\n")
        with pytest.raises(SourceEndedError, match="has come to its end; given up after 1 attempt"):
            list(frames)
    assert len(said) == 1


def test_a_playlist_that_is_not_there_yet(folder: Path) -> None:
    """Only where somebody asked for a live source is it waited for."""
    said: list[str] = []
    with ExitStack() as stack:
        with server(folder) as port:
            pass
        address = f"http://127.0.0.1:{port}/live.m3u8"
        with pytest.raises(DataError, match=r"nobody answers at this address$"):
            list(read_video(address, reconnect=quick(said.append, patient=True)))
        assert not said
        frames = read_video(
            address, live=True, reconnect=quick(lambda _: stack.enter_context(server(folder, port)), patient=True)
        )
        assert next(frames).pixels.shape == (48, 64, 3)
        frames.close()
