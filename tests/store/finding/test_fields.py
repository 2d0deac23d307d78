"""Fields over a store in which nothing is there once only: what belongs to another row is not counted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panic.errors import NotFound, UsageError
from panic.store import Commit, NewDiagram, NewEmbedding, NewOutput, NewRun, Store, reading, writing
from panic.store.annotations import Target, annotate, list_annotations, run_target, run_uid
from panic.store.codec import text_digest
from panic.store.finding import queries
from panic.store.finding.fields import FIELDS, Asked, Fields, Metric
from panic.store.finding.fields import Target as Kind
from panic.store.finding.found import find
from panic.store.finding.narrowing import OF_EXPERIMENTS, only_experiments, only_runs
from panic.store.finding.queries import Query, config_paths, find_run, table
from panic.store.records import NewDistance, NewIntervention, NewRepeated, NewVectorisation
from panic.store.signing import Author
from panic.store.tombstones import hide, hide_runs
from panic.store.trainings import keep, list_trainings, mark_deleted
from tests.store.sample import SETTINGS, Sample, entry

ME = Author(name="me")


@pytest.fixture(scope="module")
def rich(filled: tuple[Path, Sample], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The sample with two diagrams, measures, an intervention, and an output that nobody has; to be read."""
    folder, sample = tmp_path_factory.mktemp("rich") / "store", filled[1]
    shutil.copytree(filled[0], folder)
    with Store(folder, write=True) as store:
        measures = [writing.add_measure(store, {"kind": kind}) for kind in ("entropy", "other")]
        for run in (sample.noisy, sample.shared):
            diagram = NewDiagram(
                run=run, model=sample.embed, settings=SETTINGS, settings_digest="settings", num_points=2,
                num_unique=1, bars={0: np.array([[0.0, 1.0]])},
            )  # fmt: skip
            writing.commit(store, Commit(diagrams=[diagram]))
        taken = [
            NewVectorisation(diagram=number, dimension=0, measure=measure, vector=np.ones(1))
            for number, measure in ((1, measures[0]), (1, measures[1]), (2, measures[0]), (3, measures[0]))
        ]
        commit = Commit(vectorisations=taken)
        commit.distances.append(NewDistance(1, 2, 0, measures[0], 1.0))
        for text in ("stepped in", "nobody's"):
            commit.outputs.append(NewOutput(digest=text_digest(text), modality="text", text=text))
        after, in_place = text_digest("c"), text_digest("stepped in")
        commit.interventions.append(NewIntervention(sample.noisy, 1, 0, "text", after, in_place, None, None))
        call = store.db.value("SELECT max(id) FROM batch")
        for digest in (in_place, text_digest("nobody's")):
            commit.embeddings.append(
                NewEmbedding(output=digest, model=sample.embed, batch=call, vector=np.ones(3))
            )
        writing.commit(store, commit)
        for name in ("one", "two"):
            keep(store, entry(name, loss=0.5 if name == "one" else None, measures={"accuracy": 0.25}))
        keep(store, entry("gone"))
        mark_deleted(store, [row for row in list_trainings(store) if row.name == "gone"], ME)
        one = list_trainings(store)[0]
        for kind, uid, text in (
            ("output", text_digest("b").hex(), "seen"),
            ("output", text_digest("c").hex(), "other"),
            ("training", one.uid, "good"),
        ):
            target = Target(kind=kind, uid=uid, name=uid)
            annotate(store, "tag", [(target, text)], ME)
            annotate(store, "label", [(target, f"{text} label")], ME)
            annotate(store, "comment", [(target, f"{text} comment")], ME)
        yield store


def told(store: Store, kind: Kind, columns: list[str], where: str | None = None, sort: str = "") -> list[Any]:
    return [tuple(row.values()) for row in find(store, where, of=kind, columns=columns, sort=sort)]


def test_what_an_experiment_has_is_counted_of_it_alone(rich: Store) -> None:
    names = ["name", "embeddings", "diagrams", "vectorisations", "distances", "runs", "invocations"]
    assert told(rich, "experiment", names) == [("alpha", 4, 2, 3, 1, 4, 9), ("beta", 2, 1, 1, 0, 1, 2)]


