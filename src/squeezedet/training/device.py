"""Where a network computes, and in which precision: the processor, a GPU of CUDA, Apple's."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager, nullcontext

import torch

from squeezedet.errors import UsageError

NAMES = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name, if it is there.

    Args:
        name: ``auto`` (CUDA where there is a GPU, else Apple's, else the processor), ``cpu``, ``cuda``, ``cuda:N`` or
            ``mps``. Under torchrun ``auto`` and ``cuda`` are the GPU of the process's own number on its machine.

    Raises:
        UsageError: the device is unknown or not there.
    """
    if not NAMES.fullmatch(name):
        raise UsageError(f"device: {name!r} is none of auto, cpu, cuda, cuda:N, mps")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if gpus else "mps" if apple else "cpu"
    if name.startswith("cuda"):
        rank = os.environ.get("LOCAL_RANK", "")
        own = int(rank) if rank.isdecimal() else 0
        number = int(name[5:]) if ":" in name else own
        if not gpus:
            raise UsageError(f"device: {name} is not there: torch finds no GPU of CUDA; use cpu")
        if number >= gpus:
            raise UsageError(
                f"device: cuda:{number} is not there: this machine has {gpus} of them, from 0; "
                "start at most as many processes"
            )
        return torch.device("cuda", number)
    if name == "mps" and not apple:
        raise UsageError("device: mps is not there: torch finds no GPU of Apple's; use cpu")
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 itself; where it does not, bfloat16 is slow."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    check = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cpu" and bool(check())


def half_precision(device: torch.device, wanted: bool = True) -> torch.dtype | None:
    """The type of convolutions in mixed precision; None for float32.

    bfloat16 where the device multiplies it, float16 on older GPUs of CUDA. Apple's GPUs compute in float32.
    """
    if not wanted:
        return None
    if has_bf16(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Run convolutions in a type of ``half_precision``."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def new_scaler(device: torch.device, dtype: torch.dtype | None) -> torch.amp.GradScaler:
    """What keeps gradients of float16 from vanishing; without float16 it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)


def tune(device: torch.device, shapes: int) -> None:
    """Let cuDNN time its algorithms for each input shape, if there are few of them."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = shapes <= 16
