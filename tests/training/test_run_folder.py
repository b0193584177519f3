"""What lies in a run folder, and in a data folder of a stranger."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from safetensors.numpy import save_file

from squeezedet.benchmark.machine import describe
from squeezedet.data.dataset import read_split
from squeezedet.errors import DataError, ModelError, SqueezeDetError, UsageError
from squeezedet.files import LOCK, lock
from squeezedet.models.squeezedet import ConvDet
from squeezedet.training import checkpoint
from squeezedet.training.loop import run_training
from squeezedet.training.run_folder import MetricsLog, Run, image_fingerprint, read_metrics, remove_partial_files


def test_no_program_runs_in_a_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's ``.git/config`` may name a program that git runs."""

    def refuse(*words: object, **more: object) -> None:
        raise AssertionError(words)

    platform.platform()  # Python's own: it runs uname, once
    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "system", refuse)
    assert describe().system


def test_files_of_the_user_are_not_taken_for_unfinished_ones(tmp_path: Path) -> None:
    mine = [".env.template", ".last.abcdefgh.safetensors", ".bashrc", "pictures/.a.b1234567.png"]
    (tmp_path / "pictures").mkdir()
    for name in mine:
        (tmp_path / name).write_text("mine")
    left = tmp_path / ".last.999999999-0.partial.safetensors"
    left.write_text("half")
    remove_partial_files(tmp_path)
    assert not left.exists()
    assert all((tmp_path / name).read_text() == "mine" for name in mine)


HOLD = """
import sys, pathlib
from squeezedet.files import lock
with lock(pathlib.Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_training_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="busy"), lock(folder, "busy"):
            pass
        other.kill()  # a lock dies with its process
    with lock(folder, "busy"):
        assert (folder / LOCK).exists()
    assert list(folder.iterdir()) == []


def test_replaced_images_are_noticed(scenes: Path, tmp_path: Path, small_run: Callable[..., Run]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(scenes, copy)
    samples = read_split(copy, "train")
    before = image_fingerprint(samples)
    assert before == image_fingerprint(read_split(scenes, "train"))  # wherever they lie
    status = samples[0].image.stat()
    Image.new("RGB", (192, 96), "red").save(samples[0].image)
    os.utime(samples[0].image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert image_fingerprint(samples) != before


def test_a_run_does_not_go_on_with_other_images(
    scenes: Path, tmp_path: Path, small_run: Callable[..., Run], small_detector: Callable[[], ConvDet]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(scenes, copy)
    run = replace(small_run(steps=1), train=read_split(copy, "train"))
    run_training(small_detector(), run)
    Image.new("RGB", (192, 96), "red").save(run.train[0].image)
    with pytest.raises(UsageError, match="another set of images"):
        run_training(small_detector(), run, resume=True)


@pytest.mark.parametrize(
    "content",
    [b"step,loss\nx,1\n", b"step,loss\n1,two\n", b"loss\n1\n", b"step,loss\n\xff\xfe,1\n", b"step,loss\n1,1,1,1\n"],
)
def test_a_damaged_log_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"metrics\.csv"):
        read_metrics(path)


def test_a_deep_header_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    deep = "[" * 100_000 + "]" * 100_000
    save_file({}, path, {"format": checkpoint.FORMAT, "json": deep})
    with pytest.raises(ModelError, match="damaged"):
        checkpoint.read(path)
    with pytest.raises(ModelError, match="damaged"):
        checkpoint.read_metadata(path)


# ------------------------------------------------------------ metrics.csv


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
