"""What the tools of the field write is read: layouts, and what disks and systems do to folders."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from squeezedet.data.dataset import Dataset, read_dataset
from squeezedet.errors import DataError

from .folders import CAR, annotation, picture, text, voc_object, xml

IDS = ("cam1/0", "cam1/1", "cam2/0", "cam2/1")
"""Two folders with files of one name."""
FLAT = ("a0", "a1", "a2", "a3")
ROW = "0 0.15 0.4 0.2 0.4\n"
BOX = [10, 20, 50, 60]
NAMES = "car\nbus\n"
LINE = CAR.replace("14.24 11.78 27.31 34.77", "10 20 50 60")
XML = xml(voc_object())


def image(path: Path) -> None:
    """A JPEG, whatever its name ends in."""
    made = picture(path.with_name(path.stem + "-.jpg"))
    made.rename(path)


def files(root: Path, folder: str, suffix: str, ids: Sequence[str], label: str = "") -> None:
    for i in ids:
        path = root / folder / f"{i}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        text(path, label) if label else image(path)


def coco_json(names: Sequence[str], **more: object) -> str:
    images = [{"id": f"i{k}", "file_name": n, "width": 200, "height": 100} | more
              for k, n in enumerate(names)]  # fmt: skip
    labels = [annotation(id=k, image_id=f"i{k}", category_id=7) for k in range(len(names))]
    categories = [{"id": 7, "name": "car", "supercategory": "root"}, {"id": 3, "name": "root"}]
    return json.dumps({"images": images, "annotations": labels, "categories": categories})


def kitti(root: Path, ids: Sequence[str], suffix: str, images: str, labels: str) -> None:
    files(root, images, suffix, ids)
    files(root, labels, ".txt", ids, LINE)


def voc(root: Path, ids: Sequence[str], suffix: str, images: str, labels: str) -> None:
    files(root, images, suffix, ids)
    files(root, labels, ".xml", ids, XML)


def yolo(root: Path, ids: Sequence[str], suffix: str, images: str, labels: str, names: str) -> None:
    files(root, images, suffix, ids)
    files(root, labels, ".txt", ids, ROW)
    text(root / names, NAMES)


def coco(root: Path, ids: Sequence[str], suffix: str, images: str, file: str) -> None:
    files(root, images, suffix, ids)
    text(root / file, coco_json([f"{i}{suffix}".replace("/", "\\") for i in ids]))


Build = Callable[[Path, Sequence[str], str], None]
BUILDERS: dict[str, Build] = {
    "KITTI": lambda r, i, s: kitti(r, i, s, "training/image_2", "training/label_2"),
    "FiftyOne KITTI": lambda r, i, s: kitti(r, i, s, "data", "labels"),
    "TAO": lambda r, i, s: kitti(r, i, s, "images", "labels"),
    "DIGITS": lambda r, i, s: kitti(r, i, s, "train/images", "train/labels"),
    "KITTI by split inside": lambda r, i, s: kitti(r, i, s, "images/train", "labels/train"),
    "VOC": lambda r, i, s: voc(r, i, s, "JPEGImages", "Annotations"),
    "VOC devkit": lambda r, i, s: voc(r, i, s, *(f"VOCdevkit/VOC2012/{n}" for n in VOC_NAMES)),
    "VOC in small letters": lambda r, i, s: voc(r, i, s, "images", "annotations"),
    "FiftyOne VOC": lambda r, i, s: voc(r, i, s, "data", "labels"),
    "VOC beside the images": lambda r, i, s: voc(r, i, s, ".", "."),
    "Roboflow VOC": lambda r, i, s: voc(r, i, s, "train", "train"),
    "VOC by split": lambda r, i, s: voc(r, i, s, "train/images", "train/annotations"),
    "COCO": lambda r, i, s: coco(r, i, s, "images", "annotations/instances_default.json"),
    "COCO by split": lambda r, i, s: coco(r, i, s, "train2017", "annotations/instances_train2017.json"),
    "Roboflow COCO": lambda r, i, s: coco(r, i, s, "train", "train/_annotations.coco.json"),
    "FiftyOne COCO": lambda r, i, s: coco(r, i, s, "data", "labels.json"),
    "FiftyOne COCO by split": lambda r, i, s: coco(r, i, s, "train/data", "train/labels.json"),
    "Label Studio COCO": lambda r, i, s: coco(r, i, s, "images", "result.json"),
    "Label Studio YOLO": lambda r, i, s: (
        yolo(r, i, s, "images", "labels", "classes.txt"),
        text(r / "notes.json", '{"categories": [{"id": 0, "name": "car"}], "info": {}}'),
    ),
    "labelImg": lambda r, i, s: yolo(r, i, s, ".", ".", "classes.txt"),
    "labelImg by split": lambda r, i, s: yolo(r, i, s, "images/train", "labels/train", "labels/train/classes.txt"),
    "Roboflow darknet": lambda r, i, s: yolo(r, i, s, "train", "train", "train/_darknet.labels"),
    "FiftyOne YOLOv4": lambda r, i, s: yolo(r, i, s, "data", "data", "obj.names"),
    "Roboflow YOLO": lambda r, i, s: (
        yolo(r, i, s, "train/images", "train/labels", "README.dataset.txt"),
        text(
            r / "data.yaml",
            "train: ../train/images\nval: ../train/images\ntest: ../test/images\n\nnc: 2\n"
            "names: ['car', 'bus']\n\nroboflow:\n  workspace: a\n  version: 1\n",
        ),
    ),
    "Windows YOLO": lambda r, i, s: (
        yolo(r, i, s, "set/images/train", "set/labels/train", "notes.txt"),
        text(
            r / "data.yaml",
            "path: D:\\work\\set\r\ntrain: D:\\work\\set\\images\\train\r\nval:\r\nnames:\r\n  0: car\r\n  1: bus\r\n",
        ),
    ),
    "CVAT YOLO": lambda r, i, s: (
        yolo(r, i, s, "obj_train_data", "obj_train_data", "obj.names"),
        text(r / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n"),
        text(r / "train.txt", "".join(f"data/obj_train_data/{k}{s}\n" for k in i)),
    ),
    "darknet": lambda r, i, s: (
        yolo(r, i, s, "JPEGImages", "labels", "voc.names"),
        text(r / "voc.data", "train = C:\\darknet\\train.txt\nvalid=train.txt\nnames=voc.names\n"),
        text(r / "train.txt", "".join(f"C:\\x\\JPEGImages\\{k}{s}\r\n".replace("/", "\\") for k in i)),
    ),
}
VOC_NAMES = ("JPEGImages", "Annotations")


def check(data: Dataset, images: int = 4) -> None:
    """All images once, with their one box and ids of their own."""
    samples = data.samples()
    assert len(samples) == images, [str(s.image) for s in samples]
    assert len({s.id for s in samples}) == images
    for sample in samples:
        assert sample.objects.types == ("car",) or sample.objects.types == ("Car",)
        assert sample.objects.xyxy[0].tolist() == pytest.approx(BOX, abs=1e-4)
    assert not data.skipped


def litter(root: Path) -> None:
    """What a Mac, Windows and an archive leave beside every file."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            text(path.with_name(f"._{path.name}"), b"\0\5\x16\7" + b"\xff" * 60)
    for folder in [root, *(p for p in root.rglob("*") if p.is_dir())]:
        text(folder / ".DS_Store", b"\0\0\0\1Bud1")
        text(folder / "Thumbs.db", b"\xd0\xcf")
    litter_folder = root / "__MACOSX" / "images"
    text(litter_folder / "._a.jpg", b"\0")
    image(litter_folder / "x.jpg")


