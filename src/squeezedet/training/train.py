"""``squeezedet.train``: from labelled images to a bundle that detects."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from squeezedet.data.anchors import anchors_for
from squeezedet.data.dataset import Dataset, class_map_for, dataset_warnings, read_datasets
from squeezedet.data.sample import KITTI_PAPER, ClassMap, Sample
from squeezedet.errors import ModelError, UsageError
from squeezedet.exporting.bundle import bundle_checkpoint
from squeezedet.models import registry
from squeezedet.models.network import DetectionNetwork
from squeezedet.models.squeezedet import PAPER, PAPER_SIZE
from squeezedet.preprocess import STRIDE, InputRule
from squeezedet.runtime import bundle
from squeezedet.text import did_you_mean
from squeezedet.training import checkpoint
from squeezedet.training.callbacks import Callback, TensorBoard
from squeezedet.training.checkpoint import InitReport, initialize, network_of, shape_of
from squeezedet.training.distributed import TIMEOUT_S, job, join, processes_started
from squeezedet.training.loop import run_training, use_threads
from squeezedet.training.recipe import PAPER as PAPER_RECIPE
from squeezedet.training.recipe import (
    ConfigFile,
    Recipe,
    default_for,
    from_saved,
    read_config,
    shortened,
    with_optimizer,
)
from squeezedet.training.run_folder import LAST, RECORD, Run, read_record
from squeezedet.training.trainer import choose_device, freeze
from squeezedet.training.validate import check_protocol

# ------------------------------------------------------------ what a run is made of

NO_FILE = ConfigFile()
ANCHORED = ("convdet", "two-scale")
"""Kinds of network whose weights are bound to their anchors and widths."""
SMALLEST, LARGEST = 32, 4096
"""Sides of an input: the exported graph needs two cells; a card allows no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A detector with its starting weights, and how it shall be trained.

    Attributes:
        detector: the network.
        recipe: how.
        class_map: which label types are learned.
        start: what became of the weights that it starts from; None for a run that goes on.
        threads: how many processor threads the run had; None for a new run.
    """

    detector: DetectionNetwork
    recipe: Recipe
    class_map: ClassMap
    start: InitReport | None = None
    threads: int | None = None

    @classmethod
    def create(
        cls,
        network: str | None,
        class_map: ClassMap,
        samples: Sequence[Sample],
        *,
        paper: bool = False,
        size: tuple[int, int] | None = None,
        anchors: int = 0,
        init: str | None = None,
        seed: int | None = None,
        file: ConfigFile = NO_FILE,
    ) -> Plan:
        """Plan a run: the grid, the anchors and the output channels follow from the data.

        Arguments and errors are those of ``train``; ``file`` overrides fields of the recipe and of the network's
        configuration, and anchors are found on ``samples``.
        """
        network = network or network_of(init)
        entry = registry.find(network)
        if entry.task != "detect":
            raise UsageError(f"{network} classifies; training wants a detector")
        if paper:
            class_map = KITTI_PAPER
        if seed is None:
            seed = file.override("recipe", Recipe()).seed
        config = _config(network, class_map, size, paper)
        if entry.kind in ANCHORED and init is not None:  # weights mean nothing in another shape
            try:
                config = replace(config, **shape_of(init, entry.kind))
            except (TypeError, ValueError) as error:
                raise ModelError(f"{init}: does not fit the network: {error}") from error
        config = file.override("network", config)
        if config.classes != class_map.names:
            raise UsageError(
                f"{file.path}: [network] has other classes than the data, which have "
                f"{', '.join(class_map.names)}; leave them out"
            )
        if anchors:
            if entry.kind != "convdet":
                raise UsageError(f"anchors: {network} has no anchor shapes to choose")
            width, height = config.size
            rule = InputRule(width, height, fixed=paper)
            config = replace(config, anchors=anchors_for(samples, class_map, rule, k=anchors))
        start = initialize(entry.kind, config, init, seed)
        detector = start.detector
        chosen = PAPER_RECIPE if paper else default_for(detector)
        if init is not None:  # what the paper freezes is trained already; random weights have to learn
            chosen = replace(chosen, frozen=detector.frozen)
        chosen = replace(file.override("recipe", chosen), seed=seed)
        return cls(detector=detector, recipe=chosen, class_map=class_map, start=start)

    @classmethod
    def resume(cls, folder: Path) -> Plan:
        """The plan of the run in a folder, from its last checkpoint; a UsageError where there is none."""
        path = folder / LAST
        if not path.exists():
            raise UsageError(f"{folder}: holds no run to continue; leave out `resume`")
        saved = checkpoint.read(path)
        detector = checkpoint.new_detector(saved, path)
        try:
            return cls(
                detector=detector,
                recipe=from_saved(checkpoint.tuples(saved.metadata["recipe"])),
                class_map=ClassMap(**checkpoint.tuples(saved.metadata["class_map"])),
                threads=int(saved.metadata["threads"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: does not say how the run was made: {error}") from error


def _config(network: str, class_map: ClassMap, size: tuple[int, int] | None, paper: bool) -> Any:
    config = registry.config_of(network, classes=class_map.names)
    if paper:
        if registry.find(network).kind != "convdet":
            raise UsageError(f"paper: the recipe is SqueezeDet's; {network} has none of it")
        if size:
            raise UsageError(f"size: the paper's geometry is {PAPER_SIZE[0]}x{PAPER_SIZE[1]}")
        return replace(PAPER, backbone=config.backbone, anchors=config.anchors, classes=config.classes)
    if size is None:
        return config
    if "size" not in {field.name for field in fields(config)}:
        raise UsageError(f"size: {network} has one size only")
    if any(side % STRIDE or not SMALLEST <= side <= LARGEST for side in size):
        raise UsageError(
            f"size: the sides of {size[0]}x{size[1]} must be multiples of {STRIDE} from {SMALLEST} to {LARGEST}"
        )
    return replace(config, size=size)


# ------------------------------------------------------------ the verb

LOG = logging.getLogger("squeezedet.training")
Data = str | Path | Sequence[str | Path]
NO_SPLIT = "none"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training leaves.

    Attributes:
        bundle: the model, ready to detect; None in all processes but the first.
        best: the checkpoint that it was made from.
        folder: of the run, with ``index.html``.
    """

    bundle: Path | None
    best: Path
    folder: Path


