"""What lies in a run folder, and in a data folder of a stranger."""

from __future__ import annotations

import os
import platform
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
from squeezedet.errors import DataError, ModelError, UsageError
from squeezedet.files import LOCK, lock
from squeezedet.models.squeezedet import ConvDet
from squeezedet.training import checkpoint
from squeezedet.training.log import read_metrics
from squeezedet.training.loop import run_training
from squeezedet.training.run_folder import Run, image_fingerprint, remove_partial_files


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
