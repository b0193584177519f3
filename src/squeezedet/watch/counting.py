"""From tracked boxes to crossings, stays, counts and alarms of one camera, and the files that these are written to."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TextIO

from squeezedet.detections import Detection, Detections
from squeezedet.errors import SqueezeDetError, UsageError
from squeezedet.files import check_file, one_sentence
from squeezedet.watch.config import Camera, Point, Rule, WatchConfig, crosses, inside, side

FORGET_FRAMES = 31
"""A track that was not seen for so many frames has ended; the tracker gives up after 30."""
SETTLE_S = 0.5
"""Who leaves a zone for a shorter time has not left it: boxes tremble."""
CLOCK_JUMP_S = 5.0
"""A clock that goes on by so much more or less than the frames was changed."""
SPANS_S: Mapping[str, float] = MappingProxyType({"minute": 60.0, "hour": 3600.0, "total": inf})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, or was counted."""

    kind: str  # crossed, entered, left, alarm; or counts: minute, hour, total
    camera: str
    time_s: float  # since the first frame; of counts, when their minute or hour begins
    wall_time: datetime | None = None  # the same by the clock, of live sources
    place: str = ""  # name of the line or the zone
    class_name: str = ""
    direction: str = ""  # of a crossing
    track_id: int | None = None
    seconds: float | None = None  # how long it was inside, or nothing was seen
    count: int | None = None
    rule: str = ""  # name of the event that was asked for, of an alarm

    def to_dict(self) -> dict[str, Any]:
        """The record, without what it does not have."""
        record = {
            "kind": self.kind,
            "camera": self.camera,
            "wall_time": self.wall_time and self.wall_time.isoformat(),
            "time_s": round(self.time_s, 3),
            "event": self.rule,
            "place": self.place,
            "class": self.class_name,
            "direction": self.direction,
            "track_id": self.track_id,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "count": self.count,
        }
        return {key: value for key, value in record.items() if value not in (None, "")}


@dataclass(slots=True)
class _Track:
    class_name: str
    seen_s: float
    frame: int
    beside: dict[str, Point] = field(default_factory=dict)  # of each line: the last point that was not on it
    crossed: set[str] = field(default_factory=set)
    since_s: dict[str, float] = field(default_factory=dict)  # of each zone that it is in
    out_s: dict[str, float] = field(default_factory=dict)  # of these: since when it seems to be outside


