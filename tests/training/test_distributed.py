"""Two processes of batch B are one of batch 2B; they stop, fail and resume together."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from squeezedet.data.sample import KITTI_DEFAULT
from squeezedet.data.scenes import write_folder
from squeezedet.errors import DataError, UsageError
from squeezedet.models.network import DetectionNetwork, Labels
from squeezedet.models.squeezedet import PAPER, ConvDet, ConvDetConfig, PaperConvDet
from squeezedet.models.tiny_ssd import TinySSD, TinySSDConfig
from squeezedet.papers.tiny_yolo_v2 import TinyYoloV2, TinyYoloV2Config
from squeezedet.papers.yolo_v1 import YoloV1, YoloV1Config
from squeezedet.training import checkpoint
from squeezedet.training.distributed import SINGLE_PROCESS, Processes, join
from squeezedet.training.validate import validate

SCRIPT = Path(__file__).with_name("joined.py")


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("joined", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


joined = load_script()

# ------------------------------------------------------- shares of the loss

NETWORKS: dict[str, Callable[[], DetectionNetwork]] = {
    "convdet": lambda: ConvDet(ConvDetConfig(size=(192, 96))),
    "convdet-focal": lambda: ConvDet(ConvDetConfig(size=(192, 96), loss_focal=20.0)),
    "convdet-paper": lambda: PaperConvDet(replace(PAPER, size=(192, 96))),
    "tiny-ssd": lambda: TinySSD(TinySSDConfig(classes=("car", "bus"))),
    "yolo-v1": lambda: YoloV1(YoloV1Config(classes=("car", "bus"), width=1 / 32)),
    "tiny-yolo-v2": lambda: TinyYoloV2(TinyYoloV2Config(classes=("car", "bus"), size=(192, 96), width=1 / 8)),
}
BOX = torch.tensor([[20.0, 20, 80, 60]])
NO_BOX = torch.zeros(0, 4)


def part(targets: Any, index: slice) -> Any:
    return type(targets)(*(getattr(targets, f.name)[index] for f in fields(targets)))


class Counts:
    """Stands for two processes: first each says its counts, then each gets the sums."""

    def __init__(self) -> None:
        self.said: list[list[Tensor]] = []

    def say(self, count: Tensor) -> Tensor:
        self.said[-1].append(count)
        return count

    def sums(self) -> Callable[[Tensor], Tensor]:
        totals = iter([sum(counts[1:], counts[0]) for counts in zip(*self.said, strict=True)])
        return lambda count: next(totals)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("objects", [(1, 0, 1, 1), (0, 0, 1, 0), (0, 0, 0, 0)])
def test_the_shares_of_two_processes_add_up_to_the_loss(name: str, objects: Sequence[int]) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    width, height = network.input_rule.width, network.input_rule.height
    network.train()
    raw = network(torch.rand(4, 3, height, width) * 255)
    targets = network.targets(
        Labels(
            [BOX if n else NO_BOX for n in objects],
            [torch.zeros(n, dtype=torch.int64) for n in objects],
            [NO_BOX] * 4,
            (width, height),
        )
    )
    halves = slice(0, 2), slice(2, 4)

    def loss_of(half: slice) -> dict[str, Tensor]:
        mine = tuple(r[half] for r in raw) if isinstance(raw, tuple) else raw[half]
        return network.loss(mine, part(targets, half))

    with torch.no_grad():
        whole = network.loss(raw, targets)
        counts = Counts()
        network.sum_over_processes = counts.say
        for half in halves:
            counts.said.append([])
            loss_of(half)
        shares = []
        for half in halves:
            network.sum_over_processes = counts.sums()
            shares.append(loss_of(half))
    for term, value in whole.items():
        assert float(shares[0][term] + shares[1][term]) == pytest.approx(float(value), rel=1e-5)


# ------------------------------------------------------------ two processes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_folder(root, count=8, seed=3, width=192, height=96, val_fraction=0.4)
    return root


def two(what: str, data: Path, out: Path) -> list[subprocess.CompletedProcess[str]]:
    """Start two processes as torchrun does, and wait for both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, str(SCRIPT), what, str(data), str(out)]
    started = [
        subprocess.Popen(
            command,
            env={**os.environ, **world, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        ends = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    return [
        subprocess.CompletedProcess(command, process.returncode, *end)
        for process, end in zip(started, ends, strict=True)
    ]


@pytest.mark.slow
def test_two_processes_of_batch_b_are_one_of_batch_2b(data: Path, tmp_path: Path) -> None:
    """Loss to 1e-5 over 20 steps; detections in three images are those of one process."""
    ends = two("compare", data, tmp_path)
    assert [end.returncode for end in ends] == [0, 0], ends[0].stderr + ends[1].stderr
    several = json.loads((tmp_path / "losses.json").read_text())
    double = replace(joined.RECIPE, batch=2 * joined.RECIPE.batch)
    one = joined.losses(joined.learn(data, tmp_path, double))
    assert len(one) == 20
    assert several == pytest.approx(one, rel=1e-5)
    assert json.loads((tmp_path / "found.json").read_text()) == [True] * 3


@pytest.mark.slow
def test_a_signal_to_one_stops_both_at_one_step_and_they_resume(data: Path, tmp_path: Path) -> None:
    """SIGTERM to the second process in step 2; the resumed run ends as one that was left alone."""
    stopped = two("stop", data, tmp_path / "a")
    assert [end.returncode for end in stopped] == [130, 130], stopped[0].stderr
    last = tmp_path / "a" / "last.safetensors"
    assert checkpoint.read(last).metadata["step"] == 2
    resumed = two("resume", data, tmp_path / "a")
    assert [end.returncode for end in resumed] == [0, 0], resumed[0].stderr + resumed[1].stderr
    two("whole", data, tmp_path / "b")
    a, b = (checkpoint.read(tmp_path / x / "last.safetensors") for x in "ab")
    assert a.metadata["step"] == joined.SHORT.steps
    assert all(torch.equal(tensor, b.tensors[name]) for name, tensor in a.tensors.items())
    detector, best = checkpoint.read_detector(tmp_path / "a" / "best.safetensors")
    alone = validate(detector, joined.new_run(data, tmp_path, joined.SHORT).val, KITTI_DEFAULT)
    assert best.metadata["validation"] == json.loads(json.dumps(alone.result.to_dict()))
    with pytest.raises(UsageError, match="another batch, processes"):
        double = replace(joined.SHORT, batch=4)
        joined.train(joined.new_detector(), joined.new_run(data, tmp_path / "a", double), True)


@pytest.mark.slow
def test_one_that_dies_does_not_leave_the_other_waiting(data: Path, tmp_path: Path) -> None:
    first, second = two("die", data, tmp_path)
    assert second.returncode == 9
    assert first.returncode == 1
    assert "process 0 of 2 stops: another one ended" in first.stdout
    assert "Traceback" not in first.stderr
    assert checkpoint.read(tmp_path / "last.safetensors").metadata["step"] == 0


@pytest.mark.slow
def test_processes_that_do_not_work_on_the_same(data: Path, tmp_path: Path) -> None:
    for end in two("differ", data, tmp_path):
        assert end.returncode == 2
        assert "process 1 has another seed than process 0" in end.stdout
    assert not list(tmp_path.glob("*.safetensors"))


# -------------------------------------------------------------- one process


def test_one_process_meets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join() as processes:
        assert processes is SINGLE_PROCESS
    tensor, network = torch.ones(2), ConvDet(ConvDetConfig(size=(192, 96)))
    assert processes.sum(tensor) is tensor
    assert processes.network(network) is network
    assert processes.any(True, False) == (True, False)
    assert processes.gather_shares(["a", "b"]) == ["a", "b"]


@pytest.mark.parametrize("n", [0, 1, 5, 6])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_image_is_one_processs(n: int, count: int) -> None:
    shares = [list(Processes(rank, count).share(n)) for rank in range(count)]
    assert sorted(i for share in shares for i in share) == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_an_error_in_one_process_is_everybodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process has a batch; this one has an image that cannot be decoded, or none."""
    failure = DataError("a.png: cannot be decoded")
    monkeypatch.setattr(Processes, "any", lambda self, *flags: (True,))
    monkeypatch.setattr(Processes, "gather", lambda self, mine: [mine, failure])
    with pytest.raises(DataError, match=r"a\.png"):
        next(Processes(0, 2).zip_ranks(iter(["batch"])))


def test_an_environment_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UsageError, match=r"WORLD_SIZE is 2.*torchrun"), join():
        pass
