from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from squeezedet.detections import Detection, Detections
from squeezedet.errors import MissingExtraError, UsageError

NAMES = ("car", "pedestrian", "cyclist")


@st.composite
def detections(draw: st.DrawFn) -> Detections:
    n = draw(st.integers(0, 6))
    pixel = st.floats(0, 4000, width=32)
    return Detections(
        draw(npst.arrays(np.float32, (n, 4), elements=pixel)),
        draw(npst.arrays(np.float32, n, elements=st.floats(0, 1, width=32))),
        draw(npst.arrays(np.int64, n, elements=st.integers(0, len(NAMES) - 1))),
        NAMES,
        image=draw(st.text(max_size=8)),
        width=draw(st.integers(1, 4000)),
        height=draw(st.integers(1, 4000)),
        timing_ms={"network": draw(st.floats(0, 1e4))},
        time_s=draw(st.none() | st.floats(0, 1e5)),
        track_id=draw(st.none() | npst.arrays(np.int64, n, elements=st.integers(1, 999))),
    )


STREET = Detections(
    np.array([[1, 2, 30.126, 40.4], [5, 6, 7, 8]], np.float32),
    np.array([0.75, 0.5], np.float32),
    np.array([1, 0]),
    NAMES,
    image="street.jpg",
    width=100,
    height=50,
)


@given(detections())
def test_iteration_and_single_indices_agree(found: Detections) -> None:
    singles = list(found)
    assert len(singles) == len(found)
    for i, single in enumerate(singles):
        assert single == found[i] == found[i - len(found)]
        assert single.name == NAMES[found.class_id[i]]
        assert np.float32(single.score) == found.score[i]
        assert np.array_equal(np.float32(single.xyxy), found.xyxy[i])
    with pytest.raises(IndexError):
        found[len(found)]


@given(detections(), st.data())
def test_every_way_to_choose_some_gives_detections_again(found: Detections, data: st.DataObject) -> None:
    mask = data.draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))
    chosen = [i for i, kept in enumerate(mask) if kept]
    expected = [found[i] for i in chosen]
    by_array = found[np.array(mask, dtype=bool)]
    assert list(by_array) == expected
    assert list(found[chosen]) == expected
    assert list(found[np.array(chosen, dtype=np.int64)]) == expected
    if mask:  # an empty list chooses nothing, whatever its elements would have been
        assert list(found[mask]) == expected
    assert (by_array.image, by_array.width, by_array.height) == (found.image, found.width, found.height)
    assert by_array.names == NAMES
    assert by_array.timing_ms == found.timing_ms


@given(detections(), st.slices(6))
def test_slices(found: Detections, part: slice) -> None:
    assert list(found[part]) == list(found)[part]


@given(detections())
def test_json_holds_everything_to_its_decimals(found: Detections) -> None:
    record = json.loads(found.to_json())
    assert record == found.to_dict()
    time = [] if found.time_s is None else ["time_s"]
    assert list(record) == ["image", *time, "width", "height", "detections", "timing_ms"]
    assert (record["image"], record["width"]) == (found.image, found.width)
    boxes = record["detections"]
    assert [box["class"] for box in boxes] == [d.name for d in found]
    np.testing.assert_allclose([box["score"] for box in boxes], found.score, atol=6e-5)
    xyxy = np.reshape([box["xyxy"] for box in boxes], (-1, 4))
    np.testing.assert_allclose(xyxy, found.xyxy, atol=6e-3)


def test_json_of_one_street() -> None:
    assert STREET.to_dict()["detections"] == [
        {"class": "pedestrian", "score": 0.75, "xyxy": [1.0, 2.0, 30.13, 40.4]},
        {"class": "car", "score": 0.5, "xyxy": [5.0, 6.0, 7.0, 8.0]},
    ]


def test_kitti_lines() -> None:
    assert STREET.to_kitti().splitlines() == [
        "Pedestrian -1 -1 -10 1.00 2.00 30.13 40.40 -1 -1 -1 -1000 -1000 -1000 -10 0.750",
        "Car -1 -1 -10 5.00 6.00 7.00 8.00 -1 -1 -1 -1000 -1000 -1000 -10 0.500",
    ]
    assert Detections.empty(NAMES).to_kitti() == ""


def test_a_class_name_with_blanks_stays_one_kitti_field() -> None:
    line = Detections(
        np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, int), ("traffic light",)
    ).to_kitti()
    assert line.startswith("Traffic_light -1 -1 -10 ")
    assert len(line.split()) == 16


def test_coco_results() -> None:
    first, second = STREET.to_coco(7)
    assert first == {
        "image_id": 7,
        "file_name": STREET.image,
        "category_id": 2,
        "category_name": "pedestrian",
        "bbox": [1, 2, 29.13, 38.4],
        "score": 0.75,
    }
    assert second["bbox"] == [5, 6, 2, 2]
    assert json.loads(json.dumps(first)) == first


