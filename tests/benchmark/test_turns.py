from __future__ import annotations

from pathlib import Path

import pytest

from squeezedet.benchmark.turns import Timings, take_turns
from squeezedet.media.images import Frame

from .standins import candidate, pictures


def test_candidates_take_turns_on_one_frame_after_the_other(tmp_path: Path) -> None:
    calls: list[tuple[str, str]] = []

    def seen(name: str, frame: Frame) -> None:
        calls.append((name, Path(frame.name).stem))

    files = pictures(tmp_path, (64, 32), (48, 32), (32, 32))
    names = "ABC"
    take_turns([candidate(n, seen=seen) for n in names], files, rounds=4, warm_up=2)
    frames = ["0", "1", "0", "1", "2", "0"]  # two to warm up, then four from the start
    assert calls == [(name, frame) for frame in frames for name in names]


def test_what_was_measured_belongs_to_its_round_and_the_warm_up_does_not_count(tmp_path: Path) -> None:
    files = pictures(tmp_path, (64, 32), (48, 16))
    slow = candidate("A", [900, 900, 10, 20, 30], preprocess_ms=2, postprocess_ms=3)
    quick = candidate("B", [500, 500, 5, 6, 7], preprocess_ms=0, postprocess_ms=0)
    found = take_turns([slow, quick], files, rounds=3, warm_up=2)
    first, second = found.timings
    assert list(first.stages) == ["load", "preprocess", "network", "postprocess"]
    assert first.stages["network"] == [10, 20, 30]
    assert first.end_to_end == [15, 25, 35]  # without the 2 ms of loading
    assert second.end_to_end == second.stages["network"] == [5, 6, 7]
    assert found.frame_sizes == [(64, 32), (48, 16), (64, 32)]


def test_overhead_is_all_but_the_network_over_the_network() -> None:
    timings = Timings({"load": [9, 9], "preprocess": [1, 2], "network": [10, 40], "postprocess": [1, 2]})
    assert timings.overhead == pytest.approx([0.2, 0.1])


def test_time_ends_the_rounds_but_not_before_five(tmp_path: Path) -> None:
    files = pictures(tmp_path, (16, 16))
    found = take_turns([candidate("A")], files, rounds=10_000, seconds=0.0)
    assert len(found.frame_sizes) == len(found.timings[0].end_to_end) == 5
    found = take_turns([candidate("A")], files, rounds=3, seconds=60.0)
    assert len(found.frame_sizes) == 3
