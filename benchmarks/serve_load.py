"""Load and strangers against ``squeezedet serve``, on the loopback.

    python benchmarks/serve_load.py load --rate 200 --seconds 60
    python benchmarks/serve_load.py hostile --count 1000
    python benchmarks/serve_load.py workers --workers 1 2 --seconds 20

``load`` offers so many pictures a second whatever the server does, each on a connection of its
own, and counts what becomes of them; the server's memory (its decoders' included) is read every
half second. ``hostile`` measures a good client alone, then beside random bytes, bombs, cut
bodies, slow senders, huge heads and wrong types. ``workers`` lets clients ask again as soon as
they are answered, with each number of workers in turn, three times. All start the server themselves, on a free
port, with its own defaults but for ``--options``. The result is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shlex
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from squeezedet.runtime.bundle import WEIGHTS

GIVE_UP_S = 60.0
CLOSED = "closed"


class Client:
    """One request a connection, written by hand: what is sent may be any bytes.

    Args:
        port: of the server on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    async def send(self, *parts: bytes, pause_s: float = 0, cut: bool = False) -> str:
        """The status of the answer, or "closed" if there was none.

        Args:
            parts: sent one after the other.
            pause_s: between two of them.
            cut: close without waiting for an answer.
        """
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(pause_s)
                if not cut:
                    line = await asyncio.wait_for(reader.readline(), GIVE_UP_S)
                    await asyncio.wait_for(reader.read(), GIVE_UP_S)
                    return line.split()[1].decode() if line.startswith(b"HTTP/") else CLOSED
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
        return CLOSED

    async def detect(self, body: bytes, kind: str = "image/jpeg") -> str:
        """``POST /detect``."""
        return await self.send(head(len(body), kind), body)


def head(length: int, kind: str = "image/jpeg", more: str = "") -> bytes:
    return (
        f"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {length}\r\nConnection: close\r\n{more}\r\n"
    ).encode()


# ------------------------------------------------------------------ server


