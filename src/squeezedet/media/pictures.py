"""Annotated pictures, one file each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from squeezedet.detections import Detections
from squeezedet.errors import UsageError
from squeezedet.media.images import SUFFIXES, Frame
from squeezedet.media.output import UniqueStems, make_folder, whole_file

JPEG_QUALITY = 92


class PictureFolder:
    """Writes ``STEM.jpg`` for each image; two images of one stem get ``STEM.jpg``, ``STEM-2.jpg``.

    Args:
        folder: made if need be.
        sources: paths of the images that are read; none of them is ever overwritten, and
            the pictures never go among them.

    Raises:
        UsageError: a source lies in the folder, or the folder cannot be made.
    """

    def __init__(self, folder: Path, sources: Iterable[str] = ()) -> None:
        paths = [Path(name) for name in sources]
        if folder.resolve() in {path.parent.resolve() for path in paths}:
            raise UsageError(
                f"{folder}: holds images that are read; save the annotated pictures into "
                "another folder"
            )
        if folder.suffix.lower() in SUFFIXES and not folder.exists():
            raise UsageError(f"{folder}: has the name of an image; name a folder to save into")
        self.folder = make_folder(folder)
        self._stems = UniqueStems()
        self._sources = {path.resolve() for path in paths}

    def write(self, frame: Frame, detections: Detections) -> Path:
        """Draw the boxes and write the picture.

        Raises:
            UsageError: the picture would replace, through a link, an image that is read.
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
