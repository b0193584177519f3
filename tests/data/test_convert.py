"""From one layout to another and back."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from squeezedet.data.convert import LOSSES_FILE, convert, new_folder
from squeezedet.data.dataset import Dataset, Layout, class_map_for, read_dataset
from squeezedet.data.sample import KITTI_DEFAULT, ClassMap, Objects, Sample
from squeezedet.errors import DataError, SqueezeDetError, UsageError

from . import folders
from .folders import dataset, kitti, label_sets, objects, picture, text, yolo

PIXELS = {"kitti": 0.0051, "voc": 0.0006, "coco": 0.0011, "yolo": 1e-4}
"""How exact each layout is."""
FULL = 1e-3  # what float32 adds


def said(sample: Sample, *via: Layout) -> tuple[object, ...]:
    """What of an image's labels survives these layouts, boxes aside."""
    o = sample.objects
    types, ignored = list(o.types), o.ignored.copy()
    truncated, occluded = o.truncated.tolist(), o.occluded.tolist()
    for layout in via:
        if layout in ("kitti", "yolo"):
            types = ["DontCare" if i else t for t, i in zip(types, ignored, strict=True)]
            ignored[:] = False
        if layout == "kitti":
            types = [t.replace(" ", "_") for t in types]
        if layout in ("coco", "yolo"):
            truncated = occluded = [0.0] * len(types)
    cut = [(t, k) if n != "DontCare" else () for n, t, k in zip(types, truncated, occluded)]  # noqa: B905
    return types, ignored.tolist(), cut


@pytest.mark.parametrize("via", [pair for k in (1, 2) for pair in itertools.permutations(PIXELS, k)], ids="-".join)
@settings(max_examples=8)
@given(sets=label_sets())
def test_round_trips_lose_nothing_that_both_can_say(
    tmp_path_factory: pytest.TempPathFactory, via: tuple[Layout, ...], sets: list[Objects]
) -> None:
    folder = tmp_path_factory.mktemp("set")
    other = next(layout for layout in PIXELS if layout != via[0])
    now = first = dataset(folder / "images", sets, other)  # type: ignore[arg-type]
    for layout in via:
        done = convert(now, folder / layout, layout)
        assert done.splits == {"train": 1, "val": len(sets)}
        now = read_dataset(folder / layout, max_skipped=1)
        assert now.layout == layout
        assert not now.skipped
    allowed = sum(PIXELS[layout] + 1e-4 for layout in via)
    for split, samples in first.splits.items():
        for before, after in zip(samples, now.splits[split], strict=True):
            assert after.id == before.id
            keep = inside(before.objects) if "yolo" in via else slice(None)
            kept = Sample(before.id, before.image, chosen(before.objects, keep))
            assert said(after) == said(kept, *via)
            expected = kept.objects.xyxy
            if "yolo" in via:  # it cuts what its numbers cannot say
                expected = np.where(np.abs(expected - after.objects.xyxy) > 0.1, after.objects.xyxy, expected)
                assert (np.abs(kept.objects.xyxy - expected).max(axis=1) == 0)[whole(kept.objects)].all()
            assert np.abs(after.objects.xyxy - expected).max(initial=0) <= allowed
            assert after.image.read_bytes() == before.image.read_bytes()


def inside(o: Objects) -> np.ndarray:
    return (o.xyxy[:, 0] < folders.WIDTH) & (o.xyxy[:, 1] < folders.HEIGHT)


def whole(o: Objects) -> np.ndarray:
    return (o.xyxy[:, 2] <= folders.WIDTH) & (o.xyxy[:, 3] <= folders.HEIGHT)


def chosen(o: Objects, keep: object) -> Objects:
    types = tuple(np.array(o.types, dtype=object)[keep].tolist())
    return Objects(types, o.xyxy[keep], o.truncated[keep], o.occluded[keep], o.ignored[keep])


