"""The command: a table of verbs, each imported only when it is called.

A verb is one module with a function of the verb's name (its parameters are the
options, its docstring the help) and ``EXAMPLES``, shown below the help. A verb with
verbs of its own has a ``typer.Typer`` of that name in place of the function.

The library's errors name parameters, never options: a message writes them in backticks
(`` `score`: 2 is not between 0 and 1 ``, `` continue with `resume=True` ``), or begins with
one and a colon. Here each becomes the option of the verb that was called (``--score``,
``--resume``); where the verb's option has another name, ``PARAMETERS`` says which.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from squeezedet.cli.options import OLD_SPELLINGS, with_options
from squeezedet.errors import MissingExtraError, SqueezeDetError, UsageError
from squeezedet.files import SIGNALS
from squeezedet.version import __version__

# Verb -> (module, what `squeezedet --help` says of it; "" for a verb that is hidden).
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("squeezedet.cli.demo", "Detect in the picture that comes with the package."),
    "detect": ("squeezedet.cli.detect", "Find cars, pedestrians and cyclists in images."),
    "watch": ("squeezedet.cli.watch", "Count what crosses lines and stays in zones, and tell."),
    "label": ("squeezedet.cli.label", "Detect in millions of images, with many processes."),
    "mine": ("squeezedet.cli.mine", "Find the frames that are worth a person's labels."),
    "train": ("squeezedet.cli.train", "Train a detector on labelled images."),
    "evaluate": ("squeezedet.cli.evaluate", "Say how good a detector is, as KITTI, VOC, COCO do."),
    "export": ("squeezedet.cli.export", "Write a model for an engine: ONNX, OpenVINO, ncnn, web."),
    "compress": ("squeezedet.cli.compress", "Make a model small: prune, share weights, encode."),
    "slim": ("squeezedet.cli.slim", "Make a network narrower and faster: fewer channels."),
    "benchmark": ("squeezedet.cli.benchmark", "Time models in engines, stage by stage."),
    "profile": ("squeezedet.cli.profile", "Count parameters, operations and memory of a network."),
    "serve": ("squeezedet.cli.serve", "Answer over HTTP: a page, an API, metrics."),
    "sign": ("squeezedet.cli.sign", "Sign a model, or check its signature."),
    "ota": ("squeezedet.cli.ota", "Send models to devices over the air: signed, as deltas, tested."),
    "models": ("squeezedet.cli.models", "List the models that come with the package."),
    "data": ("squeezedet.cli.data", "Examine, convert and draw labelled data; find anchors."),
    "papers": ("squeezedet.cli.papers", "The papers' tables: compare, energy, tables."),
    "classify": ("squeezedet.cli.classify", ""),
    "compare": ("squeezedet.cli.papers", ""),
    "energy": ("squeezedet.cli.papers", ""),
}

# Package that a verb imports -> the extra that has it.
EXTRAS = {
    **dict.fromkeys(("torch", "onnx", "onnxscript", "jinja2", "tomli_w"), "train"),
    **dict.fromkeys(("fastapi", "h11", "prometheus_client", "uvicorn", "websockets"), "serve"),
    **dict.fromkeys(("fsspec", "pyarrow", "ray", "s3fs"), "fleet"),
}

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
"""What a shell reports of a program that a closed pipe ended (128 + SIGPIPE)."""
DEVICE_ERRORS = (errno.ENOSPC, errno.EFBIG, errno.EIO)
"""What a stream says that is full or broken: no bug of ours."""


class LazyCommands(Mapping[str, Any]):
    """The commands of ``VERBS``, built when they are asked for.

    Only the names are known before; that is all that help and "did you mean" need.
    """

    def __getitem__(self, name: str) -> Any:
        module = import_module(VERBS[name][0])
        verb = getattr(module, name)
        if not isinstance(verb, typer.Typer):
            single = typer.Typer(rich_markup_mode=None, add_completion=False)
            single.command(name, epilog=f"\b\nExamples:\n{module.EXAMPLES}")(verb)
            verb = single
        command = get_command(verb)
        for one in (command, *getattr(command, "commands", {}).values()):
            _take_old_spellings(one, OLD_SPELLINGS.get(name, {}))
            _explain_errors(one)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(VERBS)

    def __len__(self) -> int:
        return len(VERBS)


def _take_old_spellings(command: Any, old: Mapping[str, str]) -> None:
    """Let options be called as they were before."""
    if old:
        command.context_settings["token_normalize_func"] = lambda name: old.get(name, name)


def _explain_errors(command: Any) -> None:
    """Let the errors of a command name its options for the library's parameters, and extras for their packages."""
    callback = command.callback
    if callback is None:
        return

    @wraps(callback)
    def call(*positional: Any, **values: Any) -> Any:
        try:
            return callback(*positional, **values)
        except SqueezeDetError as error:
            error.args = (with_options(error, command.params), *error.args[1:])
            raise
        except ModuleNotFoundError as error:
            extra = EXTRAS.get((error.name or "").partition(".")[0])
            if extra is None:
                raise
            raise MissingExtraError(command.name, extra) from error

    command.callback = call


class Verbs(TyperGroup):
    """The group of all verbs; turns the package's errors into a sentence and an exit code."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        commands: Any = LazyCommands()  # only ever read
        self.commands = commands

    def list_commands(self, ctx: Any) -> list[str]:
        """Names only: the inherited method would import every verb."""
        return [name for name, (_, short) in VERBS.items() if short]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The verbs in the help, from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in VERBS.items() if short])

    def invoke(self, ctx: Any) -> Any:
        """Run the verb. Errors that are not the package's own are bugs and show their traceback."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except SqueezeDetError as error:
            print(f"squeezedet: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            print("squeezedet: interrupted", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from error
        except BrokenPipeError as error:
            _discard_output()  # whoever read it has enough (`| head`)
            raise typer.Exit(EXIT_BROKEN_PIPE) from error
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            print(f"squeezedet: {error.filename}: the name is too long", file=sys.stderr)
            raise typer.Exit(UsageError.exit_code) from error
        return result


def _discard_output() -> None:
    """What is still buffered must go somewhere, or the interpreter complains when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"squeezedet {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Verbs,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "\b\nExamples:\n"
        "  squeezedet demo\n"
        "  squeezedet detect street.jpg --save annotated\n\n"
        "Exit codes: 0 done, 1 run time, 2 usage, 3 data (an image could not be used), 4 model."
    ),
)


@app.callback()
def squeezedet(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Small, fast, frugal object detectors for cameras on the road."""


def main() -> None:
    """Entry point of the ``squeezedet`` command."""
    _mend_streams()
    # A polite kill is an interrupt: unfinished files are removed.
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves SIGHUP
            signal.signal(number, signal.default_int_handler)
    # Pillow warns of metadata that it cannot read; nobody here can do anything about it.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        try:
            app(prog_name="squeezedet")
        finally:
            sys.stdout.flush()  # what fails must fail here, not when the interpreter ends
    except KeyboardInterrupt:
        print("squeezedet: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        _discard_output()
        sys.exit(EXIT_BROKEN_PIPE)
    except OSError as error:
        if error.errno not in DEVICE_ERRORS:
            raise
        print(f"squeezedet: the output cannot be written ({error.strerror})", file=sys.stderr)
        _discard_output()
        sys.exit(1)


def _mend_streams() -> None:
    """Let every standard stream exist and take every name."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the shell (`>&-`)
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - it stays
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold bytes that are no text, or signs that the terminal cannot show.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