def train(
    data: Data,
    *,
    out: str | Path = "runs/squeezedet",
    network: str | None = None,
    init: str | None = None,
    train_split: str = "train",
    val_split: str | None = None,
    classes: Sequence[str] | None = None,
    mapping: Mapping[str, str] | None = None,
    data_weights: Sequence[float] | None = None,
    paper: bool = False,
    config: str | Path | None = None,
    size: tuple[int, int] | None = None,
    anchors: int = 0,
    epochs: float | None = None,
    max_hours: float | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    tensorboard: bool = False,
    name: str | None = None,
    licence: str = "",
    data_note: str = "",
    threads: int | None = None,
    process_timeout: float = TIMEOUT_S,
    quiet: bool = False,
    command: str = "",
    **recipe: Any,
) -> TrainResult:
    """Train a detector on labelled images, and write a bundle that detects.

    Classes and output channels follow from the data. Under torchrun every process calls it; a run in ``out`` that the
    same job of torchrun has begun goes on, as with ``resume``.

    Args:
        data: folder or file: KITTI, VOC, COCO or YOLO; or several of them.
        out: run folder: config.toml, metrics.csv, index.html, last.safetensors, best.safetensors, and at the end a
            bundle named after the folder.
        network: name of a network, see ``squeezedet models --networks``, or ``package.module:Class``; by default that
            of ``init`` if it is a model of ours, or ``squeezedet``.
        init: weights to start from: a SqueezeNet, darknet's .weights, a bundle, a shipped model, a checkpoint; None for
            random ones.
        train_split: split to learn from.
        val_split: split to validate on, ``none`` for none; by default ``val`` where there is one.
        classes: the classes, in this order; by default those that the data have.
        mapping: type of a label -> the class it is learned as, ``ignore`` or ``background``.
        data_weights: with several data: how often an image of each is drawn, beside the others.
        paper: the SqueezeDet paper's geometry, loss, drift and schedule.
        config: TOML file whose [recipe] and [network] override fields.
        size: (width, height) that detection uses; by default the network's.
        anchors: find so many anchor shapes in the data; 0 keeps the built-in ones.
        epochs: the number of steps, as passes over the images.
        max_hours: as many steps as fit, then end, with a bundle.
        resume: continue the run in ``out``, exactly; network, recipe and classes are the run's.
        callbacks: told of steps, validations and checkpoints.
        tensorboard: write TensorBoard's files, too.
        name: of the model; by default the run folder's.
        licence: of the weights, for the card.
        data_note: what the data is, for the card.
        threads: processor threads; None for torch's default.
        process_timeout: under torchrun: seconds to wait for another process.
        quiet: print nothing but errors and warnings.
        command: what was called, for the record.
        **recipe: fields of ``Recipe``: ``steps``, ``batch``, ``device``, ``learning_rate``, ...

    Raises:
        UsageError: what is asked for does not exist, or does not go together.
        DataError: the data cannot be used; what was learned so far is saved.
        ModelError: ``init``, the teacher or the checkpoint cannot be used.
        SqueezeDetError: see ``training.loop.run_training``.
    """
    out = Path(out)
    if not resume and job() and (out / LAST).exists() and read_record(out / RECORD).get("torchrun") == job():
        resume, config, epochs = True, None, None  # torchrun has started its processes again
    _check_arguments(recipe, resume=resume, config=config, epochs=epochs, name=name)
    if network and ":" in network:
        registry.find(network)  # takes it up, also for a run that goes on
    choose_device(recipe.get("device") or "auto")
    paths = [Path(data)] if isinstance(data, str | Path) else [Path(path) for path in data]
    dataset = read_datasets(paths, weights=data_weights)
    samples = dataset.weighted(train_split)
    file = read_config(Path(config)) if config else ConfigFile()
    if resume:
        planned = Plan.resume(out)
        _check_resumed(planned, network, classes, size)
    else:
        planned = Plan.create(
            network,
            class_map_for(dataset, classes, mapping),
            samples,
            paper=paper,
            size=size,
            anchors=anchors,
            init=init,
            seed=recipe.get("seed"),
            file=file,
        )
    record = read_record(out / RECORD) if resume else {}
    name = name or str(record.get("name") or "") or out.resolve().name or "model"
    run = Run(
        folder=out,
        train=samples,
        val=_validation(dataset, val_split, train_split, samples, planned.class_map),
        class_map=planned.class_map,
        recipe=_recipe(planned, recipe, epochs, len(samples)),
        quiet=quiet,
        max_seconds=3600 * max_hours if max_hours else math.inf,
        callbacks=(*callbacks, *([TensorBoard()] if tensorboard else [])),
        name=name,
        data=str(dataset.path),
        command=command,
    )
    use_threads(threads or planned.threads)
    freeze(planned.detector, run.recipe.frozen)  # what is not there is said before any work
    check_protocol(run.recipe.protocol)
    with join(process_timeout) as processes:
        if processes.first:
            for warning in dataset_warnings(dataset, planned.class_map, [train_split]):
                LOG.warning("%s", warning)
            for note in dataset.notes:
                LOG.info("%s", note)
        if planned.start:
            _say(f"weights: {planned.start.describe()}", quiet or not processes.first)
        best = run_training(planned.detector, run, resume, processes)
    if not processes.first:
        return TrainResult(None, best, out)
    target = out / f"{name}{bundle.SUFFIX}"
    work = f"calibrating the score on {len(run.val):,} images, then " if run.val else ""
    _say(f"{work}exporting {target}: this takes a minute or two", quiet)
    made = bundle_checkpoint(
        best,
        name,
        licence=licence or "not stated",
        data=data_note or f"{run.data}, split {train_split}: {len({sample.image for sample in run.train})} images",
        calibrate_on=run.val,
    )
    bundle.write(target, made)
    return TrainResult(target, best, out)


