"""Deep Compression: prune, retrain, share weights, train the centroids, encode.

Han, Mao, Dally: "Deep Compression", arXiv 1510.00149. ``compress`` is the whole of it, from the name of a model to a
file. Without labelled data nothing is retrained and no average precision is measured; then nothing is pruned either,
unless ``density`` asks for it.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from squeezedet.coding.tensor import MAX_SIZE, TensorSummary, describe, encode_tensor
from squeezedet.compression import prune, share
from squeezedet.compression.prune import (
    LayerSize,
    Sensitivity,
    choose_densities,
    kernel_values,
    kernels,
    put,
    read_numbers,
    round_to_half,
    sensitivity_of,
    uniform,
)
from squeezedet.data.dataset import class_map_for, read_dataset
from squeezedet.data.sample import Sample
from squeezedet.errors import DataError, UsageError
from squeezedet.exporting.bundle import OPSET, TRAINING, UNKNOWN, bundle_detector, to_onnx
from squeezedet.files import Interrupts, check_no_folder, write_atomic
from squeezedet.media.images import read_image
from squeezedet.models.network import DetectionNetwork
from squeezedet.models.squeezenet import SqueezeNet, from_weights
from squeezedet.preprocess import InputRule
from squeezedet.pretrained.onnx_file import read_graph
from squeezedet.runtime import bundle, parity
from squeezedet.runtime.bundle import SUFFIX, SUFFIXES, Bundle
from squeezedet.runtime.card import Card
from squeezedet.runtime.detector import Detector
from squeezedet.runtime.parity import Difference
from squeezedet.runtime.select_engine import open_engine
from squeezedet.training import checkpoint
from squeezedet.training import recipe as recipes
from squeezedet.training.batches import Examples, batches
from squeezedet.training.checkpoint import detector_of_bundle, tuples
from squeezedet.training.loop import Progress
from squeezedet.training.recipe import ConfigFile, Recipe, read_config, shortened
from squeezedet.training.run_folder import Run
from squeezedet.training.trainer import Trainer, choose_device
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
REPORT_EVERY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionSource:
    """A network with its weights, and what is known of it.

    Attributes:
        network: in evaluation mode, batch normalization folded into its kernels: these are what is stored, so these are
            what is pruned and shared.
        path: where it comes from.
        licence: of the weights.
        data: what they were trained on.
        training: how, as a card says it.
    """

    network: DetectionNetwork | SqueezeNet
    path: Path
    licence: str = UNKNOWN
    data: str = UNKNOWN
    training: Mapping[str, Any] = field(default_factory=dict)


def open_source(name: str) -> CompressionSource:
    """Read what shall be compressed.

    Args:
        name: of a shipped model; or the path of a bundle, of a checkpoint, or of the weights of a SqueezeNet (.onnx,
            .net, .npz, .caffemodel, .safetensors).

    Raises:
        UsageError: there is no such file.
        ModelError: it cannot be used.
    """
    path = bundle.find(name)
    if checkpoint.is_ours(path):
        detector, saved = checkpoint.read_detector(path)
        training = {name: saved.metadata[key] for name, key in TRAINING.items() if key in saved.metadata}
        return CompressionSource(network=detector.folded(), path=path, training=training)
    if path.suffix == ".npz" or not bundle.is_bundle(path):
        return CompressionSource(network=from_weights(path), path=path)
    model = bundle.read(path)
    card = model.card
    if card.task == "classify":
        return CompressionSource(network=from_weights(path), path=path, licence=card.licence, data=card.data)
    network = detector_of_bundle(model, path)
    return CompressionSource(network=network, path=path, licence=card.licence, data=card.data, training=card.training)


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
        return sum(s.kept for s in self.layers) / sum(s.weights for s in self.layers)

    @property
    def entropy_bits(self) -> float:
        """Of a weight, see ``LayerSize``; each kernel has its own code."""
        return sum(s.entropy_bits * s.weights for s in self.layers) / sum(s.weights for s in self.layers)

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


@dataclass(frozen=True, slots=True)
class Encoded:
    """A compressed model, what form each coded tensor has, by its name in the graph, and the content of the file."""

    bundle: Bundle
    summaries: Mapping[str, TensorSummary]
    content: bytes


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
        density: share of the weights that stays: one number for all layers but the first, a TOML file with one for
            each layer, or ``auto:0.25``: found by a scan for that share in all. By default 0.33 with ``finetune``,
            and 1 without: a pruned network that is not retrained is ruined.
        bits: of a code, 1 to 10; or a file with one number for each layer.
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
    check_no_folder(out)
    source = open_source(model)
    source = replace(source, licence=licence or source.licence, data=data_note or source.data)
    run = None
    if finetune is not None:
        dataset = read_dataset(Path(finetune))
        class_map = class_map_for(dataset, classes, mapping)
        recipe = _recipe(source, class_map.names, steps, read_config(Path(config)) if config else ConfigFile(), device)
        run = Run(
            folder=Path(work) if work else out.with_suffix(".work"),
            train=dataset.split(train_split),
            val=() if val_split == "none" else dataset.split(val_split),
            class_map=class_map,
            recipe=recipe,
            quiet=quiet,
        )
    elif config or resume or work or device or classes or mapping:
        names = "`config`, `work`, `resume`, `device`, `classes` and `mapping`"
        raise UsageError(f"{names} are for retraining: give `finetune`")
    if density is None:
        density = 1.0 if run is None else RETRAINED_DENSITY
    shares, found = _densities(density, source, run)
    bits_of = _bits(bits, source)
    pipeline = Pipeline(source, shares, bits_of, run=run, resume=resume, on_stage=on_stage)
    encoded = pipeline.run_all(name or out.stem)
    difference = _difference(source, encoded.bundle, run.val if run else ())
    write_atomic(out, encoded.content)
    return Compressed(
        encoded=encoded, stages=pipeline.stages, difference=difference, sensitivity=found, path=out, source=source.path
    )


# ------------------------------------------------------------ what is asked for


def _recipe(
    source: CompressionSource, classes: tuple[str, ...], steps: int, file: ConfigFile, device: str | None
) -> Recipe:
    """How a source is retrained: by the recipe it was trained with, if that is known, but shorter and gentler."""
    network = source.network
    if not isinstance(network, DetectionNetwork):
        raise UsageError(f"{source.path}: classifies; labeled boxes cannot retrain it")
    own = tuple(network.config.classes)
    if classes != own:
        raise DataError(f"{source.path}: detects {', '.join(own)}, but the data have {', '.join(classes)}")
    recipe = recipes.default_for(network)
    with suppress(AttributeError, KeyError, TypeError, ValueError):  # an unknown recipe, or none
        recipe = replace(recipes.from_saved(tuples(source.training["recipe"])), workers=recipe.workers)
    gentle = replace(shortened(recipe, steps), learning_rate=RETRAINING_RATE * recipe.learning_rate, early_stop=0)
    recipe = file.override("recipe", gentle)
    check_protocol(recipe.protocol)
    if device:
        choose_device(device)
        recipe = replace(recipe, device=device)
    return recipe


def _densities(
    density: float | str | Path, source: CompressionSource, run: Run | None
) -> tuple[dict[str, float], Sensitivity | None]:
    """The share of each layer that stays, see ``compress``, and the scan it comes from, if any."""
    text = str(density)
    auto, _, total = text.partition(":")
    if auto == AUTO:
        budget = _share(total, text) if total else RETRAINED_DENSITY
        if run is None or not isinstance(source.network, DetectionNetwork):
            raise UsageError(f"density: {AUTO} looks at labelled images; give `finetune`")
        found = sensitivity_of(source.network, run)
        return choose_densities(found, budget), found
    if _is_number(text):
        return uniform(source.network, _share(text, text)), None
    shares = read_numbers(Path(text), list(kernels(source.network)), 0, 1)
    return {name: share for name, share in shares.items() if share < 1}, None


def _bits(bits: int | str | Path, source: CompressionSource) -> dict[str, int]:
    """The bits of a code of each layer, see ``compress``."""
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


# ------------------------------------------------------------ the stages


class Pipeline:
    """The stages of one compression, one after the other.

    Args:
        source: the network; a copy is compressed.
        density: layer name -> share of its weights that stays; layers without one stay whole.
        bits: layer name -> bits of a code; every kernel has one.
        run: what to retrain and evaluate on, and how; None for none.
        resume: continue from the checkpoints in the run's folder.
        on_stage: called with each stage and the first one.
    """

    def __init__(
        self,
        source: CompressionSource,
        density: prune.Density,
        bits: Mapping[str, int],
        *,
        run: Run | None = None,
        resume: bool = False,
        on_stage: Callable[[Stage, Stage], None] | None = None,
    ) -> None:
        self.source, self.density, self.bits = source, density, bits
        self.run, self.resume = run, resume
        self.network = copy.deepcopy(source.network).eval()
        self.stages: list[Stage] = []
        self._on_stage = on_stage
        self._validation: Validation | None = None
        self._began = time.monotonic()

    def run_all(self, name: str) -> Encoded:
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
        if self.density and self.run:
            recipe = replace(self.run.recipe, frozen=())
            schedule = prune.Schedule(self.density, round(RAMP * recipe.steps))
            schedule.begin(self.network)
            self._finetune(self.run, recipe, "prune", lambda step: schedule.update(self.network, step))
            self._end_stage("pruned, retrained")
        elif self.density:
            prune.prune(self.network, self.density)
            self._end_stage("pruned")

    def _share(self) -> None:
        clusters = {
            name: share.cluster(kernel, self.bits[name]) for name, kernel in kernel_values(self.network).items()
        }
        put(self.network, {name: found.weight() for name, found in clusters.items()})
        self._round()
        self._end_stage("shared", shared=True)
        if self.run:
            base = self.run.recipe
            recipe = shortened(base, max(1, round(CENTROID_STEPS * base.steps)))
            recipe = replace(recipe, learning_rate=CENTROID_RATE * base.learning_rate, frozen=())
            share.parametrize_centroids(self.network, clusters)
            self._finetune(self.run, recipe, "share", lambda step: None)
            self._round()
            self._end_stage("centroids trained", shared=True)

    def _encode(self, name: str) -> Encoded:
        how = {
            "density": _common(self.density),
            "bits": _common(self.bits),
            "steps": self.run.recipe.steps if self.run else 0,
        }
        source = self.source
        if isinstance(self.network, DetectionNetwork):
            made = bundle_detector(
                copy.deepcopy(self.network),  # calibration moves its confidences
                name,
                licence=source.licence,
                data=source.data,
                training={**source.training, "compression": how},
                results=self._validation.result.to_dict() if self._validation else {},
                calibrate_on=self.run.val if self.run else (),
            )
        else:
            made = classifier_bundle(self.network, source, name, how)
        encoded = encode(made)
        self._end_stage("coded", encoded=encoded)
        return encoded

    def _round(self) -> None:
        """A detector's graph stores float16; a classifier's keeps every bit of its values."""
        if isinstance(self.network, DetectionNetwork):
            round_to_half(self.network)

    def _finetune(self, run: Run, recipe: Recipe, folder: str, before_step: Callable[[int], None]) -> None:
        assert isinstance(self.network, DetectionNetwork)  # noqa: S101 - _recipe has seen to it
        stage = replace(run, folder=run.folder / folder, val=(), recipe=recipe)
        finetune(self.network, stage, before_step, self.resume)
        prune.remove(self.network)

    def _end_stage(self, name: str, *, shared: bool = False, encoded: Encoded | None = None) -> None:
        """Measure and evaluate what the stage leaves."""
        seconds = time.monotonic() - self._began
        layers = [prune.measure(layer, kernel) for layer, kernel in kernel_values(self.network).items()]
        in_kernels = sum(layer.weights for layer in layers)
        others = sum(p.numel() for p in self.network.parameters()) - in_kernels
        size = FLOAT_BYTES * others + sum(layer.stored_bytes(shared=shared) for layer in layers)
        self._validation = self._validate(encoded)
        ap = self._validation.ap if self._validation else {}
        stage = Stage(
            name=name,
            size_bytes=len(encoded.content) if encoded else size,
            layers=layers,
            ap={n: v for n, v in ap.items() if v is not None},
            seconds=seconds,
        )
        self.stages.append(stage)
        if self._on_stage:
            self._on_stage(stage, self.stages[0])
        self._began = time.monotonic()

    def _validate(self, encoded: Encoded | None) -> Validation | None:
        """Evaluate the network, or what the file holds, with the engine that will run it."""
        run = self.run
        if not run or not run.val or not isinstance(self.network, DetectionNetwork):
            return None
        if not encoded:
            return validate(self.network, run.val, run.class_map, run.recipe.protocol)
        detector = Detector(encoded.bundle)
        found = [detector.detect(read_image(s.image), 0.0) for s in run.val]
        return evaluate_detections(run.val, found, run.class_map, run.recipe.protocol)


def finetune(detector: DetectionNetwork, run: Run, before_step: Callable[[int], None], resume: bool = False) -> None:
    """All steps of the recipe; the detector then has the averaged weights of the last one, on the processor.

    Unlike a training from the start, it is not the best weights on validation that are kept: early ones would win
    because they are pruned less.

    Args:
        detector: with parametrized kernels (masks or centroids); changed in place.
        run: its folder gets ``last.safetensors``.
        before_step: called with the number of each step.
        resume: continue from ``last.safetensors`` if there is one.

    Raises:
        UsageError: the folder holds a run, and ``resume`` is not set.
        DivergedError, DataError: see ``training.loop.run_training``.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the state is saved.
    """
    if run.last.exists() and not resume:
        raise UsageError(f"{run.folder}: holds a compression already; continue it with `resume`, or remove it")
    # Workers make the targets, and a parametrized network cannot be pickled.
    bare = type(detector)(detector.config)
    bare.input_rule = detector.input_rule
    trainer = Trainer(detector, run)
    if run.last.exists():
        trainer.resume()
    else:
        trainer.save()  # a folder that cannot be written is found out now
    if not trainer.finished:
        _learn(trainer, bare, before_step)
    detector.load_state_dict(trainer.ema or detector.state_dict())
    detector.cpu().eval()
    for parameter in detector.parameters():
        parameter.grad = None


def _learn(trainer: Trainer, bare: DetectionNetwork, before_step: Callable[[int], None]) -> None:
    recipe, run = trainer.recipe, trainer.run
    examples = Examples(run.train, run.class_map)
    examples.preload()
    saved_at = time.monotonic()
    with Progress(recipe.steps, trainer.step, run.quiet) as progress, Interrupts() as interrupts:
        for batch in batches(examples, bare, recipe, trainer.step):
            before_step(trainer.step)
            trainer.learn(batch)
            progress.step(trainer.step)
            if trainer.step % REPORT_EVERY == 0:
                progress.report(trainer.step, *trainer.means.take())
            late = time.monotonic() - saved_at > recipe.checkpoint_every_s
            if late or interrupts.asked or trainer.finished:
                trainer.save()
                saved_at = time.monotonic()
            if interrupts.asked:
                progress.message(f"stopped after step {trainer.step}; it can be resumed")
                raise KeyboardInterrupt


# ------------------------------------------------------------ what is written

SMALLEST = 16
"""Numbers in a tensor that is worth a line of the index."""
WORTH_CODING = 0.95
"""Of a tensor's deflated bytes; int8 kernels gain 1 %, shared values more than 10."""


