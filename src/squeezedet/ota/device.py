"""The folder on a device that packages are applied to: the model in use, the one before, and what is remembered.

``state.json`` alone says which model counts, and a rename puts it in place; models lie beside it under their
checksums. Whenever the process is killed or the disk is full, the folder holds the old state or the new one, whole.
What an interrupted call left is removed by the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from squeezedet.errors import DataError, ModelError, UsageError
from squeezedet.files import lock, one_sentence, read_regular, read_text, remove_partial, write_atomic
from squeezedet.ota import package
from squeezedet.ota.package import Package, stamp, time_of
from squeezedet.runtime import bundle, signature

FORMAT = "squeezedet models 1"
STATE = "state.json"
MAX_STATE_BYTES = 100_000
BUSY = "another process is applying a package there; wait for it"


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
    """What a device remembers.

    Attributes:
        network: the one that it keeps to.
        current: the model in use.
        previous: the one before; None if there is none to go back to.
        highest: version that was ever in use; only a later one is taken.
        serial: of the latest certificate of a release key.
        seen: a time that has certainly been.
    """

    network: str
    current: Installed
    previous: Installed | None
    highest: int
    serial: int
    seen: str


def read_state(folder: Path) -> State | None:
    """What a device remembers; None where nothing was applied yet.

    Raises:
        DataError: it cannot be read.
    """
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
    """The file of a model.

    Raises:
        ModelError: it is not there, or damaged.
    """
    path = folder / model.file
    content = read_regular(path, bundle.MAX_FILE_BYTES, what="model", error=ModelError)
    if hashlib.sha256(content).hexdigest() != model.sha256:
        raise ModelError(f"{path}: was changed or damaged")
    return content


def apply(path: Path, folder: Path, keys: Path, *, now: datetime | None = None) -> tuple[State, bool]:
    """Take a package: check it, build its model, test that, and only then put it in the old one's place.

    Args:
        path: of the package.
        folder: of the device; made if need be.
        keys: file of trusted public keys, which nobody else may be able to write to.
        now: the time.

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
    """All of ``apply`` that changes nothing; without a folder a delta is not built.

    Raises:
        as ``apply``.
    """
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
    """The keys of a file that nobody but its owner, this user or root, may write to.

    Raises:
        UsageError: others may, or the file cannot be read.
    """
    keys = signature.read_keys(path)
    if os.name == "posix":
        here = path.resolve()
        file, above = here.stat(), here.parent.stat()
        open_folder = above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX
        if file.st_uid not in (0, os.geteuid()) or file.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or open_folder:
            raise UsageError(f"{path}: others may write to this file of keys; chmod go-w it, and its folder")
    return keys


def _is_current(opened: Package, state: State | None) -> bool:
    manifest = opened.manifest
    return state is not None and state.current == Installed(version=manifest.version, sha256=manifest.sha256)


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
