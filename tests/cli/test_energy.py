"""``squeezedet papers energy``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "power.csv"
    powers = [15.0] * 30 + [80.9] * 600 + [15.0] * 30
    rows = [f"{i / 10:.1f},{power}" for i, power in enumerate(powers)]
    path.write_text("\n".join(["time_s,power_w", *rows]) + "\n")
    return path


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["papers", "energy", *map(str, words)])


def test_the_papers_figure_from_a_log(log: Path) -> None:
    done = call("--power-log", log, "--frames", 3432)
    assert done.exit_code == 0, done.output
    rows = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    told = {name: text.strip() for name, text in rows.items()}
    assert told == {
        "source": f"power log {log}",
        "method": "mean of the middle third (200 samples) of the working period, 60.0 s of at least 20 W",
        "power": "80.90 W, idle power of 15.0 W not subtracted",
        "speed": "57.20 frames/s",
        "energy": "1.414 J per frame, idle power of 15.0 W not subtracted",
        "less idle": "1.152 J per frame, idle power of 15.0 W subtracted",
    }


def test_json_to_a_file_and_to_the_output(log: Path, tmp_path: Path) -> None:
    made = tmp_path / "energy.json"
    assert "1.414 J" in call("--power-log", log, "--frames", 3432, "--out", made).stdout
    printed = call("--power-log", log, "--frames", 3432, "--out", "-").stdout
    numbers = json.loads(made.read_text())
    assert json.loads(printed) == numbers
    assert numbers["energy_per_frame_j"] == pytest.approx(80.9 / 57.2)
    assert numbers["idle_subtracted"] is False and numbers["source"].startswith("power log")


def test_a_threshold(log: Path) -> None:
    done = call("--power-log", log, "--frames", 660, "--threshold", 10)
    assert "66.0 s of at least 10 W" in done.stdout and "10.00 frames/s" in done.stdout
    assert "less idle" not in done.stdout and "idle power not measured" in done.stdout
    assert "no power sample reaches 90 W" in call("--power-log", log, "--frames", 1, "--threshold", 90).stderr


def test_which_meters_work_here() -> None:
    done = call("--list")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    names = ["meter", "nvml", "rapl", "none"]
    assert [line.split()[0] for line in lines[:4]] == names
    assert all(line.split()[1] in ("yes", "no") for line in lines[1:4])
    assert lines[-2].startswith("  on cpu: ") and lines[-1].startswith("  on cuda: ")


def test_what_is_refused(log: Path, tmp_path: Path) -> None:
    for words in ((), ("--frames", 3), ("--power-log", log)):
        assert call(*words).exit_code == 2
    assert "goes without other options" in call("--list", "--power-log", log).stderr
    assert call("--power-log", tmp_path / "no.csv", "--frames", 3).exit_code == 3
    log.write_text("time_s,power_w\n0,watts\n")
    assert f"{log}:2: power_w: 'watts'" in call("--power-log", log, "--frames", 3).stderr
    for frames in (0, -1, 10**400):
        assert call("--power-log", log, "--frames", frames).exit_code == 2
