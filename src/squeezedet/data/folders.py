"""What lies in the folders of a data set: its files, and the image that a name means.

Every layout lists and finds files by these functions, so that all of them leave hidden files
out, follow links, take Windows' separators and know the same suffixes.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from squeezedet.data.sample import SPLIT_NAMES, LabelledSplits, ReadResult, Sample, split_name, write_text
from squeezedet.errors import DataError
from squeezedet.files import IMAGE_SUFFIXES, read_text, reason

MAX_DEPTH = 32
"""Folders in folders; links may make an endless row of them."""
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
"""What folders of splits are called."""
JUNK = ("__macosx", "@eadir", "$recycle.bin")
"""Folders that archives and disks leave behind."""


# Unlike pathlib's, these say no where a name is too long.
exists, is_file, is_folder = os.path.exists, os.path.isfile, os.path.isdir


def files_in(
    folder: Path, suffixes: Collection[str], *, deep: bool = True, reading: ReadResult | None = None
) -> list[Path]:
    """The files of a folder, sorted, without hidden ones (``._a.jpg`` of a Mac's disk).

    Links to folders are followed, but never into a folder that holds the link.

    Args:
        folder: to be searched; one that does not exist has no files.
        suffixes: in lower case.
        deep: also the folders in it.
        reading: is told of pipes, devices and links to nowhere, which are left out.

    Raises:
        DataError: a folder cannot be read, or they are nested without end.
    """
    return sorted(_walk(folder, frozenset(suffixes), deep, (), reading)) if exists(folder) else []


def _walk(
    folder: Path, suffixes: frozenset[str], deep: bool, above: tuple[str, ...], reading: ReadResult | None
) -> Iterator[Path]:
    own = os.path.realpath(folder)
    if own in above:
        return
    if len(above) >= MAX_DEPTH:
        raise DataError(f"{folder}: more than {MAX_DEPTH} folders deep")
    for entry in _entries(folder):
        path = folder / entry.name
        if entry.name.startswith("."):
            continue
        if is_folder(path):
            if deep and entry.name.lower() not in JUNK:
                yield from _walk(path, suffixes, deep, (*above, own), reading)
        elif path.suffix.lower() in suffixes:
            if is_file(path):
                yield path
            elif reading is not None:
                what = "a link to nowhere" if entry.is_symlink() else "a pipe or a device"
                reading.refuse(path, 0, f"is no file but {what}")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {reason(error)}") from error


def subfolder(folder: Path, *names: str) -> Path | None:
    """The first of these folders that is there; large and small letters are alike."""
    exact = next((folder / name for name in names if is_folder(folder / name)), None)
    if exact or not is_folder(folder):
        return exact
    here = {entry.name.lower(): entry.name for entry in reversed(_entries(folder))}
    alike = (folder / here[name.lower()] for name in names if name.lower() in here)
    return next(filter(is_folder, alike), None)


def images_in(folder: Path, reading: ReadResult | None = None, *, deep: bool = True) -> list[Path]:
    """The image files of a folder; see ``files_in``."""
    return files_in(folder, IMAGE_SUFFIXES, deep=deep, reading=reading)


def by_id(paths: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Files by their ids: the path within the folder, without suffix, as ``cam1/000001``.

    Raises:
        DataError: two have the same id.
    """
    table: dict[str, Path] = {}
    for path in paths:
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in table:
            raise DataError(f"{folder}: {table[key].name} and {path.name} have the same id; remove one")
        table[key] = path
    return table


def match_ids(wanted: Collection[str], files: Mapping[str, Path]) -> dict[str, Path]:
    """The file of each wanted id; where it lies in another sub-folder, the one of its name."""
    of_name: dict[str, list[Path]] = defaultdict(list)
    for key, path in files.items():
        of_name[PurePosixPath(key).name].append(path)
    taken = Counter(PurePosixPath(key).name for key in wanted)
    found = {}
    for key in wanted:
        name = PurePosixPath(key).name
        if key in files:
            found[key] = files[key]
        elif len(of_name[name]) == 1 and taken[name] == 1:
            found[key] = of_name[name][0]
    return found


def slashes(name: str) -> str:
    r"""A path as data files write it, with ``/`` for Windows' ``\`` and without a drive."""
    return re.sub(r"^[A-Za-z]:(?=/)", "", name.strip().replace("\\", "/"))


def leads_out(name: str) -> bool:
    """Whether a name is no path within a folder: it has a root, a drive or ``..``."""
    windows = PureWindowsPath(name)
    return bool(windows.drive or windows.root or ".." in windows.parts or name.startswith("/"))


def find_image(name: str, folders: Sequence[Path]) -> Path | None:
    r"""The image that a name means, inside one of the folders; None if there is none.

    The name may have Windows' separators. Where it has folders of the machine on which the
    data were made (``C:\me\set\images\a.jpg``, ``data/obj_train_data/a.jpg``,
    ``../images/a.jpg``), its last parts decide.
    """
    places = (folder / end for end in ends(name) for folder in folders)
    return next((place for place in places if is_file(place)), None)


def ends(name: str) -> Iterator[str]:
    """The ends of a path of another machine, the longest first; none without its split."""
    parts = [part for part in slashes(name).split("/") if part not in ("", ".", "..")]
    for start in range(len(parts)):
        yield "/".join(parts[start:])
        if parts[start].lower() in SPLITS:
            return


def read_ids(path: Path) -> list[str]:
    """The ids of a list, one a line, each once; VOC's column of 1, 0 or -1 is left out, as are lines of ``# ...``.

    Raises:
        DataError: it cannot be read.
    """
    lines = [re.sub(r"\s+-?[01]$", "", line.rstrip()) for line in read_text(path).splitlines()]
    return list(dict.fromkeys(id_of(line) for line in lines if line.strip() and not re.match(r"#(\s|$)", line)))


def id_of(name: str) -> str:
    """An id as a list has it, with ``/`` and without the suffix of an image or a label."""
    name = slashes(name).removeprefix("./")
    suffix = PurePosixPath(name).suffix.lower()
    return name[: -len(suffix)] if suffix in (*IMAGE_SUFFIXES, ".xml", ".txt") else name


def lists_in(folder: Path, known: Collection[str] | None = None) -> dict[str, list[str]]:
    """The ids of each list of a folder, by the name of the list, without VOC's of one class.

    Args:
        folder: of the ``.txt`` files.
        known: given, a file is a list only if it has the name of a split or one of these ids.

    Raises:
        DataError: a list cannot be read.
    """
    lists: dict[str, list[str]] = {}
    for path in files_in(folder, (".txt",), deep=False):
        name = split_name(path.stem)
        of_class = split_name(path.stem.rpartition("_")[2]) in SPLIT_NAMES and "_" in path.stem  # VOC's car_val.txt
        try:
            ids = read_ids(path)
            lines = [line for line in read_text(path).splitlines() if line.strip()] if of_class else []
        except DataError:
            if known is None:
                raise
            continue
        if not ids or (lines and all(re.search(r"\S\s+-?[01]$", line.rstrip()) for line in lines)):
            continue
        if known is not None:  # also ``image_2/000000.png``
            ids = [i if i in known else PurePosixPath(i).name for i in ids]
            if name not in SPLIT_NAMES and not any(i in known for i in ids):
                continue
        lists[name] = list(dict.fromkeys([*lists.get(name, ()), *ids]))
    return lists


# ------------------------------------------------------- a label file for each image


@dataclass(frozen=True, slots=True)
class LabelFolders:
    """A folder of images, and one that holds a label file for each of them.

    Attributes:
        split: its name where the folders are a split, else "".
        root: may hold lists of ids.
        labels: folder of the label files.
        images: folder of the images.
    """

    split: str
    root: Path
    labels: Path
    images: Path


Pair = Callable[[Path], tuple[Path, Path] | None]
"""The folders of labels and of images within one; None if there are none."""


@dataclass(frozen=True, slots=True)
class FolderLayout:
    """A layout with a label file for each image: KITTI's, VOC's.

    Attributes:
        suffix: of the label files.
        hint: what a folder of the layout has, for the error.
        find: where a folder has labels and images; nothing if it has none of this layout.
        pair: the same of one folder, not of those in it.
        lists: the ids of each split, given the root and the ids of all images and labels.
        read_one: a sample of its id, image and label file; a ``DataError`` is a refusal.
    """

    suffix: str
    hint: str
    find: Callable[[Path], list[LabelFolders]]
    pair: Pair
    lists: Callable[[Path, Collection[str]], Mapping[str, Sequence[str]]]
    read_one: Callable[[str, Path, Path, ReadResult], Sample]

    def root_of_list(self, path: Path) -> Path | None:
        """The folder that a list of ids belongs to: its own, or the one over ``ImageSets``; None if it is no list."""
        roots = [path.parent, *(above.parent for above in path.parents[:2] if above.name == "ImageSets")]
        return next((root for root in roots if self.pair(root)), None)

    def read(self, path: Path, reading: ReadResult, listing: Path | None = None) -> LabelledSplits:
        """Read a folder with all its splits, or one list of ids.

        Splits are named by folders or by lists; without any, all labelled images are the split
        ``all``. A box without area is skipped.

        Args:
            path: the folder, or a list in it.
            reading: is told what is left out.
            listing: a list of ids from anywhere, the only split.

        Raises:
            DataError: a folder or list cannot be read, or what ``reading`` refuses.
        """
        root: Path | None = path
        if path.is_file():
            root, listing = self.root_of_list(path), path
        places = self.find(root) if root else []
        if not places:
            raise DataError(f"{path}: {self.hint}")
        splits: dict[str, list[Sample]] = {}
        for place in places:
            splits |= _read_labelled(self, place, listing, reading)
        count = Counter(t for sample in LabelledSplits(splits, ()).samples() for t in sample.objects.types)
        return LabelledSplits(splits, sorted(count, key=lambda t: (-count[t], t)))


def folders_of_splits(path: Path, pair: Pair) -> list[LabelFolders]:
    """The labels and images in folders that are called as splits are."""
    found: dict[str, LabelFolders] = {}
    for name in (*SPLITS, "trainval"):
        if (folder := subfolder(path, name)) and (both := pair(folder)):
            found[split_name(name)] = LabelFolders(split_name(name), folder, *both)
    return list(found.values())


def _read_labelled(
    layout: FolderLayout, place: LabelFolders, listing: Path | None, reading: ReadResult
) -> dict[str, list[Sample]]:
    """The samples of each split of a folder.

    Without lists an image without label file, or a label file without image, is skipped. In a list
    either is malformed.
    """
    suffix = layout.suffix
    labels = by_id(files_in(place.labels, (suffix,), reading=reading), place.labels)
    own = by_id(images_in(place.images, reading), place.images)
    images = own | match_ids(labels.keys(), own)
    if listing:
        splits: Mapping[str, Sequence[str]] = {listing.stem: read_ids(listing)}
    else:
        splits = {} if place.split else layout.lists(place.root, images.keys() | labels.keys())
    if splits:
        labels |= match_ids({i for ids in splits.values() for i in ids}, labels)
        images |= match_ids(labels.keys(), own)
    else:
        matched = {images[i] for i in labels if i in images}
        alone = {i for i, image in own.items() if image not in matched}
        for i in sorted(alone | (labels.keys() - images.keys())):
            if i in alone:
                reading.skip(images[i], 0, f"the image has no label file {place.labels / i}{suffix}")
            else:
                reading.skip(labels.pop(i), 0, f"there is no image of this label in {place.images}")
        splits = {place.split or "all": sorted(labels)}
    samples: dict[str, Sample | None] = {}
    for i in dict.fromkeys(i for ids in splits.values() for i in ids):
        samples[i] = None
        if i not in images:
            reading.refuse(place.images / i, 0, "a split lists it, there is no such image")
        elif i not in labels:
            reading.refuse(place.labels / f"{i}{suffix}", 0, "a split lists it, there is no such label file")
        else:
            with reading.refusing(labels[i]):
                samples[i] = layout.read_one(i, images[i], labels[i], reading)
    if listing is None:
        used = {labels[i] for i in samples if i in labels}
        reading.note(len(set(labels.values()) - used), "label files in no split")
    return {name: [s for i in ids if (s := samples[i])] for name, ids in splits.items()}


def write_lists(folder: Path, splits: Mapping[str, Sequence[Sample]]) -> None:
    """Write ``SPLIT.txt`` with the ids of each split but ``all``."""
    for name, samples in splits.items():
        if name != "all":
            write_text(folder / f"{name}.txt", "".join(f"{sample.id}\n" for sample in samples))
