"""Every chart draws what its numbers say, and is complete in itself in every format."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl
import pytest
import vl_convert
from PIL import Image

from panic.analysis import charts, dynamics
from panic.analysis.charts import bands, graph, theme
from panic.analysis.questions import (
    clusters,
    diagrams,
    drift,
    dwell,
    effects,
    entropies,
    forgetting,
    grid,
    lag,
    map,
    probes,
    recurrence,
    semantic_drift,
    shares,
    stuck,
    time,
    twins,
)
from panic.analysis.strips import thumbnail
from panic.errors import UsageError
from tests.analysis.looks import assert_looks

DOT = thumbnail(Image.new("RGB", (2, 2), "red"))[0]
STEPS = list(range(20))


def bars() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "dimension": [0, 0, 1], "birth": [0.0, 0.0, 1.0], "death": [1.5, np.inf, 2.0], "run": [1, 1, 1],
            "network": "a → b",
        }
    )  # fmt: skip


def steps() -> pl.DataFrame:
    return pl.DataFrame(
        {"network": "a → b", "run": [1] * 20 + [2] * 20, "step": STEPS * 2, "distance": np.linspace(0, 1, 40)}
    )


def runs() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "network": "a → b", "num_models": 2, "run": [1, 2, 3], "prompt": 'a "red", one', "seed": 42,
            "entry_step": [4, 0, None], "period": [2, 14, None],
        }
    )  # fmt: skip


def curve() -> pl.DataFrame:
    return pl.DataFrame(
        {"x": [1, 2], "value": [1.0, 2.0], "low": [0.5, 0.5], "high": [1.5, 1.5], "mean": [1.0, 1.0]}
    )


def labels() -> pl.DataFrame:
    return pl.DataFrame({"run": [1] * 5 + [10] * 5, "step": STEPS[1:10:2] * 2, "label": [0, 0, 1, -1, 9] * 2})


def pairs() -> pl.DataFrame:
    noise = 1 + 0.05 * np.cos(np.arange(40))
    grown = np.minimum(1e-4 * np.exp(0.5 * np.arange(40)), 1.0) * noise
    return pl.DataFrame({"network": "a → b", "pair": "a", "step": np.arange(40), "distance": grown})


def lags() -> pl.DataFrame:
    ones = {"low": [0.0, 0.1], "high": [0.0, 0.3]}
    of = {"network": "a → b", "kind": "fresh noise", "group": "a → b"}
    return pl.DataFrame({**of, "lag": [0, 1], "distance": [0.0, 0.2], "num_runs": 3, **ones})


def drifting() -> Any:
    return drift.drift_chart(drift.drift_bands(steps()), steps())


def effect_tests() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "factor": ["prompt", "network"], "within": ["", "prompt"], "measure": "where runs end",
            "effect": [0.6, 0.1], "beyond": [0.4, 0.05], "p_least": 0.001,
            "effect_name": "R squared", "baseline": [0.2, 0.05], "baseline_high": [0.3, 0.12],
            "p_value": [0.001, 0.4], "p_adjusted": [0.002, 0.4], "num_runs": 24, "num_groups": [6, 2],
        }
    )  # fmt: skip


def some_shares() -> pl.DataFrame:
    nan = float("nan")
    return pl.DataFrame(
        {
            "experiment": ["a"] * 3 + ["b"] * 3, "label": [0, 1, -1] * 2, "num_runs": 4,
            "name": ["small", "large", "outside"] * 2, "share": [0.1, 0.5, 0.4, 0.2, 0.7, 0.1],
            "low": [0.05, 0.3, 0.3, nan, nan, nan], "high": [0.2, 0.6, 0.5, nan, nan, nan],
        }
    )  # fmt: skip


def work() -> dict[str, list[Any]]:
    return {"name": ["draw"], "seconds": [2.5], "calls": [3], "items": [12]}


def spent() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "place": "worker 1", "name": ["calling", "waiting for a call"], "model": ["draw", ""],
            "at": [0.0, 0.5], "width_s": 0.5, "seconds": [0.5, 0.4],
        }
    )  # fmt: skip


def scores() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "target": ["seed"], "first": 21, "last": 31, "accuracy": [0.8], "baseline": [0.3],
            "baseline_high": [0.4], "p_value": 0.01, "p_adjusted": 0.02, "p_least": 0.001, "chance": 0.5,
            "num_runs": 12,
        }
    )  # fmt: skip


def cells() -> pl.DataFrame:
    return pl.DataFrame({"row": ["one", "two"], "column": "a → b", "image": DOT, "text": "words"})


def survival() -> pl.DataFrame:
    found = dynamics.survival([1, 2, 2, 5], [False, False, True, True])
    return found.select(pl.lit("a → b").alias("group"), pl.all())


MAKERS: dict[str, Callable[[], Any]] = {
    "time": lambda: time.calls_chart(pl.DataFrame({"stage": ["loops"], **work()})),
    "timeline of places": lambda: time.timeline(spent(), "workers"),
    "stuck": lambda: stuck.chart(runs()),
    "drift": drifting,
    "lags": lambda: lag.chart(lag.Lags(curves=lags(), movements={}, num_stuck=0, modality="text")),
    "divergence": lambda: twins.divergence(pairs(), fit=dynamics.ftle(pairs()["distance"].to_numpy())),
    "persistence": lambda: diagrams.persistence(bars()),
    "barcode": lambda: entropies.barcode(bars()),
    "entropy": lambda: entropies.entropy_by_group(
        pl.DataFrame({"group": ["a"], "run": [1], "dimension": [0], "entropy": [0.7], "num_bars": [2]})
    ),
    "map": lambda: map.embedding_map(
        steps().with_columns(x="distance", y=1 - pl.col("distance"), text=pl.lit("t"), image=pl.lit(DOT)),
        by="step",
    ),
    "timeline": lambda: clusters.cluster_timeline(labels(), names={0: "a circle"}),
    "graph": lambda: charts.transition_graph(np.array([[0.9, 0.1], [0.5, 0.5]]), names={0: "a circle"}),
    "dwell": lambda: dwell.survival_chart(survival()),
    "recurrence": lambda: recurrence.recurrence_plot(np.eye(4, dtype=bool), stride=2, first=1),
    "null rows": lambda: charts.null_band(curve().with_columns(x=pl.Series(["run 1", "run 2"]))),
    "null curve": lambda: charts.null_band(curve(), x_title="lag"),
    "probe": lambda: probes.chart(probes.Probes(scores=scores(), absent={})),
    "effects": lambda: effects.chart(effects.Effects(tests=effect_tests(), absent={})),
    "shares": lambda: shares.chart(shares.Shares(own="a", shares=some_shares())),
    "null lags": lambda: lag.chart(
        lag.Lags(
            curves=lags().with_columns(null_low=pl.Series([None, 0.1]), null_high=pl.Series([None, 0.2])),
            movements={},
            num_stuck=0,
            modality="text",
        )
    ),
    "strip": lambda: charts.run_strip(pl.DataFrame({"step": [0, 2], "image": DOT, "text": "words"})),
    "grid": lambda: grid.chart(grid.Grid(cells=cells(), has_arms=False, num_prompts=2, num_networks=1)),
}  # fmt: skip


def sources(node: Any) -> Iterator[dict[str, Any]]:
    """Every `data` of a specification, outer ones first."""
    if isinstance(node, dict):
        if isinstance(node.get("data"), dict):
            yield node["data"]
        for key, value in node.items():
            if key not in ("data", "datasets"):
                yield from sources(value)
    elif isinstance(node, list):
        for value in node:
            yield from sources(value)


def rows_of(chart: Any) -> list[pl.DataFrame]:
    """The tables that a chart draws, in the order of its layers."""
    made = chart.to_dict()
    texts = [data.get("values") or made["datasets"][data["name"]] for data in sources(made)]
    return [pl.read_csv(io.StringIO(text), infer_schema_length=None) for text in texts]


@pytest.mark.parametrize("name", MAKERS)
def test_it_draws_and_stands_alone(name):
    chart = MAKERS[name]()
    made = chart.to_dict()
    assert_looks(f"made by hand: {name}", chart)
    assert made["title"]["text"]
    assert made["config"]["range"]["category"] == list(theme.OKABE_ITO)
    svg = vl_convert.vegalite_to_svg(made, allowed_base_urls=[])
    assert "NaN" not in svg
    assert len(re.findall(r"<(?:path|rect|image|text|line)\b", svg)) > 5
    assert made["title"]["text"].split()[0] in svg
    dark = vl_convert.vegalite_to_svg(charts.themed(chart, "dark").to_dict(), allowed_base_urls=[])
    assert "#e8eaed" in dark


def test_both_themes_are_those_that_were_looked_at():
    assert_looks("theme", charts.THEMES)


def test_every_public_chart_is_tried():
    named = {name for maker in MAKERS.values() for name in maker.__code__.co_names}
    drawing = {name for name in charts.__all__ if name.islower()} - {
        "at_call", "beside_shuffles", "between_calls", "call_axis", "call_tip", "colour", "counted", "data",
        "finish", "first_names", "in_order", "intervals", "named", "names_of", "numbered", "outside", "plain",
        "save", "script_json", "seconds", "spec", "themed", "vega_bundle",
    }  # fmt: skip
    assert drawing <= named


@pytest.mark.parametrize(
    ("suffix", "begin"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<svg"), (".json", b'{"')]
)
def test_saved_files_are_what_their_name_says(tmp_path, suffix, begin):
    path = charts.save(MAKERS["recurrence"](), tmp_path / f"chart{suffix}")
    assert path.read_bytes().startswith(begin)


def test_a_character_that_xml_does_not_know_ended_the_process_that_drew_it(tmp_path):
    """In a second process, since the library does not raise, but aborts."""
    script = (
        "import altair, sys\nfrom panic.analysis import charts\n"
        "rows = [{'name': 'a\\x1b[2J\\ufffe', 'value': 1}, {'name': 'b\\x00', 'value': 2}]\n"
        "chart = altair.Chart(altair.Data(values=rows)).mark_bar().encode(x='name:N', y='value:Q')\n"
        "chart = charts.finish(chart, 'title \\x1b', 'caption \\x0b')\n"
        "for path in sys.argv[1:]: charts.save(chart, path)\n"
    )
    paths = [tmp_path / f"chart{suffix}" for suffix in (".svg", ".png", ".pdf")]
    subprocess.run([sys.executable, "-c", script, *paths], check=True, capture_output=True)
    assert all(path.stat().st_size > 100 for path in paths)
    assert "title \\x1b" in paths[0].read_text()


def test_a_png_is_larger_by_its_scale(tmp_path):
    sizes = []
    for scale in (1.0, 2.0):
        path = charts.save(MAKERS["recurrence"](), tmp_path / "chart.png", scale=scale)
        sizes.append(Image.open(path).size)
    assert sizes[1] == pytest.approx([2 * side for side in sizes[0]], abs=2)


def test_a_page_is_complete_in_itself(tmp_path):
    hostile = runs().with_columns(prompt=pl.lit("</script><script>owned()</script>"))
    path = charts.save(stuck.chart(hostile), tmp_path / "chart.html")
    page = path.read_text(encoding="utf-8")
    library = charts.vega_bundle()
    assert library in page
    rest = page.replace(library, "")
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", rest)
    assert "owned()</script>" not in rest
    assert rest.count("</script>") == 3


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no name for a chart") as error:
        charts.save(MAKERS["recurrence"](), tmp_path / "chart.docx")
    assert ".svg" in str(error.value.hint)


def test_only_ordinary_widths_follow_the_page():
    assert charts.spec(MAKERS["stuck"]())["width"] == "container"
    assert charts.spec(MAKERS["recurrence"]())["width"] == theme.SQUARE
    assert "config" not in charts.spec(MAKERS["stuck"]())
    assert "title" not in charts.spec(MAKERS["stuck"]())
    assert charts.spec(MAKERS["persistence"](), title=True)["title"]["text"] == "Persistence diagram"


def test_a_persistence_diagram_leaves_endless_bars_out_and_a_barcode_cuts_them():
    _, points = rows_of(diagrams.persistence(bars()))
    assert points["death"].to_list() == [1.5, 2.0]
    (drawn,) = rows_of(entropies.barcode(bars()))
    assert drawn["death"].to_list() == pytest.approx([2.12, 1.5, 2.0])


def test_clusters_beyond_ten_share_a_colour_and_runs_are_in_numerical_order():
    many = pl.DataFrame({"run": 1, "step": [*range(14)], "label": [*range(14)]})
    (rows,) = rows_of(clusters.cluster_timeline(many))
    others = ["other clusters", "other clusters 2", "other clusters 3"]
    assert rows["shown"].to_list()[10:] == [*others, others[0]]
    made = clusters.cluster_timeline(labels()).to_dict()
    assert made["data"]["format"]["parse"]["run"] == "number"


def test_the_clusters_that_runs_stay_in_longest_have_the_colours():
    """Clusters are numbered by their distinct outputs; one that a run never leaves may have few of them."""
    long = pl.DataFrame({"run": 1, "step": [*range(20)], "label": [*range(9), *[8] * 11]})
    made = clusters.cluster_timeline(long).to_dict()
    assert made["encoding"]["color"]["scale"]["domain"][:2] == ["cluster 8", "cluster 0"]


def test_every_network_has_clusters_with_a_colour():
    """Of the demo's two networks one had all ten colours, and the cycles of the other were grey in grey."""
    both = pl.DataFrame(
        {"run": [1] * 30 + [2] * 12, "network": ["a"] * 30 + ["b"] * 12, "step": [*range(30), *range(12)],
         "label": [*range(15)] * 2 + [*range(20, 32)]}
    )  # fmt: skip
    made = clusters.cluster_timeline(both).to_dict()["encoding"]["color"]
    assert made["scale"]["domain"][:4] == ["cluster 0", "cluster 20", "cluster 1", "cluster 21"]
    assert made["legend"]["values"][-1] == "other clusters"


