"""Summary metrics and what experiments differ in, with values that are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from panic import run
from panic.analysis.contrasts import commit_range, contrasts, differences
from panic.analysis.data import load
from panic.analysis.metrics import METRICS, metric
from panic.analysis.paired import LEAST_UNITS, PER_STEP, Side, paired, pairing, side
from panic.config import ExperimentConfig
from panic.errors import NotFound
from panic.store import Store, reading

STATES = 23


def config(name: str, **changes: object) -> ExperimentConfig:
    """Loops of a cycle of 5 states: without chance they get stuck after 2 x 5 steps."""
    values: dict[str, object] = {
        "name": name,
        "networks": [["draw", "chain"]],
        "models": {
            "draw": {"base": "synthetic/text-to-image", "states": STATES, "size": 16},
            "chain": {"base": "synthetic/image-to-text", "states": STATES, "kernel": "cycle", "epsilon": 0.0},
            "circle": {"base": "synthetic/state-embedding", "states": STATES},
        },
        "prompts": [f"state {number}" for number in range(8)],
        "seeds": [-1],
        "repeats": 2,
        "max_length": 8,
        "embeddings": ["circle"],
        "device": "cpu",
        "executor": "local",
    }
    return ExperimentConfig.model_validate(values | changes)


@pytest.fixture(scope="module")
def performed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One loop that goes round a cycle, one of chance, and one with a fixed seed that gets stuck."""
    folder = tmp_path_factory.mktemp("paired") / "store"
    run(config("cycle"), folder)
    chance = {"base": "synthetic/image-to-text", "states": STATES, "kernel": "dirichlet", "epsilon": 0.0}
    run(config("chance", models={**config("x").model_dump()["models"], "chain": chance}), folder)
    run(config("fixed", seeds=[7], repeats=1, max_length=60, prompts=["state 0", "state 1"]), folder)
    return folder


def values(store: Store, name: str, of: str) -> list[float | None]:
    return metric(load(store, name), of)["value"].to_list()


def test_metrics_have_their_known_values(performed: Path) -> None:
    with Store(performed) as store:
        assert values(store, "fixed", "stuck_share") == [1.0, 1.0]
        assert values(store, "fixed", "period") == [2.0 * STATES] * 2
        assert values(store, "fixed", "entry_step") == [0.0, 0.0]
        assert values(store, "cycle", "stuck_share") == [None] * 16, "fresh noise cannot get stuck"
        assert values(store, "cycle", "tokens") == [None] * 16
        # 4 different texts and 4 different images in 8 steps: 2 bits each.
        assert values(store, "cycle", "entropy") == pytest.approx([2.0] * 16)
        # The last text is 4 states on: an angle of 4 / 23 of the circle.
        angle = 1 - np.cos(2 * np.pi * 4 / STATES)
        assert values(store, "cycle", "drift") == pytest.approx([angle] * 16, abs=1e-5)
        spent = sum(row.duration_s for row in reading.model_times(store, "cycle") if row.model != "circle")
        assert sum(v for v in values(store, "cycle", "seconds") if v) == pytest.approx(spent)
        with pytest.raises(NotFound) as raised:
            metric(load(store, "cycle"), "drfit")
        assert raised.value.hint == "Did you mean drift?"
        for name in METRICS:
            found = metric(load(store, "cycle"), name)
            assert found.schema == {"run": pl.Int64, "value": pl.Float64}
            assert len(found) == 16


def test_experiments_are_paired_by_prompt(performed: Path) -> None:
    with Store(performed) as store:
        rows = [reading.experiment(store, name) for name in ("cycle", "chance", "fixed")]
        found = pairing(store, rows)
        drifts = [np.array(values(store, name, "drift")) for name in ("cycle", "chance")]
    table = {name: (summaries, comparisons) for name, summaries, comparisons in found.rows()}
    assert set(table) == {*METRICS, PER_STEP} - {"tokens"}
    summaries, (chance, fixed) = table["drift"]
    assert [one.experiment for one in summaries] == ["cycle", "chance", "fixed"]
    assert summaries[0].mean == pytest.approx(drifts[0].mean())
    assert summaries[0].spread == pytest.approx(0, abs=1e-5)
    assert summaries[2].spread is None, "there is one seed"
    assert (chance.first, chance.other, chance.num_starts) == ("cycle", "chance", 8)
    assert chance.difference == pytest.approx(drifts[1].mean() - drifts[0].mean())
    assert chance.p_value is not None
    assert chance.p_adjusted is not None
    assert 2 / 2**8 <= chance.p_value <= chance.p_adjusted
    # Both prompts go round one cycle, so that they are one start.
    assert (fixed.num_starts, fixed.p_value) == (1, None)
    entropy = table["entropy"][1][0]
    assert entropy.difference is not None


