"""Ray: here with a few processes, or a cluster of machines. It is told to send nothing home and to keep quiet."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Generator, Sequence
from typing import Any

from squeezedet.errors import MissingExtraError, SqueezeDetError, UsageError
from squeezedet.text import counted

LOCAL, AUTO = "local", "auto"
WAIT_S = 5.0
STARTS = 3
"""Ray waits 30 seconds for its own processes; on a busy machine that can be too short."""
OBJECT_STORE_BYTES = 200_000_000
"""What a Ray that is started here keeps for passing on; images never pass through it."""


def check(address: str) -> None:
    """Find out before the work whether there is a Ray, and somebody at the address.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: the address is none.
        SqueezeDetError: nobody answers there.
    """
    _ray()
    if address in (LOCAL, AUTO):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"ray: {address!r} is neither local, nor auto, nor HOST:PORT")
    try:
        socket.create_connection((host, int(port)), WAIT_S).close()
    except (OSError, OverflowError) as error:
        raise SqueezeDetError(
            f"no Ray cluster answers at {address} ({getattr(error, 'strerror', None) or error})"
        ) from error


def run(
    address: str, worker: type[Any], arguments: Sequence[Any], parts: Sequence[int], workers: int | None, *, gpu: bool
) -> Generator[dict[str, Any], None, None]:
    """Have workers, each on a core or a GPU of its own, take one part after the other.

    Args:
        address: ``local``, ``auto`` or HOST:PORT.
        worker: takes ``{"part": number}``. One that dies is started anew, and gets its part again.
        arguments: of each worker.
        parts: their numbers.
        workers: how many; as many as there are cores or GPUs by default.
        gpu: each wants a GPU.

    Raises:
        UsageError: the cluster is too small.
        SqueezeDetError: the cluster cannot be joined, or falls apart.
    """
    if not parts:
        return
    ray = _ray()
    try:
        _join(ray, address, workers)
        kind = "GPU" if gpu else "CPU"
        there = int(ray.cluster_resources().get(kind, 0))
        if there < (workers or 1):
            raise UsageError(f"workers: {counted(workers or 1, 'worker')} want a {kind} each, and Ray has {there}")
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        rows = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
        done = rows.map(
            worker,
            fn_constructor_args=arguments,
            compute=ray.data.ActorPoolStrategy(size=min(workers or there, len(parts))),
            **({"num_gpus": 1} if gpu else {"num_cpus": 1}),
        )
        yield from done.iter_rows()
    except ray.exceptions.RayError as error:
        said = " ".join(str(error).split())
        raise SqueezeDetError(f"Ray gave up ({said:.300}); go on with `resume=True`") from error
    finally:
        ray.shutdown()


def _join(ray: Any, address: str, workers: int | None) -> None:
    """Start a Ray here, or join one."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options |= {"num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    attempts = STARTS if address == LOCAL else 1
    for attempt in range(attempts):
        try:
            ray.init(address=address, **options)
            return
        except Exception as error:  # Ray raises many kinds, also plain Exception
            ray.shutdown()
            if attempt == attempts - 1:
                said = " ".join(str(error).split())
                raise SqueezeDetError(f"no Ray at {address} ({said:.300}); go on with `resume=True`") from error


def _ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("`ray`", "fleet") from error
    return ray
