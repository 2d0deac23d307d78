"""Diagrams and what is taken of them as jobs: which are due, and what they compute, without a process."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from panic.config import DiagramSettings
from panic.engine.plan import make_plan, warn_of_short_runs
from panic.engine.pool import Bench, Pool
from panic.engine.progress import Progress
from panic.engine.session import Session
from panic.engine.stages.diagrams import DiagramJob, DiagramStage
from panic.engine.stages.distances import DistanceJob, DistanceStage
from panic.engine.stages.vectorisations import VectorisationJob, VectorisationStage
from panic.store import Commit, contents, reading
from panic.store.records import NewDiagram, NewDistance, NewRun
from panic.topology import bottleneck, diagram, entropy, landscape, wasserstein
from tests.engine.by_hand import FRESH, opened, perform, states
from tests.engine.conftest import make_config

MODEL = "synthetic/state-embedding"


class Asked:
    """A pool that only knows what it was asked for."""

    is_preparing = False

    def __init__(self) -> None:
        self.jobs: list[Any] = []

    def submit(self, job: Any, stage: Any) -> None:
        self.jobs.append(job)


def made(kind: Any, session: Session) -> Any:
    return kind(session, cast("Pool", Asked()), reading.counts(session.reader))


def bench(session: Session) -> Bench:
    settings = tuple(session.plan.config.diagrams)
    return Bench(store=session.reader, settings=settings, memory_bytes=2**30)


def bars(number: int) -> dict[int, Any]:
    """Bars in two dimensions that differ by run."""
    return {0: np.array([[0.0, 1.0 + number], [0.0, 2.0]]), 1: np.array([[1.0, 1.5 + number]])}


def put_diagrams(session: Session, numbers: Iterable[int], settings: DiagramSettings) -> None:
    """Store diagrams of these runs of the session, counted from 0, in this order."""
    rows = [
        NewDiagram(
            run=session.run_ids[number], model=session.pins[MODEL].model, settings=settings.key,
            settings_digest=settings.digest, num_points=2, num_unique=2,
            bars={k: bars(number)[k] for k in range(settings.max_dimension + 1)},
        )
        for number in numbers
    ]  # fmt: skip
    session.writer.add(Commit(diagrams=rows))
    session.writer.flush()


MEASURES: dict[str, Any] = {
    "embeddings": [MODEL],
    "vectorisations": ["entropy", {"kind": "landscape", "range": [0, 2], "resolution": 9}],
    "distances": ["bottleneck", {"kind": "wasserstein", "order": 2}],
    "diagrams": {"max_dimension": 1},
}


def test_the_diagram_of_a_run_is_that_of_its_vectors(tmp_path: Path) -> None:
    loops = {"prompts": states(2), "max_length": 8, "embeddings": [MODEL], **FRESH}
    with opened(tmp_path / "s", **loops) as session:
        perform(session)
    settings = [{"max_dimension": 0}, {"max_dimension": 1, "generators": True}]
    with opened(tmp_path / "s", diagrams=settings, **loops) as session:
        stage, model = made(DiagramStage, session), session.pins[MODEL].model
        jobs = list(stage.due())
        assert jobs == [DiagramJob(run, model, place) for place in (0, 1) for run in session.run_ids]
        assert [str(job) for job in jobs[:2]] == ["the diagram of run 1", "the diagram of run 2"]
        assert {job.num_results for job in jobs} == {1}
        for job in jobs:
            (row,) = job.compute(bench(session)).diagrams
            vectors = contents.run_vectors(session.reader, job.run, model, "text")
            expected = diagram(vectors, max_dimension=job.setting)
            assert row.bars.keys() == set(range(job.setting + 1))
            for dimension, found in row.bars.items():
                np.testing.assert_allclose(found, expected.bars(dimension), atol=1e-6)
            assert sorted(row.generators) == ([0, 1] if job.setting else [])
            assert (row.num_points, row.settings_digest) == (
                4,
                session.plan.config.diagrams[job.setting].digest,
            )
            assert 0 <= row.duration_s < 60
            session.writer.add(Commit(diagrams=[row]))
        session.writer.flush()
        assert list(stage.due()) == []


@pytest.mark.parametrize(("dimension", "num_due"), [(4, 2), (5, 0)])
def test_a_run_shorter_than_a_window_has_no_diagram_due(tmp_path: Path, dimension: int, num_due: int) -> None:
    loops = {"prompts": states(2), "max_length": 8, "embeddings": [MODEL], **FRESH}
    with opened(tmp_path / "s", diagrams={"window": {"dimension": dimension}}, **loops) as session:
        perform(session, without="diagrams")
        assert len(list(made(DiagramStage, session).due())) == num_due


def test_a_run_of_one_vector_has_a_diagram_of_each_of_the_settings(tmp_path: Path) -> None:
    settings = [{"max_dimension": 0}, {"max_dimension": 0, "modality": "image"}]
    loops = {"prompts": states(1), "max_length": 2, "embeddings": [MODEL], **FRESH}
    with opened(tmp_path / "s", diagrams=settings, **loops) as session:
        perform(session, without="diagrams")
        jobs = list(made(DiagramStage, session).due())
        assert [job.setting for job in jobs] == [0, 1]


class Slowly(DiagramStage):
    """Nothing is due, and to know it takes a while."""

    takes_s = 0.0
    asked = 0

    def due(self) -> Iterator[DiagramJob]:
        self.asked += 1
        time.sleep(self.takes_s)
        yield from [DiagramJob(self.asked, 0, 0)]


def test_the_store_is_asked_now_and_then_and_always_if_thoroughly(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as session:
        stage = made(Slowly, session)
        found = []
        for thorough in (False, False, True, True, False):
            began = time.monotonic()
            found.append(stage.refill(thorough=thorough))
            ended = time.monotonic()
            if found[-1]:
                expect_lookup(stage, began, ended)
                stage._next_lookup_at += 1000.0  # until the next turn, however busy the machine is
        assert found == [1, 0, 1, 1, 0]
        assert stage.asked == 3
        stage._next_lookup_at, stage.takes_s = 0.0, 0.06
        began = time.monotonic()
        assert stage.refill(thorough=False) == 1
        expect_lookup(stage, began, time.monotonic())


def expect_lookup(stage: Slowly, began: float, ended: float) -> None:
    """The store is asked again after half a second, and in a twentieth of the time, at most."""
    earliest = began + stage.takes_s + max(0.5, 20 * stage.takes_s)
    assert earliest <= stage._next_lookup_at <= ended + max(0.5, 20 * (ended - began))


def test_that_the_first_process_compiles_is_told(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as session:
        stage = made(DiagramStage, session)
        assert stage.progress(Progress(message="busy")).message == "busy"
        assert stage.progress(Progress()).stages["diagrams"] == (0, 0)
        cast("Asked", stage._pool).is_preparing = True
        now = stage.progress(Progress(message="busy"))
        assert (now.message, now.stages["diagrams"]) == ("diagrams: preparing", (0, 0))


def test_networks_are_told_whose_longest_run_is_shorter_than_a_window(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A run of 10 steps has 5 texts in the first network and 10 in the last."""

    def told(*lengths: tuple[tuple[str, ...], int], **window: int) -> list[str]:
        runs = [NewRun(network=n, prompt=str(i), seed=1, max_length=m) for i, (n, m) in enumerate(lengths)]
        config = make_config(
            networks=[["draw", "chain"], ["walk"]], embeddings=[MODEL], seeds=[1], repeats=1,
            models={
                "draw": {"base": "synthetic/text-to-image"}, "chain": {"base": "synthetic/image-to-text"},
                "walk": {"base": "synthetic/random-walk"},
            },
            diagrams=[{"window": window} if window else {}], batch_sizes={},
        )  # fmt: skip
        caplog.clear()
        warn_of_short_runs(make_plan(config, "cpu", runs))
        return [text.partition(": no run")[0] for text in caplog.messages]

    pair, walk = ("draw", "chain"), ("walk",)
    outputs = "a run has {} text outputs, and a window of the diagrams spans {}"
    assert told((pair, 4)) == []
    assert told((pair, 4), (pair, 10), (walk, 4), (walk, 10), dimension=5) == []
    assert told((pair, 4), (pair, 10), (walk, 10), dimension=6) == [f"draw → chain: {outputs.format(5, 6)}"]
    assert told((pair, 20), (walk, 3), dimension=2, delay=9) == [f"walk: {outputs.format(3, 10)}"]


