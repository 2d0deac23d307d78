"""What made results: the call of a step, of what stepped in, of a vector."""

import dataclasses

import pytest

from panic.store import NewRun, origins, writing
from panic.store.codec import image_digest, text_digest
from panic.store.origins import Origin
from panic.store.records import NewIntervention
from tests.store.sample import NETWORK, batch, output, picture, steps


@pytest.fixture
def armed(writer, sample):
    """A run into which a text and then a model stepped before step 1, in an experiment of its own."""
    config = {"arms": {"shock": [{"at": 1, "text": "x"}, {"at": 1, "model": "tell"}]}}
    experiment = writing.start_experiment(writer, "armed", config)
    for name, model in (("draw", sample.draw), ("tell", sample.tell)):
        writing.add_epoch(writer, experiment, name, model=model, batch_size=8, device_kind="sim", threads=3)
    session = writing.start_session(writer, experiment, "x", {})
    (run,) = writing.add_runs(
        writer, experiment, [NewRun(network=NETWORK, prompt="a", seed=-1, max_length=4, arm="shock")]
    )
    made = steps(writer, session, (sample.draw, sample.tell), run, "a", [picture(5)], seed=11)
    call = dataclasses.replace(batch(writer, session, sample.tell), padded_size=3, bucket=2)
    made.batches.append(call)
    made.outputs.extend([output("x"), output("y")])
    put = NewIntervention(run, 1, 0, "text", image_digest(picture(5)), text_digest("x"), None, None)
    told = NewIntervention(run, 1, 1, "model", text_digest("x"), text_digest("y"), 9, call.id)
    made.interventions.extend([put, told])
    writing.commit(writer, made)
    return experiment, run


def test_a_step_was_made_by_a_call_with_its_shape(store, sample):
    assert origins.of_step(store, sample.stuck, 2) == Origin(
        what=f"run {sample.stuck}, step 2", name="draw", fingerprint="fingerprint of draw",
        output=image_digest(picture(2)), modality="image", input=text_digest("b"), input_modality="text",
        seed=42, batch_size=8, bucket=0, device_kind="cpu", threads=1,
    )  # fmt: skip
    told = origins.of_step(store, sample.noisy, 1)
    assert (told.name, told.seed, told.output) == ("tell", 5, text_digest("c"))


def test_what_stepped_in_was_made_by_its_own_call(writer, armed):
    _, run = armed
    assert origins.of_step(writer, run, 1, 1) == Origin(
        what=f"run {run}, step 1, intervention 1", name="tell", fingerprint="fingerprint of tell",
        output=text_digest("y"), modality="text", input=text_digest("x"), input_modality="text",
        seed=9, batch_size=3, bucket=2, device_kind="sim", threads=3,
    )  # fmt: skip
    assert origins.of_step(writer, run, 0).seed == 11


def test_calls_are_those_of_an_experiment_and_a_text_is_none(writer, sample, armed):
    experiment, run = armed
    assert origins.steps(writer, experiment) == [(run, 0, None), (run, 1, 1)]
    assert origins.steps(writer, sample.beta) == [(sample.shared, 0, None), (sample.shared, 1, None)]
    assert len(origins.steps(writer, sample.alpha)) == 9


def test_vectors_are_those_of_outputs_and_models_of_an_experiment(writer, sample, armed):
    rows = {digest: row for row, digest in writer.db.rows("SELECT id, digest FROM output")}

    def of(experiment):
        return origins.vectors(writer, experiment)

    assert of(sample.alpha) == sorted((rows[text_digest(text)], sample.embed) for text in "abc")
    assert of(sample.beta) == sorted((rows[text_digest(text)], sample.embed) for text in "ad")
    assert of(armed[0]) == [], "it has pinned no model that embeds"
    writing.add_epoch(writer, armed[0], "embed", model=sample.embed, batch_size=1, device_kind="cpu")
    assert of(armed[0]) == [(rows[text_digest("a")], sample.embed)]
    found = origins.of_vector(writer, rows[text_digest("b")], sample.embed)
    assert found == Origin(
        what=f"vector of {text_digest('b').hex()[:12]} by embed", name="embed", modality="vector",
        fingerprint="fingerprint of embed", output=text_digest("b"), input=text_digest("b"),
        input_modality="text", seed=0, batch_size=8, bucket=0, device_kind="cpu", threads=1,
    )  # fmt: skip


def test_a_vector_is_that_of_its_output_and_model(writer, sample):
    other = writing.add_model(writer, "embed", "another", {})
    with writer.transaction() as connection:
        connection.execute(
            "INSERT INTO embedding SELECT output, ?, batch, 1, x'00000000' FROM embedding", (other,)
        )
    for text in "abcd":
        data = origins.vector(writer, text_digest(text), "fingerprint of embed")
        assert data == writer.db.value(
            "SELECT vector FROM embedding JOIN output ON output.id = output WHERE text = ? AND model = ?",
            *(text, sample.embed),
        )
    assert origins.vector(writer, text_digest("d"), "another") == bytes(4)


def test_a_shape_of_an_experiment_that_is_gone_is_not_known(writer, sample):
    writer.db.execute(f"UPDATE session SET experiment = NULL WHERE experiment = {sample.alpha}")
    origin = origins.of_step(writer, sample.stuck, 2)
    assert (origin.device_kind, origin.threads, origin.batch_size) == ("", None, 8)


def test_a_shape_is_that_of_its_experiment_model_and_epoch(writer, sample):
    """Every epoch has another number of threads; alpha's draw was pinned twice."""
    writing.add_epoch(writer, sample.alpha, "draw", model=sample.draw, batch_size=4, device_kind="sim")
    session = writing.start_session(writer, sample.alpha, "x", {})
    made = steps(writer, session, (sample.draw, sample.tell), sample.untouched, "untouched", [picture(9)])
    made.batches[0] = dataclasses.replace(made.batches[0], epoch=1)
    writing.commit(writer, made)
    with writer.transaction() as connection:
        connection.execute("UPDATE epoch SET threads = 100 * experiment + 10 * model + number")
    alpha, beta = 100 * sample.alpha, 100 * sample.beta
    draw, tell, embed = (10 * model for model in (sample.draw, sample.tell, sample.embed))
    for run, step, threads in (
        (sample.stuck, 0, alpha + draw),
        (sample.stuck, 1, alpha + tell),
        (sample.untouched, 0, alpha + draw + 1),
        (sample.shared, 0, beta + draw),
        (sample.shared, 1, beta + tell),
    ):
        assert origins.of_step(writer, run, step).threads == threads
    row = writer.db.value("SELECT id FROM output WHERE text = 'b'")
    assert origins.of_vector(writer, row, sample.embed).threads == beta + embed, "beta's session embedded"
    assert origins.of_step(writer, sample.untouched, 0).device_kind == "sim"
