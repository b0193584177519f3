"""The VOC protocol against the devkit's port, and by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from squeezedet.data.sample import Objects
from squeezedet.errors import DataError
from squeezedet.evaluation.evaluate import read_only_labels
from squeezedet.evaluation.voc import ClassCurve, evaluate, read_detections, truth_of

from .scenes import found, labels

CAR = (100.0, 100.0, 199.0, 159.0)


@pytest.mark.shared
def test_both_definitions_are_the_ports(shared: Path) -> None:
    folder = shared / "vectors" / "voc_80"
    expected = json.loads((folder / "expected.json").read_text())
    truth = read_only_labels(folder, "imageset")
    detections = read_detections(folder / "detections", truth.ids)
    result = evaluate(truth.truth, detections, list(expected)).to_dict()["results"]
    for name, figures in expected.items():
        for figure, value in figures.items():
            assert result[name][figure] == pytest.approx(value, abs=1e-8)


def objects(*boxes: tuple[str, tuple[float, float, float, float]], difficult=()) -> Objects:
    flags = np.array([k in difficult for k in range(len(boxes))], dtype=bool)
    plain = labels(*boxes)
    return replace(plain, ignored=flags)


def test_a_repeated_detection_is_a_mistake_and_one_on_a_difficult_object_is_none() -> None:
    hard = (300.0, 100.0, 399.0, 159.0)
    truth = objects(("car", CAR), ("car", hard), difficult=[1])
    detections = found(("car", 0.9, hard), ("car", 0.8, hard), ("car", 0.7, CAR), ("car", 0.6, CAR))
    curve = evaluate([truth], [detections], ["car"]).results["car"]
    assert curve is not None
    assert (curve.objects, curve.detections) == (1, 4)
    assert curve.recall.tolist() == [0, 0, 1, 1]
    assert curve.precision.tolist() == [0, 0, 1, 0.5]
    assert curve.ap11 == curve.ap_area == 1


def test_boxes_are_inclusive_and_half_an_overlap_is_too_little() -> None:
    # 10 pixels against 5 of them is exactly one half; against 6 it is more.
    truth = objects(("car", (0.0, 0.0, 9.0, 9.0)))
    half = evaluate([truth], [found(("car", 0.9, (0.0, 0.0, 4.0, 9.0)))], ["car"])
    more = evaluate([truth], [found(("car", 0.9, (0.0, 0.0, 5.0, 9.0)))], ["car"])
    assert (half.map_area, more.map_area) == (0, 1)


def test_the_area_uses_the_best_precision_to_the_right() -> None:
    recall, precision = np.array([0.25, 0.5, 0.5, 1.0]), np.array([1, 0.5, 0.4, 0.8])
    assert ClassCurve(4, 4, recall, precision).ap_area == pytest.approx(0.25 + 0.75 * 0.8)


def test_a_class_that_was_never_detected_has_no_result() -> None:
    result = evaluate([objects(("dog", CAR))], [found(("car", 0.9, CAR))], ["car", "dog"])
    assert result.results["dog"] is None
    # Detected, but there is none to find.
    assert result.to_dict()["results"]["car"]["objects"] == 0
    assert result.map11 == 0


def test_dontcare_is_difficult_for_every_class() -> None:
    truth = truth_of(labels(("Car", CAR), ("DontCare", CAR), ("Tram", CAR)), ["car", "cyclist"])
    assert truth.types == ("Car", "car", "cyclist")
    assert truth.ignored.tolist() == [False, True, True]


def test_bad_files_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "Annotations"
    folder.mkdir()
    with pytest.raises(DataError, match=r"no labels \(\*\.xml\)"):
        read_only_labels(tmp_path)
    with pytest.raises(DataError, match=r"no val\.txt"):
        read_only_labels(tmp_path, "val")
    with pytest.raises(DataError, match="no detections"):
        read_detections(tmp_path, ["a"])
    (folder / "a.xml").write_text("<annotation><object><name>car</name></object></annotation>")
    with pytest.raises(DataError, match="object 1 has no complete bndbox"):
        read_only_labels(tmp_path)
    for line, sentence in [
        ("a 0.5 1 2 3", r"car\.txt:1: a detection has 6 fields"),
        ("b 0.5 1 2 3 4", r"car\.txt:1: detection in 'b', an image without labels"),
        ("a 0.5 1 2 3 x", r"car\.txt:1: 'x' is not a number"),
        ("a nan 1 2 3 4", r"car\.txt:1: nan is not finite"),
        ("a 0.5 3 2 1 4", r"car\.txt:1: the box .* x2 < x1"),
    ]:
        (tmp_path / "car.txt").write_text(line)
        with pytest.raises(DataError, match=sentence):
            read_detections(tmp_path, ["a"])
