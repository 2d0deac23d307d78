"""A store, an experiment or some runs as polars frames and NumPy arrays, each loaded when first asked for.

Rows are streamed from SQLite into arrays without a Python loop: 1,000,000 invocations and 500,000 vectors of
256 numbers in seconds, with little more memory than the result (figures in benchmarks/results/frames.json).
The store's own connection is used, because another SQLite library in the same process would drop its locks.
Pictures are never loaded; `Store.image` has them, one by one.

    with Store("panic-store") as store:
        data = load(store, "latest")
        data.runs, data.invocations, data.outputs, data.timings
        data.bars, data.vectorisations, data.distances
        data.matrix("PocketText")                     # (n, d) float32
        data.trajectory(run, "PocketText", "text")    # (steps, d) in step order
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.errors import NotFound
from panic.store import Store, reading
from panic.store.codec import decode_array
from panic.store.files import translated

log = logging.getLogger("panic.analysis")

CHUNK = 8192  # vectors in flight: 8 MiB of 256 numbers each
ARROW = " → "
CURRENT = (
    "SELECT id, run, model, settings_digest, max(num_points) AS num_points, num_unique FROM diagram {where}"
    " GROUP BY run, model, settings_digest"
)
"""Of each run, model and settings the diagram with most points."""
MEASURED = {
    "run": pl.Int64, "model": pl.Int64, "settings_digest": pl.String, "dimension": pl.Int64,
}  # fmt: skip
INVOCATIONS = ("run", "step", "input", "output", "seed", "batch")


def load(
    store: Store,
    experiment: int | str | None = None,
    *,
    runs: Iterable[int] | None = None,
    cache: bool | Path = False,
) -> Frames:
    """Frames of one experiment (row, name, beginning of its uid, "latest"), of some runs, or of everything.

    `cache`: keep what was loaded as parquet files, in the store's folder `frames` or the one given, under the
    store's revision: any change of the store makes new ones and removes the old. Raises NotFound.
    """
    if runs is not None:
        chosen, parameters = "SELECT value FROM json_each(?1)", (json.dumps(sorted({int(r) for r in runs})),)
        return Frames(store, chosen, parameters, None, cache)
    if experiment is None:
        return Frames(store, "", (), None, cache)
    row = reading.experiment(store, experiment)
    return Frames(store, "SELECT id FROM run WHERE experiment = ?1", (row.id,), row.id, cache)


class Frames:
    """What `load` returns. A frame is loaded once and kept; the store must be open when a new one is.

    `output`, `run`, `batch` and `experiment` are the store's row numbers, and join the frames.
    """

    def __init__(
        self,
        store: Store,
        chosen: str,
        parameters: tuple[Any, ...],
        experiment: int | None,
        cache: bool | Path,
    ) -> None:
        self.store = store
        self._chosen, self._parameters, self._experiment = chosen, parameters, experiment
        self._folder = (store.path / "frames" if cache is True else Path(cache)) if cache else None
        self._matrices: dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}

    @cached_property
    def experiments(self) -> pl.DataFrame:
        """experiment, uid, name, created_at, config (JSON)."""
        used = set(self.runs["experiment"]) | ({self._experiment} - {None})
        rows = [r for r in reading.experiments(self.store) if not self._chosen or r.id in used]
        schema = {"experiment": pl.Int64, "uid": pl.String, "name": pl.String, "created_at": pl.Float64}
        return pl.DataFrame(
            [(r.id, r.uid, r.name, r.created_at, json.dumps(r.config)) for r in rows],
            schema={**schema, "config": pl.String},
            orient="row",
        )

    @cached_property
    def runs(self) -> pl.DataFrame:
        """One row per run: what it is, its state and number of steps, its entry step and period if stuck."""
        rows = reading.runs(self.store, self._experiment)
        if self._chosen and self._experiment is None:
            asked = set(json.loads(self._parameters[0]))
            rows = [r for r in rows if r.id in asked]
            if missing := asked - {r.id for r in rows}:
                raise NotFound(f"No run {', '.join(map(str, sorted(missing)[:5]))} in {self.store.path}.")
        schema = {
            "experiment": pl.Int64, "run": pl.Int64, "network": pl.String, "num_models": pl.Int64,
            "prompt": pl.String, "seed": pl.Int64, "repeat": pl.Int64, "max_length": pl.Int64,
            "num_steps": pl.Int64, "state": pl.String, "entry_step": pl.Int64, "period": pl.Int64,
            "failure": pl.String,
        }  # fmt: skip
        table = [
            (
                r.experiment, r.id, ARROW.join(r.network), len(r.network), r.prompt, r.seed, r.repeat,
                r.max_length, r.num_steps, r.state, r.entry_step, r.period, r.failure and r.failure.message,
            )
            for r in rows
        ]  # fmt: skip
        return pl.DataFrame(table, schema=schema, orient="row")

    @cached_property
    def invocations(self) -> pl.DataFrame:
        """One row per step: run, step, model, modality (of the output), input, output, seed, batch."""
        return self._cached("invocations", self._load_invocations)

    @cached_property
    def outputs(self) -> pl.DataFrame:
        """One row per distinct output, prompts included: output, digest, modality, text, width, height."""
        return self._cached("outputs", self._load_outputs)

    @cached_property
    def timings(self) -> pl.DataFrame:
        """One row per model call: batch, session, model, device, sizes, started_at, duration_s."""
        where = (
            f"WHERE id IN (SELECT batch FROM invocation WHERE run IN ({self._chosen}))"
            if self._chosen
            else ""
        )
        rows = self._rows(
            f"SELECT id, session, model, device, size, padded_size, started_at, duration_s FROM batch {where}"
        )
        schema = {
            "batch": pl.Int64, "session": pl.Int64, "model": pl.Int64, "device": pl.String, "size": pl.Int64,
            "padded_size": pl.Int64, "started_at": pl.Float64, "duration_s": pl.Float64,
        }  # fmt: skip
        return self._with_model_names(pl.DataFrame(rows, schema=schema, orient="row"))

    @cached_property
    def bars(self) -> pl.DataFrame:
        """One row per bar: run, model, settings_digest, num_points, num_unique, dimension, birth, death.

        Of each run, model and settings the diagram with most points.
        """
        rows = self._rows(
            "SELECT run, model, settings_digest, num_points, num_unique, dimension, bars"
            " FROM ({current}) AS d JOIN diagram_bars ON diagram = d.id"
            " ORDER BY run, model, settings_digest, dimension"
        )
        counts = np.array([len(row[6]) // 16 for row in rows], dtype=np.int64)
        ends = np.frombuffer(b"".join(row[6] for row in rows), "<f8").reshape(-1, 2)
        schema = {
            "run": pl.Int64, "model": pl.Int64, "settings_digest": pl.String, "num_points": pl.Int64,
            "num_unique": pl.Int64, "dimension": pl.Int64,
        }  # fmt: skip
        named = self._with_model_names(pl.DataFrame([row[:6] for row in rows], schema=schema, orient="row"))
        places = np.repeat(np.arange(len(rows)), counts)
        return named[places].with_columns(birth=pl.Series(ends[:, 0]), death=pl.Series(ends[:, 1]))

    @cached_property
    def vectorisations(self) -> pl.DataFrame:
        """One row each: run, model, settings_digest, dimension, kind, settings (JSON), shape, values.

        Of the diagrams in `bars`; `values` is the array row by row, a list of one for an entropy.
        """
        rows = self._rows(
            "SELECT run, model, settings_digest, dimension, settings ->> 'kind', settings, vector"
            " FROM ({current}) AS d JOIN vectorisation ON diagram = d.id JOIN measure ON measure.id = measure"
            " ORDER BY run, model, settings_digest, measure, dimension"
        )
        arrays = [decode_array(row[-1]) for row in rows]
        schema = MEASURED | {"kind": pl.String, "settings": pl.String}
        heads = pl.DataFrame([row[:-1] for row in rows], schema=schema, orient="row")
        return self._with_model_names(heads).with_columns(
            shape=pl.Series([list(a.shape) for a in arrays], dtype=pl.List(pl.Int64)),
            values=pl.Series([a.ravel().tolist() for a in arrays], dtype=pl.List(pl.Float64)),
        )

    @cached_property
    def distances(self) -> pl.DataFrame:
        """One row per pair of runs: run, other (> run), and as `vectorisations`, with distance.

        Of the diagrams in `bars`; infinite where their numbers of endless bars differ.
        """
        rows = self._rows(
            "SELECT min(d.run, e.run), max(d.run, e.run), d.model, d.settings_digest, dimension,"
            " settings ->> 'kind', settings, distance"
            " FROM ({current}) AS d JOIN distance ON a = d.id JOIN ({current}) AS e ON b = e.id"
            " JOIN measure ON measure.id = measure ORDER BY 1, 2, 3, 4, measure, dimension"
        )
        schema = {"run": pl.Int64, "other": pl.Int64} | MEASURED
        schema |= {"kind": pl.String, "settings": pl.String, "distance": pl.Float64}
        return self._with_model_names(pl.DataFrame(rows, schema=schema, orient="row"))

    @cached_property
    def annotations(self) -> pl.DataFrame:
        """Remarks of people on anything in the store: target_kind, target, kind, text, author, at."""
        names = ("target_kind", "target", "kind", "text", "author", "at")
        rows = [tuple(getattr(row, name) for name in names) for row in reading.list_annotations(self.store)]
        schema = {name: pl.Float64 if name == "at" else pl.String for name in names}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def embeddings(self, model: int | str) -> pl.DataFrame:
        """output and its vector, a fixed-size array column; shares the memory of `matrix`."""
        outputs, matrix = self._vectors(model)
        if not len(outputs):
            return pl.DataFrame(schema={"output": pl.Int64, "vector": pl.Array(pl.Float32, 1)})
        return pl.DataFrame({"output": outputs, "vector": pl.Series("vector", matrix)})

    def matrix(self, model: int | str) -> NDArray[np.float32]:
        """All vectors (n, d) of a model in the order of `embeddings`; (0, 0) without any."""
        return self._vectors(model)[1]

    def trajectory(self, run: int, model: int | str, modality: str) -> NDArray[np.float32]:
        """Vectors (steps, d) of a run's outputs of one modality, in step order.

        NotFound when one of them has no vector.
        """
        outputs, matrix = self._vectors(model)
        of_run = self.invocations.filter(pl.col("run") == run, pl.col("modality") == modality)["output"]
        place = np.searchsorted(outputs, of_run.to_numpy())
        place_in = np.minimum(place, max(len(outputs) - 1, 0))
        if len(of_run) and (not len(outputs) or (outputs[place_in] != of_run.to_numpy()).any()):
            raise NotFound(f"Run {run} has {modality} outputs without a vector under {model}.")
        return matrix[place_in]

    def _vectors(self, model: int | str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        row = reading.model(self.store, model)
        if row.fingerprint not in self._matrices:
            frame = self._cached(f"embeddings-{row.fingerprint[:16]}", lambda: self._load_vectors(row.id))
            vectors = frame["vector"].to_numpy() if len(frame) else np.empty((0, 0), np.float32)
            self._matrices[row.fingerprint] = frame["output"].to_numpy(), vectors
        return self._matrices[row.fingerprint]

    def _load_vectors(self, model: int) -> pl.DataFrame:
        of = f"FROM embedding WHERE model = {int(model)}" + self._of_outputs(" AND output IN ({outputs})")
        count, dimension = self.store.db.row(
            f"SELECT count(*), coalesce(max(dimension), 1) {of}", *self._parameters
        )
        flat = chain.from_iterable(self._execute(f"SELECT output {of} ORDER BY output"))
        outputs = np.fromiter(flat, dtype=np.int64, count=count)
        vectors = np.empty((count, dimension), dtype=np.float32)
        blobs = chain.from_iterable(self._execute(f"SELECT vector {of} ORDER BY output"))
        for start in range(0, count, CHUNK):
            some = np.frombuffer(b"".join(islice(blobs, CHUNK)), "<f4").reshape(-1, dimension)
            vectors[start : start + len(some)] = some
        series = (
            pl.Series("vector", vectors)
            if count
            else pl.Series("vector", [], pl.Array(pl.Float32, dimension))
        )
        return pl.DataFrame({"output": outputs, "vector": series})

    def _load_invocations(self) -> pl.DataFrame:
        where = f"WHERE run IN ({self._chosen})" if self._chosen else ""
        count = self.store.db.value(f"SELECT count(*) FROM invocation {where}", *self._parameters)
        rows = self._execute(f"SELECT {', '.join(INVOCATIONS)} FROM invocation {where} ORDER BY run, step")
        table = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=count * len(INVOCATIONS))
        table = table.reshape(count, len(INVOCATIONS))
        frame = pl.DataFrame({name: table[:, place] for place, name in enumerate(INVOCATIONS)})
        batches = np.array(self._execute("SELECT id, model FROM batch").fetchall(), dtype=np.int64).reshape(
            -1, 2
        )
        models = reading.models(self.store)
        kinds = {m.id: m.spec.get("modality_out") for m in models}
        model_of = pl.DataFrame({"batch": batches[:, 0], "model": batches[:, 1]}).with_columns(
            pl.col("model").replace_strict(self._names(), return_dtype=pl.Categorical),
            modality=pl.col("model").replace_strict(kinds, return_dtype=pl.Categorical),
        )
        joined = frame.join(model_of, on="batch", how="left", maintain_order="left")
        return joined.select("run", "step", "model", "modality", "input", "output", "seed", "batch")

    def _load_outputs(self) -> pl.DataFrame:
        where = self._of_outputs("WHERE id IN ({outputs})")
        rows = self._execute(
            f"SELECT id, lower(hex(digest)), modality, text, width, height FROM output {where}"
        )
        schema = {
            "output": pl.Int64, "digest": pl.String, "modality": pl.String, "text": pl.String,
            "width": pl.Int64, "height": pl.Int64,
        }  # fmt: skip
        columns = zip(*rows.fetchall(), strict=True)
        values = list(columns) or [()] * len(schema)
        return pl.DataFrame(
            {
                name: pl.Series(name, column, kind)
                for (name, kind), column in zip(schema.items(), values, strict=True)
            }
        ).sort("output")

    def _of_outputs(self, clause: str) -> str:
        if not self._chosen:
            return ""
        used = (
            f"SELECT prompt FROM run WHERE id IN ({self._chosen}) UNION"
            f" SELECT output FROM invocation WHERE run IN ({self._chosen})"
        )
        return clause.format(outputs=used)

    def _rows(self, sql: str) -> list[Any]:
        """All rows; `{current}` stands for the diagrams with most points of the chosen runs."""
        where = f"WHERE run IN ({self._chosen})" if self._chosen else ""
        rows: list[Any] = self._execute(sql.replace("{current}", CURRENT.format(where=where))).fetchall()
        return rows

    def _execute(self, sql: str) -> Any:
        """A cursor; its rows are iterated in C, other than those of `Database.stream`."""
        with translated(self.store.db.path):
            return self.store.db.connection.execute(sql, self._parameters if "?1" in sql else ())

    def _with_model_names(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.col("model").replace_strict(self._names(), return_dtype=pl.String))

    def _names(self) -> dict[int, str]:
        return {model.id: model.name for model in reading.models(self.store)}

    def _cached(self, name: str, load: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        if self._folder is None:
            return load()
        uids = "".join(row.uid for row in reading.experiments(self.store))
        scope = hashlib.sha256(f"{uids}{self._chosen}{self._parameters}".encode()).hexdigest()[:16]
        path = self._folder / f"{name}-{scope}-r{self.store.revision}.parquet"
        if path.exists():
            try:
                return pl.read_parquet(path)
            except (pl.exceptions.PolarsError, OSError) as error:
                log.warning("%s is no frame (%s) and is made anew", path, error)
        frame = load()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            try:
                frame.write_parquet(temporary, compression="lz4")
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            log.warning("no frames are kept in %s: %s", self._folder, error.strerror or error)
            return frame
        for old in self._folder.glob(f"{name}-{scope}-r*.parquet"):
            if old != path:
                old.unlink(missing_ok=True)
        return frame
