"""``squeezedet export``: from a checkpoint or a bundle to a file that an engine runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from squeezedet.cli import options


def export(
    model: Annotated[str, Argument(help="Checkpoint (.safetensors), bundle, or a shipped model.")],
    *,
    out: Annotated[
        Path,
        Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The suffix says the format: .bundle, "
            ".onnx, .xml (OpenVINO), .param (ncnn); for web, frigate, triton and kserve a folder.",
        ),
    ],
    to: Annotated[
        str | None,
        Option(
            metavar="FORMAT",
            help="bundle, onnx, openvino, ncnn, web, frigate, triton or kserve [default: by the suffix of --out].",
        ),
    ] = None,
    fixed: Annotated[str | None, Option(metavar="WxH", help="One size of input; images are stretched to it.")] = None,
    nms: Annotated[bool, Option("--nms", help="Put threshold, NMS and top-N into the graph.")] = False,
    int8: Annotated[bool, Option("--int8", help="Quantize to 8 bits.")] = False,
    calibrate: Annotated[
        Path | None, Option(metavar="DIR|FILE", help="Images to calibrate --int8 on: a folder, or data in any layout.")
    ] = None,
    keep_float: Annotated[list[str] | None, Option(metavar="LAYER", help="Layer that --int8 leaves alone.")] = None,
    name: Annotated[str | None, Option(help="Name of the model [default: its own, or the file's].")] = None,
    licence: Annotated[str | None, Option(help="Licence of the weights, for the card.")] = None,
    data_note: Annotated[str | None, Option(help="What it was trained on, for the card.")] = None,
    data: Annotated[
        Path | None,
        Option(
            metavar="DIR|FILE",
            help="Labelled images: scale a checkpoint's scores so that 0.4 has the best F1 of each class.",
        ),
    ] = None,
    split: Annotated[str, Option(help="Split of --data.")] = "val",
    results: Annotated[Path | None, Option(help="JSON of `evaluate`, for the card [default: the model's].")] = None,
) -> None:
    """Write a model for an engine, pixels in and boxes out, and check that it answers the same.

    Class names, input size, preprocessing and thresholds travel in the file. After writing, the
    model and the file run on the package's picture and the images of --calibrate; the largest
    difference of boxes and scores is printed, and above a tolerance nothing is kept.

    Examples:
      squeezedet export runs/roads/best.safetensors -o roads.bundle --name roads
      squeezedet export roads.bundle -o roads.xml
      squeezedet export street -o model.onnx --fixed 1248x384 --nms
      squeezedet export roads.bundle -o int8.bundle --int8 --calibrate photos
      squeezedet export street --to frigate -o squeezedet
      squeezedet export street --to triton -o models
      squeezedet detect street.jpg --model roads.xml
    """
    given = options.given(locals())
    from squeezedet.exporting.convert import export as export_model

    export_model(**given)
