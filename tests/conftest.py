"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("squeezedet", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("squeezedet")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data: images, labels and weights that never enter the repository."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("SQUEEZEDET_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"no development data at {folder}; set SQUEEZEDET_SHARED")
    return folder
