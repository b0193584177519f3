from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from squeezedet.benchmark.machine import Watch, describe

X86 = """processor\t: 0
model name\t: Some CPU @ 2.60GHz
flags\t\t: fpu sse avx2 fma avx512f avx512_vnni
processor\t: 1
model name\t: Some CPU @ 2.60GHz
"""
PI = """processor\t: 0
Features\t: fp asimd evtstrm asimddp
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""


def tree(root: Path, info: str, governor: str = "") -> Path:
    for place, text in {
        "proc/cpuinfo": info,
        "proc/meminfo": "MemTotal:        4012345 kB\nMemFree:  1 kB\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": governor,
    }.items():
        if text:
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).write_text(text)
    return root


def test_a_machine_as_linux_describes_it(tmp_path: Path) -> None:
    found = describe(tree(tmp_path / "x86", X86, "performance\n"))
    assert found.cpu == "Some CPU @ 2.60GHz"
    assert found.flags == ("avx2", "fma", "avx512f", "avx512_vnni")
    assert found.memory_bytes == 4_012_345 * 1024
    assert found.governor == "performance"
    arm = describe(tree(tmp_path / "arm", PI))
    assert (arm.cpu, arm.flags) == ("Raspberry Pi 5 Model B Rev 1.0", ("asimd", "asimddp"))
    assert arm.governor is None


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    found = describe(tmp_path)
    assert found.cpu and found.cores >= 1 and found.memory_bytes is None and found.flags == ()
    assert {"numpy", "onnxruntime"} <= set(found.versions)


def test_what_may_mislead_is_said(tmp_path: Path) -> None:
    machine = replace(describe(tmp_path), cores=2, load_1m=0.5, governor="performance")
    assert machine.warnings == []
    busy = replace(machine, load_1m=1.4, governor="powersave")
    load, governor = busy.warnings
    assert "a load of 1.4 on 2 cores" in load and "'powersave'" in governor
    assert replace(machine, load_1m=None, governor=None).warnings == []


def stat(root: Path, busy: int, idle: int) -> None:
    (root / "proc").mkdir(exist_ok=True)
    # user nice system idle iowait irq softirq steal guest guest_nice
    line = f"cpu  {busy - 5} 1 1 {idle - 7} 7 1 1 1 4 4\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
    (root / "proc/stat").write_text(line)


def test_time_that_others_took(tmp_path: Path) -> None:
    stat(tmp_path, 1000, 1000)
    with Watch(tmp_path) as watch:
        stat(tmp_path, 1000 + 600_000, 1000 + 400_000)  # this process took next to nothing
    assert watch.others == pytest.approx(0.6, abs=0.001)
    assert watch.warnings == ["other processes took 60% of the processor during the run: trust only the ratios"]


def test_own_time_is_not_that_of_others(tmp_path: Path) -> None:
    stat(tmp_path, 1000, 1000)
    with Watch(tmp_path) as watch:
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
        stat(tmp_path, 1000 + 20, 1000 + 180)  # 0.2 s at 100 ticks a second
    assert watch.others == pytest.approx(0, abs=0.03)
    assert watch.warnings == []


def test_without_counters_nothing_is_claimed(tmp_path: Path) -> None:
    with Watch(tmp_path) as watch:
        pass
    assert watch.others is None and watch.warnings == []
