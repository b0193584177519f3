"""Every way in from Python: paths, addresses, bytes, pictures, arrays, tensors, lists, streams."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

import squeezedet
from squeezedet.detections import Detections
from squeezedet.errors import DataError, UsageError
from squeezedet.runtime import bundle
from squeezedet.runtime.detector import Detector

DEMO = next(bundle.WEIGHTS.glob("demo.*"))


@pytest.fixture(scope="module")
def detector() -> Detector:
    return squeezedet.load(threads=1)


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.asarray(PIL.Image.open(DEMO).convert("RGB"))


def same(a: Detections, b: Detections) -> bool:
    return np.array_equal(a.xyxy, b.xyxy) and np.array_equal(a.score, b.score)


def test_one_picture_by_every_door(detector: Detector, pixels: NDArray[np.uint8]) -> None:
    wanted = detector(DEMO)
    assert len(wanted)
    content = DEMO.read_bytes()
    doors: list[Any] = [str(DEMO), content, bytearray(content), memoryview(content), pixels]
    doors += [PIL.Image.open(DEMO), PIL.Image.open(io.BytesIO(content))]
    assert all(same(detector(door), wanted) for door in doors)
    assert all(same(found, wanted) for found in detector.batch(doors))


def test_tensors(detector: Detector, pixels: NDArray[np.uint8]) -> None:
    torch = pytest.importorskip("torch")
    wanted = detector(pixels)
    hwc = torch.from_numpy(pixels.copy())
    chw = hwc.permute(2, 0, 1)
    doors = [hwc, chw, hwc.float() / 255, chw.double() / 255, (chw / 255).requires_grad_()]
    assert all(same(detector(door), wanted) for door in doors)
    assert all(same(found, wanted) for found in detector.batch(torch.stack([chw, chw])))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.float(), "from 0 to 1"),
        (lambda t: t / 255 - 0.5, "from 0 to 1"),
        (lambda t: t / 255 * float("nan"), "from 0 to 1"),
        (lambda t: t[None], "use batch"),
        (lambda t: t[:2], r"\(3, H, W\) or \(H, W, 3\)"),
        (lambda t: t[:, :0], r"\(3, H, W\) or \(H, W, 3\)"),
        (lambda t: t.int(), "uint8 or floats"),
        (lambda t: t.to("meta"), "uint8 or floats"),
        (lambda t: t.to_sparse(), "uint8 or floats"),
    ],
)
def test_tensors_of_another_layout_or_range(
    detector: Detector, pixels: NDArray[np.uint8], change: Callable[[Any], Any], says: str
) -> None:
    torch = pytest.importorskip("torch")
    tensor = change(torch.from_numpy(pixels[:32, :48].copy()).permute(2, 0, 1))
    with pytest.raises(DataError, match=says) as caught:
        detector(tensor)
    assert "\n" not in str(caught.value)


def test_what_is_no_image(detector: Detector, tmp_path: Path) -> None:
    for thing, says in (
        (tmp_path, "use stream"),
        (3, "not int"),
        ([DEMO], "not list"),
        (np.zeros((8, 8), np.uint8), "uint8 RGB"),
        (b"", "image"),
    ):
        with pytest.raises(DataError, match=says):
            detector(thing)
    with pytest.raises(DataError, match="image 1: "):
        detector.batch([DEMO, tmp_path / "none.jpg"])
    with pytest.raises(UsageError, match="use stream"):
        detector.batch(str(DEMO))


def test_classes(detector: Detector) -> None:
    found = detector(DEMO, classes=["pedestrian"])
    assert set(found.counts()) == {"pedestrian"}
    with pytest.raises(UsageError, match=r"no class 'pedestrain'.*did you mean pedestrian"):
        detector(DEMO, classes=["pedestrain"])


def test_stream_of_a_folder(detector: Detector, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(DEMO.read_bytes())
    (tmp_path / "aa.jpg").write_bytes(b"no picture")
    found = list(detector.stream(tmp_path, classes=["car"], track=True))
    assert [Path(f.image).name for f in found] == ["a.jpg", "b.jpg"]
    assert all(f.track_id is not None and set(f.counts()) == {"car"} for f in found)
    assert "aa.jpg" in caplog.text
    with pytest.raises(DataError, match="nowhere"):
        list(detector.stream(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="no class"):
        detector.stream(tmp_path, classes=["cat"])


def test_repr_and_pickle(detector: Detector) -> None:
    assert "street" in repr(detector)
    assert "onnxruntime" in repr(detector)
    again = pickle.loads(pickle.dumps(detector))
    assert same(again(DEMO), detector(DEMO))
    with pytest.raises(TypeError, match=r"squeezedet\.load"):
        pickle.dumps(Detector(bundle.read(bundle.find("street")), threads=1))


def test_another_file_than_the_one_that_was_pickled(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "m.bundle"
    path.write_bytes(bundle.find("street").read_bytes())
    content = pickle.dumps(squeezedet.load(path, threads=1))
    path.write_bytes(bundle.find("street-ssd").read_bytes())
    with pytest.raises(squeezedet.errors.ModelError, match="another model"):
        pickle.loads(content)


def test_threads_share_one(detector: Detector) -> None:
    wanted, found = detector(DEMO), list[bool]()
    threads = [threading.Thread(target=lambda: found.append(same(detector(DEMO), wanted))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


def _child(detector: Detector) -> None:
    os._exit(0 if len(detector(DEMO)) else 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_forked_child_answers(engine: str) -> None:
    pytest.importorskip(engine)
    opened = squeezedet.load(engine=engine, threads=1)
    opened(DEMO)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(opened,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
