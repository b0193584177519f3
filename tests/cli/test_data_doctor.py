"""``squeezedet data doctor`` and ``squeezedet data anchors``: tables, JSON, pictures, exit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


@pytest.fixture
def roads(tmp_path: Path) -> Path:
    """Two images with three shapes of box each, and no fault but that there are few."""
    root = tmp_path / "roads"
    for name in ("image_2", "label_2"):
        (root / name).mkdir(parents=True)
    for k, i in enumerate("ab"):
        pattern = np.random.default_rng(k).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pattern).resize((304, 208)).save(root / "image_2" / f"{i}.jpg")
        (root / "label_2" / f"{i}.txt").write_text(
            "".join(
                f"{name} 0 0 -10 10 10 {x2 + k} {y2} -1 -1 -1 -1000 -1000 -1000 -10\n"
                for name, x2, y2 in (("Car", 90, 50), ("Pedestrian", 40, 90), ("Cyclist", 70, 70))
            )
        )
    return root


def test_good_data(roads: Path, tmp_path: Path) -> None:
    out = tmp_path / "doctor.json"
    done = run("doctor", roads, "--size", "304x208", "--out", out, "--pictures", tmp_path / "pictures")
    assert done.exit_code == 0, done.output
    assert "kitti layout, 2 images, 6 boxes" in done.stdout
    assert "0 errors, 0 warnings, 0 notes" in done.stdout
    assert json.loads(out.read_text())["findings"] == []
    assert not list((tmp_path / "pictures").iterdir())


def test_an_error_is_exit_code_3_and_everything_is_written_before(roads: Path) -> None:
    (roads / "image_2" / "a.jpg").write_text("no image")
    done = run("doctor", roads, "--out", "-")
    assert (done.exit_code, done.stderr) == (3, f"squeezedet: {roads}: 1 error to mend before training\n")
    record = json.loads(done.stdout)
    assert [f["check"] for f in record["findings"] if f["level"] == "error"] == ["unreadable-image"]


@pytest.mark.parametrize("size", ["big", "300x", "300x200", "8x8", "1248x384x3"])
def test_a_size_that_is_none(roads: Path, size: str) -> None:
    for verb in ("doctor", "anchors"):
        done = run(verb, roads, "--size", size)
        assert done.exit_code == 2
        assert done.stderr.startswith("squeezedet: --size: ")


def test_what_cannot_be_written_is_said_before_the_work(roads: Path, tmp_path: Path) -> None:
    for arguments in (
        ("doctor", roads, "--out", tmp_path / "none" / "x.json"),
        ("doctor", roads, "--pictures", roads / "image_2"),
        ("anchors", roads, "--out", tmp_path),
    ):
        assert run(*arguments).exit_code == 2


def test_no_data_at_all(tmp_path: Path) -> None:
    for verb in ("doctor", "anchors"):
        assert run(verb, tmp_path / "nothing").exit_code == 3


def test_anchors_of_three_shapes(roads: Path) -> None:
    done = run("anchors", roads, "-k", "3", "--size", "304x208", "--method", "euclidean")
    assert done.exit_code == 0, done.output
    assert "split all: 6 objects at an input of 304x208" in done.stdout
    assert "k-means, euclidean: (30,80) (80,40) (60,60)" in done.stdout
    assert "built-in A: (36,37) (72,43)" in done.stdout
    assert "built-in B: (41,32) (65,42)" in done.stdout


def test_anchors_as_json(roads: Path) -> None:
    done = run("anchors", roads, "-k", "3", "--size", "304x208", "--out", "-")
    fits = json.loads(done.stdout)
    assert [fit["name"] for fit in fits] == ["k-means, iou", "built-in A", "built-in B"]
    found = np.array(fits[0]["anchors"])  # the images differ by a pixel
    assert np.abs(found - [[30, 80], [80, 40], [60, 60]]).max() <= 1
    assert fits[0]["mean_iou"] > 0.98
    assert set(fits[0]["classes"]) == {"car", "pedestrian", "cyclist"}


def test_a_split_that_is_none_and_too_many_anchors(roads: Path) -> None:
    assert "no split 'dev'" in run("anchors", roads, "--split", "dev").stderr
    done = run("anchors", roads, "-k", "7")
    assert "7 anchors need as many boxes of different shape, the data has 6" in done.stderr


def test_torch_stays_out() -> None:
    import subprocess

    code = "import sys, squeezedet.cli.data, squeezedet.data.doctor;print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
