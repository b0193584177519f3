from __future__ import annotations

import csv
import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from squeezedet.detections import Detections
from squeezedet.errors import DataError, SqueezeDetError, UsageError
from squeezedet.media.sinks import FOLDER_FORMATS, TEXT_FORMATS, CocoIds, RecordOptions, record_format, record_sink

NAMES = ("car", "pedestrian")
TWO = Detections(
    np.array([[1, 2, 30.126, 40], [5, 6, 7, 8]], np.float32),
    np.array([0.75, 0.5], np.float32),
    np.array([1, 0]),
    NAMES,
    image="a/000042.png",
    width=100,
    height=50,
    timing_ms={"load": 1.0, "preprocess": 2.0, "network": 3.0, "postprocess": 4.0},
)
NONE = Detections.empty(NAMES, image="a/street, wet.png", width=9, height=8)


def write(target: Path, form: str, *found: Detections) -> str:
    with record_sink(str(target), form) as write_one:
        for detections in found:
            write_one(detections)
    return target.read_text(encoding="utf-8") if target.is_file() else ""


@pytest.mark.parametrize("found", [(), (NONE,), (TWO, NONE)])
def test_json_is_one_array(tmp_path: Path, found: tuple[Detections, ...]) -> None:
    text = write(tmp_path / "out.json", "json", *found)
    assert json.loads(text) == [d.to_dict() for d in found]
    assert len(text.splitlines()) == (2 + len(found) if found else 1)


def test_jsonl_is_one_record_a_line(tmp_path: Path) -> None:
    lines = write(tmp_path / "out.jsonl", "jsonl", TWO, NONE).splitlines()
    assert [json.loads(line) for line in lines] == [TWO.to_dict(), NONE.to_dict()]


def test_csv(tmp_path: Path) -> None:
    write(tmp_path / "out.csv", "csv", TWO, NONE, TWO)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["image", "class", "score", "x1", "y1", "x2", "y2"],
        *2
        * [
            ["a/000042.png", "pedestrian", "0.7500", "1.00", "2.00", "30.13", "40.00"],
            ["a/000042.png", "car", "0.5000", "5.00", "6.00", "7.00", "8.00"],
        ],
    ]


def test_csv_without_images_has_its_header(tmp_path: Path) -> None:
    assert write(tmp_path / "out.csv", "csv") == "image,class,score,x1,y1,x2,y2\n"


def test_coco(tmp_path: Path) -> None:
    named = Detections(TWO.xyxy, TWO.score, TWO.class_id, NAMES, image="b/night.png")
    results = json.loads(write(tmp_path / "out.json", "coco", TWO, NONE, named))
    assert [r["image_id"] for r in results] == [42, 42, "night", "night"]
    assert results[1] == {
        "image_id": 42,
        "file_name": "a/000042.png",
        "category_id": 1,
        "category_name": "car",
        "bbox": [5, 6, 2, 2],
        "score": 0.5,
    }


def test_coco_ids_of_two_images_never_agree(tmp_path: Path) -> None:
    other = [Detections(TWO.xyxy, TWO.score, TWO.class_id, NAMES, image=n) for n in ("b/42.png", "c/42.png")]
    results = json.loads(write(tmp_path / "out.json", "coco", TWO, *other))
    assert [r["image_id"] for r in results[::2]] == [42, "42", "42-2"]


def test_kitti_is_a_folder_with_a_file_for_each_image(tmp_path: Path) -> None:
    write(tmp_path / "new" / "out", "kitti", TWO, NONE, TWO)
    files = {p.name: p.read_text() for p in (tmp_path / "new" / "out").iterdir()}
    assert files == {"000042.txt": TWO.to_kitti(), "street, wet.txt": "", "000042-2.txt": TWO.to_kitti()}


@pytest.mark.parametrize("form", [*TEXT_FORMATS])
def test_standard_output(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with record_sink("-", form) as write_one:
        write_one(TWO)
    assert capsys.readouterr().out == write(tmp_path / "out", form, TWO)


def test_jsonl_is_there_while_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), record_sink(str(path), "jsonl") as write_one:
        for n in (1, 2):
            write_one(TWO)
            assert len(path.read_text().splitlines()) == n
        raise KeyboardInterrupt
    assert [json.loads(line) for line in path.read_text().splitlines()] == 2 * [TWO.to_dict()]


