"""What the doctor found, as text for people and as a record for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from squeezedet.charts import Axis, bar_chart, column
from squeezedet.data.doctor.checks import SMALL_PX, Diagnosis, Finding, Level, Location
from squeezedet.data.doctor.pictures import Look
from squeezedet.data.sample import Sample
from squeezedet.drawing import draw_boxes, encode_picture
from squeezedet.errors import UsageError
from squeezedet.files import make_folder, text_file, write_atomic
from squeezedet.media.images import read_image
from squeezedet.text import align, counted

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN = 5  # places of a finding
QUANTILES = (0.05, 0.5, 0.95)
BINS_PER_DOUBLING = 2
LARGEST = 11  # 2048 px; what is larger is in the last bar
WORST = 4  # pictures of a check
JPEG_QUALITY = 88
GAP_PX = 8


def describe(diagnosis: Diagnosis) -> str:
    """Tables of what is there, then each finding with its first places."""
    dataset = diagnosis.dataset
    images, boxes = len(diagnosis.looks), sum(len(s.objects) for _, s in diagnosis.samples())
    sizes = [
        (name, *(f"{value:.0f}" for value in (*width, *height)))
        for name, (width, height) in _quantiles(diagnosis).items()
    ]
    parts = [
        f"{dataset.path}: {dataset.layout} layout, {images:,} images, {boxes:,} boxes",
        align(_counts(diagnosis), left=(0, 1), indent="  "),
        "sizes in pixels: 5 %, median, 95 % (boxes at the input size)",
        align([("", "width", "", "", "height", "", ""), *sizes], indent="  "),
        *dataset.notes,
        *(_described(finding) for finding in diagnosis.findings),
        ", ".join(f"{diagnosis.count(level)} {level}s" for level in Level),
    ]
    return "\n".join(parts)


def _counts(diagnosis: Diagnosis) -> list[tuple[str, ...]]:
    """A row per type, a column per split; also what becomes of the type."""
    splits, class_map = diagnosis.dataset.splits, diagnosis.class_map
    counts = {split: diagnosis.type_counts(split) for split in splits}

    def learned_as(name: str) -> str:
        if class_map.is_region((name,))[0]:
            return "(region)"
        class_id = int(class_map.class_ids((name,))[0])
        return class_map.names[class_id] if class_id >= 0 else "(background)"

    types = dict.fromkeys([*diagnosis.dataset.types, *(t for found in counts.values() for t in found)])
    return [
        ("type", "learned as", *splits),
        *((t, learned_as(t), *(f"{found[t]:,}" for found in counts.values())) for t in types),
        ("images", "", *(f"{len(samples):,}" for samples in splits.values())),
        ("  without boxes", "", *(f"{sum(not len(s.objects) for s in samples):,}" for samples in splits.values())),
    ]


def _quantiles(diagnosis: Diagnosis) -> dict[str, tuple[list[float], ...]]:
    """Quantiles of width and of height: of the images, and of each class's objects."""
    seen = [(look.width, look.height) for look in diagnosis.looks.values() if isinstance(look, Look)]
    table = {"images": np.array(seen, dtype=float)} | object_sizes(diagnosis)
    return {
        name: tuple(np.quantile(side, QUANTILES).tolist() for side in sizes.T)
        for name, sizes in table.items()
        if len(sizes)
    }


def object_sizes(diagnosis: Diagnosis) -> dict[str, Any]:
    """For each class the (N, 2) widths and heights of its objects in input pixels."""
    sizes, ids = [np.empty((0, 2))], [np.empty(0, np.int64)]
    for _, sample in diagnosis.samples():
        sizes.append(diagnosis.input_boxes(sample))
        ids.append(np.where((sizes[-1] > 0).all(axis=1), diagnosis.class_map.targets(sample.objects)[0], -1))
    size, class_id = np.concatenate(sizes), np.concatenate(ids)
    return {name: size[class_id == c] for c, name in enumerate(diagnosis.class_map.names)}


def _described(finding: Finding) -> str:
    lines = [f"{finding.level}: {finding.check}: {finding.sentence}"]
    lines += [f"    {place}" for place in finding.where[:SHOWN]]
    if len(finding.where) > SHOWN:
        lines.append(f"    and {len(finding.where) - SHOWN:,} more")
    return "\n".join(lines)


