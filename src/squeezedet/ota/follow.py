"""A detector that changes over to the model that ``ota apply`` puts into a folder, while it works."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from squeezedet.detections import Detections
from squeezedet.errors import ModelError, SqueezeDetError, UsageError
from squeezedet.media.images import Frame
from squeezedet.ota.device import STATE, Installed, read_model, read_state
from squeezedet.runtime import DEFAULT_MODEL
from squeezedet.runtime.detector import Detector, load
from squeezedet.runtime.postprocess import RawBoxes

Say = Callable[[str], None]
log = logging.getLogger(__name__)


def open_detector(model: str | Path, folder: Path | None, say: Say = log.warning, **options: Any) -> Detector:
    """The detector of a model, or one that follows a folder; options as for ``load``.

    Raises:
        UsageError: both are named, or no package was applied there.
        ModelError: the model cannot be opened.
    """
    if folder is None:
        return load(model, **options)
    if str(model) != DEFAULT_MODEL:
        raise UsageError("`model` and `model_dir`: give one of the two")
    return FollowingDetector(folder, say, **options)


class FollowingDetector(Detector):
    """Detects with the current model of a folder; the next one is opened in a thread, and the old one works meanwhile.

    Args:
        folder: that ``device.apply`` keeps.
        options: see ``load``.
        say: takes a sentence when the model changes, or cannot.

    Raises:
        UsageError: no package was applied there.
        ModelError: neither the current model nor the one before can be opened.
    """

    def __init__(self, folder: Path, say: Say = log.warning, **options: Any) -> None:
        self._folder, self._say, self._options = folder, say, options
        self._mark, self._thread = self._look(), threading.Thread()
        self._now = self._open()
        self._reopen = None
        self.card, self.names = self._now.card, self._now.names
        self.engine, self.decision = self._now.engine, self._now.decision

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(FollowingDetector, self._folder, **self._options), ()

    def newest(self) -> Detector:
        """The detector of the current model, as soon as it is ready."""
        mark = self._look()
        if mark != self._mark and not self._thread.is_alive():
            self._mark = mark
            self._thread = threading.Thread(target=self._change, name="next model", daemon=True)
            self._thread.start()
        return self._now

    def detect(self, frame: Frame, score: float | None = None) -> Detections:
        """See ``Detector.detect``."""
        return self.newest().detect(frame, score)

    def raw(self, frame: Frame) -> RawBoxes:
        """See ``Detector.raw``."""
        return self.newest().raw(frame)

    def _look(self) -> tuple[int, int] | None:
        """What differs after each change of the folder."""
        try:
            status = (self._folder / STATE).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino

    def _open(self) -> Detector:
        state = read_state(self._folder)
        if state is None:
            raise UsageError(f"{self._folder}: no package was applied there yet")
        try:
            return self._load(state.current)
        except ModelError as error:
            if state.previous is None:
                raise
            self._say(f"{error}; going on with version {state.previous.version}")
            return self._load(state.previous)

    def _load(self, model: Installed) -> Detector:
        read_model(self._folder, model)
        detector = load(self._folder / model.file, **self._options)
        detector.warm_up()
        return detector

    def _change(self) -> None:
        try:
            detector = self._open()
        except SqueezeDetError as error:
            self._say(f"{error}; going on with the model that is loaded")
            return
        if detector.card.graph_sha256 != self._now.card.graph_sha256:
            self._now = detector
            self._say(f"{self._folder}: changed over to another model")
