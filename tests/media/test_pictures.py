from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from squeezedet.detections import Detections
from squeezedet.errors import UsageError
from squeezedet.media.images import Frame, read_image
from squeezedet.media.sinks import AnnotatedFolder

FRAME = Frame(np.full((60, 80, 3), 255, np.uint8), "in/street.png")
FOUND = Detections(np.array([[10, 20, 50, 50]], np.float32), np.array([0.9], np.float32), np.array([0]), ("car",))


def test_picture_has_the_boxes_and_the_size(tmp_path: Path) -> None:
    path = AnnotatedFolder(tmp_path / "new" / "folder").write(FRAME, FOUND)
    assert path == tmp_path / "new" / "folder" / "street.jpg"
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
    pixels = read_image(path).pixels
    assert pixels.shape == (60, 80, 3)
    assert pixels[40, 10].min() < 100  # the left edge
    assert pixels[40, 30].min() > 240  # inside
    assert list(path.parent.iterdir()) == [path]


def test_same_stem_does_not_overwrite(tmp_path: Path) -> None:
    folder = AnnotatedFolder(tmp_path)
    paths = [folder.write(Frame(FRAME.pixels, name), FOUND) for name in ("a/x.png", "b/x.jpg")]
    assert [path.name for path in paths] == ["x.jpg", "x-2.jpg"]


def test_second_run_replaces_the_first(tmp_path: Path) -> None:
    assert AnnotatedFolder(tmp_path).write(FRAME, FOUND) == AnnotatedFolder(tmp_path).write(FRAME, FOUND)


def test_source_is_never_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "street.jpg"
    Image.fromarray(FRAME.pixels).save(source)
    before = source.read_bytes()
    out = tmp_path / "out"
    out.mkdir()
    (out / "street.jpg").symlink_to(source)
    folder = AnnotatedFolder(out, [str(source)])
    with pytest.raises(UsageError, match="would replace the image itself"):
        folder.write(Frame(FRAME.pixels, str(source)), FOUND)
    assert source.read_bytes() == before


def test_pictures_never_go_among_the_sources(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "link", tmp_path / "new" / ".."):
        with pytest.raises(UsageError, match="holds images that are read"):
            AnnotatedFolder(folder, ["other/b.png", str(tmp_path / "a.png")])
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_folder_may_have_the_name_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").mkdir()  # who has such a folder may use it
    assert AnnotatedFolder(tmp_path / "x.jpg").write(FRAME, FOUND).is_file()


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        AnnotatedFolder(tmp_path / "file")
