"""What servers were sent, what they said, and what that costs."""

import pytest

from panic.store import Commit, reading, writing
from panic.store.records import NewAnswer, NewSpending
from panic.store.served import ServedModel, Spent, answer_tokens, budget, served, served_models, spent
from tests.engine.conftest import make_config
from tests.store.sample import batch


def spending(session, model, requests, tokens):
    return NewSpending(session=session, model=model, requests=requests, tokens=tokens)


@pytest.fixture
def asked(writer, sample):
    """Two sessions of alpha asked "tell", one also "draw"; one of beta asked "tell". Their batches."""
    third = writing.start_session(writer, sample.alpha, "again", {})
    rows = [(1, sample.tell, 5, 90), (third, sample.tell, 2, 20), (third, sample.draw, 1, 7)]
    writing.record_spending(writer, [spending(*row) for row in rows])
    writing.record_spending(writer, [spending(2, sample.tell, 100, 1000)])
    gamma = writing.start_experiment(writer, "gamma", {})
    for name in ("aaa", "zzz"):  # what the model is called elsewhere
        writing.add_epoch(writer, gamma, name, model=sample.tell, batch_size=1, device_kind="cpu")
    commit, said = (
        Commit(),
        [(1, 10, 5, "m", "fp"), (third, None, 7, "m", None), (third, None, None, None, None)],
    )
    for session, into, out_of, name, print_ in [*said, (2, 1000, 1, "beta's", None)]:
        call = batch(writer, session, sample.tell)
        commit.batches.append(call)
        answer = NewAnswer(
            batch=call.id,
            input_tokens=into,
            output_tokens=out_of,
            served_model=name,
            system_fingerprint=print_,
        )
        commit.answers.append(answer)
    writing.commit(writer, commit)
    return [call.id for call in commit.batches]


def test_what_was_sent_and_said_is_told_by_model_of_one_experiment(writer, sample, asked):
    assert served_models(writer, sample.alpha) == [
        ServedModel(
            model="draw", requests=1, tokens=7, answers=0, input_tokens=0, output_tokens=0, served=()
        ),
        ServedModel(
            model="tell", requests=7, tokens=110, answers=3, input_tokens=10, output_tokens=12,
            served=("m", "m fp"),
        ),
    ]  # fmt: skip
    assert spent(writer, sample.alpha) == Spent(requests=8, tokens=117)
    assert spent(writer, sample.beta) == Spent(requests=100, tokens=1000)
    assert spent(writer, reading.experiment(writer, "gamma").id) == Spent()


def test_tokens_are_those_of_calls_that_were_counted(writer, asked):
    assert sorted(answer_tokens(writer)) == [(asked[0], 15), (asked[1], 7), (asked[3], 1001)]


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"requests": 10, "tokens": 1_000_000}, "8 of 10 requests, 117 of 1,000,000 tokens"),
        ({"requests": None, "tokens": 200}, "117 of 200 tokens"),
        ({"requests": 0, "tokens": None}, "8 of 0 requests"),
        (None, ""),
    ],
)
def test_a_budget_is_told_with_what_is_spent(writer, asked, limits, told):
    writing.start_experiment(writer, "alpha", {"budget": limits})
    assert budget(writer, reading.experiment(writer, "alpha")) == told


def test_costs_are_those_of_models_with_a_price(writer, sample, asked):
    config = make_config(name="alpha", prices={"tell": {"input": 2e6, "output": 1e6, "request": 0.5}})
    writing.start_experiment(writer, "alpha", config.model_dump(mode="json"))
    found = {one["model"]: one["cost"] for one in served(writer, reading.experiment(writer, "alpha"))}
    assert found == {"draw": None, "tell": 0.5 * 7 + 2 * 10 + 12}
    writing.start_experiment(writer, "alpha", {"nonsense": 1})
    found = {one["model"]: one["cost"] for one in served(writer, reading.experiment(writer, "alpha"))}
    assert found == {"draw": None, "tell": None}, "of another version"
