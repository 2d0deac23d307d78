"""What goes in comes out: outputs, steps, vectors, diagrams."""

import numpy as np
import pytest

from panic.errors import NotFound, StoreCorrupt
from panic.store import (
    Commit,
    NewDiagram,
    NewEmbedding,
    NewRun,
    contents,
    images,
    reading,
    writing,
)
from panic.store.codec import image_digest, text_digest
from panic.store.records import NewDistance, NewIntervention, NewVectorisation
from tests.store.sample import NETWORK, SETTINGS, batch, output, picture, steps


def test_steps_of_a_run(store, sample):
    first, *_, last = contents.invocations(store, sample.stuck)
    assert (first.step, first.model, first.modality, first.text) == (0, "draw", "image", None)
    assert first.input == text_digest("a").hex()
    assert first.output == image_digest(picture(1)).hex()
    assert (last.step, last.model, last.text, last.seed, last.device) == (3, "tell", "b", 42, "cpu")
    assert (last.batch_size, last.duration_s) == (8, 0.25)


def test_outputs_are_kept_once_and_exactly(store, sample):
    assert [row.text or row.width for row in contents.outputs(store, run=sample.stuck)] == ["a", 8, "b", 8]
    shared = {row.digest for row in contents.outputs(store, "alpha")} & {
        row.digest for row in contents.outputs(store, "beta")
    }
    assert shared == {text_digest("a").hex(), image_digest(picture(1)).hex()}
    assert len(contents.outputs(store)) == 10
    digest = image_digest(picture(2))
    assert (
        contents.image(store, digest).tobytes()
        == contents.image(store, digest.hex()).tobytes()
        == picture(2).tobytes()
    )
    assert contents.text(store, text_digest("d")) == "d"
    with pytest.raises(NotFound, match="No image"):
        contents.image(store, text_digest("d"))
    with pytest.raises(NotFound, match="No text"):
        contents.text(store, digest)


def test_texts_of_any_kind_come_back(writer):
    experiment = writing.start_experiment(writer, "texts", {})
    texts = [
        "\0",
        "a\0b",
        "  spaces ",
        "1e5",
        "0x10",
        "naïve \U0001f642",
        "line\nline\r\n",
        "'; DROP TABLE run",
    ]
    writing.add_runs(
        writer, experiment, [NewRun(network=NETWORK, prompt=text, seed=1, max_length=1) for text in texts]
    )
    assert [run.prompt for run in reading.runs(writer, experiment)] == texts
    assert [contents.text(writer, text_digest(text)) for text in texts] == texts


def test_outputs_by_size_are_equally_far_apart_and_the_last_is_the_largest(writer, sample):
    """The accents count twice: three letters of two bytes are longer than five letters."""
    experiment = writing.start_experiment(writer, "sizes", {})
    texts = ["eeeee", "a", "dddd", "\u00e9\u00e9\u00e9", "bb"]
    writing.add_runs(
        writer, experiment, [NewRun(network=NETWORK, prompt=text, seed=1, max_length=1) for text in texts]
    )

    def found(number):
        return [row.text for row in contents.by_size(writer, experiment, "text", number)]

    in_order = ["a", "bb", "dddd", "eeeee", "\u00e9\u00e9\u00e9"]
    assert found(9) == found(5) == in_order
    assert found(4) == in_order[1:]
    assert found(2) == [in_order[2], in_order[4]]
    assert found(1) == in_order[4:]
    assert contents.by_size(writer, experiment, "image", 3) == []
    images = contents.by_size(writer, sample.alpha, "image", 9)
    assert {row.digest for row in images} == {image_digest(picture(number)).hex() for number in (1, 2, 3, 4)}


