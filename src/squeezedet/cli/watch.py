"""``squeezedet watch``: cameras in, counts and events out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from squeezedet.cli import options
from squeezedet.cli.detect import VideoStop, open_window
from squeezedet.cli.options import say, table
from squeezedet.errors import SqueezeDetError, UsageError

if TYPE_CHECKING:
    from rich.live import Live

    from squeezedet.watch.config import Camera, WatchConfig
    from squeezedet.watch.run import Watch

HEAD = ("camera", "where", "class", "direction", "count", "inside")


def watch(
    sources: Annotated[
        list[str] | None,
        Argument(
            metavar="SOURCE",
            help="Video, address or camera, as for detect; with --config that of its only camera.",
            show_default=False,
        ),
    ] = None,
    *,
    config: Annotated[Path | None, Option(metavar="FILE", help="TOML: cameras, lines, zones and events.")] = None,
    line: Annotated[
        list[str] | None, Option(metavar="NAME=X1,Y1,X2,Y2", help="Count what crosses this line, in pixels.")
    ] = None,
    zone: Annotated[
        list[str] | None, Option(metavar="NAME=X1,Y1,X2,Y2,X3,Y3,...", help="Count what is in this polygon.")
    ] = None,
    classes: Annotated[str | None, Option(metavar="A,B", help="These classes only.")] = None,
    model: Annotated[str | None, Option(metavar="NAME|PATH", help="A shipped model or a bundle.")] = None,
    model_dir: options.ModelDir = None,
    score: options.Score = None,
    csv: Annotated[Path | None, Option(metavar="FILE", help="Append records to this CSV file.")] = None,
    jsonl: Annotated[Path | None, Option(metavar="FILE", help="Append records to this file, JSON lines.")] = None,
    sqlite: Annotated[Path | None, Option(metavar="FILE", help="Append records to this SQLite file.")] = None,
    save: Annotated[Path | None, Option(metavar="DIR", help="Write annotated videos into this folder.")] = None,
    show: Annotated[bool, Option("--show", help="Show frames in windows; q closes one and ends.")] = False,
    check: Annotated[
        Path | None, Option(metavar="DIR", help="Only write the first frame of each camera with lines and zones.")
    ] = None,
    live: Annotated[bool, Option("--live", help="Sources are live videos.")] = False,
    reconnect: Annotated[int | None, options.RECONNECT] = None,
    stall_s: Annotated[float | None, options.STALL] = None,
    trust_model: options.TrustModel = False,
    require_signature: options.RequireSignature = None,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Count what crosses lines and what is in zones of videos and cameras, and tell of it.

    A table on the terminal shows the counts; at the end they are printed. What a TOML file can say
    beyond the options (several cameras, events, MQTT) is in docs/watch.md. A source that fails is
    named, and the others go on; the exit code is then not 0.

    Examples:
      squeezedet watch drive.mp4 --line gate=600,200,600,370 --csv counts.csv
      squeezedet watch 0 --zone yard=10,10,300,10,300,200 --sqlite counts.db
      squeezedet watch --config watch.toml --check pictures
      squeezedet watch --config watch.toml
    """
    from squeezedet.watch.run import Watch

    said = {"lines": line, "zones": zone, "classes": classes, "live": live or None}
    settings = _settings(config, sources or [], **options.given(said))
    above = {"model": model, "score": score, "csv": csv, "jsonl": jsonl, "sqlite": sqlite, "save": save}
    settings = replace(settings, **options.given({**above, "reconnect": reconnect, "stall_s": stall_s}))
    if check:
        _check(settings, check)
        return

    detector = options.open_detector(
        settings.model or None, model_dir, threads=threads, trust_model=trust_model, require_signature=require_signature
    )
    with VideoStop() as stop:
        run = Watch(settings, detector, say, (lambda sentence: None) if quiet else say)
        with run, ExitStack() as stack:
            if show:
                for camera, sinks in zip(settings.cameras, run.sinks, strict=True):
                    sinks.append(stack.enter_context(open_window(camera.name, stop)))
            if sys.stdout.isatty() and not quiet:
                stack.enter_context(_live_table(run))
            run.run(stop.before)
        if not quiet:
            table([HEAD, *run.counts()], left=(0, 1, 2, 3))
    if stop.asked:
        raise KeyboardInterrupt
    if run.failures:
        raise typer.Exit(max(run.failures))


def _settings(path: Path | None, sources: Sequence[str], **places: Any) -> WatchConfig:
    """The configuration of a file or of options."""
    from squeezedet.watch.config import WatchConfig, read_config

    if path is None:
        if not sources:
            raise UsageError("there is nothing to watch: name a SOURCE, or a file with --config")
        return WatchConfig(cameras=tuple(_cameras(sources, **places)))
    if places:
        raise UsageError("--line, --zone, --classes and --live are for a SOURCE; with --config the file says them")
    settings = read_config(path)
    if sources:
        if len(sources) != 1 or len(settings.cameras) != 1:
            raise UsageError(f"{path}: a SOURCE replaces that of the only camera, and there are several")
        settings = replace(settings, cameras=(replace(settings.cameras[0], source=sources[0]),))
    return settings


def _cameras(
    sources: Sequence[str],
    lines: Sequence[str] = (),
    zones: Sequence[str] = (),
    classes: Sequence[str] = (),
    live: bool = False,
) -> list[Camera]:
    from squeezedet.watch.config import Line, Zone, cameras_of

    gates = []
    for name, points in map(_place, lines):
        if len(points) != 2:
            raise UsageError(f"`line`: {name!r} has {len(points)} points, not two")
        gates.append(Line(name=name, points=(points[0], points[1])))
    areas = [Zone(name=name, points=tuple(points)) for name, points in map(_place, zones)]
    return [
        replace(camera, classes=tuple(classes), lines=tuple(gates), zones=tuple(areas))
        for camera in cameras_of(sources, live=live)
    ]


def _place(text: str) -> tuple[str, list[tuple[float, float]]]:
    """``gate=1,2,3,4`` to a name and points."""
    name, _, numbers = text.partition("=")
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError:
        values = []
    if not values or len(values) % 2:
        raise UsageError(f"{text!r} is not NAME=X1,Y1,X2,Y2 with pixels, as in gate=600,200,600,370")
    return name, list(zip(values[::2], values[1::2], strict=True))


def _check(settings: WatchConfig, folder: Path) -> None:
    from squeezedet.watch.run import check

    made = check(settings, folder)
    for one in made:
        if isinstance(one, SqueezeDetError):
            say(one)
        else:
            print(one)
    codes = [one.exit_code for one in made if isinstance(one, SqueezeDetError)]
    if codes:
        raise typer.Exit(max(codes))


def _live_table(run: Watch) -> Live:
    """A table of counts on the terminal that follows the run."""
    from rich.live import Live
    from rich.table import Table

    def counts() -> Any:
        drawn = Table(*HEAD)
        for scene, state, frames in zip(run.scenes, run.states, run.frames, strict=True):
            drawn.add_row(scene.camera.name, f"{state}, {frames} frames")
        for row in run.counts():
            drawn.add_row(*row)
        return drawn

    return Live(get_renderable=counts, refresh_per_second=2, transient=True)
