"""Which part of a graph computes in int8: its layers with weights, and what lies between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from squeezedet.errors import ModelError, UsageError
from squeezedet.export.int8.prepare import IMAGE_SCALE, constants, users

LAYERS = ("Conv", "Gemm")
BETWEEN = ("Relu", "LeakyRelu", "Clip", "MaxPool", "AveragePool", "Concat", "Add", "Flatten")
"""Operations that both engines have in int8, and that lose little by it."""
SAME_SCALE = ("MaxPool", "Concat", "Flatten")
"""They copy numbers: with one scale before and behind them nothing is rounded again."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """The int8 part of a graph.

    Attributes:
        layers: names of the layers with weights, in the order of the graph.
        nodes: all int8 nodes by name, layers among them.
        heads: output of each layer that nothing in the region reads -> the layer.
        float_layers: layers with weights that were left out.
        scale_of: activation -> the name of its scale, which those share that hold the same
            numbers.
        measured: activations to be measured -> the scale that must fit them.
        images: tensors that hold the pixels themselves, as float32.
    """

    layers: tuple[str, ...]
    nodes: frozenset[str]
    heads: dict[str, str]
    float_layers: tuple[str, ...]
    scale_of: dict[str, str]
    measured: dict[str, str]
    images: frozenset[str]


def find_region(graph: Any, keep_float: Sequence[str] = ()) -> Region:
    """Find the int8 part: layers, and operations between them that read int8 alone.

    What lies behind the last layers, the decoding, is never in it.

    Args:
        graph: of ``prepare``.
        keep_float: names of layers that stay float32, with wildcards.

    Raises:
        UsageError: there is no layer of such a name.
        ModelError: there is nothing to quantise.
    """
    names = layer_names(graph)
    kept = _matching(names, keep_float)
    if len(kept) == len(names):
        raise ModelError("no convolution is left to quantise")
    nodes = _nodes(graph, kept)
    inside = [node for node in graph.node if node.name in nodes]
    readers = users(graph)
    layers = tuple(node.name for node in inside if node.op_type in LAYERS)
    heads = {
        node.output[0]: node.name
        for node in inside
        if node.op_type in LAYERS and not any(r.name in nodes for r in readers[node.output[0]])
    }
    images = _images(graph)
    scale_of, copied = _shared_scales(graph, inside, images)
    return Region(
        layers=layers,
        nodes=frozenset(nodes),
        heads=heads,
        float_layers=tuple(name for name in names if name in kept),
        scale_of=scale_of,
        measured={name: scale for name, scale in scale_of.items() if name not in copied},
        images=images,
    )


def layer_names(graph: Any) -> list[str]:
    """The layers with constant weights, in the order of the graph."""
    stored = constants(graph)
    return [n.name for n in graph.node if n.op_type in LAYERS and n.input[1] in stored]


def _matching(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    kept = set()
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            close = get_close_matches(pattern, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"
            raise UsageError(f"--keep-float: no layer {pattern!r} ({hint})")
        kept |= found
    return kept


def _nodes(graph: Any, kept: set[str]) -> set[str]:
    """Names of the int8 nodes: forwards what reads int8 alone, backwards what a layer needs."""
    stored, readers = constants(graph), users(graph)
    layers = set(layer_names(graph))
    nodes: set[str] = set()
    int8: set[str] = set()
    for node in graph.node:
        read = [name for name in node.input if name and name not in stored]
        between = node.op_type in BETWEEN and read and all(name in int8 for name in read)
        if between or (node.name in layers and node.name not in kept):
            nodes.add(node.name)
            int8.update(node.output)
    needed: set[str] = set()
    for node in reversed(graph.node):
        behind = (r.name for name in node.output for r in readers[name])
        if node.name in layers or (node.op_type in BETWEEN and not needed.isdisjoint(behind)):
            needed.add(node.name)
    return nodes & needed


def _images(graph: Any) -> frozenset[str]:
    """The pixels as ``prepare`` leaves them: behind DequantizeLinear and Transpose."""
    raw = {n.output[0] for n in graph.node if IMAGE_SCALE in n.input}
    return frozenset(
        n.output[0] for n in graph.node if n.op_type == "Transpose" and n.input[0] in raw
    )


def _shared_scales(
    graph: Any, inside: Sequence[Any], images: frozenset[str]
) -> tuple[dict[str, str], set[str]]:
    """Each activation of the region -> its scale; and those that another one holds as well."""
    stored, readers = constants(graph), users(graph)
    parent: dict[str, str] = {}
    copied: set[str] = set()

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for node in inside:
        read = [n for n in node.input if n and n not in stored and n not in images]
        for name in (*read, *node.output):
            root(name)
        # A Relu becomes part of what is before it.
        absorbed = node.op_type == "Relu" and len(readers[read[0]]) == 1
        if absorbed or node.op_type in SAME_SCALE:
            for name in read:
                parent[root(name)] = root(node.output[0])
                copied.add(name)
    return {name: root(name) for name in parent}, copied
