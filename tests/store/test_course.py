"""From which step on a run's future follows, and what it takes next."""

import pytest

from panic.arms import arm_of
from panic.store import NewRun, writing
from panic.store.codec import image_digest, text_digest
from panic.store.course import Course, Made, intervention_problems, network_of
from panic.store.records import NewIntervention
from tests.store.sample import NETWORK, batch, output, picture, steps

SHOCK = arm_of([{"at": 3, "text": "x"}])
MODEL = arm_of([{"at": 2, "model": "C"}])
EVERY = arm_of([{"at": 2, "every": 2, "model": "C"}])


def made(step, place=0, epoch=None, output=7):
    return Made(step, place, "model", 1, output, b"", epoch)


def settled(epochs, arm=(), *interventions):
    return Course(network=["A", "B"], arm=arm, made=list(interventions)).settled_from(epochs)


@pytest.mark.parametrize(
    ("epochs", "step"),
    [
        ([], 0),
        ([0, 0, 0, 0], 0),
        ([0, 0, 0, 1], 2),
        ([0, 0, 1, 1], 2),
        ([0, 1, 1, 1], 1),
        ([0, 1, 2, 1], 1),
        ([0, 0, 1, 0, 1, 0], 1),
    ],
)
def test_every_model_has_to_stay_in_one_epoch(epochs, step):
    """A was called at even steps, B at odd ones."""
    assert settled(epochs) == step


def test_the_last_single_intervention_counts_too():
    assert settled([0, 0, 0, 0, 0], SHOCK) == 3
    assert settled([0, 0, 0, 1, 1], SHOCK) == 3
    assert settled([0, 0, 0, 0, 0, 0, 0, 1], SHOCK) == 6
    assert settled([0, 0, 0, 0], None) == 0


def test_a_model_that_steps_in_has_epochs_of_its_own():
    """What steps in before a step comes before it: from its input on the epochs are the same."""
    assert settled([0] * 6, EVERY, made(2, epoch=0), made(4, epoch=0)) == 0
    assert settled([0] * 6, EVERY, made(2, epoch=0), made(4, epoch=1)) == 2
    assert settled([0] * 6, EVERY, made(2, epoch=None), made(4, epoch=1)) == 0
    assert settled([0] * 6, MODEL, made(2, epoch=5)) == 2


def test_the_next_input_is_what_has_stepped_in_once_all_has():
    two = arm_of([{"at": 2, "text": "x"}, {"at": 2, "model": "C"}])
    for there, expected in (
        ([], None),
        ([made(2, 0, output=7)], None),
        ([made(2, 0, output=7), made(2, 1, output=8)], 8),
    ):
        assert Course(network=["A", "B"], arm=two, made=there).input_of(2, 5) == expected
    assert Course(network=["A", "B"], arm=two, made=[made(2), made(2, 1)]).input_of(3, 5) == 5
    assert Course(network=["A", "B"], arm=(), made=[]).input_of(2, 5) == 5


def test_models_and_period_are_those_of_network_and_arm():
    assert sorted(Course(network=["A", "B"], arm=EVERY).models) == ["A", "B", "C"]
    assert sorted(Course(network=["A", "B"], arm=None).models) == ["A", "B"]
    assert Course(network=["A", "B"], arm=None).period == 2
    assert Course(network=["A", "B"], arm=None).input_of(3, 5) == 5
    assert Course(network=["A", "B"], arm=arm_of([{"at": 3, "every": 3, "text": "x"}])).period == 6


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b'["A", "B"]', ["A", "B"]),
        (b"[]", []),
        (b"{", []),
        (b"[" * 200_000, []),
        (b"9" * 5000, []),
        (b'["A", 1]', []),
        (b'{"A": 1}', []),
        (b'"A"', []),
    ],
)
def test_a_network_that_cannot_be_read_has_no_names(data, names):
    assert network_of(data) == names


