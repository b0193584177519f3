"""The three data sets that `street` learns from and is judged by: one split of labelled sets, by source.

    python recipes/street_data.py roads streets --out sets
    python recipes/street_data.py streets --split val --out val

writes `sets/kitti`, `sets/fog` and `sets/rest` in KITTI layout (images are linked where the file system can), for
`squeezedet train --data sets/kitti --data sets/fog --data sets/rest`. Each given folder holds `image_2`, `label_2` and
`manifest.tsv` with the columns id, split and source. In `rest` a pedestrian who sits on a vehicle without a class of
its own (a motorcycle, labelled Misc) becomes DontCare in training images: neither a pedestrian nor background
(docs/notebook.md, 32).
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
from collections import Counter
from pathlib import Path

FOG = "dawn"
RIDDEN_AREA = (0.2, 3.0)  # of the vehicle against the person
"""A bag is smaller, a bus behind somebody larger."""


def set_of(source: str) -> str:
    return "kitti" if source.startswith("kitti") else "fog" if source == FOG else "rest"


def without_riders(text: str) -> tuple[str, int]:
    """A label file whose riders of Misc vehicles are DontCare, and how many they were."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    vehicles = [[float(x) for x in row[4:8]] for row in rows if row[0] == "Misc"]
    riders = 0
    for row in rows:
        if row[0] == "Pedestrian" and any(_sits_on([float(x) for x in row[4:8]], vehicle) for vehicle in vehicles):
            row[0] = "DontCare"
            riders += 1
    return "".join(" ".join(row) + "\n" for row in rows), riders


def _sits_on(person: list[float], vehicle: list[float]) -> bool:
    column, row = (vehicle[0] + vehicle[2]) / 2, (vehicle[1] + vehicle[3]) / 2
    area = (vehicle[2] - vehicle[0]) * (vehicle[3] - vehicle[1])
    share = area / ((person[2] - person[0]) * (person[3] - person[1]))
    below = (person[1] + person[3]) / 2 < row < person[3] + 0.5 * (person[3] - person[1])
    return person[0] < column < person[2] and below and RIDDEN_AREA[0] <= share <= RIDDEN_AREA[1]


def link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy(source, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    riders = 0
    for folder in arguments.folders:
        images = {path.stem: path for path in (folder / "image_2").iterdir()}
        with (folder / "manifest.tsv").open() as file:
            rows = [row for row in csv.DictReader(file, delimiter="\t") if row["split"] == arguments.split]
        for row in rows:
            name = set_of(row["source"])
            target = arguments.out / name
            for part in ("image_2", "label_2"):
                (target / part).mkdir(parents=True, exist_ok=True)
            image = images[row["id"]]
            link(image, target / "image_2" / image.name)
            text = (folder / "label_2" / f"{row['id']}.txt").read_text()
            if name == "rest" and arguments.split == "train":
                text, found = without_riders(text)
                riders += found
            (target / "label_2" / f"{row['id']}.txt").write_text(text)
            counts[name] += 1
            (target / "ImageSets").mkdir(exist_ok=True)
            with (target / "ImageSets" / f"{arguments.split}.txt").open("a") as split:
                split.write(row["id"] + "\n")
    print(*(f"{name} {n}" for name, n in sorted(counts.items())), f"riders {riders}", sep=", ")


if __name__ == "__main__":
    main()
