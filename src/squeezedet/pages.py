"""HTML pages from the templates in ``templates/``: one style, one security policy, no network.

A page extends ``base.html`` (blocks ``title``, ``body``) and may import ``macros.html``:

    write_page(folder / "index.html", "training.html", title="Run 5", charts=[svg(chart)], ...)
    text = render("training.html", title="Run 5", ...)

Everything is escaped. A chart goes in by ``svg(line_chart(...))``, a picture by
``picture_url(image)``, a bar for a table's cell by the global ``bar(part)``. A table is
``{{ m.table(rows, caption) }}`` after ``{% import "macros.html" as m %}``: its first row is the
heading. Filters: ``percent`` (0.413 -> 41.3), ``number`` (12345 -> 12,345).
"""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squeezedet.charts import STYLE, bar
from squeezedet.errors import MissingExtraError
from squeezedet.files import write_atomic
from squeezedet.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL.Image import Image

PAGE = "index.html"
"""How the page of a folder is named."""
TEMPLATES = Path(__file__).parent / "templates"
JPEG_QUALITY = 85


def render(template: str, /, **values: Any) -> str:
    """A page as text; ``template`` is a file name in ``templates/``.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    return _environment().get_template(template).render(version=__version__, **values)


def write_page(path: Path, template: str, /, **values: Any) -> Path:
    """Write a page whole or not at all; its path.

    Raises:
        MissingExtraError: jinja2 is not installed.
        SqueezeDetError: the file cannot be written.
    """
    write_atomic(path, render(template, **values))
    return path


def check_installed() -> None:
    """Whether pages can be made here: called before long work that ends with a page.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    _environment()


def svg(chart: str) -> Any:
    """A chart of ``squeezedet.charts`` as a value that a template puts in as it is."""
    _environment()
    from markupsafe import Markup

    return Markup(chart.replace(STYLE, "", 1))  # noqa: S704 (base.html has the style once)


def picture_url(picture: Image, kind: str = "JPEG") -> str:
    """A picture as a data URL, ``kind`` is "JPEG" or "PNG"."""
    content = io.BytesIO()
    picture.save(content, kind, quality=JPEG_QUALITY)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("an HTML page", "eval") from error
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["chart_style"] = Markup(STYLE)  # noqa: S704 (our own text)
    environment.globals["bar"] = lambda part: Markup(bar(part))  # noqa: S704
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}"
    environment.filters["number"] = lambda value: f"{value:,}"
    return environment
