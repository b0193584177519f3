"""When a run is validated and reported: rows of the log, lines, pictures, the page, callbacks."""

from __future__ import annotations

from collections.abc import Mapping

from squeezedet.training.batches import Examples, examples_of_step
from squeezedet.training.callbacks import Callbacks
from squeezedet.training.log import MetricsLog, Progress
from squeezedet.training.page import draw_batch, draw_detections, write_run_page
from squeezedet.training.recipe import rate
from squeezedet.training.trainer import Evaluations, Trainer
from squeezedet.training.validate import MEASURES, Validation

REPORT_EVERY = 25
BATCHES_DRAWN = 3


class NullReporter:
    """Takes part in every validation, and writes nothing: for all processes but the first."""

    def __init__(self, trainer: Trainer, progress: Progress) -> None:
        self.trainer, self.progress = trainer, progress

    def begin(self, examples: Examples) -> None:
        """The run begins, or goes on."""

    def step(self, losses: Mapping[str, float]) -> None:
        self.progress.step(self.trainer.step)

    def save(self) -> None:
        self.trainer.save()

    def due(self, last: bool = False) -> bool:
        """Whether a row is due that has not been written; ``last``: the run ends here."""
        trainer = self.trainer
        now = trainer.step % REPORT_EVERY == 0 or trainer.step == trainer.recipe.steps or last
        return trainer.due(last) or (now and trainer.reported < trainer.step)

    def report(self, last: bool = False) -> None:
        self.trainer.means.take()
        self.validate_if_due(last)
        self.trainer.reported = self.trainer.step

    def validate_if_due(self, last: bool) -> Evaluations:
        return self.trainer.evaluate() if self.trainer.due(last) else Evaluations(None, None)

    def end(self) -> None:
        """The run is over: all steps are done."""

    def close(self) -> None:
        """The run ends, whatever the reason."""


class RunReporter(NullReporter):
    """Writes everything of the run folder that is no checkpoint, and calls the callbacks."""

    def __init__(self, trainer: Trainer, progress: Progress) -> None:
        super().__init__(trainer, progress)
        self.log = MetricsLog(trainer.run.folder / "metrics.csv", trainer.reported)
        self.callbacks = Callbacks(trainer.run.callbacks, trainer.save)

    def begin(self, examples: Examples) -> None:
        """Draw the first batches, and write a page without figures."""
        trainer = self.trainer
        self.callbacks.call("on_start", trainer.run, trainer.reported)
        if trainer.step:
            return
        for step in range(min(BATCHES_DRAWN, trainer.recipe.steps)):
            some = examples_of_step(examples, trainer.detector, trainer.recipe, step)
            draw_batch(trainer.run.folder, step, some, trainer.run.class_map.names)
        write_run_page(trainer.run, self.log.rows)

    def step(self, losses: Mapping[str, float]) -> None:
        super().step(losses)
        self.callbacks.call("on_step", self.trainer.step, losses)

    def save(self) -> None:
        super().save()
        self.callbacks.call("on_checkpoint", self.trainer.step, self.trainer.run.last)

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
        if trainer.due(last) and trainer.run.val:
            self.progress.message(f"step {trainer.step}: validating on {len(trainer.run.val):,} images")
        found = self.validate_if_due(last)
        row |= self._columns(found)
        self.log.add(row)
        trainer.reported = trainer.step
        if found.val:
            self._show(found.val, found.train)
            draw_detections(trainer.run.folder, trainer.run.val, found.val.found)
        if found.val or found.train:
            write_run_page(trainer.run, self.log.rows)
            trainer.means.restart()
        self.callbacks.call("on_report", row)
        if found.val:
            self.callbacks.call("on_validation", trainer.step, found.val)

    def _columns(self, found: Evaluations) -> dict[str, float | None]:
        """The AP of each class, empty without a validation, so that columns are always the same."""
        run, column = self.trainer.run, MEASURES[self.trainer.recipe.protocol][0]
        val = found.val.ap if found.val else {}
        columns = {f"{column}_{name}": val.get(name) for name in run.class_map.names if run.val}
        if self.trainer.recipe.early_stop:
            columns[f"train_{column}"] = found.train.fitness if found.train else None
        return columns

    def _show(self, val: Validation, train: Validation | None) -> None:
        values = "  ".join(f"{name} {_percent(ap)}" for name, ap in val.ap.items())
        mean = f"mean {100 * val.fitness:.1f}"
        more = f"  train {100 * train.fitness:.1f}" if train else ""
        measure = MEASURES[self.trainer.recipe.protocol][1]
        self.progress.message(f"step {self.trainer.step}: {measure}  {values}  {mean}{more}")

    def end(self) -> None:
        write_run_page(self.trainer.run, self.log.rows)

    def close(self) -> None:
        self.callbacks.call("on_end")


def _percent(ap: float | None) -> str:
    """A class without a labelled object has no AP."""
    return "-" if ap is None else f"{100 * ap:.1f}"
