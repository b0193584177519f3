"""What an alarm does: a command, a webhook, a snapshot, a clip. None of them holds up a frame."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from queue import Full, Queue
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from PIL import Image

from squeezedet.drawing import encode_picture
from squeezedet.errors import SqueezeDetError
from squeezedet.files import write_atomic
from squeezedet.media.images import read_image
from squeezedet.media.video import VideoFile
from squeezedet.text import counted
from squeezedet.watch.config import WatchConfig
from squeezedet.watch.counting import Event

WAITING = 100
"""So many commands, snapshots and frames of clips wait at most; further ones are left out."""
COMMAND_S = 60.0
ANSWER_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
CLIP_QUALITY = 85
END_S = 2.0
"""How long the end waits for commands and webhooks that are under way."""
FILES_END_S = 30.0
"""How long it waits for snapshots and clips."""

Warn = Callable[[str], object]


class Background:
    """Calls functions in one thread, in order; when too many wait, new ones are left out with a sentence.

    ``lost`` says whether one was left out or failed.
    """

    def __init__(self, warn: Warn, what: str) -> None:
        self._warn, self._what = warn, what
        self.lost = False
        self._waiting: Queue[Callable[[], object] | None] = Queue(WAITING)
        self._full = False
        self._thread = threading.Thread(target=self._run, name="alarms", daemon=True)
        self._thread.start()

    def __call__(self, function: Callable[..., object], *arguments: object) -> None:
        """Have it called."""
        try:
            self._waiting.put_nowait(partial(function, *arguments))
            self._full = False
        except Full:
            if not self._full:
                self._warn(f"{WAITING} {self._what} wait; further ones are left out")
            self._full = self.lost = True

    def close(self, end_s: float) -> None:
        """Wait so long for what is under way."""
        end = time.monotonic() + end_s
        with suppress(Full):
            self._waiting.put(None, timeout=end_s)
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive():
            left = sum(function is not None for function in self._waiting.queue) + 1
            self._warn(f"{self._what}: {left} not done at the end")
            self.lost = True

    def _run(self) -> None:
        while (function := self._waiting.get()) is not None:
            try:
                function()
            except Exception as error:  # whatever it is, the next ones are called
                self.lost = True
                self._warn(str(error) or type(error).__name__)


# ----------------------------------------------------------------- commands and snapshots


def filled(arguments: Sequence[str], record: Mapping[str, Any]) -> list[str]:
    """The arguments with ``{camera}``, ``{event}``, ... filled in; other braces stay."""
    names = ("camera", "event", "place", "class", "direction", "count", "seconds", "track_id", "snapshot")
    values = {name: str(record.get(name, "")) for name in names}
    values["time"] = str(record.get("wall_time", record.get("time_s", "")))
    filled_in = (re.sub(r"{(\w+)}", lambda found: values.get(found[1], found[0]), text) for text in arguments[1:])
    return [arguments[0], *filled_in]


def run_command(arguments: Sequence[str], name: str) -> None:
    """Run a command without a shell; a SqueezeDetError if it fails, or takes longer than a minute."""
    try:
        done = subprocess.run(  # noqa: S603 - the user's own command, and no shell
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=COMMAND_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SqueezeDetError(f"event {name!r}: {arguments[0]} was ended after {COMMAND_S:g} seconds") from error
    except OSError as error:
        raise SqueezeDetError(f"event {name!r}: {arguments[0]} cannot be started ({error.strerror})") from error
    if done.returncode:
        raise SqueezeDetError(f"event {name!r}: {arguments[0]} ended with {done.returncode}")


def snapshot_path(folder: Path, event: Event, suffix: str = ".jpg") -> Path:
    """``CAMERA-EVENT-TIME.jpg``; the time is the clock's, or seconds of the video."""
    moment = f"{event.wall_time:%Y%m%dT%H%M%S%f}" if event.wall_time else f"{event.time_s:010.3f}s"
    return folder / f"{event.camera}-{event.rule}-{moment}{suffix}".replace(" ", "_")


# ----------------------------------------------------------------- clips


