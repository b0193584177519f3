"""What watching costs: beside detecting, for each rule, in memory, with a dead webhook, with two cameras.

The pictures of a folder, over and over, become a video. `squeezedet watch` (a line, a zone, CSV) and
`squeezedet detect --track` take turns on it; the time of the same command on one frame is taken
off. Two cameras of 15 frames a second are Motion JPEG of this machine. It prints a table, after about
five minutes of a quiet machine::

    python benchmarks/watch_rate.py --pictures FOLDER [--threads 2] [--frames 150] [--blocks 5] [--seconds 20]
"""

from __future__ import annotations

import argparse
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, cycle
from pathlib import Path

import numpy as np
from PIL import Image

from squeezedet.benchmark.latency import describe_machine
from squeezedet.benchmark.machine import describe
from squeezedet.detections import Detections
from squeezedet.drawing import encode_picture
from squeezedet.media.images import Frame, FrameTime, read_image
from squeezedet.media.sources import locate
from squeezedet.runtime import bundle
from squeezedet.runtime.detector import Detector, load
from squeezedet.runtime.parity import sample_frame
from squeezedet.watch.actions import Actions
from squeezedet.watch.config import Camera, Line, Rule, WatchConfig, Zone
from squeezedet.watch.counting import Event, Scene
from squeezedet.watch.run import Item, Watch
from video_rate import write

Rows = Iterator[tuple[str, str]]
WIDTH, HEIGHT = 1248, 384
LINE = Line(name="gate", points=((WIDTH / 2, 0), (WIDTH / 2, HEIGHT)))
ZONE = Zone(name="road", points=((0, HEIGHT / 2), (WIDTH, HEIGHT / 2), (WIDTH, HEIGHT), (0, HEIGHT)))


def command_s(verb: str, video: Path, options: argparse.Namespace) -> float:
    """Seconds of the whole command."""
    command = [sys.executable, "-m", "squeezedet", verb, str(video), "--quiet"]
    command += ["--threads", str(options.threads), "--model", options.model]
    if verb == "detect":
        command += ["--track", "--out", str(video.with_suffix(".jsonl"))]
    else:
        command += ["--csv", str(video.with_suffix(".csv"))]
        command += ["--line", "gate=" + ",".join(f"{v:g}" for point in LINE.points for v in point)]
        command += ["--zone", "road=" + ",".join(f"{v:g}" for point in ZONE.points for v in point)]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def rates(folder: Path, pictures: list[Path], options: argparse.Namespace) -> Rows:
    """Frames a second of both commands, by turns."""
    frames = {"many": options.frames, "one": 1}
    many, one = (write(folder / f"{name}.mp4", pictures, n, (WIDTH, HEIGHT)) for name, n in frames.items())
    found: dict[str, list[float]] = {"detect": [], "watch": []}
    for _ in range(options.blocks):
        for verb, values in found.items():
            values.append((options.frames - 1) / (command_s(verb, many, options) - command_s(verb, one, options)))
    shares = [w / d for w, d in zip(found["watch"], found["detect"], strict=True)]
    for verb, command in (
        ("detect", "`detect --track -o out.jsonl`"),
        ("watch", "`watch` with a line, a zone and CSV"),
    ):
        yield command, f"{statistics.median(found[verb]):.1f} frames/s"
    spread = f"{min(shares):.1%} to {max(shares):.1%} in {options.blocks} blocks of {options.frames} frames"
    yield "`watch` beside `detect`", f"{statistics.median(shares):.1%} ({spread})"


def walkers(count: int, number: int) -> Detections:
    """Boxes that walk to and fro; each tenth frame one is another object."""
    x = (np.arange(count) * 97 + 5 * number) % WIDTH
    y = HEIGHT / 4 + np.arange(count) * HEIGHT / (2 * count)
    xyxy = np.stack([x - 20, y - 30, x + 20, y], axis=1).astype(np.float32)
    track = np.arange(count) + number // 10 * np.eye(1, count, dtype=np.int64)[0] * count
    return Detections(
        xyxy,
        np.ones(count, np.float32),
        np.zeros(count, np.int64),
        ("car",),
        width=WIDTH,
        height=HEIGHT,
        time_s=number / 10,
        track_id=track,
    )


def scene(rules: int) -> Scene:
    """A camera with a line, a zone and so many rules."""
    kinds = (
        {"when": "crossed", "line": "gate"},
        {"when": "entered", "zone": "road"},
        {"when": "more_than", "zone": "road", "count": 3},
        {"when": "longer_than", "zone": "road", "seconds": 2.0},
    )
    events = tuple(Rule(name=f"rule {n}", **kinds[n % 4]) for n in range(rules))
    return Scene(Camera(name="street", source="0", lines=(LINE,), zones=(ZONE,), events=events))


def rule_ms(frames: int = 2000) -> Rows:
    """Milliseconds a frame that each further rule takes, with 15 tracks."""
    took = {}
    for rules in (0, 40):
        watched = scene(rules)
        found = [walkers(15, number) for number in range(frames)]
        start = time.perf_counter()
        for detections in found:
            watched.update(detections)
        took[rules] = (time.perf_counter() - start) * 1000 / frames
    yield "a line and a zone, 15 tracks", f"{took[0]:.3f} ms a frame"
    yield "each further rule", f"{(took[40] - took[0]) / 40:.4f} ms a frame"


