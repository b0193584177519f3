"""COCO's JSON, good and bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from squeezedet.data.dataset import read_dataset
from squeezedet.errors import DataError

from .folders import annotation, coco, coco_labels, picture, text


def test_labels(tmp_path: Path) -> None:
    more = [
        annotation(),
        annotation(category_id=3, iscrowd=1, bbox=[0, 0, 5.5, 7]),
        annotation(category_id=0, iscrowd=1),
    ]
    names = {3: "bus", 1: "car", 0: "DontCare", 90: "zebra"}
    dataset = read_dataset(coco(tmp_path, coco_labels(annotations=more, names=names)))
    assert dataset.types == ("DontCare", "car", "bus", "zebra")
    first, second = dataset.splits["all"]
    assert first.image == tmp_path / "images" / "a.jpg"
    assert first.objects.types == ("car", "bus", "DontCare")
    assert first.objects.xyxy.tolist() == [[10, 20, 50, 60], [0, 0, 5.5, 7], [10, 20, 50, 60]]
    assert first.objects.ignored.tolist() == [False, True, False]
    assert first.objects.truncated.tolist() == first.objects.occluded.tolist() == [0, 0, -1]
    assert len(second.objects) == 0  # an image without annotations is one without objects


def test_masks_are_noted(tmp_path: Path) -> None:
    some = [annotation(segmentation=[[1, 2, 3, 4, 5, 6]]), annotation(segmentation=[])]
    dataset = read_dataset(coco(tmp_path, coco_labels(annotations=some)))
    assert dataset.notes == ("annotations that say more than a box (masks, key points): 1",)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"category_id": 2}, "annotation 1: there is no category_id 2"),
        ({"category_id": [1]}, r"annotation 1: there is no category_id \[1\]"),
        ({"category_id": True}, "annotation 1: there is no category_id True"),
        ({"image_id": 9}, "annotation 1: there is no image_id 9"),
        ({"bbox": [1, 2, 3]}, "annotation 1: has no bbox"),
        ({"bbox": None}, "annotation 1: has no bbox"),
        ({"bbox": [1, float("nan"), 3, 4]}, "annotation 1: nan is not finite"),
        ({"bbox": [1, float("inf"), 3, 4]}, "annotation 1: inf is not finite"),
        ({"bbox": [1, 10**400, 3, 4]}, "annotation 1: a coordinate is beyond"),
        ({"bbox": [1, 1e300, 3, 4]}, "annotation 1: a coordinate is beyond"),
        ({"bbox": [1, "2", 3, 4]}, "annotation 1: '2' is not a number"),
        ({"bbox": [1, True, 3, 4]}, "annotation 1: True is not a number"),
        ({"bbox": [1, 2, -3, 4]}, "annotation 1: the box has a negative size, -3 x 4"),
    ],
)
def test_a_malformed_annotation_is_named(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    labels = coco_labels(annotations=[annotation(), annotation(**change)])
    coco(tmp_path, labels)
    with pytest.raises(DataError, match=r"labels\.json: " + complaint):
        read_dataset(tmp_path)
    lax = read_dataset(tmp_path, strict=False, max_skipped=1)
    assert [s.malformed for s in lax.skipped] == [True]
    assert len(lax.samples()[0].objects) == 1


def test_a_box_without_area_is_skipped(tmp_path: Path) -> None:
    coco(tmp_path, coco_labels(annotations=[annotation(), annotation(bbox=[1, 2, 0, 4])]))
    with pytest.raises(DataError, match="1 of 2 labels cannot be used, more than 1 %"):
        read_dataset(tmp_path)
    (skipped,) = read_dataset(tmp_path, max_skipped=0.5).skipped
    assert skipped.reason == "annotation 1: the box of car has no area"


def broken(part: str, **changes: object) -> dict[str, Any]:
    labels: dict[str, Any] = coco_labels()
    labels[part][1].update(changes)
    return labels


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        (b"\xff", "not text"),
        ("[]", "COCO labels hold the lists images, annotations, categories"),
        (coco_labels() | {"categories": {}}, "COCO labels hold the lists"),
        (coco_labels() | {"annotations": [7]}, "annotation 0: is no record"),
        (broken("images", id=10), "image 1 has the id 10 of another one"),
        (broken("images", id=None), "image 1 has no id"),
        (broken("images", file_name=""), "image 1 has no file_name"),
        (broken("images", file_name="a.jpg"), "two images have the same file_name"),
        (broken("categories", name=5), "category 1 has no name"),
        (broken("categories", id=1), "category 1 has the id 1 of another one"),
        (broken("images", file_name="../a.jpg"), r"file_name '\.\./a\.jpg' leads out of the folder"),
        (broken("images", file_name="x/../../a.jpg"), "leads out of the folder"),
        (broken("images", file_name="/etc/passwd"), "leads out of the folder"),
        (broken("images", file_name="C:\\c.jpg"), "leads out of the folder"),
        (broken("images", file_name="..\\a.jpg"), "leads out of the folder"),
        (broken("images", file_name="c.jpg"), r"there is no image 'c\.jpg' in .*images or beside"),
        (broken("images", file_name="c\0.jpg"), "there is no image"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, labels: object, complaint: str) -> None:
    coco(tmp_path)
    content = labels if isinstance(labels, str | bytes) else json.dumps(labels)
    file = text(tmp_path / "annotations" / "labels.json", content)
    with pytest.raises(DataError, match=rf"labels\.json: .*{complaint}"):
        read_dataset(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no COCO labels"):
        read_dataset(tmp_path, layout="coco")


def test_splits(tmp_path: Path) -> None:
    for split in ("train2017", "val2017"):
        picture(tmp_path / split / "x" / f"{split}.jpg")
        labels = coco_labels([f"x/{split}.jpg"])
        text(tmp_path / "annotations" / f"instances_{split}.json", json.dumps(labels))
    text(tmp_path / "annotations" / "captions_val2017.json", '{"images": [], "annotations": []}')
    dataset = read_dataset(tmp_path)
    assert {k: [s.id for s in v] for k, v in dataset.splits.items()} == {"train": ["train2017"], "val": ["val2017"]}


def test_splits_that_do_not_agree(tmp_path: Path) -> None:
    coco(tmp_path, coco_labels(), file="annotations/train.json")
    coco(tmp_path, coco_labels(names={1: "bus", 3: "car"}), file="annotations/val.json")
    with pytest.raises(DataError, match=r"val\.json: category 1 is 'bus' here and 'car' in anoth"):
        read_dataset(tmp_path)
    coco(tmp_path, coco_labels(), file="annotations/valid.json")
    with pytest.raises(DataError, match=r"val\.json and valid\.json are both split val"):
        read_dataset(tmp_path)


def test_two_categories_of_one_name_are_one_type(tmp_path: Path) -> None:
    some = [annotation(category_id=0), annotation(category_id=1)]
    labels = coco_labels(annotations=some, names={0: "car", 1: "car", 2: "bus"})
    dataset = read_dataset(coco(tmp_path, labels))
    assert dataset.types == ("car", "bus")
    assert dataset.samples()[0].objects.types == ("car", "car")
