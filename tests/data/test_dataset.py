"""Which layout it is, what is left out, and which classes follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from squeezedet.data.dataset import Dataset, class_map_for, dataset_warnings, detect_layout, read_dataset, read_split
from squeezedet.data.sample import KITTI_DEFAULT, Objects, Sample
from squeezedet.errors import DataError, UsageError

from .folders import CAR, coco, coco_labels, kitti, picture, text, voc, voc_object, xml, yolo


def roboflow_coco(root: Path) -> None:
    for split in ("train", "valid"):
        picture(root / split / "a.jpg")
        text(root / split / "_annotations.coco.json", json.dumps(coco_labels(["a.jpg"])))


def roboflow_voc(root: Path) -> None:
    for split in ("train", "valid", "test"):
        picture(root / split / "a.jpg")
        text(root / split / "a.xml", xml(voc_object()))


def roboflow_yolo(root: Path) -> None:
    for split in ("train", "valid"):
        picture(root / split / "images" / "a.jpg")
        text(root / split / "labels" / "a.txt", "1 0.5 0.5 0.1 0.1\n")
    places = "train: ../train/images\nval: ../valid/images\n"
    more = "nc: 2\nnames: ['car', 'bus']\n\nroboflow:\n  workspace: w\n  license: CC BY 4.0\n"
    text(root / "data.yaml", places + more)


def classes_file_yolo(root: Path) -> None:
    yolo(root)
    (root / "data.yaml").unlink()
    text(root / "classes.txt", "car\nbus\n")


def devkit(root: Path) -> None:
    voc(root / "VOCdevkit" / "VOC2007")
    text(root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "train.txt", "a\nb\n")
    text(root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "car_train.txt", "a  1\nb -1\n")


CASES: dict[str, tuple[str, set[str], Callable[[Path], object]]] = {
    "kitti": ("kitti", {"all"}, kitti),
    "kitti as downloaded": ("kitti", {"all"}, lambda root: kitti(root / "training")),
    "voc": ("voc", {"all"}, voc),
    "voc devkit": ("voc", {"train"}, devkit),
    "voc of roboflow": ("voc", {"train", "val", "test"}, roboflow_voc),
    "voc beside images": (
        "voc",
        {"all"},
        lambda root: (picture(root / "a.png"), text(root / "a.xml", xml(voc_object()))),
    ),
    "coco": ("coco", {"all"}, coco),
    "coco as downloaded": (
        "coco",
        {"val"},
        lambda root: coco(root, images="val2017", file="annotations/instances_val2017.json"),
    ),
    "coco beside images": ("coco", {"all"}, lambda root: coco(root, images=".", file="x.json")),
    "coco of roboflow": ("coco", {"train", "val"}, roboflow_coco),
    "yolo": ("yolo", {"train", "val"}, yolo),
    "yolo of roboflow": ("yolo", {"train", "val"}, roboflow_yolo),
    "yolo without data file": ("yolo", {"train", "val"}, classes_file_yolo),
}


@pytest.mark.parametrize("case", CASES)
def test_layouts_are_found_out(tmp_path: Path, case: str) -> None:
    layout, splits, make = CASES[case]
    make(tmp_path)
    text(tmp_path / "README.txt", "Read me\nfirst\n")
    assert detect_layout(tmp_path) == layout
    dataset = read_dataset(str(tmp_path))
    assert dataset.layout == layout
    assert set(dataset.splits) == splits
    assert all(len(samples) for samples in dataset.splits.values())
    assert {t.lower() for s in dataset.samples() for t in s.objects.types} <= {"car", "bus"}
    assert not dataset.skipped


def test_files_are_data_too(tmp_path: Path) -> None:
    coco(tmp_path / "c", file="annotations/instances_train2017.json")
    yolo(tmp_path / "y")
    text(tmp_path / "y" / "night.txt", "./images/val/b.jpg\n")
    kitti(tmp_path / "k")
    text(tmp_path / "k" / "ImageSets" / "day.txt", "b\n")
    voc(tmp_path / "v")
    text(tmp_path / "v" / "ImageSets" / "Main" / "day.txt", "b\n")
    for file, layout, split, ids in [
        ("c/annotations/instances_train2017.json", "coco", "train", ["a", "b"]),
        ("y/data.yaml", "yolo", "train", ["a"]),
        ("y/night.txt", "yolo", "night", ["b"]),
        ("k/ImageSets/day.txt", "kitti", "day", ["b"]),
        ("v/ImageSets/Main/day.txt", "voc", "day", ["b"]),
    ]:
        assert detect_layout(tmp_path / file) == layout
        assert [s.id for s in read_split(tmp_path / file, split)] == ids


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        detect_layout(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no data set of a known layout; KITTI has image_2"):
        detect_layout(tmp_path)
    with pytest.raises(DataError, match=r"a\.png: no data set"):
        detect_layout(picture(tmp_path / "a.png"))
    kitti(tmp_path)
    yolo(tmp_path)
    with pytest.raises(DataError, match=r"more than one layout \(kitti, yolo\)"):
        detect_layout(tmp_path)
    assert read_dataset(tmp_path, layout="kitti").layout == "kitti"


def test_splits_of_kitti(tmp_path: Path) -> None:
    kitti(tmp_path, "abc")
    text(tmp_path / "manifest.tsv", "id\tsplit\nb\ttrain\na\ttrain\nc\tval\n")
    dataset = read_dataset(tmp_path)
    assert {k: [s.id for s in v] for k, v in dataset.splits.items()} == {"train": ["b", "a"], "val": ["c"]}
    assert [s.id for s in read_split(tmp_path, "all")] == ["b", "a", "c"]
    with pytest.raises(DataError, match="no split 'test'; it has train, val"):
        read_split(tmp_path, "test")
    listing = text(tmp_path / "elsewhere" / "list.txt", "c\n")
    assert [s.id for s in read_split(tmp_path, str(listing))] == ["c"]
    text(tmp_path / "notes.txt", "d\n")  # no known id: not a list of this folder
    assert list(read_dataset(tmp_path).splits) == ["train", "val"]
    text(tmp_path / "ImageSets" / "val.txt", "d\n")
    with pytest.raises(DataError, match=r"image_2.d: a split lists it, there is no such image"):
        read_dataset(tmp_path)


def test_types_of_kitti_by_frequency(tmp_path: Path) -> None:
    kitti(tmp_path, label=CAR + CAR.replace("Car", "Van") * 2 + CAR.replace("Car", "Bike"))
    dataset = read_dataset(tmp_path)
    assert dataset.types == ("Van", "Bike", "Car")
    assert dataset.notes == ("3D boxes or angles, not read: 8",)


def test_little_is_skipped_and_listed_and_much_is_an_error(tmp_path: Path) -> None:
    flat = CAR.replace("27.31", "14.24")
    kitti(tmp_path, label=CAR * 199)
    text(tmp_path / "label_2" / "b.txt", CAR * 198 + flat)
    picture(tmp_path / "image_2" / "c.png")
    dataset = read_dataset(tmp_path)
    reasons = [(s.file.name, s.line, s.reason, s.malformed) for s in dataset.skipped]
    assert reasons == [
        ("c.png", 0, f"the image has no label file {tmp_path / 'label_2' / 'c'}.txt", False),
        ("b.txt", 199, "the box of Car has no area", False),
    ]
    assert [len(s.objects) for s in dataset.samples()] == [199, 198]
    with pytest.raises(DataError, match=r"2 of 399 labels cannot be used, more than 0\.1 %"):
        read_dataset(tmp_path, max_skipped=0.001)


def test_malformed_labels_stop_or_are_collected(tmp_path: Path) -> None:
    kitti(tmp_path)
    text(tmp_path / "label_2" / "b.txt", CAR + CAR.replace("14.24", "nan") + "Car\n")
    with pytest.raises(DataError, match=r"b\.txt:2: nan is not finite"):
        read_dataset(tmp_path)
    dataset = read_dataset(tmp_path, strict=False, max_skipped=1)
    assert [(s.line, s.reason, s.malformed) for s in dataset.skipped] == [
        (2, "nan is not finite", True),
        (3, "a label has 15 fields, this line has 1", True),
    ]
    assert len(dataset.samples()[1].objects) == 1


def test_no_image_at_all(tmp_path: Path) -> None:
    (tmp_path / "image_2").mkdir()
    text(tmp_path / "label_2" / "a.txt", CAR)
    with pytest.raises(DataError, match=r"no images; the first left out: .*a\.txt: there is no"):
        read_dataset(tmp_path)


# ---------------------------------------------------------------------- classes


def labeled(layout: str, **counts: int) -> Dataset:
    """A data set of a type for each name, with so many objects, all in one image."""
    types = tuple(name for name, count in counts.items() for _ in range(count))
    zeros = np.zeros(len(types), np.float32)
    objects = Objects(types, np.zeros((len(types), 4), np.float32), zeros, zeros.astype(int))
    splits = {"train": (Sample("a", Path("a.jpg"), objects),)}
    return Dataset(Path("d"), layout, splits, tuple(counts))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        (labeled("kitti", Car=1, DontCare=1), ("car", "pedestrian", "cyclist")),
        (labeled("kitti", Car=1, Truck=1, Van=1), ("car", "pedestrian", "cyclist")),
        (labeled("kitti", Car=1, Bus=1), ("Car", "Bus")),
        (labeled("kitti", Tram=1), ("Tram",)),
        (labeled("yolo", car=1, truck=1, pedestrian=1, cyclist=1, van=1), None),
        (labeled("coco", Car=1, Pedestrian=1, Cyclist=1), None),
        (labeled("voc", person=2, DontCare=1), ("person",)),
        (labeled("voc", person=2, Person=1), ("person",)),
        (labeled("coco", roads=0, plate=3), ("plate",)),
    ],
)
def test_classes_follow_the_data(dataset: Dataset, names: tuple[str, ...] | None) -> None:
    found = class_map_for(dataset)
    assert found.names == (names or dataset.types)
    assert "DontCare" in found.regions
    assert (found == KITTI_DEFAULT) == (found.names == KITTI_DEFAULT.names)


def test_a_user_says_what_the_classes_are() -> None:
    data = labeled("yolo", car=3, van=2, truck=1, person=4, sign=0)
    found = class_map_for(data, classes=["person", "car"], mapping={"Van": "car", "truck": "ignore"})
    assert found.names == ("person", "car")
    assert found.class_ids(data.types).tolist() == [1, 1, -1, 0, -1]
    assert found.is_region(data.types).tolist() == [False, False, True, False, False]
    merged = class_map_for(data, mapping={"van": "vehicle", "car": "vehicle", "truck": "background"})
    assert merged.names == ("person", "vehicle")
    assert merged.class_ids(data.types).tolist() == [1, 1, -1, 0, -1]
    kitti_map = class_map_for(labeled("kitti", Car=1, Van=1), mapping={"van": "van"})
    assert kitti_map.names == ("car", "pedestrian", "cyclist", "van")


@pytest.mark.parametrize(
    ("classes", "mapping", "message"),
    [
        (["car", "car"], {}, "comes twice"),
        ([], {}, "no name"),
        (["car"], {"vna": "car"}, "no type 'vna'"),
        (["car"], {"van": "bus"}, "'bus' is none of the classes car"),
        (["car", "van"], {"van": "car"}, "'van' is one of the classes"),
    ],
)
def test_classes_that_cannot_be(classes: list[str], mapping: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        class_map_for(labeled("yolo", car=1, van=1), classes, mapping)


def test_data_without_a_class() -> None:
    with pytest.raises(DataError, match="no object of a class"):
        class_map_for(labeled("voc", DontCare=1))
    with pytest.raises(DataError, match="no object of a class"):
        class_map_for(labeled("voc", car=1), classes=["boat"])


def test_what_becomes_of_a_type_is_said() -> None:
    data = labeled("kitti", Car=3, Van=2, Truck=1, DontCare=1)
    assert dataset_warnings(data, class_map_for(data)) == (
        "'Van' is learned as 'car' (2 objects)",
        "'Truck' is no class: 1 object learned as background; to change that, name "
        "it among the classes, or map it to one or to 'ignore'",
        "class 'pedestrian' has no object in these data",
        "class 'cyclist' has no object in these data",
    )
    data = labeled("coco", roads=0, plate=3)
    assert dataset_warnings(data, class_map_for(data)) == ("'roads' has no object: it is no class",)
    empty = Sample("b", Path("b.jpg"), labeled("coco", x=0).samples()[0].objects)
    data = replace(data, splits={**data.splits, "val": (empty,)}, types=("plate",))
    assert dataset_warnings(data, class_map_for(data)) == (
        "split 'val' has no object of any class: nothing can be measured there",
    )


def test_ignored_objects_are_areas_without_loss() -> None:
    types = ("Car", "Car", "DontCare", "Tram")
    zeros = np.zeros(4, np.float32)
    flags = np.array([False, True, False, True])
    objects = Objects(types, np.zeros((4, 4), np.float32), zeros, zeros.astype(int), flags)
    class_id, region = KITTI_DEFAULT.targets(objects)
    assert class_id.tolist() == [0, -1, -1, -1]
    assert region.tolist() == [False, True, True, False]
    plain = Objects(types, objects.xyxy, zeros, objects.occluded)
    assert not plain.ignored.any()
    assert plain.ignored.shape == (4,)


@pytest.mark.shared
def test_the_real_roads(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "roads")
    assert {k: len(v) for k, v in dataset.splits.items()} == {"train": 732, "val": 50}
    assert class_map_for(dataset) == KITTI_DEFAULT
    assert not dataset.skipped


def test_the_builders_are_read(tmp_path: Path) -> None:
    """Every layout says the same of the same box."""
    label = "1 1 10 20 50 60"
    boxes = {}
    kitti(tmp_path / "kitti", label=CAR.replace("14.24 11.78 27.31 34.77", label[4:]))
    voc(tmp_path / "voc")
    coco(tmp_path / "coco")
    yolo(tmp_path / "yolo", "0 0.15 0.4 0.2 0.4\n")
    for layout in ("kitti", "voc", "coco", "yolo"):
        sample = read_dataset(tmp_path / layout).samples()[0]
        boxes[layout] = sample.objects.xyxy.tolist()
    assert boxes == {key: [[10, 20, 50, 60]] for key in boxes}
