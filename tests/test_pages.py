"""Pages: escaped, held to fetch nothing, one style."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from squeezedet import pages
from squeezedet.charts import Series, line_chart
from squeezedet.errors import MissingExtraError

BODY = """{% extends "base.html" %}{% import "macros.html" as m %}
{% block body %}<h1>{{ title }}</h1>
{{ m.table([["a", "b"], ["<x>", bar(0.5)]], "<caption>") }}{{ m.figure(chart, "<c>") }}
{{ m.image(url, "<alt>") }}{{ m.notes(["<note>"]) }}{{ 0.4137 | percent }} {{ 12345 | number }}
{% endblock %}"""


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    for path in pages.TEMPLATES.iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "mine.html").write_text(BODY)
    monkeypatch.setattr(pages, "TEMPLATES", tmp_path)
    pages._environment.cache_clear()
    chart = pages.svg(line_chart("<t>", [Series("s", [0, 1], [0, 1])]))
    url = pages.picture_url(Image.new("RGB", (2, 2)))
    text = pages.render("mine.html", title="<T>", chart=chart, url=url)
    pages._environment.cache_clear()
    return text


def test_all_is_escaped_but_charts(page: str) -> None:
    for text in ("<x>", "<T>", "<c>", "<alt>", "<note>", "<caption><"):
        assert text not in page
    assert "&lt;x&gt;" in page and "<h1>&lt;T&gt;</h1>" in page
    assert page.count('<svg class="chart"') == 2 and "41.4 12,345" in page


def test_a_page_fetches_nothing(page: str) -> None:
    assert "default-src 'none'; img-src data:" in page and "<script" not in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert page.count("<style>") == 2  # of pages, and of charts, once each


def test_both_modes(page: str) -> None:
    assert page.count("prefers-color-scheme:dark") == 2


def test_a_missing_value_is_an_error(tmp_path: Path) -> None:
    import jinja2

    environment = pages._environment()
    with pytest.raises(jinja2.UndefinedError):
        environment.from_string("{{ nothing }}").render()


def test_jinja_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    pages._environment.cache_clear()
    with pytest.raises(MissingExtraError, match=r"squeezedet\[eval\]"):
        pages.check_installed()
