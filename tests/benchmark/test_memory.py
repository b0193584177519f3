from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from squeezedet.benchmark.machine import high_water_bytes, peak_memory
from squeezedet.errors import SqueezeDetError

from .standins import pictures

MIB = 2**20


def test_the_kernel_says_the_most_that_was_held(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t  123456 kB\nVmRSS:\t  99 kB\n")
    assert high_water_bytes(status) == 123_456 * 1024
    assert high_water_bytes(tmp_path / "none") > MIB  # from getrusage


@pytest.mark.skipif(sys.platform != "linux", reason="counts pages that are touched")
def test_another_process_opens_and_detects_and_its_peak_stays(tmp_path: Path) -> None:
    # What opens gives a function of NumPy's that fills 80 MB; the frame is its "endpoint".
    (picture,) = pictures(tmp_path, (64, 32))
    found = peak_memory(partial(partial, np.linspace, 0.0, 1.0, 10_000_000), picture)
    assert 70e6 < found.peak_bytes - found.before_bytes < 300e6  # the kernel counts in batches


def test_a_process_that_is_ended_is_one_sentence(tmp_path: Path) -> None:
    (picture,) = pictures(tmp_path, (64, 32))
    with pytest.raises(SqueezeDetError, match="ended from outside"):
        peak_memory(partial(os._exit, 9), picture)
