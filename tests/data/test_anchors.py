"""Anchors: planted clusters are found, fits are what arithmetic says, scaling follows the rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from squeezedet.boxes import iou
from squeezedet.data.anchors import (
    ANCHORS_A,
    ANCHORS_B,
    Method,
    anchors_for,
    cluster,
    input_shapes,
    measure,
    shape_iou,
    whole_pixels,
)
from squeezedet.data.sample import KITTI_DEFAULT, Objects, Sample
from squeezedet.errors import DataError
from squeezedet.preprocess import InputRule

from .folders import picture

METHODS: tuple[Method, ...] = ("euclidean", "iou")
Shapes = NDArray[np.float64]
shapes = st.lists(st.tuples(st.floats(0.5, 2000), st.floats(0.5, 2000)), min_size=1, max_size=30).map(
    lambda rows: np.array(rows, dtype=np.float64)
)


def sample(image: Path, *rows: tuple[str, tuple[float, float]], ignored: int = -1) -> Sample:
    """Objects of given types and sizes."""
    n = len(rows)
    xyxy = np.array([(5, 5, 5 + w, 5 + h) for _, (w, h) in rows], np.float32).reshape(-1, 4)
    flags = np.arange(n) == ignored
    none = np.zeros(n, np.int64)
    return Sample("a", image, Objects(tuple(t for t, _ in rows), xyxy, none.astype(np.float32), none, flags))


@given(shapes, shapes)
def test_shape_iou_is_the_iou_of_boxes_with_one_corner(a: Shapes, b: Shapes) -> None:
    def boxes(s: Shapes) -> Shapes:
        return np.concatenate([np.zeros_like(s), s], axis=1)

    np.testing.assert_allclose(shape_iou(a, b), iou(boxes(a), boxes(b)), rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_planted_clusters_are_found(method: Method) -> None:
    centres = np.array([(30, 25), (40, 90), (120, 60), (300, 180)])
    random = np.random.default_rng(1)
    around = np.concatenate([c + random.uniform(-4, 4, (50, 2)) for c in centres])
    found = cluster(random.permutation(around), 4, method)
    assert np.abs(found[np.argsort(found.prod(axis=1))] - centres).max() < 1.5


@given(shapes, st.integers(1, 6), st.sampled_from(METHODS), st.integers(0, 5))
def test_centres_are_the_same_for_one_seed_and_lie_among_the_shapes(
    data: Shapes, k: int, method: Method, seed: int
) -> None:
    if len(np.unique(data, axis=0)) < k:
        with pytest.raises(DataError, match="ask for fewer anchors"):
            cluster(data, k, method, seed)
        return
    centres = cluster(data, k, method, seed)
    assert (centres == cluster(data, k, method, seed)).all()
    assert centres.shape == (k, 2)
    assert (centres >= data.min(axis=0) * (1 - 1e-9)).all()
    assert (centres <= data.max(axis=0) * (1 + 1e-9)).all()


@given(shapes)
def test_as_many_centres_as_shapes_fit_exactly(data: Shapes) -> None:
    data = np.unique(np.rint(data) + 1, axis=0)
    for method in METHODS:
        assert (np.unique(cluster(data, len(data), method), axis=0) == data).all()


def test_each_method_is_best_by_its_own_measure() -> None:
    random = np.random.default_rng(3)
    data = np.exp(random.normal([3.5, 3.2], [0.9, 0.6], (800, 2)))
    by = {method: cluster(data, 5, method) for method in METHODS}

    def squared(centres: Shapes) -> float:
        return float(np.square(data[:, None] - centres).sum(-1).min(1).sum())

    def unlike(centres: Shapes) -> float:
        return float((1 - shape_iou(data, centres)).min(1).sum())

    assert squared(by["euclidean"]) < 0.95 * squared(by["iou"])
    assert unlike(by["iou"]) < 0.95 * unlike(by["euclidean"])


def test_boxes_are_scaled_to_the_input_and_only_objects_count(tmp_path: Path) -> None:
    half = sample(
        picture(tmp_path / "half.png", (608, 304)),
        ("Car", (40, 20)),
        ("Van", (80, 60)),
        ("DontCare", (10, 10)),
        ("Tram", (10, 10)),
        ("Cyclist", (0, 20)),
        ("Pedestrian", (10, 30)),
        ignored=5,
    )
    same = sample(picture(tmp_path / "same.png", (304, 152)), ("Pedestrian", (10, 30)))
    rule = InputRule(304, 152, fixed=True)
    found, class_id = input_shapes([half, same], KITTI_DEFAULT, rule)
    assert found.tolist() == [[20, 10], [40, 30], [10, 30]]
    assert class_id.tolist() == [0, 0, 1]
    assert anchors_for([half, same], KITTI_DEFAULT, rule, k=3) == ((20, 10), (10, 30), (40, 30))
    with pytest.raises(DataError, match="the data has 3"):
        anchors_for([half, same], KITTI_DEFAULT, rule, k=4)


def test_a_fit_is_the_mean_of_best_ious() -> None:
    data = np.array([[10, 10], [20, 10], [10, 40], [10, 41]], dtype=float)
    fit = measure("x", ((10, 40), (10, 10)), data, np.array([0, 0, 2, 2]), ("a", "b", "c"))
    assert fit.anchors == ((10, 10), (10, 40))
    assert fit.objects == 4
    assert fit.mean_iou == pytest.approx((1 + 0.5 + 1 + 40 / 41) / 4)
    assert fit.good_share == 0.75  # 0.5 is not above 0.5
    assert list(fit.classes) == ["a", "c"]
    assert fit.classes["a"].mean_iou == pytest.approx(0.75)
    with pytest.raises(DataError, match="nothing to fit"):
        measure("x", ANCHORS_A, np.empty((0, 2)), np.empty(0, np.int64), ())


def test_whole_pixels_are_sorted_and_never_zero() -> None:
    assert whole_pixels(np.array([[30.4, 2.5], [0.2, 9.0], [9.0, 0.9]])) == ((1, 9), (9, 1), (30, 2))


@pytest.mark.shared
def test_built_in_sets_on_roads(shared: Path) -> None:
    from squeezedet.data.dataset import read_split

    train = read_split(shared / "data" / "roads", "train")
    found, class_id = input_shapes(train, KITTI_DEFAULT, InputRule(1248, 384))
    names = KITTI_DEFAULT.names
    a, b = (measure(n, s, found, class_id, names) for n, s in (("A", ANCHORS_A), ("B", ANCHORS_B)))
    own = measure("own", whole_pixels(cluster(found, 9)), found, class_id, names)
    assert (a.mean_iou, b.mean_iou) == (pytest.approx(0.660, abs=1e-3), pytest.approx(0.636, abs=1e-3))
    assert own.mean_iou > 0.70