def test_what_is_lost_is_counted_and_listed(tmp_path: Path) -> None:
    table = [
        ("Car", 10, 10, 20, 20, True, True),
        ("Car", 10, 10, 20, 20, False, False),
        ("Straße", 10, 10, 20, 20, True, False),
        ("Car", 190, 10, 50, 20, False, False),
        ("Car", 201, 10, 50, 20, False, False),
    ]
    done = convert(dataset(tmp_path / "i", [objects(table)], "voc"), tmp_path / "y", "yolo")
    assert done.lost == {
        "truncation is not in YOLO": 2,
        "occlusion is not in YOLO": 2,
        "the class of an ignored object: a class DontCare says so": 1,
        "the box, all of it outside the image": 1,
        "what of the box is outside the image": 1,
    }
    assert done.listed == tmp_path / "y" / LOSSES_FILE
    rows = [line.split("\t") for line in done.listed.read_text().splitlines()]
    assert ["im0", "3", "occlusion is not in YOLO"] in rows
    assert len(rows) == 1 + sum(done.lost.values())
    labels = (tmp_path / "y" / "labels" / "im0.txt").read_text().splitlines()
    assert [line.split()[0] for line in labels] == ["2", "0", "4", "0"]
    cut = np.array(labels[3].split()[1:], float)
    assert cut == pytest.approx([0.975, 0.2, 0.05, 0.2])


def test_an_ignored_object_is_a_region_of_kitti(tmp_path: Path) -> None:
    table = [("Car", 10, 10, 20, 20, True, True), ("DontCare", 1, 1, 2, 2, False, False)]
    convert(dataset(tmp_path / "i", [objects(table)], "voc"), tmp_path / "k", "kitti")
    lines = (tmp_path / "k" / "label_2" / "im0.txt").read_text().splitlines()
    assert [line.split()[:3] for line in lines] == [["DontCare", "-1.00", "-1"]] * 2


def test_skipped_labels_are_listed_too(tmp_path: Path) -> None:
    kitti(tmp_path / "k", label=folders.CAR * 2 + folders.CAR.replace("27.31", "14.24"))
    read = read_dataset(tmp_path / "k", max_skipped=0.5)
    done = convert(read, tmp_path / "c", "coco")
    assert done.objects == 4
    assert done.listed is not None
    assert "b.txt\t3\tthe box of Car has no area" in done.listed.read_text()


def test_nothing_to_list(tmp_path: Path) -> None:
    done = convert(read_dataset(yolo(tmp_path / "y")), tmp_path / "deep" / "k", "kitti")
    assert done.listed is None
    assert done.lost == {}
    names = {p.name for p in (tmp_path / "deep" / "k").iterdir()}
    assert names == {"image_2", "label_2", "ImageSets"}
    assert (tmp_path / "deep" / "k").stat().st_mode & 0o777 == 0o777 & ~umask()
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "k"]


def umask() -> int:
    from squeezedet.files import MODE

    return 0o666 & ~MODE


def test_images_are_linked(tmp_path: Path) -> None:
    convert(read_dataset(kitti(tmp_path / "k")), tmp_path / "v", "voc")
    assert (tmp_path / "v" / "JPEGImages" / "a.png").samefile(tmp_path / "k" / "image_2" / "a.png")


