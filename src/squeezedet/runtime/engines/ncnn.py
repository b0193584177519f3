"""ncnn on the processor: runs the convolutions of an exported model.ncnn.param.

The file holds SqueezeDet up to ConvDet's map; what follows is decoded in NumPy.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import MissingExtraError, ModelError
from squeezedet.runtime.card import Card
from squeezedet.runtime.convdet_decode import ConvDetDecoder
from squeezedet.runtime.engines.engine import raw_boxes
from squeezedet.runtime.postprocess import RawBoxes

INPUT, OUTPUT = "in0", "out0"
"""The blobs' names, as pnnx gives them: (3, H, W) RGB of 0 to 255 in, ConvDet's map out."""


class NcnnEngine:
    """Runs a network in ncnn's own files: uint8 pixels in, the boxes of every anchor out.

    Args:
        card: of the model; its numbers decode the map.
        param: the text of model.ncnn.param.
        weights: the bytes of model.ncnn.bin.
        threads: processor threads; None for all cores.

    Raises:
        MissingExtraError: ncnn is not installed.
        ModelError: ncnn cannot read the files, or they hold no detector of ours.
    """

    name = "ncnn"

    def __init__(
        self, card: Card, param: bytes, weights: bytes, threads: int | None = None
    ) -> None:
        try:
            import ncnn
        except ImportError as error:
            raise MissingExtraError("the engine ncnn", "ncnn") from error
        self._ncnn = ncnn
        self._decode = ConvDetDecoder.of(card)
        self._net = ncnn.Net()
        options = self._net.opt
        # Everything in float32: 16-bit arithmetic is faster on ARM, and moves boxes by pixels.
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        if threads:
            options.num_threads = threads
        self._load(param, weights)

    def _load(self, param: bytes, weights: bytes) -> None:
        try:
            read = self._net.load_param_mem(param.decode()) == 0
        except UnicodeDecodeError:
            read = False
        if read:
            # Given bytes in memory, ncnn reads beyond their end; of a file it knows the length.
            with tempfile.TemporaryDirectory(prefix="squeezedet-") as folder:
                path = Path(folder) / "model.ncnn.bin"
                path.write_bytes(weights)
                read = self._net.load_model(str(path)) == 0
        if not read:
            version = self._ncnn.__version__
            raise ModelError(f"ncnn {version} cannot read the model: the files are damaged")
        names = (tuple(self._net.input_names()), tuple(self._net.output_names()))
        if names != ((INPUT,), (OUTPUT,)):
            raise ModelError(
                f"the network takes {names[0]} and gives {names[1]}; a detector takes {INPUT!r} "
                f"and gives {OUTPUT!r}"
            )

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        """Pixels to the boxes of every anchor; see ``Engine``."""
        height, width = pixels.shape[:2]
        kind = self._ncnn.Mat.PixelType.PIXEL_RGB
        image = self._ncnn.Mat.from_pixels(np.ascontiguousarray(pixels), kind, width, height)
        extractor = self._net.create_extractor()
        extractor.input(INPUT, image)
        code, found = extractor.extract(OUTPUT)
        if code != 0:
            raise ModelError(f"the model fails on an input of {width}x{height} pixels")
        return raw_boxes(*self._decode(np.asarray(found)))
