"""The canonical content of a store, for comparing stores: equal work gives equal lines.

Names are natural keys (texts, digests, fingerprints) and the order follows from them; row numbers,
sessions, batches, attempts and times do not appear. An experiment's lines come first (run by run: the
run, its invocations, interventions, stuck, repeated, failure, diagrams, vectorisations; then distances), then
outputs by digest, then vectors. What cannot be read of a damaged store is a line of the kind "damaged".
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import apsw

from panic.arms import BASELINE, model_at
from panic.errors import PanicError
from panic.store.codec import (
    PROMPT,
    canonical_json,
    decode_array,
    decode_bars,
    decode_network,
    decode_object,
    image_digest,
)
from panic.store.contents import image, interventions
from panic.store.reading import USED_OUTPUTS, Selector, arms, scope
from panic.store.reading import experiment as find_experiment
from panic.store.store import Store

Line = dict[str, Any]


def dump(store: Store, experiment: Selector | None = None) -> Iterator[Line]:
    """JSON-able lines of one experiment, or of all; one consistent state of the store."""
    with store.db.snapshot():
        wanted = None if experiment is None else find_experiment(store, experiment).id
        rows = store.db.rows("SELECT id, CAST(name AS BLOB) FROM experiment ORDER BY name")
        for id, data in rows:
            if wanted in (None, id):
                name = data.decode(errors="backslashreplace")
                yield {"kind": "experiment", "name": name}
                yield from _as_far(_runs(store, id, name), f"the runs of {name}")
        yield from _as_far(_outputs(store, experiment), "the outputs")
        yield from _as_far(_embeddings(store, experiment), "the embeddings")


def _as_far(lines: Iterator[Line], what: str) -> Iterator[Line]:
    """Lines as far as they can be read; what stops them is a line of the kind "damaged"."""
    try:
        yield from lines
    except (PanicError, apsw.Error, ValueError, TypeError, LookupError, ArithmeticError) as error:
        problem = error.message if isinstance(error, PanicError) else f"{type(error).__name__}: {error}"
        yield {"kind": "damaged", "what": what, "problem": problem}


def run_key(experiment: str, network: Sequence[str], prompt: str, *of_run: int | str) -> str:
    """What stands for a run of the experiment of this name: 16 hexadecimal digits.

    of_run: its seed and repeat, and its arm if that is not the baseline.
    """
    identity = canonical_json([experiment, list(network), prompt, *of_run])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _runs(store: Store, experiment: int, name: str) -> Iterator[Line]:
    keys: dict[int, Line] = {}
    known = arms(store, experiment)
    for id, network, prompt, seed, repeat, max_length, arm in store.db.rows(
        f"SELECT run.id, network, {PROMPT}, seed, repeat, max_length, arm FROM run"
        " JOIN output ON output.id = prompt WHERE experiment = ?"
        " ORDER BY network, 3, seed, repeat, arm <> 'baseline', arm",
        experiment,
    ):
        names = list(decode_network(network))
        in_arm = {} if arm == BASELINE else {"arm": arm}
        key = keys[id] = {"run": run_key(name, names, prompt, seed, repeat, *in_arm.values())}
        shape = {"seed": seed, "repeat": repeat, **in_arm, "max_length": max_length}
        yield {"kind": "run", **key, "network": names, "prompt": prompt, **shape}
        for step, used_seed, input, output in store.db.rows(
            "SELECT step, seed, lower(hex(a.digest)), lower(hex(b.digest)) FROM invocation AS i"
            " JOIN output AS a ON a.id = i.input JOIN output AS b ON b.id = i.output"
            " WHERE run = ? ORDER BY step",
            id,
        ):
            model = model_at(names, known.get(arm, ()), step)
            what = {"model": model, "seed": used_seed, "input": input, "output": output}
            yield {"kind": "invocation", **key, "step": step, **what}
        for one in interventions(store, id) if in_arm else ():
            called = {"model": one.model, "seed": one.seed} if one.model else {}
            what = {"intervention": one.kind, **called, "input": one.input, "output": one.output}
            yield {"kind": "intervention", **key, "step": one.step, "place": one.place, **what}
        for entry_step, period in store.db.rows("SELECT entry_step, period FROM stuck WHERE run = ?", id):
            yield {"kind": "stuck", **key, "entry_step": entry_step, "period": period}
        for row in store.db.rows("SELECT entry_step, period, times FROM repeated WHERE run = ?", id):
            yield {
                "kind": "repeated",
                **key,
                **dict(zip(("entry_step", "period", "times"), row, strict=True)),
            }
        for step, kind in store.db.rows("SELECT step, kind FROM failure WHERE run = ?", id):
            yield {"kind": "failure", **key, "step": step, "failure": kind}
        parts = {"diagram": _diagrams(store, id), "vectorisation": _vectorisations(store, id)}
        for kind, lines in parts.items():
            for line in _as_far(lines, f"a {kind} of the run"):
                yield {"kind": kind, **key, **line}
    yield from _distances(store, keys)


def _diagrams(store: Store, run: int) -> Iterator[Line]:
    for fingerprint, settings, num_points, num_unique, error, dimension, bars, generators in store.db.rows(
        "SELECT fingerprint, settings, num_points, num_unique, error, dimension, bars, generators"
        " FROM diagram JOIN model ON model.id = diagram.model"
        " JOIN diagram_bars ON diagram_bars.diagram = diagram.id"
        " WHERE run = ? ORDER BY fingerprint, settings_digest, num_points, dimension",
        run,
    ):
        yield {
            "model": fingerprint,
            "settings": decode_object(settings),
            "num_points": num_points,
            "num_unique": num_unique,
            "dimension": dimension,
            "bars": [[birth, _finite(death)] for birth, death in decode_bars(bars).tolist()],
            "generators_sha256": None if generators is None else hashlib.sha256(generators).hexdigest(),
        } | ({"error": error} if error else {})


def _vectorisations(store: Store, run: int) -> Iterator[Line]:
    for fingerprint, settings, num_points, dimension, measure, vector in store.db.rows(
        "SELECT fingerprint, diagram.settings, num_points, dimension, measure.settings, vector FROM diagram"
        " JOIN model ON model.id = diagram.model JOIN vectorisation ON vectorisation.diagram = diagram.id"
        " JOIN measure ON measure.id = measure WHERE run = ?"
        " ORDER BY fingerprint, settings_digest, num_points, dimension, digest",
        run,
    ):
        yield {
            "model": fingerprint,
            "settings": decode_object(settings),
            "num_points": num_points,
            "dimension": dimension,
            "measure": decode_object(measure),
            "values": decode_array(vector).tolist(),
        }


def _distances(store: Store, keys: dict[int, Line]) -> Iterator[Line]:
    """Lines of pairs, each from the run whose key comes first."""
    places = {run: place for place, run in enumerate(sorted(keys, key=lambda run: keys[run]["run"]))}
    lines = []
    rows = store.db.rows(
        "SELECT one.run, two.run, one.num_points, two.num_points, fingerprint, one.settings, dimension,"
        " measure.settings, distance FROM diagram AS one JOIN distance ON a = one.id"
        " JOIN diagram AS two ON two.id = b JOIN measure ON measure.id = measure"
        " JOIN model ON model.id = one.model WHERE one.run IN (SELECT value FROM json_each(?))",
        json.dumps(list(keys)),
    )
    for one, two, points_one, points_two, fingerprint, settings, dimension, measure, distance in rows:
        (_, run, points), (_, other, other_points) = sorted(
            [(places[one], one, points_one), (places[two], two, points_two)]
        )
        order = (places[run], places[other], fingerprint, settings, points, other_points, dimension, measure)
        line = {
            "other": keys[other]["run"],
            "model": fingerprint,
            "settings": decode_object(settings),
            "num_points": [points, other_points],
            "dimension": dimension,
            "measure": decode_object(measure),
            "distance": _finite(distance),
        }
        lines.append((order, {"kind": "distance", **keys[run], **line}))
    yield from (line for _, line in sorted(lines, key=lambda pair: pair[0]))


def _finite(death: float) -> float | None:
    """JSON knows no infinity."""
    return death if math.isfinite(death) else None


def _outputs(store: Store, experiment: Selector | None) -> Iterator[Line]:
    where, parameters = scope(store, experiment, f"WHERE id IN ({USED_OUTPUTS})")
    for digest, modality, text in store.db.stream(
        f"SELECT lower(hex(digest)), modality, CAST(text AS BLOB) FROM output {where} ORDER BY digest",
        *parameters,
    ):
        yield from _as_far(_output(store, digest, modality, text), f"{modality} {digest}")


def _output(store: Store, digest: str, modality: str, text: bytes | None) -> Iterator[Line]:
    if modality == "image":
        content = {"pixels": image_digest(image(store, digest)).hex()}
    else:
        content = {"text": (text or b"").decode()}
    yield {"kind": "output", "digest": digest, "modality": modality, **content}


def _embeddings(store: Store, experiment: Selector | None) -> Iterator[Line]:
    where, parameters = scope(store, experiment, f"WHERE output.id IN ({USED_OUTPUTS})")
    for fingerprint, digest, vector in store.db.stream(
        "SELECT fingerprint, lower(hex(digest)), vector FROM embedding JOIN model ON model.id = model"
        f" JOIN output ON output.id = output {where} ORDER BY fingerprint, digest",
        *parameters,
    ):
        encoded = base64.b64encode(vector).decode()
        yield {"kind": "embedding", "model": fingerprint, "output": digest, "vector": encoded}
