"""A file is written whole, or one sentence says why it is not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from squeezedet.errors import DataError, SqueezeDetError
from squeezedet.files import read_text, replacing, write_atomic


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
    with pytest.raises(DataError, match=r"a\.txt: cannot read the list: No such file"):
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
