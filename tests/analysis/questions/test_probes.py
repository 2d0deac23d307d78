"""Probes of what every text names, of starts that are forgotten, and of nothing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis import load
from panic.analysis.probing import ProbeScore, probe
from panic.analysis.questions import probes
from panic.analysis.questions.probes import probe_table
from tests.analysis.conftest import TEXT, corner
from tests.analysis.looks import assert_shown


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
    assert_shown(probes, answer)
    said = probes.sentence(answer)
    assert "the prompt can be read from the start, still at model call" in said
    assert "and could not be read any more at model call" in said
    rows = answer.scores.to_dicts()
    assert rows[0]["p_adjusted"] == pytest.approx(1 / 200)
    assert rows[-1]["p_adjusted"] > 0.05


def test_a_stretch_counts_only_if_all_before_do(bench):
    """Each of six stretches was asked on its own: 11 % of experiments without an effect had one that told."""
    rng = np.random.default_rng(0)
    fill(bench, lambda prompt, _, __, i: (2 * (i > 4)) * np.eye(6)[prompt] + 0.5 * rng.normal(size=6))
    answer = probes.table(bench.evidence, TEXT)
    said = probes.sentence(answer)
    assert "the prompt could not be read at model call 1 (" in said
    assert "), so later ones are not asked" in said
    assert "can be read" not in said
    assert answer.scores["p_value"][-1] == pytest.approx(1 / 200), "alone it would tell"
    assert answer.scores["p_adjusted"].to_list() == [answer.scores["p_adjusted"][0]] * len(answer.scores)


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
    assert network["p_least"] == pytest.approx(2 * 2 / 2**12)  # of two factors; labels move within prompts


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


def outputs(num_runs: int, length: int) -> pl.DataFrame:
    """Steps of runs of so many outputs."""
    return pl.DataFrame(
        {
            "run": np.repeat(np.arange(num_runs), length),
            "step": np.tile(2 * np.arange(length) + 1, num_runs),
            "number": np.tile(np.arange(length), num_runs),
        }
    )


def test_stretches_grow_with_time():
    found = probes._stretches(outputs(2, 16), is_all=True)
    assert [sorted(set(part["number"])) for part in found] == [
        [0], [1], [2], [3, 4], [5, 6, 7, 8], list(range(9, 16))
    ]  # fmt: skip
    assert [len(part) for part in found] == [2, 2, 2, 4, 8, 14]
    (late,) = probes._stretches(outputs(1, 16), is_all=False)
    assert late["number"].to_list() == list(range(10, 16))
    (only,) = probes._stretches(outputs(2, 1), is_all=True)
    assert len(only) == 2


def test_every_run_gives_equally_many_outputs():
    found = probes._some(outputs(3, 8), 11)
    assert found["run"].to_list() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found.equals(found.sort("run", "step"))
    assert len(found.unique(["run", "step"])) == 9
    assert len(probes._some(outputs(3, 8), 2)) == 3
    assert len(probes._some(outputs(3, 8), 1000)) == 24
    seen = {tuple(probes._some(outputs(1, 8), 2, seed=seed)["number"]) for seed in range(300)}
    assert len(seen) == 28  # every pair of steps


def test_components_leave_out_what_is_rounding():
    """Three points on a line in space, 3 and 6 from the first: their middle is at 3."""
    direction = np.array([2.0, -1, 2]) / 3
    points = np.array([0.0, 3, 6])[:, None] * direction + 7.0
    found = probes._components(points, 24)
    assert found.shape == (3, 1)
    assert abs(found[:, 0]).tolist() == pytest.approx([3, 0, 3], abs=1e-9)
    cloud = np.random.default_rng(0).normal(size=(9, 5)) * [5, 4, 3, 2, 1]
    some = probes._components(cloud, 2)
    assert some.shape == (9, 2)
    assert some.std(axis=0)[0] > some.std(axis=0)[1] > 1


def test_p_values_are_multiplied_by_the_number_of_targets():
    score = ProbeScore(
        accuracy=0.9, folds=np.ones(2), baseline=0.5, baseline_high=0.6, p_value=0.3, p_least=0.01,
        num_classes=4, num_runs=8,
    )  # fmt: skip
    some = outputs(1, 3)
    rows = probes._rows([("prompt", some, score), ("prompt", some, score), ("seed", some, score)])
    assert rows["p_adjusted"].to_list() == pytest.approx([0.6] * 3)
    assert rows["chance"].to_list() == [0.25] * 3
    assert (rows["first"][0], rows["last"][0]) == (1, 5)
    many = probes._rows([(target, some, score) for target in "abcd"])
    assert many["p_adjusted"].to_list() == [1.0] * 4


def stretch(steps: str, p: float, least: float = 0.01) -> dict[str, object]:
    return {"steps": steps, "accuracy": 0.9, "baseline": 0.5, "p_adjusted": p, "p_least": least}


@pytest.mark.parametrize(
    ("ps", "said"),
    [
        ([0.01], "can be read at step 1 (90% right, shuffled labels 50%, p = 0.01)"),
        ([0.05], "can be read at step 1 (90% right, shuffled labels 50%, p = 0.05)"),
        ([0.06], "could not be read at step 1 (90% right, shuffled labels 50%, p = 0.06)"),
        (
            [0.01, 0.02],
            "can be read from the start, still at step 2 (90% right, shuffled labels 50%, p = 0.02)",
        ),
        (
            [0.01, 0.3, 0.3],
            "can be read at step 1 (90% right, shuffled labels 50%, p = 0.01), and could not be read any "
            "more at step 2 (90% right, shuffled labels 50%, p = 0.3)",
        ),
        (
            [0.3, 0.3],
            "could not be read at step 1 (90% right, shuffled labels 50%, p = 0.3), so later ones are not "
            "asked",
        ),
    ],
)
def test_the_first_stretch_that_fails_ends_the_search(ps: list[float], said: str):
    rows = [stretch(f"step {number}", p) for number, p in enumerate(ps, start=1)]
    assert probes._until("prompt", rows) == f"the prompt {said}"


def test_too_few_runs_are_told():
    said = probes._until("seed", [stretch("steps 1 to 3", 0.2, least=0.1)])
    assert said.endswith("p = 0.2; too few runs, p could not have been below 0.1)")
    assert "too few" not in probes._until("seed", [stretch("step 1", 0.2, least=0.05)])


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
