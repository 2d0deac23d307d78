"""Networks that drift differently, and such that do not."""

from __future__ import annotations

from itertools import product

import numpy as np
import polars as pl
import pytest

from panic.analysis.questions import networks
from tests.analysis.conftest import TEXT, angle_vector
from tests.analysis.looks import assert_shown

PAIR = (("draw", "tell"), ("tell",))


def fill(bench, far: dict[tuple[str, ...], float], *, repeats: int = 2, arms=("baseline",)) -> None:
    """Six prompts under each network; runs end so many degrees from their prompt, more or less.

    Those of the second arm end 20 degrees farther.
    """
    rng = np.random.default_rng(0)
    vectors = {f"start {prompt}": angle_vector(0) for prompt in range(6)}
    for prompt in range(6):
        for network, degrees in far.items():
            for repeat, (number, arm) in product(range(repeats), enumerate(arms)):
                text = f"text {prompt} {network} {repeat} {arm}"
                how = {"network": network, "seed": -1, "repeat": repeat, "max_length": 2, "arm": arm}
                bench.add(f"start {prompt}", [text], **how)
                vectors[text] = angle_vector(degrees + 20 * number + prompt + rng.normal())
    bench.embed(vectors)


def test_networks_that_drift_differently_are_told_apart_within_prompts(bench):
    fill(bench, {PAIR[0]: 30.0, PAIR[1]: 60.0})
    answer = networks.table(bench.evidence, TEXT)
    assert answer.test.resampling == "within units"
    assert answer.test.p_value < 0.001
    assert answer.test.effect > 0.9
    assert answer.pairs["cliffs_delta"].to_list() == [-1.0]
    assert answer.pairs["cohens_d"][0] < -3
    slope = answer.model.row(1, named=True)  # the second network beyond the first
    assert slope["estimate"] == pytest.approx(np.cos(np.radians(33)) - np.cos(np.radians(63)), abs=0.03)
    said = networks.sentence(answer)
    assert said.startswith("Late distances from the start differ between networks")
    assert "24 runs" in said
    assert "draw → tell against tell: Cliff's delta -1.00" in said


@pytest.mark.parametrize(
    ("far", "what"), [({PAIR[0]: 30.0}, "arms"), ({PAIR[0]: 30.0, PAIR[1]: 60.0}, "networks and arms")]
)
def test_what_is_compared_is_named(bench, far, what):
    """Two arms of one network were said to be networks that differ."""
    fill(bench, far, arms=("baseline", "shock"))
    answer = networks.table(bench.evidence, TEXT)
    said = networks.sentence(answer)
    assert said.startswith(f"Late distances from the start differ between {what}: these explain")
    if what == "arms":
        assert "draw → tell against draw → tell · shock: Cliff's delta -1.00" in said


def test_how_far_is_far_stands_beside_the_distances(bench):
    """Three starts at right angles, the first and the last opposite: 1, 1 and 2 apart."""
    vectors = {}
    for number in range(3):
        for network in PAIR:
            text = f"text {number} {network}"
            bench.add(f"start {number}", [text], network=network, seed=-1, max_length=2)
            vectors |= {f"start {number}": angle_vector(90 * number), text: angle_vector(90 * number + 10)}
    bench.embed(vectors)
    answer = networks.table(bench.evidence, TEXT)
    assert answer.unrelated == pytest.approx(1)
    made = assert_shown(networks, answer).to_dict()
    assert "the median distance of different starts from each other, 1.00." in " ".join(
        made["title"]["subtitle"]
    )
    assert [layer["mark"]["type"] for layer in made["layer"]] == ["point", "tick", "rule"]


def test_networks_that_drift_alike_are_not(bench):
    fill(bench, {PAIR[0]: 45.0, PAIR[1]: 45.0})
    answer = networks.table(bench.evidence, TEXT)
    assert answer.test.p_value > 0.05
    assert abs(answer.pairs["cliffs_delta"][0]) < 0.5


def test_networks_with_prompts_of_their_own_are_compared_by_prompts(bench):
    vectors = {}
    for number in range(8):
        text = f"text {number}"
        bench.add(f"start {number}", [text], network=PAIR[number % 2], seed=-1, max_length=2)
        vectors |= {f"start {number}": angle_vector(0), text: angle_vector(30 + 40 * (number % 2) + number)}
    bench.embed(vectors)
    answer = networks.table(bench.evidence, TEXT)
    assert answer.test.effect_name == "epsilon squared"
    assert answer.test.p_value == pytest.approx(0.0209, abs=1e-4)  # of 4 and 4 without overlap
    assert answer.model is None  # one run per prompt says nothing of the spread within


def test_one_network_is_not_asked(bench):
    fill(bench, {PAIR[0]: 45.0})
    assert networks.table(bench.evidence, TEXT) is None


def test_runs_that_met_are_one_trajectory(bench):
    """With the seed 42 all prompts end in one cycle per network: two draws, of however many prompts."""
    vectors = {f"start {prompt}": angle_vector(10.0 * prompt) for prompt in range(6)}
    for number, network in enumerate(PAIR):
        for prompt in range(6):
            bench.add(f"start {prompt}", [f"end {number}"], network=network, max_length=len(network))
            for repeat in range(2):
                text = f"text {prompt} {number} {repeat}"
                how = {"network": network, "seed": -1, "repeat": repeat, "max_length": len(network)}
                bench.add(f"start {prompt}", [text], **how)
                vectors[text] = angle_vector(10.0 * prompt + 40 + 7 * repeat)
        vectors[f"end {number}"] = angle_vector(60.0 + 100 * number)
    bench.embed(vectors)
    answer = networks.table(bench.evidence, TEXT)
    assert len(answer.late) == 2 * (6 * 2 + 1)
    assert answer.test.p_value > 0.05
    assert "could not be shown to differ" in networks.sentence(answer)


def test_a_network_of_one_run_has_no_effect_size():
    late = pl.DataFrame({"network": list("aabcc"), "distance": [0.1, 0.2, 0.9, 0.3, 0.5]})
    pairs = networks._pairs(late)
    assert pairs.select("a", "b", "cliffs_delta").rows() == [("a", "c", -1.0)]
