"""Designs at the edge: nothing moves, nothing has a direction, too little for a test, too much to tell."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from panic.analysis.chance import first_told, least_told
from panic.analysis.checks import AnalysisError
from panic.analysis.questions import (
    QUESTIONS,
    ask,
    chain,
    clusters,
    diagrams,
    drift,
    effects,
    grid,
    initial_cluster,
    map,
    milestones,
    networks,
    novelty,
    probes,
    semantic_drift,
    twins,
    two_periodicity,
)
from panic.analysis.sampling import not_asked
from tests.analysis.conftest import NETWORK, TEXT, angle_vector, corner
from tests.analysis.questions.test_effects import outcome
from tests.analysis.questions.test_probes import fill


def test_runs_that_stand_still_make_nothing_new(bench):
    """Of runs that were stuck at once it was said that 100 % of their late texts were new."""
    for number in range(3):
        bench.stuck(bench.add(f"start {number}", ["same"], max_length=32), 0, 2)
    answer = novelty.table(bench.evidence)
    said = novelty.sentence(answer)
    assert "draw → tell 50% early and 0% late (3 runs late)" in said
    assert answer[0].shares["share"].to_list() == [0.5] + [0.0] * 7
    assert "1 of 1 distinct text is made by more than one of 3 runs" in said


def test_one_text_is_no_chain_and_no_cluster_beside_itself(bench):
    """A chain of one cluster was said to relax with 0 outputs, and 0 texts beside it to be clusters."""
    for number in range(4):
        bench.add(f"start {number}", ["same"] * 8, seed=-1, max_length=16)
    bench.embed({"same": corner(0)})
    with pytest.raises(AnalysisError, match="20 moves among 2 clusters or more"):
        chain.table(bench.evidence, TEXT)
    said = clusters.sentence(clusters.table(bench.evidence, TEXT))
    assert said == "32 texts of 4 runs: all are one and the same, same."
    back = initial_cluster.sentence(initial_cluster.table(bench.evidence, TEXT))
    assert "not shown to be there more often than chance (100% of 4 runs of 4 prompts late on" in back
    assert "none ever left it" in back


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_vectors_without_a_direction_end_no_report(bench, bad):
    """NaN ended the map, diversity and probes with a traceback; zeros were 0.5 away from the prompt."""
    fill(bench, lambda prompt, network, repeat, number: np.full(4, bad, np.float32), repeats=2, length=6)
    bench.embed({f"start {prompt}": corner(prompt) for prompt in range(4)})
    figures = [figure for question in QUESTIONS for figure in ask(question, bench.evidence)]
    told = [figure.sentence or figure.missing for figure in figures]
    assert "48 texts have no direction under embed (a vector of zeros, or not finite)" in " ".join(told)
    assert drift.drift(bench.evidence.data, *TEXT).is_empty()
    for question in (map, semantic_drift, effects):
        with pytest.raises(AnalysisError):
            question.table(bench.evidence, TEXT)


def test_one_output_without_a_direction_has_no_distance(bench):
    bench.add("start", ["here", "nowhere"], seed=-1, max_length=4)
    bench.embed({"start": angle_vector(0), "here": angle_vector(60), "nowhere": np.zeros(2, np.float32)})
    found = drift.drift(bench.evidence.data, *TEXT)
    assert found.select("step", "distance").rows() == [(1, pytest.approx(0.5, abs=1e-6))]


def test_what_could_not_have_been_shown_counts_all_tests():
    """Of two networks with four prompts each no p below 0.083 is possible, which was not said."""
    assert least_told(1 / 24) == ""
    assert least_told(1 / 24, 2) == "; p could not have been below 0.083"
    assert least_told(0.5, 3) == "; p could not have been below 1"
    row = {
        "network": "n", "late": 1.0, "num_runs": 8, "num_prompts": 4, "by_chance": 0.25, "left": 0.5,
        "p_adjusted": 1 / 12, "p_least": 1 / 24, "num_outside": 0, "came_back": 1.0,
    }  # fmt: skip
    answer = SimpleNamespace(scores=pl.DataFrame([row, row]), modality="text", absent=("m",))
    said = initial_cluster.sentence(answer)
    assert said.count("p = 0.083; p could not have been below 0.083)") == 2
    assert said.endswith(" Not asked (fewer than 4 prompts begin in a cluster): m.")


def test_probes_of_several_factors_need_more_runs():
    """A network that is read without a mistake, of runs that could give no p below 0.18, was left at that."""
    score = SimpleNamespace(accuracy=1.0, baseline=0.5, baseline_high=0.6, p_value=0.06, p_least=0.06,
                            num_classes=2, num_runs=8)  # fmt: skip
    some = pl.DataFrame({"step": [1]})
    rows = probes._rows([(target, some, score) for target in ("prompt", "network", "seed")])
    said = probes.sentence(probes.Probes(scores=rows, absent={}))
    assert said.count("too few runs, p could not have been below 0.18") == 3


def test_a_prompt_that_goes_on_alone_is_read_early_and_not_tried_later(bench):
    """What was read early was told, too, as not tried."""
    vectors = {}
    for prompt in range(2):
        for repeat in range(6):
            texts = [f"{prompt} {repeat} {number}" for number in range(12 if prompt else 2)]
            bench.add(f"start {prompt}", texts, seed=-1, repeat=repeat, max_length=2 * len(texts))
            vectors |= {text: corner(prompt) for text in texts}
    bench.embed(vectors)
    said = probes.sentence(probes.table(bench.evidence, TEXT))
    assert "the prompt can be read" in said
    assert "Not tried: prompt later on (" in said


def test_a_factor_that_could_not_have_been_shown_is_told_beside_a_clear_one():
    tests = [
        ("prompt", "", effects.ENDS, outcome(0.001)),
        ("network", "", effects.ENDS, outcome(0.07, least=0.06)),
        ("prompt", "network", effects.ENDS, outcome(0.2, least=0.1)),
    ]
    said = effects.sentence(effects.Effects(tests=effects._rows(tests), absent={}))
    assert (
        "the prompt (30%, p = 0.001); the network could not have been shown (smallest possible p = 0.06)."
        in said
    )


def test_of_many_networks_those_are_told_that_differ_clearly():
    scores = pl.DataFrame({"network": list("abcdef"), "p_adjusted": [1.0, 0.5, float("nan"), 1.0, 0.01, 0.2]})
    assert first_told(scores)["network"].to_list() == ["e", "f", "b", "a"]
    assert first_told(scores, 6)["network"].to_list() == list("abcdef")


def test_the_one_of_many_networks_that_alternates_is_found(bench):
    """399 shuffles of each could give no p below 0.06 as corrected for 24 networks."""
    rng, vectors = np.random.default_rng(0), {}
    for number in range(24):
        bench.models[f"tell{number}"] = bench.models["tell"]
        texts = [f"{number} {output}" for output in range(12)]
        bench.add("start", texts, network=("draw", f"tell{number}"), seed=-1, max_length=24)
        order = np.arange(12) % 2 if number == 17 else rng.integers(4, size=12)
        vectors |= {text: corner(int(place)) for text, place in zip(texts, order, strict=True)}
    bench.embed(vectors)
    said = two_periodicity.sentence(two_periodicity.table(bench.evidence, TEXT))
    assert "draw → tell17 alternates (" in said
    assert said.count(" alternates (") == 1
    assert "; and 20 more" in said


def test_networks_of_which_nothing_is_said_are_named(bench):
    """Of two networks one alone was told of, where the other made too few moves."""
    for number, network in enumerate((NETWORK, ("tell",))):
        for repeat in range(3):
            texts = list("abbaababbaababbaab") if number == 0 else list("ababab")
            bench.add("start", texts, network=network, seed=-1, repeat=repeat, max_length=36)
    bench.embed({"a": corner(0), "b": corner(1)})
    for question in (chain, milestones):
        said = question.sentence(question.table(bench.evidence, TEXT))
        assert said.startswith("draw → tell (")
        assert said.endswith(
            "Not asked (fewer than 20 moves among 2 clusters or more with fresh noise): tell."
        )
    assert not_asked([], "why") == ""
    assert not_asked(["a", "b", "c", "d"], "why") == " Not asked (why): a, b, c and 1 more."


def test_the_largest_of_many_differences_is_not_told_where_networks_do_not_differ(bench):
    """Of 780 pairs of networks without a difference the two largest were told, with Cliff's delta 1.00."""
    rng, vectors = np.random.default_rng(3), {}
    for number in range(8):
        for prompt in range(3):
            text = f"{number} {prompt}"
            bench.models[f"tell{number}"] = bench.models["tell"]
            bench.add(f"start {prompt}", [text], network=("draw", f"tell{number}"), seed=-1, max_length=2)
            vectors |= {f"start {prompt}": angle_vector(0), text: angle_vector(float(rng.uniform(30, 60)))}
    bench.embed(vectors)
    answer = networks.table(bench.evidence, TEXT)
    assert answer.test.p_value > 0.05
    assert "Cliff" not in networks.sentence(answer)
    clear = replace(answer, test=replace(answer.test, p_value=0.01))
    assert "The largest differences of" not in networks.sentence(answer)
    assert ("The largest differences of" in networks.sentence(clear)) == (len(answer.pairs) > 2)


def test_runs_of_one_output_are_single_points(bench):
    run = bench.add("start", ["one"], seed=-1, max_length=2)
    bench.embed({"one": corner(0)})
    bench.diagram(run, np.eye(1, 3))
    [figure] = ask(diagrams, bench.evidence)
    assert "Every run is a single point" in figure.sentence


def test_twins_that_are_apart_from_the_start_are_said_to_be(bench):
    vectors = {}
    for repeat in range(4):
        texts = [f"{repeat} {number}" for number in range(12)]
        bench.add("start", texts, seed=-1, repeat=repeat, max_length=24)
        vectors |= {text: corner(repeat) for text in texts}
    bench.embed(vectors)
    said = twins.sentence(twins.table(bench.evidence, TEXT))
    assert "about as far apart as in the end from output 1 on: no early growth to fit" in said


def test_columns_of_pictures_are_networks(full):
    answer = grid.table(full.evidence)
    assert not answer.has_arms
    assert "under each network (columns: 1)" in grid.sentence(answer)
    assert "each network and arm (columns: 1)" in grid.sentence(replace(answer, has_arms=True))
