"""The paper's networks on a card: latency, throughput and joules, beside the TITAN X column.

Weights are random, which changes no time. A frame is uint8 pixels on the card to the boxes of every
anchor on the card; threshold and NMS are not in it. Latency at batch 1 is taken by turns, A B A B;
the best batch is the one of most frames per second; joules are those of NVML by the supplement's
method, idle not subtracted::

    python benchmarks/gpu_table.py [--seconds 10]
    python benchmarks/gpu_table.py --device cpu --network SqueezeDet --batches 1 --seconds 1
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from squeezedet.benchmark.machine import describe
from squeezedet.benchmark.meter import EnergyReading, Meter, choose
from squeezedet.benchmark.turns import Summary, summarize
from squeezedet.errors import SqueezeDetError, UsageError
from squeezedet.models import registry
from squeezedet.models.network import DetectionNetwork
from squeezedet.papers.compare import ROWS, SCALE_DOWN, SCALE_UP, ComparisonRow
from squeezedet.text import align

# Row of the paper -> name in the zoo and (width, height) of the input.
NETWORKS = {
    "SqueezeDet": ("squeezedet", (1242, 375)),
    "SqueezeDet+": ("squeezedet-plus", (1242, 375)),
    SCALE_DOWN: ("squeezedet", (931, 281)),
    SCALE_UP: ("squeezedet", (1863, 562)),
    "VGG16+ConvDet": ("vgg16-convdet", (1242, 375)),
    "ResNet50+ConvDet": ("resnet50-convdet", (1242, 375)),
}
PRECISIONS = {"cuda": (torch.float32, torch.float16), "cpu": (torch.float32,)}
BATCHES = (1, 2, 4, 8, 16, 32, 64)
WARM_UP, ROUNDS = 10, 100
SWEEP_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Runner:
    """A network on a device in one precision.

    Attributes:
        name: row of the paper.
        precision: of its convolutions; boxes are decoded from what they give.
    """

    name: str
    precision: torch.dtype
    network: DetectionNetwork
    device: str

    def images(self, batch: int) -> Tensor:
        """Noise of the input's size, on the device."""
        width, height = NETWORKS[self.name][1]
        shape = (batch, 3, height, width)
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)

    def run(self, images: Tensor) -> None:
        """Pixels to boxes; back when the device is done."""
        half = self.precision is not torch.float32
        with torch.inference_mode(), torch.autocast(self.device, self.precision, enabled=half):
            self.network.decode(self.network(images))
        if self.device == "cuda":
            torch.cuda.synchronize()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row of the table.

    Attributes:
        batch_ms: of a whole batch.
        frames_per_s: batch / median.
        reading: joules, of a run of their own.
    """

    name: str
    precision: str
    batch: int
    batch_ms: Summary
    frames_per_s: float
    reading: EnergyReading


def runners(names: Sequence[str], device: str) -> Iterator[Runner]:
    """Every network in every precision, in evaluation mode."""
    for name in names:
        kind, size = NETWORKS[name]
        network = registry.build(kind, geometry="paper", size=size)
        assert isinstance(network, DetectionNetwork)
        ready = network.fused().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for precision in PRECISIONS[device]:
            yield Runner(name, precision, ready, device)


def milliseconds(work: Callable[[], None]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def by_turns(contenders: Sequence[Runner], rounds: int) -> list[list[float]]:
    """Milliseconds of one frame, a list for each contender: A B A B ..."""
    frames = [contender.images(1) for contender in contenders]
    times: list[list[float]] = [[] for _ in contenders]
    for turn in range(WARM_UP + rounds):
        for mine, contender, frame in zip(times, contenders, frames, strict=True):
            taken = milliseconds(lambda c=contender, f=frame: c.run(f))  # type: ignore[misc]
            if turn >= WARM_UP:
                mine.append(taken)
    return times


def best_batch(contender: Runner, batches: Sequence[int]) -> tuple[int, list[float]]:
    """The batch of most frames per second, and the milliseconds of its batches."""
    found: dict[int, list[float]] = {}
    for batch in batches:
        with contextlib.suppress(torch.OutOfMemoryError):
            found[batch] = _for(SWEEP_S, contender, contender.images(batch))
    best = max(found, key=lambda batch: batch / summarize(found[batch]).median)
    return best, found[best]


def _for(seconds: float, contender: Runner, images: Tensor) -> list[float]:
    for _ in range(3):
        contender.run(images)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        times.append(milliseconds(lambda: contender.run(images)))
    return times


def energy(contender: Runner, batch: int, meter: Meter, seconds: float) -> EnergyReading:
    """What a frame costs at this batch."""
    images = contender.images(batch)
    _for(min(seconds, 1.0), contender, images)
    with meter.measure() as measurement:
        turns = len(_for(seconds, contender, images)) + 3
    return measurement.reading(batch * turns)


def measure(options: argparse.Namespace) -> tuple[list[Entry], str]:
    """All rows, and one sentence about the meter."""
    torch.backends.cudnn.benchmark = True
    chosen = choose(options.meter, device=options.device)
    contenders = list(runners(options.network or list(NETWORKS), options.device))
    entries = []
    for contender, alone in zip(contenders, by_turns(contenders, options.rounds), strict=True):
        batch, together = best_batch(contender, options.batches)
        rows = {1: alone} if batch == 1 else {1: alone, batch: together}
        for size, times in rows.items():
            found = summarize(times)
            entries.append(
                Entry(
                    name=contender.name,
                    precision=str(contender.precision).removeprefix("torch."),
                    batch=size,
                    batch_ms=found,
                    frames_per_s=1000 * size / found.median,
                    reading=energy(contender, size, chosen.meter, options.seconds),
                )
            )
    return entries, chosen.why


def table(entries: Sequence[Entry]) -> str:
    """The rows as text; the last columns are the paper's."""
    quoted: dict[str, ComparisonRow] = {row.name: row for row in ROWS}
    head = ["network", "precision", "batch", "ms a batch", "p95", "frames/s", "W", "J/frame"]
    rows = [[*head, "CPU s/frame", "TITAN X: frames/s", "W", "J/frame"]]
    for entry in entries:
        paper, reading = quoted[entry.name], entry.reading
        mine = (reading.power_w, reading.energy_per_frame_j, reading.cpu_per_frame_s)
        rows.append(
            [
                entry.name,
                entry.precision,
                str(entry.batch),
                f"{entry.batch_ms.median:.2f}",
                f"{entry.batch_ms.p95:.2f}",
                f"{entry.frames_per_s:.1f}",
                *("-" if figure is None else f"{figure:.4g}" for figure in mine),
                *(str(figure) for figure in (paper.frames_per_s, paper.power_w, paper.energy_j)),
            ]
        )
    return align(rows, (0, 1))


def main() -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=list(PRECISIONS), default="cuda")
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), help="default: all")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run for joules")
    parser.add_argument("--meter", default="auto")
    options = parser.parse_args()
    try:
        if options.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("torch finds no CUDA card here; --device cpu runs the same on this")
        entries, why = measure(options)
    except SqueezeDetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    date = f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}"
    card = torch.cuda.get_device_name() if options.device == "cuda" else describe().cpu
    print(f"{date}, {card}, torch {torch.__version__}; energy: {why}\n\n{table(entries)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
