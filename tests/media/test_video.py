from __future__ import annotations

import io
import os
import shutil
import struct
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from squeezedet.errors import DataError, MissingExtraError, SourceEndedError
from squeezedet.media.images import Frame
from squeezedet.media.kinds import is_video
from squeezedet.media.video import read_video

av = pytest.importorskip("av")

WIDTH, HEIGHT, FRAMES = 64, 48, 30
MARKED = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
MARKED[:16, :16] = (255, 0, 0)
"""White, red at the top left."""


def make(path: Path, frames: int = FRAMES, turn: dict[str, object] | None = None, **options: str) -> Path:
    """A video of ten frames a second in which noise drifts, or the marked picture stands."""
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 10
        if turn is not None:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write a display matrix")
            stream.set_display_rotation(**turn)
        for number in range(frames):
            pixels = MARKED if turn is not None else np.roll(noise, number, axis=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one video in three containers; the MP4's index is at its front."""
    folder = tmp_path_factory.mktemp("videos")
    make(folder / "a.mp4", movflags="faststart")
    make(folder / "a.mkv")
    make(folder / "a.ts")
    return folder


def read(path: Path | str, **options: object) -> tuple[list[Frame], str]:
    """What could be read, and the sentence at the end."""
    frames = []
    try:
        for frame in read_video(str(path), **options):
            frames.append(frame)
    except DataError as error:
        assert "\n" not in str(error)
        return frames, str(error)
    return frames, ""


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_every_frame_with_its_time(videos: Path, suffix: str) -> None:
    frames, sentence = read(videos / f"a.{suffix}")
    assert sentence == ""
    assert [round(f.moment.time_s, 3) for f in frames] == [n / 10 for n in range(FRAMES)]
    assert [f.moment.number for f in frames] == list(range(FRAMES))
    assert [f.moment.first for f in frames] == [True] + [False] * (FRAMES - 1)
    assert all(f.moment.dropped == f.moment.damaged == 0 for f in frames)
    assert all(f.pixels.shape == (HEIGHT, WIDTH, 3) for f in frames)
    assert all(f.pixels.dtype == np.uint8 and f.load_ms > 0 for f in frames)
    assert {f.name for f in frames} == {str(videos / f"a.{suffix}")}


@pytest.mark.parametrize("flip", ["", "hflip", "vflip"])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_turned_as_the_display_matrix_says(tmp_path: Path, degrees: int, flip: str) -> None:
    turn = {"degrees": degrees, **({flip: True} if flip else {})}
    frames, _ = read(make(tmp_path / "a.mp4", 1, turn))
    wanted = np.rot90(MARKED, degrees // 90)
    wanted = {"": wanted, "hflip": wanted[:, ::-1], "vflip": wanted[::-1]}[flip]
    assert frames[0].pixels.shape == wanted.shape
    assert np.abs(frames[0].pixels.astype(int) - wanted).mean() < 10


def test_limit_of_pixels(videos: Path) -> None:
    frames, sentence = read(videos / "a.mp4", max_pixels=WIDTH * HEIGHT - 1)
    assert frames == []
    assert "frames of 64x48 pixels are more than `max_pixels`, 3071" in sentence
    assert len(read(videos / "a.mp4", max_pixels=WIDTH * HEIGHT)[0]) == FRAMES


# ------------------------------------------------------------------ what is broken


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_what_was_read_of_a_truncated_file_is_kept(videos: Path, tmp_path: Path, suffix: str) -> None:
    content = (videos / f"a.{suffix}").read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(content[: len(content) // 2])
    frames, sentence = read(path)
    assert FRAMES // 3 < len(frames) < FRAMES * 2 // 3
    assert sentence.startswith(f"{path}: breaks off after ")
    assert sentence.endswith(" bytes are missing at its end")


def test_a_matroska_segment_at_the_end_of_what_is_looked_at(videos: Path, tmp_path: Path) -> None:
    content = (videos / "a.mkv").read_bytes()
    segment = content.index(b"\x18S\x80g")
    head = content[5 + 7 * (content[4] == 1) : segment]  # its length takes one byte or eight
    void = 4096 - 4 - 12 - len(head) - 9
    long = b"\x01" + (len(head) + 9 + void).to_bytes(7, "big")
    path = tmp_path / "long.mkv"
    path.write_bytes(
        b"\x1aE\xdf\xa3" + long + head + b"\xec\x01" + void.to_bytes(7, "big") + bytes(void) + content[segment:]
    )
    frames, sentence = read(path)
    assert (len(frames), sentence) == (FRAMES, "")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_damage_in_the_middle_is_counted(videos: Path, tmp_path: Path, suffix: str) -> None:
    content = bytearray((videos / f"a.{suffix}").read_bytes())
    for at in range(len(content) // 3, len(content) * 2 // 3, 1500):
        content[at] ^= 0xFF
    path = tmp_path / f"bad.{suffix}"
    path.write_bytes(content)
    frames, sentence = read(path)
    assert len(frames) > FRAMES * 2 // 3
    assert frames[-1].moment.time_s == pytest.approx((FRAMES - 1) / 10)
    assert frames[-1].moment.damaged > 0
    assert sentence.startswith(f"{path}: ")
    assert sentence.endswith(" of its frames are damaged")


@pytest.mark.parametrize("content", [b"", b"Dear Sir or Madam", bytes(5000), b"\0\0\0\x20ftypisom"])
def test_no_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert read(path) == ([], f"{path}: not a video that can be read")


def test_no_such_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    assert read(path) == ([], f"{path}: no such file or device")


def test_no_such_camera() -> None:
    frames, sentence = read("/dev/video987", live=True)
    assert frames == []
    assert sentence.startswith("/dev/video987: ")


def test_sound_only(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert read(path) == ([], f"{path}: holds no video")


def test_a_playlist_reaches_nothing_else(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.m3u8"
    line = "http://127.0.0.1:1/a.ts"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{line}\n#EXT-X-ENDLIST\n")
    frames, sentence = read(path)
    assert frames == []
    assert "nobody answers" not in sentence


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_file_name_that_is_no_text(videos: Path, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/stra\xdfe.mp4")
    shutil.copy(videos / "a.mp4", path)
    assert len(read(path)[0]) == FRAMES


def test_without_pyav(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"squeezedet\[video\]"):
        next(read_video(str(videos / "a.mp4")))


# ------------------------------------------------------------------ what does not wait


@pytest.mark.skipif(os.name == "nt", reason="pipes of Unix")
def test_a_pipe_waits_and_drops_nothing(videos: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "a.ts"
    os.mkfifo(pipe)
    content = (videos / "a.ts").read_bytes()
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    frames = []
    for frame in read_video(str(pipe)):
        time.sleep(0.005)
        frames.append(frame.moment.number)
    writer.join()
    assert frames == list(range(FRAMES))


class Camera(BaseHTTPRequestHandler):
    """Motion JPEG: a picture every 10 ms, its grey the picture's number, 60 of them."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            for number in range(60):
                buffer = io.BytesIO()
                Image.new("RGB", (32, 16), (4 * number,) * 3).save(buffer, "JPEG")
                part = buffer.getvalue()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n"
                self.wfile.write(head.encode() + part + b"\r\n")
                time.sleep(0.01)
        except ConnectionError:
            pass

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://me:secret@127.0.0.1:{server.server_port}/a.mjpg"
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_of_a_live_stream_the_newest_frame_comes(address: str) -> None:
    seen = []
    begin = time.monotonic()
    with pytest.raises(SourceEndedError, match="the stream ended after 60 frames") as ended:
        for frame in read_video(address, live=True):
            late = time.monotonic() - begin
            seen.append((frame.moment, round(frame.pixels.mean() / 4), late))
            assert "secret" not in frame.name
            assert frame.moment.wall_time.utcoffset() is not None
            time.sleep(0.03)
    assert ended.value.exit_code == 1
    assert "secret" not in str(ended.value)
    moments = [moment for moment, _, _ in seen]
    assert [moment.number for moment in moments] == [grey for _, grey, _ in seen]
    assert 2 <= len(moments) <= 50
    assert [m.number - m.dropped for m in moments] == list(range(len(moments)))
    assert moments[-1].number == 59
    assert moments[-1].dropped > 9
    assert moments[0].first
    # Times are those of arrival: the stream has none of its own.
    assert moments[0].time_s <= moments[-1].time_s == pytest.approx(seen[-1][2], abs=0.5)
    assert moments[-1].time_s > 0.5


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    frames, sentence = read("rtsp://me:secret@127.0.0.1:1/x", live=True)
    assert (frames, sentence) == ([], "rtsp://127.0.0.1:1/x: nobody answers at this address")


# ------------------------------------------------------------------ time stamps and whole files


def stamped(path: Path, pts: list[int], codec: str = "libx264", form: str | None = None, **more: object) -> Path:
    """A video whose frames have these time stamps, in tenths of a second."""
    with av.open(str(path), "w", format=form) as container:
        options = {"preset": "ultrafast", "tune": "zerolatency"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = str(more.get("pix_fmt", "yuv420p"))
        for number, at in enumerate(pts):
            pixels = np.full((HEIGHT, WIDTH, 3), 5 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def times(path: Path) -> list[float]:
    frames, sentence = read(path)
    assert sentence == ""
    return [frame.moment.time_s for frame in frames]


@pytest.mark.parametrize("second", [0, 3, 1000])
def test_time_goes_on_where_recordings_are_joined(tmp_path: Path, second: int) -> None:
    parts = [
        stamped(tmp_path / f"{k}.ts", [start + n for n in range(20)]).read_bytes()
        for k, start in enumerate((0, second))
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts))
    assert times(path) == pytest.approx([n / 10 for n in range(40)], abs=0.02)


def test_time_stamps_of_33_bits_begin_anew(tmp_path: Path) -> None:
    wrap = 10 * (1 << 33) // 90_000  # tenths of a second
    path = stamped(tmp_path / "a.ts", [wrap - 10 + n for n in range(30)])
    assert times(path) == pytest.approx([n / 10 for n in range(30)], abs=0.02)


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mov", "libx264"), ("flv", "libx264"), ("asf", "mpeg4")]
)
def test_a_second_movie_behind_the_first_is_not_lost_silently(tmp_path: Path, suffix: str, codec: str) -> None:
    content = stamped(tmp_path / f"a.{suffix}", list(range(5)), codec).read_bytes()
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(2 * content)
    frames, sentence = read(path)
    assert len(frames) == 5
    assert sentence == f"{path}: holds 2 movies one behind the other, and only the first was read"


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "libx264"), ("avi", "mpeg4")])
def test_containers_that_can_be_joined(tmp_path: Path, suffix: str, codec: str) -> None:
    content = stamped(tmp_path / f"a.{suffix}", list(range(20)), codec).read_bytes()
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(2 * content)
    assert times(path) == pytest.approx([n / 10 for n in range(40)], abs=0.02)


def test_dropped_frames_of_an_avi_are_no_damage(tmp_path: Path) -> None:
    pts = [0, 1, 2, 5, 6, 7, 12, 13, 14, 15]
    path = stamped(tmp_path / "a.avi", pts, "mjpeg", pix_fmt="yuvj420p")
    assert times(path) == pytest.approx([n / 10 for n in pts])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    assert read(path)[1].endswith("are missing at its end")


def test_an_edit_list_shows_a_part(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 10
        for number in range(60):
            pixels = np.full((HEIGHT, WIDTH, 3), 4 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    movie, media = (
        struct.unpack(">I", data[data.find(name) + 16 : data.find(name) + 20])[0] for name in (b"mvhd", b"mdhd")
    )
    at = data.find(b"elst")
    data[at + 12 : at + 20] = struct.pack(">Ii", 2 * movie, 2 * media)
    (tmp_path / "a.mp4").write_bytes(data)
    frames, sentence = read(tmp_path / "a.mp4")
    assert (len(frames), sentence) == (20, "")


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_a_last_frame_that_stays_long(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx" if suffix == "webm" else "libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        packets = []
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(MARKED, format="rgb24")
            packets += stream.encode(frame)
        for packet in [*packets, *stream.encode(None)]:
            if packet.pts * packet.time_base >= 0.9:
                packet.duration = int(8 / packet.time_base)
            container.mux(packet)
    assert len(times(path)) == 10
    path.write_bytes(path.read_bytes()[:-100])
    assert read(path)[1].endswith("100 bytes are missing at its end")


@pytest.mark.parametrize(("suffix", "form"), [("asf", "asf"), ("wmv", "asf"), ("bin", "asf"), ("flv", "flv")])
def test_asf_and_flv(tmp_path: Path, suffix: str, form: str) -> None:
    path = stamped(tmp_path / f"a.{suffix}", list(range(10)), "flv" if form == "flv" else "mpeg4", form)
    assert is_video(path)
    assert times(path) == pytest.approx([n / 10 for n in range(10)], abs=0.01)
    path.write_bytes(path.read_bytes()[:-100])
    assert read(path)[1].endswith("100 bytes are missing at its end")


def test_a_text_that_names_other_videos_opens_none(videos: Path, tmp_path: Path) -> None:
    shutil.copy(videos / "a.mp4", tmp_path / "secret.mp4")
    for text in ("ffconcat version 1.0\nfile secret.mp4\n", f"#EXTM3U\n#EXTINF:1,\n{'secret.mp4'}\n"):
        path = tmp_path / "a.mp4"
        path.write_text(text)
        assert read(path) == ([], f"{path}: not a video that can be read")


def test_a_device_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.symlink_to("/dev/zero")
    assert read(path) == ([], f"{path}: is not a regular file but a device")


def test_a_title_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Strasse_x_"
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(MARKED, format="rgb24")))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    assert b"Strasse_x_" in content
    path.write_bytes(content.replace(b"Strasse_x_", b"Stra\xdfe_xyz_"[:10]))
    assert len(times(path)) == 1
