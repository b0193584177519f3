"""A cost as aligned text, for people."""

from __future__ import annotations

from collections.abc import Sequence

from squeezedet.cost.layers import COUNTINGS, MIB, Cost, Layer
from squeezedet.cost.memory import SRAM_BYTES, MemoryPlan
from squeezedet.text import align


def layer_table(cost: Cost) -> str:
    """Every layer that weighs or computes something; what is left out is summed up below."""
    head = (*("layer", "kind", "output", "parameters", "MMAC", "MFLOP (paper)"), *("activation MiB", "FLOP/byte"))
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


def totals_table(cost: Cost, memory: MemoryPlan) -> str:
    """The sums, and what they mean for memory."""
    pair, peak = memory.largest_pair, memory.peak
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
        ("peak memory", f"{peak.live / MIB:.2f} MiB live at {peak.name}"),
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
