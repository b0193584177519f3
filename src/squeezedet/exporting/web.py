"""A folder that runs a model in the visitor's browser; any static host serves it.

``squeezedet export MODEL --to web -o DIR`` writes::

    index.html, page/   the page of ``squeezedet serve``, told to run the model itself
    card.json, model.onnx
    demo.jpg            the package's drawn street, for visitors without a picture
    runtime/            onnxruntime-web: script, WebAssembly, licence

onnxruntime-web is no part of this package: npm fetches one fixed version of it, whose
checksum stands here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from squeezedet.errors import SqueezeDetError, UsageError
from squeezedet.files import write_atomic
from squeezedet.runtime.bundle import CARD, GRAPH, WEIGHTS, Bundle

PAGE = Path(__file__).resolve().parents[1] / "serving" / "page"
LICENCE = Path(__file__).resolve().parents[1] / "serving" / "onnxruntime-web-licence.txt"
INDEX, CONFIG, EXAMPLE = "index.html", "config.json", "demo.jpg"
PACKAGE = "onnxruntime-web@1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package's archive, as npm writes checksums."""
MEMBERS = {
    "runtime": ("ort.wasm.min.mjs", "ort.wasm.min.js"),
    "glue": ("ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.js"),
    "wasm": ("ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.wasm"),
}
"""What is taken from the archive's ``dist``, and its name here: many hosts do not know ``.mjs``."""
NPM_TIMEOUT_S = 600


def export_site(bundle: Bundle, folder: Path) -> None:
    """Write the folder; files of an earlier site in it are replaced, others stay.

    Args:
        bundle: the model.
        folder: made if need be.

    Raises:
        UsageError: npm is not installed.
        SqueezeDetError: npm cannot fetch onnxruntime-web, it is not the archive it should be,
            or a file cannot be written.
    """
    runtime = fetch_runtime()
    for name, content in runtime.items():
        write_atomic(folder / "runtime" / name, content)
    write_atomic(folder / "runtime" / "LICENSE", LICENCE.read_bytes())
    write_atomic(folder / GRAPH, bundle.graph)
    write_atomic(folder / CARD, bundle.card.to_json())
    write_atomic(folder / EXAMPLE, (WEIGHTS / EXAMPLE).read_bytes())
    for source in sorted(PAGE.iterdir()):
        if source.is_file() and source.name not in (INDEX, CONFIG):
            write_atomic(folder / PAGE.name / source.name, source.read_bytes())
    size = len(bundle.graph) + sum(len(content) for content in runtime.values())
    write_atomic(folder / PAGE.name / CONFIG, _config(size))
    write_atomic(folder / INDEX, (PAGE / INDEX).read_bytes())  # last: before it there is no page


def _config(size: int) -> str:
    """What tells the page to run the model itself; ``size`` in bytes is what a visitor loads."""
    files = {part: f"runtime/{name}" for part, (_, name) in MEMBERS.items()}
    config = {"mode": "browser", "example": EXAMPLE, "bytes": size, "files": {**files, "graph": GRAPH, "card": CARD}}
    return json.dumps(config, indent=2) + "\n"


def fetch_runtime() -> dict[str, bytes]:
    """The files of onnxruntime-web that a page needs, by name.

    Raises:
        UsageError: npm is not installed.
        SqueezeDetError: npm fails, or the archive is not the one with the known checksum.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise UsageError(
            f"`to=web` fetches {PACKAGE} with npm, which is not installed; install Node.js, "
            "which brings it (Debian: apt-get install npm), and export again"
        )
    with tempfile.TemporaryDirectory(prefix="squeezedet-") as temporary:
        archive = _pack(npm, Path(temporary))
        _check(archive)
        with tarfile.open(archive) as tar:
            return {name: _member(tar, member) for member, name in MEMBERS.values()}


def _pack(npm: str, folder: Path) -> Path:
    """Let npm fetch the package's archive, from its cache if it is there; nothing of it is run."""
    command = [npm, "pack", PACKAGE, "--prefer-offline", "--ignore-scripts", "--silent"]
    try:
        done = subprocess.run(  # noqa: S603 - nothing of it comes from a user
            command, cwd=folder, capture_output=True, text=True, timeout=NPM_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SqueezeDetError(f"npm pack {PACKAGE}: {error}") from error
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = said[-1] if said else f"exit code {done.returncode}; is its registry reachable?"
        raise SqueezeDetError(f"npm pack {PACKAGE}: {reason}")
    return archives[0]


def _check(archive: Path) -> None:
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    if f"sha512-{base64.b64encode(digest).decode()}" != INTEGRITY:
        raise SqueezeDetError(
            f"npm pack {PACKAGE}: the archive has not the checksum that this version of squeezedet "
            "knows; see which registry npm uses (npm config get registry)"
        )


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(f"package/dist/{name}")
    if file is None:  # not a regular file: it would have to be another archive
        raise SqueezeDetError(f"npm pack {PACKAGE}: no file dist/{name} in the archive")
    return file.read()