def test_only_clear_effects_are_filled_and_the_largest_cluster_is_first():
    (rows,) = rows_of(effects.chart(effects.Effects(tests=effect_tests(), absent={})))[:1]
    assert rows["verdict"].to_list() == ["clear", "not clear"]
    assert rows["row"].to_list() == ["prompt · where runs end", "network within each prompt · where runs end"]
    made = shares.chart(shares.Shares(own="a", shares=some_shares()), top=1).to_dict()
    assert made["layer"][0]["encoding"]["y"]["sort"] == ["large", "outside"]
    assert "The 1 smallest clusters are not drawn" in " ".join(made["title"]["subtitle"])


def test_rare_moves_are_not_drawn():
    matrix = np.array([[0.97, 0.03, 0.0], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
    tables = rows_of(charts.transition_graph(matrix))
    moves = {move for table in tables if "move" in table.columns for move in table["move"]}
    assert moves == {"state 1 → state 2", "state 2 → state 0"}


def test_a_dot_at_0_leaves_the_label_of_its_row_alone():
    band = pl.DataFrame({"x": ["a"], "value": [0.0], "low": [0.0], "high": [1.0], "mean": [0.7]})
    made = charts.null_band(band).to_dict()
    radius = max((layer["mark"].get("size", 0) / np.pi) ** 0.5 for layer in made["layer"])
    assert made["layer"][0]["encoding"]["y"]["axis"]["labelPadding"] > radius > 5


def test_lengths_are_drawn_from_zero_and_effects_from_below_it():
    band = pl.DataFrame({"x": ["a"], "value": [2.0], "low": [0.5], "high": [1.0], "mean": [0.7]})
    lengths = charts.null_band(band).to_dict()["layer"][0]["encoding"]["x"]["scale"]
    assert lengths == {"domain": [0, 2.08]}
    effects = charts.null_band(band.with_columns(low=-0.5)).to_dict()["layer"][0]["encoding"]["x"]["scale"]
    assert "domain" not in effects


def test_states_have_the_numbers_and_names_that_they_are_given():
    made = charts.transition_graph(np.eye(2)[::-1], numbers=[4, 49], names={49: "a circle"})
    nodes = next(table for table in rows_of(made) if "stays" in table.columns)
    assert nodes.select("label", "name").rows() == [(4, "state 4"), (49, "a circle")]


def test_recurrences_stand_at_the_steps_of_the_run():
    matrix = np.array([[True, False], [False, True]])
    (rows,) = rows_of(recurrence.recurrence_plot(matrix, stride=2, first=5))
    assert rows.rows() == [(5, 7, 5, 7), (7, 9, 7, 9)]


def test_a_fit_is_a_line_of_its_rate():
    fit = dynamics.ftle(pairs()["distance"].to_numpy())
    line = rows_of(twins.divergence(pairs(), fit=fit))[-1]
    slope = np.polyfit(line["step"].to_numpy(), np.log(line["distance"].to_numpy()), 1)[0]
    assert slope == pytest.approx(0.5, rel=0.01)
    assert (line["step"].min(), line["step"].max()) == (fit.first, fit.last)


def test_bands_narrower_than_a_tick_are_drawn_as_differences():
    narrow = pl.DataFrame({"x": ["run 1"], "value": [10.2], "low": [9.95], "high": [10.05], "mean": [10.0]})
    rows = rows_of(charts.null_band(narrow))[0]
    assert rows.select("value", "low", "high").row(0) == pytest.approx((0.2, -0.05, 0.05))
    wide = rows_of(charts.null_band(narrow.with_columns(low=pl.lit(5.0))))[0]
    assert wide["value"].to_list() == [10.2]


def test_stuck_runs_that_are_alike_are_one_dot_at_their_period():
    """Dots were moved off their period at random, and labels of five runs at 0 covered each other."""
    alike = pl.concat([runs(), runs().with_columns(pl.col("run") + 10)])
    (rows,) = rows_of(stuck.chart(alike))
    assert rows.select("entry_step", "period", "turns", "num_runs").rows() == [(4, 2, 1, 2), (0, 14, 7, 2)]


def test_a_chart_for_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": [1, 2], "value": [1.0, 2.0], "low": 0.0, "high": 3.0, "mean": 1.0})
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere"):
        charts.save(charts.null_band(frame), tmp_path / "nowhere" / "x.svg")


@pytest.mark.parametrize("name", ["model.v2", "it's a[0]\\\\", "mean(x):b"])
@pytest.mark.parametrize("values", [["red", "blue"] * 20, list(range(40))], ids=["texts", "numbers"])
def test_a_column_with_a_dot_keeps_its_values(name: str, values: list[Any]) -> None:
    frame = steps().with_columns(x="distance", y="distance")
    made = [
        vl_convert.vegalite_to_vega(map.embedding_map(frame.with_columns(column), by=column.name).to_dict())
        for column in (pl.Series("plain", values), pl.Series(name, values))
    ]
    drawn = [vl_convert.vega_to_svg(one) for one in made]
    colours = [Counter(re.findall(r'(?:fill|stroke)="(#\w+|rgb[^"]+)"', svg)) for svg in drawn]
    assert colours[0] == colours[1]
    assert len(colours[0]) > 3
    assert "undefined" not in drawn[1]


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb" (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_of_clusters_are_seen_on_light_and_on_dark_ground():
    """The tenth was nearly the dark ground's, and what lies outside of all clusters was bright there."""
    for mode in ("light", "dark"):
        ground = luminance(charts.THEMES[mode]["background"])
        for colour in (*clusters.COLOURS, *clusters.OTHER_SHADES):
            dark, bright = sorted((luminance(colour), ground))
            assert (bright + 0.05) / (dark + 0.05) > 2.2, f"{colour} on {mode}"
    opacity = clusters.cluster_timeline(labels()).to_dict()["encoding"]["opacity"]
    assert opacity["condition"] == {"test": "(datum.shown === 'outlier')", "value": clusters.FAINT}
    assert "color" not in MAKERS["graph"]().to_dict()["layer"][0]["encoding"]


def test_many_categories_have_like_shades_and_a_legend_that_ends():
    """Of 45 networks every seventh had the same colour, below a legend of 45 lines."""
    few, many = (theme.colour("network", [f"n{i}" for i in range(n)]).to_dict() for n in (theme.MANY, 45))
    assert "scheme" not in few["scale"]
    assert many["scale"]["scheme"] == "viridis"
    assert len(many["scale"]["domain"]) == 45
    assert (many["legend"]["columns"], many["legend"]["symbolLimit"]) == (3, 30)


def test_labels_of_an_axis_keep_apart():
    """Vega leaves out labels that overlap only: "0.00" and "0.05" stood as "0.000.05"."""
    for mode in ("light", "dark"):
        assert charts.THEMES[mode]["axis"]["labelSeparation"] >= 4


def test_rows_are_in_the_order_in_which_names_come_and_not_in_that_of_steps():
    """They came back by step alone, and where networks were of different lengths their colours changed."""
    frame = pl.DataFrame({"network": ["b", "b", "a", "a"], "step": [3, 1, 0, 1], "value": [1, 2, 3, 4]})
    assert theme.in_order(frame, "network", "step").rows() == [
        ("b", 1, 2), ("b", 3, 1), ("a", 0, 3), ("a", 1, 4),
    ]  # fmt: skip


def test_the_library_is_put_together_once_and_ends_no_element(tmp_path, monkeypatch):
    made = []

    def bundle(code):
        made.append(code)
        return "a </script> b </script>"

    monkeypatch.setattr(vl_convert, "javascript_bundle", bundle)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a" / "cache"))
    assert theme.vega_bundle() == theme.vega_bundle()
    assert theme.vega_bundle().startswith("a <\\/script> b <\\/script>\n")
    assert theme.vega_bundle().endswith(theme.LABELS.read_text(encoding="utf-8"))
    assert made == ["window.vegaEmbed = vegaEmbed;"]
    (file,) = (tmp_path / "a" / "cache" / "panic").iterdir()
    assert file.name == f"vega-{metadata.version('vl-convert-python')}.js"
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    assert theme.vega_bundle().startswith("a <"), "no place for a cache"
    assert len(made) == 2
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    theme.vega_bundle()
    assert [one.name for one in (tmp_path / "home" / ".cache" / "panic").iterdir()] == [file.name]


def test_texts_of_1000_bytes_are_whole_and_more_are_cut():
    frame = pl.DataFrame({"text": ["x" * 1000, "y" * 1001, "data:" + "z" * 1000]})
    rows = theme.data(frame).to_dict()["values"].split()
    assert [len(row) for row in rows[1:]] == [1000, 1000, 1005]
    assert [len(name) for name in theme.names_of(frame, "text")] == [1000, 1000, 1000]


@pytest.mark.parametrize(
    ("number", "said"), [(24, ""), (25, " 1 more row is not drawn."), (26, " 2 more rows are not drawn.")]
)
def test_24_rows_are_drawn(number, said):
    frame = pl.DataFrame({"x": [f"n{i}" for i in range(number)]})
    drawn, others = theme.first_names(frame, "x", what="row")
    assert (len(drawn), others) == (24, said)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (99.96, "100"),
        (100, "100"),
        (-100.4, "-100"),
        (999_999, "999,999"),
        (1e6, "1e+06"),
        (0.12345, "0.123"),
    ],
)
def test_numbers_from_a_hundred_to_a_million_are_written_out(number, text):
    assert theme.plain(number) == text