class Scene:
    """Follows the tracks of one camera from frame to frame."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.crossings: Counter[tuple[str, str, str]] = Counter()  # so far of each line, class and direction
        self.entries: Counter[tuple[str, str]] = Counter()  # so far of each zone and class
        self._tracks: dict[int, _Track] = {}
        self._frame = 0
        self._alarms = [_Alarm(rule) for rule in camera.events]
        self._tally = _Tally(camera.name)

    @property
    def clock_jump_s(self) -> float:
        """By how much the clock was changed before the last frame; 0 for a few seconds."""
        return self._tally.jump_s

    def inside(self, zone: str, classes: tuple[str, ...] = ()) -> Counter[str]:
        """How many of each class are in a zone now."""
        return Counter(
            track.class_name
            for track in self._tracks.values()
            if zone in track.since_s and (not classes or track.class_name in classes)
        )

    def update(self, detections: Detections) -> list[Event]:
        """What happened up to this frame, which has a time and tracked boxes."""
        self._frame += 1
        now = Event(kind="", camera=self.camera.name, time_s=detections.time_s or 0.0, wall_time=detections.wall_time)
        events = [event for box in detections for event in self._move(box, now)]
        events += self._forget(now)
        counts = self._tally.add(events, now)
        for alarm in self._alarms:
            events += alarm.update(self, detections, events, now)
        return counts + events

    def end(self) -> list[Event]:
        """The last minute and hour, and the totals."""
        return self._tally.end()

    def change(self, camera: Camera) -> None:
        """Watch other lines and zones of the same picture; those that stay as they are keep what they counted."""
        lines = {line.name for line in self.camera.lines if line not in camera.lines}
        zones = {zone.name for zone in self.camera.zones if zone not in camera.zones}
        self.crossings = Counter({key: n for key, n in self.crossings.items() if key[0] not in lines})
        self.entries = Counter({key: n for key, n in self.entries.items() if key[0] not in zones})
        for track in self._tracks.values():
            track.crossed -= lines
            for name in lines:
                track.beside.pop(name, None)
            for name in zones:
                track.since_s.pop(name, None)
                track.out_s.pop(name, None)
        self.camera = camera

    def stays(self, zone: str, now_s: float) -> Iterator[tuple[int, str, float]]:
        """Track, class and seconds of everything that is in a zone."""
        for number, track in self._tracks.items():
            if zone in track.since_s:
                yield number, track.class_name, now_s - track.since_s[zone]

    def _move(self, box: Detection, now: Event) -> Iterator[Event]:
        if box.track_id is None:
            return
        point = ((box.xyxy[0] + box.xyxy[2]) / 2, box.xyxy[3])
        track = self._tracks.setdefault(box.track_id, _Track(box.name, now.time_s, self._frame))
        track.seen_s, track.frame = now.time_s, self._frame
        found = replace(now, class_name=track.class_name, track_id=box.track_id)
        for line in self.camera.lines:
            a, b = line.points
            if line.name in track.crossed or side(a, b, point) == 0:
                continue
            way = crosses(a, b, track.beside.get(line.name, point), point)
            track.beside[line.name] = point
            if way:
                direction = line.directions[0 if way > 0 else 1]
                track.crossed.add(line.name)
                self.crossings[line.name, track.class_name, direction] += 1
                yield replace(found, kind="crossed", place=line.name, direction=direction)
        for zone in self.camera.zones:
            yield from self._stay(track, zone.name, inside(zone.points, point), found)

    def _stay(self, track: _Track, zone: str, within: bool, found: Event) -> Iterator[Event]:
        now_s = found.time_s
        if within:
            track.out_s.pop(zone, None)
            if zone not in track.since_s:
                track.since_s[zone] = now_s
                self.entries[zone, track.class_name] += 1
                yield replace(found, kind="entered", place=zone)
        elif zone in track.since_s:
            out_s = track.out_s.setdefault(zone, now_s)
            if now_s - out_s >= SETTLE_S:
                del track.out_s[zone]
                yield replace(found, kind="left", place=zone, seconds=out_s - track.since_s.pop(zone))

    def _forget(self, now: Event) -> Iterator[Event]:
        """What was not seen for long has left its zones when it was seen last."""
        ended = [n for n, track in self._tracks.items() if self._frame - track.frame >= FORGET_FRAMES]
        for number in ended:
            track = self._tracks.pop(number)
            for zone, since_s in track.since_s.items():
                seconds = track.out_s.get(zone, track.seen_s) - since_s
                yield replace(
                    now, kind="left", place=zone, class_name=track.class_name, track_id=number, seconds=seconds
                )


class _Alarm:
    """Says when what a rule asks for comes true; once, until it is untrue again."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._told_s: float | None = None
        self._on = False  # more_than and nothing_for: it is true at present
        self._stays: set[int] = set()  # longer_than: tracks that were told of
        self._seen_s: float | None = None

    def update(self, scene: Scene, detections: Detections, events: list[Event], now: Event) -> list[Event]:
        rule = self._rule
        due = [replace(event, kind="alarm", rule=rule.name) for event in self._due(scene, detections, events, now)]
        if due and self._told_s is not None and now.time_s - self._told_s < rule.pause_s:
            return []
        if due:
            self._told_s = now.time_s
        return due[:1] if rule.pause_s else due

    def _due(self, scene: Scene, detections: Detections, events: list[Event], now: Event) -> list[Event]:
        rule = self._rule
        if rule.when in ("crossed", "entered"):
            return [event for event in events if matches(rule, event)]
        if rule.when == "more_than":
            count = sum(scene.inside(rule.zone, rule.classes).values())
            return self._rises(count > (rule.count or 0), replace(now, place=rule.zone, count=count))
        if rule.when == "longer_than":
            return self._long_stays(scene, now)
        if self._seen_s is None or self._sees(scene, detections):
            self._seen_s = now.time_s
        silent_s = now.time_s - self._seen_s
        return self._rises(silent_s >= (rule.seconds or 0), replace(now, place=rule.zone, seconds=silent_s))

    def _rises(self, on: bool, event: Event) -> list[Event]:
        before, self._on = self._on, on
        return [event] if on and not before else []

    def _long_stays(self, scene: Scene, now: Event) -> list[Event]:
        rule = self._rule
        stays = [
            (number, name, seconds)
            for number, name, seconds in scene.stays(rule.zone, now.time_s)
            if seconds > (rule.seconds or 0) and (not rule.classes or name in rule.classes)
        ]
        before, self._stays = self._stays, {number for number, _, _ in stays}
        return [
            replace(now, place=rule.zone, class_name=name, track_id=number, seconds=seconds)
            for number, name, seconds in stays
            if number not in before
        ]

    def _sees(self, scene: Scene, detections: Detections) -> bool:
        rule = self._rule
        if rule.zone:
            return bool(scene.inside(rule.zone, rule.classes))
        return any(not rule.classes or name in rule.classes for name in detections.counts())


