"""KITTI result files: what is read, and what is said of bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from squeezedet.errors import DataError
from squeezedet.evaluation.kitti import read_results

LINE = "Car -1 -1 -10 100.25 100 200 160 -1 -1 -1 -1000 -1000 -1000 -10 0.875"


def test_files_are_read_in_the_order_of_the_ids(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text(LINE.replace("Car", "PEDESTRIAN") + "\n\n" + LINE)
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + LINE.encode() + b"\r\n")
    missing, b, a = read_results(tmp_path, ["none", "b", "a"])
    assert (len(missing), len(b), len(a)) == (0, 2, 1)
    assert [d.name for d in b] == ["pedestrian", "car"]
    assert (a[0].score, a[0].xyxy) == (0.875, (100.25, 100, 200, 160))


def test_the_folder_of_the_tool_is_found(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("")
    assert [len(d) for d in read_results(tmp_path, ["a"])] == [0]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (LINE.rsplit(" ", 2)[0], r"a\.txt:2: a result has 16 fields.* has 14"),
        (LINE + " 1", r"a\.txt:2: a result has 16 fields.* has 17"),
        (LINE.replace("0.875", "nan"), r"a\.txt:2: nan is not finite"),
        (LINE.replace("160", "inf"), r"a\.txt:2: inf is not finite"),
        (LINE.replace("160", "x160"), r"a\.txt:2: 'x160' is not a number"),
        (LINE.replace(" 200 ", " 90 "), r"a\.txt:2: the box .* x2 < x1"),
        (LINE.replace("Car", "Auto"), r"a\.txt:2: unknown class 'Auto'; known are car"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "a.txt").write_text(f"{LINE}\n{line}\n")
    with pytest.raises(DataError, match=sentence):
        read_results(tmp_path, ["a"])


def test_a_bad_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_results(tmp_path / "none", ["a"])
    with pytest.raises(DataError, match="no result files"):
        read_results(tmp_path, ["a"])
    (tmp_path / "c.txt").write_text("")
    with pytest.raises(DataError, match=r"c\.txt: detections for an image without labels \(1 of 1"):
        read_results(tmp_path, ["a"])
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not text"):
        read_results(tmp_path, ["c"])
