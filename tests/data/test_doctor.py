"""Each fault, planted once in a data set without fault, is found once and nothing else is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from squeezedet.data.dataset import class_map_for, dataset_warnings, read_dataset
from squeezedet.data.doctor import MAX_PAIRS, Diagnosis, _alike, describe, examine, to_dict, write_pictures
from squeezedet.errors import UsageError
from squeezedet.preprocess import InputRule

from .folders import CAR, HEIGHT, WIDTH, annotation, coco, coco_labels, kitti, text, voc, voc_object, xml, yolo
from .planted import Folder, label

RULE = InputRule(304, 208)
Plant = Callable[[Folder], object]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A KITTI folder without fault."""
    return Folder(tmp_path / "data")


def found(root: Path, rule: InputRule = RULE) -> list[tuple[str, str, int]]:
    return [(f.level, f.check, f.count) for f in examine(root, rule).findings]


def test_a_good_data_set_has_no_findings(folder: Folder) -> None:
    assert found(folder.root) == []


def truncate(folder: Folder) -> None:
    content = folder.image("b").read_bytes()
    folder.image("b").write_bytes(content[: len(content) // 2])


def copy(folder: Folder, source: str, target: str, split: str) -> None:
    folder.add(target)
    shutil.copy(folder.image(source), folder.image(target))
    ids = (folder.root / "ImageSets" / f"{split}.txt").read_text().split()
    folder.list(split, (*ids, target))


def twin(folder: Folder, mirrored: bool = False) -> None:
    """The image of ``x`` (val) is that of ``a`` (train): darker, smaller, compressed anew."""
    picture = Image.open(folder.image("a"))
    picture = ImageOps.mirror(picture) if mirrored else picture
    darker = ImageEnhance.Brightness(picture).enhance(0.7)
    darker.resize((270, 180)).resize((300, 200)).save(folder.image("x"), quality=60)


def empty(folder: Folder) -> None:
    folder.write("a", [])


PLANTS: dict[str, tuple[Plant, tuple[str, str, int], str]] = {
    "truncated": (truncate, ("error", "unreadable-image", 1), "b.jpg: the image is damaged"),
    "no image at all": (
        lambda f: f.image("y").write_text("hello"),
        ("error", "unreadable-image", 1),
        "y.jpg: not an image",
    ),
    "nan": (lambda f: f.append("c", label("Car", float("nan"), 1, 2, 3)), ("error", "malformed", 1), "c.txt:13"),
    "listed without image": (lambda f: f.image("c").unlink(), ("error", "malformed", 1), "image_2/c"),
    "no area": (lambda f: f.append("c", label("Car", 5, 1, 5, 30)), ("warning", "no-area", 1), "c.txt:13"),
    "wholly outside": (
        lambda f: f.append("y", label("Car", 310, 10, 350, 40)),
        ("error", "outside", 1),
        "val/y box 12",
    ),
    "beyond the edge": (
        lambda f: f.append("a", label("Car", 270, 151, 303, 199)),
        ("warning", "beyond-edge", 1),
        "train/a box 12",
    ),
    "labelled twice": (lambda f: f.append("a", f.lines("a")[3]), ("warning", "twice", 2), "train/a boxes 3, 12"),
    "two classes": (
        lambda f: f.append("a", f.lines("a")[3].replace("Car", "Cyclist")),
        ("warning", "two-classes", 2),
        "train/a boxes 3, 12",
    ),
    "a copy": (lambda f: copy(f, "a", "g", "train"), ("warning", "copies", 1), "train/a = train/g"),
    "a copy in val": (lambda f: copy(f, "a", "g", "val"), ("error", "leak", 1), "train/a = val/g"),
    "one image in two splits": (
        lambda f: f.list("val", ("x", "y", "z", "a")),
        ("error", "shared", 1),
        "train/a = val/a",
    ),
    "a twin in val": (twin, ("warning", "near-leak", 1), "train/a ~ val/x"),
    "a mirrored twin": (lambda f: twin(f, mirrored=True), ("warning", "near-leak", 1), "train/a ~ val/x"),
    "in no split": (lambda f: f.add("q"), ("warning", "unlisted-image", 1), "q.jpg"),
    "nothing in it": (empty, ("note", "background-image", 1), "train/a"),
    "another type": (lambda f: f.append("a", label("Tram", 5, 5, 90, 90)), ("warning", "classes", 1), ""),
    "too small": (lambda f: f.append("a", label("Car", 5, 5, 12, 30)), ("note", "small", 1), "train/a box 12"),
    "a thumbnail": (
        lambda f: Image.effect_noise((90, 60), 90).save(f.image("a")) or f.write("a", [label("Car", 5, 5, 30, 30)]),
        ("warning", "tiny-image", 1),
        "train/a",
    ),
}


@pytest.mark.parametrize("fault", PLANTS)
def test_a_fault_planted_once_is_found_once(folder: Folder, fault: str) -> None:
    plant, expected, where = PLANTS[fault]
    plant(folder)
    (finding,) = examine(folder.root, RULE).findings
    assert (finding.level, finding.check, finding.count) == expected
    assert where in "".join(map(str, finding.where))


def test_without_lists_what_lacks_its_half_is_told_apart(folder: Folder) -> None:
    shutil.rmtree(folder.root / "ImageSets")
    folder.image("a").unlink()
    folder.label("b").unlink()
    # Two of 86 labels: above the limit, at which training itself stops.
    assert found(folder.root) == [("error", "no-image", 1), ("error", "no-label", 1)]


def test_splits_that_contain_each_other_leak_nothing(folder: Folder) -> None:
    folder.list("trainval", ("a", "b", "c", "d", "e", "f", "x", "y", "z"))
    assert found(folder.root) == []


def test_every_fault_is_collected_and_the_worst_comes_first(folder: Folder) -> None:
    folder.append("a", "Car 0 0\n", "nonsense\n", label("Car", 270, 151, 303, 199))
    folder.append("b", label("Car", 1, 1, 1, 2), label("Car", 270, 151, 330, 199))
    findings = examine(folder.root, RULE).findings
    assert [f.check for f in findings] == ["malformed", "no-area", "beyond-edge"]
    assert findings[0].count == 2
    assert [str(place) for place in findings[-1].where] == ["train/b box 12", "train/a box 12"]


def test_classes_few_one_sided_or_none(folder: Folder) -> None:
    for i in "abcdef":
        folder.write(i, [line for line in folder.lines(i) if "Cyclist" not in line])
    checks = [f.check for f in examine(folder.root, RULE).findings]
    assert checks == ["imbalance", "one-sided"]
    for i in "abcdef":
        folder.write(i, [label("DontCare", 10, 10, 60, 60)])
    checks = [f.check for f in examine(folder.root, RULE).findings]
    assert checks == ["no-objects", "one-sided"]


def test_a_fixed_input_stretches(folder: Folder) -> None:
    stretched = found(folder.root, InputRule(304, 304, fixed=True))
    assert stretched == [("warning", "stretched", 9)]


def test_many_small_objects_are_a_warning(folder: Folder) -> None:
    ((level, check, count),) = found(folder.root, InputRule(48, 32))
    assert (level, check, count) == ("warning", "small", 9 * 12)


def test_a_picture_with_many_twins_names_the_best(folder: Folder) -> None:
    """A camera that never moves: no more pairs than can be looked at."""
    ids = tuple(f"v{k:02d}" for k in range(25))
    picture = Image.open(folder.image("a"))
    for k, i in enumerate(ids):
        ImageEnhance.Brightness(picture).enhance(0.5 + k / 60).save(folder.image(i), quality=90)
        shutil.copy(folder.label("x"), folder.label(i))
    folder.list("val", ("x", "y", "z", *ids))
    assert found(folder.root) == [("warning", "near-leak", 20)]


def test_labels_of_another_size(tmp_path: Path) -> None:
    """COCO's width and height, VOC's size, against the file as EXIF turns it."""
    half, turned = coco(tmp_path / "half"), coco(tmp_path / "turned")
    labels = coco_labels()
    for image in labels["images"]:  # type: ignore[attr-defined]
        image |= {"width": 2 * WIDTH, "height": 2 * HEIGHT}
    text(half / "annotations" / "labels.json", json.dumps(labels))
    for image in labels["images"]:  # type: ignore[attr-defined]
        image |= {"width": WIDTH, "height": HEIGHT}
    text(turned / "annotations" / "labels.json", json.dumps(labels))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(turned / "images" / "a.jpg", exif=exif)
    size = "<size><width>400</width><height>200</height></size>"
    boxes = voc(tmp_path / "voc", label=xml(voc_object(), size=size))
    for root, count in ((half, 2), (turned, 1), (boxes, 2)):
        told = [f for f in examine(root, RULE).findings if f.check == "another-size"]
        assert [(f.level, f.count) for f in told] == [("error", count)]
        data = read_dataset(root)
        warnings = dataset_warnings(data, class_map_for(data))
        assert any(f"{count} images have another size" in w for w in warnings)


def test_labels_none_of_which_can_be_read(folder: Folder) -> None:
    for i in "abcdefxyz":
        folder.write(i, [line.rstrip() + " 0.9\n" for line in folder.lines(i)])
    findings = examine(folder.root, RULE).findings
    assert findings[0].check == "malformed"
    assert "15 fields, this line has 16" in str(findings[0].where[0])


def test_val_without_objects(folder: Folder) -> None:
    for i in "xyz":
        folder.write(i, [])
    checks = [(f.level, f.check) for f in examine(folder.root, RULE).findings]
    assert ("warning", "unjudged") in checks


def test_leaks_between_data_sets(folder: Folder, tmp_path: Path) -> None:
    other = Folder(tmp_path / "other")
    for i in (*"abcdefxyz",):
        ImageOps.invert(Image.open(other.image(i)).rotate(90 if i in "xyz" else 180)).save(other.image(i))
    shutil.copy(folder.image("a"), other.image("z"))
    checks = [f.check for f in examine([folder.root, other.root], RULE).findings]
    assert checks == ["leak"]
    other.write("z", [label("Car", 1, 1, 90, 90)])
    findings = examine([folder.root, other.root], RULE).findings
    assert "with different labels" in str(findings[0].where[0])


def test_thousands_of_boxes_in_an_image_take_no_square_of_memory() -> None:
    x = np.arange(20_000, dtype=np.float32)
    xyxy = np.stack([x, x, x + 400, x + 400], axis=1)
    pairs = list(_alike(xyxy, np.arange(len(x))))
    assert len(pairs) == MAX_PAIRS
    spread = np.stack([x * 30, x, x * 30 + 400, x + 400], axis=1)
    spread[7] = spread[19_000]
    assert [(i, j) for i, j, _ in _alike(spread, np.arange(len(x)))] == [(7, 19_000)]


# ------------------------------------------------------------------ every layout

NO_AREA: dict[str, Callable[[Path], Path]] = {
    "kitti": lambda root: kitti(
        root, label=CAR + CAR.replace("27.31", "11.78", 1).replace("14.24 11.78 11.78", "14.24 11.78 14.24")
    ),
    "voc": lambda root: voc(root, label=xml(voc_object(), voc_object(box="11 21 10 60"))),
    "coco": lambda root: coco(root, coco_labels(annotations=[annotation(), annotation(id=2, bbox=[1, 2, 0, 4])])),
    "yolo": lambda root: yolo(root, "0 0.25 0.5 0.1 0.2\n1 0.5 0.5 0 0.2\n"),
}


@pytest.mark.parametrize("layout", NO_AREA)
def test_boxes_without_area(tmp_path: Path, layout: str) -> None:
    diagnosis = examine(NO_AREA[layout](tmp_path), InputRule(208, 96))
    assert diagnosis.dataset.layout == layout
    (finding,) = [f for f in diagnosis.findings if f.check == "no-area"]
    assert finding.count == (1 if layout == "coco" else 2)


@pytest.mark.parametrize("make", [kitti, voc, coco, yolo])
def test_equal_images_are_found(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    findings = examine(make(tmp_path), InputRule(208, 96)).findings
    # The folders' images are all of one colour: equal files, in one split or in two.
    expected = "leak" if make is yolo else "copies"
    assert [f.count for f in findings if f.check == expected] == [1]


# ------------------------------------------------------------ text, record, pictures


@pytest.fixture
def diagnosis(folder: Folder) -> Diagnosis:
    folder.append("a", label("Car", 270, 151, 303, 199), label("DontCare", 0, 0, 50, 50))
    folder.append("y", label("Car", 310, 10, 350, 40), label("Tram", 0, 60, 50, 80))
    folder.image("x").write_bytes(folder.image("b").read_bytes())
    return examine(folder.root, RULE)


def test_the_text_has_counts_sizes_and_findings(diagnosis: Diagnosis) -> None:
    text = describe(diagnosis)
    rows = [line.split() for line in text.splitlines()]
    assert ["Car", "car", "25", "13"] in rows
    assert ["Pedestrian", "pedestrian", "24", "12"] in rows
    assert ["DontCare", "(region)", "1", "0"] in rows
    assert ["Tram", "(background)", "0", "1"] in rows
    assert ["images", "300", "300", "300", "200", "200", "200"] in rows
    assert "error: outside: 1 box in 1 image wholly outside the image" in text
    assert text.endswith("2 errors, 2 warnings, 0 notes")


def test_the_record_is_json_with_every_place(diagnosis: Diagnosis) -> None:
    record = json.loads(json.dumps(to_dict(diagnosis)))
    assert record["splits"]["train"]["images"] == 6
    assert record["splits"]["val"]["classes"] == {"car": 13, "cyclist": 12, "pedestrian": 12}
    assert record["levels"] == {"error": 2, "warning": 2, "note": 0}
    places = {f["check"]: f["where"] for f in record["findings"]}
    assert places["leak"] == ["train/b = val/x"]
    assert places["beyond-edge"] == ["train/a box 12"]


def test_pictures_show_the_boxes_in_question(diagnosis: Diagnosis, tmp_path: Path) -> None:
    written = {path.name for path in write_pictures(tmp_path / "out", diagnosis)}
    assert written == {"leak-1.jpg", "outside-1.jpg", "beyond-edge-1.jpg"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == written
    with Image.open(tmp_path / "out" / "leak-1.jpg") as both:
        assert both.size == (300, 408)
    with Image.open(tmp_path / "out" / "beyond-edge-1.jpg") as picture:
        drawn = np.asarray(picture.convert("RGB"), dtype=int)
    green = np.abs(drawn - [0, 158, 115]).max(axis=-1) < 60
    assert green[155:195, 268:273].any(axis=1).mean() > 0.9  # the box's left side


def test_pictures_never_go_among_the_images(diagnosis: Diagnosis, folder: Folder) -> None:
    with pytest.raises(UsageError, match="image_2: holds images"):
        write_pictures(folder.root / "image_2", diagnosis)


@pytest.mark.shared
@pytest.mark.slow
def test_roads(shared: Path) -> None:
    diagnosis = examine(shared / "data" / "roads", InputRule(1248, 384))
    findings = {f.check: f for f in diagnosis.findings if f.check != "classes"}
    assert {check: (f.level, f.count) for check, f in findings.items()} == {
        "imbalance": ("warning", 1),
        "near-leak": ("warning", 4),
        "small": ("note", 2),
    }
    # A standing camera: the same two places, other people.
    pairs = {str(place).rsplit(" ", 1)[0] for place in findings["near-leak"].where}
    assert pairs == {
        "train/kitti_000000 ~ val/kitti_000070",
        "train/kitti_000028 ~ val/kitti_000070",
        "train/kitti_000054 ~ val/kitti_000070",
        "train/kitti_006121 ~ val/kitti_000074",
    }
    # 419 boxes are background.
    fates = [f.sentence.split(";")[0] for f in diagnosis.findings if f.check == "classes"]
    assert fates == [
        "'Truck' is no class: 330 objects learned as background",
        "'Van' is learned as 'car' (208 objects)",
        "'Misc' is no class: 89 objects learned as background",
    ]