def test_vectors_and_bars(store, sample):
    found = contents.vectors(store, "embed")
    assert found.vectors.shape == (4, 3)
    assert found.vectors.dtype == np.float32
    rows = dict(zip(found.digests, found.vectors[:, 0], strict=True))
    assert rows == {text_digest(text).hex(): ord(text) for text in "abcd"}
    assert len(contents.vectors(store, "embed", "beta").digests) == 2
    assert contents.vectors(store, "draw").vectors.shape == (0, 0)
    assert contents.bars(store, sample.stuck, "embed", 0).tolist() == [[0, 0.5], [0, np.inf]]
    assert contents.bars(store, sample.stuck, sample.embed, 1, "settings").shape == (0, 2)
    assert contents.generators(store, sample.stuck, "embed", 0).tolist() == [[0, 1, 2]]
    assert contents.generators(store, sample.stuck, "embed", 1) is None
    (diagram,) = contents.diagrams(store, "alpha")
    assert (diagram.run, diagram.dimensions, diagram.settings) == (sample.stuck, (0, 1), SETTINGS)
    assert (diagram.num_points, diagram.num_unique) == (2, 1)
    for wrong in (
        (sample.noisy, "embed", 0),
        (sample.stuck, "embed", 2),
        (sample.stuck, "embed", 0, "other"),
    ):
        with pytest.raises(NotFound, match="No diagram"):
            contents.bars(store, *wrong)
    with pytest.raises(NotFound, match="Did you mean embed"):
        contents.vectors(store, "embd")


def test_a_part_of_the_steps_of_a_run(store, sample):
    def numbers(*part):
        return [row.step for row in contents.invocations(store, sample.noisy, *part)]

    assert numbers() == [0, 1, 2, 3]
    assert numbers(1) == [1, 2, 3]
    assert numbers(1, 2) == [1, 2]
    assert numbers(0, 0) == [0]
    assert numbers(4) == []
    assert [(row.run, row.model) for row in contents.invocations(store, sample.noisy)] == [
        (sample.noisy, name) for name in ("draw", "tell", "draw", "tell")
    ]
    assert {row.seed for row in contents.invocations(store, sample.noisy)} == {5}


def test_steps_that_have_images_are_those_of_one_experiment(writer, sample):
    assert contents.image_steps(writer, sample.alpha) == [0, 2]
    assert contents.image_steps(writer, sample.beta) == [0]


def test_outputs_are_those_of_one_run_or_experiment(store, sample):
    def said(**of):
        return [row.text or "image" for row in contents.outputs(store, **of)]

    assert said(run=sample.shared) == ["a", "image", "d"]
    assert said(run=sample.untouched) == ["untouched"]
    assert said(experiment="beta") == ["a", "image", "d"]
    assert len(said(experiment="alpha")) == 9
    assert said(experiment="alpha", run=sample.shared) == ["a", "image", "d"]


def test_pixels_that_are_lost_are_another_thing_than_an_image_that_never_was(writer, sample):
    digest = image_digest(picture(2))
    assert contents.image_bytes(writer, digest.hex()) == contents.image_bytes(writer, digest)
    writer.images.execute("UPDATE image SET bytes = x'00'")
    with pytest.raises(StoreCorrupt, match=f"Image {digest.hex()} in") as raised:
        contents.image(writer, digest)
    assert "--repair" in raised.value.hint
    images.drop_images(writer, [digest])
    with pytest.raises(StoreCorrupt, match="its pixels are missing"):
        contents.image_bytes(writer, digest)
    with pytest.raises(NotFound, match="No image"):
        contents.image_bytes(writer, image_digest(picture(99)))


def test_vectors_have_the_dimension_of_their_model(writer, sample):
    other = writing.add_model(writer, "other", "other", {})
    assert contents.dimension(writer, other) is None
    call = batch(writer, 1, other)
    row = NewEmbedding(output=text_digest("d"), model=other, batch=call.id, vector=np.ones(7, np.float32))
    writing.commit(writer, Commit(batches=[call], embeddings=[row]))
    assert (contents.dimension(writer, other), contents.dimension(writer, sample.embed)) == (7, 3)
    assert contents.vectors(writer, "other", "alpha").vectors.shape == (0, 0)
    assert contents.vectors(writer, "other", "beta").digests == [text_digest("d").hex()]
    assert contents.vectors(writer, "embed", "alpha").vectors[:, 0].tolist() == [ord(text) for text in "abc"]


