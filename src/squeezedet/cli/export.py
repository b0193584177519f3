"""``squeezedet export``: from a checkpoint or a bundle to a file that an engine runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """\
  squeezedet export runs/roads/best.safetensors -o roads.bundle --name roads
  squeezedet export roads.bundle -o roads.xml
  squeezedet export street -o model.onnx --fixed 1248x384 --nms
  squeezedet export roads.bundle -o int8.bundle --int8 --calibrate photos
  squeezedet export street --to frigate -o squeezedet
  squeezedet export street --to triton -o models
  squeezedet detect street.jpg --model roads.xml
"""


def export(
    model: Annotated[str, typer.Argument(help="Checkpoint (.safetensors), bundle, or a shipped model.")],
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The suffix says the format: .bundle, "
            ".onnx, .xml (OpenVINO), .param (ncnn); for web, frigate, triton and kserve a folder.",
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="bundle, onnx, openvino, ncnn, web, frigate, triton or kserve [default: by the suffix of --out].",
        ),
    ] = None,
    fixed: Annotated[
        str | None, typer.Option(metavar="WxH", help="One size of input; every image is stretched to it.")
    ] = None,
    nms: Annotated[bool, typer.Option("--nms", help="Put threshold, NMS and top-N into the graph.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Quantize to 8 bits.")] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="DIR|FILE", help="Images to calibrate --int8 on: a folder, or a data set in any layout."),
    ] = None,
    keep_float: Annotated[
        list[str] | None, typer.Option("--keep-float", metavar="LAYER", help="Layer that --int8 leaves alone.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model [default: its own, or the file's].")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, for the card.")] = None,
    data_note: Annotated[str | None, typer.Option(help="What it was trained on, for the card.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE",
            help="Labelled images: scale a checkpoint's scores so that 0.4 has the best F1 of each class.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of --data.")] = "val",
    results: Annotated[
        Path | None, typer.Option(help="JSON of `squeezedet evaluate`, for the card [default: the model's].")
    ] = None,
) -> None:
    """Write a model for an engine, pixels in and boxes out, and check that it answers the same.

    Class names, input size, preprocessing and thresholds travel in the file. After writing, the
    model and the file run on the package's picture and the images of --calibrate; the largest
    difference of boxes and scores is printed, and above a tolerance nothing is kept.
    """
    from squeezedet.exporting.convert import export as export_model
    from squeezedet.text import parse_size

    export_model(
        model,
        out,
        to=to,
        fixed=parse_size(fixed, "fixed") if fixed else None,
        nms=nms,
        int8=int8,
        calibrate=calibrate,
        keep_float=keep_float or (),
        name=name,
        licence=licence,
        data_note=data_note,
        data=data,
        split=split,
        results=results,
    )
