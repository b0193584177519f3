"""Deep Compression of the networks of the papers: float32, pruned, shared, coded.

Nothing is retrained, so the sizes are what the method gives at the densities named, not what an accuracy allows. Real
weights where a folder of published ones is given, random ones otherwise (those of a fire module are pruned at the same
densities; only their histogram differs)::

    python benchmarks/compression_table.py [--weights FOLDER] [--bits 6 8] [--samples FOLDER]

With ``--samples``, a folder of ImageNet's images with ``labels.tsv`` (columns file and name), the table says how many
of these the classifiers of published weights name right at first and among five, before and after.

Sizes are bytes of weights and biases without graph and card: 4 bytes a number; kept weights as
float32 with gaps of four bits; codes with such gaps and codebooks; and what our coder makes of it.
"Decode s" are the seconds of processor time in which all coded kernels become numbers again.
"""

from __future__ import annotations

import argparse
import copy
import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from squeezedet.coding.tensor import decode_tensor, encode_tensor
from squeezedet.compression.pipeline import open_source
from squeezedet.compression.prune import kernel_values, prune, put, uniform
from squeezedet.compression.prune import measure as measure_layer
from squeezedet.compression.share import cluster
from squeezedet.errors import SqueezeDetError
from squeezedet.media.images import read_image
from squeezedet.models import registry
from squeezedet.models.network import DetectionNetwork
from squeezedet.models.squeezenet import SqueezeNet, classify
from squeezedet.text import align
from squeezedet.training.checkpoint import initialize

MIB = 2**20
HEAD = [
    *("network", "weights", "bits", "density", "float32", "pruned", "shared", "coded"),
    *("ratio", "paper's MB", "against it", "decode s", "right before", "right after"),
]
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
    """

    name: str
    file: str | None
    mb: float


NETWORKS = (
    Quoted("squeezenet-1.0", "compressed_SqueezeNet.net", 4.8),
    Quoted("squeezenet-1.1", "squeezenet_v1_1_fp16.onnx", 4.72),
    Quoted("squeezedet", OURS.name, 7.9),
    Quoted("squeezedet-plus", None, 26.8),
    Quoted("tiny-ssd", "tinyssd_backbone_iter180000.caffemodel", 2.3),
)


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


def right(network: SqueezeNet, samples: Path) -> tuple[int, int, int]:
    """How many images' class comes first, and among the first five; and how many images there are."""
    with (samples / "labels.tsv").open(encoding="utf-8") as file:
        labels = list(csv.DictReader(file, delimiter="\t"))
    first = five = 0
    for label in labels:
        names = [name for name, _ in classify(network, read_image(samples / label["file"]).pixels)]
        wanted = label["name"].replace("_", " ")
        first, five = first + (wanted == names[0]), five + (wanted in names)
    return first, five, len(labels)


def shares(network: nn.Module, samples: Path | None) -> str:
    """Those counts in percent; "" of a detector, and without samples."""
    if samples is None or not isinstance(network, SqueezeNet):
        return ""
    first, five, images = right(network, samples)
    return f"{100 * first / images:.1f} / {100 * five / images:.1f} %"


def measure(quoted: Quoted, folder: Path | None, bits: Sequence[int], samples: Path | None) -> Iterator[list[str]]:
    """A row for each number of bits; detectors without their batch normalization, as it is stored."""
    network, weights = build(quoted, folder)
    judged = samples if weights != "random" else None
    before = shares(network, judged)
    float32 = 4 * sum(p.numel() for p in network.parameters())
    pruned = network.folded() if isinstance(network, DetectionNetwork) else copy.deepcopy(network)
    in_kernels = sum(value.size for value in kernel_values(pruned).values())
    rest = 4 * (sum(p.numel() for p in pruned.parameters()) - in_kernels)
    prune(pruned, paper_densities() if quoted.name == "squeezenet-1.0" else uniform(pruned, UNIFORM))
    kernels = kernel_values(pruned)
    sizes = [measure_layer(name, kernel) for name, kernel in kernels.items()]
    density = sum(s.kept for s in sizes) / sum(s.weights for s in sizes)
    unit = 1e6 if quoted.name == "tiny-ssd" else MIB
    for n in bits:
        shared = {name: cluster(kernel, n).weight() for name, kernel in kernels.items()}
        # Values that float16 can hold, as a detector's graph stores them.
        halves = {k: value.astype(np.float16).astype(np.float32) + np.float32(0) for k, value in shared.items()}
        contents = [encode_tensor(value) for value in halves.values()]
        coded = rest + sum(map(len, contents))
        put(pruned, halves)
        in_bytes = (
            float32,
            rest + sum(s.stored_bytes(shared=False) for s in sizes),
            rest + sum(measure_layer(name, k).stored_bytes(shared=True) for name, k in shared.items()),
            coded,
        )
        yield [
            *(quoted.name, weights, str(n), f"{100 * density:.1f} %"),
            *(f"{size:,}" for size in in_bytes),
            *(f"{float32 / coded:.1f}x", f"{quoted.mb:g}", f"{quoted.mb * unit / coded:.1f}x"),
            f"{decode_s(contents, [value.size for value in halves.values()]):.3f}",
            before,
            shares(pruned, judged),
        ]


def decode_s(coded: Sequence[bytes], sizes: Sequence[int]) -> float:
    """Seconds of processor time, so that what else the machine does matters little."""
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        for content, size in zip(coded, sizes, strict=True):
            decode_tensor(content, (size,), np.float16)
        taken.append(time.process_time() - start)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--weights", type=Path, help="folder of published weight files")
    parser.add_argument("--bits", type=int, nargs="+", default=[6, 8])
    parser.add_argument("--samples", type=Path, help="folder of ImageNet's images with labels.tsv")
    options = parser.parse_args()
    try:
        rows = [row for quoted in NETWORKS for row in measure(quoted, options.weights, options.bits, options.samples)]
    except SqueezeDetError as error:
        raise SystemExit(f"compression_table: {error}") from error
    print(align([HEAD, *rows], left=(0, 1)))


if __name__ == "__main__":
    main()
