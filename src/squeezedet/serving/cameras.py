"""The machine's own cameras: one thread a source detects and counts, and any number of viewers see the newest picture.

A viewer asks on ``/stream`` with ``{"seen": {"gate": 17, "yard": -1}}``: the number of the picture that it has of each
camera. The answer is one binary message, the newest picture of the first camera in the list that has another: a length
(big-endian, 4 bytes), JSON, a JPEG. Who asks late has missed pictures, and holds nobody up.
"""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Query, Request
from PIL import Image
from pydantic import BaseModel, Field

from squeezedet.detections import Detections
from squeezedet.drawing import encode_picture
from squeezedet.errors import DataError, SqueezeDetError, UsageError
from squeezedet.media.images import Frame, FrameTime
from squeezedet.media.kinds import without_password
from squeezedet.media.sources import Failure, frames, locate
from squeezedet.media.video import Reconnect, need_av
from squeezedet.runtime.detector import Detector
from squeezedet.serving.guard import Bodies
from squeezedet.serving.problems import Metrics, ProblemError, documented
from squeezedet.watch.config import Camera, WatchConfig, save_places, with_places
from squeezedet.watch.counting import Event, Scene, recent_minutes
from squeezedet.watch.run import FPS, Watch

SHOWN_PX = 1280
"""Viewers get larger pictures in this size."""
QUALITY = 80
KEPT_EVENTS = 50
TOLD = ("crossed", "entered", "left", "alarm")
MINUTES = 24 * 60
"""Of counts that are kept."""
AGAIN_S = 10.0
"""After so long a source that was given up is opened anew."""
BEHIND_S = 1.0
"""A video that is so late goes on from where it is."""
ANSWER_S = 10.0
"""A viewer gets an empty answer if there is no news for so long."""
END_S = 2.0
LENGTH = struct.Struct("!I")
MAX_BODY_BYTES = 20_000
MAX_SENTENCE = 300

Say = Callable[[str], None]


