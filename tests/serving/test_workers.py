"""``squeezedet serve --workers 2``: the real command, its workers killed and stopped while clients ask."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from squeezedet.runtime.detector import Detector, load
from squeezedet.serving.workers import Workers, share_of_cores

from .running import DEMO

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")]


@contextmanager
def served(*options: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """The command with two workers, ready; a time-out that a busy machine keeps."""
    command = [sys.executable, "-m", "squeezedet", "serve", "--port", "0", "--workers", "2", "--timeout", "60"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().partition(" at ")[2].partition(" ")[0]
            with httpx.Client(base_url=url, timeout=120) as client:
                # Only now does it listen in earnest: connections wait for the workers.
                assert client.get("/v2/health/ready").status_code == 200
                yield process, client
        finally:
            process.kill()


def metric(client: httpx.Client, name: str) -> float:
    """The sum over all labels."""
    text = client.get("/metrics").text
    return sum(map(float, re.findall(rf"^squeezedet_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task").glob("*/children")  # each was started by a thread of its own
    found = [int(pid) for children_of_one in children for pid in children_of_one.read_text().split()]
    return [pid for pid in found if b"multiprocessing.spawn" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_answers_are_the_detectors_and_both_work(detector: Detector) -> None:
    with served() as (process, client):
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(lambda _: client.post("/detect", content=DEMO), range(12)))
        expected = detector(DEMO).to_dict()["detections"]
        for answer in answers:
            assert answer.status_code == 200
            found = answer.json()["detections"]
            assert [box["class"] for box in found] == [box["class"] for box in expected]
            assert [x for box in found for x in box["xyxy"]] == pytest.approx(
                [x for box in expected for x in box["xyxy"]], abs=0.1
            )
        text = client.get("/metrics").text
        runs = {k: float(v) for k, v in re.findall(r'squeezedet_worker_runs_total{worker="(\d)"} (\S+)', text)}
        assert set(runs) == {"0", "1"}
        assert min(runs.values()) > 0
        assert sum(runs.values()) == 12
        assert 'squeezedet_requests_total{route="/detect",status="200"} 12.0' in text
        assert 'squeezedet_stage_seconds_count{stage="network"} 12.0' in text
        assert metric(client, "workers") == 2
        assert len(workers_of(process)) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_nothing_accepted_is_lost_with_a_worker(number: signal.Signals) -> None:
    """While four clients ask, workers die or hang one after the other; every request gets its answer."""
    with served("--timeout", "60" if number == signal.SIGKILL else "10", "--queue", "64") as (process, client):
        with ThreadPoolExecutor(4) as clients:
            asked = [clients.submit(client.post, "/detect", content=DEMO) for _ in range(40)]
            for n in (1, 2):
                os.kill(workers_of(process)[0], number)
                eventually(lambda n=n: metric(client, "worker_restarts_total") == n)  # type: ignore[misc]
                eventually(lambda: metric(client, "workers") == 2)
            statuses = {one.result().status_code for one in asked}
        assert statuses == {200}
        assert client.get("/v2/health/ready").status_code == 200


def test_an_idle_worker_that_dies_is_replaced_and_without_any_it_is_not_ready() -> None:
    with served() as (process, client):
        for pid in workers_of(process):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: client.get("/v2/health/ready").status_code == 503)
        assert client.post("/detect", content=DEMO).status_code == 200  # it waits for the next one
        eventually(lambda: metric(client, "workers") == 2)
        assert metric(client, "worker_restarts_total") == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_what_was_accepted(number: signal.Signals) -> None:
    """The signal goes to the whole group, as a terminal and systemd send it."""
    with served() as (process, client):
        pids = workers_of(process)
        with ThreadPoolExecutor(6) as clients:
            asked = [clients.submit(client.post, "/detect", content=DEMO) for _ in range(6)]
            eventually(lambda: metric(client, "queue_depth") >= 5)
            for pid in (process.pid, *pids):
                os.kill(pid, number)
            assert {one.result().status_code for one in asked} == {200}
        stdout, stderr = process.communicate(timeout=60)
        assert (process.returncode, stdout, stderr) == (0, "stopped\n", "")
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_no_worker_outlives_a_server_that_is_killed() -> None:
    with served() as (process, _):
        pids = workers_of(process)
        process.kill()
        process.wait()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_budgets_and_the_token_hold_over_all_workers(tmp_path: Path) -> None:
    """One address has one queue, however many workers there are; a token is asked for by all."""
    token = tmp_path / "token"
    token.write_text("sixteen-signs-at-least\n")
    with served("--queue", "2", "--token", str(token)) as (_, client):
        assert client.post("/detect", content=DEMO).status_code == 401
        client.headers["Authorization"] = "Bearer sixteen-signs-at-least"
        with ThreadPoolExecutor(16) as clients:
            statuses = list(clients.map(lambda _: client.post("/detect", content=DEMO).status_code, range(48)))
        assert set(statuses) == {200, 503}
        assert metric(client, "rejects_total") == statuses.count(503) + 1


def test_a_detector_made_in_memory_is_refused_at_once() -> None:
    detector = load(threads=1)
    detector._reopen = None
    with pytest.raises(TypeError, match="made of a model in memory"):
        Workers(detector, 2, 5.0)
    assert share_of_cores(1) >= share_of_cores(2) >= share_of_cores(10_000) == 1
