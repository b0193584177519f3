"""What labeling many images costs: beside `detect`, with one and two workers of Ray, and in memory.

Copies of the pictures of a folder are labeled by `squeezedet detect`, by `squeezedet label` in one process,
and by Ray with one worker and with two, all with one thread for the network. The first two take turns, and the time of
the same command on one picture is taken off; of Ray the time from the first part to the last counts, with as many parts
a worker. Memory is the sum of the proportional set sizes of all processes of a job, at its highest. Run it on a quiet
machine::

    python benchmarks/fleet_label.py --pictures FOLDER [--count 1000] [--rounds 3] [--model street]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import cycle, islice
from pathlib import Path

from squeezedet.fleet.labels import write_list
from squeezedet.fleet.store import Store
from squeezedet.text import counted

RAY = """
import json, sys, time
from squeezedet.fleet.label import label
times = []
source, out, model, workers, size = sys.argv[1:]
label([source], out, model=model, ray="local", workers=int(workers), images_per_part=int(size),
      report=lambda done, parts: times.append(time.perf_counter()))
print(json.dumps(times))
"""
PARTS = 20
"""Of a worker of Ray."""


def fill(folder: Path, pictures: list[Path], count: int) -> Path:
    """So many pictures in a new folder."""
    folder.mkdir()
    for number, picture in enumerate(islice(cycle(pictures), count)):
        shutil.copyfile(picture, folder / f"{number:06d}{picture.suffix}")
    return folder


def cpu_s() -> float:
    """Processor time of all commands so far; it hardly depends on what else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: list[str]) -> tuple[float, float, str]:
    """Seconds of a command, megabytes of all its processes at most, and what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    highest, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            highest[0] = max(highest[0], sum(map(pss_mb, tree(process.pid))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    printed = process.communicate()[0]
    over.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return time.perf_counter() - start, highest[0], printed


def tree(root: int) -> set[int]:
    """A process and all below it."""
    parents = {}
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def pss_mb(pid: int) -> float:
    """Proportional set size: shared pages are counted once over all processes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def command(verb: str, source: Path, out: Path, model: str) -> list[str]:
    """The command line of a verb."""
    words = [sys.executable, "-m", "squeezedet", verb, str(source), "--model", model, "--quiet"]
    return words + (["--threads", "1", "--out", f"{out}.jsonl"] if verb == "detect" else ["--out", str(out)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="street")
    options = parser.parse_args()
    pictures = sorted(path for path in options.pictures.iterdir() if path.is_file())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many, one = fill(folder / "many", pictures, options.count), fill(folder / "one", pictures, 1)
        alone(folder, many, one, options)
        with_ray(folder, many, options)
        start = time.perf_counter()
        (folder / "list").mkdir()
        inputs, _, _ = write_list(Store(str(folder / "list")), [str(many)])
        print(f"list: {1e6 * (time.perf_counter() - start) / inputs:.0f} us an image")


def alone(folder: Path, many: Path, one: Path, options: argparse.Namespace) -> None:
    """`detect` and `label` in one process, by turns."""
    ms: dict[str, list[float]] = {"detect": [], "label": []}
    cpu_ms: dict[str, list[float]] = {"detect": [], "label": []}
    memory_mb = dict.fromkeys(ms, 0.0)
    for k in range(options.rounds):
        for verb, values in ms.items():
            before_s = cpu_s()
            whole_s, used_mb, _ = run(command(verb, many, folder / f"{verb}-{k}", options.model))
            between_s = cpu_s()
            start_s, _, _ = run(command(verb, one, folder / f"{verb}-{k}-one", options.model))
            values.append(1000 * (whole_s - start_s) / (options.count - 1))
            cpu_ms[verb].append(1000 * (2 * between_s - before_s - cpu_s()) / (options.count - 1))
            memory_mb[verb] = max(memory_mb[verb], used_mb)
    for verb, values in ms.items():
        print(f"{verb}: {statistics.median(values):.2f} ms an image, {memory_mb[verb]:.0f} MB")
        print(f"  processor time: {statistics.median(cpu_ms[verb]):.2f} ms an image")
    more = [b / a - 1 for a, b in zip(ms["detect"], ms["label"], strict=True)]
    print(f"label / detect: {statistics.median(more):+.1%} ({min(more):+.1%} to {max(more):+.1%})")
    size = sum(path.stat().st_size for path in (folder / "label-0").rglob("*.parquet"))
    print(f"labels: {size / options.count:.0f} bytes an image; pictures: {bytes_of(many) / options.count:.0f}")


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def with_ray(folder: Path, many: Path, options: argparse.Namespace) -> None:
    """One and two workers of Ray, by turns."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for k in range(options.rounds):
        for workers, values in rates.items():
            size = max(options.count // (PARTS * workers), 1)
            arguments = [str(many), str(folder / f"ray-{workers}-{k}"), options.model, str(workers), str(size)]
            whole_s, used_mb, printed = run([sys.executable, "-c", RAY, *arguments])
            times = sorted(json.loads(printed.splitlines()[-1]))
            values.append(size * (len(times) - workers) / (times[-1] - times[workers - 1]))
            name = f"Ray, {counted(workers, 'worker')}"
            print(f"{name}: {values[-1]:.1f} images/s, {whole_s:.0f} s in all, {used_mb:.0f} MB")
    factors = [b / a for a, b in zip(*rates.values(), strict=True)]
    print(f"two workers / one: {statistics.median(factors):.2f} ({min(factors):.2f} to {max(factors):.2f})")


if __name__ == "__main__":
    main()