class Memory:
    """Resident bytes of a process and its children, the largest of many readings."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.readings: list[int] = []

    async def watch(self) -> None:
        while True:
            with suppress(OSError):
                self.readings.append(self._read())
            await asyncio.sleep(0.5)

    def _read(self) -> int:
        return sum(map(_resident, [self.pid, *children(self.pid)]))


def children(pid: int) -> list[int]:
    """The processes that there are now of a process, whichever of its threads started them."""
    return [int(child) for found in Path(f"/proc/{pid}/task").glob("*/children") for child in found.read_text().split()]


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


@asynccontextmanager
async def served(options: list[str]) -> AsyncIterator[tuple[Client, Memory]]:
    command = [sys.executable, "-m", "squeezedet", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().partition(" at ")[2].partition(" ")[0]
            client = Client(int(address.rstrip("/").rpartition(":")[2]))
            memory = Memory(process.pid)
            watching = asyncio.create_task(memory.watch())
            yield client, memory
            watching.cancel()
        finally:
            process.terminate()


def summary(latencies_s: list[float]) -> dict[str, float]:
    """Milliseconds."""
    cuts = quantiles(latencies_s, n=100, method="inclusive") if len(latencies_s) > 1 else []
    named = {"p50": median(latencies_s), "max": max(latencies_s)} if latencies_s else {}
    named |= {f"p{n}": cuts[n - 1] for n in (95, 99) if cuts}
    return {name: round(s * 1000, 1) for name, s in sorted(named.items())}


def megabytes(readings: list[int]) -> dict[str, float]:
    first, second = readings[: len(readings) // 2 + 1], readings[len(readings) // 2 :]
    return {
        "first": round(readings[0] / 1e6, 1),
        "largest": round(max(readings) / 1e6, 1),
        "largest_of_first_half": round(max(first) / 1e6, 1),
        "largest_of_second_half": round(max(second) / 1e6, 1),
    }


# ------------------------------------------------------------------ load


async def load(picture: bytes, rate: float, seconds: float, options: list[str]) -> dict[str, Any]:
    statuses: Counter[str] = Counter()
    accepted: list[float] = []
    refused: list[float] = []

    async def one(client: Client) -> None:
        start = time.perf_counter()
        status = await client.detect(picture)
        statuses[status] += 1
        (accepted if status == "200" else refused).append(time.perf_counter() - start)

    async with served(options) as (client, memory):
        await client.detect(picture)
        begin, tasks = time.perf_counter(), []
        for number in range(round(rate * seconds)):
            await asyncio.sleep(begin + number / rate - time.perf_counter())
            tasks.append(asyncio.create_task(one(client)))
        offered_s = time.perf_counter() - begin
        await asyncio.gather(*tasks)
        counted = await metric(client.port, 'squeezedet_rejects_total{reason="full"}')
    return {
        "offered": len(tasks),
        "offered_per_s": round(len(tasks) / offered_s, 1),
        "statuses": dict(statuses),
        "answered_per_s": round(len(accepted) / offered_s, 1),
        "accepted_ms": summary(accepted),
        "refused_ms": summary(refused),
        "rejects_counted": counted,
        "memory_mb": megabytes(memory.readings),
    }


async def metric(port: int, name: str) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name)]
    return float(found[0]) if found else 0.0


# ------------------------------------------------------------------ strangers


def bomb() -> bytes:
    """A PNG of 30000x30000 pixels in a megabyte."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack("!I", zlib.crc32(kind + content))
        return struct.pack("!I", len(content)) + kind + content + checksum

    header = struct.pack("!IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100_000_000))
    return b"".join((b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")))


def strangers(client: Client, picture: bytes) -> dict[str, Callable[[], Awaitable[str]]]:
    """Each kind of hostile request."""
    dice, exploding = random.Random(0), bomb()
    half = picture[: len(picture) // 2]
    trickle = [bytes([value]) for value in picture[:400]]
    return {
        "random bytes as an image": lambda: client.detect(dice.randbytes(20_000)),
        "random bytes as HTTP": lambda: client.send(dice.randbytes(2000)),
        "bomb": lambda: client.detect(exploding, "image/png"),
        "damaged image": lambda: client.detect(half),
        "cut body": lambda: client.send(head(len(picture)), half, cut=True),
        "slow body": lambda: client.send(head(len(picture)), *trickle, pause_s=0.1),
        "slow head": lambda: client.send(b"POST /det", *trickle, pause_s=0.1),
        "huge head": lambda: client.send(head(5, more=f"X: {'y' * 200_000}\r\n"), b"12345"),
        "wrong type": lambda: client.detect(b"<html></html>", "text/html"),
        "endless body": lambda: client.send(head(10**9), *[bytes(100_000)] * 300),
    }


async def hostile(picture: bytes, count: int, at_once: int, options: list[str]) -> dict[str, Any]:
    outcomes: dict[str, Counter[str]] = {}

    async def attack(client: Client) -> None:
        kinds = strangers(client, picture)
        order = [list(kinds)[number % len(kinds)] for number in range(count)]
        random.Random(0).shuffle(order)
        places = asyncio.Semaphore(at_once)

        async def one(kind: str) -> None:
            async with places:
                outcomes.setdefault(kind, Counter())[await kinds[kind]()] += 1

        await asyncio.gather(*map(one, order))

    async with served(options) as (client, memory):
        idle = await good(client, picture, None)
        attacking = asyncio.create_task(attack(client))
        beside = await good(client, picture, attacking)
        await attacking
    fine = all(status == CLOSED or status.startswith("4") for counts in outcomes.values() for status in counts)
    return {
        "sent": sum(counts.total() for counts in outcomes.values()),
        "all_4xx_or_closed": fine,
        "outcomes": {kind: dict(counts) for kind, counts in sorted(outcomes.items())},
        "good_idle_ms": summary(idle),
        "good_beside_ms": summary(beside),
        "good_answers_beside": len(beside),
        "ratio_of_medians": round(median(beside) / median(idle), 2),
        "memory_mb": megabytes(memory.readings),
    }


async def good(client: Client, picture: bytes, until: asyncio.Task[None] | None, times: int = 50) -> list[float]:
    """Latencies of one client that asks again as soon as it is answered."""
    latencies: list[float] = []
    while len(latencies) < times if until is None else not until.done():
        start = time.perf_counter()
        status = await client.detect(picture)
        if status != "200":
            raise SystemExit(f"the good client got {status}")
        latencies.append(time.perf_counter() - start)
    return latencies


# ------------------------------------------------------------------ workers

ROUNDS = 3


async def compare_workers(
    picture: bytes, counts: list[int], clients: int, seconds: float, options: list[str]
) -> list[dict[str, Any]]:
    """Answers a second with each number of workers: the median of the rounds, and all latencies together."""
    rates: dict[int, list[float]] = {count: [] for count in counts}
    latencies: dict[int, list[float]] = {count: [] for count in counts}
    largest = dict.fromkeys(counts, 0)
    cpu_ms = dict.fromkeys(counts, 0.0)
    for _ in range(ROUNDS):
        for count in counts:  # in turn, so that what else the machine does hits all of them
            async with served(["--workers", str(count), *options]) as (client, memory):
                await client.detect(picture)
                before = await metric(client.port, "process_cpu_seconds_total")

                async def ask(client: Client = client) -> list[float]:
                    return await good(client, picture, asyncio.create_task(asyncio.sleep(seconds)))

                answered = [s for one in await asyncio.gather(*(ask() for _ in range(clients))) for s in one]
                used = await metric(client.port, "process_cpu_seconds_total") - before
                cpu_ms[count] = 1000 * used / len(answered)
                rates[count].append(len(answered) / seconds)
                latencies[count] += answered
                largest[count] = max(largest[count], *memory.readings)
    return [
        {
            "workers": count,
            "answered_per_s": round(median(rates[count]), 1),
            "of_each_round": [round(rate, 1) for rate in rates[count]],
            "answered_ms": summary(latencies[count]),
            "processor_ms_of_the_listening_process": round(cpu_ms[count], 1),
            "memory_mb": round(largest[count] / 1e6, 1),
        }
        for count in counts
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("load", "hostile", "workers"))
    parser.add_argument("--picture", type=Path, default=WEIGHTS / "demo.jpg")
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--count", type=int, default=1000, help="hostile requests")
    parser.add_argument("--at-once", type=int, default=16, help="hostile requests; slow ones stay for a time-out")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clients", type=int, default=8, help="of workers, each with one request at a time")
    parser.add_argument("--options", default="", help="of squeezedet serve, in one text")
    given = parser.parse_args()
    picture, options = given.picture.read_bytes(), shlex.split(given.options)
    result: Any
    if given.what == "load":
        result = asyncio.run(load(picture, given.rate, given.seconds, options))
    elif given.what == "workers":
        result = asyncio.run(compare_workers(picture, given.workers, given.clients, given.seconds, options))
    else:
        result = asyncio.run(hostile(picture, given.count, given.at_once, options))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
