"""Watches several cameras in one process: frames in, records and actions out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from squeezedet.detections import Detections
from squeezedet.drawing import Marking, encode_picture
from squeezedet.errors import DataError, SqueezeDetError, UsageError
from squeezedet.files import make_folder, write_atomic
from squeezedet.media.images import Frame, FrameTime
from squeezedet.media.prefetch import BackgroundWriter, merge
from squeezedet.media.sinks import saving
from squeezedet.media.sources import Failure, MediaSource, frames, locate
from squeezedet.media.video import Reconnect
from squeezedet.watch.actions import Actions
from squeezedet.watch.config import Camera, WatchConfig
from squeezedet.watch.counting import Event, Records, Scene
from squeezedet.watch.mqtt import Publisher

if TYPE_CHECKING:
    from squeezedet.runtime.detector import Detector

FPS = 10.0
"""Pictures a second of a source that is pictures."""

Say = Callable[[str], None]
Sink = Callable[[Frame, Detections], object]
Item = tuple[int, Frame | Failure]
Follow = Callable[[int, Frame, Detections, list[Event]], object]


class Watch:
    """Counts and tells until the sources end; use it as a context.

    ``warn`` takes a sentence about what goes wrong, ``say`` one about what else is worth knowing.
    """

    def __init__(self, config: WatchConfig, detector: Detector, warn: Say, say: Say) -> None:
        from squeezedet.runtime.detector import FrameStream

        self._config, self._warn, self._say = config, warn, say
        self.scenes = [Scene(camera) for camera in config.cameras]  # lines, zones and counts of each camera
        self.states = ["waiting"] * len(self.scenes)  # of each camera in a word or a sentence
        self.frames = [0] * len(self.scenes)  # of each camera so far
        self.failures: list[int] = []  # exit codes of sources that failed, and of what could not be written
        self.sinks: list[list[Sink]] = [[] for _ in self.scenes]  # of each camera; take its frames with all drawn
        self.followers: list[Follow] = []  # take a camera's index, each frame as it came, its boxes and what happened
        self.lock = threading.RLock()  # is held while a frame is worked on
        self._streams = [
            FrameStream(detector, config.score, classes=camera.classes or None, track=True) for camera in config.cameras
        ]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        config = self._config
        with ExitStack() as stack:
            self._records = stack.enter_context(Records(config, self._warn))
            self._actions = Actions(config, _secret(config.secret_env), self._warn)
            stack.callback(self._actions.close)
            self._publisher = None
            if config.mqtt:
                password = _secret(config.mqtt.password_env)
                self._publisher = Publisher(config.mqtt, self.scenes, password, self._warn)
                stack.callback(self._publisher.close)
            if config.save:
                for camera, sinks in zip(config.cameras, self.sinks, strict=True):
                    target = make_folder(config.save) / f"{camera.name}.mp4"
                    save = stack.enter_context(saving(target, [MediaSource(camera.source, "video")], FPS, self._say))
                    sinks.append(stack.enter_context(BackgroundWriter(save)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        for scene in self.scenes:
            self._records.write(scene.end())
        self._stack.__exit__(*error)
        if self._records.lost or self._actions.lost:
            self.failures.append(SqueezeDetError.exit_code)

    def run(self, until: Callable[[Iterable[Item]], Iterable[Item]]) -> None:
        """Watch, to the end of all sources; ``until`` passes the items on, and may end them."""
        sources = [_frames(self._config, camera, self._warn) for camera in self._config.cameras]
        with closing(merge(sources, depth=1)) as items:
            for index, item in until(items):
                if isinstance(item, Failure):
                    self.failures.append(item.error.exit_code)
                    self.states[index] = "failed"
                    self._warn(f"camera {self._config.cameras[index].name!r}: {item.error}")
                else:
                    self.frame(index, item)

    def change(self, index: int, camera: Camera) -> None:
        """Watch other lines and zones of a camera from the next frame on; any thread may ask for it."""
        with self.lock:
            if self._publisher:
                self._publisher.change(self.scenes[index].camera, camera)
            self.scenes[index].change(camera)

    def frame(self, index: int, frame: Frame) -> None:
        """Detect, count and tell, in the next frame of a camera; threads take turns."""
        with self.lock:
            self._frame(index, frame)

    def _frame(self, index: int, frame: Frame) -> None:
        scene = self.scenes[index]
        for note in frame.notes:
            self._say(note)
        self.frames[index] += 1
        self.states[index] = "watching"
        detections = self._streams[index].detect(frame)
        events = scene.update(detections)
        if scene.clock_jump_s:
            self._warn(f"camera {scene.camera.name!r}: the clock was changed by {scene.clock_jump_s:+.0f} seconds")
        self._records.write(events)
        drawn = cache(lambda: detections.draw(frame.pixels, _markings(scene)))
        self._actions.fire(events, scene.camera.name, drawn, detections.time_s or 0.0)
        if self._publisher:
            self._publisher.update(scene, events)
        for follow in self.followers:
            follow(index, frame, detections, events)
        for sink in list(self.sinks[index]):
            try:
                sink(replace(frame, pixels=np.asarray(drawn())), Detections.empty(()))
            except SqueezeDetError as error:
                self.sinks[index].remove(sink)
                self.failures.append(error.exit_code)
                self._warn(f"camera {scene.camera.name!r}: {error}; not written further")

    def counts(self) -> list[tuple[str, ...]]:
        """Camera, line or zone, class, direction, how many so far, and how many are inside now."""
        rows: list[tuple[str, ...]] = []
        for scene in self.scenes:
            name = scene.camera.name
            rows += [
                (name, line, kind, way, str(count), "") for (line, kind, way), count in sorted(scene.crossings.items())
            ]
            rows += [
                (name, zone, kind, "entered", str(count), str(scene.inside(zone)[kind]))
                for (zone, kind), count in sorted(scene.entries.items())
            ]
        return rows


def check(config: WatchConfig, folder: Path) -> list[Path | SqueezeDetError]:
    """Write the first frame of each camera with its lines and zones, ``CAMERA.jpg``; or say why not."""
    made: list[Path | SqueezeDetError] = []
    for camera in config.cameras:
        with closing(frames(locate([camera.source], live=camera.live))) as items:
            first = next(items)
        if isinstance(first, Failure):
            made.append(first.error)
            continue
        path = make_folder(folder) / f"{camera.name}.jpg"
        write_atomic(path, encode_picture(Detections.empty(()).draw(first.pixels, _markings(Scene(camera)))))
        made.append(path)
        try:
            camera.check_size(first)
        except DataError as error:
            made.append(error)
    return made


def _frames(config: WatchConfig, camera: Camera, warn: Say) -> Generator[Frame | Failure, None, None]:
    """The frames of a camera, each with a time; only a failure if lines and zones do not fit in."""
    reconnect = Reconnect(
        say=lambda sentence: warn(f"camera {camera.name!r}: {sentence}"),
        attempts=config.reconnect,
        stall_s=config.stall_s,
        patient=True,
    )
    number = 0
    base = last = None
    with closing(frames(locate([camera.source], live=camera.live), reconnect=reconnect)) as items:
        for item in items:
            if isinstance(item, Failure):
                yield item
                continue
            try:
                if not number:
                    camera.check_size(item)
            except DataError as error:
                yield Failure(camera.name, error)
                return
            moment = item.moment or FrameTime(number / FPS, number)
            if last and moment.first:  # the next of several videos
                base = last
            last = moment.after(base, 1 / FPS) if base else moment
            yield replace(item, moment=last)
            number += 1


def _markings(scene: Scene) -> list[Marking]:
    """Lines and zones with their numbers, to be drawn."""
    camera = scene.camera
    found: list[Marking] = []
    for number, line in enumerate(camera.lines):
        ways = [
            f"{way} {sum(n for (name, _, to), n in scene.crossings.items() if (name, to) == (line.name, way))}"
            for way in line.directions
        ]
        found.append((tuple(line.points), f"{line.name}: {', '.join(ways)}", number + 3))
    for number, zone in enumerate(camera.zones, start=len(camera.lines)):
        found.append((zone.points, f"{zone.name}: {sum(scene.inside(zone.name).values())}", number + 3))
    return found


def _secret(variable: str) -> str:
    """What an environment variable holds; a UsageError if it is not set, or empty."""
    if variable and not os.environ.get(variable):
        raise UsageError(f"the environment variable {variable} is {'empty' if variable in os.environ else 'not set'}")
    return os.environ.get(variable, "") if variable else ""
