"""What made the results of an experiment: for computing some of them again.

for origin in embedding_origins(store, experiment): print(origin.digest, origin.batch_size)
"""

from __future__ import annotations

from dataclasses import dataclass

from panic.arms import BASELINE, maker
from panic.store.codec import decode_network
from panic.store.reading import arms
from panic.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """An output or a vector, and the call that made it; digests are 32 bytes.

    name: the model as the experiment's network calls it; of vectors, as the model was called first.
    device_kind, threads: of the shape epoch, "" and None where the experiment that opened it is deleted.
    """

    what: str
    name: str
    fingerprint: str
    output: bytes
    modality: str
    input: bytes
    input_modality: str
    seed: int
    batch_size: int
    bucket: int
    device_kind: str
    threads: int | None


EPOCH = (
    " JOIN batch ON batch.id = made.batch JOIN model ON model.id = batch.model"
    " LEFT JOIN session ON session.id = batch.session"
    " LEFT JOIN epoch ON epoch.experiment = session.experiment AND epoch.model = batch.model"
    " AND epoch.number = batch.epoch"
)
CALL = "fingerprint, padded_size, bucket, coalesce(device_kind, ''), threads"


def steps(store: Store, experiment: int) -> list[tuple[int, int, int | None]]:
    """The calls in an experiment's runs, as (run, step, place).

    place: of an intervention before the step its number among those; None for the step itself.
    """
    return [
        (run, step, place)
        for run, step, place in store.db.rows(
            "SELECT run, step, NULL AS place FROM invocation JOIN run ON run.id = run WHERE experiment = ?1"
            " UNION ALL SELECT run, step, place FROM intervention JOIN run ON run.id = run"
            " WHERE experiment = ?1 AND batch NOTNULL ORDER BY 1, 2, 3",
            experiment,
        )
    ]


def vectors(store: Store, experiment: int) -> list[tuple[int, int]]:
    """The vectors of an experiment's outputs, as rows (output, model)."""
    return [
        (output, model)
        for output, model in store.db.rows(
            "SELECT output, model FROM embedding"
            " WHERE model IN (SELECT model FROM epoch WHERE experiment = ?1) AND output IN"
            " (SELECT output FROM invocation JOIN run ON run.id = run WHERE experiment = ?1"
            " UNION SELECT output FROM intervention JOIN run ON run.id = run WHERE experiment = ?1"
            " UNION SELECT prompt FROM run WHERE experiment = ?1) ORDER BY 1, 2",
            experiment,
        )
    ]


def of_step(store: Store, run: int, step: int, place: int | None = None) -> Origin:
    """What made the output of a step, or of the intervention before it at a place."""
    table, where = ("invocation", "") if place is None else ("intervention", f" AND place = {int(place)}")
    row = store.db.row(
        "SELECT network, run.experiment, arm,"
        " given.digest, given.modality, out.digest, out.modality, made.seed,"
        f" {CALL} FROM {table} AS made JOIN run ON run.id = made.run"
        f" JOIN output AS given ON given.id = made.input JOIN output AS out ON out.id = made.output {EPOCH}"
        f" WHERE made.run = ? AND made.step = ?{where}",
        *(run, step),
    )
    network, experiment, arm, *row = row
    given, given_modality, output, modality, seed, fingerprint, size, bucket, kind, threads = row
    meaning = () if arm == BASELINE else arms(store, experiment).get(arm, ())
    return Origin(
        what=f"run {run}, step {step}" + ("" if place is None else f", intervention {place}"),
        name=maker(decode_network(network), meaning, step, place),
        fingerprint=fingerprint,
        output=output,
        modality=modality,
        input=given,
        input_modality=given_modality,
        seed=seed,
        batch_size=size,
        bucket=bucket,
        device_kind=kind,
        threads=threads,
    )


def of_vector(store: Store, output: int, model: int) -> Origin:
    """What made a vector; its `output` and `input` are the digest of the output that it is of."""
    name, digest, modality, fingerprint, size, bucket, kind, threads = store.db.row(
        f"SELECT model.name, digest, modality, {CALL} FROM embedding AS made"
        f" JOIN output ON output.id = made.output {EPOCH} WHERE made.output = ? AND made.model = ?",
        *(output, model),
    )
    return Origin(
        what=f"vector of {digest.hex()[:12]} by {name}",
        name=name,
        fingerprint=fingerprint,
        output=digest,
        modality="vector",
        input=digest,
        input_modality=modality,
        seed=0,
        batch_size=size,
        bucket=bucket,
        device_kind=kind,
        threads=threads,
    )


def vector(store: Store, digest: bytes, fingerprint: str) -> bytes:
    """The bytes of the vector that a model gave of an output."""
    return bytes(
        store.db.value(
            "SELECT vector FROM embedding JOIN output ON output.id = output JOIN model ON model.id = model"
            " WHERE digest = ? AND fingerprint = ?",
            *(digest, fingerprint),
        )
    )
