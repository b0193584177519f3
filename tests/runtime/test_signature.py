"""Signed bundles: what is refused, and that nothing of a file is left out of the signature."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from squeezedet.cli.main import app
from squeezedet.errors import ModelError, UsageError
from squeezedet.runtime import DEFAULT_MODEL, bundle, signature
from squeezedet.runtime.detector import load

pytest.importorskip("cryptography")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return signature.new_key(tmp_path / "mine")


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    path = tmp_path / "signed.bundle"
    bundle.sign(bundle.find(DEFAULT_MODEL), keys[0], path)
    return path


def changed(path: Path, name: str, content: bytes | None) -> Path:
    """The bundle with another member; None leaves it out."""
    made = path.with_name("changed.bundle")
    with zipfile.ZipFile(path) as archive:
        members = {info: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(made, "w") as archive:
        for info, old in members.items():
            if info.filename != name:
                archive.writestr(info, old)
        if content is not None:
            archive.writestr(name, content)
    return made


def test_a_signed_model_opens_with_the_key_and_without(signed: Path, keys: tuple[Path, Path]) -> None:
    trusted = signature.read_keys(keys[1])
    assert bundle.read(signed, trusted_keys=trusted).graph == bundle.read(signed).graph
    assert load(signed, require_signature=keys[1]).card.name == DEFAULT_MODEL


def test_an_unsigned_one_and_a_strangers_are_refused(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    unsigned = changed(signed, signature.MEMBER, None)
    with pytest.raises(ModelError, match="is not signed"):
        load(unsigned, require_signature=keys[1])
    _, other = signature.new_key(tmp_path / "other")
    with pytest.raises(ModelError, match="none of the trusted keys"):
        load(signed, require_signature=other)


def test_every_part_is_signed(signed: Path, keys: tuple[Path, Path]) -> None:
    trusted = signature.read_keys(keys[1])
    with zipfile.ZipFile(signed) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert len(parts) > 2
    for name in parts.keys() - {signature.MEMBER}:
        with pytest.raises(ModelError, match="was changed"):
            bundle.read(changed(signed, name, parts[name] + b" "), trusted_keys=trusted)
    with pytest.raises(ModelError, match="unknown part"):
        bundle.read(changed(signed, "more.txt", b"hello"), trusted_keys=trusted)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": 1, "signature": 2}', b"[" * 5000, b"x" * 5000])
def test_a_damaged_signature_is_one_sentence(signed: Path, keys: tuple[Path, Path], content: bytes) -> None:
    with pytest.raises(ModelError, match=r"signature\.json is (damaged|larger)"):
        load(changed(signed, signature.MEMBER, content), require_signature=keys[1])


def test_a_signature_that_was_changed(signed: Path, keys: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(signed) as archive:
        text = archive.read(signature.MEMBER).decode()
    last = text.rindex('"') - 1
    other = text[:last] + ("0" if text[last] != "0" else "1") + text[last + 1 :]
    with pytest.raises(ModelError, match="was changed"):
        load(changed(signed, signature.MEMBER, other.encode()), require_signature=keys[1])


def test_keys(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert private.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="is there already"):
        signature.new_key(tmp_path / "mine")
    both = tmp_path / "keys.txt"
    both.write_text(f"# ours\n\n{public.read_text().upper()}{'ab' * 32} theirs\n")
    assert len(signature.read_keys(both)) == 2
    both.write_text("abc\n")
    with pytest.raises(UsageError, match=r"keys.txt:1: is no public key"):
        signature.read_keys(both)
    both.write_text("# nothing\n")
    with pytest.raises(UsageError, match="holds no public key"):
        signature.read_keys(both)
    with pytest.raises(UsageError, match="nowhere"):
        signature.read_keys(tmp_path / "nowhere")


def test_a_private_key_that_others_can_read_is_not_used(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    keys[0].chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        bundle.sign(bundle.find(DEFAULT_MODEL), keys[0], tmp_path / "x.bundle")
    keys[0].chmod(0o600)
    keys[0].write_text("no key\n")
    with pytest.raises(UsageError, match="is no private key"):
        bundle.sign(bundle.find(DEFAULT_MODEL), keys[0], tmp_path / "x.bundle")
    assert not (tmp_path / "x.bundle").exists()


def test_the_models_of_the_package_are_signed() -> None:
    trusted = signature.read_keys(signature.PACKAGE)
    for path in bundle.shipped().values():
        bundle.read(path, trusted_keys=trusted)


def test_a_signature_can_be_replaced(signed: Path, tmp_path: Path) -> None:
    private, public = signature.new_key(tmp_path / "second")
    bundle.sign(signed, private, signed)
    bundle.read(signed, trusted_keys=signature.read_keys(public))
    with zipfile.ZipFile(io.BytesIO(signed.read_bytes())) as archive:
        assert archive.namelist().count(signature.MEMBER) == 1


def test_the_command(tmp_path: Path) -> None:
    def call(*words: object) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["sign", *map(str, words)])
        return done.exit_code, done.output

    assert call("--new-key", tmp_path / "k")[0] == 0
    out = tmp_path / "s.bundle"
    assert call(DEFAULT_MODEL, "--key", tmp_path / "k.pem", "-o", out)[0] == 0
    assert call(out, "--check", tmp_path / "k.pub")[0] == 0
    code, said = call(out, "--check", "package")
    assert (code, "none of the trusted keys" in said) == (4, True)
    code, said = call(out)
    assert (code, "--check" in said) == (2, True)


def test_a_model_of_the_package_stays_as_it_is(keys: tuple[Path, Path]) -> None:
    before = bundle.find("street").read_bytes()
    done = CliRunner().invoke(app, ["sign", "street", "--key", str(keys[0])])
    assert (done.exit_code, "say where to write with --out" in done.output) == (2, True)
    assert bundle.find("street").read_bytes() == before
