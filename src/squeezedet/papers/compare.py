"""Models of ours as rows of the paper's Tables 2 and 3, measured here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squeezedet.benchmark.latency import candidates_of, pictures_of
from squeezedet.benchmark.meter import EnergyReading, Meter, choose
from squeezedet.benchmark.turns import Candidate, summarize, take_turns
from squeezedet.cost import onnx
from squeezedet.cost.layers import FLOAT_BYTES, MIB, count
from squeezedet.errors import MissingExtraError, ModelError
from squeezedet.evaluation.evaluate import apply_protocol
from squeezedet.evaluation.inputs import EvaluationInput, Labels, compare_names, read_data
from squeezedet.evaluation.kitti import Rules, rules_for
from squeezedet.media.images import read_image
from squeezedet.papers.tables import LEVELS, ComparisonRow
from squeezedet.runtime import bundle
from squeezedet.runtime.card import Card

WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Comparison:
    """The measured rows, and what a reader should know, one sentence each."""

    rows: tuple[ComparisonRow, ...]
    notes: tuple[str, ...]


def compare(
    models: Sequence[str],
    data: Path | None = None,
    *,
    split: str | None = None,
    rules: Rules = "paper",
    engine: str | None = None,
    threads: int | None = None,
    rounds: int = 50,
    energy: str = "auto",
    seconds: float = 10.0,
    trust_model: bool = False,
) -> Comparison:
    """Measure models: 11-point AP by KITTI's rules, size, operations, speed, joules.

    Args:
        models: names or files.
        data: labelled images of any layout to find AP on; None for what the cards say.
        split: of the data; see ``squeezedet.evaluate``.
        rules: KITTI's: of the ``paper``'s tool, or the server's ``current`` ones.
        engine: what runs them; None for each file's own.
        threads: processor threads; None for all cores.
        rounds: timed, by turns.
        energy: the meter: ``auto``, or see ``squeezedet.benchmark.meter``.
        seconds: how long each model works for its joules.
        trust_model: open a program that was not exported here; see ``squeezedet.load``.

    Raises:
        UsageError, DataError, ModelError: as ``squeezedet.evaluate``.
    """
    labels = read_data(data, split, raw=True) if data else None
    chosen = choose(energy)
    candidates = candidates_of(models, [engine], threads=threads, trust_model=trust_model)
    with pictures_of(None) as demo:
        pictures = list(labels.images or ()) if labels else demo
        turns = take_turns(candidates, pictures, rounds=rounds)
        readings = [_energy(candidate, chosen.meter, pictures, seconds) for candidate in candidates]
    notes = [*(c.note for c in candidates if c.note), f"energy meter: {chosen.why}"]
    notes += labels.notes if labels else ()
    rows = []
    for k, candidate in enumerate(candidates):
        if labels:
            accuracy = _on_data(candidate, labels, rules, f"{data} {labels.split}", notes)
        else:
            accuracy = of_card(bundle.read_card(bundle.find(models[k])))
        cost = _cost(models[k], notes)
        times = turns.timings[k].end_to_end
        rows.append(_row(candidate, accuracy, cost, times, readings[k]))
    return Comparison(tuple(rows), tuple(dict.fromkeys(notes)))


def _row(
    candidate: Candidate,
    accuracy: Mapping[str, Any],
    cost: Mapping[str, Any],
    end_to_end: Sequence[float],
    reading: EnergyReading,
) -> ComparisonRow:
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
        **accuracy,
        **cost,
    )


def _energy(candidate: Candidate, meter: Meter, pictures: Sequence[Path], seconds: float) -> EnergyReading:
    """What a frame costs, from decoded pixels to boxes, in a loop of so many seconds."""
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
    found = bundle.read(bundle.find(model), trust_model=True)  # it was opened before
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


def _on_data(candidate: Candidate, labels: Labels, rules: Rules, where: str, notes: list[str]) -> dict[str, Any]:
    """AP of a model on labelled images; every detection counts, whatever its score."""
    found = [candidate.detect_all(read_image(path)) for path in labels.images or ()]
    notes += compare_names(found[0].names, labels, f"the model {candidate.name}")
    classes = rules_for(found[0].names)
    side = EvaluationInput(labels, found, classes)
    result, _ = apply_protocol(side, "kitti", rules)
    return _accuracy(result.to_dict(), f"{where}: ")


def of_card(card: Card) -> dict[str, Any]:
    """AP as the card of a model tells it, if it was found by KITTI's rules.

    Raises:
        ModelError: the card's results are damaged.
    """
    if card.results.get("protocol") != "kitti" or not card.results.get("results"):
        return {}
    try:
        return _accuracy(card.results, "its card: ")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{card.name}: the card's results are none of a KITTI evaluation") from error


def _accuracy(result: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A KITTI result as ``KittiResult.to_dict`` gives it, to AP in %."""
    counts = result["counts"]
    ap = {
        name.lower(): [100 * float(levels[level]["ap11"]) if levels else 0.0 for level in LEVELS]
        for name, levels in result["results"].items()
    }
    return {
        "ap": ap,
        "mean_ap": 100 * float(result["map11"]),
        "ap_source": f"{where}{counts['images']} images, {counts['objects']} objects, rules {result['rules']}",
    }