def test_vectors_of_a_run_are_those_of_one_model_and_modality_in_its_order(writer, sample):
    """The other model has vectors of everything in the noisy run but c."""
    other = writing.add_model(writer, "other", "other", {})
    call = batch(writer, 1, other)
    digests = [text_digest("a"), text_digest("b"), image_digest(picture(1)), image_digest(picture(3))]
    rows = [
        NewEmbedding(output=digest, model=other, batch=call.id, vector=np.full(2, place, np.float32))
        for place, digest in enumerate(digests)
    ]
    writing.commit(writer, Commit(batches=[call], embeddings=rows))

    def values(run, model, modality):
        return contents.run_vectors(writer, run, model, modality)[:, 0].tolist()

    assert values(sample.noisy, sample.embed, "text") == [ord("c"), ord("a")]
    assert values(sample.noisy, other, "text") == [0.0]
    assert values(sample.noisy, other, "image") == [3.0, 2.0]
    assert values(sample.stuck, other, "text") == [1.0, 1.0]
    assert contents.run_vectors(writer, sample.noisy, sample.embed, "image").shape == (0, 0)


def add_diagram(store, run, model, value, **changes):
    """A diagram with one bar of this length."""
    fields = {"settings": SETTINGS, "settings_digest": "settings", "num_points": 2, "num_unique": 1}
    diagram = NewDiagram(**fields | {"run": run, "model": model, "bars": bar(value)} | changes)
    writing.commit(store, Commit(diagrams=[diagram]))
    return store.db.value("SELECT max(id) FROM diagram")


def bar(value):
    return {0: np.array([[0.0, value]])}


@pytest.fixture
def several(writer, sample):
    """Diagrams of the noisy run: two settings under `embed`, one under another model; one of beta."""
    other = writing.add_model(writer, "other", "other", {})
    cosine = SETTINGS | {"metric": "cosine"}
    add_diagram(writer, sample.noisy, sample.embed, 1.0)
    add_diagram(writer, sample.noisy, sample.embed, 2.0, settings=cosine, settings_digest="cosine")
    add_diagram(writer, sample.noisy, other, 3.0)
    add_diagram(writer, sample.shared, sample.embed, 4.0, settings_digest="of beta")
    return writer


def length(*of):
    return contents.bars(*of)[0, 1]


def test_bars_are_those_of_one_run_model_and_setting(several, sample):
    key = (several, sample.noisy)
    assert length(*key, "other", 0) == 3.0
    assert length(*key, "embed", 0, "settings") == 1.0
    assert length(*key, "embed", 0, "cosine") == 2.0
    assert length(*key, "embed", 0, {"metric": "cosine"}) == 2.0
    assert length(*key, "embed", 0, {"metric": "euclidean"}) == 1.0
    assert length(several, sample.stuck, "embed", 0, "settings") == 0.5
    assert length(several, sample.shared, "embed", 0) == 4.0
    with pytest.raises(NotFound, match="several settings; say which") as raised:
        contents.bars(*key, "embed", 0)
    assert raised.value.hint == (
        'There are: {"max_dimension":1,"metric":"euclidean"}; {"max_dimension":1,"metric":"cosine"}.'
    )
    with pytest.raises(NotFound, match=r'no diagrams with the settings {"metric":"l1"}') as raised:
        contents.bars(*key, "embed", 0, {"metric": "l1"})
    assert raised.value.hint.count("metric") == 2
    with pytest.raises(NotFound, match="No diagram of run"):
        contents.bars(several, sample.untouched, "embed", 0, {"metric": "l1"})
    for wrong in ((*key, "embed", 1, "cosine"), (*key, "other", 0, "cosine")):
        with pytest.raises(NotFound, match="No diagram of run"):
            contents.bars(*wrong)


