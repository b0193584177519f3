"""Which model files are programs, and when one of them is run.

An ONNX graph is checked operator by operator (``graph_check``). A TorchScript file, and the files
of OpenVINO and ncnn, go to a parser of their makers as they are: a TorchScript file may write any
file of the user's, the others may crash the process. So they are opened only if the caller trusts
them, or if this user's own ``squeezedet export`` wrote them: what it writes is noted by its
checksum in the user's cache folder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from squeezedet.errors import ModelError, SqueezeDetError
from squeezedet.files import write_atomic
from squeezedet.runtime.cache import cache_folder

CHECKED = ("onnx",)
"""Formats that are no programs."""


def check_trust(form: str, parts: tuple[bytes, ...], where: str, trust_model: bool) -> None:
    """Refuse a program of a stranger.

    Args:
        form: the model's format.
        parts: what is in its files.
        where: its path, for the error.
        trust_model: the caller knows where it comes from.

    Raises:
        ModelError: it is a program, and neither trusted nor written by this user's exports.
    """
    if trust_model or form in CHECKED:
        return
    note = _note(form, parts)
    if note is None or not note.is_file():
        raise ModelError(
            f"{where}: a {form} file is a program, and this one was not exported here: give "
            "`trust_model=True` if you know who made it"
        )


def remember(form: str, parts: tuple[bytes, ...]) -> None:
    """Note that this user's export wrote a file; without a home nothing is noted."""
    note = _note(form, parts)
    if form in CHECKED or note is None:
        return
    try:
        write_atomic(note, f"a {form} file that squeezedet export wrote\n")
    except SqueezeDetError:
        return  # a read-only or full home: the file then needs trust_model


def _note(form: str, parts: tuple[bytes, ...]) -> Path | None:
    digest = hashlib.sha256(form.encode())
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    folder = cache_folder()
    return None if folder is None else folder / "exported" / digest.hexdigest()
