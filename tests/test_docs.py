"""Every example of the README and the documentation is parsed, and run where it can be.

A fenced block counts if it is Python or has lines that start with ``squeezedet``. The blocks of a
page run in order in one folder of small data, as a reader would. A comment before a block says if
it is not: ``<!-- not run: needs a camera -->`` (only parsed) or ``<!-- slow -->`` (slow tests).
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from squeezedet.cli.main import VERBS, app
from squeezedet.data.scenes import write_folder
from squeezedet.media.images import read_image
from squeezedet.runtime.bundle import WEIGHTS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!--\s*(not run|slow)(?::[^>]*?)?\s*-->\n+)?^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
SMALL: dict[str, dict[str, str]] = {
    "train": {"--steps": "2", "--batch": "2", "--size": "128x64", "--workers": "0"},
    "benchmark": {"--rounds": "1"},
    "slim": {"--batches": "1"},
    "compress": {"--steps": "1"},
}
"""Options that make a verb quick, in place of the page's own."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: ``when`` is "", "slow" or "not run"."""

    when: str
    python: bool
    text: str

    def commands(self) -> list[list[str]]:
        """Arguments of each line that starts with ``squeezedet``."""
        joined = self.text.replace("\\\n", " ")
        lines = [line.strip() for line in joined.splitlines()]
        return [
            shlex.split(line.split(" | ")[0], comments=True)[1:] for line in lines if line.startswith("squeezedet ")
        ]


def blocks_of(page: Path) -> list[Block]:
    """The examples of a page, in order."""
    found = [
        Block(when=when or "", python=language == "python", text=text)
        for when, language, text in BLOCK.findall(page.read_text(encoding="utf-8"))
    ]
    return [block for block in found if block.python or block.commands()]


def pages(*whens: str) -> list[Any]:
    """Pages that have blocks to run."""
    some = [p for p in PAGES if any(block.when in whens for block in blocks_of(p))]
    return [pytest.param(page, id=page.name) for page in some]


def check_options(arguments: list[str]) -> None:
    """The verb and all its options exist, and the arguments are as many as it takes."""
    command: Any = get_command(app)
    context = command.make_context("squeezedet", [], resilient_parsing=True)
    rest = list(arguments)
    while hasattr(command, "get_command"):
        if rest[0].startswith("-"):
            break
        name = rest.pop(0)
        command = command.get_command(context, name)
        assert command is not None, name
        context = type(context)(command, info_name=name, parent=context)
    command.make_parser(context).parse_args(rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_options_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in blocks_of(page):
        if block.python:
            compile(block.text, page.name, "exec")
        for arguments in block.commands():
            check_options(arguments)
    for line in re.findall(r"`squeezedet ([a-z][^`]*)`", text):
        words = line.split()
        if words[0] in VERBS:
            help_text = verb_help(words)
            named = [word.split("=")[0] for word in words if word.startswith("--")]
            assert all(option in help_text for option in named), line


def verb_help(words: list[str]) -> str:
    """Help of a verb, or of a verb's verb."""
    verb = words[:2] if words[0] in ("data", "ota", "papers") else words[:1]
    result = CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, (words, result.output)
    return result.output


def run(line: str) -> str:
    """What a command prints; it must succeed."""
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == 0, (line, result.output, result.exception)
    return result.output


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples name: pictures, labeled folders, a power log, a video."""
    folder = tmp_path_factory.mktemp("material")
    write_folder(folder / "roads", count=26, width=256, height=96, seed=3, val_fraction=0.3)
    shutil.copytree(folder / "roads", folder / "scenes")
    write_yolo_folder(folder / "roads", folder / "mine")
    shutil.copyfile(WEIGHTS / "demo.jpg", folder / "street.jpg")
    images = sorted((folder / "roads" / "image_2").iterdir())
    for name in ("photos", "frames"):
        (folder / name).mkdir()
    for index, image in enumerate(images[:16]):
        shutil.copyfile(image, folder / "photos" / image.name)
        shutil.copyfile(image, folder / "frames" / f"{index:06d}{image.suffix}")
    power = [f"{t / 10:.1f},{95 if 20 < t < 380 else 15}" for t in range(400)]
    (folder / "power.csv").write_text("time_s,power_w\n" + "\n".join(power) + "\n")
    shutil.copyfile(ROOT / "parents" / "squeezedet-full.bundle", folder / "wide.bundle")
    write_video(folder / "drive.mp4", images[:4])
    return folder


FIVE = ("person", "rider", "sedan", "truck", "van")
KINDS = {"Pedestrian": 0, "Cyclist": 1, "Car": 2, "Van": 4}


def write_yolo_folder(source: Path, folder: Path) -> None:
    """The drawn scenes as a labeling service exports them: YOLO, five classes of its own."""
    images = sorted((source / "image_2").iterdir())
    for index, image in enumerate(images):
        split = "train" if index < 18 else "valid" if index < 22 else "test"
        for part in ("images", "labels"):
            (folder / split / part).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, folder / split / "images" / image.name)
        height, width = read_image(image).pixels.shape[:2]
        lines = []
        for line in (source / "label_2" / f"{image.stem}.txt").read_text().splitlines():
            kind, *rest = line.split()
            x1, y1, x2, y2 = (float(number) for number in rest[3:7])
            if kind in KINDS:
                label = 3 if kind == "Car" and x2 - x1 > width / 6 else KINDS[kind]
                x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
                lines.append(f"{label} {x / width} {y / height} {w / width} {h / height}\n")
        (folder / split / "labels" / f"{image.stem}.txt").write_text("".join(lines))
    (folder / "data.yaml").write_text(
        f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 5\nnames: {list(FIVE)}\n"
    )


def write_video(path: Path, images: list[Path]) -> None:
    """A short clip, where PyAV is installed."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        first = read_image(images[0]).pixels
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = first.shape[1], first.shape[0]
        for image in images:
            frame = av.VideoFrame.from_ndarray(read_image(image).pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture
def world(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own for one page, with the material in it."""
    shutil.copytree(material, tmp_path / "world", copy_function=shutil.copyfile)
    monkeypatch.chdir(tmp_path / "world")
    yield tmp_path / "world"


def run_page(page: Path, *whens: str) -> None:
    """Run the blocks of a page."""
    namespace: dict[str, Any] = {"__name__": "example"}
    for block in blocks_of(page):
        if block.when not in whens:
            continue
        if block.python:
            exec(compile(block.text, page.name, "exec"), namespace)
        for arguments in block.commands():
            run(shlex.join(made_small(arguments)))


def made_small(arguments: list[str]) -> list[str]:
    """The same command with few steps, small windows and one round."""
    small = SMALL.get(arguments[0], {})
    if "--resume" in arguments or (arguments[0] == "compress" and "--finetune" not in arguments):
        return arguments
    kept = [
        word
        for before, word in zip(["", *arguments], arguments, strict=False)
        if word not in small and before not in small and word != "--max-hours"
    ]
    return kept + [word for pair in small.items() for word in pair]


@pytest.mark.parametrize("page", pages(""))
def test_examples_run(page: Path, world: Path) -> None:
    run_page(page, "")


@pytest.mark.slow
@pytest.mark.parametrize("page", pages("slow"))
def test_slow_examples_run(page: Path, world: Path) -> None:
    run_page(page, "", "slow")
