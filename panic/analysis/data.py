"""A store, an experiment or some runs as polars frames and NumPy arrays, each loaded when first asked for.

Columns come from `store.bulk`, without a Python loop. Images are never loaded: `store.contents` has them, one
by one.

    with Store("panic-store") as store:
        data = load(store, "latest")
        data.runs, data.invocations, data.outputs, data.timings
        data.bars, data.vectorisations, data.distances
        data.matrix("PocketText")                     # (n, d) float32
        data.steps("PocketText", "text")              # stored steps of a modality, their rows of the matrix
        data.visits("PocketText", "text")             # where runs are at each step: stuck ones go on
        data.ends("PocketText", "text")               # where runs are at the end of their full length
        data.trajectory(run, "PocketText", "text")    # (steps, d) in step order
        data.part([1, 2])                             # some of the runs; what is known is not read again
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from panic.analysis.grouping import course_name, network_name
from panic.analysis.whereabouts import at_end, continued
from panic.arms import Arm, last_network, period_of
from panic.errors import NotFound
from panic.store import Store, bulk, reading, tombstones
from panic.store.annotations import list_annotations
from panic.store.codec import decode_array, decode_bars, sound_config
from panic.store.files import refuse_link
from panic.store.records import EpochRow, ModelRow, RunRow

log = logging.getLogger("panic.analysis")

Vectors = NDArray[np.float32]
FOR_EVER = 2**62
"""Steps after which interventions come round that do so later than any run is long, and later than fits."""
MEASURED = {
    "run": pl.Int64, "model": pl.Int64, "settings_digest": pl.String, "dimension": pl.Int64,
}  # fmt: skip


def load(
    store: Store,
    experiment: int | str | None = None,
    *,
    runs: Iterable[int] | None = None,
    cache: bool | Path = False,
) -> ExperimentData:
    """The data of one experiment (row, name, beginning of its uid, "latest"), of some runs, or of everything.

    `cache`: keep what was loaded as parquet files, in the store's folder `frames` or the one given, under the
    store's revision: any change of the store makes new ones and removes the old. Raises NotFound.
    """
    folder = (store.path / "frames" if cache is True else Path(cache)) if cache else None
    if folder and cache is True:
        refuse_link(folder)
    if runs is not None:
        return ExperimentData(store, bulk.Scope.of_runs(runs), folder=folder)
    if experiment is None and tombstones.deleted(store):
        visible = [row.id for row in reading.runs(store)]
        return ExperimentData(store, bulk.Scope.of_runs(visible), folder=folder)
    if experiment is None:
        return ExperimentData(store, bulk.Scope(), folder=folder)
    row = reading.experiment(store, experiment).id
    return ExperimentData(store, bulk.Scope.of_experiment(row), experiment=row, folder=folder)


class ExperimentData:
    """What `load` returns. A frame is loaded once and kept; the store must be open when a new one is.

    `output`, `run`, `batch` and `experiment` are the store's row numbers, and join the frames.
    """

    def __init__(
        self,
        store: Store,
        scope: bulk.Scope,
        *,
        experiment: int | None = None,
        folder: Path | None = None,
        whole: ExperimentData | None = None,
    ) -> None:
        self.store = store
        self._scope, self._experiment, self._folder, self._whole = scope, experiment, folder, whole
        self._matrices: dict[str, tuple[NDArray[np.int64], Vectors]] = {}
        self._steps: dict[tuple[int | str, str], pl.DataFrame] = {}

    def part(self, runs: Iterable[int]) -> ExperimentData:
        """The data of some of these runs; models, runs and bars, which are there for all, are not read again.

        The rest is loaded for these runs only, since vectors of all runs may be many.
        """
        return ExperimentData(
            self.store, bulk.Scope.of_runs(runs), folder=self._folder, whole=self._whole or self
        )

    @cached_property
    def models(self) -> list[ModelRow]:
        """Every model of the store, with its specification parsed."""
        return self._whole.models if self._whole else reading.models(self.store)

    def model(self, model: int | str) -> ModelRow:
        """A model by row, fingerprint or name: the one used in this experiment, else the newest. NotFound."""
        used = {epoch.name: epoch.model for epoch in self.epochs}
        chosen = used.get(model, model) if isinstance(model, str) else model
        found = [row for row in self.models if chosen in (row.id, row.fingerprint, row.name)]
        return found[-1] if found else reading.model(self.store, model)  # which says what there is

    @cached_property
    def epochs(self) -> list[EpochRow]:
        """The shape epochs of the experiment; none of a store or of runs."""
        if self._whole:
            return self._whole.epochs
        return reading.epochs(self.store, self._experiment) if self._experiment is not None else []

    @cached_property
    def rows(self) -> list[RunRow]:
        """The runs as the store's records, in the order in which they were asked for."""
        rows = self._whole.rows if self._whole else reading.runs(self.store, self._experiment)
        if not self._scope.runs or self._experiment is not None:
            return rows
        asked = set(json.loads(self._scope.parameters[0]))
        rows = [row for row in rows if row.id in asked]
        if missing := asked - {row.id for row in rows}:
            raise NotFound(f"No run {', '.join(map(str, sorted(missing)[:5]))} in {self.store.path}.")
        return rows

    @cached_property
    def experiments(self) -> pl.DataFrame:
        """experiment, uid, name, created_at, config (JSON)."""
        used = set(self.runs["experiment"]) | ({self._experiment} - {None})
        rows = [r for r in reading.experiments(self.store) if not self._scope.runs or r.id in used]
        schema = {"experiment": pl.Int64, "uid": pl.String, "name": pl.String, "created_at": pl.Float64}
        return pl.DataFrame(
            [(r.id, r.uid, r.name, r.created_at, json.dumps(r.config)) for r in rows],
            schema={**schema, "config": pl.String},
            orient="row",
        )

    @cached_property
    def runs(self) -> pl.DataFrame:
        """One row per run: what it is, its state and number of steps, its entry step and period if stuck.

        network: with the arm, if anything steps into the run: what runs are grouped by; plain_network is
        without. is_repeatable: whether all its models are. map: a number, alike for runs whose future follows
        alike from a state, which is an output and the step modulo `round`: of one network in the end, and
        with the same interventions that come again. tags (parted by commas), group: those of the prompt.
        """
        schema = {
            "experiment": pl.Int64, "run": pl.Int64, "network": pl.String, "num_models": pl.Int64,
            "prompt": pl.String, "seed": pl.Int64, "repeat": pl.Int64, "max_length": pl.Int64,
            "num_steps": pl.Int64, "state": pl.String, "entry_step": pl.Int64, "period": pl.Int64,
            "failure": pl.String, "is_repeatable": pl.Boolean, "plain_network": pl.String,
            "arm": pl.String, "map": pl.Int64, "round": pl.Int64,
            "tags": pl.String, "group": pl.String,
        }  # fmt: skip
        labels = self._labels
        maps: dict[Any, int] = {}
        table = [
            (
                r.experiment, r.id, course_name(r), len(r.network), r.prompt, r.seed, r.repeat,
                r.max_length, r.num_steps, r.state, r.entry_step, r.period, r.failure and r.failure.message,
                r.is_repeatable, network_name(r.network), r.arm, *self._map_of(r, maps),
                *labels[r.experiment].get(r.prompt, ("", None)),
            )
            for r in self.rows
        ]  # fmt: skip
        return pl.DataFrame(table, schema=schema, orient="row")

    @cached_property
    def arms(self) -> dict[int, dict[str, Arm]]:
        """What the arms mean, by experiment (row number) and name."""
        if self._whole:
            return self._whole.arms
        return {of: reading.arms(self.store, of) for of in {row.experiment for row in self.rows}}

    @cached_property
    def _labels(self) -> dict[int, dict[str, tuple[str, str | None]]]:
        """Tags and group by experiment and prompt, where a prompt has any."""
        if self._whole:
            return self._whole._labels
        used = {row.experiment for row in self.rows}
        known = {
            row.id: sound_config(row.config).get("labels")
            for row in reading.experiment_rows(self.store, list(used))
        }
        return {
            of: {
                prompt: (", ".join(map(str, said.get("tags", ()))), said.get("group"))
                for prompt, said in labels.items()
                if isinstance(said, dict)
            }
            for of, labels in ((of, found if isinstance(found, dict) else {}) for of, found in known.items())
        }

    def _map_of(self, run: RunRow, maps: dict[Any, int]) -> tuple[int, int]:
        """The number of what a run's future follows from beside its state, and the steps of its phases."""
        arm = self.arms[run.experiment].get(run.arm, ())
        again = tuple(one for one in arm if one.every is not None)
        number = maps.setdefault((last_network(run.network, arm), again), len(maps))
        return number, min(period_of(run.network, arm), FOR_EVER) if again else 1

    @cached_property
    def interventions(self) -> pl.DataFrame:
        """One row per intervention: run, step that it was made before, place, kind, input, output."""
        schema = {
            "run": pl.Int64, "step": pl.Int64, "place": pl.Int64, "kind": pl.String, "input": pl.Int64,
            "output": pl.Int64,
        }  # fmt: skip
        return pl.DataFrame(bulk.interventions(self.store, self._scope), schema=schema, orient="row")

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
        schema = {
            "batch": pl.Int64, "session": pl.Int64, "model": pl.Int64, "device": pl.String, "size": pl.Int64,
            "padded_size": pl.Int64, "started_at": pl.Float64, "duration_s": pl.Float64,
        }  # fmt: skip
        rows = bulk.batches(self.store, self._scope)
        return self._with_model_names(pl.DataFrame(rows, schema=schema, orient="row"))

    @cached_property
    def bars(self) -> pl.DataFrame:
        """Bars: run, model, settings_digest, num_points, num_unique, dimension, metric, birth, death.

        They are those of the diagram with most points of each run, model and settings.
        """
        if self._whole:
            return self._whole.bars.filter(pl.col("run").is_in([row.id for row in self.rows]))
        rows = bulk.bars(self.store, self._scope)
        arrays = [decode_bars(row[-1]) for row in rows]
        counts = np.array([len(array) for array in arrays], dtype=np.int64)
        ends = np.concatenate([np.empty((0, 2)), *arrays])
        schema = {
            "run": pl.Int64, "model": pl.Int64, "settings_digest": pl.String, "num_points": pl.Int64,
            "num_unique": pl.Int64, "dimension": pl.Int64, "metric": pl.String,
        }  # fmt: skip
        named = self._with_model_names(pl.DataFrame([row[:-1] for row in rows], schema=schema, orient="row"))
        places = np.repeat(np.arange(len(rows)), counts)
        return named[places].with_columns(birth=pl.Series(ends[:, 0]), death=pl.Series(ends[:, 1]))

    def bars_under(self, model: str) -> pl.DataFrame:
        """The `bars` of a model, of the first settings of diagrams that are asked for and that it has.

        Bars of several metrics or modalities have no scale in common.
        """
        from panic.config.diagrams import DiagramSettings, one_or_several  # pydantic and yaml take 0.2 s

        whole = self._whole or self
        found = pl.col("model") == model
        there = whole.bars.filter(found)["settings_digest"].unique(maintain_order=True).to_list()
        configs = map(json.loads, whole.experiments["config"] if len(there) > 1 else [])
        asked = [one for config in configs for one in one_or_several(sound_config(config).get("diagrams"))]
        digests = [DiagramSettings.model_validate(one).digest for one in asked]
        first = next((digest for digest in digests if digest in there), there[0] if there else "")
        return self.bars.filter(found, pl.col("settings_digest") == first)

    @cached_property
    def vectorisations(self) -> pl.DataFrame:
        """One row each: run, model, settings_digest, dimension, kind, settings (JSON), shape, values.

        They are of the diagrams in `bars`; `values` is the array row by row, a list of one for an entropy.
        """
        rows = bulk.vectorisations(self.store, self._scope)
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

        They are of the diagrams in `bars`; infinite where their numbers of endless bars differ.
        """
        schema = {"run": pl.Int64, "other": pl.Int64} | MEASURED
        schema |= {"kind": pl.String, "settings": pl.String, "distance": pl.Float64}
        rows = bulk.distances(self.store, self._scope)
        return self._with_model_names(pl.DataFrame(rows, schema=schema, orient="row"))

    @cached_property
    def annotations(self) -> pl.DataFrame:
        """Remarks of people on anything in the store: target_kind, target, kind, text, author, at."""
        names = ("target_kind", "target", "kind", "text", "author", "at")
        rows = [tuple(getattr(row, name) for name in names) for row in list_annotations(self.store)]
        schema = {name: pl.Float64 if name == "at" else pl.String for name in names}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def embeddings(self, model: int | str) -> pl.DataFrame:
        """output and its vector, a fixed-size array column; shares the memory of `matrix`."""
        outputs, matrix = self._vectors(model)
        if not len(outputs):
            return pl.DataFrame(schema={"output": pl.Int64, "vector": pl.Array(pl.Float32, 1)})
        return pl.DataFrame({"output": outputs, "vector": pl.Series("vector", matrix)})

    def matrix(self, model: int | str) -> Vectors:
        """All vectors (n, d) of a model in the order of `embeddings`; (0, 0) without any."""
        return self._vectors(model)[1]

    def places(self, model: int | str) -> pl.DataFrame:
        """output, and the row of the matrix that its vector is."""
        outputs, _ = self._vectors(model)
        return pl.DataFrame({"output": outputs}, schema={"output": pl.Int64}).with_row_index("row")

    def steps(self, model: int | str, modality: str) -> pl.DataFrame:
        """Stored steps whose output has a vector: what the run is, step, output, row of the matrix.

        `seed` is the run's, -1 for fresh noise. The steps are of one modality, because an alternating loop
        resembles itself at lag 2 by construction.
        """
        if (model, modality) not in self._steps:
            steps = self._written(modality)
            self._steps[model, modality] = self._described(steps, model).sort("run", "step")
        return self._steps[model, modality]

    def visits(self, model: int | str, modality: str) -> pl.DataFrame:
        """Where runs are, step by step: `steps`, and those that stuck runs were spared (`is_known`)."""
        stored = self.runs.select("run", "num_steps")
        whole = continued(self.steps(model, modality), self.runs)
        whole = whole.join(stored, on="run", maintain_order="left")
        return whole.with_columns(is_known=pl.col("step") >= pl.col("num_steps")).drop("num_steps")

    def ends(self, model: int | str, modality: str) -> pl.DataFrame:
        """Where runs are at the end of their full length, one row per run with the columns of `steps`.

        Failed runs, those that have not ended, and those whose last output has no vector are left out.
        """
        return self._described(at_end(self._written(modality), self.runs), model).sort("run")

    def _written(self, modality: str) -> pl.DataFrame:
        """run, step, output of the stored steps that wrote this modality."""
        return self.invocations.filter(pl.col("modality").cast(pl.String) == modality).select(
            "run", "step", "output"
        )

    def _described(self, steps: pl.DataFrame, model: int | str) -> pl.DataFrame:
        """Those of the steps whose output has a vector, with what their run is and the vector's row."""
        names = ("run", "network", "prompt", "seed", "repeat", "arm")
        joined = steps.join(self.places(model), on="output").join(self.runs.select(names), on="run")
        return joined.select(*names, "step", "output", "row")

    def trajectory(self, run: int, model: int | str, modality: str) -> Vectors:
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

    def trajectories(
        self, model: int | str, modality: str, *, least: int = 2
    ) -> Iterator[tuple[int, Vectors]]:
        """Every run that has at least `least` vectors of a modality, (steps, d) in step order."""
        matrix = self.matrix(model)
        for (run,), group in self.steps(model, modality).group_by("run", maintain_order=True):
            if len(group) >= least:
                yield int(run), matrix[group["row"].to_numpy()]

    def modality_of(self, model: int | str) -> str:
        """What a model's vectors stand for: the modality that it reads and the loops write; text first.

        NotFound if it has no vectors.
        """
        written = self.invocations.join(self.places(model), on="output", how="semi")
        found = written["modality"].cast(pl.String).unique().sort(descending=True).to_list()
        if not found:
            raise NotFound(f"There are no vectors of {model} yet.")
        return str(found[0])

    def _vectors(self, model: int | str) -> tuple[NDArray[np.int64], Vectors]:
        row = self.model(model)
        if row.fingerprint not in self._matrices:
            frame = self._cached(f"embeddings-{row.fingerprint[:16]}", lambda: self._load_vectors(row.id))
            vectors = frame["vector"].to_numpy() if len(frame) else np.empty((0, 0), np.float32)
            self._matrices[row.fingerprint] = frame["output"].to_numpy(), vectors
        return self._matrices[row.fingerprint]

    def _load_vectors(self, model: int) -> pl.DataFrame:
        outputs, vectors = bulk.vectors(self.store, self._scope, model)
        vectors[~np.isfinite(vectors).all(axis=1)] = 0  # of no direction, as a vector of zeros
        series = (
            pl.Series("vector", vectors)
            if len(outputs)
            else pl.Series("vector", [], pl.Array(pl.Float32, vectors.shape[1]))
        )
        return pl.DataFrame({"output": outputs, "vector": series})

    def _load_invocations(self) -> pl.DataFrame:
        table = bulk.steps(self.store, self._scope)
        frame = pl.DataFrame({name: table[:, place] for place, name in enumerate(bulk.STEP_COLUMNS)})
        batches = bulk.batch_models(self.store, self._scope)
        names = {m.id: m.name for m in self.models}
        kinds = {m.id: m.spec.get("modality_out") for m in self.models}
        model_of = pl.DataFrame({"batch": batches[:, 0], "model": batches[:, 1]}).with_columns(
            pl.col("model").replace_strict(names, return_dtype=pl.Categorical),
            modality=pl.col("model").replace_strict(kinds, return_dtype=pl.Categorical),
        )
        joined = frame.join(model_of, on="batch", how="left", maintain_order="left")
        return joined.select("run", "step", "model", "modality", "input", "output", "seed", "batch")

    def _load_outputs(self) -> pl.DataFrame:
        schema = {
            "output": pl.Int64, "digest": pl.String, "modality": pl.String, "text": pl.String,
            "width": pl.Int64, "height": pl.Int64,
        }  # fmt: skip
        columns = list(zip(*bulk.outputs(self.store, self._scope), strict=True)) or [()] * len(schema)
        named = zip(schema.items(), columns, strict=True)
        return pl.DataFrame({name: pl.Series(name, column, kind) for (name, kind), column in named})

    def _with_model_names(self, frame: pl.DataFrame) -> pl.DataFrame:
        names = {model.id: model.name for model in self.models}
        return frame.with_columns(pl.col("model").replace_strict(names, return_dtype=pl.String))

    def _cached(self, name: str, load: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        """What `load` gives, or the parquet file that an earlier call of it left at the same revision."""
        if self._folder is None:
            return load()
        uids = "".join(row.uid for row in reading.experiments(self.store))
        scope = hashlib.sha256(f"{uids}{self._scope.runs}{self._scope.parameters}".encode()).hexdigest()[:16]
        path = self._folder / f"{name}-{scope}-r{self.store.revision}.parquet"
        if path.exists():
            try:
                with path.open("rb") as file:  # polars itself finds names of UTF-8 alone
                    return pl.read_parquet(file)
            except (pl.exceptions.PolarsError, OSError) as error:
                log.warning("%s is no frame (%s) and is made anew", path, error)
        frame = load()
        try:
            _keep(frame, path)
        except OSError as error:
            log.warning("no frames are kept in %s: %s", self._folder, error.strerror or error)
            return frame
        for old in self._folder.glob(f"{name}-{scope}-r*.parquet"):
            if old != path:
                old.unlink(missing_ok=True)
        return frame


def _keep(frame: pl.DataFrame, path: Path) -> None:
    """Write a parquet file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            frame.write_parquet(file, compression="lz4")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
