"""Which factor matters, where the answer is known; shares of clusters against shares that were put there."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from panic.analysis.loading import ARROW

from panic.analysis import AnalysisError, comparisons, load
from panic.analysis.clustering import Reference
from tests.analysis.conftest import angle_vector

TEXT = ("embed", "text")
NETWORKS = (("draw", "tell"), ("tell",))


@pytest.fixture
def crossed(bench):
    """6 prompts x 2 networks x 2 repeats: runs end near their prompt's direction, whatever the network."""
    rng = np.random.default_rng(0)
    vectors = {}
    for prompt in range(6):
        for number, network in enumerate(NETWORKS):
            for repeat in range(2):
                texts = [f"text {prompt} {number} {repeat} {step}" for step in range(4)]
                run = bench.add(f"start {prompt}", texts, network=network, seed=-1, repeat=repeat)
                made = np.eye(8)[prompt] + 0.1 * rng.normal(size=(4, 8))
                vectors |= dict(zip(texts, made, strict=True))
                bench.diagram(run, made)
    bench.embed(vectors)
    return bench


def test_the_prompt_matters_and_the_network_does_not(crossed):
    table, absent = comparisons.what_matters(load(crossed.store, "demo"), *TEXT, num_permutations=199)
    assert absent == {}
    ends = table.filter(pl.col("measure") == comparisons.ENDS)
    assert ends["factor"].to_list() == ["prompt", "network"]
    prompt, network = ends.iter_rows(named=True)
    assert prompt["effect"] > 0.9
    assert prompt["baseline"] == pytest.approx(5 / 23, abs=0.05)  # (levels - 1) / (n - 1)
    assert prompt["p_adjusted"] == pytest.approx(6 / 200)  # of six tests, none of 199 shuffles as large
    assert network["effect"] < network["baseline_high"]
    assert network["p_adjusted"] > 0.05
    diagrams = table.filter(pl.col("measure") == comparisons.COMPONENTS)
    assert (diagrams["p_adjusted"] > 0.05).all()  # their sizes are all alike
    assert table["num_runs"].unique().to_list() == [24]


def test_labels_move_among_runs_that_are_alike_in_all_else():
    runs = pl.DataFrame(
        {
            "run": range(8), "prompt": ["p", "q"] * 4, "seed": [-1] * 4 + [1] * 4,
            "network": [ARROW.join(pair) for pair in ("ac", "ac", "ad", "ad", "bc", "bc", "bd", "bd")],
        }
    )  # fmt: skip
    found = comparisons.with_factors(runs)
    assert found.columns == ["run", "prompt", "network", "seed", "model 1", "model 2"]
    assert found["model 1"].to_list() == list("aaaabbbb")
    assert comparisons.exchangeable(found, "model 2") == [
        f"{prompt}\n{seed}\n{model}"
        for prompt, seed, model in zip("pqpqpqpq", ["fresh"] * 4 + ["1"] * 4, "aaaabbbb", strict=True)
    ]
    assert comparisons.exchangeable(found.with_columns(seed=pl.lit("1")), "network") == list("pqpqpqpq")
    own = found.with_columns(prompt=pl.Series(list("ppqqrrss")), seed=pl.lit("1"))
    assert comparisons.exchangeable(own, "network") == list("ppqqrrss")  # nested: whole prompts move
    one = own.with_columns(network=pl.lit("n")).drop("model 1", "model 2")
    assert comparisons.exchangeable(one, "prompt") is None


def test_what_cannot_be_tested_is_told(bench):
    for number in range(3):
        bench.add(f"start {number}", [f"text {number}"], seed=-1)
    bench.embed({f"text {number}": angle_vector(30.0 * number) for number in range(3)})
    table, absent = comparisons.what_matters(load(bench.store, "demo"), *TEXT)
    assert table.is_empty()
    assert absent == {
        "prompt, where runs end": "3 units in 3 groups: with one unit per group nothing can be told apart"
    }


def test_shares_are_means_over_runs_and_experiments_share_a_frozen_reference(bench):
    for prompt, texts in (("one", ["a"] * 4), ("two", ["a", "b"]), ("two", ["c", "c", "c", "b"])):
        bench.add(prompt, texts, seed=-1, repeat=len(texts))
    bench.embed({"a": angle_vector(0), "b": angle_vector(90), "c": angle_vector(200)})
    data = load(bench.store, "demo")
    reference = Reference(
        centres=np.array([angle_vector(2), angle_vector(91)]), radii=np.array([0.1, 0.1]),
        names=("first", "second"), fingerprint="embed-fingerprint",
    )  # fmt: skip
    found = comparisons.cluster_shares(reference, {"demo": data, "none": load(bench.store, runs=[])}, *TEXT)
    assert found["experiment"].unique().to_list() == ["demo"]
    assert found["name"].to_list() == ["first", "second", "outside all clusters"]
    assert found["share"].to_list() == pytest.approx([1.5 / 3, 0.75 / 3, 0.75 / 3])
    assert found["share"].sum() == pytest.approx(1)
    assert found["low"][0] == pytest.approx(0.25)  # the prompt "two" alone
    assert found["high"][0] == pytest.approx(1.0)  # the prompt "one" alone
    with pytest.raises(AnalysisError, match="another embedding model"):
        comparisons.cluster_shares(
            Reference(centres=reference.centres, radii=reference.radii, fingerprint="other"),
            {"demo": data},
            *TEXT,
        )


def test_a_frozen_reference_labels_the_runs_that_it_was_made_of(bench):
    bench.add("start", list("aaaaaabbbbbbbc"), max_length=28)
    bench.embed({"a": angle_vector(0), "b": angle_vector(90), "c": angle_vector(200)})
    data = load(bench.store, "demo")
    reference = comparisons.reference_of(data, *TEXT)
    assert set(reference.names) == {"a", "b"}
    shares = comparisons.cluster_shares(reference, {"demo": data}, *TEXT)
    named = dict(shares.select("name", "share").iter_rows())
    assert named == pytest.approx({"a": 6 / 14, "b": 7 / 14, "outside all clusters": 1 / 14})
    assert shares["low"].is_nan().all()  # one prompt cannot be resampled
