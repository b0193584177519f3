"""What a network is retrained on, judged by and scanned with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from squeezedet.compression.pipeline import Lessons
from squeezedet.compression.sensitivity import Sensitivity, loss_on, sample_of, scan
from squeezedet.compression.source import Source
from squeezedet.data.sample import ClassMap, Sample
from squeezedet.detectors.network import DetectionNetwork
from squeezedet.errors import DataError, UsageError
from squeezedet.training import recipe as recipes
from squeezedet.training.checkpoint import tuples
from squeezedet.training.config_file import ConfigFile
from squeezedet.training.examples import Examples
from squeezedet.training.recipe import Recipe, shortened

RATE = 0.4
"""Learning rate of the retraining, against that of the training."""


def lessons_for(
    source: Source,
    train: Sequence[Sample],
    val: Sequence[Sample],
    class_map: ClassMap,
    *,
    steps: int,
    folder: Path,
    resume: bool = False,
    file: ConfigFile,
) -> Lessons:
    """The lessons of a source: by the recipe that it was trained with, only shorter and gentler.

    Args:
        source: a detector.
        train: labelled images to learn from.
        val: labelled images to judge by.
        class_map: of the data; its classes must be those of the detector.
        steps: of the retraining.
        folder: for checkpoints.
        resume: continue from them.
        file: overrides fields of the recipe.

    Raises:
        UsageError: the network classifies, or the file has a field that there is not.
        DataError: the data have other classes.
    """
    if not isinstance(source.network, DetectionNetwork):
        raise UsageError(f"{source.path}: classifies; labelled boxes cannot retrain it")
    classes = source.network.config.classes
    if class_map.names != tuple(classes):
        raise DataError(
            f"{source.path}: detects {', '.join(classes)}, but the data have "
            f"{', '.join(class_map.names)}"
        )
    before = _recipe(source, source.network)
    gentle = replace(
        shortened(before, steps), learning_rate=RATE * before.learning_rate, early_stop=0
    )
    return Lessons(
        train=train,
        val=val,
        class_map=class_map,
        recipe=file.override("recipe", gentle),
        folder=folder,
        resume=resume,
    )


def _recipe(source: Source, detector: DetectionNetwork) -> Recipe:
    """What the network was trained with, if that is known and still understood."""
    default = recipes.default_for(detector)
    try:
        known = recipes.from_saved(tuples(source.training["recipe"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return default
    return replace(known, workers=default.workers)


def scan_for(source: Source, lessons: Lessons) -> Sensitivity:
    """Prune each layer alone, and see what that does to the loss on a sample of the lessons.

    Raises:
        UsageError: the network classifies.
        DataError: an image cannot be decoded.
    """
    if not isinstance(source.network, DetectionNetwork):
        raise UsageError(f"{source.path}: classifies; it has no loss on labelled boxes")
    detector = copy.deepcopy(source.network)
    sample = sample_of(detector, Examples(lessons.train, lessons.class_map), lessons.recipe)
    return scan(detector, lambda: loss_on(detector, sample))
