"""What all charts share: colours, fonts, how rows get into a chart, and how a chart gets into a file.

The colours are those of Okabe and Ito, which people with colour-blindness can tell apart; ordered values take
viridis. Nothing is registered with altair: a chart carries the light theme, `themed` gives it the dark one,
and `spec` takes it off again for a page that follows the reader's setting.

    save(charts.stuck_periods(load(store, "latest").runs), "stuck.html")      # or .svg, .png, .pdf, .json
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib import metadata
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal

import altair as alt
import polars as pl

from panic.analysis.grouping import grouped_by
from panic.errors import UsageError
from panic.store.codec import told_json

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A800")
OKABE_ITO_DARK = ("#56B4E9", "#E69F00", "#2CC295", "#E093BE", "#F0793A", "#8FB8FF", "#F0E442")
GREY = "#8a939c"  # reads on light and dark ground; for outliers, null bands and guides
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
FORMATS = (".html", ".svg", ".png", ".pdf", ".json")
MANY = 2 * len(OKABE_ITO)  # categories
WIDTH = 640  # of a chart that stands alone; a page replaces it by its own
SQUARE = 320  # side of charts whose two axes are alike; fits a phone
NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that no SVG can hold: the library that draws ends this process over one in a name or caption."""


def theme(ground: str, ink: str, faint: str, grid: str, colours: tuple[str, ...]) -> dict[str, Any]:
    """A Vega-Lite config: no frame, light grid, small grey labels."""
    text = {"labelColor": faint, "titleColor": faint, "labelFont": FONT, "titleFont": FONT}
    return {
        "background": ground,
        "font": FONT,
        "view": {"stroke": None},
        "mark": {"color": colours[0]},
        "range": {"category": list(colours), "ramp": {"scheme": "viridis"}},
        "axis": {
            **text, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "titlePadding": 8,
            "gridColor": grid, "domainColor": grid, "tickColor": grid, "tickSize": 4, "labelPadding": 4,
            "labelSeparation": 4,
        },
        "legend": {
            **text, "labelColor": ink, "labelFontSize": 12, "titleFontSize": 11, "titleFontWeight": "normal",
            "labelLimit": 420, "symbolStrokeWidth": 3, "symbolOpacity": 1,
        },
        "title": {
            "color": ink, "font": FONT, "fontSize": 14, "fontWeight": 600, "anchor": "start", "offset": 12,
            "subtitleColor": faint, "subtitleFont": FONT, "subtitleFontSize": 11.5, "subtitlePadding": 5,
            "subtitleLineHeight": 15,
        },
        "text": {"color": ink, "font": FONT},
    }  # fmt: skip


THEMES = {
    "light": theme("#ffffff", "#1d2329", "#5b6570", "#e6e8eb", OKABE_ITO),
    "dark": theme("#1b2025", "#e8eaed", "#9aa4ae", "#2e353c", OKABE_ITO_DARK),
}


def finish(chart: Any, title: str, caption: str = "", *, width: int = WIDTH, height: int = 300) -> Any:
    """The chart with its title, a caption of what it shows, a size and the light theme."""
    heading = (
        alt.Title(title, subtitle=_wrapped(caption, width), limit=max(width, 420) + 60)
        if title
        else alt.Undefined
    )
    made = chart.properties(width=width, height=height, title=heading)
    made.config = _config("light")
    return made


def themed(chart: Any, mode: str = "light") -> Any:
    """The chart in the "light" or "dark" theme."""
    alone = chart.copy(deep=False)
    alone.config = _config(mode)
    return alone


def spec(chart: alt.TopLevelMixin, *, title: bool = False) -> dict[str, Any]:
    """The Vega-Lite specification for a page that brings its own theme, width and headings.

    A chart of the ordinary width takes that of its place; square ones and grids of pictures keep theirs. Its
    caption becomes the `description`, which the page shows below it and screen readers say.
    """
    found: dict[str, Any] = chart.to_dict(validate=False)  # tests validate them; it takes most of the time
    found.pop("config", None)
    if found.get("width") == WIDTH:
        found["width"] = "container"
    heading = found.pop("title", None)
    if isinstance(heading, dict) and (caption := " ".join(heading.get("subtitle") or [])):
        found["description"] = caption
    if title and isinstance(heading, dict):
        found["title"] = {key: heading[key] for key in ("text",) if key in heading} | {"fontSize": 13}
    return found


