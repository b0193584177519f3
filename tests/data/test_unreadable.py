"""A folder that may not be read is said, never passed over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from squeezedet.data.dataset import read_dataset
from squeezedet.errors import DataError

from .folders import CAR, coco, picture, text, yolo


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    locked = yolo(tmp_path) / "images" / "train" / "locked"
    picture(locked / "c.jpg")
    locked.chmod(0)
    with pytest.raises(DataError, match="locked: cannot be read: permission denied"):
        read_dataset(tmp_path)
    locked.chmod(0o755)


def test_folders_without_end(tmp_path: Path) -> None:
    deep = tmp_path / "images"
    for _ in range(40):
        deep /= "x"
    picture(deep / "c.jpg")
    text(tmp_path / "labels" / "c.txt", CAR)
    with pytest.raises(DataError, match="more than 32 folders deep"):
        read_dataset(tmp_path)


def test_a_pipe_in_place_of_labels(tmp_path: Path) -> None:
    coco(tmp_path)
    (tmp_path / "annotations" / "labels.json").unlink()
    os.mkfifo(tmp_path / "annotations" / "labels.json")
    with pytest.raises(DataError, match="no data set"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match=r"labels\.json"):
        read_dataset(tmp_path / "annotations" / "labels.json")
