"""Table 1 of the paper's supplement, row by row: our exact numbers beside the printed ones.

SqueezeDet at 1242x375 without padding in conv1 and the pools. Where a printed figure is not the exact one rounded, the
row says why.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from squeezedet.cost.layers import FLOAT_BYTES, MIB, Cost, Layer, count
from squeezedet.models.profile import trace

# ------------------------------------------------------------ Table 1 of the supplement

FIRE = re.compile(r"(?:^|\.)(fire\d+)\.(squeeze1x1|expand1x1|expand3x3)$")
PARAMETERS, SIZE = 2_082_120, (3, 375, 1242)
MISPRINT = "*"


@dataclass(frozen=True, slots=True)
class Printed:
    """What the supplement prints, as text, in MiB."""

    activation: tuple[str, ...] = ()
    parameters: str = ""
    note: str = ""


PRINTED: dict[str, Printed] = {
    "input": Printed(("5.3",)),
    "conv1": Printed(("28.3",), "0.007"),
    "maxpool1": Printed(("7.0",)),
    "fire2": Printed(("1.8", "14.0"), "0.048", "printed sizes of fire2 and fire3 are swapped"),
    "fire3": Printed(("1.8", "14.0"), "0.043", "printed sizes of fire2 and fire3 are swapped"),
    "maxpool3": Printed(("3.4",), note="3.459 rounds to 3.5"),
    "fire4": Printed(("0.86", "6.9"), "0.17"),
    "fire5": Printed(("0.86", "6.9"), "0.19"),
    "maxpool5": Printed(("1.6",)),
    "fire6": Printed(("0.31", "2.4"), "0.40"),
    "fire7": Printed(("0.31", "2.4"), "0.42"),
    "fire8": Printed(("0.41", "3.3"), "0.72"),
    "fire9": Printed(("0.41", "3.3"), "0.75"),
    "fire10": Printed(("0.61", "4.9"), "1.60"),
    "fire11": Printed(("0.61", "4.9"), "1.69"),
    "convdet": Printed(("0.46",), "1.90"),
    "total": Printed(("117.0",), "7.9", "117.0 is the sum of the printed entries"),
}


@dataclass(frozen=True, slots=True)
class SupplementRow:
    """One row of the table.

    Attributes:
        name: as printed: input, conv1, maxpool1, fire2, ..., convdet, total.
        output: (channels, height, width); empty in the total.
        filter: kernel and stride, or empty.
        filters: of a fire module: squeeze, expand1x1, expand3x3; else empty.
        activation_bytes: of the output; of a fire module (squeeze, both expands).
        parameters: of the layer.
    """

    name: str
    output: tuple[int, ...]
    filter: str
    filters: tuple[int, ...]
    activation_bytes: tuple[int, ...]
    parameters: int

    @property
    def printed(self) -> Printed:
        return PRINTED[self.name]

    @property
    def differs(self) -> bool:
        """Whether a printed figure is not the exact one, rounded to as many digits."""
        exact = (*self.activation_bytes, FLOAT_BYTES * self.parameters)
        printed = (*self.printed.activation, self.printed.parameters)
        return any(
            text and f"{value / MIB:.{len(text.split('.')[1])}f}" != text
            for value, text in zip(exact, printed, strict=True)
        )


def describes(cost: Cost) -> bool:
    """Whether a cost is that of the table's network: SqueezeDet, 9 anchors, 1242x375."""
    return (cost.parameters, cost.input) == (PARAMETERS, SIZE)


def rows(cost: Cost) -> tuple[SupplementRow, ...]:
    """The supplement's rows for a cost that ``describes`` accepts."""
    made = [SupplementRow("input", cost.input, "", (), (cost.input_bytes,), 0)]
    fire: list[Layer] = []  # squeeze1x1, expand1x1 and expand3x3 follow each other
    last = ""
    for layer in cost.layers:
        found = FIRE.search(layer.name)
        if found:
            last = found[1]
            fire.append(layer)
            if len(fire) == 3:
                made.append(_fire(last, *fire))
                fire = []
        elif layer.activation_bytes:
            number = re.sub(r"\D", "", last)
            last = layer.name.split(".")[-1]
            made.append(_plain(f"maxpool{number}" if layer.kind == "pool" else last, layer))
    total = SupplementRow("total", (), "", (), (cost.activation_bytes,), cost.parameters)
    return (*made, total)


def _plain(name: str, layer: Layer) -> SupplementRow:
    kernel = f"{'x'.join(map(str, layer.window))}/{layer.stride[0]}"
    kernel += f" (x{layer.output[0]})" if layer.macs else ""
    return SupplementRow(name, layer.output, kernel, (), (layer.activation_bytes,), layer.parameters)


def _fire(name: str, squeeze: Layer, one: Layer, three: Layer) -> SupplementRow:
    output = (one.output[0] + three.output[0], *one.output[1:])
    activation = (squeeze.activation_bytes, one.activation_bytes + three.activation_bytes)
    parameters = squeeze.parameters + one.parameters + three.parameters
    filters = (squeeze.output[0], one.output[0], three.output[0])
    return SupplementRow(name, output, "", filters, activation, parameters)


