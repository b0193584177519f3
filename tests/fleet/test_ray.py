"""A local Ray of two workers over two thousand pictures: one worker and then the driver are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.dataset
import pytest
from PIL import Image

from squeezedet.fleet.label import label
from squeezedet.fleet.labels import SCHEMA, LabelSet

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.shared]

COUNT, PER_PART, SCORE = 2000, 50, 0.05
KILLED = """
import os, signal, sys
from pathlib import Path
from squeezedet.fleet.label import label

def workers():
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                name = place.joinpath("cmdline").read_text()
                if name.startswith("ray::MapWorker") and grandparent(place) == os.getpid():
                    yield int(place.name)
            except OSError:
                pass

def parent(place):
    return int(place.joinpath("stat").read_text().rpartition(")")[2].split()[1])

def grandparent(place):
    return parent(Path("/proc", str(parent(place))))

def report(done, parts):
    print("workers", *sorted(workers()), flush=True)
    if done == 4:
        os.kill(min(workers()), signal.SIGKILL)
    if done == 14:
        os.kill(os.getpid(), signal.SIGKILL)

source, out, model, per_part, score = sys.argv[1:]
options = {"model": model, "score": float(score), "images_per_part": int(per_part)}
label([source], out, ray="local", workers=2, report=report, **options)
"""


@pytest.fixture(scope="module")
def many(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    originals = sorted((shared / "data" / "roads" / "image_2").iterdir())[::8]
    small = []
    for path in originals:
        with Image.open(path) as picture:
            small.append(picture.convert("RGB").resize((128, 96)))
    for number in range(COUNT):
        path = folder / f"{number // 500}" / f"{number:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        small[number % len(small)].save(path, quality=50 + number % 40)
    for number in (17, 1234):
        path = folder / f"{number // 500}" / f"{number:05d}.jpg"
        path.write_bytes(path.read_bytes()[:900])
    return folder


def test_killed_workers_and_drivers_lose_nothing(many: Path, model: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "labels", tmp_path / "whole"
    command = [sys.executable, "-c", KILLED, str(many), str(out), str(model), str(PER_PART), str(SCORE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = {pid for line in done.stdout.splitlines() if line.startswith("workers") for pid in line.split()[1:]}
    assert len(pids) > 2, done.stdout  # another came for the one that was killed
    labels = LabelSet(str(out))
    assert 14 <= len(labels.done()) < COUNT // PER_PART
    options = [str(many), "--out", str(out), "--model", str(model), "--score", str(SCORE), "--resume"]
    command = [sys.executable, "-m", "squeezedet", "label", *options, "--ray", "local", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert os.listdir(out / "started") == []  # noqa: PTH208

    label([str(many)], str(whole), model=model, score=SCORE, images_per_part=PER_PART)
    tables = []
    for place in (out, whole):
        parts = [LabelSet(str(place)).read(k) for k in range(COUNT // PER_PART)]
        tables.append(pyarrow.concat_tables(parts))
    assert tables[0].schema == SCHEMA and tables[0].equals(tables[1])
    heads = tables[0].group_by("path").aggregate([("error", "count"), ("width", "count")])
    assert len(heads) == COUNT and pc.sum(heads["error_count"]).as_py() == 2
    assert tables[0]["score"].drop_null().length() > COUNT / 2
