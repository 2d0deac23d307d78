"""Words and axes of all figures: what is measured, in which metric, of how many; and what no figure says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from panic.analysis.grouping import network_name
from panic.analysis.questions import Figure, ask, questions
from tests.referee import drawing
from tests.referee.designs import DESIGNS
from tests.referee.worlds import evidence_of

pytestmark = pytest.mark.slow
SHOWN = ("no effect", "shapes", "stuck, long periods", "failing", "a shock that decides", "two experiments")
OF_MANY = re.compile(
    r"\d (?:\w+ ){0,3}(?:runs?|starts?|prompts?|pairs?|texts?|images?|pictures?|outputs?|moves|stays|exits?"
    r"|clusters|places?|tests?|calls)\b"
    r"|rows: \d"
)
METRICS = re.compile("cosine|chordal|euclidean|wasserstein", re.IGNORECASE)
FOUND_HARD = (  # of readers who saw a report for the first time
    r"look alike have forgotten", r"[Mm]ost of the work", r"step \d+\.\d", r"than the line", r"with a reason",
    r"last to the end", r"can ?not be (?:read|told|shown)", r"the model \d", r"\bstays 100", r"always",
)  # fmt: skip


@cache
def figures(design: str) -> list[Figure]:
    """All figures of a replicate of a design."""
    with evidence_of(DESIGNS[design].make(np.random.default_rng(0))) as evidence:
        return [figure for question in questions() for figure in ask(question, evidence)]


def encodings(spec: Any) -> Iterator[dict[str, Any]]:
    """Every encoding in a chart, of whatever layer."""
    if isinstance(spec, dict):
        if "encoding" in spec:
            yield spec["encoding"]
        for part in spec.values():
            yield from encodings(part)
    elif isinstance(spec, list):
        for part in spec:
            yield from encodings(part)


def axes(spec: dict[str, Any]) -> dict[str, list[str]]:
    """The titles of the axes of numbers of a chart, by channel; those without an axis are left out."""
    found: dict[str, list[str]] = {}
    without: set[str] = set()
    for encoding in encodings(spec):
        for channel in ("x", "y"):
            one = encoding.get(channel, {})
            if one.get("axis", {}) is None:
                without.add(channel)
            if one.get("type") == "quantitative":
                found.setdefault(channel, []).extend(filter(None, [one.get("title")]))
    return {channel: titles for channel, titles in found.items() if channel not in without}


@pytest.mark.parametrize("design", SHOWN)
def test_axes_say_what_they_measure_and_distances_in_which_metric(design):
    for figure in figures(design):
        for spec in figure.specs:
            for channel, titles in axes(spec).items():
                assert titles, f"{figure.title}: {channel} has no title"
                for title in titles:
                    is_distance = "distance" in title or "apart" in title
                    assert not is_distance or METRICS.search(title), f"{figure.title}: {title}"


@pytest.mark.parametrize("design", SHOWN)
def test_every_figure_says_of_how_many(design):
    for figure in figures(design):
        captions = [spec.get("description", "") for spec in figure.specs]
        if not figure.missing:
            assert OF_MANY.search(" ".join([figure.sentence, *captions])), (
                f"{figure.title}: {figure.sentence}"
            )


@pytest.mark.parametrize("design", SHOWN)
def test_no_figure_says_what_was_found_hard_to_read(design):
    for figure in figures(design):
        captions = [spec.get("description", "") for spec in figure.specs]
        for said in (figure.sentence, figure.missing, *captions):
            for words in FOUND_HARD:
                assert not re.search(words, said), f"{figure.title}: {said}"


def test_legends_and_graphs_name_clusters_by_the_text_in_their_middle():
    """They were numbers."""
    by_title = {figure.title: figure for figure in figures("no effect")}
    timeline = by_title["Clusters in time · embed"].specs[0]["encoding"]["color"]["legend"]["values"]
    assert len(timeline) >= 4
    assert all(re.fullmatch(r"\d+: (?:place|state) \d.*|outlier", name) for name in timeline), timeline
    [stays] = [figure for title, figure in by_title.items() if title.startswith("Where it stays")]
    graphs = [spec["description"] for spec in stays.specs]
    assert any(re.search(r"\b0: (?:place|state) \d", caption) for caption in graphs), graphs


def test_a_network_has_one_colour_in_all_charts():
    """Some charts had networks in the order of the config, others in that of the alphabet."""
    networks = drawing.NETWORKS[::-1]
    world = drawing.crossed(
        lambda n, p, r: r.integers(4, size=16), np.random.default_rng(0), networks=networks
    )
    with evidence_of(world) as evidence:
        found = [figure for question in questions() for figure in ask(question, evidence)]
    orders = set()
    for figure in found:
        for encoding in encodings(figure.specs):
            shade = encoding.get("color", {})
            domain = shade.get("scale", {}).get("domain", []) if shade.get("field") == "network" else []
            if len(domain) == len(networks):
                orders.add(tuple(domain))
    assert orders == {tuple(map(network_name, networks))}
