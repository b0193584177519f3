"""The command: a table of verbs, each imported only when it is called.

A verb is a function of its name: its parameters are the options, its docstring the help, of which the section
"Examples" is shown last. A verb with verbs of its own is a tuple of such functions.

The library's errors name parameters, never options: a message writes them in backticks
(`` `score`: 2 is not between 0 and 1 ``, `` continue with `resume=True` ``), or begins with
one and a colon. Here each becomes the option of the verb that was called (``--score``, ``--resume``).
"""

from __future__ import annotations

import errno
import inspect
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from squeezedet.cli.options import say, with_options
from squeezedet.errors import MissingExtraError, SqueezeDetError, UsageError
from squeezedet.files import SIGNALS
from squeezedet.version import __version__

# Verb -> (module of squeezedet.cli, what `squeezedet --help` says of it; "" for a verb that is hidden).
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("detect", "Detect in the picture that comes with the package."),
    "detect": ("detect", "Find cars, pedestrians and cyclists in images."),
    "watch": ("watch", "Count what crosses lines and stays in zones, and tell."),
    "label": ("fleet", "Detect in millions of images, with many processes."),
    "mine": ("fleet", "Find the frames that are worth a person's labels."),
    "train": ("train", "Train a detector on labelled images."),
    "evaluate": ("evaluate", "Say how good a detector is, as KITTI, VOC, COCO do."),
    "export": ("export", "Write a model for an engine: ONNX, OpenVINO, ncnn, web."),
    "compress": ("compress", "Make a model small: prune, share weights, encode."),
    "slim": ("compress", "Make a network narrower and faster: fewer channels."),
    "benchmark": ("costs", "Time models in engines, stage by stage."),
    "profile": ("costs", "Count parameters, operations and memory of a network."),
    "serve": ("serve", "Answer over HTTP: a page, an API, metrics."),
    "sign": ("models", "Sign a model, or check its signature."),
    "ota": ("ota", "Send models to devices over the air: signed, as deltas, tested."),
    "models": ("models", "List the models that come with the package."),
    "data": ("data", "Examine, convert and draw labelled data; find anchors."),
    "papers": ("papers", "The papers' tables: compare, energy, tables."),
    "classify": ("papers", ""),
}

# Verb -> what an option was called before -> its name: the old one works, and no help shows it.
OLD_SPELLINGS: dict[str, dict[str, str]] = {
    **{verb: {"--json": "--out"} for verb in ("classify", "evaluate", "profile", "data", "papers")},
    **{verb: {"--output": "--out"} for verb in ("demo", "export", "compress", "slim")},
    "detect": {"--json": "--out", "--output": "--out"},
    "benchmark": {"--json": "--out", "--data": "--images"},
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


PLAIN: dict[str, Any] = {"rich_markup_mode": None, "no_args_is_help": True}
EPILOG = "\b\nExamples:\n"


class LazyCommands(Mapping[str, Any]):
    """The commands of ``VERBS``, built when they are asked for.

    Only the names are known before; that is all that help and "did you mean" need.
    """

    def __getitem__(self, name: str) -> Any:
        module, short = VERBS[name]
        found = getattr(import_module(f"squeezedet.cli.{module}"), name)
        verbs = found if isinstance(found, tuple) else (found,)
        helps = [(inspect.getdoc(verb) or "").partition("\n\nExamples:\n") for verb in verbs]
        together = "\n".join(examples for _, _, examples in helps)
        made = typer.Typer(**PLAIN, add_completion=False, help=short, epilog=EPILOG + together)
        for verb, (text, _, examples) in zip(verbs, helps, strict=True):
            made.command(verb.__name__, help=text, epilog=EPILOG + examples)(verb)
        command = get_command(made)
        for one in (command, *getattr(command, "commands", {}).values()):
            _take_old_spellings(one, OLD_SPELLINGS.get(name, {}))
            _explain_errors(one)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(VERBS)

    def __len__(self) -> int:
        return len(VERBS)


def _take_old_spellings(command: Any, old: Mapping[str, str]) -> None:
    """Let options be called as they were before. Click's own ``token_normalize_func`` would rename choices, too."""
    parse = command.parse_args

    def today(word: str) -> str:
        option, equals, value = word.partition("=")
        return f"{old.get(option, option)}{equals}{value}"

    command.parse_args = lambda context, words: parse(context, [today(word) for word in words])


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
        """Run the verb."""
        with _one_sentence():
            return super().invoke(ctx)


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Make what ends a command a sentence and an exit code. Other errors are bugs and show their traceback."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # what fails must fail here, not when the interpreter ends
    except SqueezeDetError as error:
        sentence, code = str(error), error.exit_code
    except KeyboardInterrupt:
        sentence, code = "interrupted", EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read it has enough (`| head`)
        _discard_output()
        sys.exit(EXIT_BROKEN_PIPE)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            sentence, code = f"{error.filename}: the name is too long", UsageError.exit_code
        elif error.errno in (errno.EACCES, errno.EPERM) and error.filename:
            sentence, code = f"{error.filename}: may not be opened ({error.strerror})", UsageError.exit_code
        elif error.errno in DEVICE_ERRORS:
            _discard_output()
            sentence, code = f"the output cannot be written ({error.strerror})", 1
        else:
            raise
    else:
        return
    say(sentence)
    sys.exit(code)


def _discard_output() -> None:
    """What is still buffered must go somewhere, or the interpreter complains when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"squeezedet {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Verbs,
    **PLAIN,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        f"{EPILOG}  squeezedet demo\n"
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
    with _one_sentence():
        app(prog_name="squeezedet")


def _mend_streams() -> None:
    """Let every standard stream exist and take every name."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the shell (`>&-`)
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - it stays
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold bytes that are no text, or signs that the terminal cannot show.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