def to_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    """Everything, with every place of every finding."""
    quantiles = {
        name: {"width_px": width, "height_px": height} for name, (width, height) in _quantiles(diagnosis).items()
    }
    return {
        "data": str(diagnosis.dataset.path),
        "layout": diagnosis.dataset.layout,
        "splits": {
            split: {
                "images": len(samples),
                "images_without_boxes": sum(not len(s.objects) for s in samples),
                "types": dict(sorted(diagnosis.type_counts(split).items())),
                "classes": dict(sorted(diagnosis.learned_counts(split).items())),
            }
            for split, samples in diagnosis.dataset.splits.items()
        },
        "quantiles": {"of": list(QUANTILES), **quantiles},
        "notes": list(diagnosis.dataset.notes),
        "levels": {level.value: diagnosis.count(level) for level in Level},
        "findings": [finding.to_dict() for finding in diagnosis.findings],
    }


def size_chart(sizes: Mapping[str, Any]) -> str:
    """Histograms of the root of width x height, a row for each class that has objects.

    Args:
        sizes: for each class (N, 2) widths and heights in pixels.

    Returns:
        An SVG; the dashed line is the size below which objects are hardly seen.
    """
    edges = 2.0 ** (np.arange(BINS_PER_DOUBLING * LARGEST + 1) / BINS_PER_DOUBLING)
    charts = []
    for name, size in sizes.items():
        if not len(size):
            continue
        roots = np.sqrt(size.prod(axis=1))
        counts, _ = np.histogram(np.clip(roots, edges[0], edges[-1]), edges)
        title = f"{name}: {counted(len(size), 'object')}, median {np.median(roots):.0f} px"
        charts.append(
            bar_chart(
                title,
                [f"{edge:.0f}" for edge in edges[:-1]],
                {"objects": counts.tolist()},
                x=Axis("root of width x height in the input, px"),
                mark=BINS_PER_DOUBLING * float(np.log2(SMALL_PX)),
            )
        )
    return column(charts)


def write_pictures(folder: Path, diagnosis: Diagnosis) -> list[Path]:
    """Write ``CHECK-1.jpg``, ``CHECK-2.jpg``, ... (the worst first) and ``sizes.svg``.

    Raises:
        UsageError: the folder holds images of the data, or cannot be made.
        SqueezeDetError: a file cannot be written.
    """
    if folder.resolve() in {path.parent.resolve() for path in diagnosis.looks}:
        raise UsageError(f"{folder}: holds images of the data; name another folder for `pictures`")
    make_folder(folder)
    written = [folder / "sizes.svg"]
    with text_file(written[0]) as file:
        file.write(size_chart(object_sizes(diagnosis)))
    for finding in diagnosis.findings:
        shown = [p for p in finding.where if p.sample is not None and diagnosis.look(p.sample)]
        for number, place in enumerate(shown[:WORST], start=1):
            written.append(folder / f"{finding.check}-{number}.jpg")
            write_atomic(written[-1], encode_picture(_picture(place), quality=JPEG_QUALITY))
    return written


def _picture(place: Location) -> Image:
    """The image with the boxes in question, all of them if none is; a twin stands below it."""
    from PIL import Image

    assert place.sample is not None  # noqa: S101 (the caller chose those with a sample)
    above = _drawn(place.sample, place.boxes)
    if place.other is None:
        return above
    below = _drawn(place.other, ())
    both = Image.new("RGB", (max(above.width, below.width), above.height + GAP_PX + below.height), "white")
    both.paste(above, (0, 0))
    both.paste(below, (0, above.height + GAP_PX))
    return both


def _drawn(sample: Sample, boxes: tuple[int, ...]) -> Image:
    chosen = list(boxes) or list(range(len(sample.objects)))
    types = [sample.objects.types[i] for i in chosen]
    return draw_boxes(
        read_image(sample.image).pixels,
        sample.objects.xyxy[chosen],
        [f"{i} {name}" for i, name in zip(chosen, types, strict=True)],
        np.array([sorted(set(types)).index(name) for name in types], dtype=np.int64),
    )
