"""A package: one model or a delta to it, signed, with what a device needs to know and to test before it takes it.

A zip archive:

===================  =================================================================================
``manifest.json``    see ``Manifest``: version, network, expiry, checksums of the other parts
``signature.json``   over the manifest, by a release key, see ``runtime.signature``
``certificate.json`` a root key's word for the release key; not needed where devices trust that itself
``model``            see ``delta``
``sample-N.jpg``     drawn pictures, whose boxes are in the manifest
===================  =================================================================================

The roles are The Update Framework's in small: a root key, which is kept away, says for a while which release key
counts; the newest certificate that a device has seen voids all earlier ones.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from squeezedet.data.scenes import generate
from squeezedet.drawing import encode_picture
from squeezedet.errors import ModelError, SqueezeDetError, UsageError
from squeezedet.files import read_regular, write_atomic
from squeezedet.media.images import read_image
from squeezedet.ota import delta
from squeezedet.runtime import bundle, parity, signature
from squeezedet.runtime.bundle import CARD, GRAPH, Bundle
from squeezedet.runtime.card import Card
from squeezedet.runtime.detector import Detector
from squeezedet.runtime.graph_check import check_graph
from squeezedet.runtime.postprocess import RawBoxes, select
from squeezedet.version import __version__

TITLE, CERTIFICATE_TITLE = "squeezedet package 1", "squeezedet release key 1"
"""Of what is signed, see ``signature.BUNDLE``; the first also says what a manifest is."""
SUFFIX, CERTIFICATE_SUFFIX = ".ota", ".cert"
MANIFEST, CERTIFICATE, MODEL, SAMPLE = "manifest.json", "certificate.json", "model", "sample-{}.jpg"
SAMPLES, SAMPLE_SIZE, SAMPLE_QUALITY, SEEDS = 2, (320, 96), 60, range(24)
"""Drawn scenes; of these seeds, the first ones in which the model finds something."""
BOXES = 10
"""Of each sample, or as many as are reported, if these are more."""
LIMITS: Mapping[str, int] = {
    MANIFEST: 200_000,
    signature.MEMBER: signature.MAX_SIGNATURE_BYTES,
    CERTIFICATE: 5_000,
    MODEL: delta.MAX_MODEL_BYTES,
    **{SAMPLE.format(number): 200_000 for number in range(8)},
}
"""Most bytes of each part; there are no others."""
MAX_PACKAGE_BYTES = delta.MAX_MODEL_BYTES + 2_000_000
MAX_VERSION = 2**53
TIME, CLOCK_SLACK = "%Y-%m-%dT%H:%M:%SZ", timedelta(minutes=10)
SHA256, RELEASE = re.compile("[0-9a-f]{64}"), re.compile(r"\d{1,6}(\.\d{1,6}){0,3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a package says of itself; a ValueError if a field is of the wrong kind."""

    version: int  # a later one replaces an earlier one, never the other way
    network: str  # detector, input and classes, see ``network_of``; a device keeps to one
    created: str  # UTC; before it no device takes the package
    expires: str  # UTC; after it none does
    runtime: str  # the lowest version of squeezedet that runs it
    sha256: str  # of the file that a device gets, ``bundle.plain_bytes``
    base: str  # the same of the model that it is a delta to; empty where it is whole
    parts: Mapping[str, str]  # SHA-256 of each other part
    boxes: Mapping[str, list[list[float]]]  # of each sample, best first: x1, y1, x2, y2 in pixels, score, class id

    def __post_init__(self) -> None:
        if type(self.version) is not int or not 0 < self.version <= MAX_VERSION:
            raise ValueError(f"a version is a whole number from 1, not {self.version!r}")
        if not isinstance(self.network, str) or not RELEASE.fullmatch(self.runtime):
            raise ValueError(f"`runtime` is a version like {__version__}, not {self.runtime!r}")
        time_of(self.created), time_of(self.expires)
        sums = [self.sha256, *self.parts.values(), *([self.base] if self.base else [])]
        if not all(SHA256.fullmatch(value) for value in sums) or MODEL not in self.parts:
            raise ValueError("a checksum is missing or none")
        if self.boxes.keys() != self.parts.keys() - {MODEL}:
            raise ValueError("samples without boxes")
        for rows in self.boxes.values():
            np.array(rows, np.float64).reshape(-1, 6)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Package:
    """A package whose signature and checksums are right."""

    where: Path
    manifest: Manifest
    parts: Mapping[str, bytes] = field(repr=False)
    serial: int = 0  # of the release key's certificate: the second in which it was made
    expires: str = ""  # when that ends; empty without one


def stamp(moment: datetime) -> str:
    """A time as it stands in files."""
    return moment.astimezone(UTC).strftime(TIME)


def time_of(text: str) -> datetime:
    """The time that ``stamp`` wrote; a ValueError if it is none."""
    return datetime.strptime(text, TIME).replace(tzinfo=UTC)


def network_of(card: Card) -> str:
    """What users of a model rely on: the kind of network, its input and its classes."""
    rule = card.input
    return f"{card.detector} {rule.width}x{rule.height}{' fixed' if rule.fixed else ''}: {', '.join(card.classes)}"


