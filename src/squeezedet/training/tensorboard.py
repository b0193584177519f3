"""The log's rows as TensorBoard's event files, for those who have it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from squeezedet.errors import MissingExtraError

FOLDER = "tensorboard"


class Board:
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
