"""Deep Compression of the networks of the papers: float32, pruned, shared, coded.

Nothing is retrained, so the sizes are what the method gives at the densities named, not what an
accuracy allows. Real weights where a folder of published ones is given, random ones otherwise
(those of a fire module are pruned at the same densities; only their histogram differs)::

    python benchmarks/compression_table.py [--weights FOLDER] [--bits 6 8] [--json FILE]

Sizes are bytes of weights and biases without graph and card: 4 bytes a number; kept weights as
float32 with gaps of four bits; codes with such gaps and codebooks; and what our coder makes of it.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from squeezedet.coding.tensor import encode
from squeezedet.compression.densities import uniform
from squeezedet.compression.layers import density_of, kernel_values, measure_all
from squeezedet.compression.prune import prune
from squeezedet.compression.share import cluster
from squeezedet.compression.source import open_source
from squeezedet.detectors import zoo
from squeezedet.errors import SqueezeDetError
from squeezedet.files import write_atomic
from squeezedet.media.table import align
from squeezedet.training.start import begin

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
)
UNIFORM = 0.33


def paper_densities() -> dict[str, float]:
    """SqueezeNet v1.0 in table 2 of its paper: what is kept of each layer; the rest is whole."""
    found = {f"fire{i}.expand3x3": 0.33 for i in range(2, 10)}
    found |= {"fire8.expand3x3": 0.3, "fire9.expand3x3": 0.3}
    halves = ("fire6.expand1x1", "fire7.squeeze1x1", "fire8.expand1x1", "fire9.squeeze1x1")
    return found | dict.fromkeys(halves, 0.5) | {"conv10": 0.2}


@dataclass(frozen=True, slots=True)
class Quoted:
    """A network of the table.

    Attributes:
        name: in the zoo.
        file: of its published weights, or a shipped model.
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
    Quoted("squeezedet", "squeezedet", 7.9, "SqueezeDet, float32"),
    Quoted("squeezedet-plus", None, 26.8, "SqueezeDet+, float32"),
    Quoted("tiny-ssd", "tinyssd_backbone_iter180000.caffemodel", 2.3, "Tiny SSD, float16"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Sizes of one network at one number of bits, in bytes."""

    network: str
    weights: str
    bits: int
    density: float
    float32: int
    pruned: int
    shared: int
    coded: int
    quoted_mb: float
    quoted: str


def build(quoted: Quoted, folder: Path | None) -> tuple[nn.Module, str]:
    """The network, and whose weights it has."""
    if quoted.file == "squeezedet":
        return open_source(quoted.file).network, "real, the shipped model's"
    path = folder / quoted.file if folder and quoted.file else None
    if path is None or not path.is_file():
        torch.manual_seed(0)
        return zoo.build(quoted.name), "random"
    if zoo.find(quoted.name).task == "classify":
        published = ", pruned and shared by its authors" if path.suffix == ".net" else ""
        return open_source(str(path)).network, f"real{published}"
    config = zoo.config_of(quoted.name, squeeze_relu=False)  # as these were trained
    start = begin(zoo.find(quoted.name).kind, config, str(path))
    total = sum(p.numel() for p in start.detector.parameters())
    names = dict(start.detector.named_parameters())
    left = sum(names[name].numel() for name in start.random)
    return start.detector, f"real, {100 * left / total:.0f} % random"


def measure(quoted: Quoted, folder: Path | None, bits: Sequence[int]) -> list[Row]:
    """All sizes of one network."""
    network, weights = build(quoted, folder)
    whole = kernel_values(network)
    numbers = sum(p.numel() for p in network.parameters())
    rest = 4 * (numbers - sum(v.size for v in whole.values()))
    pruned = copy.deepcopy(network)
    is_paper = quoted.name == "squeezenet-1.0"
    prune(pruned, paper_densities() if is_paper else uniform(pruned, UNIFORM))
    kernels = kernel_values(pruned)
    sizes = measure_all(kernels)
    rows = []
    for n in bits:
        shared = {name: cluster(kernel, n).weight() for name, kernel in kernels.items()}
        rows.append(
            Row(
                quoted.name,
                weights,
                n,
                density_of(sizes),
                4 * numbers,
                rest + sum(s.stored_bytes(shared=False) for s in sizes),
                rest + sum(s.stored_bytes(shared=True) for s in measure_all(shared)),
                rest + sum(len(encode(_half(value))) for value in shared.values()),
                quoted.mb,
                quoted.of,
            )
        )
    return rows


def _half(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
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
            + [f"{row.quoted_mb * unit / row.coded:.1f}x"]
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--weights", type=Path, help="folder of published weight files")
    parser.add_argument("--bits", type=int, nargs="+", default=[6, 8])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    try:
        rows = [r for quoted in NETWORKS for r in measure(quoted, options.weights, options.bits)]
    except SqueezeDetError as error:
        raise SystemExit(f"compression_table: {error}") from error
    print(align(table(rows), left=(0, 1)))
    if options.json:
        records: list[Mapping[str, object]] = [asdict(row) for row in rows]
        write_atomic(options.json, json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
