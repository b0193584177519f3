"""Is a mined frame worth more than a random one? Trainings with as many of either, on the same val.

For each seed a first model learns from `--base` random frames of the train split. It labels the others, and `mine`
chooses `--count` of them; as many are drawn at random. From the same start, in as many steps, one model learns from the
base and the mined frames and one from the base and the random ones. A set of KITTI's layout with the splits train and
val is wanted, such as `streets`::

    python benchmarks/mining.py --data FOLDER --out FOLDER [--base 100] [--count 100] [--steps 2000] [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from squeezedet.data.dataset import read_dataset
from squeezedet.data.sample import Sample
from squeezedet.errors import ModelError
from squeezedet.evaluation.evaluate import evaluate
from squeezedet.fleet.label import label
from squeezedet.fleet.mine import mine
from squeezedet.text import parse_size
from squeezedet.training.train import train

SCORE = 0.05


def subset(folder: Path, source: Path, learned: Sequence[Sample], val: Sequence[Sample]) -> Path:
    """A KITTI folder that learns from these images of a set, and is judged on those."""
    (folder / "ImageSets").mkdir(parents=True)
    for name in ("image_2", "label_2"):
        (folder / name).symlink_to((source / name).resolve())
    for split, samples in (("train", learned), ("val", val)):
        (folder / "ImageSets" / f"{split}.txt").write_text("".join(f"{sample.id}\n" for sample in samples))
    return folder


def learn(folder: Path, data: Path, seed: int, options: argparse.Namespace) -> tuple[Path, dict[str, float | None]]:
    """A model of the split train of these data, and its AP on val."""
    result = train(
        data,
        out=folder,
        network=options.network,
        init=options.init,
        size=parse_size(options.size) if options.size else None,
        val_split="none",
        steps=options.steps,
        seed=seed,
        quiet=True,
        threads=options.threads,
        **({"batch": options.batch} if options.batch else {}),
    )
    if result.bundle is None:
        raise ModelError(f"{folder}: no bundle was made")
    report = evaluate(result.bundle, data, split="val", threads=options.threads)
    return result.bundle, {"mean": report.mean_ap, **report.ap}


def one_seed(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """AP of the base, and with mined and with random frames."""
    dataset = read_dataset(options.data)
    val, pool = dataset.split("val"), dataset.split("train")
    order = np.random.default_rng(seed).permutation(len(pool)).tolist()
    base, rest = [pool[k] for k in order[: options.base]], [pool[k] for k in order[options.base :]]
    place = options.out / f"seed-{seed}"
    first, ap = learn(place / "base", subset(place / "data-base", options.data, base, val), seed, options)
    links = place / "rest"
    links.mkdir()
    by_name = {f"{k:06d}{sample.image.suffix}": sample for k, sample in enumerate(rest)}
    for name, sample in by_name.items():
        (links / name).symlink_to(sample.image.resolve())
    label([str(links)], str(place / "labels"), model=first, score=SCORE)
    chosen = mine(str(place / "labels"), options.count, place / "mined")
    mined = [by_name[Path(one.path).name] for one in chosen]
    found: dict[str, Any] = {"seed": seed, "base": ap}
    for name, more in (("mined", mined), ("random", rest[: len(mined)])):
        data = subset(place / f"data-{name}", options.data, [*base, *more], val)
        boxes = sum(len(sample.objects) for sample in more)
        found[name] = {"frames": len(more), "labels": boxes, **learn(place / name, data, seed, options)[1]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", type=int, default=100)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--network")
    parser.add_argument("--init")
    parser.add_argument("--size")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        rows.append(one_seed(seed, options))
        print(json.dumps(rows[-1]), flush=True)
    gains = [(row["mined"]["mean"] or 0) - (row["random"]["mean"] or 0) for row in rows]
    each = ", ".join(f"{gain:+.3f}" for gain in gains)
    print(f"mean AP, mined less random: {statistics.mean(gains):+.3f} ({each})")


if __name__ == "__main__":
    main()
