"""The report of real stores: what it says, that it loads nothing, that a browser draws it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panic.analysis import charts
from panic.analysis.evidence import Evidence
from panic.analysis.questions import stuck, time
from panic.analysis.report import (
    PICTURE_BUDGET_BYTES,
    _groups,
    _models,
    _notes,
    key_figures,
    render,
    short_paths,
    write_report,
)
from panic.analysis.strips import Thumbnails, strip
from panic.errors import NotFound
from panic.store import NewRun, Store, reading, writing
from tests.analysis.conftest import HOSTILE, NETWORK, Bench
from tests.patience import LONGEST_S
from tests.referee.designs import DESIGNS
from tests.referee.worlds import evidence_of

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def page(bench: Bench, budget: int = PICTURE_BUDGET_BYTES) -> str:
    return render(bench.store, reading.experiment(bench.store, "demo"), picture_budget_bytes=budget)


def without_library(html: str) -> str:
    """The page without its longest script, Vega."""
    return html.replace(max(re.findall(r"<script>.*?</script>", html, re.DOTALL), key=len), "")


def specs(html: str) -> list[dict]:
    return json.loads(re.search(r'id="specs">(.*?)</script>', html, re.DOTALL)[1])


def test_it_says_what_was_run_and_what_came_out(full, tmp_path):
    path = write_report(full.store, "demo", tmp_path / "report.html")
    assert path == tmp_path / "report.html"
    assert [p.name for p in tmp_path.glob("report*")] == ["report.html"]
    html = path.read_text(encoding="utf-8")
    for text in (
        "<b>draw</b><i>→</i><b>tell</b>", "stuck from model call 0, period 10 calls", "(5 turns)",
        "failed at model call 4: output",
        "the caption was &lt;empty&gt;",
        "1 run failed; what was computed before is kept and counted", "torch 2.13.0", "a processor, 2 cores",
        "panic run demo.yaml", "steps 2", "draw-fingerp", "1 of 1 run with a fixed seed repeats itself",
        "Drift of the texts from the prompt · embed", "Persistence diagrams · embed",
    ):  # fmt: skip
        assert text in html
    assert html.count('<img src="data:image/webp;base64,') == 12
    for title in (
        "When runs get stuck, and how", "Where the pictures ended", "Does it wander or come back? · embed",
        "Map · embed", "Clusters in time · embed", "Has it been here before?", "Persistence entropy · embed",
    ):  # fmt: skip
        assert html.count(f"<h2>{title}</h2>") == 1
    assert html.count("data-chart=") == len(specs(html)) == 19
    assert html.count("<figcaption>Thick: median of runs (at most 3 of one network)") == 1
    assert "Where runs end: 3 runs that have ended are needed, found 2." in html


def test_it_loads_nothing(full):
    html = without_library(page(full))
    assert len(html) < 100_000
    assert "default-src 'none'" in html
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", html)
    assert not re.search(r"@import|url\(|<link|<iframe|fetch\(|XMLHttpRequest", html)
    without_namespaces = html.replace("https://vega.github.io/schema/vega-lite/", "")
    assert "http" not in without_namespaces.replace('<meta http-equiv="Content-Security-Policy"', "")


def test_texts_are_escaped_everywhere(full):
    html = page(full)
    assert HOSTILE not in html
    assert "<img src=x" not in html
    assert "a red house &lt;/script&gt;&lt;img src=x onerror=" in html


def test_names_cannot_end_the_script_that_holds_the_charts(bench):
    name = "</script><script>"
    bench.models[name] = bench.models["tell"]
    bench.add("a start", ["one"], network=(name,))
    bench.embed({"a start": np.ones(2), "one": np.ones(2)})
    html = page(bench)
    assert html.count("</script>") == 4
    assert name in json.dumps(specs(html))


def test_a_network_whose_runs_are_points_is_named_beside_the_diagrams_of_others(full):
    run = full.add("a start", ["text 0"] * 3, network=("tell",))
    full.diagram(run, np.ones((3, 2)))
    html = page(full)
    assert "Every run of tell is a single point" in html
    assert [spec["title"]["text"] for spec in specs(html) if "runs)" in str(spec.get("title"))] == [
        "draw → tell  (2 runs)"
    ]


def test_an_experiment_that_has_not_begun_says_so(make_bench):
    html = page(make_bench(embeddings=[], diagrams=None))
    for text in (
        "No run has begun yet",
        "No model has been called yet",
        "asks for no embeddings",
        "asks for no diagrams",
    ):
        assert text in html
    assert specs(html) == []


def test_an_experiment_without_vectors_yet_says_so(bench):
    bench.add("a start", ["one"])
    html = page(bench)
    assert "A process is working on it: 1 run has not ended" in html
    assert "No vectors of prompts and texts, or of pictures, under embed yet" in html
    assert "No diagrams have been computed yet" in html
    assert "not ended" in html


def test_an_experiment_that_was_interrupted_says_so(bench, tmp_path):
    bench.add("a start", ["one"])
    writing.end_session(bench.store, bench.session, "interrupted")
    assert "nobody works on it; `panic resume` goes on" in page(bench)


def test_a_finished_experiment_is_complete(bench, tmp_path):
    bench.add("a start", ["one"], max_length=2)
    writing.end_session(bench.store, bench.session, "done")
    bench.store.close()
    with Store(tmp_path / "store") as store:  # as the command line opens it
        html = write_report(store, "latest", tmp_path / "r.html").read_text(encoding="utf-8")
    assert '<span class="badge complete">complete</span>' in html
    assert "The one run with a fixed seed is not stuck so far" in html


def test_pictures_beyond_the_budget_are_mentioned(full):
    html = page(full, budget=300)
    assert re.search(r"\d+ more pictures are left out", html)
    assert "no picture" in html


def test_equal_texts_have_a_report(bench):
    """A run that says one thing only: one point, no finite bars, no drift."""
    run = bench.add("a start", ["a start"] * 5)
    vector = np.ones(3)
    bench.embed({"a start": vector})
    bench.diagram(run, vector[None].repeat(5, axis=0))
    html = page(bench)
    assert "there are no finite bars" in html
    assert "draw → tell 0.00 at model call 9" in html


def test_a_report_that_cannot_be_written_leaves_nothing_behind(full, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_report(full.store, "demo", tmp_path / "taken")
    assert [path.name for path in tmp_path.glob("taken*")] == ["taken"]


def test_an_unknown_experiment_writes_nothing(full, tmp_path):
    with pytest.raises(NotFound):
        write_report(full.store, "other", tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_durations_read_as_people_say_them():
    assert [charts.seconds(s) for s in (7200, 90, 2.5, 0.012, 4e-5, 0)] == [
        "2 h", "1.5 min", "2.5 s", "12 ms", "40 µs", "0 µs"
    ]  # fmt: skip


def test_charts_stand_alone_in_both_themes(full):
    import vl_convert

    chart = time.chart(time.table(full.evidence))["calls"]
    for mode, ink in (("light", "#1d2329"), ("dark", "#e8eaed")):
        svg = vl_convert.vegalite_to_svg(charts.themed(chart, mode).to_dict())
        assert "persistence diagrams" in svg
        assert ink in svg


def test_fresh_noise_is_never_called_stuck(bench):
    bench.add("a start", ["one"], seed=-1)
    assert "none can be stuck" in stuck.summary(reading.runs(bench.store, "demo"))


def opened(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The page as a browser has it after its scripts, and what it complained about."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium here")
    return subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--user-data-dir={path.parent / 'profile'}", "--virtual-time-budget=10000", "--dump-dom",
            *options, path.as_uri(),
        ],
        capture_output=True, text=True, timeout=LONGEST_S, check=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_browser_draws_every_chart_without_a_complaint(full, tmp_path):
    done = opened(write_report(full.store, "demo", tmp_path / "report.html"))
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert 'data-drawn="19"' in done.stdout
    assert len(re.findall(r'<svg[^>]* class="marks"', done.stdout)) == 19
    assert "data-owned" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("design", ["failing", "few"])
def test_no_chart_lacks_what_its_axes_are_of(design, tmp_path):
    """Intervals over prompts, of which there are too few: `Infinite extent for field "low"`."""
    world = DESIGNS[design].make(np.random.default_rng(0))
    with evidence_of(replace(world, others=[replace(world, name="other")])) as evidence:
        path = tmp_path / "report.html"
        path.write_text(render(evidence.store, evidence.experiment), encoding="utf-8")
    done = opened(path)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []


MEASURING = """<script>
const timer = setInterval(() => {
  if (document.body.dataset.drawn === undefined) return;
  clearInterval(timer);
  const table = document.querySelector("#setup .scroll");
  const found = { table: [table.scrollWidth, table.clientWidth], labels: 0, covered: [], legends: [] };
  found.cut = [];
  found.charts = Math.max(...[...document.querySelectorAll("[data-chart]")].map((one) => one.clientWidth));
  found.page = document.documentElement.scrollWidth;
  for (const chart of document.querySelectorAll(".chart svg")) {
    const boxes = (what) =>
      [...chart.querySelectorAll(what)].map((one) => [one, one.getBoundingClientRect()]);
    const end = chart.getBoundingClientRect().right;
    for (const [name, box] of boxes(".role-legend text")) {
      found.legends.push(name.textContent);
      if (box.right > end) found.cut.push(name.textContent);
    }
    const marks = boxes(".role-mark.mark-symbol path");
    for (const [label, box] of boxes(".role-axis-label text")) {
      found.labels += 1;
      const hit = marks.some(([mark, dot]) => getComputedStyle(mark).opacity > 0
        && Math.min(box.right, dot.right) - Math.max(box.left, dot.left) > 1
        && Math.min(box.bottom, dot.bottom) - Math.max(box.top, dot.top) > 1);
      if (hit) found.covered.push(label.textContent);
    }
  }
  document.body.dataset.found = JSON.stringify(found);
}, 50);
</script></body>"""


def measured(html: str, tmp_path: Path, width: int) -> dict[str, Any]:
    """What a browser finds on a page of so many pixels: widths of the setup, labels that are hidden.

    Its windows are never narrower than 500 pixels, so the page is told its width, too.
    """
    path = tmp_path / "report.html"
    body, _, end = html.rpartition("</body>")  # the library of the charts has one, too
    narrow = f"<style>html {{ width: {width}px !important; }}</style>"
    path.write_text(f"{body}{narrow}{MEASURING}{end}", encoding="utf-8")
    done = opened(path, f"--window-size={width},1000")
    return json.loads(unescape(re.search(r'data-found="([^"]*)"', done.stdout)[1]))


@pytest.mark.slow
def test_the_table_of_models_fits_a_window_of_1300_pixels(bench, tmp_path):
    """Names, sources and parameters as long as they come; it was cut at its right end."""
    spec = {
        "modalities_in": ["image"], "modality_out": "text", "revision": "0123456789abcdef" * 2 + "01234567",
        "base": "an-organisation-with-a-name/A-Model-Of-Many-Words-Instruct-2512-preview",
        "parameters": {f"parameter_{number}": number / 3 for number in range(12)}, "licence": "Apache-2.0",
    }  # fmt: skip
    model = writing.add_model(bench.store, "a-captioner-with-a-long-name_and_settings", "f" * 64, spec)
    bench.models["long"] = model
    for number in range(2):
        writing.add_epoch(bench.store, bench.experiment, "long", model=model, batch_size=128 >> number,
                          device_kind="cuda:NVIDIA GeForce RTX 4090", threads=1)  # fmt: skip
    config = bench.config | {"networks": [["draw", "long"]]}
    writing.start_experiment(bench.store, "demo", config)
    bench.add("a start", ["one"], network=("draw", "tell"))
    found = measured(page(bench), tmp_path, 1300)
    assert found["table"][0] <= found["table"][1]
    assert found["page"] <= 1300


@pytest.mark.slow
def test_no_legend_is_cut_on_a_phone(tmp_path):
    """Those beside rows with long labels ended early, and line styles came after the names of networks."""
    world = DESIGNS["slow mixing"].make(np.random.default_rng(0))
    names = [("PocketDiffusion", "PocketCaptioner"), ("PocketDiffusion-B", "PocketCaptioner-B")]
    runs = [
        replace(run, network=names[place % 2], seed=(42, -1)[place // 2 % 2], repeat=place)
        for place, run in enumerate(world.runs)
    ]
    with evidence_of(replace(world, runs=runs)) as evidence:
        found = measured(render(evidence.store, evidence.experiment), tmp_path, 390)
    assert found["charts"] < 390
    assert {"fresh noise", "fixed seed", "PocketDiffusion-B → PocketCaptioner-B"} <= set(found["legends"])
    assert found["cut"] == []


@pytest.mark.slow
@pytest.mark.parametrize("design", ["no effect", "stuck, by prompt"])
def test_no_dot_covers_the_label_of_an_axis(design, tmp_path):
    """Five runs at 0 hid the labels of their rows."""
    with evidence_of(DESIGNS[design].make(np.random.default_rng(0))) as evidence:
        html = render(evidence.store, evidence.experiment)
    found = measured(html, tmp_path, 1300)
    assert found["labels"] > 100
    assert found["covered"] == []


def test_the_origin_tells_of_no_disk(make_bench):
    """Command, folder and checkout of a session stood on the page with their absolute paths."""
    bench = make_bench()
    said = {"command": ["/home/ann/panic/__main__.py", "run"], "folder": "/home/ann/loops",
            "git": {"root": "/home/ann/panic", "commit": "f" * 40, "dirty": False}}  # fmt: skip
    writing.start_session(bench.store, bench.experiment, "panic run", said)
    written = page(bench)
    assert "/home/ann" not in written
    assert "__main__.py run" in written
    assert "panic ffffffffffff" in written


def test_names_of_models_tell_of_no_disk(make_bench):
    """A class in a file, and weights in a folder, stood on the page with where they lie."""
    models = {"own": {"base": "python:/home/ann/own.py:Own"}, "sd": {"base": "local:/home/ann/weights"}}
    written = page(make_bench(models=models))
    assert "/home/ann" not in written
    assert "python:own.py:Own" in written
    assert "local:weights" in written


def test_no_absolute_path_is_on_the_page():
    assert short_paths("panic run /home/ann/panic/configs/demo.yaml --store /data/s") == (
        "panic run demo.yaml --store s"
    )
    for kept in ("a/b", "https://example.org/a/b", "half / half", "runwayml/sd", "../x/y"):
        assert short_paths(kept) == kept


def noted(bench: Bench, state: str = "complete", **numbers: int) -> dict[str, str]:
    """The notes of a report without strips, of an experiment with so many runs in a state."""
    counts = replace(reading.counts(bench.store, "demo"), todo=0, running=0, **numbers)
    return _notes([], counts, state, [], [], Thumbnails(bench.store, 0))


def test_what_is_still_open_is_told_by_who_works_on_it(bench):
    assert noted(bench) == {"state": "", "strips": "", "pictures": ""}
    assert noted(bench, "interrupted")["state"].startswith("Embeddings or diagrams may be missing")
    one, two = ({"todo": 0, "running": 1}, {"todo": 1, "running": 1})
    told = [noted_open(bench, state, **open_) for state in ("running", "interrupted") for open_ in (one, two)]
    assert told == [
        "A process is working on it: 1 run has not ended. This page is a snapshot.",
        "A process is working on it: 2 runs have not ended. This page is a snapshot.",
        "1 run has not ended and nobody works on it; `panic resume` goes on.",
        "2 runs have not ended and nobody works on them; `panic resume` goes on.",
    ]


def noted_open(bench: Bench, state: str, todo: int, running: int) -> str:
    counts = replace(reading.counts(bench.store, "demo"), todo=todo, running=running)
    return _notes([], counts, state, [], [], Thumbnails(bench.store, 0))["state"]


def not_begun(bench: Bench) -> None:
    new = NewRun(network=NETWORK, prompt="a start", seed=-1, repeat=9, max_length=2)
    writing.add_runs(bench.store, bench.experiment, [new])


def test_what_is_left_out_of_strips_is_told(bench):
    for repeat in range(3):
        bench.add("a start", [f"t{i}" for i in range(13)], max_length=26, seed=-1, repeat=repeat)
    not_begun(bench)
    runs, counts = reading.runs(bench.store, "demo"), reading.counts(bench.store, "demo")
    thumbnails = Thumbnails(bench.store, 10**6)

    def notes(shown, max_tiles):
        strips = [strip(bench.store, run, thumbnails, max_tiles) for run in shown]
        return _notes(runs, counts, "complete", shown, strips, thumbnails)["strips"]

    assert notes(runs[:3], 24) == ""
    assert notes(runs[:2], 13) == "2 of 3 runs are shown, spread over networks, kinds of seed and prompts. "
    assert notes(runs[:3], 12) == "Long runs show their first and last 12 pictures or texts."
    thumbnails.num_left_out, thumbnails.num_missing = 1234, 2
    pictures = _notes(runs, counts, "complete", runs, [], thumbnails)["pictures"]
    assert pictures == (
        "1,234 more pictures are left out to keep this file small. "
        "2 pictures are missing from the store (`panic check`)."
    )


def test_numbers_at_the_top_by_hand(full):
    counts, runs = reading.counts(full.store, "demo"), reading.runs(full.store, "demo")
    assert key_figures(counts, runs) == [
        ("runs ended", "3", "of 4"), ("stuck", "1", "known to repeat"), ("failed", "1", "ended by an error"),
        ("model calls", "24", "of at most 40"), ("embeddings", "7", "distinct outputs"),
        ("diagrams", "2", "of whole runs"),
    ]  # fmt: skip
    assert key_figures(replace(counts, repeated=2), runs)[2] == ("repeated", "2", "ended on request")


def test_models_stand_in_the_order_of_networks_arms_and_embeddings(full):
    """With what they were called with at last; one that was not used yet says so."""
    spec = {
        "modalities_in": ["text"], "modality_out": "image", "source": "a/b", "base": "c", "licence": "MIT",
        "revision": "0123", "parameters": {"steps": 3, "none": None},
    }  # fmt: skip
    row = writing.add_model(full.store, "draw", "x" * 64, spec)
    writing.add_epoch(full.store, full.experiment, "draw", model=row, batch_size=8, device_kind="cuda X")
    evidence = full.evidence
    evidence.experiment.config["networks"] = [["draw", "tell"], ["later", "draw"]]
    found = {one["name"]: one for one in _models(evidence)}
    assert list(found) == ["draw", "tell", "later", "embed"]
    assert found["draw"] == {
        "name": "draw", "does": "text → image", "source": "a/b, 0123", "parameters": "steps 3",
        "licence": "MIT", "shape": "8 on cuda X", "epochs": 2, "fingerprint": "x" * 12,
    }  # fmt: skip
    assert (found["tell"]["source"], found["tell"]["epochs"], found["tell"]["licence"]) == ("tell", 1, "")
    assert found["later"] == {
        "name": "later", "does": "", "source": "", "parameters": "", "licence": "", "shape": "not used yet",
        "epochs": 0, "fingerprint": "",
    }  # fmt: skip


def test_strips_are_grouped_by_network_and_prompt(bench):
    for prompt, network in (("a", NETWORK), ("b", NETWORK), ("a", ("tell",)), ("a", NETWORK)):
        bench.add(prompt, ["t"], network=network, seed=-1, repeat=len(reading.runs(bench.store, "demo")))
    thumbnails = Thumbnails(bench.store, 10**6)
    strips = [strip(bench.store, run, thumbnails) for run in reading.runs(bench.store, "demo")]
    found = [
        (network, [(prompt, [one.run.id for one in of]) for prompt, of in prompts])
        for network, prompts in _groups(strips)
    ]
    assert found == [("draw → tell", [("a", [1, 4]), ("b", [2])]), ("tell", [("a", [3])])]


def test_a_report_has_sixty_runs_of_24_tiles_and_a_quarter_of_its_pictures_in_charts(bench, monkeypatch):
    told = {}
    monkeypatch.setattr(
        "panic.analysis.report.spread", lambda runs, most: told.setdefault("of", (runs, most))[0]
    )
    made = Evidence.of

    def of(*arguments, **how):
        evidence = made(*arguments, **how)
        told["bytes"] = evidence.thumbnails.remaining_bytes
        return evidence

    monkeypatch.setattr(Evidence, "of", of)
    bench.add("a start", [f"t{i}" for i in range(30)], max_length=60)
    not_begun(bench)
    html = page(bench)
    assert ([run.id for run in told["of"][0]], told["of"][1]) == ([1], 60)
    assert told["bytes"] == 3 * 2**20
    assert "Long runs show their first and last 12 pictures" in html