def save(chart: Any, path: str | os.PathLike[str], *, scale: float = 2.0) -> Path:
    """Write a chart as HTML (complete in itself, interactive), SVG, PNG (`scale` times the size), PDF, JSON.

    Raises UsageError for another ending or a folder that is not there.
    Nothing is loaded from anywhere, neither now nor when it is opened.
    """
    import vl_convert

    path = Path(path)
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {path.parent}.")
    made = in_xml(chart.to_dict())
    match path.suffix.lower():
        case ".html":
            page = PAGE.format(
                title=_text_of(made), library=vega_bundle(), spec=script_json(made), ground=_ground(made)
            )
            path.write_text(page, encoding="utf-8")
        case ".svg":
            path.write_text(vl_convert.vegalite_to_svg(made), encoding="utf-8")
        case ".png":
            path.write_bytes(vl_convert.vegalite_to_png(made, scale=scale))
        case ".pdf":
            path.write_bytes(vl_convert.vegalite_to_pdf(made))
        case ".json":
            path.write_text(told_json(made), encoding="utf-8")
        case _:
            raise UsageError(f"{path} is no name for a chart.", hint=f"Known endings: {', '.join(FORMATS)}.")
    return path


def in_xml(value: Any) -> Any:
    """A specification, or a part of it, with characters that XML does not know as Python writes them."""
    if isinstance(value, str):
        return NOT_IN_XML.sub(lambda one: one[0].encode("unicode_escape").decode(), value)
    if isinstance(value, dict):
        return {in_xml(key): in_xml(one) for key, one in value.items()}
    return [in_xml(one) for one in value] if isinstance(value, list | tuple) else value


LABELS = Path(__file__).with_name("labels.js")
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>body {{ margin: 24px; background: {ground}; }}</style></head>
<body><div id="chart"></div><script>{library}</script>
<script type="application/json" id="spec">{spec}</script>
<script>vegaEmbed("#chart", JSON.parse(document.getElementById("spec").textContent),
  {{ actions: {{ export: true, source: false, compiled: false, editor: false }}, renderer: "svg" }});</script>
</body></html>
"""


def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, with what fits charts to their pages (`labels.js`)."""
    return f"{_library()}\n{LABELS.read_text(encoding='utf-8')}"


def _library() -> str:
    """Their script as it is, kept in the user's cache: making it takes 5 s."""
    import vl_convert

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "panic"
    file = cache / f"vega-{metadata.version('vl-convert-python')}.js"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    # A text "</script" inside the library would end the element that holds it.
    bundle = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")).replace(
        "</script", "<\\/script"
    )
    try:
        cache.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_text(bundle, encoding="utf-8")
        temporary.replace(file)
    except OSError:
        pass  # no place for a cache: put it together every time
    return bundle


