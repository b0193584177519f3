"""Deep Compression of the networks of the papers: float32, pruned, shared, coded.

Nothing is retrained, so the sizes are what the method gives at the densities named, not what an
accuracy allows; what that costs is said where images are given. Real weights where a folder of
published ones is given, random ones otherwise (those of a fire module are pruned at the same
densities; only their histogram differs)::

    python benchmarks/compression_table.py [--weights FOLDER] [--bits 6 8] [--json FILE]
        [--samples FOLDER] [--roads FOLDER]

Sizes are bytes of weights and biases without graph and card: 4 bytes a number; kept weights as
float32 with gaps of four bits; codes with such gaps and codebooks; and what our coder makes of it.
"Decode s" are the seconds of processor time in which all coded kernels become numbers again.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from squeezedet.coding.tensor import decode_tensor, encode_tensor
from squeezedet.compression.pipeline import open_source
from squeezedet.compression.prune import kernel_values, prune, put, uniform
from squeezedet.compression.prune import measure as measure_layer
from squeezedet.compression.share import cluster
from squeezedet.data.dataset import class_map_for, read_dataset
from squeezedet.errors import SqueezeDetError
from squeezedet.files import write_atomic
from squeezedet.media.images import read_image
from squeezedet.models import registry
from squeezedet.models.network import DetectionNetwork
from squeezedet.models.squeezenet import SqueezeNet, classify
from squeezedet.text import align
from squeezedet.training.checkpoint import initialize
from squeezedet.training.validate import validate

MIB = 2**20
HEAD = (
    "network",
    "weights",
    "bits",
    "density",
    "float32",
    "pruned",
    "shared",
    "coded",
    "ratio",
    "paper's MB",
    "against it",
    "decode s",
    "float32 is right",
    "coded is right",
)
UNIFORM = 0.33
REPEATS = 5
"""Of decoding; the least time counts."""


def paper_densities() -> dict[str, float]:
    """SqueezeNet v1.0 in table 2 of its paper: what is kept of each layer; the rest is whole."""
    found = {f"fire{i}.expand3x3": 0.33 for i in range(2, 10)}
    found |= {"fire8.expand3x3": 0.3, "fire9.expand3x3": 0.3}
    halves = ("fire6.expand1x1", "fire7.squeeze1x1", "fire8.expand1x1", "fire9.squeeze1x1")
    return found | dict.fromkeys(halves, 0.5) | {"conv10": 0.2}


OURS = Path(__file__).parents[1] / "parents" / "squeezedet-full.bundle"
"""SqueezeDet with the paper's widths; what is shipped is narrower."""


@dataclass(frozen=True, slots=True)
class Quoted:
    """A network of the table.

    Attributes:
        name: in the zoo.
        file: of its published weights, or our own.
        mb: size that its paper quotes, in the paper's MB: of float32 in MiB but for Tiny SSD
            (float16, 10**6).
        of: what is quoted.
    """

    name: str
    file: str | None
    mb: float
    of: str


