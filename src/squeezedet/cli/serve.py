"""``squeezedet serve``: the model behind HTTP, and a page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from squeezedet.cli import options
from squeezedet.cli.options import say

if TYPE_CHECKING:
    from squeezedet.watch.config import WatchConfig

STUCK_S = 5.0
"""A worker that needs longer for an image, and half of the time-out, is replaced."""


def serve(
    *,
    model: options.GivenModel = None,
    model_dir: options.ModelDir = None,
    engine: options.Engine = None,
    host: Annotated[str, Option(metavar="ADDRESS", help="Any but a loopback address needs --token.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    token: Annotated[Path | None, Option(metavar="FILE", help="Clients must show the token in this file.")] = None,
    allow_host: Annotated[list[str] | None, Option(metavar="NAME", help="Further names of this server.")] = None,
    tls_cert: Annotated[Path | None, Option(metavar="FILE", help="Certificate chain (PEM), for https.")] = None,
    tls_key: Annotated[Path | None, Option(metavar="FILE", help="The certificate's key (PEM).")] = None,
    source: Annotated[
        list[str] | None,
        Option(metavar="SOURCE", help="A camera, address or video that the page shows; may be repeated."),
    ] = None,
    watch_config: Annotated[
        Path | None,
        Option(metavar="FILE", help="Cameras, lines and zones, as for watch; the page writes what is drawn to it."),
    ] = None,
    workers: Annotated[int, Option(min=1, max=256, help="Processes that run the network and share the cores.")] = 1,
    queue: Annotated[
        int | None,
        Option(min=1, max=1000, help="Requests inside at once; one more gets a 503 [default: 16, 4 a worker if more]."),
    ] = None,
    timeout: Annotated[float, Option(min=0.1, max=600, help="Seconds for a body, and for its answer.")] = 10.0,
    max_pixels: Annotated[int | None, Option(min=1, help="Refuse larger images [default: 25 million].")] = None,
    max_bytes: Annotated[int | None, Option(min=1, help="Refuse larger bodies [default: 20 million].")] = None,
    threads: options.Threads = None,
    trust_model: options.TrustModel = False,
    require_signature: options.RequireSignature = None,
) -> None:
    """Answer over HTTP: a page, POST /detect, a WebSocket, and the Open Inference Protocol.

    Listens on this machine only unless --host says otherwise. Stops on Ctrl-C or SIGTERM, after
    the requests that it accepted are answered.

    Examples:
      squeezedet serve
      squeezedet serve --model street.bundle --port 8080
      squeezedet serve --host 0.0.0.0 --token /etc/squeezedet/token
      squeezedet serve --source rtsp://me:secret@camera/ --watch-config watch.toml
      squeezedet serve --allow-host camera.local --tls-cert chain.pem --tls-key key.pem
      curl -s --data-binary @street.jpg http://127.0.0.1:8000/detect
    """
    import websockets  # noqa: F401 - without it uvicorn would start, and answer no WebSocket

    from squeezedet.serving.app import Server, listen, url
    from squeezedet.serving.cameras import Cameras
    from squeezedet.serving.guard import MAX_BYTES, MAX_PIXELS, ServerConfig, read_token
    from squeezedet.serving.workers import Workers, share_of_cores

    config = ServerConfig(
        host=host,
        port=port,
        token=read_token(token) if token else None,
        allow_hosts=tuple(allow_host or ()),
        tls_cert=tls_cert,
        tls_key=tls_key,
        queue=queue or max(16, 4 * workers),
        timeout_s=timeout,
        max_pixels=max_pixels or MAX_PIXELS,
        max_bytes=max_bytes or MAX_BYTES,
    )
    watched = _watched(source or [], watch_config)
    if watched and watched.model and model is None:
        model = watched.model
    if workers > 1:
        threads = threads or share_of_cores(workers)
    detector = options.open_detector(
        model, model_dir, engine=engine, threads=threads, trust_model=trust_model, require_signature=require_signature
    )
    processes = Workers(detector, workers, max(STUCK_S, timeout / 2)) if workers > 1 else None
    with listen(config) as listening, ExitStack() as stack:
        cameras = stack.enter_context(Cameras(detector, watched, watch_config, say)) if watched else None
        print(f"{detector.card.name} at {url(config, listening)} (Ctrl-C stops)", flush=True)
        try:
            Server(detector, config, cameras, processes).run([listening])
        except KeyboardInterrupt:  # uvicorn raises the signal again when all is answered
            print("stopped", flush=True)


def _watched(sources: Sequence[str], path: Path | None) -> WatchConfig | None:
    """The cameras of a file, and those of the sources that it does not have; None if there are none."""
    from squeezedet.watch.config import WatchConfig, cameras_of, read_config

    if path is None or (sources and not path.exists()):
        return WatchConfig(cameras=tuple(cameras_of(sources))) if sources else None
    watched = read_config(path)
    new = [source for source in sources if source not in {camera.source for camera in watched.cameras}]
    return replace(watched, cameras=(*watched.cameras, *cameras_of(new, beside=watched.cameras)))
