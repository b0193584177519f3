"""``squeezedet export``: any model to any format, whole and checked, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError, UsageError
from squeezedet.export import onnx
from squeezedet.export.onnx import has_nms
from squeezedet.files import MODE, one_sentence
from squeezedet.preprocess import STRIDE, resize
from squeezedet.runtime import bundle, exported, parity
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines.select import open_engine
from squeezedet.runtime.parity import Difference
from squeezedet.runtime.trust import remember

# ---- check: Whether an exported file answers as the model that it was made of.

MAX_PICTURES = 8
"""Of those given, so many are compared."""


def check_parity(original: Bundle, exported: Bundle, pictures: Sequence[Path] = ()) -> str:
    """Run both on the package's picture and on others, and compare boxes and scores.

    Args:
        original: the model before the export.
        exported: read back from what was written.
        pictures: images to compare on, besides the package's.

    Returns:
        One sentence with the largest differences.

    Raises:
        DataError: a picture cannot be read.
        ModelError: the difference is above the tolerance.
    """
    pixels = _inputs(exported, pictures)
    before, after = open_engine(original), open_engine(exported)
    total = Difference()
    for image in pixels:
        found = before.run(image), after.run(image)
        total += parity.compare(*found, original.card.selection, chosen=has_nms(exported))
    rounded = parity.is_int8(exported) or parity.is_int8(original)
    tolerance = parity.INT8 if rounded else parity.FLOAT
    report = (
        f"parity on {len(pixels)} input{'s' if len(pixels) > 1 else ''} ({after.name}): {total}"
    )
    if not total.within(tolerance):
        raise ModelError(
            f"the exported model differs: {report}; allowed are {tolerance}; nothing was written"
        )
    return report


def _inputs(model: Bundle, pictures: Sequence[Path]) -> list[NDArray[np.uint8]]:
    """The pictures in the model's own sizes, and one in half of it where it takes any size."""
    first, *rest = parity.sample_pixels(model, tuple(pictures[:MAX_PICTURES]))
    if model.card.input.fixed:
        return [first, *rest]
    height, width = (max(STRIDE, side // 2 // STRIDE * STRIDE) for side in first.shape[:2])
    return [first, resize(first, (width, height)), *rest]


# ---- convert: ``squeezedet export``: any model to any format, whole and checked, or not at all.

WEB = "web"
"""The format that is a folder."""
SUFFIXES: Mapping[str, str] = MappingProxyType(
    {
        "bundle": bundle.SUFFIX,
        **{form: suffix for suffix, form in exported.FORMATS.items()},
        WEB: "",
    }
)
"""Format -> the suffix that its file must have; a page is a folder."""
WITH_NMS = ("onnx", "openvino")
FROM_NETWORK = ("ncnn", "torchscript")
"""These are traced from the network, which is built again from its weights."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What shall become of a model.

    Attributes:
        to: one of ``SUFFIXES``.
        fixed: (width, height) of the only size of input; None leaves the model's own rule.
        dynamic: the file must take any size.
        nms: put threshold and NMS into the graph.
        int8: quantise, with ``pictures`` to calibrate on.
        pictures: images to calibrate on, and to compare on.
        keep_float: layers that stay float32 in an int8 model.

    Raises:
        UsageError: two of them do not go together.
    """

    to: str = "bundle"
    fixed: tuple[int, int] | None = None
    dynamic: bool = False
    nms: bool = False
    int8: bool = False
    pictures: tuple[Path, ...] = ()
    keep_float: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.to not in SUFFIXES:
            raise UsageError(f"--to: no format {self.to!r} (there are {', '.join(SUFFIXES)})")
        if self.dynamic and self.fixed:
            raise UsageError("--dynamic or --fixed, not both")
        if self.nms and self.to not in WITH_NMS:
            raise UsageError(f"--nms is for --to {' and '.join(WITH_NMS)}, not for {self.to}")
        if self.int8 and self.to in FROM_NETWORK:
            raise UsageError(f"--int8 is not for --to {self.to}: it is made from the float network")
        if self.int8 and not self.pictures:
            raise UsageError(
                "--int8 needs --calibrate DIR: a folder of images like those that the camera sees"
            )
        if self.keep_float and not self.int8:
            raise UsageError("--keep-float is for --int8")


def format_of(output: Path, to: str | None) -> str:
    """The format that is asked for: as said, or as the suffix says, or a bundle.

    Raises:
        UsageError: the name does not fit the format, and no engine would know the file.
    """
    if to is None:
        return {suffix: form for form, suffix in SUFFIXES.items() if suffix}.get(
            output.suffix, "bundle"
        )
    suffix = SUFFIXES.get(to, "")
    if to in exported.FORMATS.values() and output.suffix != suffix:
        raise UsageError(f"{output}: a file for {to} ends with {suffix}")
    return to


def convert(original: Bundle, output: Path, wish: ExportOptions, say: Say = print) -> None:
    """Write a model in another format.

    It is written into a temporary folder, compared with the original, and only then moved to
    its place.

    Args:
        original: with an ONNX graph.
        output: the file.
        wish: what shall become of it; a page is written by ``serving.web``, of ``changed``.
        say: takes one line at a time: what is going on, the parity, what was written.

    Raises:
        UsageError: the wish does not fit the model.
        MissingExtraError: the format needs a package that is not installed.
        DataError: the images to calibrate on are too few or cannot be read.
        ModelError: the model cannot be converted, or the file answers otherwise.
        SqueezeDetError: the place cannot be written.
    """
    model = transform(original, wish, say)
    with _folder_beside(output) as folder:
        written = folder / output.name
        _write(model, written, wish.to)
        made = bundle.read(written, trust_model=True)  # it was written just now
        say(check_parity(original, made, wish.pictures))
        _move(_files(written, wish.to), output.parent, say)
    remember(made.format, (made.graph, made.weights))


def transform(model: Bundle, wish: ExportOptions, say: Say = print) -> Bundle:
    """The model with what is done to its graph before it is written; see ``convert``."""
    if model.format != "onnx":
        raise UsageError(f"a file for {model.format} cannot be exported again: take the bundle")
    if wish.dynamic and model.card.input.fixed:
        rule = model.card.input
        raise UsageError(f"--dynamic: the model takes only {rule.width}x{rule.height}")
    if wish.to in FROM_NETWORK and onnx.has_nms(model):
        raise UsageError(f"--to {wish.to}: the graph holds NMS; take the model without it")
    if wish.int8:
        from squeezedet.export.int8 import quantize

        model = quantize(model, wish.pictures, keep_float=wish.keep_float, say=say)
    if wish.fixed:
        model = onnx.fixed(model, wish.fixed)
    return onnx.with_nms(model) if wish.nms else model


def _write(model: Bundle, path: Path, to: str) -> None:
    with one_sentence(path):
        match to:
            case "bundle":
                bundle.write(path, model)
            case "onnx":
                path.write_bytes(exported.attach(model.graph, model.card.to_json().encode()))
            case "openvino":
                from squeezedet.export.formats import write_openvino

                write_openvino(model, path)
            case _:
                _write_from_network(model, path, to)


def _write_from_network(model: Bundle, path: Path, to: str) -> None:
    from squeezedet.errors import MissingExtraError

    try:
        from squeezedet.export.formats import write_ncnn, write_torchscript
        from squeezedet.training.init import detector_of_bundle
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "squeezedet":
            raise
        raise MissingExtraError(f"export --to {to}", "train") from error

    with tempfile.TemporaryDirectory(prefix="squeezedet-") as folder:
        source = Path(folder) / f"{model.card.name}{bundle.SUFFIX}".replace("/", "_")
        bundle.write(source, model)
        network = detector_of_bundle(source, model.card)
    write = write_ncnn if to == "ncnn" else write_torchscript
    write(network, model.card, path)


@contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    """A folder in which a file can be written and from which it can be renamed; gone at the end."""
    with one_sentence(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _files(written: Path, to: str) -> list[Path]:
    """All files of a model, the one that is named last: it is there when all are."""
    return [*(exported.companions(written) if to in exported.FORMATS.values() else ()), written]


def _move(files: Sequence[Path], folder: Path, say: Say) -> None:
    for file in files:
        place = folder / file.name
        size = file.stat().st_size
        with one_sentence(place):
            file.chmod(MODE)
            file.replace(place)
        say(f"wrote {place}: {size:,} bytes")
