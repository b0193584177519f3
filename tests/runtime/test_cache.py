"""Bundles with coded weights: a cache that may be anything, damage refused."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from squeezedet.coding import tensor
from squeezedet.errors import ModelError
from squeezedet.runtime import bundle
from squeezedet.runtime import cache as graph_cache
from squeezedet.runtime.bundle import Bundle

VALUES = np.tile(np.array([0, 0, 0, 0.5, 0, -1], np.float32), 100)
GRAPH = b"begin" + VALUES.tobytes() + b"end"


def packed(graph: bytes = GRAPH, digest: str | None = None) -> bytes:
    card = bundle.read_card(bundle.find("street"))
    card = replace(card, graph_sha256=digest or hashlib.sha256(graph).hexdigest())
    return bundle.to_bytes(Bundle(card, graph), {"w": tensor.encode_tensor(VALUES)})


CONTENT = packed()


@pytest.fixture(autouse=True)
def any_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """These bytes are no ONNX; ``test_graph_check`` has real ones."""
    monkeypatch.setattr(bundle, "check_graph", lambda graph, where: None)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    found = graph_cache.cache_folder()
    assert found is not None
    return found


@pytest.fixture
def model(tmp_path: Path, cache: Path) -> Path:
    path = tmp_path / "tiny.bundle"
    path.write_bytes(CONTENT)
    return path


def test_coded_weights_come_back(model: Path) -> None:
    found = bundle.read(model)
    assert found.graph == GRAPH
    assert found.card == bundle.read_card(model)
    renamed = model.rename(model.with_suffix(".sqz"))  # the content counts
    assert bundle.read(renamed).graph == GRAPH


def test_decoded_once(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.read(model)
    name = hashlib.sha256(CONTENT).hexdigest()
    assert [path.name for path in cache.iterdir()] == [f"{name}.onnx"]
    monkeypatch.delattr(bundle, "decode_graph")
    assert bundle.read(model).graph == GRAPH


@pytest.mark.parametrize("there", [b"", b"something else", GRAPH[:-1], GRAPH + b"\0"])
def test_a_broken_cache_is_rebuilt(model: Path, cache: Path, there: bytes) -> None:
    cached = cache / f"{hashlib.sha256(CONTENT).hexdigest()}.onnx"
    cache.mkdir(parents=True)
    cached.write_bytes(there)
    assert bundle.read(model).graph == GRAPH
    assert cached.read_bytes() == GRAPH


def test_another_model_of_that_name_has_a_cache_of_its_own(model: Path, cache: Path) -> None:
    bundle.read(model)
    other = GRAPH.replace(b"end", b"another end")
    model.write_bytes(packed(other))
    assert bundle.read(model).graph == other
    assert len(list(cache.iterdir())) == 2


def test_only_the_graphs_used_last_stay(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "MAX_CACHED", 3)
    bundle.read(model)
    mine = next(cache.iterdir())
    old = [cache / f"{i:064x}.onnx" for i in range(5)]
    others = [cache / "notes.txt", cache / "other.onnx", cache / f"{9:064x}.onnx.part"]
    for i, path in enumerate([*old, *others]):
        path.write_bytes(b"")
        os.utime(path, (i, i))
    os.utime(mine, (1, 1))
    bundle.read(model)  # from the cache: used, though it was written long ago
    model.write_bytes(packed(GRAPH.replace(b"end", b"another end")))
    bundle.read(model)  # a new one: the oldest go
    new = cache / f"{hashlib.sha256(model.read_bytes()).hexdigest()}.onnx"
    assert set(cache.iterdir()) == {new, mine, old[-1], *others}


def test_a_folder_among_the_old_graphs(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "MAX_CACHED", 1)
    (cache / f"{0:064x}.onnx").mkdir(parents=True)
    os.utime(cache / f"{0:064x}.onnx", (1, 1))
    assert bundle.read(model).graph == GRAPH
    assert len(list(cache.iterdir())) == 2


def test_two_processes_that_remove_each_others_graphs(tmp_path: Path, cache: Path) -> None:
    models = [tmp_path / f"{i}.bundle" for i in range(4)]
    for i, path in enumerate(models):
        path.write_bytes(packed(GRAPH.replace(b"end", b"end" * i + b"end")))
    code = (
        "import sys; from pathlib import Path; from squeezedet.runtime import bundle\n"
        "bundle.check_graph = lambda graph, where: None\n"
        "from squeezedet.runtime import cache; cache.MAX_CACHED = 1\n"
        "for _ in range(10):\n"
        "    for path in sys.argv[1:]:\n"
        "        assert bundle.read(Path(path)).graph.endswith(b'end')\n"
    )
    commands = [[sys.executable, "-c", code, *map(str, m)] for m in (models, models[::-1])]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE) for command in commands]
    for worker in workers:
        assert worker.communicate(timeout=60)[1] == b""
        assert worker.returncode == 0
    assert 1 <= len(list(cache.iterdir())) <= 2  # two may write after both have counted


def test_a_cache_that_cannot_be_written(model: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder would be")  # holds for root, too
    for _ in range(2):
        assert bundle.read(model).graph == GRAPH
    assert capsys.readouterr() == ("", "")


def test_a_folder_in_the_place_of_the_cached_file(model: Path, cache: Path) -> None:
    (cache / f"{hashlib.sha256(CONTENT).hexdigest()}.onnx").mkdir(parents=True)
    assert bundle.read(model).graph == GRAPH


def test_no_home(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    assert graph_cache.cache_folder() is None
    assert bundle.read(model).graph == GRAPH


def test_a_relative_cache_folder_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "cache", "./cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        monkeypatch.setenv("LOCALAPPDATA", value)
        folder = graph_cache.cache_folder()
        assert folder is not None
        assert folder.is_relative_to(Path.home())


def test_two_processes_at_once(model: Path, cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from squeezedet.runtime import bundle\n"
        "bundle.check_graph = lambda graph, where: None\n"
        "for _ in range(10):\n"
        "    [p.unlink(missing_ok=True) for p in Path(sys.argv[2]).glob('*.onnx')]\n"
        "    assert bundle.read(Path(sys.argv[1])).graph.endswith(b'end')\n"
    )
    command = [sys.executable, "-c", code, str(model), str(cache)]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for worker in workers:
        assert worker.communicate(timeout=60)[1] == b""
        assert worker.returncode == 0
    assert not [path for path in cache.iterdir() if path.suffix != ".onnx"]


def test_a_graph_that_is_not_the_cards(model: Path, cache: Path) -> None:
    model.write_bytes(packed(digest="0" * 64))
    with pytest.raises(ModelError, match="checksum is not the card's"):
        bundle.read(model)
    assert not cache.exists()


@pytest.mark.parametrize("length", [8, 20, 100, len(CONTENT) - 1])
def test_truncated(model: Path, length: int) -> None:
    model.write_bytes(CONTENT[:length])
    for read in (bundle.read, bundle.read_card):
        with pytest.raises(ModelError, match=r"tiny\.bundle: .*truncated"):
            read(model)


def test_damage_is_noticed_although_the_graph_is_cached(model: Path) -> None:
    bundle.read(model)
    content = bytearray(CONTENT)
    content[content.index(b"tensors.bin") + 20] ^= 1
    model.write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        bundle.read(model)


def test_a_file_that_is_too_large(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_FILE_BYTES", len(CONTENT) - 1)
    with pytest.raises(ModelError, match=r"tiny\.bundle: more than"):
        bundle.read(model)


def test_shipped_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "WEIGHTS", tmp_path)
    for name in ("b.bundle", "a.bundle", "demo.jpg"):
        (tmp_path / name).touch()
    assert list(bundle.shipped()) == ["a", "b"]
    assert bundle.find("a") == tmp_path / "a.bundle"


def test_a_file_of_squeezedet_0_1(tmp_path: Path, cache: Path) -> None:
    """A ``.sqz``, whose sections are those of ``coding.legacy``, opens as before."""
    from tests.coding.test_legacy import OLD

    (tmp_path / "old.sqz").write_bytes(OLD)
    assert bundle.is_bundle(tmp_path / "old.sqz")
    with pytest.raises(ModelError, match=r"old\.sqz: the card does not say"):
        bundle.read(tmp_path / "old.sqz")  # the card of that file is no detector's
