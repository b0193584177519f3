"""What a run tells on its way: rows of the log, lines on the screen, pictures and the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from squeezedet.errors import MissingExtraError
from squeezedet.training.batches import Examples, examples_of_step
from squeezedet.training.log import MetricsLog, Progress
from squeezedet.training.page import draw_batch, draw_detections, write_page
from squeezedet.training.recipe import rate
from squeezedet.training.trainer import Evaluations, Trainer
from squeezedet.training.validate import MEASURES

# ---- follower: When a run is judged and reported, and what all processes do then, those that wri

REPORT_EVERY = 25


class NullReporter:
    """Takes part in every validation, and writes nothing: for all processes but the first."""

    def __init__(self, trainer: Trainer, progress: Progress) -> None:
        self.trainer, self.progress = trainer, progress

    def begin(self, examples: Examples) -> None:
        """The run begins."""

    def due(self, last: bool = False) -> bool:
        """Whether a row is due that has not been written; ``last``: the run ends here."""
        trainer = self.trainer
        now = trainer.step % REPORT_EVERY == 0 or trainer.step == trainer.recipe.steps or last
        return trainer.due(last) or (now and trainer.reported < trainer.step)

    def report(self, last: bool = False) -> None:
        """Validate if it is time."""
        self.trainer.means.take()
        self.judge_if_due(last)
        self.trainer.reported = self.trainer.step

    def judge_if_due(self, last: bool) -> Evaluations:
        """Validate if it is time, together with the other processes."""
        return self.trainer.judge() if self.trainer.due(last) else Evaluations(None, None)

    def end(self) -> None:
        """The run is over."""


# ---- tensorboard: The log's rows as TensorBoard's event files, for those who have it.

FOLDER = "tensorboard"


class TensorBoardWriter:
    """Writes scalars into ``tensorboard/`` of a run folder.

    Args:
        folder: of the run.
        last_step: what lies after it is hidden: the run resumes from there.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, last_step: int) -> None:
        check_installed()
        from torch.utils.tensorboard import SummaryWriter

        purge = last_step + 1 if last_step else None
        self._writer: Any = SummaryWriter(str(folder / FOLDER), purge_step=purge)

    def add(self, row: Mapping[str, float | int | None]) -> None:
        """One row of the log."""
        step = row["step"]
        for name, value in row.items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def check_installed() -> None:
    """Find out before a run starts.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("--tensorboard", "tensorboard") from error


# ---- reporter: What a run tells on its way: rows of the log, lines on the screen, pictures and t

BATCHES_DRAWN = 3


class RunReporter(NullReporter):
    """Writes everything of the run folder that is no checkpoint."""

    def __init__(self, trainer: Trainer, progress: Progress) -> None:
        super().__init__(trainer, progress)
        folder = trainer.run.folder
        self.log = MetricsLog(folder / "metrics.csv", trainer.reported)
        self.board = (
            TensorBoardWriter(folder, trainer.reported) if trainer.run.tensorboard else None
        )

    def begin(self, examples: Examples) -> None:
        """Draw the first batches, and write a page without figures."""
        trainer = self.trainer
        for step in range(min(BATCHES_DRAWN, trainer.recipe.steps)):
            some = examples_of_step(examples, trainer.detector, trainer.recipe, step)
            draw_batch(trainer.run.folder, step, some, trainer.run.class_map.names)
        write_page(trainer.run, self.log.rows)

    def report(self, last: bool = False) -> None:
        """Show how the last steps went, validate if it is time, and write the row of the log."""
        trainer = self.trainer
        losses, images_per_s = trainer.means.take()
        self.progress.report(trainer.step, losses, images_per_s)
        row: dict[str, float | int | None] = {
            "step": trainer.step,
            "images_per_s": images_per_s,
            "learning_rate": rate(trainer.recipe, trainer.step - 1),
            **losses,
        }
        judgement = self.judge_if_due(last)
        row |= self._columns(judgement)
        self.log.add(row)
        if self.board:
            self.board.add(row)
        trainer.reported = trainer.step
        if judgement.val:
            self._say(judgement)
            draw_detections(trainer.run.folder, trainer.run.val, judgement.val.found)
        if judgement.val or judgement.train:
            write_page(trainer.run, self.log.rows)
            trainer.means.restart()

    def _columns(self, judgement: Evaluations) -> dict[str, float | None]:
        """The AP of each class, empty without a judgement, so that columns are always the same."""
        run, column = self.trainer.run, MEASURES[self.trainer.recipe.protocol][0]
        val = judgement.val.ap if judgement.val else {}
        columns = {f"{column}_{name}": val.get(name) for name in run.class_map.names if run.val}
        if self.trainer.recipe.early_stop:
            columns[f"train_{column}"] = judgement.train.fitness if judgement.train else None
        return columns

    def _say(self, judgement: Evaluations) -> None:
        if judgement.val is None:
            return
        values = "  ".join(f"{name} {_percent(ap)}" for name, ap in judgement.val.ap.items())
        mean = f"mean {100 * judgement.val.fitness:.1f}"
        train = f"  train {100 * judgement.train.fitness:.1f}" if judgement.train else ""
        measure = MEASURES[self.trainer.recipe.protocol][1]
        self.progress.say(f"step {self.trainer.step}: {measure}  {values}  {mean}{train}")

    def end(self) -> None:
        """The run is over: the page says so."""
        write_page(self.trainer.run, self.log.rows)
        if self.board:
            self.board.close()


def _percent(ap: float | None) -> str:
    """A class without a labelled object has no AP."""
    return "-" if ap is None else f"{100 * ap:.1f}"
