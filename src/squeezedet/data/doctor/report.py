"""What the doctor found, as text for people and as a record for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from squeezedet.data.doctor.classes import learned_counts, type_counts
from squeezedet.data.doctor.examine import Diagnosis
from squeezedet.data.doctor.finding import Finding, Level
from squeezedet.data.doctor.look import Look
from squeezedet.data.doctor.sizes import input_boxes
from squeezedet.data.doctor.survey import Survey
from squeezedet.media.table import align

SHOWN = 5  # places of a finding
QUANTILES = (0.05, 0.5, 0.95)


def describe(diagnosis: Diagnosis, shown: int = SHOWN) -> str:
    """Tables of what is there, then each finding with its first places."""
    survey = diagnosis.survey
    dataset = survey.dataset
    images, boxes = len(survey.looks), sum(len(s.objects) for _, s in survey.samples())
    parts = [
        f"{dataset.path}: {dataset.layout} layout, {images:,} images, {boxes:,} boxes",
        align(_counts(survey), left=(0, 1), indent="  "),
        "sizes in pixels: 5 %, median, 95 % (boxes at the input size)",
        align(_sizes(survey), indent="  "),
        *dataset.notes,
        *(_finding(finding, shown) for finding in diagnosis.findings),
        ", ".join(f"{diagnosis.count(level)} {level}s" for level in Level),
    ]
    return "\n".join(parts)


def _counts(survey: Survey) -> list[tuple[str, ...]]:
    """A row per type, a column per split; also what becomes of the type."""
    splits = list(survey.splits)
    counts = {split: type_counts(survey, split) for split in splits}
    types = dict.fromkeys([*survey.dataset.types, *(t for s in splits for t in counts[s])])
    rows: list[tuple[str, ...]] = [("type", "learned as", *splits)]
    rows += [(t, _fate(survey, t), *(f"{counts[s][t]:,}" for s in splits)) for t in types]
    rows.append(("images", "", *(f"{len(survey.splits[s]):,}" for s in splits)))
    empty = [sum(not len(x.objects) for x in survey.splits[s]) for s in splits]
    rows.append(("  without boxes", "", *(f"{n:,}" for n in empty)))
    return rows


def _fate(survey: Survey, type_name: str) -> str:
    """What a type is learned as."""
    if survey.class_map.is_region((type_name,))[0]:
        return "(region)"
    class_id = int(survey.class_map.class_ids((type_name,))[0])
    return survey.class_map.names[class_id] if class_id >= 0 else "(background)"


def _sizes(survey: Survey) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("", "width", "", "", "height", "", "")]
    for name, (width, height) in _quantiles(survey).items():
        rows.append((name, *(f"{value:.0f}" for value in (*width, *height))))
    return rows


def _quantiles(survey: Survey) -> dict[str, tuple[list[float], list[float]]]:
    """Quantiles of width and of height: of the images, and of each class's objects."""
    seen = [look for look in survey.looks.values() if isinstance(look, Look)]
    table = {"images": np.array([(look.width, look.height) for look in seen], dtype=float)}
    table |= object_sizes(survey)
    return {
        name: tuple(np.quantile(side, QUANTILES).tolist() for side in sizes.T)
        for name, sizes in table.items()
        if len(sizes)
    }


def object_sizes(survey: Survey) -> dict[str, Any]:
    """For each class the (N, 2) widths and heights of its objects in input pixels."""
    sizes: dict[str, list[Any]] = {name: [np.empty((0, 2))] for name in survey.class_map.names}
    for _, sample in survey.samples():
        size = input_boxes(survey, sample)
        class_id = survey.class_map.class_ids(sample.objects.types)
        for c in np.unique(class_id[survey.learned(sample)]).tolist():
            mine = survey.learned(sample) & (class_id == c) & (size > 0).all(axis=1)
            sizes[survey.class_map.names[c]].append(size[mine])
    return {name: np.concatenate(parts) for name, parts in sizes.items()}


def _finding(finding: Finding, shown: int) -> str:
    lines = [f"{finding.level}: {finding.check}: {finding.sentence}"]
    lines += [f"    {place}" for place in finding.where[:shown]]
    more = len(finding.where) - shown
    return "\n".join([*lines, *([f"    and {more:,} more"] if more > 0 else [])])


def to_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    """Everything, with every place of every finding."""
    survey = diagnosis.survey
    return {
        "data": str(survey.dataset.path),
        "layout": survey.dataset.layout,
        "splits": {
            split: {
                "images": len(samples),
                "images_without_boxes": sum(not len(s.objects) for s in samples),
                "types": dict(sorted(type_counts(survey, split).items())),
                "classes": dict(sorted(learned_counts(survey, split).items())),
            }
            for split, samples in survey.splits.items()
        },
        "quantiles": {
            "of": list(QUANTILES),
            **{
                name: {"width_px": width, "height_px": height}
                for name, (width, height) in _quantiles(survey).items()
            },
        },
        "notes": list(survey.dataset.notes),
        "levels": {level.value: diagnosis.count(level) for level in Level},
        "findings": _records(diagnosis.findings),
    }


def _records(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [finding.to_dict() for finding in findings]
