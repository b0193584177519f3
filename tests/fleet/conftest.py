"""What the tests of fleets share: a model of small pictures, and pictures for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from squeezedet.runtime.bundle import find, read, write


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.bundle"
    shipped = read(find("street"))
    write(path, replace(shipped, card=replace(shipped.card, input=replace(shipped.card.input, width=64, height=48))))
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Seven pictures in folders, one of them broken, and what is none."""
    folder = tmp_path / "pictures"
    generator = np.random.default_rng(3)
    for number in range(7):
        path = folder / f"day{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)
    (folder / "day0" / "4.png").write_bytes(b"broken")
    (folder / "day0" / "notes.txt").write_text("no picture")
    return folder
