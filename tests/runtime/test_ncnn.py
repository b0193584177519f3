"""ncnn runs convolutions; a network of one, written by hand, shows what goes in and comes out."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from squeezedet.errors import MissingExtraError, ModelError
from squeezedet.preprocess import STRIDE, resize
from squeezedet.runtime import bundle, parity
from squeezedet.runtime.card import Card
from squeezedet.runtime.engines import ConvDetDecoder, NcnnEngine

from ..conftest import SLIM

pytest.importorskip("ncnn")

CHANNELS = 9 * (3 + 5)
PATCH = 3 * STRIDE * STRIDE
PARAM = f"""7767517
2 2
Input        in0   0 1 in0
Convolution  conv  1 1 in0 out0 0={CHANNELS} 1={STRIDE} 3={STRIDE} 5=1 6={CHANNELS * PATCH}
""".encode()
"""One convolution of 16x16 pixels with stride 16: each cell of the map sees its own pixels."""
RANDOM = np.random.default_rng(0)
KERNELS = (RANDOM.normal(size=(CHANNELS, PATCH)) / 5000).astype(np.float32)
BIAS = RANDOM.normal(size=CHANNELS).astype(np.float32)
WEIGHTS = bytes(4) + KERNELS.tobytes() + BIAS.tobytes()  # four zero bytes: float32 follows


@pytest.fixture(scope="module")
def card() -> Card:
    return bundle.read_card(SLIM)


def picture(size: tuple[int, int]) -> NDArray[np.uint8]:
    return resize(parity.sample_frame().pixels, size)


@pytest.mark.parametrize("size", [(160, 96), (64, 128)])
def test_the_map_of_a_picture_is_decoded(card: Card, size: tuple[int, int]) -> None:
    pixels = picture(size)
    columns, rows = size[0] // STRIDE, size[1] // STRIDE
    patches = pixels.reshape(rows, STRIDE, columns, STRIDE, 3).transpose(0, 2, 4, 1, 3)
    raw = patches.reshape(-1, PATCH).astype(np.float32) @ KERNELS.T + BIAS
    boxes, score, class_id = ConvDetDecoder.of(card)(raw.T.reshape(CHANNELS, rows, columns))
    found = NcnnEngine(card, PARAM, WEIGHTS, 1).run(pixels)
    np.testing.assert_allclose(found.xyxy, boxes[0], atol=0.01)
    np.testing.assert_allclose(found.score, score[0], atol=1e-4)
    assert np.array_equal(found.class_id, class_id[0])


def test_a_part_of_a_picture(card: Card) -> None:
    """A slice of an array, whose rows do not follow each other in memory."""
    pixels = picture((160, 96))
    engine = NcnnEngine(card, PARAM, WEIGHTS, 1)
    part = pixels[16:80, 32:96]
    assert np.array_equal(engine.run(part).score, engine.run(part.copy()).score)


@pytest.mark.parametrize(
    ("param", "weights"),
    [
        (b"", WEIGHTS),
        (b"nonsense", WEIGHTS),
        (b"\xff\xfe", WEIGHTS),
        (PARAM, b""),
        (PARAM, WEIGHTS[:-4]),
        (PARAM, WEIGHTS[:1000]),
    ],
)
def test_damaged_files(card: Card, param: bytes, weights: bytes) -> None:
    with pytest.raises(ModelError, match="cannot read the model"):
        NcnnEngine(card, param, weights)


def test_other_networks(card: Card) -> None:
    with pytest.raises(ModelError, match=r"takes .* and gives"):
        NcnnEngine(card, PARAM.replace(b"out0", b"blob"), WEIGHTS)
    three = replace(card, classes=("car", "pedestrian"))
    with pytest.raises(ModelError, match="need 63 channels"):
        NcnnEngine(three, PARAM, WEIGHTS, 1).run(picture((32, 32)))


def test_not_a_number(card: Card) -> None:
    weights = bytes(4) + KERNELS.tobytes() + (BIAS * np.nan).tobytes()
    with pytest.raises(ModelError, match="NaN or infinite"):
        NcnnEngine(card, PARAM, weights, 1).run(picture((32, 32)))


def test_not_installed(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(MissingExtraError, match=r"squeezedet\[ncnn\]"):
        NcnnEngine(card, PARAM, WEIGHTS)
