"""One annotation of Pascal VOC: the objects of an image in XML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from squeezedet.data.reading import Reading, number
from squeezedet.data.sample import is_dont_care
from squeezedet.data.writing import LabelledImage
from squeezedet.errors import DataError

IMAGES = "JPEGImages"
MAX_BYTES = 20_000_000
SIDES = ("xmin", "ymin", "xmax", "ymax")
CUT_OFF = 0.15
"""VOC calls an object truncated from 15 to 20 % outside (annotation guidelines of 2007)."""
FLAGS = {"": 0, "0": 0, "1": 1, "false": 0, "true": 1, "unspecified": 0}


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """The objects of one XML file as they stand in it.

    Attributes:
        types: N class names.
        xyxy: (N, 4) float64 xmin, ymin, xmax, ymax, unchanged.
        difficult, truncated, occluded: (N,) flags; False where the file does not say.
        lines: line of each object.
        beyond: objects that say more than is read (a pose, parts of a body, a polygon).
    """

    types: tuple[str, ...]
    xyxy: NDArray[np.float64]
    difficult: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    occluded: NDArray[np.bool_]
    lines: tuple[int, ...]
    beyond: int


def read_annotation(path: Path, reading: Reading) -> Annotation:
    """Read one XML file. Entities are refused: no label needs one, and they can grow without end.

    Raises:
        DataError: the file cannot be read or is no XML; or ``reading`` refuses an object
            without name, without four finite numbers, or with a flag that is none.
    """
    root, lines = _parse(path)
    rows, beyond = [], 0
    for index, (item, line) in enumerate(zip(root.findall("object"), lines, strict=True), start=1):
        with reading.refusing(path, line):
            rows.append((line, *_object(item, f"{path}:{line}", index)))
            pose = item.findtext("pose", "").strip().lower() not in ("", "unspecified")
            beyond += pose or any(item.find(k) is not None for k in ("part", "polygon", "mask"))
    flags = np.array([row[3] for row in rows], dtype=bool).reshape(-1, 3)
    return Annotation(
        types=tuple(row[1] for row in rows),
        xyxy=np.array([row[2] for row in rows], np.float64).reshape(-1, 4),
        difficult=flags[:, 0],
        truncated=flags[:, 1],
        occluded=flags[:, 2],
        lines=tuple(row[0] for row in rows),
        beyond=beyond,
    )


def _object(
    item: ElementTree.Element, where: str, index: int
) -> tuple[str, list[float], list[int]]:
    sides = [item.findtext(f"bndbox/{k}", "").strip() for k in SIDES]
    if not all(sides):
        raise DataError(f"{where}: object {index} has no complete bndbox")
    box = [number(side, where) for side in sides]
    name = item.findtext("name", "").strip()
    if not name:
        raise DataError(f"{where}: object {index} has no name")
    flags = []
    for key in ("difficult", "truncated", "occluded"):
        text = item.findtext(key, "").strip()
        if text.lower() not in FLAGS:
            raise DataError(f"{where}: object {index}: {key} is {text!r}, not 0 or 1")
        flags.append(FLAGS[text.lower()])
    return name, box, flags


def _parse(path: Path) -> tuple[ElementTree.Element, list[int]]:
    """The tree of an XML file, and the line of each object of its root."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot read the annotation: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise DataError(f"{path}: more than {MAX_BYTES // 10**6} MB are no annotation")
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    lines: list[int] = []
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        if depth == 1 and tag == "object":
            lines.append(parser.CurrentLineNumber)
        depth += 1
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise DataError(f"{path}:{parser.CurrentLineNumber}: an annotation declares no entities")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter: its encoding
        raise DataError(f"{path}: not an XML annotation: {error}") from error
    return builder.close(), lines


def format_annotation(image: LabelledImage) -> str:
    """The XML of one image."""
    objects = image.objects
    parts = [
        f"<annotation>\n  <folder>{IMAGES}</folder>\n"
        f"  <filename>{escape(image.file)}</filename>\n"
        f"  <size><width>{image.width}</width><height>{image.height}</height>"
        "<depth>3</depth></size>\n  <segmented>0</segmented>\n"
    ]
    for name, box, truncated, occluded, ignored in zip(
        objects.types,
        objects.xyxy.astype(np.float64),
        objects.truncated,
        objects.occluded,
        objects.ignored,
        strict=True,
    ):
        sides = [*(box[:2] + (box[:2] >= 0)), *box[2:]]
        bndbox = "".join(
            f"<{k}>{round(float(v), 3):.10g}</{k}>" for k, v in zip(SIDES, sides, strict=True)
        )
        parts.append(
            f"  <object>\n    <name>{escape(name)}</name>\n    <pose>Unspecified</pose>\n"
            f"    <truncated>{int(truncated > CUT_OFF)}</truncated>\n"
            f"    <occluded>{int(occluded in (1, 2))}</occluded>\n"
            f"    <difficult>{int(ignored or is_dont_care(name))}</difficult>\n"
            f"    <bndbox>{bndbox}</bndbox>\n  </object>\n"
        )
    return "".join([*parts, "</annotation>\n"])
