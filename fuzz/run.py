"""Random mutations of good inputs against everything that reads what a stranger may have made.

    python fuzz/run.py --seconds 180                      # all targets, in turns
    python fuzz/run.py --seconds 3600 --target image --out findings

Each target runs in a process of its own. An answer, or one of the package's errors in one line,
is right; a traceback, a crash or more than 20 seconds for one input is a finding: the input is
kept in ``--out``, and the exit code is 1. ``--replay FILE --target T`` tries one input again.
Seeds are made on the spot. The random numbers follow from ``--seed``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from squeezedet.errors import SqueezeDetError

HANG_S = 20.0
LONGEST_NAME = 10_000
"""A name of more than 65,535 bytes cannot be written into an archive."""
START_S = 120.0
"""A target may import torch, on a busy machine."""
NUMBERS = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\0\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"9" * 20)
TOKENS = (b"nan", b"-1", b"1e999", b"[", b"{", b'"', b"\\", b"null", b"&a", b"*a", b"<<: ", b"../")
Target = tuple[list[bytes], Callable[[bytes], object]]
"""Seeds, and what reads one input."""

# ------------------------------------------------------------------ inputs


def picture(form: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    image = Image.effect_noise((48, 32), 90).convert(mode)
    image.save(file, form, **options)
    return file.getvalue()


def mutated(dice: random.Random, seeds: list[bytes]) -> bytes:
    """A seed with a few changes: bits, numbers, blocks gone, doubled or from another seed."""
    data = bytearray(dice.choice(seeds))
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        at = dice.randrange(len(data) + 1)
        size = min(dice.choice((1, 2, 4, 16, 256)), len(data) - at)
        match dice.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << dice.randrange(8)
            case 1:
                number = dice.choice(NUMBERS)
                data[at : at + len(number)] = number
            case 2:
                data[at:at] = dice.choice(TOKENS)
            case 3:
                del data[at : at + size]
            case 4:
                data[at:at] = data[at : at + size] * dice.choice((1, 2, 200))
            case 5:
                other = dice.choice(seeds)
                start = dice.randrange(len(other) + 1)
                data[at : at + size] = other[start : start + size]
            case _:
                data[at : at + size] = dice.randbytes(size)
    return bytes(data[: dice.randrange(len(data) + 1)] if dice.random() < 0.05 else data)


# ----------------------------------------------------------------- targets


def image(_: Path) -> Target:
    from squeezedet.media.images import read_image

    seeds = [picture(form) for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")]
    exif = Image.Exif()
    exif[0x0112] = 6
    seeds += [
        picture("JPEG", "CMYK", exif=exif),
        picture("JPEG", progressive=True),
        picture("PNG", "RGBA"),
        picture("PNG", "I;16"),
        picture("TIFF", compression="tiff_lzw"),
        picture("GIF", "P", save_all=True, append_images=[Image.new("P", (48, 32))] * 3),
    ]
    return seeds, lambda data: read_image(data, "image", 1_000_000)


def infer(_: Path) -> Target:
    from squeezedet.preprocess import InputRule
    from squeezedet.serving.decode import from_tensors

    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [0, 1] * 3}
    whole = {"id": "7", "inputs": [tensor], "parameters": {"score": 0.3}, "outputs": []}
    seeds = [json.dumps({"inputs": [tensor]}).encode(), json.dumps(whole).encode()]
    seeds.append(json.dumps(whole | {"outputs": [{"name": "boxes"}]}).encode())
    rule = InputRule(64, 32)
    return seeds, lambda data: from_tensors(data, None, rule, 1_000_000)


def video(folder: Path) -> Target:
    from squeezedet.media.video import VideoFile, read_video

    seeds = []
    for name in ("a.mp4", "a.mkv"):
        with contextlib.suppress(SqueezeDetError), VideoFile(folder / name) as file:
            for number in range(4):
                file.write(Image.effect_noise((64, 48), 90).convert("RGB"), number / 10)
        if (folder / name).is_file():
            seeds.append((folder / name).read_bytes())
    path = folder / "it.mp4"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for number, _ in enumerate(read_video(str(path), live=False)):
            if number > 20:
                break

    return seeds, read


def yaml(folder: Path) -> Target:
    from squeezedet.data.yolo import read_yaml

    seeds = [
        b"path: .\ntrain: images\nval: [images, more]\nnc: 2\nnames: ['a', \"b\"]\n",
        b"names:\n  0: car\n  1: &x person\nkpt_shape: [17, 3] # comment\ntrain: *x\n",
        b"text: |\n  one\n  two\n--- \nlist:\n- a\n- {b: c}\n",
    ]
    return seeds, _file(folder / "data.yaml", read_yaml)


def labels(folder: Path) -> Target:
    """All layouts: the input's first byte says which one it is."""
    from squeezedet.data.dataset import read_dataset

    image = picture("JPEG")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 20, 10], "area": 200}
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 48, "height": 32}],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [box | {"iscrowd": 0}],
    }
    voc = (
        b"<annotation><filename>a.jpg</filename><size><width>48</width><height>32</height></size>"
        b"<object><name>car</name><difficult>0</difficult><bndbox><xmin>2</xmin><ymin>3</ymin>"
        b"<xmax>20</xmax><ymax>12</ymax></bndbox></object></annotation>"
    )
    kitti = b"Car 0.00 0 -1.57 2.0 3.0 20.0 12.0 1.5 1.6 3.7 1 1 8 -1.5\nDontCare -1 -1 -10 0 0 9 9\n"
    layouts = [
        ("kitti", "image_2/a.jpg", "label_2/a.txt", kitti, {}),
        ("voc", "JPEGImages/a.jpg", "Annotations/a.xml", voc, {}),
        ("coco", "a.jpg", "_annotations.coco.json", json.dumps(coco).encode(), {}),
        (
            "yolo",
            "images/train/a.jpg",
            "labels/train/a.txt",
            b"0 0.5 0.5 0.25 0.25\n1 0.1 0.2 0.1 0.1 0.3 0.3\n",
            {"data.yaml": b"train: images/train\nval: images/train\nnames: [car, person]\n"},
        ),
    ]
    for name, at, label, _, more in layouts:
        for path, content in {at: image, label: b"", **more}.items():
            (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / path).write_bytes(content)

    def read(data: bytes) -> None:
        name, _, label, _, _ = layouts[data[0] % len(layouts) if data else 0]
        (folder / name / label).write_bytes(data[1:])
        read_dataset(folder / name)

    return [bytes([i]) + layout[3] for i, layout in enumerate(layouts)], read


