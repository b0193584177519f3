"""Labels images and videos, part by part: in this process, or with Ray on many cores and machines.

A part is a few hundred images or one video. A worker reads it, detects, and writes its labels as
one file, which appears whole or not at all; the file is the only sign that the part is done. So a
job can be killed at any moment and goes on with the parts that are not there, and a part that two
workers make is the same file twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from squeezedet.detections import Detections
from squeezedet.errors import DataError, MissingExtraError, ModelError, SqueezeDetError, UsageError
from squeezedet.files import read_regular
from squeezedet.fleet.labels import (
    ABOUT,
    IMAGES_PER_PART,
    INPUTS,
    SCHEMA,
    About,
    LabelSet,
    Layout,
    write_layout,
    write_list,
)
from squeezedet.fleet.store import file_system, reaching, read_file
from squeezedet.media.images import Frame, read_image
from squeezedet.media.prefetch import prefetch
from squeezedet.media.video import read_video
from squeezedet.runtime import DEFAULT_MODEL, bundle
from squeezedet.runtime.detector import Detector
from squeezedet.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

READERS = 8
"""So many files are fetched at a time by each worker: a store far away answers slowly, but to many at once."""
ROWS_PER_BATCH = 10_000
GPU = ("cuda", "tensorrt")
DEATHS = 2
"""An input with which a worker died so often is not tried again."""
LOCAL, AUTO = "local", "auto"
WAIT_S = 5.0
STARTS = 3
"""Ray waits 30 seconds for its own processes; on a busy machine that can be too short."""
OBJECT_STORE_BYTES = 200_000_000
"""What a Ray that is started here keeps for passing on; images never pass through it."""
ERRORS = {kind.exit_code: kind for kind in (SqueezeDetError, UsageError, DataError, ModelError)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a job did, or a worker with one part."""

    parts: int = 0
    inputs: int = 0  # images and videos
    frames: int = 0  # images and frames of videos that could be read
    boxes: int = 0
    errors: int = 0  # inputs that could not be read, or not to their end


def label(
    sources: Sequence[str],
    out: str,
    *,
    model: str | Path = DEFAULT_MODEL,
    score: float | None = None,
    engine: str | None = None,
    ray: str | None = None,
    workers: int | None = None,
    resume: bool = False,
    layout: Layout | None = None,
    images_per_part: int = IMAGES_PER_PART,
    report: Callable[[int, int], None] = lambda done, parts: None,
) -> Done:
    """Detect in all images and videos of the sources, and write what is found as Parquet.

    Args:
        sources: folders, patterns, files, URLs of stores, or Parquet files with a column ``path``.
        out: folder or URL of the set of labels, see ``labels``.
        model: a shipped model or a bundle.
        score: boxes below are not kept; the model's own threshold by default.
        engine: what runs the model, as for ``load``; one with ``:cuda`` gives each worker a GPU.
        ray: ``local`` starts Ray here, ``auto`` or HOST:PORT joins a cluster; None labels in this process.
        workers: how many, each on one core or GPU; all of these by default.
        resume: go on with what is there.
        layout: write the labels in this layout, too.
        images_per_part: how many images a worker takes at a time.
        report: takes, after each part, how many are done and how many there are.

    Raises:
        UsageError: the folder is taken, or holds what does not fit; Ray or PyAV is not installed.
        DataError: there is nothing to label.
        ModelError: the model cannot be used.
        SqueezeDetError: a store does not answer, the place cannot be written, no cluster.
    """
    if workers is not None and ray is None:
        raise UsageError("workers: one process has one; say where with `ray`, for instance `ray=local`")
    if engine == "auto":
        raise UsageError("engine: auto may choose another one on each machine; name one")
    wanted, content = _wanted(sources, model, score)
    labels = LabelSet(out)
    if layout and not labels.store.local:
        raise UsageError(f"{out}: another `layout` is written into a folder of this machine")
    _check_place(labels, resume)
    if ray is not None:
        _check_ray(ray)
    with labels.store.lock():
        about = _plan(labels, wanted, images_per_part)
        missing = labels.missing(about)
        place = str(labels.store.path("")) if labels.store.local else out  # workers may be in another folder
        arguments = (place, content, engine)
        if ray is None:
            worker = Worker(*arguments)
            made = (worker({"part": part}) for part in missing)
        else:
            made = _with_ray(ray, arguments, missing, workers, gpu=f"{engine}:".split(":")[1] in GPU)
        total: Counter[str] = Counter()
        with closing(made):
            for done in made:
                if failure := done.pop("failure"):
                    raise ERRORS[done["exit_code"]](failure)
                total.update(done)
                report(about.parts - len(missing) + total["parts"], about.parts)
        if layout:
            write_layout(labels, about, layout)
    return Done(**{field.name: total[field.name] for field in fields(Done)})


