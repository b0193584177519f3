"""The table of the paper's networks, on the processor: what a card does is measured on one."""

from __future__ import annotations

import argparse

import pytest

import gpu_table
from squeezedet.papers.compare import ROWS, SCALE_DOWN


def test_every_network_has_its_row_in_the_paper() -> None:
    quoted = {row.name: row for row in ROWS}
    for name in gpu_table.NETWORKS:
        assert quoted[name].frames_per_s and quoted[name].energy_j
    # the supplement: height and width times 1.5 and 0.75
    assert gpu_table.NETWORKS[SCALE_DOWN][1] == (int(1242 * 0.75), int(375 * 0.75))


def test_rows_on_the_processor() -> None:
    options = argparse.Namespace(device="cpu", network=[SCALE_DOWN], batches=[1], rounds=2, seconds=0.05, meter="none")
    entries, why = gpu_table.measure(options)
    (entry,) = entries
    assert (entry.name, entry.precision, entry.batch) == (SCALE_DOWN, "float32", 1)
    assert entry.batch_ms.n == 2
    assert entry.frames_per_s == pytest.approx(1000 / entry.batch_ms.median)
    assert entry.reading.energy_j is None and entry.reading.cpu_per_frame_s
    assert why == "none, as asked for"
    row = gpu_table.table(entries).splitlines()[1].split()
    assert row[-3:] == ["92.5", "77.8", "0.84"]  # the TITAN X


def test_the_best_batch_is_that_of_most_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = next(iter(gpu_table.runners([SCALE_DOWN], "cpu")))
    times = {1: [10.0], 2: [15.0], 4: [40.0]}  # 100, 133 and 100 frames/s

    def timed(seconds: float, contender: object, images: object) -> list[float]:
        return times[len(images)]  # type: ignore[arg-type]

    monkeypatch.setattr(gpu_table, "_for", timed)
    assert gpu_table.best_batch(runner, [1, 2, 4]) == (2, [15.0])
