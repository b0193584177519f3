"""Which frames are worth a person's labels."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app
from squeezedet.detections import Detections
from squeezedet.fleet.label import label
from squeezedet.fleet.labels import Found
from squeezedet.fleet.mine import doubts, mine

SCORE = 0.02  # so low that the model sees something in noise


NAMES = ("car", "pedestrian", "cyclist")


def frame(number: int | None, *boxes: tuple[str, float, float]) -> Found:
    """Boxes of 10x10 pixels by class, score and left side."""
    xyxy = np.array([(x, 0, x + 10, 10) for _, _, x in boxes], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in boxes], np.float32)
    class_id = np.array([NAMES.index(name) for name, _, _ in boxes], np.int64)
    return number, Detections(xyxy, scores, class_id, NAMES, image="a")


def test_doubt_of_scores_and_of_a_second_model() -> None:
    one = frame(None, ("car", 0.5, 0), ("car", 1.0, 20), ("cyclist", 0.25, 40))
    two = frame(None, ("car", 0.7, 1), ("car", 0.9, 60), ("pedestrian", 0.4, 40))
    margin, disagreement, flicker = doubts([one], {("a", None): two[1]})[0].tolist()
    assert margin == 1.5
    assert disagreement == pytest.approx(0.2 + 1.0 + 0.25 + 0.9 + 0.4)
    assert flicker == 0
    assert doubts([frame(None)], {})[0].tolist() == [0, 0, 0]


def test_what_flickers_in_a_video() -> None:
    stays, comes, lost = ("car", 0.9, 0.0), ("car", 0.6, 30.0), ("cyclist", 0.8, 60.0)
    video = [frame(0, stays, lost), frame(1, stays, comes), frame(2, stays, lost)]
    assert doubts(video, {})[:, 2].tolist() == pytest.approx([0, 0.6 + 0.8, 0])
    entering = [frame(0, stays), frame(1, stays, lost), frame(2, stays, lost)]
    assert doubts(entering, {})[:, 2].tolist() == [0, 0, 0]


@pytest.fixture
def labels(pictures: Path, model: Path, tmp_path: Path) -> Path:
    """Of six pictures, and of a copy of each under another name."""
    for path in list(pictures.rglob("*.png")):
        shutil.copyfile(path, path.with_stem(f"copy-{path.stem}"))
    label([str(pictures)], str(tmp_path / "labels"), model=model, score=SCORE, images_per_part=4)
    return tmp_path / "labels"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["mine", *map(str, arguments)])


def test_the_most_doubtful_first_and_no_twins(labels: Path, tmp_path: Path) -> None:
    result = run(labels, "--count", 3, "--out", tmp_path / "mined")
    assert result.exit_code == 0 and "3 frames in frames.csv" in result.output, result.output
    rows = list(csv.DictReader((tmp_path / "mined" / "frames.csv").read_text().splitlines()))
    doubt = [float(row["doubt"]) for row in rows]
    assert doubt == sorted(doubt, reverse=True) and doubt[-1] > 0
    assert len({Path(row["path"]).stem.removeprefix("copy-") for row in rows}) == 3
    with Image.open(tmp_path / "mined" / "sheet-01.jpg") as sheet:
        assert sheet.width > 4 * 320
    result = run(labels, "--count", 12, "--out", tmp_path / "all")
    assert result.exit_code == 0 and "instead of 12: the others are twins of these" in result.output


def test_frames_of_one_second_are_one(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from squeezedet.media.video import VideoFile

    generator = np.random.default_rng(1)
    with VideoFile(tmp_path / "drive.mp4") as file:
        for number in range(12):
            pixels = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            file.write(Image.fromarray(pixels), number / 4)
    label([str(tmp_path / "drive.mp4")], str(tmp_path / "labels"), model=model, score=SCORE)
    chosen = mine(str(tmp_path / "labels"), 10, tmp_path / "mined")
    times = sorted(one.time_s or 0 for one in chosen)
    assert 1 < len(times) < 10 and min(np.diff(times)) >= 1


def test_mistakes(labels: Path, pictures: Path, model: Path, tmp_path: Path) -> None:
    result = run(pictures, "--count", 3, "--out", tmp_path / "mined")
    assert result.exit_code == 3 and "is no set of labels" in result.output
    label([str(pictures / "day0")], str(tmp_path / "other"), model=model)
    result = run(labels, "--count", 3, "--out", tmp_path / "mined", "--other", tmp_path / "other")
    assert result.exit_code == 2 and "are not labels of the same inputs" in result.output
    result = run(labels, "--count", 3, "--out", labels)
    assert result.exit_code == 2 and "is not empty" in result.output
    (labels / "labels" / "part-000001.parquet").unlink()
    result = run(labels, "--count", 3, "--out", tmp_path / "mined")
    assert result.exit_code == 3 and "1 of 4 parts are missing" in result.output
    assert not (tmp_path / "mined").exists()
