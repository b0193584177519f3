from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app
from squeezedet.data.dataset import read_dataset

CAR = "Car 0.12 1 1.55 14.24 11.78 27.31 34.77 1.57 1.73 4.15 1.00 1.75 13.22 1.62\n"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    root = tmp_path / "kitti"
    for name in ("image_2", "label_2"):
        (root / name).mkdir(parents=True)
    for i in "ab":
        Image.new("RGB", (60, 50)).save(root / "image_2" / f"{i}.png")
        (root / "label_2" / f"{i}.txt").write_text(CAR)
    return root


def test_help_names_every_verb_with_examples() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for verb in ("doctor", "convert", "anchors", "synthesize"):
        assert f"  {verb} " in result.stdout
        assert f"squeezedet data {verb}" in result.stdout
        single = run(verb, "--help")
        assert single.exit_code == 0
        assert f"squeezedet data {verb}" in single.stdout.partition("Examples:")[2]


def test_convert_says_what_it_did_and_what_is_lost(kitti: Path, tmp_path: Path) -> None:
    target = tmp_path / "yolo"
    result = run("convert", kitti, target, "--to", "yolo")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"{target}: 2 images (all 2), 2 labels, kitti -> yolo",
        "  in the source: 3D boxes or angles, not read: 2",
        "  lost: truncation is not in YOLO: 2",
        "  lost: occlusion is not in YOLO: 2",
        f"  each is listed in {target / 'not_converted.tsv'}",
    ]
    assert read_dataset(target).types == ("Car",)


def test_convert_and_labels_that_cannot_be_used(kitti: Path, tmp_path: Path) -> None:
    label = kitti / "label_2" / "b.txt"
    label.write_text(CAR + CAR.replace("27.31", "14.24"))
    assert run("convert", kitti, tmp_path / "v", "--to", "voc").exit_code == 3
    result = run("convert", kitti, tmp_path / "v", "--to", "voc", "--from", "kitti", "--max-skipped", "0.5")
    assert f"left out: 1, the first: {label}:2: the box" in result.stdout
    again = run("convert", kitti, tmp_path / "v", "--to", "coco", "--max-skipped", "0.5")
    assert again.exit_code == 2
    assert run("convert", kitti, tmp_path / "w", "--to", "tfrecord").exit_code == 2


def test_synthesize(tmp_path: Path) -> None:
    target = tmp_path / "scenes"
    result = run("synthesize", target, "--count", "4", "--seed", "7", "--size", "96x64", "--val-share", "0.25")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{target}: 4 scenes of 96x64, seeds 7 to 10\n"
    splits = read_dataset(target, max_skipped=1).splits
    assert {k: len(v) for k, v in splits.items()} == {"train": 3, "val": 1}
    with Image.open(splits["val"][0].image) as picture:
        assert picture.size == (96, 64)
    assert run("synthesize", target).exit_code == 2


@pytest.mark.parametrize("size", ["96", "96x", "10x10", "ax b"])
def test_synthesize_a_bad_size(tmp_path: Path, size: str) -> None:
    result = run("synthesize", tmp_path / "scenes", "--size", size)
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())