def test_where_outputs_came_up_is_told_of_them_alone(rich: Store) -> None:
    names = ["text", "experiment", "runs", "invocations", "tags", "label", "comments"]
    assert told(rich, "output", names, "modality = text", "text") == [
        ("a", ["alpha"], 1, 1, [], None, []),
        ("b", ["alpha"], 1, 2, ["seen"], "seen label", ["seen comment"]),
        ("c", ["alpha"], 1, 1, ["other"], "other label", ["other comment"]),
        ("d", ["beta"], 1, 1, [], None, []),
        ("stepped in", [], 0, 0, [], None, []),
        ("untouched", [], 0, 0, [], None, []),
        ("z", [], 0, 0, [], None, []),
    ]
    shared = told(rich, "output", ["experiment", "runs", "invocations"], "modality = image and runs > 1")
    assert [(sorted(names), runs, number) for names, runs, number in shared] == [(["alpha", "beta"], 3, 3)]
    assert told(rich, "output", ["width", "height"], "width = 8 and text is null and runs = 3") == [(8, 6)]
    assert told(rich, "output", ["text"], "'seen' in tags") == [("b",)]


def test_trainings_are_told_without_deleted_ones(rich: Store) -> None:
    names = ["name", "state", "loss", "measures.accuracy", "tags", "label", "command", "config.learning_rate"]
    assert told(rich, "training", names, sort="-name") == [
        ("two", "interrupted", None, 0.25, [], None, "panic train", 0.1),
        ("one", "interrupted", 0.5, 0.25, ["good"], "good label", "panic train", 0.1),
    ]
    assert told(rich, "training", ["name"], "good in tags or loss > 0.4") == [("one",)]
    with pytest.raises(UsageError, match="No training's last evaluation has this") as raised:
        told(rich, "training", ["measures.accurcy"])
    assert "Did you mean measures.accuracy?" in raised.value.hint
    assert set(config_paths(rich, of="training")) == {"config.learning_rate", "measures.accuracy"}


def test_runs_have_uids(rich: Store, filled: tuple[Path, Sample]) -> None:
    sample = filled[1]
    of = {row.id: run_uid("alpha", row) for row in reading.runs(rich, "alpha")}
    assert told(rich, "run", ["run", "uid"], "name = alpha") == list(of.items())
    assert told(rich, "run", ["run"], f"uid = '{of[sample.noisy]}'") == [(sample.noisy,)]


def test_every_field_can_be_a_column_a_key_and_a_condition(rich: Store) -> None:
    kinds: tuple[Kind, ...] = ("experiment", "run", "output", "training")
    for kind in kinds:
        own = [field.name for field in FIELDS if field.of == kind]
        for name in own:
            assert len(told(rich, kind, [name])) == len(told(rich, kind, [own[0]])) > 1
        for start in range(0, len(own), 20):
            assert told(rich, kind, own[start : start + 20], sort=",".join(own[start : start + 20]))
            some = own[start : start + 20]
            missing = " and ".join(f"({name} is null or {name} is not null)" for name in some)
            assert len(told(rich, kind, [own[0]], missing)) == len(told(rich, kind, [own[0]]))


def test_defaults_of_what_is_told(rich: Store) -> None:
    [alpha, beta] = find(rich)
    assert (alpha["name"], beta["runs"]) == ("alpha", 1)
    assert list(alpha) == ["name", "id", "state", "runs", "stuck", "failed", "invocations", "created"]
    assert [row["run"] for row in find(rich, "seed = 7", of="run")] == [
        row.id for row in reading.runs(rich, "beta")
    ]
    own = Fields([Metric(name="drift", of="experiment", about="how far", example="drift > 1")])
    rich.db.connection.execute("CREATE TEMP TABLE experiment_metric (experiment INTEGER PRIMARY KEY, drift)")
    rich.db.connection.execute("INSERT INTO temp.experiment_metric VALUES (1, 0.5)")
    assert find(rich, "drift > 0.4", columns=["name", "drift"], fields=own) == [
        {"name": "alpha", "drift": 0.5}
    ]
    rich.db.connection.execute("DROP TABLE temp.experiment_metric")


