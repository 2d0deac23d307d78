"""How far a run moves: cosine distances of its outputs to the prompt, to the first, to the one before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panic.store import Store, reading, wall
from panic.store.codec import decode_vectors
from panic.store.records import ExperimentRow

Vectors = NDArray[np.float64]
MOST_STEPS = 20_000


def motion(store: Store, row: ExperimentRow, run: int) -> dict[str, Any]:
    """Distances by embedding model and modality; null where a vector has no direction."""
    known = {model.id: model for model in reading.models(store)}
    found: list[dict[str, Any]] = []
    for model in dict.fromkeys(epoch.model for epoch in reading.epochs(store, row.id)):
        if known[model].spec.get("modality_out") == "vector":
            found += ({"model": known[model].name, **one} for one in _under(store, run, model))
    return {"models": found}


def _under(store: Store, run: int, model: int) -> Iterator[dict[str, Any]]:
    rows = wall.embedded_steps(store, run, model)[:MOST_STEPS]
    prompt = wall.embedded_prompt(store, run, model)
    for modality in ("text", "image"):
        own = [(step, vector) for step, of, vector in rows if of == modality]
        if not own:
            continue
        dimension = len(own[0][1]) // 4
        points = _directions(decode_vectors([vector for _, vector in own], dimension))
        start = None
        if prompt is not None and prompt[0] == modality:
            start = _directions(decode_vectors([prompt[1]], dimension))
        yield {
            "modality": modality,
            "steps": [step for step, _ in own],
            "to_prompt": None if start is None else _distances(points, start),
            "to_first": _distances(points, points[:1]),
            "to_before": [None, *_distances(points[1:], points[:-1])],
        }


def _directions(vectors: NDArray[np.float32]) -> Vectors:
    """Unit vectors (n, d); NaN where a vector is zero."""
    with np.errstate(invalid="ignore"):
        directions: Vectors = vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)
    return directions


def _distances(points: Vectors, others: Vectors) -> list[float | None]:
    """1 - cosine of rows of unit vectors, pair by pair."""
    values = 1.0 - np.einsum("ij,ij->i", points, np.broadcast_to(others, points.shape))
    return [round(float(value), 6) if np.isfinite(value) else None for value in np.maximum(values, 0.0)]
