"""metrics.csv is appended to, and exact when a run goes on."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from squeezedet.errors import SqueezeDetError
from squeezedet.training.log import MetricsLog, Progress, RunningMeans, read_metrics


def test_rows_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsLog(path, 0)
    log.add({"step": 25, "loss": 1.5, "ap": None})
    before = path.stat().st_ino
    log.add({"step": 50, "loss": 0.25, "ap": 0.5})
    assert path.stat().st_ino == before
    assert path.read_text() == "step,loss,ap\n25,1.5,\n50,0.25,0.5\n"


def test_a_new_column_finds_its_place(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.csv", 0)
    log.add({"step": 1, "loss": 1.0})
    log.add({"step": 2, "loss": 2.0, "ap": 0.5})
    assert log.path.read_text() == "step,loss,ap\n1,1,\n2,2,0.5\n"


def test_a_run_that_goes_on_drops_what_it_does_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n25,1\n50,2\n75,3\n10")  # killed in the middle of step 100's row
    assert [row["step"] for row in read_metrics(path)] == ["25", "50", "75"]
    log = MetricsLog(path, 50)
    log.add({"step": 75, "loss": 4.0})
    assert path.read_text() == "step,loss\n25,1\n50,2\n75,4\n"


def test_a_full_disk(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.csv", 0)
    log.add({"step": 1, "loss": 1.0})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 2, limits[1]))
    try:
        with pytest.raises(SqueezeDetError, match=r"metrics\.csv: cannot be written"):
            log.add({"step": 2, "loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [row["step"] for row in read_metrics(log.path)] == ["1"]


def test_means_of_steps_that_a_checkpoint_held() -> None:
    means = RunningMeans(batch=4)
    means.steps = [{"loss": 1.0}]
    means.add({"loss": 3.0})
    taken, _ = means.take()
    assert taken == {"loss": 2.0}
    assert means.steps == []


def test_plain_lines_when_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(100, 0) as progress:
        progress.step(50)
        progress.report(50, {"box": 0.5}, 12.0)
    line = capsys.readouterr().err
    assert line.startswith("step 50/100  box 0.500  12.0 img/s")
    assert line.endswith("min left\n")
