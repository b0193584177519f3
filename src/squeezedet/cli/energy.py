"""``squeezedet energy``: joules per frame of a power log, and the meters of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from squeezedet.benchmark.reading import EnergyReading

EXAMPLES = """\
  squeezedet papers energy --power-log power.csv --frames 3741
  squeezedet papers energy --power-log jetson.csv --frames 500 --threshold 5 -o -
  squeezedet papers energy --list
"""


MOST_FRAMES = 1_000_000_000


def energy(
    *,
    power_log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Recorded power: CSV with columns time_s,power_w.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, max=MOST_FRAMES, help="Frames processed in the log's working period.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(metavar="W", help="The least power that is work [default: 20, the paper's].")
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE|-", help="Write all figures as JSON.")
    ] = None,
    list_meters: Annotated[bool, typer.Option("--list", help="Say which meters work on this machine.")] = False,
) -> None:
    """Joules per frame from a recorded power log, as the paper's supplement finds them.

    Samples of at least 20 W are the working period, the mean of its middle third is the power,
    and joules per frame = watts / frames per second. Idle power is not subtracted; the figure
    without it stands beside.
    """
    from squeezedet.errors import UsageError

    if list_meters:
        if any(option is not None for option in (power_log, frames, threshold, json_file)):
            raise UsageError("--list goes without other options")
        print(_meters())
        return
    if power_log is None or frames is None:
        raise UsageError("give --power-log FILE and --frames N, or --list")
    from squeezedet.benchmark.power_curve import WORKING_W
    from squeezedet.benchmark.power_log import LogMeter

    meter = LogMeter(power_log, WORKING_W if threshold is None else threshold)
    with meter.measure() as measurement:
        pass  # the work was done when the log was recorded
    _write(measurement.reading(frames), json_file)


def _meters() -> str:
    from squeezedet.benchmark.meter import choose, probe
    from squeezedet.text import align

    rows = [(p.name, "yes" if p.works else "no", p.sentence) for p in probe()]
    choices = [f"on {device}: {choose(device=device).why}" for device in ("cpu", "cuda")]
    table = align([("meter", "works", ""), *rows], left=(0, 1, 2))
    return "\n".join([table, "", "chosen for a network", *(f"  {choice}" for choice in choices)])


def _write(reading: EnergyReading, json_file: str | None) -> None:
    from squeezedet.files import write_atomic

    content = json.dumps(reading.record(), indent=2)
    if json_file == "-":
        print(content)
        return
    print(_told(reading))
    if json_file:
        write_atomic(Path(json_file), content + "\n")


def _told(reading: EnergyReading) -> str:
    from squeezedet.text import align

    rows = [
        ("source", reading.source),
        ("method", reading.how),
        ("power", f"{reading.power_w:.2f} W, {reading.idle}"),
        ("speed", f"{reading.frames_per_s:.2f} frames/s"),
        ("energy", f"{reading.energy_per_frame_j:.4g} J per frame, {reading.idle}"),
    ]
    if reading.idle_w is not None:
        less = reading.less_idle(reading.idle_w)
        rows.append(("less idle", f"{less.energy_per_frame_j:.4g} J per frame, {less.idle}"))
    return align(rows, left=(0, 1))
