"""``squeezedet benchmark``: how long models take in engines on this machine."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from squeezedet.benchmark.latency import Benchmark

EXAMPLES = """\
  squeezedet benchmark squeezedet
  squeezedet benchmark squeezedet --engine onnxruntime --engine openvino --json times.json
  squeezedet benchmark best.bundle small.bundle --images photos --threads 2
  squeezedet benchmark squeezedet --size 624x192 --rounds 50 --no-throughput
"""

ROUNDS = 100
MOST_ROUNDS = 1_000_000


def benchmark(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Shipped models or bundles.", show_default=False),
    ],
    *,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Engine, or auto; give it again for more [default: the file's own].",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Size of the network's input [default: the model's]."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Images to detect in [default: a demo picture, 1242x375]."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Processor threads [default: all cores].")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=MOST_ROUNDS, help="Timed rounds [default: 100].")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, help="Time for the rounds; the rest of them is left out."),
    ] = None,
    throughput: Annotated[
        bool, typer.Option(help="Also work through a folder, decoding and drawing meanwhile.")
    ] = True,
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE|-", help="Write every single measurement as JSON."),
    ] = None,
) -> None:
    """Time models in engines, by turns on the same frames: A B A B ...

    Prints medians and 95th percentiles of each stage, ratios to the first candidate with their
    spread, frames per second through a folder, size and peak memory, and what share of this
    machine's measured peak (matrix products in float32 and int8) the networks reach. Let
    nothing else run meanwhile.
    """
    from squeezedet.benchmark.latency import BenchmarkPlan, candidates_of, pictures_of, run, tables
    from squeezedet.files import check_file
    from squeezedet.text import parse_size

    if json_file and json_file != "-":
        check_file(Path(json_file))
    asked = parse_size(size, "--size") if size else None
    engines: list[str | None] = [*engine] if engine else [None]
    candidates = candidates_of(models, engines, threads=threads, size=asked)
    limit = MOST_ROUNDS if seconds is not None and rounds is None else rounds or ROUNDS
    plan = BenchmarkPlan(rounds=limit, seconds=seconds, threads=threads, with_throughput=throughput)
    with pictures_of(images) as pictures:
        found = run(candidates, pictures, plan)
    operations, note = _operations(found, models, len(engines), asked)
    if json_file != "-":
        print(tables(found, operations))
    for sentence in dict.fromkeys([*(c.note for c in candidates), *found.warnings, note]):
        if sentence:
            print(f"squeezedet: {sentence}", file=sys.stderr)
    _write(json_file, json.dumps(found.to_dict(operations), indent=2))


def _operations(
    found: Benchmark, models: Sequence[str], engines: int, size: tuple[int, int] | None
) -> tuple[list[float | None], str]:
    """Operations of a frame in each candidate's network, the mean over the rounds, or why not."""
    from squeezedet.errors import MissingExtraError, ModelError

    counted: list[float | None] = []
    note = ""
    for model in models:
        try:
            mean = _mean_operations(model, Counter(found.turns.frame_sizes), size)
        except MissingExtraError:
            mean = None
            note = "operations are not counted: that needs onnx, pip install 'squeezedet[int8]'"
        except ModelError as error:
            mean, note = None, f"operations are not counted: {error}"
        counted += [mean] * engines
    return counted, note


def _mean_operations(
    model: str, frames: Counter[tuple[int, int]], size: tuple[int, int] | None
) -> float:
    from squeezedet.cost import onnx
    from squeezedet.cost.layers import count
    from squeezedet.errors import ModelError
    from squeezedet.runtime import bundle

    read = bundle.read(bundle.find(model))
    if read.format != "onnx":
        raise ModelError(f"{model}: a file for {read.format}; only ONNX graphs are counted")
    inputs: Counter[tuple[int, int]] = Counter()
    for frame, times in frames.items():
        inputs[size or read.card.input.size(*frame)] += times
    total = sum(
        times * count(onnx.read(read.graph, model, shape)).flops for shape, times in inputs.items()
    )
    return total / inputs.total()


def _write(json_file: str | None, content: str) -> None:
    from squeezedet.files import write_atomic

    if json_file == "-":
        print(content)
    elif json_file:
        write_atomic(Path(json_file), content + "\n")
