"""A benchmark as tables, for people."""

from __future__ import annotations

from collections.abc import Sequence

from squeezedet.latency.benchmark import Benchmark, Result
from squeezedet.latency.machine import Machine
from squeezedet.media.table import align

Rows = list[list[str]]
MIB = 2**20


def tables(benchmark: Benchmark, operations: Sequence[float | None]) -> str:
    """The machine, and a table each for time, ratios, throughput, and cost.

    Args:
        benchmark: what was found.
        operations: of a frame in each candidate's network, on average; None if not counted.
    """
    rounds = len(benchmark.turns.frame_sizes)
    sizes = len(set(benchmark.turns.frame_sizes))
    width, height = benchmark.turns.frame_sizes[0]
    shown = f"{width}x{height}" if sizes == 1 else f"{sizes} sizes"
    pictures = "1 picture" if benchmark.pictures == 1 else f"{benchmark.pictures} pictures"
    parts = [
        f"{benchmark.date}\n{describe(benchmark.machine, benchmark.plan.threads)}",
        f"one stream, {rounds} rounds by turns over {pictures} of {shown}; "
        f"median and 95th percentile, ms\n{align(_times(benchmark), (0, 1, 2), '  ')}",
    ]
    if len(benchmark.results) > 1:
        first = benchmark.results[0].candidate
        parts.append(
            f"times as long as {first.name} in {first.engine}, median of the rounds "
            f"[5 to 95 % of them]\n{align(_ratios(benchmark), (0, 1), '  ')}"
        )
    if any(result.throughput for result in benchmark.results):
        parts.append(
            "through a folder, frames/s [share of the network's own rate]\n"
            f"{align(_throughput(benchmark), (0, 1), '  ')}"
        )
    parts.append(f"size and operations\n{align(_cost(benchmark, operations), (0, 1), '  ')}")
    return "\n\n".join(parts)


def describe(machine: Machine, threads: int | None) -> str:
    """The machine in two lines."""
    memory = f", {machine.memory_bytes / 2**30:.1f} GiB" if machine.memory_bytes else ""
    flags = f" ({' '.join(machine.flags)})" if machine.flags else ""
    clock = f", governor {machine.governor}" if machine.governor else ""
    load = "" if machine.load_1m is None else f", load {machine.load_1m:.2f} before"
    count = "1 thread" if threads == 1 else f"{threads or 'all'} threads"
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    return (
        f"{machine.cpu}{flags}, {machine.cores} cores, {count}{memory}{clock}"
        f"{load}\n{machine.system}, Python {machine.python}, {versions}"
    )


def _times(benchmark: Benchmark) -> Rows:
    head = ["model", "engine", "input", "load", "preprocess", "network", "p95", "postprocess"]
    rows = [[*head, "end to end", "p95", "frames/s", "overhead"]]
    for result in benchmark.results:
        s = result.stages
        rows.append(
            [
                result.candidate.name,
                result.candidate.engine,
                result.candidate.input,
                f"{s['load'].median:.2f}",
                f"{s['preprocess'].median:.2f}",
                f"{s['network'].median:.2f}",
                f"{s['network'].p95:.2f}",
                f"{s['postprocess'].median:.2f}",
                f"{result.end_to_end.median:.2f}",
                f"{result.end_to_end.p95:.2f}",
                f"{result.frames_per_s:.1f}",
                f"{result.overhead.median:.1%}",
            ]
        )
    return rows


def _ratios(benchmark: Benchmark) -> Rows:
    rows = [["model", "engine", "network", "end to end", "its network / this end to end"]]
    for result in benchmark.results:
        ratios = (result.network_ratio, result.ratio, result.speed_up)
        rows.append([result.candidate.name, result.candidate.engine, *map(str, ratios)])
    return rows


def _throughput(benchmark: Benchmark) -> Rows:
    rows = [["model", "engine", "network alone", "to boxes", "share", "to pictures", "share"]]
    for result in benchmark.results:
        found = result.throughput
        if found:
            rates = [
                f"{found.network:.1f}",
                f"{found.boxes:.1f}",
                str(found.boxes_share),
                f"{found.pictures:.1f}",
                str(found.pictures_share),
            ]
            rows.append([result.candidate.name, result.candidate.engine, *rates])
    return rows


def _cost(benchmark: Benchmark, operations: Sequence[float | None]) -> Rows:
    peak = benchmark.peak
    tops = [f"of {rate / 1e9:.0f}" for rate in (peak.float32, peak.int8)] if peak else ["", ""]
    head = ["model", "engine", "file, MB", "parameters", "peak memory, MiB", "GFLOP", "GFLOP/s"]
    rows = [[*head, f"{tops[0]} float32".strip(), f"{tops[1]} int8".strip()]]
    for result, count in zip(benchmark.results, operations, strict=True):
        rows.append(_cost_row(benchmark, result, count))
    return rows


def _cost_row(benchmark: Benchmark, result: Result, operations: float | None) -> list[str]:
    shares = benchmark.shares(result, operations)
    rate = shares["operations_per_s"]
    memory = result.memory
    return [
        result.candidate.name,
        result.candidate.engine,
        f"{result.candidate.file_bytes / 1e6:.2f}",
        f"{result.candidate.parameters:,}",
        f"{memory.peak_bytes / MIB:.0f} ({memory.before_bytes / MIB:.0f} before)"
        if memory
        else "-",
        "-" if operations is None else f"{operations / 1e9:.2f}",
        "-" if rate is None else f"{rate / 1e9:.0f}",
        _percent(shares["share_of_float32_peak"]),
        _percent(shares["share_of_int8_peak"]),
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