def test_single_runs_are_compared_as_experiments_of_one_run(performed: Path) -> None:
    """The difference is that of their own numbers; runs of different prompts have none."""
    with Store(performed) as store:
        row = reading.experiment(store, "cycle")
        first, *_, last = reading.runs(store, row.id)
        again = next(run for run in reading.runs(store, row.id)[1:] if run.prompt == first.prompt)
        found = paired([side(store, row, run.id, f"run {run.id}") for run in (first, again, last)])
        seconds = dict(metric(load(store, "cycle"), "seconds").iter_rows())
    assert first.prompt != last.prompt
    table = {name: (summaries, comparisons) for name, summaries, comparisons in found.rows()}
    summaries, (same, other) = table["seconds"]
    assert [one.experiment for one in summaries] == [f"run {run.id}" for run in (first, again, last)]
    assert [one.mean for one in summaries] == [seconds[run.id] for run in (first, again, last)]
    assert same.difference == pytest.approx(seconds[again.id] - seconds[first.id])
    assert (same.num_starts, same.p_value) == (1, None)
    assert (other.difference, other.num_starts) == (None, 0)


def test_a_difference_of_one_sign_has_the_least_p_and_none_has_none(tmp_path: Path) -> None:
    """8 starts, all of which drift as much less: 2 of 256 swaps are as far from 0."""
    folder = tmp_path / "store"
    run(config("long"), folder)
    run(config("short", max_length=4), folder)
    with Store(folder) as store:
        found = pairing(store, [reading.experiment(store, name) for name in ("long", "short")])
        same = pairing(store, [reading.experiment(store, name) for name in ("long", "long")])
    one = next(one for one in found.comparisons if one.metric == "entropy")
    assert (one.difference, one.num_starts) == (pytest.approx(-1.0), 8)
    assert one.p_value == pytest.approx(2 / 256)
    assert LEAST_UNITS <= 8
    assert one.p_adjusted is not None
    assert one.p_adjusted > one.p_value
    assert {one.p_value for one in same.comparisons} == {None}


def test_arms_of_a_prompt_are_no_starts_of_their_own(tmp_path: Path) -> None:
    """Until something steps in they are copies: each was counted, and p was that of three times as many."""
    arms = {"baseline": [], "late": [{"at": 6, "text": "state 1"}], "later": [{"at": 7, "noise": 0.1}]}
    for name, states in (("one", STATES), ("other", 5)):
        models = config(name).model_dump()["models"]
        models["chain"] |= {"states": states}
        prompts = [f"state {5 * number}" for number in range(4)]
        run(config(name, models=models, prompts=prompts, arms=arms, repeats=1), tmp_path / "s")
    with Store(tmp_path / "s") as store:
        found = pairing(store, [reading.experiment(store, name) for name in ("one", "other")])
    assert {one.num_starts for one in found.comparisons if one.metric == "seconds"} == {4}
    assert all(one.p_value is None for one in found.comparisons), f"below {LEAST_UNITS} starts"


def made(
    name: str, rows: list[tuple[str, int, int, float | None]], met: Sequence[tuple[str, str]] = ()
) -> Side:
    """A side with runs of these prompts, seeds, repeats and entropies."""
    frame = pl.DataFrame(rows, schema=["prompt", "seed", "repeat", "entropy"], orient="row")
    return Side(name=name, runs=frame.cast({"entropy": pl.Float64}), met=list(met))


