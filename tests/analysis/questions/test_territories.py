"""Clusters of networks, of runs through corners."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis.checks import AnalysisError
from panic.analysis.questions import territories
from panic.analysis.questions.territories import cramers_v
from tests.analysis.conftest import NETWORK, TEXT
from tests.analysis.looks import assert_shown

OTHER = ("tell", "tell")


def fill(bench, path, *, num_prompts: int = 4, networks=(NETWORK, OTHER)) -> None:
    """Two runs of every network and prompt, of which `path` (network, prompt, output) says the corner."""
    rng = np.random.default_rng(0)
    vectors = {}
    for n, network in enumerate(networks):
        for prompt in range(num_prompts):
            for repeat in range(2):
                texts = [f"{n} {prompt} {repeat} {output}" for output in range(10)]
                how = {"network": network, "seed": -1, "repeat": repeat}
                bench.add(f"start {prompt}", texts, max_length=10 * len(set(network)), **how)
                for output, text in enumerate(texts):
                    vectors[text] = np.eye(8)[path(n, prompt, output)] + rng.normal(0, 0.01, 8)
    bench.embed({text: vector.astype(np.float32) for text, vector in vectors.items()})


@pytest.mark.parametrize(
    ("shares", "right"),
    [
        ([[1, 0], [0, 1]], 1.0),
        ([[0.5, 0.5], [0.5, 0.5]], 0.0),
        ([[0.8, 0.2], [0.4, 0.6]], 0.4082482904638631),  # of the counts 8, 2, 4, 6: chi squared 10 / 3 of 20
        ([[1, 0, 0], [0, 0.5, 0.5]], 1.0),
    ],
)
def test_v_of_tables_whose_v_is_known(shares, right):
    assert cramers_v(np.array(shares, float), np.array([0.5, 0.5])) == pytest.approx(right)


def test_v_is_that_of_scipy():
    from scipy.stats.contingency import association

    counts = np.random.default_rng(3).integers(1, 30, size=(3, 5))
    totals = counts.sum(axis=1)
    found = cramers_v(counts / totals[:, None], totals / totals.sum())
    assert found == pytest.approx(association(counts, method="cramer"))


def test_a_network_that_stays_by_itself_is_named_with_its_cluster(bench):
    """The first network is always in corner 0, the other one for 3 of 10 outputs, and else in corner 1."""
    fill(bench, lambda n, prompt, output: int(n == 1 and output >= 3))
    answer = territories.table(bench.evidence, TEXT)
    rows = {(row["network"], row["label"]): row for row in answer.shares.iter_rows(named=True)}
    own, other = " → ".join(NETWORK), " → ".join(OTHER)
    (common,) = (k for k in (0, 1) if rows[own, k]["share"] == 1)
    assert rows[other, common]["share"] == pytest.approx(0.3)
    assert rows[other, common]["others"] == 1
    assert rows[other, 1 - common]["share"] == pytest.approx(0.7)
    assert rows[own, common]["by_chance"] == pytest.approx(0.65, abs=0.02)
    assert answer.cramers_v == pytest.approx(np.sqrt(0.35**2 / 0.65 / 0.35), abs=1e-9)
    assert rows[own, common]["p_adjusted"] < 0.01
    assert rows[own, 1 - common]["p_adjusted"] == 1
    said = territories.sentence(answer)
    assert said.startswith("Networks differ in the clusters they are in (Cramér's V = 0.73, ")
    name = rows[own, common]["name"]
    assert f"{own} is in “{name}” with 100% of its outputs (others 30%, p = 0.0015)" in said
    name = rows[own, 1 - common]["name"]
    assert f"{other} is in “{name}” with 70% of its outputs (95 % interval" not in said  # all prompts agree
    assert f"{other} is in “{name}” with 70% of its outputs (others 0%, p = 0.0015)" in said
    assert territories.chart(answer).to_dict()


def test_networks_that_take_prompts_elsewhere_are_in_clusters_equally_often(bench):
    fill(bench, lambda n, prompt, output: (prompt + 2 * n) % 4)
    answer = territories.table(bench.evidence, TEXT)
    assert answer.cramers_v == pytest.approx(0)
    assert_shown(territories, answer)
    assert "It could not be shown that networks differ" in territories.sentence(answer)


def test_few_runs_cannot_show_anything_and_that_is_said(bench):
    fill(bench, lambda n, prompt, output: n, num_prompts=1)
    answer = territories.table(bench.evidence, TEXT)
    assert answer.cramers_v == pytest.approx(1)
    assert "p could not have been below 0.33" in territories.sentence(answer)
    assert answer.shares["low"].is_nan().all()


def test_one_network_is_not_asked_and_no_cluster_is_told(bench):
    fill(bench, lambda n, prompt, output: 0, networks=(NETWORK,))
    assert territories.table(bench.evidence, TEXT) is None


def test_without_clusters_it_says_so(bench):
    rng = np.random.default_rng(1)
    vectors = {}
    for network in (NETWORK, OTHER):
        texts = [f"{network} {i}" for i in range(2)]
        bench.add("a start", texts, network=network, seed=-1, max_length=2 * len(set(network)))
        vectors |= {text: rng.normal(size=8).astype(np.float32) for text in texts}
    bench.embed(vectors)
    with pytest.raises(AnalysisError, match="no output belongs to a cluster"):
        territories.table(bench.evidence, TEXT)


@pytest.mark.parametrize(("num_prompts", "is_known"), [(4, True), (3, False)])
def test_prompts_whose_runs_met_are_one_of_the_interval(bench, num_prompts, is_known):
    """Runs of two of them are copies: of 4 prompts 3 are left, of 3 prompts 2, which are too few."""
    fill(bench, lambda n, prompt, output: (output + prompt) % 4 if output else 0, num_prompts=num_prompts)
    for n, network in enumerate((NETWORK, OTHER)):
        for prompt in ("start 0", "start 1"):
            texts = [f"{n} 0 0 {output}" for output in range(10)]
            bench.add(prompt, texts, max_length=10 * len(set(network)), network=network, seed=42)
    shares = territories.table(bench.evidence, TEXT).shares
    assert shares["low"].is_not_nan().any() == is_known, shares


def test_no_shuffle_of_999_parts_networks_as_far(bench):
    fill(bench, lambda network, prompt, output: network, num_prompts=6)
    answer = territories.table(bench.evidence, TEXT)
    assert (answer.p_value, answer.cramers_v) == (1 / 1000, pytest.approx(1.0))
    assert answer.shares["p_adjusted"].min() == 1 / 1000


def test_what_shuffles_give_is_of_shuffles_alone(bench, monkeypatch):
    """Of one shuffle, which does not part the networks, as they are: its V is the mean and the quantile."""
    monkeypatch.setattr(territories, "NUM_SHUFFLES", 1)
    fill(bench, lambda n, prompt, output: n)
    answer = territories.table(bench.evidence, TEXT)
    assert answer.cramers_v == pytest.approx(1.0)
    assert answer.baseline == answer.baseline_high < 0.99
