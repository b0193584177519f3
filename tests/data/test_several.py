"""Several data sets become one: classes, splits, weights, and images that they share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from squeezedet.data.dataset import class_map_for, dataset_warnings, read_datasets
from squeezedet.errors import DataError, UsageError

from .folders import annotation, coco_labels, picture, text, yolo


def colored(path: Path, shade: int) -> Path:
    """A picture of its own bytes."""
    return picture(path, (200 + shade, 100))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """YOLO and COCO data of car and bus, with train and val."""
    one, two = yolo(tmp_path / "one"), tmp_path / "two"
    for k, split in enumerate(("train", "val")):
        colored(one / "images" / split / f"{'ab'[k]}.jpg", 1 + k)
        colored(two / split / "a.jpg", 3 + k)
        labels = coco_labels(["a.jpg"], names={1: "Car", 3: "bus"})
        text(two / split / "_annotations.coco.json", json.dumps(labels))
    return one, two


def test_two_layouts_become_one_set(pair: tuple[Path, Path]) -> None:
    data = read_datasets(pair)
    assert {name: len(s) for name, s in data.splits.items()} == {"train": 2, "val": 2}
    assert class_map_for(data, classes=["car", "bus"]).names == ("car", "bus")
    assert data.types == ("car", "bus")
    ids = [s.id for s in data.samples()]
    assert len(set(ids)) == len(ids) == 4
    assert "a" in {s.id[-1] for s in data.split("train")}


def test_weights_say_how_often_an_image_is_seen(pair: tuple[Path, Path]) -> None:
    one, _ = pair
    data = read_datasets(pair, weights=[2, 1])
    seen = [s.image.is_relative_to(one) for s in data.weighted("train")]
    assert sorted(seen) == [False, True, True]
    assert len(data.split("train")) == 2
    alike = read_datasets(pair)
    assert alike.weighted("train") == alike.split("train")
    assert len(read_datasets(pair, weights=[1, 2.5]).weighted("train")) == 3


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_is_above_zero(pair: tuple[Path, Path], weight: float) -> None:
    with pytest.raises(UsageError, match=r"weights: .* a weight is above 0"):
        read_datasets(pair, weights=[1, weight])


def test_calls_that_make_no_sense(pair: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="1 for 2 data sets"):
        read_datasets(pair, weights=[1])
    with pytest.raises(UsageError, match="name each set once"):
        read_datasets([pair[0], pair[0]])
    with pytest.raises(UsageError, match="none given"):
        read_datasets([])


def test_different_classes_are_an_error_until_the_user_decides(tmp_path: Path) -> None:
    one = yolo(tmp_path / "one")
    two = yolo(tmp_path / "two", yaml="train: images/train\nval: images/val\nnames: [person]\n")
    for k, image in enumerate(two.rglob("*.jpg")):
        colored(image, 5 + k)
    data = read_datasets([one, two])
    with pytest.raises(DataError, match=r"different classes \(only in .*one: car; .*two: person\)"):
        class_map_for(data)
    class_map = class_map_for(data, classes=["car", "person"])
    warnings = dataset_warnings(data, class_map)
    assert f"{one} labels no 'person'" in " ".join(warnings)
    assert f"{two} labels no 'car'" in " ".join(warnings)
    assert class_map_for(data, mapping={"person": "car"}).names == ("car",)


def test_a_class_that_a_data_file_names_needs_no_object(pair: tuple[Path, Path]) -> None:
    one, two = pair
    text(one / "labels" / "val" / "b.txt", "1 0.5 0.5 0.2 0.2\n")
    data = read_datasets([one, two])
    assert class_map_for(data).names == ("car", "bus")
    assert dataset_warnings(data, class_map_for(data)) == ()


def test_a_split_that_one_lacks(pair: tuple[Path, Path]) -> None:
    one, two = pair
    shutil.rmtree(two / "val")
    data = read_datasets(pair)
    assert any("has no split val" in note for note in data.notes)
    assert len(data.split("val")) == 1
    shutil.rmtree(one / "images" / "train")
    text(one / "data.yaml", "val: images/val\nnames: [car, bus]\n")
    with pytest.raises(DataError, match=r"one: no split 'train'; it has val"):
        read_datasets(pair).split("train")


def test_an_image_in_both(pair: tuple[Path, Path]) -> None:
    one, two = pair
    shutil.copy(one / "images" / "train" / "a.jpg", two / "train" / "a.jpg")
    with pytest.raises(DataError, match=r"is the image .* with different labels; remove one"):
        read_datasets(pair)
    box = annotation(bbox=[0.25 * 201 - 10.05, 40, 20.1, 20])
    labels = coco_labels(["a.jpg"], [box], {1: "Car", 3: "bus"})
    text(two / "train" / "_annotations.coco.json", json.dumps(labels))
    data = read_datasets(pair)
    assert len(data.split("train")) == 1
    assert any("images that two data sets share" in note for note in data.notes)
