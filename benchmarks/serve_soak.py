"""Good clients beside hostile ones, against ``squeezedet serve`` on the loopback.

    python benchmarks/serve_soak.py soak                    # 10 minutes of everything at once, as JSON
    python benchmarks/serve_soak.py beside --seconds 10     # one attack at a time: the table of docs/serve.md

``soak`` lets good clients ask while every attack goes on, decoders are killed and stopped at random, and now and then
no file of the server can grow, as on a full disk. Its exit code is 0 only if nothing is listed under ``wrong``.
``beside`` measures a good client alone and beside each attack, in turns. All come from 127.0.0.1, the hardest case, as
budgets go by client address.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import resource
import secrets
import shlex
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from serve_load import Client, children, head, megabytes, metric, served, summary
from squeezedet.runtime.bundle import WEIGHTS

DECODERS = 2
AGAIN_S = 0.5
"""A client that was turned away comes back after so long."""
HELLO = b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
UPGRADE = (
    b"GET /stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
BIG_FRAME = b"\x82\xff" + struct.pack("!Q", 19_000_000) + bytes(4)
PINGS = b"\x89\x80\0\0\0\0" * 5000
Attack = Callable[[Client], Coroutine[Any, Any, None]]
"""One hostile client, for ever."""


def slow_picture() -> bytes:
    """24 million pixels of noise: most of a second to decode."""
    noise = np.random.default_rng(0).integers(0, 256, (4000, 6000, 1), np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.repeat(noise, 3, 2)).save(file, "PNG", compress_level=1)
    return file.getvalue()[:19_000_000]


def many_scans() -> bytes:
    """A progressive JPEG whose last scan is repeated 2,000 times."""
    file = io.BytesIO()
    Image.effect_noise((1500, 1000), 90).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * min(2000, 18_000_000 // len(content[last:]))


def deep_json() -> bytes:
    nested = b'{"a":' * 985 + b"1" + b"}" * 985
    return b'{"inputs": [], "parameters": ' + nested + b"}"


def infer_head(length: int) -> bytes:
    return (
        "POST /v2/models/street/infer HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Length: {length}\r\nConnection: close\r\n\r\n"
    ).encode()


async def hold(client: Client, *first: bytes, then: bytes = b"", seconds: float = 60) -> None:
    """Send something, and the rest again and again, until the server closes."""
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        try:
            async with asyncio.timeout(seconds):
                for part in first:
                    writer.write(part)
                    await writer.drain()
                    if part is UPGRADE:
                        await reader.readuntil(b"\r\n\r\n")
                while then:
                    writer.write(then)
                    await writer.drain()
                    await asyncio.sleep(0)
                await reader.read()
        finally:
            writer.transport.abort()


def attacks() -> dict[str, tuple[int, Attack]]:
    """Name -> how many clients, and what each does."""
    pictures = [slow_picture(), many_scans()]
    deep = deep_json()

    def again(once: Attack) -> Attack:
        async def forever(client: Client) -> None:
            while True:
                await once(client)
                await asyncio.sleep(AGAIN_S)

        return forever

    async def slow(client: Client) -> None:
        await client.detect(random.choice(pictures), "image/png")

    async def infer(client: Client) -> None:
        await client.send(infer_head(len(deep)), deep)

    return {
        "4 clients of slow pictures": (4, again(slow)),
        "200 WebSockets with an unfinished frame": (
            200,
            again(lambda client: hold(client, UPGRADE, BIG_FRAME, bytes(1_000_000))),
        ),
        "8 WebSockets of pings": (8, again(lambda client: hold(client, UPGRADE, then=PINGS))),
        "64 unfinished bodies": (64, again(lambda client: hold(client, head(19_000_000) + bytes(2_000_000)))),
        "500 half heads": (500, again(lambda client: hold(client, b"POST /detect HTTP/1.1\r\nHost: lo"))),
        "2 clients of deep JSON": (2, again(infer)),
    }


class Good:
    """A client that asks again as soon as it is answered, and what became of its requests."""

    def __init__(self, client: Client, picture: bytes) -> None:
        self._client, self._picture = client, picture
        self.statuses: Counter[str] = Counter()
        self.latencies: list[float] = []

    async def ask(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            status = await self._client.detect(self._picture)
            self.statuses[status] += 1
            if status == "200":
                self.latencies.append(time.perf_counter() - start)
            else:
                await asyncio.sleep(0.1)


async def beside(picture: bytes, seconds: float) -> str:
    """A Markdown table."""
    rows = ["| beside | alone per second | beside per second | ratio | answers beside |", "|---|---|---|---|---|"]
    async with served([]) as (client, _):
        await client.detect(picture)
        for name, (count, attack) in attacks().items():
            alone, with_them = Good(client, picture), Good(client, picture)
            await alone.ask(seconds)
            async with attacked([attack(client) for _ in range(count)]):
                await asyncio.sleep(1)
                await with_them.ask(seconds)
            await asyncio.sleep(2)
            rates = [len(good.latencies) / seconds for good in (alone, with_them)]
            ratio = f"{rates[1] / rates[0]:.2f}" if rates[0] else "-"
            statuses = ", ".join(f"{status}: {n}" for status, n in sorted(with_them.statuses.items()))
            rows.append(f"| {name} | {rates[0]:.1f} | {rates[1]:.1f} | {ratio} | {statuses} |")
            print(rows[-1], file=sys.stderr)
    return "\n".join(rows)


@asynccontextmanager
async def attacked(hostile: Sequence[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Let these go on while the block runs."""
    tasks = [asyncio.create_task(one) for one in hostile]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# ------------------------------------------------------------------ soak