def _check_arguments(
    recipe: Mapping[str, Any], *, resume: bool, config: str | Path | None, epochs: float | None, name: str | None
) -> None:
    known = [field.name for field in fields(Recipe)]
    for field in recipe:
        if field not in known:
            raise UsageError(f"{field}: is no parameter of a training{did_you_mean(field, known)}")
    if name is not None and (not name or "/" in name or "\\" in name):
        raise UsageError(f"name: {name!r} is no name for a file")
    if resume and config:
        raise UsageError("config: a run that goes on has its recipe; leave out `config`")
    if recipe.get("steps") and epochs:
        raise UsageError("give `steps` or `epochs`, not both")


def _validation(
    dataset: Dataset, split: str | None, train_split: str, learned: Sequence[Sample], class_map: ClassMap
) -> tuple[Sample, ...]:
    """The images to validate on; none where they could tell nothing."""
    if split == NO_SPLIT:
        return ()
    if split is None and "val" not in dataset.splits:
        LOG.warning("%s: has no split 'val': nothing is validated, the last weights are taken", dataset.path)
        return ()
    split = split or "val"
    samples = dataset.split(split)
    if not any(class_map.has_objects(sample.objects) for sample in samples):
        LOG.warning("split %r has no object of any class: nothing can be validated, the last weights are taken", split)
        return ()
    same = dataset.shared.get  # an image that two data sets hold is one
    known = {same(sample.image, sample.image) for sample in learned}
    both = sum(same(sample.image, sample.image) in known for sample in samples)
    if both:
        LOG.warning(
            "%d of the %d images of split %r are learned from, too (split %r): what is measured "
            "there says little of other images",
            both,
            len(samples),
            split,
            train_split,
        )
    return samples