# ------------------------------------------------------------ Table 1 of the paper

# The paper's example, YOLO's: H_f = H_o = W_f = W_o, Ch_f, K, C, F_h = F_w, F_fc1.
SIDE, CHANNELS, ANCHORS, CLASSES, KERNEL, HIDDEN = 7, 1024, 2, 20, 3, 4096


@dataclass(frozen=True, slots=True)
class DetectionLayer:
    """One row of Table 1.

    Attributes:
        name: of the layer.
        formula: of its weights, in the paper's symbols.
        parameters: what the formula gives.
        counted: weights of the module, counted.
        with_biases: the module's weights and biases, counted.
        macs: multiply-accumulates of one image, counted.
    """

    name: str
    formula: str
    parameters: int
    counted: int
    with_biases: int
    macs: int


def table1() -> tuple[DetectionLayer, ...]:
    """The rows of Table 1, and the RPN of Fig. 3a."""
    cells, per_cell = SIDE**2, ANCHORS * (5 + CLASSES)
    answers = cells * (5 * ANCHORS + CLASSES)
    found = []

    def add(name: str, formula: str, parameters: int, module: nn.Module) -> None:
        graph = trace(module, (1, CHANNELS, SIDE, SIDE))
        cost, counted = count(graph), sum(step.weight for step in graph.steps)
        found.append(DetectionLayer(name, formula, parameters, counted, cost.parameters, cost.macs))

    with torch.device("meta"):
        add("RPN", "Ch K (5 + C)", CHANNELS * per_cell, nn.Conv2d(CHANNELS, per_cell, 1))
        add("RPN as in Fig. 3a", "Ch K 5", CHANNELS * ANCHORS * 5, nn.Conv2d(CHANNELS, 5 * ANCHORS, 1))
        convdet = nn.Conv2d(CHANNELS, per_cell, KERNEL, padding=KERNEL // 2)
        add("ConvDet", "Fw Fh Ch K (5 + C)", KERNEL**2 * CHANNELS * per_cell, convdet)
        hidden = nn.Linear(cells * CHANNELS, HIDDEN)
        fcdet = nn.Sequential(nn.Flatten(), hidden, nn.LeakyReLU(0.1), nn.Linear(HIDDEN, answers))
        add("FcDet", "Ffc1 (Wf Hf Ch + Wo Ho (5 K + C))", HIDDEN * (cells * CHANNELS + answers), fcdet)
    return tuple(found)


# ------------------------------------------------------------ as cells, the heading first

SUPPLEMENT_TITLE = "Table 1 of the supplement, exact; MiB = 2^20 bytes, float32, weights and biases"
SUPPLEMENT_NOTE = f"{MISPRINT} the printed figure is not this one rounded"
SUPPLEMENT_LEFT = (0, 1, 2, 11)
DETECTION_TITLE = "Table 1 of the paper at 7x7x1024, K = 2, C = 20, Ffc1 = 4096 (weights, no biases)"
DETECTION_LEFT = (0, 1, 2, 3)


def supplement_table(cost: Cost) -> list[Sequence[str]]:
    """Table 1 of the supplement with exact numbers; the printed ones stand beside them."""
    head = (
        *("layer", "activation", "filter/stride", "s1x1", "e1x1", "e3x3"),
        *("activation MiB", "printed", "parameters", "MiB", "printed", ""),
    )
    table: list[Sequence[str]] = [head]
    for row in rows(cost):
        channels, height, width = row.output or (0, 0, 0)
        size = FLOAT_BYTES * row.parameters / MIB
        table.append(
            (
                row.name,
                f"{width}x{height}x{channels}" if row.output else "",
                row.filter,
                *(map(str, row.filters) if row.filters else ("",) * 3),
                " + ".join(f"{n / MIB:.3f}" for n in row.activation_bytes),
                " + ".join(row.printed.activation),
                f"{row.parameters:,}" if row.parameters else "",
                f"{size:.4f}" if row.parameters else "",
                row.printed.parameters,
                f"{MISPRINT} {row.printed.note}" if row.differs else "",
            )
        )
    return table


def detection_table(layers: Sequence[DetectionLayer]) -> list[Sequence[str]]:
    """Table 1 of the paper, counted."""
    table: list[Sequence[str]] = [("layer", "RP", "cls", "weights", "= formula", "counted", "with biases", "MMAC")]
    for row in layers:
        numbers = f"{row.parameters:,}", f"{row.counted:,}", f"{row.with_biases:,}", f"{row.macs / 1e6:.2f}"
        classifies = "no" if row.name.startswith("RPN") else "yes"
        table.append((row.name, "yes", classifies, row.formula, *numbers))
    return table


def detection_note(layers: Sequence[DetectionLayer]) -> str:
    """What a reader of ``detection_table`` should know."""
    by_name = {row.name: row for row in layers}
    ratio = by_name["FcDet"].counted / by_name["ConvDet"].counted
    return (
        f"FcDet / ConvDet = {ratio:.1f} (the paper: 460X)\n"
        "The paper gives RPN Ch K (5 + C) weights in Table 1, but 5 K outputs in Fig. 3a:\n"
        "an RPN knows no classes, so Fig. 3a is right about RPN."
    )
