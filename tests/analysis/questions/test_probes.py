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
    assert "the prompt can be read from the start, still at steps 9 to 11 (100% right" in said


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
    assert "the prompt can be read from the start, still at steps" in said
    assert "and could not be read any more at steps" in said
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
