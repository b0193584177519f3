"""A whole benchmark: candidates timed by turns, their memory, and the machine's peak."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from squeezedet.errors import SqueezeDetError
from squeezedet.latency.machine import Machine, Watch, describe
from squeezedet.latency.memory import Memory, peak_memory
from squeezedet.latency.peak import Peak, peak
from squeezedet.latency.summary import Ratio, Summary, ratio, summarize
from squeezedet.latency.throughput import Throughput, block_frames, throughput
from squeezedet.latency.turns import Candidate, Timings, Turns, take_turns
from squeezedet.media.table import STAGES

FORMAT = "squeezedet benchmark 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: of the turns.
        seconds: that the turns may take; None for all rounds.
        threads: that the candidates were opened with; None for their own choice.
        with_throughput: also work through the pictures overlapped, in blocks.
        with_peak: also time matrix products, before and after.
        with_memory: also open each candidate in a process of its own.
    """

    rounds: int = 100
    seconds: float | None = None
    threads: int | None = None
    with_throughput: bool = True
    with_peak: bool = True
    with_memory: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was found of one candidate.

    Attributes:
        candidate: which.
        timings: every measurement, by turns.
        stages: load, preprocess, network, postprocess -> milliseconds.
        end_to_end: milliseconds from decoded pixels to boxes.
        overhead: all but the network, as a share of the network's time.
        network_ratio, ratio: network, and end to end, over the first candidate's.
        speed_up: the first candidate's network over this one's end to end: how many times as fast
            the whole is as the other's network alone.
        throughput: None where it was not measured.
        memory: None where it was not measured.
    """

    candidate: Candidate
    timings: Timings
    stages: Mapping[str, Summary]
    end_to_end: Summary
    overhead: Summary
    network_ratio: Ratio
    ratio: Ratio
    speed_up: Ratio
    throughput: Throughput | None
    memory: Memory | None

    @property
    def frames_per_s(self) -> float:
        """One stream, from decoded pixels to boxes."""
        return 1000 / self.end_to_end.median


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Everything that one run found.

    Attributes:
        date: of its start, UTC.
        machine: as it was before the run.
        plan: what was asked for.
        pictures: how many there were to choose from.
        turns: the run by turns.
        results: of each candidate; ratios are to the first.
        peak: of the machine; None where it was not measured.
        others: share of the processor that others took while the turns ran; None if unknown.
        warnings: what may mislead, one sentence each.
    """

    date: str
    machine: Machine
    plan: Plan
    pictures: int
    turns: Turns
    results: Sequence[Result]
    peak: Peak | None
    others: float | None
    warnings: Sequence[str]

    def to_dict(self, operations: Sequence[float | None]) -> dict[str, Any]:
        """Every figure and every single measurement, ready for JSON.

        Args:
            operations: of a frame in each candidate's network, on average; None if not counted.
        """
        return {
            "format": FORMAT,
            "date": self.date,
            "machine": {**asdict(self.machine), "flags": list(self.machine.flags)},
            "others_share": self.others,
            "warnings": list(self.warnings),
            "plan": asdict(self.plan),
            "pictures": self.pictures,
            "rounds": len(self.turns.frame_sizes),
            "frame_sizes": [list(size) for size in self.turns.frame_sizes],
            "peak": asdict(self.peak) if self.peak else None,
            "candidates": [
                self._record(result, count)
                for result, count in zip(self.results, operations, strict=True)
            ],
        }

    def _record(self, result: Result, operations: float | None) -> dict[str, Any]:
        candidate = result.candidate
        return {
            "name": candidate.name,
            "engine": candidate.engine,
            "engine_note": candidate.note,
            "input": candidate.input,
            "parameters": candidate.parameters,
            "file_bytes": candidate.file_bytes,
            "stages_ms": {stage: asdict(found) for stage, found in result.stages.items()},
            "end_to_end_ms": asdict(result.end_to_end),
            "frames_per_s": result.frames_per_s,
            "overhead": asdict(result.overhead),
            "network_ratio": asdict(result.network_ratio),
            "end_to_end_ratio": asdict(result.ratio),
            "speed_up_over_first_network": asdict(result.speed_up),
            "operations": operations,
            **self.shares(result, operations),
            "throughput": asdict(result.throughput) if result.throughput else None,
            "memory": asdict(result.memory) if result.memory else None,
            "samples_ms": {stage: list(times) for stage, times in result.timings.stages.items()},
        }

    def shares(self, result: Result, operations: float | None) -> dict[str, float | None]:
        """Operations a second of a network, and as shares of the two peaks."""
        rate = None
        if operations is not None:
            rate = 1000 * operations / result.stages["network"].median
        known = rate is not None and self.peak is not None
        return {
            "operations_per_s": rate,
            "share_of_float32_peak": rate / self.peak.float32 if known else None,  # type: ignore
            "share_of_int8_peak": rate / self.peak.int8 if known else None,  # type: ignore
        }


def run(candidates: Sequence[Candidate], pictures: Sequence[Path], plan: Plan) -> Benchmark:
    """Measure everything that the plan asks for.

    The peak is looked at before and after the turns, and the better look counts.

    Raises:
        DataError: a picture cannot be read.
        ModelError: a candidate fails.
    """
    date = f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d %H:%M} UTC"
    machine = describe()
    warnings = machine.warnings
    before = _peak(plan, warnings)
    with Watch() as watch:
        turns = take_turns(candidates, pictures, rounds=plan.rounds, seconds=plan.seconds)
    warnings += watch.warnings
    after = _peak(plan, warnings) if before else None
    rates: Sequence[Throughput | None] = [None] * len(candidates)
    if plan.with_throughput:
        frames = [block_frames(summarize(t.end_to_end).median) for t in turns.timings]
        rates = throughput(candidates, pictures, frames)
    memory = [_memory(c, pictures[0], warnings) if plan.with_memory else None for c in candidates]
    first = turns.timings[0]
    return Benchmark(
        date=date,
        machine=machine,
        plan=plan,
        pictures=len(pictures),
        turns=turns,
        results=[
            _result(*found, first)
            for found in zip(candidates, turns.timings, rates, memory, strict=True)
        ],
        peak=before.faster(after) if before and after else before,
        others=watch.others,
        warnings=warnings,
    )


def _result(
    candidate: Candidate,
    timings: Timings,
    rates: Throughput | None,
    memory: Memory | None,
    first: Timings,
) -> Result:
    return Result(
        candidate=candidate,
        timings=timings,
        stages={stage: summarize(timings.stages[stage]) for stage in STAGES},
        end_to_end=summarize(timings.end_to_end),
        overhead=summarize(timings.overhead),
        network_ratio=ratio(timings.stages["network"], first.stages["network"]),
        ratio=ratio(timings.end_to_end, first.end_to_end),
        speed_up=ratio(first.stages["network"], timings.end_to_end),
        throughput=rates,
        memory=memory,
    )


def _peak(plan: Plan, warnings: list[str]) -> Peak | None:
    if not plan.with_peak:
        return None
    try:
        return peak(plan.threads)
    except SqueezeDetError as error:
        warnings.append(str(error))
        return None


def _memory(candidate: Candidate, picture: Path, warnings: list[str]) -> Memory | None:
    try:
        return peak_memory(candidate.reopen, picture)
    except SqueezeDetError as error:
        warnings.append(f"{candidate.name}, {candidate.engine}: no peak memory: {error}")
        return None
