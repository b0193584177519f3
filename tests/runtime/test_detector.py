"""The shipped detector, from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import squeezedet
from squeezedet.boxes import iou
from squeezedet.data.synthetic import generate
from squeezedet.errors import DataError, UsageError
from squeezedet.media.images import Frame
from squeezedet.runtime.detector import Detector


@pytest.fixture(scope="module")
def detector() -> Detector:
    return squeezedet.load("squeezedet", threads=1)


def test_path_image_and_array_give_the_same(detector: Detector, tmp_path: Path) -> None:
    pixels, _ = generate(1, 624, 192)
    path = tmp_path / "street.png"
    Image.fromarray(pixels).save(path)
    answers = [
        detector(source, score=0.01) for source in (path, str(path), Image.open(path), pixels)
    ]
    assert len(answers[0]) > 0
    for answer in answers[1:]:
        assert np.array_equal(answer.xyxy, answers[0].xyxy)
        assert np.array_equal(answer.score, answers[0].score)
    assert answers[0].image == str(path)
    assert (answers[0].width, answers[0].height) == (624, 192)
    assert set(answers[0].timing_ms) == {"load", "preprocess", "network", "postprocess"}


def test_boxes_are_in_pixels_of_the_original(detector: Detector) -> None:
    """Twice the picture gives twice the boxes: both reach the network at one size."""
    pixels, _ = generate(2, 1248, 384)
    double = np.asarray(Image.fromarray(pixels).resize((2496, 768), Image.Resampling.BILINEAR))
    small, large = detector(pixels, score=0.5), detector(double, score=0.5)
    assert len(small) > 0
    overlap = iou(small.xyxy * 2, large.xyxy).max(axis=1)
    assert np.median(overlap) > 0.9
    assert small.xyxy.min() >= 0
    assert small.xyxy[:, [0, 2]].max() <= 1248
    assert small.xyxy[:, [1, 3]].max() <= 384


def test_score_orders_and_filters(detector: Detector) -> None:
    pixels, _ = generate(2, 1248, 384)
    every, some = detector(pixels, score=0.0), detector(pixels, score=0.3)
    assert (np.diff(every.score) <= 0).all()
    assert len(every) <= 64
    assert len(some) == int((every.score >= 0.3).sum())


def test_raw_boxes_are_those_of_every_anchor(detector: Detector) -> None:
    pixels, _ = generate(2, 1248, 384)
    raw = detector.raw(Frame(pixels))
    assert raw.xyxy.shape == (16_848, 4)
    assert raw.score.max() == pytest.approx(detector(pixels, score=0.0).score[0])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
        42,
    ],
)
def test_what_is_no_image_is_refused(detector: Detector, image: object) -> None:
    with pytest.raises(DataError):
        detector(image)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (7, 900)])
def test_odd_shapes(detector: Detector, shape: tuple[int, int]) -> None:
    found = detector(np.full((*shape, 3), 128, np.uint8))
    assert (found.width, found.height) == shape[::-1]


def test_no_threads_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="threads"):
        squeezedet.load(threads=0)


def test_the_face_of_the_package() -> None:
    assert squeezedet.Detector is Detector
    assert "load" in dir(squeezedet)
    with pytest.raises(AttributeError):
        _ = squeezedet.no_such_thing
