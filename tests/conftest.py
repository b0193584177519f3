"""What every test may ask for."""

from __future__ import annotations

import ast
import os
import signal
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes with two threads each would wait for one another

TESTS = Path(__file__).resolve().parent
SLIM = TESTS.parent / "parents" / "squeezedet-slim.bundle"
"""A trained network in float; the shipped ones are quantized or coded."""
EXTRAS = {
    "av", "fastapi", "faster_coco_eval", "fsspec", "httpx", "jinja2", "moto", "ncnn", "onnx", "onnxscript",
    "openvino", "paho", "playwright", "pyarrow", "pycocotools", "ray", "schemathesis", "supervision", "torch",
    "tritonclient", "websockets",
}  # fmt: skip
TORCH_FLOOR = ("models", "training", "exporting", "compression", "papers", "cost")
"""Packages whose tests want torch, whatever they import themselves."""

TORCH_VERBS = {"classify", "compress", "export", "profile", "slim", "train"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n 2`` a file stays with one process, so what its tests share is made once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Where torch or another extra is not installed, leave out the test files that import it."""
    if not collection_path.match("test_*.py"):
        return None
    if collection_path.parent.name == "cli" and collection_path.stem.split("_")[1] in TORCH_VERBS:
        return True if find_spec("torch") is None else None
    tree = ast.parse(collection_path.read_text(encoding="utf-8"))
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {alias.name for n in imports if isinstance(n, ast.Import) for alias in n.names}
    names |= {n.module for n in imports if isinstance(n, ast.ImportFrom) and n.module}
    roots = {name.split(".")[0] for name in names}
    if any(name.startswith(f"squeezedet.{floor}") for name in names for floor in TORCH_FLOOR):
        roots.add("torch")
    if any(name.startswith("squeezedet.fleet") for name in names):
        roots |= {"fsspec", "pyarrow"}
    return True if any(find_spec(root) is None for root in roots & EXTRAS) else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where an extra is not installed, a test that the package answers with its name is skipped.

    An import of an extra that fails in the package itself stays a failure.
    """
    report = yield
    if report.failed and call.excinfo and any(find_spec(name) is None for name in EXTRAS):
        in_test = TESTS in Path(call.excinfo.traceback[-1].path).parents
        asked = "needs an optional dependency" in report.longreprtext
        if asked or (call.excinfo.errisinstance(ModuleNotFoundError) and in_test):
            report.outcome = "skipped"
            report.longrepr = (str(item.path), 0, "needs an extra")
    return report


settings.register_profile("squeezedet", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("squeezedet")


# Started in the background by a shell, a process ignores Ctrl-C, and so do its children; the
# tests of interrupts need children that do not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data: images, labels and weights that never enter the repository."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("SQUEEZEDET_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"no development data at {folder}; set SQUEEZEDET_SHARED")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded models are cached in a folder of the tests, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
