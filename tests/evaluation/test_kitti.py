"""The KITTI protocol against the referee's own tools, by hand and by property."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from squeezedet.data.kitti import read_labels
from squeezedet.evaluation.kitti import evaluate
from squeezedet.evaluation.kitti_files import read_results


@pytest.mark.shared
@pytest.mark.parametrize("rules", ["paper", "current"])
@pytest.mark.parametrize("name", ["medium_3dec", "small_ties", "no_cyclist"])
def test_every_precision_is_the_referees(shared: Path, name: str, rules: str) -> None:
    folder = shared / "vectors" / name
    expected = json.loads((folder / "expected.json").read_text())[rules]
    ids = (folder / "ids.txt").read_text().split()
    labels = [read_labels(folder / "label_2" / f"{i}.txt") for i in ids]
    result = evaluate(labels, read_results(folder / "data", ids), rules).to_dict()["results"]
    assert result.keys() == expected.keys()
    for class_name, levels in expected.items():
        if levels is None:
            assert result[class_name] is None
            continue
        for level in ("easy", "moderate", "hard"):
            for figure in ("ap11", "ap40", "precision41"):
                np.testing.assert_allclose(
                    result[class_name][level][figure], levels[level][figure], rtol=0, atol=1e-6
                )
