"""Annotated pictures, one file each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from squeezedet.detections import Detections
from squeezedet.errors import UsageError
from squeezedet.media.images import Frame
from squeezedet.media.output import UniqueStems, make_folder, whole_file

JPEG_QUALITY = 92


class PictureFolder:
    """Writes ``STEM.jpg`` for each image; two images of one stem get ``STEM.jpg``, ``STEM-2.jpg``.

    Args:
        folder: made if need be.
        sources: names of the images that are read; none of them is ever overwritten.

    Raises:
        UsageError: the folder cannot be made.
    """

    def __init__(self, folder: Path, sources: Iterable[str] = ()) -> None:
        self.folder = make_folder(folder)
        self._stems = UniqueStems()
        self._sources = {Path(name).resolve() for name in sources if "://" not in name}

    def write(self, frame: Frame, detections: Detections) -> Path:
        """Draw the boxes and write the picture.

        Raises:
            UsageError: the picture would replace an image that is read.
            SqueezeDetError: the file cannot be written.
        """
        path = self.folder / f"{self._stems(frame.name)}.jpg"
        if path.resolve() in self._sources:
            raise UsageError(
                f"{path}: the annotated picture would replace the image itself; "
                "save into another folder"
            )
        with whole_file(path) as temporary:
            picture = detections.draw(frame.pixels)
            picture.save(temporary, "JPEG", quality=JPEG_QUALITY)
        return path
