"""Which meter is taken, and why."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from squeezedet.benchmark import rapl
from squeezedet.benchmark.meter import NAMES, choose, probe
from squeezedet.errors import MissingExtraError, SqueezeDetError, UsageError


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any meter; the folder where its processor's counters would be."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    folder = tmp_path / "powercap"
    monkeypatch.setattr(rapl, "RaplMeter", partial(rapl.RaplMeter, folder))
    return folder


def counter(folder: Path) -> None:
    zone = folder / "intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "energy_uj").write_text("5\n")
    (zone / "max_energy_range_uj").write_text("99\n")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "power.csv"
    path.write_text("time_s,power_w\n" + "".join(f"{i / 10},50\n" for i in range(9)))
    return path


def test_none_where_nothing_works_and_why(bare: Path) -> None:
    processor, card = choose(), choose(device="cuda")
    assert processor.meter.name == card.meter.name == "none"
    assert processor.why.startswith("none, as the network runs on the processor and rapl does not")
    assert str(bare) in processor.why
    assert "runs on a card and nvml does not work here" in card.why
    assert "pip install 'squeezedet[energy]'" in card.why
    assert "\n" not in processor.why + card.why


def test_the_processors_counters_for_the_processor_only(bare: Path) -> None:
    counter(bare)
    chosen = choose()
    assert chosen.meter.name == "rapl"
    assert chosen.why == "rapl, as the network runs on the processor"
    assert choose(device="cuda").meter.name == "none"


def test_a_log_that_is_given_is_taken(bare: Path, log: Path) -> None:
    counter(bare)
    chosen = choose(log=log)
    assert chosen.meter.name == "log" and chosen.why == "log, as a power log is given"
    with chosen.meter.measure() as measurement:
        pass
    assert measurement.reading(frames=9).power_w == pytest.approx(50.0)


def test_by_name(bare: Path, log: Path) -> None:
    counter(bare)
    assert choose("none").why == "none, as asked for"
    assert choose("rapl", device="cuda").meter.name == "rapl"
    assert choose("log", log=log).meter.source == f"power log {log}"
    for name in ("nvml", "nvml-counter"):
        with pytest.raises(MissingExtraError):
            choose(name)


def test_a_meter_that_was_asked_for_and_does_not_work(bare: Path) -> None:
    with pytest.raises(SqueezeDetError, match="no energy counters"):
        choose("rapl")


def test_what_cannot_be_chosen(log: Path) -> None:
    with pytest.raises(UsageError, match=r"no meter 'rapel'; did you mean rapl\? There are: auto"):
        choose("rapel")
    with pytest.raises(UsageError, match="name it: `power_log`"):
        choose("log")
    with pytest.raises(UsageError, match="read by the meter log, not by none"):
        choose("none", log=log)


def test_every_meter_says_whether_it_works(bare: Path) -> None:
    counter(bare)
    found = probe()
    assert tuple(entry.name for entry in found) == NAMES
    assert {entry.name: entry.works for entry in found} == {
        "nvml": False,
        "nvml-counter": False,
        "rapl": True,
        "log": True,
        "none": True,
    }
    assert all(entry.sentence and "\n" not in entry.sentence for entry in found)
