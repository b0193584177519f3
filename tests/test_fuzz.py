"""``fuzz/run.py``: it finds what is wrong, and a short round finds nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from squeezedet.errors import DataError

SCRIPT = Path(__file__).resolve().parents[1] / "fuzz/run.py"


@pytest.fixture
def fuzz() -> Any:
    spec = importlib.util.spec_from_file_location("fuzz_run", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_a_finding(fuzz: Any) -> None:
    def read(data: bytes) -> None:
        raise {b"a": DataError("one line"), b"b": DataError("two\nlines")}.get(data, KeyError("x"))

    assert fuzz.attempt(read, b"a") is None
    assert "several lines" in fuzz.attempt(read, b"b")
    assert "KeyError" in fuzz.attempt(read, b"c")
    assert fuzz.attempt(len, b"d") is None


@pytest.mark.parametrize("target", ["image", "infer", "yaml", "labels", "bundle"])
def test_seeds_are_read(fuzz: Any, target: str, tmp_path: Path) -> None:
    seeds, read = fuzz.TARGETS[target](tmp_path)
    assert [fuzz.attempt(read, seed) for seed in seeds] == [None] * len(seeds)


@pytest.mark.slow
def test_a_round_of_all_targets(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--seconds", "24", "--seed", "1", "--out", tmp_path / "found"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0 findings") == 8