def bundle(folder: Path) -> Target:
    """Bundles as they are, and with their members changed and the checksums right again."""
    from squeezedet.coding.tensor import encode_tensor
    from squeezedet.runtime import bundle as bundles

    rng = np.random.default_rng(0)
    few = np.where(rng.random((20, 20, 9)) < np.linspace(0, 1, 20)[:, None], 1, 0)
    arrays = [
        np.eye(60, dtype=np.float32),
        (few * rng.integers(1, 9, few.shape)).astype(np.float32),
        rng.normal(size=900).round(1).astype(np.float32),
    ]
    coded = {f"t{i}": encode_tensor(values) for i, values in enumerate(arrays)}
    card = bundles.read_card(bundles.find(bundles.DEFAULT_MODEL))
    small = bundles.Bundle(card, b"-".join(values.tobytes() for values in arrays))
    mark, path = b"\0member\0", folder / "it.bundle"
    seeds = []
    for content in (bundles.to_bytes(small, coded), bundles.to_bytes(small)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(name.encode(), archive.read(name)) for name in archive.namelist()]
        seeds += [b"F" + content, b"M" + mark.join(part for pair in members for part in pair)]

    def read(data: bytes) -> None:
        content = data[1:]
        if data[:1] == b"M":
            parts, file = content.split(mark), io.BytesIO()
            with zipfile.ZipFile(file, "w") as archive:
                for name, part in dict(zip(parts[::2], parts[1::2], strict=False)).items():
                    archive.writestr(name.decode("latin-1").replace("\0", "")[:LONGEST_NAME] or "x", part)
            content = file.getvalue()
        path.write_bytes(content)
        bundles.read(path)

    return seeds, read


def graph(_: Path) -> Target:
    """A graph whose checksum is right, given to the default engine, and run."""
    from squeezedet.runtime import bundle as bundles
    from squeezedet.runtime.bundle import Bundle
    from squeezedet.runtime.detector import Detector

    good = bundles.read(bundles.find("street"))
    # Weights are most of the file: what is changed lies in the structure around them.
    pixels = np.zeros((64, 64, 3), np.uint8)

    def read(data: bytes) -> None:
        Detector(Bundle(good.card, data), threads=1).engine.run(pixels)

    return [good.graph], read


