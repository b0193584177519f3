"""Pictures of a run: what it learns from, and what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from squeezedet.data.sample import Sample
from squeezedet.detections import Detections
from squeezedet.drawing import draw_boxes
from squeezedet.files import replacing
from squeezedet.media.images import read_image
from squeezedet.training.augment import Example
from squeezedet.training.early_stop import even_sample

if TYPE_CHECKING:
    from PIL.Image import Image

FOLDER = "pictures"
PREDICTIONS = "predictions.png"
IMAGES_SHOWN = 6
SHOWN_SCORE = 0.4
WIDTH, COLUMNS, GAP = 1280, 2, 8
REGION = "no loss"


def draw_batch(folder: Path, step: int, examples: Sequence[Example], names: Sequence[str]) -> None:
    """Write ``pictures/batch-STEP.png``: the images of a step with the boxes to learn.

    Raises:
        SqueezeDetError: it cannot be written.
    """
    drawn = []
    for example in examples:
        labels = [names[i] for i in example.class_id] + [REGION] * len(example.regions)
        class_id = np.append(example.class_id, [len(names)] * len(example.regions)).astype(int)
        boxes = np.concatenate([example.xyxy, example.regions])
        drawn.append(draw_boxes(example.pixels, boxes, labels, class_id))
    _save(tile(drawn), folder / FOLDER / f"batch-{step}.png")


def draw_detections(folder: Path, samples: Sequence[Sample], found: Sequence[Detections]) -> None:
    """Write ``pictures/predictions.png``: what is found in the same few images every time.

    Raises:
        SqueezeDetError: it cannot be written.
    """
    by_image = {id(sample): detections for sample, detections in zip(samples, found, strict=True)}
    drawn = []
    for sample in even_sample(samples, IMAGES_SHOWN):
        detections = by_image[id(sample)]
        sure = detections.score >= SHOWN_SCORE
        class_id, score = detections.class_id[sure], detections.score[sure]
        labels = [f"{detections.names[i]} {s:.2f}" for i, s in zip(class_id, score, strict=True)]
        pixels = read_image(sample.image).pixels
        drawn.append(draw_boxes(pixels, detections.xyxy[sure], labels, class_id))
    _save(tile(drawn), folder / FOLDER / PREDICTIONS)


def tile(pictures: Sequence[Image]) -> Image:
    """Pictures in two columns, each as wide as a column."""
    from PIL import Image

    side = (WIDTH - (COLUMNS - 1) * GAP) // COLUMNS
    scaled = [p.resize((side, max(1, round(side * p.height / p.width)))) for p in pictures]
    rows = [scaled[i : i + COLUMNS] for i in range(0, len(scaled), COLUMNS)]
    heights = [max(picture.height for picture in row) for row in rows]
    canvas = Image.new("RGB", (WIDTH, sum(heights) + GAP * (len(rows) - 1)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for k, picture in enumerate(row):
            canvas.paste(picture, (k * (side + GAP), top))
        top += height + GAP
    return canvas


def _save(picture: Image, path: Path) -> None:
    with replacing(path) as temporary:
        picture.save(temporary, "PNG")
