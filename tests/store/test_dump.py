"""The dump is the content and nothing but the content."""

import hashlib
import json
import math

import numpy as np
import pytest

from panic.store import Commit, NewDiagram, NewRun, Store, dump, reading, writing
from panic.store.codec import image_digest
from panic.store.records import NewDistance, NewVectorisation
from panic.store.tombstones import hide
from tests.store.sample import SETTINGS, fill, picture


@pytest.fixture
def lines(folder, sample):
    with Store(folder) as store:
        return list(dump.dump(store))


def test_the_same_content_gives_the_same_lines(lines, tmp_path):
    with Store(tmp_path / "other", write=True, create=True) as store:
        other = fill(store, shuffled=True)
        assert other.alpha == 2  # row numbers do differ
        assert list(dump.dump(store)) == lines


def test_lines_are_json_and_say_everything(lines):
    assert [json.loads(json.dumps(line, allow_nan=False)) for line in lines] == lines
    kinds = [line["kind"] for line in lines]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "experiment": 2,
        "run": 5,
        "invocation": 11,
        "stuck": 1,
        "failure": 1,
        "diagram": 2,
        "output": 10,
        "embedding": 4,
    }
    outputs = {line["digest"]: line for line in lines if line["kind"] == "output"}
    drawn = image_digest(picture(1)).hex()
    assert outputs[drawn] == {"kind": "output", "digest": drawn, "modality": "image", "pixels": drawn}
    (diagram, empty) = (line for line in lines if line["kind"] == "diagram")
    assert (diagram["bars"], empty["bars"]) == ([[0.0, 0.5], [0.0, None]], [])
    forbidden = {"id", "uid", "created_at", "started_at", "batch", "session", "attempts", "duration_s"}
    assert not forbidden & {key for line in lines for key in line}


def test_one_experiment_has_only_its_lines(folder, sample, lines):
    with Store(folder) as store:
        alpha, beta = list(dump.dump(store, "alpha")), list(dump.dump(store, "beta"))
    assert sum(line["kind"] == "run" for line in beta) == 1
    assert {json.dumps(line) for line in alpha + beta} == {json.dumps(line) for line in lines}
    assert [line for line in lines if line in beta] == beta


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE stuck SET period = 4",
        "UPDATE invocation SET seed = 43 WHERE step = 3",
        "UPDATE embedding SET vector = zeroblob(12) WHERE rowid = 2",
        "UPDATE diagram_bars SET bars = zeroblob(32) WHERE dimension = 0",
        "UPDATE failure SET kind = 'exception'",
        "UPDATE output SET text = 'other' WHERE text = 'd'",
        "UPDATE experiment SET name = 'other' WHERE name = 'beta'",
        "UPDATE run SET max_length = 100 WHERE seed = 7",
        "UPDATE model SET fingerprint = 'other' WHERE name = 'embed'",
    ],
)
def test_other_content_gives_other_lines(folder, sample, lines, sql):
    with Store(folder, write=True) as store:
        store.db.execute(sql)
        assert list(dump.dump(store)) != lines


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE session SET started_at = 0, pid = 1",
        "UPDATE experiment SET uid = printf('%032d', id), created_at = 0",
        "UPDATE failure SET attempts = 9, failed_at = 0, message = 'other'",
        "UPDATE batch SET device = 'cuda:1', duration_s = 9",
    ],
)
def test_circumstances_are_not_content(folder, sample, lines, sql):
    with Store(folder, write=True) as store:
        store.db.execute(sql)
        assert list(dump.dump(store)) == lines


def test_a_dump_is_of_one_moment(folder, sample, lines):
    with Store(folder, write=True) as writer, Store(folder) as store:
        then = dump.dump(store)
        first = next(then)
        writer.db.execute("UPDATE stuck SET period = 4")
        assert [first, *then] == lines
        assert list(dump.dump(store)) != lines


def diagram_of(run, model, *, last, settings=SETTINGS, error=0.0):
    digest = json.dumps(settings)
    return NewDiagram(
        run=run, model=model, settings=settings, settings_digest=digest, num_points=2, num_unique=1,
        bars={0: np.array([[0.0, last]])}, error=error,
    )  # fmt: skip


@pytest.fixture
def measured(folder, sample):
    """Of two runs diagrams under two models and two settings, two measures of each, and distances."""
    with Store(folder, write=True) as store:
        store.db.execute("DELETE FROM diagram")
        other = writing.add_model(store, "embed2", "fingerprint of another", {})
        measures = [writing.add_measure(store, {"kind": kind}) for kind in ("b", "a")]
        runs = (sample.noisy, sample.stuck)
        made = [
            diagram_of(run, model, settings={"metric": metric}, last=float(run), error=0.5 * (model == other))
            for run in runs
            for model in (sample.embed, other)
            for metric in ("y", "x")
        ]
        writing.commit(store, Commit(diagrams=made))
        numbers = {
            (run, model, metric): number
            for number, run, model, metric in store.db.rows(
                "SELECT id, run, model, settings ->> 'metric' FROM diagram"
            )
        }
        taken = [
            NewVectorisation(diagram=number, dimension=0, measure=measure, vector=np.array([number, measure]))
            for number in numbers.values()
            for measure in measures
        ]
        pairs = [
            (min(pair), max(pair))
            for model in (sample.embed, other)
            for metric in ("x", "y")
            for pair in [[numbers[run, model, metric] for run in runs]]
        ]
        away = [NewDistance(*pair, 0, measure, float(pair[0])) for pair in pairs for measure in measures]
        away.append(NewDistance(1, 2, 0, measures[0], math.inf))
        writing.commit(store, Commit(vectorisations=taken, distances=away))
        yield store, numbers, measures, other


