"""Processor seconds where there is no meter."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from squeezedet.benchmark.meter import NoMeter

BURN = "import time\nwhile time.process_time() < 0.2: pass"


def burn(cpu_s: float) -> None:
    end_s = time.thread_time() + cpu_s
    while time.thread_time() < end_s:
        pass


def test_time_of_the_process_and_its_threads() -> None:
    with NoMeter().measure() as measurement:
        thread = threading.Thread(target=burn, args=(0.1,))
        thread.start()
        thread.join()
        burn(0.1)
    found = measurement.reading(frames=10)
    assert found.energy_j is None and found.cpu_s is not None
    assert 0.18 <= found.cpu_s <= 1.0
    assert found.cpu_per_frame_s == found.cpu_s / 10
    assert "no energy meter" in str(found) and "CPU seconds per frame" in str(found)


def test_time_of_children() -> None:
    with NoMeter().measure() as measurement:
        subprocess.run([sys.executable, "-S", "-c", BURN], check=True)
    found = measurement.reading(frames=1)
    assert found.cpu_s is not None and found.cpu_s >= 0.18


@pytest.mark.slow
def test_rest_costs_nothing() -> None:
    with NoMeter().measure() as measurement:
        time.sleep(0.2)
    found = measurement.reading(frames=1)
    assert found.cpu_s is not None and found.cpu_s < 0.1 < found.duration_s
    assert NoMeter().idle_power_w(1.0) is None
