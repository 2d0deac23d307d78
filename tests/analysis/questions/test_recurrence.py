"""Exact returns of texts and of pictures, counted by hand."""

from __future__ import annotations

import pytest

from panic.analysis.questions import recurrence
from panic.store import Commit, NewInvocation, writing
from panic.store.codec import image_digest
from tests.analysis.conftest import picture
from tests.analysis.looks import assert_shown


def draws_again(bench, run: int, at: int, first: int) -> None:
    """One more step of a run: the picture that it drew first at some step."""
    digest = image_digest(picture(first))
    batch = bench._batch("draw", 1)
    step = NewInvocation(run, at, digest, digest, 42, batch.id)
    writing.commit(bench.store, Commit(batches=[batch], invocations=[step]))


def test_pictures_that_come_back_are_seen_although_no_text_does(bench):
    run = bench.add("a start", list("abcd"), seed=-1)
    draws_again(bench, run, 8, 0)
    answer = recurrence.table(bench.evidence)
    shares = dict(answer.shares.select("modality", "share").iter_rows())
    assert shares == {"text": 0, "image": pytest.approx(1 / 5)}
    said = recurrence.sentence(answer)
    assert said == (
        "The one run that is not stuck says nothing twice. The one run that is not stuck draws again what it "
        "has made before: 20% of its pictures."
    )


def test_returns_are_counted_over_whole_runs_and_the_last_outputs_drawn(bench):
    """Only the last 100 outputs were looked at: what came back before was not."""
    letters = ["a", "a", *(f"text {i}" for i in range(120))]
    run = bench.add("a start", letters, network=("tell",), seed=-1, max_length=200)
    answer = recurrence.table(bench.evidence)
    assert answer.plots[0].counts.rate == 0
    assert answer.plots[0].first == 22
    assert answer.shares.row(0) == (run, "text", pytest.approx(1 / 122))


def test_fresh_runs_are_drawn_first_and_stuck_ones_are_counted_apart(bench):
    for seed in range(8):
        stuck = bench.walk("abcbc", seed=seed)
        bench.stuck(stuck, 2, 4)
    fresh = bench.walk("abcde", seed=-1)
    answer = recurrence.table(bench.evidence)
    assert answer.plots[0].label == f"texts of run {fresh}, fresh noise"
    assert len(answer.plots) == recurrence.MAX_PLOTS
    assert answer.shares["run"].unique().to_list() == [fresh]
    assert "8 stuck runs repeat themselves for good" in recurrence.sentence(answer)


def test_runs_in_which_nothing_comes_again_are_not_drawn(bench):
    bench.walk("abcdefgh", seed=-1)
    bench.walk("abababab", seed=-1, repeat=1)
    answer = recurrence.table(bench.evidence)
    assert len(answer.plots) == 4
    charts = assert_shown(recurrence, answer)
    assert list(charts) == ["texts of run 2, fresh noise"]


@pytest.mark.parametrize("num_steps", [3, 4])
def test_runs_of_four_steps_are_asked(bench, num_steps):
    bench.add("a start", list("aaaa"[:num_steps]), network=("tell",), seed=-1, max_length=8)
    answer = recurrence.table(bench.evidence)
    assert (answer is None) == (num_steps < 4)


def test_the_last_100_outputs_are_drawn_of_six_runs_at_most(bench):
    for repeat, length in enumerate((99, 100, 101, 4, 4, 4, 4)):
        texts = [f"{repeat} {output}" for output in range(length)]
        bench.add("a start", texts, network=("tell",), seed=-1, repeat=repeat, max_length=101)
    plots = recurrence.table(bench.evidence).plots
    assert [(plot.first, len(plot.matrix)) for plot in plots[:3]] == [(0, 99), (0, 100), (1, 100)]
    assert len(plots) == 6


def test_a_run_without_pictures_has_a_plot_of_its_texts_alone(bench):
    bench.walk("abab", seed=-1)
    bench.walk("abab", network=("tell",), seed=-1)
    plots = recurrence.table(bench.evidence).plots
    assert [plot.label.partition(",")[0] for plot in plots] == [
        "texts of run 1", "pictures of run 1", "texts of run 2"
    ]  # fmt: skip
