from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from squeezedet.cli.main import app


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["demo"], catch_exceptions=False)
    assert result.exit_code == 0
    table, _, rest = result.stdout.partition("\n\n")
    assert table.startswith("demo.")
    assert len(table.splitlines()) > 2  # it finds something
    assert "squeezedet detect" in rest
    (picture,) = (tmp_path / "squeezedet-demo").iterdir()
    assert str(picture.relative_to(tmp_path)) in rest
    with Image.open(picture) as opened:
        assert f"{opened.width}x{opened.height}" in table


def test_folder_of_choice(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "new")])
    assert result.exit_code == 0
    assert (tmp_path / "new" / "demo.jpg").is_file()


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "is a file" in result.stderr
