"""What does not come with a source, what does beside it, and what is told of both."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

from panic.store import (
    Commit,
    NewDiagram,
    NewEmbedding,
    NewFailure,
    NewRun,
    Store,
    indexing,
    reading,
    writing,
)
from panic.store.annotations import Target, annotate, list_annotations, run_target
from panic.store.codec import text_digest
from panic.store.merging import unfinished
from panic.store.merging.conflicts import sweep
from panic.store.merging.merge import merge
from panic.store.merging.walk import Walk
from panic.store.records import NewRepeated
from panic.store.signing import Author
from panic.store.tombstones import deleted, hide, hide_runs
from panic.store.trainings import keep, list_trainings, mark_deleted
from tests.engine.conftest import make_config
from tests.store.sample import Sample, batch, entry, output, remark
from tests.store.test_merge import interrupt
from tests.store.test_merge_orders import NEW, OLD, Runs, read, write
from tests.store.test_merge_tables import change

ME = Author(name="me")
OTHERWISE = {"state 0": ["state 1", "state 2", "state 4"]}
"""The run of OLD with another end."""
BESIDE = {"state 20": ["state 21", "state 22", "state 23"]}


def say(path: Path, *prompts: str) -> None:
    """Say of the runs from these prompts what they are."""
    with Store(path, write=True) as store:
        for run in reading.runs(store, "test"):
            if run.prompt in prompts:
                annotate(store, "comment", [(run_target("test", run), f"from {run.prompt}")], ME)


def said(path: Path) -> list[str]:
    """What is said of anything, once."""
    with Store(path) as store:
        return sorted({row.text for row in list_annotations(store)})


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_beside_a_run_that_was_refused_before_others_come(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Of the last source of three a run in conflict was begun, and all that was begun went with it."""
    for number, runs in enumerate((OLD, OTHERWISE | NEW, OTHERWISE | BESIDE)):
        write(tmp_path / str(number), runs)
    merge([tmp_path / str(number) for number in order], tmp_path / "into")
    assert read(tmp_path / "into") == NEW | BESIDE


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("first", [True, False])
def test_a_remark_goes_with_the_run_in_conflict_whatever_other_prompts_there_are(
    tmp_path: Path, order: tuple[int, int], first: bool
) -> None:
    for number, runs in enumerate((OLD, OTHERWISE)):
        write(tmp_path / str(number), runs | NEW if first else NEW | runs)
        say(tmp_path / str(number), "state 0", "state 5")
    assert len(merge([tmp_path / str(number) for number in order], tmp_path / "into").conflicts) == 1
    assert said(tmp_path / "into") == ["from state 5"]


def test_remarks_on_runs_that_come_come_though_others_of_their_names_do_not(tmp_path: Path) -> None:
    """An experiment that was deleted here and contradicts, and the one that has its name by now."""
    into, source = tmp_path / "into", tmp_path / "source"
    write(into, OLD)
    write(source, OLD)
    change(source, "UPDATE epoch SET threads = 9")
    for path in (into, source):
        with Store(path, write=True) as store:
            hide(store, reading.experiment(store, "test"), "me")
    write(source, OLD, uid="b" * 32)
    say(source, "state 0")
    assert len(merge([source], into).conflicts) == 1
    assert said(into) == ["from state 0"]
    with Store(into) as store:
        [run] = reading.runs(store, "test")
        assert list_annotations(store)[0].target == run_target("test", run).uid


def test_remarks_on_what_gets_no_others_stay_in_their_places(tmp_path: Path) -> None:
    for name in ("into", "source"):
        write(tmp_path / name, OLD)
    say(tmp_path / "into", "state 0")
    with Store(tmp_path / "source", write=True) as store:
        remark(store, "test", "another")
    with Store(tmp_path / "into") as store:
        [before] = store.db.rows("SELECT id, text FROM annotation")
    merge([tmp_path / "source"], tmp_path / "into")
    with Store(tmp_path / "into") as store:
        assert before in store.db.rows("SELECT id, text FROM annotation")
        assert [row.text for row in list_annotations(store)] == ["from state 0", "another"]


