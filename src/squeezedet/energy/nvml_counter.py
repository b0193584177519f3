"""The energy counter of an NVIDIA card (Volta and later): exact over a block, without a curve."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from squeezedet.energy.measurement import Measurement, power_at_rest_w
from squeezedet.energy.nvml import Card
from squeezedet.energy.reading import Reading
from squeezedet.errors import SqueezeDetError


class NvmlCounterMeter:
    """The difference of ``nvmlDeviceGetTotalEnergyConsumption``; everything on the card counts.

    Unlike the supplement's method it holds the start and the end of the work, too. Nest the two
    meters to have both figures of one run.

    Args:
        index: which card; None for the only one.

    Raises:
        SqueezeDetError: there is no card with a counter, with the reason.
    """

    name = "nvml-counter"

    def __init__(self, index: int | None = None) -> None:
        self._card = Card(index)
        self._card.energy_j()
        self.source = f"NVML, {self._card.name}: total energy counter"

    def idle_power_w(self, duration_s: float) -> float | None:
        """Mean power while nothing is done here for ``duration_s``."""
        return power_at_rest_w(self.measure, duration_s)

    @contextmanager
    def measure(self) -> Iterator[Measurement]:
        """Read the counter before and after the block."""
        measurement = Measurement()
        before_j, start_s = self._card.energy_j(), time.perf_counter()
        yield measurement
        energy_j = self._card.energy_j() - before_j
        duration_s = time.perf_counter() - start_s

        def read(frames: int) -> Reading:
            if energy_j <= 0:
                raise SqueezeDetError(
                    f"{self.source}: it did not move in {duration_s:.2f} s; measure longer"
                )
            return Reading(
                source=self.source,
                how="difference of the card's energy counter over the whole block",
                frames=frames,
                duration_s=duration_s,
                energy_j=energy_j,
            )

        measurement.finish(read)
