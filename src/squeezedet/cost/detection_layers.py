"""Table 1 of the SqueezeDet paper: what the detection layers RPN, ConvDet and FcDet weigh.

Formulas and modules stand side by side, and the modules are counted. All count weights
alone, as the paper does; biases come on top.

The paper contradicts itself on RPN: Table 1 gives it Ch K (5 + C) parameters, but Fig. 3a
draws 5 K outputs (4 coordinates and 1 score for each anchor), and an RPN knows no classes.
Both are here; ``rpn`` is Table 1's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from squeezedet.cost.layers import count
from squeezedet.cost.trace import trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Sizes as section 3.2 names them; the defaults are YOLO's, its example.

    Attributes:
        rows, columns: H_f and W_f of the feature map, and H_o and W_o of the output grid.
        channels: Ch_f of the feature map.
        anchors: K, per cell.
        classes: C.
        kernel: F_h and F_w of ConvDet.
        hidden: F_fc1, outputs of FcDet's first layer.
    """

    rows: int = 7
    columns: int = 7
    channels: int = 1024
    anchors: int = 2
    classes: int = 20
    kernel: int = 3
    hidden: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionLayer:
    """One row of Table 1.

    Attributes:
        name: of the layer.
        proposes, classifies: whether it proposes regions, and whether it classifies them.
        formula: of its weights, in the paper's symbols.
        parameters: what the formula gives.
        counted: weights of the module, counted.
        with_biases: the module's weights and biases, counted.
        macs: multiply-accumulates of one image, counted.
    """

    name: str
    proposes: bool
    classifies: bool
    formula: str
    parameters: int
    counted: int
    with_biases: int
    macs: int


def rpn_parameters(s: Setting) -> int:
    """Ch_f K (5 + C): Table 1."""
    return s.channels * s.anchors * (5 + s.classes)


def rpn_figure_parameters(s: Setting) -> int:
    """Ch_f K 5: Fig. 3a."""
    return s.channels * s.anchors * 5


def convdet_parameters(s: Setting) -> int:
    """F_w F_h Ch_f K (5 + C)."""
    return s.kernel**2 * s.channels * s.anchors * (5 + s.classes)


def fcdet_parameters(s: Setting) -> int:
    """F_fc1 (W_f H_f Ch_f + W_o H_o (5 K + C))."""
    cells = s.rows * s.columns
    return s.hidden * (cells * s.channels + cells * (5 * s.anchors + s.classes))


def table1(setting: Setting | None = None) -> tuple[DetectionLayer, ...]:
    """The rows of Table 1, and the RPN of Fig. 3a."""
    s = setting or Setting()
    per_cell = s.anchors * (5 + s.classes)
    cells = s.rows * s.columns
    with torch.device("meta"):
        modules: dict[str, nn.Module] = {
            "RPN": nn.Conv2d(s.channels, per_cell, 1),
            "RPN as in Fig. 3a": nn.Conv2d(s.channels, 5 * s.anchors, 1),
            "ConvDet": nn.Conv2d(s.channels, per_cell, s.kernel, padding=s.kernel // 2),
            "FcDet": nn.Sequential(
                nn.Flatten(),
                nn.Linear(cells * s.channels, s.hidden),
                nn.LeakyReLU(0.1),
                nn.Linear(s.hidden, cells * (5 * s.anchors + s.classes)),
            ),
        }
    formulas = {
        "RPN": ("Ch K (5 + C)", rpn_parameters(s)),
        "RPN as in Fig. 3a": ("Ch K 5", rpn_figure_parameters(s)),
        "ConvDet": ("Fw Fh Ch K (5 + C)", convdet_parameters(s)),
        "FcDet": ("Ffc1 (Wf Hf Ch + Wo Ho (5 K + C))", fcdet_parameters(s)),
    }
    return tuple(
        _row(name, module, *formulas[name], shape=(1, s.channels, s.rows, s.columns))
        for name, module in modules.items()
    )


def _row(
    name: str, module: nn.Module, formula: str, parameters: int, shape: tuple[int, ...]
) -> DetectionLayer:
    graph = trace(module, shape)
    cost = count(graph)
    return DetectionLayer(
        name=name,
        proposes=True,
        classifies=not name.startswith("RPN"),
        formula=formula,
        parameters=parameters,
        counted=sum(step.weight for step in graph.steps),
        with_biases=cost.parameters,
        macs=cost.macs,
    )
