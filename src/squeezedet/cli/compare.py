"""``squeezedet compare``: the paper's Tables 2 and 3 for any models, its own rows beside."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from squeezedet.cli.options import RuleSet

if TYPE_CHECKING:
    from squeezedet.benchmark.meter import Meter
    from squeezedet.benchmark.reading import EnergyReading
    from squeezedet.benchmark.turns import Candidate
    from squeezedet.data.sample import Sample
    from squeezedet.papers.tables import ComparisonRow
    from squeezedet.runtime.card import Card

EXAMPLES = """\
  squeezedet papers compare squeezedet
  squeezedet papers compare squeezedet small.bundle --data roads --split val --rules paper
  squeezedet papers compare *.bundle --engine openvino --format csv > models.csv
  squeezedet papers compare squeezedet --energy rapl --plots plots
"""

WARM_UP = 3


class Format(StrEnum):
    """What is printed."""

    text = "text"
    csv = "csv"
    json = "json"


def compare(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Shipped models or bundles.", show_default=False),
    ],
    *,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Judge on this KITTI folder [default: the card's AP]."),
    ] = None,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="Split of the data: val, all, a list of ids.")
    ] = "val",
    rules: Annotated[
        RuleSet, typer.Option(help="Of the tool of the paper (2016), or of the server today.")
    ] = RuleSet.paper,
    engine: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Engine, or auto [default: the file's own]."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Processor threads [default: all cores].")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds, by turns.")] = 50,
    energy: Annotated[
        str,
        typer.Option(metavar="METER", help="nvml, nvml-counter, rapl, none, or auto."),
    ] = "auto",
    seconds: Annotated[
        float, typer.Option(min=0.1, help="How long each model works for its joules.")
    ] = 10.0,
    form: Annotated[Format, typer.Option("--format", help="What is printed.")] = Format.text,
    plots: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Draw the paper's Fig. 6: speed.svg and size.svg."),
    ] = None,
) -> None:
    """Put models into the paper's Tables 2 and 3: AP, size, operations, speed, joules.

    The paper's own rows stand beside, marked as quoted: they are of other images and of a
    TITAN X. AP is the 11-point one, on --data by --rules, or else what the model's card says.
    """
    from squeezedet.benchmark.latency import candidates_of, pictures_of
    from squeezedet.benchmark.meter import choose
    from squeezedet.benchmark.turns import take_turns
    from squeezedet.errors import UsageError
    from squeezedet.files import make_folder
    from squeezedet.papers.tables import ROWS

    if energy == "log":
        raise UsageError("--energy log: a recorded log is read by `squeezedet energy`")
    samples = _samples(data, split) if data else []
    chosen = choose(energy)
    if plots:
        make_folder(plots)
    candidates = candidates_of(models, [engine], threads=threads)
    with pictures_of(None) as demo:
        pictures = [sample.image for sample in samples] or demo
        turns = take_turns(candidates, pictures, rounds=rounds)
        readings = [_energy(candidate, chosen.meter, pictures, seconds) for candidate in candidates]
    notes = [*(c.note for c in candidates if c.note), f"energy meter: {chosen.why}"]
    ours = []
    for k, candidate in enumerate(candidates):
        judged = (
            _judged(candidate, samples, rules.value, f"{data} {split}")
            if samples
            else _of_card(_card(models[k]))
        )
        cost = _cost(models[k], notes)
        ours.append(_row(candidate, judged, cost, turns.timings[k].end_to_end, readings[k]))
    rows = [*ours, *ROWS]
    _print(rows, form)
    _draw(plots, rows, notes)
    for note in dict.fromkeys(notes):
        print(f"squeezedet: {note}", file=sys.stderr)


def _samples(data: Path, split: str) -> list[Sample]:
    from squeezedet.data.kitti import read_folder

    return list(read_folder(data, split))


def _card(model: str) -> Card:
    from squeezedet.runtime import bundle

    return bundle.read_card(bundle.find(model))


def _row(
    candidate: Candidate,
    judged: Mapping[str, Any],
    cost: Mapping[str, Any],
    end_to_end: Sequence[float],
    reading: EnergyReading,
) -> ComparisonRow:
    from squeezedet.benchmark.turns import summarize
    from squeezedet.cost.layers import FLOAT_BYTES, MIB
    from squeezedet.papers.tables import ComparisonRow

    latency_ms = summarize(end_to_end).median
    return ComparisonRow(
        name=candidate.name,
        engine=candidate.engine,
        input=candidate.input,
        parameters=candidate.parameters,
        size_mib=FLOAT_BYTES * candidate.parameters / MIB,
        file_mb=candidate.file_bytes / 1e6,
        latency_ms=latency_ms,
        frames_per_s=1000 / latency_ms,
        power_w=reading.power_w,
        energy_j=reading.energy_per_frame_j,
        cpu_s=reading.cpu_per_frame_s,
        energy_source=f"{reading.source}; {reading.idle}",
        **judged,
        **cost,
    )


# ---------------------------------------------------------------------- measuring


def _energy(
    candidate: Candidate, meter: Meter, pictures: Sequence[Path], seconds: float
) -> EnergyReading:
    """What a frame costs, from decoded pixels to boxes, in a loop of so many seconds."""
    from squeezedet.media.images import read_image

    frame = read_image(pictures[0])
    for _ in range(WARM_UP):
        candidate.detect(frame)
    frames, end = 0, time.perf_counter() + seconds
    with meter.measure() as measurement:
        while not frames or time.perf_counter() < end:
            candidate.detect(frame)
            frames += 1
    return measurement.reading(frames)


def _cost(model: str, notes: list[str]) -> dict[str, Any]:
    """Operations and activations at the size that the model's card names."""
    from squeezedet.cost import onnx
    from squeezedet.cost.layers import MIB, count
    from squeezedet.errors import MissingExtraError, ModelError
    from squeezedet.runtime import bundle

    found = bundle.read(bundle.find(model))
    rule = found.card.input
    try:
        if found.format != "onnx":
            raise ModelError(f"{model}: a file for {found.format}; only ONNX graphs are counted")
        cost = count(onnx.read(found.graph, model, (rule.width, rule.height)))
    except MissingExtraError:
        notes.append("operations are not counted: that needs onnx, pip install 'squeezedet[int8]'")
        return {}
    except ModelError as error:
        notes.append(f"operations are not counted: {error}")
        return {}
    return {"flops_e9": cost.flops_paper / 1e9, "activation_mib": cost.activation_bytes / MIB}