@pytest.mark.parametrize("form", [f for f, kind in TEXT_FORMATS.items() if not kind.grows])
def test_interrupted_run_leaves_the_old_file(form: str, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), record_sink(str(path), form) as write_one:
        write_one(TWO)
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("target", "form", "says"),
    [
        ("-", "kitti", "format kitti writes one file per image"),
        ("file", "kitti", "is a file"),
        ("", "json", "is a folder"),
        ("nowhere/out.json", "json", "no folder"),
        ("street.jpg", "json", "the name of an image"),
        ("out.xml", "xml", "no format 'xml'; there are json, jsonl, csv"),
    ],
)
def test_targets_that_do_not_fit(tmp_path: Path, target: str, form: str, says: str) -> None:
    (tmp_path / "file").touch()
    place = target if target == "-" else str(tmp_path / target)
    with pytest.raises(UsageError, match=says), record_sink(place, form):
        pytest.fail("opened")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_full_disk_is_one_sentence(form: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(SqueezeDetError, match="/dev/full: cannot be written"):  # noqa: SIM117
        with record_sink("/dev/full", form) as write_one:
            write_one(TWO)


def test_csv_of_videos_and_tracks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with record_sink(str(path), "csv", RecordOptions(timed=True, tracked=True)) as write_one:
        write_one(replace(TWO, time_s=1.5, track_id=np.array([3, 4])))
        write_one(replace(TWO, track_id=np.array([1, 2])))
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[0][-3:] == ["y2", "time_s", "track_id"]
    assert [row[-2:] for row in rows[1:]] == [["1.500000", "3"], ["1.500000", "4"], ["", "1"], ["", "2"]]


def frame(number: int, name: str = "trip/drive.mp4", seen: Detections = TWO) -> Detections:
    return replace(seen, image=name, time_s=number / 10)


def test_the_suffix_decides_the_format() -> None:
    for target, form in (("a.json", "json"), ("a.JSONL", "jsonl"), ("a.csv", "csv"), ("-", "json")):
        assert record_format(target, None) == form
    assert record_format("a.json", "coco") == "coco"
    assert record_format("a.json", "labelstudio") == "labelstudio"
    assert record_format("folder.v2", "yolo") == "yolo"
    assert record_format("/dev/stdout", "csv") == "csv"


@pytest.mark.parametrize(
    ("target", "form", "says"),
    [
        ("a.txt", None, "no format of records has the suffix .txt"),
        ("a.xml", "json", "no format of records has the suffix .xml"),
        ("a.csv", "json", ".csv is csv, and `format` says json"),
        ("a.json", "jsonl", ".json is json, and `format` says jsonl"),
        ("a.json", "kitti", ".json is json, and `format` says kitti"),
        ("a.jpg", None, "the name of an image"),
    ],
)
def test_a_suffix_that_contradicts_is_refused(target: str, form: str | None, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        record_format(target, form)
    assert says in str(refused.value)


def test_csv_grows_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with record_sink(str(path)) as write_one:
        for n in (1, 2):
            write_one(TWO)
            assert len(path.read_text().splitlines()) == 1 + 2 * n


def test_frames_of_a_video_are_numbered_each_on_its_own(tmp_path: Path) -> None:
    seen = [frame(0), frame(1), frame(0), replace(TWO, image="drive.png")]
    wanted = ["drive_000000", "drive_000001", "drive-2_000000", "drive-3"]
    for form in FOLDER_FORMATS:
        write(tmp_path / form, form, *seen)
    assert sorted(p.stem for p in (tmp_path / "kitti").iterdir()) == sorted(wanted)
    assert sorted(p.stem for p in (tmp_path / "voc" / "Annotations").iterdir()) == sorted(wanted)
    results = json.loads(write(tmp_path / "a.json", "coco", *seen[:2]))
    assert [r["image_id"] for r in results] == 2 * [wanted[0]] + 2 * [wanted[1]]
    tasks = json.loads(write(tmp_path / "b.json", "labelstudio", *seen[:2]))
    assert [task["data"]["image"] for task in tasks] == wanted[:2]


def test_yolo(tmp_path: Path) -> None:
    write(tmp_path / "out", "yolo", TWO, NONE)
    files = {p.name: p.read_text() for p in (tmp_path / "out").iterdir()}
    assert files == {
        "classes.txt": "car\npedestrian\n",
        "000042.txt": "1 0.155630 0.420000 0.291260 0.760000\n0 0.060000 0.140000 0.020000 0.040000\n",
        "street, wet.txt": "",
    }


def test_voc_has_annotations_and_class_files(tmp_path: Path) -> None:
    write(tmp_path / "out", "voc", TWO, NONE)
    assert (tmp_path / "out" / "car.txt").read_text() == "000042 0.5000 5.00 6.00 7.00 8.00\n"
    assert (tmp_path / "out" / "pedestrian.txt").read_text().startswith("000042 0.7500 1.00 2.00")
    tree = ElementTree.parse(tmp_path / "out" / "Annotations" / "000042.xml")
    assert tree.findtext("filename") == "000042.png"
    assert [o.findtext("name") for o in tree.iter("object")] == ["pedestrian", "car"]
    assert tree.findtext("object/bndbox/xmax") == "30.13"
    assert (tmp_path / "out" / "Annotations" / "street, wet.xml").exists()
    write(tmp_path / "out", "voc", replace(NONE, image="a<\x07&.png"))
    assert ElementTree.parse(tmp_path / "out" / "Annotations" / "a<\x07&.xml").findtext("filename") == "a<_&.png"


def test_label_studio(tmp_path: Path) -> None:
    task, empty = json.loads(write(tmp_path / "a.json", "labelstudio", TWO, NONE))
    assert task["data"] == {"image": "a/000042.png"}
    (prediction,) = task["predictions"]
    assert prediction["score"] == 0.625
    first = prediction["result"][0]
    assert (first["original_width"], first["original_height"]) == (100, 50)
    assert first["value"] == {
        **{"x": 1, "y": 4, "width": 29.126, "height": 76, "rotation": 0},
        "rectanglelabels": ["pedestrian"],
    }
    assert empty["predictions"][0]["result"] == []


def labels(path: Path, *files: str) -> Path:
    images = [{"id": 100 + k, "file_name": name} for k, name in enumerate(files)]
    categories = [{"id": 7, "name": "Pedestrian"}, {"id": 3, "name": "car"}]
    path.write_text(json.dumps({"images": images, "categories": categories}))
    return path


def test_coco_with_the_ids_of_labels(tmp_path: Path) -> None:
    options = RecordOptions(labels=labels(tmp_path / "labels.json", "b/000042.png", "a/000042.png"))
    with record_sink(str(tmp_path / "a.json"), "coco", options) as write_one:
        write_one(TWO)
    results = json.loads((tmp_path / "a.json").read_text())
    assert [(r["image_id"], r["category_id"]) for r in results] == [(101, 7), (101, 3)]
    with pytest.raises(DataError, match="has no image of this name, or several"):  # noqa: SIM117
        with record_sink(str(tmp_path / "b.json"), "coco", options) as write_one:
            write_one(replace(TWO, image="000042.png"))
    with pytest.raises(DataError, match="has no category 'truck'"):  # noqa: SIM117
        with record_sink(str(tmp_path / "b.json"), "coco", options) as write_one:
            write_one(replace(TWO, names=("truck", "pedestrian")))
    with pytest.raises(UsageError, match="is for the format coco"):  # noqa: SIM117
        with record_sink(str(tmp_path / "b.json"), "json", options):
            pytest.fail("opened")


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        ("a.png", 100),  # exactly, although there is cam/a.png
        ("cam/a.png", 101),
        ("there/cam/a.jpg", 101),  # only the suffix differs
        ("b.png", 102),  # by the end of its path in the labels
        ("there/b.jpeg", 102),
        ("c.png", 103),
        ("c.jpg", 104),
        ("c.bmp", None),
        ("d.png", None),
        ("missing.png", None),
    ],
)
def test_images_are_matched_by_what_their_paths_share(tmp_path: Path, image: str, wanted: int | None) -> None:
    files = ("a.png", "cam\\a.png", "x/y/b.png", "c.png", "c.jpg", "x/d.png", "y/d.png")
    ids = CocoIds(labels(tmp_path / "labels.json", *files))
    if wanted is None:
        with pytest.raises(DataError, match="has no image of this name, or several"):
            ids.image(image)
    else:
        assert ids.image(image) == wanted


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"images": [3], "categories": []}', "[" * 9999])
def test_labels_that_are_no_coco(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels.json").write_text(content)
    options = RecordOptions(labels=tmp_path / "labels.json")
    with pytest.raises(DataError, match="is no COCO file"):  # noqa: SIM117
        with record_sink(str(tmp_path / "a.json"), "coco", options):
            pytest.fail("opened")


def test_live_records_have_wall_clock_times(tmp_path: Path) -> None:
    when = datetime(2026, 11, 26, 17, 5, tzinfo=timezone(timedelta(hours=1)))
    seen = replace(frame(0), wall_time=when)
    (line,) = write(tmp_path / "a.jsonl", "jsonl", seen).splitlines()
    assert json.loads(line)["wall_time"] == "2026-11-26T17:05:00+01:00"
    options = RecordOptions(timed=True, live=True)
    with record_sink(str(tmp_path / "a.csv"), None, options) as write_one:
        write_one(seen)
    assert (tmp_path / "a.csv").read_text().splitlines()[1].endswith(",2026-11-26T17:05:00+01:00")
