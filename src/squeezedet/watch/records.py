"""Where events and counts are written: CSV, JSON lines, SQLite; all of them grow."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Self, TextIO

from squeezedet.errors import SqueezeDetError
from squeezedet.files import check_file, one_sentence
from squeezedet.watch.config import WatchConfig
from squeezedet.watch.counting import Event

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
        UsageError: a file cannot have its name.
        SqueezeDetError: a file cannot be opened.
    """

    def __init__(self, config: WatchConfig, warn: Callable[[str], object]) -> None:
        self.lost = False  # something could not be written
        self._warn = warn
        self._stack = ExitStack()
        self._targets: dict[Path, Write] = {}
        self._failing: set[Path] = set()
        with ExitStack() as stack:
            for path, opened in ((config.csv, _open_csv), (config.jsonl, _open_jsonl), (config.sqlite, _open_sqlite)):
                if path is not None:
                    check_file(path)
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


def _append(path: Path, stack: ExitStack) -> TextIO:
    with one_sentence(path):
        file = path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")

    def close() -> None:
        with suppress(OSError):  # a full disk, which was told of
            file.close()

    stack.callback(close)
    return file


def _open_csv(path: Path, stack: ExitStack) -> Write:
    file = _append(path, stack)
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
    file = _append(path, stack)

    def write(events: list[Event]) -> None:
        file.writelines(json.dumps(event.to_dict(), ensure_ascii=False) + "\n" for event in events)
        file.flush()

    return write


def _open_sqlite(path: Path, stack: ExitStack) -> Write:
    try:
        database = sqlite3.connect(path)
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
