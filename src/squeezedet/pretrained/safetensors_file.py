"""``.safetensors``: a JSON header with the place of each tensor, then the tensors."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError
from squeezedet.pretrained.content import read_content

MAX_BYTES = 64_000_000
MAX_HEADER_BYTES = 1_000_000
LENGTH = struct.Struct("<Q")


def read_safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """The tensors of a file, as float32.

    Args:
        path: of the file; its tensors are float16, float32 or float64.

    Raises:
        ModelError: it is missing, too large, damaged, or holds other things than floats.
    """
    from safetensors.numpy import load

    content = read_content(path, MAX_BYTES)
    if len(content) < LENGTH.size or LENGTH.unpack_from(content)[0] > MAX_HEADER_BYTES:
        raise ModelError(f"{path}: not a safetensors file, or its header is too large")
    try:
        tensors = load(content)
    except Exception as error:  # SafetensorError; what NumPy lacks (bfloat16) has others
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"{path}: not a safetensors file that can be read: {reason}") from error
    for name, tensor in tensors.items():
        if tensor.dtype.kind != "f":
            raise ModelError(f"{path}: {name[:80]!r} holds {tensor.dtype}, not floats")
    with np.errstate(all="ignore"):  # a double too large for float32 becomes infinite
        return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