class Clips:
    """Keeps the last seconds of one camera as JPEG pictures, and writes those around an alarm as a video.

    An alarm that comes meanwhile makes the clip longer. One that cannot be written is an error, and is given up.
    """

    def __init__(self, before_s: float, after_s: float) -> None:
        self._before_s, self._after_s = before_s, after_s
        self._kept: deque[tuple[float, bytes]] = deque()
        self._file: VideoFile | None = None
        self._stack = ExitStack()
        self._until_s = self._start_s = 0.0

    def add(self, picture: Image.Image, time_s: float, alarm: Path | None) -> None:
        """The next picture; ``alarm`` names the clip that begins, if one does."""
        while self._kept and self._kept[0][0] < time_s - self._before_s:
            self._kept.popleft()
        try:
            if alarm is not None:
                self._until_s = time_s + self._after_s
                if self._file is None:
                    self._begin(alarm, time_s)
            if self._file is not None:
                self._file.write(picture, time_s - self._start_s)
                if time_s >= self._until_s:
                    self.close()
        except BaseException:
            with suppress(SqueezeDetError, OSError):
                self.close()
            raise
        finally:
            self._kept.append((time_s, encode_picture(picture, quality=CLIP_QUALITY)))

    def close(self) -> None:
        """End the clip that is being written."""
        self._file = None
        self._stack.close()

    def _begin(self, path: Path, time_s: float) -> None:
        self._file = self._stack.enter_context(VideoFile(path))
        self._start_s = self._kept[0][0] if self._kept else time_s
        for moment_s, content in self._kept:
            self._file.write(Image.fromarray(read_image(content, "clip").pixels), moment_s - self._start_s)


# ----------------------------------------------------------------- webhooks


def signature(key: str, body: bytes) -> str:
    """The header ``X-Squeezedet-Signature``: ``sha256=`` and the HMAC-SHA256 of the body."""
    return "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows 307 and 308 to the same scheme, host and port, and nothing else."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if code not in (307, 308) or (old.scheme, old.netloc) != (new.scheme, new.netloc):
            return None
        return urllib.request.Request(newurl, req.data, dict(req.header_items()), method="POST")  # noqa: S310


def post(address: str, body: bytes, key: str = "") -> None:
    """Send JSON; a SqueezeDetError names the host only, as the path of a webhook is a secret."""
    parts = urlsplit(address)
    host = parts.hostname
    user, at, place = parts.netloc.rpartition("@")
    address = urlunsplit(parts._replace(netloc=place))
    headers = {"Content-Type": "application/json", "User-Agent": "squeezedet"}
    if at:
        headers["Authorization"] = "Basic " + base64.b64encode(unquote(user).encode()).decode()
    if key:
        headers["X-Squeezedet-Signature"] = signature(key, body)
    try:
        request = urllib.request.Request(address, body, headers, method="POST")  # noqa: S310 - checked by Rule
        with urllib.request.build_opener(_SameHost).open(request, timeout=ANSWER_S):
            return
    except urllib.error.HTTPError as error:
        error.close()
        what = "redirects elsewhere, which is not followed" if 300 <= error.code < 400 else f"answers {error.code}"
        raise SqueezeDetError(f"webhook {host}: {what}") from None
    except TimeoutError:
        raise SqueezeDetError(f"webhook {host}: no answer within {ANSWER_S:g} seconds") from None
    except Exception as error:  # what urllib raises of broken servers is open, and may name the path
        reason = getattr(error, "reason", error) if isinstance(error, OSError) else type(error).__name__
        raise SqueezeDetError(f"webhook {host}: cannot be reached ({reason})") from None