def test_metrics_are_worked_out_for_the_experiments_that_are_asked_about(
    rich: Store, filled: tuple[Path, Sample]
) -> None:
    sample = filled[1]
    told: list[Any] = []

    def show(store: Store, asked: Asked, ids: Any) -> None:
        told.append((asked.of_runs, asked.of_experiments, None if ids is None else sorted(ids)))

    of: tuple[Kind, ...] = ("run", "experiment")
    metrics = [Metric(name=f"of_{one}s", of=one, about="x", example="x > 1") for one in of]
    fields = Fields(metrics, show)
    for one in of:
        rich.db.connection.execute(f"CREATE TEMP TABLE {one}_metric ({one} INTEGER PRIMARY KEY, of_{one}s)")
    table(rich, "run", [sample.noisy, sample.stuck], ["of_runs"], fields)
    table(rich, "run", [sample.shared], ["of_experiments"], fields)
    table(rich, "experiment", [sample.beta], ["of_experiments"], fields)
    queries.find(rich, Query(target="run", where="of_runs > 1"), fields)
    table(rich, "run", [sample.shared], ["run"], fields)
    for one in of:
        rich.db.connection.execute(f"DROP TABLE temp.{one}_metric")
    assert told == [
        (("of_runs",), (), [sample.alpha]),
        ((), ("of_experiments",), [sample.beta]),
        ((), ("of_experiments",), [sample.beta]),
        (("of_runs",), (), None),
    ]


# --- narrowing


def counted(store: Store) -> dict[str, int]:
    return {name: store.db.value(f"SELECT count(*) FROM {name}") for name in OF_EXPERIMENTS}


def test_of_a_narrowed_store_every_table_has_what_is_of_the_experiment(
    rich: Store, filled: tuple[Path, Sample]
) -> None:
    sample, every = filled[1], counted(rich)
    of = {}
    for name in ("alpha", "beta"):
        with only_experiments(rich, [getattr(sample, name)]):
            of[name] = counted(rich)
    nothing = dict.fromkeys(("answer", "spending", "attempt", "repeated", "deletion", "training"), 0)
    assert of["alpha"] == nothing | {
        "experiment": 1, "run": 4, "session": 1, "epoch": 3, "invocation": 9, "intervention": 1, "stuck": 1,
        "failure": 1, "batch": 10, "output": 10, "embedding": 4, "diagram": 2, "diagram_bars": 3,
        "vectorisation": 3, "distance": 1, "annotation": 6,
    }  # fmt: skip
    assert of["beta"] == nothing | {
        "experiment": 1, "run": 1, "session": 1, "epoch": 3, "invocation": 2, "intervention": 0, "stuck": 0,
        "failure": 0, "batch": 3, "output": 3, "embedding": 2, "diagram": 1, "diagram_bars": 1,
        "vectorisation": 1, "distance": 0, "annotation": 0,
    }  # fmt: skip
    assert counted(rich) == every
    assert not rich.db.rows("SELECT name FROM temp.sqlite_schema WHERE name IN ('chosen', 'run')")
    with only_runs(rich, [sample.noisy]):
        assert [row.id for row in reading.runs(rich)] == [sample.noisy]
        assert rich.db.value("SELECT count(*) FROM experiment") == 2
    with only_experiments(rich, [sample.alpha, sample.beta, sample.alpha]):
        assert [row.name for row in reading.experiments(rich)] == ["alpha", "beta"]


def test_what_is_named_by_the_content_of_a_row_is_narrowed_too(folder: Path, sample: Sample) -> None:
    """Trainings by what sessions say of their models, remarks on runs by what these are."""
    uids = {}
    with Store(folder, write=True) as store:
        for name in ("one", "two"):
            keep(store, entry(name))
            uids[name] = entry(name).uid
        for experiment, name in ((sample.alpha, "one"), (sample.beta, "two")):
            provenance = {"models": {"draw": {"training": uids[name]}, "tell": {}}}
            writing.start_session(store, experiment, "again", provenance)
        for run in reading.runs(store):
            name = "alpha" if run.experiment == sample.alpha else "beta"
            annotate(store, "comment", [(run_target(name, run), f"run {run.id}")], ME)
        call = store.db.value("SELECT min(id) FROM batch")
        with store.transaction() as connection:
            connection.execute("INSERT INTO answer (batch) VALUES (?)", (call,))
            connection.execute("INSERT INTO spending VALUES (1, ?, 1, 1)", (sample.draw,))
    with Store(folder) as store:
        for experiment, name, runs, asked in (
            (sample.alpha, "one", [1, 2, 3, 4], 1),
            (sample.beta, "two", [5], 0),
        ):
            with only_experiments(store, [experiment]):
                assert [row.name for row in list_trainings(store)] == [name]
                assert [row.text for row in list_annotations(store)] == [f"run {run}" for run in runs]
                assert counted(store)["answer"] == counted(store)["spending"] == asked


