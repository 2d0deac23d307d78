"""What a store knows of runs and how it counts them."""

import numpy as np
import pytest

from panic.errors import NotFound, StoreCorrupt
from panic.store import (
    Commit,
    NewDiagram,
    NewFailure,
    NewInvocation,
    NewRun,
    Store,
    reading,
    trainings,
    writing,
)
from panic.store.codec import text_digest
from panic.store.records import NewBatch, NewDistance, NewOutput, NewVectorisation
from panic.store.stuck import Stuck
from tests.store.effort import counted
from tests.store.sample import NETWORK, SETTINGS, entry, steps


def test_runs_and_where_they_stand(store, sample):
    runs = {run.id: run for run in reading.runs(store, "alpha")}
    assert [runs[id].state for id in (sample.stuck, sample.noisy, sample.failed, sample.untouched)] == [
        "stuck",
        "done",
        "failed",
        "todo",
    ]
    stuck, failed = runs[sample.stuck], runs[sample.failed]
    assert (stuck.network, stuck.prompt, stuck.seed, stuck.max_length) == (NETWORK, "a", 42, 6)
    assert (stuck.num_steps, stuck.entry_step, stuck.period, stuck.failure) == (4, 2, 2, None)
    assert (failed.failure.kind, failed.failure.step, failed.failure.attempts) == ("empty text", 1, 3)
    assert len(reading.runs(store)) == 5
    assert [run.id for run in reading.runs(store, sample.beta)] == [sample.shared]


def test_counts(store):
    alpha, everything = reading.counts(store, "alpha"), reading.counts(store)
    assert (alpha.runs, alpha.todo, alpha.running, alpha.done, alpha.stuck, alpha.failed) == (
        4,
        1,
        0,
        1,
        1,
        1,
    )
    assert (alpha.invocations, alpha.embeddings, alpha.diagrams) == (9, 3, 1)
    assert (everything.runs, everything.invocations, everything.embeddings) == (5, 11, 4)


def test_time_per_model(store):
    times = {row.model: row for row in reading.model_times(store, "alpha")}
    assert (times["draw"].batches, times["draw"].items, times["draw"].duration_s) == (5, 5, 1.25)
    assert {row.model: row.items for row in reading.model_times(store)}["embed"] == 4


def test_a_thousand_runs_are_listed_quickly(folder):
    with Store(folder, write=True, create=True) as store:
        model = writing.add_model(store, "draw", "f", {})
        experiment = writing.start_experiment(store, "big", {})
        session = writing.start_session(store, experiment, "x", {})
        runs = writing.add_runs(
            store,
            experiment,
            [NewRun(network=NETWORK, prompt=f"p{i}", seed=-1, max_length=50) for i in range(1000)],
        )
        text = NewOutput(digest=text_digest("t"), modality="text", text="t")
        call = NewBatch(
            id=writing.next_batch_id(store),
            session=session,
            model=model,
            epoch=0,
            device="cpu",
            size=1,
            padded_size=1,
            started_at=0.0,
            duration_s=0.0,
        )
        invocations = [
            NewInvocation(run, step, text.digest, text.digest, 0, call.id)
            for run in runs
            for step in range(50)
        ]
        writing.commit(store, Commit(batches=[call], outputs=[text], invocations=invocations))
    with Store(folder) as store, counted(store) as thousands:
        assert reading.counts(store, "big").invocations == 50_000
        assert {run.state for run in reading.runs(store, "big")} == {"done"}
    assert 100 < len(thousands) < 2000  # about 1,060


def test_a_state_is_told_by_what_the_run_has(writer, sample):
    def add(prompt, max_length=2):
        run = NewRun(network=NETWORK, prompt=prompt, seed=-1, max_length=max_length)
        return writing.add_runs(writer, sample.beta, [run])[0]

    session = writing.start_session(writer, sample.beta, "x", {})
    models = (sample.draw, sample.tell)
    runs = {name: add(name) for name in ("todo", "running", "done", "both")}
    for name, texts in (("running", ["x"]), ("done", ["x", "y"]), ("both", ["x", "y"])):
        writing.commit(writer, steps(writer, session, models, runs[name], name, texts, seed=1))
    failure = NewFailure(run=runs["both"], step=1, kind="lost", message="gone", detail="which")
    writing.commit(writer, Commit(failures=[failure]))
    states = {row.prompt: row.state for row in reading.runs(writer, "beta")}
    assert states == {"a": "done", "todo": "todo", "running": "running", "done": "done", "both": "failed"}
    counts = reading.counts(writer, "beta")
    assert (counts.runs, counts.todo, counts.running, counts.done, counts.failed) == (5, 1, 1, 2, 1)
    assert counts.invocations == 2 + 1 + 2 + 2
    told = next(row.failure for row in reading.runs(writer, "beta") if row.failure)
    assert (told.detail, told.message, told.attempts) == ("which", "gone", 1)


