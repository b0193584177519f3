"""From one layout to another: labels are written anew, images are linked, never re-encoded."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from squeezedet.data import coco, kitti, voc, yolo
from squeezedet.data.dataset import Dataset, Layout, same_labels
from squeezedet.data.sample import LabelledSplits, Losses, Sample, image_size, write_text
from squeezedet.errors import DataError, UsageError
from squeezedet.files import MODE, one_sentence

LOSSES_FILE = "not_converted.tsv"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion did.

    Attributes:
        images, objects: how many were written.
        splits: images of each split.
        lost: what the new layout cannot say -> number of labels.
        listed: the file that lists each of them and each label that was skipped on reading;
            None if there is nothing to list.
    """

    images: int
    objects: int
    splits: Mapping[str, int]
    lost: Mapping[str, int]
    listed: Path | None


def convert(dataset: Dataset, target: Path | str, layout: Layout) -> Conversion:
    """Write a data set in another layout.

    Images become hard links where the disk allows it, else copies; a change to the one file
    is then a change to the other. The new folder appears when it is complete.

    Raises:
        UsageError: the target is there and not an empty folder.
        DataError: an image or a class name cannot be used.
        SqueezeDetError: the place cannot be written.
    """
    target = Path(target)
    _check(dataset)
    writer = {"kitti": kitti, "voc": voc, "coco": coco, "yolo": yolo}[layout]
    names = _names(dataset.samples())
    losses = Losses()
    with new_folder(target) as folder:
        linked = {s.image: _link(s, names[s.image], folder / writer.IMAGES) for s in dataset.samples()}
        new = LabelledSplits(
            {split: [linked[s.image] for s in some] for split, some in dataset.splits.items() if some}, dataset.types
        )
        writer.write(folder, new, losses)
        listed = _list(folder / LOSSES_FILE, dataset, losses)
    return Conversion(
        len(linked),
        sum(len(sample.objects) for sample in linked.values()),
        {split: len(samples) for split, samples in new.splits.items()},
        losses.counts(),
        target / LOSSES_FILE if listed else None,
    )


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target`` that takes its place when the block ends well.

    Raises:
        UsageError: there is something at the target already.
        SqueezeDetError: the place cannot be written.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"{target}: exists already and is not empty; choose a new folder")
    with one_sentence(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            yield temporary
            temporary.chmod(MODE | ((MODE & 0o444) >> 2))  # who may read may enter
            if target.exists():
                target.rmdir()
            temporary.replace(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _check(dataset: Dataset) -> None:
    """An image has the same labels wherever it is; a class name is text of one line, a split's a file's name."""
    for split in dataset.splits:
        if not split.isprintable() or Path(split).name != split:
            raise DataError(f"{dataset.path}: the split {split!r} cannot be the name of a file")
    once = {sample.image: sample for sample in dataset.samples()}
    for sample in (s for split in dataset.splits.values() for s in split):
        if not same_labels(sample.objects, once[sample.image].objects):
            raise DataError(f"{sample.image}: has different labels in two splits")
    for name in dataset.types:
        if not name.isprintable():
            raise DataError(f"{dataset.path}: the class name {name!r} holds what cannot be printed")


def _names(samples: Sequence[Sample]) -> dict[Path, str]:
    """A name for each image: its id, with a number where two clash on a disk that knows no case."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for sample in samples:
        own = name = _plain(sample.id)
        number = 2
        while name.lower() in taken:
            name = f"{own}_{number}"
            number += 1
        names[sample.image] = name
        taken.add(name.lower())
    return names


def _plain(name: str) -> str:
    """Without blanks and what is no text, which lists of names cannot hold."""
    return re.sub(r"[\s\x00-\x1f\ud800-\udfff]", "_", name)


def _link(sample: Sample, name: str, folder: Path) -> Sample:
    """The sample of the image in its new folder."""
    size = image_size(sample.image)
    source = sample.image.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"{name}{sample.image.suffix.lower()}"
    linked = False
    with contextlib.suppress(OSError, NotImplementedError):  # another disk, or one without links
        os.link(source, image)
        linked = True
    if not linked:
        shutil.copyfile(source, image)
    return Sample(name, image, sample.objects, size)


def _list(path: Path, dataset: Dataset, losses: Losses) -> bool:
    """Write what was lost and what was skipped, if anything was."""
    rows = ["\t".join(map(str, entry)) for entry in losses.entries]
    rows += [f"{skipped.file}\t{skipped.line}\t{skipped.reason}" for skipped in dataset.skipped]
    if rows:
        head = "# image or file\tlabel or line\twhat is not in this folder"
        lines = (row.encode("utf-8", "replace").decode() for row in [head, *rows])
        write_text(path, "\n".join(lines) + "\n")
    return bool(rows)
