"""A file is written whole, or one sentence says why it is not."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from squeezedet.errors import DataError, ModelError, SqueezeDetError, UsageError
from squeezedet.files import (
    cache_folder,
    check_file,
    growing_file,
    make_folder,
    open_regular,
    read_regular,
    read_text,
    remove_partial,
    replacing,
    text_file,
    write_atomic,
)


def refused(path: Path) -> str:
    with pytest.raises(SqueezeDetError) as caught:
        write_atomic(path, "new")
    assert caught.value.exit_code == 1
    return str(caught.value)


def test_text_with_and_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content in (b"\xc3\xa9\n", b"\xef\xbb\xbf\xc3\xa9\n"):
        path.write_bytes(content)
        assert read_text(path) == "é\n"


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(DataError, match=r"a\.txt: no such file"):
        read_text(path, "list")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"a\.txt: the file is not text \(UTF-8\)"):
        read_text(path)


def test_bytes_and_text(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    write_atomic(path, "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n"
    write_atomic(path, b"\xff")
    assert path.read_bytes() == b"\xff"
    assert list(path.parent.iterdir()) == [path]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_atomic(tmp_path / "whole", "")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_parent_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    path = tmp_path / "file" / "a.txt"
    assert refused(path).startswith(f"{path}: cannot be written (")
    assert (tmp_path / "file").read_text() == "old"


def test_target_is_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    assert refused(path).startswith(f"{path}: cannot be written (")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "Permission denied" in refused(tmp_path / "a.txt")
    finally:
        tmp_path.chmod(0o700)


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    assert "too long" in refused(tmp_path / ("a" * 300))


def test_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(SqueezeDetError, match="No space left"), replacing(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, BrokenPipeError, ZeroDivisionError])
def test_other_errors_pass_and_leave_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


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
        with pytest.raises(SqueezeDetError, match="cannot be written"), replacing(path) as temporary:
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_only_regular_files_are_opened_and_nothing_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "behind").symlink_to(tmp_path / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    for name in ("pipe", "endless", "behind", "socket"):
        with pytest.raises(DataError, match=rf"{name}: "):
            read_regular(tmp_path / name, 1000)
        with pytest.raises(DataError, match=rf"{name}: "):
            read_text(tmp_path / name)
    listening.close()
    with pytest.raises(ModelError, match="is a folder, not a model"):
        open_regular(tmp_path, what="model", error=ModelError)
    with pytest.raises(DataError, match="null"):
        open_regular(Path("a\0b"))


def test_size_is_limited_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    for read in (lambda: read_regular(path, 1_000_000), lambda: read_text(path)):
        with pytest.raises(DataError, match=r"large: more than \d+ MB, the limit"):
            read()
    (tmp_path / "small").write_bytes(b"12")
    assert read_regular(tmp_path / "small", 2) == b"12"
    with open_regular(tmp_path / "small", 2) as file:
        assert file.read() == b"12"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_a_file_that_hides_its_size_is_limited_too() -> None:
    with pytest.raises(DataError, match="the limit"):
        read_regular(Path("/proc/self/status"), 10)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no /dev/fd here")
def test_a_pipe_of_the_user_is_read() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"labels")
    os.close(writing)
    try:
        assert read_text(Path(f"/dev/fd/{reading}")) == "labels"
    finally:
        os.close(reading)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_is_noticed() -> None:
    with pytest.raises(SqueezeDetError, match="No space left"):
        write_atomic(Path("/dev/full"), b"content")
    with pytest.raises(SqueezeDetError, match="No space left"), text_file(Path("/dev/full")) as f:
        f.write("content")


def test_permissions_of_what_is_replaced_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch(0o600)
    write_atomic(path, "new")
    assert path.stat().st_mode & 0o777 == 0o600


KILLED = """
import os, signal, sys
from pathlib import Path
from squeezedet.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_what_a_killed_process_left_is_removed_by_exact_name(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=60)
    (left,) = tmp_path.iterdir()
    keep = [tmp_path / n for n in (".a.template.json", ".b.1-0.partial.json", ".a.json", ".env")]
    for file in keep:
        file.touch()
    with replacing(path) as temporary:
        remove_partial(path)  # of a process that runs: it stays
        assert temporary.exists()
        assert not left.exists()
    assert sorted(tmp_path.iterdir()) == sorted([*keep, path])


def test_no_home_no_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    assert cache_folder() is None


@pytest.mark.parametrize("value", ["", "cache", "./cache"])
def test_a_relative_cache_folder_does_not_count(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("LOCALAPPDATA", value)
    folder = cache_folder()
    assert folder is not None
    assert folder.is_relative_to(Path.home())
