"""Branches of failed runs: from which step they go on, with which models, and what they are called."""

from __future__ import annotations

from typing import Any

import pytest

from panic.config import ExperimentConfig
from panic.engine import branching
from panic.engine.branching import branches
from panic.errors import UsageError
from panic.store.records import FailureRow, NewRun, RunRow
from tests.engine.conftest import make_config

NETWORK = ("draw", "chain")
SWAP: list[dict[str, Any]] = [
    {"at": 1, "text": "x"},
    {"at": 2, "network": ["draw", "chain"]},
    {"at": 5, "network": ["draw", "say", "draw", "chain"]},
]
MORE = {
    "chain": {"base": "synthetic/image-to-text", "states": 7},
    "say": {"base": "chain", "epsilon": 0.5},
    "spare": {"base": "synthetic/image-to-text"},
}


def config(epsilon: float = 0.5, **chain: Any) -> ExperimentConfig:
    values = make_config(arms={"baseline": [], "swap": SWAP}).model_dump(mode="json")
    models = {**values["models"], **MORE}
    models |= {"chain": {**MORE["chain"], **chain}, "say": {**MORE["say"], "epsilon": epsilon}}
    return ExperimentConfig.model_validate({**values, "models": models})


def failed(step: int, arm: str = "baseline", **of: Any) -> RunRow:
    row: dict[str, Any] = {
        "id": 1, "experiment": 1, "network": NETWORK, "prompt": "a", "seed": 42, "repeat": 1,
        "max_length": 10, "num_steps": step, "state": "failed", "entry_step": None, "period": None,
        "arm": arm,
        "failure": FailureRow(step=step, kind="error", message="", detail="", attempts=1, failed_at=0.0),
    }  # fmt: skip
    return RunRow(**{**row, **of})


def arm(branched: ExperimentConfig, run: NewRun) -> list[dict[str, Any]]:
    entries = branched.model_dump(mode="json", exclude_none=True)["arms"][run.arm]
    return [{key: entry[key] for key in ("at", "text", "network") if key in entry} for entry in entries]


@pytest.mark.parametrize(
    ("step", "network"),
    [(0, ["draw", "chain-kernel=column"]), (3, ["chain-kernel=column", "draw"])],
)
def test_a_branch_goes_on_from_the_failed_step_with_the_changed_model(step: int, network: list[str]) -> None:
    before = config()
    branched, [run] = branches(before, config(kernel="column"), [failed(step)])
    assert arm(branched, run) == [{"at": step, "network": network}]
    assert run == NewRun(network=NETWORK, prompt="a", seed=42, repeat=1, max_length=10, arm=run.arm)
    assert run.arm.startswith(f"rerun-{step}-")
    assert list(branched.arms) == ["baseline", "swap", run.arm]
    assert branched.models["chain"] == before.models["chain"]
    made = branched.models["chain-kernel=column"]
    assert (made.base, made.parameters) == ("synthetic/image-to-text", {"states": 7, "kernel": "column"})
    variant = branched.models["say-chain-kernel=column"]
    assert (variant.base, variant.parameters) == ("chain-kernel=column", {"epsilon": 0.5})
    assert branched.models.keys() - before.models.keys() == {"chain-kernel=column", "say-chain-kernel=column"}


@pytest.mark.parametrize(
    ("step", "entries"),
    [
        (1, [SWAP[0], {"at": 2, "network": ["draw", "NEW"]}, {"at": 1, "network": ["NEW", "draw"]}]),
        (2, [SWAP[0], {"at": 2, "network": ["draw", "NEW"]}]),
        (3, [*SWAP[:2], {"at": 3, "network": ["NEW", "draw"]}]),
    ],
)
def test_what_stepped_in_before_stays_and_what_takes_over_later_has_the_new_models(
    step: int, entries: list[dict[str, Any]]
) -> None:
    new = "chain-kernel=column"
    branched, [run] = branches(config(), config(kernel="column"), [failed(step, "swap")])
    late = {"at": 5, "network": ["draw", f"say-{new}", "draw", new]}
    expected = [
        entry
        | (
            {"network": [new if name == "NEW" else name for name in entry["network"]]}
            if "network" in entry
            else {}
        )
        for entry in entries
    ]
    assert arm(branched, run) == [*expected[:-1], late, expected[-1]]
    assert run.arm.startswith(f"swap-rerun-{step}-")


