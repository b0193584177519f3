"""The README is short, its commands are what CI runs, and what pages name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from squeezedet.runtime import bundle

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "parents/README.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)


def test_it_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 110


def test_there_are_two_commands_of_one_line() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Two commands")[1].split("\n## ")[0]
    commands = [line for line in section.splitlines() if line.startswith("    ")]
    assert len(commands) == 2
    assert all(command.strip().startswith("python3 -m venv") for command in commands)


@pytest.mark.parametrize("model", ["street", "street-ssd"])
def test_the_table_of_models_is_what_cards_and_files_say(model: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{model}`.*$", readme, re.MULTILINE)
    size, _, ap, license_text = [cell.strip() for cell in row.strip("| ").split("|")[1:]]
    path = bundle.find(model)
    card = bundle.read_card(path)
    assert size == f"{path.stat().st_size / 1e6:.2f} MB"
    results = card.results["results"]
    for figure, name in zip(ap.split(", "), ("car", "pedestrian", "cyclist"), strict=True):
        assert float(figure) == pytest.approx(100 * results[name]["moderate"]["ap40"], abs=0.1)
    assert license_text.split(";")[0] in card.licence


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=lambda p: p.name)
def test_files_named_exist(page: Path) -> None:
    """Paths in code spans that begin with a folder of the repository."""
    folders = "src|tests|docs|benchmarks|recipes|parents|examples|fuzz"
    for name in re.findall(rf"`((?:{folders})/[\w./-]+)", page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name


def test_tests_named_in_the_traps_exist() -> None:
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "traps.md").read_text(encoding="utf-8"))
    source = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    missing = [name for name in named if f"def {name}(" not in source]
    assert len(named) >= 12
    assert not missing
