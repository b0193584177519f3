"""AlexNet's convolutions, conv1 to conv5 (NIPS 2012, section 3.5): a backbone of stride 16.

It has the form of the published ``bvlc_alexnet``: normalization before pooling, k = 1. conv1 is padded by 5 pixels,
which the classifier is not: so a side of 16 n pixels gives n cells.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.models.layers import kaiming_normal


class AlexNet(nn.Module):
    """Five convolutions with ReLU, the second, fourth and fifth in two groups.

    Cell i of the feature map looks at pixels around 16 i + 12: neither pool is padded.
    """

    channels = 256
    stride = 16

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4, padding=5)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        kaiming_normal(self, "conv1")

    @staticmethod
    def cells(pixels: int) -> int:
        """Cells of the feature map along a side of the image."""
        return (pixels + 3) // 4 // 4

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) pixels less their mean to (N, 256, H / 16, W / 16), H and W at least 16.

        A side that is no multiple of 16 gives what Caffe's rounding gives: 375 pixels 23 cells.
        """
        x = normalize_and_pool(F.relu(self.conv1(images), inplace=True))
        x = normalize_and_pool(F.relu(self.conv2(x), inplace=True))
        x = F.relu(self.conv3(x), inplace=True)
        x = F.relu(self.conv4(x), inplace=True)
        return F.relu(self.conv5(x), inplace=True)


def normalize_and_pool(x: Tensor) -> Tensor:
    """Local response normalization (section 3.3), then overlapping 3x3 pooling (section 3.4)."""
    x = F.local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=1.0)
    return F.max_pool2d(x, 3, 2, ceil_mode=True)
