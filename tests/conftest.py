"""What every test may ask for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("squeezedet", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("squeezedet")


# Started in the background by a shell, a process ignores Ctrl-C, and so do its children; the
# tests of interrupts need children that do not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data: images, labels and weights that never enter the repository."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("SQUEEZEDET_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"no development data at {folder}; set SQUEEZEDET_SHARED")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded models are cached in a folder of the tests, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