def test_of_what_was_deleted_no_remark_is_seen_whatever_else_has_its_prompt(
    folder: Path, sample: Sample
) -> None:
    """A remark on a run is told by all that the run is: by its experiment, and by its own prompt."""
    with Store(folder, write=True) as store:
        runs = {row.id: row for row in reading.runs(store)}
        alpha, beta = (reading.experiment(store, row) for row in ("alpha", "beta"))
        of_alpha = [runs[number] for number in (sample.stuck, sample.failed)]
        [like_alphas] = writing.add_runs(
            store, beta.id, [NewRun(network=of_alpha[0].network, prompt="a", seed=42, max_length=6)]
        )
        [gone] = [run for run in reading.runs(store, beta.id) if run.id == like_alphas]
        remarks = [(run_target("alpha", run), f"alpha, {run.prompt}") for run in of_alpha]
        annotate(store, "comment", [*remarks, (run_target("beta", gone), "beta, a")], ME)
        hide_runs(store, beta, [gone.id], "me")
        hide_runs(store, alpha, [sample.failed], "me")
    with Store(folder) as store:
        for chosen in ([sample.alpha], [sample.alpha, sample.beta]):
            with only_experiments(store, chosen):
                assert [row.text for row in list_annotations(store)] == ["alpha, a"]


# --- queries


def test_at_most_twenty_fields_are_sorted_by(rich: Store) -> None:
    keys = ["seed", "-repeat"] * 10
    assert len(told(rich, "run", ["run"], sort=",".join(keys))) == 5
    with pytest.raises(UsageError, match="At most 20 fields"):
        told(rich, "run", ["run"], sort=",".join([*keys, "run"]))
    assert told(rich, "run", ["run"], sort=" +run ") == told(rich, "run", ["run"])
    assert told(rich, "run", ["run"], sort="-run") == told(rich, "run", ["run"])[::-1]


def test_the_limit_of_a_question_is_none_of_what_is_asked_after_it(rich: Store) -> None:
    long = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) SELECT max(i) FROM n"
    )
    asked = Query(target="run", where="seed = 7", limit_s=0.0)
    assert len(queries.find(rich, asked, Fields())) == 1, "the clock is looked at now and then"
    assert rich.db.value(long) == 50_000


def test_runs_of_one_experiment_and_rows_in_the_order_that_is_asked_for(
    rich: Store, filled: tuple[Path, Sample]
) -> None:
    sample = filled[1]
    query = Query(target="run", experiment=sample.beta, where="seed > 0 or seed < 0")
    assert queries.find(rich, query, Fields()) == [sample.shared]
    ids = [sample.shared, 99, sample.stuck]
    assert table(rich, "run", ids, ["run", "name"], Fields()) == [
        (sample.shared, "beta"), (sample.stuck, "alpha")
    ]  # fmt: skip


def test_what_is_hidden_is_not_found(folder: Path, sample: Sample) -> None:
    with Store(folder, write=True) as store:
        hide(store, reading.experiment(store, "alpha"), "me")
        assert told(store, "experiment", ["name"]) == [("beta",)]
        assert told(store, "run", ["run"]) == [(sample.shared,)]
        assert told(store, "output", ["text"], "modality = text", "text") == [("a",), ("d",)]
        assert told(store, "output", ["runs"], "text = a") == [(0,)]


