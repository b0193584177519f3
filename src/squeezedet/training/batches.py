"""From samples to batches: what step s sees depends on the seed and on s, on nothing else.

So a run that resumes continues with exactly the batches it would have seen, whatever the number of worker processes.
Processes that train together take their slots of one large batch.
"""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from squeezedet.data.sample import ClassMap, Sample
from squeezedet.errors import DataError, SqueezeDetError
from squeezedet.files import ignore_signals
from squeezedet.media.images import read_image
from squeezedet.models.network import DetectionNetwork, Labels, TensorTargets
from squeezedet.preprocess import InputRule
from squeezedet.training.augment import Donor, Example, augment, donors, paste, paste_decoy
from squeezedet.training.distributed import SINGLE_PROCESS, Processes
from squeezedet.training.recipe import Recipe

# ------------------------------------------------------------ the images

CACHE_BYTES = 6_000_000_000


class Examples:
    """The training images with their boxes; decoded images are kept while they fit in memory."""

    def __init__(self, samples: Sequence[Sample], class_map: ClassMap) -> None:
        if not samples:
            raise DataError("the training split has no images")
        self.samples = samples
        self.class_map = class_map
        self._cache: dict[Path, NDArray[np.uint8]] = {}

    def preload(self) -> None:
        """Decode images until the cache is full, before worker processes share it."""
        held = 0
        for image in dict.fromkeys(
            sample.image for sample in self.samples
        ):  # one of more weight is there several times
            pixels = read_image(image).pixels
            held += pixels.nbytes
            if held > CACHE_BYTES:
                break
            self._cache[image] = pixels

    def __getitem__(self, index: int) -> Example:
        sample = self.samples[index]
        objects = sample.objects
        class_id, region = self.class_map.targets(objects)
        learn = class_id >= 0
        pixels = self._cache.get(sample.image)
        if pixels is None:
            pixels = read_image(sample.image).pixels
        return Example(pixels, objects.xyxy[learn], class_id[learn], objects.xyxy[region])

    def weights(self, balance: float) -> NDArray[np.float64]:
        """(N,) how often each image is drawn: 1, more where it shows a rare class.

        A class in a share f of the images has the factor max(1, sqrt(balance / f)); an image takes the largest factor
        of its classes (LVIS, arXiv 1908.03195, appendix B).
        """
        shows = self._shows()
        share = np.maximum(shows.mean(axis=0), 1e-9)
        factor = np.maximum(1, np.sqrt(balance / share))
        weights: NDArray[np.float64] = np.maximum(1, (shows * factor).max(axis=1))
        return weights

    def donors(self, balance: float) -> tuple[Donor, ...]:
        """The objects to paste: those of classes that fewer than ``balance`` of the images show."""
        rare = np.flatnonzero(self._shows().mean(axis=0) < balance).tolist()
        found: list[Donor] = []
        for index, sample in enumerate(self.samples):
            objects = sample.objects
            class_id, _ = self.class_map.targets(objects)
            learn = class_id >= 0
            if np.isin(class_id, rare).any():
                whole = (objects.occluded == 0) & (objects.truncated < 0.05)
                found += donors(index, objects.xyxy[learn], class_id[learn], whole[learn], rare)
        return tuple(found)

    def _shows(self) -> NDArray[np.bool_]:
        """(N, classes) which classes each image shows."""
        shows = np.zeros((len(self.samples), len(self.class_map.names)), dtype=bool)
        for row, sample in zip(shows, self.samples, strict=True):
            ids, _ = self.class_map.targets(sample.objects)
            row[ids[ids >= 0]] = True
        return shows


# ------------------------------------------------------------ batches

Key = tuple[int, int, int, tuple[int, int]]
"""Image index, step, slot in the batch, (width, height) of the window."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's worth: (N, 3, H, W) uint8 images, their targets, and the images' names."""

    images: Tensor
    targets: TensorTargets
    ids: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        images = self.images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        return Batch(images, self.targets.to(device), self.ids)

    def pin_memory(self) -> Batch:
        return Batch(self.images.pin_memory(), self.targets.pin_memory(), self.ids)


def epoch_order(weights: NDArray[np.float64], seed: int, epoch: int) -> NDArray[np.intp]:
    """(N,) image indices of one epoch: drawn evenly by weight, then shuffled."""
    rng = np.random.default_rng((seed, 1, epoch))
    n = len(weights)
    shuffled = rng.permutation(n)
    edges = np.cumsum(weights[shuffled]) / weights.sum()
    drawn = np.searchsorted(edges, (np.arange(n) + rng.random()) / n)
    return rng.permutation(shuffled[np.minimum(drawn, n - 1)])