def test_means_spreads_and_differences_that_are_worked_out_by_hand() -> None:
    """Runs without the metric count nowhere, a seed and a repeat are one draw, prompts weigh alike."""
    first = made("x", [("a", 1, 0, 1.0), ("a", 2, 0, 3.0), ("b", 1, 0, 5.0), ("b", 2, 0, None)])
    other = made("y", [("a", 1, 0, 4.0), ("a", 1, 1, 8.0), ("b", 1, 0, 5.0), ("c", 1, 0, 90.0)])
    found = paired([first, other])
    [(name, (of_first, of_other), (one,))] = found.rows()
    assert name == "entropy"
    assert (of_first.mean, of_first.num_runs) == (3.0, 3)
    assert of_first.spread == pytest.approx(0.0)  # seed 1: (1 + 5) / 2; seed 2: 3
    assert (of_other.mean, of_other.num_runs) == (26.75, 4)
    assert of_other.spread == pytest.approx(25 / 2**0.5)  # repeat 0: (4 + 5 + 90) / 3; repeat 1: 8
    assert (one.first, one.other, one.num_starts) == ("x", "y", 2)
    assert one.difference == 2.0, "a: 6 - 2, b: 5 - 5; c is of one of them alone"
    assert (one.p_value, one.p_adjusted) == (None, None)


def test_prompts_that_met_in_either_experiment_are_one_start() -> None:
    """By way of a third, too: a met b here, b met c there. Their mean difference counts as one of two."""
    rows = [(prompt, 1, 0, 0.0) for prompt in "abcd"]
    moved = [("a", 1, 0, 1.0), ("b", 1, 0, 2.0), ("c", 1, 0, 3.0), ("d", 1, 0, 10.0)]
    for met in ([("a", "b")], [("c", "b")]), ([("b", "a")], [("b", "c")]), ([("a", "b"), ("b", "c")], []):
        [one] = paired([made("x", rows, met[0]), made("y", moved, met[1])]).comparisons
        assert (one.num_starts, one.difference) == (2, 6.0)
    [one] = paired([made("x", rows), made("y", moved)]).comparisons
    assert (one.num_starts, one.difference) == (4, 4.0)


def test_as_many_starts_as_a_test_needs_are_tested() -> None:
    """Six that all grow: 2 of 64 swaps are as far from 0. With two comparisons Holm doubles the smaller p."""
    prompts = "abcdef"
    first = made("x", [(prompt, 1, 0, 0.0) for prompt in prompts])
    grown = made("y", [(prompt, 1, 0, 1.0 + i) for i, prompt in enumerate(prompts)])
    few = made("z", [(prompt, 1, 0, 1.0) for prompt in prompts[1:]])
    tested, same, untested = paired([first, grown, first, few]).comparisons
    assert (tested.num_starts, tested.p_value, tested.p_adjusted) == (6, 2 / 64, 2 / 64)
    assert (same.num_starts, same.difference, same.p_value) == (6, 0.0, None)
    assert (untested.num_starts, untested.difference, untested.p_value) == (5, 1.0, None)
    one, other = paired([first, grown, grown]).comparisons
    assert (one.p_value, one.p_adjusted, other.p_adjusted) == (2 / 64, 4 / 64, 4 / 64)


def test_what_no_experiment_has_is_no_row() -> None:
    nothing = made("x", [("a", 1, 0, None)])
    assert paired([nothing, nothing]).rows() == []
    [(_, (of_first, of_other), (one,))] = paired([nothing, made("y", [("a", 1, 0, 2.0)])]).rows()
    assert (of_first.mean, of_first.spread, of_first.num_runs, of_other.mean) == (None, None, 0, 2.0)
    assert (one.difference, one.num_starts) == (None, 0)


