"""Metrics of single runs, by hand."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from panic.analysis import load, measured
from panic.analysis.metrics import METRICS, metric
from panic.errors import NotFound
from panic.store import NewRun, writing
from panic.store.finding import found
from tests.analysis.conftest import HOSTILE, NETWORK, angle_vector
from tests.analysis.test_comparison import other


def values(bench, name: str) -> list[float | None]:
    found = metric(load(bench.store, "demo"), name)
    assert found["run"].to_list() == load(bench.store, "demo").runs["run"].to_list()
    return found["value"].to_list()


def test_a_run_that_could_have_got_stuck_and_has_ended_otherwise_is_none_of_the_stuck(full):
    """One with fresh noise, one that failed, and one that has not ended say nothing."""
    full.add("a start", ["text 0", "text 1"], seed=7, max_length=4)  # done
    failed = full.add("a start", ["text 0"], seed=8)
    full.fail(failed, 2)
    full.add("a start", ["text 0"], seed=9)  # not ended
    assert values(full, "stuck_share") == [1, None, None, None, 0, None, None]
    assert values(full, "period") == [10, *[None] * 6]
    assert values(full, "entry_step") == [0, *[None] * 6]


def test_runs_of_models_that_answer_otherwise_the_next_time_cannot_get_stuck(bench):
    bench.add("a start", ["a"], max_length=2)
    assert values(bench, "stuck_share") == [0]
    bench.store.db.execute("UPDATE model SET is_repeatable = 0 WHERE name = 'tell'")
    assert values(bench, "stuck_share") == [None]


def test_drift_is_the_cosine_distance_of_the_last_text_from_the_prompt(full):
    """Of a stuck run where its cycle is at its full length; whatever the lengths of the vectors."""
    expected = [1 - np.cos(np.radians(72 * 4)), 1 - np.cos(np.radians(30)), None, None]
    assert values(full, "drift") == pytest.approx(expected, abs=1e-6)
    full.store.db.execute("DELETE FROM embedding")
    full.embed({"a start": 3 * angle_vector(0), HOSTILE: angle_vector(30)})
    full.embed({f"text {i}": 7 * angle_vector(72 * i) for i in range(5)})
    assert values(full, "drift") == pytest.approx(expected, abs=1e-6)


def test_drift_is_told_under_the_first_model_that_has_prompts_and_texts(full):
    """One that was asked for and has none, or has prompts alone, is passed over; vectors of zeros are far."""
    for number, name in enumerate(("none", "half")):
        row = writing.add_model(full.store, name, f"{name}-f", {"modalities_in": ["text"]})
        full.store.db.connection.execute("UPDATE epoch SET model = ? WHERE name = ?", (row, NETWORK[number]))
        full.models["embed"] = row
    full.embed({"a start": angle_vector(0)})
    expected = [1 - np.cos(np.radians(72 * 4)), 1 - np.cos(np.radians(30)), None, None]
    assert values(full, "drift") == pytest.approx(expected, abs=1e-6)
    full.store.db.execute("DELETE FROM embedding")
    assert values(full, "drift") == [None] * 4


def test_a_vector_without_a_direction_is_at_a_distance_of_1(bench):
    bench.add("a start", ["one"], max_length=2)
    bench.embed({"a start": angle_vector(0), "one": np.zeros(2, np.float32)})
    assert values(bench, "drift") == [1.0]


def test_entropy_is_the_mean_over_texts_and_pictures_in_bits(bench):
    bench.add("a start", ["a", "a", "b", "b"])  # 1 bit; four pictures: 2 bits
    bench.add("a start", ["a", "b", "b", "b"], network=("tell",), seed=7)
    writing.add_runs(
        bench.store, bench.experiment, [NewRun(network=NETWORK, prompt="x", seed=1, repeat=0, max_length=2)]
    )
    quarter = 0.25 * 2 + 0.75 * np.log2(4 / 3)
    assert values(bench, "entropy") == pytest.approx([1.5, quarter, None])


def test_a_call_counts_for_a_run_by_its_items(bench):
    """Each model's batch of n took 0.25 s; of one that was of twice as many items the run had a half."""
    bench.add("a start", ["a", "b"])
    bench.add("a start", ["a", "b"], network=("tell",), seed=7)
    bench.store.db.execute(
        "UPDATE batch SET size = 4, padded_size = 8 WHERE id = (SELECT max(id) FROM batch)"
    )
    assert values(bench, "seconds") == pytest.approx([0.5, 0.125])
    assert values(bench, "tokens") == [None, None]


def test_a_metric_that_is_none_is_refused():
    with pytest.raises(NotFound, match="No metric is called 'driftt'") as caught:
        metric(None, "driftt")  # type: ignore[arg-type]
    assert caught.value.hint == "Did you mean drift?"
    with pytest.raises(NotFound) as caught:
        metric(None, "zzzzzz")  # type: ignore[arg-type]
    assert caught.value.hint == f"There are: {', '.join(METRICS)}."


def test_results_of_200_experiments_are_loaded_at_once(bench):
    """It is told how far that is, which is how long a listing waits with nothing to show."""
    for number in range(200):
        writing.start_experiment(bench.store, f"other {number}", bench.config | {"name": f"other {number}"})
    told: list[tuple[int, int]] = []

    def telling():
        return nullcontext(lambda what, done, total: told.append((done, total)))

    fields = measured.fields(telling)
    found.find(bench.store, None, of="experiment", columns=["name", "entropy"], fields=fields)
    assert told == [(200, 201), (201, 201)]


def test_means_are_of_each_experiment_that_is_asked_for(bench):
    """Two texts and two pictures in a run: 1 bit; of two pictures and one text half as much."""
    bench.add("a start", ["text 0", "one"])
    other(bench)
    bench.add("a start", ["text 0", "text 0"], seed=7)
    bench.embed({"a start": angle_vector(0), "one": angle_vector(60), "text 0": angle_vector(90)})
    assert measured.means(bench.store, "entropy") == {1: (0.75, 2), 2: (1.0, 1)}
    assert measured.means(bench.store, "entropy", [2]) == {2: (1.0, 1)}
    assert measured.means(bench.store, "stuck_share") == {}
    rows = measured.find(bench.store, of="run", columns=["run", "drift", "entropy"], sort="run")
    assert [row["entropy"] for row in rows] == [1.0, 1.0, 0.5]