def test_settings_of_diagrams_are_those_of_one_experiment_and_model_oldest_first(several, sample):
    known = contents.diagram_settings(several, "alpha", "embed")
    assert list(known) == ["settings", "cosine"]
    assert known["cosine"]["metric"] == "cosine"
    assert list(contents.diagram_settings(several, "alpha", "other")) == ["settings"]
    assert list(contents.diagram_settings(several, "beta", "embed")) == ["of beta"]
    assert contents.diagram_settings(several, "beta", "other") == {}


def test_of_a_run_that_has_grown_the_bars_of_most_points_are_read(several, sample):
    key = (several, sample.noisy, "other", 0)
    add_diagram(several, sample.noisy, 4, 9.0, num_points=5)
    add_diagram(several, sample.noisy, 4, 8.0, num_points=4)
    assert length(*key) == 9.0


def test_a_diagram_is_listed_with_how_it_was_made(several, sample):
    rows = contents.diagrams(several)
    assert [(row.run, row.model, row.settings_digest) for row in rows] == [
        (sample.stuck, sample.embed, "settings"),
        (sample.noisy, sample.embed, "settings"),
        (sample.noisy, sample.embed, "cosine"),
        (sample.noisy, 4, "settings"),
        (sample.shared, sample.embed, "of beta"),
    ]
    assert [row.dimensions for row in rows] == [(0, 1), (0,), (0,), (0,), (0,)]
    assert [row.id for row in contents.diagrams(several, "beta")] == [rows[-1].id]
    assert [len(contents.diagram_bars(several, row.id)) for row in rows] == [2, 1, 1, 1, 1]
    assert contents.diagram_bars(several, rows[2].id)[0].tolist() == [[0.0, 2.0]]


def taken(store, diagram, measure, value, dimension=0):
    return NewVectorisation(diagram=diagram, dimension=dimension, measure=measure, vector=np.array([value]))


def test_what_was_taken_of_diagrams_is_told_by_model_settings_dimension_and_measure(several, sample):
    """The stuck run has row 1; the noisy one 2, 3 and, under the other model, 4; beta's run 5."""
    entropy = writing.add_measure(several, {"kind": "entropy"})
    landscape = writing.add_measure(several, {"kind": "landscape", "resolution": 3})
    finer = writing.add_measure(several, {"kind": "landscape", "resolution": 9})
    rows = [taken(several, diagram, entropy, float(diagram)) for diagram in (1, 2, 3, 4, 5)]
    rows += [taken(several, 1, entropy, 10.0, dimension=1), taken(several, 2, landscape, 20.0)]
    rows += [taken(several, 2, finer, 30.0)]
    writing.commit(several, Commit(vectorisations=rows))

    def values(experiment, model, **how):
        found = contents.vectorisations(several, experiment, model, **{"dimension": 0} | how)
        return dict(zip(found.runs, found.values[:, 0].tolist(), strict=True))

    both = {"kind": "entropy", "diagrams": "settings"}
    assert values("alpha", "embed", **both) == {sample.stuck: 1.0, sample.noisy: 2.0}
    assert values("alpha", "embed", kind="entropy", diagrams={"metric": "cosine"}) == {sample.noisy: 3.0}
    assert values("alpha", "other", kind="entropy") == {sample.noisy: 4.0}
    assert values("beta", "embed", kind="entropy") == {sample.shared: 5.0}
    assert values("alpha", "embed", **both | {"dimension": 1}) == {sample.stuck: 10.0}
    chosen = {"kind": "landscape", "diagrams": "settings"}
    assert values("alpha", "embed", **chosen, resolution=9) == {sample.noisy: 30.0}
    with pytest.raises(NotFound, match="Several measures have") as raised:
        values("alpha", "embed", **chosen)
    assert raised.value.hint.startswith('There are: {"kind":"landscape","resolution":3}; ')
    with pytest.raises(NotFound, match="Nothing was computed with") as raised:
        values("beta", "embed", kind="landscape")
    assert raised.value.hint == 'There is: {"kind":"entropy"}.'
    with pytest.raises(NotFound) as raised:
        values("beta", "embed", kind="landscape", dimension=1)
    assert raised.value.hint == ""


