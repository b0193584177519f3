from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.media.sinks import UniqueStems, stem_of


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("photos/street.front.jpg", "street.front"),
        ("-", "stdin"),
        ("", "image"),
        ("http://example.org/a/street.jpg?w=100#x", "street"),
        ("http://example.org/gr%C3%BC%C3%9Fe.jpg", "grüße"),
        ("http://example.org/", "example.org"),
        ("http://example.org/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("http://example.org/%2e%2e/.png", "png"),
        ("http://example.org/a%00b%0Ac.png", "a_b_c"),
        ("rtsp://[fe80::1/stream", "image"),
        ("http://example.org/" + "x" * 500 + ".png", "x" * 100),
    ],
)
def test_stem(name: str, stem: str) -> None:
    assert stem_of(name) == stem


def test_same_stem_gets_a_number() -> None:
    stems = UniqueStems()
    assert [stems(n) for n in ("1/a.jpg", "2/a.jpg", "a-2.jpg", "A.png", "b.png")] == ["a", "a-2", "a-2-2", "A-3", "b"]


@given(st.lists(st.sampled_from(["a", "A", "a-2", "a-3", "A-2", "a-2-2", "b"])))
def test_stems_never_collide(names: list[str]) -> None:
    stems = UniqueStems()
    given_out = [stems(f"{name}.jpg").casefold() for name in names]
    assert len(set(given_out)) == len(names)


@given(st.text())
def test_stem_from_a_server_is_a_plain_file_name(path: str) -> None:
    stem = stem_of(f"http://example.org/{path}")
    assert stem not in ("", ".", "..")
    assert Path(stem).name == stem
    assert stem.isprintable()


def test_a_video_has_thousands_of_frames_of_one_name() -> None:
    stems = UniqueStems()
    given_out = {stems("drive.mp4") for _ in range(20_000)}
    assert len(given_out) == 20_000
    assert "drive-20000" in given_out