def test_vectors_are_compared_with_those_of_the_same_model(
    folder: Path, sample: Sample, tmp_path: Path
) -> None:
    """Two models give other vectors of one text, and both stores have both: nothing is in doubt."""
    with Store(folder, write=True) as store:
        model = writing.add_model(store, "other", "fingerprint of other", {})
        for experiment in (sample.alpha, sample.beta):
            writing.add_epoch(
                store, experiment, "other", model=model, batch_size=8, device_kind="cpu", threads=1
            )
        call = batch(store, 2, model)
        vectors = [
            NewEmbedding(output=text_digest(text), model=model, batch=call.id, vector=np.ones(2, np.float32))
            for text in "abcd"
        ]
        writing.commit(store, Commit(batches=[call], embeddings=vectors))
    merged = merge([folder, Path(shutil.copytree(folder, tmp_path / "other"))], tmp_path / "into")
    assert (merged.num_vectors, merged.num_diagrams) == (0, 0)
    with Store(tmp_path / "into") as store:
        assert store.db.value("SELECT count(*) FROM diagram") == 1
        assert store.db.value("SELECT count(*) FROM embedding") == 8


def test_a_state_is_of_the_shape_of_its_own_step(tmp_path: Path) -> None:
    """The run of the source goes on otherwise from "state 1", in another shape than its first batch has."""
    write(tmp_path / "0", OLD)
    write(tmp_path / "1", {"state 4": ["state 1", "state 5", "state 6"]})
    change(tmp_path / "1", "UPDATE batch SET padded_size = 9 WHERE id > 1")
    merged = merge([tmp_path / "0", tmp_path / "1"], tmp_path / "into")
    assert (merged.conflicts, merged.num_meeting) == ([], 0)
    assert len(read(tmp_path / "into")) == 2


def test_of_those_whom_a_run_meets_the_one_that_differs_is_named(tmp_path: Path) -> None:
    """Its first step is also one of the run from "state 0", and its last one another than that of BESIDE."""
    write(tmp_path / "into", OLD | BESIDE)
    write(tmp_path / "1", {"state 2": ["state 3", "state 20", "state 9"]})
    [told] = merge([tmp_path / "1"], tmp_path / "into").conflicts
    assert "it meets test: the run of m from 'state 20', seed 42, repeat 0, and goes on otherwise" in told


def test_a_merge_tells_of_runs_in_smaller_batches(folder: Path, sample: Sample, tmp_path: Path) -> None:
    assert merge([folder], tmp_path / "none").shrunk == []
    change(
        folder,
        "INSERT INTO epoch (experiment, name, number, model, batch_size, device_kind, opened_at, reason)"
        " SELECT experiment, name, 1, model, 4, device_kind, opened_at, 'memory' FROM epoch"
        f" WHERE experiment = {sample.alpha} AND name = 'draw'",
    )
    change(folder, "UPDATE batch SET epoch = 1 WHERE id = 1")
    [told] = merge([folder], tmp_path / "into").shrunk
    assert told.startswith("alpha: 1 runs have steps in smaller batches")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_config_is_the_union_of_what_was_asked_for(tmp_path: Path, order: tuple[int, int]) -> None:
    """In either order of the stores it has the prompts, seeds and longest length of both."""
    asked = ({"prompts": ["state 0", "state 1"], "max_length": 4}, {"prompts": ["state 2"], "seeds": [-1]})
    for number, changes in enumerate(asked):
        with Store(tmp_path / str(number), write=True, create=True) as store:
            config = make_config(**changes)
            writing.start_experiment(store, "test", config.model_dump(mode="json"))
    assert merge([tmp_path / str(number) for number in order], tmp_path / "into").conflicts == []
    with Store(tmp_path / "into") as store:
        [row] = reading.experiments(store)
    plain = make_config()
    assert sorted(row.config["prompts"]) == ["state 0", "state 1", "state 2"]
    assert row.config["max_length"] == max(4, plain.max_length)
    assert {*row.config["seeds"]} == {*plain.seeds, -1}


