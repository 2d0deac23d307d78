"""Diagrams and what is taken of them: every task answered once; what settings ask for is kept."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panic import run
from panic.config import DiagramSettings, ExperimentConfig
from panic.engine.pool import MAX_RETRIES, JobResult, Pool
from panic.engine.progress import Progress
from panic.engine.stages.diagrams import DiagramJob
from panic.engine.stages.vectorisations import VectorisationJob
from panic.store import Store, check, contents, reading
from panic.store.dump import dump as dump_lines
from panic.topology import bottleneck, diagram, entropy, landscape, sliding_window, wasserstein
from tests.engine.conftest import dump, make_config
from tests.engine.test_process_worker import children_of
from tests.patience import LONGEST_S


@pytest.fixture
def embedded(tmp_path: Path) -> tuple[Path, int]:
    """A store of 4 runs with vectors, and the embedding model's row."""
    run(make_config(max_length=6, embeddings=["synthetic/state-embedding"]), tmp_path / "s")
    with Store(tmp_path / "s") as store:
        return tmp_path / "s", reading.model(store, "synthetic/state-embedding").id


def runs_of(answers: list[JobResult]) -> list[int]:
    """The runs whose diagrams were computed, in the order of the answers."""
    return [row.run for answer in answers if answer.rows for row in answer.rows.diagrams]


def test_keys_of_settings_in_existing_stores_stay() -> None:
    """The key of diagrams in every store so far; a change would compute all of them again."""
    known = "764890bb50649f30fa7f4ad57f2df4cf"
    assert DiagramSettings().digest[:32] == known


@pytest.mark.slow
def test_every_task_is_answered_once_with_work_handed_out_ahead(embedded: tuple[Path, int]) -> None:
    path, model = embedded
    inbox: queue.SimpleQueue[JobResult] = queue.SimpleQueue()
    pool = Pool(path, [DiagramSettings()], inbox.put, num_workers=2)
    asked = [1, 2, 3, 4] * 15
    try:
        for number in asked:
            pool.submit(DiagramJob(number, model, 0), None)
        answers = [inbox.get(timeout=LONGEST_S) for _ in asked]
        assert sorted(runs_of(answers)) == sorted(asked)
        assert inbox.empty()
        assert len(children_of(os.getpid())) <= 2
    finally:
        pool.close()


def test_a_process_that_dies_costs_an_attempt_and_no_job(embedded: tuple[Path, int]) -> None:
    path, model = embedded
    inbox: queue.SimpleQueue[JobResult] = queue.SimpleQueue()
    pool = Pool(path, [DiagramSettings()], inbox.put, num_workers=1)
    try:
        pool.submit(DiagramJob(1, model, 0), "first")
        assert inbox.get(timeout=LONGEST_S).rows is not None
        (child,) = children_of(os.getpid())
        os.kill(child, signal.SIGSTOP)  # so that it certainly holds several
        for number in (1, 2, 3):
            pool.submit(DiagramJob(number, model, 0), number)
        os.kill(child, signal.SIGKILL)
        answers = [inbox.get(timeout=LONGEST_S) for _ in range(3)]
        assert runs_of(answers) == [2, 3, 1]  # the one that it was at comes last
        assert [answer.stage for answer in answers] == [2, 3, 1]
    finally:
        pool.close()


@dataclass(frozen=True)
class Deadly:
    """A job that ends the process that computes it, and leaves a file for every time."""

    folder: str
    num_results: int = 1
    name: str = "deaths"

    def compute(self, bench: Any) -> Any:
        (Path(self.folder) / str(time.monotonic_ns())).touch()
        os._exit(7)


@pytest.mark.slow
def test_a_job_that_ends_its_process_is_given_up_and_the_others_go_on(
    embedded: tuple[Path, int], tmp_path: Path
) -> None:
    path, model = embedded
    inbox: queue.SimpleQueue[JobResult] = queue.SimpleQueue()
    pool = Pool(path, [DiagramSettings()], inbox.put, num_workers=1)
    (tmp_path / "tries").mkdir()
    deadly = Deadly(str(tmp_path / "tries"))
    try:
        pool.submit(deadly, None)
        pool.submit(DiagramJob(1, model, 0), None)
        results = {result.job: result for result in (inbox.get(timeout=LONGEST_S) for _ in range(2))}
        assert results[deadly].rows is None
        assert "exit status 7" in results[deadly].problem
        assert len(list((tmp_path / "tries").iterdir())) == 1 + MAX_RETRIES
        assert results[DiagramJob(1, model, 0)].rows is not None
    finally:
        pool.close()


