from __future__ import annotations

import io
import os
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from squeezedet.errors import UsageError
from squeezedet.media import sources
from squeezedet.media.images import Frame
from squeezedet.media.sources import Failure, MediaSource, frames, locate


def save(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), colour).save(path)
    return path


def names(found: list[MediaSource | Failure]) -> list[str]:
    assert all(isinstance(item, MediaSource) for item in found)
    return [item.name for item in found]


def sentence(found: list[MediaSource | Failure]) -> str:
    """Of the only thing found, a failure."""
    (failure,) = found
    assert isinstance(failure, Failure)
    return str(failure.error)


def test_folder_is_sorted_and_holds_images_only(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.webp"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "._a.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    save(tmp_path / "deeper" / "d.png")
    assert names(locate([str(tmp_path)])) == [str(tmp_path / n) for n in ("a.JPG", "b.png", "c.webp")]


def test_recursive_folder(tmp_path: Path) -> None:
    wanted = [save(tmp_path / n) for n in ("a.png", "sub/b.png", "sub/sub/c.png")]
    save(tmp_path / ".cache" / "x.png")
    assert names(locate([str(tmp_path)], recursive=True)) == [str(p) for p in wanted]


def test_hidden_folder_that_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / ".hidden" / "a.png")
    assert names(locate([str(path.parent)])) == [str(path)]


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    says = sentence(locate([str(tmp_path)]))
    assert says.startswith(f"{tmp_path}: the folder has no images (jpg, ")
    assert "; `recursive` looks into" in says
    assert "recursive" not in sentence(locate([str(tmp_path)], recursive=True))


def test_pattern(tmp_path: Path) -> None:
    wanted = [save(tmp_path / n) for n in ("1/x.png", "2/x.png")]
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "x.txt").touch()
    assert names(locate([str(tmp_path / "*" / "x.*")])) == [str(p) for p in wanted]
    assert names(locate([str(tmp_path / "**" / "*.png")])) == [str(p) for p in wanted]
    assert "matches no image" in sentence(locate([str(tmp_path / "*.gif")]))


def test_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    path = save(tmp_path / "a[1].png")
    save(tmp_path / "a1.png")
    assert names(locate([str(path)])) == [str(path)]


def test_named_file_may_have_any_suffix(tmp_path: Path) -> None:
    path = tmp_path / "upload.tmp"
    save(tmp_path / "x.png").rename(path)
    (frame,) = frames(locate([str(path)]))
    assert isinstance(frame, Frame)


@pytest.mark.parametrize("url", ["http://a.b/c.jpg", "https://a.b/c.jpg", "HTTPS://a.b/c.jpg?d=*"])
def test_addresses(url: str) -> None:
    assert locate([url]) == [MediaSource(url, "url")]


@pytest.mark.parametrize("url", ["ftp://a.b/c.jpg", "file:///etc/passwd", "s3://bucket/c.jpg"])
def test_other_schemes_are_refused(url: str) -> None:
    assert "only http and https" in sentence(locate([url]))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:secret@a.b/c@d.jpg", "http://a.b/c@d.jpg"),
        ("https://secret@a.b?x", "https://a.b?x"),
        ("ftp://me:sec@ret@a.b/c.jpg", "ftp://a.b/c.jpg"),
    ],
)
def test_password_is_refused_and_not_repeated(url: str, shown: str) -> None:
    (failure,) = locate([url])
    assert isinstance(failure, Failure)
    assert failure.name == shown
    assert str(failure.error).startswith(f"{shown}: an image behind a user name or password")
    assert locate(["http://a.b/@c.jpg"]) == [MediaSource("http://a.b/@c.jpg", "url")]


def test_empty_name_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert "empty name" in sentence(locate([""]))


def test_name_that_is_too_long() -> None:
    (item,) = frames(locate(["x" * 5000 + ".jpg"]))
    assert isinstance(item, Failure)