def test_counts_are_those_of_one_experiment(writer, sample):
    diagram = NewDiagram(
        run=sample.shared, model=sample.embed, settings=SETTINGS, settings_digest="settings", num_points=1,
        num_unique=1, bars={0: np.array([[0.0, 1.0]])},
    )  # fmt: skip
    writing.commit(writer, Commit(diagrams=[diagram]))
    measure = writing.add_measure(writer, {"kind": "entropy"})
    row = NewVectorisation(diagram=2, dimension=0, measure=measure, vector=np.ones(2))
    writing.commit(writer, Commit(vectorisations=[row]))
    alpha, beta = reading.counts(writer, "alpha"), reading.counts(writer, "beta")
    assert (alpha.embeddings, alpha.diagrams, alpha.vectorisations) == (3, 1, 0)  # a, b, c
    assert (beta.embeddings, beta.diagrams, beta.vectorisations) == (2, 1, 1)  # a, d
    assert reading.counts(writer).diagrams == 2


def test_epochs_sessions_and_times_are_those_of_one_experiment(writer, sample):
    writing.add_epoch(
        writer, sample.beta, "draw", model=sample.draw, batch_size=2, device_kind="sim", threads=3
    )
    assert {row.name: row.number for row in reading.epochs(writer, "alpha")} == {
        "draw": 0,
        "embed": 0,
        "tell": 0,
    }
    last = [row for row in reading.epochs(writer, "beta") if row.name == "draw"][-1]
    assert (last.experiment, last.number, last.batch_size) == (sample.beta, 1, 2)
    assert (last.device_kind, last.threads, last.model) == ("sim", 3, sample.draw)
    assert [row.command for row in reading.sessions(writer, "alpha")] == ["panic run alpha.yaml"]
    assert len(reading.sessions(writer)) == 2
    times = {row.model: row for row in reading.model_times(writer, "beta")}
    assert {name: (row.batches, row.items) for name, row in times.items()} == {
        "draw": (1, 1), "tell": (1, 1), "embed": (1, 4),
    }  # fmt: skip
    assert {row.model: row.batches for row in reading.model_times(writer)} == {
        "draw": 6,
        "tell": 5,
        "embed": 1,
    }


def test_models_are_found_by_row_fingerprint_and_name(writer, sample):
    newer = writing.add_model(writer, "draw", "another fingerprint", {"name": "draw", "steps": 2})
    assert reading.model(writer, "draw").id == newer, "of several with a name the newest"
    assert reading.model(writer, "fingerprint of draw").id == sample.draw
    assert reading.model(writer, sample.draw).name == "draw"
    assert [row.id for row in reading.models(writer)] == [sample.draw, sample.tell, sample.embed, newer]
    with pytest.raises(NotFound, match="No model 'tel'") as caught:
        reading.model(writer, "tel")
    assert caught.value.hint == "Did you mean tell?"
    with pytest.raises(NotFound) as caught:
        reading.model(writer, "zzzz")
    assert caught.value.hint == ""


def set_uids(store, **uids):
    for name, uid in uids.items():
        store.db.execute(f"UPDATE experiment SET uid = '{uid:0<32}' WHERE name = '{name}'")


def test_an_experiment_is_found_by_the_beginning_of_its_id(writer, sample):
    set_uids(writer, alpha="abcd1", beta="abcd2")
    assert reading.experiment(writer, "abcd1").name == "alpha"
    assert reading.experiment(writer, "abcd2000").name == "beta"
    assert reading.experiment(writer, sample.beta).name == "beta"
    with pytest.raises(NotFound, match=r"Several experiments in .* begin with 'abcd'") as caught:
        reading.experiment(writer, "abcd")
    uids = [row.uid for row in reading.experiments(writer)]
    assert caught.value.hint == f"They are: {uids[0]} (alpha), {uids[1]} (beta)."
    with pytest.raises(NotFound, match="No experiment 'abc' in") as caught:
        reading.experiment(writer, "abc")
    assert caught.value.hint == "The beginning of a uid has at least 4 characters."
    set_uids(writer, beta="12345")
    assert reading.experiment(writer, "abcd").name == "alpha"


