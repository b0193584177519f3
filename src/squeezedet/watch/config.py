"""What to watch: cameras with lines, zones and events, from a TOML file or from Python."""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from squeezedet.errors import DataError, UsageError
from squeezedet.files import write_atomic
from squeezedet.media.images import Frame
from squeezedet.media.kinds import without_password
from squeezedet.media.sinks import UniqueStems
from squeezedet.text import did_you_mean
from squeezedet.toml import build, convert, read_toml

MAX_PLACES, MAX_CORNERS = 50, 100
"""Of one camera, and of one zone, as far as they come from a page."""
PRIVATE = 0o600
"""A new file may hold the password of a camera."""
When = Literal["crossed", "entered", "more_than", "longer_than", "nothing_for"]
NEEDS: Mapping[str, tuple[str, ...]] = {
    "crossed": ("line",),
    "entered": ("zone",),
    "more_than": ("zone", "count"),
    "longer_than": ("zone", "seconds"),
    "nothing_for": ("seconds",),
}
"""What an event of each kind cannot be without."""
LIMITS: Mapping[str, tuple[float, float]] = {
    "before_s": (0, 60),
    "after_s": (0, 600),
    "queue_limit": (1, 10_000_000),
    "reconnect": (0, 1_000_000),
    "stall_s": (0.1, 86_400),
}
"""Of the numbers of a configuration."""
Point = tuple[float, float]
"""x to the right, y down, in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A segment; a track crosses it when the middle of its box's lower edge does, and counts once.

    A crossing to the right and one to the left, as one looks from the first end to the second, are called as
    ``directions`` says.
    """

    name: str
    points: tuple[Point, Point]
    directions: tuple[str, str] = ("right", "left")

    def __post_init__(self) -> None:
        _check_name("line", self.name)
        if self.points[0] == self.points[1]:
            raise UsageError(f"line {self.name!r}: has no length")
        for direction in self.directions:
            _check_name(f"line {self.name!r}: direction", direction)
        if self.directions[0] == self.directions[1]:
            raise UsageError(f"line {self.name!r}: both `directions` are called {self.directions[0]!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A polygon; a track is inside when the middle of its box's lower edge is."""

    name: str
    points: tuple[Point, ...]  # corners in order

    def __post_init__(self) -> None:
        _check_name("zone", self.name)
        if len(self.points) < 3:
            raise UsageError(f"zone {self.name!r}: has {len(self.points)} corners, three or more are needed")
        if crosses_itself(self.points):
            raise UsageError(f"zone {self.name!r}: crosses itself; give its corners in order")
        if not area(self.points):
            raise UsageError(f"zone {self.name!r}: has no area")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When something is worth telling, and to whom.

    ``when`` is ``crossed`` (a line), ``entered`` (a zone), ``more_than`` ``count`` inside, ``longer_than`` ``seconds``
    inside, or ``nothing_for`` ``seconds`` seen (in the zone, if one is given).
    """

    name: str
    when: When
    line: str = ""
    zone: str = ""
    direction: str = ""  # of the crossing; any by default
    classes: tuple[str, ...] = ()  # only these
    count: int | None = None
    seconds: float | None = None
    pause_s: float = 0.0  # it is not told again for so long
    run: tuple[str, ...] = ()  # a command and its arguments, see ``actions.filled``; no shell reads it
    webhook: str = ""  # an http(s) address that gets the event as JSON
    mqtt: bool = False  # publish it
    snapshot: bool = False  # keep the picture
    clip: bool = False  # keep the seconds around it as a video

    def __post_init__(self) -> None:
        _check_name("event", self.name)
        for need in NEEDS[self.when]:
            if getattr(self, need) in ("", None):
                raise UsageError(f"event {self.name!r}: {self.when!r} needs a `{need}`")
        if any("\0" in text for text in self.run):
            raise UsageError(f"event {self.name!r}: a word of `run` holds a zero byte")
        for number in (self.count, self.seconds, self.pause_s):
            if number is not None and number < 0:
                raise UsageError(f"event {self.name!r}: {number} is negative")
        if self.webhook and not _is_web_address(self.webhook):
            raise UsageError(f"event {self.name!r}: a `webhook` is an http or https address")


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """One source and what is watched in it."""

    name: str  # in records, messages and topics
    source: str  # what ``squeezedet detect`` takes: an address, a camera, a video, numbered pictures
    classes: tuple[str, ...] = ()  # only these
    live: bool = False  # whatever it looks like
    lines: tuple[Line, ...] = ()
    zones: tuple[Zone, ...] = ()
    events: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        _check_name("camera", self.name)
        where = f"camera {self.name!r}"
        lines = _distinct(where, "line", self.lines)
        zones = _distinct(where, "zone", self.zones)
        _distinct(where, "event", self.events)
        for rule in self.events:
            for kind, name, known in (("line", rule.line, lines), ("zone", rule.zone, zones)):
                if name and name not in known:
                    raise UsageError(f"{where}: event {rule.name!r}: no {kind} {name!r}{did_you_mean(name, known)}")
            of = next((line.directions for line in self.lines if line.name == rule.line), ())
            if rule.direction and rule.direction not in of:
                hint = did_you_mean(rule.direction, of)
                raise UsageError(f"{where}: event {rule.name!r}: no direction {rule.direction!r}{hint}")

    def check_size(self, frame: Frame) -> None:
        """Raises a DataError if a line or a zone does not lie in the picture."""
        height, width = frame.pixels.shape[:2]
        places: tuple[Line | Zone, ...] = (*self.lines, *self.zones)
        for place in places:
            for x, y in place.points:
                if not (0 <= x <= width and 0 <= y <= height):
                    what = f"{type(place).__name__.lower()} {place.name!r}"
                    raise DataError(f"{what}: ({x:g}, {y:g}) is outside of the picture, {width}x{height} pixels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mqtt:
    """A broker."""

    host: str
    port: int = 1883
    tls: bool = False
    user: str = ""
    password_env: str = ""  # the environment variable that holds the password
    topic: str = "squeezedet"  # what all topics begin with
    discovery: str = "homeassistant"  # Home Assistant's prefix; "" for no discovery

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.:-]+", self.host):
            raise UsageError("mqtt: `host` is a name or an IP address; user and password have keys of their own")
        if not 0 < self.port < 65536:
            raise UsageError(f"mqtt: `port`: {self.port} is not 1 to 65535")
        if re.search("[+#]", self.topic + self.discovery) or not self.topic:
            raise UsageError("mqtt: `topic` and `discovery` are names without + and #")


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """Everything that ``squeezedet watch`` does."""

    cameras: tuple[Camera, ...]
    model: str = ""  # a shipped model or a bundle
    score: float | None = None  # lowest of a box; the model's own by default
    csv: Path | None = None  # of records, as the next two
    jsonl: Path | None = None
    sqlite: Path | None = None
    save: Path | None = None  # folder of annotated videos
    folder: Path = Path("events")  # of snapshots and clips
    before_s: float = 5.0  # of a clip, before and after its event
    after_s: float = 5.0
    secret_env: str = ""  # the environment variable that holds the key of webhooks' signatures
    queue: Path = Path("webhooks.sqlite")  # in which events wait for their webhooks
    queue_limit: int = 10_000  # more do not wait: the oldest go
    mqtt: Mqtt | None = None
    reconnect: int = 10  # how often in a row a live source that breaks off is opened again
    stall_s: float = 10.0  # a live source without a frame for longer breaks off

    def __post_init__(self) -> None:
        if not self.cameras:
            raise UsageError("there is nothing to watch: no camera is given")
        _distinct("the configuration", "camera", self.cameras)
        for name, (least, most) in LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"`{name}`: {getattr(self, name):g} is not {least:g} to {most:g}")
        if self.mqtt is None:
            for rule in (rule for camera in self.cameras for rule in camera.events if rule.mqtt):
                raise UsageError(f"event {rule.name!r}: is to be published, and no broker is given: [mqtt] host = ...")


def read_config(path: Path) -> WatchConfig:
    """Read a TOML file; a UsageError says what makes no sense, and where."""
    return _checked(path, read_toml(path, "configuration"))


def cameras_of(sources: Sequence[str], *, live: bool = False, beside: Sequence[Camera] = ()) -> list[Camera]:
    """A camera for each source, with a name made of it that none of those ``beside`` has."""
    stems = UniqueStems()
    for camera in beside:
        stems(camera.name)
    names = [re.sub(r"[^\w.-]", "_", stems(without_password(source))).lstrip(".-")[:60] for source in sources]
    return [
        Camera(name=name or "camera", source=source, live=live) for name, source in zip(names, sources, strict=True)
    ]


def with_places(camera: Camera, values: Any) -> Camera:
    """The camera with other lines and zones, which come from somebody else: tables as in the file, and nothing else.

    Raises:
        UsageError: they make no sense, or an event needs one that is gone.
    """
    if not isinstance(values, dict) or set(values) != {"lines", "zones"}:
        raise UsageError("`lines` and `zones` are wanted, and nothing else")
    for kind, places in values.items():
        if not isinstance(places, list) or len(places) > MAX_PLACES:
            raise UsageError(f"{kind}: at most {MAX_PLACES}, as a list")
        for place in places:
            corners = place.get("points") if isinstance(place, dict) else None
            if isinstance(corners, list) and len(corners) > MAX_CORNERS:
                raise UsageError(f"{kind}: at most {MAX_CORNERS} corners each")
    lines = convert(values["lines"], tuple[Line, ...], "lines")
    return replace(camera, lines=lines, zones=convert(values["zones"], tuple[Zone, ...], "zones"))


def save_places(path: Path, camera: Camera, cameras: Sequence[Camera]) -> None:
    """Write a camera's lines and zones into a file, which keeps all else that it says.

    A file that was written by hand loses its comments; it stays beside the new one, with ``.orig`` behind its name.

    It is made if need be, for its owner alone. Other ``cameras`` that the file does not have are written, too.

    Raises:
        UsageError: the file is none that ``read_config`` reads, or would not be any more.
        SqueezeDetError: it cannot be written.
    """
    new = not path.exists()
    values = {} if new else read_toml(path, "configuration")
    before = _dumped(values)
    there = [] if new else [one.name for one in _checked(path, values).cameras]
    tables = values.setdefault("cameras", [])
    for one in [one for one in cameras if one.name not in there]:
        tables.append({"name": one.name, "source": one.source} | ({"live": True} if one.live else {}))
    table = next(table for table in tables if table["name"] == camera.name)
    for kind in ("lines", "zones"):
        table.pop(kind, None)
        if places := [_table(place) for place in getattr(camera, kind)]:
            table[kind] = places
    text = _dumped(values)
    _checked(path, tomllib.loads(text))
    mode = PRIVATE if new else stat.S_IMODE(path.stat().st_mode)
    if not new and path.read_text(encoding="utf-8") != before:
        write_atomic(path.with_name(f"{path.name}.orig"), path.read_bytes(), mode)
    write_atomic(path, text, mode)


def _dumped(values: dict[str, Any]) -> str:
    """TOML with a point on one line."""
    import tomli_w

    return re.sub(r"\[\n\s+([-.\de]+),\n\s+([-.\de]+),\n\s+\]", r"[\1, \2]", tomli_w.dumps(values))


def _table(place: Line | Zone) -> dict[str, Any]:
    """A line or a zone for the file; whole pixels without a decimal."""
    corners = [[int(v) if v == int(v) else round(v, 2) for v in corner] for corner in place.points]
    return asdict(place) | {"points": corners}


def _checked(path: Path, values: dict[str, Any]) -> WatchConfig:
    try:
        return build(WatchConfig, values, "")
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _is_web_address(text: str) -> bool:
    """Whether it is an http or https address as it goes over the wire: of printable ASCII, encoded."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return valid and re.fullmatch("[!-~]+", text) is not None


def _check_name(kind: str, name: str) -> None:
    """Names stand in topics, file names and tables."""
    if not re.fullmatch(r"[\w][\w .-]{0,63}", name):
        raise UsageError(f"{kind} {name!r}: a name has 1 to 64 letters, digits, blanks and . _ -")


def _distinct(where: str, kind: str, things: Sequence[Any]) -> list[str]:
    names = [thing.name for thing in things]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{where}: there are two {kind}s of the name {name!r}")
    return names


# ----------------------------------------------------------------- geometry


def side(a: Point, b: Point, point: Point) -> float:
    """Positive right of the line as one looks from ``a`` to ``b``, negative left, 0 on it."""
    return (b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0])


