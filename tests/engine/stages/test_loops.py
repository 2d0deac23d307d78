"""The loops stage by hand: a real session, whose items this test answers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from panic import run
from panic.arms import Intervention
from panic.engine.plan import run_root, step_seed
from panic.engine.progress import Progress
from panic.engine.session import Session
from panic.engine.stages.loops import Loop, LoopStage
from panic.engine.stages.stage import Failed, Made
from panic.models.protocol import Modality
from panic.store import Commit, Store, check, contents, reading
from panic.store.codec import text_digest
from panic.store.missing import FixedSeedStep, Tail
from panic.store.records import NewFailure, NewRun, NewStuck
from panic.store.stuck import Stuck
from tests.engine.by_hand import answers, opened, perform, waiting
from tests.engine.conftest import make_config


def test_loops_know_where_their_runs_stand(tmp_path: Path) -> None:
    with opened(tmp_path / "s", prompts=["state 0"], seeds=[-1, 7], repeats=1, max_length=3) as session:
        loops = LoopStage(session)
        answer = answers(session)
        assert loops.refill(thorough=True) == 2
        assert loops.refill(thorough=True) == 0
        network = ("draw", "chain")
        assert loops.standing == {(network, 0): 2}
        (lane, item), other = waiting(session)
        loops.absorb(item, Made(answer(lane.model, item.input, item.seed), lane.model, 1), Commit())
        assert +loops.standing == {(network, 0): 1, (network, 1): 1}
        commit = Commit()
        for lane, item in [other, *waiting(session)]:
            loops.fail(item, Failed("error", "no", model=lane.model), commit)
        assert sorted(failure.step for failure in commit.failures) == [0, 1]
        assert not len(loops)
        assert sum(loops.standing.values()) == 0
        assert loops.progress(Progress()).runs_failed == 2


def test_a_run_waits_in_the_bucket_of_the_image_that_it_goes_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"prompts": ["state 0"], "seeds": [-1], "repeats": 2}
    with opened(tmp_path / "s", max_length=1, **changes) as session:
        perform(session)
    with opened(tmp_path / "s", max_length=2, **changes) as session:
        asked: list[tuple[str, Modality]] = []
        monkeypatch.setattr(session.buckets, "of", lambda model, digest, of: asked.append((model, of)) or 0)
        LoopStage(session).refill(thorough=True)
    assert asked == [("chain", Modality.IMAGE)] * 2


def test_fixed_seed_runs_that_meet_go_on_together(tmp_path: Path) -> None:
    # Prompts that name one state in other words draw one image: the second run waits for the first one.
    prompts = ["state 3", "state 3 "]
    with opened(tmp_path / "s", prompts=prompts, seeds=[42], repeats=1, max_length=4) as session:
        loops = LoopStage(session)
        answer = answers(session)
        loops.refill(thorough=True)
        asked = 0
        commit = Commit()
        while items := waiting(session):
            for lane, item in items:
                asked += 1
                loops.absorb(item, Made(answer(lane.model, item.input, item.seed), lane.model, 1), commit)
        assert len(commit.invocations) == 8
        assert asked == 2 + 3  # two prompts to draw, then one future
        by_run = {run: [i.output for i in commit.invocations if i.run == run] for run in session.run_ids}
        assert by_run[session.run_ids[0]] == by_run[session.run_ids[1]]


@pytest.mark.parametrize("committed", [0, 1])
def test_ended_runs_are_told_once_they_are_in_the_store(tmp_path: Path, committed: int) -> None:
    with opened(tmp_path / "s", prompts=["state 0"], seeds=[-1], repeats=1, max_length=1) as session:
        loops = LoopStage(session)
        loops.refill(thorough=True)
        ((lane, item),) = waiting(session)
        commit = Commit()
        loops.absorb(item, Made(answers(session)(lane.model, item.input, item.seed), lane.model, 1), commit)
        loops.written(commit, 1)
        assert loops.take_ended(committed) == (session.run_ids if committed else [])


def answered(session: Session, loops: LoopStage, commit: Commit) -> list[tuple[str, bytes]]:
    """Let models answer everything that waits, and what follows; (model, input) of what was asked."""
    answer, asked = answers(session), []
    while items := waiting(session):
        for lane, item in items:
            asked.append((lane.model, item.input))
            output = answer(lane.model, item.input, item.seed)
            loops.absorb(item, Made(output, lane.model, 1), commit)
    return asked


@pytest.mark.parametrize("halved", [False, True])
def test_what_a_fixed_seed_gave_is_known_when_going_on_unless_its_shape_has_changed(
    tmp_path: Path, halved: bool
) -> None:
    """The new run comes to "state 1", which the first one has drawn and read, in the old shape perhaps."""
    fixed: dict[str, Any] = {"seeds": [42], "repeats": 1}
    with opened(tmp_path / "s", prompts=["state 1"], max_length=2, **fixed) as session:
        perform(session)
    with opened(tmp_path / "s", prompts=["state 1", "state 0"], max_length=4, **fixed) as session:
        if halved:
            session.halve("draw")
        loops = LoopStage(session)
        commit = Commit()
        loops.refill(thorough=True)
        asked = [(model, text_digest(text)) for model, text in (("draw", "state 2"), ("draw", "state 0"))]
        drawn = answered(session, loops, commit)
    again = [("draw", text_digest("state 1"))] if halved else []
    assert [call for call in drawn if call[0] == "draw"] == asked + again
    # Of captions the shape is the old one: that of the first picture is known.
    assert sum(model == "chain" for model, _ in drawn) == 2
    assert len(commit.invocations) == 2 + 4


def test_what_a_fixed_seed_gave_earlier_in_the_session_is_not_asked_for_again(tmp_path: Path) -> None:
    """The second run draws "state 3" when the first one has long gone on."""
    fixed: dict[str, Any] = {"prompts": ["state 3", "state 2"], "seeds": [42], "repeats": 1, "max_length": 4}
    with opened(tmp_path / "s", **fixed) as session:
        loops, commit = LoopStage(session), Commit()
        loops.refill(thorough=True)
        asked = answered(session, loops, commit)
    drawn = [input for model, input in asked if model == "draw"]
    assert sorted(drawn) == sorted(text_digest(f"state {number}") for number in (2, 3, 4))
    assert len(commit.invocations) == 8


def test_states_of_an_earlier_shape_close_no_cycle_when_going_on(tmp_path: Path) -> None:
    """Drawings 0, 2 and 4 are of the old shape: the first state that says something is that of step 5."""
    fixed: dict[str, Any] = {"seeds": [42], "repeats": 1}
    with opened(tmp_path / "s", prompts=["state 0"], max_length=5, **fixed) as session:
        perform(session)
    with opened(tmp_path / "s", prompts=["state 0"], max_length=60, **fixed) as session:
        session.halve("draw")
        perform(session)
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        (row,) = reading.runs(store)
        assert (row.state, row.entry_step, row.period) == ("stuck", 5, 14)
    more = ["state 0", "hello"]  # an ended run with steps of an earlier shape is nobody's hindrance
    with opened(tmp_path / "s", prompts=more, max_length=60, **fixed) as session:
        perform(session)
        rows = reading.runs(session.reader, session.experiment)
        assert [row.state for row in rows] == ["stuck", "stuck"]


def test_a_new_run_whose_whole_future_is_known_counts_as_work(tmp_path: Path) -> None:
    """Otherwise nobody would ask again once it is stored, and its diagram would wait for the next session."""
    fixed: dict[str, Any] = {"seeds": [42], "repeats": 1, "max_length": 20}
    with opened(tmp_path / "s", prompts=["state 0"], **fixed) as session:
        perform(session)
    with opened(tmp_path / "s", prompts=["state 0", "state 3"], **fixed) as session:
        loops = LoopStage(session)
        assert loops.refill(thorough=True) == 1
        assert waiting(session) == []
        session.writer.flush()
        rows = reading.runs(session.reader, session.experiment)
        assert [(row.state, row.num_steps) for row in rows] == [("stuck", 14)] * 2
        assert loops.take_ended(session.writer.committed) == [session.run_ids[1]]
        assert loops.refill(thorough=True) == 0


@pytest.mark.slow
def test_a_new_run_whose_whole_future_is_known_gets_its_diagram_in_the_same_session(tmp_path: Path) -> None:
    models = {
        "draw": {"base": "synthetic/text-to-image", "states": 7, "size": 16},
        "chain": {"base": "synthetic/image-to-text", "states": 7, "kernel": "cycle"},
        "circle": {"base": "synthetic/state-embedding", "states": 7},
    }
    changes: dict[str, Any] = {"models": models, "embeddings": ["circle"], "diagrams": {"max_dimension": 1}}
    changes |= {"seeds": [42], "repeats": 1, "max_length": 20}
    run(make_config(prompts=["state 0"], **changes), tmp_path / "s")
    outcome = run(make_config(prompts=["state 0", "state 3"], **changes), tmp_path / "s")
    assert (outcome.counts.stuck, outcome.counts.diagrams) == (2, 2)
    with Store(tmp_path / "s") as store:
        assert check.check(store) == []
        assert sum(row.items for row in reading.model_times(store) if row.model == "draw") == 7


def test_a_run_goes_on_from_where_it_is_and_closes_its_cycle(tmp_path: Path) -> None:
    """Five steps are stored: the state of step 14 is that of step 0, which only the store knows."""
    fixed: dict[str, Any] = {"prompts": ["state 0"], "seeds": [42], "repeats": 1}
    with opened(tmp_path / "s", max_length=5, **fixed) as session:
        perform(session)
    with opened(tmp_path / "s", max_length=40, **fixed) as session:
        loops, commit = LoopStage(session), Commit()
        loops.refill(thorough=True)
        assert loops.remaining_steps == 35
        asked = answered(session, loops, commit)
        (run,) = session.run_ids
    assert [step.step for step in commit.invocations] == list(range(5, 14))
    assert asked[0][0] == "chain"
    assert commit.stuck == [NewStuck(run=run, entry_step=0, period=14)]


def test_nothing_goes_on_from_what_is_lost(tmp_path: Path) -> None:
    fixed: dict[str, Any] = {"seeds": [42], "repeats": 1, "max_length": 2}
    with opened(tmp_path / "s", prompts=["state 1"], **fixed) as session:
        perform(session)
        (made, *_) = [row for row in contents.outputs(session.reader) if row.modality == "image"]
    with opened(tmp_path / "s", prompts=["state 1", "state 0"], **fixed | {"max_length": 4}) as session:
        session.lost.add(bytes.fromhex(made.digest))
        loops = LoopStage(session)
        loops.refill(thorough=True)
        asked = answered(session, loops, Commit())
    assert ("draw", text_digest("state 1")) in asked


def test_an_item_that_fails_ends_all_runs_that_waited_for_it(tmp_path: Path) -> None:
    with opened(tmp_path / "s", prompts=["state 3", "state 3 "], seeds=[42], repeats=1) as session:
        loops = LoopStage(session)
        loops.refill(thorough=True)
        answer, commit = answers(session), Commit()
        for lane, item in waiting(session):
            loops.absorb(item, Made(answer(lane.model, item.input, item.seed), lane.model, 1), commit)
        ((lane, item),) = waiting(session)
        item.attempts = 3
        loops.fail(item, Failed("error", "no", "where", lane.model), commit)
        assert [(failure.run, failure.step) for failure in commit.failures] == [
            (run, 1) for run in session.run_ids
        ]
        failure = commit.failures[0]
        assert (failure.kind, failure.message, failure.detail, failure.attempts) == (
            "error",
            "no",
            "where",
            3,
        )
        assert loops.remaining_steps == 0
        assert loops.progress(Progress()).runs_failed == 2


def test_every_ended_run_is_told_once(tmp_path: Path) -> None:
    fresh: dict[str, Any] = {"prompts": ["state 0", "state 1"], "seeds": [-1], "repeats": 1, "max_length": 1}
    with opened(tmp_path / "s", **fresh) as session:
        loops, answer = LoopStage(session), answers(session)
        loops.refill(thorough=True)
        for number, (lane, item) in enumerate(waiting(session), start=1):
            commit = Commit()
            loops.absorb(item, Made(answer(lane.model, item.input, item.seed), lane.model, 1), commit)
            loops.written(commit, number)
        first, second = session.run_ids
        assert loops.take_ended(1) == [first]
        assert loops.take_ended(1) == []
        loops.written(Commit(), 3)
        assert loops.take_ended(3) == [second]
        assert loops.progress(Progress()).invocations == 2


def test_fresh_noise_has_a_seed_per_step_and_run(tmp_path: Path) -> None:
    fresh: dict[str, Any] = {"prompts": ["state 0"], "seeds": [-1], "repeats": 3, "max_length": 4}
    with opened(tmp_path / "s", **fresh) as session:
        loops, commit = LoopStage(session), Commit()
        loops.refill(thorough=True)
        answered(session, loops, commit)
        expected = {
            (id, step): step_seed(run_root(0, ("draw", "chain"), "state 0", repeat), step)
            for repeat, id in enumerate(session.run_ids)
            for step in range(4)
        }
    assert {(made.run, made.step): made.seed for made in commit.invocations} == expected
    assert len(set(expected.values())) == 12
    assert commit.stuck == []


def step_by_step(session: Session, loops: LoopStage, commit: Commit, number: int) -> None:
    """Let models answer the only item that waits, so many times."""
    answer = answers(session)
    for _ in range(number):
        ((lane, item),) = waiting(session)
        output = answer(lane.model, item.input, item.seed)
        loops.absorb(item, Made(output, lane.model, 1), commit)


@pytest.mark.parametrize(
    ("steps", "model", "entry_step"),
    [(0, "draw", 0), (1, "chain", 0), (1, "draw", 1), (5, "draw", 5), (5, "chain", 4), (6, "chain", 6)],
)
def test_a_new_shape_forgets_the_states_up_to_the_last_step_of_its_model(
    tmp_path: Path, steps: int, model: str, entry_step: int
) -> None:
    """Drawings are the even steps. A cycle of 7 states has a period of 14 steps."""
    fixed: dict[str, Any] = {"prompts": ["state 0"], "seeds": [42], "repeats": 1, "max_length": 60}
    with opened(tmp_path / "s", **fixed) as session:
        loops, commit = LoopStage(session), Commit()
        loops.refill(thorough=True)
        step_by_step(session, loops, commit, steps)
        loops.forget(model)
        answered(session, loops, commit)
        (run,) = session.run_ids
    assert commit.stuck == [NewStuck(run=run, entry_step=entry_step, period=14)]


@pytest.mark.parametrize("seed", [-1, 42])
@pytest.mark.parametrize("is_repeatable", [True, False])
@pytest.mark.parametrize("stuck_after", [None, 3])
def test_rounds_are_counted_where_they_end_a_run_that_is_never_stuck(
    seed: int, is_repeatable: bool, stuck_after: int | None
) -> None:
    run = NewRun(network=("draw", "chain"), prompt="x", seed=seed, max_length=9)
    loop = Loop(1, run, 0, 9, is_repeatable=is_repeatable, stuck_after=stuck_after)
    assert (loop.rounds is not None) == (stuck_after == 3 and not is_repeatable)
    assert (loop.detector is not None) == (seed == 42 and is_repeatable)


@pytest.mark.parametrize(
    ("step", "num_made", "model", "last"),
    [
        (5, 0, "draw", 4), (5, 0, "chain", 3), (5, 0, "noisy", 3), (4, 1, "noisy", 3), (4, 0, "noisy", 1),
        (4, 2, "other", 3), (4, 1, "other", -1), (2, 1, "noisy", 1), (2, 0, "noisy", -1), (0, 0, "draw", -1),
        (5, 0, "nobody", -1),
    ],
)  # fmt: skip
def test_the_last_state_that_a_model_has_left(step: int, num_made: int, model: str, last: int) -> None:
    """Before steps 2 and 4 a model steps in, before step 4 another one after it."""
    arm = (
        Intervention(kind="model", value="noisy", first=2, every=2),
        Intervention(kind="model", value="other", first=4),
    )
    loop = Loop(1, NewRun(network=("draw", "chain"), prompt="x", seed=42, max_length=9), 0, 9, arm=arm)
    loop.arrive(step, num_made)
    assert loop.last_made_by(model) == last


def test_what_stepped_in_in_an_earlier_shape_says_nothing_of_the_states_before_it(tmp_path: Path) -> None:
    """The input of its own step is what it has made: from there on the future is that of now."""
    with opened(tmp_path / "s", prompts=["state 0"], seeds=[42], repeats=1) as session:
        loops = LoopStage(session)
        loop = Loop(99, NewRun(network=("draw", "chain"), prompt="x", seed=42, max_length=9), 0, 9)
        loops.add(loop)
        known = FixedSeedStep(run=99, step=0, place=None, seed=42, input=b"0", output=b"1", epoch=0, batch=1)
        for step in range(3):
            given: Any = {"step": step, "input": b"%d" % step, "output": b"%d" % (step + 1)}
            loops.recall("draw", known._replace(**given), is_current=True)
        loops.recall("chain", known._replace(step=2, place=0), is_current=False)
        assert loop.detector is not None
        assert loop.detector.visit(3, b"1") is None
        assert loop.detector.visit(4, b"2") == Stuck(entry_step=2, period=2)


def test_a_new_shape_forgets_what_its_model_gave_and_nothing_else(tmp_path: Path) -> None:
    """The second run comes to "state 1" later: what was drawn of it is forgotten, what was read is not."""
    fixed: dict[str, Any] = {"prompts": ["state 0"], "seeds": [42], "repeats": 1, "max_length": 4}
    for model, asked_again in (("draw", ["draw", "draw"]), ("chain", ["chain", "chain"])):
        with opened(tmp_path / model, **fixed) as session:
            loops, commit = LoopStage(session), Commit()
            loops.refill(thorough=True)
            answered(session, loops, commit)
            loops.forget(model)
            loop = Loop(99, NewRun(network=("draw", "chain"), prompt="x", seed=42, max_length=4), 0, 4)
            loops.add(loop)
            loops.start(Tail(99, 0, text_digest("state 0"), "text"), commit)
            assert [name for name, _ in answered(session, loops, commit)] == asked_again


def test_a_run_whose_state_came_back_unnoticed_is_stuck_when_it_may_go_on(tmp_path: Path) -> None:
    """The state of step 14 is that of step 0, and the store does not say so: nothing is left to compute."""
    fixed: dict[str, Any] = {"prompts": ["state 0"], "seeds": [42], "repeats": 1}
    with opened(tmp_path / "s", max_length=14, **fixed) as session:
        perform(session)
        session.writer.flush()
        session.store.db.execute("DELETE FROM stuck")
    with opened(tmp_path / "s", max_length=20, **fixed) as session:
        loops = LoopStage(session)
        assert loops.refill(thorough=True) == 1
        session.writer.flush()
        (row,) = reading.runs(session.reader, session.experiment)
        assert (row.state, row.entry_step, row.period, row.num_steps) == ("stuck", 0, 14, 14)
        progress = loops.progress(Progress())
        assert (progress.runs_ended, progress.runs_stuck, progress.invocations) == (1, 1, 14)


def test_progress_begins_where_the_store_stands(tmp_path: Path) -> None:
    """One run is stuck, two will be at once since all their steps are known, two have failed, one goes on."""
    fixed: dict[str, Any] = {"prompts": ["state 0"], "seeds": [42], "repeats": 1}
    with opened(tmp_path / "s", max_length=20, **fixed) as session:
        perform(session)
    prompts = ["state 0", "state 1", "state 2"]
    with opened(tmp_path / "s", prompts=prompts, seeds=[42, -1], repeats=1, max_length=20) as session:
        fresh = [row.id for row in reading.runs(session.reader, session.experiment) if row.seed == -1]
        failures = [NewFailure(run=run, step=0, kind="error", message="no") for run in fresh[:2]]
        session.writer.add(Commit(failures=failures))
        session.writer.flush()
        loops = LoopStage(session)
        assert loops.progress(Progress()).runs_total == 0, "nothing is known before the first question"
        loops.refill(thorough=True)
        now = loops.progress(Progress(message="kept"))
        assert (now.runs_total, now.runs_ended, now.runs_stuck, now.runs_failed) == (6, 5, 3, 2)
        assert (now.invocations, now.message) == (3 * 14, "kept")
        assert now.invocations_total == 3 * 14 + loops.remaining_steps == 3 * 14 + 20


def test_steps_that_are_known_at_the_start_are_stored(tmp_path: Path) -> None:
    """The new run comes to "state 2" by what the first one has drawn and read."""
    fixed: dict[str, Any] = {"seeds": [42], "repeats": 1}
    with opened(tmp_path / "s", prompts=["state 0"], max_length=4, **fixed) as session:
        perform(session)
    with opened(tmp_path / "s", prompts=["state 1"], max_length=4, **fixed) as session:
        loops = LoopStage(session)
        assert loops.refill(thorough=True) == 2, "an item, and what is being stored"
        session.writer.flush()
        rows = {row.prompt: row for row in reading.runs(session.reader, session.experiment)}
        assert (rows["state 1"].state, rows["state 1"].num_steps) == ("running", 2)


def test_a_failure_took_at_least_one_attempt(tmp_path: Path) -> None:
    with opened(tmp_path / "s", prompts=["state 0"], seeds=[42], repeats=1) as session:
        loops, commit = LoopStage(session), Commit()
        loops.refill(thorough=True)
        ((lane, item),) = waiting(session)
        loops.fail(item, Failed("rejected", "no", model=lane.model), commit)
    assert [failure.attempts for failure in commit.failures] == [1]


def test_a_run_that_the_writer_has_ended_goes_no_further(tmp_path: Path) -> None:
    with opened(tmp_path / "s", prompts=["state 0"], seeds=[-1], repeats=1) as session:
        loops, commit = LoopStage(session), Commit()
        loops.refill(thorough=True)
        session.writer.broken.add(session.run_ids[0])
        step_by_step(session, loops, commit, 1)
        assert waiting(session) == []
        assert len(loops) == 0
        assert (loops.progress(Progress()).runs_failed, commit.failures) == (1, [])
