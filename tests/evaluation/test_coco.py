"""The COCO protocol against pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from squeezedet.data.kitti import read_labels as read_kitti
from squeezedet.errors import DataError
from squeezedet.evaluation import coco
from squeezedet.evaluation.evaluate import read_only_labels
from squeezedet.evaluation.kitti import read_results

from .scenes import NAMES, found, labels

CAR = (100.0, 100.0, 200.0, 160.0)


def reference(truth: coco.Record, records: list[coco.Record]) -> list[float]:
    """The twelve numbers of the original tool; -1 for none."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        original = COCO()
        original.dataset = json.loads(json.dumps(truth))
        original.createIndex()
        judge = COCOeval(original, original.loadRes(json.loads(json.dumps(records))), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats.tolist()


@pytest.mark.shared
def test_the_twelve_numbers_are_the_original_tools(shared: Path) -> None:
    folder = shared / "vectors" / "medium_3dec"
    ids = (folder / "ids.txt").read_text().split()
    objects = [read_kitti(folder / "label_2" / f"{i}.txt") for i in ids]
    truth = coco.labels_of(objects, ids, NAMES)
    records = coco.records_of(read_results(folder / "data", ids), NAMES)
    result = coco.evaluate(truth, records)
    assert len(result.numbers) == 12
    ours = [-1 if v is None else v for v in result.numbers.values()]
    np.testing.assert_allclose(ours, reference(truth, records), atol=1e-9)
    assert result.counts["ignored"] > 0
    per_class = [r["AP"] for r in result.results.values()]
    assert np.mean(per_class) == pytest.approx(result.numbers["AP"])


def test_a_perfect_detector_and_one_that_finds_nothing() -> None:
    truth = coco.labels_of([labels(("Car", CAR), ("DontCare", (300, 0, 400, 90)))], ["a"], NAMES)
    in_region = ("car", 0.9, (310, 10, 390, 80))
    result = coco.evaluate(truth, coco.records_of([found(in_region, ("car", 0.5, CAR))], NAMES))
    assert result.numbers["AP"] == pytest.approx(1)
    assert result.numbers["APs"] is None
    assert result.results["cyclist"] is None
    nothing = coco.evaluate(truth, [])
    assert nothing.numbers["AP"] == 0
    assert nothing.results == dict.fromkeys(NAMES)


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    truth = coco.labels_of([labels(("Car", CAR))], ["a"], NAMES)
    good = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}
    for content, sentence in [
        ([good | {"image_id": 2}], "record 0: the labels have no image_id 2"),
        ([good, good | {"category_id": 9}], "record 1: the labels have no category_id 9"),
        ([good | {"bbox": [0, 0, -1, 9]}], "negative size"),
        ([good | {"score": None}], "no finite number"),
        ([{"image_id": 1}], "record 0: has no category_id"),
        ({}, "a list of records"),
    ]:
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=sentence):
            coco.read_records(path, truth)
    path.write_text("{")
    with pytest.raises(DataError, match="no JSON"):
        coco.read_labels(path)
    broken = json.loads(json.dumps(truth))
    broken["annotations"][0]["image_id"] = 5
    path.write_text(json.dumps(broken))
    with pytest.raises(DataError, match="annotation 0: there is no image_id 5"):
        coco.read_labels(path)
    path.write_text("{}")
    with pytest.raises(DataError, match="COCO labels hold the lists"):
        coco.read_labels(path)
    with pytest.raises(DataError, match="no such file"):
        coco.read_labels(tmp_path / "none.json")
    path.write_text(json.dumps(truth))
    assert coco.read_labels(path) == truth


def test_an_image_without_a_file_name_is_called_by_its_id(tmp_path: Path) -> None:
    truth = coco.labels_of([labels(("Car", CAR)), labels()], ["a.jpg", "b.jpg"], NAMES)
    for image in truth["images"]:
        del image["file_name"]
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(truth))
    assert read_only_labels(path).ids == ["1", "2"]


@pytest.mark.parametrize("ids", [(1, 2), (0, 1), (1, 1), (-1, -2), (2, None), ("a", "b")])
def test_ids_of_annotations_change_nothing(tmp_path: Path, ids: tuple[int | str | None, ...]) -> None:
    boxes = ([10, 10, 50, 40], [100, 10, 50, 40])
    annotations = [
        {"image_id": 1, "category_id": 1, "bbox": box} | ({} if number is None else {"id": number})
        for box, number in zip(boxes, ids, strict=True)
    ]
    path = tmp_path / "labels.json"
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "car"}]}
    path.write_text(json.dumps(content | {"annotations": annotations}))
    records = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9} for box in boxes]
    assert coco.evaluate(coco.read_labels(path), records).numbers["AP"] == pytest.approx(1)
