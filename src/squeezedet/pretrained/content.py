"""A weight file as bytes, if it is a file and not too large."""

from __future__ import annotations

from pathlib import Path

from squeezedet.errors import ModelError


def read_content(path: Path, max_bytes: int) -> bytes:
    """All bytes of a file.

    Args:
        path: of a regular file: a pipe or a device might never end.
        max_bytes: what a file of this kind may hold; a larger one is not opened.

    Raises:
        ModelError: it is missing, no file, too large, empty or not readable.
    """
    try:
        if not path.exists():
            raise ModelError(f"{path}: no such file")
        if not path.is_file():
            raise ModelError(f"{path}: is a folder or a device, not a weight file")
        size = path.stat().st_size
        if size > max_bytes:
            raise ModelError(f"{path}: {size} bytes are more than the limit of {max_bytes}")
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path}: cannot be read ({reason})") from error
    if not content:
        raise ModelError(f"{path}: the file is empty")
    return content
