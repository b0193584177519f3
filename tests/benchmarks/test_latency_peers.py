"""Peers among the candidates of a benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from latency_peers import accuracy, accuracy_table, operations, peer_candidate
from peers import PEERS, PICODET_S
from squeezedet.benchmark.latency import BenchmarkPlan, candidates_of, pictures_of, run, tables
from squeezedet.data.dataset import read_split
from squeezedet.data.scenes import write_folder
from squeezedet.errors import UsageError


def test_a_missing_peer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=PICODET_S.file):
        peer_candidate(PICODET_S, tmp_path, 1)


@pytest.mark.shared
def test_peers_stand_in_the_same_tables_at_their_own_size(shared: Path, tmp_path: Path) -> None:
    folder = shared / "weights" / "peers"
    candidates = candidates_of(["street"], [None], threads=1, size=(320, 96))
    candidates += [peer_candidate(network, folder, 1) for network in PEERS]
    plan = BenchmarkPlan(rounds=1, with_throughput=False, with_memory=False)
    with pictures_of(None) as demo:
        found = run(candidates, demo, plan)
    counted = operations(found, ["street"], 1, folder)
    assert counted[0] == pytest.approx(6.104e9, rel=1e-3)  # of the model's own 1248x384
    text = tables(found, counted)
    inputs = {"PicoDet-S": "416x416", "YOLOX-Nano": "416x416", "NanoDet-m": "416x416",
              "FastestDet": "352x352"}  # fmt: skip
    for name, size in inputs.items():
        assert any(line.split()[:3] == [name, "onnxruntime", size] for line in text.splitlines())
    write_folder(tmp_path, count=1, width=320, height=96)
    judged = accuracy(candidates, read_split(tmp_path, "all"))
    lines = accuracy_table(candidates, judged).splitlines()
    assert len(lines) == 1 + len(candidates) and lines[1].split()[0] == "street"