WARM_SHARE = 1 / 3
"""Of the soak, in which memory may still grow."""
FLAT = 1.25
"""So many times its median of the second third may memory have as median of the last."""
BUSY = {"200", "503", "504"}
"""What a good client may be told: the answer, or that there is no room or was no time."""


async def kill(server: int, every_s: float) -> None:
    """Kill or stop a decoder now and then."""
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5) * every_s)
        with suppress(ProcessLookupError, IndexError):
            number = random.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP))
            os.kill(random.choice(children(server)), number)


async def fill_disk(server: int, every_s: float, times: list[float]) -> None:
    """Now and then let no file of the server and its decoders grow, as on a full disk; then free it again."""
    try:
        while True:
            for most in (0, resource.RLIM_INFINITY):
                await asyncio.sleep(every_s)
                limit_files(server, most)
                times.append(time.perf_counter())
    finally:
        limit_files(server, resource.RLIM_INFINITY)


def limit_files(server: int, most: int) -> None:
    for pid in [server, *children(server)]:
        with suppress(ProcessLookupError):
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (most if hard == resource.RLIM_INFINITY else hard, hard))


async def watch_health(client: Client, seen: Counter[str]) -> None:
    while True:
        seen[await client.send(HELLO % b"/v2/health/live")] += 1
        await asyncio.sleep(1)


async def soak(picture: bytes, seconds: float, every_s: float, options: list[str]) -> dict[str, Any]:
    """Everything at once, and what of it was not as it should be."""
    health: Counter[str] = Counter()
    disk: list[float] = []
    async with served(options) as (client, memory):
        await client.detect(picture)
        good = [Good(client, picture) for _ in range(3)]
        hostile = [attack(client) for count, attack in attacks().values() for _ in range(max(1, count // 4))]
        hostile += [kill(memory.pid, every_s), fill_disk(memory.pid, every_s, disk), watch_health(client, health)]
        first = len(memory.readings)
        async with attacked(hostile):
            await asyncio.gather(*(one.ask(seconds) for one in good))
        readings = memory.readings[first:]
        for _ in range(120):  # what was stopped last is found within seconds
            decoders = await metric(client.port, "squeezedet_decoders")
            replaced = await metric(client.port, "squeezedet_decoder_restarts_total")
            if decoders == DECODERS and replaced:
                break
            await asyncio.sleep(1)
        ready = await client.send(HELLO % b"/v2/health/ready")
        after = Counter([await client.detect(picture) for _ in range(5)])
    statuses = sum((one.statuses for one in good), Counter[str]())
    warm = round(len(readings) * WARM_SHARE)
    before, last = (median(part) for part in (readings[warm : 2 * warm], readings[2 * warm :]))
    expected = {
        "good clients are answered, or told that there is no room": set(statuses) <= BUSY and statuses["200"] > 0,
        "the server lives all the time": set(health) == {"200"},
        "it is ready at the end, with all decoders": ready == "200" and decoders == DECODERS,
        "it answers at the end": set(after) == {"200"},
        "decoders were killed and replaced": replaced > 0,
        "the disk was filled and freed": len(disk) > 1,
        "memory is flat": last <= FLAT * before,
    }
    return {
        "wrong": [what for what, true in expected.items() if not true],
        "seconds": seconds,
        "statuses": dict(statuses),
        "health": dict(health),
        "answered_ms": summary([s for one in good for s in one.latencies]),
        "ready_at_the_end": ready,
        "decoders_at_the_end": decoders,
        "decoders_replaced": replaced,
        "disk_filled_or_freed": len(disk),
        "memory_mb": megabytes(readings) | {"median_of_second_third": before / 1e6, "median_of_last_third": last / 1e6},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("soak", "beside"))
    parser.add_argument("--picture", type=Path, default=WEIGHTS / "demo.jpg")
    parser.add_argument("--seconds", type=float, help="600 for soak; 10 an attack for beside")
    parser.add_argument("--harm-every", type=float, default=3.0, help="seconds between kills")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--options", default="", help="of squeezedet serve for soak, in one text")
    given = parser.parse_args()
    random.seed(secrets.randbits(32) if given.seed is None else given.seed)
    picture = given.picture.read_bytes()
    if given.what == "beside":
        print(asyncio.run(beside(picture, given.seconds or 10)))
        return
    result = asyncio.run(soak(picture, given.seconds or 600, given.harm_every, shlex.split(given.options)))
    print(json.dumps(result, indent=2))
    if result["wrong"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
