"""Shares of clusters against shares that were put there."""

from __future__ import annotations

from copy import copy

import numpy as np
import polars as pl
import pytest
from scipy import stats

from panic.analysis import AnalysisError, load
from panic.analysis.clustering import Reference
from panic.analysis.questions import shares
from panic.analysis.states import states
from panic.store import writing
from tests.analysis.conftest import TEXT, angle_vector
from tests.analysis.looks import assert_shown


def test_shares_are_means_over_runs_and_experiments_share_a_frozen_reference(bench):
    for prompt, texts in (("one", ["a"] * 4), ("two", ["a", "b"]), ("two", ["c", "c", "c", "b"])):
        bench.add(prompt, texts, seed=-1, repeat=len(texts))
    bench.embed({"a": angle_vector(0), "b": angle_vector(90), "c": angle_vector(200)})
    data = load(bench.store, "demo")
    reference = Reference(
        centres=np.array([angle_vector(2), angle_vector(91)]), radii=np.array([0.1, 0.1]),
        names=("first", "second"), fingerprint="embed-fingerprint",
    )  # fmt: skip
    found = shares.cluster_shares(reference, {"demo": data, "none": load(bench.store, runs=[])}, *TEXT)
    assert found["experiment"].unique().to_list() == ["demo"]
    assert found["name"].to_list() == ["first", "second", "outside all clusters"]
    assert found["share"].to_list() == pytest.approx([1.5 / 3, 0.75 / 3, 0.75 / 3])
    assert found["share"].sum() == pytest.approx(1)
    assert found["low"].is_nan().all()  # two prompts say nothing of others
    with pytest.raises(AnalysisError, match="another embedding model"):
        shares.cluster_shares(
            Reference(centres=reference.centres, radii=reference.radii, fingerprint="other"),
            {"demo": data},
            *TEXT,
        )


def test_prompts_whose_runs_met_are_one_prompt_to_an_interval(bench):
    """Five prompts of which three are copies of one path had the interval of five."""
    copy = "aaaaabbb"
    paths = {"one": copy, "two": copy, "three": copy, "four": "aaaabbbc", "five": "aaabbbbd"}
    for prompt, texts in paths.items():
        bench.add(prompt, list(texts), seed=1, max_length=16)
    bench.embed({letter: angle_vector(90 * i) for i, letter in enumerate("abcd")})
    reference = Reference(
        centres=np.array([angle_vector(2)]), radii=np.array([0.1]), names=("first",),
        fingerprint="embed-fingerprint",
    )  # fmt: skip
    row = shares.cluster_shares(reference, {"demo": load(bench.store, "demo")}, *TEXT).row(0, named=True)
    of_runs = np.array([5, 5, 5, 4, 3])[:, None] / 8
    low, high = shares.interval(of_runs, np.array([0, 0, 0, 1, 2]))
    assert (row["share"], row["low"], row["high"]) == pytest.approx((22 / 40, low[0], high[0]))
    assert high[0] - low[0] > np.diff(shares.interval(of_runs, np.arange(5)), axis=0).item() + 0.05


def test_a_frozen_reference_labels_the_runs_that_it_was_made_of(bench):
    bench.add("start", list("aaaaaabbbbbbbc"), max_length=28)
    bench.embed({"a": angle_vector(0), "b": angle_vector(90), "c": angle_vector(200)})
    data = load(bench.store, "demo")
    reference = shares.reference_of(data, "embed", states(data, *TEXT))
    assert set(reference.names) == {"a", "b"}
    found = shares.cluster_shares(reference, {"demo": data}, *TEXT)
    named = dict(found.select("name", "share").iter_rows())
    assert named == pytest.approx({"a": 6 / 14, "b": 7 / 14, "outside all clusters": 1 / 14})
    assert found["low"].is_nan().all()  # one prompt cannot be resampled