@pytest.fixture
def stepped(writer, sample):
    """A run of one step with what its arm puts in before the next one."""
    config = {"arms": {"shock": [{"at": 1, "text": "x"}, {"at": 1, "model": "tell"}]}}
    experiment = writing.start_experiment(writer, "armed", config)
    session = writing.start_session(writer, experiment, "x", {})
    asked = NewRun(network=NETWORK, prompt="a", seed=42, max_length=4, arm="shock")
    (run,) = writing.add_runs(writer, experiment, [asked])
    commit = steps(writer, session, (sample.draw, sample.tell), run, "a", [picture(5)])
    call = batch(writer, session, sample.tell)
    commit.batches.append(call)
    commit.outputs.extend([output("x"), output("y")])
    put = NewIntervention(run, 1, 0, "text", image_digest(picture(5)), text_digest("x"), None, None)
    told = NewIntervention(run, 1, 1, "model", text_digest("x"), text_digest("y"), 9, call.id)
    commit.interventions.extend([put, told])
    writing.commit(writer, commit)
    return run


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT 1", []),
        ("DELETE FROM intervention WHERE place = 1", []),
        ("UPDATE intervention SET step = 2", ["interventions before step 2, and it has 1 steps"]),
        ("UPDATE intervention SET step = 0", ["interventions before step 0 are not those of its arm"]),
        (
            "DELETE FROM intervention WHERE place = 0",
            ["interventions before step 1 are not those of its arm"],
        ),
        (
            "UPDATE intervention SET input = output WHERE place = 1",
            ["an intervention before step 1 did not take what was there"],
        ),
    ],
)
def test_what_stepped_in_fits_between_the_steps_of_its_run(writer, stepped, sql, told):
    writer.db.execute(sql)
    found = list(intervention_problems(writer, "SELECT id FROM run"))
    assert found == [f"run {stepped}: {text}" for text in told]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ([{"text": "x"}, {"model": "tell"}], []),
        ([{"text": "z"}, {"model": "tell"}], ["the text before step 1 is not the one of its arm"]),
        ([{"text": "x"}, {"text": "y"}], []),
        ([{"text": "x"}, {"text": "z"}], ["the text before step 1 is not the one of its arm"]),
        ([{"text": "z"}, {"text": "y"}], ["the text before step 1 is not the one of its arm"]),
        ([{"model": "draw"}, {"model": "tell"}], []),
        ([{"text": "x"}], ["interventions before step 1 are not those of its arm"]),
    ],
)
def test_each_text_is_that_of_its_arm(writer, stepped, asked, told):
    """A text "x" was put in place, of which a model then made "y", or that is another text."""
    if all("text" in one for one in asked) and len(asked) > 1:
        writer.db.execute("UPDATE intervention SET kind = 'text', batch = NULL, seed = NULL WHERE place = 1")
    elif not any("text" in one for one in asked):
        writer.db.execute("UPDATE intervention SET kind = 'model', batch = 1, seed = 1 WHERE place = 0")
    writing.start_experiment(writer, "armed", {"arms": {"shock": [{"at": 1, **one} for one in asked]}})
    found = list(intervention_problems(writer, "SELECT id FROM run"))
    assert found == [f"run {stepped}: {text}" for text in told]


def test_a_text_that_is_not_that_of_its_arm_and_an_arm_that_nobody_knows_are_told(writer, stepped):
    config = {"arms": {"shock": [{"at": 1, "text": "z"}, {"at": 1, "model": "tell"}]}}
    writing.start_experiment(writer, "armed", config)
    (found,) = intervention_problems(writer, "SELECT id FROM run")
    assert found == f"run {stepped}: the text before step 1 is not the one of its arm"
    writing.start_experiment(writer, "armed", {"arms": {"other": config["arms"]["shock"]}})
    (found,) = intervention_problems(writer, "SELECT id FROM run")
    assert found == f"run {stepped}: its arm is not known in its experiment"
