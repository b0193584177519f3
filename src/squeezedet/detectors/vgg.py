"""VGG16's convolutions, conv1_1 to conv5_3: a backbone of stride 16.

Simonyan, Zisserman: "Very Deep Convolutional Networks for Large-Scale Image
Recognition", arXiv 1409.1556, table 1, configuration D, without pool5 and the
fully connected layers, as Faster R-CNN and VGG16+ConvDet use it. Names of
layers are those of the published Caffe model.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from squeezedet.detectors.kaiming import kaiming_normal

# (channels, convolutions) of each block; a pool stands between two blocks.
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class VGG16(nn.Module):
    """3x3 convolutions with ReLU; 2x2 max pools that keep a last odd row or column.

    Attributes:
        channels: of the feature map.
        stride: pixels of the image for each cell of the feature map, in both directions.
    """

    channels = 512
    stride = 16

    def __init__(self) -> None:
        super().__init__()
        before = 3
        for block, (channels, convolutions) in enumerate(BLOCKS, 1):
            for i in range(1, convolutions + 1):
                self.add_module(f"conv{block}_{i}", nn.Conv2d(before, channels, 3, padding=1))
                before = channels
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming's normal distribution; conv1_1 also brings pixels to a spread near one."""
        kaiming_normal(self, "conv1_1")

    @staticmethod
    def cells(pixels: int) -> int:
        """Cells of the feature map along a side of the image."""
        return (pixels + 15) // 16

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) pixels less their mean to (N, 512, ceil(H / 16), ceil(W / 16))."""
        x = images
        for block, (_, convolutions) in enumerate(BLOCKS, 1):
            if block > 1:
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            for i in range(1, convolutions + 1):
                x = F.relu(self.get_submodule(f"conv{block}_{i}")(x), inplace=True)
        return x
