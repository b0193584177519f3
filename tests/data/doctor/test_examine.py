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
from squeezedet.data.doctor.checks import MAX_PAIRS, _alike, examine
from squeezedet.preprocess import InputRule

from ..folders import HEIGHT, WIDTH, coco, coco_labels, text, voc, voc_object, xml
from .planted import Folder, label

RULE = InputRule(304, 208)
Plant = Callable[[Folder], object]


def found(root: Path, rule: InputRule = RULE) -> list[tuple[str, str, int]]:
    return [(f.level.value, f.check, f.count) for f in examine(root, rule).findings]


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
    "a slip of a digit": (lambda f: f.append("d", label("Car", 5, 60, 290, 70)), ("note", "long", 1), "train/d box 12"),
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
    assert (finding.level.value, finding.check, finding.count) == expected
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
        assert [(f.level.value, f.count) for f in told] == [("error", count)]
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
    checks = [(f.level.value, f.check) for f in examine(folder.root, RULE).findings]
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
