"""The peers' pixels and numbers: what is planted in an output comes back as a box."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers import fastestdet, nanodet, picodet, yolox
from peers.coco import NAMES
from peers.grid import cells
from peers.network import PeerDetector, renamed, select
from peers.placement import Placement, letterbox, stretch
from peers.tiles import merge, starts, uncut, windows
from squeezedet.boxes import iou
from squeezedet.data.dataset import read_split
from squeezedet.detections import Detections
from squeezedet.errors import UsageError
from squeezedet.media.images import read_image

BOX = np.array([[150, 170, 210, 260]], np.float32)
CAR = NAMES.index("car")
STRIDE, COLUMN, ROW = 16, 11, 13  # the cell of stride 16 whose middle is (184, 216)


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def distances(side: float) -> np.ndarray:
    """Logits of 8 bins whose expectation is the given number of strides."""
    low = int(side)
    logits = np.full(8, -40.0, np.float32)
    logits[low] = np.log(low + 1 - side + 1e-12)
    logits[low + 1] = np.log(side - low + 1e-12)
    return logits


def focal_outputs(strides: tuple[int, ...]) -> list[np.ndarray]:
    """The box planted in its cell, as NanoDet and PicoDet would say it."""
    sides = [-(-416 // s) for s in strides]
    score = [np.zeros((1, n * n, 80), np.float32) for n in sides]
    logits = [np.zeros((1, n * n, 32), np.float32) for n in sides]
    cell = ROW * 26 + COLUMN
    middle = np.array([184, 216], np.float32)
    reach = np.concatenate([middle - BOX[0, :2], BOX[0, 2:] - middle]) / STRIDE
    score[1][0, cell, CAR] = 0.9
    logits[1][0, cell] = np.concatenate([distances(side) for side in reach])
    return score + logits


def only(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, float, int]:
    kept, score, class_id = select(boxes, scores, score=0.5, nms_iou=0.6)
    assert len(kept) == 1
    return kept, float(score[0]), int(class_id[0])


@pytest.mark.parametrize(("decode", "strides"), [(nanodet.decode, (8, 16, 32)), (picodet.decode, (8, 16, 32, 64))])
def test_a_box_planted_as_distributions_comes_back(decode, strides) -> None:
    boxes, score, class_id = only(*decode(focal_outputs(strides)))
    np.testing.assert_allclose(boxes, BOX, atol=1e-2)
    assert (round(score, 5), class_id) == (0.9, CAR)


def test_a_box_planted_in_yolox_comes_back() -> None:
    output = np.zeros((1, 3549, 85), np.float32)
    cell = 52 * 52 + ROW * 26 + COLUMN
    output[0, cell, :4] = 180 / 16 - COLUMN, 215 / 16 - ROW, np.log(60 / 16), np.log(90 / 16)
    output[0, cell, 4], output[0, cell, 5 + CAR] = 0.9, 0.8
    boxes, score, class_id = only(*yolox.decode([output]))
    np.testing.assert_allclose(boxes, BOX, atol=1e-3)
    assert (round(score, 5), class_id) == (0.72, CAR)


def test_a_box_planted_in_fastestdet_comes_back() -> None:
    output = np.zeros((1, 85, 22, 22), np.float32)
    x, y = np.arctanh(180 / 16 - COLUMN), np.arctanh(215 / 16 - ROW)
    output[0, 1:5, ROW, COLUMN] = x, y, logit(60 / 352), logit(90 / 352)
    output[0, 0, ROW, COLUMN], output[0, 5 + CAR, ROW, COLUMN] = 0.9, 0.8
    boxes, score, class_id = only(*fastestdet.decode([output]))
    np.testing.assert_allclose(boxes, BOX, atol=1e-3)
    assert (round(score, 5), class_id) == (round(0.9**0.6 * 0.8**0.4, 5), CAR)


def test_channels_and_means_are_those_published() -> None:
    red = np.zeros((416, 416, 3), np.uint8)
    red[..., 0] = 255
    wanted = {
        yolox: (0, 0, 255),
        nanodet: (-103.53 / 57.375, -116.28 / 57.12, (255 - 123.675) / 58.395),
        picodet: ((255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375),
        fastestdet: (0, 0, 1),
    }
    for peer, values in wanted.items():
        prepared, _ = peer.prepare(red)
        assert prepared.dtype == np.float32
        np.testing.assert_allclose(prepared[200, 200], values, rtol=1e-5)


def test_levels_have_as_many_cells_as_touch_the_input() -> None:
    corner, stride = cells(416, (8, 16, 32, 64))
    assert len(corner) == 52**2 + 26**2 + 13**2 + 7**2
    assert corner[-1].tolist() == [384, 384]
    assert stride[52**2 + ROW * 26 + COLUMN, 0] == STRIDE


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("shape", [(375, 1242), (640, 512), (416, 416), (3, 900)])
def test_a_letterbox_keeps_the_shape_and_boxes_find_back(shape: tuple[int, int], centred: bool) -> None:
    pixels = np.full((*shape, 3), 200, np.uint8)
    square, placement = letterbox(pixels, 416, 7, centred=centred)
    rows, columns = np.nonzero((square == 200).all(axis=-1))
    inside = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    assert (square[(square != 200).any(axis=-1)] == 7).all()
    # The sides are rounded to whole pixels of the input.
    half = 0.51 / placement.scale[0]
    image = [[0, 0, shape[1], shape[0]]]
    np.testing.assert_allclose(placement.to_image(inside), image, atol=2 * half)


@given(
    st.floats(0.1, 3),
    st.floats(0.1, 3),
    st.integers(0, 200),
    st.lists(st.floats(0, 1000, width=32), min_size=4, max_size=4),
)
def test_a_placement_turns_round(x: float, y: float, offset: int, corners: list[float]) -> None:
    box = np.array([corners], np.float32)
    there = box * np.array([x, y, x, y]) + offset
    back = Placement((x, y), (offset, offset)).to_image(there.astype(np.float32))
    np.testing.assert_allclose(back, box, atol=0.01)


def test_a_stretched_image_fills_the_input() -> None:
    square, placement = stretch(np.full((375, 1242, 3), 9, np.uint8), 352)
    assert square.shape == (352, 352, 3)
    assert (square == 9).all()
    full = placement.to_image(np.array([[0, 0, 352, 352]], np.float32))
    np.testing.assert_allclose(full, [[0, 0, 1242, 375]], rtol=1e-6)


def test_only_classes_of_the_road_stay_under_their_new_names() -> None:
    class_id = np.array([NAMES.index(name) for name in ("truck", "person", "car")])
    found = Detections(
        np.arange(12, dtype=np.float32).reshape(3, 4), np.array([0.9, 0.8, 0.7], np.float32), class_id, NAMES
    )
    kept = renamed(found, {"car": "car", "person": "pedestrian"})
    assert [d.name for d in kept] == ["pedestrian", "car"]
    assert kept.xyxy[:, 0].tolist() == [4, 8]


@given(st.integers(10, 2000), st.integers(10, 2000), st.floats(0.5, 3), st.floats(0, 0.6))
def test_tiles_cover_the_image_and_overlap(width: int, height: int, scale: float, overlap: float) -> None:
    tiles = list(windows(width, height, scale, overlap))
    side = tiles[0][2]
    for length, axis in ((width, 0), (height, 1)):
        begin = sorted({tile[axis] for tile in tiles})
        assert begin == sorted(set(starts(length, side, overlap)))
        assert begin[0] == 0
        assert begin[-1] + side == length
        # Rounding both ends may cost one pixel.
        assert (np.diff(begin) <= max(1, side * (1 - overlap)) + 1).all()


def test_boxes_cut_by_a_tile_are_left_to_its_neighbour() -> None:
    boxes = np.array([[0, 50, 40, 90], [50, 0, 90, 40], [50, 50, 90, 90]], np.float32)
    assert uncut(boxes, (0, 100, 416), (1000, 600)).tolist() == [True, False, True]


def test_the_best_of_several_looks_stays() -> None:
    def look(score: float, x: float) -> Detections:
        box = np.array([[x, 0, x + 100, 100]], np.float32)
        return Detections(box, np.array([score], np.float32), np.array([0]), ("car",))

    merged = merge([look(0.5, 0), look(0.9, 5), look(0.6, 300)], nms_iou=0.5)
    assert merged.score.tolist() == pytest.approx([0.9, 0.6])
    assert merged.xyxy[:, 0].tolist() == [5, 300]


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"picodet_s_416\.onnx: no such file"):
        PeerDetector(picodet.PICODET_S, tmp_path)


@pytest.mark.shared
def test_picodet_finds_the_cars_of_a_real_street(shared: Path) -> None:
    detector = PeerDetector(picodet.PICODET_S, shared / "weights" / "peers", threads=1)
    samples = read_split(shared / "data" / "roads", "val")
    street = max(samples, key=lambda s: s.objects.types.count("Car") * s.id.startswith("kitti_"))
    found = detector.detect(read_image(street.image), score=0.3)
    cars = street.objects.xyxy[[t == "Car" for t in street.objects.types]]
    large = cars[cars[:, 3] - cars[:, 1] > 40]
    boxes = found.xyxy[found.class_id == found.names.index("car")]
    hit = iou(large, boxes).max(axis=1, initial=0) > 0.5
    assert len(large) >= 3
    assert hit.mean() >= 0.6