def test_what_is_taken_of_diagrams_is_told_of_each_in_one_order(measured, sample):
    store, numbers, measures, other = measured
    lines = list(dump.dump(store, "alpha"))
    keys = {line["seed"]: line["run"] for line in lines if line["kind"] == "run" and line["prompt"] == "a"}
    models = {sample.embed: "fingerprint of embed", other: "fingerprint of another"}
    order = [(model, metric) for model in (other, sample.embed) for metric in ("x", "y")]
    by_digest = sorted(
        measures, key=lambda one: store.db.value("SELECT digest FROM measure WHERE id = ?", one)
    )
    of = dict(store.db.rows("SELECT id, settings ->> 'kind' FROM measure"))
    for run, seed in ((sample.noisy, -1), (sample.stuck, 42)):
        told = [line for line in lines if line["kind"] == "diagram" and line["run"] == keys[seed]]
        assert [
            (line["model"], line["settings"]["metric"], line["bars"], line.get("error")) for line in told
        ] == [
            (models[model], metric, [[0.0, run]], 0.5 if model == other else None) for model, metric in order
        ]
        told = [line for line in lines if line["kind"] == "vectorisation" and line["run"] == keys[seed]]
        assert [
            (line["model"], line["settings"]["metric"], line["measure"]["kind"], line["values"])
            for line in told
        ] == [
            (models[model], metric, of[measure], [numbers[run, model, metric], measure])
            for model, metric in order
            for measure in by_digest
        ]
    told = [line for line in lines if line["kind"] == "distance"]
    first, second = sorted(keys.values())
    between = [line for line in told if line["run"] != line["other"]]
    assert [(line["run"], line["other"]) for line in between] == [(first, second)] * 8
    assert [(line["model"], line["settings"]["metric"], line["measure"]["kind"]) for line in between] == [
        (models[model], metric, kind) for model, metric in order for kind in ("a", "b")
    ]
    assert [line["distance"] for line in between] == [
        min(numbers[run, model, metric] for run in (sample.noisy, sample.stuck))
        for model, metric in order
        for _ in measures
    ]
    [within] = [line for line in told if line["run"] == line["other"]]
    assert within["distance"] is None  # JSON knows no infinity


def test_generators_and_errors_are_told_where_there_are_some(folder, sample):
    with Store(folder, write=True) as store:
        [line, empty] = [line for line in dump.dump(store) if line["kind"] == "diagram"]
        stored = store.db.value("SELECT generators FROM diagram_bars WHERE dimension = 0")
    assert line["generators_sha256"] == hashlib.sha256(stored).hexdigest()
    assert empty["generators_sha256"] is None
    assert "error" not in line


def test_a_repeated_run_and_a_failure_are_those_of_their_run(folder, sample):
    with Store(folder, write=True) as store:
        with store.transaction() as connection:
            connection.execute("INSERT INTO repeated VALUES (?, 0, 2, 5)", (sample.shared,))
            connection.execute("INSERT INTO repeated VALUES (?, 1, 3, 4)", (sample.noisy,))
            connection.execute("INSERT INTO stuck VALUES (?, 7, 8)", (sample.noisy,))
            connection.execute("INSERT INTO failure SELECT ?, 9, 'timeout', '', '', 1, 1.0", (sample.shared,))
        lines = list(dump.dump(store))
    keys = {(line["prompt"], line["seed"]): line["run"] for line in lines if line["kind"] == "run"}
    told = [{**line, "run": [name for name, key in keys.items() if key == line["run"]]}
            for line in lines if line["kind"] in ("stuck", "repeated", "failure")]  # fmt: skip
    assert told == [
        {"kind": "stuck", "run": [("a", -1)], "entry_step": 7, "period": 8},
        {"kind": "repeated", "run": [("a", -1)], "entry_step": 1, "period": 3, "times": 4},
        {"kind": "stuck", "run": [("a", 42)], "entry_step": 2, "period": 2},
        {"kind": "failure", "run": [("z", 42)], "step": 1, "failure": "empty text"},
        {"kind": "repeated", "run": [("a", 7)], "entry_step": 0, "period": 2, "times": 5},
        {"kind": "failure", "run": [("a", 7)], "step": 9, "failure": "timeout"},
    ]


def test_runs_come_by_network_prompt_seed_repeat_and_arm_with_the_baseline_first(folder, sample):
    with Store(folder, write=True) as store:
        wanted = [
            NewRun(network=network, prompt=prompt, seed=seed, repeat=repeat, max_length=1, arm=arm)
            for arm in ("z", "a", "baseline")
            for repeat in (1, 0)
            for seed in (5, -1)
            for prompt in ("q", "p")
            for network in (("tell",), ("draw",))
        ]
        writing.add_runs(store, writing.start_experiment(store, "new", {}), wanted)
        hide(store, reading.experiment(store, "alpha"), "me")
        names = [line["name"] for line in dump.dump(store) if line["kind"] == "experiment"]
        told = [line for line in dump.dump(store, "new") if line["kind"] == "run"]
        outputs = {line.get("text") for line in dump.dump(store) if line["kind"] == "output"}
        vectors = [line for line in dump.dump(store, "new") if line["kind"] == "embedding"]
    assert names == ["beta", "new"]
    assert vectors == []
    assert outputs - {None} == {"a", "d", "p", "q"}
    assert [
        (*line["network"], line["prompt"], line["seed"], line["repeat"], line.get("arm")) for line in told
    ] == [
        (network, prompt, seed, repeat, arm)
        for network in ("draw", "tell")
        for prompt in ("p", "q")
        for seed in (-1, 5)
        for repeat in (0, 1)
        for arm in (None, "a", "z")
    ]
