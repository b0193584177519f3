"""``squeezedet benchmark``: how long models take in engines on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from squeezedet.cli import options
from squeezedet.cli.output import STDOUT, check_target, say, table, write_json

EXAMPLES = """\
  squeezedet benchmark street
  squeezedet benchmark street --engine onnxruntime --engine openvino -o times.json
  squeezedet benchmark best.bundle small.bundle --images photos --threads 2
  squeezedet benchmark street --size 624x192 --rounds 50 --no-throughput
"""

ROUNDS = 100
MAX_ROUNDS = 1_000_000


def benchmark(
    models: options.Models,
    *,
    engine: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Engine, or auto; give it again for more [default: the file's own]."),
    ] = None,
    size: options.Size = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|DATA", help="Images, or labelled images in any layout [default: a demo picture, 1242x375]."
        ),
    ] = None,
    split: options.Split = None,
    threads: options.Threads = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=MAX_ROUNDS, help="Timed rounds [default: 100].")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Time for the rounds; the rest of them is left out.")
    ] = None,
    throughput: Annotated[
        bool, typer.Option(help="Also work through a folder, decoding and drawing meanwhile.")
    ] = True,
    out: options.JsonOut = None,
    trust_model: options.TrustModel = False,
) -> None:
    """Time models in engines, by turns on the same frames: A B A B ...

    Prints medians and 95th percentiles of each stage, ratios to the first candidate with their
    spread, frames per second through a folder, size, operations and peak memory. Let nothing
    else run meanwhile.
    """
    from squeezedet.benchmark import latency
    from squeezedet.text import parse_size

    check_target(out)
    input_size = parse_size(size) if size else None
    engines: list[str | None] = [*engine] if engine else [None]
    candidates = latency.candidates_of(models, engines, threads=threads, size=input_size, trust_model=trust_model)
    plan = latency.BenchmarkPlan(
        rounds=MAX_ROUNDS if seconds is not None and rounds is None else rounds or ROUNDS,
        seconds=seconds,
        threads=threads,
        with_throughput=throughput,
    )
    with latency.pictures_of(images, split) as pictures:
        found = latency.run(candidates, pictures, plan)
    if out != STDOUT:
        print(f"{found.date}\n{latency.describe_machine(found.machine, threads)}")
        for one in latency.tables(found):
            print(f"\n{one.title}")
            table(one.rows, left=range(one.words))
    for sentence in dict.fromkeys([*(c.note for c in candidates), *found.warnings]):
        if sentence:
            say(sentence)
    write_json(out, found.to_dict())
