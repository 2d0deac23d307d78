"""Which runs a plan has, which it leaves alone, and what it says of them; seeds that may never change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from panic import run
from panic.config import ExperimentConfig
from panic.engine import plan as planning
from panic.engine.plan import (
    CheckedConfig,
    begun_runs,
    check_config,
    expanded_runs,
    intervention_seed,
    joined_runs,
    left_alone,
    load_config,
    make_plan,
    more_than_asked,
    open_runs,
    run_root,
    small_bytes,
    step_seed,
    stored_runs,
    warn_of_short_runs,
    warn_of_what_stays,
    weight_bytes,
)
from panic.errors import ConfigError
from panic.models import python_models
from panic.store import DEFAULT_STORE
from panic.store.records import ExperimentRow, NewRun, RunRow
from tests.engine.conftest import make_config

NETWORK = ("draw", "chain")


def stored(state: str, num_steps: int = 0, **of: Any) -> RunRow:
    """A run of the store, of 10 steps unless it is said."""
    row: dict[str, Any] = {
        "id": 1, "experiment": 1, "network": NETWORK, "prompt": "state 0", "seed": 42, "repeat": 0,
        "max_length": 10, "num_steps": num_steps, "state": state, "entry_step": None, "period": None,
        "failure": None,
    }  # fmt: skip
    return RunRow(**{**row, **of})


def asked(max_length: int = 10, **of: Any) -> NewRun:
    row: dict[str, Any] = {"network": NETWORK, "prompt": "state 0", "seed": 42, "max_length": max_length}
    return NewRun(**{**row, **of})


def small(**changes: Any) -> ExperimentConfig:
    """A config of one run, of 10 steps."""
    return make_config(**{"prompts": ["state 0"], "seeds": [42], "repeats": 1, "max_length": 10, **changes})


def test_seeds_are_what_they_have_always_been():
    """What a run of fresh noise draws is a promise: stores of earlier versions go on with it."""
    root = run_root(0, NETWORK, "a house — ä", 1)
    assert root.hex() == "4758acfebd4cf4c3ffb9588318207a8a"
    assert [step_seed(root, step) for step in (0, 1, 2**40)] == [
        8329419084351030829,
        1335757597042015582,
        4384102971514916687,
    ]
    assert [intervention_seed(root, 4, place) for place in (0, 1)] == [
        5302837948642038215,
        8504040618501010353,
    ]
    others = [run_root(1, NETWORK, "a", 0), run_root(0, NETWORK, "a", 1), run_root(0, NETWORK[::-1], "a", 0)]
    assert len({*others, run_root(0, NETWORK, "a", 0), run_root(0, NETWORK, "b", 0)}) == 5


def test_repeats_are_of_fresh_noise_only():
    runs = expanded_runs(make_config(prompts=["a", "b"], seeds=[7, -1], repeats=3, max_length=10))
    told = [(run.prompt, run.seed, run.repeat) for run in runs]
    assert told == [
        (prompt, seed, repeat) for prompt in "ab" for seed, repeat in ((7, 0), (-1, 0), (-1, 1), (-1, 2))
    ]
    assert {(run.network, run.max_length, run.arm) for run in runs} == {(NETWORK, 10, "baseline")}


def test_runs_that_were_begun_stop_where_they_are():
    """A plan of them goes on with none: those that have ended keep their length."""
    rows = [
        stored("todo"),
        stored("running", 3, seed=1),
        stored("stuck", 5, seed=2),
        stored("done", 10, seed=3),
    ]
    assert [(run.seed, run.max_length) for run in begun_runs(rows)] == [(1, 3), (2, 10), (3, 10)]
    assert stored_runs(rows[:1]) == [asked()]


@pytest.mark.parametrize(
    ("state", "is_longer"),
    [
        ("done", True),
        ("todo", True),
        ("running", True),
        ("stuck", False),
        ("repeated", False),
        ("failed", False),
    ],
)
def test_a_longer_run_is_asked_for_unless_it_was_cut_short(state, is_longer):
    row = stored(state)
    assert joined_runs([asked(11)], [row]) == [asked(11) if is_longer else row]
    assert joined_runs([asked(10)], [row]) == joined_runs([asked(9)], [row]) == [row]
    assert joined_runs([asked(5, arm="swap")], [row]) == [row, asked(5, arm="swap")]


def test_open_runs_have_not_ended():
    rows = [stored(state, seed=seed) for seed, state in enumerate(("todo", "running", "done", "failed"))]
    plan = make_plan(small(seeds=[0, 9], max_length=10))
    assert open_runs(plan, rows) == [*rows[:2], asked(seed=9)]


def test_what_is_left_alone_is_counted_by_what_is_other():
    rows = [
        stored("todo"),
        stored("done", seed=1),
        stored("running", seed=2),
        stored("failed", prompt="other"),
        stored("todo", prompt="other", arm="swap"),
        stored("done", prompt="other", arm="swap", network=("draw",)),
        stored("done", network=("draw",)),
    ]
    config = small()
    assert left_alone(make_plan(config), rows) == [
        "2 runs of other seeds or repeats are left alone, 1 of them unfinished",
        "1 runs of other prompts are left alone, all of them ended",
        "1 runs of other arms are left alone, 1 of them unfinished",
        "2 runs of other networks are left alone, all of them ended",
    ]
    assert left_alone(make_plan(config, runs=expanded_runs(config)), rows) == [], "the runs were given"


def test_unfinished_runs_that_were_to_be_longer_are_told():
    rows = [
        stored("running", max_length=11),
        stored("todo", seed=1, max_length=10),
        stored("done", seed=2, max_length=12),
    ]
    config = small(seeds=[42, 1, 2])
    told = "1 unfinished runs were to be longer and are not continued beyond 10 steps"
    assert left_alone(make_plan(config), rows) == [told]
    known = small(embeddings=["synthetic/state-embedding"])
    plan = make_plan(small(embeddings=[]))
    assert left_alone(plan, [], known) == ["1 of the embeddings asked for before are left alone"]
    assert left_alone(plan, [], plan.config) == []


def test_what_a_union_adds_is_counted():
    config = small(prompts=["state 0", "b"], seeds=[42, 7])
    rows = [
        stored("done", max_length=8),
        stored("stuck", prompt="b", max_length=8),
        stored("todo", prompt="b", seed=7),
    ]
    begins = f"this config joins what {config.name} was asked for at different times, 3 runs in all:"
    assert more_than_asked(config, rows) == f"{begins} performing it adds 1 runs and continues 1 further"
    assert more_than_asked(small(), rows[:1]).endswith("1 runs in all: performing it continues 1 further")
    assert more_than_asked(small(), [stored("done")]) == ""


def test_outputs_of_a_modality_are_counted_step_by_step():
    plan = make_plan(small(arms={"baseline": [], "on": [{"at": 3, "network": ["draw", "chain"]}]}))
    for length in range(8):
        images = plan.num_outputs(asked(length), "image")
        assert (images, plan.num_outputs(asked(length), "text")) == (-(-length // 2), length // 2)
    # Three steps of the first network, then five of the other, which begins anew: d c d | d c d c d.
    arm = asked(8, arm="on")
    assert (plan.num_outputs(arm, "image"), plan.num_outputs(arm, "text")) == (5, 3)
    assert list(plan.models_of(arm)) == ["draw", "chain"]


def test_runs_too_short_for_what_was_to_be_done_are_told(caplog):
    arms = {
        "baseline": [],
        "late": [{"at": 9, "text": "x"}, {"at": 10, "text": "y"}, {"at": 12, "text": "z"}],
    }
    warn_of_short_runs(make_plan(small(arms={"baseline": [], "on": [{"at": 0, "text": "x"}]}), runs=[]))
    assert caplog.messages == ["arm on: runs have 0 steps, and nothing steps in before step 0"]
    caplog.clear()
    config = small(
        arms=arms,
        embeddings=["synthetic/state-embedding"],
        diagrams=[{"modality": "text", "window": {"dimension": 2, "delay": 4}}],
    )
    runs = [asked(8), asked(10, seed=1), asked(9, arm="late")]
    warn_of_short_runs(make_plan(config, runs=runs))
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "arm late: runs have 10 steps, and nothing steps in before step 10, 12",
        "draw → chain: a run has 4 text outputs, and a window of the diagrams spans 5: no run has a diagram",
    ]


def test_weights_are_small_on_a_cpu_only():
    plan = make_plan(small())
    assert small_bytes(plan, "cpu") is None, "synthetic models have no weights"
    pocket = make_plan(
        ExperimentConfig.model_validate(
            {
                "name": "p",
                "networks": [["PocketDiffusion", "PocketCaptioner"]],
                "prompts": ["a"],
                "seeds": [1],
                "max_length": 2,
            }
        )
    )
    weights = sum(weight_bytes(pocket, name) for name in pocket.specs)
    assert small_bytes(pocket, "cpu") == weights > 0
    assert small_bytes(pocket, "cuda") is None


def test_weights_up_to_a_limit_are_small(monkeypatch: pytest.MonkeyPatch):
    models = {"networks": [["PocketDiffusion", "PocketCaptioner"]], "seeds": [1], "max_length": 2}
    pocket = make_plan(ExperimentConfig.model_validate({"name": "p", "prompts": ["a"], **models}))
    weights = small_bytes(pocket, "cpu")
    for limit, found in ((weights, weights), (weights - 1, None)):
        monkeypatch.setattr(planning, "SMALL_BYTES", limit)
        assert small_bytes(pocket, "cpu") == found


UNREAD = """
from pathlib import Path
Path(__file__).with_suffix(".seen").touch()


