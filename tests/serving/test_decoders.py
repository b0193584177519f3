"""The decoders' processes: what harms one harms nothing else."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import struct
import subprocess
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from squeezedet.media.images import read_image
from squeezedet.preprocess import InputRule, resize
from squeezedet.serving import decoders as decoders_module
from squeezedet.serving.decode import LENGTHS, Limits, arguments, pack
from squeezedet.serving.decoders import Decoders
from squeezedet.serving.problems import Metrics, ProblemError

from .running import DEMO, picture

RULE = InputRule(320, 96)
LIMITS = Limits(max_pixels=2_000_000, max_bytes=5_000_000, seconds=2)


def with_decoders(use: Any, limits: Limits = LIMITS) -> Any:
    async def run() -> Any:
        decoders = Decoders(RULE, limits, Metrics())
        await decoders.start()
        try:
            return await use(decoders)
        finally:
            await decoders.close()

    return asyncio.run(run())


def test_pixels_are_those_of_the_runtime() -> None:
    done = with_decoders(lambda decoders: decoders.image(DEMO))
    frame = read_image(DEMO)
    height, width = frame.pixels.shape[:2]
    np.testing.assert_array_equal(done.pixels, resize(frame.pixels, RULE.size(width, height)))
    assert (done.width, done.height) == (width, height)


def endless_gif() -> bytes:
    """A GIF of so many frames that counting them takes minutes."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + frame * (4_900_000 // len(frame)) + b";"


def test_an_endless_image_is_its_first_frame() -> None:
    """Only its first frame is read, however many follow; nobody else waits for it."""

    async def use(decoders: Decoders) -> None:
        endless = asyncio.create_task(decoders.image(endless_gif()))
        await asyncio.sleep(0)
        assert (await decoders.image(DEMO)).width  # beside it
        assert ((await endless).width, (await endless).height) == (1, 1)

    with_decoders(use)


def test_an_image_without_end_of_work_ends_its_decoder() -> None:
    """The limit is processor time: what needs more than any machine gives in it is refused, and the next is read."""

    async def use(decoders: Decoders) -> None:
        with pytest.raises(ProblemError, match="takes more than"):
            await decoders.image(noise(1700, 1300))
        for _ in range(4):  # by every decoder
            assert (await decoders.image(picture())).width

    with_decoders(use, Limits(max_pixels=3_000_000, max_bytes=9_000_000, seconds=0.005))


def noise(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width, height), 90).convert("RGB").save(file, "PNG")
    return file.getvalue()


async def until(true: Any) -> None:
    for _ in range(2000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


def test_a_decoder_that_dies_costs_no_request() -> None:
    """Killed while idle, all at once, and the moment before a task."""

    async def use(decoders: Decoders) -> None:
        before = set(decoders._all)
        for decoder in before:
            decoder.kill()
        assert (await decoders.image(DEMO)).width
        await until(lambda: decoders.live == 2 and not before & decoders._all)
        next(iter(decoders._all)).kill()
        results = await asyncio.gather(*(decoders.image(DEMO) for _ in range(4)))
        assert len(results) == 4

    with_decoders(use)


def test_a_stopped_decoder_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders_module, "WALL_S", 0.5)
    monkeypatch.setattr(decoders_module, "HEARTBEAT_S", 0.02)

    async def use(decoders: Decoders) -> None:
        before = set(decoders._all)
        for decoder in before:
            os.kill(decoder.pid, signal.SIGSTOP)
        await until(lambda: decoders.live == 2 and not before & decoders._all)
        assert (await decoders.image(DEMO)).width

    with_decoders(use)


