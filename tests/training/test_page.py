"""Charts, pictures and the page of a run, and its callbacks."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from squeezedet.data.sample import Objects, Sample
from squeezedet.detections import Detections
from squeezedet.errors import MissingExtraError, SqueezeDetError
from squeezedet.evaluation.report import precision_chart
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig
from squeezedet.training import checkpoint
from squeezedet.training.callbacks import Callback, MLflow, Row, TensorBoard, WandB
from squeezedet.training.loop import run_training as train
from squeezedet.training.recipe import Protocol, Recipe, read_config
from squeezedet.training.run_folder import Run, write_run_page
from squeezedet.training.validate import Validation, evaluate_detections, figures

PICTURES = {"batch-0", "batch-1", "batch-2", "predictions"}
CHARTS = ("Loss, by its terms", "AP40 moderate on the validation images", "Images per second")


def test_a_run_folder(small_run: Callable[..., Run], small_detector: Callable[[], ConvDet]) -> None:
    run = replace(small_run(early_stop=5, early_images=2), data="some/where", command="squeezedet x")
    train(small_detector(), run)
    assert {path.stem for path in (run.folder / "pictures").glob("*.png")} == PICTURES
    page = (run.folder / "index.html").read_text()
    assert "Step 4 of 4; 4 images to learn from, 2 to validate on" in page
    assert page.count("<img ") == len(PICTURES)
    assert all(title in page for title in CHARTS)
    assert "prefers-color-scheme" in page
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
    page = write_run_page(run, [row, {**row, "step": "9", "ap50_class0": ""}]).read_text()
    assert len(re.findall("<polyline", page)) == 3  # loss, mean of the classes, speed
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page)
    assert cells[-14:] == ["9", "", *["25.0"] * 12]


def test_a_run_with_one_class_and_no_loss_has_a_page(small_run: Callable[..., Run]) -> None:
    row = {"step": "5", "images_per_s": "3", "class": "0", "box": "nan", "ap50_sign": ""}
    write_run_page(small_run(protocol="voc"), [row])
    assert "Step 5 of 4" in (small_run().folder / "index.html").read_text()


@pytest.mark.parametrize(("protocol", "label"), [("kitti", "moderate"), ("voc", "IoU 0.5")])
def test_precision_and_confusion_of_the_best_checkpoint(
    small_run: Callable[..., Run], protocol: Protocol, label: str
) -> None:
    """Two of three cars are found, and a pedestrian that is taken for a cyclist."""
    xyxy = np.array([[100 * k, 10, 100 * k + 60, 90] for k in range(4)], np.float32)
    types = ("Car", "Car", "Car", "Pedestrian")
    truth = Objects(types, xyxy, np.zeros(4, np.float32), np.zeros(4, np.int64), np.zeros(4, bool))
    run = small_run(protocol=protocol)
    run = replace(run, val=[Sample("a", Path("a.png"), truth)])
    score = np.array([0.9, 0.8, 0.7], np.float32)
    found = [Detections(xyxy[[0, 2, 3]], score, np.array([0, 0, 2]), run.class_map.names)]
    answer = evaluate_detections(run.val, found, run.class_map, protocol)
    best = figures(answer, run.val, run.class_map)
    checkpoint.write(run.best, {}, {"step": 7, "figures": best})
    page = write_run_page(run, []).read_text()
    assert "Best checkpoint (step 7)" in page
    curve = answer.result.curves()["car"][label]
    assert best["precision"]["car"] == curve
    assert precision_chart("car", {"car": curve}) in page
    assert re.findall(r"<td>([^<]*)</td>", page) == [
        *("car", "2", "0", "0", "1"),
        *("pedestrian", "0", "0", "1", "0"),
        *("cyclist", "0", "0", "0", "0"),
        *("nothing (false alarm)", "0", "0", "0", ""),
    ]


def test_the_best_checkpoint_of_a_run_is_on_its_page(
    small_run: Callable[..., Run], small_detector: Callable[[], ConvDet]
) -> None:
    run = small_run(steps=2)
    train(small_detector(), run)
    assert "Best checkpoint (step 2)" in (run.folder / "index.html").read_text()


class Recorder(Callback):
    """Writes down what it hears."""

    def __init__(self, fail: str = "") -> None:
        self.heard: list[str] = []
        self.fail = fail

    def _hear(self, event: str) -> None:
        self.heard.append(event)
        if event == self.fail:
            raise RuntimeError("full")

    def on_start(self, run: Run, step: int) -> None:
        self._hear("start")

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        assert "grad_norm" in losses
        self._hear(f"step {step}")

    def on_report(self, row: Row) -> None:
        self._hear(f"report {row['step']}")

    def on_validation(self, step: int, validation: Validation) -> None:
        assert set(validation.ap) == {"car", "pedestrian", "cyclist"}
        self._hear(f"validation {step}")

    def on_checkpoint(self, step: int, path: Path) -> None:
        assert path.is_file()
        self._hear(f"checkpoint {step}")

    def on_end(self) -> None:
        self._hear("end")


def test_callbacks_hear_everything(small_run: Callable[..., Run], small_detector: Callable[[], ConvDet]) -> None:
    recorder = Recorder()
    train(small_detector(), replace(small_run(steps=2), callbacks=[recorder]))
    assert recorder.heard == [*("start", "step 1", "step 2", "checkpoint 2", "report 2", "validation 2"), "end"]


def test_a_callback_that_raises_ends_the_run_when_it_is_saved(
    small_run: Callable[..., Run], small_detector: Callable[[], ConvDet]
) -> None:
    run = small_run(steps=4, validate_every=100)
    with pytest.raises(SqueezeDetError, match=r"Recorder.on_step failed: RuntimeError: full; .*saved"):
        train(small_detector(), replace(run, callbacks=[Recorder("step 3")]))
    recorder = Recorder()
    train(small_detector(), replace(run, callbacks=[recorder]), resume=True)
    assert recorder.heard[:2] == ["start", "step 4"]


def test_loggers_are_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, logger in (("tensorboard", TensorBoard), ("wandb", WandB), ("mlflow", MLflow)):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=rf"squeezedet\[{module}\]"):
            logger()


def test_tensorboard_gets_the_rows(small_run: Callable[..., Run], small_detector: Callable[[], ConvDet]) -> None:
    pytest.importorskip("tensorboard")
    run = replace(small_run(), callbacks=[TensorBoard()])
    train(small_detector(), run)
    assert list((run.folder / "tensorboard").glob("events.*"))
