"""Deep Compression: prune, retrain, share weights, train the centroids, encode.

Han, Mao, Dally: "Deep Compression", arXiv 1510.00149. ``compress`` is the whole of it, from the
name of a model to a file. Without labelled data nothing is retrained and no average precision is
measured; then nothing is pruned either, unless ``density`` asks for it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from squeezedet.compression import prune, share
from squeezedet.compression.encode import CompressionSource, Encoded, encode_classifier, encode_detector, open_source
from squeezedet.compression.finetune import finetune
from squeezedet.compression.prune import (
    LayerSize,
    density_of,
    entropy_of,
    kernel_values,
    kernels,
    measure_all,
    put,
    read_numbers,
    round_to_half,
    uniform,
)
from squeezedet.compression.sensitivity import Sensitivity, choose_densities, loss_on, sample_of, scan
from squeezedet.data.dataset import class_map_for, read_dataset
from squeezedet.data.sample import ClassMap, Sample
from squeezedet.errors import DataError, UsageError
from squeezedet.exporting.bundle import bundle_detector
from squeezedet.files import write_atomic
from squeezedet.media.images import read_image
from squeezedet.models.network import DetectionNetwork
from squeezedet.runtime import parity
from squeezedet.runtime.bundle import SUFFIX, SUFFIXES, Bundle
from squeezedet.runtime.detector import Detector
from squeezedet.runtime.engines.select import open_engine
from squeezedet.runtime.parity import Difference
from squeezedet.training import recipe as recipes
from squeezedet.training.batches import Examples
from squeezedet.training.checkpoint import tuples
from squeezedet.training.recipe import ConfigFile, Recipe, read_config, shortened
from squeezedet.training.run_folder import Run
from squeezedet.training.trainer import choose_device
from squeezedet.training.validate import Validation, check_protocol, evaluate_detections, validate

RETRAINED_DENSITY = 0.33
"""Share of the weights that stays where they are retrained and nothing else is said."""
AUTO = "auto"
WHOLE_BITS = 8
"""Of a layer that a file of bits does not name."""
RETRAINING_RATE = 0.4
"""Learning rate of the retraining, against that of the training."""
RAMP = 0.6
"""Part of the retraining in which the density falls; the rest recovers."""
CENTROID_STEPS, CENTROID_RATE = 0.25, 0.1
"""Steps and learning rate of the centroids' training, against those of the retraining."""
FLOAT_BYTES = 4
COMPARED_IMAGES = 8
"""Images of the validation split that the file is compared with its source on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is compressed.

    Attributes:
        density: layer name -> share of its weights that stays; layers without one stay whole.
        bits: layer name -> bits of a code; every kernel has one.
        start: of k-means.
    """

    density: prune.Density
    bits: Mapping[str, int]
    start: share.Start = "linear"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneData:
    """What is retrained on, and evaluated on.

    Attributes:
        train: labelled images to learn from.
        val: labelled images to evaluate on, never learned from.
        class_map: which label types are learned.
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
        size_bytes: of the weights before entropy coding; of the last stage, of the file.
        layers: what each kernel holds.
        ap: of each class on the validation images, 0 to 1; empty when nothing is evaluated.
        seconds: that the stage took, without the evaluation.
    """

    name: str
    size_bytes: int
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

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "stage": self.name,
            "bytes": self.size_bytes,
            "density": self.density,
            "entropy_bits": self.entropy_bits,
            "ap": dict(self.ap),
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """The result of a compression.

    Attributes:
        encoded: the content of the file.
        stages: what each left; the first is the network as it was.
        difference: between the source's boxes and the file's on the package's picture and some
            validation images; None for a classifier.
        sensitivity: the scan that the densities come from, if there was one.
        path: of the file.
        source: what was compressed.
    """

    encoded: Encoded
    stages: Sequence[Stage]
    difference: Difference | None
    sensitivity: Sensitivity | None
    path: Path
    source: Path

    @property
    def warning(self) -> str | None:
        """One sentence if the file detects something else than its source."""
        difference = self.difference
        if difference is None or difference.within(parity.INT8):
            return None
        return (
            f"{self.path}: does not detect what its source does: {difference}; keep more weights "
            "or bits, or retrain (`finetune`)"
        )