@pytest.mark.parametrize("begun", [["state 0", "state 9"], ["state 9", "state 0"]])
def test_what_other_runs_of_the_target_say_of_a_state_holds_against_theirs(
    tmp_path: Path, begun: list[str]
) -> None:
    """Two runs have the state; would the first of them give way, the target had two outputs of it."""
    into, source = tmp_path / "into", tmp_path / "source"
    write(into, dict.fromkeys(begun, OLD["state 0"]))
    write(source, dict.fromkeys(("state 0", "state 20"), OTHERWISE["state 0"]))
    merged = merge([source], into, keep="theirs")
    assert (merged.num_settled, merged.num_runs) == (0, 0)
    for told, run, other in zip(merged.conflicts, (0, 20), (9, min), strict=True):
        assert f"the run of m from 'state {run}', seed 42, repeat 0 in {source}: it meets" in told
        assert other == min or f"it meets test: the run of m from 'state {other}'" in told
    assert read(into) == dict.fromkeys(begun, OLD["state 0"])


FIRST: Runs = {"state 0": ["state 1", "state 2", "state 3"], "state 30": ["state 31", "state 0", "state 1"]}
"""The second run holds against another one from "state 0" that the first one is as it is."""
AGAINST = {"state 0": ["state 5", "state 7", "state 8"]}


def test_a_run_that_stays_holds_against_theirs_too(tmp_path: Path) -> None:
    """Beside the one in conflict only that from "state 0", which has to stay, says where "state 1" leads."""
    into, source = tmp_path / "into", tmp_path / "source"
    own = FIRST | {"state 10": ["state 11", "state 1", "state 2"]}
    write(into, own)
    write(source, AGAINST | {"state 10": ["state 11", "state 1", "state 4"]})
    merged = merge([source], into, keep="theirs")
    assert merged.num_settled == 0
    assert ["'state 30'" in told for told in merged.conflicts] == [True, False]
    assert "'state 10'" in merged.conflicts[1]
    assert read(into) == own


def test_a_run_that_stays_is_beyond_dispute_as_before(tmp_path: Path) -> None:
    """What came first agrees with it; what comes last differs from both, and is refused alone."""
    into, agrees = tmp_path / "into", {"state 20": FIRST["state 0"]}
    for name, runs in (
        ("into", FIRST),
        ("1", agrees),
        ("2", AGAINST | {"state 40": ["state 1", "state 9", "state 12"]}),
    ):
        write(tmp_path / name, runs)
    merged = merge([tmp_path / "1", tmp_path / "2"], into, keep="theirs")
    assert (merged.num_settled, len(merged.conflicts)) == (0, 2)
    assert read(into) == FIRST | agrees


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("is_own", [True, False])
def test_what_the_caller_chose_is_beyond_dispute(
    tmp_path: Path, order: tuple[int, int], is_own: bool
) -> None:
    """Where a source came before that has a run which contradicts it, that one goes again.

    Of two sources that have the run in conflict the last is chosen; of one and the target the one.
    """
    into = tmp_path / "into"
    write(into, OLD if is_own else {})
    contents = [{"state 20": OLD["state 0"]}, OTHERWISE | {"state 21": OTHERWISE["state 0"]}]
    if not is_own:
        contents[0] |= OLD
    for number, runs in enumerate(contents):
        write(tmp_path / str(number), runs)
    merged = merge([tmp_path / str(number) for number in order], into, keep="theirs")
    chosen = contents[1 if is_own else order[-1]]
    assert read(into) == chosen
    assert merged.num_settled == 1
    [told] = merged.conflicts
    assert ("the run of m from 'state 20'" in told) == ("state 20" not in chosen)


def test_runs_that_give_way_together_leave_no_states(tmp_path: Path) -> None:
    into, source = tmp_path / "into", tmp_path / "source"
    write(into, dict.fromkeys(("state 0", "state 9"), OLD["state 0"]))
    theirs = dict.fromkeys(("state 0", "state 9", "state 20"), OTHERWISE["state 0"])
    write(source, theirs)
    merged = merge([source], into, keep="theirs")
    assert (merged.num_settled, merged.num_meeting, merged.conflicts) == (2, 0, [])
    assert read(into) == theirs


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_remark_on_an_output_goes_with_the_last_run_that_has_it(
    tmp_path: Path, order: tuple[int, int]
) -> None:
    for number, runs in enumerate((OLD | NEW, OTHERWISE)):
        write(tmp_path / str(number), runs)
        with Store(tmp_path / str(number), write=True) as store:
            for text in ("state 1", list(runs.values())[-1][-1]):
                target = Target(kind="output", uid=text_digest(text).hex(), name=text)
                annotate(store, "comment", [(target, text)], ME)
    assert len(merge([tmp_path / str(number) for number in order], tmp_path / "into").conflicts) == 1
    assert said(tmp_path / "into") == ["state 8"]


