"""schemathesis, on the OpenAPI document of a real server: what is drawn from it is answered as it
says, and what contradicts it is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from squeezedet.runtime.card import Card
from squeezedet.runtime.detector import Detector
from squeezedet.serving.cameras import Cameras
from squeezedet.watch.config import WatchConfig, cameras_of

from .running import HeldEngine, detector_of, running

HOOKS = """\
import io

import schemathesis
from hypothesis import strategies
from PIL import Image

# "Any bytes" of a type image/png are no image; these are some.
for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff"):
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (90, 90, 90)).save(file, kind.upper())
    schemathesis.openapi.media_type(f"image/{kind}", strategies.just(file.getvalue()))
schemathesis.openapi.media_type("application/octet-stream", strategies.just(file.getvalue()))
"""
# That the data are as long as the shape says, and that places lie in the picture, cannot be written in a JSON schema.
CONFIG = """\
[[operations]]
include-path = "/v2/models/{name}/infer"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/v2/models/{name}/versions/{version}/infer"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/cameras/{name}/places"
checks.positive_data_acceptance.enabled = false
"""


@pytest.mark.slow
def test_schemathesis_finds_nothing(card: Card, detector: Detector, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    (tmp_path / "hooks.py").write_text(HOOKS)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    program = Path(sys.executable).with_name("schemathesis")
    config = WatchConfig(cameras=tuple(cameras_of([str(tmp_path / "0.jpg")])))
    Image.new("RGB", (64, 48)).save(tmp_path / "0.jpg")
    with (
        Cameras(detector, config, tmp_path / "watch.toml", print) as cameras,
        running(detector_of(card, HeldEngine()), cameras, max_pixels=1_000_000, max_bytes=1_000_000) as server,
    ):
        done = subprocess.run(
            [program, "run", f"{server.url}/openapi.json", "--max-examples", "20", "--seed", "1"],
            cwd=tmp_path,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "14 selected / 14 total" in done.stdout
