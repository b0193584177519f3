"""What a run is made of before it starts: network, recipe and classes, from names and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from squeezedet.data.anchors import anchors_for
from squeezedet.data.sample import KITTI_PAPER, ClassMap, Sample
from squeezedet.errors import ModelError, UsageError
from squeezedet.models import registry
from squeezedet.models.network import Config, DetectionNetwork
from squeezedet.models.squeezedet import PAPER, PAPER_SIZE
from squeezedet.preprocess import STRIDE, InputRule
from squeezedet.training import checkpoint, recipe
from squeezedet.training.config_file import ConfigFile
from squeezedet.training.init import InitReport, initialize, shape_of
from squeezedet.training.recipe import Recipe

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
        network: str,
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

        Args:
            network: name of a network, or package.module:Class of your own.
            class_map: of the data.
            samples: what will be learned from; anchors are found on them.
            paper: the SqueezeDet paper's geometry, loss, classes and schedule.
            size: (width, height) that detection uses; the network's own by default.
            anchors: how many anchor shapes to find in the data; 0 keeps those of ``init``, or the network's.
            init: where the weights come from, see ``init.initialize``.
            seed: of everything random; None for the file's, or 0.
            file: overrides fields of the recipe and of the network's configuration.

        Raises:
            UsageError: there is no such network, or it cannot do what is asked.
            ModelError: ``init`` cannot be used.
        """
        entry = registry.find(network)
        if entry.task != "detect":
            raise UsageError(f"{network} classifies; training wants a detector")
        if paper:
            class_map = KITTI_PAPER
        if seed is None:
            seed = file.override("recipe", Recipe()).seed
        config = _config(network, class_map, size, paper)
        if entry.kind in ANCHORED and init is not None:  # weights mean nothing in another shape
            config = _reshaped(config, entry.kind, init)
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
        chosen = recipe.PAPER if paper else recipe.default_for(detector)
        if init is not None:  # what the paper freezes is trained already; random weights have to learn
            chosen = replace(chosen, frozen=detector.frozen)
        chosen = replace(file.override("recipe", chosen), seed=seed)
        return cls(detector=detector, recipe=chosen, class_map=class_map, start=start)

    @classmethod
    def resume(cls, folder: Path) -> Plan:
        """The plan of the run in a folder, from its last checkpoint; a UsageError where there is none."""
        path = folder / "last.safetensors"
        if not path.exists():
            raise UsageError(f"{folder}: holds no run to continue; leave out `resume`")
        saved = checkpoint.read(path)
        detector = checkpoint.new_detector(saved, path)
        try:
            return cls(
                detector=detector,
                recipe=recipe.from_saved(checkpoint.tuples(saved.metadata["recipe"])),
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
    if "size" not in _names(config):
        raise UsageError(f"size: {network} has one size only")
    if any(side % STRIDE or not SMALLEST <= side <= LARGEST for side in size):
        raise UsageError(
            f"size: the sides of {size[0]}x{size[1]} must be multiples of {STRIDE} from {SMALLEST} to {LARGEST}"
        )
    return replace(config, size=size)


def _reshaped(config: Any, kind: str, init: str) -> Any:
    try:
        return replace(config, **shape_of(init, kind))
    except (TypeError, ValueError) as error:
        raise ModelError(f"{init}: does not fit the network: {error}") from error


def _names(config: Config) -> set[str]:
    return {field.name for field in fields(config)}  # type: ignore[arg-type]
