"""NumPy's ``.npz``: a zip archive of arrays, read without pickle and without trust.

``numpy.load`` makes room for what an array's header declares before it looks for the numbers,
and a zip archive may declare any size; here both are compared first.
"""

from __future__ import annotations

import io
import zipfile
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from squeezedet.errors import ModelError
from squeezedet.pretrained.content import read_content

MAX_BYTES = 64_000_000
"""Packed and unpacked; SqueezeNets have 2.5 to 50 MB."""
MAX_ARRAYS = 10_000
DIRECTORY_ENTRY = b"PK\x01\x02"
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(path: Path) -> dict[str, NDArray[np.float32]]:
    """The arrays of an archive, as float32.

    Args:
        path: of the archive; compressed or not, of float16, float32 or float64.

    Raises:
        ModelError: it is missing, too large, also when unpacked, damaged, or holds other things
            than arrays of floats.
    """
    content = read_content(path, MAX_BYTES)
    if content.count(DIRECTORY_ENTRY) > MAX_ARRAYS:  # zipfile would list them all first
        raise ModelError(f"{path}: more than {MAX_ARRAYS} arrays")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise ModelError(f"{path}: unpacks to more than the limit of {MAX_BYTES} bytes")
            return {
                entry.filename.removesuffix(".npy"): _array(archive, entry, path)
                for entry in entries
            }
    except ModelError:
        raise
    except Exception as error:  # zipfile and zlib have half a dozen, and so has NumPy's header
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"{path}: not an npz file, or a damaged one: {reason}") from error


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> NDArray[np.float32]:
    """One member; its header must declare what follows, no more and no less."""
    with archive.open(entry) as file:
        shape, fortran, dtype = _header(file)
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise ModelError(f"{path}: {entry.filename!r} holds {dtype}, not floats")
        left = entry.file_size - file.tell()
        if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != left:
            raise ModelError(
                f"{path}: {entry.filename!r} declares {dtype} of {shape} and holds {left} bytes"
            )
        content = bytearray(file.read(left))
        if len(content) != left:
            raise ModelError(f"{path}: {entry.filename!r} is cut short")
    with np.errstate(all="ignore"):  # a double too large for float32 becomes infinite
        flat = np.frombuffer(content, dtype).astype(np.float32, copy=False)
    return flat.reshape(shape, order="F" if fortran else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.floating]]:
    """Shape, whether in Fortran's order, and type of a ``.npy``."""
    version = npy.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"version {version} of a .npy is unknown")
    shape, fortran, dtype = HEADERS[version](file)
    return shape, fortran, dtype