def test_distances_are_due_for_pairs_that_lack_them_in_some_dimension(tmp_path: Path) -> None:
    with opened(tmp_path / "s", prompts=states(3), **FRESH, **MEASURES) as session:
        (settings,) = session.plan.config.diagrams
        put_diagrams(session, [1, 0, 2], settings)  # the first run has the second row
        stage = made(DistanceStage, session)
        jobs = list(stage.due())
        found = [(job.diagram, job.others, job.measure, job.dimensions) for job in jobs]
        one, other = dict.fromkeys(job.measure for job in jobs)
        assert found == [(d, o, m, 2) for m in (one, other) for d, o in ((2, (1, 3)), (1, (3,)))]
        assert [job.num_results for job in jobs[:2]] == [4, 2]
        assert str(jobs[0]) == "the distances of diagram 2 to 2 others"

        rows = jobs[2].compute(bench(session)).distances
        first, second, third = (bars(number) for number in (0, 1, 2))
        expected = [
            NewDistance(1, 2, 0, other, wasserstein(first[0], second[0], order=2)),
            NewDistance(2, 3, 0, other, wasserstein(first[0], third[0], order=2)),
            NewDistance(1, 2, 1, other, wasserstein(first[1], second[1], order=2)),
            NewDistance(2, 3, 1, other, wasserstein(first[1], third[1], order=2)),
        ]
        assert [row[:4] for row in rows] == [row[:4] for row in expected]
        assert [row.distance for row in rows] == pytest.approx([row.distance for row in expected])
        (row, _) = jobs[1].compute(bench(session)).distances
        assert row.distance == pytest.approx(bottleneck(second[0], third[0]))
        session.writer.add(Commit(distances=rows))
        session.writer.flush()
        assert list(stage.due()) == [*jobs[:2], jobs[3]]


