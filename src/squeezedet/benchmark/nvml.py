"""The power of an NVIDIA card, sampled every 0.1 s through NVML, by the supplement's method.

``nvidia-smi``, which the supplement used, shows the same figure. Cards before Ampere (and A100) give the power of the
moment, later ones its mean over the last second: measure ten seconds or more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from statistics import fmean
from typing import Any

from squeezedet.benchmark.meter import EnergyReading, Measurement, Meter, Sampler
from squeezedet.benchmark.power_log import INTERVAL_S, WORKING_W, working_period
from squeezedet.errors import MissingExtraError, SqueezeDetError, UsageError

LEAST_SHARE = 0.5
"""Of the block that must be work, or the network ran elsewhere."""


class Card:
    """One card, by its number in ``nvidia-smi``; None for the only one.

    NVML stays open until the process ends: it is one library for all who use it.

    Raises:
        MissingExtraError: nvidia-ml-py is not installed.
        UsageError: there are several cards and none is named, or not this one.
        SqueezeDetError: there is no driver or no card, with NVML's reason.
    """

    def __init__(self, index: int | None = None) -> None:
        try:
            self._nvml: Any = import_module("pynvml")
        except ModuleNotFoundError as error:
            raise MissingExtraError("the NVML power meter", "energy") from error
        self._ask("no NVIDIA driver answers", self._nvml.nvmlInit)
        count = self._ask("the cards cannot be counted", self._nvml.nvmlDeviceGetCount)
        if count == 0:
            raise SqueezeDetError("NVML: the NVIDIA driver finds no card")
        if (index is None and count > 1) or (index is not None and not 0 <= index < count):
            asked = "none is named" if index is None else f"there is no card {index}"
            raise UsageError(f"NVML: of {count} cards (0 to {count - 1}) {asked}; say which one")
        self.index = index or 0
        self._handle = self._ask(
            f"card {self.index} cannot be opened", self._nvml.nvmlDeviceGetHandleByIndex, self.index
        )
        name = self._ask("the card has no name", self._nvml.nvmlDeviceGetName, self._handle)
        self.name = f"card {self.index}, {name}"

    def power_w(self) -> float:
        """Power now, of the whole card."""
        function = self._nvml.nvmlDeviceGetPowerUsage
        return float(self._ask(f"{self.name} gives no power", function, self._handle)) / 1e3

    def energy_j(self) -> float:
        """Energy since the driver was loaded; Volta and later."""
        function = self._nvml.nvmlDeviceGetTotalEnergyConsumption
        return float(self._ask(f"{self.name} counts no energy", function, self._handle)) / 1e3

    def _ask(self, else_say: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._nvml.NVMLError as error:
            raise SqueezeDetError(f"NVML: {else_say} ({error})") from error


class NvmlMeter(Meter):
    """Watches the power of a card while a block runs; everything on the card counts.

    A large card idles above the 20 W that are work: then the whole block is the working period.

    Raises:
        SqueezeDetError: there is no card that says its power, with the reason.
    """

    name = "nvml"

    def __init__(self, index: int | None = None) -> None:
        self._card = Card(index)
        self._card.power_w()
        self.source = f"NVML, {self._card.name}: power sampled every {INTERVAL_S:g} s"

    def idle_power_w(self, duration_s: float) -> float:
        """Mean power while nothing is done here for ``duration_s``."""
        powers: list[float] = []
        with Sampler(INTERVAL_S, lambda _: powers.append(self._card.power_w())) as sampler:
            time.sleep(duration_s)
        sampler.check()
        return fmean(powers)

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        """Sample power while the block runs.

        Joules are the mean power of the middle third of the working period times the time of the whole block, as
        frames per second are the block's.
        """
        samples: list[tuple[float, float]] = []
        measurement = Measurement()
        with Sampler(INTERVAL_S, lambda time_s: samples.append((time_s, self._card.power_w()))) as sampler:
            yield measurement

        def read(frames: int) -> EnergyReading:
            sampler.check()
            times_s, powers_w = zip(*samples, strict=True)
            return self._reading(times_s, powers_w, sampler.duration_s, frames)

        measurement.read = read

    def _reading(
        self, times_s: Sequence[float], powers_w: Sequence[float], duration_s: float, frames: int
    ) -> EnergyReading:
        try:
            period = working_period(times_s, powers_w)
        except SqueezeDetError as error:
            raise SqueezeDetError(f"{self.source}: {error}") from error
        if period.duration_s < LEAST_SHARE * duration_s:
            raise SqueezeDetError(
                f"{self.source}: at least {WORKING_W:g} W for only "
                f"{period.duration_s:.1f} s of {duration_s:.1f} s; does the network run on it?"
            )
        return EnergyReading(
            source=self.source,
            how=period.how,
            frames=frames,
            duration_s=duration_s,
            energy_j=period.power_w * duration_s,
        )


# ------------------------------------------------------------ the card's own counter


class NvmlCounterMeter(Meter):
    """The difference of ``nvmlDeviceGetTotalEnergyConsumption``; everything on the card counts.

    Unlike the supplement's method it holds the start and the end of the work, too. Nest the two meters to have both
    figures of one run.

    Raises:
        SqueezeDetError: there is no card with a counter, with the reason.
    """

    name = "nvml-counter"
    how = "difference of the card's energy counter over the whole block"

    def __init__(self, index: int | None = None) -> None:
        self._card = Card(index)
        self.counter()
        self.source = f"NVML, {self._card.name}: total energy counter"

    def counter(self) -> Callable[[], float]:
        before_j = self._card.energy_j()
        return lambda: self._card.energy_j() - before_j
