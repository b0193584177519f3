"""``squeezedet data doctor``: read all of a data set before training, and say what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from squeezedet.data.doctor.examine import Diagnosis
    from squeezedet.runtime.preprocess import InputRule

EXAMPLES = """\
  squeezedet data doctor roads
  squeezedet data doctor data.yaml --size 640x640 --json doctor.json --pictures doctor
"""


def doctor(
    data: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="KITTI, VOC, COCO or YOLO data.")
    ],
    *,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Input size that training shall use.")
    ] = "1248x384",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE|-", help="Write everything as JSON.")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the worst examples and a chart of box sizes."),
    ] = None,
) -> None:
    """Read every label and image of a data set, and report what would harm a training.

    Errors (exit code 3) would stop a training or make its figures wrong; warnings deserve a
    look; notes are good to know. Each names where. --json lists every place.
    """
    from squeezedet.data.doctor.examine import examine
    from squeezedet.data.doctor.finding import Level, some
    from squeezedet.data.doctor.pictures import check_folder, write_pictures
    from squeezedet.data.doctor.report import describe
    from squeezedet.errors import DataError
    from squeezedet.media.output import check_file

    rule = input_rule(size)
    to_stdout = str(json_file) == "-"
    if json_file and not to_stdout:
        check_file(json_file)
    diagnosis = examine(data, rule)
    if pictures:
        check_folder(pictures, diagnosis)
    if not to_stdout:
        print(describe(diagnosis))
    if json_file:
        _write_json(None if to_stdout else json_file, diagnosis)
    if pictures:
        written = write_pictures(pictures, diagnosis)
        if not to_stdout:
            print(f"pictures: {some(len(written), 'file')} in {pictures}")
    errors = diagnosis.count(Level.error)
    if errors:
        raise DataError(f"{data}: {some(errors, 'error')} to mend before training")


def input_rule(size: str) -> InputRule:
    """The rule of ``--size``: an image keeps its shape and gets at most so many pixels.

    Raises:
        UsageError: it is not two multiples of 16.
    """
    from squeezedet.errors import UsageError
    from squeezedet.runtime.preprocess import InputRule

    try:
        width, height = (int(side) for side in size.lower().split("x"))
    except ValueError:
        raise UsageError(f"--size: {size!r} is not WIDTHxHEIGHT, for example 1248x384") from None
    try:
        return InputRule(width, height)
    except ValueError as error:
        raise UsageError(f"--size {size}: {error}") from error


def _write_json(path: Path | None, diagnosis: Diagnosis) -> None:
    """To a file, or to standard output."""
    import json

    from squeezedet.data.doctor.report import to_dict
    from squeezedet.media.output import text_file

    text = json.dumps(to_dict(diagnosis), indent=2)
    if path is None:
        print(text)
        return
    with text_file(path) as file:
        file.write(text + "\n")
