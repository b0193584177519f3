"""RoI max pooling against its definition, cell by cell."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from squeezedet.papers.faster_rcnn import roi_max_pool

F32 = np.float32


def oracle(features: Tensor, boxes: Tensor, bins: int, stride: int) -> Tensor:
    """The definition as loops, in the single precision of the published code."""
    channels, height, width = features.shape
    pooled = torch.zeros(len(boxes), channels, bins, bins, dtype=features.dtype)
    for r, box in enumerate(boxes.tolist()):
        x1, y1, x2, y2 = (math.floor(F32(v) / F32(stride) + F32(0.5)) for v in box)
        step_y = F32(max(y2 - y1 + 1, 1)) / F32(bins)
        step_x = F32(max(x2 - x1 + 1, 1)) / F32(bins)
        for i in range(bins):
            top = min(max(math.floor(F32(i) * step_y) + y1, 0), height)
            bottom = min(max(math.ceil(F32(i + 1) * step_y) + y1, 0), height)
            for j in range(bins):
                left = min(max(math.floor(F32(j) * step_x) + x1, 0), width)
                right = min(max(math.ceil(F32(j + 1) * step_x) + x1, 0), width)
                if top < bottom and left < right:
                    window = features[:, top:bottom, left:right]
                    pooled[r, :, i, j] = window.amax((1, 2))
    return pooled


@given(st.data())
def test_equals_its_definition(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 24)), data.draw(st.integers(1, 40))
    bins, stride = data.draw(st.sampled_from([1, 2, 6, 7])), data.draw(st.sampled_from([1, 16]))
    # The image may be up to 15 pixels longer than the map, as AlexNet's is.
    right, bottom = width * stride + stride - 1, height * stride + stride - 1
    xs = st.lists(st.floats(0, right, width=32), min_size=2, max_size=2).map(sorted)
    ys = st.lists(st.floats(0, bottom, width=32), min_size=2, max_size=2).map(sorted)
    boxes = data.draw(st.lists(st.tuples(xs, ys), min_size=0, max_size=5))
    xyxy = torch.tensor([[x[0], y[0], x[1], y[1]] for x, y in boxes]).view(-1, 4)
    seed = data.draw(st.integers(0, 2**16))
    features = torch.randn(2, height, width, generator=torch.Generator().manual_seed(seed))
    pooled = roi_max_pool(features, xyxy, bins, stride)
    assert torch.equal(pooled, oracle(features, xyxy, bins, stride))


def test_the_whole_map_at_its_own_size_is_the_map() -> None:
    features = torch.randn(3, 7, 7)
    box = torch.tensor([[0.0, 0, 96, 96]])  # cells 0 to 6, both corner cells included
    assert torch.equal(roi_max_pool(features, box, 7, 16)[0], features)


@pytest.mark.parametrize("bins", [1, 3, 7])
def test_gradient(bins: int) -> None:
    torch.manual_seed(0)
    features = torch.randperm(2 * 9 * 12).double().view(2, 9, 12).requires_grad_()
    boxes = torch.tensor([[0.0, 0, 190, 140], [33, 17, 60, 140], [180, 130, 191, 143]])
    assert torch.autograd.gradcheck(lambda f: roi_max_pool(f, boxes, bins, 16), (features,))


def test_every_bin_gives_its_gradient_to_one_cell_in_all() -> None:
    features = torch.zeros(1, 5, 5, requires_grad=True)  # all cells tie
    roi_max_pool(features, torch.tensor([[0.0, 0, 79, 79]]), 2, 16).sum().backward()
    assert features.grad is not None
    assert features.grad.sum() == 4
