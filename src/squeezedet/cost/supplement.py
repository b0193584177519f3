"""Table 1 of the paper's supplement, row by row: our exact numbers beside the printed ones.

SqueezeDet at 1242x375 without padding in conv1 and the pools. Where a printed figure is not
the exact one rounded, the row says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from squeezedet.cost.layers import FLOAT_BYTES, MIB, Cost, Layer

FIRE = re.compile(r"(?:^|\.)(fire\d+)\.(squeeze1x1|expand1x1|expand3x3)$")
PARAMETERS, SIZE = 2_082_120, (3, 375, 1242)


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
class Row:
    """One row of the table.

    Attributes:
        name: as printed: input, conv1, maxpool1, fire2, ..., convdet, total.
        output: (channels, height, width); empty in the total.
        filter: kernel and stride, or empty.
        squeeze, expand1x1, expand3x3: filters of a fire module, or 0.
        activation_bytes: of the output; of a fire module (squeeze, both expands).
        parameters: of the layer.
    """

    name: str
    output: tuple[int, ...]
    filter: str
    squeeze: int
    expand1x1: int
    expand3x3: int
    activation_bytes: tuple[int, ...]
    parameters: int

    @property
    def printed(self) -> Printed:
        """What the supplement says."""
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


def rows(cost: Cost) -> tuple[Row, ...]:
    """The supplement's rows for a cost that ``describes`` accepts."""
    made = [Row("input", cost.input, "", 0, 0, 0, (cost.input_bytes,), 0)]
    fire: dict[str, Layer] = {}
    last = ""
    for layer in cost.layers:
        found = FIRE.search(layer.name)
        if found:
            last = found[1]
            fire[found[2]] = layer
            if len(fire) == 3:
                made.append(_fire(last, fire))
                fire = {}
        elif layer.activation_bytes:
            pool = layer.kind == "pool"
            name = layer.name.split(".")[-1]
            number = re.sub(r"\D", "", last)
            made.append(_plain(f"maxpool{number}" if pool else name, layer))
            last = name
    total = Row("total", (), "", 0, 0, 0, (cost.activation_bytes,), cost.parameters)
    return (*made, total)


def _plain(name: str, layer: Layer) -> Row:
    kernel = f"{'x'.join(map(str, layer.window))}/{layer.stride[0]}"
    filters = f"{kernel} (x{layer.output[0]})" if layer.macs else kernel
    activation = (layer.activation_bytes,)
    return Row(name, layer.output, filters, 0, 0, 0, activation, layer.parameters)


def _fire(name: str, fire: dict[str, Layer]) -> Row:
    squeeze, one, three = (fire[part] for part in ("squeeze1x1", "expand1x1", "expand3x3"))
    output = (one.output[0] + three.output[0], *one.output[1:])
    activation = (squeeze.activation_bytes, one.activation_bytes + three.activation_bytes)
    parameters = _parameters((squeeze, one, three))
    widths = squeeze.output[0], one.output[0], three.output[0]
    return Row(name, output, "", *widths, activation, parameters)


def _parameters(layers: Iterable[Layer]) -> int:
    return sum(layer.parameters for layer in layers)
