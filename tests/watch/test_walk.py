"""The walk-through of docs/watch.md, from a camera to Home Assistant, with a real broker and an RTSP server."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from squeezedet.media.images import read_image
from squeezedet.runtime import bundle
from squeezedet.runtime.bundle import WEIGHTS
from squeezedet.runtime.detector import load

from .broker import broker, free_port, with_broker

PAGE = Path(__file__).resolve().parents[2] / "docs" / "watch.md"
STILL, MOVING, SIZE = 40, 60, (624, 192)


def drawn_street() -> Iterator[NDArray[np.uint8]]:
    """The nearest car of the demo picture twice on an empty road: one rolls to the right, one to the left.

    Slowly, so that a busy machine, which sees a frame a second, follows them. Before and after nothing moves:
    what comes while the stream is opened is dropped.
    """
    demo = Image.fromarray(read_image(WEIGHTS / "demo.jpg").pixels)
    found = max((box for box in load("street", threads=1)(demo) if box.name == "car"), key=lambda box: box.xyxy[3])
    left, top, right, bottom = (round(side) for side in found.xyxy)
    car = demo.crop((left - 12, top - 12, right + 12, bottom + 12))
    car = car.resize((120, round(120 * car.height / car.width)))
    for number in range(STILL + MOVING + STILL):
        share = min(max(number - STILL, 0) / MOVING, 1.0)
        road = Image.new("RGB", SIZE, (120, 120, 118))
        road.paste(car, (round(188 + 120 * share), 12))
        road.paste(car, (round(318 - 120 * share), 104))
        yield np.asarray(road)


@pytest.mark.slow
@with_broker
def test_from_a_camera_to_home_assistant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("paho.mqtt")
    from ..media.rtsp import camera

    section = PAGE.read_text(encoding="utf-8").partition("## MQTT and Home Assistant")[2]
    toml, command, python, text = re.findall(
        r"^```(?:toml|python|text)?\n(.*?)^```$", section, re.DOTALL | re.MULTILINE
    )
    monkeypatch.chdir(tmp_path)
    port = free_port()
    shipped = bundle.read(bundle.find("street"))
    card = replace(shipped.card, input=replace(shipped.card.input, width=SIZE[0], height=SIZE[1]))
    bundle.write(Path("small.bundle"), replace(shipped, card=card))
    with broker(tmp_path, port), camera(pictures=list(drawn_street()), period_s=0.15) as address:
        source = toml.replace("localhost:8554/street", address)
        Path("street.toml").write_text(source.replace('host = "localhost"', f'host = "127.0.0.1"\nport = {port}'))
        words = [*shlex.split(command)[1:], "--reconnect", "0", "--threads", "1", "--model", "small.bundle", "-q"]
        done = subprocess.run([sys.executable, "-m", "squeezedet", *words], capture_output=True, text=True, check=False)
        said_last = f"squeezedet: camera 'Street': rtsp://{address}: the stream ended after 140 frames\n"
        assert (done.returncode, done.stderr) == (1, said_last)
        said = io.StringIO()
        code = python.replace('hostname="localhost"', f'hostname="127.0.0.1", port={port}')
        with contextlib.redirect_stdout(said):
            exec(compile(code, PAGE.name, "exec"), {"__name__": "walk"})
    assert said.getvalue() == text
    assert Path("street.sqlite").stat().st_size