@pytest.mark.slow
def test_generators_are_stored_where_the_config_asks_for_them(tmp_path: Path) -> None:
    config = make_config(
        prompts=["state 0"],
        seeds=[42],
        repeats=1,
        embeddings=["synthetic/state-embedding"],
        diagrams={"max_dimension": 1, "generators": True},
    )
    run(config, tmp_path / "s")
    with Store(tmp_path / "s") as store:
        (row,) = reading.runs(store)
        found = contents.generators(store, row.id, "synthetic/state-embedding", 0)
        assert found is not None
        assert found.shape == (len(contents.bars(store, row.id, "synthetic/state-embedding", 0)), 3)


MEASURES: dict[str, Any] = {
    "vectorisations": ["entropy", {"kind": "landscape", "range": [0, 2], "resolution": 9}],
    "distances": ["bottleneck", {"kind": "wasserstein", "order": 2, "internal_p": "inf"}],
}


def measured(**changes: Any) -> ExperimentConfig:
    """Runs of fresh noise with diagrams of several points."""
    return make_config(
        chain={"kernel": "dirichlet", "epsilon": 0.5},
        seeds=[-1],
        embeddings=["synthetic/state-embedding"],
        diagram_workers=1,
        **{"repeats": 3, "max_length": 16, "diagrams": {"max_dimension": 1}} | changes,
    )


def test_vectorisations_and_distances_are_those_of_the_stored_diagrams(tmp_path: Path) -> None:
    run(measured(**MEASURES), tmp_path / "s")
    model = "synthetic/state-embedding"
    with Store(tmp_path / "s") as store:
        runs = [row.id for row in reading.runs(store)]
        for dimension in (0, 1):
            bars = [contents.bars(store, number, model, dimension) for number in runs]
            entropies = contents.vectorisations(store, "test", model, dimension=dimension, kind="entropy")
            assert (entropies.runs, entropies.values.tolist()) == (runs, [entropy(b) for b in bars])
            tents = contents.vectorisations(
                store, "test", model, dimension=dimension, kind="landscape"
            ).values
            assert tents.shape == (len(runs), 5, 9)
            np.testing.assert_array_equal(tents[2], landscape(bars[2], resolution=9, sample_range=(0, 2)))
            for kind, distance in (("bottleneck", bottleneck), ("wasserstein", wasserstein)):
                found = contents.distances(store, "test", model, dimension=dimension, kind=kind)
                how = {"order": 2, "internal_p": np.inf} if kind == "wasserstein" else {}
                want = [[distance(a, b, **how) for b in bars] for a in bars]
                assert found.runs == runs
                np.testing.assert_allclose(found.matrix, want, atol=1e-12)
        counts = reading.counts(store)
        assert (counts.vectorisations, counts.distances) == (6 * 2 * 2, 15 * 2 * 2)
        assert len({tuple(map(tuple, contents.bars(store, number, model, 0))) for number in runs}) > 1
        assert check.check(store) == []


def test_measures_that_come_later_join_the_experiment_and_those_there_are_kept(tmp_path: Path) -> None:
    run(measured(vectorisations=["entropy"]), tmp_path / "s")
    with Store(tmp_path / "s", write=True) as store:
        store.db.execute("UPDATE vectorisation SET rowid = rowid + 1000")
    last: list[Progress] = []
    run(measured(repeats=4, **MEASURES), tmp_path / "s", on_progress=last.append)
    with Store(tmp_path / "s") as store:
        assert len(reading.experiments(store)) == 1
        counts = reading.counts(store)
        assert (counts.runs, counts.vectorisations, counts.distances) == (8, 8 * 2 * 2, 28 * 2 * 2)
        assert store.db.value("SELECT count(*) FROM vectorisation WHERE rowid > 1000") >= 12
    shown = last[-1]
    assert shown.stages["vectorisations"] == (32, 32)
    assert shown.stages["distances"] == (112, 112)


def test_what_a_killed_stage_lacks_is_computed_and_nothing_else(tmp_path: Path) -> None:
    config = measured(repeats=4, **MEASURES)
    run(config, tmp_path / "s")
    whole = dump(tmp_path / "s")
    with Store(tmp_path / "s", write=True) as store:
        store.db.execute("DELETE FROM vectorisation WHERE (diagram + dimension) % 2")
        store.db.execute("DELETE FROM distance WHERE (a + b + dimension + measure) % 3 = 0 AND b <> 2")
        store.db.execute("DELETE FROM distance WHERE b = 5")
    run(config, tmp_path / "s")
    assert dump(tmp_path / "s") == whole


