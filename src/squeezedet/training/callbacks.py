"""What a training tells others: callbacks, and loggers for TensorBoard, W&B and MLflow on them.

Of several processes only the first tells. A callback that raises ends the run with one sentence, after its state is
saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeezedet.errors import MissingExtraError

if TYPE_CHECKING:
    from squeezedet.training.run_folder import Run
    from squeezedet.training.validate import Validation

Row = Mapping[str, float | int | None]
"""A row of ``metrics.csv``: step, speed, learning rate, mean losses, average precisions."""


class Callback:
    """Does nothing; override what you want to hear."""

    def on_start(self, run: Run, step: int) -> None:
        """The run begins, or goes on after ``step``."""

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        """A step is done; ``losses`` has each term, and ``grad_norm``."""

    def on_report(self, row: Row) -> None:
        """A row of ``metrics.csv`` is written, every 25 steps and at every validation."""

    def on_validation(self, step: int, validation: Validation) -> None:
        """The averaged weights were validated; ``validation.ap`` has each class, 0 to 1."""

    def on_checkpoint(self, step: int, path: Path) -> None:
        """``last.safetensors`` is written."""

    def on_end(self) -> None:
        """The run ends, or was stopped."""


def _extra(name: str) -> Any:
    """The module of a logger."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(name, name) from error


class TensorBoard(Callback):
    """Writes the rows as scalars into ``tensorboard/`` of the run folder."""

    def __init__(self) -> None:
        _extra("tensorboard")
        self._writer: Any = None

    def on_start(self, run: Run, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What lies after the step is hidden: the run goes on from there.
        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=step + 1 if step else None)

    def on_report(self, row: Row) -> None:
        for name, value in _figures(row).items():
            self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def on_end(self) -> None:
        if self._writer is not None:
            self._writer.close()


class WandB(Callback):
    """Logs the rows to Weights & Biases; ``settings`` are those of ``wandb.init``: ``project``, ``mode``, ..."""

    def __init__(self, **settings: Any) -> None:
        self._wandb, self._settings = _extra("wandb"), settings
        self._run: Any = None

    def on_start(self, run: Run, step: int) -> None:
        settings = {"name": run.folder.resolve().name, "dir": str(run.folder), **self._settings}
        self._run = self._wandb.init(config=asdict(run.recipe), **settings)

    def on_report(self, row: Row) -> None:
        if self._run is not None:
            self._run.log(_figures(row), step=row["step"])

    def on_end(self) -> None:
        if self._run is not None:
            self._run.finish()


class MLflow(Callback):
    """Logs the recipe and the rows to MLflow, where ``MLFLOW_TRACKING_URI`` says; ``settings`` are of
    ``mlflow.start_run``.
    """

    def __init__(self, **settings: Any) -> None:
        self._mlflow, self._settings = _extra("mlflow"), settings

    def on_start(self, run: Run, step: int) -> None:
        self._mlflow.start_run(**{"run_name": run.folder.resolve().name, **self._settings})
        self._mlflow.log_params({k: str(v)[:500] for k, v in asdict(run.recipe).items()})

    def on_report(self, row: Row) -> None:
        figures = {name.replace(" ", "_"): value for name, value in _figures(row).items()}
        self._mlflow.log_metrics(figures, step=row["step"])

    def on_end(self) -> None:
        self._mlflow.end_run()


def _figures(row: Row) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "step" and value is not None}
