"""What a device takes, and what it refuses: one sentence, and nothing is changed."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from squeezedet.cli.main import app
from squeezedet.errors import DataError, ModelError, SqueezeDetError, UsageError
from squeezedet.ota import device, package
from squeezedet.runtime import bundle, signature
from squeezedet.runtime.detector import load

from .vendor import NOW, Fleet


@pytest.fixture
def folder(fleet: Fleet, tmp_path: Path) -> Path:
    """A device with version 2 in use, and version 1 before."""
    made = tmp_path / "device"
    for path in (fleet.whole[0], fleet.delta[1]):
        device.apply(path, made, fleet.keys, now=NOW)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(kind: type[SqueezeDetError], match: str, path: Path, folder: Path, keys: Path, **more: Any) -> None:
    """It is refused by ``apply`` and by ``verify``, and nothing is changed."""
    before = contents(folder)
    for call in (lambda: device.apply(path, folder, keys, **more), lambda: device.verify(path, keys, folder, **more)):
        with pytest.raises(kind, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert contents(folder) == before


def parts_of(path: Path) -> dict[str, bytes]:
    return bundle.all_members(path.read_bytes(), path, package.LIMITS)


def signed_again(fleet: Fleet, path: Path, target: Path, **changes: Any) -> Path:
    """A package whose manifest says something else, rightly signed."""
    parts = parts_of(path)
    manifest = json.loads(parts[package.MANIFEST])
    parts[package.MANIFEST] = json.dumps(manifest | changes).encode()
    head = {package.MANIFEST: parts[package.MANIFEST]}
    parts[signature.MEMBER] = signature.sign(head, fleet.release, package.TITLE)
    target.write_bytes(bundle.zip_members(parts))
    return target


def test_there_and_back(fleet: Fleet, folder: Path) -> None:
    state = device.read_state(folder)
    assert state is not None
    assert (state.current.version, state.previous and state.previous.version, state.highest) == (2, 1, 2)
    # Bit for bit what the vendor packed, and a bundle like any other.
    assert (folder / state.current.file).read_bytes() == fleet.models[1].read_bytes()
    assert load(folder / state.current.file).card.name == "second"
    assert device.apply(fleet.delta[2], folder, fleet.keys, now=NOW)[0].current.version == 3
    assert {path.suffix for path in folder.iterdir()} == {".json", ".bundle"}
    assert len(contents(folder)) == 3  # version 1 is gone
    assert device.apply(fleet.whole[2], folder, fleet.keys, now=NOW)[1] is False  # the same again
    assert device.rollback(folder).current.version == 2
    assert len(contents(folder)) == 2
    refused(ModelError, "is version 3, and this device had 3 already", fleet.whole[2], folder, fleet.keys, now=NOW)
    with pytest.raises(UsageError, match="no earlier model"):
        device.rollback(folder)


def test_downgrades_and_replays(fleet: Fleet, folder: Path) -> None:
    refused(ModelError, "is version 1, and this device had 2 already", fleet.whole[0], folder, fleet.keys, now=NOW)
    device.rollback(folder)
    for path in (fleet.delta[1], fleet.whole[1]):
        refused(ModelError, "is version 2, and this device had 2 already", path, folder, fleet.keys, now=NOW)


def test_time(fleet: Fleet, folder: Path) -> None:
    path, keys = fleet.delta[2], fleet.keys
    late = NOW + timedelta(days=91)
    refused(ModelError, "expired at .*; get a newer package", path, folder, keys, now=late)
    refused(SqueezeDetError, "set the clock", path, folder, keys, now=NOW - timedelta(hours=1))
    device.apply(path, folder, keys, now=NOW + timedelta(days=30))
    package.pack(fleet.models[0], folder.parent / "4.ota", fleet.release, version=4, now=NOW)
    back = NOW + timedelta(days=29)  # after the package was made, and before another was taken
    refused(SqueezeDetError, "set the clock", folder.parent / "4.ota", folder, keys, now=back)


def test_strangers(fleet: Fleet, folder: Path, tmp_path: Path) -> None:
    _, other = signature.new_key(tmp_path / "other")
    refused(ModelError, "none of the trusted keys", fleet.delta[2], folder, other, now=NOW)
    unsigned = tmp_path / "unsigned.ota"
    unsigned.write_bytes(
        bundle.zip_members({n: c for n, c in parts_of(fleet.delta[2]).items() if n != signature.MEMBER})
    )
    refused(ModelError, "is not signed", unsigned, folder, fleet.keys, now=NOW)
    # The signature of a bundle is none of a package.
    parts = parts_of(fleet.delta[2])
    parts[signature.MEMBER] = signature.sign({package.MANIFEST: parts[package.MANIFEST]}, fleet.release)
    unsigned.write_bytes(bundle.zip_members(parts))
    refused(ModelError, "was changed after", unsigned, folder, fleet.keys, now=NOW)


@pytest.mark.slow
def test_a_release_key_counts_as_long_as_its_certificate(fleet: Fleet, folder: Path, tmp_path: Path) -> None:
    later = NOW + timedelta(days=1)
    package.keygen(tmp_path / "next", fleet.folder / "root.pem", days=10, now=later)
    path = tmp_path / "4.ota"
    package.pack(fleet.models[0], path, tmp_path / "next.pem", version=4, now=later)
    expired = NOW + timedelta(days=12)
    refused(ModelError, "certificate of its key expired", path, folder, fleet.keys, now=expired)
    device.apply(path, folder, fleet.keys, now=later)
    package.pack(fleet.models[1], tmp_path / "5.ota", fleet.release, version=5, now=later)
    refused(ModelError, "was replaced by a later one", tmp_path / "5.ota", folder, fleet.keys, now=later)
    # A certificate beside another key than its own is noticed by the vendor.
    (tmp_path / "next.cert").write_text("{}")
    with pytest.raises(UsageError, match="is no certificate of"):
        package.pack(fleet.models[0], path, tmp_path / "next.pem", version=7, now=later)
    # A key that is trusted itself needs no certificate, and none voids it.
    package.pack(fleet.models[1], path, fleet.folder / "root.pem", version=8, now=later)
    device.apply(path, folder, fleet.keys, now=later)
    # Where the release key is trusted itself, no certificate is needed.
    other = tmp_path / "small-fleet"
    device.apply(fleet.whole[0], other, fleet.folder / "release.pub", now=NOW)
    # Nobody but a root key vouches for another key.
    package.keygen(tmp_path / "mine", fleet.release, now=NOW)
    package.pack(fleet.models[0], path, tmp_path / "mine.pem", version=6, now=NOW)
    refused(ModelError, "none of the trusted keys", path, folder, fleet.keys, now=later)


def test_every_byte_counts(fleet: Fleet, folder: Path, tmp_path: Path) -> None:
    parts = parts_of(fleet.delta[2])
    changed = tmp_path / "changed.ota"
    for name, content in parts.items():
        middle = len(content) // 2
        wrong = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        changed.write_bytes(bundle.zip_members(parts | {name: wrong}))
        refused(ModelError, "damaged|was changed|none of the trusted", changed, folder, fleet.keys, now=NOW)
    whole = fleet.delta[2].read_bytes()
    for end in (0, 1, 50, len(whole) // 2, len(whole) - 1):
        changed.write_bytes(whole[:end])
        refused(ModelError, "damaged", changed, folder, fleet.keys, now=NOW)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "model/../../evil", "sample-99.jpg", "evil.py"])
def test_no_part_leads_out_of_the_package(fleet: Fleet, folder: Path, tmp_path: Path, name: str) -> None:
    content = bundle.zip_members(parts_of(fleet.delta[2]) | {name: b"evil"})
    (tmp_path / "evil.ota").write_bytes(content)
    refused(ModelError, "unknown part", tmp_path / "evil.ota", folder, fleet.keys, now=NOW)


def test_bombs(fleet: Fleet, folder: Path, tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts_of(fleet.delta[2]).items():
            archive.writestr(name, bytes(300_000) if name == package.MANIFEST else content)
    (tmp_path / "bomb.ota").write_bytes(file.getvalue())
    refused(ModelError, "larger than|is compressed", tmp_path / "bomb.ota", folder, fleet.keys, now=NOW)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"runtime": "99.0"}, "needs squeezedet 99.0, and this is"),
        ({"network": "convdet 1x1: cat"}, "is for the network convdet 1x1: cat, and this device has two-scale"),
        ({"version": 0}, "manifest.json cannot be used"),
        ({"version": "7"}, "manifest.json cannot be used"),
        ({"created": "yesterday"}, "manifest.json cannot be used"),
        ({"parts": {}}, "manifest.json cannot be used"),
        ({"boxes": {"sample-0.jpg": [[1]]}}, "manifest.json cannot be used"),
        ({"format": "squeezedet package 2"}, "manifest.json cannot be used"),
        ({"more": 1}, "manifest.json cannot be used"),
        ({"sha256": "0" * 64}, "is not the one that went in"),
        ({"base": "0" * 64}, "is a delta to another model; this device has version 2: send the whole package"),
    ],
)
def test_what_does_not_fit_this_device(
    fleet: Fleet, folder: Path, tmp_path: Path, changes: Mapping[str, Any], match: str
) -> None:
    path = signed_again(fleet, fleet.delta[2], tmp_path / "odd.ota", **changes)
    refused(ModelError, match, path, folder, fleet.keys, now=NOW)


def test_a_model_that_fails_its_test_is_not_taken(fleet: Fleet, folder: Path, tmp_path: Path) -> None:
    boxes = json.loads(parts_of(fleet.delta[2])[package.MANIFEST])["boxes"]
    assert all(rows[0][4] > 0.4 for rows in boxes.values())  # there is something to find
    for rows in boxes.values():
        for row in rows:
            row[0] += 200
            row[2] += 200
    path = signed_again(fleet, fleet.delta[2], tmp_path / "bad.ota", boxes=boxes)
    refused(ModelError, "fails its test on this machine", path, folder, fleet.keys, now=NOW)


def test_a_package_for_another_network(fleet: Fleet, folder: Path, tmp_path: Path) -> None:
    package.pack("street-ssd", tmp_path / "ssd.ota", fleet.release, version=9, now=NOW)
    refused(ModelError, "is for the network tiny-ssd", tmp_path / "ssd.ota", folder, fleet.keys, now=NOW)
    with pytest.raises(UsageError, match="of another network"):
        package.pack("street-ssd", tmp_path / "x.ota", fleet.release, version=9, base="street", now=NOW)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_of_keys_that_others_may_write_to(fleet: Fleet, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    keys = tmp_path / "keys" / "keys.txt"
    keys.write_bytes(fleet.keys.read_bytes())
    keys.chmod(0o666)
    refused(UsageError, "others may write to this file of keys; chmod go-w", fleet.delta[2], folder, keys, now=NOW)
    keys.chmod(0o644)
    keys.parent.chmod(0o777)
    refused(UsageError, "others may write to this file of keys", fleet.delta[2], folder, keys, now=NOW)
    keys.parent.chmod(0o755)
    device.apply(fleet.delta[2], folder, keys, now=NOW)


def test_a_delta_needs_its_base(fleet: Fleet, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="this device has no model yet: send the whole package"):
        device.apply(fleet.delta[1], tmp_path / "new", fleet.keys, now=NOW)
    assert not (tmp_path / "new").exists()
    state = device.read_state(folder)
    assert state is not None
    (folder / state.current.file).write_bytes(b"damaged")
    refused(ModelError, "was changed or damaged", fleet.delta[2], folder, fleet.keys, now=NOW)
    device.apply(fleet.whole[2], folder, fleet.keys, now=NOW)  # the way out


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "squeezedet models 1"}', "[" * 5000])
def test_a_damaged_state_is_one_sentence(fleet: Fleet, folder: Path, content: str) -> None:
    (folder / device.STATE).write_text(content)
    for call in (lambda: device.apply(fleet.delta[2], folder, fleet.keys, now=NOW), lambda: device.rollback(folder)):
        with pytest.raises(DataError, match=r"state\.json: is damaged"):
            call()


@pytest.mark.slow
def test_exit_codes(fleet: Fleet, tmp_path: Path) -> None:
    def call(*words: object) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["ota", *map(str, words)])
        return done.exit_code, done.output

    to, keys = ("--to", tmp_path / "d"), ("--keys", fleet.keys)
    assert call("rollback", *to) == (2, f"squeezedet: {tmp_path / 'd'}: no package was applied there\n")
    assert call("verify", fleet.whole[0], *keys)[0] == 0
    assert call("apply", fleet.whole[0], *to, *keys) == (0, f"{tmp_path / 'd'}: version 1 is in use\n")
    assert call("apply", fleet.whole[0], *to, *keys) == (0, f"{tmp_path / 'd'}: version 1 is in use already\n")
    assert call("apply", fleet.delta[2], *to, *keys)[0] == 4
    assert call("apply", tmp_path / "none.ota", *to, *keys)[0] == 4
    assert call("apply", fleet.delta[1], *to, "--keys", tmp_path / "none")[0] == 2
    code, said = call("pack", "street", "--key", fleet.release, "--version", 1, "--runtime", "x", "-o", tmp_path / "a")
    assert (code, "--runtime is a version" in said) == (2, True)
