"""The result of a measurement: a number with its source and what was done about idle power."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

from squeezedet.errors import SqueezeDetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What some frames cost.

    Attributes:
        source: the meter and what it measures: "card 0, NVIDIA TITAN X".
        how: how the figure was found, one sentence without its full stop.
        frames: frames that were processed, 1 at least.
        duration_s: the time they took.
        energy_j: what they took together; None where there is no meter.
        idle_w: power of the same source doing nothing; None if it was not measured.
        idle_subtracted: whether ``idle_w`` for ``duration_s`` has been taken off ``energy_j``.
        cpu_s: processor time of this process and its children; None if it was not taken.

    Raises:
        ValueError: a number without a source, an idle power that is subtracted but not known,
            or a figure that is no measurement (no frame, no time, not finite).
    """

    source: str
    how: str
    frames: int
    duration_s: float
    energy_j: float | None
    idle_w: float | None = None
    idle_subtracted: bool = False
    cpu_s: float | None = None

    def __post_init__(self) -> None:
        if not self.source or not self.how:
            raise ValueError("a reading names its source and says how it was found")
        if self.idle_subtracted and (self.idle_w is None or self.energy_j is None):
            raise ValueError("idle power that is subtracted is a number, and so is the energy")
        figures = (self.duration_s, self.energy_j, self.idle_w, self.cpu_s)
        if not all(
            math.isfinite(figure) and figure >= 0 for figure in figures if figure is not None
        ):
            raise ValueError(f"no measurement: {self}")
        if self.frames < 1 or self.duration_s == 0:
            raise ValueError(f"{self.frames} frames in {self.duration_s} s are no measurement")

    @property
    def power_w(self) -> float | None:
        """Mean power over the time of the frames, less idle if that was subtracted."""
        return None if self.energy_j is None else self.energy_j / self.duration_s

    @property
    def frames_per_s(self) -> float:
        """Speed during the measurement."""
        return self.frames / self.duration_s

    @property
    def energy_per_frame_j(self) -> float | None:
        """Joules per frame: watts / frames per second."""
        return None if self.energy_j is None else self.energy_j / self.frames

    @property
    def cpu_per_frame_s(self) -> float | None:
        """Processor seconds per frame."""
        return None if self.cpu_s is None else self.cpu_s / self.frames

    @property
    def idle(self) -> str:
        """What was done about idle power, in words."""
        if self.energy_j is None:
            return "no energy, so no idle power to subtract"
        if self.idle_w is None:
            return "idle power not measured, not subtracted"
        done = "subtracted" if self.idle_subtracted else "not subtracted"
        return f"idle power of {self.idle_w:.1f} W {done}"

    def less_idle(self, idle_w: float) -> Reading:
        """The same reading with the energy of an idle machine taken off.

        Args:
            idle_w: power of the same source at rest; ``Meter.idle_power_w`` measures it.

        Raises:
            ValueError: idle power has been subtracted already, or there is no energy.
            SqueezeDetError: ``idle_w`` is above the mean power, so the machine was not at rest.
        """
        if self.energy_j is None or self.power_w is None or self.idle_subtracted:
            raise ValueError(f"nothing to subtract from: {self.idle}")
        if idle_w > self.power_w:
            raise SqueezeDetError(
                f"{self.source}: the idle power of {idle_w:.1f} W is above the mean power of "
                f"{self.power_w:.1f} W; measure it again while the machine does nothing else"
            )
        energy_j = self.energy_j - idle_w * self.duration_s
        return replace(self, energy_j=energy_j, idle_w=idle_w, idle_subtracted=True)

    def record(self) -> dict[str, str | int | float | bool | None]:
        """Every figure by name, for JSON."""
        return {
            **asdict(self),
            "power_w": self.power_w,
            "frames_per_s": self.frames_per_s,
            "energy_per_frame_j": self.energy_per_frame_j,
            "cpu_per_frame_s": self.cpu_per_frame_s,
            "idle": self.idle,
        }

    def __str__(self) -> str:
        """One line; its number never stands without source and idle power."""
        if self.energy_per_frame_j is not None:
            cost = f"{self.energy_per_frame_j:.4g} J per frame"
        elif self.cpu_per_frame_s is not None:
            cost = f"{self.cpu_per_frame_s:.4g} CPU seconds per frame"
        else:
            cost = "nothing measured"
        return f"{cost} ({self.source}; {self.idle}; {self.how})"
