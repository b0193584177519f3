"""Small data sets on disk, and random labels, for the tests of every layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from squeezedet.data.dataset import Dataset, Layout
from squeezedet.data.sample import Objects, Sample

WIDTH, HEIGHT = 200, 100
CAR = "Car 0.12 1 1.55 14.24 11.78 27.31 34.77 1.57 1.73 4.15 1.00 1.75 13.22 1.62\n"


def picture(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def text(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def kitti(root: Path, ids: Sequence[str] = ("a", "b"), label: str = CAR) -> Path:
    for i in ids:
        picture(root / "image_2" / f"{i}.png")
        text(root / "label_2" / f"{i}.txt", label)
    return root


def xml(*objects: str, size: str = "") -> str:
    return f"<annotation>{size}\n" + "\n".join(objects) + "\n</annotation>"


def voc_object(name: str = "car", box: str = "11 21 50 60", extra: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
    inner = "".join(f"<{k}>{v}</{k}>" for k, v in sides)
    return f"<object><name>{name}</name>{extra}<bndbox>{inner}</bndbox></object>"


def voc(root: Path, ids: Sequence[str] = ("a", "b"), label: str | None = None) -> Path:
    for i in ids:
        picture(root / "JPEGImages" / f"{i}.jpg")
        text(root / "Annotations" / f"{i}.xml", label or xml(voc_object()))
    return root


def coco_labels(
    files: Sequence[str] = ("a.jpg", "b.jpg"),
    annotations: Sequence[Mapping[str, object]] = (),
    names: Mapping[int, str] = {1: "car", 3: "bus"},
) -> dict[str, object]:
    return {
        "images": [{"id": k, "file_name": f} for k, f in enumerate(files, start=10)],
        "annotations": list(annotations) or [annotation()],
        "categories": [{"id": k, "name": n} for k, n in names.items()],
    }


def annotation(**changes: object) -> dict[str, object]:
    return {"id": 1, "image_id": 10, "category_id": 1, "bbox": [10, 20, 40, 40]} | changes


def coco(root: Path, labels: object = None, images: str = "images", file: str = "annotations/labels.json") -> Path:
    for name in ("a.jpg", "b.jpg"):
        picture(root / images / name)
    text(root / file, json.dumps(labels or coco_labels()))
    return root


YAML = "train: images/train\nval: images/val\nnames: [car, bus]\n"


def yolo(root: Path, label: str = "0 0.25 0.5 0.1 0.2\n", yaml: str = YAML) -> Path:
    for split, name in (("train", "a"), ("val", "b")):
        picture(root / "images" / split / f"{name}.jpg")
        text(root / "labels" / split / f"{name}.txt", label)
    text(root / "data.yaml", yaml)
    return root


# --------------------------------------------------------------- random labels

TYPES = ("Car", "traffic light", "DontCare", "quote\"'&<:#", "Straße")
# Hundredths of a pixel, as KITTI's labels have them.
left = st.integers(0, 99 * WIDTH).map(lambda n: n / 100)
top = st.integers(0, 99 * HEIGHT).map(lambda n: n / 100)
side = st.integers(10, 5000).map(lambda n: n / 100)
rows = st.tuples(st.sampled_from(TYPES), left, top, side, side, st.booleans(), st.booleans())


@st.composite
def label_sets(draw: st.DrawFn) -> list[Objects]:
    """The objects of up to three images, at least one object in all; boxes may leave the image."""
    tables = draw(st.lists(st.lists(rows, max_size=4), min_size=1, max_size=3))
    tables[0] = tables[0] or [draw(rows)]
    return [objects(table) for table in tables]


def objects(table: Sequence[tuple[str, float, float, float, float, bool, bool]]) -> Objects:
    types = tuple(row[0] for row in table)
    region = np.array([t == "DontCare" for t in types], dtype=bool)
    truncated = np.array([0.5 * row[5] for row in table])
    return Objects(
        types,
        np.array([(x, y, x + w, y + h) for _, x, y, w, h, _, _ in table], np.float32).reshape(-1, 4),
        np.where(region, -1, truncated).astype(np.float32),
        np.where(region, -1, [int(row[5]) for row in table]).astype(np.int64),
        np.array([row[6] for row in table], dtype=bool) & ~region,
    )


def dataset(folder: Path, sets: Sequence[Objects], layout: Layout) -> Dataset:
    """Samples of made labels; the first image is in ``train``, all are in ``val``."""
    samples = tuple(Sample(f"im{k}", picture(folder / f"im{k}.png"), o) for k, o in enumerate(sets))
    return Dataset(folder, layout, {"train": samples[:1], "val": samples}, TYPES)
