"""``squeezedet.evaluate``: every layout with a detector, result files by any name, what is said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import squeezedet
from squeezedet.detections import Detections
from squeezedet.errors import DataError, UsageError
from squeezedet.evaluation.evaluate import choose_split, evaluate
from squeezedet.runtime.detector import Detector

BOX = (40.0, 30.0, 120.0, 90.0)
SIZE = (200, 120)


@dataclass(frozen=True)
class Selection:
    score: float = 0.4


@dataclass(frozen=True)
class Card:
    name: str = "stand-in"
    selection: Selection = Selection()


class StandIn(Detector):
    """Finds one box of its first class in every image."""

    def __init__(self, names: Sequence[str] = ("car", "pedestrian", "cyclist")) -> None:
        self.found = Detections(np.array([BOX], np.float32), np.array([0.9], np.float32), np.array([0]), tuple(names))

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.found.names

    @property
    def card(self) -> Any:  # type: ignore[override]
        return Card()

    def detect(self, frame: Any, score: float | None = None) -> Detections:  # type: ignore[override]
        return self.found


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def yolo(root: Path, names: Sequence[str] = ("car", "bus"), splits: str = "train val test") -> Path:
    """A YOLO data set with a box of its first class in each image."""
    x1, y1, x2, y2 = BOX
    middle = ((x1 + x2) / 2 / SIZE[0], (y1 + y2) / 2 / SIZE[1])
    line = f"0 {middle[0]} {middle[1]} {(x2 - x1) / SIZE[0]} {(y2 - y1) / SIZE[1]}\n"
    config = "".join(f"{split}: images/{split}\n" for split in splits.split())
    text(root / "data.yaml", f"{config}names: [{', '.join(names)}]\n")
    for number, split in enumerate(splits.split(), start=1):
        for k in range(number):
            picture(root / "images" / split / f"{split}{k}.png")
            text(root / "labels" / split / f"{split}{k}.txt", line)
    return root / "data.yaml"


@pytest.fixture(autouse=True)
def _needs_coco() -> None:
    pytest.importorskip("faster_coco_eval")


def test_yolo_data_by_default_coco_on_the_test_split(tmp_path: Path) -> None:
    report = evaluate(StandIn(), yolo(tmp_path))
    assert report.result.to_dict()["protocol"] == "coco"
    assert report.result.to_dict()["counts"]["images"] == 3
    assert report.ap["car"] == pytest.approx(1.0) and report.ap["pedestrian"] is None
    assert report.mean_ap == pytest.approx(1.0)
    assert "COCO: 3 images, 3 objects" in report.text()
    assert any(line.split()[:3] == ["AP", "of", "car"] for line in report.text().splitlines())
    assert json.loads(json.dumps(report.to_dict()))["ap"]["car"] == pytest.approx(1.0)
    assert "<polyline" in report.write(tmp_path / "report").read_text()


@pytest.mark.parametrize("layout", ["kitti", "voc", "coco"])
def test_every_layout_is_read(tmp_path: Path, layout: Any) -> None:
    from squeezedet.data.convert import convert
    from squeezedet.data.dataset import read_dataset

    source = read_dataset(yolo(tmp_path / "yolo", names=("car", "pedestrian")))
    convert(source, tmp_path / layout, layout)
    report = evaluate(StandIn(), tmp_path / layout)
    assert report.result.to_dict()["protocol"] == ("kitti" if layout == "kitti" else "coco")
    assert report.result.to_dict()["counts"]["images"] == 3
    by_voc = evaluate(StandIn(), tmp_path / layout, protocol="voc", bootstrap=3)
    assert by_voc.ap["car"] == pytest.approx(1.0)
    assert by_voc.intervals and by_voc.intervals.bounds["map_area"] == (1.0, 1.0)


def test_training_images_must_be_asked_for(tmp_path: Path) -> None:
    assert choose_split(["train", "val", "test"], None, tmp_path) == "test"
    assert choose_split(["val", "train"], None, tmp_path) == "val"
    assert choose_split(["all"], None, tmp_path) == "all"
    assert choose_split(["train"], None, Path("instances_train.json")) == "train"
    data = yolo(tmp_path, splits="train")
    with pytest.raises(DataError, match="no split test or val; it has train"):
        evaluate(StandIn(), data)
    report = evaluate(StandIn(), data, split="train")
    assert any("1 of the 1 images of split 'train'" in note for note in report.notes)


def test_all_says_how_many_are_of_training(tmp_path: Path) -> None:
    report = evaluate(StandIn(), yolo(tmp_path), split="all")
    assert any("1 of the 6 images" in note for note in report.notes)


def test_classes_and_mapping(tmp_path: Path) -> None:
    data = yolo(tmp_path, names=("sedan", "bus"))
    with pytest.raises(DataError, match="none in common"):
        evaluate(StandIn(), data)
    report = evaluate(StandIn(), data, mapping={"sedan": "car"})
    assert report.ap["car"] == pytest.approx(1.0)
    only = evaluate(StandIn(), data, classes=["car"], mapping={"sedan": "car"})
    assert list(only.ap) == ["car"]
    with pytest.raises(UsageError, match="no class 'tram'"):
        evaluate(StandIn(), data, classes=["tram"])


def test_classes_of_ones_own_at_their_overlaps(tmp_path: Path) -> None:
    line = "{} 0.00 0 0 {} -1 -1 -1 -1000 -1000 -1000 0{}\n"
    for i in range(50):  # of a bus the lower 80 % are found
        rows = [("Bus", "0 0 100 100"), ("Rickshaw", "200 0 300 100"), ("Car", "400 0 500 100")]
        text(tmp_path / "labels" / f"{i}.txt", "".join(line.format(*row, "") for row in rows))
        found = [("bus", "0 20 100 100"), ("rickshaw", "200 0 300 100")]
        text(tmp_path / "found" / f"{i}.txt", "".join(line.format(*row, " 0.9") for row in found))
    sides = {"labels": tmp_path / "labels", "detections": tmp_path / "found"}
    for overlap, ap in ((0.7, 1.0), (0.9, 0.0)):
        report = evaluate(**sides, overlaps={"bus": overlap, "rickshaw": 0.5})
        assert report.result.to_dict()["protocol"] == "kitti"
        assert report.ap == pytest.approx({"bus": ap, "rickshaw": 1.0})
    with pytest.raises(UsageError, match="`overlaps` works with the protocol kitti"):
        evaluate(**sides, overlaps={"bus": 0.5}, protocol="coco")


@pytest.mark.parametrize(
    ("device", "engine", "wanted"),
    [
        ("auto", None, None),
        ("cpu", "openvino", "openvino"),
        ("cuda", None, "onnxruntime:cuda"),
        ("cuda:1", None, "onnxruntime:cuda:1"),
        ("mps", None, "onnxruntime:coreml"),
    ],
)
def test_the_device_chooses_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, engine: str | None, wanted: str | None
) -> None:
    asked = []
    monkeypatch.setattr("squeezedet.runtime.detector.load", lambda _, **options: asked.append(options) or StandIn())
    assert evaluate("street", yolo(tmp_path), device=device, engine=engine).ap["car"] == pytest.approx(1.0)
    assert asked[0]["engine"] == wanted


def test_a_type_that_is_no_class_is_said(tmp_path: Path) -> None:
    data = yolo(tmp_path, names=("car", "bus"))
    label = tmp_path / "labels" / "test" / "test0.txt"
    label.write_text(label.read_text() + "1 0.5 0.5 0.1 0.1\n")
    report = evaluate(StandIn(), data)
    assert any(note.startswith("'bus' is no class of the model") for note in report.notes)


def test_python_has_the_verb() -> None:
    assert squeezedet.evaluate is evaluate


# ------------------------------------------------------------ COCO's result files


def coco_labels(root: Path, files: Sequence[str], categories: dict[str, int], ids: Any) -> Path:
    bbox = [BOX[0], BOX[1], BOX[2] - BOX[0], BOX[3] - BOX[1]]
    images = [{"id": i, "file_name": name} for i, name in zip(ids, files, strict=True)]
    boxes = [
        {"id": k, "image_id": image["id"], "category_id": categories["car"], "bbox": bbox}
        for k, image in enumerate(images, start=1)
    ]
    labels = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": i, "name": name} for name, i in categories.items()],
    }
    path = root / "labels.json"
    path.write_text(json.dumps(labels))
    return path


def results(root: Path, records: Sequence[dict[str, Any]]) -> Path:
    bbox = [BOX[0], BOX[1], BOX[2] - BOX[0], BOX[3] - BOX[1]]
    path = root / "results.json"
    path.write_text(json.dumps([{"bbox": bbox, "score": 0.9, "category_id": 1, **r} for r in records]))
    return path


@pytest.mark.parametrize(
    ("files", "ids", "named"),
    [
        (["a.jpg", "b.jpg"], [1, 2], [1, 2]),
        (["a.jpg", "b.jpg"], [1, 2], ["a", "b"]),
        (["a.jpg", "b.jpg"], [1, 2], ["a.jpg", "b.jpg"]),
        (["a.jpg", "b.jpg"], [1, 2], ["images/a.jpg", "./images/b.jpg"]),
        (["a.jpg", "b.jpg"], [1, 2], ["1", "2"]),
        (["train/a.jpg", "val/a.jpg"], [1, 2], ["train/a", "val/a"]),
        (["train\\a.jpg", "val\\a.jpg"], [7, 8], ["train/a.jpg", "val/a.jpg"]),
        (["000007.png", "000008.png"], [1, 2], [7, 8]),
        (["000007.png", "000008.png"], ["x", "y"], ["000007", "000008"]),
        (["a.b.jpg", "a.c.jpg"], [1, 2], ["a.b", "a.c"]),
    ],
)
def test_images_by_id_or_by_file(tmp_path: Path, files: Any, ids: Any, named: Any) -> None:
    labels = coco_labels(tmp_path, files, {"car": 1}, ids)
    found = results(tmp_path, [{"image_id": i} for i in named])
    assert evaluate(labels=labels, detections=found).mean_ap == pytest.approx(1.0)


def test_a_records_file_name_goes_first(tmp_path: Path) -> None:
    labels = coco_labels(tmp_path, ["000000.png", "000001.png"], {"car": 1}, [1, 0])
    records = [{"image_id": k, "file_name": f"somewhere/{k:06d}.png"} for k in (0, 1)]
    report = evaluate(labels=labels, detections=results(tmp_path, records[:1]))
    assert report.input.detections[0].counts() == {"car": 1}  # 000000.png has the id 1
    plain = [{"image_id": 0}]
    report = evaluate(labels=labels, detections=results(tmp_path, plain))
    assert report.input.detections[1].counts() == {"car": 1}
    assert any("taken for the labels' id" in note for note in report.notes)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"image_id": "c"}, "record 1: the labels have no image_id 'c'"),
        ({"image_id": "a"}, "may be any of 2 images"),
        ({"image_id": 2, "category_id": 5}, "no category_id 5; their categories are 1 car"),
        ({"image_id": [2]}, "no image_id"),
    ],
)
def test_records_without_a_partner_are_named(tmp_path: Path, record: Any, says: str) -> None:
    labels = coco_labels(tmp_path, ["x/a.jpg", "y/a.jpg"], {"car": 1}, [1, 2])
    with pytest.raises(DataError, match=says):
        evaluate(labels=labels, detections=results(tmp_path, [{"image_id": 1}, record]))


def test_categories_by_name(tmp_path: Path) -> None:
    labels = coco_labels(tmp_path, ["a.jpg"], {"pedestrian": 1, "car": 3}, [1])
    for record in ({"category_name": "Car"}, {"category_id": "car"}, {"category_id": 3}):
        found = results(tmp_path, [{"image_id": 1, **record}])
        report = evaluate(labels=labels, detections=found)
        assert report.result.to_dict()["numbers"]["AP"] == pytest.approx(1.0)
    both = [{"image_id": 1, "category_name": name} for name in ("car", "tram")]
    report = evaluate(labels=labels, detections=results(tmp_path, both))
    assert any("1 detections of 'tram'" in note for note in report.notes)
    with pytest.raises(DataError, match="none in common"):
        evaluate(labels=labels, detections=results(tmp_path, both[1:]))


def test_coco_results_of_any_layout(tmp_path: Path) -> None:
    data = yolo(tmp_path)
    records = [{"image_id": f"test{k}", "category_name": "car"} for k in range(3)]
    report = evaluate(data=data, detections=results(tmp_path, records))
    assert report.ap["car"] == pytest.approx(1.0)


def test_coco_data_keep_their_own_ids(tmp_path: Path) -> None:
    files = ["a.png", "b.png", "c.png"]
    for name in files:
        picture(tmp_path / "set" / "images" / "test" / name)
    labels = coco_labels(tmp_path, files, {"car": 1}, [2, 3, 1])
    dictionary = json.loads(labels.read_text())
    dictionary["annotations"] = dictionary["annotations"][:1]  # of a.png, which has the id 2
    text(tmp_path / "set/annotations/instances_test.json", json.dumps(dictionary))
    report = evaluate(data=tmp_path / "set", detections=results(tmp_path, [{"image_id": 2}]))
    assert report.ap["car"] == pytest.approx(1.0)


# ------------------------------------------------------------ VOC's result files


@pytest.mark.parametrize(
    "name",
    [
        "car.txt",
        "Car.txt",
        "comp4_det_test_car.txt",
        "comp3_det_val_car.txt",
        "det_test_car.txt",
        "comp4-1234_det_trainval_car.txt",
    ],
)
def test_voc_files_by_the_name_of_their_class(tmp_path: Path, name: str) -> None:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), BOX, strict=True)
    box = "".join(f"<{n}>{v:g}</{n}>" for n, v in corners)
    one = f"<object><name>car</name><bndbox>{box}</bndbox></object>"
    text(tmp_path / "Annotations" / "a.xml", f"<annotation>{one}</annotation>")
    line = f"a 0.9 {' '.join(f'{v:g}' for v in BOX)}\n"
    text(tmp_path / "found" / name, line)
    text(tmp_path / "found" / name.replace("ar", "ar_wash"), "")
    report = evaluate(labels=tmp_path, detections=tmp_path / "found")
    assert report.result.to_dict()["protocol"] == "voc"
    assert report.ap["car"] == report.mean_ap == pytest.approx(1.0)

    (tmp_path / "other").mkdir()
    text(tmp_path / "other" / "comp4_det_test_bus.txt", line)
    with pytest.raises(DataError, match="no file is called after a class of the labels"):
        evaluate(labels=tmp_path, detections=tmp_path / "other")


def test_an_ignored_object_counts_neither_way(tmp_path: Path) -> None:
    labels = coco_labels(tmp_path, ["a.jpg"], {"car": 1}, [1])
    dictionary = json.loads(labels.read_text())
    dictionary["annotations"][0]["iscrowd"] = 1
    labels.write_text(json.dumps(dictionary))
    found = results(tmp_path, [{"image_id": 1}])
    for protocol in ("coco", "voc", "kitti"):
        report = evaluate(labels=labels, detections=found, protocol=protocol)
        assert report.ap == {"car": None} and report.mean_ap is None
        assert any("no labelled object" in note for note in report.all_notes())
    assert replace(report, score=0.5).write(tmp_path / "report").exists()
