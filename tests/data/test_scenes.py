"""Drawn scenes: reproducible, their labels exact, and readable as a KITTI folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from squeezedet.data import scenes
from squeezedet.data.dataset import read_split
from squeezedet.data.scenes import KINDS, Actor, Painter, generate, write_folder
from squeezedet.errors import UsageError

WIDTH, HEIGHT = 312, 96


def test_the_seed_decides_everything() -> None:
    (one, labels), (again, same) = generate(7, WIDTH, HEIGHT), generate(7, WIDTH, HEIGHT)
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(labels.xyxy, same.xyxy)
    assert not np.array_equal(one, generate(8, WIDTH, HEIGHT)[0])
    assert one.shape == (HEIGHT, WIDTH, 3)
    assert one.dtype == np.uint8


def test_labels_are_boxes_inside_the_picture_and_kinds_are_mixed() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(60):
        objects = generate(seed, WIDTH, HEIGHT)[1]
        kinds.update(objects.types)
        assert (objects.xyxy[:, :2] >= 0).all()
        assert (objects.xyxy[:, 2:] <= [WIDTH, HEIGHT]).all()
        assert (objects.xyxy[:, 2:] - objects.xyxy[:, :2] >= 1).all()
        regions = np.array([t == "DontCare" for t in objects.types], dtype=bool)
        assert set(objects.occluded[regions].tolist()) <= {-1}
        assert set(objects.occluded[~regions].tolist()) <= {0, 1, 2}
    assert set(KINDS) <= set(kinds)
    assert kinds["Car"] == max(kinds.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_is_the_extent_of_what_was_drawn(kind: str) -> None:
    painter = Painter(np.random.default_rng(1), WIDTH, HEIGHT)
    actor = Actor(kind, 0.5, 9.0, 0.8, length=1.8, width=0.8, height=1.6)
    painter.begin(1)
    actor.draw(painter, np.random.default_rng(3))
    rows, columns = np.nonzero(np.asarray(painter.owners))
    seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / scenes.SCALE
    np.testing.assert_allclose(painter.extent(), seen, atol=1)
    assert painter.silhouette() == len(rows)


def test_what_a_nearer_thing_covers_is_occluded_and_keeps_its_box() -> None:
    painter = Painter(np.random.default_rng(1), WIDTH, HEIGHT)
    boxes, totals = [], []
    cars = [Actor("Car", x, z, 0.0, 4.2, 1.8, 1.5) for x, z in ((1.0, 20.0), (0.0, 12.0))]
    for number, car in enumerate(cars, start=1):
        painter.begin(number)
        car.draw(painter, np.random.default_rng(5))
        boxes.append(painter.extent())
        totals.append(painter.silhouette())
    seen = np.bincount(np.asarray(painter.owners).ravel())[1:]
    objects = scenes._labels(["Car", "Car"], boxes, totals, seen, WIDTH, HEIGHT)
    np.testing.assert_allclose(objects.xyxy, boxes[::-1], rtol=1e-6)
    assert objects.occluded[0] == 0
    assert objects.occluded[1] > 0


def test_a_folder_is_read_back_as_it_was_drawn(tmp_path: Path) -> None:
    write_folder(str(tmp_path), 5, seed=11, width=WIDTH, height=HEIGHT, val_fraction=0.2)
    train, val = read_split(tmp_path, "train"), read_split(tmp_path, "val")
    assert [sample.id for sample in train + val] == [f"{i:06d}" for i in range(5)]
    assert len(val) == 1
    for i, sample in enumerate(train + val):
        image, objects = generate(11 + i, WIDTH, HEIGHT)
        assert sample.objects.types == objects.types
        np.testing.assert_allclose(sample.objects.xyxy, objects.xyxy, atol=0.006)
        np.testing.assert_allclose(sample.objects.truncated, objects.truncated, atol=0.006)
        np.testing.assert_array_equal(sample.objects.occluded, objects.occluded)
        read = np.asarray(Image.open(sample.image), dtype=float)
        assert np.abs(read - image).mean() < 6


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seed"):
        generate(-1)
    with pytest.raises(UsageError, match="64x32"):
        generate(0, 20, 20)
    with pytest.raises(UsageError, match="at least one"):
        write_folder(tmp_path, 0)
    with pytest.raises(UsageError, match="val fraction"):
        write_folder(tmp_path, 1, val_fraction=1.5)