def test_a_run_is_named_by_its_number_or_the_beginning_of_its_uid(folder: Path, sample: Sample) -> None:
    with Store(folder, write=True) as store:
        alpha, beta = (reading.experiment(store, name) for name in ("alpha", "beta"))
        for run in reading.runs(store, "alpha"):
            uid = run_uid("alpha", run)
            for selector in (str(run.id), uid, uid[:4], uid[:5].upper()):
                assert find_run(store, alpha, selector).id == run.id
        uid = run_uid("beta", reading.runs(store, "beta")[0])
        for selector, hint in (
            (str(sample.shared), "Its runs are 1 to 4."), ("0", "Its runs are 1 to 4."),
            (uid, "Its runs are 1 to 4."),
            ("abc", "Its runs are 1 to 4. The beginning of a uid has at least 4 characters."),
        ):  # fmt: skip
            with pytest.raises(NotFound, match=f"alpha has no run {selector}") as raised:
                find_run(store, alpha, selector)
            assert raised.value.hint == hint
        with pytest.raises(NotFound) as raised:
            find_run(store, beta, "1")
        assert raised.value.hint == f"Its only run is {sample.shared}."
        empty = writing.start_experiment(store, "empty", {})
        with pytest.raises(NotFound) as raised:
            find_run(store, next(row for row in reading.experiments(store) if row.id == empty), "9999")
        assert raised.value.hint == "It has no runs."


def test_several_runs_that_begin_alike_are_named(
    folder: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "SHORTEST_UID", 1)
    with Store(folder, write=True) as store:
        row = reading.experiment(store, "beta")
        runs = [NewRun(network=("draw",), prompt="a", seed=-1, repeat=n, max_length=1) for n in range(300)]
        writing.add_runs(store, row.id, runs)
        uids = {run.id: run_uid("beta", run) for run in reading.runs(store, "beta")}
        alike = [(run, uid) for run, uid in uids.items() if uid.startswith("a")]
        assert len(alike) > 11
        with pytest.raises(NotFound, match="Several runs of beta begin with 'a'") as raised:
            find_run(store, row, "a")
        named = ", ".join(f"{uid} (run {run})" for run, uid in alike[:10])
        assert raised.value.hint == f"They are: {named}."


def test_the_last_session_is_that_of_the_experiment(folder: Path, sample: Sample) -> None:
    """Of alpha another one came since, of gamma none; beta's has not ended."""
    names = ["name", "command", "host", "ended"]
    with Store(folder, write=True) as store:
        writing.start_experiment(store, "gamma", {})
        last = writing.start_session(store, sample.alpha, "again", {})
        writing.end_session(store, last, "done")
        with store.transaction() as connection:
            connection.execute("UPDATE session SET host = 'node' || id, ended_at = 10.0 * id")
            connection.execute("UPDATE session SET ended_at = NULL, end_state = NULL WHERE id = 2")
            connection.execute("UPDATE session SET started_at = 100.0 - id")
        assert told(store, "experiment", names) == [
            ("alpha", "again", "node3", 30.0), ("beta", "panic run beta.yaml", "node2", None),
            ("gamma", None, None, None),
        ]  # fmt: skip
        assert told(store, "experiment", ["name", "started"]) == [
            ("alpha", 97.0), ("beta", 98.0), ("gamma", None)
        ]  # fmt: skip
        assert told(store, "experiment", ["name"], "host = node3 and command = again") == [("alpha",)]


def test_two_runs_are_named_as_two(folder: Path, sample: Sample) -> None:
    with Store(folder, write=True) as store:
        row = reading.experiment(store, "beta")
        [other] = writing.add_runs(store, row.id, [NewRun(network=("a",), prompt="a", seed=1, max_length=1)])
        with pytest.raises(NotFound) as raised:
            find_run(store, row, "abcd")
    assert raised.value.hint == f"Its runs are {sample.shared} to {other}."


# --- of several the one that is meant


def test_of_equal_values_the_first_row_comes_first_in_either_order(
    rich: Store, filled: tuple[Path, Sample]
) -> None:
    sample = filled[1]
    alike = [(sample.stuck,), (sample.noisy,), (sample.shared,)]
    assert told(rich, "run", ["run"], "prompt = a", "prompt") == alike
    assert told(rich, "run", ["run"], "prompt = a", "-prompt") == alike
    assert told(rich, "experiment", ["name"], None, "is_null") == [("alpha",), ("beta",)]
    assert told(rich, "experiment", ["name"], None, "-is_null") == [("alpha",), ("beta",)]


