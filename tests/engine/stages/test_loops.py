"""The loops stage by hand: a real session, whose items this test answers itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from panic.engine.progress import Progress
from panic.engine.stages.loops import LoopStage
from panic.engine.stages.stage import Failed, Made
from panic.store import Commit, Store, reading
from tests.engine.by_hand import answers, opened, waiting


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


def test_a_session_records_how_it_ended(tmp_path: Path) -> None:
    with opened(tmp_path / "s"):
        pass
    with pytest.raises(ZeroDivisionError), opened(tmp_path / "s"):
        1 / 0  # noqa: B018
    with Store(tmp_path / "s") as store:
        assert [row.end_state for row in reading.sessions(store)] == ["done", "failed"]
