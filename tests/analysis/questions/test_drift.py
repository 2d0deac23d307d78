"""Drift against numbers that can be worked out by hand."""

from __future__ import annotations

import polars as pl
import pytest

from panic.analysis import load
from panic.analysis.questions import drift
from panic.analysis.sampling import scattered
from panic.store import Commit, NewEmbedding, contents, writing
from tests.analysis.conftest import TEXT, angle_vector, corner
from tests.analysis.looks import assert_shown


def test_drift_is_one_minus_the_cosine_at_the_steps_of_texts(bench):
    run = bench.add("start", ["near", "far", "away"])
    bench.embed(
        {
            "start": 3 * angle_vector(10),
            "near": angle_vector(70),
            "far": 2 * angle_vector(100),
            "away": angle_vector(190),
        }
    )
    found = drift.drift(load(bench.store, "demo"), "embed")
    assert found["step"].to_list() == [1, 3, 5]
    assert found["distance"].to_list() == pytest.approx([0.5, 1.0, 2.0], abs=1e-6)
    assert (found["run"] == run).all()
    assert not found["is_known"].any()
    assert found["network"].unique().to_list() == ["draw → tell"]


def test_a_stuck_run_goes_on_by_its_cycle(bench):
    run = bench.add("start", ["a", "b", "c"], max_length=14)
    bench.stuck(run, 2, 4)  # b, c, b, c, ...
    bench.embed(
        {"start": angle_vector(0), "a": angle_vector(90), "b": angle_vector(60), "c": angle_vector(180)}
    )
    found = drift.drift(load(bench.store, "demo"), "embed").sort("step")
    assert found["step"].to_list() == [1, 3, 5, 7, 9, 11, 13]
    assert found["distance"].to_list() == pytest.approx([1, 0.5, 2, 0.5, 2, 0.5, 2], abs=1e-6)
    assert found["is_known"].to_list() == [False] * 3 + [True] * 4


def test_the_first_step_of_every_run_is_from_no_other(bench):
    """90 degrees a step; from the end of one run to the beginning of the next it would be as many."""
    for start in ("start", "other"):
        bench.add(start, [f"{start} {number}" for number in range(3)], max_length=6)
    degrees = {"start": 0, "start 0": 90, "start 1": 180, "start 2": 270}
    degrees |= {name.replace("start", "other"): angle + 270 for name, angle in degrees.items()}
    bench.embed({name: angle_vector(angle) for name, angle in degrees.items()})
    found = drift.drift(load(bench.store, "demo"), "embed").sort("run", "step")
    first, second = found["step_size"].to_list()[::3]
    assert first is second is None
    assert found["step_size"].drop_nulls().to_list() == pytest.approx([1.0] * 4, abs=1e-6)


def test_pictures_drift_from_the_first_picture_and_step_sizes_are_within_a_modality(bench):
    """A model that reads pictures has no vector of the prompt; one step is from a picture to the next."""
    run = bench.add("start", ["a", "b", "c"], max_length=10)
    bench.stuck(run, 2, 4)
    digests = [step.output for step in contents.invocations(bench.store, run) if step.modality == "image"]
    batch = bench._batch("embed", 3)
    vectors = [angle_vector(degrees) for degrees in (10, 70, 190)]
    writing.commit(
        bench.store,
        Commit(
            batches=[batch],
            embeddings=[
                NewEmbedding(
                    output=bytes.fromhex(digest), model=bench.models["embed"], batch=batch.id, vector=vector
                )
                for digest, vector in zip(digests, vectors, strict=True)
            ],
        ),
    )
    found = drift.drift(load(bench.store, "demo"), "embed", "image")
    assert found["step"].to_list() == [0, 2, 4, 6, 8]
    assert found["distance"].to_list() == pytest.approx([0, 0.5, 2, 0.5, 2], abs=1e-6)
    assert found["step_size"].to_list()[1:] == pytest.approx([0.5, 1.5, 1.5, 1.5], abs=1e-6)
    assert found["step_size"][0] is None
    assert found["is_known"].to_list() == [False] * 3 + [True] * 2
    assert drift.drift_bands(found, "step_size")["step"].to_list() == [2, 4, 6, 8]
    assert drift.drift(load(bench.store, "demo"), "embed").is_empty()


def test_drift_without_the_vector_of_the_prompt_is_empty(bench):
    bench.add("start", ["a"])
    bench.embed({"a": angle_vector(0)})
    assert drift.drift(load(bench.store, "demo"), "embed").is_empty()


def test_bands_are_quartiles_over_runs():
    frame = pl.DataFrame(
        {
            "network": "n",
            "run": [0, 1, 2, 3, 4],
            "step": 1,
            "distance": [0.0, 1.0, 2.0, 3.0, 4.0],
            "is_known": False,
        }
    )
    assert drift.drift_bands(frame).row(0) == ("n", 1, 1.0, 2.0, 3.0, 5)