def checkpoint(folder: Path) -> Target:
    import torch

    from squeezedet.training import checkpoint as checkpoints

    path = folder / "a.safetensors"
    tensors = {"a.weight": torch.zeros(3, 4), "step": torch.ones(1)}
    checkpoints.write(path, tensors, {"step": 3, "detector": {"network": "squeezedet"}})
    seeds = [path.read_bytes()]
    return seeds, _file(folder / "it.safetensors", checkpoints.read_detector)


def _file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def written(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return written


TARGETS = {one.__name__: one for one in (image, infer, yaml, labels, bundle, video, graph, checkpoint)}

# ------------------------------------------------------------------ running


def attempt(read: Callable[[bytes], object], data: bytes) -> str | None:
    """None, or where and how the package failed, in a form that names one fault once."""
    try:
        read(data)
    except SqueezeDetError as error:
        return f"an error of several lines: {error}"[:200] if "\n" in str(error) else None
    except BaseException as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "squeezedet" in f.filename]
        at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside"
        return f"{type(error).__name__} at {at}: {error}"[:200]
    return None


def child(name: str, seconds: float, seed: int, folder: Path) -> None:
    """Try inputs; the one that is being tried stands in a file, in case it ends this process."""
    dice, current = random.Random(f"{seed} {name}"), folder / "current"
    work = folder / "work"
    work.mkdir()
    seeds, read = TARGETS[name](work)
    for data in seeds:
        attempt(read, data)  # a seed may be refused too, as a bundle with no graph
    end, tried, known = time.monotonic() + seconds, 0, set[str]()
    print("ready", flush=True)
    while time.monotonic() < end:
        data = mutated(dice, seeds)
        current.write_bytes(data)
        said = attempt(read, data)
        tried += 1
        if said and said not in known:
            known.add(said)
            kept = folder / f"{name}-{len(known)}.bin"
            kept.write_bytes(data)
            print(json.dumps({"said": said, "kept": kept.name}), flush=True)
    print(json.dumps({"tried": tried}), flush=True)


def watched(name: str, seconds: float, seed: int, out: Path) -> tuple[int, list[str]]:
    """How many inputs were tried in a process of its own, and what was found."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        command = [sys.executable, __file__, "--child", text, "--target", name]
        command += ["--seconds", str(seconds), "--seed", str(seed)]
        log = folder / "log"
        with log.open("wb") as file, (folder / "errors").open("wb") as errors:
            process = subprocess.Popen(command, stdout=file, stderr=errors)  # noqa: S603 - ours
            hung = _wait(process, folder, seconds)
        lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
        found = [json.loads(line) for line in lines]
        findings = [f"{name}: {one['said']} ({one['kept']})" for one in found if "said" in one]
        tried = sum(one.get("tried", 0) for one in found)
        if hung or process.returncode:
            what = "hangs" if hung else f"ends with exit code {process.returncode}"
            said = (folder / "errors").read_text(errors="replace").strip().splitlines()[-1:]
            kept = folder / f"{name}-{'hang' if hung else 'crash'}-{seed}.bin"
            if (folder / "current").is_file():
                shutil.copy(folder / "current", kept)
            findings.append(f"{name}: {what} ({kept.name}) {' '.join(said)}")
        if findings:
            out.mkdir(parents=True, exist_ok=True)
            for kept in folder.glob("*.bin"):
                shutil.copy(kept, out / kept.name)
        return tried, findings


def _wait(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> bool:
    """Wait for its end; whether it had to be ended, because one input took too long."""
    current, begin = folder / "current", time.time()
    while process.poll() is None:
        time.sleep(0.1)
        since = time.time() - (current.stat().st_mtime if current.is_file() else begin)
        if since > (HANG_S if current.is_file() else START_S) + seconds * 0.1:
            process.kill()
            process.wait()
            return True
    return False


def main() -> None:
    """Run the targets one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=180, help="for all targets together")
    parser.add_argument("--target", choices=sorted(TARGETS), help="only this one")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--out", type=Path, default=Path("findings"), help="folder for inputs")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="try one input again")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.target, given.seconds, given.seed, given.child)
        return
    if given.replay:
        with tempfile.TemporaryDirectory() as folder:
            TARGETS[given.target or re.split("-", given.replay.name)[0]](Path(folder))[1](given.replay.read_bytes())
        return
    names = [given.target] if given.target else list(TARGETS)
    print(f"seed {given.seed}")
    findings = []
    for name in names:
        tried, found = watched(name, given.seconds / len(names), given.seed, given.out)
        print(f"{name}: {tried} inputs, {len(found)} findings", flush=True)
        findings += found
    for one in findings:
        print(one)
    raise SystemExit(bool(findings))


if __name__ == "__main__":
    main()
