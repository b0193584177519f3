"""Code in the notes runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from squeezedet.data.scenes import write_folder
from squeezedet.runtime.detector import load

ROOT = Path(__file__).resolve().parents[1]


def test_a_backbone_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    write_folder("scenes", count=6, width=192, height=96)
    exec(compile(code, "networks.md", "exec"), {"__name__": "networks"})
    detector = load(tmp_path / "separable.bundle")
    detector(tmp_path / "scenes" / "image_2" / "000000.jpg")
    assert detector.card.detector == "convdet"
