"""``squeezedet train`` and ``export``: from labelled images to a bundle that detects."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import squeezedet
from squeezedet.cli.main import app
from squeezedet.data.scenes import write_folder
from squeezedet.runtime import bundle


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_folder(root, count=4, seed=5, width=192, height=96, val_fraction=0.25)
    return root


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def train(data: Path, out: Path, *more: object) -> Result:
    tiny = ("--size", "192x96", "--batch", 1, "--workers", 0, "--threads", 1)
    return call("train", "--data", data, "--out", out, *tiny, *more)


@pytest.mark.slow
def test_train_writes_a_bundle_that_detects(data: Path, tmp_path: Path) -> None:
    done = train(data, tmp_path, "--steps", 1, "--name", "mine", "--licence", "ours")
    assert done.exit_code == 0, done.output
    assert "mine.bundle" in done.stdout
    card = bundle.read_card(tmp_path / "mine.bundle")
    assert (card.name, card.licence, card.training["steps"]) == ("mine", "ours", 1)
    assert "3 images" in card.data
    picture = next((data / "image_2").iterdir())
    found = call("detect", picture, "--model", tmp_path / "mine.bundle", "--out", "-")
    assert json.loads(found.stdout)[0]["width"] == 192

    (tmp_path / "mine.bundle").unlink()
    resumed = call("train", "--data", data, "--out", tmp_path, "--resume", "--quiet")
    assert resumed.exit_code == 0, resumed.output  # nothing is left to do: a bundle again
    assert (tmp_path / "mine.bundle").is_file()
    other = call("train", "--data", data, "--out", tmp_path, "--resume", "--batch", 2)
    assert (other.exit_code, "another batch" in other.stderr) == (2, True)

    for words in (("--network", "tiny-ssd"), ("--classes", "bus"), ("--size", "96x96")):
        other = call("train", "--data", data, "--out", tmp_path, "--resume", *words)
        assert (other.exit_code, "the run that goes on has another one" in other.stderr) == (2, True), other.output
    fresh = call("train", "--data", data, "--out", tmp_path / "new", "--epochs", "inf", "--batch", 1)
    assert (fresh.exit_code, fresh.stderr.count("Traceback")) == (2, 0)

    again = call("export", tmp_path / "last.safetensors", "-o", tmp_path / "two.bundle")
    assert again.exit_code == 0, again.output
    assert "2,082,120 parameters" in again.stdout
    assert squeezedet.load(tmp_path / "two.bundle").names == ("car", "pedestrian", "cyclist")


@pytest.mark.slow
def test_the_papers_recipe_runs(data: Path, tmp_path: Path) -> None:
    words = ("--recipe", "paper", "--steps", 1, "--batch", 1, "--workers", 0)
    done = call("train", "--data", data, "--out", tmp_path, *words)
    assert done.exit_code == 0, done.output
    detector = squeezedet.load(tmp_path / f"{tmp_path.name}.bundle")
    assert detector.card.input.fixed
    assert (detector.card.input.width, detector.card.input.height) == (1242, 375)
    detector(next((data / "image_2").iterdir()))


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--size", "190x96"), 2, "multiples of 16"),
        (("--size", "big"), 2, "'big' is not WIDTHxHEIGHT"),
        (("--train-split", "night"), 3, "it has train, val"),
        (("--init", "missing.onnx"), 4, "missing.onnx: no such file"),
        (("--resume",), 2, "holds no run to continue"),
        (("--size", "16x96"), 2, "from 32 to 4096"),
        (("--name", "a/b"), 2, "no name for a file"),
        (("--steps", "5", "--epochs", "2"), 2, "--steps or --epochs, not both"),
        (("--config", "none.toml"), 2, "none.toml: "),
        (("--freeze", "conv9"), 2, "no layer 'conv9' to freeze; there are backbone, convdet"),
    ],
)
def test_mistakes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = call("train", "--data", data, "--out", tmp_path / "run", *words)
    assert failed.exit_code == code
    assert sentence in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_image_of_val_that_another_set_learns_from(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, split in (("one", "train"), ("two", "val")):
        folder = tmp_path / name
        shutil.copytree(data / "image_2", folder / "image_2")
        shutil.copytree(data / "label_2", folder / "label_2")
        ids = sorted(path.stem for path in (data / "image_2").iterdir())
        rows = [f"{i}\t{split if k else 'train'}" for k, i in enumerate(ids)]
        (folder / "manifest.tsv").write_text("\n".join(["id\tsplit", *rows, ""]))
    done = train(tmp_path / "one", tmp_path / "out", "--data", tmp_path / "two", "--steps", 1)
    assert done.exit_code == 0, done.output
    assert "3 of the 3 images of split 'val' are learned from, too" in caplog.text


def test_a_missing_folder(tmp_path: Path) -> None:
    failed = call("train", "--data", tmp_path / "nowhere")
    assert failed.exit_code == 3
    assert "no such file or folder" in failed.stderr


def test_bad_checkpoints_and_results(data: Path, tmp_path: Path) -> None:
    missing = call("export", tmp_path / "no.safetensors", "-o", tmp_path / "x.bundle")
    assert (missing.exit_code, "no such checkpoint" in missing.stderr) == (4, True)
    notes = tmp_path / "results.json"
    notes.write_text("{")
    bad = call("export", tmp_path / "a", "-o", tmp_path / "x.bundle", "--results", notes)
    assert (bad.exit_code, "results.json" in bad.stderr) == (3, True)
    assert not (tmp_path / "x.bundle").exists()


@pytest.mark.slow
def test_a_recipe_file_and_the_options_above_it(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "[recipe]\nsteps = 7\nschedule = 'steps'\nfrozen = ['backbone.fire*']\nseed = 3\n[network]\ndropout = 0.1\n"
    )
    words = ("--config", recipe, "--epochs", 0.34, "--protocol", "voc", "--val-split", "none")
    words += ("--early-stop", 3, "--freeze", "backbone.conv1", "--freeze", "backbone.fire[23]")
    done = train(data, tmp_path / "run", *words)
    assert done.exit_code == 0, done.output
    assert "weights: all weights are random" in done.stderr
    record = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    chosen = record["recipe"]
    assert chosen["steps"] == 1  # a third of three images, one a step
    assert (chosen["schedule"], chosen["protocol"], chosen["seed"]) == ("steps", "voc", 3)
    assert (chosen["frozen"], chosen["early_stop"]) == (["backbone.conv1", "backbone.fire[23]"], 3)
    assert record["network"]["dropout"] == 0.1
    again = train(data, tmp_path / "again", "--config", tmp_path / "run" / "config.toml")
    assert again.exit_code == 0, again.output
    repeated = tomllib.loads((tmp_path / "again" / "config.toml").read_text())
    assert (repeated["recipe"], repeated["network"]) == (chosen, record["network"])

    recipe.write_text("[recipe]\nstepz = 7\n")
    failed = train(data, tmp_path / "other", "--config", recipe)
    assert (failed.exit_code, "did you mean 'steps'?" in failed.stderr) == (2, True)
    recipe.write_text("[network]\nclasses = ['tram']\n")
    failed = train(data, tmp_path / "other", "--config", recipe)
    assert (failed.exit_code, "other classes than the data" in failed.stderr) == (2, True)


@pytest.mark.slow
def test_the_time_that_there_is(data: Path, tmp_path: Path) -> None:
    """Less than the end of a run takes: one step, then a bundle all the same."""
    done = train(data, tmp_path, "--max-hours", 0.002, "--quiet")
    assert done.exit_code == 0, done.output
    assert bundle.read_card(tmp_path / f"{tmp_path.name}.bundle").training["steps"] == 1


@pytest.mark.parametrize(
    ("line", "sentence"), [("Car 0 0 0 nan 2 30 40 0 0 0 0 0 0 0", "nan"), ("Car 0 0 0 1 2", ".txt:1: ")]
)
def test_bad_labels_are_named(data: Path, tmp_path: Path, line: str, sentence: str) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    label = sorted((copy / "label_2").iterdir())[0]
    label.write_text(line + "\n")
    failed = train(copy, tmp_path / "run")
    assert failed.exit_code == 3
    assert label.name in failed.stderr
    assert sentence in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_class_that_the_data_file_does_not_name(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text("7 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [tram, bus]\n")
    failed = train(tmp_path / "data.yaml", tmp_path / "run")
    assert failed.exit_code == 3
    assert "a.txt" in failed.stderr
    assert "7" in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_an_image_that_is_broken(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    image = sorted((copy / "image_2").iterdir())[0]
    image.write_bytes(image.read_bytes()[:2000])
    failed = train(copy, tmp_path / "run", "--quiet")
    assert failed.exit_code == 3
    assert image.name in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