class _Picture:
    """A frame that is encoded once, and only for a viewer."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self._lock = threading.Lock()
        self._jpeg = b""

    def jpeg(self) -> bytes:
        with self._lock:
            if not self._jpeg:
                picture = Image.fromarray(self.frame.pixels)
                picture.thumbnail((SHOWN_PX, SHOWN_PX), Image.Resampling.BILINEAR)
                self._jpeg = encode_picture(picture, quality=QUALITY)
            return self._jpeg


class _View:
    """A camera as viewers see it.

    Attributes:
        number: grows with every picture and every change of what is said.
        state: ``waiting``, ``live`` or ``away``; ``said`` why.
        version: of lines and zones.
        minutes: minute of the clock -> how often each direction was crossed and each zone entered.
    """

    def __init__(self) -> None:
        self.number = self.version = 0
        self.state, self.said = "waiting", ""
        self.picture: _Picture | None = None
        self.record: dict[str, Any] | None = None
        self.places: dict[str, list[dict[str, Any]]] = {"lines": [], "zones": []}
        self.events: deque[tuple[int, dict[str, Any]]] = deque(maxlen=KEPT_EVENTS)
        self.minutes: dict[int, Counter[str]] = {}

    def count(self, events: list[Event]) -> None:
        minute = int(time.time() // 60)
        if minute not in self.minutes:
            kept = {one: counts for one, counts in self.minutes.items() if one > minute - MINUTES}
            self.minutes = kept | {minute: Counter()}
        self.minutes[minute].update(_series(e.place, e.direction) for e in events if e.kind in ("crossed", "entered"))


def _series(place: str, direction: str) -> str:
    return f"{place} {direction or 'entered'}"


class Cameras:
    """Watches cameras beside the server; use it as a context, and start it within the server's loop.

    A video file is played at its own speed, again and again.

    Args:
        detector: finds the boxes, for all cameras.
        config: what to watch.
        path: where lines and zones that viewers draw are written; None lets nobody draw.
        say: takes a sentence about what goes wrong.

    Raises:
        MissingExtraError: PyAV is not installed.
        UsageError: a file of records cannot have its name, or the model has no such class.
    """

    def __init__(self, detector: Detector, config: WatchConfig, path: Path | None, say: Say) -> None:
        need_av()
        self.path, self._config, self._say = path, config, say
        self._watch = Watch(config, detector, say, say)
        self._watch.followers.append(self._follow)
        self._views = [_View() for _ in config.cameras]
        self._index = {camera.name: index for index, camera in enumerate(config.cameras)}
        self._lock = threading.Lock()  # of the views; never held for long, as the server's loop takes it
        self._saving = threading.Lock()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._metrics: Metrics | None = None
        self._changed = asyncio.Event()  # replaced whenever it is set
        for view, scene in zip(self._views, self._watch.scenes, strict=True):
            view.places = _places(scene)

    def __enter__(self) -> Self:
        self._watch.__enter__()
        if self._config.sqlite:
            self._remember(self._config.sqlite)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._watch.lock:  # a thread that was left behind may be at work
            self._watch.__exit__(kind, error, at)

    def _remember(self, path: Path) -> None:
        """Counts of an earlier run, as far as its records have them."""
        since = datetime.now().astimezone() - timedelta(minutes=MINUTES)
        for name, index in self._index.items():
            for begun, place, direction, count in recent_minutes(path, name, since):
                counts = self._views[index].minutes.setdefault(int(begun.timestamp() // 60), Counter())
                counts[_series(place, direction)] += count

    @property
    def names(self) -> list[str]:
        """Of the cameras, in their order."""
        return list(self._index)

    def start(self, metrics: Metrics) -> None:
        """Open the sources; to be called in the server's loop."""
        self._loop, self._metrics = asyncio.get_running_loop(), metrics
        for index, name in enumerate(self._index):
            thread = threading.Thread(target=self._run, args=(index,), name=f"camera {name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def dismiss(self) -> None:
        """Answer every viewer; there will be no more pictures."""
        self._stopped.set()
        self._wake()

    def stop(self) -> None:
        """Let go of the sources; a thread that hangs in one is left behind."""
        self._stopped.set()
        end = time.monotonic() + END_S
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    # ------------------------------------------------------------------ sources

    def _run(self, index: int) -> None:
        try:
            for frame in self._frames(index):
                with self._watch.lock:
                    if self._stopped.is_set():
                        return
                    self._watch.frame(index, frame)
        except BaseException as error:
            self._away(index, str(error) if isinstance(error, SqueezeDetError) else "an error of the server itself")
            if not isinstance(error, SqueezeDetError):
                raise

    def _frames(self, index: int) -> Iterator[Frame]:
        """The frames of a camera for as long as the server lives, their times in one order."""
        camera = self._config.cameras[index]
        reconnect = Reconnect(
            say=lambda sentence: self._away(index, sentence),
            attempts=self._config.reconnect,
            stall_s=self._config.stall_s,
            patient=True,
        )
        base = last = None
        start_s = seen_s = time.monotonic()
        away_s = 0.0
        while not self._stopped.is_set():
            count, failed = 0, False
            with closing(frames(locate([camera.source], live=camera.live), reconnect=reconnect)) as items:
                for item in items:
                    if isinstance(item, Failure):
                        self._away(index, f"{item.error}; opened again in {AGAIN_S:g} s")
                        failed = True
                        continue
                    moment = item.moment or FrameTime(count / FPS, count)
                    if last and moment.first:  # opened again, or the next of several videos
                        base, away_s = last, max(time.monotonic() - seen_s, 1 / FPS)
                    last = moment.after(base, away_s) if base else moment
                    if last.wall_time is None:
                        start_s = self._keep_time(start_s, last.time_s)
                    yield replace(item, moment=last)
                    seen_s, count = time.monotonic(), count + 1
            if failed or not count:
                self._stopped.wait(AGAIN_S)

    def _keep_time(self, start_s: float, time_s: float) -> float:
        """Wait until a frame is due; when the first one was, by the clock that ``time_s`` is of."""
        wait_s = start_s + time_s - time.monotonic()
        if wait_s < -BEHIND_S:
            return time.monotonic() - time_s
        self._stopped.wait(max(0.0, wait_s))
        return start_s

    # ------------------------------------------------------------------ what viewers see

    def _follow(self, index: int, frame: Frame, detections: Detections, events: list[Event]) -> None:
        scene, view = self._watch.scenes[index], self._views[index]
        record = detections.to_dict() | {"image": scene.camera.name}
        said = ""
        try:
            scene.camera.check_size(frame)
        except DataError as error:
            said = str(error)
        with self._lock:
            view.number += 1
            view.state, view.said = "live", said
            view.picture, view.record, view.places = _Picture(frame), record, _places(scene)
            view.events += [(view.number, event.to_dict()) for event in events if event.kind in TOLD]
            view.count(events)
        if self._metrics:
            self._metrics.camera_frames.labels(scene.camera.name).inc()
            self._metrics.camera_live.labels(scene.camera.name).set(1)
        self._tell()

    def _away(self, index: int, sentence: str) -> None:
        """Say why there are no pictures: on the page without address and path."""
        if self._stopped.is_set():
            return
        camera, view = self._config.cameras[index], self._views[index]
        shown = without_password(camera.source)
        with self._lock:
            view.number += 1
            view.state, view.said = "away", sentence.removeprefix(f"{shown}: ").replace(shown, camera.name)
        self._say(f"camera {camera.name!r}: {sentence}")
        if self._metrics:
            self._metrics.camera_live.labels(camera.name).set(0)
        self._tell()

    def _tell(self) -> None:
        if self._loop and not self._stopped.is_set():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def next(self, seen: Mapping[str, int]) -> bytes:
        """The newest picture of the first of these cameras of which another was seen; b"" if there is none for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                while not self._stopped.is_set():
                    changed = self._changed
                    for name, number in seen.items():
                        if self._views[self._index[name]].number != number:
                            return await self._message(name, number)
                    await changed.wait()
        return b""

    async def _message(self, name: str, seen: int) -> bytes:
        view = self._views[self._index[name]]
        with self._lock:
            picture = view.picture
            header = {
                "camera": name,
                **{key: getattr(view, key) for key in ("number", "state", "said", "version", "record")},
                **view.places,
                "events": [event for number, event in view.events if number > seen],
            }
        text = json.dumps(header, ensure_ascii=False).encode()
        return LENGTH.pack(len(text)) + text + (await asyncio.to_thread(picture.jpeg) if picture else b"")

    def history(self, name: str, minutes: int, count: int) -> dict[str, Any]:
        """Counts of each direction and zone, in ``count`` steps of so many minutes of which the last is the present."""
        view = self._views[self._index[name]]
        with self._lock:
            names = [_series(line["name"], way) for line in view.places["lines"] for way in line["directions"]]
            names += [_series(zone["name"], "") for zone in view.places["zones"]]
            first = int(time.time() // 60) // minutes - count + 1
            series = {one: [0] * count for one in names}
            for minute, counts in view.minutes.items():
                step = minute // minutes - first
                for one in counts.keys() & series.keys() if 0 <= step < count else ():
                    series[one][step] += counts[one]
        return {"begin_s": first * minutes * 60, "step_s": minutes * 60, "series": series}

    # ------------------------------------------------------------------ lines and zones

    def save(self, name: str, values: Mapping[str, Any]) -> int:
        """Write lines and zones that a viewer drew, and watch them; the new version.

        ``values`` holds ``lines`` and ``zones`` as the file does, and the ``version`` that they were drawn from.

        Raises:
            ProblemError: nobody may draw, somebody else was faster, they make no sense, or the file cannot be written.
        """
        if self.path is None:
            sentence = "there is no file to save to: serve --watch-config FILE"
            raise ProblemError(403, sentence, "readonly")
        index = self._index[name]
        view = self._views[index]
        with self._saving:
            if values.get("version") != view.version:
                raise ProblemError(409, "somebody else changed the lines and zones of this camera", "conflict")
            try:
                camera = self._checked(index, {key: value for key, value in values.items() if key != "version"})
                save_places(self.path, camera, self._config.cameras)
            except SqueezeDetError as error:
                status = 422 if isinstance(error, UsageError | DataError) else 500
                sentence = str(error).replace(str(self.path), self.path.name)[:MAX_SENTENCE]
                raise ProblemError(status, sentence, "places") from error
            with self._watch.lock:
                self._watch.change(index, camera)
                places = _places(self._watch.scenes[index])
            with self._lock:
                view.version += 1
                view.number += 1
                view.places = places
        self._tell()
        return view.version

    def _checked(self, index: int, values: Mapping[str, Any]) -> Camera:
        camera = with_places(self._watch.scenes[index].camera, values)
        picture = self._views[index].picture
        if picture is None:
            raise UsageError("the camera has not given a picture to draw on")
        camera.check_size(picture.frame)
        return camera


def _places(scene: Scene) -> dict[str, list[dict[str, Any]]]:
    """Lines and zones with their numbers."""
    lines = []
    for line in scene.camera.lines:
        counts = dict.fromkeys(line.directions, 0)
        for (name, _, direction), count in scene.crossings.items():
            if name == line.name:
                counts[direction] += count
        one = {"name": line.name, "points": line.points, "directions": line.directions, "counts": counts}
        lines.append(one)
    zones = [
        {
            "name": zone.name,
            "points": zone.points,
            "inside": sum(scene.inside(zone.name).values()),
            "entered": sum(count for (name, _), count in scene.entries.items() if name == zone.name),
        }
        for zone in scene.camera.zones
    ]
    return {"lines": lines, "zones": zones}


# ------------------------------------------------------------------ routes

Span = Annotated[Literal["hour", "day"], Query(description="In minutes, or in hours.")]


class CameraList(BaseModel):
    """The cameras of the server."""

    names: list[str]
    editable: bool = Field(description="whether lines and zones can be saved")


class History(BaseModel):
    """Counts over time."""

    begin_s: float = Field(description="when the first step begins, in seconds since 1970")
    step_s: float
    series: dict[str, list[int]] = Field(
        description="for each direction of a line and each zone, the count of each step"
    )


def router(cameras: Cameras, bodies: Bodies) -> APIRouter:
    routes = APIRouter()

    def known(name: str) -> str:
        if name not in cameras.names:
            raise ProblemError(404, "there is no camera of this name; /cameras lists them", "missing")
        return name

    @routes.get("/cameras", summary="The cameras", responses=documented(401, 403, 421))
    async def listed() -> CameraList:
        return CameraList(names=cameras.names, editable=cameras.path is not None)

    @routes.get(
        "/cameras/{name}/history", summary="Counts of a camera over time", responses=documented(401, 403, 404, 421, 422)
    )
    async def history(name: str, span: Span = "hour") -> History:
        steps = (1, 60) if span == "hour" else (60, 24)
        return History(**cameras.history(known(name), *steps))

    @routes.put(
        "/cameras/{name}/places",
        summary="Other lines and zones of a camera",
        responses=documented(400, 401, 403, 404, 408, 409, 413, 415, 421, 422, 500, 503),
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
        },
    )
    async def save(name: str, request: Request) -> dict[str, int]:
        """The body is JSON with ``lines`` and ``zones`` as the file has them, and their ``version``."""
        known(name)
        async with bodies.read(request) as body:
            if len(body) > MAX_BODY_BYTES:
                raise ProblemError(413, f"lines and zones have at most {MAX_BODY_BYTES} bytes", "bytes")
            try:
                values = json.loads(body)
            except (ValueError, RecursionError) as error:
                raise ProblemError(400, "the body is no JSON", "malformed") from error
            if not isinstance(values, dict):
                raise ProblemError(400, "the JSON must be an object", "malformed")
            return {"version": await asyncio.to_thread(cameras.save, name, values)}

    return routes
