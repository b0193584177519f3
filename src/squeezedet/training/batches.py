"""From samples to batches: what step s sees depends on the seed and on s, on nothing else.

So a run that resumes at step s continues with exactly the batches it would have
seen, whatever the number of worker processes. Processes that train together take their
slots of one large batch: two of batch B see what one of batch 2B sees.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from squeezedet.detectors.network import DetectionNetwork, Targets
from squeezedet.errors import SqueezeDetError
from squeezedet.interrupts import ignore_signals
from squeezedet.runtime.preprocess import InputRule
from squeezedet.training.augment import Example
from squeezedet.training.distributed import ALONE, Processes
from squeezedet.training.examples import Examples
from squeezedet.training.paste import paste, paste_decoy
from squeezedet.training.recipe import Recipe
from squeezedet.training.window import augment

Key = tuple[int, int, int, tuple[int, int]]
"""Image index, step, slot in the batch, (width, height) of the window."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's worth: (N, 3, H, W) uint8 images, their targets, and the images' names."""

    images: Tensor
    targets: Targets
    ids: tuple[str, ...]


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
        """The augmented example of a key, and its image's name."""
        index, step, slot, size = key
        rng = np.random.default_rng((self.recipe.seed, 2, step, slot))
        example = self.examples[index]
        if self.donors:
            example = self._pasted(example, rng)
        example = augment(example, self.recipe, size, rng, self.rule)
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


class _Schedule:
    """Which images this process sees, step by step: an iterable of lists of keys."""

    def __init__(
        self,
        weights: NDArray[np.float64],
        recipe: Recipe,
        first_step: int,
        processes: Processes = ALONE,
    ) -> None:
        self.weights, self.recipe, self.first_step = weights, recipe, first_step
        self.processes = processes

    def __len__(self) -> int:
        return self.recipe.steps - self.first_step

    def __iter__(self) -> Iterator[list[Key]]:
        recipe, n = self.recipe, len(self.weights)
        first_slot, together = (
            recipe.batch * k for k in (self.processes.rank, self.processes.count)
        )
        epoch, order = -1, np.empty(0, np.intp)
        for step in range(self.first_step, recipe.steps):
            rng = np.random.default_rng((recipe.seed, 3, step))
            size = recipe.shapes[rng.integers(len(recipe.shapes))]
            keys = []
            for slot in range(first_slot, first_slot + recipe.batch):
                position = step * together + slot
                if position // n != epoch:
                    epoch = position // n
                    order = epoch_order(self.weights, recipe.seed, epoch)
                keys.append((int(order[position % n]), step, slot, size))
            yield keys


class _Collate:
    """Examples to a Batch; assigns anchors in the worker process."""

    def __init__(self, detector: DetectionNetwork) -> None:
        self.detector = detector

    def __call__(
        self, pairs: list[tuple[Example, str] | SqueezeDetError]
    ) -> Batch | SqueezeDetError:
        good = [pair for pair in pairs if not isinstance(pair, SqueezeDetError)]
        bad = [pair for pair in pairs if isinstance(pair, SqueezeDetError)]
        return bad[0] if bad else self._batch(good)

    def _batch(self, pairs: list[tuple[Example, str]]) -> Batch:
        examples = [example for example, _ in pairs]
        images = torch.from_numpy(np.stack([e.pixels for e in examples])).permute(0, 3, 1, 2)
        height, width = images.shape[-2:]
        targets = self.detector.targets(
            [torch.from_numpy(e.xyxy) for e in examples],
            [torch.from_numpy(e.class_id) for e in examples],
            [torch.from_numpy(e.regions) for e in examples],
            (width, height),
        )
        return Batch(images, targets, tuple(name for _, name in pairs))


def batches(
    examples: Examples,
    detector: DetectionNetwork,
    recipe: Recipe,
    first_step: int = 0,
    processes: Processes = ALONE,
) -> Generator[Batch, None, None]:
    """The batches of steps ``first_step`` to ``recipe.steps``, in order; close it when done.

    Args:
        examples: images and boxes.
        detector: makes the targets; windows are scaled around the size that it detects at.
        recipe: batch size, windows, augmentation, seed, workers.
        first_step: where to begin.
        processes: this one takes its slots of the batch of all.

    Raises:
        DataError: an image cannot be decoded.
        SqueezeDetError: a process that prepares images was killed.
    """
    schedule = _Schedule(examples.weights(recipe.balance), recipe, first_step, processes)
    loader: DataLoader[Any] = DataLoader(
        _Windows(examples, recipe, detector.input_rule),
        batch_sampler=schedule,
        collate_fn=_Collate(detector),
        num_workers=recipe.workers,
        prefetch_factor=4 if recipe.workers else None,
        multiprocessing_context=_context() if recipe.workers else None,
        worker_init_fn=ignore_signals,
    )
    prepared = iter(loader)
    try:
        yield from _unpacked(prepared)
    finally:
        # Its processes ignore signals and would outlive an error whose traceback holds them.
        stop = getattr(prepared, "_shutdown_workers", None)
        if stop:
            stop()


def _unpacked(prepared: Iterator[Batch | SqueezeDetError]) -> Iterator[Batch]:
    while True:
        try:
            batch = next(prepared)
        except StopIteration:
            return
        except RuntimeError as error:  # what DataLoader says of a process that is gone
            raise SqueezeDetError(
                f"a process that prepares images has died ({str(error).splitlines()[0]}); if "
                "memory ran out, use fewer --workers, then continue with --resume"
            ) from error
        if isinstance(batch, SqueezeDetError):
            raise batch
        yield batch


def examples_of_step(
    examples: Examples, detector: DetectionNetwork, recipe: Recipe, step: int
) -> list[Example]:
    """The augmented images of one step with their boxes, as ``batches`` has them."""
    windows = _Windows(examples, recipe, detector.input_rule)
    keys = next(iter(_Schedule(examples.weights(recipe.balance), recipe, step)))
    return [windows.example(key)[0] for key in keys]


def _context() -> str | None:
    """Forked workers share the decoded images; where there is no fork, the platform's default."""
    return "fork" if "fork" in multiprocessing.get_all_start_methods() else None