def script_json(value: Any) -> str:
    """JSON that may stand in a script element: no text in it can end the element."""
    text = told_json(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


MAX_TEXT = 1000
"""Characters of a text in a chart: a prompt of 1 MB stood in every row of every chart."""


PLAIN = {ord(mark): ord(mark) + 0xFEE0 for mark in ".[]'\"\\"}
"""Their full-width forms: in a column's name Vega takes these for a path into its values, and finds none."""


def data(frame: pl.DataFrame) -> alt.InlineData:
    """Rows in the specification, to four significant digits and `MAX_TEXT` characters, as one CSV text.

    An encoding of a column with a dot, bracket, quote or backslash in its name is made by `named`.
    Altair copies and checks every value of a list of rows (6 s for 12,000) and stops at 5,000 otherwise.
    """
    text = pl.col(pl.String)
    is_long = (text.str.len_bytes() > MAX_TEXT) & ~text.str.starts_with("data:")
    short = frame.with_columns(
        pl.col(pl.Float64, pl.Float32).round_sig_figs(4),
        pl.when(is_long).then(text.str.head(MAX_TEXT)).otherwise(text),
    )
    # Said for every column: Vega-Lite guesses from the encodings and leaves orders and offsets as texts.
    short = short.rename({name: name.translate(PLAIN) for name in short.columns})
    kinds = {name: "number" if kind.is_numeric() else "string" for name, kind in short.schema.items()}
    return alt.InlineData(values=short.write_csv(), format=alt.CsvDataFormat(type="csv", parse=kinds))


def colour(field: str, order: Sequence[str], title: str | None = None, **how: Any) -> alt.Color:
    """Colours by category in a fixed order, with the legend on top; in a row if half a page has room.

    Of more than MANY categories, which no one tells apart by colour, neighbours have like shades, and the
    legend has three columns of up to 30 short names.
    """
    is_short = sum(len(name) + 4 for name in order) < 48
    legend = alt.Legend(orient="top", title=title, columns=0 if is_short else 1)
    scale = alt.Scale(domain=[name[:MAX_TEXT] for name in order])
    if len(order) > MANY:
        legend = alt.Legend(orient="top", title=title, columns=3, labelLimit=180, symbolLimit=30)
        scale.scheme = "viridis"
    return alt.Color(**named(field, "nominal"), scale=scale, legend=legend, **how)


def named(column: str, kind: Literal["nominal", "quantitative"]) -> dict[str, Any]:
    """The arguments of an encoding of a column, whatever it is called."""
    return {"field": column.translate(PLAIN), "type": kind, "title": column}


def seconds(value: float) -> str:
    """A duration as people say it."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def plain(number: float) -> str:
    """A number as people write it: three digits, and no powers of ten before a million."""
    return f"{number:,.0f}" if 100 <= abs(number) < 1e6 else f"{number:.3g}"


def names_of(frame: pl.DataFrame, column: str) -> list[str]:
    """The values of a column in order of appearance, as charts have them."""
    return [str(name)[:MAX_TEXT] for name in frame[column].unique(maintain_order=True)]


def in_order(frame: pl.DataFrame, column: str, *then: str | pl.Expr) -> pl.DataFrame:
    """The rows by the names of a column in their order of appearance, and then by further columns.

    So networks have colours by their place in the config, not in the alphabet, wherever all of them are.
    """
    placed = frame.with_row_index("_place")
    return placed.sort(pl.col("_place").min().over(column), *then, maintain_order=True).drop("_place")


MAX_ROWS = 24  # of a chart that has one for every network or model
MAX_BESIDE = 6  # networks beside each other in every row


def first_names(
    frame: pl.DataFrame, column: str, *, most: int = MAX_ROWS, what: str = ""
) -> tuple[pl.DataFrame, str]:
    """The rows of the first `most` names of a column, and what a caption says of the others ("" of none).

    what: one of them; "": what names of networks and arms tell apart.

    With one row for each of 45 networks, charts were 1,500 to 4,400 pixels tall.
    """
    names = frame[column].unique(maintain_order=True)
    num_more = len(names) - most
    if num_more <= 0:
        return frame, ""
    called = f"{what}{'s' if num_more > 1 else ''}" if what else grouped_by(names, num_more)
    others = f" {num_more:,} more {called} {'are' if num_more > 1 else 'is'} not drawn."
    return frame.filter(pl.col(column).is_in(names.head(most).implode())), others


@cache
def _config(mode: str) -> Any:
    """Made once: altair takes 0.1 s to check it."""
    return alt.Config.from_dict(THEMES[mode])


def _wrapped(text: str, width: int) -> list[str]:
    return wrap(text, max(30, int(width / 5.6))) or [""]


def _text_of(made: dict[str, Any]) -> str:
    title = made.get("title") or ""
    return escape(str(title.get("text", "") if isinstance(title, dict) else title)) or "chart"


def _ground(made: dict[str, Any]) -> str:
    return str((made.get("config") or {}).get("background") or "#ffffff")
