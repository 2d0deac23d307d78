"""What a dry run says of what there is and what is to come."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from panic import run
from panic.engine import preview as previews
from panic.engine.preview import TOLERATED_PADDING, PreviewModel, preview
from panic.store import Store, reading
from panic.store.records import NewRun, RunRow
from panic.topology import estimate
from tests.engine.conftest import make_config

EMBEDDED: dict[str, Any] = {"embeddings": ["synthetic/state-embedding"], "diagram_workers": 2}


def test_missing_diagrams_are_estimated_at_the_full_length_of_runs(tmp_path: Path) -> None:
    config = make_config(**EMBEDDED, max_length=400, diagrams={"max_dimension": 2})
    # 6 runs of 400 steps, every second one a text.
    assert preview(config, tmp_path / "none").diagrams == estimate(6, 200, 768, 2, workers=2)


def test_without_diagrams_to_come_there_is_no_estimate(tmp_path: Path) -> None:
    assert preview(make_config(embeddings=[], diagrams=None), tmp_path / "none").diagrams is None
    config = make_config(**EMBEDDED, max_length=4)
    run(config, tmp_path / "s")
    assert preview(config, tmp_path / "s").diagrams is None


# A model


def model(num_ready: int, num_items: int, batch_size: int | None, fitting: int = 4) -> PreviewModel:
    return PreviewModel(
        name="m", modality="text → image", size_bytes=None, batch_size=batch_size, shape_from="model",
        fitting_batch_size=fitting, absence="", num_ready=num_ready, num_items=num_items, order=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("num_ready", "batch_size", "padding"),
    [(4, 4, 0.0), (5, 4, 3 / 8), (1, 4, 0.75), (8, 4, 0.0), (0, 4, 0.0), (3, 1, 0.0), (3, None, None)],
)
def test_padding_is_the_share_of_places_that_no_item_fills(
    num_ready: int, batch_size: int | None, padding: float | None
) -> None:
    assert model(num_ready, 10, batch_size).padding == padding


@pytest.mark.parametrize(
    ("num_ready", "num_items", "batch_size", "calls"),
    [
        (4, 40, 4, 10), (5, 50, 4, 20), (5, 50, 5, 10), (5, 52, 5, 11), (5, 53, 4, 21),
        (0, 0, 4, 0), (0, 9, 4, 3), (100, 7, 4, 2), (3, 10, 1, 10),
    ],
)  # fmt: skip
def test_calls_are_those_of_all_rounds_and_no_fewer_than_items_need(
    num_ready: int, num_items: int, batch_size: int, calls: int
) -> None:
    assert model(num_ready, num_items, 4).num_calls(batch_size) == calls


@pytest.mark.parametrize(
    ("num_ready", "batch_size", "fitting", "is_misfit"),
    [
        (8, 4, 8, True),  # half the calls
        (8, 8, 4, False),  # twice as many
        (9, 10, 9, False),  # a tenth of padding is tolerated
        (8, 9, 8, True),  # a ninth is not
        (8, 9, 9, False),  # and no other size is better
        (8, 9, 10, False),
        (8, None, 4, False),
    ],
)
def test_a_misfit_takes_more_calls_or_clearly_more_padding(
    num_ready: int, batch_size: int | None, fitting: int, is_misfit: bool
) -> None:
    assert TOLERATED_PADDING == 0.1
    assert model(num_ready, 10 * num_ready, batch_size, fitting).is_misfit is is_misfit


# What there is to do


def test_steps_at_a_position_are_counted() -> None:
    for length, position, begin, end in itertools.product((1, 2, 3), range(3), range(7), range(9)):
        if position < length:
            steps = sum(step % length == position for step in range(begin, end))
            assert previews._steps_at(position, length, begin, end) == steps


ARMS = {
    "baseline": [],
    "on": [{"every": 3, "model": "upper-case"}, {"at": 4, "network": ["draw", "chain", "upper-case"]}],
}


def test_a_new_experiment_is_previewed_by_its_config_alone(tmp_path: Path) -> None:
    """Two prompts: a fixed seed and two repeats, each without and with what steps in; ten steps of each."""
    config = make_config(
        **EMBEDDED, arms=ARMS, max_length=10, vectorisations=["entropy"], distances=["bottleneck"],
        diagrams=[{"max_dimension": 1}], batch_sizes={"draw": 4}, tags=["t"],
    )  # fmt: skip
    found = preview(config, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert (found.name, found.store, found.is_known) == ("test", tmp_path / "none", False)
    assert (found.runs_total, found.runs_existing) == (12, 0)
    assert (found.invocations_total, found.invocations_existing) == (120, 0)
    assert (found.images_missing, found.left_alone, found.served, found.placing) == (0, [], (), None)
    assert found.eta_s is None, "no model has been seen"
    models = {one.name: one for one in found.models}
    # Of the arm: d c d c | d c u d c u, and what steps in before steps 3, 6, 9; of the baseline 5 and 5.
    assert {name: one.num_items for name, one in models.items()} == {
        "draw": 6 * 5 + 6 * 4, "chain": 6 * 5 + 6 * 4, "upper-case": 6 * (2 + 3),
        "synthetic/state-embedding": 120 + 18 + 2,
    }  # fmt: skip
    assert [models[name].order for name in models] == [1, 2, 3, 4]
    assert {name: one.num_ready for name, one in models.items()} == {
        "draw": 12, "chain": 12, "upper-case": 6, "synthetic/state-embedding": 140
    }  # fmt: skip
    assert {name: (one.batch_size, one.shape_from) for name, one in models.items()} == {
        "draw": (4, "config"), "chain": (12, "model"), "upper-case": (6, "model"),
        "synthetic/state-embedding": (32, "model"),
    }  # fmt: skip
    assert {one.fitting_batch_size for one in models.values()} == {4, 12, 6, 32}
    assert not any(one.is_remote or one.absence for one in models.values())
    assert all(one.is_present for one in models.values())
    parts = {part.stage: (part.stored, part.missing) for part in found.parts}
    pairs = 12 * 11 // 2
    assert parts == {
        "embeddings": (0, 140), "diagrams": (0, 12), "vectorisations": (0, 12 * 2),
        "distances": (0, pairs * 2),
    }  # fmt: skip


def test_of_an_experiment_that_has_begun_the_rest_is_previewed(tmp_path: Path) -> None:
    changes: dict[str, Any] = {**EMBEDDED, "seeds": [-1], "repeats": 1}
    run(make_config(**changes, max_length=4), tmp_path / "s")
    changes["diagrams"] = [{"max_dimension": 1}]
    found = preview(make_config(**changes, max_length=4), tmp_path / "s")
    assert (found.is_known, found.runs_total, found.runs_existing) == (True, 2, 2)
    assert (found.invocations_total, found.invocations_existing, found.eta_s) == (8, 8, 0.0)
    assert {part.stage: part.missing for part in found.parts} == {"embeddings": 0, "diagrams": 2}
    assert [one.order for one in found.models] == [None] * 3
    assert {one.shape_from for one in found.models} == {"experiment"}

    longer = preview(make_config(**changes, max_length=10), tmp_path / "s")
    assert (longer.runs_existing, longer.invocations_total, longer.invocations_existing) == (0, 20, 8)
    assert {one.name: one.num_items for one in longer.models} == {
        "draw": 6, "chain": 6, "synthetic/state-embedding": 12
    }  # fmt: skip
    assert {part.stage: part.missing for part in longer.parts} == {"embeddings": 12, "diagrams": 2}
    with Store(tmp_path / "s") as store:
        seconds = {time.model: time.duration_s / time.items for time in reading.model_times(store)}
    assert longer.eta_s == pytest.approx(6 * (seconds["draw"] + seconds["chain"]))
    assert {one.name: one.batch_size for one in longer.models}["draw"] == 4, "as it was pinned"

    fewer = preview(make_config(**changes, max_length=2, prompts=["hello"]), tmp_path / "s")
    assert (fewer.runs_total, fewer.runs_existing, fewer.invocations_total) == (1, 1, 4)
    assert fewer.left_alone == ["1 runs of other prompts are left alone, all of them ended"]

    with Store(tmp_path / "s", write=True) as store:
        store.images.execute("DELETE FROM image WHERE rowid = 1")
    assert preview(make_config(**changes, max_length=4), tmp_path / "s").images_missing == 1
    other = preview(make_config(**changes, max_length=4, name="other"), tmp_path / "s")
    assert (other.is_known, other.runs_existing, other.images_missing) == (False, 0, 0)
    assert {part.stage: part.stored for part in other.parts}["embeddings"] == 0


@pytest.mark.parametrize(
    ("state", "num_steps", "steps"),
    [
        (None, 0, (0, 8)), ("todo", 0, (0, 8)), ("running", 5, (5, 8)), ("done", 8, (8, 8)),
        ("done", 9, (9, 9)), ("stuck", 5, (5, 5)), ("repeated", 5, (5, 5)), ("failed", 5, (5, 5)),
    ],
)  # fmt: skip
def test_steps_that_a_run_has_and_will_have(
    state: str | None, num_steps: int, steps: tuple[int, int]
) -> None:
    run = NewRun(network=("draw",), prompt="a", seed=1, max_length=8)
    row = None if state is None else RunRow(
        id=1, experiment=1, network=("draw",), prompt="a", seed=1, repeat=0, max_length=9, state=state,
        num_steps=num_steps, entry_step=None, period=None, failure=None,
    )  # fmt: skip
    assert previews._steps(run, row) == steps


def test_an_estimate_needs_the_speed_of_each_model_with_work() -> None:
    assert previews._eta_s({"a": 3, "b": 0}, {"a": 2.0}) == 6.0
    assert previews._eta_s({"a": 3, "b": 2}, {"a": 2.0, "b": 0.5}) == 7.0
    assert previews._eta_s({"a": 3, "b": 1}, {"a": 2.0}) is None
    assert previews._eta_s({}, {}) == 0


def test_of_a_users_file_only_what_its_source_tells_is_compared(tmp_path: Path) -> None:
    """Its batch size is not known without running it, unless somebody has decided it."""
    (tmp_path / "own.py").write_text(
        "def kinds(): return 'image'\n"
        "class Own:\n    modality_in, modality_out, size_bytes = kinds(), 'text', 0\n"
        "    def load(self, device): pass\n    def invoke(self, inputs, seeds): return ['x'] * len(inputs)\n"
    )
    models = {
        "draw": {"base": "synthetic/text-to-image"}, "chain": {"base": f"python:{tmp_path}/own.py:Own"}
    }  # fmt: skip
    for sizes, want in (({}, None), ({"chain": 3}, 3)):
        config = make_config(models=models, batch_sizes=sizes, networks=[["draw", "chain"]])
        chain = preview(config, tmp_path / "none").models[1]
        assert (chain.name, chain.batch_size, chain.padding is None) == ("chain", want, want is None)
