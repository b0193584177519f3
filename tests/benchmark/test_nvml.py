"""NVML, with a library that answers like a card; the real one needs a card."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from squeezedet.benchmark import meter
from squeezedet.benchmark.meter import Card, NvmlMeter
from squeezedet.errors import MissingExtraError, SqueezeDetError, UsageError


class NVMLError(Exception):
    """As pynvml's: its text is NVML's reason."""


@dataclass
class FakeCard:
    """Power that a test sets."""

    power_mw: int = 80_900
    cards: int = 1
    fails: set[str] = field(default_factory=set)

    def module(self) -> SimpleNamespace:
        answers = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetCount": lambda: self.cards,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetName": lambda handle: "NVIDIA TITAN X",
            "nvmlDeviceGetPowerUsage": lambda handle: self.power_mw,
        }

        def answering(name: str) -> object:
            def function(*arguments: object) -> object:
                if name in self.fails:
                    raise NVMLError("Not Supported")
                return answers[name](*arguments)  # type: ignore[operator]

            return function

        return SimpleNamespace(NVMLError=NVMLError, **{name: answering(name) for name in answers})


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> FakeCard:
    fake = FakeCard()
    monkeypatch.setitem(sys.modules, "pynvml", fake.module())
    return fake


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short blocks have enough samples even where the machine is busy."""
    monkeypatch.setattr(meter, "INTERVAL_S", 0.01)


@pytest.mark.slow
def test_the_supplements_method_live(card: FakeCard) -> None:
    with NvmlMeter().measure() as measurement:
        time.sleep(0.7)
    found = measurement.reading(frames=31)
    assert found.power_w == pytest.approx(80.9)
    assert found.energy_per_frame_j == pytest.approx(80.9 / found.frames_per_s)
    assert found.source == "NVML, card 0, NVIDIA TITAN X: power sampled every 0.1 s"
    assert "middle third" in found.how and found.idle == "idle power not measured, not subtracted"


def test_a_card_that_rests(card: FakeCard) -> None:
    card.power_mw = 15_000
    with NvmlMeter().measure() as measurement:
        time.sleep(0.05)
    with pytest.raises(SqueezeDetError, match=r"TITAN X.*no power sample reaches 20 W"):
        measurement.reading(frames=1)


@pytest.mark.slow
def test_work_for_less_than_half_of_the_block(card: FakeCard, fast: None) -> None:
    with NvmlMeter().measure() as measurement:
        time.sleep(0.1)
        card.power_mw = 15_000
        time.sleep(0.5)
    with pytest.raises(SqueezeDetError, match=r"for only 0\.\d s of \d\.\d s; does the network run"):
        measurement.reading(frames=1)


def test_a_block_that_is_too_short(card: FakeCard) -> None:
    with NvmlMeter().measure() as measurement:
        pass
    with pytest.raises(SqueezeDetError, match="measure longer"):
        measurement.reading(frames=1)


@pytest.mark.slow
def test_a_card_that_falls_silent(card: FakeCard, fast: None) -> None:
    with NvmlMeter().measure() as measurement:
        card.fails.add("nvmlDeviceGetPowerUsage")
        time.sleep(0.1)
    with pytest.raises(SqueezeDetError, match=r"gives no power \(Not Supported\)"):
        measurement.reading(frames=1)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nvmlInit", r"no NVIDIA driver answers \(Not Supported\)"),
        ("nvmlDeviceGetHandleByIndex", "card 0 cannot be opened"),
        ("nvmlDeviceGetPowerUsage", "card 0, NVIDIA TITAN X gives no power"),
    ],
)
def test_what_does_not_answer(card: FakeCard, function: str, message: str) -> None:
    card.fails.add(function)
    with pytest.raises(SqueezeDetError, match=message):
        NvmlMeter()


def test_which_card(card: FakeCard) -> None:
    card.cards = 4
    assert Card(2).name == "card 2, NVIDIA TITAN X"
    with pytest.raises(UsageError, match=r"of 4 cards \(0 to 3\) none is named"):
        Card()
    for index in (-1, 4):
        with pytest.raises(UsageError, match=f"there is no card {index}"):
            Card(index)
    card.cards = 0
    with pytest.raises(SqueezeDetError, match="finds no card"):
        Card()


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingExtraError, match=r"squeezedet\[energy\]"):
        NvmlMeter()