def matches(rule: Rule, event: Event) -> bool:
    """Whether a crossing or an entry is one that a rule asks for."""
    place = rule.line if rule.when == "crossed" else rule.zone
    return (
        event.kind == rule.when
        and event.place == place
        and rule.direction in ("", event.direction)
        and (not rule.classes or event.class_name in rule.classes)
    )


class _Tally:
    """Crossings and entries by minute and hour; of live sources by the clock, else by the video's time."""

    def __init__(self, camera: str) -> None:
        self.jump_s = 0.0  # of the clock, before the last frame
        self._camera = camera
        self._last: Event | None = None
        self._counts: dict[str, Counter[tuple[str, str, str]]] = {kind: Counter() for kind in SPANS_S}
        self._begun: dict[str, tuple[float, datetime | None]] = dict.fromkeys(SPANS_S, (0.0, None))

    def add(self, events: list[Event], now: Event) -> list[Event]:
        """Count them; the counts of the minute and the hour that are over by now come back."""
        self.jump_s = 0.0
        if self._last is not None and self._last.wall_time and now.wall_time:
            off_s = (now.wall_time - self._last.wall_time).total_seconds() - (now.time_s - self._last.time_s)
            self.jump_s = off_s if abs(off_s) > CLOCK_JUMP_S else 0.0
        self._last = now
        closed = []
        for kind in SPANS_S:
            before, start = self._begun[kind], _begin(now, SPANS_S[kind])
            # By the clock where there is one: a minute of the video's time is none of the clock's.
            if (before[1] or before[0]) != (start[1] or start[0]):
                closed += self._close(kind)
                self._begun[kind] = start
            self._counts[kind].update(
                (e.place, e.class_name, e.direction) for e in events if e.kind in ("crossed", "entered")
            )
        return closed

    def end(self) -> list[Event]:
        return [event for kind in self._counts for event in self._close(kind)]

    def _close(self, kind: str) -> list[Event]:
        time_s, wall_time = self._begun[kind]
        begin = Event(kind=kind, camera=self._camera, time_s=time_s, wall_time=wall_time)
        counts, self._counts[kind] = self._counts[kind], Counter()
        return [
            replace(begin, place=place, class_name=name, direction=direction, count=count)
            for (place, name, direction), count in sorted(counts.items())
        ]


