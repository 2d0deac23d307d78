"""Response to a shock: distances of arms from the baselines of the same starts, with known answers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from panic import run
from panic.analysis.checks import AnalysisError
from panic.analysis.evidence import Evidence, View
from panic.analysis.questions import ask, effects, matched_pairs, shock
from panic.store import Store, reading
from tests.analysis.looks import assert_shown
from tests.engine.conftest import make_config

VIEW = View("circle", "text")
MODELS: dict[str, Any] = {
    "draw": {"base": "synthetic/text-to-image", "states": 7, "size": 16},
    "chain": {"base": "synthetic/image-to-text", "states": 7, "kernel": "cycle"},
    "circle": {"base": "synthetic/state-embedding", "states": 7},
}


def evidence(path: Path, **changes: Any) -> Evidence:
    """The evidence of the synthetic pair, whose cycle of 7 states is embedded on a circle."""
    settings: dict[str, Any] = {
        "prompts": [f"state {number}" for number in range(5)],
        "seeds": [-1],
        "repeats": 1,
        "max_length": 24,
        "embeddings": ["circle"],
    }
    run(make_config(**settings | {"models": MODELS} | changes), path)
    store = Store(path)
    return Evidence.of(store, reading.experiment(store))


def test_distances_are_those_of_the_states_that_the_shock_has_parted(tmp_path: Path) -> None:
    """From call 8 on all runs of the arm are where "state 0" takes them: prompt s is s states ahead of it."""
    found = evidence(tmp_path / "s", arms={"baseline": [], "swap": [{"at": 8, "text": "state 0"}]})
    answer = shock.table(found, VIEW)
    assert answer is not None
    # After 4 rounds the baseline of prompt s draws s + 4, and the arm draws 0, whatever the prompt is.
    gaps = [1 - np.cos(2 * np.pi * (number + 4) / 7) for number in range(5)]
    assert answer.curve["distance"].to_list() == pytest.approx([np.mean(gaps)] * 8, abs=1e-6)
    assert answer.curve["step"].to_list() == list(range(9, 24, 2))
    assert answer.curve["since"].to_list() == list(range(1, 16, 2))
    (row,) = answer.scores.to_dicts()
    assert (row["network"], row["arm"], row["began"]) == ("draw → chain", "swap", 8)
    assert (row["num_starts"], row["num_pairs"]) == (5, 5)
    assert row["p_value"] == 1, "all of the arm are in one place: whose baseline is whose makes no difference"
    assert "not shown to be nearer" in shock.sentence(answer)
    (figure,) = ask(shock, found)
    assert list(figure.charts) == ["draw → chain"]
    assert_shown(shock, answer)


def test_a_shock_that_changes_nothing_leaves_runs_at_their_baselines(tmp_path: Path) -> None:
    found = evidence(tmp_path / "s", arms={"baseline": [], "idle": [{"at": 8, "model": "truncate"}]})
    answer = shock.table(found, VIEW)
    assert answer is not None
    assert answer.curve["distance"].to_list() == pytest.approx([0] * 8, abs=1e-6)
    assert answer.scores["p_value"].to_list() == [1 / 120]
    assert "late they are nearer to their own baseline" in shock.sentence(answer)


def test_repeats_of_a_prompt_stand_in_where_there_are_few_prompts(tmp_path: Path) -> None:
    models = {**MODELS, "chain": {**MODELS["chain"], "epsilon": 0.5}}
    arms = {"baseline": [], "idle": [{"at": 8, "model": "truncate"}]}
    changes: dict[str, Any] = {"models": models, "arms": arms, "prompts": ["state 0", "state 1"]}
    answer = shock.table(evidence(tmp_path / "s", **changes, repeats=4), VIEW)
    assert answer is not None
    assert answer.scores.select("num_starts", "late").rows() == [(4, pytest.approx(0, abs=1e-6))]
    with pytest.raises(AnalysisError, match="4 prompts that never met, or as many repeats of one"):
        shock.table(evidence(tmp_path / "few", **changes, repeats=3), VIEW)


def test_without_interventions_nobody_asks(tmp_path: Path) -> None:
    assert shock.table(evidence(tmp_path / "s"), VIEW) is None


def test_an_arm_is_a_factor_whose_labels_move_within_a_start(tmp_path: Path) -> None:
    """Each start's run of the arm ends in one state, that of the baseline in one of five."""
    found = evidence(tmp_path / "s", arms={"baseline": [], "swap": [{"at": 8, "text": "state 0"}]})
    tests = effects.table(found, VIEW).tests.filter(pl.col("measure") == effects.ENDS)
    arm = tests.filter(pl.col("factor") == "arm").row(0, named=True)
    assert (arm["num_runs"], arm["num_groups"]) == (10, 2)
    assert arm["p_least"] == pytest.approx(2 / 2**5, abs=0.01), "each of 5 starts can swap its two arms"
    assert found.data.runs["network"].unique().sort().to_list() == ["draw → chain", "draw → chain · swap"]