def test_a_tag_that_came_back_and_a_label_and_project_that_changed_are_the_last_ones(
    folder: Path, sample: Sample
) -> None:
    """Of experiments, runs and trainings, beside others on which something else was said last."""
    with Store(folder, write=True) as store:
        keep(store, entry("one", config={"project": "configured"}))
        keep(store, entry("two", config={"project": "configured"}))
        alpha, beta = (reading.experiment(store, name) for name in ("alpha", "beta"))
        with store.transaction() as connection:
            connection.execute("UPDATE experiment SET config = json_set(config, '$.project', 'configured')")
        run = next(row for row in reading.runs(store) if row.id == sample.noisy)
        one = Target(kind="training", uid=entry("one").uid, name="one")
        on = {
            "experiment": Target(kind="experiment", uid=alpha.uid, name="alpha"),
            "run": run_target("alpha", run),
            "training": one,
        }
        for target in on.values():
            for kind, text in (
                *(("tag", "back"), ("tag", "gone"), ("untag", "back"), ("untag", "gone"), ("tag", "back")),
                *(("label", "z first"), ("label", "a last"), ("project", "z"), ("project", "a")),
            ):
                annotate(store, kind, [(target, text)], ME)
        other = Target(kind="experiment", uid=beta.uid, name="beta")
        annotate(store, "tag", [(other, "gone")], ME)
        annotate(store, "label", [(other, "another")], ME)
        names = ["name", "tags", "label", "project"]
        assert told(store, "experiment", names) == [
            ("alpha", ["back"], "a last", "a"), ("beta", ["gone"], "another", "configured")
        ]  # fmt: skip
        assert told(store, "training", names, sort="name") == [
            ("one", ["back"], "a last", "a"), ("two", [], None, "configured")
        ]  # fmt: skip
        assert told(store, "experiment", ["name"], "project = configured") == [("beta",)]
        assert told(store, "run", ["run", "tags", "label"], f"run in ({sample.noisy}, {sample.shared})") == [
            (sample.noisy, ["back"], "a last"), (sample.shared, ["gone"], "another")
        ]  # fmt: skip
        annotate(store, "label", [(on["run"], "")], ME)
        assert told(store, "run", ["label"], f"run = {sample.noisy}") == [("a last",)], "its experiment's"


def test_labels_are_those_of_the_experiment_of_a_run(folder: Path, sample: Sample) -> None:
    """Both experiments have a prompt, and each says something else of it."""
    with Store(folder, write=True) as store:
        for name, group in (("alpha", "colour"), ("beta", "form")):
            labels = f'{{"a": {{"tags": ["of {name}"], "group": "{group}"}}}}'
            with store.transaction() as connection:
                connection.execute(
                    "UPDATE experiment SET config = json_set(config, '$.labels', json(?)) WHERE name = ?",
                    (labels, name),
                )
        assert told(store, "run", ["run", "group", "prompt_tags"], "prompt = a") == [
            (sample.stuck, "colour", ["of alpha"]), (sample.noisy, "colour", ["of alpha"]),
            (sample.shared, "form", ["of beta"]),
        ]  # fmt: skip
        assert told(store, "run", ["run"], "group = form") == [(sample.shared,)]
        assert told(store, "experiment", ["name"], "group = form") == [("beta",)]
        assert told(store, "experiment", ["name"], "'of alpha' in prompt_tags AND state != todo") == [
            ("alpha",)
        ]


@pytest.mark.parametrize("target", ["experiment", "run", "output", "training"])
def test_whatever_field_there_is_can_be_asked_for(rich: Store, target: Kind) -> None:
    """Also of experiments what is a field of their runs: whether one of those has it."""
    for name, field in Fields().known(target).items():
        where = f"'x' in {name}" if field.type == "texts" else f"{name} IS NULL"
        found = queries.find(rich, Query(target=target, where=f"{where} OR NOT {where}"), Fields())
        assert found or target == "training", name


