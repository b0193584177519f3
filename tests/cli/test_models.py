from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app
from squeezedet.runtime import bundle


def run() -> Result:
    return CliRunner().invoke(app, ["models"], catch_exceptions=False)


def test_every_shipped_model_with_its_facts() -> None:
    result = run()
    assert result.exit_code == 0
    blocks = result.stdout.split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == list(bundle.shipped())
    for block, path in zip(blocks, bundle.shipped().values(), strict=True):
        facts = dict(line.split(maxsplit=1) for line in block.splitlines()[1:])
        card = bundle.read_card(path)
        assert facts["size"].startswith(f"{path.stat().st_size / 1e6:.2f} MB")
        assert facts["licence"] == card.licence
        assert facts["classes"] == ", ".join(card.classes)
        assert facts["file"] == str(path)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the package's folder of models; holds one model."""
    shutil.copy(bundle.find("street"), tmp_path / "squeezedet.bundle")
    monkeypatch.setattr(bundle, "WEIGHTS", tmp_path)
    return tmp_path / "squeezedet.bundle"


def test_accuracy_comes_from_the_card(weights: Path) -> None:
    model = bundle.read(weights)
    results = {
        "protocol": "kitti",
        "rules": "current",
        "counts": {"images": 20},
        "results": {"car": {"moderate": {"ap40": 0.51234}}, "cyclist": None},
    }
    bundle.write(weights, bundle.Bundle(replace(model.card, results=results), model.graph))
    says = "car 51.2, cyclist 0.0 (AP40 in %, KITTI moderate, rules 'current', 20 images)"
    assert says in run().stdout
    bundle.write(weights, bundle.Bundle(replace(model.card, results={}), model.graph))
    assert "not measured" in run().stdout


@pytest.mark.parametrize(
    "results",
    [
        {"protocol": "kitti", "results": "good"},
        {"protocol": "kitti", "results": {"car": {"moderate": 1}}, "counts": {"images": 2}},
        {"protocol": "kitti", "results": {"car": None}},
    ],
)
def test_results_of_another_shape(weights: Path, results: dict[str, object]) -> None:
    model = bundle.read(weights)
    bundle.write(weights, bundle.Bundle(replace(model.card, results=results), model.graph))
    result = run()
    assert result.exit_code == 4
    assert f"{weights}: the card's results" in result.stderr


def test_damaged_model(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:1000])
    result = run()
    assert result.exit_code == 4
    assert str(weights) in result.stderr


def test_package_without_models(weights: Path) -> None:
    weights.unlink()
    assert run().exit_code == 4