def test_windows_and_landmarks_are_settings_of_the_stage(tmp_path: Path) -> None:
    settings = {"window": {"dimension": 2, "delay": 2}, "landmarks": 4, "metric": "chordal", "threshold": 1.5}
    run(measured(max_length=40, diagrams=settings), tmp_path / "s")
    with Store(tmp_path / "s") as store:
        model = reading.model(store, "synthetic/state-embedding").id
        for row in contents.diagrams(store):
            vectors = contents.run_vectors(store, row.run, model, "text")
            windows = sliding_window(vectors, 2, 2)
            want = diagram(windows, metric="chordal", landmarks=4, threshold=1.5)
            assert (row.num_points, row.num_unique, row.error) == (20, 4, want.error)
            assert want.error > 0
            for k in (0, 1):
                np.testing.assert_array_equal(contents.bars(store, row.run, model, k), want.bars(k))
            assert row.settings == settings | {"max_dimension": 1, "modality": "text", "generators": False}
        errors = [line["error"] for line in dump_lines(store) if line["kind"] == "diagram"]
        assert len(errors) == 2 * 6


@pytest.mark.parametrize(
    ("chain", "window"), [({"kernel": "column"}, {"dimension": 6}), ({}, {"dimension": 2, "delay": 8})]
)
def test_a_run_shorter_than_a_window_has_no_diagram(
    tmp_path: Path, chain: dict[str, str], window: dict[str, int]
) -> None:
    """The first run gets stuck after 1 text, or 7; that is no failure of the experiment."""
    config = make_config(
        chain=chain, seeds=[42, -1], repeats=1, prompts=["state 0"], max_length=30,
        embeddings=["synthetic/state-embedding"], diagrams={"window": window},
        distances=["bottleneck"], diagram_workers=1,
    )  # fmt: skip
    assert run(config, tmp_path / "s").state == "complete"
    with Store(tmp_path / "s") as store:
        (stuck, fresh) = reading.runs(store)
        assert (stuck.state, fresh.state) == ("stuck", "done")
        assert [row.run for row in contents.diagrams(store)] == [fresh.id]


def test_networks_whose_runs_are_shorter_than_a_window_are_told(tmp_path: Path, caplog) -> None:
    config = make_config(
        seeds=[-1], repeats=1, prompts=["state 0"], max_length=11, embeddings=["synthetic/state-embedding"],
        diagrams={"window": {"dimension": 6}}, diagram_workers=1,
    )  # fmt: skip
    assert run(config, tmp_path / "s").state == "complete"
    assert "a run has 5 text outputs, and a window of the diagrams spans 6" in caplog.text
    caplog.clear()
    run(config.model_copy(update={"max_length": 12}), tmp_path / "s")
    assert "spans" not in caplog.text
    with Store(tmp_path / "s") as store:
        assert [row.num_points for row in contents.diagrams(store)] == [6]


def test_a_task_that_fails_is_told_with_its_reason_and_the_next_goes_on(embedded: tuple[Path, int]) -> None:
    path, model = embedded
    inbox: queue.SimpleQueue[JobResult] = queue.SimpleQueue()
    pool = Pool(path, [DiagramSettings(landmarks=1, metric="cosine")], inbox.put, num_workers=1)
    try:
        pool.submit(DiagramJob(1, model, 0), None)
        pool.submit(DiagramJob(2, model, 0), None)
        pool.submit(VectorisationJob(1, (), 2), None)
        failed = [inbox.get(timeout=LONGEST_S) for _ in range(2)]
        assert all("landmarks need a metric" in answer.problem for answer in failed)
        assert inbox.get(timeout=LONGEST_S).rows is not None
    finally:
        pool.close()


def test_beyond_its_share_an_allocation_fails_and_nobody_is_killed() -> None:
    code = (
        "import numpy as np\n"
        "from panic.engine.pool import limit_memory\n"
        "limit_memory(50 * 2**20)\n"
        "np.ones(2 * 2**20)\n"
        "try:\n    np.ones(20 * 2**20)\nexcept MemoryError:\n    print('refused')\n"
    )
    if sys.platform != "linux":
        pytest.skip("the limit is Linux's")
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LONGEST_S)
    assert (done.stdout.strip(), done.returncode) == ("refused", 0), (done.stderr, time.monotonic() - began)