def test_distances_are_those_between_the_diagrams_that_are_meant(several, sample):
    """Of one model, settings and dimension; a pair with an older diagram does not count."""
    bottleneck = writing.add_measure(several, {"kind": "bottleneck"})
    other = writing.add_measure(several, {"kind": "wasserstein"})
    grown = add_diagram(several, sample.untouched, sample.embed, 5.0, bars={**bar(5.0), 1: bar(1.0)[0]})
    older = add_diagram(several, sample.failed, sample.embed, 5.0, num_points=1)
    newer = add_diagram(several, sample.failed, sample.embed, 5.0, num_points=3)
    pairs = [
        (1, 2, 0, bottleneck, 1.0), (1, grown, 0, bottleneck, 2.0), (1, grown, 1, bottleneck, 3.0),
        (2, grown, 0, other, 4.0), (2, 3, 0, bottleneck, 5.0), (2, older, 0, bottleneck, 6.0),
        (grown, newer, 0, bottleneck, 7.0),
    ]  # fmt: skip
    distances = [NewDistance(*pair) for pair in pairs]
    nan = np.nan
    expected = [[0.0, 1.0, nan, 2.0], [1.0, 0.0, nan, nan], [nan, nan, 0.0, 7.0], [2.0, nan, 7.0, 0.0]]
    writing.commit(several, Commit(distances=distances))
    found = contents.distances(several, "alpha", "embed", dimension=0, kind="bottleneck", diagrams="settings")
    assert found.runs == [sample.stuck, sample.noisy, sample.failed, sample.untouched]
    np.testing.assert_array_equal(found.matrix, expected)


def test_outputs_at_a_step_or_at_the_last_one_of_a_modality(store, sample):
    runs = [sample.stuck, sample.noisy, sample.failed, sample.untouched]
    one, two, three, four = (f"image:{image_digest(picture(number)).hex()}" for number in (1, 2, 3, 4))
    assert contents.outputs_at(store, runs, 0) == [
        (sample.stuck, 0, "image", one), (sample.noisy, 0, "image", three), (sample.failed, 0, "image", four)
    ]  # fmt: skip
    assert contents.outputs_at(store, runs, 0, "text") == []
    last = [(sample.stuck, 3, "text", "b"), (sample.noisy, 3, "text", "a")]
    assert contents.outputs_at(store, runs, None) == [*last, (sample.failed, 0, "image", four)]
    assert contents.outputs_at(store, runs, None, "text") == last
    assert contents.outputs_at(store, runs, None, "image") == [
        (sample.stuck, 2, "image", two), (sample.noisy, 2, "image", one), (sample.failed, 0, "image", four)
    ]  # fmt: skip
    assert contents.outputs_at(store, [sample.shared], None) == [(sample.shared, 1, "text", "d")]


def test_an_image_has_a_size_and_a_text_has_none(store):
    assert contents.image_size(store, image_digest(picture(1))) == (8, 6)
    for digest in (text_digest("a"), bytes(32)):
        with pytest.raises(NotFound, match="No image"):
            contents.image_size(store, digest)


