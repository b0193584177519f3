"""One kind of names, whatever the format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from squeezedet.errors import ModelError
from squeezedet.pretrained.read import MAX_BYTES, read_weights

from .caffe_schema import net_parameter

WEIGHT, BIAS = np.ones((4, 3, 2, 2), np.float32), np.zeros(4, np.float32)


def test_names_of_archives(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"fire2/squeeze1x1.weight": WEIGHT, "conv1.bias": BIAS})
    assert sorted(read_weights(tmp_path / "a.npz")) == ["conv1.bias", "fire2.squeeze1x1.weight"]
    save_file({"fire9.expand3x3.bias": BIAS}, tmp_path / "a.SafeTensors")
    assert list(read_weights(tmp_path / "a.SafeTensors")) == ["fire9.expand3x3.bias"]


def test_names_of_caffe_models(tmp_path: Path) -> None:
    """Deep Compression's names, an old bias of four axes, and a blob that nobody knows."""
    net = net_parameter()()
    layer = net.layer.add(name="fire3/conv3x3_2")
    for shape in ((4, 3, 2, 2), (1, 1, 1, 4), (2,)):
        blob = layer.blobs.add()
        blob.shape.dim.extend(shape)
        blob.data.extend([0.0] * int(np.prod(shape)))
    path = tmp_path / "old.caffemodel"
    path.write_bytes(net.SerializeToString())
    assert {name: a.shape for name, a in read_weights(path).items()} == {
        "fire3.expand3x3.weight": (4, 3, 2, 2),
        "fire3.expand3x3.bias": (4,),
        "fire3.expand3x3.blob2": (2,),
    }


@pytest.mark.shared
def test_published_files_have_the_same_names(shared: Path) -> None:
    names = [
        list(read_weights(shared / "weights" / name))
        for name in (
            "compressed_SqueezeNet.net",
            "squeezenet_v1_0_imagenet.npz",
            "squeezenet_v1_1_fp16.onnx",
            "tinyssd_backbone_iter180000.caffemodel",
        )
    ]
    assert names[0] == names[1] == names[2] == names[3]
    assert len(names[0]) == 52


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.pt: not a known kind .* \.net, \.onnx"):
        read_weights(tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"model\.onnx: no such file"):
        read_weights(tmp_path / "model.onnx")
    large = tmp_path / "large.caffemodel"
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ModelError, match="too many for a SqueezeNet"):
        read_weights(large)
