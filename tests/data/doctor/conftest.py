"""What the doctor's tests may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from .planted import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A KITTI folder without fault."""
    return Folder(tmp_path / "data")
