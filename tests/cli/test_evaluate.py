"""``squeezedet evaluate``: from files and from a model, every protocol, bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app

LABEL = "Car 0.00 0 -10 100 100 200 160 -1 -1 -1 -1000 -1000 -1000 -10\n"
FOUND = "Car -1 -1 -10 100 100 200 160 -1 -1 -1 -1000 -1000 -1000 -10 0.9\n"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A KITTI folder of two images with a car each; one of them found."""
    for name in ("image_2", "label_2", "found"):
        (tmp_path / name).mkdir()
    for i in ("000000", "000001"):
        (tmp_path / "label_2" / f"{i}.txt").write_text(LABEL)
        Image.new("RGB", (400, 300)).save(tmp_path / "image_2" / f"{i}.png")
    (tmp_path / "found" / "000000.txt").write_text(FOUND)
    return tmp_path


def test_files_against_files(folder: Path) -> None:
    out = folder / "ap.json"
    done = run("--labels", folder / "label_2", "--detections", folder / "found", "--json", out, "--rules", "paper")
    assert done.exit_code == 0, done.output
    assert "KITTI, rules 'paper': 2 images, 2 objects" in done.stdout
    assert "1 of 2 images have no result file" in done.stderr
    assert "cyclist has no labelled object that counts: it is in no mean" in done.stderr
    assert "car has few labelled objects (2 easy, 2 moderate, 2 hard)" in done.stderr
    answer = json.loads(out.read_text())
    assert (answer["protocol"], answer["rules"]) == ("kitti", "paper")
    assert answer["counts"] == {"images": 2, "objects": 2, "ignored": 0, "detections": 1, "other_detections": 0}
    assert answer["results"]["cyclist"] is None
    assert answer["results"]["car"]["easy"]["ap11"] == pytest.approx(1 / 11)
    assert len(answer["results"]["car"]["hard"]["precision41"]) == 41
    assert answer["map11"] == pytest.approx(1 / 11)
    assert answer["map40"] == 0


def test_a_split_other_classes_intervals_and_a_report(folder: Path) -> None:
    (folder / "mine.txt").write_text("000000\n")
    out = folder / "ap.json"
    done = run(
        "--data",
        folder,
        "--split",
        "mine",
        "--detections",
        folder / "found",
        "--overlap",
        "car=0.9",
        "--bootstrap",
        10,
        "--out",
        out,
        "--report",
        folder / "report",
    )
    assert done.exit_code == 0, done.output
    answer = json.loads(out.read_text())
    assert answer["counts"]["images"] == 1
    assert list(answer["results"]) == ["car"]
    assert answer["intervals"]["draws"] == 10
    assert set(answer["intervals"]["bounds"]) >= {"car/easy/ap40", "map40"}
    page = (folder / "report" / "index.html").read_text()
    assert "(mine)" in page
    assert "Recall against N" not in page


@pytest.mark.parametrize("protocol", ["voc", "coco"])
def test_kitti_folders_under_other_protocols(folder: Path, protocol: str) -> None:
    out = folder / "ap.json"
    done = run("--data", folder, "--detections", folder / "found", "--protocol", protocol, "--out", out)
    assert done.exit_code == 0, done.output
    answer = json.loads(out.read_text())
    assert answer["protocol"] == protocol
    assert answer["results"]["pedestrian"] is None
    assert answer["counts"]["objects"] == 2
    if protocol == "voc":
        assert answer["results"]["car"]["area"] == pytest.approx(0.5)
    else:
        assert answer["numbers"]["AP50"] == pytest.approx(51 / 101)


def test_the_files_of_voc_and_coco(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "found").mkdir()
    box = "<xmin>10</xmin><ymin>10</ymin><xmax>60</xmax><ymax>40</ymax>"
    objects = "".join(f"<object><name>{n}</name><bndbox>{box}</bndbox></object>" for n in ("car", "dog"))
    (tmp_path / "Annotations" / "a.xml").write_text(f"<annotation>{objects}</annotation>")
    (tmp_path / "found" / "car.txt").write_text("a 0.9 10 10 60 40\n")
    out = tmp_path / "ap.json"
    sides = ("--labels", tmp_path, "--detections", tmp_path / "found", "--out", out)
    done = run("--protocol", "voc", *sides, "--report", tmp_path / "report")
    assert done.exit_code == 0, done.output
    answer = json.loads(out.read_text())
    assert answer["results"]["car"]["voc07_11point"] == 1
    assert answer["results"]["dog"] is None

    labels = {
        "images": [{"id": 7, "file_name": "a.jpg"}],
        "categories": [{"id": 3, "name": "car"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 50, 30], "iscrowd": 0}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    record = {"image_id": 7, "category_id": 3, "bbox": [10, 10, 50, 30], "score": 0.5}
    (tmp_path / "found.json").write_text(json.dumps([record]))
    sides = ("--labels", tmp_path / "labels.json", "--detections", tmp_path / "found.json")
    done = run("--protocol", "coco", *sides, "--out", out, "--report", tmp_path / "report")
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["numbers"]["AP"] == pytest.approx(1)
    assert run("--protocol", "coco", *sides, "--bootstrap", 5).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "give either --data"),
        ("--data . --labels .", "give either --data"),
        ("--data .", "give either --model or --detections"),
        ("--labels . --model squeezedet", "--model needs images"),
        ("--labels . --detections . --overlap car", "--overlap: car: write CLASS=IOU"),
        ("--labels . --detections . --overlap =0.5", "--overlap: =0.5: write a class, and an overlap"),
        ("--labels . --detections . --overlap car=1.5", "--overlap: car=1.5: write a class, and an overlap from 0"),
        ("--labels . --detections . --overlap car=0.5 --protocol voc", "--overlap works with the protocol kitti"),
        ("--data . --model street --device gpu", "--device: 'gpu' is none of auto, cpu, cuda, cuda:N, mps"),
        ("--data . --model street --device cuda --engine openvino", "--device stands in place of --engine"),
    ],
)
def test_wrong_usage(arguments: str, sentence: str) -> None:
    done = run(*arguments.split())
    assert done.exit_code == 2
    assert sentence in done.stderr


