"""Models and engines as candidates, and the pictures that they get."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from squeezedet.errors import DataError, UsageError
from squeezedet.latency.turns import Candidate, Detect
from squeezedet.media.sources import Failure, locate
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import WEIGHTS
from squeezedet.runtime.detector import Detector, load
from squeezedet.runtime.preprocess import InputRule

DEMO = "demo.*"
"""The picture that comes with the package: a drawn street."""
KITTI_SIZE = (1242, 375)
JPEG_QUALITY = 92


def open_detector(
    model: str,
    engine: str | None = None,
    threads: int | None = None,
    size: tuple[int, int] | None = None,
) -> Detector:
    """A detector; with a size, every frame is stretched to it.

    Args:
        model: name or path, see ``runtime.detector.load``.
        engine: its name; None for the file's own.
        threads: processor threads; None for all cores.
        size: (width, height) of the network's input; None for the model's own rule.

    Raises:
        UsageError: no such model or engine, the engine is not installed, or no such size.
        ModelError: the model is damaged, or the engine cannot run it.
    """
    if size is None:
        return load(model, engine=engine, threads=threads)
    try:
        rule = InputRule(*size, fixed=True)
    except ValueError as error:
        raise UsageError(f"--size: {error}") from error
    found = bundle.read(bundle.find(model))
    card = replace(found.card, input=rule)
    return Detector(replace(found, card=card), engine=engine, threads=threads)


def candidates_of(
    models: Sequence[str],
    engines: Sequence[str | None],
    *,
    threads: int | None = None,
    size: tuple[int, int] | None = None,
) -> list[Candidate]:
    """Every model in every engine, model by model.

    Raises:
        UsageError, ModelError: as ``open_detector``, before anything is timed.
    """
    names = _names(models)
    return [
        _candidate(name, model, engine, threads, size)
        for name, model in zip(names, models, strict=True)
        for engine in engines
    ]


@contextmanager
def pictures_of(folder: Path | None) -> Iterator[list[Path]]:
    """The images of a folder by name, or else the demo picture at KITTI's 1242x375.

    At that size a model for 1248x384 has to resize it, as it has to with a camera's pictures.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    if folder is not None:
        yield _images(folder)
        return
    from PIL import Image

    with tempfile.TemporaryDirectory(prefix="squeezedet-") as place:
        with Image.open(next(iter(sorted(WEIGHTS.glob(DEMO))))) as picture:
            path = Path(place) / "demo.jpg"
            picture.resize(KITTI_SIZE).save(path, quality=JPEG_QUALITY)
        yield [path]


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images")
    found = []
    for item in locate([str(folder)]):
        if isinstance(item, Failure):
            raise item.error
        found.append(Path(item.name))
    return found


def file_bytes(model: str) -> int:
    """Size of a model's file, and of the weights where they are in a file of their own."""
    path = bundle.find(model)
    return path.stat().st_size + len(bundle.read(path).weights)


def _names(models: Sequence[str]) -> list[str]:
    """What the tables call the models: a file's stem, or all of its path where stems are alike."""
    stems = [Path(model).stem for model in models]
    return [
        stem if stems.count(stem) == 1 else model for stem, model in zip(stems, models, strict=True)
    ]


def _candidate(
    name: str, model: str, engine: str | None, threads: int | None, size: tuple[int, int] | None
) -> Candidate:
    detector = open_detector(model, engine, threads, size)
    rule = detector.card.input
    shape = f"{rule.width}x{rule.height}"
    return Candidate(
        name=name,
        engine=detector.engine.name,
        input=shape if rule.fixed else f"{shape}, own shape",
        parameters=detector.card.parameters,
        file_bytes=file_bytes(model),
        detect=detector.detect,
        judge=partial(detector.detect, score=0.0),
        reopen=partial(_open, model, detector.engine.name, threads, size),
        note=f"{name}: {detector.decision.describe()}" if detector.decision else "",
    )


def _open(model: str, engine: str, threads: int | None, size: tuple[int, int] | None) -> Detect:
    return open_detector(model, engine, threads, size).detect
