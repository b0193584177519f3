"""``squeezedet profile``: what a network weighs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app
from squeezedet.runtime import bundle

PARENTS = Path(__file__).resolve().parents[2] / "parents"


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["profile", *(str(word) for word in words)])


def totals(*words: object) -> dict[str, int]:
    done = call(*words, "--out", "-")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_the_supplements_table_1() -> None:
    done = call("squeezedet", "--geometry", "paper")
    assert done.exit_code == 0, done.output
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert "76x22x768" in rows["fire11"] and "443,232" in rows["fire11"]
    assert "1.69" in rows["fire11"] and "*" not in rows["fire11"]
    assert "swapped" in rows["fire2"]
    assert "2,082,120" in rows["total"] and "117.219" in rows["total"]
    assert "9.714" in done.stdout


def test_totals_as_json(tmp_path: Path) -> None:
    made = tmp_path / "cost.json"
    done = call("squeezedet", "--geometry", "paper", "--out", made)
    assert done.exit_code == 0, done.output
    numbers = json.loads(made.read_text())
    assert numbers["parameters"] == 2_082_120
    assert numbers["size_bytes"] == 4 * 2_082_120
    assert numbers["flops"] == 2 * numbers["macs"] == 9_636_232_704
    assert numbers["flops_paper"] == 9_714_463_392
    assert numbers["activation_bytes"] == 122_913_416
    assert sum(layer["macs"] for layer in numbers["layers"]) == numbers["macs"]
    assert max(moment["live"] for moment in numbers["schedule"]) == numbers["peak_live_bytes"]


def test_sizes_and_countings() -> None:
    larger = totals("squeezedet", "--geometry", "paper", "--size", "1863x562")
    assert f"{larger['flops_paper'] / 1e9:.2f}" == "22.45"
    ours = totals("squeezedet", "--size", "640x384")
    assert ours["input"] == [3, 384, 640]
    resnet = totals("resnet50-convdet", "--geometry", "paper", "--counting", "paper")
    assert resnet["parameters"] == 9_191_624


def test_a_bundle_an_onnx_file_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = PARENTS / "squeezedet-full.bundle"  # the paper's widths; the shipped model has others
    ours = totals("squeezedet")
    for model in (path, tmp_path / "graph.onnx"):
        if model != path:
            model.write_bytes(bundle.read(path).graph)
        found = totals(model, "--size", "1248x384")
        for total in ("parameters", "macs", "flops_paper", "activation_bytes"):
            assert found[total] == ours[total]
    (tmp_path / "nets_of_mine.py").write_text(
        "from torch import nn\ndef small():\n    return nn.Conv2d(3, 2, 1)\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert totals("nets_of_mine:small", "--size", "8x4")["macs"] == 6 * 32
    not_one = call("nets_of_mine:number", "--size", "8x4")
    assert (not_one.exit_code, "gives no network" in not_one.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("squeezdet",), 2, "did you mean squeezedet?"),
        (("gone.onnx",), 2, "no such file"),
        (("squeezedet", "--size", "big"), 2, "not WIDTHxHEIGHT"),
        (("squeezedet", "--size", "0x9"), 2, "not WIDTHxHEIGHT"),
        (("squeezedet", "--size", "100x100"), 2, "multiple of 16"),
        (("tiny-yolo-v2", "--geometry", "paper"), 2, "has only one"),
        (("torch.nn:Nothing", "--size", "8x8"), 2, "cannot be imported"),
        (("torch.nn:Identity",), 2, "takes any size"),
        (("torch.nn:Identity", "--size", "8x8"), 4, "computes nothing"),
        ((__file__,), 4, "none of the files"),
        (("damaged.onnx",), 4, "not an ONNX file"),
        (("damaged.bundle",), 4, "not a model bundle"),
        (("damaged.safetensors",), 4, "damaged"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: tuple[str, ...], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for suffix in ("onnx", "bundle", "safetensors"):
        Path(f"damaged.{suffix}").write_bytes(b"\xff\xfe nothing of the kind")
    done = call(*words)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_without_torch_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\nfrom squeezedet.cli.main import app; app(['profile', 'squeezedet'])"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, "squeezedet[train]" in done.stderr) == (2, True)
