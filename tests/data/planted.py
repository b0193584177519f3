"""A data set without fault, in which tests plant faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (300, 200)
TRAIN, VAL = tuple("abcdef"), tuple("xyz")
TYPES = ("Car", "Pedestrian", "Cyclist")


def label(name: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f"{name} 0.00 0 -10 {x1} {y1} {x2} {y2} -1 -1 -1 -1000 -1000 -1000 -10\n"


class Folder:
    """A KITTI folder whose splits are lists; every image has its own pattern."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for i in (*TRAIN, *VAL):
            self.add(i)
        (root / "ImageSets").mkdir()
        self.list("train", TRAIN)
        self.list("val", VAL)

    def image(self, i: str) -> Path:
        return self.root / "image_2" / f"{i}.jpg"

    def label(self, i: str) -> Path:
        return self.root / "label_2" / f"{i}.txt"

    def list(self, split: str, ids: tuple[str, ...]) -> None:
        (self.root / "ImageSets" / f"{split}.txt").write_text("\n".join(ids))

    def add(self, i: str, size: tuple[int, int] = SIZE) -> None:
        """An image with twelve objects, four of each class."""
        for path in (self.image(i), self.label(i)):
            path.parent.mkdir(exist_ok=True, parents=True)
        pattern = np.random.default_rng(ord(i)).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pattern).resize(size).save(self.image(i), quality=90)
        self.write(
            i,
            [
                label(TYPES[k % 3], 10 + 70 * (k % 4), 10 + 60 * (k // 4), 60 + 70 * (k % 4), y2)
                for k in range(12)
                for y2 in [50 + 60 * (k // 4)]
            ],
        )

    def write(self, i: str, lines: list[str]) -> None:
        self.label(i).write_text("".join(lines))

    def lines(self, i: str) -> list[str]:
        return self.label(i).read_text().splitlines(keepends=True)

    def append(self, i: str, *line: str) -> None:
        self.write(i, [*self.lines(i), *line])
