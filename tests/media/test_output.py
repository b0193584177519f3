from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.errors import SqueezeDetError, UsageError
from squeezedet.media.output import (
    UniqueStems,
    check_file,
    growing_file,
    make_folder,
    stem_of,
    text_file,
    whole_file,
)


def test_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with text_file(path) as file:
        file.write("one\ntwo\n")
        assert not path.exists()
    assert path.read_bytes() == b"one\ntwo\n"
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), text_file(path) as file:
        file.write("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    with text_file(link) as file:
        file.write("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    with text_file(pipe) as file:
        file.write("through")
    reader.join()
    assert received == ["through"]
    assert pipe.is_fifo()


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.txt", tmp_path):
        with (
            pytest.raises(SqueezeDetError, match="cannot be written"),
            whole_file(path) as temporary,
        ):
            temporary.touch()


def test_growing_file_is_there_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with growing_file(path) as file:
        assert path.exists()
        file.write("\udce9\n")
    assert path.read_bytes() == b"\\udce9\n"
    with pytest.raises(SqueezeDetError, match="cannot be written"), growing_file(tmp_path):
        pytest.fail("opened")


def test_file_that_can_be_named(tmp_path: Path) -> None:
    check_file(tmp_path / "a.json")
    for name, says in (("", "is a folder"), ("a.png", "of an image"), ("no/a.json", "no folder")):
        with pytest.raises(UsageError, match=says):
            check_file(tmp_path / name)


def test_name_that_is_no_text_survives(tmp_path: Path) -> None:
    with text_file(tmp_path / "a.txt") as file:
        file.write("\udce9 é")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "\\udce9 é"


def test_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert make_folder(tmp_path / "a" / "b").is_dir()


def test_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(UsageError, match="is a file"):
        make_folder(tmp_path / "a")
    with pytest.raises(UsageError, match="cannot be made"):
        make_folder(tmp_path / "a" / "b")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("photos/street.front.jpg", "street.front"),
        ("-", "stdin"),
        ("", "image"),
        ("http://example.org/a/street.jpg?w=100#x", "street"),
        ("http://example.org/gr%C3%BC%C3%9Fe.jpg", "grüße"),
        ("http://example.org/", "example.org"),
        ("http://example.org/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("http://example.org/%2e%2e/.png", "png"),
        ("http://example.org/a%00b%0Ac.png", "a_b_c"),
        ("http://example.org/" + "x" * 500 + ".png", "x" * 100),
    ],
)
def test_stem(name: str, stem: str) -> None:
    assert stem_of(name) == stem


def test_same_stem_gets_a_number() -> None:
    stems = UniqueStems()
    assert [stems(n) for n in ("1/a.jpg", "2/a.jpg", "a-2.jpg", "A.png", "b.png")] == [
        "a",
        "a-2",
        "a-2-2",
        "A-3",
        "b",
    ]


@given(st.lists(st.sampled_from(["a", "A", "a-2", "a-3", "A-2", "a-2-2", "b"])))
def test_stems_never_collide(names: list[str]) -> None:
    stems = UniqueStems()
    given_out = [stems(f"{name}.jpg").casefold() for name in names]
    assert len(set(given_out)) == len(names)


@given(st.text())
def test_stem_from_a_server_is_a_plain_file_name(path: str) -> None:
    stem = stem_of(f"http://example.org/{path}")
    assert stem not in ("", ".", "..")
    assert Path(stem).name == stem
    assert stem.isprintable()


def test_a_video_has_thousands_of_frames_of_one_name() -> None:
    stems = UniqueStems()
    given_out = {stems("drive.mp4") for _ in range(20_000)}
    assert len(given_out) == 20_000
    assert "drive-20000" in given_out
