"""The part of YAML that data files use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.data.yaml_subset import Value, read_yaml
from squeezedet.errors import DataError

from .folders import text


def read(folder: Path, content: str) -> dict[str, Value]:
    return read_yaml(text(folder / "x.yaml", content))


def test_what_data_files_hold(tmp_path: Path) -> None:
    content = """\
# COCO128
---
path: ../datasets/coco128  # root
train: images/train#1
url: https://example.org/a:b
empty:
names:
  0: person
  "1": 'it''s'
  2: "caf\\u00e9 # no comment"
list:
- no
- a: b   # not a mapping?
""".replace("- a: b   # not a mapping?\n", "- 'x: y'\n")
    content += "flow: {a: [1, 'b, c', []], \"k\": v}\nlong: [a, # one\n  b,\n]\n"
    content += "download: |\n  import os\n    x: {\n\n  done\nlast: ~\n"
    assert read(tmp_path, content) == {
        "path": "../datasets/coco128",
        "train": "images/train#1",
        "url": "https://example.org/a:b",
        "empty": "",
        "names": {"0": "person", "1": "it's", "2": "café # no comment"},
        "list": ["no", "x: y"],
        "flow": {"a": ["1", "b, c", []], "k": "v"},
        "long": ["a", "b"],
        "download": "import os\nx: {\n\ndone",
        "last": "",
    }


@given(st.dictionaries(st.text(min_size=1), st.lists(st.text()), min_size=1))
def test_json_texts_come_back(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("yaml")
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
    assert read(folder, "\n".join(lines)) == value
    lines = [
        f"{json.dumps(k)}:" + "".join(f"\n  - {json.dumps(i)}" for i in v) for k, v in value.items()
    ]
    assert read(folder, "\n".join(lines)) == {k: v or "" for k, v in value.items()}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "the file holds no 'key: value' lines"),
        ("- a\n", "the file holds no 'key: value' lines"),
        ("a: b\nnonsense\n", ":2: 'nonsense' is no 'key: value'"),
        ("a: 1\na: 2\n", ":2: 'a' is there twice"),
        ("a: {b: 1, b: 2}\n", ":1: 'b' is there twice"),
        ("a:\n\t b: 1\n", ":2: indented by a tab"),
        ("a: 1\n  b: 2\n", ":2: unexpected indentation"),
        ("a: &x 1\n", ":1: '&x 1' is not understood"),
        ("a: !!python/object x\n", "is not understood"),
        ("a: b: c\n", ":1: 'b: c' is not understood"),
        ("a:\n- b: c\n", ":2: a mapping inside a list"),
        ("a: [1, 2\n", ":1: a bracket is not closed"),
        ("a: [1 2] 3\n", ":1: '3' behind the bracket"),
        ("a: {b, c}\n", "'b' is there twice or has no value"),
        ("a: " + "[" * 100, ":1: nested too deeply"),
        ("".join(" " * k + "a:\n" for k in range(100)), "nested too deeply"),
        ('a: "\\q"\n', "has an escape that is not understood"),
    ],
)
def test_what_is_not_understood_names_the_line(
    tmp_path: Path, content: str, complaint: str
) -> None:
    with pytest.raises(
        DataError, match=rf"x\.yaml{complaint}" if complaint[0] == ":" else complaint
    ):
        read(tmp_path, content)