def test_whatever_a_decoder_says_it_is_never_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that cannot be read ends that decoder, and the next image has another."""
    really = decoders_module._hear
    deep = iter([True])

    async def hear(decoder: Any) -> Any:
        answer = await really(decoder)
        if answer[1] and next(deep, False):
            raise RecursionError
        return answer

    monkeypatch.setattr(decoders_module, "_hear", hear)
    monkeypatch.setattr(decoders_module, "GRACE_S", 0.05)

    async def use(decoders: Decoders) -> None:
        for _ in range(4):
            assert (await decoders.image(DEMO)).width
        await until(lambda: decoders.live == 2)

    with_decoders(use)


def test_large_images_leave_a_decoder_to_the_others() -> None:
    """So many that all decoders would be busy for seconds; the small one is among the first."""
    body = noise(1700, 1300)
    done: list[str] = []

    async def use(decoders: Decoders) -> None:
        async def one(name: str, body: bytes) -> None:
            await decoders.image(body, name)
            done.append(name)

        large = [asyncio.create_task(one("large", body)) for _ in range(5)]
        await asyncio.sleep(0)
        await one("small", DEMO)
        await asyncio.gather(*large)
        assert done.index("small") <= 2

    with_decoders(use, Limits(max_pixels=3_000_000, max_bytes=9_000_000, seconds=20))


def test_a_task_that_nobody_waits_for_does_not_answer_the_next() -> None:
    async def use(decoders: Decoders) -> None:
        task = asyncio.create_task(decoders.image(endless_gif()))
        await asyncio.sleep(0.02)
        task.cancel()
        results = await asyncio.gather(*(decoders.image(DEMO) for _ in range(4)))
        assert {done.width for done in results} == {results[0].width}

    with_decoders(use)


def ask(header: dict[str, Any], body: bytes, limits: Limits = LIMITS) -> dict[str, Any]:
    """One task for a process of its own."""
    done = subprocess.run(arguments(RULE, limits), input=pack(header, body), capture_output=True, check=True)
    ready, answer = messages(done.stdout)
    assert ready == {"ready": True}
    return answer


def messages(output: bytes) -> list[dict[str, Any]]:
    """What a decoder says, without the pixels."""
    found = []
    while output:
        text, content = LENGTHS.unpack(output[: LENGTHS.size])
        found.append(json.loads(output[LENGTHS.size :][:text]))
        output = output[LENGTHS.size + text + content :]
    return found


def test_a_text_of_brackets_stays_within_the_memory() -> None:
    body = b"[" + b"[],[]," * 2_500_000 + b"[]]"
    answer = ask({"kind": "tensors", "header_bytes": None}, body, LIMITS)
    assert "bytes of JSON" in answer["error"]


def test_memory_is_bounded() -> None:
    """The limit of pixels is lifted, the process's memory is not."""
    file = io.BytesIO()
    Image.new("P", (14_000, 14_000)).save(file, "PNG", compress_level=1)
    probe = (
        "import sys, json\n"
        "from squeezedet.serving import decode as d\n"
        "from squeezedet.preprocess import InputRule\n"
        "d._confine(d.Limits(max_pixels=1000, max_bytes=1000, seconds=60))\n"
        "wide = d.Limits(max_pixels=10**9, max_bytes=10**9, seconds=60)\n"
        "task = {'kind': 'image', 'large': True}\n"
        "out = d.answer(task, sys.stdin.buffer.read(), InputRule(320, 96), wide)\n"
        "sys.stdout.buffer.write(out)\n"
    )
    done = subprocess.run(
        [arguments(RULE, LIMITS)[0], "-c", probe], input=file.getvalue(), capture_output=True, check=True
    )
    assert "error" in messages(done.stdout)[0]


def test_it_ends_with_its_input_and_not_with_a_signal_to_the_group() -> None:
    with subprocess.Popen(arguments(RULE, LIMITS), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.read(sum(LENGTHS.unpack(process.stdout.read(LENGTHS.size))))
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(process.pid, number)
        process.stdin.write(pack({"kind": "image"}, b""))
        process.stdin.close()
        assert b"empty" in process.stdout.read()
        assert process.wait(10) == 0


def test_a_png_of_the_largest_size_fits_the_memory() -> None:
    """16 bits, transparent, turned: the most that a pixel can take."""
    side = 1400
    raw = zlib.compress(b"".join(b"\x00" + bytes(8 * side) for _ in range(side)))

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack("!I", zlib.crc32(kind + content))
        return struct.pack("!I", len(content)) + kind + content + checksum

    exif = b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
    body = b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            chunk(b"IHDR", struct.pack("!IIBBBBB", side, side, 16, 6, 0, 0, 0)),
            chunk(b"eXIf", exif + bytes(4)),
            chunk(b"IDAT", raw),
            chunk(b"IEND", b""),
        )
    )
    assert ask({"kind": "image"}, body)["width"] == side
