from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from squeezedet.cli import main as cli
from squeezedet.errors import DataError, ModelError, SqueezeDetError, UsageError
from squeezedet.version import __version__

HEAVY = ("torch", "numpy", "onnxruntime", "PIL", "rich", "matplotlib")
RUN = "from squeezedet.cli.main import main; main()"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"squeezedet {__version__}\n")


def test_help_names_every_verb() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for verb, (_, short) in cli.VERBS.items():
        assert (f"\n  {verb} " in result.stdout) == bool(short)
        assert short in " ".join(result.stdout.split())


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom squeezedet.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = python(code, "--help")
    assert done.stdout.splitlines()[-1] == "[]"
    assert "detect" in done.stdout


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_of_a_verb_imports_no_torch_and_has_an_example(verb: str) -> None:
    code = (
        "import sys\nfrom squeezedet.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = python(code, verb, "--help")
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    examples = done.stdout.partition("Examples:")[2]
    assert re.search(rf"squeezedet {verb}\b", examples)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_examples_stay_within_a_terminal(verb: str) -> None:
    command = cli.LazyCommands()[verb]
    for one in (command, *getattr(command, "commands", {}).values()):
        assert max(map(len, one.epilog.splitlines())) <= 98


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("detct",), "Did you mean 'detect'?"),
        (("detect",), "Missing argument 'SOURCE'"),
        (("detect", "a.jpg", "--scroe", "1"), "--score"),
        (("detect", "a.jpg", "--score", "2"), "--score"),
        (("detect", "a.jpg", "--format", "xml"), "jsonl"),
        (("detect", "a.jpg", "--threads", "0"), "--threads"),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stdout == ""


@pytest.fixture
def failing_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    """A verb ``fail`` that raises what ``Failing.error`` holds."""

    class Failing:
        error: BaseException

    def fail() -> None:
        raise Failing.error

    module = type(sys)("failing_verb")
    module.fail = fail
    monkeypatch.setitem(sys.modules, "squeezedet.cli.failing_verb", module)
    monkeypatch.setitem(cli.VERBS, "fail", ("failing_verb", "Fail."))
    return Failing


@pytest.mark.parametrize(("kind", "code"), [(SqueezeDetError, 1), (UsageError, 2), (DataError, 3), (ModelError, 4)])
def test_own_errors_are_one_line_and_an_exit_code(failing_verb: type, kind: type[SqueezeDetError], code: int) -> None:
    failing_verb.error = kind("street.jpg: no such file")
    result = run("fail")
    assert (result.exit_code, result.stderr) == (code, "squeezedet: street.jpg: no such file\n")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (UsageError("`score`: 2 is above 1"), "--score: 2 is above 1"),
        (UsageError("score: 2 is above 1"), "--score: 2 is above 1"),
        (UsageError("continue with `track=True`, `max_pixels=9`"), "with --track, --max-pixels 9"),
        (UsageError("`unheard_of` is `None`"), "unheard_of is `None`"),
        (DataError("score: no such file"), "score: no such file"),
    ],
)
def test_errors_name_options_where_the_library_names_parameters(error: SqueezeDetError, says: str) -> None:
    detect = cli.LazyCommands()["detect"]
    assert cli.with_options(error, detect.params).endswith(says)


@pytest.mark.parametrize("verb", cli.OLD_SPELLINGS)
def test_old_spellings_work_and_no_help_shows_them(verb: str) -> None:
    command = cli.LazyCommands()[verb]
    for words in [[verb, one] for one in getattr(command, "commands", ())] or [[verb]]:
        shown = run(*words, "--help").stdout
        for before, now in cli.OLD_SPELLINGS[verb].items():
            assert f"{before} " not in shown
            if now in shown:
                found = run(*words, before)
                assert (found.exit_code, f"'{now}' requires an argument" in found.stderr) == (2, True)


def test_old_spellings_of_options_are_no_choices() -> None:
    found = run("detect", "street.jpg", "--format", "xml")
    assert (found.exit_code, "'xml' is not one of 'json', 'jsonl', 'csv'" in found.stderr) == (2, True)


def test_a_shell_can_complete(tmp_path: Path) -> None:
    code = "import os; os.environ.update(_SQUEEZEDET_COMPLETE='complete_bash', COMP_WORDS="
    done = python(f"{code}'squeezedet ev', COMP_CWORD='1'); {RUN}")
    assert done.stdout.split() == ["evaluate"]
    done = python(f"{code}'squeezedet evaluate --thr', COMP_CWORD='2'); {RUN}")
    assert done.stdout.split() == ["--threads"]


def test_bugs_are_not_hidden(failing_verb: type) -> None:
    failing_verb.error = KeyError("bug")
    assert run("fail").exception is failing_verb.error


def test_bug_shows_a_plain_traceback() -> None:
    code = (
        "from squeezedet.runtime import bundle\n"
        "def shipped(): secret = 'local'; raise KeyError('bug')\n"
        f"bundle.shipped = shipped\n{RUN}"
    )
    done = python(code, "models")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith("KeyError: 'bug'\n")
    assert "local" not in done.stderr


def test_interrupt(failing_verb: type) -> None:
    failing_verb.error = KeyboardInterrupt()
    result = run("fail")
    assert (result.exit_code, result.output) == (130, "squeezedet: interrupted\n")


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_by_signal(tmp_path: Path, kind: signal.Signals) -> None:
    # Nobody writes to its input: the command waits for its image.
    command = [sys.executable, "-c", RUN, "detect", "-", "--out", str(tmp_path / "a.json")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        for _ in range(500):
            if list(tmp_path.glob(".a.json*")):
                break
            time.sleep(0.01)
        time.sleep(0.05)
        process.send_signal(kind)
        try:
            process.wait(timeout=30)
            assert process.stdout and process.stderr
            output, error = process.stdout.read(), process.stderr.read()
        finally:
            process.kill()
    assert (process.returncode, output, error) == (130, b"", b"squeezedet: interrupted\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="pipes of Unix")
@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(("argument", "code"), [("models", 141), ("--version", 1), ("--help", 1)])
def test_closed_pipe_is_quiet(argument: str, code: int, buffered: bool) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, argument], stdout=writing, stderr=subprocess.PIPE, env=environment, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (code, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", ["models", "--version", "detect -h"])
@pytest.mark.parametrize("buffered", [True, False])
def test_full_output_is_one_sentence(arguments: str, buffered: bool) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", RUN, *arguments.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            check=False,
        )
    says = "squeezedet: the output cannot be written (No space left on device)\n"
    assert (done.returncode, done.stderr) == (1, says)


@pytest.mark.skipif(os.name == "nt", reason="a shell of Unix")
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("--version >&-", 0, ""),
        ("models >&-", 0, ""),
        ("models 2>&- >&- <&-", 0, ""),
        ("detect - <&-", 3, "squeezedet: standard input: the file is empty\n"),
    ],
)
def test_closed_streams(arguments: str, code: int, says: str) -> None:
    command = f'exec "$0" -c "$1" {arguments}'
    done = subprocess.run(["sh", "-c", command, sys.executable, RUN], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, says)


def test_module_import_is_light() -> None:
    done = python(f"import sys, squeezedet; print([m for m in {HEAVY} if m in sys.modules])")
    assert done.stdout == "[]\n"