def test_an_unknown_experiment_is_answered_with_the_nearest_or_the_last_ten(writer):
    def hint(name):
        with pytest.raises(NotFound) as caught:
            reading.experiment(writer, name)
        return caught.value.hint

    assert hint("alpah") == "Did you mean alpha?"
    assert hint("zzzz") == hint("\udcff\udcff") == "There are: alpha, beta."
    for number in range(11):
        writing.start_experiment(writer, f"more-{number}", {})
    assert hint("zzzz") == f"There are: {', '.join(f'more-{number}' for number in range(1, 11))}."
    set_uids(writer, **{f"more-{number}": f"ffff{number:02d}" for number in range(11)})
    assert hint("ffff").startswith(f"They are: ffff01{'0' * 26} (more-1), ")


def test_a_store_without_experiments_says_so(folder):
    with Store(folder, write=True, create=True) as store:
        assert reading.named(store, "alpha") is None
        for selector in ("latest", "alpha"):
            with pytest.raises(NotFound) as caught:
                reading.experiment(store, selector)
            assert caught.value.hint == "The store holds no experiments yet."
        row = writing.start_experiment(store, "alpha", {"name": "alpha"})
        writing.start_experiment(store, "beta", {})
        assert reading.experiment(store).name == "beta", "the newest, where nobody has worked on any"
        assert reading.named(store, "beta").name == "beta"
        found = reading.named(store, "alpha")
        assert (found.id, found.config) == (row, {"name": "alpha"})
        writing.start_session(store, row, "x", {})
        assert reading.experiment(store).name == "alpha"


def test_null_models_are_those_of_one_experiment(writer, sample):
    for name in ("alpha/null-order", "beta/null-order", "beta/null-loops"):
        writing.start_experiment(writer, name, {})
    found = {
        name: [row.name for row in reading.nulls(writer, name)] for name in ("alpha", "beta", "null-order")
    }
    assert found == {
        "alpha": ["alpha/null-order"],
        "beta": ["beta/null-order", "beta/null-loops"],
        "null-order": [],
    }


def test_a_run_is_stuck_where_its_state_came_back_and_not_otherwise(writer, sample):
    found = [reading.is_stuck(writer, run) for run in (sample.stuck, sample.noisy, sample.failed)]
    assert found == [Stuck(entry_step=2, period=2), None, None]
    with pytest.raises(NotFound, match="No run 999"):
        reading.is_stuck(writer, 999)


def test_earlier_failures_and_arms_are_those_of_one_run_and_one_experiment(writer, sample):
    config = {"name": "armed", "arms": {"shock": [{"at": 2, "text": "x"}]}}
    armed = writing.start_experiment(writer, "armed", config)
    with writer.transaction() as connection:
        for run, step in ((sample.noisy, 1), (sample.stuck, 2), (sample.stuck, 4)):
            values = (run, step, "error", "m", "d", 1, 0.0)
            connection.execute("INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    assert [row.step for row in reading.earlier_failures(writer, sample.stuck)] == [2, 4]
    assert reading.earlier_failures(writer, sample.failed) == []
    assert [list(reading.arms(writer, row)) for row in (sample.alpha, armed)] == [[], ["shock"]]


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("a", True),
        ("A-1.b_c", True),
        ("latest", False),
        ("-a", False),
        (".a", False),
        ("a/b", False),
        ("a/null-order", True),
        ("", False),
    ],
)
def test_names_are_parts_of_names_of_files(text, is_one):
    assert reading.is_name(text) is is_one


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("0" * 32, True), ("f" * 32, True), ("F" * 32, False), ("0" * 31, False), ("0" * 33, False)],
)
def test_ids_are_32_hexadecimal_digits(text, is_one):
    assert reading.is_uid(text) is is_one


def test_padding_is_told_by_places_and_by_its_share_of_the_time(writer, sample):
    """Seven of eight places are empty in the sample's batches of a quarter of a second."""
    times = {row.model: row for row in reading.model_times(writer, "beta")}
    assert (times["draw"].padding_items, times["draw"].padding_s) == (7, 0.25 * 7 / 8)
    assert (times["embed"].padding_items, times["embed"].padding_s) == (4, 0.25 * 4 / 8)
    (all_draw, *_) = reading.model_times(writer)
    assert (all_draw.padding_items, all_draw.padding_s) == (6 * 7, pytest.approx(6 * 0.25 * 7 / 8))


def test_a_session_is_told_with_its_config_and_what_it_spent_its_time_on(writer, sample):
    number = writing.start_session(writer, sample.alpha, "again", {"git": "x"}, {"name": "alpha"})
    first, second, third = reading.sessions(writer)
    assert (first.config, second.config, third.config) == (None, None, {"name": "alpha"})
    assert (third.id, third.provenance, third.end_state, third.ended_at) == (number, {"git": "x"}, None, None)
    assert reading.timelines(writer) == {}
    writing.end_session(writer, number, "done", [{"place": "driver", "seconds": 1.5}])
    told = {number: [{"place": "driver", "seconds": 1.5}]}
    assert reading.timelines(writer) == reading.timelines(writer, "alpha") == told
    assert reading.timelines(writer, "beta") == {}