def test_a_run_in_an_arm_has_its_own_uid_and_remarks(folder: Path, sample: Sample) -> None:
    with Store(folder, write=True) as store:
        like = next(row for row in reading.runs(store) if row.id == sample.shared)
        asked = NewRun(network=like.network, prompt=like.prompt, seed=like.seed, max_length=2, arm="shock")
        [shocked] = writing.add_runs(store, sample.beta, [asked])
        rows = {row.id: row for row in reading.runs(store, "beta")}
        assert told(store, "run", ["run", "uid"], "name = beta") == [
            (run, run_uid("beta", row)) for run, row in rows.items()
        ]
        annotate(store, "tag", [(run_target("beta", rows[shocked]), "shocked")], ME)
        assert told(store, "run", ["run"], "'shocked' in tags") == [(shocked,)]
        assert told(store, "run", ["run"], "arm != baseline") == [(shocked,)]
        with only_experiments(store, [sample.beta]):
            assert [row.text for row in list_annotations(store)] == ["shocked"]
        with only_experiments(store, [sample.alpha]):
            assert list_annotations(store) == []


def test_null_models_are_told_from_what_they_are_of(folder: Path, sample: Sample) -> None:
    with Store(folder, write=True) as store:
        for name in ("alpha/null-x", "x-null-y"):
            writing.start_experiment(store, name, {})
        assert told(store, "experiment", ["name"], "is_null = true") == [("alpha/null-x",)]
        assert told(store, "experiment", ["name"], "is_null = no") == [("alpha",), ("beta",), ("x-null-y",)]


def test_the_fields_of_configs_are_those_of_experiments_that_are_seen(folder: Path, sample: Sample) -> None:
    """Not of deleted ones, nor of null models, which nobody wrote; of trainings all tell."""
    with Store(folder, write=True) as store:
        for name in ("alpha/null-x", "gone", "there"):
            writing.start_experiment(store, name, {f"of_{name[-4:].strip('/-')}": 1})
        hide(store, reading.experiment(store, "gone"), "me")
        keep(store, entry("x/null-y", config={"of_training": 2}, measures={"accuracy": 0.5}))
        assert config_paths(store).keys() == {"config.name", "config.max_length", "config.of_here"}
        assert config_paths(store, of="training") == {
            "config.of_training": "2", "measures.accuracy": "0.5"
        }  # fmt: skip


def test_experiments_are_found_by_what_failed_and_what_was_ended(folder: Path, sample: Sample) -> None:
    with Store(folder, write=True) as store:
        ended = NewRepeated(run=sample.shared, entry_step=0, period=1, times=2)
        writing.commit(store, Commit(repeated=[ended]))
        assert told(store, "experiment", ["name"], "failure = 'empty text'") == [("alpha",)]
        assert told(store, "experiment", ["name"], "state = repeated") == [("beta",)]
        assert told(store, "experiment", ["name", "repeated", "done"]) == [("alpha", 0, 1), ("beta", 1, 0)]
        assert told(store, "run", ["run"], "state = repeated") == [(sample.shared,)]
        assert told(store, "run", ["period"], "state = repeated") == [(None,)], "a period is one for good"


def test_most_columns_of_a_table(rich: Store) -> None:
    assert len(table(rich, "run", [1], ["run"] * 200, Fields())[0]) == 200
    with pytest.raises(UsageError, match="At most 200 columns"):
        table(rich, "run", [1], ["run"] * 201, Fields())


def test_a_kept_table_of_metrics_is_asked_of_this_experiment_alone(rich: Store) -> None:
    """A metric of experiments is a field of their runs, each with its own."""
    own = Fields([Metric(name="drift", of="experiment", about="how far", example="drift > 1")])
    rich.db.connection.execute("CREATE TEMP TABLE experiment_metric (experiment INTEGER PRIMARY KEY, drift)")
    rich.db.connection.execute("INSERT INTO temp.experiment_metric VALUES (1, 0.5), (2, 0.25)")
    try:
        found = find(rich, "seed = 7 or seed = -1", of="run", columns=["name", "drift"], fields=own)
    finally:
        rich.db.connection.execute("DROP TABLE temp.experiment_metric")
    assert found == [{"name": "alpha", "drift": 0.5}, {"name": "beta", "drift": 0.25}]