@pytest.mark.parametrize("with_arms", [0, 1])
def test_where_one_side_has_no_arms_its_prompts_stand_beside_the_mean_of_the_others(with_arms: int) -> None:
    sides = [made(name, [("a", 1, 0, 1.0), ("a", 1, 1, 4.0), ("b", 1, 0, 2.0)]) for name in "xy"]
    arms = pl.Series("arm", ["baseline", "late", "late"])
    sides[with_arms] = replace(sides[with_arms], runs=sides[with_arms].runs.with_columns(arms))
    [one] = paired(sides).comparisons
    # a: 1 and 4 beside their mean of 2.5; b: the same.
    assert (one.num_starts, one.difference) == (2, 0.0)
    [one] = paired([sides[with_arms]] * 2).comparisons
    assert (one.num_starts, one.difference) == (2, 0.0)


def test_an_arm_that_one_side_alone_has_is_compared_with_nothing() -> None:
    first, other = (
        replace(side, runs=side.runs.with_columns(arm=pl.Series(arms)))
        for side, arms in (
            (made("x", [("a", 1, 0, 0.0), ("a", 1, 1, 10.0)]), ["baseline", "late"]),
            (made("y", [("a", 1, 0, 1.0)]), ["baseline"]),
        )
    )
    [one] = paired([first, other]).comparisons
    assert (one.num_starts, one.difference) == (1, 1.0)


def test_what_differs_is_told_by_section(performed: Path) -> None:
    with Store(performed, write=True) as store:
        rows = [reading.experiment(store, name) for name in ("cycle", "fixed")]
        with store.transaction() as connection:
            provenance = json.loads(
                store.db.value("SELECT provenance FROM session WHERE experiment = ?", rows[1].id)
            )
            provenance["packages"]["numpy"] = "0.1"
            provenance["git"] = {"commit": "a" * 40, "dirty": True, "patch_sha256": "b" * 64}
            provenance["hardware"]["gpus"] = ["a GPU"]
            connection.execute(
                "UPDATE session SET provenance = ? WHERE experiment = ?", (json.dumps(provenance), rows[1].id)
            )
            connection.execute(
                "UPDATE epoch SET model = 1 WHERE experiment = ? AND name = 'chain'", (rows[1].id,)
            )
        found = {(one.section, one.field): one for one in contrasts(store, rows)}
    different = {key for key, one in found.items() if not one.is_same}
    assert different == {
        *(("config", field) for field in ("prompts", "seeds", "repeats", "max_length")),
        *{("models", "chain"), ("code", "panic commit"), ("versions", "numpy"), ("hardware", "GPUs")},
    }
    assert found["code", "panic commit"].values[1] == "aaaaaaaaaaaa and a patch (bbbbbbbb)"
    assert found["config", "prompts"].values == [
        "8, only here: state 2; state 3; state 4; state 5; state 6; and 1 more",
        "2, none of them only here",
    ]
    assert found["config", "root_seed"].values == ["0", "0"]


def test_lists_in_another_order_differ() -> None:
    assert differences([{"seeds": [1, 2]}, {"seeds": [2, 1]}]) == [
        ("seeds", ["2, none of them only here", "2, none of them only here, in another order"])
    ]
    assert differences([{"seeds": [1], "name": "a"}, {"seeds": [1], "name": "b"}]) == []


def test_arms_and_long_texts_that_differ_late_are_not_called_the_same_in_another_order() -> None:
    """Their texts were cut at 60 characters: what differed behind that was said to be an order."""
    swap = {"at": 4, "every": None, "model": None, "noise": None, "network": None}
    arms = [{"arms": {"swap": [swap | {"text": text}]}} for text in ("a lighthouse", "a barn")]
    [(field, values)] = differences(arms)
    assert field == "arms: swap"
    assert [text in value for text, value in zip(("lighthouse", "barn"), values, strict=True)] == [True, True]
    long = [{"prompts": ["x" * 80 + end]} for end in "ab"]
    [(_, values)] = differences(long)
    assert values[0] != values[1]
    assert "order" not in "".join(values)


def test_commits_as_git_takes_them() -> None:
    assert commit_range(["abc and a patch (1)", "def"]) == "abc..def"
    assert commit_range(["abc", "abc and a patch (1)"]) == ""
    assert commit_range(["-", "abc"]) == ""


def test_only_drift_depends_on_the_models_of_an_experiment() -> None:
    """The others are measured of all experiments at once."""
    assert [name for name, one in METRICS.items() if one.is_of_experiment] == ["drift"]
