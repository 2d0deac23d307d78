"""Which factor matters, where the answer is known."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic import run
from panic.analysis import factors, load
from panic.analysis.evidence import Evidence
from panic.analysis.grouping import ARROW
from panic.analysis.questions import ask, effects
from panic.analysis.statistics import GroupTest
from panic.models.synthetic import named_state
from panic.store import Commit, NewDiagram, Store, reading, writing
from panic.topology import distance_matrix
from tests.analysis.conftest import TEXT, angle_vector
from tests.analysis.looks import assert_shown
from tests.analysis.test_factors import PLAIN
from tests.engine.conftest import make_config

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
                how = {"network": network, "seed": -1, "repeat": repeat, "max_length": 4 * len(network)}
                run = bench.add(f"start {prompt}", texts, **how)
                made = np.eye(8)[prompt] + 0.1 * rng.normal(size=(4, 8))
                vectors |= dict(zip(texts, made, strict=True))
                bench.diagram(run, made)
    bench.embed(vectors)
    return bench


def test_the_prompt_matters_and_the_network_does_not(crossed):
    table, absent = effects.what_matters(load(crossed.store, "demo"), *TEXT, num_permutations=199)
    assert absent == {}
    ends = table.filter(pl.col("measure") == effects.ENDS)
    rows = {(row["factor"], row["within"]): row for row in ends.iter_rows(named=True)}
    assert set(rows) == {("prompt", ""), ("network", ""), ("prompt", "network"), ("network", "prompt")}
    prompt, network, within = rows["prompt", ""], rows["network", ""], rows["network", "prompt"]
    assert prompt["effect"] > 0.9
    assert prompt["baseline"] == pytest.approx(5 / 23, abs=0.05)  # (levels - 1) / (n - 1)
    assert prompt["p_adjusted"] == pytest.approx(8 / 200)  # of eight tests, none of 199 shuffles as large
    assert prompt["beyond"] == prompt["effect"] - prompt["baseline"]
    assert prompt["p_least"] < 1e-9
    assert network["effect"] < network["baseline_high"]
    assert network["p_adjusted"] > 0.05
    assert within["p_adjusted"] > 0.05
    diagrams = table.filter(pl.col("measure") == effects.COMPONENTS)
    assert (diagrams["p_adjusted"] > 0.05).all()  # their sizes are all alike
    assert table["num_runs"].unique().to_list() == [24]


def test_labels_move_among_runs_that_are_alike_in_all_else():
    runs = pl.DataFrame(
        {
            "run": range(8), "prompt": ["p", "q"] * 4, "seed": [-1] * 4 + [1] * 4,
            "network": [ARROW.join(pair) for pair in ("ac", "ac", "ad", "ad", "bc", "bc", "bd", "bd")],
        }
    ).with_columns(plain_network="network", num_models=2, **PLAIN)  # fmt: skip
    found = factors.with_factors(runs)
    assert found.columns == ["run", "prompt", "network", "seed", "model at place 1", "model at place 2"]
    assert found["model at place 1"].to_list() == list("aaaabbbb")
    assert factors.exchangeable(found, "model at place 2") == [
        f"{prompt}\n{seed}\n{model}"
        for prompt, seed, model in zip("pqpqpqpq", ["fresh"] * 4 + ["1"] * 4, "aaaabbbb", strict=True)
    ]
    assert factors.exchangeable(found.with_columns(seed=pl.lit("1")), "network") == list("pqpqpqpq")
    own = found.with_columns(prompt=pl.Series(list("ppqqrrss")), seed=pl.lit("1"))
    assert factors.exchangeable(own, "network") == list("ppqqrrss")  # nested: whole prompts move
    one = own.with_columns(network=pl.lit("n")).drop("model at place 1", "model at place 2")
    assert factors.exchangeable(one, "prompt") is None


def test_what_cannot_be_tested_is_told(bench):
    for number in range(3):
        bench.add(f"start {number}", [f"text {number}"], seed=-1, max_length=2)
    bench.embed({f"text {number}": angle_vector(30.0 * number) for number in range(3)})
    table, absent = effects.what_matters(load(bench.store, "demo"), *TEXT)
    assert table.is_empty()
    assert absent == {
        "prompt, where runs end": "3 units in 3 groups: with one unit per group nothing can be told apart"
    }


def place(bench, ends: dict[tuple[tuple[str, ...], str, int, int], np.ndarray]) -> None:
    """Runs of one output per model that end there, by network, prompt, seed and repeat."""
    vectors = {}
    for number, ((network, prompt, seed, repeat), vector) in enumerate(ends.items()):
        for name in network:
            if name not in bench.models:
                spec = {"modalities_in": ["text"], "modality_out": "text"}
                bench.models[name] = writing.add_model(bench.store, name, f"{name}-fingerprint", spec)
        text = f"text {number}" if seed == -1 else f"text {network} {np.round(vector, 6).tolist()}"
        bench.add(prompt, [text], network=network, seed=seed, repeat=repeat, max_length=len(network))
        vectors[text] = vector
    bench.embed(vectors)


def test_a_network_that_moves_every_prompt_elsewhere_is_named(bench):
    """The ends of one network are those of the other, of other prompts: no mean moves, each prompt does."""
    rng = np.random.default_rng(0)
    place(bench, {
        (network, f"start {prompt}", -1, repeat): np.eye(6)[(prompt + shift) % 6] + 0.1 * rng.normal(size=6)
        for prompt in range(6) for shift, network in enumerate(NETWORKS) for repeat in range(4)
    })  # fmt: skip
    answer = effects.table(bench.evidence, TEXT)
    assert_shown(effects, answer)
    plain = answer.tests.filter(pl.col("factor") == "network", pl.col("within") == "")
    assert plain["p_adjusted"][0] > 0.05
    assert "the network, in another way for each prompt (" in effects.sentence(answer)


def test_effects_are_ordered_by_what_goes_beyond_chance(bench):
    """Twelve prompts explain more than two networks by chance alone; the networks make the difference."""
    rng = np.random.default_rng(1)
    at = {prompt: 0.15 * rng.normal(size=8) for prompt in range(12)}
    place(bench, {
        (network, f"start {prompt}", -1, repeat):
            np.eye(8)[0] * 3 + at[prompt] + 0.9 * np.eye(8)[1] * sign + 0.9 * rng.normal(size=8)
        for prompt in at for sign, network in zip((-1, 1), NETWORKS, strict=True) for repeat in range(2)
    })  # fmt: skip
    tests, _ = effects.what_matters(load(bench.store, "demo"), *TEXT)
    network, prompt = tests.filter(pl.col("within") == "").iter_rows(named=True)
    assert (network["factor"], prompt["factor"]) == ("network", "prompt")
    assert prompt["effect"] > network["effect"]
    assert prompt["beyond"] < network["beyond"]


def test_a_model_that_varies_with_another_place_only_is_confounded(bench):
    rng = np.random.default_rng(0)
    networks = {("A", "X"): 0, ("A", "Y"): 1, ("B", "Z"): 2}  # A and B are alike, X, Y and Z are not
    place(bench, {
        (network, f"start {prompt}", -1, repeat): np.eye(4)[k] + 0.1 * rng.normal(size=4)
        for network, k in networks.items() for prompt in range(4) for repeat in range(2)
    })  # fmt: skip
    answer = effects.table(bench.evidence, TEXT)
    assert "model at place 1" not in answer.tests["factor"].to_list()
    assert "the model at place 1 is confounded" in answer.absent["model at place 1, where runs end"]
    assert "the network (" in effects.sentence(answer)


def test_copies_of_one_trajectory_say_nothing_about_their_seed(bench):
    """All runs with the seed 42 met: they are one draw, which may lie anywhere."""
    rng = np.random.default_rng(0)
    ends = {}
    for prompt in range(6):
        ends[NETWORKS[0], f"start {prompt}", 42, 0] = np.eye(4)[0]
        for repeat in range(3):
            ends[NETWORKS[0], f"start {prompt}", -1, repeat] = rng.normal(size=4)
    place(bench, ends)
    tests, absent = effects.what_matters(load(bench.store, "demo"), *TEXT)
    assert tests.filter(pl.col("factor") == "seed").is_empty()
    assert "confounded" in absent["seed, where runs end"]


def test_a_design_that_could_not_have_shown_anything_says_so(bench):
    rng = np.random.default_rng(0)
    place(bench, {
        (network, f"start {prompt}", -1, repeat): np.eye(4)[2 * prompt + k] + 0.01 * rng.normal(size=4)
        for prompt in range(2) for k, network in enumerate(NETWORKS) for repeat in range(2)
    })  # fmt: skip
    answer = effects.table(bench.evidence, TEXT)
    network = answer.tests.filter(pl.col("factor") == "network", pl.col("within") == "")
    assert network["p_least"][0] == pytest.approx(2 / 36)
    assert network["p_value"][0] >= network["p_least"][0]
    assert "this design could not have shown anything" in effects.sentence(answer)
    assert "the smallest possible p is 0.056" in effects.sentence(answer)


def test_where_a_cycle_is_at_the_end_decides_and_not_where_it_was_seen(tmp_path):
    """A cycle of 7 without noise: prompts of one state end in one place, whatever the seed; others do not."""
    same = [text for text in (f"start {i}" for i in range(99)) if named_state(text, 7) == 3][:7]
    models = {
        "draw": {"base": "synthetic/text-to-image", "states": 7, "size": 8},
        "chain": {"base": "synthetic/image-to-text", "states": 7, "kernel": "cycle"},
        "circle": {"base": "synthetic/state-embedding", "states": 7},
    }
    each = [f"state {i}" for i in range(7)]
    for prompts, said in ((same, "all 14 runs are the same"), (each, "the prompt (")):
        config = make_config(
            models=models, prompts=prompts, seeds=[1, -1], repeats=1, max_length=20, embeddings=["circle"]
        )
        run(config, tmp_path / said[:5])
        with Store(tmp_path / said[:5]) as store:
            evidence = Evidence.of(store, reading.experiment(store))
            (figure,) = ask(effects, evidence)
        assert said in figure.sentence + figure.missing
        assert "the seed (" not in figure.sentence


def test_a_network_that_fails_somewhere_is_not_taken_for_one_that_ends_there(bench):
    """Both networks end anywhere; one has runs that failed, all in one place."""
    rng = np.random.default_rng(0)
    place(bench, {
        (network, f"start {prompt}", -1, repeat): rng.normal(size=4)
        for network in NETWORKS for prompt in range(4) for repeat in range(2)
    })  # fmt: skip
    for prompt in range(4):
        for repeat in (2, 3):
            how = {"network": NETWORKS[1], "seed": -1, "repeat": repeat, "max_length": 9}
            bench.fail(bench.add(f"start {prompt}", ["lost"], **how), 1)
    bench.embed({"lost": 5 * np.eye(4)[0]})
    tests, _ = effects.what_matters(load(bench.store, "demo"), *TEXT)
    network = tests.filter(pl.col("factor") == "network", pl.col("within") == "").row(0, named=True)
    assert network["num_runs"] == 16
    assert network["p_adjusted"] > 0.05


def outcome(p: float, effect: float = 0.5, least: float = 0.001) -> GroupTest:
    """A test with this p value, effect and smallest possible p; shuffled labels give 0.2."""
    return GroupTest(
        statistic=1.0, p_value=p, effect=effect, effect_name="R squared", baseline=0.2, baseline_high=0.3,
        num_groups=2, num_values=9, num_units=9, resampling="between units", p_least=least,
    )  # fmt: skip


def test_p_values_are_corrected_for_the_tests_that_could_have_shown_anything():
    rows = effects._rows(
        [
            ("seed", "", effects.LOOPS, outcome(0.5, 0.9, least=0.2)),
            ("prompt", "", effects.ENDS, outcome(0.04, 0.3)),
            ("network", "", effects.ENDS, outcome(0.01, 0.6, least=0.05)),
            ("network", "prompt", effects.COMPONENTS, outcome(0.03, 0.1)),
        ]
    )
    assert rows["measure"].to_list() == [effects.ENDS, effects.ENDS, effects.COMPONENTS, effects.LOOPS]
    assert rows["factor"].to_list() == ["network", "prompt", "network", "seed"]
    assert rows["beyond"].to_list() == pytest.approx([0.4, 0.1, -0.1, 0.7])
    assert rows["p_adjusted"].to_list() == pytest.approx([0.03, 0.06, 0.06, 0.5])


def test_what_is_clear_is_told_and_what_could_not_have_been():
    tests = [
        ("network", "", effects.ENDS, outcome(0.001)),
        ("network", "prompt", effects.ENDS, outcome(0.001, 0.4)),
        ("prompt", "network", effects.ENDS, outcome(0.002, 0.35)),
        ("prompt", "", effects.COMPONENTS, outcome(0.4)),
        ("seed", "", effects.COMPONENTS, outcome(0.5, least=0.06)),
        ("seed", "", effects.LOOPS, outcome(0.5, least=0.06)),
    ]
    said = effects.sentence(effects.Effects(tests=effects._rows(tests), absent={"the seed": "why"}))
    assert said == (
        "What makes a difference to where runs end (share of the variance beyond what shuffled labels give; "
        "9 runs): the network (30%, p = 0.004), then the prompt, in another way for each network (15%, "
        "p = 0.004); H0 diagrams (tightness of groups beyond what shuffled labels give; 9 runs): nothing is "
        "clear (smallest p = 0.4); the seed could not have been shown (smallest possible p = 0.06); H1 "
        "diagrams (tightness of groups beyond what shuffled labels give; 9 runs): this design could "
        "not have shown anything: too few runs, the smallest possible p is 0.06. Not tested: the seed (why)."
    )


def test_bars_that_never_die_have_no_part_in_the_distances_of_diagrams(bench):
    """Runs of one, two and three open bars: with them every distance was infinite."""
    finite = [[[0.0, 1.0], [0.0, 2.0]], [[0.0, 4.0]], []]
    runs = [bench.add(f"start {number}", [f"text {number}"], seed=-1, max_length=2) for number in range(4)]
    for number, bars in enumerate(finite):
        with_open = np.array([*bars, *[[0.0, np.inf]] * (number + 1)])
        writing.commit(bench.store, Commit(diagrams=[NewDiagram(
            run=runs[number], model=bench.models["embed"], settings={"metric": "euclidean"},
            settings_digest="d", num_points=3, num_unique=3, duration_s=0.5, bars={0: with_open},
        )]))  # fmt: skip
    bench.embed({f"text {number}": np.eye(4)[number] for number in range(4)})
    found = effects._distances(load(bench.store, "demo"), *TEXT, set(runs))
    (ends, (measure, of, distances)) = found
    assert (measure, of) == (effects.COMPONENTS, runs[:3])
    want = distance_matrix([np.array(bars).reshape(-1, 2) for bars in finite], "wasserstein")
    np.testing.assert_allclose(distances, want)
    assert ends[:2] == (effects.ENDS, runs)
    np.testing.assert_allclose(ends[2], np.sqrt(2) * (1 - np.eye(4)), atol=1e-12)


def test_diagrams_of_runs_that_failed_do_not_count(crossed):
    how = {"network": NETWORKS[0], "seed": -1, "repeat": 9, "max_length": 8}
    lost = crossed.add("start 0", ["lost 1", "lost 2"], **how)
    crossed.diagram(lost, np.eye(8)[:3])
    crossed.fail(lost, 4)
    table, _ = effects.what_matters(load(crossed.store, "demo"), *TEXT, num_permutations=19)
    assert effects.COMPONENTS in table["measure"].to_list()
    assert table["num_runs"].unique().to_list() == [24]


def test_150_runs_are_shuffled_999_times(bench):
    for repeat in range(151):
        bench.add(
            f"start {repeat % 2}", ["ab"[repeat % 2]], network=("tell",), seed=-1, repeat=repeat, max_length=1
        )
    bench.embed({"a": angle_vector(0), "b": angle_vector(90)})
    table, _ = effects.what_matters(load(bench.store, "demo"), *TEXT)
    assert table.select("factor", "num_runs", "p_value").rows() == [("prompt", 150, 1 / 1000)]


@pytest.mark.parametrize("num_runs", [2, 3])
def test_three_runs_that_have_ended_are_asked(bench, num_runs):
    for repeat in range(num_runs):
        bench.add(f"start {repeat}", ["a"], network=("tell",), seed=-1, repeat=repeat, max_length=1)
    bench.embed({"a": angle_vector(0)})
    _, absent = effects.what_matters(load(bench.store, "demo"), *TEXT)
    few = f"3 runs that have ended are needed, found {num_runs}"
    assert (absent.get(effects.ENDS) == few) == (num_runs < 3)