def test_what_a_killed_merge_had_left_is_swept_though_its_sources_are_not_named_again(tmp_path: Path) -> None:
    stores = [tmp_path / str(number) for number in range(3)]
    for path, runs in zip(stores, (OLD, OTHERWISE, NEW), strict=True):
        write(path, runs)
    interrupt(stores, tmp_path / "into", at=2)
    merge(stores[2:], tmp_path / "into")
    with Store(tmp_path / "into") as store:
        texts = store.db.rows("SELECT text FROM output ORDER BY text")
    assert texts == [("state 5",), ("state 6",), ("state 7",), ("state 8",)]


def test_vectors_in_doubt_are_counted_with_the_source_that_has_them(
    folder: Path, sample: Sample, tmp_path: Path
) -> None:
    """What comes after it has none of them; the diagrams that went with it are not there to go again."""
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    change(other, "UPDATE embedding SET vector = zeroblob(length(vector))")
    write(tmp_path / "last", OLD)
    merged = merge([folder, other, tmp_path / "last"], tmp_path / "into")
    assert (merged.num_vectors, merged.num_diagrams) == (4, 1)


def test_what_is_left_is_swept_as_often_as_one_asks(folder: Path, sample: Sample) -> None:
    """A source that is replaced meanwhile is taken anew, and swept after."""
    with Store(folder, write=True) as store:
        walk = Walk(store.db.connection)
        unfinished.begin(walk)
        for text in ("one", "other"):
            writing.commit(store, Commit(outputs=[output(text)]))
            with store.transaction():
                sweep(walk)
        assert store.db.value("SELECT count(*) FROM output WHERE text IN ('one', 'other')") == 0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_deletions_only_that_of_what_no_source_shows_comes(
    folder: Path, sample: Sample, tmp_path: Path, order: tuple[int, int]
) -> None:
    stores = [folder, Path(shutil.copytree(folder, tmp_path / "other"))]
    for path, names in zip(stores, (["beta"], ["alpha", "beta"]), strict=True):
        with Store(path, write=True) as store:
            for name in names:
                hide(store, reading.experiment(store, name), "me")
    merge([stores[number] for number in order], tmp_path / "into")
    with Store(tmp_path / "into") as store:
        assert [row.name for row in reading.experiments(store)] == ["alpha"]
        assert [one.name for one in deleted(store)] == ["beta"]


def test_a_run_is_called_by_the_name_of_its_own_experiment(tmp_path: Path) -> None:
    """The source has deleted another experiment, under whose name its run in conflict is not known."""
    write(tmp_path / "0", OLD | NEW)
    write(tmp_path / "1", OTHERWISE | NEW)
    with Store(tmp_path / "1", write=True) as store:
        writing.start_experiment(store, "gone", {"name": "gone"})
        hide(store, reading.experiment(store, "gone"), "me")
    say(tmp_path / "1", "state 0", "state 5")
    assert len(merge([tmp_path / "0", tmp_path / "1"], tmp_path / "into").conflicts) == 1
    assert said(tmp_path / "into") == ["from state 5"]


