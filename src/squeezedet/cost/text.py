"""A cost as aligned text, for people."""

from __future__ import annotations

from collections.abc import Sequence

from squeezedet.cost.layers import COUNTINGS, FLOAT_BYTES, MIB, Cost, Layer
from squeezedet.papers import supplement
from squeezedet.papers.memory_plan import SRAM_BYTES, MemoryPlan
from squeezedet.papers.supplement import DetectionLayer
from squeezedet.text import align

MISPRINT = "*"


def layers(cost: Cost) -> str:
    """Every layer that weighs or computes something; what is left out is summed up below."""
    head = (
        *("layer", "kind", "output", "parameters", "MMAC", "MFLOP (paper)"),
        *("activation MiB", "FLOP/byte"),
    )
    shown = [layer for layer in cost.layers if _counts(layer)]
    rows = [head]
    for layer in shown:
        rows.append(
            (
                layer.name,
                layer.kind,
                _size(layer.output),
                f"{layer.parameters:,}" if layer.parameters else "",
                f"{layer.macs / 1e6:.1f}" if layer.macs else "",
                f"{layer.flops_paper / 1e6:.1f}" if layer.flops_paper else "",
                f"{layer.activation_bytes / MIB:.3f}" if layer.activation_bytes else "",
                f"{layer.intensity:.1f}" if layer.macs else "",
            )
        )
    text = align(rows, left=(0, 1))
    rest = len(cost.layers) - len(shown)
    return f"{text}\nand {rest} without weights or products (sums, copies, ...)" if rest else text


def _counts(layer: Layer) -> bool:
    return bool(layer.parameters or layer.macs or layer.activation_bytes)


def totals(cost: Cost, memory: MemoryPlan) -> str:
    """The sums, and what they mean for memory."""
    pair, peak = memory.largest_pair, memory.peak
    kept = "the smallest of all orders" if memory.exact else "the best order found"
    together = pair.pair + cost.size_bytes
    fits = "fit" if together <= SRAM_BYTES else "do not fit"
    facts = [
        ("parameters", f"{cost.parameters:,} ({COUNTINGS[cost.counting]})"),
        *_other_countings(cost),
        ("size", f"{cost.size_bytes / MIB:.3f} MiB as float32"),
        ("MACs", _exact(cost.macs)),
        ("FLOPs", f"{_exact(cost.flops)}, 2 a MAC"),
        ("FLOPs, paper", f"{_exact(cost.flops_paper)}, with biases and ReLU"),
        ("activations", f"{cost.activation_bytes / MIB:.2f} MiB in all, as float32"),
        ("peak memory", f"{peak.live / MIB:.2f} MiB live at {peak.name} ({kept})"),
        ("largest pair", f"{pair.pair / MIB:.2f} MiB, input and output of {pair.name}"),
        ("16 MiB of SRAM", f"pair and parameters, {together / MIB:.2f} MiB, {fits}"),
        ("intensity", f"{cost.intensity:.1f} FLOPs per byte moved"),
    ]
    return align(facts, left=(0, 1))


def _other_countings(cost: Cost) -> list[tuple[str, str]]:
    return [
        ("", f"{number:,} ({COUNTINGS[name]})")
        for name, number in cost.by_counting.items()
        if number != cost.parameters
    ]


def _exact(number: int) -> str:
    return f"{number:,} ({number / 1e9:.3f} x 10^9)"


def _size(output: Sequence[int]) -> str:
    return "x".join(map(str, output))


# ------------------------------------------------------------ the paper's tables


def supplement_table(cost: Cost) -> str:
    """Table 1 of the supplement with exact numbers; the printed ones stand beside them."""
    head = (
        *("layer", "activation", "filter/stride", "s1x1", "e1x1", "e3x3"),
        *("activation MiB", "printed", "parameters", "MiB", "printed", ""),
    )
    table: list[Sequence[str]] = [head]
    for row in supplement.rows(cost):
        channels, height, width = row.output or (0, 0, 0)
        size = FLOAT_BYTES * row.parameters / MIB
        table.append(
            (
                row.name,
                f"{width}x{height}x{channels}" if row.output else "",
                row.filter,
                *(f"{n}" if n else "" for n in (row.squeeze, row.expand1x1, row.expand3x3)),
                " + ".join(f"{n / MIB:.3f}" for n in row.activation_bytes),
                " + ".join(row.printed.activation),
                f"{row.parameters:,}" if row.parameters else "",
                f"{size:.4f}" if row.parameters else "",
                row.printed.parameters,
                f"{MISPRINT} {row.printed.note}" if row.differs else "",
            )
        )
    return (
        "Table 1 of the supplement, exact; MiB = 2^20 bytes, float32, weights and biases\n"
        f"{align(table, left=(0, 1, 2, 11))}\n"
        f"{MISPRINT} the printed figure is not this one rounded"
    )


def detection_table(rows: Sequence[DetectionLayer]) -> str:
    """Table 1 of the paper, counted."""
    head = ("layer", "RP", "cls", "weights", "formula", "counted", "with biases", "MMAC")
    table: list[Sequence[str]] = [head]
    for row in rows:
        table.append(
            (
                row.name,
                "yes" if row.proposes else "no",
                "yes" if row.classifies else "no",
                row.formula,
                f"{row.parameters:,}",
                f"{row.counted:,}",
                f"{row.with_biases:,}",
                f"{row.macs / 1e6:.2f}",
            )
        )
    table[0] = (*head[:3], "weights", "= formula", *head[5:])
    by_name = {row.name: row for row in rows}
    ratio = by_name["FcDet"].counted / by_name["ConvDet"].counted
    return (
        "Table 1 of the paper at 7x7x1024, K = 2, C = 20, Ffc1 = 4096 (weights, no biases)\n"
        f"{align(table, left=(0, 1, 2, 3))}\n"
        f"FcDet / ConvDet = {ratio:.1f} (the paper: 460X)\n"
        "The paper gives RPN Ch K (5 + C) weights in Table 1, but 5 K outputs in Fig. 3a:\n"
        "an RPN knows no classes, so Fig. 3a is right about RPN."
    )
