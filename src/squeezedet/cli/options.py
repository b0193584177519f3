"""What the verbs share: options with one spelling and one help text, and how tables, JSON and sentences are printed.

A verb takes an option by type: ``def profile(..., *, size: Size = None)``. A verb that needs another help text writes
its option itself, under the same name.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from squeezedet.errors import SqueezeDetError, UsageError
from squeezedet.files import check_file, write_atomic
from squeezedet.runtime import DEFAULT_MODEL
from squeezedet.text import align, parse_size

if TYPE_CHECKING:
    from squeezedet.runtime.detector import Detector

STDOUT = "-"

QUOTED = r"`([a-z_0-9]+)(=[^`]*)?`"
BEGINS = r"|^([a-z_0-9]+)(?=: )"  # of a usage error; any other may begin with a file's name

Protocol = Literal["kitti", "voc", "coco"]
RuleSet = Literal["paper", "current"]

_MODEL = Option("--model", metavar="NAME|PATH", help="A model that comes with us (`squeezedet models`), or a file.")
Model = Annotated[str, _MODEL]
ModelDir = Annotated[
    Path | None,
    Option(metavar="DIR", help="In place of --model: the folder that `ota apply` keeps, also when its model changes."),
]
OptionalModel = Annotated[str | None, _MODEL]
GivenModel = Annotated[
    str | None,
    Option(
        "--model", metavar="NAME|PATH", help=f"One of ours (`squeezedet models`), or a file [default: {DEFAULT_MODEL}]."
    ),
]
Models = Annotated[list[str], Argument(metavar="MODEL", help="Models that come with us, or files.", show_default=False)]
OptionalData = Annotated[Path | None, Option(metavar="DIR|FILE", help="Labelled images: KITTI, VOC, COCO or YOLO.")]
Split = Annotated[str | None, Option(metavar="NAME", help="Split of the data, or all [default: test, or else val].")]
JsonOut = Annotated[str | None, Option("--out", "-o", metavar="FILE|-", help="Write everything as JSON; - prints it.")]
TrainSplit = Annotated[str, Option(help="Split to learn from.")]
TrustModel = Annotated[bool, Option("--trust-model", help="Open a foreign .xml or .param file: it is a program.")]
RequireSignature = Annotated[
    str | None, Option(metavar="KEYS|package", help="Open only models that these keys signed.")
]
RECONNECT = Option(
    "--reconnect",
    min=0,
    metavar="N",
    help="Open a live source that breaks off again, so often in a row, with growing pauses; 0 gives it up.",
)
STALL = Option("--stall", min=0.1, metavar="SECONDS", help="A live source silent for longer breaks off.")
Score = Annotated[float | None, Option(min=0, max=1, help="Lowest score to report [default: the model's own].")]
Threads = Annotated[int | None, Option(min=1, max=1024, help="Processor threads [default: all cores].")]
Device = Annotated[str | None, Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1, ... or mps.")]
Engine = Annotated[
    str | None,
    Option(
        metavar="NAME|auto",
        help="What runs the model: onnxruntime, openvino, ncnn; auto for the fastest [default: the file's own].",
    ),
]
Classes = Annotated[str | None, Option(metavar="A,B,C", help="Classes [default: those of the data].")]
Map = Annotated[str | None, Option("--map", metavar="TYPE=CLASS", help="Labels of other names: van=car,truck=ignore.")]
Size = Annotated[str | None, Option(metavar="WxH", help="Input of the network in pixels [default: the model's].")]
Recursive = Annotated[bool, Option("--recursive", "-r", help="Look into the folders of a folder, too.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="Print nothing but errors.")]
Rules = Annotated[RuleSet, Option(help="KITTI: of the paper's tool (2016), or of the server today.")]


def names_of(text: str | None) -> list[str] | None:
    """``--classes car,pedestrian`` as names; None if it is not given.

    Raises:
        UsageError: a name is empty.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UsageError(f"classes: {text!r} has an empty name; write them as car,pedestrian")
    return names


