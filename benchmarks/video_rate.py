"""Frames a second from video file to annotated video, as a share of the network's own rate.

The pictures of a folder, over and over, become an H.264 file; `squeezedet detect` reads it, tracks,
writes an annotated H.264 file and JSON lines. Its time less that of the same command on one frame
(start-up) gives the rate. Blocks of the network alone, one frame after the other, stand between
the blocks of video; medians. Run it on a quiet machine::

    python benchmarks/video_rate.py --pictures FOLDER [--frames 300] [--threads 2] [--blocks 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from PIL import Image

from squeezedet.media.images import read_image
from squeezedet.media.sources import locate
from squeezedet.media.video import VideoFile
from squeezedet.preprocess import fit
from squeezedet.runtime.detector import Detector, load


def write(path: Path, pictures: list[Path], frames: int, size: tuple[int, int] | None = None) -> Path:
    """A video of ten frames a second, in the pictures' size or in one (width, height)."""
    with VideoFile(path) as file:
        for number, picture in enumerate(islice(cycle(pictures), frames)):
            image = Image.fromarray(read_image(picture).pixels)
            file.write(image.resize(size) if size else image, number / 10)
    return path


def network_rate(detector: Detector, picture: Path, frames: int) -> float:
    """Frames a second of the network alone."""
    pixels = read_image(picture).pixels
    prepared = fit(pixels, detector.card.input)
    start = time.perf_counter()
    for _ in range(frames):
        detector.engine.run(prepared)
    return frames / (time.perf_counter() - start)


def detect_s(video: Path, threads: int, model: str) -> float:
    """Seconds of the whole command."""
    out = video.with_suffix("")
    command = [sys.executable, "-m", "squeezedet", "detect", str(video), "--track", "--quiet"]
    command += ["--threads", str(threads), "--model", model]
    command += ["--save", f"{out}-boxes.mp4", "--out", f"{out}.jsonl"]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", required=True)
    parser.add_argument("--model", default="street")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=5)
    options = parser.parse_args()
    pictures = [Path(source.name) for source in locate([options.pictures])]
    detector = load(options.model, threads=options.threads)
    network_rate(detector, pictures[0], 5)
    shares, alone, whole = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        video = write(Path(folder) / "many.mp4", pictures, options.frames)
        one = write(Path(folder) / "one.mp4", pictures, 1)
        for _ in range(options.blocks):
            alone.append(network_rate(detector, pictures[0], options.frames // 3))
            start_s = detect_s(one, options.threads, options.model)
            many_s = detect_s(video, options.threads, options.model)
            whole.append((options.frames - 1) / (many_s - start_s))
            shares.append(whole[-1] / alone[-1])
    print(f"network alone    {statistics.median(alone):7.2f} frames/s")
    print(f"video to video   {statistics.median(whole):7.2f} frames/s")
    print(f"share            {statistics.median(shares):7.1%}  of {options.blocks} blocks: ", end="")
    print(", ".join(f"{share:.1%}" for share in shares))


if __name__ == "__main__":
    main()
