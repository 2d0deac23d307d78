"""Probes of what every text names, of starts that are forgotten, and of nothing."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis import load
from panic.analysis.probing import probe
from panic.analysis.questions import probes
from panic.analysis.questions.probes import probe_table
from tests.analysis.conftest import TEXT, corner


def test_a_prompt_that_every_text_names_can_be_read_from_it(bench):
    for prompt, letters in (("start", "ab"), ("another", "cd")):
        for repeat in range(8):
            bench.add(prompt, list(letters) * 3, seed=-1, repeat=repeat, max_length=12)
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    scores, absent = probe_table(load(bench.store, "demo"), *TEXT)
    assert set(scores["target"]) == {"prompt"}
    assert scores["accuracy"].to_list() == [1.0] * len(scores)
    assert scores["chance"][0] == 0.5
    assert (scores["first"][0], scores["last"][-1]) == (1, 11)
    assert absent == {}
    said = probes.sentence(probes.table(bench.evidence, TEXT))
    assert "the prompt can be read from the start, still at model calls 9 to 11 (100% right" in said


def fill(
    bench, vector_of, *, prompts: int = 4, networks: int = 1, repeats: int = 6, length: int = 16
) -> None:
    """Runs of so many texts; `vector_of(prompt, network, repeat, number)` is the vector of one."""
    vectors = {}
    for prompt in range(prompts):
        for k, network in enumerate((("draw", "tell"), ("tell",))[:networks]):
            for repeat in range(repeats):
                texts = [f"{prompt} {k} {repeat} {number}" for number in range(length)]
                how = {"network": network, "seed": -1, "repeat": repeat, "max_length": len(network) * length}
                bench.add(f"start {prompt}", texts, **how)
                vectors |= {text: vector_of(prompt, k, repeat, i) for i, text in enumerate(texts)}
    bench.embed(vectors)


def test_a_start_that_is_forgotten_is_read_early_and_not_late(bench):
    rng = np.random.default_rng(0)
    fill(bench, lambda prompt, _, __, i: (2 * (i < 4)) * np.eye(6)[prompt] + 0.5 * rng.normal(size=6))
    answer = probes.table(bench.evidence, TEXT)
    said = probes.sentence(answer)
    assert "the prompt can be read from the start, still at model call" in said
    assert "and could not be read any more at model call" in said
    rows = answer.scores.to_dicts()
    assert rows[0]["p_adjusted"] == pytest.approx(1 / 200)
    assert rows[-1]["p_adjusted"] > 0.05


def test_a_cycle_of_two_is_read_whatever_the_number_of_steps(bench):
    """Two prompts, one cycle, opposite phases: no single output tells the prompt, whatever the thinning."""
    fill(bench, lambda prompt, _, repeat, i: corner((prompt + repeat + i) % 2) + 0.0, prompts=2, repeats=8)
    for most in (40, 48, 57, 64):
        scores, _ = probe_table(load(bench.store, "demo"), *TEXT, max_points=most)
        assert scores["accuracy"][-1] == pytest.approx(0.5, abs=0.2)
        assert scores["p_value"][-1] > 0.05


def test_strong_prompts_push_the_probe_of_networks_not_below_chance(bench):
    """One run of every prompt and network, and prompts alone differ: half is right, as if shuffled."""
    rng = np.random.default_rng(0)
    at = 9 * rng.normal(size=(12, 16))
    fill(
        bench,
        lambda prompt, *_: at[prompt] + rng.normal(size=16),
        prompts=12,
        networks=2,
        repeats=1,
        length=6,
    )
    scores, _ = probe_table(load(bench.store, "demo"), *TEXT)
    network = scores.filter(scores["target"] == "network").row(0, named=True)
    assert network["accuracy"] == pytest.approx(0.5, abs=0.15)
    assert network["baseline"] == pytest.approx(0.5, abs=0.06)


def test_the_p_value_of_a_probe_has_its_level():
    """Labels of nothing, 200 times: at most 5 % of p values are 0.05 or less, within 2 standard errors."""
    runs = np.repeat(np.arange(16), 4)
    labels = np.repeat(np.arange(16) % 2, 4)
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(16, 5))[runs] + 0.5 * rng.normal(size=(64, 5))
        found.append(probe(points, labels, runs, num_shuffles=39, seed=seed).p_value <= 0.05)
    assert np.mean(found) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def by_two(bench, vector_of, *, repeats: int = 8, length: int = 12) -> None:
    """Runs of one prompt whose texts are told by two models in turn; `vector_of(which, rng)`."""
    bench.models["tell 2"] = bench.models["tell"]
    rng, vectors = np.random.default_rng(0), {}
    for repeat in range(repeats):
        texts = [f"{repeat} {number}" for number in range(length)]
        bench.add("start", texts, network=("tell", "tell 2") * 2, seed=-1, repeat=repeat, max_length=length)
        vectors |= {text: vector_of(number % 2, rng) for number, text in enumerate(texts)}
    bench.embed(vectors)


def test_which_of_a_networks_models_made_an_output_can_be_read_where_it_shows(bench):
    by_two(bench, lambda which, rng: corner(which) + 0.1 * rng.normal(size=4))
    answer = probes.table(bench.evidence, TEXT)
    assert answer.scores.select("target", "accuracy", "first", "last").rows() == [(probes.MAKER, 1.0, 8, 11)]
    assert "the model that made it can be read at model calls 8 to 11 (100% right" in probes.sentence(answer)


def test_which_of_a_networks_models_made_an_output_cannot_be_read_where_both_do_alike(bench):
    by_two(bench, lambda which, rng: rng.normal(size=4))
    assert "the model that made it could not be read" in probes.sentence(probes.table(bench.evidence, TEXT))


def test_shifted_labels_have_their_level_where_outputs_remember():
    """Two models in turn that do alike, outputs that are near those before: 5 % within 2 standard errors."""
    runs, labels = np.repeat(np.arange(8), 8), np.tile([0, 1], 32)
    found = []
    for seed in range(200):
        steps = np.random.default_rng(seed).normal(size=(8, 8, 4))
        points = steps.cumsum(axis=1).reshape(64, 4)
        found.append(probe(points, labels, runs, num_shuffles=39, seed=seed).p_value <= 0.05)
    assert np.mean(found) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_two_runs_of_two_models_cannot_give_a_small_p():
    """Shifting one run against the other is all that can be done: two ways, so p is 0.5 at best."""
    points = np.tile(np.eye(2), (8, 1))
    found = probe(points, np.tile([0, 1], 8), np.repeat([0, 1], 8), num_shuffles=19)
    assert (found.accuracy, found.p_least) == (1.0, 0.5)
    assert found.p_value >= 0.5
