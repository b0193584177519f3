"""Good clients beside hostile ones, against ``squeezedet serve`` on the loopback.

    python benchmarks/serve_soak.py soak                    # 10 minutes of everything at once
    python benchmarks/serve_soak.py beside --seconds 10     # one attack at a time, as ratios

``soak`` lets good clients ask while every attack goes on at once and decoders are killed and
stopped at random. It ends with exit code 1 if an accepted request was lost, if a good picture was
refused for its own sake (400), if the server was not ready at the end, or if its memory grew.
``beside`` measures a good client alone and beside each attack, in turns. All come from 127.0.0.1,
the hardest case, as budgets go by client address. The result is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import secrets
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from serve_load import Client, Memory, head, megabytes, metric, served, summary
from squeezedet.runtime.bundle import WEIGHTS

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


def infer_head(length: int, model: str = "street") -> bytes:
    return (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\n"
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


async def beside(picture: bytes, seconds: float, options: list[str]) -> dict[str, Any]:
    results: dict[str, Any] = {}
    async with served(options) as (client, memory):
        await client.detect(picture)
        for name, (count, attack) in attacks().items():
            alone = Good(client, picture)
            await alone.ask(seconds)
            hostile = [asyncio.create_task(attack(client)) for _ in range(count)]
            await asyncio.sleep(1)
            with_them = Good(client, picture)
            await with_them.ask(seconds)
            for task in hostile:
                task.cancel()
            await asyncio.gather(*hostile, return_exceptions=True)
            await asyncio.sleep(2)
            rates = [len(good.latencies) / seconds for good in (alone, with_them)]
            results[name] = {
                "alone_per_s": round(rates[0], 1),
                "beside_per_s": round(rates[1], 1),
                "ratio": round(rates[1] / rates[0], 2),
                "alone_ms": summary(alone.latencies),
                "beside_ms": summary(with_them.latencies),
                "statuses_beside": dict(with_them.statuses),
            }
            print(name, json.dumps(results[name]), file=sys.stderr)
    return {"attacks": results, "memory_mb": megabytes(memory.readings)}


async def harm(memory: Memory, every_s: float) -> None:
    """Kill or stop a decoder now and then."""
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5) * every_s)
        children = Path(f"/proc/{memory.pid}/task/{memory.pid}/children").read_text().split()
        if children:
            with suppress(ProcessLookupError):
                number = random.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP))
                os.kill(int(random.choice(children)), number)


async def soak(picture: bytes, seconds: float, every_s: float, options: list[str]) -> dict[str, Any]:
    async with served(options) as (client, memory):
        await client.detect(picture)
        good = [Good(client, picture) for _ in range(3)]
        hostile = [
            asyncio.create_task(attack(client))
            for count, attack in attacks().values()
            for _ in range(max(1, count // 4))
        ]
        hostile.append(asyncio.create_task(harm(memory, every_s)))
        await asyncio.gather(*(one.ask(seconds) for one in good))
        for task in hostile:
            task.cancel()
        await asyncio.gather(*hostile, return_exceptions=True)
        for _ in range(60):  # what was stopped last is found within seconds
            decoders = await metric(client.port, "squeezedet_decoders")
            if decoders == 2:
                break
            await asyncio.sleep(1)
        ready = await client.send(HELLO % b"/v2/health/ready")
        after = [await client.detect(picture) for _ in range(5)]
        replaced = await metric(client.port, "squeezedet_decoder_restarts_total")
    statuses = sum((one.statuses for one in good), Counter[str]())
    mb = megabytes(memory.readings)
    fine = (
        set(statuses) <= {"200", "503", "504"}
        and statuses["200"] > 0
        and (ready, set(after)) == ("200", {"200"})
        and mb["largest_of_second_half"] < 2 * max(mb["largest_of_first_half"], 200)
    )
    return {
        "fine": fine,
        "seconds": seconds,
        "statuses": dict(statuses),
        "answered_ms": summary([s for one in good for s in one.latencies]),
        "ready_at_the_end": ready,
        "decoders_at_the_end": decoders,
        "decoders_replaced": replaced,
        "memory_mb": mb,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("soak", "beside"))
    parser.add_argument("--picture", type=Path, default=WEIGHTS / "demo.jpg")
    parser.add_argument("--seconds", type=float, help="600 for soak; 10 an attack for beside")
    parser.add_argument("--harm-every", type=float, default=3.0, help="seconds between kills")
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    random.seed(secrets.randbits(32) if given.seed is None else given.seed)
    picture = given.picture.read_bytes()
    if given.what == "beside":
        result = asyncio.run(beside(picture, given.seconds or 10, []))
    else:
        result = asyncio.run(soak(picture, given.seconds or 600, given.harm_every, []))
    print(json.dumps(result, indent=2))
    if not result.get("fine", True):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
