"""Prune, retrain, share, train the centroids, encode; and what each stage leaves.

Han, Mao, Dally: "Deep Compression", arXiv 1510.00149. Without labelled data nothing is retrained,
and no average precision is measured.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from squeezedet.compression import prune, share
from squeezedet.compression.encode import (
    CompressionSource,
    Encoded,
    encode_classifier,
    encode_detector,
)
from squeezedet.compression.finetune import finetune
from squeezedet.compression.prune import (
    LayerSize,
    density_of,
    entropy_of,
    kernel_values,
    kernels,
    measure_all,
    put,
    round_to_half,
)
from squeezedet.compression.sensitivity import Sensitivity, loss_on, sample_of, scan
from squeezedet.data.sample import ClassMap, Sample
from squeezedet.errors import DataError, UsageError
from squeezedet.media.images import read_image
from squeezedet.models.network import DetectionNetwork
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.detector import Detector
from squeezedet.training import recipe as recipes
from squeezedet.training.batches import Examples
from squeezedet.training.checkpoint import tuples
from squeezedet.training.config_file import ConfigFile
from squeezedet.training.recipe import Recipe, shortened
from squeezedet.training.run_folder import Run
from squeezedet.training.validate import Validation, evaluate_detections, validate

# ---- pipeline: Prune, retrain, share, train the centroids, encode; and what each stage leaves.

RAMP = 0.6
"""Part of the retraining in which the density falls; the rest recovers."""
CENTROID_STEPS, CENTROID_RATE = 0.25, 0.1
"""Steps and learning rate of the centroids' training, against those of the retraining."""
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is compressed.

    Attributes:
        density: layer name -> share that stays; layers without one stay whole.
        bits: layer name -> bits of a code; every kernel has one.
        start: of k-means.
    """

    density: prune.Density
    bits: Mapping[str, int]
    start: share.Start = "linear"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneData:
    """What is retrained on, and judged by.

    Attributes:
        train: labelled images to learn from.
        val: labelled images to judge by, never learnt from.
        class_map: which label types are learnt.
        recipe: of the retraining; that of the centroids follows from it.
        folder: gets the checkpoints.
        resume: continue from them.
    """

    train: Sequence[Sample]
    val: Sequence[Sample]
    class_map: ClassMap
    recipe: Recipe
    folder: Path
    resume: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What one stage leaves.

    Attributes:
        name: of the stage.
        bytes: of the weights, before entropy coding but for the last stage, which is the file.
        layers: what each kernel holds.
        ap: of each class on the validation images, 0 to 1; empty when nothing is judged.
        seconds: that the stage took, without judging.
    """

    name: str
    bytes: int
    layers: Sequence[LayerSize]
    ap: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def density(self) -> float:
        """Share of the kernels' weights that are not zero."""
        return density_of(self.layers)

    @property
    def entropy_bits(self) -> float:
        """Of a weight, see ``LayerSize``."""
        return entropy_of(self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """The result: the file's content, and what each stage left, the first being the network."""

    encoded: Encoded
    stages: Sequence[Stage]


class Pipeline:
    """One compression.

    Args:
        source: the network; a copy is compressed.
        settings: how much.
        lessons: data to retrain on; None for none.
        say: gets each stage as it is done.
        quiet: no progress of the retraining.
    """

    def __init__(
        self,
        source: CompressionSource,
        settings: Settings,
        lessons: FinetuneData | None = None,
        say: Callable[[Stage, Stage], None] | None = None,
        quiet: bool = False,
    ) -> None:
        self.source, self.settings, self.lessons = source, settings, lessons
        self.network = copy.deepcopy(source.network).eval()
        self.stages: list[Stage] = []
        self._say, self._quiet = say, quiet
        self._judged: Validation | None = None
        self._began = time.monotonic()

    def run(self, name: str) -> Compressed:
        """All stages.

        Args:
            name: of the model, for its card.

        Raises:
            UsageError, DataError, DivergedError, KeyboardInterrupt: see ``retrain``.
            ModelError: the file cannot be made.
        """
        self._undo_calibration()
        self._note("float32")
        self._prune()
        self._share()
        encoded = self._encode(name)
        return Compressed(encoded=encoded, stages=self.stages)

    # ---------------------------------------------------------------- stages

    def _prune(self) -> None:
        density = self.settings.density
        if not density:
            return
        if self.lessons is None:
            prune.prune(self.network, density)
            self._note("pruned")
            return
        recipe = replace(self.lessons.recipe, frozen=())
        schedule = prune.Schedule(density, round(RAMP * recipe.steps))
        schedule.begin(self.network)
        self._teach(recipe, "prune", lambda step: schedule.update(self.network, step))
        self._note("pruned, retrained")

    def _share(self) -> None:
        bits = self.settings.bits
        clusters = {
            name: share.cluster(kernel, bits[name], self.settings.start)
            for name, kernel in kernel_values(self.network).items()
        }
        put(self.network, {name: found.weight() for name, found in clusters.items()})
        self._round()
        self._note("shared", shared=True)
        if self.lessons is not None:
            base = self.lessons.recipe
            recipe = shortened(base, max(1, round(CENTROID_STEPS * base.steps)))
            rate = CENTROID_RATE * base.learning_rate
            share.hold(self.network, clusters)
            self._teach(replace(recipe, learning_rate=rate, frozen=()), "share", lambda step: None)
            self._round()
            self._note("centroids trained", shared=True)

    def _encode(self, name: str) -> Encoded:
        how = {
            "density": _common(self.settings.density),
            "bits": _common(self.settings.bits),
            "start": self.settings.start,
            "steps": self.lessons.recipe.steps if self.lessons else 0,
        }
        if not isinstance(self.network, DetectionNetwork):
            encoded = encode_classifier(self.network, self.source, name, how)
        else:
            encoded = encode_detector(
                copy.deepcopy(self.network),
                self.source,
                name,
                how,
                self._judged.result.to_dict() if self._judged else {},
                self.lessons.val if self.lessons else (),
            )
        self._note("coded", encoded=encoded)
        return encoded

    # --------------------------------------------------------------- helpers

    def _round(self) -> None:
        """A detector's graph stores float16; a classifier's keeps every bit of its values."""
        if isinstance(self.network, DetectionNetwork):
            round_to_half(self.network)

    def _undo_calibration(self) -> None:
        """What was subtracted from the confidences is put back where it will be found anew."""
        shift = self.source.training.get("confidence_shift")
        anew = self.lessons is not None and len(self.lessons.val) > 0
        if anew and isinstance(self.network, DetectionNetwork) and shift:
            self.network.subtract_confidence(-float(shift))

    def _teach(self, recipe: Recipe, folder: str, before_step: Callable[[int], None]) -> None:
        lessons = self.lessons
        if lessons is None or not isinstance(self.network, DetectionNetwork):
            return
        run = Run(
            folder=lessons.folder / folder,
            train=lessons.train,
            val=(),
            class_map=lessons.class_map,
            recipe=recipe,
            quiet=self._quiet,
        )
        finetune(self.network, run, before_step, lessons.resume)
        prune.release(self.network)

    def _note(self, name: str, *, shared: bool = False, encoded: Encoded | None = None) -> None:
        """Measure, judge and tell."""
        seconds = time.monotonic() - self._began
        layers = measure_all(kernel_values(self.network))
        made = encoded.bundle if encoded else None
        judged = self._judge_file(made) if made else self._validate()
        self._judged = judged
        stage = Stage(
            name=name,
            bytes=len(encoded.content) if encoded else self._bytes(layers, shared),
            layers=layers,
            ap=judged.ap if judged else {},
            seconds=seconds,
        )
        self.stages.append(stage)
        if self._say:
            self._say(stage, self.stages[0])
        self._began = time.monotonic()

    def _bytes(self, layers: Sequence[LayerSize], shared: bool) -> int:
        """Kernels as the stage leaves them, and float32 for the rest."""
        in_kernels = sum(layer.weight.numel() for layer in kernels(self.network).values())
        others = sum(p.numel() for p in self.network.parameters()) - in_kernels
        return FLOAT_BYTES * others + sum(s.stored_bytes(shared=shared) for s in layers)

    def _validate(self) -> Validation | None:
        lessons = self.lessons
        if not lessons or not lessons.val or not isinstance(self.network, DetectionNetwork):
            return None
        protocol = lessons.recipe.protocol
        return validate(self.network, lessons.val, lessons.class_map, protocol)

    def _judge_file(self, made: Bundle) -> Validation | None:
        """Judge what the file holds, with the engine that will run it."""
        lessons = self.lessons
        if not lessons or not lessons.val:
            return None
        detector = Detector(made)
        found = [detector.detect(read_image(s.image), 0.0) for s in lessons.val]
        return evaluate_detections(lessons.val, found, lessons.class_map, lessons.recipe.protocol)


def _common(values: Mapping[str, float]) -> float | dict[str, float]:
    """The one value that all layers have, or all values."""
    distinct = set(values.values())
    return distinct.pop() if len(distinct) == 1 else dict(values)


def summary(stage: Stage, first: Stage) -> list[str]:
    """Name, size, ratio, density, entropy and APs of a stage, for a table.

    Args:
        stage: which.
        first: what its size and AP are compared with.
    """
    cells = [
        stage.name,
        f"{stage.bytes:,} B",
        f"{first.bytes / stage.bytes:.1f}x",
        f"{100 * stage.density:.1f} %",
        f"{stage.entropy_bits:.2f}",
    ]
    if stage.ap:
        mean = sum(stage.ap.values()) / len(stage.ap)
        cells += [f"{100 * value:.1f}" for value in (*stage.ap.values(), mean)]
    return cells


def heading(first: Stage) -> list[str]:
    """The titles of the columns of ``summary``."""
    titles = ["stage", "size", "ratio", "density", "bits a weight"]
    return titles + ([*first.ap, "mean"] if first.ap else [])


def as_plain(stage: Stage) -> dict[str, Any]:
    """A stage as JSON has it."""
    return {
        "stage": stage.name,
        "bytes": stage.bytes,
        "density": stage.density,
        "entropy_bits": stage.entropy_bits,
        "ap": dict(stage.ap),
        "seconds": round(stage.seconds, 1),
    }


# ---- lessons: What a network is retrained on, judged by and scanned with.

RATE = 0.4
"""Learning rate of the retraining, against that of the training."""


def finetune_data(
    source: CompressionSource,
    train: Sequence[Sample],
    val: Sequence[Sample],
    class_map: ClassMap,
    *,
    steps: int,
    folder: Path,
    resume: bool = False,
    file: ConfigFile,
) -> FinetuneData:
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
    return FinetuneData(
        train=train,
        val=val,
        class_map=class_map,
        recipe=file.override("recipe", gentle),
        folder=folder,
        resume=resume,
    )


def _recipe(source: CompressionSource, detector: DetectionNetwork) -> Recipe:
    """What the network was trained with, if that is known and still understood."""
    default = recipes.default_for(detector)
    try:
        known = recipes.from_saved(tuples(source.training["recipe"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return default
    return replace(known, workers=default.workers)


def scan_for(source: CompressionSource, lessons: FinetuneData) -> Sensitivity:
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