class Outbox:
    """Events on their way to webhooks, kept in a file until they have arrived; a thread for each address.

    What an earlier run left in the SQLite file is sent, too; what is for other addresses stays there, with a sentence.
    Beyond ``limit`` the oldest events go, with a sentence.
    """

    def __init__(self, path: Path, limit: int, key: str, addresses: set[str], warn: Warn) -> None:
        self._path, self._limit, self._key, self._warn = path, limit, key, warn
        self._addresses = tuple(addresses)
        self._ours = f"address IN ({', '.join('?' * len(addresses))})"
        self._stopped = self._full = False
        self._changed = threading.Condition()
        try:
            self._database = sqlite3.connect(path, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")  # a frame does not wait for the disk
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, address TEXT, body BLOB)"
            )
            others = f"SELECT count(*) FROM outbox WHERE NOT {self._ours}"  # noqa: S608 - question marks
            (left,) = self._database.execute(others, self._addresses).fetchone()
        except sqlite3.Error as error:
            raise SqueezeDetError(f"{path}: cannot be used as the webhooks' queue ({error})") from error
        if left:
            warn(f"{path}: {counted(left, 'event')} for webhooks that no rule here has; they stay in the file")
        self._threads = [
            threading.Thread(target=self._send, args=(address,), name="webhook", daemon=True) for address in addresses
        ]
        for thread in self._threads:
            thread.start()

    def put(self, address: str, record: Mapping[str, Any]) -> None:
        """Keep an event until it has arrived."""
        body = json.dumps(record, ensure_ascii=False).encode()
        with self._changed:
            try:
                with self._database:
                    self._database.execute("INSERT INTO outbox (address, body) VALUES (?, ?)", (address, body))
                    gone = self._database.execute(
                        "DELETE FROM outbox WHERE id <= (SELECT id FROM outbox ORDER BY id DESC LIMIT 1 OFFSET ?)",
                        (self._limit,),
                    ).rowcount
            except sqlite3.Error as error:
                if not self._full:
                    self._warn(f"{self._path}: {error}; events are not sent to webhooks")
                self._full = True
                return
            self._full = False
            self._changed.notify_all()
        if gone:
            self._warn(f"{self._path}: more than {self._limit} events wait for webhooks; the oldest was dropped")

    def close(self) -> None:
        """Stop sending; what has not arrived stays in the file."""
        end = time.monotonic() + END_S
        with self._changed:
            while time.monotonic() < end and self._waits() and any(t.is_alive() for t in self._threads):
                self._changed.wait(0.05)
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(END_S / 10)
        with self._changed:
            self._database.close()

    def _waits(self) -> bool:
        """Whether an event waits for one of our addresses."""
        ours = f"SELECT 1 FROM outbox WHERE {self._ours}"  # noqa: S608 - question marks
        return self._database.execute(ours, self._addresses).fetchone() is not None

    def _next(self, address: str) -> tuple[int, bytes] | None:
        row = self._database.execute(
            "SELECT id, body FROM outbox WHERE address = ? ORDER BY id LIMIT 1", (address,)
        ).fetchone()
        return None if row is None else (row[0], row[1])

    def _send(self, address: str) -> None:
        failures = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._next(address))
                entry = None if self._stopped else self._next(address)
            if entry is None:
                return
            try:
                post(address, entry[1], self._key)
                self._drop(entry[0])
            except SqueezeDetError as error:
                if not failures:
                    self._warn(f"{error}; events wait in {self._path} and are sent again")
                failures += 1
                self._pause(min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20), LONGEST_PAUSE_S))
                continue
            if failures:
                self._warn(f"webhook {urlsplit(address).hostname}: answers again")
            failures = 0

    def _drop(self, number: int) -> None:
        """Forget an event that has arrived."""
        with self._changed:
            if self._stopped:
                return
            try:
                with self._database:
                    self._database.execute("DELETE FROM outbox WHERE id = ?", (number,))
            except sqlite3.Error as error:
                raise SqueezeDetError(f"{self._path}: {error}") from error
            self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, seconds)


class Actions:
    """Does what the rules of a configuration ask for; ``key`` is that of the webhooks' signatures."""

    def __init__(self, config: WatchConfig, key: str, warn: Warn) -> None:
        self._folder = config.folder
        rules = [rule for camera in config.cameras for rule in camera.events]
        self._rules = {(camera.name, rule.name): rule for camera in config.cameras for rule in camera.events}
        self._files = Background(warn, "snapshots and frames of clips")
        self._commands = Background(warn, "commands")
        self._clips = {
            camera.name: Clips(config.before_s, config.after_s)
            for camera in config.cameras
            if any(rule.clip for rule in camera.events)
        }
        addresses = {rule.webhook for rule in rules if rule.webhook}
        self._outbox = Outbox(config.queue, config.queue_limit, key, addresses, warn) if addresses else None

    def fire(self, events: Sequence[Event], camera: str, picture: Callable[[], Image.Image], time_s: float) -> None:
        """The alarms of a frame, of which ``picture`` draws the boxes; also to be called without alarms."""
        clip: Path | None = None
        for event in events:
            rule = self._rules.get((event.camera, event.rule))
            if rule is None:
                continue
            record = event.to_dict()
            if rule.snapshot:
                path = snapshot_path(self._folder, event)
                record["snapshot"] = str(path)
                self._files(write_atomic, path, encode_picture(picture()))
            if rule.clip:
                clip = clip or snapshot_path(self._folder, event, ".mp4")
                record["clip"] = str(clip)
            if rule.run:
                self._commands(run_command, filled(rule.run, record), rule.name)
            if rule.webhook and self._outbox:
                self._outbox.put(rule.webhook, record)
        if camera in self._clips:
            self._files(self._clips[camera].add, picture(), time_s, clip)

    @property
    def lost(self) -> bool:
        """Whether a command, a snapshot or a clip was left out or failed."""
        return self._files.lost or self._commands.lost

    def close(self) -> None:
        """Finish what is under way, within some seconds."""
        for clips in self._clips.values():
            self._files(clips.close)
        self._files.close(FILES_END_S)
        self._commands.close(END_S)
        if self._outbox:
            self._outbox.close()
