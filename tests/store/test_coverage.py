"""How much of what a config takes of runs is there."""

import numpy as np
import pytest

from panic.config import DiagramSettings, Window
from panic.store import Commit, NewDiagram, NewEmbedding, writing
from panic.store.codec import text_digest
from panic.store.coverage import NOT_THERE, EmbeddingModel, coverage, diagram_title, is_complete, models_of
from panic.store.records import NewDistance, NewVectorisation
from tests.engine.conftest import make_config
from tests.store.sample import batch

PLAIN = DiagramSettings(max_dimension=1)
WINDOWS = DiagramSettings(max_dimension=0, window=Window(dimension=2))
PICTURES = DiagramSettings(max_dimension=0, modality="image")


@pytest.fixture
def config():
    measures = {"vectorisations": ["entropy"], "distances": ["bottleneck"]}
    return make_config(name="alpha", embeddings=["embed"], diagrams=[PLAIN], **measures)


@pytest.fixture
def embed(sample):
    return EmbeddingModel(name="embed", row=sample.embed, modalities=("text",))


def add_diagram(store, sample, run, settings=PLAIN, num_points=2):
    dimensions = range(settings.max_dimension + 1)
    diagram = NewDiagram(
        run=run, model=sample.embed, settings=settings.key, settings_digest=settings.digest,
        num_points=num_points, num_unique=1, bars={k: np.array([[0.0, 1.0]]) for k in dimensions},
    )  # fmt: skip
    writing.commit(store, Commit(diagrams=[diagram]))
    return store.db.value("SELECT max(id) FROM diagram")


def numbers(parts):
    return [(part.stage, part.stored, part.missing) for part in parts]


def test_models_are_those_that_are_pinned_now(writer, sample, config):
    both = writing.add_model(writer, "embed", "another", {"modalities_in": ["image", "text"]})
    found = models_of(writer, sample.alpha, config.model_copy(update={"embeddings": ["new", "embed"]}))
    assert [(model.name, model.row, model.modalities) for model in found] == [
        ("new", NOT_THERE, ("text",)),
        ("embed", sample.embed, ("text",)),
    ]
    writing.add_epoch(writer, sample.alpha, "embed", model=both, batch_size=8, device_kind="cpu")
    (model,) = models_of(writer, sample.alpha, config)
    assert (model.row, model.modalities) == (both, ("image", "text"))


def test_a_row_that_is_not_there_is_no_row(writer):
    assert writer.db.value("SELECT count(*) FROM model WHERE id = ?", NOT_THERE) == 0


def test_parts_come_in_the_order_in_which_they_are_computed(config, embed):
    """Nothing is there without a store, and nothing could be computed."""
    several = config.model_copy(update={"diagrams": [PLAIN, PICTURES, WINDOWS]})
    parts = list(coverage(None, NOT_THERE, several, [embed]))
    assert [(part.stage, part.of, part.per) for part in parts] == [
        ("embeddings", "embed", 1),
        *(
            line
            for of, per in (
                ("embed, text, H0 to H1", 2),
                ('embed, text, H0 to H0, window {"delay":1,"dimension":2}', 1),
            )
            for line in (
                ("diagrams", of, 1),
                ("vectorisations", f"entropy of {of}", per),
                ("distances", f"bottleneck of {of}", per),
            )
        ),
    ]
    assert {(part.stored, part.missing, part.model) for part in parts} == {(0, 0, "embed")}


def test_what_is_there_and_what_could_be_computed_now(writer, sample, config, embed):
    """Alpha has vectors of a, b and c, lacks those of z and untouched; two of its runs are complete."""

    def count(growing=()):
        return numbers(coverage(writer, sample.alpha, config, [embed], growing))

    vectors = ("embeddings", 3, 2)
    assert count() == [vectors, ("diagrams", 0, 2), ("vectorisations", 0, 0), ("distances", 0, 0)]
    one = add_diagram(writer, sample, sample.stuck)
    assert count() == [vectors, ("diagrams", 1, 1), ("vectorisations", 0, 2), ("distances", 0, 0)]
    two = add_diagram(writer, sample, sample.noisy)
    assert count() == [vectors, ("diagrams", 2, 0), ("vectorisations", 0, 4), ("distances", 0, 2)]

    entropy, bottleneck, other = (
        writing.add_measure(writer, settings)
        for settings in (config.vectorisations[0].key, config.distances[0].key, {"kind": "other"})
    )
    rows = [(one, 0, entropy), (one, 1, entropy), (two, 0, entropy), (1, 0, entropy), (one, 0, other)]
    found = [NewVectorisation(diagram=d, dimension=k, measure=m, vector=np.ones(1)) for d, k, m in rows]
    pairs = [(one, two, 0, bottleneck, 1.0), (1, two, 0, bottleneck, 1.0), (1, one, 0, bottleneck, 1.0)]
    pairs.append((one, two, 1, other, 1.0))
    distances = [NewDistance(*pair) for pair in pairs]
    writing.commit(writer, Commit(vectorisations=found, distances=distances))
    whole = [vectors, ("diagrams", 2, 0), ("vectorisations", 3, 1), ("distances", 1, 1)]
    assert count() == whole, "those of other diagrams and measures do not count"
    assert count([sample.noisy]) == [
        vectors, ("diagrams", 1, 0), ("vectorisations", 2, 0), ("distances", 0, 0)
    ]  # fmt: skip
    assert count([sample.failed]) == whole


