"""Listen, serve, and stop without dropping what was accepted."""

from __future__ import annotations

import math
import socket
from asyncio import Protocol
from functools import partial
from typing import cast

import uvicorn

from squeezedet.errors import SqueezeDetError
from squeezedet.serving.app import Service
from squeezedet.serving.config import ServerConfig
from squeezedet.serving.connections import MAX_HEAD_BYTES, Connection

BACKLOG = 256
STOP_SLACK_S = 5.0


class Server(uvicorn.Server):
    """uvicorn's server, which lets the streams send the answers that they owe."""

    def __init__(self, service: Service, config: ServerConfig) -> None:
        # Reading a body and answering it may each take the whole time-out.
        longest = math.ceil(2 * config.timeout_s + STOP_SLACK_S)
        refused = service.metrics.rejects.labels("connections").inc
        super().__init__(
            uvicorn.Config(
                service.app,
                loop="asyncio",
                http=cast(type[Protocol], partial(Connection, refused=refused)),
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                ws="websockets-sansio",
                ws_max_size=config.max_bytes,
                ws_per_message_deflate=False,  # a small message must not become a huge one
                backlog=BACKLOG,
                timeout_graceful_shutdown=longest,
                proxy_headers=False,
                server_header=False,
                access_log=False,
                log_config=None,
                log_level="error",
            )
        )
        self._streams = service.streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, finish every request and every stream's answer, and end."""
        for server in self.servers:
            server.close()
        await self._streams.stop()
        await super().shutdown(sockets)


def listen(config: ServerConfig) -> socket.socket:
    """A socket that listens.

    Raises:
        SqueezeDetError: the address cannot be had.
    """
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise SqueezeDetError(
            f"cannot listen at {config.host} port {config.port} ({error.strerror or error})"
        ) from error


def url(config: ServerConfig, listening: socket.socket) -> str:
    """The address for a browser."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"http://{host}:{listening.getsockname()[1]}/"