def test_the_last_experiments_of_a_store_are_compared_with_one(bench, monkeypatch):
    monkeypatch.setattr(shares, "MAX_EXPERIMENTS", 3)
    assert shares.table(bench.evidence, TEXT) is None
    vectors = {"a": angle_vector(0), "b": angle_vector(90), "c": angle_vector(200)}

    def begin(name, texts):
        other = copy(bench)
        other.experiment = writing.start_experiment(bench.store, name, bench.config | {"name": name})
        other.add("start", list(texts), max_length=2 * len(texts))

    bench.add("start", list("aaaaaabbbbbbbc"), max_length=28)
    bench.embed(vectors)
    evidence = bench.evidence
    assert shares.table(evidence, TEXT) is None, "no other"
    for name, texts in {"one": "aaac", "two": "aabb", "three": "bccc"}.items():
        begin(name, texts)
    answer = shares.table(evidence, TEXT)
    assert answer.own == "demo"
    assert answer.shares["experiment"].unique(maintain_order=True).to_list() == ["demo", "two", "three"]
    assert_shown(shares, answer)


def test_an_interval_over_prompts_by_hand():
    """Shares of four prompts: 1/2 -+ t(0.975, 3 / 2) / 2 of their standard deviation."""
    runs = np.array([[0.45, 0.55], [0.5, 0.5], [0.55, 0.45], [0.5, 0.5]])
    low, high = shares.interval(runs, np.arange(4))
    assert high[0] - 0.5 == pytest.approx(stats.t.ppf(0.975, 1.5) * np.sqrt(0.005 / 3) / 2)
    assert low[0] == pytest.approx(1 - high[0])


@pytest.mark.parametrize("num_prompts", [3, 4, 8])
def test_an_interval_of_95_percent_holds_the_share_that_often(num_prompts):
    """Prompts differ (shares uniform, two runs each): 2000 intervals, within two standard errors of 95 %."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(2000):
        prompts = np.repeat(np.arange(num_prompts), 2)
        share = np.clip(rng.uniform(size=num_prompts)[prompts] + 0.1 * rng.normal(size=2 * num_prompts), 0, 1)
        low, high = shares.interval(share[:, None], prompts)
        held.append(low[0] <= 0.5 <= high[0])
    assert np.mean(held) > 0.95 - 2 * np.sqrt(0.05 * 0.95 / 2000)


def test_a_stuck_run_counts_by_its_cycle_and_a_failed_one_not(bench):
    """One text of a transient of three, then the cycle: 1 - 3 / 20 of the steps and not 1 / 4."""
    stuck = bench.add("one", ["a", "b", "c", "d"], max_length=40)
    bench.stuck(stuck, 6, 2)
    bench.fail(bench.add("two", ["a"], seed=-1, max_length=40), 2)
    bench.embed({letter: angle_vector(90 * i) for i, letter in enumerate("abcd")})
    reference = Reference(centres=np.array([angle_vector(270)]), radii=np.array([0.1]), names=("d",))
    found = shares.cluster_shares(reference, {"demo": load(bench.store, "demo")}, *TEXT)
    assert found["share"].to_list() == pytest.approx([17 / 20, 3 / 20])
    assert found["num_runs"].to_list() == [1, 1]


@pytest.mark.parametrize(("number", "said"), [(10, False), (11, True)])
def test_ten_clusters_are_drawn_the_largest_first(number, said):
    rows = {"label": range(number), "share": [0.09 - 0.001 * place for place in range(number)]}
    frame = pl.DataFrame(rows).with_columns(
        name=pl.format("cluster {}", "label"), experiment=pl.lit("a"), low=0.0, high=0.2, num_runs=4
    )
    made = shares.chart(shares.Shares(own="a", shares=frame)).to_dict()
    assert made["layer"][0]["encoding"]["y"]["sort"] == [f"cluster {place}" for place in range(10)]
    assert ("The 1 smallest clusters are not drawn." in " ".join(made["title"]["subtitle"])) == said


def test_two_prompts_have_no_interval_and_three_have_one():
    runs = np.array([[0.45, 0.55], [0.5, 0.5], [0.55, 0.45]])
    assert np.isnan(shares.interval(runs[:2], np.arange(2))[0]).all()
    assert np.isfinite(shares.interval(runs, np.arange(3))[0]).all()
