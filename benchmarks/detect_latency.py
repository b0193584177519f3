"""What one image costs: stages of a detection, start-up, and memory, in one run.

A drawn scene of KITTI's size (1242x375) goes through the shipped model at 1248x384.
Medians; run it on a quiet machine::

    python benchmarks/detect_latency.py [--threads N] [--runs N]
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from squeezedet.data.scenes import generate
from squeezedet.media.images import Frame
from squeezedet.runtime.detector import load

STAGES = ("preprocess", "network", "postprocess")
IMPORT_TARGET_S, SHELL_TARGET_S, MEMORY_TARGET_MB, SHARE_TARGET = 0.25, 1.2, 350, 0.12


def stages(pixels: np.ndarray, runs: int, threads: int | None) -> dict[str, float]:
    """Median milliseconds of each stage, after five runs to warm up."""
    detector = load(threads=threads)
    timings = [detector.detect(Frame(pixels)).timing_ms for _ in range(runs + 5)][5:]
    return {stage: statistics.median(t[stage] for t in timings) for stage in STAGES}


def seconds(command: list[str], runs: int = 5) -> float:
    """Median wall-clock seconds of a command, after one run to warm up."""
    measured = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        measured.append(time.perf_counter() - start)
    return statistics.median(measured[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    pixels, _ = generate(0, 1242, 375)
    bare = seconds([sys.executable, "-c", "pass"])
    imported = seconds([sys.executable, "-c", "import squeezedet"])
    with tempfile.TemporaryDirectory() as folder:
        from PIL import Image

        picture = Path(folder) / "street.png"
        Image.fromarray(pixels).save(picture)
        shell = seconds([sys.executable, "-m", "squeezedet", "detect", str(picture)])
    memory_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    cost = stages(pixels, options.runs, options.threads)
    share = (cost["preprocess"] + cost["postprocess"]) / cost["network"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{platform.machine()}, {cores} cores, threads {options.threads or 'all'}, "
          f"Python {platform.python_version()}, n = {options.runs} frames, 5 starts")  # fmt: skip
    for stage, ms in cost.items():
        print(f"  {stage:<34}{ms:8.2f} ms")
    print(f"  {'(pre + postprocess) / network':<34}{share:8.1%}    target {SHARE_TARGET:.0%}")
    print(f"  {'import squeezedet, over bare Python':<34}{imported - bare:8.3f} s"
          f"   target {IMPORT_TARGET_S} s")  # fmt: skip
    print(f"  {'shell to boxes of one image':<34}{shell:8.3f} s   target {SHELL_TARGET_S} s")
    print(f"  {'peak memory of that process':<34}{memory_mb:8.0f} MB  target {MEMORY_TARGET_MB} MB")


if __name__ == "__main__":
    main()
