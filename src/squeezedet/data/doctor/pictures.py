"""Pictures of what was found: the worst examples of each check, and the sizes of the boxes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from squeezedet.data.doctor.examine import Diagnosis
from squeezedet.data.doctor.finding import Finding, Place
from squeezedet.data.doctor.histogram import histogram
from squeezedet.data.doctor.report import object_sizes
from squeezedet.data.doctor.survey import Survey
from squeezedet.data.sample import Sample
from squeezedet.drawing import draw_boxes
from squeezedet.errors import UsageError
from squeezedet.media.images import read_image
from squeezedet.media.output import make_folder, text_file, whole_file

if TYPE_CHECKING:
    from PIL.Image import Image

WORST = 4  # pictures of a check
JPEG_QUALITY = 88
GAP_PX = 8


def check_folder(folder: Path, diagnosis: Diagnosis) -> None:
    """Make sure that pictures never come to lie among the images of the data.

    Raises:
        UsageError: the folder holds images of the data.
    """
    read = {path.parent.resolve() for path in diagnosis.survey.looks}
    if folder.resolve() in read:
        raise UsageError(f"{folder}: holds images of the data; name another folder for --pictures")


def write_pictures(folder: Path, diagnosis: Diagnosis) -> list[Path]:
    """Write ``CHECK-1.jpg``, ``CHECK-2.jpg``, ... (the worst first) and ``sizes.svg``.

    Raises:
        UsageError: the folder holds images of the data, or cannot be made.
        SqueezeDetError: a file cannot be written.
    """
    check_folder(folder, diagnosis)
    make_folder(folder)
    written = [folder / "sizes.svg"]
    with text_file(written[0]) as file:
        title = "size of objects in the input: root of width x height, px"
        file.write(histogram(object_sizes(diagnosis.survey), title))
    for finding in diagnosis.findings:
        written += _examples(folder, finding, diagnosis.survey)
    return written


def _examples(folder: Path, finding: Finding, survey: Survey) -> list[Path]:
    shown = [p for p in finding.where if p.sample is not None and survey.look(p.sample)]
    written = []
    for number, place in enumerate(shown[:WORST], start=1):
        path = folder / f"{finding.check}-{number}.jpg"
        with whole_file(path) as temporary:
            _picture(place).save(temporary, "JPEG", quality=JPEG_QUALITY)
        written.append(path)
    return written


def _picture(place: Place) -> Image:
    """The image with the boxes in question, all of them if none is; a twin stands below it."""
    from PIL import Image

    assert place.sample is not None  # noqa: S101 (the caller chose those with a sample)
    above = _drawn(place.sample, place.boxes)
    if place.other is None:
        return above
    below = _drawn(place.other, ())
    both = Image.new(
        "RGB",
        (max(above.width, below.width), above.height + GAP_PX + below.height),
        "white",
    )
    both.paste(above, (0, 0))
    both.paste(below, (0, above.height + GAP_PX))
    return both


def _drawn(sample: Sample, boxes: tuple[int, ...]) -> Image:
    chosen = list(boxes) or list(range(len(sample.objects)))
    types = [sample.objects.types[i] for i in chosen]
    return draw_boxes(
        read_image(sample.image).pixels,
        sample.objects.xyxy[chosen],
        [f"{i} {name}" for i, name in zip(chosen, types, strict=True)],
        np.array([sorted(set(types)).index(name) for name in types], dtype=np.int64),
    )
