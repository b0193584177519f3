"""KITTI folders and labels, good and bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from squeezedet.data.dataset import read_split
from squeezedet.data.kitti import format_labels, read_labels
from squeezedet.data.sample import KITTI_DEFAULT, KITTI_PAPER, Objects
from squeezedet.errors import DataError

CAR = "Car 0.12 1 1.55 614.24 181.78 727.31 284.77 1.57 1.73 4.15 1.00 1.75 13.22 1.62"
REGION = "DontCare -1 -1 -10 5.00 229.89 214.12 367.61 -1 -1 -1 -1000 -1000 -1000 -10"


def write(folder: Path, text: str | bytes, name: str = "000001") -> Path:
    path = folder / f"{name}.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    objects = read_labels(write(tmp_path, f"{CAR}\n{REGION}\n"))
    assert objects.types == ("Car", "DontCare")
    assert objects.xyxy[0].tolist() == pytest.approx([614.24, 181.78, 727.31, 284.77])
    assert objects.truncated.tolist() == pytest.approx([0.12, -1])
    assert objects.occluded.tolist() == [1, -1]


@pytest.mark.parametrize("text", [CAR, f"{CAR}\r\n", f"\ufeff{CAR}\n", f"\n\n{CAR}\n  \n", CAR.replace(" ", "\t")])
def test_harmless_variants(tmp_path: Path, text: str) -> None:
    assert read_labels(write(tmp_path, text)).types == ("Car",)


def test_an_empty_file_has_no_objects(tmp_path: Path) -> None:
    objects = read_labels(write(tmp_path, ""))
    assert len(objects) == 0
    assert objects.xyxy.shape == (0, 4)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (CAR + " 0.9", "has 16"),
        (CAR.rsplit(" ", 1)[0], "has 14"),
        (CAR.replace("614.24", "left"), "'left' is not a number"),
        (CAR.replace("614.24", "nan"), "not finite"),
        (CAR.replace("614.24", "inf"), "not finite"),
        (CAR.replace("614.24", "1_0"), "'1_0' is not a number"),
        (CAR.replace("727.31", "1e300"), "1e300 is beyond"),
        (CAR.replace("614.24", "-1000001"), "-1000001 is beyond"),
        (CAR.replace("0.12 1 ", "0.12 1.7 "), "occluded is 1.7"),
        (CAR.replace("614.24", "800"), "x2 < x1"),
        (CAR.replace("181.78", "300"), "y2 < y1"),
    ],
)
def test_a_malformed_line_names_file_and_line(tmp_path: Path, line: str, complaint: str) -> None:
    path = write(tmp_path, f"{CAR}\n\n{line}\n")
    with pytest.raises(DataError, match=complaint) as caught:
        read_labels(path)
    assert f"{path}:3" in str(caught.value)


def test_what_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not text"):
        read_labels(write(tmp_path, b"\xff\xfe\x00Car"))
    with pytest.raises(DataError, match="no such file"):
        read_labels(tmp_path / "missing.txt")


names = st.sampled_from(["Car", "Van", "Pedestrian", "Person_sitting", "Cyclist", "DontCare"])
coordinate = st.integers(0, 200_000).map(lambda n: n / 100)
rows = st.tuples(names, coordinate, coordinate, coordinate, coordinate, st.integers(0, 3))


@given(st.lists(rows, max_size=6))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, float, float, float, float, int]]
) -> None:
    xyxy = [(min(a, c), min(b, d), max(a, c), max(b, d)) for _, a, b, c, d, _ in table]
    objects = Objects(
        tuple(row[0] for row in table),
        np.array(xyxy, np.float32).reshape(-1, 4),
        np.full(len(table), 0.25, np.float32),
        np.array([row[5] for row in table], np.int64),
    )
    again = read_labels(write(tmp_path_factory.mktemp("labels"), format_labels(objects)))
    assert again.types == objects.types
    assert np.abs(again.xyxy - objects.xyxy).max(initial=0) <= 0.0051
    assert again.occluded.tolist() == objects.occluded.tolist()


# ------------------------------------------------------------------- folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("image_2", "label_2"):
        (tmp_path / folder).mkdir()
    for name, suffix in (("a", "png"), ("b", "jpg"), ("c", "png")):
        Image.new("RGB", (8, 8)).save(tmp_path / "image_2" / f"{name}.{suffix}")
        write(tmp_path / "label_2", f"{CAR}\n", name)
    (tmp_path / "manifest.tsv").write_text("id\tsplit\na\ttrain\nb\tval\nc\ttrain\n")
    return tmp_path


def ids(root: Path, split: str) -> list[str]:
    return [sample.id for sample in read_split(root, split)]


def test_splits(root: Path) -> None:
    assert ids(root, "all") == ["a", "c", "b"]
    assert ids(root, "train") == ["a", "c"]
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / "night.txt").write_text("c\nb\n")
    assert ids(root, "night") == ["c", "b"]
    (root / "val.txt").write_text("a\n")  # a list goes before the manifest
    assert ids(root, "val") == ["a"]
    assert ids(root, str(root / "val.txt")) == ["a"]
    assert read_split(root, "night")[1].image.name == "b.jpg"


def test_bad_folders(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it has train, val"):
        read_split(root, "test")
    (root / "image_2" / "c.png").unlink()
    with pytest.raises(DataError, match=r"image_2.c: a split lists it, there is no such image"):
        read_split(root, "train")
    (root / "manifest.tsv").write_text("name\tpart\na\ttrain\n")
    with pytest.raises(DataError, match="columns id and split"):
        read_split(root, "train")
    (root / "manifest.tsv").unlink()
    (root / "label_2" / "c.txt").unlink()
    with pytest.raises(DataError, match="no split 'train'; it has all"):
        read_split(root, "train")
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        read_split(tmp_path / "nowhere")


def test_two_images_of_one_id(root: Path) -> None:
    Image.new("RGB", (8, 8)).save(root / "image_2" / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg and a\.png"):
        read_split(root)


def test_damaged_splits(root: Path) -> None:
    (root / "manifest.tsv").write_text("id\tsplit\na\ttrain\nb\n")
    with pytest.raises(DataError, match=r"manifest\.tsv:3: the row is too short"):
        read_split(root, "night")
    (root / "manifest.tsv").write_bytes(b"id\tsplit\n\xff\ttrain\n")
    with pytest.raises(DataError, match=r"manifest\.tsv: the file is not text"):
        read_split(root, "train")


def test_class_maps() -> None:
    types = ("Car", "car", "Van", "Person_sitting", "DontCare", "Cyclist", "Truck")
    assert KITTI_PAPER.class_ids(types).tolist() == [0, 0, -1, -1, -1, 2, -1]
    assert not KITTI_PAPER.is_region(types).any()
    assert KITTI_DEFAULT.class_ids(types).tolist() == [0, 0, 0, -1, -1, 2, -1]
    assert KITTI_DEFAULT.is_region(types).tolist() == [False, False, False, True, True, False, False]


@pytest.mark.shared
def test_the_real_roads(shared: Path) -> None:
    train, val = (read_split(shared / "data" / "roads", split) for split in ("train", "val"))
    assert (len(train), len(val)) == (732, 50)
    types = [t for sample in train for t in sample.objects.types]
    assert [types.count(t) for t in ("Car", "Pedestrian", "Cyclist")] == [2656, 365, 136]