@pytest.mark.parametrize("tool", BUILDERS)
@pytest.mark.parametrize("ids", [FLAT, IDS, ("1 a", "1 b", "ä.1", "x.y-2")], ids=str)
def test_what_a_tool_writes_is_read(tool: str, ids: Sequence[str], tmp_path: Path) -> None:
    root = tmp_path / "my set [1]"
    BUILDERS[tool](root, ids, ".jpg")
    check(read_dataset(root))


@pytest.mark.parametrize("tool", BUILDERS)
def test_files_of_systems_are_no_data(tool: str, tmp_path: Path) -> None:
    BUILDERS[tool](tmp_path, IDS, ".jpg")
    litter(tmp_path)
    check(read_dataset(tmp_path))


@pytest.mark.parametrize("suffix", [".JPG", ".jfif", ".jpe", ".mpo"])
@pytest.mark.parametrize("tool", BUILDERS)
def test_every_suffix_of_an_image_is_known(tool: str, suffix: str, tmp_path: Path) -> None:
    BUILDERS[tool](tmp_path, FLAT, suffix)
    check(read_dataset(tmp_path))


@pytest.mark.parametrize("tool", BUILDERS)
def test_links_to_folders_are_followed_but_not_in_circles(tool: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    BUILDERS[tool](root, IDS, ".jpg")
    for folder in [p for p in root.rglob("cam1") if p.is_dir()]:
        elsewhere = tmp_path / "disk" / folder.relative_to(root)
        elsewhere.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere)
        (elsewhere / "up").symlink_to(folder.parent)
    check(read_dataset(root))


def test_lists_with_windows_separators_and_suffixes(tmp_path: Path) -> None:
    voc(tmp_path / "voc", IDS, ".jpg", "JPEGImages", "Annotations")
    listed = "".join(f"{i}.jpg\r\n" for i in IDS).replace("/", "\\")
    text(tmp_path / "voc" / "ImageSets" / "Main" / "default.txt", listed)
    check(read_dataset(tmp_path / "voc"))
    kitti(tmp_path / "kitti", IDS, ".jpg", "image_2", "label_2")
    text(tmp_path / "kitti" / "ImageSets" / "train.txt", listed)
    assert list(read_dataset(tmp_path / "kitti").splits) == ["train"]
    check(read_dataset(tmp_path / "kitti"))
    check(read_dataset(tmp_path / "kitti" / "ImageSets" / "train.txt"))