def test_far_is_what_unrelated_prompts_are(bench):
    for prompt, degrees in (("one", 0), ("two", 60), ("three", 180)):
        bench.add(prompt, ["a"], seed=-1)
        bench.embed({prompt: angle_vector(degrees)})
    bench.embed({"a": angle_vector(90)})
    answer = drift.table(bench.evidence, TEXT)
    assert answer.unrelated == pytest.approx(1.5, abs=1e-6)  # of 0.5, 1.5 and 2
    assert "Different starts are 1.50 apart in the median." in drift.sentence(answer)
    caption = drift.chart(answer)["from the prompt"].to_dict()["title"]["subtitle"]
    assert "different starts" in " ".join(caption)


def test_every_chart_of_distances_says_how_far_unrelated_starts_are(bench):
    """Starts at right angles are 1 apart; distances from one text to the next had nothing beside them."""
    for number in (0, 1):
        bench.add(f"start {number}", list("ab"), seed=-1, max_length=4)
    bench.embed({"start 0": corner(0), "start 1": corner(1), "a": corner(2), "b": corner(3)})
    charts = assert_shown(drift, drift.table(bench.evidence, TEXT))
    assert list(charts) == ["from the prompt", "from one text to the next"]
    for chart in charts.values():
        made = chart.to_dict()
        assert "of different starts from each other, 1.00." in " ".join(made["title"]["subtitle"])
        assert "rule" in [layer["mark"]["type"] for layer in made["layer"] if "mark" in layer]


def test_of_long_runs_it_is_said_how_many_model_calls_are_drawn(bench):
    bench.walk("ab" * 150, seed=-1)
    bench.embed({"start": corner(0), "a": corner(1), "b": corner(2)})
    for chart in drift.chart(drift.table(bench.evidence, TEXT)).values():
        assert "Drawn: 200 of the 300 model calls that gave texts." in " ".join(
            chart.to_dict()["title"]["subtitle"]
        )


def test_one_long_run_does_not_speak_for_all(bench):
    """ "Half of the texts are at 1.90 at step 41": one run of 18."""
    for repeat in range(3):
        bench.add("start", ["near", "near"], seed=-1, repeat=repeat)
    bench.add("start", ["near", "near", "away"], seed=-1, repeat=3)
    bench.embed({"start": angle_vector(0), "near": angle_vector(60), "away": angle_vector(180)})
    said = drift.sentence(drift.table(bench.evidence, TEXT))
    assert "draw → tell 0.50 at model call 3, of 4 runs" in said


@pytest.mark.parametrize(("num_steps", "num_drawn"), [(201, 200), (200, 200), (199, 199)])
def test_more_model_calls_than_200_are_drawn_in_part(bench, num_steps, num_drawn):
    bench.add("start", ["a"] * num_steps, network=("tell",), seed=-1, max_length=num_steps)
    bench.embed({"start": corner(0), "a": corner(1)})
    answer = drift.table(bench.evidence, TEXT)
    assert (len(answer.frame), len(answer.bands)) == (num_steps, num_drawn)
    caption = " ".join(drift.chart(answer)["from the prompt"].to_dict()["title"]["subtitle"])
    assert (f"Drawn: 200 of the {num_steps} model calls" in caption) == (num_steps > 200)


def test_sixty_runs_are_drawn_singly_some_of_every_network(bench):
    for repeat in range(59):
        bench.walk("a", seed=-1, repeat=repeat)
    for repeat in range(2):
        bench.walk("a", network=("tell",), seed=-1, repeat=repeat)
    bench.embed({"start": corner(0), "a": corner(1)})
    lines = drift.table(bench.evidence, TEXT).lines
    assert dict(lines.group_by("network").agg(pl.col("run").n_unique()).iter_rows()) == {
        "draw → tell": 58, "tell": 2,
    }  # fmt: skip


def test_200_starts_are_compared_with_each_other(bench):
    """Of two places whose numbers differ by 14, 93 x 107 pairs of 200 are apart: just more than half of them.

    With all 201 starts, or one less of the rarer place, they are less than half.
    """
    (left_out,) = set(range(201)) - set(scattered(201, 200).tolist())
    of_199 = scattered(201, 199).tolist()
    rare = {left_out + 1 if left_out + 1 not in of_199 else next(iter({*range(201)} - {*of_199, left_out}))}
    rare |= set([place for place in range(201) if place not in {left_out, *rare}][:92])
    for number in range(201):
        bench.add(f"start {number}", ["a"], network=("tell",), seed=-1)
    vectors = {f"start {number}": corner(int(number in rare)) for number in range(201)}
    bench.embed(vectors | {"a": corner(2)})
    data = load(bench.store, "demo")
    order = drift.starts(data, *TEXT).sort("run")["start"].to_list()
    assert order == sorted(order), "starts have their rows in the order of their runs"
    assert drift.unrelated(data, *TEXT) == pytest.approx(1.0, abs=1e-6)


def test_texts_are_measured_where_their_prompts_have_vectors_too(bench):
    bench.add("start", ["a"], max_length=2)
    bench.embed({"a": corner(0)})
    assert drift.views(bench.evidence) == [None]
    bench.embed({"start": corner(1)})
    assert drift.views(bench.evidence) == [TEXT]