def test_a_run_that_would_call_no_changed_model_has_no_branch() -> None:
    """After step 5 of the arm `say` is called, too; of the other runs nothing is changed by it."""
    before, changed = config(), config(epsilon=0.25)
    branched, runs = branches(before, changed, [failed(3), failed(6, "swap", prompt="b")])
    assert [run.prompt for run in runs] == ["b"]
    second = ["say-epsilon=0.25", "draw", "chain", "draw"]  # of the network that took over at step 5
    assert arm(branched, runs[0])[-1] == {"at": 6, "network": second}
    with pytest.raises(UsageError, match="No failed run was going to call what --set changes") as told:
        branches(before, changed, [failed(3)])
    assert told.value.hint == "They call chain, draw; for example --set models.draw.KEY=VALUE."


def test_only_models_and_what_is_free_may_change() -> None:
    before, changed = config(), config(kernel="column")
    branched, _ = branches(before, changed.model_copy(update={"workers": 3}), [failed(1)])
    assert branched.workers == 3
    with pytest.raises(UsageError, match="--set changes prompts, max_length, and a branch"):
        branches(before, changed.model_copy(update={"prompts": ["b"], "max_length": 5}), [failed(1)])


def variants(**models: dict[str, Any]) -> ExperimentConfig:
    values = make_config().model_dump(mode="json")
    return ExperimentConfig.model_validate({**values, "models": {**values["models"], **models}})


def test_a_changed_model_is_called_by_what_has_changed() -> None:
    """One that the config had not named was called by what it leaves open, too: revision=none-dtype=none."""
    before = variants(chain={"base": "synthetic/image-to-text", "states": 7, "epsilon": 0.5})
    for chain, name in (
        ({"states": 7, "epsilon": 0.25}, "chain-epsilon=0.25"),
        ({"states": 9, "epsilon": 0.25}, "chain-states=9-epsilon=0.25"),
        ({"states": 7}, "chain-epsilon=none"),
        ({"states": 7, "epsilon": 0.5, "alpha": 2.0}, "chain-alpha=2"),
    ):
        changed = variants(chain={"base": "synthetic/image-to-text", **chain})
        branched, [run] = branches(before, changed, [failed(1)])
        assert branched.models.keys() - before.models.keys() == {name}
        assert list(branched.arms) == ["baseline", run.arm], "the config names no arms"
    new = variants(**{"chain-two": {"base": "synthetic/image-to-text", "states": 3}})
    renamed, made = branching._variants(variants().models, new.models)
    assert renamed == {"chain-two": "chain-two-states=3"}
    assert made["chain-two-states=3"].base == "synthetic/image-to-text"
    bare = variants(again={"base": "synthetic/image-to-text"})
    assert branching._variants(variants().models, bare.models)[0] == {"again": "again-again"}


def test_variants_of_changed_models_are_changed_however_many_lie_between() -> None:
    def of(states: int) -> ExperimentConfig:
        return variants(
            third={"base": "second"}, second={"base": "first", "epsilon": 0.5},
            first={"base": "synthetic/image-to-text", "states": states},
        )  # fmt: skip

    renamed, made = branching._variants(of(7).models, of(5).models)
    assert renamed == {
        "first": "first-states=5", "second": "second-first-states=5", "third": "third-second-first-states=5"
    }  # fmt: skip
    assert [made[new].base for new in renamed.values()] == [
        "synthetic/image-to-text", "first-states=5", "second-first-states=5"
    ]  # fmt: skip
    assert branching._variants(of(7).models, of(7).models) == ({}, {})


def test_a_variant_of_its_namesake_in_the_table_stays_one() -> None:
    before = variants(PocketText={"base": "PocketText"})
    changed = variants(PocketText={"base": "PocketText", "x": 1})
    renamed, made = branching._variants(before.models, changed.models)
    assert made[renamed["PocketText"]].base == "PocketText"
