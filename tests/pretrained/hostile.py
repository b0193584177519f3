"""What every reader must bear: any bytes, for one sentence and little memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from squeezedet.errors import ModelError

PATCHES = st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=12))
"""Where bytes are changed, and to what."""


def patched(content: bytes, patch: tuple[int, bytes]) -> bytes:
    """The file with some bytes of it changed; its length stays."""
    at = patch[0] % len(content)
    return (content[:at] + patch[1] + content[at + len(patch[1]) :])[: len(content)]


def survives(read: Callable[[Path], Any], path: Path, content: bytes, limit: int = 1_000_000) -> bool:
    """Read a file of these bytes: True if it is taken; any error but one sentence is a bug."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        read(path)
    except ModelError as error:
        assert str(error).startswith(str(path))
        assert "\n" not in str(error)
        return False
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit, f"{peak} bytes for a file of {len(content)}"
    return True
