"""``torchrun`` on two machines: network namespaces of Linux with a link between, which fail and return."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from squeezedet.data.scenes import write_folder
from squeezedet.training import checkpoint

pytestmark = pytest.mark.slow
BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "communication.py"
STEPS = 60
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
"""``torchrun`` of this very environment, which need not be in the PATH."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""Processes that were started again would find the addresses of dead ones in torchrun's own store."""


@pytest.fixture(scope="module")
def benchmark() -> Any:
    """The script that makes two hosts to measure between them."""
    spec = importlib.util.spec_from_file_location("communication", BENCHMARK)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hosts(benchmark: Any) -> Iterator[Sequence[list[str]]]:
    """What goes before a command to run it on each host."""
    if not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("needs ip and tc (iproute2) for two network namespaces")
    with ExitStack() as stack:
        try:
            made = stack.enter_context(benchmark.hosts(1000))
        except (subprocess.CalledProcessError, PermissionError):
            pytest.skip("this user may not make network namespaces: run it as root")
        yield made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_folder(root, count=8, seed=3, width=192, height=96, val_fraction=0.4)
    return root


def train(data: Path, out: Path) -> list[str]:
    options = (
        f"--batch 2 --steps {STEPS} --size 192x96 --workers 0 --threads 1 --device cpu --checkpoint-every 0 --quiet"
    )
    return [
        "-m",
        "squeezedet",
        "train",
        "--data",
        str(data),
        "--out",
        str(out),
        "--validate-every",
        "30",
        *options.split(),
    ]


@contextmanager
def started(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, which is killed at the end."""
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, env=os.environ | ONE_THREAD | OWN_STORE
    )
    try:
        yield process
    finally:
        kill_machine(process)


def kill_machine(process: subprocess.Popen[str]) -> None:
    """torchrun and the process that it started, at once, as a machine without power."""
    for pid in [process.pid, *worker_of(process)]:
        with_pid = Path(f"/proc/{pid}")
        if with_pid.exists():
            os.kill(pid, signal.SIGKILL)
    process.wait()
    if process.stderr:
        process.stderr.close()


def worker_of(torchrun: subprocess.Popen[str]) -> list[int]:
    """The training process below torchrun, if it runs now."""
    try:
        children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"squeezedet" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    except OSError:
        return []


def step_of(out: Path) -> int:
    path = out / "last.safetensors"
    return int(checkpoint.read(path).metadata["step"]) if path.exists() else -1


def eventually(true: Callable[[], bool], *running: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 300
    while not true():
        for process in running:
            assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_run_survives_a_process_and_machines_that_fail(
    benchmark: Any, hosts: Sequence[list[str]], data: Path, tmp_path: Path
) -> None:
    """torchrun starts the processes again when one was killed, and goes on when it is itself started again; the weights
    are in the end those of an undisturbed run, bit for bit.
    """
    out = tmp_path / "failing"
    first, second = (
        [
            *where,
            *TORCHRUN,
            *("--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"{benchmark.ADDRESSES[0]}:29511"),
            *("--rdzv-id", f"test-{os.getpid()}", "--local-addr", address, "--rdzv-conf", f"is_host={i == 0}"),
            *train(data, out),
        ]
        for i, (where, address) in enumerate(zip(hosts, benchmark.ADDRESSES, strict=True))
    )
    with started(first) as a, started(second) as b:
        eventually(lambda: step_of(out) >= 5, a, b)
        (pid,) = worker_of(b)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(worker_of(b)) == 1 and worker_of(b) != [pid], a, b)
        killed_at = step_of(out)
        eventually(lambda: step_of(out) >= killed_at + 5, a, b)
    killed_at = step_of(out)  # both machines are gone now
    with started(first) as a, started(second) as b:
        eventually(lambda: step_of(out) > killed_at, a, b)
        assert [process.wait(300) for process in (a, b)] == [0, 0]
    assert 0 < killed_at < STEPS
    calls = re.findall(r"torchrun|squeezedet train", (out / "config.toml").read_text())
    assert calls.count("squeezedet train") == 3  # begun once, continued twice
    steps = [int(line.partition(",")[0]) for line in (out / "metrics.csv").read_text().splitlines()[1:]]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS
    assert (out / "failing.bundle").exists()

    undisturbed = tmp_path / "whole"
    command = [*TORCHRUN, "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, *train(data, undisturbed)], capture_output=True, text=True, check=False,
        env=os.environ | ONE_THREAD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    ours, theirs = (checkpoint.read(folder / "last.safetensors") for folder in (out, undisturbed))
    assert all(torch.equal(tensor, theirs.tensors[name]) for name, tensor in ours.tensors.items())


def test_a_run_of_another_job_is_not_continued(data: Path, tmp_path: Path) -> None:
    """Only what the same job has begun goes on by itself; anything else needs --resume."""
    out = tmp_path / "run"
    out.mkdir()
    (out / "last.safetensors").write_bytes(b"")
    (out / "config.toml").write_text('[run]\ntorchrun = "monday"\n')
    for job, sentence in (
        ("tuesday", "holds a run already"),
        ("none", "holds a run already"),
        ("monday", "last.safetens"),
    ):
        done = subprocess.run(
            [sys.executable, *train(data, out)], capture_output=True, text=True, check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": job},
        )  # fmt: skip
        assert done.returncode in (2, 4)
        assert sentence in done.stderr
        assert ("holds a run" in done.stderr) == (job != "monday")