# ---------------------------------------------------------------- keys


def keygen(name: Path, root: Path | None = None, *, days: float = 365, now: datetime | None = None) -> list[Path]:
    """Make a key, see ``signature.new_key``; with a private root key also its certificate, ``NAME.cert``.

    Raises:
        UsageError: a file is there already, or the root key cannot be used.
    """
    now = now or datetime.now(UTC)
    made = [*signature.new_key(name)]
    if root is None:
        return made
    (key,) = signature.read_keys(made[1])
    values = {"key": key, "serial": int(now.timestamp()), "expires": stamp(now + timedelta(days=days))}
    try:
        signed = signature.sign({CERTIFICATE: _canonical(values)}, root, CERTIFICATE_TITLE)
    except SqueezeDetError:
        for path in made:
            path.unlink()
        raise
    certificate = name.with_name(name.name + CERTIFICATE_SUFFIX)
    write_atomic(certificate, json.dumps(values | {"root": json.loads(signed)}, indent=2) + "\n")
    return [*made, certificate]


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True).encode()


def _read_certificate(content: bytes, roots: Collection[str], where: str) -> tuple[str, int, str]:
    """The release key, serial and expiry that a root key vouches for."""
    try:
        values = json.loads(content)
        root = values.pop("root")
        key, serial, expires = values["key"], values["serial"], values["expires"]
        time_of(expires)
        if len(values) != 3 or type(serial) is not int or not signature.KEY.fullmatch(key):
            raise ValueError("other fields")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{where}: its {CERTIFICATE} is damaged") from error
    members = {CERTIFICATE: _canonical(values), signature.MEMBER: json.dumps(root).encode()}
    signature.check_signature(members, roots, f"{where}: its {CERTIFICATE}", CERTIFICATE_TITLE)
    return key, serial, expires


# ---------------------------------------------------------------- writing