def test_groups_of_a_config_are_the_pairs(tmp_path: Path) -> None:
    """Prompts of one group name neighbours on the circle; none of them are a word apart only."""
    prompts = ["state 0", "a picture of state 0", "state 3", "a picture of state 3"]
    labels = {prompt: {"group": prompt[-1], "tags": ["long"] * (len(prompt) > 8)} for prompt in prompts}
    found = evidence(tmp_path / "s", prompts=prompts, labels=labels)
    answer = matched_pairs.table(found, VIEW)
    assert answer is not None
    assert answer.relation == "of one group"
    row = answer.scores.row(0, named=True)
    assert (row["num_pairs"], row["num_prompts"]) == (2, 4)
    assert row["pairs"] == pytest.approx(0, abs=1e-6)
    assert row["unrelated"] == pytest.approx(1 - np.cos(2 * np.pi * 3 / 7), abs=1e-6)
    assert "of prompts of one group" in matched_pairs.sentence(answer)
    assert found.data.runs.select("tags", "group").rows() == [
        ("", "0"),
        ("long", "0"),
        ("", "3"),
        ("long", "3"),
    ]
    tests = effects.table(found, VIEW).tests.filter(pl.col("measure") == effects.ENDS)
    assert {"group", "tag long"} <= set(tests["factor"])


def test_60_outputs_after_a_shock_are_compared(tmp_path: Path) -> None:
    arms = {"baseline": [], "swap": [{"at": 8, "text": "state 0"}]}
    answer = shock.table(evidence(tmp_path / "s", arms=arms, max_length=132), VIEW)
    assert answer is not None
    steps = answer.curve["step"].to_list()
    assert (len(steps), steps[0], steps[-1]) == (60, 9, 131)


@pytest.mark.parametrize(("num_runs", "num_steps", "num_pairs"), [(300, 3, 300), (301, 3, 300), (8, 2, None)])
def test_300_pairs_of_three_outputs_are_compared(num_runs, num_steps, num_pairs) -> None:
    rows = [
        {
            "run": run, "row": run % 4, "other": run % 4, "step": step, "unit": run % 4, "seed": -1,
            "prompt": f"start {run % 4}", "repeat": run // 4,
        }
        for run in range(num_runs)
        for step in range(num_steps)
    ]  # fmt: skip
    data = SimpleNamespace(matrix=lambda model: np.eye(4, dtype=np.float32))
    if num_pairs is None:
        with pytest.raises(AnalysisError, match="3 outputs after the shock are needed, found 2"):
            shock._compared(pl.DataFrame(rows), 0, data, VIEW)
        return
    curve, score = shock._compared(pl.DataFrame(rows), 0, data, VIEW)
    assert curve["num_pairs"].to_list() == [num_pairs] * 3
    assert score[-2:] == (4, num_pairs)


def test_where_some_runs_have_fresh_noise_those_alone_are_compared(tmp_path: Path) -> None:
    found = evidence(
        tmp_path / "s", seeds=[-1, 7], arms={"baseline": [], "swap": [{"at": 8, "text": "state 0"}]}
    )
    answer = shock.table(found, VIEW)
    assert answer is not None
    assert answer.scores.select("num_pairs", "num_starts").row(0) == (5, 5)
