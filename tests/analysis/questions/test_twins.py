"""Twins that part, and how fast."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis import AnalysisError, dynamics, load
from panic.analysis.questions import twins
from tests.analysis.conftest import TEXT, angle_vector
from tests.analysis.looks import assert_shown


def test_twins_share_network_and_prompt_and_have_fresh_noise(bench):
    bench.walk("aab")
    first = bench.walk("aab", seed=-1)
    second = bench.walk("aba", seed=-1, repeat=1)
    bench.add("another", ["b", "b", "b"], seed=-1)
    bench.embed({"a": angle_vector(0), "b": angle_vector(90)})
    found = twins.twins(load(bench.store, "demo"), *TEXT)
    assert found["pair"].unique().to_list() == [f"runs {first} and {second}"]
    assert found["step"].to_list() == [1, 3, 5]
    assert found["distance"].to_list() == pytest.approx([0, np.sqrt(2), np.sqrt(2)])


def test_growth_is_per_step_of_the_run_although_texts_are_at_every_second():
    """Doubling with every text, which is every second step: ln 2 / 2 per step, over the steps that exist."""
    steps = np.arange(1, 61, 2)
    apart = np.minimum(1e-6 * 2.0 ** np.arange(30), 1.0)
    pairs = pl.concat([pl.DataFrame({"pair": name, "step": steps, "distance": apart}) for name in ("a", "b")])
    found = twins.growth(pairs)
    assert found.rate == pytest.approx(np.log(2) / 2)
    assert (found.first, found.last) == (1, 2 * 16 + 1)  # 1e-6 x 2^16 = 0.066 < 0.1 x the level
    assert found.is_saturated


def diffusing(seed: int, num_pairs: int = 6) -> pl.DataFrame:
    """Pairs that are at an even distance from their first step on, whatever happens."""
    rng = np.random.default_rng(seed)
    return pl.concat(
        pl.DataFrame({"pair": f"{i}", "step": np.arange(60), "distance": rng.uniform(0.9, 1.1, 60)})
        for i in range(num_pairs)
    )


def test_no_growth_is_no_rate_and_never_a_negative_one():
    shrinking = 0.01 * np.exp(-0.1 * np.arange(10)), np.geomspace(0.004, 1, 30)
    falls = np.concatenate([*shrinking, np.ones(20)])
    rows = [pl.DataFrame({"pair": p, "step": np.arange(60), "distance": falls}) for p in "abc"]
    for pairs in (diffusing(0), diffusing(1)):
        with pytest.raises(AnalysisError, match="no early growth"):
            twins.growth(pairs)
    noise = np.random.default_rng(0).uniform(0.5, 2, (3, 60))
    slow = pl.concat(
        row.with_columns(distance=pl.Series(np.where(np.arange(60) < 20, 0.001, 1.0) * noise[i]))
        for i, row in enumerate(rows)
    )
    with pytest.raises(AnalysisError, match="may be none"):
        twins.growth(slow)


@pytest.mark.parametrize("memory", [0.0, 0.8])
def test_pairs_that_are_as_far_apart_all_along_have_a_rate_at_its_level(memory):
    """Of 100 sets of 6 pairs whose distances only remember, 5 % + 2 deviations may have one, none below 0."""
    rates = []
    for seed in range(100):
        logs = np.random.default_rng(seed).normal(size=(6, 40))
        for step in range(1, 40):
            logs[:, step] = memory * logs[:, step - 1] + np.sqrt(1 - memory**2) * logs[:, step]
        rows = [{"pair": f"{i}", "step": range(40), "distance": np.exp(0.5 * logs[i])} for i in range(6)]
        try:
            rates.append(twins.growth(pl.concat(pl.DataFrame(row) for row in rows)).rate)
        except AnalysisError:
            continue
    assert len(rates) <= 9
    assert min(rates, default=1.0) > 0


def test_distances_that_still_grow_are_not_called_saturated():
    grown = 0.01 * np.sqrt(np.arange(1, 201))
    assert not dynamics.ftle(grown, window=20).is_saturated
    assert dynamics.ftle(np.minimum(grown, 0.08), window=20).is_saturated


def test_networks_are_apart_and_failed_runs_in_no_pair(bench):
    """A run that had failed at its first step made pairs of a single step: "the twins never parted"."""
    for repeat, letters in enumerate(("aabbab", "ababab")):
        bench.walk(letters, seed=-1, repeat=repeat)
        bench.walk(letters, seed=-1, repeat=repeat, network=("tell",))
    failed = bench.walk("a", seed=-1, repeat=2)
    bench.fail(failed, 2)
    bench.walk("aaaaaa", seed=-1, repeat=3)
    bench.embed({"a": angle_vector(0), "b": angle_vector(90)})
    answer = twins.table(bench.evidence, TEXT)
    assert answer.pairs.select("network", "pair").n_unique() == 2
    charts = assert_shown(twins, answer)
    assert list(charts) == ["draw → tell", "tell"]
    said = twins.sentence(answer)
    assert said.startswith("draw → tell: 1 pair of runs that differ in their noise")
    assert "1 failed runs are left out" in said
    assert "fewer than two pairs are long enough" in said


def test_of_many_networks_some_are_drawn_and_that_is_said():
    parts = [
        pl.DataFrame({"network": f"n{i}", "pair": "a", "step": np.arange(6), "distance": np.full(6, 0.5)})
        for i in range(45)
    ]
    answer = twins.Twins(pairs=pl.concat(parts), fits={f"n{i}": "none" for i in range(45)}, num_failed=0)
    assert len(twins.chart(answer)) == twins.MAX_CHARTS == 12
    said = twins.sentence(answer)
    assert "41 more networks are not told. No more than 12 networks are drawn." in said


def test_200_pairs_are_followed(bench):
    for repeat in range(403):
        bench.add("start", ["a", "a"], network=("tell",), seed=-1, repeat=repeat)
    bench.embed({"a": angle_vector(0)})
    assert twins.twins(load(bench.store, "demo"), *TEXT)["pair"].n_unique() == 200


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1, 100, [1, 10, 100]),
        (1, 99, [1, 3, 10, 30]),
        (2, 9, [2, 3, 5, 7]),
        (4, 5, [4, 4.1, 4.2]),
        (4, 4, [4]),
    ],
)
def test_an_axis_has_three_ticks_or_more_where_there_are(low, high, ticks):
    assert twins._decades(pl.Series([float(low), float(high)]))[: len(ticks)] == ticks
