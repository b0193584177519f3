"""YOLO's data file and labels, good and bad."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from squeezedet.data.dataset import read_dataset
from squeezedet.data.yolo import label_path
from squeezedet.errors import DataError

from .folders import HEIGHT, WIDTH, YAML, picture, text, yolo


def test_labels(tmp_path: Path) -> None:
    dataset = read_dataset(yolo(tmp_path, "0 0.5 0.5 1 1\n\n1 .25 0.5 0.1 0.2\r\n"))
    assert dataset.types == ("car", "bus")
    assert [s.id for s in dataset.splits["train"]] == ["a"]
    objects = dataset.samples()[0].objects
    assert objects.types == ("car", "bus")
    assert objects.xyxy[0].tolist() == [0, 0, WIDTH, HEIGHT]
    assert objects.xyxy[1].tolist() == pytest.approx([40, 40, 60, 60])
    assert not objects.ignored.any()


def test_shares_are_of_the_upright_image(tmp_path: Path) -> None:
    yolo(tmp_path, "0 0.5 0.5 1 1\n")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "train" / "a.jpg", exif=exif)
    objects = read_dataset(tmp_path).splits["train"][0].objects
    assert objects.xyxy.tolist() == [[0, 0, HEIGHT, WIDTH]]


def test_a_polygon_is_its_box(tmp_path: Path) -> None:
    dataset = read_dataset(yolo(tmp_path, "0 0.1 0.2 0.3 0.2 0.2 0.4\n"))
    assert dataset.samples()[0].objects.xyxy[0].tolist() == pytest.approx([20, 20, 60, 40])
    assert dataset.notes == ("polygons, read as the boxes around them: 2",)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("2 0.5 0.5 0.1 0.1", "class 2 has no name; there are 2, from 0"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 has no name"),
        ("0.5 0.5 0.5 0.1 0.1", r"class 0\.5 has no name"),
        ("car 0.5 0.5 0.1 0.1", "'car' is not a number"),
        ("0 nan 0.5 0.1 0.1", "nan is not finite"),
        ("0 0.5 inf 0.1 0.1", "inf is not finite"),
        ("0 0.5 0.5 0.1", "a label has 5 fields, this line has 4"),
        ("0 0.5 0.5 0.1 0.1 0.9", "a label has 5 fields, this line has 6"),
        ("0 512 300 40 50", "512 is no share of the image"),
        ("0 0.5 0.5 -0.005 0.1", "the box has a negative size"),
    ],
)
def test_a_malformed_line_names_file_and_line(tmp_path: Path, line: str, complaint: str) -> None:
    yolo(tmp_path)
    label = text(tmp_path / "labels" / "val" / "b.txt", f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(DataError, match=complaint) as caught:
        read_dataset(tmp_path)
    assert str(caught.value).startswith(f"{label}:2: ")
    lax = read_dataset(tmp_path, strict=False, max_skipped=1)
    assert [(s.file, s.line, s.malformed) for s in lax.skipped] == [(label, 2, True)]
    assert len(lax.splits["val"][0].objects) == 1


def test_a_box_without_area_is_skipped(tmp_path: Path) -> None:
    yolo(tmp_path)
    text(tmp_path / "labels" / "val" / "b.txt", "0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0 0.1\n")
    (skipped,) = read_dataset(tmp_path, max_skipped=0.5).skipped
    assert (skipped.file.name, skipped.line, skipped.reason) == ("b.txt", 2, "the box has no area")


def test_images_without_labels_have_no_objects(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "labels" / "val" / "b.txt").unlink()
    dataset = read_dataset(tmp_path)
    assert len(dataset.splits["val"][0].objects) == 0
    assert dataset.notes == ("images without label file, read as without objects: 1",)
    (tmp_path / "labels" / "train" / "a.txt").unlink()
    with pytest.raises(DataError, match=r"not one of 2 images .* would be .*labels/train/a\.txt"):
        read_dataset(tmp_path)


def test_labels_without_images_are_skipped(tmp_path: Path) -> None:
    yolo(tmp_path)
    lonely = text(tmp_path / "labels" / "train" / "c.txt", "0 0.5 0.5 0.1 0.1\n")
    (skipped,) = read_dataset(tmp_path, max_skipped=0.5).skipped
    assert skipped.file == lonely
    assert "there is no image of this label" in skipped.reason


def test_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    yolo(tmp_path)
    text(tmp_path / "images" / "val" / "b.jpg", "no image")
    with pytest.raises(DataError, match=r"b\.jpg: not an image"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("d/images/train/a.jpg", "d/labels/train/a.txt"),
        ("images/d/images/a.b.jpg", "images/d/labels/a.b.txt"),
        ("d/a.jpg", "d/a.txt"),
        ("d/images.jpg", "d/images.txt"),
    ],
)
def test_where_the_label_of_an_image_is(image: str, label: str) -> None:
    assert label_path(Path(image)) == Path(label)


def test_lists_of_images(tmp_path: Path) -> None:
    yolo(tmp_path, yaml="train: train.txt\nnight: night.txt\nval: [images/val]\nnames: [car, bus]\n")
    elsewhere = picture(tmp_path / "images" / "val" / "b.jpg")
    text(tmp_path / "train.txt", f"./images/train/a.jpg\n\n{elsewhere}\n")
    text(tmp_path / "night.txt", "images/val/b.jpg\n")
    splits = read_dataset(tmp_path).splits
    assert {k: [s.id for s in v] for k, v in splits.items()} == {"train": ["a", "b"], "night": ["b"], "val": ["b"]}
    text(tmp_path / "night.txt", "images/val/b.jpg\nimages/val/c.jpg\n")
    with pytest.raises(DataError, match=r"night\.txt:2: there is no image images/val/c\.jpg"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match=r"needs a data\.yaml or classes\.txt beside it"):
        read_dataset(text(tmp_path / "x" / "y" / "list.txt", "a.jpg\n"))


@pytest.mark.parametrize(
    "names",
    [
        "names: {0: car, 1: bus}",
        "names:\n  0: car\n  1: bus",
        "names:\n- car\n- bus",
        "names:\n  - 'car'\n  - \"bus\"",
        "names: ['car',\n  'bus']  # two",
        "nc: 2\nnames: [car, bus]",
    ],
)
def test_ways_to_name_the_classes(tmp_path: Path, names: str) -> None:
    yolo(tmp_path, yaml=f"path: .\ntrain: images/train\nval: images/val\n{names}\n")
    assert read_dataset(tmp_path).types == ("car", "bus")


@pytest.mark.parametrize(
    ("yaml", "complaint"),
    [
        ("train: images/train\n", "names is no list"),
        ("train: images/train\nnames: []\n", "names is no list"),
        ("train: images/train\nnames: [car, '']\n", "a class has no name"),
        ("train: images/train\nnames: [car, car]\n", "two classes have the name 'car'"),
        ("train: images/train\nnames: {0: car, 2: bus}\n", "the names have the numbers 0, 2"),
        ("train: images/train\nnc: 3\nnames: [car, bus]\n", "nc is 3, but there are 2 names"),
        ("train: images/x\nnames: [car]\n", "train: no such folder or list"),
        ("names: [car]\n", "names no split"),
        ("train: [[a]]\nnames: [car]\n", "train is no folder of images"),
        ("train: [a\nnames: [car]\n", r":2: no YAML"),
        (f"{YAML}names: [car]\n", r":4: no YAML: 'names' is there twice"),
        (f"<<: {{nc: 2}}\n{YAML}", r":1: no YAML: a merge \(<<\) is not read"),
    ],
)
def test_a_broken_data_file_is_named(tmp_path: Path, yaml: str, complaint: str) -> None:
    yolo(tmp_path, yaml=yaml)
    with pytest.raises(DataError, match=rf"data\.yaml.*{complaint}"):
        read_dataset(tmp_path / "data.yaml")


def test_a_path_that_is_not_there_is_noted(tmp_path: Path) -> None:
    yolo(tmp_path, yaml=f"path: ../datasets/own\n{YAML}")
    (note,) = read_dataset(tmp_path).notes
    assert "there is no folder '../datasets/own'; the file's own folder is taken" in note


def test_a_key_without_a_value_is_no_split(tmp_path: Path) -> None:
    yolo(tmp_path, yaml=f"{YAML}test: # none yet\n")
    assert set(read_dataset(tmp_path).splits) == {"train", "val"}


def test_two_data_files(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "a.yaml")
    text(tmp_path / "b.yml", YAML)
    text(tmp_path / "compose.yaml", "services: {}\n")
    with pytest.raises(DataError, match=r"a\.yaml, b\.yml: give the one that is meant"):
        read_dataset(tmp_path)
    text(tmp_path / "data.yaml", YAML)
    assert len(read_dataset(tmp_path).samples()) == 2