def classifier_bundle(
    network: SqueezeNet, source: CompressionSource, name: str, compression: Mapping[str, Any]
) -> Bundle:
    """A SqueezeNet as a graph from (1, 3, side, side) RGB pixels to logits, with a card that names the network."""
    side = network.config.layout.input_px
    graph = to_onnx(network, torch.zeros(1, 3, side, side), ["logits"])
    card = Card(
        name=name,
        detector=network.kind,
        task="classify",
        classes=(),
        input=InputRule(side, side, fixed=True),
        parameters=sum(p.numel() for p in network.parameters()),
        licence=source.licence,
        data=source.data,
        training={"config": asdict(network.config), "compression": dict(compression)},
        results={},
        opset=OPSET,
        graph_sha256=hashlib.sha256(graph).hexdigest(),
    )
    return Bundle(card, graph)


def encode(model: Bundle) -> Encoded:
    """Code those float tensors of a graph that this makes a twentieth smaller than deflating them.

    Raises:
        ModelError: the graph is damaged, holds no convolution, or does not survive coding.
    """
    coded = {}
    for name, values in read_graph(model.graph, Path(model.card.name)).tensors.items():
        if SMALLEST <= values.size <= MAX_SIZE:
            content = encode_tensor(values)
            if len(content) < WORTH_CODING * len(zlib.compress(_as_stored(values), 9)):
                coded[name] = content
    summaries = {name: describe(content) for name, content in coded.items()}
    return Encoded(model, summaries, bundle.to_bytes(model, coded))


def _as_stored(values: NDArray[np.float32]) -> bytes:
    """The numbers as the graph has them: as float16 those that are exact, kernels as a rule."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half.tobytes() if np.array_equal(half, values) else values.tobytes()


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
