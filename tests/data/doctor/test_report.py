"""Tables, JSON and pictures of a diagnosis."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from squeezedet.data.doctor.checks import Diagnosis, examine
from squeezedet.data.doctor.report import describe, size_chart, to_dict, write_pictures
from squeezedet.errors import UsageError
from squeezedet.preprocess import InputRule

from .planted import Folder, label


@pytest.fixture
def diagnosis(folder: Folder) -> Diagnosis:
    folder.append("a", label("Car", 270, 151, 303, 199), label("DontCare", 0, 0, 50, 50))
    folder.append("y", label("Car", 310, 10, 350, 40), label("Tram", 0, 60, 50, 80))
    folder.image("x").write_bytes(folder.image("b").read_bytes())
    return examine(folder.root, InputRule(304, 208))


def test_the_text_has_counts_sizes_and_findings(diagnosis: Diagnosis) -> None:
    text = describe(diagnosis)
    rows = [line.split() for line in text.splitlines()]
    assert ["Car", "car", "25", "13"] in rows
    assert ["Pedestrian", "pedestrian", "24", "12"] in rows
    assert ["DontCare", "(region)", "1", "0"] in rows
    assert ["Tram", "(background)", "0", "1"] in rows
    assert ["images", "300", "300", "300", "200", "200", "200"] in rows
    assert "error: outside: 1 box in 1 image wholly outside the image" in text
    assert text.endswith("2 errors, 2 warnings, 0 notes")


def test_the_record_is_json_with_every_place(diagnosis: Diagnosis) -> None:
    record = json.loads(json.dumps(to_dict(diagnosis)))
    assert record["splits"]["train"]["images"] == 6
    assert record["splits"]["val"]["classes"] == {"car": 13, "cyclist": 12, "pedestrian": 12}
    assert record["levels"] == {"error": 2, "warning": 2, "note": 0}
    places = {f["check"]: f["where"] for f in record["findings"]}
    assert places["leak"] == ["train/b = val/x"]
    assert places["beyond-edge"] == ["train/a box 12"]


def test_pictures_show_the_boxes_in_question(diagnosis: Diagnosis, tmp_path: Path) -> None:
    written = {path.name for path in write_pictures(tmp_path / "out", diagnosis)}
    assert written == {"sizes.svg", "leak-1.jpg", "outside-1.jpg", "beyond-edge-1.jpg"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == written
    with Image.open(tmp_path / "out" / "leak-1.jpg") as both:
        assert both.size == (300, 408)
    with Image.open(tmp_path / "out" / "beyond-edge-1.jpg") as picture:
        drawn = np.asarray(picture.convert("RGB"), dtype=int)
    green = np.abs(drawn - [0, 158, 115]).max(axis=-1) < 60
    assert green[155:195, 268:273].any(axis=1).mean() > 0.9  # the box's left side


def test_pictures_never_go_among_the_images(diagnosis: Diagnosis, folder: Folder) -> None:
    with pytest.raises(UsageError, match="image_2: holds images"):
        write_pictures(folder.root / "image_2", diagnosis)


def test_the_chart_counts_every_object() -> None:
    sizes = np.array([[8, 8], [8, 9], [100, 100], [1, 1], [9000, 9000]], dtype=float)
    svg = size_chart({"car <a>": sizes, "none": np.empty((0, 2))})
    root = ElementTree.fromstring(svg)
    texts = [t.text or "" for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any("car <a>: 5 objects, median 8 px" in text for text in texts)
    assert not any("none" in text for text in texts)