def test_the_others_go_on_and_the_order_stays(tmp_path: Path) -> None:
    good = save(tmp_path / "folder" / "a.png")
    bad = tmp_path / "folder" / "b.png"
    bad.write_text("no image")
    missing = tmp_path / "missing.png"
    located = locate([str(missing), str(good.parent), str(good)])
    found = list(frames(located))
    assert [item.name for item in found] == [str(p) for p in (missing, good, bad, good)]
    assert [isinstance(item, Frame) for item in found] == [False, True, False, True]
    assert str(found[0].error) == f"{missing}: no such file"


def test_limit_of_pixels(tmp_path: Path) -> None:
    located = locate([str(save(tmp_path / "a.png"))])
    (refused,) = frames(located, max_pixels=23)
    (read,) = frames(located, max_pixels=24)
    assert isinstance(refused, Failure)
    assert isinstance(read, Frame)


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = save(tmp_path / "a.png", "blue").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    (frame, again) = [*frames(locate(["-"])), *frames(locate(["-"]))]
    assert isinstance(frame, Frame)
    assert frame.name == "-"
    assert np.array_equal(frame.pixels, np.full((4, 6, 3), (0, 0, 255)))
    assert isinstance(again, Failure)
    assert str(again.error) == "standard input: the file is empty"
    monkeypatch.setattr(sources, "MAX_BYTES", 10)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    (large,) = frames(locate(["-"]))
    assert isinstance(large, Failure)
    assert "more than 1e-05 MB, the limit; save it to a file first" in str(large.error)


def test_standard_input_is_named_once() -> None:
    with pytest.raises(UsageError, match="only once"):
        locate(["-", "a.png", "-"])


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def test_images_from_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png", "blue")
    (tmp_path / "page.html").write_text("<html>please log in</html>")
    monkeypatch.setenv("no_proxy", "*")
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        root = f"http://127.0.0.1:{server.server_port}"
        good, page, missing = frames(locate([f"{root}/{n}" for n in ("a.png", "page.html", "b.png")]))
        server.shutdown()
        thread.join()
    assert isinstance(good, Frame)
    assert good.name == f"{root}/a.png"
    assert (good.pixels == (0, 0, 255)).all()
    assert isinstance(page, Failure)
    assert str(page.error) == f"{root}/page.html: the server sent text/html, not an image"
    assert isinstance(missing, Failure)
    assert "404" in str(missing.error)


# ------------------------------------------------------------------ videos


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("drive.mp4", "video"),
        ("trip/DRIVE.MKV", "video"),
        ("http://a.b/drive.mp4?x=1", "video"),
        ("http://a.b/mjpg/video.mjpg", "live"),
        ("http://me:secret@a.b/video.mjpg?x=1", "live"),
        ("http://a.b/picture", "url"),
        ("rtsp://me:secret@a.b/stream", "live"),
        ("udp://127.0.0.1:9000", "live"),
        ("0", "live"),
        ("/dev/video1", "live"),
    ],
)
def test_videos_and_what_is_live(name: str, kind: str) -> None:
    assert locate([name]) == [MediaSource(name, kind)]


def test_everything_can_be_called_live() -> None:
    names = ["a.mp4", "http://a.b/stream", "pipe"]
    assert locate(names, live=True) == [MediaSource(name, "live") for name in names]


