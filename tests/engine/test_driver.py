"""The driver, with real sessions and stages, and workers whose every call a test sees."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from panic.engine.calls import Call, CallError
from panic.engine.driver import TICK_S, _estimate_s
from panic.engine.pool import JobResult
from panic.engine.progress import Progress
from panic.engine.session import Session
from panic.engine.stages.stage import Failed
from panic.errors import Interrupted, ModelDoesNotFit, ModelError, ModelMissing
from panic.store import Commit, Store, reading
from panic.store.codec import text_digest
from panic.store.records import NewOutput
from tests.engine.by_hand import FRESH, Performance, batches, failing, first, opened, perform, states
from tests.engine.conftest import dump

pytestmark = pytest.mark.timeout(120)
"""A driver that does not end would hold up all other tests for five minutes; these take a second each, and
more on a busy machine."""

# Batches


def test_full_batches_first_and_short_ones_only_where_a_worker_has_nothing_else(tmp_path: Path) -> None:
    with opened(tmp_path / "s", prompts=states(5), max_length=2, **FRESH) as session:
        seen = perform(session)
    # Of five drawings four make a batch. The fifth waits until the worker has nothing else to do, and then
    # comes before the captions: its model is there.
    assert seen.sizes == [("draw", 4), ("draw", 1), ("chain", 4), ("chain", 1)]
    expected = [("draw", 0, 4, 4), ("draw", 0, 1, 4), ("chain", 0, 4, 4), ("chain", 0, 1, 4)]
    assert batches(tmp_path / "s") == expected
    assert {call.batch_size for call in seen.calls} == {4}


def test_a_batch_is_stored_with_how_it_was_made(tmp_path: Path) -> None:
    before = time.time()
    with opened(tmp_path / "s", prompts=states(3), draw={"delay_s": 0.05}, max_length=1, **FRESH) as session:
        seen = perform(session)
        number = session.number
    with Store(tmp_path / "s") as store:
        ((session_id, device, size, padded_size, bucket, started_at, duration_s),) = store.db.rows(
            "SELECT session, device, size, padded_size, bucket, started_at, duration_s FROM batch"
        )
        assert (session_id, device, size, padded_size, bucket) == (number, "cpu", 3, 4, 0)
        assert before < started_at < time.time()
        assert 0.05 <= duration_s < time.time() - before
        assert seen.progress[-1].model_seconds == {"draw": pytest.approx(duration_s)}
        (model,) = reading.model_times(store)
        assert model.items == 3


def test_the_bucket_of_a_batch_is_that_of_its_items(tmp_path: Path) -> None:
    """The embedding model takes texts and images: never both in one call."""
    models = {
        "draw": {"base": "synthetic/text-to-image", "size": 16},
        "chain": {"base": "synthetic/image-to-text"},
        "circle": {"base": "synthetic/state-embedding"},
    }
    sizes = {"draw": 4, "chain": 4, "circle": 8}
    changes: dict[str, Any] = {"models": models, "embeddings": ["circle"], "batch_sizes": sizes}
    with opened(tmp_path / "s", prompts=states(2), max_length=2, **FRESH, **changes) as session:
        seen = perform(session)
    calls = [call for call in seen.calls if call.model == "circle"]
    kinds = {(call.bucket, type(item).__name__) for call in calls for item in call.inputs}
    assert kinds == {(-1, "Image"), (0, "str")}
    with Store(tmp_path / "s") as store:
        rows = store.db.rows("SELECT bucket, size, padded_size FROM batch WHERE bucket <> 0")
        assert rows == [(-1, 2, 8)]
        assert (
            reading.counts(store).embeddings == 2 + 2 + 1
        )  # prompts, images, and "state 2", the only new text


def test_items_keep_their_order_and_their_seeds(tmp_path: Path) -> None:
    with opened(tmp_path / "a", prompts=states(6), max_length=1, **FRESH) as session:
        whole = perform(session)
    with opened(tmp_path / "b", prompts=states(6), max_length=1, **FRESH) as session:
        retried = perform(session, first(1, failing("untried")))
    seeds = [seed for call in whole.calls for seed in call.seeds]
    assert len(set(seeds)) == 6
    assert [seed for call in retried.calls[1:] for seed in call.seeds] == seeds
    assert dump(tmp_path / "a") == dump(tmp_path / "b")


# Ends


@pytest.mark.parametrize(
    ("kind", "error"), [("load", ModelError), ("missing", ModelMissing), ("unfit", ModelDoesNotFit)]
)
def test_what_no_retry_mends_ends_it_with_what_there_is_stored(
    tmp_path: Path, kind: Any, error: type[ModelError]
) -> None:
    def fate(call: Call) -> CallError | None:
        return CallError(kind=kind, message="gone", hint="look") if call.model == "chain" else None

    seen = Performance()
    changes: dict[str, Any] = {"prompts": states(4), "max_length": 2, **FRESH}
    with pytest.raises(error, match=r"^chain: gone") as caught, opened(tmp_path / "s", **changes) as session:
        perform(session, fate, seen=seen)
    assert caught.value.hint == "look"
    assert seen.sizes == [("draw", 4), ("chain", 4)]
    with Store(tmp_path / "s") as store:
        assert reading.counts(store).invocations == 4
        assert reading.counts(store).failed == 0


def test_fail_fast_stops_with_the_first_failure(tmp_path: Path) -> None:
    seen = Performance()
    changes: dict[str, Any] = {"prompts": states(7), "max_length": 1, "max_retries": 0, "fail_fast": True}
    changes["batch_sizes"] = {"draw": 1, "chain": 1}
    told = "step 0 has failed: synthetic"
    with (
        pytest.raises(ModelError, match=told) as caught,
        opened(tmp_path / "s", **changes, **FRESH) as session,
    ):
        perform(session, lambda call: failing("error", "synthetic"), seen=seen)
    assert caught.value.hint == "fail_fast is on."
    assert len(seen.calls) == 2, "no more than were on their way"
    with Store(tmp_path / "s") as store:
        assert Counter(row.state for row in reading.runs(store)) == {"failed": 2, "todo": 5}


def test_without_fail_fast_everything_else_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path / "s", prompts=states(7), max_length=1, max_retries=0, **FRESH) as session:
        perform(session, lambda call: failing() if "state 1" in call.inputs else None)
    with Store(tmp_path / "s") as store:
        assert Counter(row.state for row in reading.runs(store)) == {"failed": 1, "done": 6}


def test_a_stop_stores_what_is_on_its_way_and_asks_for_nothing_more(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"prompts": states(7), "max_length": 2, "batch_sizes": {"draw": 1, "chain": 1}}
    seen = Performance()

    def fate(call: Call) -> None:
        if len(seen.calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted), opened(tmp_path / "s", **changes, **FRESH) as session:
        perform(session, fate, seen=seen)
    assert len(seen.calls) == 5
    with Store(tmp_path / "s") as store:
        assert reading.counts(store).invocations == 5
        assert reading.sessions(store)[-1].end_state == "interrupted"
    with opened(tmp_path / "s", **changes, **FRESH) as session:
        perform(session)
    with opened(tmp_path / "whole", **changes, **FRESH) as session:
        perform(session)
    assert dump(tmp_path / "s") == dump(tmp_path / "whole")


def test_embeddings_that_are_given_up_are_an_error_at_the_end(tmp_path: Path) -> None:
    models = {
        "draw": {"base": "synthetic/text-to-image", "states": 20, "size": 16},
        "chain": {"base": "synthetic/image-to-text", "states": 20},
        "circle": {"base": "synthetic/state-embedding", "states": 20},
    }
    changes: dict[str, Any] = {"models": models, "embeddings": ["circle"], "prompts": ["state 0"]}
    changes |= {"max_length": 40, "max_retries": 0, "batch_sizes": dict.fromkeys(models, 4), **FRESH}

    def fate(call: Call) -> CallError | None:
        return failing("error", "no vector") if call.model == "circle" and "state 3" in call.inputs else None

    with opened(tmp_path / "s", **changes) as session, pytest.raises(ModelError) as caught:
        perform(session, fate)
    name = text_digest("state 3").hex()[:12]
    assert caught.value.message == f"1 results are missing:\ncircle: output {name} has no vector: no vector"
    assert caught.value.hint == "Everything else is stored; run it again to try these again."
    with Store(tmp_path / "s") as store:
        assert [row.state for row in reading.runs(store)] == ["done"]
        assert reading.counts(store).embeddings == 39

    with opened(tmp_path / "t", **changes) as session, pytest.raises(ModelError) as caught:
        perform(session, lambda call: failing() if call.model == "circle" else None)
    assert caught.value.message.startswith("40 results are missing:\n")
    assert caught.value.message.count("\n") == 10, "ten are named"

    with opened(tmp_path / "s", **changes) as session:
        perform(session)
    with Store(tmp_path / "s") as store:
        assert reading.counts(store).embeddings == 40


# What overlaps with the loops, done elsewhere


@dataclass(slots=True)
class Elsewhere:
    """A stage whose work is done somewhere else; `rounds` pieces, one after another.

    asked: how it was asked for work, and whether everything that was handed to the writer was stored.
    """

    session: Session
    answer: Callable[[Elsewhere], JobResult | None]
    rounds: int = 1
    name: str = "elsewhere"
    post: Any = None
    num_busy: int = 0
    given_up: list[str] = field(default_factory=list)
    asked: list[tuple[bool, bool]] = field(default_factory=list)
    got: list[Any] = field(default_factory=list)

    def refill(self, *, thorough: bool) -> int:
        writer = self.session.writer
        self.asked.append((thorough, writer.committed == writer.added))
        if not thorough or self.num_busy or not self.rounds:
            return 0
        self.rounds -= 1
        self.num_busy = 1
        if (result := self.answer(self)) is not None:
            self.post(result)
        return 1

    def absorb(self, work: Any, result: Commit, commit: Commit) -> None:
        self.num_busy = 0
        for output in result.outputs:
            self.session.contents.add_unsaved(output.digest, str(output.text))
        commit.extend(result)
        self.got.append(work)

    def fail(self, work: Any, failed: Failed, commit: Commit) -> None:
        self.num_busy = 0
        self.given_up.append(f"{work}: {failed.kind}: {failed.message}")

    def written(self, commit: Commit, number: int) -> None:
        self.got.append(number)

    def progress(self, before: Progress) -> Progress:
        return before.with_stage(self.name, len(self.got), 9)


def elsewhere(
    session: Session, answer: Callable[[Elsewhere], JobResult | None], *, rounds: int = 1
) -> tuple[list[Elsewhere], Callable[[Any], list[Elsewhere]]]:
    """Such a stage, once it is made, and what makes it."""
    made: list[Elsewhere] = []

    def more(workers: Any) -> list[Elsewhere]:
        made.append(Elsewhere(session, answer, rounds=rounds, post=workers.post))
        return made

    return made, more


def test_what_is_done_elsewhere_is_waited_for_stored_and_asked_for_again(tmp_path: Path) -> None:
    def answer(stage: Elsewhere) -> JobResult:
        text = f"from elsewhere {stage.rounds}"
        row = NewOutput(digest=text_digest(text), modality="text", text=text)
        return JobResult(job=stage.rounds, rows=Commit(outputs=[row]), stage=stage)  # type: ignore[arg-type]

    with opened(tmp_path / "s", prompts=states(2), max_length=2, **FRESH) as session:
        made, more = elsewhere(session, answer, rounds=3)
        seen = perform(session, more=more)
    (stage,) = made
    assert list(stage.got[::2]) == [2, 1, 0]
    assert stage.got[1::2] == sorted(stage.got[1::2])
    thorough = [is_stored for is_thorough, is_stored in stage.asked if is_thorough]
    assert len(thorough) >= 4
    assert all(thorough), "what is missing is asked for when everything is stored"
    assert any(not is_thorough for is_thorough, _ in stage.asked), "and now and then meanwhile"
    assert seen.progress[-1].stages["elsewhere"].done == 6


def test_what_fails_elsewhere_is_an_error_at_the_end(tmp_path: Path) -> None:
    def answer(stage: Elsewhere) -> JobResult:
        return JobResult(job="a job", problem="too large", stage=stage)  # type: ignore[arg-type]

    with opened(tmp_path / "s", prompts=states(2), max_length=2, **FRESH) as session:
        _, more = elsewhere(session, answer)
        with pytest.raises(ModelError, match="1 results are missing:\na job: error: too large"):
            perform(session, more=more)


def test_a_stop_does_not_wait_for_what_is_done_elsewhere(tmp_path: Path) -> None:
    def answer(stage: Elsewhere) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with opened(tmp_path / "s", prompts=states(2), max_length=2, **FRESH) as session:
        _, more = elsewhere(session, answer)
        with pytest.raises(Interrupted, match="what was computed is stored") as caught:
            perform(session, more=more)
    assert caught.value.hint == "Run it again to go on."


# Progress


def test_progress_is_that_of_the_runs(tmp_path: Path) -> None:
    """One run goes round (14 steps), two fail at step 6; tried again, those take all their 20 steps."""
    changes: dict[str, Any] = {"prompts": ["state 0"], "repeats": 2, "max_length": 20, "max_retries": 0}

    def fate(call: Call) -> CallError | None:
        return failing() if "state 3" in call.inputs and set(call.seeds) != {42} else None

    def numbers(progress: Progress) -> tuple[int, ...]:
        return (
            *(progress.runs_total, progress.runs_ended, progress.runs_stuck, progress.runs_failed),
            *(progress.invocations, progress.invocations_total),
        )

    with opened(tmp_path / "s", **changes) as session:
        seen = perform(session, fate)
    assert numbers(seen.progress[0]) == (3, 0, 0, 0, 3, 60)
    assert numbers(seen.progress[-1]) == (3, 3, 1, 2, 26, 26)
    assert seen.progress[-1].eta_s == 0.0
    assert seen.progress[-1].resident == ("chain", "draw")
    with opened(tmp_path / "s", retry_failed=True, **changes) as session:
        seen = perform(session)
    assert numbers(seen.progress[0])[:5] == (3, 1, 1, 0, 28)
    assert numbers(seen.progress[-1]) == (3, 3, 1, 0, 54, 54)
    with opened(tmp_path / "s", **changes) as session:
        seen = perform(session)
    assert [numbers(progress) for progress in seen.progress] == [(3, 3, 1, 0, 54, 54)]
    assert seen.progress[-1].eta_s == 0.0


def test_progress_comes_now_and_then_with_an_estimate_of_this_session(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"prompts": ["state 0"], "seeds": [-1], "repeats": 1, "draw": {"delay_s": 0.11}}
    with opened(tmp_path / "s", max_length=10, **changes) as session:
        perform(session)
    began = time.monotonic()
    with opened(tmp_path / "s", max_length=26, **changes) as session:
        seen = perform(session)
    elapsed_s = time.monotonic() - began
    *during, last = seen.progress
    assert during[0].eta_s is None, "nothing is known yet"
    assert len(during) > 2
    for before, after in itertools.pairwise(during):
        assert after.elapsed_s - before.elapsed_s >= TICK_S
        done = after.invocations - during[0].invocations
        known = after.elapsed_s / done * (26 - after.invocations) if done else None
        assert after.eta_s == (known and pytest.approx(known))  # a slow first call: still nothing is known
    assert (last.invocations, last.eta_s) == (26, 0.0)
    assert 8 * 0.11 < last.elapsed_s < elapsed_s
    assert last.model_seconds["draw"] >= 8 * 0.11


@pytest.mark.parametrize(
    ("done", "remaining", "want"), [(0, 0, 0.0), (0, 3, None), (5, 0, 0.0), (2, 1, 4.0), (4, 8, 16.0)]
)
def test_what_is_left_is_estimated_at_the_mean_speed_so_far(
    done: int, remaining: int, want: float | None
) -> None:
    assert _estimate_s(done, remaining, 8.0) == want


# What comes next


def test_models_that_come_next_are_told_once_per_stretch_of_calls(tmp_path: Path) -> None:
    asked: list[int] = []

    def standing(loops: Any) -> Any:
        asked.append(1)
        return loops.standing

    with opened(tmp_path / "s", prompts=states(7), max_length=2, **FRESH) as session:
        seen = perform(session, standing=standing)
    models = [call.model for call in seen.calls]
    assert models == ["draw", "draw", "chain", "chain"]
    assert [call.upcoming for call in seen.calls] == [("chain", "draw")] * 2 + [("draw", "chain")] * 2
    assert len(asked) == 2
    with opened(tmp_path / "t", prompts=states(7), max_length=2, **FRESH) as session:
        assert {call.upcoming for call in perform(session).calls} == {()}


def test_who_waits_is_woken_when_what_is_urgent_is_stored(tmp_path: Path) -> None:
    made: list[Any] = []
    with opened(tmp_path / "s", prompts=states(2), max_length=2, **FRESH) as session:
        perform(session, more=lambda workers: made.append(workers) or ())
        assert session.writer.on_urgent == made[0].wake


def test_of_many_results_that_are_missing_rows_are_told_too(tmp_path: Path) -> None:
    with opened(tmp_path / "s", prompts=states(2), max_length=2, **FRESH) as session:
        session.writer.problems.append("ValueError: bad embeddings")
        with pytest.raises(ModelError) as caught:
            perform(session)
    assert caught.value.message == (
        "1 results are missing:\na row cannot be stored: ValueError: bad embeddings"
    )
