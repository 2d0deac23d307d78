"""The process that answers questions of the analysis and makes maps: a line of JSON for a line, to the end.

Its memory is limited, its time by whoever waits; SIGINT lets it give up what it works at. The last experiment
that it was asked about stays loaded while its store does not change.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import resource
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from panic.errors import NotFound, PanicError, StoreMissing, UsageError
from panic.store import Store, reading, standing
from panic.store.annotations import run_uid
from panic.store.codec import told_json
from panic.store.store import FILES
from panic.view import sides
from panic.view.merged import Merged, numbers

if TYPE_CHECKING:
    from panic.analysis.evidence import Evidence

MEMORY_BYTES = 6 * 2**30
MOST_ROWS = 200
MOST_CONFLICTS = 20
MOST_CLUSTERED = 200_000


def main() -> None:
    """Answer what standard input asks, line by line."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    loaded = _Loaded()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    while True:
        found = _answer(json.loads(lines.get()), loaded)
        answers.write(told_json(found) + "\n")
        answers.flush()
        if found.get("kind") == "memory":
            return  # what is left of it is not to be relied upon


def _listen(lines: queue.SimpleQueue[str]) -> None:
    """Take in questions; without a server, whatever it died of, nothing is worked out to its end."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def _library() -> dict[str, Any]:
    """What draws charts, as a script, and the light and dark configurations that they are drawn with."""
    from panic.analysis.charts import THEMES, vega_bundle

    return {"library": vega_bundle(), "themes": THEMES}


def _answer(asked: Mapping[str, Any], loaded: _Loaded) -> dict[str, Any]:
    """What is answered, or {"error", "hint", "kind": what kind of error}."""
    make = {"list": _list, "question": _question, "map": _map, "side": sides.answer}
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if asked["kind"] == "library":
            return _library()
        found = make[asked["kind"]](loaded.store(asked), asked, loaded)
        found = {**found, "revision": loaded.revision, "conflicts": loaded.conflicts[:MOST_CONFLICTS]}
        told_json(found)  # what is none is found out here
        return found
    except PanicError as error:
        kinds = {NotFound: "missing", UsageError: "usage"}
        kind = next((kind for of, kind in kinds.items() if isinstance(error, of)), "")
        return {"error": error.message, "hint": error.hint, "kind": kind}
    except KeyboardInterrupt:
        return {"error": "It was given up.", "hint": "", "kind": "interrupted"}
    except MemoryError:
        hint = "The command line has no such limit: panic report, panic figure."
        return {"error": "This needs more memory than a page may use.", "hint": hint, "kind": "memory"}
    except Exception as error:  # a mistake of ours, or of a question of the user's
        told = f"The question could not be answered: {type(error).__name__}: {str(error)[:300]}"
        return {"error": told, "hint": "panic figure says more.", "kind": ""}
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Loaded:
    """The store that is asked about, and the experiment of it that was loaded last."""

    def __init__(self) -> None:
        self.revision = -1
        """Of the store when it was last asked about."""
        self._store: Store | None = None
        self._files: tuple[int, ...] = ()
        self._evidence: tuple[str, Evidence] | None = None
        self._merged = Merged()
        self._sides: dict[int, Merged] = {}
        self.conflicts: list[str] = []
        """What the stores that were last asked about do not agree in."""

    def store(self, asked: Mapping[str, Any]) -> Store:
        """The store that is asked about: `path`, or `stores` (paths by key) merged in `folder`."""
        path, stores = asked["path"], asked.get("stores", {})
        self.conflicts = []
        if len(stores) > 1 and asked["kind"] == "list":  # which asks no store, so none is merged or let go
            return self._store or self._at(path)
        if len(stores) > 1:
            path = str(self._merged.path(stores, Path(asked["folder"])))
            self.conflicts = self._merged.conflicts
        return self._at(path)

    def side(self, place: int, stores: Mapping[str, str], folder: str) -> Path:
        """Stores (paths by key) merged beside `folder`, for what is compared at a place."""
        own = Path(f"{folder}-side-{place}")
        own.mkdir(exist_ok=True)
        merged = self._sides.setdefault(place, Merged())
        found = merged.path(stores, own)
        self.conflicts = [*self.conflicts, *merged.conflicts]
        return found

    def _at(self, path: str) -> Store:
        """The store at a path: opened anew if it has changed, and what was loaded is forgotten then."""
        store, files = self._store, _files(path)
        if store is not None and files == self._files and not store.is_copy:
            if store.revision == self.revision:
                return store
        elif store is not None:
            store.close()
            store = None
        self._evidence = None
        self._store = store = store or Store(Path(path), copy_older=True)
        self._files, self.revision = files, store.revision
        return store

    def forget(self) -> None:
        """Let go of the experiment that was loaded last."""
        self._evidence = None

    def evidence(self, store: Store, experiment: str, **how: Any) -> Evidence:
        """What answers about an experiment rest on."""
        from panic.analysis.evidence import Evidence

        row = reading.experiment(store, experiment)
        key = json.dumps([row.uid, how])
        if self._evidence is None or self._evidence[0] != key:
            self._evidence = None
            self._evidence = (
                key,
                Evidence.of(store, row, is_over=standing.standing(store, row).is_over, **how),
            )
        return self._evidence[1]


def _files(path: str) -> tuple[int, ...]:
    """Which file is at the path of a store now. Raises StoreMissing."""
    try:
        about = os.stat(Path(path) / FILES[0])
    except OSError:
        raise StoreMissing("The store is gone.", hint="It was moved or removed.") from None
    return about.st_dev, about.st_ino


def _list(store: Store, asked: Mapping[str, Any], loaded: _Loaded) -> dict[str, Any]:
    """The questions that there are: name, title, what each is about."""
    from panic.analysis.questions import named

    found = []
    for name, one in named().items():
        title = one.TITLE if isinstance(one.TITLE, str) else next(iter(one.TITLE.values()))
        found.append({"question": name, "title": title, "about": (one.__doc__ or "").split("\n", 1)[0]})
    return {"questions": found}


def _question(store: Store, asked: Mapping[str, Any], loaded: _Loaded) -> dict[str, Any]:
    """The figures of a question: titles, sentences, caveats, and charts as Vega-Lite (JSON)."""
    from panic.analysis.answers import find
    from panic.analysis.charts import spec
    from panic.analysis.questions import QUESTIONS, ask

    question = find(asked["question"])
    evidence = loaded.evidence(store, asked["experiment"])
    found = [
        {
            "title": figure.title, "sentence": figure.sentence, "caveat": figure.caveat,
            "missing": figure.missing, "table": _table(figure.answer),
            "charts": [
                {"heading": heading, "spec": told_json(spec(chart))}
                for heading, chart in figure.charts.items()
            ],
        }
        for figure in ask(question, evidence)
    ]  # fmt: skip
    if question not in QUESTIONS:
        loaded.forget()  # code of others may have changed the frames that it was given
    return {"figures": found}


def _table(answer: Any) -> dict[str, Any]:
    """The first part of an answer: names of columns, at most MOST_ROWS rows as texts, how many there are."""
    from panic.analysis.parts import parts

    if answer is None:
        return {"columns": [], "rows": [], "total": 0}
    frame = next(iter(parts(answer).values()))
    rows = [
        ["" if value is None else str(value)[:200] for value in row] for row in frame.head(MOST_ROWS).rows()
    ]
    return {"columns": frame.columns, "rows": rows, "total": frame.height}


def _map(store: Store, asked: Mapping[str, Any], loaded: _Loaded) -> dict[str, Any]:
    """Every output of an experiment in two dimensions, with its run and step; clusters with their medoids."""
    evidence = loaded.evidence(store, asked["experiment"], image_budget_bytes=0)
    data = evidence.whole
    views = [view for view in evidence.views if asked["model"] in ("", view.model)]
    if not views:
        raise NotFound("There are no vectors yet.", hint="`embeddings` of a config, or panic embed.")
    view = views[0]
    steps = data.steps(*view).join(data.outputs.select("output", "digest"), on="output", how="left")
    matrix = data.matrix(view.model)
    used = steps["row"].unique().sort().to_numpy()
    if len(used) < 3:
        raise NotFound(f"A map needs 3 distinct outputs, found {len(used)}.")
    places, share = _projected(matrix[used], asked["method"])
    at = places[np.searchsorted(used, steps["row"].to_numpy())]
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = np.round((at - low) / np.maximum(high - low, 1e-12).max() * 60_000).astype(np.uint16)
    labels, medoids = _clusters(evidence, view, steps)
    return {
        "model": view.model, "modality": view.modality, "models": [one.model for one in evidence.views],
        "method": asked["method"], "share": share, "total": len(steps),
        "run": _packed(steps["run"].to_numpy().astype(np.int32)),
        "step": _packed(steps["step"].to_numpy().astype(np.int32)),
        "x": _packed(scaled[:, 0]), "y": _packed(scaled[:, 1]), "cluster": _packed(labels),
        "medoids": medoids,
        "runs": _mapped_runs(asked["stores"], evidence),
    }  # fmt: skip


def _mapped_runs(stores: Mapping[str, str], evidence: Evidence) -> list[dict[str, Any]]:
    """The runs of a map; `store` and `number`: where a run is found, whose `run` is one of merged stores."""
    name = evidence.experiment.name
    known = numbers(stores, name) if len(stores) > 1 else {}
    found = []
    for run in evidence.whole.rows:
        uid = run_uid(name, run)
        store, number = known.get(uid) or (next(iter(stores)), run.id)
        found.append({
            "run": run.id, "store": store, "number": number, "uid": uid, "network": " → ".join(run.network),
            "prompt": run.prompt[:200], "seed": run.seed, "repeat": run.repeat, "arm": run.arm,
            "state": run.state,
        })  # fmt: skip
    return found


def _projected(points: NDArray[np.float32], method: str) -> tuple[NDArray[np.float64], float | None]:
    """Places (n, 2): exact main directions from the covariance, whose size is that of one vector; or UMAP."""
    from panic.analysis.projections import umap

    if method == "umap":
        return umap(points.astype(np.float64))
    centre = points.mean(axis=0, dtype=np.float64)
    moved = points - centre.astype(np.float32)
    spread, directions = np.linalg.eigh((moved.T @ moved).astype(np.float64))
    plane = (moved @ directions[:, ::-1][:, :2].astype(np.float32)).astype(np.float64)
    if plane.shape[1] < 2:
        plane = np.column_stack([plane, np.zeros(len(plane))])
    total = float(spread.sum())
    return plane, float(spread[-2:].sum()) / total if total > 0 else 0.0


def _clusters(evidence: Any, view: Any, steps: Any) -> tuple[NDArray[np.int16], list[dict[str, Any]]]:
    """The cluster of every step (-1: none), and what stands for each cluster; none of very many outputs."""
    from panic.analysis.checks import AnalysisError
    from panic.analysis.states import states

    none = np.full(len(steps), -1, dtype=np.int16)
    if len(steps) > MOST_CLUSTERED:
        return none, []
    try:
        found = states(evidence.whole, *view)
    except AnalysisError:
        return none, []
    label_of = dict(found.frame.select("row", "label").unique().iter_rows())
    labels = np.array([label_of.get(row, -1) for row in steps["row"].to_list()], dtype=np.int16)
    medoid_rows = found.rows[found.clustering.medoids]
    digest_of = dict(steps.select("row", "digest").unique("row").iter_rows())
    run_of = dict(steps.select("row", "run").unique("row").iter_rows())
    medoids = [
        {
            "name": found.names.get(label, ""), "digest": digest_of.get(int(row), ""), "size": int(size),
            "run": run_of.get(int(row)),
        }
        for label, (row, size) in enumerate(zip(medoid_rows, found.clustering.sizes, strict=True))
    ]  # fmt: skip
    return labels, medoids


def _packed(values: NDArray[Any]) -> str:
    """Little-endian numbers as base64."""
    return base64.b64encode(
        np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"))).tobytes()
    ).decode()


if __name__ == "__main__":
    main()
