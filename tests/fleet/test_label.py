"""Labeling in one process: what is written, what goes on, what is refused."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app
from squeezedet.data.dataset import read_dataset
from squeezedet.fleet.label import label
from squeezedet.fleet.labels import SCHEMA, LabelSet
from squeezedet.runtime.detector import load

SCORE = 0.02  # so low that the model sees something in noise
LABEL = "from squeezedet.fleet.label import label; "


def rows(out: Path) -> pa.Table:
    table = pyarrow.dataset.dataset(out / "labels", format="parquet", schema=SCHEMA).to_table()
    return table.sort_by([("path", "ascending"), ("frame", "ascending"), ("score", "descending")])


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["label", *map(str, arguments)])


@pytest.fixture
def make(pictures: Path, model: Path, tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "labels", **options: object) -> Path:
        options = {"model": model, "score": SCORE, "images_per_part": 3, **options}
        label([str(pictures)], str(tmp_path / name), **options)
        return tmp_path / name

    return make


def test_every_input_is_there_once_and_its_boxes_are_those_of_detect(
    make: Callable[..., Path], pictures: Path, model: Path
) -> None:
    out = make()
    table = rows(out)
    assert table.schema == SCHEMA
    detector = load(model, threads=1)
    images = sorted(pictures.rglob("*.png"))
    assert set(table["path"].to_pylist()) == {str(path) for path in images}
    for path in images:
        mine = table.filter(pa.compute.equal(table["path"], str(path)))
        if path.name == "4.png":
            assert mine["error"].to_pylist() == ["not an image that can be read (JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM)"]
            assert mine["width"].to_pylist() == [None]
            continue
        found = detector(path, SCORE)
        scores = [score for score in mine["score"].to_pylist() if score is not None]
        assert scores == sorted(found.score.tolist(), reverse=True)
        assert scores or len(mine) == 1
    sides = np.column_stack([table[side].to_numpy() for side in ("x1", "y1", "x2", "y2")])
    assert (np.nanmax(sides, axis=0) <= (64, 48, 64, 48)).all() and table["model"][0].as_py() == "small"
    about = LabelSet(str(out)).about()
    assert about and (about.inputs, about.parts) == (7, 3)
    assert sorted(path.name for path in out.iterdir()) == ["dataset.json", "inputs.parquet", "labels", "started"]


def test_parts_of_other_classes_are_one_table(tmp_path: Path) -> None:
    """pyarrow groups no dictionaries that differ from file to file."""
    labels = LabelSet(str(tmp_path))
    for part, name in enumerate(("car", "pedestrian")):
        labels.write(part, pa.Table.from_pylist([{"class": name, "score": 0.5}] * (part + 1), schema=SCHEMA))
    table = pyarrow.dataset.dataset(tmp_path / "labels", format="parquet").to_table()
    counts = table.group_by("class").aggregate([("score", "count")]).to_pylist()
    assert counts == [{"class": "car", "score_count": 1}, {"class": "pedestrian", "score_count": 2}]


def test_it_goes_on_where_it_stopped(make: Callable[..., Path]) -> None:
    whole = rows(make("whole"))
    out = make()
    kept = (out / "labels" / "part-000000.parquet").stat().st_mtime_ns
    (out / "labels" / "part-000001.parquet").unlink()
    make(resume=True)
    assert rows(out).equals(whole)
    assert (out / "labels" / "part-000000.parquet").stat().st_mtime_ns == kept


def test_killed_in_the_middle_and_resumed(
    pictures: Path, model: Path, tmp_path: Path, make: Callable[..., Path]
) -> None:
    out = tmp_path / "labels"
    kill = f"label([{str(pictures)!r}], {str(out)!r}, model={str(model)!r}, score={SCORE}, images_per_part=3, "
    kill += "report=lambda done, parts: __import__('os').kill(__import__('os').getpid(), 9))"
    assert subprocess.run([sys.executable, "-c", LABEL + kill], check=False).returncode == -signal.SIGKILL
    assert (out / "lock").is_file() and LabelSet(str(out)).done() == {0}
    make(resume=True)
    assert rows(out).equals(rows(make("whole")))
    assert not (out / "lock").exists()


def test_an_input_that_kills_is_a_row_in_the_end(make: Callable[..., Path], pictures: Path) -> None:
    out = make()
    deadly = str(pictures / "day1" / "3.png")
    part = next(k for k in range(3) if deadly in LabelSet(str(out)).read(k)["path"].to_pylist())
    (out / "labels" / f"part-{part:06d}.parquet").unlink()
    (out / "started" / f"{part:06d}").write_text(json.dumps({"at": deadly, "deaths": {deadly: 1}}))
    make(resume=True)
    table = rows(out)
    errors = table.filter(pa.compute.equal(table["path"], deadly))["error"].to_pylist()
    assert errors == ["the process that read it died, 2 times"]
    assert len(set(table["path"].to_pylist())) == 7


def test_a_list_and_a_pattern_that_overlap(pictures: Path, model: Path, tmp_path: Path) -> None:
    names = [str(pictures / "day1" / "1.png"), str(tmp_path / "missing.jpg")]
    pq.write_table(pa.table({"path": names}), tmp_path / "list.parquet")
    out = tmp_path / "labels"
    result = run(tmp_path / "list.parquet", pictures / "day1" / "*.png", "--out", out, "--model", model)
    assert result.exit_code == 0, result.output
    table = rows(out)
    assert set(table["path"].to_pylist()) == {*names, *(str(path) for path in (pictures / "day1").iterdir())}
    assert [e for e in table["error"].to_pylist() if e] == ["no such file"]
    assert "2 frames" not in result.output and "1 input could not be read" in result.output


def test_videos_frame_by_frame(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from PIL import Image

    from squeezedet.media.video import VideoFile

    path = tmp_path / "trips" / "drive.mp4"
    path.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    with VideoFile(path) as file:
        for number in range(5):
            file.write(Image.fromarray(np.roll(pixels, number, axis=1)), number / 8)
    (path.parent / "cut.mp4").write_bytes(path.read_bytes()[:700])
    done = label([str(path.parent)], str(tmp_path / "labels"), model=model, score=SCORE)
    assert (done.inputs, done.parts, done.frames, done.errors) == (2, 2, 5, 1)
    table = rows(tmp_path / "labels")
    frames = table.filter(pa.compute.equal(table["path"], str(path)))
    assert sorted(set(frames["frame"].to_pylist())) == [0, 1, 2, 3, 4]
    assert sorted(set(frames["time_s"].to_pylist())) == [0, 0.125, 0.25, 0.375, 0.5]


@pytest.mark.parametrize("layout", ["coco", "kitti"])
def test_other_layouts(make: Callable[..., Path], layout: str) -> None:
    out = make(layout=layout)
    if layout == "coco":
        content = json.loads((out / "coco" / "annotations" / "instances_all.json").read_text())
        assert len(content["images"]) == 6 and len(content["annotations"]) == rows(out)["score"].drop_null().length()
    else:
        (out / "kitti" / "image_2").mkdir()
        listed = dict(line.split("\t") for line in (out / "kitti" / "images.tsv").read_text().splitlines())
        for name, file in listed.items():
            (out / "kitti" / "image_2" / f"{name}.png").write_bytes(Path(file).read_bytes())
        assert len(read_dataset(out / "kitti", max_skipped=1).samples()) == 6


# ----------------------------------------------------------------- refused


def test_two_jobs_and_other_labels(make: Callable[..., Path], pictures: Path, model: Path, tmp_path: Path) -> None:
    out = make()
    result = run(pictures, "--out", out, "--model", model)
    assert result.exit_code == 2 and "holds labels already; go on with --resume" in result.output
    result = run(pictures, "--out", out, "--resume", "--score", SCORE)
    assert result.exit_code == 2 and "are of another model, small" in result.output
    result = run(pictures, "--out", out, "--resume", "--model", model)
    assert result.exit_code == 2 and "have --score 0.02" in result.output
    result = run(pictures / "day0", "--out", out, "--resume", "--model", model, "--score", SCORE)
    assert result.exit_code == 2 and f"are of {pictures}; name these" in result.output
    before = rows(out)
    with LabelSet(str(out)).store.lock():
        result = run(pictures, "--out", out, "--resume", "--model", model, "--score", SCORE)
        assert result.exit_code == 2 and f"another job is at work there (process {os.getpid()}" in result.output
    assert run(pictures, "--out", out, "--resume", "--model", model, "--score", SCORE).exit_code == 0
    assert rows(out).equals(before)
    result = run(pictures, "--out", pictures)
    assert result.exit_code == 2 and "which is no part of labels" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nowhere"], 3, "nowhere: there is no such file or folder"),
        (["*.jpg"], 3, "*.jpg: no image and no video there"),
        (["empty"], 3, "empty: no image and no video there"),
        (["broken.parquet"], 3, "broken.parquet: is no Parquet file"),
        (["other.parquet"], 3, "has a column path, this has name"),
        (["all-broken"], 3, "none of the inputs could be read"),
        (["nope://bucket/a"], 2, "nope://bucket/a: "),
        (["all-broken", "--workers", "2"], 2, "say where with --ray"),
        (["all-broken", "--engine", "auto"], 2, "--engine: auto may choose another one on each machine"),
        (["all-broken", "--ray", "somewhere"], 2, "--ray: 'somewhere' is neither local, nor auto, nor HOST:PORT"),
        (["all-broken", "--ray", "127.0.0.1:1"], 1, "no Ray cluster answers at 127.0.0.1:1 (Connection refused)"),
        (["all-broken", "--model", "other.parquet"], 4, "other.parquet: is no bundle"),
    ],
)
def test_mistakes(
    arguments: list[str], code: int, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("all-broken").mkdir()
    Path("all-broken/a.png").write_bytes(b"broken")
    Path("broken.parquet").write_bytes(b"PAR1 and no more")
    pq.write_table(pa.table({"name": ["a"]}), "other.parquet")
    result = run(*arguments, "--out", "labels")
    assert (result.exit_code, sentence in result.output) == (code, True), result.output
    if "none of the inputs" not in sentence:
        assert not Path("labels").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on files")
def test_a_disk_that_fills(pictures: Path, model: Path, tmp_path: Path, make: Callable[..., Path]) -> None:
    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))

    out = tmp_path / "labels"
    options = map(str, ["label", pictures, "--out", out, "--model", model, "--score", SCORE])
    command = [sys.executable, "-m", "squeezedet", *options]
    done = subprocess.run(command, preexec_fn=full, capture_output=True, check=False)
    assert done.returncode == 1 and b"cannot be written (File too large)" in done.stderr, done.stderr
    assert not list(out.glob("**/.*")) and not LabelSet(str(out)).done()
    run(pictures, "--out", out, "--model", model, "--score", SCORE, "--resume")
    assert rows(out).equals(rows(make("whole")))


def test_no_ray_installed(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run(pictures, "--out", tmp_path / "labels", "--ray", "local")
    assert (
        result.exit_code == 2 and "--ray needs an optional dependency: pip install 'squeezedet[fleet]'" in result.output
    )
    assert not (tmp_path / "labels").exists()