def test_vectors_are_those_of_one_model(writer, sample, config):
    """The other one has that of a alone, and lacks b, c, z and untouched."""
    other = writing.add_model(writer, "embed2", "another", {})
    call = batch(writer, 1, other)
    row = NewEmbedding(output=text_digest("a"), model=other, batch=call.id, vector=np.ones(2, np.float32))
    writing.commit(writer, Commit(batches=[call], embeddings=[row]))
    config = config.model_copy(update={"diagrams": []})
    both = [EmbeddingModel(name="m", row=number, modalities=("text",)) for number in (sample.embed, other)]
    assert numbers(coverage(writer, sample.alpha, config, both)) == [
        ("embeddings", 3, 2),
        ("embeddings", 1, 4),
    ]


def test_of_three_diagrams_there_are_three_pairs(writer, sample, config, embed):
    for run in (sample.stuck, sample.noisy, sample.untouched):
        add_diagram(writer, sample, run)
    *_, distances = coverage(writer, sample.alpha, config, [embed])
    assert (distances.stored, distances.missing) == (0, 3 * 2)


def test_a_diagram_of_fewer_points_than_there_are_does_not_count(writer, sample, config, embed):
    add_diagram(writer, sample, sample.stuck, num_points=1)
    _, diagrams, *_ = coverage(writer, sample.alpha, config, [embed])
    assert (diagrams.stored, diagrams.missing) == (0, 2)


@pytest.mark.parametrize(("points", "due"), [(2, 2), (3, 0)])
def test_runs_shorter_than_a_window_lack_nothing(store, sample, config, embed, points, due):
    windows = WINDOWS.model_copy(update={"window": Window(dimension=points)})
    config = config.model_copy(update={"diagrams": [windows]})
    _, diagrams, *_ = coverage(store, sample.alpha, config, [embed])
    assert (diagrams.stored, diagrams.missing) == (0, due)


def test_it_is_complete_when_nothing_could_be_computed(writer, sample, config):
    beta = config.model_copy(update={"diagrams": [], "vectorisations": [], "distances": []})
    assert is_complete(writer, sample.beta, beta)
    assert not is_complete(writer, sample.alpha, beta), "two texts have no vector"
    assert not is_complete(writer, sample.beta, config), "a diagram is due"
    assert not is_complete(writer, sample.beta, beta.model_copy(update={"embeddings": ["embed", "new"]}))


@pytest.mark.parametrize(
    ("settings", "title"),
    [
        (DiagramSettings(), "text, H0 to H1"),
        (DiagramSettings(max_dimension=2, modality="image"), "image, H0 to H2"),
        (DiagramSettings(metric="cosine", landmarks=9), "text, H0 to H1, metric cosine, landmarks 9"),
        (DiagramSettings(threshold=0.5), "text, H0 to H1, threshold 0.5"),
        (
            DiagramSettings(window=Window(dimension=3)),
            'text, H0 to H1, window {"delay":1,"dimension":3}',
        ),
    ],
)
def test_settings_are_called_by_what_differs_from_the_defaults(settings, title):
    assert diagram_title(settings) == title


def test_a_distance_counts_where_both_diagrams_do(writer, sample, config, embed):
    """The third one is of other settings, and newer than both."""
    numbers_of = [add_diagram(writer, sample, run) for run in (sample.stuck, sample.noisy)]
    other = add_diagram(writer, sample, sample.noisy, settings=WINDOWS)
    bottleneck = writing.add_measure(writer, config.distances[0].key)
    for one in numbers_of:
        writing.commit(writer, Commit(distances=[NewDistance(one, other, 0, bottleneck, 1.0)]))
    *_, distances = coverage(writer, sample.alpha, config, [embed])
    assert (distances.stored, distances.missing) == (0, 2)
    writing.commit(writer, Commit(distances=[NewDistance(*numbers_of, 0, bottleneck, 1.0)]))
    *_, distances = coverage(writer, sample.alpha, config, [embed])
    assert (distances.stored, distances.missing) == (1, 1)


def test_what_is_there_is_that_of_the_experiment(writer, sample, config, embed):
    """Two texts of beta have a vector; its run has a diagram, with one measure in both dimensions."""
    for run in (sample.stuck, sample.noisy):
        add_diagram(writer, sample, run)
    own = add_diagram(writer, sample, sample.shared, num_points=1)
    entropy = writing.add_measure(writer, config.vectorisations[0].key)
    rows = [NewVectorisation(diagram=own, dimension=k, measure=entropy, vector=np.ones(1)) for k in (0, 1)]
    writing.commit(writer, Commit(vectorisations=rows))
    assert numbers(coverage(writer, sample.beta, config, [embed])) == [
        ("embeddings", 2, 0), ("diagrams", 1, 0), ("vectorisations", 2, 0), ("distances", 0, 0)
    ]  # fmt: skip
    assert numbers(coverage(writer, sample.alpha, config, [embed]))[2:] == [
        ("vectorisations", 0, 4), ("distances", 0, 2)
    ]  # fmt: skip


def test_models_of_an_experiment_are_those_that_it_has_pinned(writer, sample, config):
    """The other one has pinned another of this name since."""
    other = writing.add_model(writer, "embed", "another", {"modalities_in": ["image"]})
    writing.add_epoch(writer, sample.beta, "embed", model=other, batch_size=8, device_kind="cpu")
    [of_alpha] = models_of(writer, sample.alpha, config)
    [of_beta] = models_of(writer, sample.beta, config)
    assert (of_alpha.row, of_beta.row) == (sample.embed, other)