def test_diagrams_distances_and_measures_are_counted_by_experiment(writer, sample):
    for run in (sample.noisy, sample.shared):
        diagram = NewDiagram(
            run=run, model=sample.embed, settings=SETTINGS, settings_digest="settings", num_points=1,
            num_unique=1, bars={0: np.array([[0.0, 1.0]])},
        )  # fmt: skip
        writing.commit(writer, Commit(diagrams=[diagram]))
    measure = writing.add_measure(writer, {"kind": "bottleneck"})
    writing.commit(writer, Commit(distances=[NewDistance(1, 2, 0, measure, 1.0)]))
    alpha, beta = reading.counts(writer, "alpha"), reading.counts(writer, "beta")
    assert (alpha.diagrams, alpha.distances, beta.diagrams, beta.distances) == (2, 1, 1, 0)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("uid", 32 * "/", f"an id that is none: '{32 * '/'}'"),
        ("name", "../x", "a name that is none: '../x'"),
    ],
)
def test_an_id_or_a_name_that_is_none_is_refused(writer, column, value, told):
    writer.db.execute(f"UPDATE experiment SET {column} = '{value}' WHERE name = 'beta'")
    with pytest.raises(StoreCorrupt) as caught:
        reading.experiments(writer)
    assert caught.value.message == f"{writer.path}: experiment 2 has {told}."
    assert caught.value.hint == "Do not trust this store."


def test_the_latest_is_one_of_those_that_count_and_no_null_model(writer, sample):
    assert reading.experiment(writer, among={sample.alpha}).name == "alpha"
    with pytest.raises(NotFound) as caught:
        reading.experiment(writer, "beta", among={sample.alpha})
    assert caught.value.hint == "There are: alpha."
    null = writing.start_experiment(writer, "alpha/null-order", {})
    writing.start_session(writer, null, "x", {})
    assert reading.experiment(writer).name == "beta"
    assert reading.experiment(writer, among={null}).name == "alpha/null-order"


def test_runs_of_these_rows_and_of_an_experiment(store, sample):
    rows = [sample.shared, sample.noisy]
    assert [row.id for row in reading.runs(store, only=rows)] == sorted(rows)
    assert [row.id for row in reading.runs(store, "alpha", only=rows)] == [sample.noisy]
    assert reading.runs(store, only=[]) == []


def test_a_run_is_repeatable_unless_a_model_of_its_own_experiment_is_not(writer, sample):
    asked = writing.add_model(writer, "asked", "over HTTP", {}, is_repeatable=False)
    config = {"arms": {"shock": [{"at": 1, "model": "asked"}]}}
    armed = writing.start_experiment(writer, "armed", config)
    for experiment in (armed, sample.alpha):
        writing.add_epoch(writer, experiment, "asked", model=asked, batch_size=1, device_kind="cpu")
    for experiment in (armed, sample.alpha, sample.beta):
        for network, arm in ((NETWORK, "shock"), (("asked", "tell"), "baseline")):
            run = NewRun(network=network, prompt="new", seed=-1, max_length=1, arm=arm)
            writing.add_runs(writer, experiment, [run])
    found = {
        (row.experiment, row.network[0], row.arm): row.is_repeatable
        for row in reading.runs(writer)
        if row.prompt == "new"
    }
    assert found == {
        (armed, "draw", "shock"): False,
        (armed, "asked", "baseline"): False,
        (sample.alpha, "draw", "shock"): True,
        (sample.alpha, "asked", "baseline"): False,
        (sample.beta, "draw", "shock"): True,
        (sample.beta, "asked", "baseline"): True,
    }
    assert [row.is_repeatable for row in reading.runs(writer, sample.beta)] == [True] * 3
    assert [row.is_repeatable for row in reading.runs(writer, armed)] == [False] * 2


def test_who_names_a_training_in_place_of_an_experiment_is_told(writer):
    trainings.keep(writer, entry("mine"))

    def hint(selector):
        with pytest.raises(NotFound) as raised:
            reading.experiment(writer, selector)
        return raised.value.hint

    assert hint("zzzz") == "There are: alpha, beta."
    assert hint("mine").startswith("A training is called so, or was: panic show,")
    assert hint("/somewhere/mine") == hint("mine")
    with pytest.raises(NotFound) as raised:
        reading.experiment(writer, "mine", among={1})
    assert raised.value.hint == "There are: alpha."