def crosses(a: Point, b: Point, start: Point, end: Point) -> int:
    """Where the way from ``start`` to ``end`` crosses the segment ``ab``: 1 to its right, -1 to its left, or 0.

    A way that only touches the line does not cross it; the ends ``a`` and ``b`` belong to the segment.
    """
    before, after = side(a, b, start), side(a, b, end)
    if before == 0 or after == 0 or (before > 0) == (after > 0):
        return 0
    of_a, of_b = side(start, end, a), side(start, end, b)
    if (of_a > 0 and of_b > 0) or (of_a < 0 and of_b < 0):
        return 0
    return 1 if after > 0 else -1


def inside(polygon: Sequence[Point], point: Point) -> bool:
    """Whether a polygon holds a point; of polygons that share an edge exactly one holds a point of it."""
    x, y = point
    within = False
    x1, y1 = polygon[-1]
    for x2, y2 in polygon:
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            within = not within
        x1, y1 = x2, y2
    return within


def _meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Two segments have a point in common."""
    of_c, of_d, of_a, of_b = side(a, b, c), side(a, b, d), side(c, d, a), side(c, d, b)
    if of_c == of_d == 0:  # on one line
        return all(max(min(a[i], b[i]), min(c[i], d[i])) <= min(max(a[i], b[i]), max(c[i], d[i])) for i in (0, 1))
    return min(of_c, of_d) <= 0 <= max(of_c, of_d) and min(of_a, of_b) <= 0 <= max(of_a, of_b)


def crosses_itself(polygon: Sequence[Point]) -> bool:
    """Two edges that are not neighbors meet, or neighbors run back over each other."""
    count = len(polygon)
    edges = [(polygon[i], polygon[(i + 1) % count]) for i in range(count)]
    for (i, (a, b)), (j, (c, d)) in combinations(enumerate(edges), 2):
        if j == i + 1 or (i == 0 and j == count - 1):
            p, corner, q = (a, b, d) if j == i + 1 else (c, d, b)
            ahead = (corner[0] - p[0]) * (q[0] - corner[0]) + (corner[1] - p[1]) * (q[1] - corner[1])
            if side(p, corner, q) == 0 and ahead < 0:
                return True
        elif _meet(a, b, c, d):
            return True
    return False


def area(polygon: Sequence[Point]) -> float:
    """Square pixels of a polygon that does not cross itself."""
    corners = zip(polygon, [*polygon[1:], polygon[0]], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in corners)) / 2