class _Windows(Dataset[tuple[Example, str] | SqueezeDetError]):
    """A key to an augmented example, or to the reason why there is none.

    An error is handed over as it is: DataLoader would wrap it in the traceback of its process.
    """

    def __init__(self, examples: Examples, recipe: Recipe, rule: InputRule) -> None:
        self.examples, self.recipe, self.rule = examples, recipe, rule
        self.donors = examples.donors(recipe.balance) if recipe.paste else ()

    def __getitem__(self, key: Key) -> tuple[Example, str] | SqueezeDetError:
        try:
            return self.example(key)
        except SqueezeDetError as error:
            return error

    def example(self, key: Key) -> tuple[Example, str]:
        index, step, slot, size = key
        rng = np.random.default_rng((self.recipe.seed, 2, step, slot))
        example = self.examples[index]
        if self.donors:
            example = self._pasted(example, rng)
        others: list[Example] = []
        if self.recipe.mosaic and rng.random() < self.recipe.mosaic:
            others = [self.examples[int(i)] for i in rng.integers(len(self.examples.samples), size=3)]
        example = augment(example, self.recipe, size, rng, self.rule, others)
        return example, self.examples.samples[index].id

    def _pasted(self, example: Example, rng: np.random.Generator) -> Example:
        # Classes by turns: the rarest is pasted as often as the others.
        classes = sorted({donor.class_id for donor in self.donors})
        for _ in range(rng.poisson(self.recipe.paste)):
            class_id = classes[rng.integers(len(classes))]
            pool = [donor for donor in self.donors if donor.class_id == class_id]
            donor = pool[rng.integers(len(pool))]
            example = paste(example, donor, self.examples[donor.index].pixels, rng)
            other = self.examples[int(rng.integers(len(self.examples.samples)))]
            example = paste_decoy(example, donor, other, rng)
        return example


def _schedule(
    weights: NDArray[np.float64], recipe: Recipe, first_step: int, processes: Processes = SINGLE_PROCESS
) -> Iterator[list[Key]]:
    """Which images this process sees, step by step."""
    n = len(weights)
    first_slot, together = (recipe.batch * k for k in (processes.rank, processes.count))
    epoch, order = -1, np.empty(0, np.intp)
    for step in range(first_step, recipe.steps):
        rng = np.random.default_rng((recipe.seed, 3, step))
        size = recipe.shapes[rng.integers(len(recipe.shapes))]
        keys = []
        for slot in range(first_slot, first_slot + recipe.batch):
            position = step * together + slot
            if position // n != epoch:
                epoch = position // n
                order = epoch_order(weights, recipe.seed, epoch)
            keys.append((int(order[position % n]), step, slot, size))
        yield keys


def _collate(detector: DetectionNetwork, pairs: list[tuple[Example, str] | SqueezeDetError]) -> Batch | SqueezeDetError:
    """Examples to a batch; assigns anchors in the worker process."""
    good: list[tuple[Example, str]] = []
    for pair in pairs:
        if isinstance(pair, SqueezeDetError):
            return pair
        good.append(pair)
    examples = [example for example, _ in good]
    images = torch.from_numpy(np.stack([e.pixels for e in examples])).permute(0, 3, 1, 2)
    height, width = images.shape[-2:]
    labels = Labels(
        [torch.from_numpy(e.xyxy) for e in examples],
        [torch.from_numpy(e.class_id) for e in examples],
        [torch.from_numpy(e.regions) for e in examples],
        (width, height),
    )
    return Batch(images, detector.targets(labels), tuple(name for _, name in good))


def batches(
    examples: Examples,
    detector: DetectionNetwork,
    recipe: Recipe,
    first_step: int = 0,
    processes: Processes = SINGLE_PROCESS,
) -> Generator[Batch, None, None]:
    """The batches of steps ``first_step`` to ``recipe.steps``, in order; close it when done.

    The detector makes the targets, and windows are scaled around the size that it detects at. Each of several processes
    takes its slots of the batch of all.

    Raises:
        DataError: an image cannot be decoded.
        SqueezeDetError: a process that prepares images was killed.
    """
    device = next(detector.parameters()).device.type
    # Another process could not touch tensors of a GPU.
    on_cpu = detector if device == "cpu" else copy.deepcopy(detector).cpu()
    fork = "fork" in multiprocessing.get_all_start_methods()  # forked workers share the decoded images
    loader: DataLoader[Any] = DataLoader(
        _Windows(examples, recipe, detector.input_rule),
        batch_sampler=_schedule(examples.weights(recipe.balance), recipe, first_step, processes),
        collate_fn=partial(_collate, on_cpu),
        pin_memory=device == "cuda",
        num_workers=recipe.workers,
        prefetch_factor=4 if recipe.workers else None,
        multiprocessing_context="fork" if recipe.workers and fork else None,
        worker_init_fn=ignore_signals,
    )
    prepared = iter(loader)
    try:
        for batch in prepared:
            if isinstance(batch, SqueezeDetError):
                raise batch
            yield batch
    except RuntimeError as error:  # what DataLoader says of a process that is gone
        raise SqueezeDetError(
            f"a process that prepares images has died ({str(error).splitlines()[0]}); if "
            "memory ran out, use fewer `workers`, then continue with `resume`"
        ) from error
    finally:
        # Its processes ignore signals and would outlive an error whose traceback holds them.
        stop = getattr(prepared, "_shutdown_workers", None)
        if stop:
            stop()


def examples_of_step(examples: Examples, detector: DetectionNetwork, recipe: Recipe, step: int) -> list[Example]:
    """The augmented images of one step with their boxes, as ``batches`` has them."""
    windows = _Windows(examples, recipe, detector.input_rule)
    keys = next(_schedule(examples.weights(recipe.balance), recipe, step))
    return [windows.example(key)[0] for key in keys]
