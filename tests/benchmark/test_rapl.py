"""RAPL on a tree of files as the kernel lays them out."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.benchmark.meter import RaplMeter, packages, passed_uj
from squeezedet.errors import SqueezeDetError

RANGE_UJ = 262_143_328_850
NOBODY = 65_534


def zone(root: Path, number: str, name: str, energy_uj: int, range_uj: int = RANGE_UJ) -> Path:
    folder = root / number
    folder.mkdir()
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder


def count(folder: Path, energy_uj: int) -> None:
    """As the kernel's, a read never finds half a number."""
    new = folder / "new"
    new.write_text(f"{energy_uj}\n")
    new.replace(folder / "energy_uj")


def two_sockets(root: Path) -> dict[str, Path]:
    (root / "intel-rapl").mkdir()  # the control type, no zone
    names = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "uncore",
        "intel-rapl:0:2": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:1:0": "core",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    return {number: zone(root, number, name, 1_000_000) for number, name in names.items()}


def test_packages_only_each_once(tmp_path: Path) -> None:
    zones = two_sockets(tmp_path)
    meter = RaplMeter(tmp_path)
    assert meter.source.startswith("RAPL, package-0 + package-1:")
    with meter.measure() as measurement:
        for number, folder in enumerate(zones.values()):
            count(folder, 1_000_000 + 10**number * 1_000_000)
    found = measurement.reading(frames=4)
    assert found.energy_j == 1 + 10_000  # the first and the fifth zone
    assert found.energy_per_frame_j == 10_001 / 4
    assert not found.idle_subtracted and found.idle_w is None


def test_a_counter_that_starts_again(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 2_000_000)
    with RaplMeter(tmp_path).measure() as measurement:
        count(folder, 3_000_000)
    assert measurement.reading(frames=1).energy_j == 5.0


@pytest.mark.slow
def test_a_counter_that_starts_again_several_times(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 0, range_uj=10_000_000)
    with RaplMeter(tmp_path, look_s=0.01).measure() as measurement:
        for joules in (8, 16, 24):
            count(folder, joules * 1_000_000 % 10_000_000)
            time.sleep(0.25)
    assert measurement.reading(frames=1).energy_j == 24.0


@given(st.integers(1, 2**40), st.data())
def test_once_around_at_most(range_uj: int, data: st.DataObject) -> None:
    before = data.draw(st.integers(0, range_uj - 1))
    passed = data.draw(st.integers(0, range_uj - 1))
    assert passed_uj(before, (before + passed) % range_uj, range_uj) == passed


def test_a_counter_that_stands_still(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    with RaplMeter(tmp_path).measure() as measurement:
        pass
    with pytest.raises(SqueezeDetError, match="did not move"):
        measurement.reading(frames=1)


def test_no_counters(tmp_path: Path) -> None:
    with pytest.raises(SqueezeDetError, match=r"no energy counters .*virtual machines rarely"):
        RaplMeter(tmp_path / "powercap")
    with pytest.raises(SqueezeDetError, match="no energy counter of a processor package"):
        RaplMeter(tmp_path)
    zone(tmp_path, "intel-rapl:0", "psys", 0)
    with pytest.raises(SqueezeDetError, match="no energy counter of a processor package"):
        RaplMeter(tmp_path)


@pytest.mark.parametrize("content", ["", "many", "-5", "1_000", "1e6"])
def test_a_counter_that_is_no_number(tmp_path: Path, content: str) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    (folder / "energy_uj").write_text(content)
    with pytest.raises(SqueezeDetError, match=r"energy_uj: .* is not a number of microjoules"):
        RaplMeter(tmp_path)


def test_a_counter_that_goes_away(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = RaplMeter(tmp_path)
    with pytest.raises(SqueezeDetError, match=r"energy_uj: cannot be read"), meter.measure():
        (folder / "energy_uj").unlink()


@contextmanager
def nobody() -> Iterator[None]:
    """Root may read everything: be somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="files have no owner here")
def test_permission_denied_is_one_sentence() -> None:
    root = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    try:
        root.chmod(0o755)
        folder = zone(root, "intel-rapl:0", "package-0", 0)
        (folder / "energy_uj").chmod(0)  # the kernel's is 0400, root's
        with nobody():
            assert packages(root)[0].range_uj == RANGE_UJ
            with pytest.raises(SqueezeDetError, match=r"permission denied; .* chmod a\+r") as caught:
                RaplMeter(root)
        assert "\n" not in str(caught.value) and str(folder / "energy_uj") in str(caught.value)
    finally:
        shutil.rmtree(root)
