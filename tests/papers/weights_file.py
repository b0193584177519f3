"""Writes what darknet publishes."""

from __future__ import annotations

import struct
from pathlib import Path

from torch import nn

from squeezedet.papers.darknet import stored_parts


def write_weights(path: Path, network: nn.Module, version: tuple[int, int, int] = (0, 2, 0), seen: str = "<q") -> None:
    """A network as a ``.weights`` file; ``seen`` is the format of the images seen, 0."""
    with path.open("wb") as file:
        file.write(struct.pack("<3i", *version) + struct.pack(seen, 0))
        for _, tensor, connected in stored_parts(network):
            turned = connected and tensor.ndim == 2 and max(version) > 1000
            file.write((tensor.T if turned else tensor).detach().contiguous().numpy().astype("<f4").tobytes())
