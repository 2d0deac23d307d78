"""Arms of an experiment: what steps into runs, what they share, when they are stuck; kills change nothing."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panic import run
from panic.config import ExperimentConfig, stored
from panic.engine.plan import CheckedConfig
from panic.engine.verify import verify
from panic.errors import ConflictError, Interrupted
from panic.store import Store, check, contents, export, reading
from panic.store.delete import delete_experiment
from panic.store.dump import dump as dump_lines
from panic.store.records import RunRow
from panic.store.restore import restore
from tests.engine.conftest import dump, interrupt_when, make_config
from tests.engine.test_kill import kill_and_rerun

FIXED: dict[str, Any] = {"prompts": ["state 0"], "seeds": [42], "repeats": 1, "max_length": 60}
FRESH: dict[str, Any] = {"prompts": ["state 0"], "seeds": [-1], "repeats": 2, "max_length": 12}
SWAP = [{"at": 20, "text": "state 5"}]


def performed(path: Path, **changes: Any) -> dict[str, RunRow]:
    """Perform the synthetic pair; its runs by arm, in a store that is sound."""
    run(make_config(**changes), path)
    with Store(path) as store:
        assert check.check(store) == []
        return {row.arm: row for row in reading.runs(store)}


def made(path: Path, row: RunRow) -> list[tuple[Any, ...]]:
    """(step, kind, model, text) of what stepped into a run."""
    with Store(path) as store:
        return [(one.step, one.kind, one.model, one.text) for one in contents.interventions(store, row.id)]


def calls(path: Path) -> dict[str, int]:
    """How many items each model was called with."""
    with Store(path) as store:
        return {time.model: time.items for time in reading.model_times(store)}


def test_a_cycle_of_seven_states_ends_at_fourteen_steps_and_after_a_shock_where_it_closes_then(
    tmp_path: Path,
) -> None:
    rows = performed(tmp_path / "s", **FIXED, arms={"baseline": [], "swap": SWAP})
    baseline, swap = rows["baseline"], rows["swap"]
    assert (baseline.state, baseline.num_steps, baseline.entry_step, baseline.period) == ("stuck", 14, 0, 14)
    assert (swap.state, swap.num_steps, swap.entry_step, swap.period) == ("stuck", 34, 20, 14)
    assert made(tmp_path / "s", swap) == [(20, "text", "", "state 5")]
    assert calls(tmp_path / "s") == {"draw": 7, "chain": 7}, "what is known is not computed again"


def outputs_of(store: Store, row: RunRow) -> list[str]:
    return [step.output for step in contents.invocations(store, row.id)]


def first_return(states: list[Any]) -> tuple[int, int]:
    """(entry step, period) of the first state that comes back, by looking at all of them."""
    for step, state in enumerate(states):
        if state in states[:step]:
            return states.index(state), step - states.index(state)
    raise AssertionError("no state came back")


@pytest.mark.parametrize(
    "every", [10, pytest.param(4, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_what_comes_again_makes_a_run_stuck_only_where_its_phase_and_the_networks_close(
    tmp_path: Path, every: int
) -> None:
    """Fresh noise changes nothing here and never ends a run, so its run tells where the other has to end."""
    arms = {"again": [{"every": every, "model": "upper-case"}]}
    performed(tmp_path / "s", **FIXED | {"seeds": [42, -1], "max_length": 300}, arms=arms)
    with Store(tmp_path / "s") as store:
        fixed, fresh = reading.runs(store)
        inputs = [step.input for step in contents.invocations(store, fresh.id)]
        known = [step.input for step in contents.invocations(store, fixed.id)]
        between = contents.interventions(store, fresh.id)
    assert len(inputs) == 300
    entry_step, period = first_return([(step % every, input) for step, input in enumerate(inputs)])
    assert (fixed.state, fixed.entry_step, fixed.period) == ("stuck", entry_step, period)
    assert period % every == 0
    assert known == inputs[: entry_step + period]
    assert inputs[entry_step:-period] == inputs[entry_step + period :], "the future is as it was foretold"
    assert [one.step for one in between] == list(range(every, 300, every))
    assert all(str(one.text).startswith("STATE ") for one in between)


@pytest.mark.slow
def test_states_before_the_last_single_intervention_end_nothing(tmp_path: Path) -> None:
    arms = {"late": [{"every": 10, "model": "upper-case"}, {"at": 50, "text": "state 2"}]}
    row = performed(tmp_path / "s", **FIXED | {"max_length": 300}, arms=arms)["late"]
    assert row.state == "stuck"
    assert row.entry_step is not None
    assert row.entry_step >= 50
    assert [text for step, *_, text in made(tmp_path / "s", row) if step == 50][1:] == ["state 2"]


def test_noise_is_that_of_the_items_seed_and_the_same_in_all_arms(tmp_path: Path) -> None:
    arms = {
        "baseline": [],
        "weak": [{"at": 5, "noise": 0.05}],
        "both": [{"at": 5, "noise": 0.05}, {"at": 7, "noise": 1.0}],
    }
    run(make_config(**FRESH, arms=arms), tmp_path / "s")
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        rows = {(row.arm, row.repeat): row.id for row in reading.runs(store)}
        seeds = {key: [step.seed for step in contents.invocations(store, id)] for key, id in rows.items()}
        weak, both = (contents.interventions(store, rows[arm, 0]) for arm in ("weak", "both"))
        other = contents.interventions(store, rows["weak", 1])
        before, after = (np.asarray(contents.image(store, digest)) for digest in weak[0][4:6])
    assert seeds["baseline", 0] == seeds["weak", 0] == seeds["both", 0] != seeds["baseline", 1]
    assert weak[0] == both[0]
    assert weak[0].seed not in {*seeds["weak", 0], both[1].seed, other[0].seed}
    assert weak[0].model == "noise:0.05"
    noisy = np.random.default_rng(weak[0].seed).standard_normal(before.shape) * 255 * 0.05 + before
    assert np.array_equal(after, noisy.round().clip(0, 255))


def test_positions_of_a_branch_count_from_its_step(tmp_path: Path) -> None:
    """Three models from step 4 on; the cycle of 7 states closes after 7 rounds of them."""
    branch = [{"at": 4, "network": ["truncate", "draw", "chain"]}]
    row = performed(tmp_path / "s", **FIXED, arms={"branch": branch})["branch"]
    assert (row.state, row.num_steps, row.entry_step, row.period) == ("stuck", 25, 4, 21)
    with Store(tmp_path / "s") as store:
        models = [step.model for step in contents.invocations(store, row.id)]
        (between,) = contents.interventions(store, row.id)
        assert check.check(store) == [], "these models made them"
    assert models == [*["draw", "chain"] * 2, *["truncate", "draw", "chain"] * 7]
    assert (between.kind, between.input) == ("network", between.output)
    lines = [json.loads(line) for line in dump(tmp_path / "s")]
    assert [line["model"] for line in lines if line["kind"] == "invocation"] == models
    assert [line["arm"] for line in lines if line["kind"] == "run"] == ["branch"]


@pytest.mark.parametrize(
    ("at_once", "seed"),
    [
        (False, -1),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in ((True, -1), (True, 42), (False, 42))),
    ],
)
def test_steps_before_the_first_intervention_are_computed_once(
    tmp_path: Path, at_once: bool, seed: int
) -> None:
    """Of fresh noise, 12 steps of the baseline and the 12 - 6 and 12 - 8 last ones of the arms."""
    arms = {
        "baseline": [],
        "six": [{"at": 6, "text": "state 9"}],
        "eight": [{"at": 8, "model": "shuffle-words"}],
    }
    changes: dict[str, Any] = FRESH | {"seeds": [seed], "repeats": 1, "chain": {"states": 91}}
    changes["draw"] = {"states": 91}
    steps = [arms] if at_once else [{"baseline": []}, {"eight": arms["eight"]}, arms]
    for some in steps:
        run(make_config(**changes, arms=some), tmp_path / "s")
    run(make_config(**changes, arms=arms), tmp_path / "whole")
    assert dump(tmp_path / "s") == dump(tmp_path / "whole")
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        rows = {row.arm: row.id for row in reading.runs(store)}
        shared = [[tuple(s)[2:] for s in map(key, contents.invocations(store, id))] for id in rows.values()]
    assert shared[0][:6] == shared[1][:6] == shared[2][:6]
    if seed == -1:
        assert calls(tmp_path / "s") == {"draw": 6 + 3 + 2, "chain": 6 + 3 + 2, "shuffle-words": 1}
    assert Counter(row.num_steps for row in rows_of(tmp_path / "s")) == {12: 3}


def key(step: Any) -> tuple[Any, ...]:
    return 0, 0, step.step, step.input, step.output, step.seed, step.batch


def rows_of(path: Path) -> list[RunRow]:
    with Store(path) as store:
        return reading.runs(store)


ARMS: dict[str, Any] = {
    "baseline": [],
    "swap": [{"at": 20, "text": "state 5"}],
    "noisy": [{"at": 11, "every": 10, "noise": 0.05}],
    "loud": [{"every": 10, "model": "upper-case"}, {"at": 30, "model": "shuffle-words"}],
    "branch": [{"at": 30, "network": ["upper-case", "draw", "chain"]}, {"at": 0, "text": "state 1"}],
}


def slow(**changes: Any) -> ExperimentConfig:
    """A noisy pair that takes its time."""
    models = {
        "draw": {"base": "synthetic/text-to-image", "states": 12, "size": 16, "delay_s": 0.004},
        "chain": {
            **{"base": "synthetic/image-to-text", "states": 12, "kernel": "cycle", "epsilon": 0.3},
            "delay_s": 0.004,
        },
    }
    return make_config(models=models, seeds=[1, -1], repeats=1, max_length=60, arms=ARMS, **changes)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_amid_interventions_change_nothing(tmp_path: Path) -> None:
    config = slow(prompts=[f"prompt {number}" for number in range(4)])
    hits = kill_and_rerun(config, tmp_path, kills=12, seed=0, within_s=0.3)
    run(config, tmp_path / "whole")
    assert hits >= 4, "the kills came too late to mean anything"
    assert dump(tmp_path / "killed") == dump(tmp_path / "whole")
    with Store(tmp_path / "killed") as store:
        assert check.check(store) == []
        assert any(contents.interventions(store, row.id) for row in reading.runs(store))


def test_a_run_goes_on_between_two_interventions_of_a_step(tmp_path: Path) -> None:
    """The first of them is stored, as a kill between two commits may leave it."""
    two = [{"at": 0, "model": "upper-case"}, {"at": 0, "model": "shuffle-words"}]
    config = make_config(**FRESH, arms={"two": two})
    run(config, tmp_path / "s")
    whole = dump(tmp_path / "s")
    with Store(tmp_path / "s", write=True) as store:
        store.db.execute("DELETE FROM invocation")
        store.db.execute("DELETE FROM intervention WHERE place = 1")
        assert check.check(store) == []
    run(config, tmp_path / "s")
    assert dump(tmp_path / "s") == whole


@pytest.mark.slow
def test_a_longer_run_meets_what_was_out_of_its_reach(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.WARNING)
    short = performed(tmp_path / "s", **FIXED | {"max_length": 20}, arms={"swap": SWAP})["swap"]
    assert (short.state, short.num_steps, made(tmp_path / "s", short)) == ("done", 20, [])
    assert "arm swap: runs have 20 steps, and nothing steps in before step 20" in caplog.text
    performed(tmp_path / "s", **FIXED, arms={"swap": SWAP})
    performed(tmp_path / "whole", **FIXED, arms={"swap": SWAP})
    assert dump(tmp_path / "s") == dump(tmp_path / "whole")


def test_what_an_arm_means_stays(tmp_path: Path) -> None:
    run(make_config(**FRESH, arms={"swap": SWAP}), tmp_path / "s")
    with pytest.raises(ConflictError, match=r"the arm 'swap' is \[\{at: 22, text: state 5\}\]; test started"):
        run(make_config(**FRESH, arms={"swap": [{"at": 22, "text": "state 5"}]}), tmp_path / "s")
    run(make_config(**FRESH), tmp_path / "s")  # arms are extent
    with Store(tmp_path / "s") as store:
        row = reading.experiment(store)
        assert list(stored(row.config, row.name).arms) == ["swap", "baseline"]
        assert Counter(one.arm for one in reading.runs(store)) == {"swap": 2, "baseline": 2}


@pytest.mark.slow
def test_a_model_that_fails_where_it_steps_in_ends_the_run_there(tmp_path: Path) -> None:
    broken = {"base": "synthetic/image-to-text", "states": 7, "fail_at": 1}
    models = {**make_config().model_dump(exclude_unset=True)["models"], "broken": broken}
    arms = {"fails": [{"at": 3, "network": ["broken", "draw"]}], "baseline": []}
    config = ExperimentConfig.model_validate(
        {**make_config(**FRESH | {"repeats": 1}, arms=arms).model_dump(mode="json"), "models": models}
    )
    run(config, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        rows = {row.arm: row for row in reading.runs(store)}
    assert (rows["fails"].state, rows["fails"].num_steps) == ("failed", 3)
    assert rows["baseline"].state == "done"


def test_images_that_stepped_in_and_were_lost_are_computed_again(tmp_path: Path) -> None:
    config = make_config(**FRESH, arms={"noisy": [{"at": 5, "noise": 0.1}]})
    run(config, tmp_path / "s")
    whole = dump(tmp_path / "s")
    (tmp_path / "s" / "images.sqlite").unlink()
    run(config, tmp_path / "s")
    assert dump(tmp_path / "s") == whole
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []


@pytest.mark.slow
def test_calls_that_stepped_in_are_verified(tmp_path: Path) -> None:
    config = make_config(**FRESH | {"repeats": 1}, arms={"loud": ARMS["loud"], "noisy": ARMS["noisy"]})
    run(config, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        report = verify(CheckedConfig.of(config, ask=True), store, reading.experiment(store).id, sample=500)
    between = [one for one in report.findings if "intervention" in one.what]
    assert sorted(one.what for one in between) == [
        "run 1, step 10, intervention 0",
        "run 2, step 11, intervention 0",
    ]
    assert report.counts == {"same": 2 * 12 + 2}


@pytest.mark.slow
def test_deleting_an_experiment_keeps_what_steps_into_others(tmp_path: Path) -> None:
    """What one experiment's model steps in with is an output that another's does, too."""
    arms = {"loud": [{"at": 2, "model": "upper-case"}], "swap": [{"at": 4, "text": "a lighthouse"}]}
    for name in ("one", "two"):
        run(make_config(**FRESH, name=name, arms=arms), tmp_path / "s")
    alone = [line for line in dump(tmp_path / "s") if "lighthouse" in line]
    assert alone
    with Store(tmp_path / "s", write=True) as store:
        delete_experiment(store, "one")
        assert check.check(store) == []
        assert store.db.value("SELECT count(*) FROM intervention") == 4
    run(make_config(**FRESH, name="two", arms=arms), tmp_path / "whole")
    assert dump(tmp_path / "s") == dump(tmp_path / "whole")
    with Store(tmp_path / "s", write=True) as store:
        delete_experiment(store, "two")
        assert check.check(store) == []
        assert {
            store.db.value(f"SELECT count(*) FROM {name}") for name in ("intervention", "output", "batch")
        } == {0}


@pytest.mark.slow
def test_an_interrupt_amid_interventions_is_gone_on_from(tmp_path: Path) -> None:
    config = slow(prompts=["prompt 0"])
    with pytest.raises(Interrupted):
        run(config, tmp_path / "s", on_progress=interrupt_when(lambda now: now.invocations > 90))
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
    run(config, tmp_path / "s")
    run(config, tmp_path / "whole")
    assert dump(tmp_path / "s") == dump(tmp_path / "whole")


def test_what_stepped_into_arms_that_are_not_asked_for_again_is_no_output_of_a_network(
    tmp_path: Path,
) -> None:
    """It was taken for one, so that a picture was said to be the text "STATE 2"."""
    run(
        make_config(**FIXED | {"max_length": 8}, arms={"loud": [{"at": 4, "model": "upper-case"}]}),
        tmp_path / "s",
    )
    later = make_config(**FIXED | {"prompts": ["state 1", "state 2"]})
    run(later, tmp_path / "s")
    run(later, tmp_path / "plain")
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        outputs = {row.prompt: outputs_of(store, row) for row in reading.runs(store)}
    with Store(tmp_path / "plain") as store:
        for row in reading.runs(store):
            assert outputs[row.prompt] == outputs_of(store, row)


def test_a_baseline_that_comes_after_the_arms_of_fresh_noise_has_their_first_steps(tmp_path: Path) -> None:
    performed(tmp_path / "s", **FRESH | {"repeats": 1}, arms={"loud": [{"at": 4, "model": "upper-case"}]})
    before = calls(tmp_path / "s")
    performed(tmp_path / "s", **FRESH | {"repeats": 1})
    assert calls(tmp_path / "s")["draw"] == before["draw"] + 4, "the first two of six are there"


def test_arms_are_exported_and_imported_as_they_are(tmp_path: Path) -> None:
    """Rows get other numbers where another experiment was first."""
    run(make_config(**FRESH, arms={"loud": ARMS["loud"], "noisy": ARMS["noisy"]}), tmp_path / "s")
    run(make_config(**FRESH | {"prompts": ["state 3"]}, name="first"), tmp_path / "new")
    with Store(tmp_path / "s") as old, Store(tmp_path / "new", write=True) as new:
        tables = {
            name: [dict(zip(export.columns(old, name), row, strict=True)) for row in export.rows(old, name)]
            for name in export.PLAIN_TABLES
        }
        names = ("id", "digest", "modality", "text", "width", "height")
        tables["output"] = [dict(zip(names, row, strict=True)) for row in export.outputs(old)]
        names = ("digest", "encoding", "bytes")
        tables["image"] = [dict(zip(names, row, strict=True)) for row in export.images(old)]
        restore(new, {**tables, "vectorisation": [], "bars": []}, "a test")
        assert check.check(new) == []
        assert list(dump_lines(new, "test")) == list(dump_lines(old))


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("DELETE FROM intervention WHERE step = 10", "lacks interventions before step 10"),
        (
            "UPDATE intervention SET output = (SELECT max(id) FROM output) WHERE step = 10",
            "the input of step 10",
        ),
        ("UPDATE intervention SET step = 12 WHERE step = 10", "before step 12 are not those of its arm"),
        ("UPDATE intervention SET input = 1 WHERE step = 10", "before step 10 did not take what was there"),
        ("UPDATE experiment SET config = json_remove(config, '$.arms.loud')", "its arm is not known"),
    ],
)
def test_damage_among_interventions_is_found(tmp_path: Path, sql: str, problem: str) -> None:
    run(make_config(**FRESH | {"repeats": 1}, arms={"loud": ARMS["loud"]}), tmp_path / "s")
    with Store(tmp_path / "s", write=True) as store:
        assert check.check(store) == []
        store.db.execute(sql)
        assert problem in "; ".join(check.check(store))


def test_an_intervention_that_its_arm_does_not_have_is_told_and_read(tmp_path: Path) -> None:
    """Asking for its model was an IndexError, also of `panic check`."""
    run(make_config(**FIXED, arms={"loud": [{"at": 4, "model": "upper-case"}]}), tmp_path / "s")
    with Store(tmp_path / "s", write=True) as store:
        store.db.execute("UPDATE intervention SET step = 6")
        assert [one.model for one in contents.interventions(store, 1)] == [""]
        assert "Error" not in "; ".join(check.check(store))
        assert "before step 6 are not those of its arm" in "; ".join(check.check(store))