def test_what_stepped_into_a_run_is_told_with_the_model_that_its_arm_names(writer, sample):
    """From step 2 on another network goes on; a text and a model step in before step 1, one before step 3."""
    arm = [
        {"at": 1, "text": "x"}, {"at": 1, "model": "C"}, {"at": 2, "network": ["D", "tell"]},
        {"at": 3, "model": "E"},
    ]  # fmt: skip
    experiment = writing.start_experiment(writer, "armed", {"arms": {"shock": arm}})
    session = writing.start_session(writer, experiment, "x", {})
    (run,) = writing.add_runs(
        writer, experiment, [NewRun(network=NETWORK, prompt="a", seed=42, max_length=4, arm="shock")]
    )
    made = steps(writer, session, (sample.draw, sample.tell), run, "a", [picture(1), "b", picture(2), "c"])
    call = batch(writer, session, sample.tell)
    made.batches.append(call)
    made.outputs.extend([output("x"), output("y"), output("z")])
    digests = {name: text_digest(name) for name in "xyz"}
    first, third = image_digest(picture(1)), image_digest(picture(2))
    made.interventions.extend(
        [
            NewIntervention(run, 1, 0, "text", first, digests["x"], None, None),
            NewIntervention(run, 1, 1, "model", digests["x"], digests["y"], 9, call.id),
            NewIntervention(run, 2, 0, "network", text_digest("b"), text_digest("b"), None, None),
            NewIntervention(run, 3, 0, "model", third, digests["z"], 8, call.id),
        ]
    )
    writing.commit(writer, made)
    assert [row.model for row in contents.invocations(writer, run)] == ["draw", "tell", "D", "tell"]
    found = contents.interventions(writer, run)
    assert [(row.step, row.place, row.kind, row.text, row.seed) for row in found] == [
        (1, 0, "text", "x", None),
        (1, 1, "model", "y", 9),
        (2, 0, "network", "b", None),
        (3, 0, "model", "z", 8),
    ]
    assert [found[1].model, found[3].model] == ["C", "E"]
    assert (found[0].input, found[0].output) == (first.hex(), digests["x"].hex())
    assert contents.interventions(writer, run, 2) == found[2:]
    assert contents.interventions(writer, run, 1, 2) == found[:3]
    assert contents.interventions(writer, run, last=1) == found[:2]
    assert contents.interventions(writer, sample.noisy) == []


def test_what_stepped_into_a_run_is_an_output_of_it_alone(writer, sample):
    given = text_digest("a")
    for run, text in ((sample.noisy, "alpha's"), (sample.shared, "beta's")):
        made = output(text)
        row = NewIntervention(run, 9, 0, "text", given, made.digest, None, None)
        writing.commit(writer, Commit(outputs=[made], interventions=[row]))

    def said(**of):
        return {row.text for row in contents.outputs(writer, **of)} & {"alpha's", "beta's"}

    assert (said(experiment="alpha"), said(experiment="beta")) == ({"alpha's"}, {"beta's"})
    assert (said(run=sample.noisy), said(run=sample.stuck)) == ({"alpha's"}, set())


def test_the_diagram_with_most_points_counts_whichever_came_last(writer, sample):
    """The larger one is the older one; of other settings and another model there are others."""
    other = writing.add_model(writer, "embed2", "of embed2", {})
    for model, digest, num_points in (
        (sample.embed, "settings", 7), (sample.embed, "settings", 3), (sample.embed, "other", 9),
        (other, "settings", 8),
    ):  # fmt: skip
        diagram = NewDiagram(
            run=sample.noisy, model=model, settings=SETTINGS | {"of": digest}, settings_digest=digest,
            num_points=num_points, num_unique=1, bars={0: np.array([[0.0, float(num_points)]])},
        )  # fmt: skip
        writing.commit(writer, Commit(diagrams=[diagram]))
    found = {
        (model, digest): contents.bars(writer, sample.noisy, model, 0, digest)[0, 1]
        for model, digest in ((sample.embed, "settings"), (sample.embed, "other"), (other, "settings"))
    }
    assert [*found.values()] == [7.0, 9.0, 8.0]
    measure = writing.add_measure(writer, {"kind": "entropy"})
    rows = writer.db.rows("SELECT id, num_points FROM diagram WHERE run = ?", sample.noisy)
    taken = [
        NewVectorisation(diagram=id, dimension=0, measure=measure, vector=np.array([float(num_points)]))
        for id, num_points in rows
    ]
    writing.commit(writer, Commit(vectorisations=taken))
    current = contents.vectorisations(
        writer, "alpha", "embed", dimension=0, kind="entropy", diagrams="settings"
    )
    assert (current.runs, current.values.tolist()) == ([sample.noisy], [[7.0]])