def test_annotations_in_one_folder_of_images_in_several(tmp_path: Path) -> None:
    files(tmp_path, "images", ".png", ("cam1/0", "cam2/1"))
    files(tmp_path, "annotations", ".xml", ("0", "1"), XML)
    check(read_dataset(tmp_path), 2)


def test_key_points_are_not_polygons(tmp_path: Path) -> None:
    yolo(tmp_path, FLAT, ".jpg", "images", "labels", "notes.txt")
    for shape, points in (("[2, 3]", "0.1 0.2 2 0.3 0.4 1"), ("[4, 2]", "0.1 0.2 " * 4)):
        files(tmp_path, "labels", ".txt", FLAT, f"{ROW.strip()} {points}\n")
        text(tmp_path / "data.yaml", f"kpt_shape: {shape}\nnames: [car]\ntrain: images\n")
        check(read_dataset(tmp_path))
    files(tmp_path, "labels", ".txt", FLAT, f"{ROW.strip()} 0.1 0.2 2 0.3 0.4 1\n")
    text(tmp_path / "data.yaml", "names: [car]\ntrain: images\n")
    with pytest.raises(DataError, match="key points need kpt_shape"):
        read_dataset(tmp_path)


def test_a_missing_test_split_is_a_note_and_a_missing_val_an_error(tmp_path: Path) -> None:
    yolo(tmp_path, FLAT, ".jpg", "images", "labels", "notes.txt")
    for key in ("test", "val"):
        text(tmp_path / "data.yaml", f"train: images\n{key}: ../{key}/images\nnames: [car]\n")
        if key == "test":
            assert "split test is not there" in " ".join(read_dataset(tmp_path).notes)
        else:
            with pytest.raises(DataError, match="val: no such folder or list"):
                read_dataset(tmp_path)


def test_names_that_contradict_each_other(tmp_path: Path) -> None:
    yolo(tmp_path, FLAT, ".jpg", "train", "train", "train/_darknet.labels")
    yolo(tmp_path, FLAT, ".jpg", "valid", "valid", "valid/_darknet.labels")
    text(tmp_path / "valid" / "_darknet.labels", "bus\ncar\n")
    with pytest.raises(DataError, match="name different classes"):
        read_dataset(tmp_path)


def test_pipes_devices_and_links_to_nowhere_are_said_not_read(tmp_path: Path) -> None:
    yolo(tmp_path, FLAT, ".jpg", "images", "labels", "classes.txt")
    os.mkfifo(tmp_path / "images" / "pipe.jpg")
    with pytest.raises(DataError, match=r"pipe\.jpg: is no file but a pipe"):
        read_dataset(tmp_path)
    (tmp_path / "images" / "pipe.jpg").unlink()
    (tmp_path / "labels" / "a4.txt").symlink_to("/dev/zero")
    image(tmp_path / "images" / "a4.jpg")
    assert len(read_dataset(tmp_path).samples()) == 5
    (tmp_path / "images" / "a5.jpg").symlink_to("nowhere")
    with pytest.raises(DataError, match="a link to nowhere"):
        read_dataset(tmp_path)


def test_a_name_longer_than_a_file_system_takes(tmp_path: Path) -> None:
    long = "x" * 300
    text(tmp_path / "l.json", coco_json([f"{long}.jpg"]))
    for data in (tmp_path, tmp_path / long):
        with pytest.raises(DataError, match="xxx"):
            read_dataset(data)
    yolo(tmp_path / "y", FLAT, ".jpg", "images", "labels", "classes.txt")
    text(tmp_path / "y" / "data.yaml", f"train: {long}\nnames: [car]\n")
    with pytest.raises(DataError, match="no such folder"):
        read_dataset(tmp_path / "y")


def test_ways_to_list_kittis_splits(tmp_path: Path) -> None:
    """Of OpenPCDet beside ``training``; with a comment; of paths; by other names of splits."""
    for number, (place, lines) in enumerate(
        {
            "ImageSets/val.txt": "b\n",
            "training/ImageSets/valid.txt": "b\n",
            "training/val.txt": "# ours\nb\n",
            "training/VAL.txt": "image_2/b.png\n",
            "training/manifest.tsv": "id\tsplit\nb\tValidation\n",
        }.items()
    ):
        root = tmp_path / str(number)
        for name in "ab":
            picture(root / "training" / "image_2" / f"{name}.png")
            text(root / "training" / "label_2" / f"{name}.txt", LINE)
        text(root / place, lines)
        assert [sample.id for sample in read_dataset(root).splits["val"]] == ["b"], place
    text(root / "training" / "test.txt", "nothing\n")
    with pytest.raises(DataError, match="nothing"):
        read_dataset(root)


def test_a_list_of_class_names_beside_labels_of_another_layout(tmp_path: Path) -> None:
    picture(tmp_path / "image_2" / "a.png")
    text(tmp_path / "label_2" / "a.txt", LINE)
    text(tmp_path / "classes.txt", "Car\n")
    assert read_dataset(tmp_path).layout == "kitti"
