"""From a float model to an int8 one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from squeezedet.errors import UsageError
from squeezedet.export.graph import changed
from squeezedet.export.int8.calibration import choose, inputs, measure
from squeezedet.export.int8.prepare import prepare
from squeezedet.export.int8.qdq import with_qdq
from squeezedet.export.int8.region import find_region
from squeezedet.export.int8.scan import scan_network
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.parity import is_int8

AUTO = "auto:"
Say = Callable[[str], None]


def quantise(
    model: Bundle,
    images: Sequence[Path],
    *,
    keep_float: Sequence[str] = (),
    method: str = "minmax",
    say: Say | None = None,
) -> Bundle:
    """Quantise a model to int8 after training.

    Everything up to the raw maps of the heads computes in int8, what decodes them in float32.
    The graph keeps its inputs, outputs and sizes; any engine that reads ONNX runs it.

    Args:
        model: with an ONNX graph in float.
        images: to calibrate on, like those that the camera will see and not those that the model
            is judged on; at least 16, and of more than 64 as many, evenly spaced.
        keep_float: names of layers that stay float32, with wildcards ("backbone.fire2.*"), or
            ``auto:0.1``: the layers that a scan finds worst, until the error of the raw maps
            is at most a tenth of their standard deviation.
        method: how ranges are found, see ``calibration.measure``.
        say: takes one line at a time: what is going on.

    Returns:
        The int8 model. Its card says under ``training``, ``export``, ``int8`` how it was made;
        ``results`` is empty, since they were those of the float model.

    Raises:
        UsageError: the model is quantised already, or a layer or a method does not exist.
        DataError: the images are too few, or one cannot be read.
        ModelError: there is nothing to quantise, or the graph cannot be run.
    """
    say = say or (lambda _: None)
    if model.format != "onnx" or is_int8(model):
        raise UsageError(f"{model.card.name}: int8 is made from a float model with an ONNX graph")
    limit = _limit(keep_float)
    chosen = choose(images)
    network = prepare(model.graph)
    region = find_region(network.graph, [name for name in keep_float if not name.startswith(AUTO)])
    say(f"int8: {len(region.layers)} layers, calibrated on {len(chosen)} images ({method})")
    ranges = measure(network, region, inputs(model, chosen), method)
    if limit is not None:
        found = scan_network(
            network, region, ranges, list(inputs(model, chosen[:: len(chosen) // 4]))
        )
        say(str(found))
        worst = found.worst(limit)
        region = find_region(network.graph, [*region.float_layers, *worst])
    if region.float_layers:
        say(f"float32: {', '.join(region.float_layers)}")
    quantised = with_qdq(network, region, ranges)
    note = {
        "images": len(chosen),
        "method": method,
        "layers": len(region.layers),
        "float_layers": list(region.float_layers),
    }
    made = changed(model, bytes(quantised.SerializeToString()), int8=note)
    return replace(made, card=replace(made.card, results={}))


def _limit(keep_float: Sequence[str]) -> float | None:
    """The number of ``auto:0.1``.

    Raises:
        UsageError: it is none.
    """
    asked = [name.removeprefix(AUTO) for name in keep_float if name.startswith(AUTO)]
    if not asked:
        return None
    try:
        limit = float(asked[-1])
    except ValueError:
        limit = -1.0
    if not 0 < limit < 1:
        raise UsageError(f"--keep-float {AUTO}{asked[-1]}: write a number between 0 and 1")
    return limit
