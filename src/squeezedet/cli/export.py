"""``squeezedet export``: from a checkpoint or a bundle to a file that an engine runs."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from squeezedet.export.convert import ExportOptions
    from squeezedet.runtime.bundle import Bundle

EXAMPLES = """\
  squeezedet export runs/roads/best.safetensors -o roads.bundle --name roads
  squeezedet export roads.bundle -o roads.xml
  squeezedet export squeezedet -o model.onnx --fixed 1248x384 --nms
  squeezedet export squeezedet -o int8.bundle --int8 --calibrate photos
  squeezedet detect street.jpg --model roads.xml
"""


def export(
    model: Annotated[
        str, typer.Argument(help="Checkpoint (.safetensors), bundle, or a shipped model.")
    ],
    *,
    output: Annotated[Path, typer.Option("--out", "-o", help="File to write; for web a folder.")],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="bundle, onnx, openvino, ncnn, torchscript or web [default: by the suffix of "
            "--out].",
        ),
    ] = None,
    fixed: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="One size of input; every image is stretched to it."),
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Refuse a model that takes one size only.")
    ] = False,
    nms: Annotated[
        bool, typer.Option("--nms", help="Put threshold, NMS and top-N into the graph.")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Quantise to 8 bits.")] = False,
    calibrate: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of images to calibrate --int8 on.")
    ] = None,
    keep_float: Annotated[
        list[str] | None,
        typer.Option("--keep-float", metavar="LAYER", help="Layer that --int8 leaves alone."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model [default: its own, or squeezedet].")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "",
    data_note: Annotated[str, typer.Option(help="What it was trained on, for the card.")] = "",
    data: Annotated[
        Path | None,
        typer.Option(help="KITTI folder: move the scores so that 0.4 has the best F2 on it."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of --data.")] = "val",
    results: Annotated[
        Path | None,
        typer.Option(help="JSON of `squeezedet evaluate`, for the card [default: the model's]."),
    ] = None,
) -> None:
    """Write a model for an engine, pixels in and boxes out, and check that it answers the same.

    Class names, input size, preprocessing and thresholds travel in the file. After writing, the
    model and the file run on the package's picture and the images of --calibrate; the largest
    difference of boxes and scores is printed, and above a tolerance nothing is kept.
    """
    from squeezedet.export.convert import WEB, ExportOptions, convert, format_of
    from squeezedet.text import parse_size

    wish = ExportOptions(
        to=format_of(output, to),
        fixed=parse_size(fixed, "--fixed") if fixed else None,
        dynamic=dynamic,
        nms=nms,
        int8=int8,
        pictures=_pictures(calibrate) if calibrate else (),
        keep_float=tuple(keep_float or ()),
    )
    measured = _json(results) if results else None
    if _is_model(model):
        found = _relabelled(model, name, licence, data_note, measured, data)
    else:
        found = _from_checkpoint(
            Path(model), name or "squeezedet", licence, data_note, measured, data, split
        )
    if int8 and "compression" in found.card.training:
        print(
            f"squeezedet: the weights of {found.card.name} share few values already, and int8 "
            "costs such a model more accuracy than the float model that it was made of",
            file=sys.stderr,
        )
    if wish.to == WEB:
        _write_page(found, output, wish)
    else:
        convert(found, output, wish)
    print(f"{found.card.parameters:,} parameters")


def _is_model(model: str) -> bool:
    """Whether it is a finished model, or would be one if it were there, and no checkpoint."""
    from squeezedet.runtime import bundle, exported

    path = Path(model)
    if bundle.is_shipped(model) or path.suffix in bundle.SUFFIXES or exported.is_exported(path):
        return True
    if path.is_file():
        return bundle.is_bundle(path)
    return not path.suffix and not path.exists()  # a name that is not shipped


def _relabelled(
    model: str, name: str | None, licence: str, data_note: str, measured: Any, data: Path | None
) -> Bundle:
    """A finished model, with what its card shall say instead."""
    from squeezedet.errors import UsageError
    from squeezedet.runtime import bundle

    if data:
        raise UsageError("--data: scores are moved when a checkpoint is exported, not in a bundle")
    found = bundle.read(bundle.find(model))
    values = {"name": name, "licence": licence, "data": data_note, "results": measured}
    card = replace(found.card, **{key: value for key, value in values.items() if value})
    return replace(found, card=card)


def _from_checkpoint(
    path: Path,
    name: str,
    licence: str,
    data_note: str,
    measured: Any,
    data: Path | None,
    split: str,
) -> Bundle:
    from squeezedet.errors import MissingExtraError

    try:
        from squeezedet.export.bundle import UNKNOWN, bundle_checkpoint
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "squeezedet":
            raise
        raise MissingExtraError("export", "train") from error
    from squeezedet.data.kitti import read_folder

    return bundle_checkpoint(
        path,
        name,
        licence=licence or UNKNOWN,
        data=data_note or UNKNOWN,
        results=measured,
        calibrate_on=read_folder(data, split) if data else (),
    )


def _write_page(original: Bundle, folder: Path, wish: ExportOptions) -> None:
    from squeezedet.export.convert import check_parity, transform
    from squeezedet.export.web import export_site

    model = transform(original, wish)
    if model is not original:
        print(check_parity(original, model, wish.pictures))
    export_site(model, folder)
    print(f"wrote {folder}, a page for any static host; to look at it here:")
    print(f"  python -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(folder))} 8080")
    print("  and open http://127.0.0.1:8080/ in a browser")


def _json(path: Path) -> Any:
    from squeezedet.errors import DataError

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a JSON file that can be read: {error}") from error


def _pictures(folder: Path) -> tuple[Path, ...]:
    """The images of a folder, by name."""
    from squeezedet.errors import DataError
    from squeezedet.files import IMAGE_SUFFIXES

    try:
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise DataError(f"--calibrate: {folder}: {error.strerror or error}") from error
    if not found:
        raise DataError(f"--calibrate: {folder}: no images in this folder")
    return tuple(found)
