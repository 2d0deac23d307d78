"""Metrics of runs and experiments that were worked out once: columns of listings, and what filters ask for.

They are kept beside the store (`panic.store.summaries`), by the stamp of an experiment's results and the
version of their definitions; a listing works out what is lacking. An experiment's is the mean over its runs.

    find(store, "drift > 0.3", columns=["name", "drift"], sort="-drift")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from panic.analysis.metrics import METRICS, VERSION, metric
from panic.store import summaries
from panic.store.finding import found
from panic.store.finding.fields import FIELDS, Asked, Fields, Metric, Target
from panic.store.store import Store

if TYPE_CHECKING:
    import apsw
    import polars as pl

TOGETHER = 200  # experiments whose results are loaded at once
Tell = Callable[[str, int, int], None]
Telling = Callable[[], AbstractContextManager[Tell]]
"""Begins to tell how far something is."""
OF_RUNS = frozenset(field.name for field in FIELDS if field.of == "run")


def mean_name(name: str) -> str:
    """What a mean is called as a field of experiments, where plain names of runs are taken."""
    return f"mean_{name}" if name in OF_RUNS else name


def fields(telling: Telling = lambda: nullcontext(lambda what, done, total: None)) -> Fields:
    """All fields that there are, those of metrics included, which are worked out when they are asked for."""
    of_runs = [name for name in METRICS if name not in OF_RUNS]
    metrics = [Metric(name=n, of="run", about=METRICS[n].what, example=METRICS[n].example) for n in of_runs]
    for name, one in METRICS.items():
        example = one.example.replace(name, mean_name(name))
        about = f"mean over runs: {one.what}"
        metrics.append(Metric(name=mean_name(name), of="experiment", about=about, example=example))
    return Fields(metrics, lambda store, asked, rows: show(store, asked, rows, telling))


def find(
    store: Store,
    where: str | None = None,
    *,
    of: Target = "experiment",
    columns: Sequence[str] | None = None,
    sort: str = "",
) -> list[dict[str, Any]]:
    """Return the experiments, runs or trainings that a filter finds, as dictionaries by the names of columns.

    Times are Unix seconds, several texts (tags, the models of a network) a list. `panic fields` lists what
    can be named. Raises FilterError, which points at the place, and UsageError for a column or an order.
    """
    return found.find(store, where, of=of, columns=columns, sort=sort, fields=fields())


def means(store: Store, name: str, experiments: Sequence[int] | None = None) -> dict[int, tuple[float, int]]:
    """The mean of a metric over the runs that have it, and their number, by row of experiment."""

    def take(file: apsw.Connection) -> dict[int, tuple[float, int]]:
        of = _brought_up(store, file, [name], experiments, None)
        numbers = summaries.num_measured(file, name)
        return {of[u]: (mean, numbers[u]) for u, mean in summaries.means(file, name).items() if u in of}

    return summaries.using(store, take)


def show(
    store: Store, asked: Asked, experiments: Sequence[int] | None, telling: Telling | None = None
) -> None:
    """Put metrics, by the names of fields, into the tables of this connection that `finding.fields` joins."""
    wanted = [name for name in METRICS if name in asked.of_runs or mean_name(name) in asked.of_experiments]
    values: dict[int, dict[str, float]] = {}
    averages: dict[int, dict[str, float]] = {}

    def take(file: apsw.Connection) -> None:
        of = _brought_up(store, file, wanted, experiments, telling)
        for name in wanted:
            if name in asked.of_runs:
                for uid, run, value in summaries.run_values(file, name):
                    if uid in of:
                        values.setdefault(run, {})[name] = value
            if mean_name(name) in asked.of_experiments:
                for uid, mean in summaries.means(file, name).items():
                    if uid in of:
                        averages.setdefault(of[uid], {})[mean_name(name)] = mean

    summaries.using(store, take)
    summaries.show(store, "run", asked.of_runs, values)
    summaries.show(store, "experiment", asked.of_experiments, averages)


def _brought_up(
    store: Store,
    file: apsw.Connection,
    names: Sequence[str],
    experiments: Sequence[int] | None,
    telling: Telling | None,
) -> dict[str, int]:
    """Work out what is lacking of metrics of experiments; the rows of these experiments by uid."""
    wanted = summaries.stamps(store, experiments)
    since = summaries.oldest(store)
    known = summaries.measured(file, VERSION)
    lacking = {
        name: [
            (row, uid, stamp)
            for row, uid, stamp in wanted
            if not summaries.is_fresh(*known.get((uid, name), (-1, 0.0)), stamp, since)
        ]
        for name in names
    }
    total = sum(map(len, lacking.values()))
    if total:
        with telling() if telling else nullcontext(lambda what, done, total: None) as tell:
            _measure(store, file, lacking, lambda done: tell("metrics of experiments", done, total))
    return {uid: row for row, uid, _ in wanted}


Stamps = Sequence[tuple[int, str, int]]


def _measure(
    store: Store, file: apsw.Connection, lacking: Mapping[str, Stamps], tell: Callable[[int], None]
) -> None:
    from panic.analysis.data import load

    done = 0
    for is_alone in (True, False):
        names = [name for name in lacking if METRICS[name].is_of_experiment == is_alone]
        of = sorted({one for name in names for one in lacking[name]})
        size = 1 if is_alone else TOGETHER
        for start in range(0, len(of), size):
            part = of[start : start + size]
            data = (
                load(store, part[0][0])
                if is_alone
                else load(store, runs=summaries.runs_of(store, [row for row, _, _ in part]))
            )
            for name in names:
                asked = [one for one in part if one in lacking[name]]
                frame = metric(data, name).drop_nulls().join(data.runs.select("run", "experiment"), on="run")
                summaries.keep_metric(file, name, VERSION, asked, _values(frame))
                done += len(asked)
            tell(done)


def _values(frame: pl.DataFrame) -> dict[int, list[tuple[int, float]]]:
    """Pairs of run and value by experiment."""
    values: dict[int, list[tuple[int, float]]] = {}
    for run, value, experiment in frame.select("run", "value", "experiment").iter_rows():
        values.setdefault(experiment, []).append((run, value))
    return values
