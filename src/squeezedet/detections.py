"""Detections: what a detector found in one image; the one object that crosses every border."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from squeezedet.drawing import PICTURE_FORMATS, Marking, draw_boxes, encode_picture
from squeezedet.errors import DataError, MissingExtraError, UsageError
from squeezedet.files import write_atomic

if TYPE_CHECKING:
    from PIL.Image import Image

STAGES = ("load", "preprocess", "network", "postprocess")
"""The keys of ``Detections.timing_ms``, in the order of the work."""
Index = slice | list[int] | list[bool] | NDArray[np.bool_] | NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Detection:
    """One box.

    Attributes:
        name: class name.
        class_id: index of the name in ``Detections.names``.
        score: 0 to 1.
        xyxy: x1, y1, x2, y2 in pixels of the original image.
        track_id: which object it is in a video, where one was tracked.
    """

    name: str
    class_id: int
    score: float
    xyxy: tuple[float, float, float, float]
    track_id: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The boxes found in one image, by descending score.

    Attributes:
        xyxy: (N, 4) float32, x1, y1, x2, y2 in pixels of the original image.
        score: (N,) float32, 0 to 1.
        class_id: (N,) int64, an index into ``names``.
        names: all class names of the model.
        image: where the image came from, "" if it had no name.
        width, height: size of the original image in pixels.
        timing_ms: milliseconds spent in each stage.
        time_s: for a frame of a video, seconds since its first frame.
        wall_time: for a frame of a live source, when it arrived, with the time zone.
        track_id: (N,) int64, which object each box is, where one was tracked.

    ``len``, iteration and ``detections[i]`` give single ``Detection``s; a slice, a
    boolean mask or a list of indices gives ``Detections`` again.
    """

    xyxy: NDArray[np.float32]
    score: NDArray[np.float32]
    class_id: NDArray[np.int64]
    names: tuple[str, ...]
    image: str = ""
    width: int = 0
    height: int = 0
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    time_s: float | None = None
    wall_time: datetime | None = None
    track_id: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n = len(self.score)
        if self.xyxy.shape != (n, 4) or self.class_id.shape != (n,) or self.score.shape != (n,):
            shapes = f"{self.xyxy.shape}, {self.score.shape}, {self.class_id.shape}"
            raise ValueError(f"Detections wants (N, 4), (N,) and (N,) arrays, got {shapes}")
        if self.track_id is not None and self.track_id.shape != (n,):
            raise ValueError(f"Detections wants {n} track ids, got {self.track_id.shape}")

    @classmethod
    def empty(cls, names: tuple[str, ...], **fields: Any) -> Detections:
        """No box at all."""
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), names, **fields)

    def __len__(self) -> int:
        return len(self.score)

    def __iter__(self) -> Iterator[Detection]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: Index) -> Detections: ...
    def __getitem__(self, index: int | Index) -> Detection | Detections:
        if isinstance(index, int | np.integer):
            class_id = int(self.class_id[index])
            x1, y1, x2, y2 = (float(v) for v in self.xyxy[index])
            track_id = None if self.track_id is None else int(self.track_id[index])
            return Detection(self.names[class_id], class_id, float(self.score[index]), (x1, y1, x2, y2), track_id)
        chosen = index if isinstance(index, slice) else np.asarray(index)
        if isinstance(chosen, np.ndarray) and chosen.size == 0 and chosen.dtype != bool:
            chosen = chosen.astype(np.intp)
        return replace(
            self,
            xyxy=self.xyxy[chosen],
            score=self.score[chosen],
            class_id=self.class_id[chosen],
            track_id=None if self.track_id is None else self.track_id[chosen],
        )

    def of(self, classes: Collection[str]) -> Detections:
        """The boxes of these classes only."""
        return self[np.isin(self.class_id, [self.names.index(name) for name in classes])]

    def counts(self) -> dict[str, int]:
        """How many boxes of each class that was found, in the order of ``names``."""
        number = np.bincount(self.class_id, minlength=len(self.names))
        return {name: int(n) for name, n in zip(self.names, number, strict=True) if n}

    # -------------------------------------------------------------- formats

    def to_dict(self) -> dict[str, Any]:
        """The record of JSON outputs: image, width, height, detections, timing_ms.

        A frame of a video has ``time_s`` after its image, a tracked box ``track_id``.
        """
        return {
            "image": self.image,
            **({} if self.time_s is None else {"time_s": round(self.time_s, 6)}),
            **({} if self.wall_time is None else {"wall_time": self.wall_time.isoformat()}),
            "width": self.width,
            "height": self.height,
            "detections": [
                {"class": d.name, "score": round(d.score, 4), "xyxy": [round(v, 2) for v in d.xyxy], **_track(d)}
                for d in self
            ],
            "timing_ms": {stage: round(ms, 3) for stage, ms in self.timing_ms.items()},
        }

    def to_json(self, indent: int | None = None) -> str:
        """``to_dict`` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def to_kitti(self) -> str:
        """A KITTI result file: 16 fields a line, boxes with 2 decimals, scores with 3.

        The original tools write these decimals; they make ties (section 7 of the KITTI
        protocol's notes). Type names are capitalised as in KITTI's labels, and a blank in
        one becomes "_", as blanks part the fields: "traffic light" is Traffic_light.
        """
        return "".join(
            f"{'_'.join(d.name.capitalize().split())} -1 -1 -10 "
            + " ".join(f"{v:.2f}" for v in d.xyxy)
            + f" -1 -1 -1 -1000 -1000 -1000 -10 {d.score:.3f}\n"
            for d in self
        )

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """COCO result records; ``category_id`` counts from 1, ``bbox`` is x, y, width, height.

        A tracked box has ``track_id``, as in TAO's results.
        """
        return [
            {
                "image_id": image_id,
                **({"file_name": self.image} if self.image and self.time_s is None else {}),
                "category_id": d.class_id + 1,
                "category_name": d.name,
                "bbox": [round(v, 2) for v in _xywh(d.xyxy)],
                "score": round(d.score, 5),
                **_track(d),
            }
            for d in self
        ]

    def to_supervision(self) -> Any:
        """The same boxes as ``supervision.Detections`` (install ``supervision`` yourself)."""
        try:
            import supervision
        except ImportError as error:
            raise MissingExtraError("to_supervision", "supervision") from error
        return supervision.Detections(
            xyxy=self.xyxy,
            confidence=self.score,
            class_id=self.class_id.astype(int),
            tracker_id=self.track_id,
            data={"class_name": np.array([d.name for d in self], dtype=str)},
        )

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``, a row for each box (install ``pandas`` yourself)."""
        try:
            import pandas
        except ImportError as error:
            raise UsageError("to_pandas needs pandas: pip install pandas") from error
        columns: dict[str, Any] = {
            "image": [self.image] * len(self),
            "class": [d.name for d in self],
            "class_id": self.class_id,
            "score": self.score,
            **{side: self.xyxy[:, k] for k, side in enumerate(("x1", "y1", "x2", "y2"))},
        }
        if self.track_id is not None:
            columns["track_id"] = self.track_id
        return pandas.DataFrame(columns)

    # -------------------------------------------------------------- pictures

    def draw(self, image: Image | NDArray[np.uint8], markings: Sequence[Marking] = ()) -> Image:
        """A copy of the image with a labelled rectangle for each box; ``#3`` is a track's id.

        Args:
            image: what was detected in.
            markings: lines and zones: corners, a label, and a number that chooses the color.
        """
        labels = [f"{d.name} {d.score:.2f}" + ("" if d.track_id is None else f" #{d.track_id}") for d in self]
        return draw_boxes(image, self.xyxy, labels, self.class_id, markings)

    def plot(self, image: Image | NDArray[np.uint8] | None = None) -> Image:
        """The picture with its boxes; a notebook shows it.

        Args:
            image: what was detected in; by default the file that ``self.image`` names is read.

        Raises:
            UsageError: no image is given, and ``self.image`` names no file.
        """
        return self.draw(self._picture() if image is None else image)

    def save(self, path: str | Path, image: Image | NDArray[np.uint8] | None = None) -> Path:
        """Write the picture with its boxes, or the boxes as JSON, whole or not at all.

        Args:
            path: ``.jpg``, ``.png``, ``.webp`` or ``.bmp`` for the picture, ``.json`` for boxes.
            image: as for ``plot``.

        Returns:
            The path.

        Raises:
            UsageError: another suffix, or there is no image to draw on.
            SqueezeDetError: the file cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".json":
            write_atomic(path, self.to_json(indent=2) + "\n")
        elif suffix in PICTURE_FORMATS:
            if self.image and path.resolve() == Path(self.image).resolve():
                raise UsageError(f"{path}: is the image itself; save under another name")
            write_atomic(path, encode_picture(self.plot(image), PICTURE_FORMATS[suffix]))
        else:
            known = ", ".join((*PICTURE_FORMATS, ".json"))
            raise UsageError(f"{path}: boxes are saved as {known}")
        return path

    def _picture(self) -> Image:
        from PIL import Image as PillowImage
        from PIL import ImageOps

        path = Path(self.image)
        if self.time_s is not None or not self.image or not path.is_file():
            raise UsageError("the boxes do not know their picture any more: give `image`")
        try:
            with PillowImage.open(path) as picture:
                return ImageOps.exif_transpose(picture).convert("RGB")
        except Exception as error:  # what Pillow's decoders raise on damaged files is open
            raise DataError(f"{path}: the image is damaged ({error})") from error

    def _repr_html_(self) -> str:
        """For notebooks: a table."""
        tracked = self.track_id is not None
        head = ("class", "score", "x1", "y1", "x2", "y2", *("track",) * tracked)
        rows = [(d.name, f"{d.score:.2f}", *(f"{v:.1f}" for v in d.xyxy), *(str(d.track_id),) * tracked) for d in self]
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        return (
            f"<table><caption>{escape(self.image)} {self.width}x{self.height}</caption>"
            f"<tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{body}</table>"
        )


def _track(found: Detection) -> dict[str, int]:
    """What a record says of the track, if there is one."""
    return {} if found.track_id is None else {"track_id": found.track_id}


def _xywh(xyxy: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = xyxy
    return x1, y1, x2 - x1, y2 - y1
