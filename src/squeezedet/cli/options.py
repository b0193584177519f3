"""Options that several verbs share, each with one spelling and one help text.

A verb takes them by type: ``def export(..., *, out: Out, threads: Threads = None)``. A verb that
needs another help text writes its option itself, under the same name.

``OLD_SPELLINGS`` holds what an option was called before: it works, and no help shows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from squeezedet.errors import SqueezeDetError, UsageError

# Verb -> old name -> name of today, without the dashes.
OLD_SPELLINGS: dict[str, dict[str, str]] = {
    "benchmark": {"data": "images", "json": "out"},
    "compress": {"output": "out"},
    "data": {"json": "out"},
    "energy": {"json": "out"},
    "evaluate": {"json": "out"},
    "export": {"output": "out"},
    "papers": {"json": "out"},
    "profile": {"json": "out"},
    "slim": {"output": "out"},
}


# Parameter of the library -> option of the command line, where the two differ.
PARAMETERS = {
    "annotations": "labels",
    "class_map": "map",
    "class_names": "classes",
    "destination": "out",
    "draws": "bootstrap",
    "folder": "out",
    "min_overlap": "overlap",
    "min_score": "score",
    "output": "out",
    "overlaps": "overlap",
    "path": "out",
    "threshold": "score",
}
QUOTED = r"`([a-z_0-9]+)(=[^`]*)?`"
BEGINS = r"|^([a-z_0-9]+)(?=: )"  # of a usage error; any other may begin with a file's name

Protocol = Literal["kitti", "voc", "coco"]
RuleSet = Literal["paper", "current"]

_MODEL = typer.Option(
    "--model", metavar="NAME|PATH", help="A model that comes with us (`squeezedet models`), or a file."
)
Model = Annotated[str, _MODEL]
ModelDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="In place of --model: the folder that `ota apply` keeps, also when its model changes."
    ),
]
OptionalModel = Annotated[str | None, _MODEL]
Models = Annotated[
    list[str], typer.Argument(metavar="MODEL", help="Models that come with us, or files.", show_default=False)
]
OptionalData = Annotated[
    Path | None, typer.Option(metavar="DIR|FILE", help="Labelled images: KITTI, VOC, COCO or YOLO.")
]
Split = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Split of the data, or all [default: test if there is one, else val]."),
]
JsonOut = Annotated[
    str | None, typer.Option("--out", "-o", metavar="FILE|-", help="Write everything as JSON; - prints it.")
]
Report = Annotated[Path | None, typer.Option(metavar="DIR", help="Write a page with tables and charts.")]
TrustModel = Annotated[
    bool, typer.Option("--trust-model", help="Open a .xml or .param file from elsewhere: it is a program.")
]
RequireSignature = Annotated[
    str | None, typer.Option(metavar="KEYS|package", help="Open only a model that one of these public keys signed.")
]
ReconnectTimes = Annotated[
    int,
    typer.Option(
        "--reconnect",
        min=0,
        metavar="N",
        help="Open a live source that breaks off again, so often in a row, with growing pauses; 0 gives it up.",
    ),
]
Stall = Annotated[
    float, typer.Option(min=0.1, metavar="SECONDS", help="A live source without a frame for longer breaks off.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads [default: all cores].")]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="What computes: auto, cpu, cuda, mps.")]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|auto",
        help="What runs the model: onnxruntime, openvino, ncnn; auto for the fastest [default: the file's own].",
    ),
]
Classes = Annotated[str | None, typer.Option(metavar="A,B,C", help="Classes [default: those of the data].")]
Map = Annotated[
    str | None, typer.Option("--map", metavar="TYPE=CLASS,...", help="Labels of other names: van=car,truck=ignore.")
]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="Input of the network in pixels [default: the model's].")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Look into the folders of a folder, too.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Rules = Annotated[RuleSet, typer.Option(help="KITTI: of the paper's tool (2016), or of the server today.")]


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
        known = options.get(name) or options.get(PARAMETERS.get(name, ""))
        if known is None:
            return found[0].strip("`")
        return known if value in ("", "=True") else f"{known} {value[1:]}"

    pattern = QUOTED + BEGINS if isinstance(error, UsageError) else QUOTED
    return re.sub(pattern, option, str(error))