def mapping_of(text: str | None) -> dict[str, str] | None:
    """``--map van=car,truck=ignore`` as a mapping; None if it is not given.

    Raises:
        UsageError: a part is not TYPE=CLASS, or a type stands there twice.
    """
    if text is None:
        return None
    mapping: dict[str, str] = {}
    for part in text.split(","):
        source, equals, target = (word.strip() for word in part.partition("="))
        if not (source and equals and target):
            raise UsageError(f"map: {part!r} is not TYPE=CLASS, as in van=car,truck=ignore")
        if source in mapping:
            raise UsageError(f"map: {source} stands there twice")
        mapping[source] = target
    return mapping


READERS: dict[str, Callable[[str], Any]] = {
    "classes": names_of,
    "mapping": mapping_of,
    "size": parse_size,
    "fixed": partial(parse_size, parameter="fixed"),
    "frozen": tuple,
}
"""By the name of an option, how its text becomes what the library takes."""


def given(options: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """The options of a verb (its ``locals()``) that have a value, as arguments of those names for the library."""
    return {
        name: READERS[name](value) if name in READERS else value
        for name, value in options.items()
        if value is not None and name not in without
    }


def open_detector(model: str | None, folder: Path | None, **options: Any) -> Detector:
    """The detector of a model, the default one for None, or one that follows a folder.

    A UsageError if both are named; else errors as of ``load``.
    """
    if folder is None:
        from squeezedet.runtime.detector import load

        return load(model or DEFAULT_MODEL, **options)
    if model is not None:
        raise UsageError("`model` and `model_dir`: give one of the two")
    from squeezedet.ota.device import FollowingDetector

    return FollowingDetector(folder, say, **options)


def with_options(error: SqueezeDetError, parameters: Iterable[Any]) -> str:
    """The message of an error in which the options of a command stand for its parameters.

    Args:
        error: names parameters in backticks, or one at its beginning before a colon.
        parameters: of the command, as Click has them.
    """
    options = {
        name: max(p.opts, key=len)
        for p in parameters
        if p.param_type_name == "option"
        for name in (p.name, max(p.opts, key=len).strip("-").replace("-", "_"))
    }

    def option(found: re.Match[str]) -> str:
        name, value = next(filter(None, found.groups()[::2])), found[2] or ""
        known = options.get(name)
        if known is None:
            return found[0].strip("`")
        return known if value in ("", "=True") else f"{known} {value[1:]}"

    pattern = QUOTED + BEGINS if isinstance(error, UsageError) else QUOTED
    return re.sub(pattern, option, str(error))


def say(sentence: object) -> None:
    """A note, a warning or an error: a line on standard error."""
    print(f"squeezedet: {sentence}", file=sys.stderr)


def table(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> None:
    """Print a table, its first row the heading: drawn on a terminal, aligned text anywhere else.

    Args:
        rows: all of one length.
        left: columns that are aligned to the left; numbers go to the right.
    """
    if not sys.stdout.isatty():
        print(align(rows, left=left, indent="  "))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, cell in enumerate(rows[0]):
        drawn.add_column(Text(cell), justify="left" if i in left else "right")
    for row in rows[1:]:
        drawn.add_row(*map(Text, row))
    Console().print(drawn)


def check_target(target: str | Path | None) -> None:
    """Before long work: whether ``write_json`` will be able to write there.

    Raises:
        UsageError: it will not.
    """
    if target is not None and str(target) != STDOUT:
        check_file(Path(target))


def write_json(target: str | Path | None, values: Any) -> None:
    """Values as JSON into a file, or with ``-`` on standard output; nothing without a target.

    Raises:
        SqueezeDetError: the file cannot be written.
    """
    if target is None:
        return
    content = json.dumps(values, indent=2)
    if str(target) == STDOUT:
        print(content)
    else:
        write_atomic(Path(target), content + "\n")
