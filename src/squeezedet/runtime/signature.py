"""Signed models: an Ed25519 signature over all parts of a bundle.

A signature says who made a file, and that nothing in it was changed since. It is one more member
of the bundle, ``signature.json``, with the public key and the signature of this message::

    squeezedet bundle 1
    card.json <sha256 in hex>
    model.onnx <sha256 in hex>          (every other member, by name)

Keys are the 32 bytes of RFC 8032 in hex. A file of trusted keys has one a line; what follows it on
the line, and lines that begin with ``#``, are remarks. A private key is a PKCS #8 file (PEM)
without password; only its owner may be able to read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from squeezedet.errors import MissingExtraError, ModelError, UsageError
from squeezedet.files import read_regular, write_atomic

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MEMBER = "signature.json"
PACKAGE_KEYS = Path(__file__).resolve().parents[1] / "weights" / "keys.txt"
PACKAGE = "package"
"""In place of a file of keys: the key that the models inside the package are signed by."""
PUBLIC_SUFFIX, PRIVATE_SUFFIX = ".pub", ".pem"
MAX_KEYS_BYTES, MAX_PRIVATE_BYTES, MAX_SIGNATURE_BYTES = 1_000_000, 10_000, 2_000
KEY, SIGNATURE = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{128}")


BUNDLE = "squeezedet bundle 1"
"""Title of what is signed; a signature for one title is worth nothing for another."""


def message(members: Mapping[str, bytes], title: str = BUNDLE) -> bytes:
    """What is signed of a bundle: its members, without a signature that is among them."""
    lines = [title]
    for name in sorted(members.keys() - {MEMBER}):
        lines.append(f"{name} {hashlib.sha256(members[name]).hexdigest()}")
    return "\n".join([*lines, ""]).encode()


def sign(members: Mapping[str, bytes], private_key: Path, title: str = BUNDLE) -> bytes:
    """The member ``signature.json`` for the members of a bundle, or of another file with this title.

    Raises:
        UsageError: the private key cannot be read, or others may read it.
        MissingExtraError: ``cryptography`` is not installed.
    """
    key = _private_key(private_key)
    values = {"key": _public_hex(key), "signature": key.sign(message(members, title)).hex()}
    return (json.dumps(values, indent=2) + "\n").encode()


def check_signature(members: Mapping[str, bytes], trusted: Collection[str], where: str, title: str = BUNDLE) -> None:
    """Find out whether one of the trusted keys has signed a bundle, or another file with this title.

    Args:
        members: all of them.
        trusted: public keys in hex, see ``read_keys``.
        where: the file's path, for errors.
        title: see ``BUNDLE``.

    Raises:
        ModelError: it is not signed, by another key, or was changed since.
        MissingExtraError: ``cryptography`` is not installed.
    """
    if MEMBER not in members:
        raise ModelError(f"{where}: is not signed, and only what is signed is taken")
    key, signature = _parse(members[MEMBER], where)
    if key not in trusted:
        raise ModelError(f"{where}: is signed by {key[:16]}..., which is none of the trusted keys")
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ModuleNotFoundError as error:
        raise MissingExtraError("checking a signature", "sign") from error
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), message(members, title))
    except (InvalidSignature, ValueError) as error:
        raise ModelError(f"{where}: was changed after {key[:16]}... signed it") from error


def _parse(content: bytes, where: str) -> tuple[str, str]:
    try:
        if len(content) > MAX_SIGNATURE_BYTES:
            raise ValueError("too large")
        values = json.loads(content)
        key, signature = values["key"], values["signature"]
        if not (KEY.fullmatch(key) and SIGNATURE.fullmatch(signature)):
            raise ValueError("not in hex")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelError(f"{where}: its {MEMBER} is damaged") from error
    return key, signature


# ---------------------------------------------------------------------------------- keys


def read_keys(source: str | Path) -> frozenset[str]:
    """The public keys of a file; ``package`` stands for that of the models inside the package.

    Raises:
        UsageError: the file cannot be read, or has a line that is no key, or none at all.
    """
    path = PACKAGE_KEYS if str(source) == PACKAGE else Path(source)
    content = read_regular(path, MAX_KEYS_BYTES, what="file of keys", error=UsageError)
    keys = set()
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if not KEY.fullmatch(words[0].lower()):
            raise UsageError(f"{path}:{number}: is no public key (64 digits in hex)")
        keys.add(words[0].lower())
    if not keys:
        raise UsageError(f"{path}: holds no public key")
    return frozenset(keys)


def new_key(name: Path) -> tuple[Path, Path]:
    """Make a key: ``NAME.pem``, which only its owner can read, and ``NAME.pub``; their paths.

    Raises:
        UsageError: one of the files is there already.
        SqueezeDetError: they cannot be written.
        MissingExtraError: ``cryptography`` is not installed.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ModuleNotFoundError as error:
        raise MissingExtraError("making a key", "sign") from error
    private, public = (name.with_name(name.name + s) for s in (PRIVATE_SUFFIX, PUBLIC_SUFFIX))
    for path in (private, public):
        if path.exists():
            raise UsageError(f"{path}: is there already; a key is not overwritten")
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        private.parent.mkdir(parents=True, exist_ok=True)
        # Never readable by others, not even for a moment; and never over a file that is there.
        with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    except OSError as error:
        raise UsageError(f"{private}: cannot be written ({error.strerror})") from error
    write_atomic(public, f"{_public_hex(key)} {name.name}\n")
    public.chmod(0o644)  # whatever the umask: who may write to it decides who is trusted
    return private, public


def _private_key(path: Path) -> Ed25519PrivateKey:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ModuleNotFoundError as error:
        raise MissingExtraError("signing", "sign") from error
    content = read_regular(path, MAX_PRIVATE_BYTES, what="private key", error=UsageError)
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UsageError(f"{path}: others may read or write this private key; chmod 600 it first")
    try:
        key = load_pem_private_key(content, password=None)
    except (UnsupportedAlgorithm, ValueError, TypeError) as error:
        raise UsageError(f"{path}: is no private key without password (PEM)") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path}: is no Ed25519 key")
    return key


def _public_hex(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()
