"""Which factor matters, where the answer is known."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis import load
from panic.analysis.data import ARROW
from panic.analysis.questions import effects
from tests.analysis.conftest import TEXT, angle_vector

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
    table, absent = effects.what_matters(load(crossed.store, "demo"), *TEXT, num_permutations=199)
    assert absent == {}
    ends = table.filter(pl.col("measure") == effects.ENDS)
    assert ends["factor"].to_list() == ["prompt", "network"]
    prompt, network = ends.iter_rows(named=True)
    assert prompt["effect"] > 0.9
    assert prompt["baseline"] == pytest.approx(5 / 23, abs=0.05)  # (levels - 1) / (n - 1)
    assert prompt["p_adjusted"] == pytest.approx(6 / 200)  # of six tests, none of 199 shuffles as large
    assert network["effect"] < network["baseline_high"]
    assert network["p_adjusted"] > 0.05
    diagrams = table.filter(pl.col("measure") == effects.COMPONENTS)
    assert (diagrams["p_adjusted"] > 0.05).all()  # their sizes are all alike
    assert table["num_runs"].unique().to_list() == [24]


def test_labels_move_among_runs_that_are_alike_in_all_else():
    runs = pl.DataFrame(
        {
            "run": range(8), "prompt": ["p", "q"] * 4, "seed": [-1] * 4 + [1] * 4,
            "network": [ARROW.join(pair) for pair in ("ac", "ac", "ad", "ad", "bc", "bc", "bd", "bd")],
        }
    )  # fmt: skip
    found = effects.with_factors(runs)
    assert found.columns == ["run", "prompt", "network", "seed", "model 1", "model 2"]
    assert found["model 1"].to_list() == list("aaaabbbb")
    assert effects.exchangeable(found, "model 2") == [
        f"{prompt}\n{seed}\n{model}"
        for prompt, seed, model in zip("pqpqpqpq", ["fresh"] * 4 + ["1"] * 4, "aaaabbbb", strict=True)
    ]
    assert effects.exchangeable(found.with_columns(seed=pl.lit("1")), "network") == list("pqpqpqpq")
    own = found.with_columns(prompt=pl.Series(list("ppqqrrss")), seed=pl.lit("1"))
    assert effects.exchangeable(own, "network") == list("ppqqrrss")  # nested: whole prompts move
    one = own.with_columns(network=pl.lit("n")).drop("model 1", "model 2")
    assert effects.exchangeable(one, "prompt") is None


def test_what_cannot_be_tested_is_told(bench):
    for number in range(3):
        bench.add(f"start {number}", [f"text {number}"], seed=-1)
    bench.embed({f"text {number}": angle_vector(30.0 * number) for number in range(3)})
    table, absent = effects.what_matters(load(bench.store, "demo"), *TEXT)
    assert table.is_empty()
    assert absent == {
        "prompt, where runs end": "3 units in 3 groups: with one unit per group nothing can be told apart"
    }