def test_what_was_said_of_a_training_that_was_deleted_stays_where_it_is(tmp_path: Path) -> None:
    with Store(tmp_path / "source", write=True, create=True) as store:
        for name in ("gone", "there"):
            keep(store, entry(name))
            target = Target(kind="training", uid=entry(name).uid, name=name)
            annotate(store, "comment", [(target, f"of {name}")], ME)
        mark_deleted(store, [row for row in list_trainings(store) if row.name == "gone"], ME)
    merge([tmp_path / "source"], tmp_path / "into")
    assert said(tmp_path / "into") == ["of there"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_run_that_meets_and_agrees_vouches_for_no_other(tmp_path: Path, order: tuple[int, int]) -> None:
    """Of each source one run meets and agrees, and one goes on otherwise than the other source's."""
    agrees = ["state 31", "state 32", "state 33"]
    write(tmp_path / "0", OLD | {"state 30": agrees})
    write(tmp_path / "1", {"state 20": OTHERWISE["state 0"], "state 40": agrees})
    merged = merge([tmp_path / str(number) for number in order], tmp_path / "into")
    assert read(tmp_path / "into") == {"state 30": agrees, "state 40": agrees}
    assert len(merged.conflicts) == 2


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_run_that_was_deleted_here_speaks_against_no_other(tmp_path: Path, order: tuple[int, int]) -> None:
    """One source has it again; the other goes on otherwise from a state that only these two have."""
    into = tmp_path / "into"
    write(into, OLD | NEW)
    with Store(into, write=True) as store:
        gone = [run.id for run in reading.runs(store, "test") if run.prompt == "state 0"]
        hide_runs(store, reading.experiment(store, "test"), gone, "me")
    write(tmp_path / "0", OLD)
    other = {"state 9": ["state 1", "state 5", "state 6"]}
    write(tmp_path / "1", other)
    merged = merge([tmp_path / str(number) for number in order], into)
    assert (merged.conflicts, merged.num_meeting) == ([], 1), "the last of them meets one of the target"
    with Store(into) as store:
        assert sorted(run.prompt for run in reading.runs(store, "test")) == ["state 5", "state 9"]


def test_runs_deleted_here_take_no_others_with_them(tmp_path: Path) -> None:
    into = tmp_path / "into"
    write(into, OLD)
    with Store(into, write=True) as store:
        hide_runs(store, reading.experiment(store, "test"), [1], "me")
    write(tmp_path / "source", OLD | NEW | BESIDE)
    merged = merge([tmp_path / "source"], into)
    assert (merged.num_runs, merged.num_invocations, merged.conflicts) == (2, 6, [])
    with Store(into) as store:
        assert [run.prompt for run in reading.runs(store, "test")] == ["state 5", "state 20"]


def test_runs_deleted_before_their_experiment_come_as_they_were(tmp_path: Path) -> None:
    """With the name of the experiment, as a part of it; null models are whole. Another has deleted all."""
    write(tmp_path / "source", OLD | NEW)
    shutil.copytree(tmp_path / "source", tmp_path / "all")
    with Store(tmp_path / "source", write=True) as store:
        writing.start_experiment(store, "test/null-shuffle", {})
        hide_runs(store, reading.experiment(store, "test"), [1], "me")
        hide(store, reading.experiment(store, "test"), "me")
        there = [(one.uid, one.name, one.is_part, one.num_runs, one.at) for one in deleted(store)]
    with Store(tmp_path / "all", write=True) as store:
        hide(store, reading.experiment(store, "test"), "me")
    for number, sources in enumerate((["source"], ["all", "source"])):
        into = tmp_path / f"into-{number}"
        merge([tmp_path / name for name in sources], into)
        with Store(into) as store:
            found = [(one.uid, one.name, one.is_part, one.num_runs, one.at) for one in deleted(store)]
        assert [one[:3] for one in found] == [one[:3] for one in there]
        assert found == there or number


def test_a_state_of_a_source_is_of_the_experiment_of_its_run(tmp_path: Path) -> None:
    """Both stores have "other", where the target goes on from "state 1" as the source does not in "test"."""
    for name, runs in (("into", {"state 4": ["state 1", "state 5", "state 6"]}), ("source", BESIDE)):
        write(tmp_path / name, runs)
        change(tmp_path / name, f"UPDATE experiment SET name = 'other', uid = '{'b' * 32}'")
    write(tmp_path / "source", OLD)
    merged = merge([tmp_path / "source"], tmp_path / "into")
    assert (merged.conflicts, merged.num_meeting, merged.num_runs) == ([], 0, 2)


def test_of_each_source_those_are_chosen_that_are_in_conflict_with_it(tmp_path: Path) -> None:
    """A run of the second one meets what the first has brought; the third has other content again."""
    into = tmp_path / "into"
    write(into, OLD)
    met = {"state 20": OTHERWISE["state 0"]}
    for number, runs in enumerate((OTHERWISE, met)):
        write(tmp_path / str(number), runs)
    merged = merge([tmp_path / "0", tmp_path / "1"], into, keep="theirs")
    assert (merged.num_settled, merged.num_meeting, merged.conflicts) == (1, 1, [])
    assert read(into) == OTHERWISE | met
    shutil.rmtree(into)
    write(into, OLD)
    last = {"state 0": ["state 1", "state 2", "state 9"]}
    write(tmp_path / "2", last)
    merged = merge([tmp_path / "0", tmp_path / "2"], into, keep="theirs")
    assert (merged.num_settled, merged.conflicts) == (2, [])
    assert read(into) == last


def test_a_run_gives_way_where_others_of_the_target_agree_with_what_comes(tmp_path: Path) -> None:
    own = {"state 30": ["state 0", "state 1", "state 2"]}
    write(tmp_path / "into", OLD | own)
    write(tmp_path / "source", OTHERWISE)
    merged = merge([tmp_path / "source"], tmp_path / "into", keep="theirs")
    assert (merged.num_settled, merged.conflicts) == (1, [])
    assert read(tmp_path / "into") == OTHERWISE | own


def test_a_run_that_was_deleted_and_begun_anew_here_goes_on(tmp_path: Path) -> None:
    """Both are there: what the source has of it comes to the one that is seen."""
    into = tmp_path / "into"
    write(into, OLD)
    with Store(into, write=True) as store:
        hide_runs(store, reading.experiment(store, "test"), [1], "me")
    write(into, {"state 0": OLD["state 0"][:1]})
    write(tmp_path / "source", OLD)
    merged = merge([tmp_path / "source"], into)
    assert (merged.num_runs, merged.num_invocations, merged.conflicts) == (0, 2, [])
    with Store(into) as store:
        assert [(run.prompt, run.num_steps) for run in reading.runs(store, "test")] == [("state 0", 3)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("is_own", [True, False])
def test_a_state_is_of_one_model(tmp_path: Path, order: tuple[int, int], is_own: bool) -> None:
    """Both models go on from "state 1", each in its own way, in both stores."""
    for number, (first, second) in enumerate(((0, 20), (4, 30))):
        path = tmp_path / ("into" if is_own and number == order[0] else str(number))
        write(path, {f"state {first}": OLD["state 0"]})
        write(path, {f"state {second}": ["state 1", "state 7", "state 8"]}, name="n")
    sources = [tmp_path / str(number) for number in (order[1:] if is_own else order)]
    merged = merge(sources, tmp_path / "into")
    assert (merged.conflicts, merged.num_meeting) == ([], 2)
    assert len(read(tmp_path / "into")) == 4


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_remark_stays_with_the_run_of_the_experiment_that_it_is_on(
    tmp_path: Path, order: tuple[int, int]
) -> None:
    """Another experiment has the like of the run in conflict, which comes."""
    write(tmp_path / "0", OLD)
    write(tmp_path / "1", OTHERWISE)
    with Store(tmp_path / "1", write=True) as store:
        other = writing.start_experiment(store, "other", {"name": "other"})
        alike = [NewRun(network=("m",), prompt="state 0", seed=42, max_length=3)]
        writing.add_runs(store, other, alike)
        for name in ("test", "other"):
            [run] = reading.runs(store, name)
            annotate(store, "comment", [(run_target(name, run), f"of {name}")], ME)
    assert len(merge([tmp_path / str(number) for number in order], tmp_path / "into").conflicts) == 1
    assert said(tmp_path / "into") == ["of other"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_remarks_of_one_time_who_said_what_decides(tmp_path: Path, order: tuple[int, int]) -> None:
    """First the author, then the kind, then the text: in any order of the sources the same one is last."""
    said = (
        [("label", "x", "b", 4.0), ("tag", "t", "c", 5.0), ("label", "a", "c", 6.0), ("tag", "t", "a", 7.0)],
        [("label", "y", "a", 4.0), ("untag", "t", "c", 5.0), ("label", "b", "c", 6.0)],
    )
    for number, rows in enumerate(said):
        write(tmp_path / str(number), {})
        with Store(tmp_path / str(number), write=True) as store, store.transaction() as connection:
            connection.executemany(
                "INSERT INTO annotation (target_kind, target, kind, text, author, at)"
                " VALUES ('experiment', ?, ?, ?, ?, ?)",
                [("a" * 32, *row) for row in rows],
            )
    merge([tmp_path / str(number) for number in order], tmp_path / "into")
    with Store(tmp_path / "into") as store:
        assert [(row.kind, row.text, row.author, row.at) for row in list_annotations(store)] == [
            ("label", "y", "a", 4.0), ("label", "x", "b", 4.0),
            ("tag", "t", "c", 5.0), ("untag", "t", "c", 5.0),
            ("label", "a", "c", 6.0), ("label", "b", "c", 6.0),
            ("tag", "t", "a", 7.0),
        ]  # fmt: skip


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_deletions_of_one_time_one_author_stays(tmp_path: Path, order: tuple[int, int]) -> None:
    for number, author in enumerate(("b", "a")):
        write(tmp_path / str(number), OLD)
        with Store(tmp_path / str(number), write=True) as store:
            hide(store, reading.experiment(store, "test"), author)
            store.db.execute("UPDATE deletion SET at = 5.0")
    merge([tmp_path / str(number) for number in order], tmp_path / "into")
    with Store(tmp_path / "into") as store:
        assert [(one.author, one.at) for one in deleted(store)] == [("a", 5.0)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_experiments_of_a_name_the_smaller_id_and_the_earlier_time_stay(
    tmp_path: Path, order: tuple[int, int]
) -> None:
    """The later one has the smaller id; what is said of either follows."""
    for number, (uid, created_at) in enumerate((("b" * 32, 3.0), ("a" * 32, 5.0))):
        write(tmp_path / str(number), OLD, uid=uid)
        with Store(tmp_path / str(number), write=True) as store:
            remark(store, "test", f"of {uid[:1]}")
        change(tmp_path / str(number), f"UPDATE experiment SET created_at = {created_at}")
    merge([tmp_path / str(number) for number in order], tmp_path / "into")
    with Store(tmp_path / "into") as store:
        [row] = reading.experiments(store)
        assert (row.uid, row.created_at) == ("a" * 32, 3.0)
        assert {(said.target, said.text) for said in list_annotations(store)} == {
            ("a" * 32, "of a"), ("a" * 32, "of b")
        }  # fmt: skip


@pytest.mark.parametrize(
    ("table", "changed"),
    [
        ("session", "started_at = started_at + 1"),
        ("session", "host = 'another'"),
        ("session", "pid = pid + 1"),
        ("batch", "model = 2"),
        ("batch", "epoch = 1"),
        ("batch", "device = 'another'"),
        ("batch", "size = 2"),
        ("batch", "padded_size = 7"),
        ("batch", "bucket = 7"),
        ("batch", "started_at = started_at + 1"),
        ("batch", "duration_s = 9.0"),
    ],
)
def test_sessions_and_calls_are_one_where_all_of_them_is(
    folder: Path, sample: Sample, tmp_path: Path, table: str, changed: str
) -> None:
    """The second store has one of each that is another one by a single column."""
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    change(other, f"UPDATE {table} SET {changed} WHERE id = 1")
    into = tmp_path / "into"
    merge([folder], into)
    with Store(into) as store:
        before = store.db.value(f"SELECT count(*) FROM {table}")
    assert merge([other], into).conflicts == []
    with Store(into) as store:
        assert store.db.value(f"SELECT count(*) FROM {table}") == before + 1


@pytest.mark.parametrize(
    ("text", "gone"),
    [("a", ["noisy", "shared", "stuck"]), ("b", ["stuck"]), ("c", ["noisy"]), ("d", ["shared"])],
)
def test_diagrams_go_of_runs_that_have_the_vector_in_doubt_and_of_its_model(
    folder: Path, sample: Sample, tmp_path: Path, text: str, gone: list[str]
) -> None:
    """Three runs begin with "a", one of which comes back to it; a diagram of another model stays."""
    rows = {name: getattr(sample, name) for name in ("stuck", "noisy", "shared")}
    with Store(folder, write=True) as store:
        other = writing.add_model(store, "other", "fingerprint of other", {})
        made = [(run, sample.embed, "settings") for run in (sample.noisy, sample.shared)]
        made += [(run, other, "of other") for run in rows.values()]
        for run, model, digest in made:
            diagram = NewDiagram(
                run=run, model=model, settings={}, settings_digest=digest, num_points=2, num_unique=1,
                bars={0: np.array([[0.0, 1.0]])},
            )  # fmt: skip
            writing.commit(store, Commit(diagrams=[diagram]))
    source = Path(shutil.copytree(folder, tmp_path / "source"))
    with Store(source, write=True) as store, store.transaction() as connection:
        connection.execute(
            "UPDATE embedding SET vector = zeroblob(length(vector)) WHERE output ="
            " (SELECT id FROM output WHERE text = ?)",
            (text,),
        )
    merged = merge([source], folder)
    assert (merged.num_vectors, merged.num_diagrams) == (1, len(gone))
    with Store(folder) as store:
        left = {run for (run,) in store.db.rows("SELECT run FROM diagram WHERE model = ?", sample.embed)}
        assert sorted(name for name, run in rows.items() if run not in left) == gone
        assert store.db.value("SELECT count(*) FROM diagram WHERE model = ?", other) == 3


def test_a_failure_is_an_attempt_where_its_own_run_has_gone_on_beyond_it(tmp_path: Path) -> None:
    """Not where another run has, nor where the source has no more than it had, nor where pixels were lost."""
    runs = {f"state {10 * n}": [f"state {10 * n + k}" for k in (1, 2, 3)] for n in (1, 2, 3, 4)}
    prompts = list(runs)
    write(tmp_path / "into", {prompt: texts[:1] for prompt, texts in runs.items()})
    whole = runs | {prompts[1]: runs[prompts[1]][:1]}
    write(tmp_path / "source", whole)
    with Store(tmp_path / "into", write=True) as store:
        rows = {run.prompt: run.id for run in reading.runs(store)}
        failures = [
            NewFailure(run=rows[prompt], step=step, kind=kind, message=f"of {prompt}")
            for prompt, step, kind in zip(
                prompts, (1, 1, 1, 2), ("error", "error", "lost", "error"), strict=True
            )
        ]
        writing.commit(store, Commit(failures=failures))
    assert merge([tmp_path / "source"], tmp_path / "into").conflicts == []
    with Store(tmp_path / "into") as store:
        failed = {run.prompt for run in reading.runs(store) if run.failure is not None}
        assert failed == {prompts[1], prompts[2]}
        tried = {one: [row.message for row in reading.earlier_failures(store, rows[one])] for one in prompts}
        assert tried == {
            prompts[0]: [f"of {prompts[0]}"], prompts[1]: [], prompts[2]: [],
            prompts[3]: [f"of {prompts[3]}"],
        }  # fmt: skip


def test_a_run_that_was_ended_as_repeated_and_gone_on_with_is_in_conflict(tmp_path: Path) -> None:
    """With the same steps in both it is not; where both say otherwise how it was repeated, it is."""
    for name, number in (("more", 3), ("less", 2), ("same", 2), ("other", 2)):
        write(tmp_path / name, {"state 0": OLD["state 0"][:number]})
    for name, times in (("less", 2), ("other", 3)):
        with Store(tmp_path / name, write=True) as store:
            ended = NewRepeated(run=1, entry_step=0, period=1, times=times)
            writing.commit(store, Commit(repeated=[ended]))
    for other, why in (("more", "gone on in the other"), ("same", ""), ("other", "its repeated is another")):
        for number, order in enumerate((("less", other), (other, "less"))):
            told = merge([tmp_path / name for name in order], tmp_path / f"{other}-{number}").conflicts
            assert len(told) == bool(why)
            assert why in "".join(told)


@pytest.mark.parametrize("since", ["nothing", "captions", "session", "experiment", "run"])
def test_after_a_kill_what_came_is_the_targets_own_once_somebody_has_worked_there(
    tmp_path: Path, since: str
) -> None:
    """Then the run in conflict stays as it came; otherwise it goes again, as without the kill."""
    stores, into = [tmp_path / "0", tmp_path / "1"], tmp_path / "into"
    for path, runs in zip(stores, (OLD, OTHERWISE), strict=True):
        write(path, runs)
    interrupt(stores, into, at=1)
    with Store(into, write=True) as store:
        match since:
            case "captions":
                assert indexing.complete(store)
            case "session":
                writing.start_session(store, 1, "test", {})
            case "experiment":
                writing.start_experiment(store, "another", {"name": "another"})
            case "run":
                asked = NewRun(network=("m",), prompt="state 0", seed=43, max_length=1)
                writing.add_runs(store, 1, [asked])
    assert len(merge(stores, into).conflicts) == 1
    with Store(into) as store:
        [row] = reading.experiments(store)[:1]
        stays = [run.num_steps for run in reading.runs(store, row.id) if run.seed == 42]
    assert stays == ([] if since == "nothing" else [3])