def _wanted(sources: Sequence[str], model: str | Path, score: float | None) -> tuple[About, bytes]:
    """What the labels will say of themselves, and the bytes of the bundle: workers on other machines need no file."""
    path = bundle.find(model)
    if not bundle.is_bundle(path):
        raise ModelError(f"{path}: is no bundle; labels are made by a model of one file")
    content = read_regular(path, bundle.MAX_FILE_BYTES, what="model", error=ModelError)
    card = bundle.read(path).card
    if card.task != "detect":
        raise ModelError(f"{path}: is no detector but classifies images")
    try:
        threshold = card.selection.score if score is None else replace(card.selection, score=score).score
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    return About(
        model=path.stem,
        model_sha256=hashlib.sha256(content).hexdigest(),
        classes=card.classes,
        score=threshold,
        sources=tuple(sources),
    ), content


def _detector(content: bytes, engine: str | None) -> Detector:
    """The model on one thread: the same boxes wherever and beside whatever it runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"model{bundle.SUFFIX}")
        path.write_bytes(content)
        return Detector(bundle.read(path), engine=engine, threads=1)


def _check_place(labels: LabelSet, resume: bool) -> None:
    """Raises UsageError where the folder cannot become, or go on being, a set of labels."""
    names = labels.store.names()
    if ABOUT in names and not resume:
        raise UsageError(f"{labels.store.url}: holds labels already; go on with `resume=True`, or name a new folder")
    if strange := names - {ABOUT, INPUTS, "labels", "started", "lock", "coco", "kitti"}:
        raise UsageError(f"{labels.store.url}: holds {min(strange)}, which is no part of labels; name a new folder")


def _plan(labels: LabelSet, wanted: About, images_per_part: int) -> About:
    """What is to be done, new or as planned by the job that goes on; a UsageError if that was made otherwise."""
    about, where = labels.about(), labels.store.url
    if about is None:
        inputs, parts, sha256 = write_list(labels.store, wanted.sources, images_per_part)
        about = replace(wanted, inputs=inputs, parts=parts, inputs_sha256=sha256)
        labels.begin(about)
    elif about.model_sha256 != wanted.model_sha256:
        ours, its = wanted.model_sha256[:12], about.model_sha256[:12]
        raise UsageError(
            f"{where}: the labels there are of another model, {about.model} (sha256 {its}, this one {ours}); "
            "name a new folder"
        )
    elif about.score != wanted.score:
        raise UsageError(f"{where}: the labels there have `score` {about.score}, not {wanted.score}; name a new folder")
    elif about.sources != wanted.sources:
        raise UsageError(f"{where}: the labels there are of {' '.join(about.sources)}; name these, or a new folder")
    return about


# ----------------------------------------------------------------- a worker


class Worker:
    """Labels one part after the other; nothing is loaded before the first, so that it can travel.

    A worker that died (out of memory, a decoder that crashed) left a note in ``started``. The part
    is then made again input by input, each noted before it is read; one with which workers died
    twice becomes a row with that error.
    """

    def __init__(self, out: str, model: bytes, engine: str | None) -> None:
        self._out, self._model, self._engine = out, model, engine
        self._detector: Detector | None = None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Label the part of this number; an error of the package comes back in words."""
        try:
            return {**asdict(self._label(int(row["part"]))), "failure": "", "exit_code": 0}
        except SqueezeDetError as error:
            return {**asdict(Done()), "failure": str(error), "exit_code": error.exit_code}

    def _label(self, part: int) -> Done:
        if self._detector is None:
            labels = LabelSet(self._out)
            about = labels.about()
            if about is None:
                raise UsageError(
                    f"{self._out}: is not seen by a worker on {socket.gethostname()}; all need the same store"
                )
            self._labels, self._about = labels, about
            self._detector = _detector(self._model, self._engine)
        inputs = self._labels.inputs(part)
        note = f"started/{part:06d}"
        before = _note(self._labels.store.read(note))
        deaths = before["deaths"] if before else Counter[str]()
        if before and (last := before["at"]) is not None:
            deaths[last] += 1

        def noting(path: str | None) -> None:
            self._labels.store.write(note, json.dumps({"at": path, "deaths": deaths}).encode())

        noting(None)
        rows = _Rows(self._about)
        score = None if isinstance(self._about.score, tuple) else self._about.score
        deadly = {path for path, times in deaths.items() if times >= DEATHS}
        items = read_frames(inputs, deadly, noting) if before else prefetch(read_frames(inputs))
        with closing(items) as found:
            for item in found:
                if isinstance(item, Frame):
                    rows.add(self._detector.detect(item, score), item)
                else:
                    rows.add_error(*item)
        self._labels.write(part, rows.table())
        self._labels.store.remove(note)
        return Done(parts=1, inputs=len(inputs), frames=rows.frames, boxes=rows.boxes, errors=rows.errors)


