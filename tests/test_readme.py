"""The README and the notes say what is true of the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from squeezedet.cli.main import VERBS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_there_are_two_commands_of_one_line() -> None:
    section = README.split("## Two commands")[1].split("\n## ")[0]
    commands = [line for line in section.splitlines() if line.startswith("    ")]
    assert len(commands) == 2
    assert all(command.strip().startswith("python3 -m venv") for command in commands)


def test_verbs_in_the_readme_exist() -> None:
    used = set(re.findall(r"^ {4}squeezedet ([a-z]+)", README, re.MULTILINE))
    assert {"detect", "train"} <= used <= set(VERBS)


def test_options_in_the_readme_exist() -> None:
    from typer.testing import CliRunner

    from squeezedet.cli.main import app

    for verb in VERBS:
        lines = re.findall(rf"squeezedet {verb}[^\n`#>]*", README)
        named = {option for line in lines for option in re.findall(r"--[a-z-]+", line)}
        text = CliRunner().invoke(app, [verb, "--help"]).output
        assert all(option in text for option in named), (verb, named)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/traps.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_tree_in_the_readme_exists() -> None:
    tree = README.split("## Where things are")[1]
    names = re.findall(r"^ {6}([\w./, ]+?)  ", tree, re.MULTILINE)
    for name in (n.strip() for line in names for n in line.split(",")):
        assert (ROOT / "src" / "squeezedet" / name).exists(), name
    for name in re.findall(r"^ {4}((?:docs|benchmarks)\S*)", tree, re.MULTILINE):
        assert (ROOT / name).exists(), name


def test_tests_named_in_the_traps_exist() -> None:
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "traps.md").read_text(encoding="utf-8"))
    source = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    missing = [name for name in named if f"def {name}(" not in source]
    assert len(named) >= 12
    assert not missing
