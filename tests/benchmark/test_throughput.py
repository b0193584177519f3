from __future__ import annotations

from pathlib import Path

import pytest

from squeezedet.benchmark import turns as module
from squeezedet.benchmark.turns import block_frames, network_rate, overlapped_rate, throughput
from squeezedet.media.images import Frame

from .standins import candidate, pictures


def test_a_block_takes_about_a_second() -> None:
    assert [block_frames(ms) for ms in (0.1, 20, 1e6)] == [400, 50, 10]


def test_the_networks_own_rate_is_that_of_its_median(tmp_path: Path) -> None:
    files = pictures(tmp_path, (16, 16))
    assert network_rate(candidate("A", [10, 10, 500]), files, 9) == pytest.approx(100)


def test_every_frame_is_detected_and_every_picture_written(tmp_path: Path) -> None:
    files = pictures(tmp_path, (16, 16), (32, 16))
    seen: list[str] = []

    def note(name: str, frame: Frame) -> None:
        seen.append(Path(frame.name).name)

    out = tmp_path / "out"
    assert overlapped_rate(candidate("A", seen=note), files, 5, out) > 0
    assert seen == ["0.png", "1.png", "0.png", "1.png", "0.png"]
    assert sorted(p.name for p in out.iterdir()) == [*("0-2.jpg", "0-3.jpg", "0.jpg", "1-2.jpg", "1.jpg")]
    assert overlapped_rate(candidate("A"), files, 3) > 0


def test_blocks_are_interleaved_and_shares_are_of_the_same_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pictures(tmp_path, (16, 16))
    seen: list[str] = []

    def note(name: str, frame: Frame) -> None:
        seen.append(name)

    rates = iter([80.0, 60.0, 8.0, 6.0, 90.0, 45.0, 9.0, 4.5])  # boxes, pictures: A, B, A, B
    real = module.overlapped_rate

    def timed(*arguments: object) -> float:
        real(*arguments)  # type: ignore[arg-type]
        return next(rates)

    monkeypatch.setattr(module, "overlapped_rate", timed)
    candidates = [candidate("A", [10], seen=note), candidate("B", [100], seen=note)]
    a, b = throughput(candidates, files, frames=[2, 1], blocks=2)
    assert seen == ["A"] * 6 + ["B"] * 3 + ["A"] * 6 + ["B"] * 3
    assert (a.network, a.boxes, a.pictures, a.frames) == (100, 85, 52.5, 2)
    assert (a.boxes_share.median, a.pictures_share.median) == pytest.approx((0.85, 0.525))
    assert (a.pictures_share.low, a.pictures_share.high) == pytest.approx((0.4575, 0.5925))
    assert (b.network, b.boxes_share.median) == pytest.approx((10, 0.85))
