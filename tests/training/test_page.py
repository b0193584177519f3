"""Curves, pictures and the page of a run."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from squeezedet.errors import MissingExtraError
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
from squeezedet.training.config_file import read_config
from squeezedet.training.loop import train
from squeezedet.training.page import chart, draw_curves, ticks
from squeezedet.training.recipe import Recipe
from squeezedet.training.reporter import check_installed
from squeezedet.training.run_folder import Run

PICTURES = {"batch-0", "batch-1", "batch-2", "predictions", "loss", "ap", "speed"}


def test_a_run_folder(small_run: Callable[..., Run], small_detector: Callable[[], ConvDet]) -> None:
    run = replace(
        small_run(early_stop=5, early_images=2), data="some/where", command="squeezedet x"
    )
    train(small_detector(), run)
    assert {path.stem for path in (run.folder / "pictures").glob("*.png")} == PICTURES
    page = (run.folder / "index.html").read_text()
    assert "Step 4 of 4; 4 images to learn from, 2 to judge by" in page
    assert page.count("<img ") == len(PICTURES)
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)  # nothing is fetched
    assert "<script" not in page

    record = tomllib.loads((run.folder / "config.toml").read_text())
    assert record["run"]["data"]["path"] == "some/where"
    assert record["run"]["calls"][0].endswith("squeezedet x")
    assert {"python", "torch", "numpy", "squeezedet"} <= record["run"]["versions"].keys()
    assert {"cores", "processor", "threads"} <= record["run"]["machine"].keys()
    assert record["class_map"]["names"] == ["car", "pedestrian", "cyclist"]
    file = read_config(run.folder / "config.toml")
    assert file.override("recipe", Recipe()) == run.recipe
    assert asdict(file.override("network", ConvDetConfig())) == asdict(small_detector().config)

    train(small_detector(), replace(run, command="squeezedet y"), resume=True)
    calls = tomllib.loads((run.folder / "config.toml").read_text())["run"]["calls"]
    assert [call.split()[-1] for call in calls] == ["x", "y"]


def test_many_classes_are_one_curve(small_run: Callable[..., Run]) -> None:
    run = small_run(protocol="voc")
    names = [f"class{i}" for i in range(12)]
    row = {"step": "5", "images_per_s": "3", "box": "0.5", **{f"ap50_{n}": "0.25" for n in names}}
    assert draw_curves(run, [row, {**row, "step": "9"}]).keys() == {"loss", "ap", "speed"}


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_ticks_enclose_the_range(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    marks = ticks(low, high)
    step = marks[1] - marks[0]
    assert 2 <= len(marks) <= 9
    assert marks[0] <= low + 1e-6 * step
    assert marks[-1] >= high - 1e-6 * step


def test_a_line_is_drawn_where_its_points_are() -> None:
    level = np.asarray(chart("t", {"a": ([0, 10], [5, 5])}))
    green = np.abs(level.astype(int) - (0, 158, 115)).sum(axis=2) < 90
    rows = np.flatnonzero(green.sum(axis=1) > 500)
    assert 45 <= rows.mean() <= 60  # the top of the plot: the axis goes from 0 to 5
    logarithmic = chart("t", {"a": ([1, 2, 3], [0.0, float("nan"), 7.0])}, log=True)
    assert logarithmic.size == Image.fromarray(level).size
    assert chart("nothing", {}).size == logarithmic.size


def test_tensorboard_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"squeezedet\[tensorboard\]"):
        check_installed()


def test_tensorboard_gets_the_rows(
    small_run: Callable[..., Run], small_detector: Callable[[], ConvDet]
) -> None:
    pytest.importorskip("tensorboard")
    run = replace(small_run(), tensorboard=True)
    train(small_detector(), run)
    assert list((run.folder / "tensorboard").glob("events.*"))
