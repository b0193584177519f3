"""Several processes that train one network together, on one machine or on many.

``torchrun`` starts them and tells each its number. Every process computes its share of each batch; the shares of a loss
term add up to the term of the whole batch (see ``DetectionNetwork.loss``), so the gradients are added up, too, and
every process takes the same step.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from squeezedet.errors import SqueezeDetError, UsageError
from squeezedet.models.network import DetectionNetwork
from squeezedet.runtime.engines import first_line

TIMEOUT_S = 600.0
SETTLE_S = 0.2
"""DistributedDataParallel keeps gloo's threads alive. They let go of the last tensors a moment after they are done,
need Python for that, and end a process that is shutting down by SIGABRT."""
T = TypeVar("T")


class LostProcessError(SqueezeDetError):
    """Another process of the run ended, or does not answer."""


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Every method but ``share`` is a meeting: all processes must call it in the same order, and none goes on before the
    last has come. With one process all return at once what they got.

    Attributes:
        rank: number of this process; 0 is the one that writes files and speaks.
        count: of all processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, n: int) -> range:
        """Which of n things this process takes; each is taken once, by one process."""
        return range(self.rank, n, self.count)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, without a gradient."""
        if self.count == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Whether each flag is set in one process at least."""
        if self.count == 1:
            return flags
        return tuple(bool(n) for n in self.sum(torch.tensor(flags, dtype=torch.int64)))

    def gather(self, value: T) -> list[T]:
        """The value of every process, by rank; it must be picklable."""
        values: list[T] = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    def gather_shares(self, mine: Sequence[T]) -> list[T]:
        """One list of what each process made of its ``share``, in the order of the whole."""
        parts = self.gather(list(mine))
        total = sum(map(len, parts))
        return [parts[i % self.count][i // self.count] for i in range(total)]

    def zip_ranks(self, items: Iterator[T]) -> Iterator[T]:
        """The items of an iterator, until one process fails: then all do, with its error.

        All iterators must have the same number of items, none of them None.
        """
        if self.count == 1:
            yield from items
            return
        while True:
            item, failure = None, None
            try:
                item = next(items, None)
            except SqueezeDetError as error:
                failure = error
            if any(self.any(failure is not None)):
                raise next(e for e in self.gather(failure) if e is not None)
            if item is None:
                return
            yield item

    def check_same(self, values: Mapping[str, object]) -> None:
        """A UsageError in every process, before the first step, with the name of what differs between them."""
        all_values = self.gather(dict(values))
        for rank, others in enumerate(all_values):
            for name, value in all_values[0].items():
                if others[name] != value:
                    raise UsageError(
                        f"process {rank} has another {name} than process 0; all processes need "
                        "the same command, data and, to resume, the same last.safetensors"
                    )

    # -------------------------------------------------------------- training

    def broadcast(self, detector: DetectionNetwork) -> None:
        """Give a detector the weights of the first process, and let it count over all of them."""
        if self.count == 1:
            return
        for tensor in detector.state_dict().values():
            dist.broadcast(tensor, 0)
        detector.sum_over_processes = self.sum

    def network(self, detector: DetectionNetwork) -> nn.Module:
        """What to call in place of such a detector, so that backward shares gradients.

        Backward gives the mean of the processes' gradients: to have their sum, the loss of each must be multiplied by
        ``count``. Layers that shall not learn are frozen already.
        """
        if self.count == 1:
            return detector
        # The weights are equal already; batch norm's statistics see average_statistics.
        with warnings.catch_warnings():  # the new name of broadcast_buffers is torch 2.13's
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(detector, broadcast_buffers=False, init_sync=False)

    @torch.no_grad()
    def average_statistics(self, detector: nn.Module) -> None:
        """Give all processes the mean of what batch norm saw in each, if there is batch norm."""
        if self.count == 1:
            return
        layers = [m for m in detector.modules() if isinstance(m, _BatchNorm) and m.training]
        seen = [s for m in layers for s in (m.running_mean, m.running_var) if s is not None]
        if seen:
            mean = self.sum(torch.cat(seen)) / self.count
            parts = torch.split(mean, [len(s) for s in seen])
            for statistic, value in zip(seen, parts, strict=True):
                statistic.copy_(value)


SINGLE_PROCESS = Processes()


def processes_started() -> int:
    """How many processes torchrun has started, this one among them; 1 without torchrun."""
    count = os.environ.get("WORLD_SIZE", "1")
    if not count.isdecimal() or count == "0":
        raise UsageError(f"WORLD_SIZE is {count!r}, not a number of processes")
    return int(count)


def job() -> str:
    """What torchrun calls this job: its ``--rdzv-id``, or one of its own with ``--standalone``; else ""."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return "" if name == "none" else name


@contextmanager
def join(timeout_s: float = TIMEOUT_S) -> Iterator[Processes]:
    """Meet the other processes that torchrun started; alone if it did not.

    CPU tensors travel by gloo; where there is CUDA, its tensors by NCCL. A process gives up when another one lets it
    wait for longer than ``timeout_s``, also while the first writes and validates.

    Raises:
        UsageError: the environment is not torchrun's, or the others cannot be reached.
        LostProcessError: inside, another process ended or did not answer in time.
    """
    count = processes_started()
    if count == 1:
        yield SINGLE_PROCESS
        return
    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if nccl and local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
    where = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=timedelta(seconds=timeout_s))
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"WORLD_SIZE is {count}, but the other processes were not met at {where}; start "
            f"all with torchrun, see docs/distributed.md ({first_line(error)})"
        ) from error
    processes = Processes(dist.get_rank(), dist.get_world_size())
    try:
        yield processes
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise LostProcessError(
            f"process {processes.rank} of {processes.count} stops: another one ended, or did not "
            f"answer for {timeout_s:g} s; see what that one says, then continue with `resume`"
        ) from error
    finally:
        dist.destroy_process_group()
        time.sleep(SETTLE_S)
