"""When a run is judged and reported, and what all processes do then, those that write or not."""

from __future__ import annotations

from squeezedet.training.examples import Examples
from squeezedet.training.log import Progress
from squeezedet.training.trainer import Judgement, Trainer

REPORT_EVERY = 25


class Follower:
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

    def judge_if_due(self, last: bool) -> Judgement:
        """Validate if it is time, together with the other processes."""
        return self.trainer.judge() if self.trainer.due(last) else Judgement(None, None)

    def end(self) -> None:
        """The run is over."""