def compress(
    model: str,
    out: Path | str,
    *,
    density: float | str | Path | None = None,
    bits: int | str | Path = 6,
    start: share.Start = "linear",
    finetune: Path | str | None = None,
    train_split: str = "train",
    val_split: str = "val",
    classes: Sequence[str] | None = None,
    mapping: Mapping[str, str] | None = None,
    steps: int = 2000,
    config: Path | str | None = None,
    work: Path | str | None = None,
    resume: bool = False,
    name: str | None = None,
    licence: str | None = None,
    data_note: str | None = None,
    device: str | None = None,
    quiet: bool = True,
    on_stage: Callable[[Stage, Stage], None] | None = None,
) -> Compressed:
    """Make a model small, and write it to a file that detects like a bundle.

    What shrinks is disk and download; the speed is that of the source.

    Args:
        model: a checkpoint, a bundle, a shipped model, or the weights of a SqueezeNet.
        out: the bundle to write.
        density: share of the weights that stays: one number for all layers but the first, a
            TOML or JSON file with one for each layer, or ``auto:0.25``: found by a scan for
            that share in all. By default 0.33 with ``finetune``, and 1 without: a pruned
            network that is not retrained is ruined.
        bits: of a code, 1 to 10; or a file with one number for each layer.
        start: how k-means begins: ``linear``, ``density`` or ``random``.
        finetune: labelled images to retrain on and to evaluate on, in any layout.
        train_split: split to learn from.
        val_split: split to evaluate on, or ``none``.
        classes: of the data, see ``data.dataset.class_map_for``.
        mapping: of label types to classes, see there.
        steps: of the retraining; the centroids get a quarter more.
        config: TOML with fields of ``[recipe]`` to override.
        work: folder for checkpoints; by default beside ``out``.
        resume: continue from the checkpoints.
        name: of the model; by default the file's.
        licence: of the weights, for the card; by default what the source says.
        data_note: what they were trained on; by default what the source says.
        device: that the retraining computes on: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; by default the
            recipe's.
        quiet: no progress of the retraining.
        on_stage: called with each stage and the first one.

    Raises:
        UsageError: a parameter has a value that nothing can be done with.
        DataError: the data cannot be used, or have other classes than the model.
        ModelError: the model cannot be used, or the file cannot be made.
        DivergedError: the retraining diverged.
        KeyboardInterrupt: after Ctrl-C, when the state of the retraining is saved.
    """
    out = Path(out)
    if out.suffix not in SUFFIXES:
        raise UsageError(f"`out`: {out} must end in {SUFFIX}: it is a bundle")
    source = open_source(model)
    source = replace(source, licence=licence or source.licence, data=data_note or source.data)
    data = None
    if finetune is not None:
        dataset = read_dataset(Path(finetune))
        data = finetune_data(
            source,
            dataset.split(train_split),
            () if val_split == "none" else dataset.split(val_split),
            class_map_for(dataset, classes, mapping),
            steps=steps,
            folder=Path(work) if work else out.with_suffix(".work"),
            resume=resume,
            file=read_config(Path(config)) if config else ConfigFile(),
        )
        check_protocol(data.recipe.protocol)
        if device:
            choose_device(device)
            data = replace(data, recipe=replace(data.recipe, device=device))
    elif config or resume or work or device:
        raise UsageError("`config`, `work`, `resume` and `device` are for retraining: give `finetune`")
    if density is None:
        density = 1.0 if data is None else RETRAINED_DENSITY
    shares, found = densities_of(density, source, data)
    settings = Settings(density=shares, bits=bits_of(bits, source), start=start)
    pipeline = Pipeline(source, settings, data, on_stage, quiet)
    encoded = pipeline.run(name or out.stem)
    difference = _difference(source, encoded.bundle, data.val if data else ())
    write_atomic(out, encoded.content)
    return Compressed(
        encoded=encoded, stages=pipeline.stages, difference=difference, sensitivity=found, path=out, source=source.path
    )


# ------------------------------------------------------------------------------- settings


def densities_of(
    density: float | str | Path, source: CompressionSource, data: FinetuneData | None
) -> tuple[dict[str, float], Sensitivity | None]:
    """The share of each layer that stays, see ``compress``, and the scan it comes from, if any.

    Raises:
        UsageError: it is no number above 0 to 1 and no such file, or ``auto`` has no data.
    """
    text = str(density)
    auto, _, total = text.partition(":")
    if auto == AUTO:
        budget = _share(total, f"{AUTO}:{total}") if total else RETRAINED_DENSITY
        if data is None:
            raise UsageError(f"density: {AUTO} looks at labelled images; give `finetune`")
        found = sensitivity_of(source, data)
        return choose_densities(found, budget), found
    if _is_number(text):
        return uniform(source.network, _share(text, text)), None
    shares = read_numbers(Path(text), list(kernels(source.network)), 0, 1)
    return {name: share for name, share in shares.items() if share < 1}, None


