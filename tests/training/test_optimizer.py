"""What learns, what decays, and what stays as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from squeezedet.errors import UsageError
from squeezedet.models.squeezedet import ConvDet
from squeezedet.training.recipe import PAPER, Recipe
from squeezedet.training.trainer import clip_gradients, freeze, new_optimizer


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def decayed(model: nn.Module, recipe: Recipe) -> list[str]:
    groups = new_optimizer(model, recipe).param_groups
    kernels = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    return [name for name, p in model.named_parameters() if id(p) in kernels]


@pytest.mark.parametrize("recipe", [Recipe(), PAPER])
def test_only_kernels_decay(recipe: Recipe) -> None:
    model = network()
    assert decayed(model, recipe) == ["0.weight", "2.weight"]
    freeze(model, ["0"])
    assert decayed(model, recipe) == ["2.weight"]


def test_freezing_by_pattern(small_detector: Callable[[], ConvDet]) -> None:
    detector = small_detector()
    freeze(detector, ["backbone.fire*", "backbone.conv1"])
    assert [n for n, p in detector.named_parameters() if p.requires_grad] == ["convdet.weight", "convdet.bias"]


def test_frozen_batch_norm_is_among_the_layers() -> None:
    model = network()
    assert freeze(model, ["1"]) == [model[1]]


def test_a_name_that_fits_nothing(small_detector: Callable[[], ConvDet]) -> None:
    with pytest.raises(UsageError, match=r"no layer 'conv9' .* backbone, convdet, backbone\.conv1"):
        freeze(small_detector(), ["conv9"])
    with pytest.raises(UsageError, match="leaves nothing to learn"):
        freeze(small_detector(), ["*"])


def test_clipping_all_together_or_each() -> None:
    for recipe, norms in (
        (Recipe(clip="global", clip_norm=1.0), [0.6, 0.8]),
        (Recipe(clip="tensor", clip_norm=1.0), [1.0, 1.0]),
        (Recipe(clip="global", clip_norm=50.0), [3.0, 4.0]),
    ):
        model = nn.Linear(1, 1)
        model.weight.grad, model.bias.grad = torch.tensor([[3.0]]), torch.tensor([4.0])
        assert clip_gradients(model, recipe) == pytest.approx(5.0)
        assert [float(p.grad.norm()) for p in model.parameters()] == pytest.approx(norms, abs=1e-5)
