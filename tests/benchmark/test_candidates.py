"""Real models in the default engine, and the pictures that they get."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from squeezedet.benchmark.latency import candidates_of, file_bytes, open_detector, pictures_of
from squeezedet.benchmark.turns import take_turns
from squeezedet.errors import DataError, MissingExtraError, UsageError
from squeezedet.media.images import read_image
from squeezedet.runtime import bundle

SMALL = (320, 96)


def test_a_shipped_model_by_turns_with_itself() -> None:
    both = candidates_of(["street"], [None, "onnxruntime"], threads=1, size=SMALL)
    assert [(c.name, c.engine, c.input) for c in both] == [("street", "onnxruntime", "320x96")] * 2
    assert both[0].parameters == 928_888
    assert both[0].file_bytes == bundle.find("street").stat().st_size
    with pictures_of(None) as demo:
        found = take_turns(both, demo, rounds=3, warm_up=1)
        again = both[0].reopen()(read_image(demo[0]))
    assert found.frame_sizes == [(1242, 375)] * 3
    for timings in found.timings:
        assert all(len(times) == 3 and min(times) > 0 for times in timings.stages.values())
    assert (again.width, again.height) == (1242, 375)


def test_a_size_is_that_of_the_input() -> None:
    rule = open_detector("street", threads=1, size=SMALL).card.input
    assert (rule.size(1242, 375), rule.size(100, 400)) == (SMALL, SMALL)
    own = open_detector("street", threads=1).card.input
    assert own.size(1242, 375) == (1248, 384)
    with pytest.raises(UsageError, match=r"`size`: a side must be .* 16 to 4096: 8"):
        open_detector("street", size=(320, 8))


def test_files_with_one_stem_keep_their_paths(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "street.bundle" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        shutil.copy(bundle.find("street"), path)
    names = [str(path) for path in paths]
    found = candidates_of([*names, "street"], [None], threads=1, size=SMALL)
    assert [c.name for c in found] == [*names, "street"]
    assert file_bytes(names[0]) == paths[0].stat().st_size


def test_every_box_is_judged_and_few_are_reported() -> None:
    (one,) = candidates_of(["street"], [None], threads=1, size=SMALL)
    with pictures_of(None) as (demo,):
        frame = read_image(demo)
    assert len(one.detect_all(frame)) > len(one.detect(frame))


def test_what_is_not_there_is_said_before_anything_is_timed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such model"):
        candidates_of(["street", "none.bundle"], [None])
    with pytest.raises((UsageError, MissingExtraError), match="nimbus"):
        candidates_of(["street"], ["nimbus"])


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    from .standins import pictures

    made = pictures(tmp_path, (16, 16), (32, 32))
    (tmp_path / "notes.txt").write_text("no picture")
    with pictures_of(tmp_path) as found:
        assert found == made
    empty = tmp_path / "empty"
    for folder, sentence in ((empty, "no such folder"), (tmp_path / "no", "no such folder")):
        with pytest.raises(DataError, match=sentence), pictures_of(folder):
            pass
    empty.mkdir()
    with pytest.raises(DataError, match="the folder has no images"), pictures_of(empty):
        pass


def test_the_demo_picture_is_gone_after_use() -> None:
    with pictures_of(None) as (demo,):
        assert read_image(demo).pixels.shape == (375, 1242, 3)
    assert not demo.exists()