@pytest.mark.parametrize(
    ("option", "place", "says"), [("--out", "nodir/x.json", "no folder"), ("--report", "taken", "is a file")]
)
def test_places_are_checked_before_the_work(folder: Path, option: str, place: str, says: str) -> None:
    (folder / "taken").touch()
    sides = ("--labels", folder / "label_2", "--detections", folder / "found")
    done = run(*sides, option, folder / place)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr
    assert not (folder / "nodir").exists()


def test_wrong_data(folder: Path) -> None:
    empty = folder / "empty"
    empty.mkdir()
    for arguments, sentence in [
        (("--labels", empty, "--detections", folder / "found"), "no labels"),
        (("--labels", folder / "label_2", "--detections", empty), "no result files"),
        (("--labels", folder, "--split", "val", "--detections", empty), "no val.txt"),
        (("--data", folder, "--split", "val", "--detections", empty), "split 'val'"),
        (("--labels", empty, "--detections", empty, "--protocol", "coco"), "no labels"),
    ]:
        done = run(*arguments)
        assert done.exit_code == 3, done.output
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1


# ------------------------------------------------------------ the shipped model

IMAGES = 12


@pytest.fixture(scope="module")
def street(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of some images of the validation split."""
    rows = (shared / "data" / "roads" / "manifest.tsv").read_text().splitlines()
    column = rows[0].split("\t").index("split")
    ids = [row.split("\t")[0] for row in rows[1:] if row.split("\t")[column] == "val"][:IMAGES]
    listing = tmp_path_factory.mktemp("street") / "some.txt"
    listing.write_text("\n".join(ids))
    return listing


@pytest.mark.slow
@pytest.mark.shared
def test_files_of_detect_give_the_models_numbers(shared: Path, street: Path, tmp_path: Path) -> None:
    data = shared / "data" / "roads"
    ids = street.read_text().split()
    images = [next((data / "image_2").glob(f"{i}.*")) for i in ids]
    command = ["detect", *images, "--format", "kitti", "--out", tmp_path / "found", "--score", 0, "-q"]
    assert CliRunner().invoke(app, list(map(str, command))).exit_code == 0
    answers = []
    for k, how in enumerate((["--model", "street"], ["--detections", tmp_path / "found"])):
        out = tmp_path / f"{k}.json"
        report = ["--report", tmp_path / "report"] if k == 0 else []
        done = run("--data", data, "--split", street, *how, "--out", out, *report)
        assert done.exit_code == 0, done.output
        answers.append(json.loads(out.read_text()))
    model, files = answers
    assert model["counts"] == files["counts"]
    assert model["counts"]["images"] == len(ids)
    assert model["map40"] == pytest.approx(files["map40"], abs=0.01)
    assert "Recall against N" in (tmp_path / "report" / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(("decimals", "moves"), [(3, 0.005), (2, 0.03)])
def test_how_far_rounding_the_scores_moves_an_ap(shared: Path, decimals: int, moves: float) -> None:
    """Scores of 3 decimals, as files have them, make few ties; of 2 decimals many."""
    from squeezedet.data.dataset import read_split
    from squeezedet.evaluation.kitti import evaluate
    from squeezedet.media.images import read_image
    from squeezedet.runtime.detector import load

    detector = load()
    samples = read_split(shared / "data" / "roads", "val")
    exact = [detector.detect(read_image(s.image), score=0.0) for s in samples]
    rounded = [replace(d, xyxy=np.round(d.xyxy, 2), score=np.round(d.score, decimals)) for d in exact]
    truth = [s.objects for s in samples]
    before, after = evaluate(truth, exact), evaluate(truth, rounded)
    for name, levels in before.results.items():
        for level, result in (levels or {}).items():
            assert abs(after.results[name][level].ap40 - result.ap40) < moves
    assert abs(after.map40 - before.map40) < moves / 2