Item = Frame | tuple[str, str]
"""A frame, or the path of an input and why it has none (more)."""


def _note(content: bytes | None) -> dict[str, Any] | None:
    """What a worker noted of a part that it began; None if there is none, or a damaged one."""
    try:
        found = json.loads(content or b"")
        return {"at": found["at"], "deaths": Counter(found["deaths"])}
    except (ValueError, KeyError, TypeError):
        return None


def read_frames(
    inputs: Sequence[tuple[str, bool]], deadly: Collection[str] = (), noting: Callable[[str], None] = lambda path: None
) -> Generator[Item, None, None]:
    """The frames of the inputs (path, and whether it is a video) in their order; files are fetched ahead.

    Those that are ``deadly`` are not touched; ``noting`` takes each path before it is read.
    """
    with ThreadPoolExecutor(READERS) as pool:
        coming: deque[Future[bytes] | None] = deque()
        ahead = iter(inputs)

        def fetch() -> None:
            for path, video in ahead:
                coming.append(None if video or path in deadly else pool.submit(read_file, path))
                return

        try:
            for _ in range(READERS):
                fetch()
            for path, video in inputs:
                content = coming.popleft()
                fetch()
                noting(path)
                if path in deadly:
                    yield path, f"the process that read it died, {DEATHS} times"
                    continue
                try:
                    if video:
                        yield from _video(path)
                    elif content is not None:
                        yield read_image(content.result(), path)
                except DataError as error:
                    yield path, str(error).removeprefix(f"{path}: ")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _video(path: str) -> Iterator[Frame]:
    """The frames of a video, which is copied here first if it is in a store."""
    found, inner = file_system(path)
    if isinstance(found, LocalFileSystem):
        yield from read_video(inner)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = str(Path(folder, Path(inner).name))
        with reaching(path):
            found.get_file(inner, copy)
        try:
            for frame in read_video(copy):
                yield replace(frame, name=path)
        except DataError as error:
            raise DataError(str(error).replace(copy, path)) from error


class _Rows:
    """The rows of one part, as they come."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._batches: list[pa.RecordBatch] = []
        self._rows: list[tuple[Any, ...]] = []
        self.frames = self.boxes = self.errors = 0

    def add(self, found: Detections, frame: Frame) -> None:
        when = (None, None) if frame.moment is None else (frame.moment.number, frame.moment.time_s)
        place = (frame.name, *when, found.width, found.height)
        boxes = [(*place, box.name, box.score, *box.xyxy, None) for box in found]
        self._rows += boxes or [(*place, *(None,) * 7)]
        self.frames, self.boxes = self.frames + 1, self.boxes + len(boxes)
        if len(self._rows) >= ROWS_PER_BATCH:
            self._flush()

    def add_error(self, path: str, why: str) -> None:
        self._rows.append((path, *(None,) * 10, why.encode("utf-8", "backslashreplace").decode()))
        self.errors += 1

    def _flush(self) -> None:
        columns = [list(column) for column in zip(*self._rows, strict=True)]
        count = len(self._rows)
        columns[5:5] = [[self._about.model] * count, [self._about.model_sha256] * count]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))
        self._rows = []

    def table(self) -> pa.Table:
        if self._rows:
            self._flush()
        return pa.Table.from_batches(self._batches, SCHEMA)


# ----------------------------------------------------------------- Ray


def _check_ray(address: str) -> None:
    """Find out before the work whether there is a Ray, and somebody at the address."""
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


def _with_ray(
    address: str, arguments: Sequence[Any], parts: Sequence[int], workers: int | None, *, gpu: bool
) -> Generator[dict[str, Any], None, None]:
    """What workers, each on a core or a GPU of its own, make of the parts; one that dies is started anew."""
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
            Worker,
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