def pack(
    model: str | Path,
    out: Path,
    key: Path,
    *,
    version: int,
    base: str | Path | None = None,
    days: float = 90,
    runtime: str = __version__,
    now: datetime | None = None,
) -> Package:
    """Write a package, whole or not at all, after it was opened and tested as a device does it.

    A certificate beside the private release key (``.cert``) travels in the package. With ``base``, the model that
    devices have now, it is a delta, and only for those.

    Raises:
        UsageError: the key, the version or the base does not fit.
        ModelError: a model is damaged, or fails the test.
    """
    now = now or datetime.now(UTC)
    path = bundle.find(model)
    parts = bundle.plain_parts(path)
    card = Card.from_json(parts[CARD], str(path))
    old = {} if base is None else bundle.plain_parts(bundle.find(base))
    if old and network_of(Card.from_json(old[CARD], str(base))) != network_of(card):
        raise UsageError(f"{base}: is of another network than {path}, so there is no delta between them")
    samples, boxes = _draw_samples(_detector(parts, str(path)))
    members = {MODEL: delta.encode(old, parts), **samples}
    try:
        manifest = Manifest(
            version=version,
            network=network_of(card),
            created=stamp(now),
            expires=stamp(now + timedelta(days=days)),
            runtime=runtime,
            sha256=_sha256(bundle.plain_bytes(parts)),
            base=_sha256(bundle.plain_bytes(old)) if old else "",
            parts={name: _sha256(content) for name, content in members.items()},
            boxes=boxes,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    head = {MANIFEST: json.dumps({"format": TITLE, **asdict(manifest)}, separators=(",", ":")).encode()}
    head[signature.MEMBER] = signature.sign(head, key, TITLE)
    certificate = key.with_suffix(CERTIFICATE_SUFFIX)
    if certificate.exists():
        head[CERTIFICATE] = read_regular(certificate, LIMITS[CERTIFICATE], what="certificate", error=UsageError)
        if json.loads(head[signature.MEMBER])["key"].encode() not in head[CERTIFICATE]:
            raise UsageError(f"{certificate}: is no certificate of {key}")
    package = Package(where=out, manifest=manifest, parts=members)
    check_samples(package, build(package, old))
    write_atomic(out, bundle.zip_members(head | members, deflated=(MANIFEST,)))
    return package


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _detector(parts: Mapping[str, bytes], where: str) -> Detector:
    """The model of checked parts."""
    card = Card.from_json(parts[CARD], where)
    if _sha256(parts[GRAPH]) != card.graph_sha256:
        raise ModelError(f"{where}: the graph's checksum is not the card's")
    check_graph(parts[GRAPH], where)
    return Detector(Bundle(card, parts[GRAPH]))


def _draw_samples(detector: Detector) -> tuple[dict[str, bytes], dict[str, list[list[float]]]]:
    """Drawn pictures, and the best boxes in each."""
    drawn = []
    for seed in SEEDS:
        picture = encode_picture(Image.fromarray(generate(seed, *SAMPLE_SIZE)[0]), quality=SAMPLE_QUALITY)
        found = select(detector.raw(read_image(picture)), replace(detector.card.selection, score=0.0, vote_iou=1.0))
        reported = int((found.score >= detector.card.selection.score).sum())
        drawn.append((picture, found, reported))
        if sum(reported > 0 for _, _, reported in drawn) == SAMPLES:
            break
    drawn.sort(key=lambda sample: sample[2] == 0)  # those without an object only if need be
    samples, boxes = {}, {}
    for number, (picture, found, reported) in enumerate(drawn[:SAMPLES]):
        rows = np.column_stack([found.xyxy, found.score, found.class_id])[: max(BOXES, reported)]
        samples[SAMPLE.format(number)], boxes[SAMPLE.format(number)] = picture, np.round(rows, 4).tolist()
    return samples, boxes


# ---------------------------------------------------------------- reading


def read(path: Path, trusted: Collection[str]) -> Package:
    """Open a package and check who signed it, by root or release keys; nothing else in it is looked at before.

    Raises:
        ModelError: it is damaged, or signed by nobody who is trusted.
    """
    content = read_regular(path, MAX_PACKAGE_BYTES, what="package", error=ModelError)
    parts = bundle.all_members(content, path, LIMITS, LIMITS.keys() - {MANIFEST})
    where, serial, expires = str(path), 0, ""
    if MANIFEST not in parts:
        raise ModelError(f"{path}: has no {MANIFEST}")
    signed = {name: parts.pop(name) for name in (MANIFEST, signature.MEMBER) if name in parts}
    certificate = parts.pop(CERTIFICATE, None)
    try:
        signature.check_signature(signed, trusted, where, TITLE)
    except ModelError:
        if certificate is None or signature.MEMBER not in signed:
            raise
        key, serial, expires = _read_certificate(certificate, trusted, where)
        signature.check_signature(signed, {key}, where, TITLE)
    try:
        values = json.loads(signed[MANIFEST])
        if values.pop("format") != TITLE:
            raise ValueError("of another format")
        manifest = Manifest(**values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path}: its {MANIFEST} cannot be used ({error})") from error
    if manifest.parts.keys() != parts.keys():
        raise ModelError(f"{path}: has other parts than its {MANIFEST} says")
    for name, content in parts.items():
        if _sha256(content) != manifest.parts[name]:
            raise ModelError(f"{path}: its part {name} was changed or damaged")
    return Package(where=path, manifest=manifest, parts=parts, serial=serial, expires=expires)


def check_runtime(package: Package, now: datetime, seen: datetime | None = None) -> None:
    """Whether this squeezedet may take the package now; ``seen`` is a time that has certainly been.

    Raises:
        SqueezeDetError: the clock is wrong.
        ModelError: the package or its key has expired, or wants a later squeezedet.
    """
    manifest = package.manifest
    least = max([time_of(manifest.created), *([seen] if seen else [])])
    if now < least - CLOCK_SLACK:
        said = f"the clock says {stamp(now)}, and it was {stamp(least)} before"
        raise SqueezeDetError(f"{package.where}: {said}: set the clock")
    if now > time_of(manifest.expires):
        raise ModelError(f"{package.where}: expired at {manifest.expires}; get a newer package")
    if package.expires and now > time_of(package.expires):
        raise ModelError(f"{package.where}: the certificate of its key expired at {package.expires}")
    needed, here = ([int(n) for n in re.findall(r"\d+", release)[:3]] for release in (manifest.runtime, __version__))
    if needed > here:
        raise ModelError(f"{package.where}: needs squeezedet {manifest.runtime}, and this is {__version__}")


def build(package: Package, old: Mapping[str, bytes]) -> dict[str, bytes]:
    """The parts of the new model, bit for bit, from those of the old one, of which a whole package needs none.

    Raises:
        ModelError: what comes out is not what the manifest says.
    """
    try:
        parts = delta.decode(package.parts[MODEL], old)
    except ModelError as error:
        raise ModelError(f"{package.where}: {error}") from error
    if parts.keys() != {CARD, GRAPH} or _sha256(bundle.plain_bytes(parts)) != package.manifest.sha256:
        raise ModelError(f"{package.where}: the model that comes out is not the one that went in")
    return parts


def check_samples(package: Package, parts: Mapping[str, bytes]) -> None:
    """Run the new model on the samples of its package; a ModelError if it cannot, or finds something else."""
    detector = _detector(parts, str(package.where))
    if network_of(detector.card) != package.manifest.network:
        raise ModelError(f"{package.where}: holds another network than it says")
    total = parity.Difference()
    for name, rows in package.manifest.boxes.items():
        boxes = np.array(rows, np.float64).reshape(-1, 6)
        wanted = RawBoxes(boxes[:, :4].astype(np.float32), boxes[:, 4].astype(np.float32), boxes[:, 5].astype(np.int64))
        found = detector.raw(read_image(package.parts[name], name))
        total += parity.compare(found, wanted, detector.card.selection, chosen=True)
    tolerance = parity.INT8 if parity.is_int8(Bundle(detector.card, parts[GRAPH])) else parity.FLOAT
    if not total.within(tolerance):
        raise ModelError(f"{package.where}: the model fails its test on this machine: {total}; allowed are {tolerance}")