def test_video_of_unknown_suffix(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(b"\x1aE\xdf\xa3" + bytes(100))
    assert locate([str(path)]) == [MediaSource(str(path), "video")]


def test_numbered_pictures(tmp_path: Path) -> None:
    wanted = [save(tmp_path / f"{number:03d}.png") for number in (8, 9, 10, 11)]
    save(tmp_path / "9.png")
    assert names(locate([str(tmp_path / "%03d.png")])) == [str(path) for path in wanted]
    assert "matches no image" in sentence(locate([str(tmp_path / "x%03d.png")]))
    assert "No such file" in sentence(locate([str(tmp_path / "none" / "%03d.png")]))


def test_a_pattern_takes_videos_where_it_matches_no_image(tmp_path: Path) -> None:
    videos = [tmp_path / name for name in ("a.mp4", "b.mkv")]
    for path in videos:
        path.touch()
    assert locate([str(tmp_path / "*")]) == [MediaSource(str(path), "video") for path in videos]
    image = save(tmp_path / "c.png")
    assert names(locate([str(tmp_path / "*")])) == [str(image)]


def test_a_folder_is_a_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    image = save(tmp_path / "b.png")
    assert names(locate([str(tmp_path)])) == [str(image)]


# ------------------------------------------------------------------ brackets, what is left out


@pytest.mark.parametrize("folder", ["trip [2024]", "[a-c]", "a]b[", "x[!y]", "50%d [a*]"])
@pytest.mark.parametrize("pattern", ["f%d.jpg", "*.jpg", "f?.jpg", "f[12].jpg", "f[0-9].jpg", "[!x]*.[j]pg"])
def test_brackets_in_the_name_of_a_folder(tmp_path: Path, folder: str, pattern: str) -> None:
    wanted = [save(tmp_path / folder / f"f{n}.jpg") for n in (1, 2)]
    save(tmp_path / "a" / "f1.jpg")  # what [a-c] would match, too
    assert names(locate([str(tmp_path / folder / pattern)])) == [str(path) for path in wanted]


def test_each_part_of_a_pattern_has_its_own_meaning(tmp_path: Path) -> None:
    wanted = [save(tmp_path / drive / "trip [2024]" / "f1.jpg") for drive in ("d1", "d2")]
    save(tmp_path / "d1" / "other" / "f1.jpg")
    for pattern in ("d?/trip [2024]/f[0-9].jpg", "d[12]/trip [2024]/*.jpg", "**/* [[]2024]/f[!2].jpg"):
        assert names(locate([str(tmp_path / pattern)])) == [str(path) for path in wanted]


def test_a_pattern_with_a_bracket_that_matches_nothing_says_how_one_is_written(tmp_path: Path) -> None:
    assert "is written [[]" in sentence(locate([str(tmp_path / "a [1]" / "*.jpg")]))


def test_all_suffixes_of_images_are_taken_and_others_are_told(tmp_path: Path) -> None:
    content = save(tmp_path / "a.jpg").read_bytes()
    for name in ("b.jfif", "c.jpe", "d.mpo", "e.JPEG"):
        (tmp_path / name).write_bytes(content)
    for name in ("f.heic", "g.mp4", "notes.txt"):
        (tmp_path / name).touch()
    found = locate([str(tmp_path)])
    assert [Path(name).name for name in names(found)] == [*("a.jpg", "b.jfif", "c.jpe", "d.mpo", "e.JPEG")]
    first, *others = frames(found)
    assert first.notes == (f"{tmp_path}: 2 files left out (.heic, .mp4)",)
    assert all(isinstance(frame, Frame) and not frame.notes for frame in others)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_a_folder_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "c.mp4")
    for found in (frames(locate([str(tmp_path)])), locate([str(tmp_path / "*")])):
        for item in found:
            assert isinstance(item, Failure)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://a.b/cam.m3u8", "video"),
        ("https://a.b/live/index.M3U8?session=3", "video"),
        ("http://me:pa#word@a.b/cam.m3u8", "video"),
        ("http://me:pa#word@a.b/a.mjpg", "live"),
        ("rtsps://me:pa/word@a.b/x", "live"),
    ],
)
def test_playlists_and_passwords_with_signs(url: str, kind: str) -> None:
    assert locate([url]) == [MediaSource(url, kind)]


def test_a_linked_folder_is_entered_but_not_in_circles(tmp_path: Path) -> None:
    for folder in ("tree/one", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "p.png")
    (tmp_path / "tree" / "two").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tree" / "one" / "up").symlink_to(tmp_path / "tree")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "tree" / "one")
    found = locate([str(tmp_path / "tree")], recursive=True)
    assert [one.name for one in found] == [str(tmp_path / "tree" / folder / "p.png") for folder in ("one", "two")]