def test_counts_are_in_the_order_of_the_names() -> None:
    assert STREET[[0, 1, 0]].counts() == {"car": 1, "pedestrian": 2}
    assert list(STREET.counts()) == ["car", "pedestrian"]
    assert Detections.empty(NAMES).counts() == {}


def test_empty() -> None:
    none = Detections.empty(NAMES, image="a.jpg", width=3, height=2)
    assert len(none) == 0
    assert not none
    assert list(none) == []
    assert none.xyxy.dtype == none.score.dtype == np.float32
    assert none.to_dict()["detections"] == []


def test_single_detection() -> None:
    assert STREET[1] == Detection("car", 0, 0.5, (5.0, 6.0, 7.0, 8.0))
    assert STREET[np.int64(1)] == STREET[1]


@pytest.mark.parametrize(("boxes", "scores", "classes"), [((2, 4), 2, 1), ((2, 5), 2, 2), ((1, 4), 2, 2)])
def test_shapes_that_do_not_fit(boxes: tuple[int, int], scores: int, classes: int) -> None:
    with pytest.raises(ValueError, match="Detections wants"):
        Detections(np.zeros(boxes, np.float32), np.zeros(scores, np.float32), np.zeros(classes, int), NAMES)


def test_draw_leaves_the_image_alone() -> None:
    pixels = np.full((50, 100, 3), 255, np.uint8)
    picture = STREET.draw(pixels)
    assert picture.size == (100, 50)
    assert (pixels == 255).all()
    assert (np.asarray(picture) != 255).any()


def test_supervision_gets_the_same_boxes() -> None:
    pytest.importorskip("supervision")
    theirs = STREET.to_supervision()
    assert np.array_equal(theirs.xyxy, STREET.xyxy)
    assert theirs.class_id.tolist() == [1, 0]
    assert theirs.data["class_name"].tolist() == ["pedestrian", "car"]


def test_supervision_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'squeezedet\[supervision\]'"):
        STREET.to_supervision()


def test_tracks_and_times_are_told_where_there_are_any() -> None:
    tracked = replace(STREET, track_id=np.array([7, 12]), time_s=1.23456789)
    record = tracked.to_dict()
    assert list(record)[:2] == ["image", "time_s"]
    assert record["time_s"] == 1.234568
    assert [box["track_id"] for box in record["detections"]] == [7, 12]
    assert [box["track_id"] for box in tracked.to_coco(1)] == [7, 12]
    assert tracked[1].track_id == 12
    assert tracked[[1]][0].track_id == 12
    assert "track_id" not in STREET.to_coco(1)[0]
    assert tracked.to_kitti() == STREET.to_kitti()
    with pytest.raises(ValueError, match="2 track ids"):
        replace(STREET, track_id=np.array([7]))


def test_labels_name_the_track(monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[str] = []
    monkeypatch.setattr("squeezedet.detections.draw_boxes", lambda *given: labels.extend(given[2]))
    replace(STREET, track_id=np.array([7, 12])).draw(np.zeros((50, 100, 3), np.uint8))
    assert labels == ["pedestrian 0.75 #7", "car 0.50 #12"]


def test_to_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    table = STREET.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == ["image", "class", "class_id", "score", "x1", "y1", "x2", "y2"]
    assert len(table) == len(STREET)


def test_pandas_is_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        STREET.to_pandas()


def test_save_and_plot(tmp_path: Path) -> None:
    pixels = np.full((60, 80, 3), 200, np.uint8)
    path = tmp_path / "street.png"
    Image.fromarray(pixels).save(path)
    found = replace(STREET, image=str(path))
    assert found.plot().tobytes() == found.draw(pixels).tobytes()
    with Image.open(found.save(tmp_path / "boxes.png")) as saved:
        assert saved.tobytes() == found.draw(pixels).tobytes()
    assert found.save(tmp_path / "boxes.JPG", pixels).stat().st_size > 0
    assert json.loads(found.save(tmp_path / "a.json").read_text())["image"] == str(path)
    for target, says in ((path, "is the image itself"), (tmp_path / "a.gif", "are saved as")):
        with pytest.raises(UsageError, match=says):
            found.save(target)
    with pytest.raises(UsageError, match="give `image`"):
        replace(STREET, image="").plot()


def test_a_notebook_shows_a_table() -> None:
    html = replace(STREET, image="<b>.jpg")._repr_html_()
    assert html.count("<tr>") == len(STREET) + 1
    assert "&lt;b&gt;.jpg" in html
    assert "<b>" not in html


def test_classes_are_chosen() -> None:
    name = STREET[0].name
    chosen = STREET.of([name])
    assert {box.name for box in chosen} == {name}
    assert len(chosen) == STREET.counts()[name]
