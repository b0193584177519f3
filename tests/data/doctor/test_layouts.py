"""The doctor reads every layout; a fault that each can have is found in each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from squeezedet.data.doctor.checks import examine
from squeezedet.preprocess import InputRule

from ..folders import CAR, annotation, coco, coco_labels, kitti, voc, voc_object, xml, yolo

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