# ---------------------------------------------------------------------- accuracy


def _judged(
    candidate: Candidate, samples: Sequence[Sample], rules: Any, where: str
) -> dict[str, Any]:
    """AP of a model on labelled images; every detection counts, whatever its score."""
    from squeezedet.evaluation.kitti import evaluate, rules_for
    from squeezedet.media.images import read_image

    found = [candidate.judge(read_image(sample.image)) for sample in samples]
    truth = [sample.objects for sample in samples]
    result = evaluate(truth, found, rules, rules_for(found[0].names)).to_dict()
    return _accuracy(result, f"{where}: ")


def _of_card(card: Card) -> dict[str, Any]:
    """AP as the card of a model tells it, if it was judged by KITTI's rules."""
    from squeezedet.errors import ModelError

    if card.results.get("protocol") != "kitti" or not card.results.get("results"):
        return {}
    try:
        return _accuracy(card.results, "its card: ")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{card.name}: the card's results are none of a KITTI evaluation"
        ) from error


def _accuracy(result: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A KITTI result as ``KittiResult.to_dict`` gives it, to AP in %."""
    from squeezedet.papers.tables import LEVELS

    counts = result["counts"]
    ap = {
        name.lower(): [100 * float(levels[level]["ap11"]) if levels else 0.0 for level in LEVELS]
        for name, levels in result["results"].items()
    }
    return {
        "ap": ap,
        "mean_ap": 100 * float(result["map11"]),
        "ap_source": f"{where}{counts['images']} images, {counts['objects']} objects, "
        f"rules {result['rules']}",
    }


def _print(rows: Sequence[ComparisonRow], form: Format) -> None:
    from squeezedet.papers.tables import as_csv, as_text

    if form is Format.csv:
        print(as_csv(rows), end="")
    elif form is Format.json:
        print(json.dumps([row.record() for row in rows], indent=2))
    else:
        print(as_text(rows))


def _draw(plots: Path | None, rows: Sequence[ComparisonRow], notes: list[str]) -> None:
    from squeezedet.files import write_atomic
    from squeezedet.papers.scatter import size_plot, speed_plot

    if plots is None:
        return
    for name, picture in (("speed", speed_plot(rows)), ("size", size_plot(rows))):
        if picture:
            write_atomic(plots / f"{name}.svg", picture)
    notes.append(f"plots: {plots}/speed.svg and {plots}/size.svg")