def bits_of(bits: int | str | Path, source: CompressionSource) -> dict[str, int]:
    """The bits of a code of each layer, see ``compress``.

    Raises:
        UsageError: it is no whole number from 1 to 10, and no such file.
    """
    layers, text = list(kernels(source.network)), str(bits)
    if not _is_number(text):
        found = read_numbers(Path(text), layers, 0, share.MAX_BITS)
        if any(value != int(value) for value in found.values()):
            raise UsageError(f"{text}: bits are whole numbers")
        return dict.fromkeys(layers, WHOLE_BITS) | {k: int(v) for k, v in found.items()}
    if not text.isdigit() or not 1 <= int(text) <= share.MAX_BITS:
        raise UsageError(f"bits: {text!r} is no whole number from 1 to {share.MAX_BITS}")
    return dict.fromkeys(layers, int(text))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _share(text: str, given: str) -> float:
    value = float(text) if _is_number(text) else math.nan
    if not 0 < value <= 1:
        raise UsageError(f"density: {given!r} is no number above 0 to 1")
    return value


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
    """How a source is retrained: by the recipe it was trained with, shorter and gentler.

    Args:
        source: a detector.
        train: labelled images to learn from.
        val: labelled images to evaluate on.
        class_map: of the data; its classes must be those of the detector.
        steps: of the retraining.
        folder: for checkpoints.
        resume: continue from them.
        file: overrides fields of the recipe.

    Raises:
        UsageError: the network classifies, or the file has an unknown field.
        DataError: the data have other classes.
    """
    if not isinstance(source.network, DetectionNetwork):
        raise UsageError(f"{source.path}: classifies; labeled boxes cannot retrain it")
    classes = source.network.config.classes
    if class_map.names != tuple(classes):
        raise DataError(f"{source.path}: detects {', '.join(classes)}, but the data have {', '.join(class_map.names)}")
    before = _recipe(source, source.network)
    gentle = replace(shortened(before, steps), learning_rate=RETRAINING_RATE * before.learning_rate, early_stop=0)
    return FinetuneData(
        train=train, val=val, class_map=class_map, recipe=file.override("recipe", gentle), folder=folder, resume=resume
    )


