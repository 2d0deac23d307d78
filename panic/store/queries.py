"""What the engine asks the store: which work is missing. Plain tuples, digests as bytes, row numbers.

Every stage is a function of what the store lacks; these are the questions that it asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from panic.store.contents import RUN_OUTPUTS, stack
from panic.store.reading import NUM_STEPS, USED_OUTPUTS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from panic.store.store import Store


def tails(store: Store, experiment: int) -> list[tuple[int, int, bytes]]:
    """Per run: its row, how many steps it has, and the digest of its last output, or of its prompt."""
    return store.db.rows(
        "SELECT run.id, coalesce(step + 1, 0), digest FROM run LEFT JOIN invocation AS last"
        " ON last.run = run.id AND last.step = (SELECT max(step) FROM invocation WHERE run = run.id)"
        " JOIN output ON output.id = coalesce(last.output, run.prompt) WHERE experiment = ? ORDER BY run.id",
        experiment,
    )


def fixed_seed_history(
    store: Store, experiment: int
) -> Iterator[tuple[int, int, int, int, int, bytes, bytes, int]]:
    """(run, step, model, epoch, seed, input digest, output digest, batch) of runs with a fixed seed.

    In the order of runs and steps; what the stuck detection and the coalescing of runs need to know.
    """
    return store.db.stream(
        "SELECT i.run, i.step, batch.model, batch.epoch, i.seed, a.digest, b.digest, i.batch"
        " FROM run CROSS JOIN invocation AS i ON i.run = run.id JOIN batch ON batch.id = i.batch"
        " JOIN output AS a ON a.id = i.input JOIN output AS b ON b.id = i.output"
        " WHERE experiment = ? AND run.seed <> -1 ORDER BY run.id, i.step",
        experiment,
    )


def missing_embeddings(
    store: Store, experiment: int, model: int, modalities: Sequence[str], *, run: int | None = None
) -> list[tuple[bytes, str]]:
    """(digest, modality) of the experiment's outputs that have no vector under a model.

    Prompts included; of one run only, if asked.
    """
    wanted = [str(modality) for modality in modalities]
    used = USED_OUTPUTS if run is None else RUN_OUTPUTS
    return store.db.rows(
        f"SELECT digest, modality FROM output WHERE id IN ({used}) AND modality IN (?3, ?4)"
        " AND NOT EXISTS (SELECT 1 FROM embedding WHERE embedding.output = output.id AND model = ?2)"
        " ORDER BY id",
        *(experiment if run is None else run, model, wanted[0], wanted[-1]),
    )


def ready_for_diagram(
    store: Store,
    experiment: int,
    model: int,
    settings_digest: str,
    modality: str,
    *,
    min_points: int = 1,
) -> list[int]:
    """Complete runs (a failed one never is) with all vectors and without a diagram of as many points.

    None of less than `min_points`: they have no diagram.
    """
    rows = store.db.rows(
        "WITH complete AS (SELECT run.id FROM run LEFT JOIN stuck ON stuck.run = run.id"
        f"  WHERE experiment = ?1 AND (stuck.run NOTNULL OR {NUM_STEPS} >= max_length)),"
        " cloud AS (SELECT complete.id, count(*) AS num_points"
        "   FROM complete CROSS JOIN invocation ON invocation.run = complete.id"
        "   JOIN output ON output.id = invocation.output AND modality = ?4"
        "   LEFT JOIN embedding ON embedding.output = output.id AND model = ?2"
        "   GROUP BY complete.id HAVING count(*) = count(model) AND count(*) >= ?5)"
        " SELECT id FROM cloud WHERE NOT EXISTS (SELECT 1 FROM diagram WHERE run = cloud.id"
        "   AND model = ?2 AND settings_digest = ?3 AND diagram.num_points = cloud.num_points) ORDER BY id",
        *(experiment, model, settings_digest, str(modality), min_points),
    )
    return [run for (run,) in rows]


def run_vectors(store: Store, run: int, model: int, modality: str) -> NDArray[np.float32]:
    """Vectors (n, d) of a run's outputs of one modality in step order, the prompt excluded."""
    rows = store.db.rows(
        "SELECT vector FROM invocation JOIN output ON output.id = invocation.output AND modality = ?3"
        " JOIN embedding ON embedding.output = output.id AND model = ?2 WHERE run = ?1 ORDER BY step",
        *(run, model, str(modality)),
    )
    return stack([vector for (vector,) in rows])
