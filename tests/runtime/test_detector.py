"""The shipped detector, from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import squeezedet
from squeezedet.boxes import iou
from squeezedet.data.scenes import generate
from squeezedet.errors import DataError, UsageError
from squeezedet.media.images import Frame
from squeezedet.runtime import bundle
from squeezedet.runtime.detector import Detector


@pytest.fixture(scope="module")
def detector() -> Detector:
    return squeezedet.load("street", threads=1)


def test_path_image_and_array_give_the_same(detector: Detector, tmp_path: Path) -> None:
    pixels, _ = generate(1, 624, 192)
    path = tmp_path / "street.png"
    Image.fromarray(pixels).save(path)
    answers = [detector(source, score=0.01) for source in (path, str(path), Image.open(path), pixels)]
    assert len(answers[0]) > 0
    for answer in answers[1:]:
        assert np.array_equal(answer.xyxy, answers[0].xyxy)
        assert np.array_equal(answer.score, answers[0].score)
    assert answers[0].image == str(path)
    assert (answers[0].width, answers[0].height) == (624, 192)
    assert set(answers[0].timing_ms) == {"load", "preprocess", "network", "postprocess"}


def encoded(pixels: NDArray[np.uint8], kind: str) -> Image.Image:
    picture = Image.fromarray(pixels)
    if kind == "16-bit":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 256 + 77)
    if kind == "transparent":
        clear = np.arange(pixels.shape[1]).astype(np.uint8)[None].repeat(pixels.shape[0], 0)
        picture.putalpha(Image.fromarray(clear))
    return picture


@pytest.mark.parametrize("kind", ["16-bit", "transparent", "turned"])
def test_an_open_picture_is_seen_as_its_file(detector: Detector, tmp_path: Path, kind: str) -> None:
    pixels, _ = generate(1, 624, 192)
    path = tmp_path / "street.png"
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "turned" else 1
    encoded(pixels, kind).save(path, exif=exif)
    picture = Image.open(path)
    size, mode = picture.size, picture.mode
    file, opened = detector(path, score=0.0), detector(picture, score=0.0)
    assert len(file) > 0
    assert (file.width, file.height) == ((192, 624) if kind == "turned" else (624, 192))
    assert (opened.width, opened.height) == (file.width, file.height)
    assert np.array_equal(opened.xyxy, file.xyxy)
    assert np.array_equal(opened.score, file.score)
    assert (picture.size, picture.mode) == (size, mode)


def test_a_picture_that_turns_out_to_be_damaged(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    Image.fromarray(generate(1, 624, 192)[0]).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with Image.open(path) as picture, pytest.raises(DataError, match="damaged"):
        detector(picture)


def test_boxes_are_in_pixels_of_the_original(detector: Detector) -> None:
    """The nearest car is found where it stands, also in a picture of twice the size."""
    picture = Image.open(bundle.WEIGHTS / "demo.jpg")
    car = np.array([[425, 175, 496, 223]], np.float32)
    double = np.asarray(picture.resize((2496, 768), Image.Resampling.BILINEAR))
    small, large = detector(np.asarray(picture)), detector(double)
    assert iou(car, small.xyxy).max() > 0.6
    assert iou(car * 2, large.xyxy).max() > 0.6
    assert iou(car, large.xyxy).max() < 0.5
    assert small.xyxy.min() >= 0
    assert small.xyxy[:, [0, 2]].max() <= 1248
    assert small.xyxy[:, [1, 3]].max() <= 384


def test_score_orders_and_filters(detector: Detector) -> None:
    pixels, _ = generate(2, 1248, 384)
    every = detector(pixels, score=0.0)
    assert 0 < len(every) <= 100
    assert (np.diff(every.score) <= 0).all()
    threshold = float(every.score[len(every) // 2])
    some = detector(pixels, score=threshold)
    assert len(some) > 0
    assert some.score.tolist() == every.score[every.score >= threshold].tolist()
    assert len(detector(pixels, score=float(np.nextafter(every.score[0], np.float32(1))))) == 0


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_score_that_none_has(detector: Detector, score: float) -> None:
    with pytest.raises(UsageError, match="score must be"):
        detector(np.zeros((32, 32, 3), np.uint8), score=score)


def test_raw_boxes_are_those_of_every_anchor(detector: Detector) -> None:
    pixels, _ = generate(2, 1248, 384)
    raw = detector.raw(Frame(pixels))
    assert raw.xyxy.shape == (41_184, 4)
    assert raw.score.max() == pytest.approx(detector(pixels, score=0.0).score[0])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
        Image.new("RGB", (0, 10)),
        Image.new("F", (10, 10)),
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