def _recipe(source: CompressionSource, detector: DetectionNetwork) -> Recipe:
    """What the network was trained with, if that is known and still understood."""
    default = recipes.default_for(detector)
    try:
        known = recipes.from_saved(tuples(source.training["recipe"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return default
    return replace(known, workers=default.workers)


def sensitivity_of(source: CompressionSource, data: FinetuneData) -> Sensitivity:
    """Prune each layer alone, and see what that does to the loss on a sample of the data.

    Raises:
        UsageError: the network classifies.
        DataError: an image cannot be decoded.
    """
    if not isinstance(source.network, DetectionNetwork):
        raise UsageError(f"{source.path}: classifies; it has no loss on labeled boxes")
    detector = copy.deepcopy(source.network)
    sample = sample_of(detector, Examples(data.train, data.class_map), data.recipe)
    return scan(detector, lambda: loss_on(detector, sample))


# ----------------------------------------------------------------------------- the stages


class Pipeline:
    """The stages of one compression, one after the other.

    Args:
        source: the network; a copy is compressed.
        settings: how much.
        data: to retrain on; None for none.
        on_stage: called with each stage and the first one.
        quiet: no progress of the retraining.
    """

    def __init__(
        self,
        source: CompressionSource,
        settings: Settings,
        data: FinetuneData | None = None,
        on_stage: Callable[[Stage, Stage], None] | None = None,
        quiet: bool = False,
    ) -> None:
        self.source, self.settings, self.data = source, settings, data
        self.network = copy.deepcopy(source.network).eval()
        self.stages: list[Stage] = []
        self._on_stage, self._quiet = on_stage, quiet
        self._validation: Validation | None = None
        self._began = time.monotonic()

    def run(self, name: str) -> Encoded:
        """All stages; ``name`` is the model's, for its card.

        Raises:
            UsageError, DataError, DivergedError, KeyboardInterrupt: see ``finetune``.
            ModelError: the file cannot be made.
        """
        self._end_stage("float32")
        self._prune()
        self._share()
        return self._encode(name)

    def _prune(self) -> None:
        density = self.settings.density
        if not density:
            return
        if self.data is None:
            prune.prune(self.network, density)
            self._end_stage("pruned")
            return
        recipe = replace(self.data.recipe, frozen=())
        schedule = prune.Schedule(density, round(RAMP * recipe.steps))
        schedule.begin(self.network)
        self._finetune(recipe, "prune", lambda step: schedule.update(self.network, step))
        self._end_stage("pruned, retrained")

    def _share(self) -> None:
        bits = self.settings.bits
        clusters = {
            name: share.cluster(kernel, bits[name], self.settings.start)
            for name, kernel in kernel_values(self.network).items()
        }
        put(self.network, {name: found.weight() for name, found in clusters.items()})
        self._round()
        self._end_stage("shared", shared=True)
        if self.data is not None:
            base = self.data.recipe
            recipe = shortened(base, max(1, round(CENTROID_STEPS * base.steps)))
            rate = CENTROID_RATE * base.learning_rate
            share.parametrize_centroids(self.network, clusters)
            self._finetune(replace(recipe, learning_rate=rate, frozen=()), "share")
            self._round()
            self._end_stage("centroids trained", shared=True)

    def _encode(self, name: str) -> Encoded:
        how = {
            "density": _common(self.settings.density),
            "bits": _common(self.settings.bits),
            "start": self.settings.start,
            "steps": self.data.recipe.steps if self.data else 0,
        }
        if not isinstance(self.network, DetectionNetwork):
            encoded = encode_classifier(self.network, self.source, name, how)
        else:
            encoded = encode_detector(
                copy.deepcopy(self.network),
                self.source,
                name,
                how,
                self._validation.result.to_dict() if self._validation else {},
                self.data.val if self.data else (),
            )
        self._end_stage("coded", encoded=encoded)
        return encoded

    def _round(self) -> None:
        """A detector's graph stores float16; a classifier's keeps every bit of its values."""
        if isinstance(self.network, DetectionNetwork):
            round_to_half(self.network)

    def _finetune(
        self, recipe: Recipe, folder: Literal["prune", "share"], before_step: Callable[[int], None] = lambda step: None
    ) -> None:
        data = self.data
        if data is None or not isinstance(self.network, DetectionNetwork):
            return
        run = Run(
            folder=data.folder / folder,
            train=data.train,
            val=(),
            class_map=data.class_map,
            recipe=recipe,
            quiet=self._quiet,
        )
        finetune(self.network, run, before_step, data.resume)
        prune.remove(self.network)

    def _end_stage(self, name: str, *, shared: bool = False, encoded: Encoded | None = None) -> None:
        """Measure and evaluate what the stage leaves."""
        seconds = time.monotonic() - self._began
        layers = measure_all(kernel_values(self.network))
        made = encoded.bundle if encoded and encoded.bundle.card.task == "detect" else None
        self._validation = self._validate_file(made) if made else self._validate()
        stage = Stage(
            name=name,
            size_bytes=len(encoded.content) if encoded else self._bytes(layers, shared),
            layers=layers,
            ap={n: v for n, v in self._validation.ap.items() if v is not None} if self._validation else {},
            seconds=seconds,
        )
        self.stages.append(stage)
        if self._on_stage:
            self._on_stage(stage, self.stages[0])
        self._began = time.monotonic()

    def _bytes(self, layers: Sequence[LayerSize], shared: bool) -> int:
        """Kernels as the stage leaves them, and float32 for the rest."""
        in_kernels = sum(layer.weight.numel() for layer in kernels(self.network).values())
        others = sum(p.numel() for p in self.network.parameters()) - in_kernels
        return FLOAT_BYTES * others + sum(s.stored_bytes(shared=shared) for s in layers)

    def _validate(self) -> Validation | None:
        data = self.data
        if not data or not data.val or not isinstance(self.network, DetectionNetwork):
            return None
        return validate(self.network, data.val, data.class_map, data.recipe.protocol)

    def _validate_file(self, made: Bundle) -> Validation | None:
        """Evaluate what the file holds, with the engine that will run it."""
        data = self.data
        if not data or not data.val:
            return None
        detector = Detector(made)
        found = [detector.detect(read_image(s.image), 0.0) for s in data.val]
        return evaluate_detections(data.val, found, data.class_map, data.recipe.protocol)


def _common(values: Mapping[str, float]) -> float | dict[str, float]:
    """The one value that all layers have, or all values."""
    distinct = set(values.values())
    return distinct.pop() if len(distinct) == 1 else dict(values)


def _difference(source: CompressionSource, made: Bundle, val: Sequence[Sample]) -> Difference | None:
    """How far the file's boxes are from its source's."""
    if not isinstance(source.network, DetectionNetwork):
        return None
    original = bundle_detector(copy.deepcopy(source.network), "source")
    before, after = open_engine(original), open_engine(made)
    pictures = tuple(sample.image for sample in val[:COMPARED_IMAGES])
    total = Difference()
    for pixels in parity.sample_pixels(made, pictures):
        pair = before.run(pixels), after.run(pixels)
        total += parity.compare(*pair, original.card.selection)
    return total