def test_images_of_one_name_get_names_of_their_own(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("a b", "A_b", "c"):
            picture(tmp_path / "y" / "images" / split / f"{name}.jpg")
            text(tmp_path / "y" / "labels" / split / f"{name}.txt", "0 0.5 0.5 0.1 0.1\n")
    text(tmp_path / "y" / "data.yaml", folders.YAML)
    convert(read_dataset(tmp_path / "y"), tmp_path / "k", "kitti")
    again = read_dataset(tmp_path / "k")
    assert {k: sorted(s.id for s in v) for k, v in again.splits.items()} == {
        "train": ["train_A_b", "train_a_b_2", "train_c"],
        "val": ["val_A_b", "val_a_b_2", "val_c"],
    }


def test_refusals(tmp_path: Path) -> None:
    read = read_dataset(kitti(tmp_path / "k"))
    assert convert(read, tmp_path / "again", "kitti").splits == {"all": 2}
    with pytest.raises(UsageError, match="exists already and is not empty"):
        convert(read, tmp_path / "k", "voc")
    odd = Dataset(tmp_path, "kitti", read.splits, ("Ca\nr",))
    with pytest.raises(DataError, match=r"'Ca\\nr' holds what cannot be printed"):
        convert(odd, tmp_path / "x", "voc")
    alike = Dataset(tmp_path, "voc", read.splits, ("a b", "a_b"))
    with pytest.raises(DataError, match="two of a b, a_b become one"):
        convert(alike, tmp_path / "x", "kitti")
    (tmp_path / "k" / "image_2" / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.png: not an image"):
        convert(read, tmp_path / "x", "voc")
    with pytest.raises(SqueezeDetError, match="cannot be written"):
        convert(read, text(tmp_path / "f", "") / "x", "voc")
    assert {p.name for p in tmp_path.iterdir()} == {"k", "f", "again"}


def test_an_image_with_other_labels_in_another_split(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    two = [Sample("a", image, objects([("Car", x, 10, 20, 20, False, False)])) for x in (10, 20)]
    read = Dataset(tmp_path, "coco", {"train": (two[0],), "val": (two[1],)}, ("Car",))
    with pytest.raises(DataError, match=r"a\.png: has different labels in two splits"):
        convert(read, tmp_path / "x", "voc")


def test_a_new_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "empty") as folder:
        text(folder / "half", "x")
        raise KeyboardInterrupt
    assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]
    with new_folder(tmp_path / "empty") as folder:
        text(folder / "whole", "x")
    assert (tmp_path / "empty" / "whole").read_text() == "x"


@pytest.mark.shared
@pytest.mark.parametrize("layout", ["kitti", "voc", "coco", "yolo"])
def test_the_real_roads(shared: Path, tmp_path: Path, layout: Layout) -> None:
    """The same boxes, types, order and classes: such copies train alike."""
    roads = read_dataset(shared / "data" / "roads")
    convert(roads, tmp_path / layout, layout)
    copy = read_dataset(tmp_path / layout)
    convert(copy, tmp_path / "back", "kitti")
    back = read_dataset(tmp_path / "back")
    assert copy.types == roads.types == ("Car", "DontCare", "Pedestrian", "Truck", "Van", "Cyclist", "Misc")
    assert class_map_for(back) == class_map_for(roads) == KITTI_DEFAULT
    # KITTI's own classes are the default in KITTI's layout; elsewhere every type is one.
    own = ("Car", "Pedestrian", "Truck", "Van", "Cyclist", "Misc")
    assert class_map_for(copy) == (KITTI_DEFAULT if layout == "kitti" else ClassMap(own, regions=("DontCare",)))
    named = [class_map_for(data, ["car", "pedestrian", "cyclist"], {"van": "car"}) for data in (roads, copy)]
    assert (
        named[0].class_ids(roads.types).tolist() == named[1].class_ids(roads.types).tolist() == [0, -1, 1, -1, 0, 2, -1]
    )
    for split, samples in roads.splits.items():
        for a, b, c in zip(samples, copy.splits[split], back.splits[split], strict=True):
            assert a.id == b.id == c.id
            assert a.objects.types == b.objects.types == c.objects.types
            assert np.abs(a.objects.xyxy - b.objects.xyxy).max(initial=0) <= 2e-6
            assert np.array_equal(a.objects.xyxy, c.objects.xyxy)


def test_a_split_that_is_a_path_writes_nothing(tmp_path: Path) -> None:
    root = kitti(tmp_path / "data")
    rows = [f"{sample.id}\t../../escaped" for sample in read_dataset(root).samples()]
    text(root / "manifest.tsv", "\n".join(["id\tsplit", *rows, ""]))
    with pytest.raises(DataError, match=r"the split '\.\./\.\./escaped' cannot be the name of a file"):
        convert(read_dataset(root), tmp_path / "a" / "b" / "out", "kitti")
    assert not list(tmp_path.rglob("escaped*"))
