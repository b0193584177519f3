"""What a run tells on its way: rows of the log, lines on the screen, pictures and the page."""

from __future__ import annotations

from squeezedet.training.batches import examples_of_step
from squeezedet.training.examples import Examples
from squeezedet.training.follower import Follower
from squeezedet.training.log import MetricsLog, Progress
from squeezedet.training.page import write_page
from squeezedet.training.pictures import draw_batch, draw_detections
from squeezedet.training.schedule import rate
from squeezedet.training.tensorboard import Board
from squeezedet.training.trainer import Judgement, Trainer
from squeezedet.training.validate import MEASURES

BATCHES_DRAWN = 3


class Reporter(Follower):
    """Writes everything of the run folder that is no checkpoint."""

    def __init__(self, trainer: Trainer, progress: Progress) -> None:
        super().__init__(trainer, progress)
        folder = trainer.run.folder
        self.log = MetricsLog(folder / "metrics.csv", trainer.reported)
        self.board = Board(folder, trainer.reported) if trainer.run.tensorboard else None

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

    def _columns(self, judgement: Judgement) -> dict[str, float | None]:
        """The AP of each class, empty without a judgement, so that columns are always the same."""
        run, column = self.trainer.run, MEASURES[self.trainer.recipe.protocol][0]
        val = judgement.val.ap if judgement.val else {}
        columns = {f"{column}_{name}": val.get(name) for name in run.class_map.names if run.val}
        if self.trainer.recipe.early_stop:
            columns[f"train_{column}"] = judgement.train.fitness if judgement.train else None
        return columns

    def _say(self, judgement: Judgement) -> None:
        if judgement.val is None:
            return
        values = "  ".join(f"{name} {100 * ap:.1f}" for name, ap in judgement.val.ap.items())
        mean = f"mean {100 * judgement.val.fitness:.1f}"
        train = f"  train {100 * judgement.train.fitness:.1f}" if judgement.train else ""
        measure = MEASURES[self.trainer.recipe.protocol][1]
        self.progress.say(f"step {self.trainer.step}: {measure}  {values}  {mean}{train}")

    def end(self) -> None:
        """The run is over: the page says so."""
        write_page(self.trainer.run, self.log.rows)
        if self.board:
            self.board.close()