@pytest.mark.parametrize(("width", "narrow"), [(0.0, False), (0.029, True), (0.031, False)])
def test_bands_of_less_than_3_percent_of_the_axis_are_drawn_as_differences(width, narrow):
    frame = pl.DataFrame({"value": [1.0], "low": [0.9], "high": [0.9 + width]})
    assert bands.is_narrow(frame) == narrow
    assert bands.is_narrow(frame / 100) == narrow, "of small numbers as of large ones"


def test_rows_and_curves_have_the_titles_that_they_are_given():
    rows = curve().with_columns(x=pl.Series(["run 1", "run 2"]))
    of_rows, of_curve = (
        charts.null_band(frame, x_title="which", value_title="how much").to_dict()
        for frame in (rows, curve())
    )
    assert of_rows["layer"][0]["encoding"]["y"]["title"] == "which"
    assert of_curve["layer"][0]["encoding"]["x"]["title"] == "which"
    assert of_rows["layer"][0]["encoding"]["x"]["title"] == "how much"
    plain = [charts.null_band(frame).to_dict()["layer"][0]["encoding"] for frame in (rows, curve())]
    assert plain[0]["y"]["title"] is plain[1]["x"]["title"] is None


@pytest.mark.parametrize(("columns", "side"), [(5, 116), (6, 95)])
def test_seven_pictures_are_in_two_rows(columns, side):
    frame = pl.DataFrame({"step": range(7), "image": DOT, "text": "words"})
    chart = charts.run_strip(frame, columns=columns)
    made = chart.to_dict()
    assert {layer["mark"].get("width") for layer in made["layer"]} == {side, None}
    assert (made["width"], made["height"]) == (columns * (side + 8) + 1, 2 * (side + 36))
    [rows] = rows_of(chart)[:1]
    assert rows["row"].to_list() == [place // columns for place in range(7)]


def test_a_chart_without_a_heading_has_a_specification():
    bare = alt.Chart(alt.InlineData(values=[{"x": 1}])).mark_point().encode(x="x:Q")
    for title in (False, True):
        found = charts.spec(bare, title=title)
        assert found.keys() & {"title", "description", "config"} == set()
    named = charts.spec(bare.properties(title="a text"), title=True)
    assert "title" not in named


def test_a_dot_is_filled_up_to_a_p_of_5_percent():
    frame = pl.DataFrame(
        {
            "row": ["a", "b"], "value": 0.6, "label": "x", "baseline": 0.2, "baseline_high": 0.4,
            "p_value": 0.01, "p_adjusted": [0.05, 0.0501], "p_least": 0.001, "num_runs": 3,
        }
    )  # fmt: skip
    (rows,) = rows_of(bands.beside_shuffles(frame, alt.X("value:Q", scale=alt.Scale()), []))
    assert rows["verdict"].to_list() == ["clear", "not clear"]


def test_arrows_are_of_moves_of_5_percent_or_more():
    matrix = np.array([[0.0, 0.05, 0.95], [0.049, 0.0, 0.951], [0.5, 0.5, 0.0]])
    tables = rows_of(charts.transition_graph(matrix))
    moves = {move for table in tables if "move" in table.columns for move in table["move"]}
    assert len(moves) == 5


@pytest.mark.parametrize(("names", "columns"), [(["x" * 19, "x" * 20], 0), (["x" * 20, "y" * 20], 1)])
def test_a_legend_is_in_one_row_where_half_a_page_has_room(names, columns):
    assert theme.colour("network", names).to_dict()["legend"]["columns"] == columns


def test_arrows_bend_to_their_right_and_end_at_the_rim_of_their_state():
    """Of two states above each other, of which the lower one is visited in 81 of 100 outputs."""
    matrix, weights = np.array([[0.25, 0.75], [1.0, 0.0]]), np.array([0.19, 0.81])
    nodes, edges, heads = graph._graph(matrix, weights, {4: "a", -1: "b"}, 0.05)
    assert nodes.select(pl.exclude("label", "name").round(9)).rows() == [
        (0, 1, 0, 1.24, 0.19, 0.25), (0, -1, 0, -1.24, 0.81, 0.0)
    ]  # fmt: skip
    assert nodes.select("label", "name").rows() == [("4", "a"), ("else", "b")]
    rim = 0.07 + 0.16 * 0.9
    down = edges.filter(pl.col("move") == "a → b").select("place", "x", "y").to_numpy()
    t = down[:, 0] / 23
    assert down[:, 1] == pytest.approx(2 * t * (1 - t) * -0.36)
    assert down[:, 2] == pytest.approx((1 - t) ** 2 - t**2)
    from_end = np.hypot(down[:, 1], down[:, 2] + 1)
    assert from_end.min() > rim
    after = t[-1] + 1 / 23
    assert np.hypot(2 * after * (1 - after) * 0.36, (1 - after) ** 2 - after**2 + 1) < rim
    move, x, y, angle, probability = heads.row(0)
    ahead = down[-1, 1:] - down[-2, 1:]
    assert (move, probability) == ("a → b", 0.75)
    assert (x, y) == pytest.approx(tuple(down[-1, 1:]))
    assert angle == pytest.approx(np.degrees(np.arctan2(*ahead)))
    assert 90 < angle < 180, "down and to the right"
    move, x, y, angle, probability = heads.row(1)
    assert (move, probability, x > 0 > angle > -90) == ("b → a", 1.0, True)
    alone, none, _ = graph._graph(np.array([[0.5]]), None, {0: "a"}, 0.05)
    assert alone.select("x", "y", "label_x", "label_y", "weight").row(0) == (0, 0, 0, 0.3, 1)
    assert none.is_empty()


def test_what_charts_work_out_of_their_rows_is_right():
    """Looks are written down without rows: curves of fits, bars on each other, and numbers beside dots."""
    columns = {"network": "a → b", "direction": "text → text"}
    fit = pl.DataFrame(
        {
            "amplitude": [0.5],
            "rate": [0.4],
            "level": [0.2],
            "r2": [0.9],
            "p_adjusted": [0.01],
            "num_starts": [3],
        }
    ).with_columns(num_starts=3, **{name: pl.lit(text) for name, text in columns.items()})
    curves = pl.DataFrame({**columns, "generation": [1, 2, 9], "similarity": 0.5})
    answer = semantic_drift.SemanticDrift(scores=fit, curves=curves, means=fit, unrelated={})
    seen, fitted = rows_of(semantic_drift.chart(answer)["text → text"])
    assert seen["similarity"].to_list() == [0.5] * 3
    expected = 0.5 * np.exp(-0.4 * np.array([1, 2, 9])) + 0.2
    assert fitted["similarity"].to_list() == pytest.approx(expected, abs=1e-4)

    lengths = pl.DataFrame(
        {"network": "a", "prompt": ["p", "q"], "initial": [2.0, 14.0], "final": [5.0, 9.0]}
    )
    same, lines, _ = rows_of(forgetting.chart(lengths.with_columns(slope=0.5, intercept=3.0)))
    assert same.rows() == [(0, 0), (14, 14)]
    assert lines.select("initial", "final").rows() == [(2, 4), (14, 10)]

    two = pl.concat([spent(), spent().with_columns(name=pl.lit("committing"), model=pl.lit(""))])
    (bars,) = rows_of(time.timeline(two, "workers"))
    drawn = bars.select("at", "until", "low", "high").rows()
    assert drawn == [(0, 0.5, 0, 1), (0, 0.5, 1, 2), (0.5, 1, 0, 0.8), (0.5, 1, 0.8, 1.6)]
    (calls,) = rows_of(time.calls_chart(pl.DataFrame({"stage": ["loops"], **work()})))
    assert calls.select("label", "per_item_s").row(0) == ("2.5 s", pytest.approx(2.5 / 12, abs=1e-4))

    (probed,) = rows_of(probes.chart(probes.Probes(scores=scores(), absent={})))
    assert probed.select("label", "row").row(0) == ("80 %", "seed · model calls 21 to 31")
