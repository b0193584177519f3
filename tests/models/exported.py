"""A detector's map and boxes, from torch and from the graph that torch exports."""

from __future__ import annotations

import logging

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from squeezedet.models.network import DetectionNetwork


class _Whole(nn.Module):
    """Pixels to the map and boxes."""

    def __init__(self, network: DetectionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        raw = self.network(images)
        return raw, *self.network.decode(raw)


@torch.inference_mode()
def largest_difference(network: DetectionNetwork, images: Tensor) -> float:
    """Between the answers of the network and those of onnxruntime on its exported graph."""
    module = _Whole(network).eval()
    logging.disable(logging.WARNING)
    try:
        program = torch.onnx.export(module, (images,), dynamo=True, opset_version=18, verbose=False)
    finally:
        logging.disable(logging.NOTSET)
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    answers = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    pairs = zip(module(images), answers, strict=True)
    return max(float(np.abs(expected.numpy() - answer).max()) for expected, answer in pairs)