def _check_resumed(
    planned: Plan, network: str | None, classes: Sequence[str] | None, size: tuple[int, int] | None
) -> None:
    """Raises a UsageError where a run that goes on is asked for another network, classes or size than it has."""
    config, kind = planned.detector.config, planned.detector.kind
    kept: dict[str, tuple[Any, Any]] = {
        "network": (network and registry.find(network).kind, kind),
        "classes": (tuple(classes or ()), planned.class_map.names),
        "size": (tuple(size or ()), tuple(getattr(config, "size", ()))),
    }
    for name, (asked, has) in kept.items():
        if asked and asked != has:
            raise UsageError(f"`{name}`: the run that goes on has another one; leave it out, or begin another run")


def _recipe(planned: Plan, given: Mapping[str, Any], epochs: float | None, images: int) -> Recipe:
    """The recipe of the plan with what was asked for."""
    chosen = planned.recipe
    values = {key: value for key, value in given.items() if value is not None}
    optimizer: Literal["adamw", "sgd"] | None = values.pop("optimizer", None)
    if optimizer and optimizer != chosen.optimizer:
        chosen = with_optimizer(chosen, optimizer)
    try:
        chosen = replace(chosen, **values)
        batch = chosen.batch * processes_started()
        steps = max(1, round(epochs * images / batch)) if epochs else values.get("steps")
        return shortened(chosen, steps) if steps and planned.start else chosen
    except (OverflowError, TypeError, ValueError) as error:
        raise UsageError(f"{error}") from error


def _say(text: str, quiet: bool) -> None:
    LOG.info("%s", text)
    if not quiet:
        print(text, file=sys.stderr, flush=True)
