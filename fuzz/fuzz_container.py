"""A target for Atheris, a coverage-guided fuzzer: a container of any bytes.

    pip install atheris
    python fuzz/fuzz_container.py -max_total_time=600 -max_len=4096 CORPUS

The first byte says what the others are: a container as it is, the same with its checksums made
right (or nothing behind them would be reached), or one encoded tensor. A ``ModelError`` of one
line is an answer; everything else is a bug, and so is a tensor that decodes to another length.
"""

from __future__ import annotations

import contextlib
import json
import struct
import sys
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["squeezedet"]):
    import numpy as np

    from squeezedet.coding import container, tensor
    from squeezedet.errors import ModelError

SIZE = 3600
PLAIN, REPAIRED, TENSOR = range(3)


def judge(data: bytes) -> None:
    """One input, once."""
    if not data:
        return
    kind, content = data[0] % 3, data[1:]
    try:
        if kind == TENSOR:
            found = tensor.decode_tensor(content, (SIZE,))
            if found.shape != (SIZE,):
                raise AssertionError(found.shape)
        else:
            container.unpack(repaired(content) if kind == REPAIRED else content, "it.sqz")
    except ModelError as error:
        if "\n" in str(error):
            raise AssertionError(str(error)) from error


def repaired(content: bytes) -> bytes:
    """A container of this content: a header in JSON up to the first zero, then the sections."""
    text, _, rest = content.partition(b"\0")
    with contextlib.suppress(ValueError, TypeError, KeyError, IndexError, AttributeError):
        text, rest = with_checksums(json.loads(text), rest)
    packed = zlib.compress(text, 1)
    sizes = (len(packed), len(text), zlib.crc32(packed))
    head = container.PREAMBLE.pack(container.MAGIC, container.VERSION, *sizes)
    return head + packed + rest


def with_checksums(header: dict[str, list], rest: bytes) -> tuple[bytes, bytes]:
    """The header as it must be for these sections, the two deflated ones as they are inflated."""
    sections, at = [], 0
    for name in ("card", "template"):
        size = header[name][1]
        plain = rest[at : at + size]
        at += size
        sections.append(zlib.compress(plain, 1))
        header[name] = [len(sections[-1]), size, zlib.crc32(sections[-1])]
    for row in header["tensors"]:
        sections.append(rest[at : at + row[3]])
        at += row[3]
        row[4] = zlib.crc32(sections[-1])
    return json.dumps(header).encode(), b"".join(sections)


def seeds() -> list[bytes]:
    """Inputs from which to start: each form of a tensor, and a container of them all."""
    rng = np.random.default_rng(0)
    few = np.where(rng.random((20, 20, 9)) < np.linspace(0, 1, 20)[:, None], 1, 0)
    tensors = [
        np.eye(60, dtype=np.float32),
        (few * rng.integers(1, 9, few.shape)).astype(np.float32),
        rng.normal(size=SIZE).round(1).astype(np.float32),
        rng.normal(size=SIZE).astype(np.float32),
    ]
    coded = {f"t{i}": tensor.encode_tensor(values) for i, values in enumerate(tensors)}
    graph = b"-".join(values.tobytes() for values in tensors)
    whole = container.pack(b"{}", graph, coded)
    size, inflated = struct.unpack_from("<II", whole, 10)
    header = zlib.decompress(whole[22 : 22 + size])
    if len(header) != inflated:
        raise AssertionError(inflated)
    plain = header + b"\0" + b"{}" + b"-" * (len(tensors) - 1) + b"".join(coded.values())
    found = [bytes([PLAIN]) + whole, bytes([REPAIRED]) + plain]
    return found + [bytes([TENSOR]) + content for content in coded.values()]


def main() -> None:
    """Fill the corpus if its folder is empty, then fuzz."""
    folders = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    if folders and folders[0].is_dir() and not any(folders[0].iterdir()):
        for i, seed in enumerate(seeds()):
            (folders[0] / f"seed{i}").write_bytes(seed)
    atheris.Setup(sys.argv, judge)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