def _begin(now: Event, length_s: float) -> tuple[float, datetime | None]:
    """When the minute or the hour of an event began: seconds of the video, and the clock."""
    if now.wall_time is None or length_s == inf:
        return (now.time_s // length_s * length_s if length_s < inf else 0.0), None
    whole = now.wall_time.replace(second=0, microsecond=0)
    if length_s == SPANS_S["hour"]:
        whole = whole.replace(minute=0)
    return now.time_s - (now.wall_time - whole).total_seconds(), whole


# ----------------------------------------------------------------- records

COLUMNS = (
    *("kind", "camera", "wall_time", "time_s", "event", "place", "class", "direction"),
    *("track_id", "seconds", "count"),
)
"""The keys of ``Event.to_dict``."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    kind TEXT, camera TEXT, wall_time TEXT, time_s REAL, event TEXT, place TEXT, class TEXT, direction TEXT,
    track_id INTEGER, seconds REAL, count INTEGER
);
CREATE VIEW IF NOT EXISTS per_minute AS SELECT * FROM records WHERE kind = 'minute';
CREATE VIEW IF NOT EXISTS per_hour AS SELECT * FROM records WHERE kind = 'hour';
"""

MAX_ROWS = 50_000
"""As many of the last records are looked at."""

Write = Callable[[list[Event]], None]


class Records:
    """Appends events to the files of a configuration; one that cannot be written is told of once, and stops no other.

    Raises:
        UsageError: a file cannot have its name, is given twice, is a camera's source, or holds something else.
        SqueezeDetError: a file cannot be opened.
    """

    def __init__(self, config: WatchConfig, warn: Callable[[str], object]) -> None:
        self.lost = False  # something could not be written
        self._warn = warn
        self._stack = ExitStack()
        self._targets: dict[Path, Write] = {}
        self._failing: set[Path] = set()
        taken = {Path(camera.source).resolve(): "is a camera's source" for camera in config.cameras}
        with ExitStack() as stack:
            for path, opened in ((config.csv, _open_csv), (config.jsonl, _open_jsonl), (config.sqlite, _open_sqlite)):
                if path is not None:
                    check_file(path)
                    if (real := path.resolve()) in taken:
                        raise UsageError(f"{path}: {taken[real]}; give the records a file of their own")
                    taken[real] = "is given for two kinds of records"
                    self._targets[path] = opened(path, stack)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def write(self, events: list[Event]) -> None:
        """Append them, on disk when this returns."""
        if not events:
            return
        for path, write in self._targets.items():
            try:
                with one_sentence(path):
                    write(events)
                self._failing.discard(path)
            except (SqueezeDetError, sqlite3.Error) as error:
                self.lost = True
                if path not in self._failing:
                    self._failing.add(path)
                    self._warn(str(error) if isinstance(error, SqueezeDetError) else f"{path}: {error}")


def recent_minutes(path: Path, camera: str, since: datetime) -> list[tuple[datetime, str, str, int]]:
    """Minutes of a live camera in an SQLite file of records: when each began, line or zone, direction, count."""
    where = "kind = 'minute' AND camera = ? AND wall_time > '' ORDER BY rowid DESC LIMIT ?"
    query = f"SELECT wall_time, place, direction, count FROM records WHERE {where}"  # noqa: S608 - no text of others
    try:
        with closing(sqlite3.connect(path)) as database:
            rows = database.execute(query, (camera, MAX_ROWS)).fetchall()
    except sqlite3.Error as error:
        raise SqueezeDetError(f"{path}: cannot be read as an SQLite file ({error})") from error
    found = [(datetime.fromisoformat(time), place, direction or "", count) for time, place, direction, count in rows]
    return [row for row in found if row[0] >= since]


def _append(path: Path, stack: ExitStack, start: str, kind: str) -> TextIO:
    """Open a file to append; a UsageError if it has content that does not begin as such a file does."""
    with one_sentence(path):
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as there:
                if there.read(len(start)) != start.encode():
                    raise UsageError(f"{path}: exists, and is no {kind} file of records")
        file = path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")

    def close() -> None:
        with suppress(OSError):  # a full disk, which was told of
            file.close()

    stack.callback(close)
    return file


def _open_csv(path: Path, stack: ExitStack) -> Write:
    file = _append(path, stack, ",".join(COLUMNS) + "\n", "CSV")
    table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    if not file.tell():
        with one_sentence(path):
            table.writeheader()
            file.flush()

    def write(events: list[Event]) -> None:
        table.writerows(event.to_dict() for event in events)
        file.flush()

    return write


def _open_jsonl(path: Path, stack: ExitStack) -> Write:
    file = _append(path, stack, "{", "JSON Lines")

    def write(events: list[Event]) -> None:
        file.writelines(json.dumps(event.to_dict(), ensure_ascii=False) + "\n" for event in events)
        file.flush()

    return write


def _open_sqlite(path: Path, stack: ExitStack) -> Write:
    try:
        database = sqlite3.connect(path, check_same_thread=False)  # a server's threads write by turns
        stack.callback(database.close)
        database.execute("PRAGMA journal_mode = WAL")  # others read meanwhile
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(SCHEMA)
    except sqlite3.Error as error:
        raise SqueezeDetError(f"{path}: cannot be used as an SQLite file ({error})") from error
    insert = f"INSERT INTO records VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 - question marks

    def write(events: Iterable[Event]) -> None:
        with database:
            database.executemany(insert, ([event.to_dict().get(name) for name in COLUMNS] for event in events))

    return write