def memory(folder: Path, frames: int) -> Rows:
    """Peak memory of all that watching does: one car after the other crosses a small picture."""
    width, height, steps = 256, 96, 50
    shipped = bundle.read(bundle.find("street"))
    demo = sample_frame().pixels
    found = Detector(shipped, threads=1)(demo)
    left, top, right, bottom = max((box.xyxy for box in found if box.name == "car"), key=lambda xyxy: xyxy[3])
    car = Image.fromarray(sample_frame().pixels).crop(
        (int(left) - 12, int(top) - 12, int(right) + 12, int(bottom) + 12)
    )
    car = car.resize((120, round(120 * car.height / car.width)))
    pictures = []
    for step in range(steps):
        road = Image.new("RGB", (width, height), (120, 120, 118))
        road.paste(car, (round((width - car.width) * step / steps), 10))
        pictures.append(np.asarray(road))

    rule = replace(shipped.card.input, width=width, height=height)
    detector = Detector(replace(shipped, card=replace(shipped.card, input=rule)), threads=1)
    gate = replace(LINE, points=((width / 2, 0), (width / 2, height)))
    road_zone = replace(ZONE, points=((0, 0), (width, 0), (width, height), (0, height)))
    camera = replace(scene(8).camera, lines=(gate,), zones=(road_zone,))
    config = WatchConfig(cameras=(camera,), csv=folder / "a.csv", sqlite=folder / "a.sqlite")
    peaks = []
    with Watch(config, detector, print, print) as run:
        for number in range(frames):
            run.frame(0, Frame(pictures[number % steps], "camera", moment=FrameTime(number / 25, number)))
            if number + 1 in (frames // 10, frames):
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    with (folder / "a.csv").open() as file:
        records = sum(1 for _ in file) - 1
    yield f"peak memory after {frames // 10:,} frames", f"{peaks[0]:.1f} MB"
    yield f"peak memory after {frames:,} frames, {records:,} records", f"{peaks[1]:.1f} MB"


def dead_webhook(folder: Path) -> Rows:
    """Milliseconds that an alarm takes whose webhook never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and reads nothing
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/hook"
        rule = Rule(name="dead", when="crossed", line="gate", webhook=address)
        camera = Camera(name="a", source="0", lines=(LINE,), events=(rule,))
        actions = Actions(WatchConfig(cameras=(camera,), queue=folder / "queue"), "key", lambda sentence: None)
        alarm = Event(kind="alarm", camera="a", time_s=0.0, rule="dead")
        took = []
        for _ in range(300):
            start = time.perf_counter()
            actions.fire([alarm], "a", lambda: Image.new("RGB", (1, 1)), 0.0)
            took.append((time.perf_counter() - start) * 1000)
        actions.close()
    yield "an alarm whose webhook is dead", f"{statistics.median(took):.2f} ms, at most {max(took):.1f} ms"


class Camera15(BaseHTTPRequestHandler):
    """Motion JPEG, fifteen frames a second."""

    parts: Iterable[bytes] = ()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        start = time.monotonic()
        try:
            for number, part in enumerate(cycle(self.parts)):
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n"
                self.wfile.write(head.encode() + part + b"\r\n")
                time.sleep(max(start + (number + 1) / 15 - time.monotonic(), 0))
        except ConnectionError:
            pass

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def two_cameras(pictures: list[Path], options: argparse.Namespace) -> Rows:
    """Frames a second of each of two cameras in one process, of fifteen that come."""
    Camera15.parts = [
        encode_picture(Image.fromarray(read_image(path).pixels).resize((WIDTH, HEIGHT))) for path in pictures[:30]
    ]
    with ThreadingHTTPServer(("127.0.0.1", 0), Camera15) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/camera"
        cameras = tuple(
            Camera(name=name, source=address, live=True, lines=(LINE,), zones=(ZONE,)) for name in ("left", "right")
        )
        detector = load(options.model, threads=options.threads)
        with Watch(WatchConfig(cameras=cameras, reconnect=0), detector, print, print) as run:
            start, before = 0.0, [0, 0]

            def until(items: Iterable[Item]) -> Iterator[Item]:
                nonlocal start, before
                for item in items:
                    if not start and min(run.frames) >= 5:
                        start, before = time.monotonic(), list(run.frames)
                    if start and time.monotonic() - start > options.seconds:
                        return
                    yield item

            run.run(until)
            rate = [(now - then) / options.seconds for now, then in zip(run.frames, before, strict=True)]
        server.shutdown()
    yield f"two cameras of 15 frames/s, {WIDTH}x{HEIGHT}", f"{rate[0]:.1f} and {rate[1]:.1f} frames/s are watched"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--model", default="street")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--long", type=int, default=50_000, help="Frames of the measurement of memory.")
    options = parser.parse_args()
    pictures = [Path(source.name) for source in locate([options.pictures])]
    print(f"{describe_machine(describe(), options.threads)}; model {options.model}\n\n| | |\n|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = (
            rates(folder, pictures, options),
            rule_ms(),
            dead_webhook(folder),
            two_cameras(pictures, options),
            memory(folder, options.long),
        )
        for what, figure in chain.from_iterable(measured):
            print(f"| {what} | {figure} |", flush=True)


if __name__ == "__main__":
    main()