NETWORKS = (
    Quoted("squeezenet-1.0", "compressed_SqueezeNet.net", 4.8, "SqueezeNet, float32"),
    Quoted("squeezenet-1.1", "squeezenet_v1_1_fp16.onnx", 4.72, "SqueezeDet's backbone"),
    Quoted("squeezedet", OURS.name, 7.9, "SqueezeDet, float32"),
    Quoted("squeezedet-plus", None, 26.8, "SqueezeDet+, float32"),
    Quoted("tiny-ssd", "tinyssd_backbone_iter180000.caffemodel", 2.3, "Tiny SSD, float16"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Sizes of one network at one number of bits, in bytes, and how long decoding takes."""

    network: str
    weights: str
    bits: int
    density: float
    float32: int
    pruned: int
    shared: int
    coded: int
    decode_s: float
    quoted_mb: float
    quoted: str
    right_before: str
    right_after: str


Judge = Callable[[nn.Module], str]


def judge_with(samples: Path | None, roads: Path | None) -> Judge:
    """How good a network is, in words; "" where there are no images for it.

    Args:
        samples: a folder of images of ImageNet with ``labels.tsv`` (columns file and name).
        roads: a labelled data set with the split ``val``.
    """

    def judge(network: nn.Module) -> str:
        if isinstance(network, SqueezeNet) and samples:
            return top_1_and_5(network, samples)
        if isinstance(network, DetectionNetwork) and roads:
            data = read_dataset(roads)
            found = validate(network.eval(), data.split("val"), class_map_for(data), "kitti").ap
            return "AP " + ", ".join(f"{name} {100 * ap:.1f}" for name, ap in found.items() if ap)
        return ""

    return judge


def top_1_and_5(network: SqueezeNet, folder: Path) -> str:
    """Share of the images whose class comes first, and among the first five."""
    with (folder / "labels.tsv").open(encoding="utf-8") as file:
        labels = list(csv.DictReader(file, delimiter="\t"))
    first = five = 0
    for label in labels:
        names = [n for n, _ in classify(network, read_image(folder / label["file"]).pixels)]
        wanted = label["name"].replace("_", " ")
        first, five = first + (wanted == names[0]), five + (wanted in names)
    return f"{100 * first / len(labels):.1f} / {100 * five / len(labels):.1f} %"


def build(quoted: Quoted, folder: Path | None) -> tuple[nn.Module, str]:
    """The network, and whose weights it has."""
    if quoted.file == OURS.name:
        return open_source(str(OURS)).network, "real, our own"
    path = folder / quoted.file if folder and quoted.file else None
    if path is None or not path.is_file():
        torch.manual_seed(0)
        return registry.build(quoted.name), "random"
    if registry.find(quoted.name).task == "classify":
        published = ", pruned and shared by its authors" if path.suffix == ".net" else ""
        return open_source(str(path)).network, f"real{published}"
    config = registry.config_of(quoted.name, squeeze_relu=False)  # as these were trained
    start = initialize(registry.find(quoted.name).kind, config, str(path))
    total = sum(p.numel() for p in start.detector.parameters())
    names = dict(start.detector.named_parameters())
    left = sum(names[name].numel() for name in start.random)
    return start.detector, f"real, {100 * left / total:.0f} % random"


def measure(quoted: Quoted, folder: Path | None, bits: Sequence[int], judge: Judge) -> list[Row]:
    """All sizes of one network; detectors without their batch normalisation, as it is stored."""
    network, weights = build(quoted, folder)
    judged = not weights.endswith("random")
    float32 = 4 * sum(p.numel() for p in network.parameters())
    before = judge(network) if judged else ""
    pruned = network.folded() if isinstance(network, DetectionNetwork) else copy.deepcopy(network)
    in_kernels = sum(value.size for value in kernel_values(pruned).values())
    rest = 4 * (sum(p.numel() for p in pruned.parameters()) - in_kernels)
    is_paper = quoted.name == "squeezenet-1.0"
    prune(pruned, paper_densities() if is_paper else uniform(pruned, UNIFORM))
    kernels = kernel_values(pruned)
    sizes = [measure_layer(name, kernel) for name, kernel in kernels.items()]
    rows = []
    for n in bits:
        shared = {name: cluster(kernel, n).weight() for name, kernel in kernels.items()}
        halves = {name: _half(value) for name, value in shared.items()}
        put(pruned, halves)
        coded = [encode_tensor(value) for value in halves.values()]
        rows.append(
            Row(
                quoted.name,
                weights,
                n,
                sum(s.kept for s in sizes) / sum(s.weights for s in sizes),
                float32,
                rest + sum(s.stored_bytes(shared=False) for s in sizes),
                rest + sum(s.stored_bytes(shared=True) for s in (measure_layer(name, k) for name, k in shared.items())),
                rest + sum(len(content) for content in coded),
                decode_s(coded, [value.size for value in halves.values()]),
                quoted.mb,
                quoted.of,
                before,
                judge(pruned) if judged else "",
            )
        )
    return rows


def decode_s(coded: Sequence[bytes], sizes: Sequence[int]) -> float:
    """Seconds of processor time, so that what else the machine does matters little."""
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        for content, size in zip(coded, sizes, strict=True):
            decode_tensor(content, (size,), np.float16)
        taken.append(time.process_time() - start)
    return min(taken)


def _half(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values that float16 can hold, as a detector's graph stores them."""
    return values.astype(np.float16).astype(np.float32) + np.float32(0)


def table(rows: Sequence[Row]) -> list[list[str]]:
    """The rows for print."""
    lines = [list(HEAD)]
    for row in rows:
        unit = 1e6 if row.network == "tiny-ssd" else MIB
        lines.append(
            [row.network, row.weights, str(row.bits), f"{100 * row.density:.1f} %"]
            + [f"{size:,}" for size in (row.float32, row.pruned, row.shared, row.coded)]
            + [f"{row.float32 / row.coded:.1f}x", f"{row.quoted_mb:g}"]
            + [f"{row.quoted_mb * unit / row.coded:.1f}x", f"{row.decode_s:.3f}"]
            + [row.right_before, row.right_after]
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--weights", type=Path, help="folder of published weight files")
    parser.add_argument("--bits", type=int, nargs="+", default=[6, 8])
    parser.add_argument("--samples", type=Path, help="folder of ImageNet's images with labels.tsv")
    parser.add_argument("--roads", type=Path, help="labelled images with a split val")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    judge = judge_with(options.samples, options.roads)
    try:
        rows = [row for quoted in NETWORKS for row in measure(quoted, options.weights, options.bits, judge)]
    except SqueezeDetError as error:
        raise SystemExit(f"compression_table: {error}") from error
    print(align(table(rows), left=(0, 1)))
    if options.json:
        records: list[Mapping[str, object]] = [asdict(row) for row in rows]
        write_atomic(options.json, json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
