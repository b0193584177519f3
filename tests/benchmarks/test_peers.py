"""The peers' pixels, numbers and graphs: what is planted in an output comes back as a box."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import compare_peers
from peers import networks
from peers.detector import PeerDetector, Placement, fitted_size, letterbox, open_onnxruntime, prepare, stretch
from peers.graphs import normalize_graph, quantize_graph, resize_graph
from peers.networks import PEERS, PICODET_S, YOLOX_NANO, Peer, cells
from squeezedet.boxes import iou
from squeezedet.data.dataset import read_split
from squeezedet.data.scenes import write_folder
from squeezedet.errors import ModelError, UsageError
from squeezedet.media.images import read_image
from squeezedet.preprocess import InputRule

BOX = np.array([[150, 170, 210, 260]], np.float32)
STRIDE, COLUMN, ROW = 16, 11, 13  # the cell of stride 16 whose middle is (184, 216)
SIZES = [(416, 416), (1248, 384)]


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


# ------------------------------------------------------------ decoding


def distances(side: float) -> np.ndarray:
    """Logits of 8 bins whose expectation is the given number of strides."""
    low = int(side)
    logits = np.full(8, -40.0, np.float32)
    logits[low] = np.log(low + 1 - side + 1e-12)
    logits[low + 1] = np.log(side - low + 1e-12)
    return logits


def focal_outputs(size: tuple[int, int], strides: tuple[int, ...]) -> list[np.ndarray]:
    """The box planted in its cell, as NanoDet and PicoDet would say it."""
    counts = [-(-size[0] // s) * -(-size[1] // s) for s in strides]
    score = [np.zeros((1, n, 80), np.float32) for n in counts]
    logits = [np.zeros((1, n, 32), np.float32) for n in counts]
    cell = ROW * (size[0] // STRIDE) + COLUMN
    middle = np.array([184, 216], np.float32)
    reach = np.concatenate([middle - BOX[0, :2], BOX[0, 2:] - middle]) / STRIDE
    score[1][0, cell, 2] = 0.9  # COCO's car
    logits[1][0, cell] = np.concatenate([distances(side) for side in reach])
    return score + logits


def yolox_outputs(size: tuple[int, int]) -> list[np.ndarray]:
    levels = [(size[0] // s) * (size[1] // s) for s in (8, 16, 32)]
    output = np.zeros((1, sum(levels), 85), np.float32)
    cell = levels[0] + ROW * (size[0] // STRIDE) + COLUMN
    output[0, cell, :4] = 180 / 16 - COLUMN, 215 / 16 - ROW, np.log(60 / 16), np.log(90 / 16)
    output[0, cell, 4], output[0, cell, 5 + 2] = 1, 0.9
    return [output]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("peer", "outputs"),
    [
        (networks.NANODET_M, lambda size: focal_outputs(size, (8, 16, 32))),
        (PICODET_S, lambda size: focal_outputs(size, (8, 16, 32, 64))),
        (YOLOX_NANO, yolox_outputs),
    ],
    ids=["nanodet", "picodet", "yolox"],
)
def test_a_planted_box_comes_back(peer: Peer, outputs, size: tuple[int, int]) -> None:
    boxes, scores, class_id = peer.decode(outputs(size), size, 0.5)
    np.testing.assert_allclose(boxes, BOX, atol=1e-2)
    np.testing.assert_allclose(scores, 0.9, atol=1e-6)
    assert [peer.classes[k] for k in class_id] == ["car"]


def test_a_box_planted_in_fastestdet_comes_back() -> None:
    output = np.zeros((1, 85, 22, 22), np.float32)
    x, y = np.arctanh(180 / 16 - COLUMN), np.arctanh(215 / 16 - ROW)
    output[0, 1:5, ROW, COLUMN] = x, y, logit(60 / 352), logit(90 / 352)
    output[0, 0, ROW, COLUMN], output[0, 5 + 2, ROW, COLUMN] = 0.9, 0.8
    boxes, scores, class_id = networks.FASTESTDET.decode([output], (352, 352), 0.5)
    np.testing.assert_allclose(boxes, BOX, atol=1e-3)
    np.testing.assert_allclose(scores, 0.9**0.6 * 0.8**0.4, rtol=1e-5)
    assert class_id.tolist() == [0]


def test_boxes_that_are_decoded_in_the_graph_keep_their_labels() -> None:
    boxes = np.array([[*BOX[0], 0.9], [0, 0, 5, 5, 0.2], [1, 2, 3, 4, 0.6]], np.float32)
    xyxy, scores, class_id = networks.INTEL_2003.decode([boxes, np.array([2, 0, 1])], (864, 480), 0.5)
    np.testing.assert_array_equal(xyxy, boxes[[0, 2], :4])
    assert [networks.INTEL_2003.classes[k] for k in class_id] == ["cyclist", "pedestrian"]
    np.testing.assert_allclose(scores, [0.9, 0.6])


def test_levels_have_as_many_cells_as_touch_the_input() -> None:
    corner, stride = cells((1248, 416), (8, 16, 32, 64))
    assert len(corner) == 156 * 52 + 78 * 26 + 39 * 13 + 20 * 7
    assert corner[-1].tolist() == [1216, 384]
    assert stride[156 * 52 + ROW * 78 + COLUMN, 0] == STRIDE


# ------------------------------------------------------------ pixels


def test_channels_and_means_are_those_published() -> None:
    red = np.zeros((416, 416, 3), np.uint8)
    red[..., 0] = 255
    wanted = {
        "YOLOX-Nano": (0, 0, 255),
        "NanoDet-m": (-103.53 / 57.375, -116.28 / 57.12, (255 - 123.675) / 58.395),
        "PicoDet-S": ((255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375),
        "FastestDet": (0, 0, 1),
        "person-vehicle-bike-2003": (0, 0, 255),
    }
    for peer in PEERS:
        tensor, _ = prepare(red, peer, peer.size)
        assert tensor.dtype == np.float32 and tensor.shape == (1, 3, peer.size[1], peer.size[0])
        np.testing.assert_allclose(tensor[0, :, 200, 200], wanted[peer.name], rtol=1e-5)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(375, 1242), (640, 512), (416, 416), (3, 900)])
def test_a_letterbox_keeps_the_shape_and_boxes_find_back(
    shape: tuple[int, int], size: tuple[int, int], center: bool
) -> None:
    pixels = np.full((*shape, 3), 200, np.uint8)
    inside, placement = letterbox(pixels, size, 7, center=center)
    assert inside.shape == (size[1], size[0], 3)
    rows, columns = np.nonzero((inside == 200).all(axis=-1))
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    assert (inside[(inside != 200).any(axis=-1)] == 7).all()
    # The sides are rounded to whole pixels of the input.
    image = [[0, 0, shape[1], shape[0]]]
    np.testing.assert_allclose(placement.to_image(box), image, atol=1.02 / placement.scale[0])


def test_an_image_a_little_smaller_than_the_input_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (375, 1242, 3), np.uint8)
    inside, placement = letterbox(pixels, (1248, 384), 0, center=False)
    np.testing.assert_array_equal(inside[:375, :1242], pixels)
    assert placement == Placement((1.0, 1.0), (0, 0))


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
    inside, placement = stretch(np.full((375, 1242, 3), 9, np.uint8), (864, 480))
    assert inside.shape == (480, 864, 3) and (inside == 9).all()
    full = placement.to_image(np.array([[0, 0, 864, 480]], np.float32))
    np.testing.assert_allclose(full, [[0, 0, 1242, 375]], rtol=1e-6)


@pytest.mark.parametrize(
    ("image", "multiple", "size"),
    [
        ((1242, 375), 32, (1248, 384)),
        ((1242, 375), 64, (1216, 384)),
        ((1280, 720), 32, (928, 512)),
        ((352, 288), 32, (768, 608)),
    ],
)
def test_an_input_of_our_pixels_has_the_shape_of_the_image(
    image: tuple[int, int], multiple: int, size: tuple[int, int]
) -> None:
    assert fitted_size(image, compare_peers.PIXELS, multiple) == size


# ------------------------------------------------------------ graphs


def made_graph(side: int = 64) -> bytes:
    """Two convolutions with a channel shuffle between, as old exporters write them: sizes in constants."""
    rng = np.random.default_rng(0)
    weights = {
        "first": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "last": rng.normal(size=(4, 8, 1, 1)).astype(np.float32),
        "split": np.array([1, 2, 4, side // 8, side // 8], np.int64),
        "flat": np.array([1, 4, -1], np.int64),
    }
    merged = numpy_helper.from_array(np.array([1, 8, side // 8, side // 8], np.int64))
    nodes = [
        helper.make_node("Constant", [], ["merged"], value=merged),
        helper.make_node("Conv", ["image", "first"], ["a"], strides=[8, 8], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Reshape", ["b", "split"], ["c"]),
        helper.make_node("Transpose", ["c"], ["d"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["d", "merged"], ["e"]),
        helper.make_node("Conv", ["e", "last"], ["f"]),
        helper.make_node("Reshape", ["f", "flat"], ["found"]),
    ]
    ports = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side, side])]
    ports += [helper.make_tensor_value_info(name, TensorProto.FLOAT, weights[name].shape) for name in ("first", "last")]
    found = helper.make_tensor_value_info("found", TensorProto.FLOAT, [1, 4, (side // 8) ** 2])
    stored = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "made", ports, [found], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=4)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def pixels_of(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 1, (1, 3, height, width)).astype(np.float32)


def test_a_graph_takes_another_size_with_the_sizes_of_its_reshapes() -> None:
    small = open_onnxruntime(made_graph(64), b"", 1)
    large = open_onnxruntime(resize_graph(normalize_graph(made_graph(64)), (128, 96)), b"", 1)
    tensor = np.zeros((1, 3, 96, 128), np.float32)
    tensor[..., :64, :64] = pixels_of(64, 64)
    found = large(tensor)[0].reshape(4, 12, 16)
    wanted = small(tensor[..., :64, :64])[0].reshape(4, 8, 8)
    np.testing.assert_allclose(found[:, :8, :8], wanted, atol=1e-5)


def test_a_size_that_no_peer_can_have() -> None:
    with pytest.raises(UsageError, match="multiples of 32, not 100x64"):
        resize_graph(made_graph(), (100, 64))


def test_a_normalized_graph_has_one_input_and_computes_the_same() -> None:
    graph = normalize_graph(made_graph())
    model = onnx.load_from_string(graph)
    assert [port.name for port in model.graph.input] == ["images"]
    assert "Constant" not in {node.op_type for node in model.graph.node}
    found, wanted = (open_onnxruntime(g, b"", 1)(pixels_of(64, 64))[0] for g in (graph, made_graph()))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_quantized_graph_computes_nearly_the_same_at_any_size() -> None:
    graph = normalize_graph(made_graph())
    int8 = quantize_graph(graph, [pixels_of(64, 64)] * 2)
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load_from_string(int8).graph.initializer}
    assert TensorProto.INT8 in kinds.values()
    assert kinds["last"] == TensorProto.FLOAT
    for size in ((64, 64), (128, 96)):
        tensor = pixels_of(*size)
        found, wanted = (open_onnxruntime(resize_graph(g, size), b"", 1)(tensor)[0] for g in (int8, graph))
        assert np.abs(found - wanted).mean() < 0.03 * wanted.std()


def test_an_engine_that_cannot_read_the_file_is_named() -> None:
    with pytest.raises(ModelError, match="YOLOX-Nano: onnxruntime cannot run it"):
        PeerDetector(YOLOX_NANO, b"no graph")


# ------------------------------------------------------------ comparing


def test_scaled_rules_stay_multiples_of_16_and_budgets_scale_with_the_square() -> None:
    assert compare_peers.scaled(InputRule(1248, 384), 0.75) == InputRule(928, 288)
    assert compare_peers.scaled(InputRule(300, 300, fixed=True), 0.1) == InputRule(32, 32, fixed=True)
    assert compare_peers.scaled(InputRule(300, 300, fixed=True), 1.0) == InputRule(300, 300, fixed=True)
    for scale in (0.5, 1.5):
        rule = compare_peers.scaled(InputRule(1248, 384), scale)
        assert rule.width * rule.height == pytest.approx(1248 * 384 * scale**2, rel=0.05)


def test_images_by_source_and_kitti_by_its_licence(tmp_path: Path) -> None:
    write_folder(tmp_path, count=4, width=64, height=64)
    samples = read_split(tmp_path, "all")
    title = f"{tmp_path.name} val"
    rows = zip(samples, ("KITTI CC BY-NC-SA 3.0", "MIT", "KITTI", "none stated"), "wxyz", strict=True)
    text = "\n".join(["id\tlicence\tsource", *(f"{s.id}\t{licence}\t{source}" for s, licence, source in rows)])
    (tmp_path / "manifest.tsv").write_text(text, encoding="utf-8")
    sets = compare_peers.image_sets(tmp_path, "val", samples)
    assert sets == {title: [0, 1, 2, 3], f"{title}: KITTI": [0, 2], f"{title}: x": [1], f"{title}: z": [3]}
    (tmp_path / "manifest.tsv").unlink()
    assert compare_peers.image_sets(tmp_path, "val", samples) == {title: [0, 1, 2, 3]}


def test_our_models_at_two_scales_in_the_tables_and_the_picture(tmp_path: Path) -> None:
    write_folder(tmp_path, count=2, seed=5, width=320, height=96, val_fraction=0.5)
    options = Namespace(model=["street"], scale=[0.25, 0.5], engine=["onnxruntime"], threads=1)
    candidates = list(compare_peers.our_candidates(options))
    contenders = compare_peers.fastest(candidates, [next((tmp_path / "image_2").iterdir())], 1)
    ((title, count),) = compare_peers.evaluate_on(tmp_path, "val", contenders, draws=3).items()
    entries = [entry for _, entry in contenders]
    assert [e.name for e in entries] == ["street x0.25", "street x0.5"] and entries[0].ratio == 1.0
    assert count == 1 and set(entries[0].figures[title]) == {"car", "pedestrian", "cyclist"}
    table = compare_peers.accuracy_table(entries, title)
    assert [row[0] for row in table[1:]] == ["street x0.25", "street x0.5"]
    assert [row[0] for row in compare_peers.cost_table(entries)[1:]] == ["street x0.25", "street x0.5"]
    entries[1].figures[title].pop("cyclist")  # as a peer of COCO's classes
    assert compare_peers.accuracy_table(entries, title)[2][-1] == "-"
    picture = compare_peers.frontier(entries, ["street x0.5"], title)
    assert all(f"{name}, {title}" in picture for name in ("car", "pedestrian", "cyclist"))


def test_a_missing_peer_is_named(tmp_path: Path) -> None:
    options = Namespace(peers=tmp_path, engine=["onnxruntime"], threads=1)
    with pytest.raises(UsageError, match=r"yolox_nano_416\.onnx: no such file"):
        next(compare_peers.peer_candidates(options, [], []))


@pytest.mark.shared
@pytest.mark.parametrize("pixels", [None, compare_peers.PIXELS])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_picodet_finds_the_cars_of_a_real_street(shared: Path, engine: str, pixels: int | None) -> None:
    pytest.importorskip(engine)
    graph = normalize_graph((shared / "weights" / "peers" / PICODET_S.file).read_bytes())
    detector = PeerDetector(PICODET_S, graph, engine=engine, pixels=pixels, threads=1)
    samples = read_split(shared / "data" / "roads", "val")
    street = max(samples, key=lambda s: s.objects.types.count("Car") * s.id.startswith("kitti_"))
    found = detector.detect(read_image(street.image), score=0.3)
    cars = street.objects.xyxy[[t == "Car" for t in street.objects.types]]
    large = cars[cars[:, 3] - cars[:, 1] > 40]
    boxes = found.xyxy[found.class_id == found.names.index("car")]
    hit = iou(large, boxes).max(axis=1, initial=0) > 0.5
    assert len(large) >= 3
    assert hit.mean() >= (0.8 if pixels else 0.6)