def test_pairs_of_one_diagram_are_parted_into_jobs(tmp_path: Path) -> None:
    """258 runs: the first has 257 others."""
    measures = MEASURES | {"distances": ["bottleneck"], "diagrams": {"max_dimension": 0}}
    with opened(tmp_path / "s", prompts=states(258), **FRESH, **measures) as session:
        (settings,) = session.plan.config.diagrams
        put_diagrams(session, range(258), settings)
        jobs: list[DistanceJob] = list(made(DistanceStage, session).due())
    assert [len(job.others) for job in jobs[:3]] == [256, 1, 256]
    assert (*jobs[0].others, *jobs[1].others) == tuple(range(2, 259))
    assert sum(job.num_results for job in jobs) == 258 * 257 // 2


def test_vectorisations_of_a_diagram_are_due_together(tmp_path: Path) -> None:
    with opened(tmp_path / "s", prompts=states(2), **FRESH, **MEASURES) as session:
        (settings,) = session.plan.config.diagrams
        put_diagrams(session, [0, 1], settings)
        stage = made(VectorisationStage, session)
        jobs: list[VectorisationJob] = list(stage.due())
        assert [(job.diagram, len(job.measures), job.dimensions) for job in jobs] == [(1, 2, 2), (2, 2, 2)]
        assert {job.num_results for job in jobs} == {4}
        assert str(jobs[1]) == "vectorisations of diagram 2"
        rows = jobs[1].compute(bench(session)).vectorisations
        (one, _), (other, _) = jobs[1].measures
        assert [(row.diagram, row.dimension, row.measure) for row in rows] == [
            (2, 0, one), (2, 0, other), (2, 1, one), (2, 1, other)
        ]  # fmt: skip
        for row in rows:
            given = bars(1)[row.dimension]
            how: dict[str, Any] = {"resolution": 9, "sample_range": (0, 2)}
            expected = entropy(given) if row.measure == one else landscape(given, **how)
            np.testing.assert_array_equal(row.vector, expected)
        session.writer.add(Commit(vectorisations=rows[1:]))
        session.writer.flush()
        (first, second) = stage.due()
        assert first == jobs[0]
        assert [measure for measure, _ in second.measures] == [one]
    without = MEASURES | {"vectorisations": []}
    with opened(tmp_path / "s", prompts=states(2), **FRESH, **without) as session:
        assert list(made(VectorisationStage, session).due()) == []


def test_a_run_without_outputs_of_a_modality_has_no_diagram_of_it(tmp_path: Path) -> None:
    """One step of it, an image; what it begins with is no point."""
    settings = [{"max_dimension": 0}, {"max_dimension": 0, "modality": "image"}]
    loops = {"prompts": states(2), "max_length": 1, "embeddings": [MODEL], **FRESH}
    with opened(tmp_path / "s", diagrams=settings, **loops) as session:
        perform(session, without="diagrams")
        assert {job.setting for job in made(DiagramStage, session).due()} == {1}