def unchanged(cls):
    return cls


@unchanged
class Own:
    size_bytes = 10
    modality_in = modality_out = "text"
    def load(self, device): ...
    def invoke(self, inputs, seeds): return list(inputs)
"""


def test_a_users_file_is_run_only_for_who_asks(tmp_path: Path):
    """Nothing is known of its class without running it; of its weights only when there is a model."""
    file, config = tmp_path / "own.py", tmp_path / "it.yaml"
    file.write_text(UNREAD)
    of = {
        "name": "it",
        "networks": [[f"python:{file}:Own"]],
        "prompts": ["a"],
        "seeds": [-1],
        "max_length": 1,
    }
    config.write_text(json.dumps(of))
    seen = tmp_path / "own.seen"
    assert load_config(config) == check_config(config).config
    assert not seen.exists()
    made = ExperimentConfig.model_validate(of)
    for ask in (
        lambda: load_config(config, ask=True),
        lambda: check_config(config, ask=True),
        lambda: CheckedConfig.from_python(made),
        lambda: make_plan(made),
    ):
        python_models._asked.clear()
        ask()
        seen.unlink()  # it was run
    found = make_plan(made)
    assert weight_bytes(found, f"python:{file}:Own") == 0
    assert small_bytes(found, "cpu") is None
    with pytest.raises(ConfigError, match="the config of it"):
        CheckedConfig.from_python(made.model_copy(update={"networks": [["nosuch"]]}))


def test_prompts_are_of_experiments_in_the_store_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    words = {"networks": [["upper-case"]], "seeds": [-1], "max_length": 1, "device": "cpu"}
    for store, word in ((None, "here"), ("elsewhere", "there")):
        performed = ExperimentConfig.model_validate({"name": "words", "prompts": [word], **words})
        run(performed, store or DEFAULT_STORE)
        asks = {"name": "next", "prompts": [{"experiment": "words"}], **words}
        Path("next.json").write_text(json.dumps(asks | ({"store": store} if store else {})))
        checked = check_config("next.json")
        assert checked.config.prompts == [word.upper()]
        assert checked.starts is not None


def test_what_stays_is_told_with_a_way_to_go_on_where_there_is_one(caplog: pytest.LogCaptureFixture):
    plan = make_plan(small())
    row = ExperimentRow(
        id=1, uid="0" * 32, name="it", config=plan.config.model_dump(mode="json"), created_at=0
    )
    warn_of_what_stays(plan, row, [stored("done")])
    assert caplog.messages == []
    warn_of_what_stays(plan, row, [stored("done", seed=1)])
    assert caplog.messages == ["it: 1 runs of other seeds or repeats are left alone, all of them ended"]
    warn_of_what_stays(plan, row, [stored("done", seed=1), stored("running", seed=2)])
    assert caplog.messages[1].endswith(
        "2 runs of other seeds or repeats are left alone, 1 of them unfinished (panic resume it performs all)"
    )
    more = small(embeddings=["synthetic/state-embedding"]).model_dump(mode="json")
    warn_of_what_stays(plan, replace(row, config=more), [stored("done", seed=1)])
    assert caplog.messages[2].endswith(
        "; 1 of the embeddings asked for before are left alone (panic resume it performs all)"
    )


def test_a_plan_knows_whether_its_runs_were_chosen_and_who_holds_secrets():
    config = small()
    plan, given = make_plan(config), make_plan(config, runs=[])
    assert (plan.are_runs_given, given.are_runs_given, given.runs) == (False, True, [])
    assert (plan.is_once, plan.keeps_shapes, plan.secrets, plan.remote) == (False, False, [], {})
    assert list(plan.local) == list(plan.specs)
    told = make_plan(small(notify={"to": ["ALARM"]}))
    assert told.secrets == ["ALARM"]


def test_a_config_is_checked_with_the_resolver_that_it_keeps(tmp_path: Path):
    (tmp_path / "it.yaml").write_text(
        "name: it\nnetworks: [[synthetic/text-to-image, synthetic/image-to-text]]\n"
        "prompts: [a]\nseeds: [1]\nmax_length: 2\n"
    )
    checked = check_config(tmp_path / "it.yaml", ["max_length=4"])
    assert (checked.config.max_length, checked.starts) == (4, None)
    assert checked.models.resolve("synthetic/text-to-image", "cpu").modality_out == "image"
