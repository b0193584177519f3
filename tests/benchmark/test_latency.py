"""A whole benchmark of stand-ins whose times are known, and its JSON and tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from squeezedet.benchmark.latency import FORMAT, Benchmark, run, tables
from squeezedet.benchmark.machine import PeakMemory

from .standins import candidate, pictures

QUICK: dict[str, Any] = {"rounds": 4, "with_memory": False}
OPERATIONS = 10.0e9


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    """A at 100 ms, B at 50 ms, and what is measured elsewhere filled in by hand."""
    warm_up = [1000.0] * 5
    slow = candidate("slow", [*warm_up, 90, 110, 100, 100], preprocess_ms=5, postprocess_ms=5)
    quick = candidate("quick", [*warm_up, 45, 55, 50, 50], preprocess_ms=3, postprocess_ms=1)
    found = run([slow, quick], pictures(tmp_path, (64, 32)), **QUICK)
    results = [
        replace(result, memory=PeakMemory(200 * 2**20, 40 * 2**20), operations=OPERATIONS) for result in found.results
    ]
    return replace(found, results=results, others=0.01)


def test_ratios_are_to_the_first(benchmark: Benchmark) -> None:
    slow, quick = benchmark.results
    assert (slow.network_ratio.median, slow.ratio.median) == (1, 1)
    assert quick.network_ratio.median == quick.network_ratio.high == pytest.approx(0.5)
    assert quick.ratio.median == pytest.approx(54 / 110)
    assert quick.overhead.median == pytest.approx(0.08)
    assert quick.end_to_end.median == 54
    assert quick.frames_per_s == pytest.approx(1000 / 54)
    # 10 GFLOP in 50 ms are 200 GFLOP/s
    assert quick.operations_per_s == pytest.approx(200e9)


SUMMARY = {"n": int, "median": float, "p5": float, "p95": float, "mean": float, "minimum": float}
RATIO = {"median": float, "low": float, "high": float}
STAGES = ("load", "preprocess", "network", "postprocess")
SCHEMA = {
    "format": str,
    "date": str,
    "machine": {
        **{"cpu": str, "cores": int, "flags": list, "memory_bytes": int, "governor": None},
        **{"system": str, "python": str, "versions": dict, "load_1m": float},
    },
    "others_share": float,
    "warnings": list,
    "plan": {"rounds": int, "seconds": None, "threads": None},
    "pictures": int,
    "rounds": int,
    "frame_sizes": list,
    "candidates": [
        {
            **{"name": str, "engine": str, "engine_note": str, "input": str},
            **{"parameters": int, "file_bytes": int},
            "stages_ms": dict.fromkeys(STAGES, SUMMARY),
            "end_to_end_ms": SUMMARY,
            "frames_per_s": float,
            "overhead": SUMMARY,
            "network_ratio": RATIO,
            "end_to_end_ratio": RATIO,
            "operations": float,
            "operations_per_s": float,
            "memory": {"peak_bytes": int, "before_bytes": int},
            "samples_ms": dict.fromkeys(STAGES, list),
        }
    ],
}


def check(value: Any, schema: Any, where: str = "") -> None:
    """Every name of the schema is there and no other, and each value is of its kind."""
    if schema is None:
        return
    if isinstance(schema, list):
        assert isinstance(value, list) and value, where
        for k, item in enumerate(value):
            check(item, schema[0], f"{where}[{k}]")
    elif isinstance(schema, Mapping):
        assert isinstance(value, dict), where
        assert value.keys() == schema.keys(), where
        for name, kind in schema.items():
            check(value[name], kind, f"{where}.{name}")
    elif schema is float:
        assert type(value) in (int, float), (where, value)
    else:
        assert type(value) is schema, (where, value)


def test_json_holds_everything_under_its_name(benchmark: Benchmark) -> None:
    record = json.loads(json.dumps(benchmark.to_dict(), allow_nan=False))
    check(record, SCHEMA)
    assert record["format"] == FORMAT and record["rounds"] == 4
    slow, quick = record["candidates"]
    assert quick["samples_ms"]["network"] == [45, 55, 50, 50]  # every single measurement
    assert slow["stages_ms"]["network"]["median"] == 100
    assert slow["stages_ms"]["load"]["median"] == 2


def test_what_was_not_measured_is_null(tmp_path: Path) -> None:
    found = run([candidate("A")], pictures(tmp_path, (16, 16)), **QUICK)
    record = found.to_dict()
    (only,) = record["candidates"]
    for name in ("memory", "operations", "operations_per_s"):
        assert only[name] is None


def test_tables(benchmark: Benchmark) -> None:
    times, ratios, costs = tables(benchmark)
    assert times.title.startswith("one stream, 4 rounds by turns over 1 picture of 64x32; ")
    assert times.rows[0][:3] == ("model", "engine", "input")
    assert " ".join(times.rows[1]) == ("slow hand 64x32 2.00 5.00 100.00 108.50 5.00 110.00 118.50 9.1 10.0%")
    assert times.rows[2][5] == "50.00" and times.rows[2][-2:] == ("18.5", "8.0%")
    assert ratios.title.startswith("times as long as slow in hand")
    assert " ".join(ratios.rows[2]).startswith("quick hand 0.50 [0.50, 0.50] 0.49 [")
    assert costs.title == "size and operations"
    assert " ".join(costs.rows[1]) == "slow hand 4.00 1,048,576 200 (40 before) 10.00 100"  # 100 GFLOP/s
    assert costs.rows[2][-2:] == ("10.00", "200")


def test_one_candidate_has_no_table_of_ratios(tmp_path: Path) -> None:
    found = run([candidate("A")], pictures(tmp_path, (16, 16), (32, 16)), **QUICK)
    times, costs = tables(found)
    assert costs.rows[1][-3:] == ("-", "-", "-")
    assert "over 2 pictures of 2 sizes" in times.title and costs.title == "size and operations"
