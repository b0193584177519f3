"""A number never stands without its source and its idle power; the meters, and which one is taken."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from squeezedet.benchmark.meter import METERS, EnergyReading, Measurement, NoMeter, RaplMeter, Sampler, choose, probe
from squeezedet.errors import MissingExtraError, SqueezeDetError, UsageError


def reading(**changes: Any) -> EnergyReading:
    facts: dict[str, Any] = {
        "source": "a bench supply",
        "how": "read off",
        "frames": 50,
        "duration_s": 2.0,
        "energy_j": 100.0,
    }
    return EnergyReading(**{**facts, **changes})


def test_watts_frames_and_joules() -> None:
    found = reading()
    assert (found.power_w, found.frames_per_s, found.energy_per_frame_j) == (50.0, 25.0, 2.0)
    assert found.cpu_per_frame_s is None
    assert str(found) == ("2 J per frame (a bench supply; idle power not measured, not subtracted; read off)")


def test_idle_is_subtracted_once_and_said() -> None:
    found = reading(idle_w=10.0)
    assert found.idle == "idle power of 10.0 W not subtracted"
    less = found.less_idle(10.0)
    assert (less.energy_j, less.power_w, less.energy_per_frame_j) == (80.0, 40.0, 1.6)
    assert less.idle == "idle power of 10.0 W subtracted" and less.idle in str(less)
    with pytest.raises(ValueError, match="nothing to subtract from"):
        less.less_idle(1.0)


def test_an_idle_power_above_the_mean_is_refused() -> None:
    assert reading().less_idle(50.0).energy_j == 0.0
    with pytest.raises(SqueezeDetError, match=r"idle power of 50\.1 W is above.*50\.0 W"):
        reading().less_idle(50.1)


def test_without_energy_there_are_only_processor_seconds() -> None:
    found = reading(energy_j=None, cpu_s=5.0)
    assert found.power_w is None and found.energy_per_frame_j is None
    assert str(found).startswith("0.1 CPU seconds per frame (a bench supply; no energy")
    with pytest.raises(ValueError, match="nothing to subtract from"):
        found.less_idle(1.0)


def test_the_record_holds_every_figure() -> None:
    record = json.loads(json.dumps(reading(cpu_s=1.0).less_idle(5.0).record()))
    assert record == {
        "source": "a bench supply",
        "how": "read off",
        "frames": 50,
        "duration_s": 2.0,
        "energy_j": 90.0,
        "idle_w": 5.0,
        "idle_subtracted": True,
        "cpu_s": 1.0,
        "power_w": 45.0,
        "frames_per_s": 25.0,
        "energy_per_frame_j": 1.8,
        "cpu_per_frame_s": 0.02,
        "idle": "idle power of 5.0 W subtracted",
    }


@pytest.mark.parametrize(
    "wrong",
    [{"frames": 0}, {"duration_s": 0.0}, {"energy_j": float("nan")}, {"energy_j": -1.0}, {"idle_w": float("inf")}],
)
def test_what_is_no_measurement(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        reading(**wrong)


# ------------------------------------------------------------ a measured block


def test_a_reading_only_after_the_block() -> None:
    with NoMeter().measure() as measurement, pytest.raises(RuntimeError, match="after its block"):
        measurement.reading(frames=1)
    assert measurement.reading(frames=1).frames == 1


def test_no_reading_of_a_block_that_failed() -> None:
    seen: list[Measurement] = []
    with pytest.raises(KeyError), NoMeter().measure() as measurement:
        seen.append(measurement)
        raise KeyError("the block's own")
    with pytest.raises(RuntimeError, match="ended well"):
        seen[0].reading(frames=1)


def test_a_reading_is_of_frames() -> None:
    with NoMeter().measure() as measurement:
        pass
    with pytest.raises(UsageError, match="1 at least, not 0"):
        measurement.reading(frames=0)


@pytest.mark.slow
def test_samples_at_even_times_that_do_not_add_up() -> None:
    times_s: list[float] = []

    def slow(time_s: float) -> None:
        times_s.append(time_s)
        time.sleep(0.005)

    with Sampler(0.02, slow) as sampler:
        time.sleep(0.3)
    sampler.check()
    assert sampler.duration_s >= 0.3
    assert len(times_s) >= 3
    # a busy machine may be late and may miss some, but no turn comes early or twice
    turns = [int((time_s + 0.001) / 0.02) for time_s in times_s]
    assert turns == sorted(set(turns)) and len(times_s) <= 2 + sampler.duration_s / 0.02


def test_what_the_thread_raises_is_raised_by_check() -> None:
    def fail(time_s: float) -> None:
        raise OSError("the sensor is gone")

    with Sampler(0.01, fail) as sampler:
        pass
    with pytest.raises(OSError, match="the sensor is gone"):
        sampler.check()


def test_a_long_interval_does_not_hold_up_the_block() -> None:
    taken: list[float] = []
    with Sampler(60.0, taken.append) as sampler:
        pass
    assert sampler.duration_s < 10 and len(taken) == 1


# ------------------------------------------------------------ processor seconds where there is no meter


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


# ------------------------------------------------------------ which meter is taken, and why


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any meter; the folder where its processor's counters would be."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    folder = tmp_path / "powercap"
    monkeypatch.setitem(METERS, "rapl", partial(RaplMeter, folder))  # type: ignore[arg-type]
    return folder


def counter(folder: Path) -> None:
    zone = folder / "intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "energy_uj").write_text("5\n")
    (zone / "max_energy_range_uj").write_text("99\n")


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


def test_by_name(bare: Path) -> None:
    counter(bare)
    assert choose("none").why == "none, as asked for"
    assert choose("rapl", device="cuda").meter.name == "rapl"
    with pytest.raises(MissingExtraError):
        choose("nvml")


def test_a_meter_that_was_asked_for_and_does_not_work(bare: Path) -> None:
    with pytest.raises(SqueezeDetError, match="no energy counters"):
        choose("rapl")


def test_what_cannot_be_chosen() -> None:
    with pytest.raises(UsageError, match=r"no meter 'rapel'; did you mean rapl\? There are: auto"):
        choose("rapel")


def test_every_meter_says_whether_it_works(bare: Path) -> None:
    counter(bare)
    found = probe()
    assert {name: works for name, (works, _) in found.items()} == {"nvml": False, "rapl": True, "none": True}
    assert all(sentence and "\n" not in sentence for _, sentence in found.values())
