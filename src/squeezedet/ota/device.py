"""The folder on a device that packages are applied to, and the detector that follows it while it works.

``state.json`` alone says which model counts, and a rename puts it in place; models lie beside it under their
checksums. Whenever the process is killed or the disk is full, the folder holds the old state or the new one, whole.
What an interrupted call left is removed by the next one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from squeezedet.detections import Detections
from squeezedet.errors import DataError, ModelError, SqueezeDetError, UsageError
from squeezedet.files import lock, one_sentence, read_regular, read_text, remove_partial, write_atomic
from squeezedet.media.images import Frame
from squeezedet.ota import package
from squeezedet.ota.package import Package, stamp, time_of
from squeezedet.runtime import bundle, signature
from squeezedet.runtime.detector import Detector, load
from squeezedet.runtime.postprocess import RawBoxes

FORMAT = "squeezedet models 1"
STATE = "state.json"
MAX_STATE_BYTES = 100_000
BUSY = "another process is applying a package there; wait for it"
Say = Callable[[str], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A model on the device: its version, and the SHA-256 of its file, which is its name."""

    version: int
    sha256: str

    @property
    def file(self) -> str:
        """Its name in the folder."""
        return f"{self.sha256}{bundle.SUFFIX}"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a device remembers."""

    network: str  # that it keeps to
    current: Installed
    previous: Installed | None
    highest: int  # version that was ever in use; only a later one is taken
    serial: int  # of the latest certificate of a release key
    seen: str  # a time that has certainly been


def read_state(folder: Path) -> State | None:
    """What a device remembers, None where nothing was applied yet; a DataError if it cannot be read."""
    path = folder / STATE
    if not path.exists():
        return None
    try:
        values = json.loads(read_text(path, max_bytes=MAX_STATE_BYTES))
        if values.pop("format") != FORMAT:
            raise ValueError("of another format")
        current, previous = (None if values[n] is None else Installed(**values[n]) for n in ("current", "previous"))
        state = State(**values | {"current": current, "previous": previous})
        time_of(state.seen)
        for model in (state.current, *([previous] if previous else [])):
            if not package.SHA256.fullmatch(model.sha256):
                raise ValueError("a checksum is none")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: is damaged ({error}); restore it, or start with an empty folder") from error
    return state


def read_model(folder: Path, model: Installed) -> bytes:
    """The file of a model; a ModelError if it is not there, or damaged."""
    path = folder / model.file
    content = read_regular(path, bundle.MAX_FILE_BYTES, what="model", error=ModelError)
    if hashlib.sha256(content).hexdigest() != model.sha256:
        raise ModelError(f"{path}: was changed or damaged")
    return content


def apply(path: Path, folder: Path, keys: Path, *, now: datetime | None = None) -> tuple[State, bool]:
    """Take a package: check it, build its model, test that, and only then put it in the old one's place.

    Nobody else may be able to write to the file of trusted public keys.

    Returns:
        What the device remembers now, and whether anything changed: a package whose model is in use changes nothing.

    Raises:
        UsageError: the file of keys cannot be used, or another process is at work in the folder.
        ModelError: the package is refused; the sentence says why.
        SqueezeDetError: the clock is wrong, or the folder cannot be written.
    """
    now = now or datetime.now(UTC)
    opened = package.read(path, read_trusted(keys))
    with lock(folder, BUSY):
        state = read_state(folder)
        if _is_current(opened, state):
            assert state is not None  # noqa: S101 - it has a current model
            _tidy(folder, state)  # the call that took it may have been killed
            return state, False
        content = _checked(opened, folder, state, now)
        manifest = opened.manifest
        new = State(
            network=manifest.network,
            current=Installed(version=manifest.version, sha256=manifest.sha256),
            previous=state.current if state else None,
            highest=manifest.version,
            serial=max(opened.serial, state.serial if state else 0),
            seen=max(stamp(now), manifest.created, state.seen if state else ""),
        )
        _tidy(folder, state)  # makes room
        try:
            write_atomic(folder / new.current.file, content)
            _commit(folder, new)
        except BaseException:
            _tidy(folder, read_state(folder))
            raise
        return new, True


def verify(path: Path, keys: Path, folder: Path | None = None, *, now: datetime | None = None) -> Package:
    """All of ``apply`` that changes nothing, with its errors; without a folder a delta is not built."""
    opened = package.read(path, read_trusted(keys))
    state = read_state(folder) if folder else None
    if not _is_current(opened, state):
        _checked(opened, folder, state, now or datetime.now(UTC))
    return opened


def rollback(folder: Path) -> State:
    """Go back to the model before; the one in use does not come back, not by its package either.

    Raises:
        UsageError: there is none, or another process is at work in the folder.
        ModelError: its file is damaged.
        SqueezeDetError: the folder cannot be written.
    """
    if not (folder / STATE).exists():
        raise UsageError(f"{folder}: no package was applied there")
    with lock(folder, BUSY):
        state = read_state(folder)
        if state is None or state.previous is None:
            raise UsageError(f"{folder}: there is no earlier model to go back to")
        read_model(folder, state.previous)
        new = replace(state, current=state.previous, previous=None)
        _commit(folder, new)
        return new


def read_trusted(path: Path) -> frozenset[str]:
    """The keys of a file, to which nobody but this user or root may write; a UsageError if others may."""
    keys = signature.read_keys(path)
    if os.name == "posix":
        here = path.resolve()
        file, above = here.stat(), here.parent.stat()
        open_folder = above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX
        if file.st_uid not in (0, os.geteuid()) or file.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or open_folder:
            raise UsageError(f"{path}: others may write to this file of keys; chmod go-w it, and its folder")
    return keys


def _is_current(opened: Package, state: State | None) -> bool:
    made = Installed(version=opened.manifest.version, sha256=opened.manifest.sha256)
    return state is not None and state.current == made


def _checked(opened: Package, folder: Path | None, state: State | None, now: datetime) -> bytes:
    """The file of the new model, after everything that speaks against it was looked for."""
    manifest, where = opened.manifest, opened.where
    package.check_runtime(opened, now, time_of(state.seen) if state else None)
    if state:
        if manifest.network != state.network:
            raise ModelError(f"{where}: is for the network {manifest.network}, and this device has {state.network}")
        if opened.expires and opened.serial < state.serial:
            raise ModelError(f"{where}: the certificate of its key was replaced by a later one")
        if manifest.version <= state.highest:
            raise ModelError(f"{where}: is version {manifest.version}, and this device had {state.highest} already")
    old: Mapping[str, bytes] = {}
    if manifest.base:
        if folder is None:
            return b""
        if state is None or manifest.base != state.current.sha256:
            have = f"has version {state.current.version}" if state else "has no model yet"
            raise ModelError(f"{where}: is a delta to another model; this device {have}: send the whole package")
        content = read_model(folder, state.current)
        old = bundle.all_members(content, folder / state.current.file)
    parts = package.build(opened, old)
    package.check_samples(opened, parts)
    return bundle.plain_bytes(parts)


def _commit(folder: Path, state: State) -> None:
    """Let a state count, for good."""
    _sync(folder)  # the model's name first
    write_atomic(folder / STATE, json.dumps({"format": FORMAT, **asdict(state)}, indent=2) + "\n")
    _sync(folder)
    _tidy(folder, state)


def _sync(folder: Path) -> None:
    """Have the names in a folder on disk, also if the power fails now."""
    if os.name == "posix":
        with one_sentence(folder):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _tidy(folder: Path, state: State | None) -> None:
    """Remove models that the state does not name, and what processes that were killed left."""
    kept = {model.file for model in (state.current, state.previous) if model} if state else set()
    with one_sentence(folder):
        remove_partial(folder / STATE)
        for path in folder.glob(f"*{bundle.SUFFIX}"):
            if package.SHA256.fullmatch(path.stem) and path.name not in kept:
                path.unlink(missing_ok=True)
        for path in folder.glob(f".*.partial{bundle.SUFFIX}"):
            path.unlink(missing_ok=True)


# ---------------------------------------------------------------- following


class FollowingDetector(Detector):
    """Detects with the current model of a folder; the next one is opened in a thread, and the old one works meanwhile.

    Args:
        folder: that ``apply`` keeps.
        say: takes a sentence when the model changes, or cannot.
        options: see ``load``.

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
        return self.newest().detect(frame, score)

    def raw(self, frame: Frame) -> RawBoxes:
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
