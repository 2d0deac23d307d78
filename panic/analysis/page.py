"""Pages that work offline: one HTML file with all it needs, which loads nothing from anywhere.

The libraries that draw the charts stand in the file once; texts are untrusted and escaped; a content security
policy in the page forbids any request.

    write_page(render_page("report.html", specs=[], title="demo", ...), "report.html")
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from panic.analysis import charts
from panic.analysis.grouping import network_name
from panic.store.provenance import short_paths

TEMPLATES = Path(__file__).parent / "templates"


def write_page(html: str, path: str | os.PathLike[str]) -> Path:
    """Write a page whole or not at all and return its path. OSError names `path` where that fails."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        temporary.write_text(html, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


def render_page(template: str, *, specs: Sequence[Any], **values: Any) -> str:
    """The page that a template makes of `values`, with charts of these Vega-Lite specifications."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "seconds": charts.seconds,
        "network": network_name,
        "moment": _moment,
        "short_paths": short_paths,
    }
    return environment.get_template(template).render(
        **values,
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "report.js").read_text(encoding="utf-8")),
        library=Markup(charts.vega_bundle()),
        specs=Markup(charts.script_json(specs)),
        themes=Markup(charts.script_json(charts.THEMES)),
    )


def _moment(at: float | None) -> str:
    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z") if at else ""
    except (ValueError, OverflowError, OSError):  # a store may say what is none
        return "no time"
