"""From a checkpoint or a model to a file that an engine runs, whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import DataError, MissingExtraError, ModelError, UsageError
from squeezedet.exporting.graph import fix_size, has_nms, with_nms
from squeezedet.files import IMAGE_SUFFIXES, MODE, check_no_folder, one_sentence, read_text
from squeezedet.preprocess import STRIDE, resize
from squeezedet.runtime import bundle, exported, parity
from squeezedet.runtime.bundle import Bundle
from squeezedet.runtime.engines import INPUT, Engine, first_line
from squeezedet.runtime.parity import Difference
from squeezedet.runtime.select_engine import open_engine

MAX_PICTURES = 8
"""Of those given, so many are compared."""


def check_parity(
    original: Bundle, exported: Bundle, pictures: Sequence[Path] = (), engine: Engine | None = None
) -> str:
    """Run both on the package's picture and on others, and compare boxes and scores.

    Args:
        original: the model before the export.
        exported: read back from what was written.
        pictures: images to compare on, besides the package's.
        engine: runs ``exported``; by default the one that it was made for.

    Returns:
        One sentence with the largest differences.

    Raises:
        DataError: a picture cannot be read.
        ModelError: the difference is above the tolerance.
    """
    pixels = _inputs(exported, pictures)
    before, after = open_engine(original), engine or open_engine(exported)
    total = Difference()
    for image in pixels:
        found = before.run(image), after.run(image)
        total += parity.compare(*found, exported.card.selection, chosen=has_nms(exported))
    rounded = parity.is_int8(exported) or parity.is_int8(original)
    tolerance = parity.INT8 if rounded else parity.FLOAT
    report = f"parity on {len(pixels)} input{'s' if len(pixels) > 1 else ''} ({after.name}): {total}"
    if not total.within(tolerance):
        raise ModelError(f"the exported model differs: {report}; allowed are {tolerance}; nothing was written")
    return report


def _inputs(model: Bundle, pictures: Sequence[Path]) -> list[NDArray[np.uint8]]:
    """The pictures in the model's own sizes, and one in half of it where it takes any size."""
    first, *rest = parity.sample_pixels(model, tuple(pictures[:MAX_PICTURES]))
    if model.card.input.fixed:
        return [first, *rest]
    height, width = (max(STRIDE, side // 2 // STRIDE * STRIDE) for side in first.shape[:2])
    return [first, resize(first, (width, height)), *rest]


_logger = logging.getLogger(__name__)

SUFFIXES: Mapping[str, str] = MappingProxyType(
    {"bundle": bundle.SUFFIX, **{form: suffix for suffix, form in exported.FORMATS.items()}}
)
"""Format -> the suffix that its file must have."""
FOLDERS = ("web", "frigate", "triton", "kserve")
"""The formats that are folders."""
FORMATS = (*SUFFIXES, *FOLDERS)
WITH_NMS = ("onnx", "openvino", "triton")
Log = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What shall become of a model.

    Attributes:
        to: one of ``FORMATS``.
        fixed: (width, height) of the only size of input; None leaves the model's own rule.
        nms: put threshold and NMS into the graph.
        int8: quantize, with ``pictures`` to calibrate on.
        pictures: images to calibrate on, and to compare on.
        keep_float: layers that stay float32 in an int8 model.

    Raises:
        UsageError: two of them do not go together.
    """

    to: str = "bundle"
    fixed: tuple[int, int] | None = None
    nms: bool = False
    int8: bool = False
    pictures: tuple[Path, ...] = ()
    keep_float: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.to not in FORMATS:
            raise UsageError(f"`to`: no format {self.to!r} (there are {', '.join(FORMATS)})")
        if self.nms and self.to not in WITH_NMS:
            raise UsageError(f"`nms` is for the formats {', '.join(WITH_NMS)}, not for {self.to}")
        if self.int8 and self.to == "ncnn":
            raise UsageError("`int8` is not for ncnn: that is made from the float network")
        if self.int8 and not self.pictures:
            raise UsageError("`int8` needs `calibrate`: images like those that the camera sees, a folder or a data set")
        if self.keep_float and not self.int8:
            raise UsageError("`keep_float` is for `int8`")


def format_of(output: Path, to: str | None = None) -> str:
    """The format that is asked for: as said, or as the suffix says.

    Raises:
        UsageError: the name does not fit the format, or has a suffix that no format has.
    """
    if to is None:
        by_suffix = {suffix: form for form, suffix in SUFFIXES.items()}
        if output.suffix not in by_suffix:
            raise UsageError(
                f"`out`: {output}: no format has the suffix {output.suffix or '(none)'}; there are "
                f"{', '.join(by_suffix)}, and for a folder `to`: {', '.join(FOLDERS)}"
            )
        return by_suffix[output.suffix]
    if output.suffix != SUFFIXES.get(to, output.suffix):
        raise UsageError(f"`out`: {output}: a file for {to} ends with {SUFFIXES[to]}")
    return to


def export(
    model: str | Path | Bundle,
    out: str | Path,
    *,
    to: str | None = None,
    fixed: tuple[int, int] | None = None,
    nms: bool = False,
    int8: bool = False,
    calibrate: str | Path | None = None,
    keep_float: Sequence[str] = (),
    name: str | None = None,
    licence: str | None = None,
    data_note: str | None = None,
    data: str | Path | None = None,
    split: str = "val",
    results: str | Path | None = None,
    log: Log = print,
) -> Path:
    """Write a model for an engine, and check that it answers the same.

    Args:
        model: a shipped model's name, a bundle, or a checkpoint (.safetensors).
        out: the file to write: .bundle, .onnx, .xml (OpenVINO), .param (ncnn); for a page or Frigate a
            folder.
        to: the format, if the suffix does not say it: ``web`` for a page, ``frigate``, ``triton``, ``kserve``.
        fixed: (width, height) of the only size of input; by default the model's own rule.
        nms: put threshold, NMS and top-N into the graph.
        int8: quantize to 8 bits.
        calibrate: images to calibrate ``int8`` and to compare on: a folder, or a data set in any layout.
        keep_float: layers that ``int8`` leaves alone.
        name: of the model; its own by default, of a checkpoint the output's.
        licence: of the weights, for the card.
        data_note: what it was trained on, for the card.
        data: labelled images in any layout: the scores of a checkpoint are moved so that 0.4 has the best F1 of each
            class on them.
        split: of ``data``.
        results: JSON of an evaluation, for the card.
        log: takes one line at a time: parity, and what was written.

    Returns:
        The path of the file.

    Raises:
        UsageError: an argument fits neither the format nor the model.
        MissingExtraError: the format needs a package that is not installed.
        DataError: the images are too few or cannot be read.
        ModelError: the model cannot be converted, or the file answers otherwise.
        SqueezeDetError: the place cannot be written.
    """
    out = Path(out)
    options = ExportOptions(
        to=format_of(out, to),
        fixed=fixed,
        nms=nms,
        int8=int8,
        pictures=_pictures(Path(calibrate)) if calibrate else (),
        keep_float=tuple(keep_float),
    )
    if options.to not in FOLDERS:
        for place in (out, *(exported.companions(out) if exported.is_exported(out) else ())):
            check_no_folder(place)
    about: dict[str, Any] = {"name": name, "licence": licence, "data": data_note}
    about["results"] = _json(Path(results)) if results else None
    if not isinstance(about["results"] or {}, dict):
        raise DataError(f"{results}: no results that `evaluate` wrote")
    about = {field: value for field, value in about.items() if value}
    if isinstance(model, Bundle) or _is_model(str(model)):
        if data:
            raise UsageError("`data`: scores are moved when a checkpoint is exported, not in a finished model")
        found = model if isinstance(model, Bundle) else bundle.read(bundle.find(model))
        found = replace(found, card=replace(found.card, **about))
    else:
        with _training_floor("exporting a checkpoint"):
            from squeezedet.exporting.bundle import bundle_checkpoint
        from squeezedet.data.dataset import read_split

        samples = read_split(data, split) if data else ()
        found = bundle_checkpoint(Path(model), **{"name": out.stem, **about}, calibrate_on=samples)
    if int8 and "compression" in found.card.training:
        _logger.warning(
            "squeezedet: the weights of %s share few values already, and int8 costs such a model "
            "more accuracy than the float model that it was made of",
            found.card.name,
        )
    if options.to in FOLDERS:
        _write_folder(found, out, options, log)
    else:
        convert(found, out, options, log)
    log(f"{found.card.parameters:,} parameters")
    return out


def _is_model(model: str) -> bool:
    """Whether it is a finished model, or would be one if it were there, and no checkpoint."""
    path = Path(model)
    if bundle.is_shipped(model) or path.suffix in bundle.SUFFIXES or exported.is_exported(path):
        return True
    if path.is_file():
        return bundle.is_bundle(path)
    return not path.suffix and not path.exists()  # a name that is not shipped


def _write_folder(original: Bundle, folder: Path, options: ExportOptions, log: Log) -> None:
    """What another program wants, see ``deploy``; other files in the folder stay."""
    from squeezedet.exporting import deploy

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; a folder is needed")
    match options.to:
        case "web":
            model = transform(original, options, log)
            if model is not original:
                log(check_parity(original, model, options.pictures))
            deploy.export_site(model, folder)
            log(f"wrote {folder}, a page for any static host; to look at it here:")
            log(f"  python -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(folder))} 8080")
            log("  and open http://127.0.0.1:8080/ in a browser")
            return
        case "frigate":
            if not original.card.input.fixed and not options.fixed:
                options = replace(options, fixed=deploy.FRIGATE_SIZE)
            model = deploy.chosen_boxes(transform(original, options, log))
            graph = deploy.frigate_graph(model)
            log(check_parity(original, model, options.pictures, deploy.FrigateEngine(graph)))
            written = deploy.write_frigate(model, graph, folder)
        case "triton":
            model = deploy.for_any_batch(transform(original, options, log))
            engine = None if has_nms(model) else deploy.BatchEngine(model.graph)
            log(check_parity(original, model, options.pictures, engine))
            written = deploy.write_triton(model, folder)
        case _:
            convert(original, folder / deploy.MODEL, replace(options, to="bundle"), log)
            manifest = deploy.write_manifest(original, folder)
            log(f"wrote {manifest}: what is to be done before it is applied stands in it")
            return
    for path in written:
        log(f"wrote {path}: {path.stat().st_size:,} bytes")


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path, "results"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON file that can be read: {error}") from error


def _pictures(path: Path) -> tuple[Path, ...]:
    """The images of a folder, by name; or those of a data set, of train if it has that split."""
    try:
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")
    except NotADirectoryError:
        found = []  # a file that describes a data set
    except OSError as error:
        raise DataError(f"`calibrate`: {path}: {error.strerror or error}") from error
    if found:
        return tuple(found)
    from squeezedet.data.dataset import read_dataset

    try:
        dataset = read_dataset(path)
    except DataError as error:
        raise DataError(f"`calibrate`: {path}: no images in this folder, and no data set ({error})") from error
    samples = dataset.splits.get("train") or dataset.samples()
    return tuple(sample.image for sample in samples)


def convert(original: Bundle, output: Path, options: ExportOptions, log: Log = print) -> None:
    """Write a model in another format.

    It is written into a temporary folder, compared with the original, and only then moved to its place.

    Args:
        original: with an ONNX graph.
        output: the file.
        options: what shall become of it; a page is written by ``export``.
        log: takes one line at a time: what is going on, the parity, what was written.

    Raises:
        UsageError: the options do not fit the model.
        MissingExtraError: the format needs a package that is not installed.
        DataError: the images to calibrate on are too few or cannot be read.
        ModelError: the model cannot be converted, or the file answers otherwise.
        SqueezeDetError: the place cannot be written.
    """
    model = transform(original, options, log)
    with _folder_beside(output) as folder:
        written = folder / output.name
        _write(model, written, options.to)
        made = bundle.read(written, trust_model=True)  # it was written just now
        log(check_parity(original, made, options.pictures))
        _move(written, options.to, output.parent, log)
    exported.remember(made.format, (made.graph, made.weights))


def transform(model: Bundle, options: ExportOptions, log: Log = print) -> Bundle:
    """The model with what is done to its graph before it is written; see ``convert``."""
    if model.format != "onnx":
        raise UsageError(f"a file for {model.format} cannot be exported again: take the bundle")
    if options.to == "ncnn" and has_nms(model):
        raise UsageError("`to`: ncnn: the graph holds NMS; take the model without it")
    if options.int8:
        from squeezedet.exporting.int8 import quantize

        model = quantize(model, options.pictures, keep_float=options.keep_float, say=log)
    if options.fixed:
        model = fix_size(model, options.fixed)
    return with_nms(model) if options.nms else model


def _write(model: Bundle, path: Path, to: str) -> None:
    with one_sentence(path):
        match to:
            case "bundle":
                bundle.write(path, model)
            case "onnx":
                path.write_bytes(exported.attach(model.graph, model.card.to_json().encode()))
            case "openvino":
                _write_openvino(model, path)
            case _:
                _write_ncnn(model, path)


def _write_openvino(model: Bundle, path: Path) -> None:
    """Convert a model with openvino's reader of ONNX; its float16 kernels are not rounded again."""
    from squeezedet.runtime.engines import import_openvino

    openvino = import_openvino()
    rule = model.card.input
    try:
        network = openvino.Core().read_model(model.graph)
        if rule.fixed:
            network.reshape({INPUT: [1, rule.height, rule.width, 3]})
        openvino.save_model(network, path, compress_to_fp16=False)
        # Only now the checksum is known, and it is in the card, and the card in the other file.
        digest = hashlib.sha256(path.with_suffix(".bin").read_bytes()).hexdigest()
        card = replace(model.card, graph_sha256=digest)
        line = json.dumps(json.loads(card.to_json()))  # an attribute in XML cannot hold lines
        network.set_rt_info(line, ["squeezedet", "card"])
        openvino.save_model(network, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise ModelError(f"openvino cannot convert the model: {first_line(error)}") from error


def _write_ncnn(model: Bundle, path: Path) -> None:
    with _training_floor("exporting to ncnn"):
        from squeezedet.exporting.bundle import write_ncnn
        from squeezedet.training.checkpoint import detector_of_bundle
    write_ncnn(detector_of_bundle(model, path), model.card, path)


@contextmanager
def _training_floor(what: str) -> Iterator[None]:
    """Around imports that need torch: says which extra is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "squeezedet":
            raise
        raise MissingExtraError(what, "train") from error


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


def _move(written: Path, to: str, folder: Path, log: Log) -> None:
    """Move all files of a model, the one that is named last: it is there when all are."""
    for file in (*(exported.companions(written) if to in exported.FORMATS.values() else ()), written):
        place = folder / file.name
        size = file.stat().st_size
        with one_sentence(place):
            file.chmod(MODE)
            file.replace(place)
        log(f"wrote {place}: {size:,} bytes")
