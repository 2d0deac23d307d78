"""What `panic check` proves: files, foreign keys, steps and calls, pixels, texts, vectors, diagrams, stuck.

Constraints already forbid most nonsense; this reads everything and finds what a damaged disk, another
program or a bug of ours did nevertheless. So nothing that is read is taken to be what it should be: what
cannot be read is one line among the problems, and the rest is still checked.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import apsw

from panic.config.fields import MAX_BATCH, MAX_WORKERS
from panic.errors import PanicError, StoreCorrupt
from panic.store import captions
from panic.store.codec import decode_array, decode_bars, decode_vector, text_digest, writable
from panic.store.course import courses, intervention_problems
from panic.store.files import Database, has_content, log_of, names_a_holder
from panic.store.images import image_problem, remedies
from panic.store.migrate import missing_from
from panic.store.reading import unrepeatable
from panic.store.rows import bad_values
from panic.store.store import Store
from panic.store.stuck import Stuck, first_repeat

if TYPE_CHECKING:
    from numpy.typing import NDArray

TREE = re.compile(r"^Tree (\d+)\b")
UNREADABLE = (PanicError, apsw.Error, ValueError, TypeError, LookupError, ArithmeticError)
"""What reading damaged rows can raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is checked: the runs that a query selects, or everything."""

    runs: str = "SELECT id FROM run"
    is_all: bool = True

    @property
    def outputs(self) -> str:
        """A condition on rows of `output`."""
        if self.is_all:
            return "TRUE"
        used = (
            f"SELECT {name} FROM {table} WHERE run IN ({self.runs})"
            for table in ("invocation", "intervention")
            for name in ("input", "output")
        )
        prompts = f"SELECT prompt FROM run WHERE id IN ({self.runs})"
        return f"output.id IN ({' UNION '.join([*used, prompts])})"


def check(store: Store, experiment: int | None = None, *, run: int | None = None) -> list[str]:
    """All problems of a store, each with the name of what it concerns; an empty list is a sound store.

    For images that can be computed again, the last problems name the command that does it.

    Args:
        experiment, run: rows of what alone is checked; of it not the files as a whole.
    """
    part = Part()
    if run is not None:
        part = Part(runs=f"SELECT id FROM run WHERE id = {int(run)}", is_all=False)
    elif experiment is not None:
        part = Part(runs=f"SELECT id FROM run WHERE experiment = {int(experiment)}", is_all=False)
    problems: list[str] = []
    with store.db.snapshot():
        for prove in [*(WHOLE if part.is_all else []), *PARTS]:
            try:
                for problem in prove(store, part):  # what is found before an error counts
                    problems.append(problem)
            except UNREADABLE as error:
                if "no such table" not in str(error):  # told once, of the file
                    problems.append(_told(error, prove.__name__.strip("_").replace("_", " ")))
    return list(dict.fromkeys(problems))


def _told(error: Exception, what: str) -> str:
    """An error in one line, without the advice to do what is being done."""
    if isinstance(error, PanicError):
        return error.message if "panic check" in error.hint else f"{error.message} {error.hint}".strip()
    return f"{what}: not all can be read ({type(error).__name__}: {error})"


def _main_file(store: Store, part: Part) -> Iterator[str]:
    return _file(store.db, "store")


def _image_file(store: Store, part: Part) -> Iterator[str]:
    return _file(store.images, "images")


def _file(database: Database, kind: str) -> Iterator[str]:
    """What SQLite itself finds; streamed, because a damaged page may end the search in the middle."""
    for problem in missing_from(database.connection, kind):
        yield f"{database.path.name}: {problem}"
    trees = dict(database.rows("SELECT rootpage, name FROM sqlite_schema"))
    for (messages,) in database.stream("PRAGMA integrity_check"):
        for message in messages.split("\n"):
            if message != "ok" and not message.startswith("***"):
                named = TREE.sub(lambda match: f"in {trees.get(int(match[1]), match[0])}", message)
                yield f"{database.path.name}: {named}"
    for table, row, parent, _ in database.stream("PRAGMA foreign_key_check"):
        yield f"{database.path.name}: row {row} of {table} refers to a missing row of {parent}"


def _lost_log(store: Store, part: Part) -> Iterator[str]:
    """What was in a log that a copy lacks cannot be known, but that there was one can."""
    log = log_of(store.db.path)
    if has_content(log) or not names_a_holder(store.path) or store.lock_holder or not store.has_images:
        return
    unknown = store.images.value("SELECT count(*) FROM image")
    known = store.db.value("SELECT count(*) FROM output WHERE modality = 'image'")
    is_unended = store.db.value("SELECT 1 FROM session WHERE end_state IS NULL")
    if unknown > known and (is_unended or not store.db.value("SELECT 1 FROM session")):
        yield (
            f"{store.db.path.name} knows {known:,} images, and there are {unknown:,}; a session never ended,"
            f" and there is no {log.name}: was the store copied while it was written, without that file?"
        )


def _values(store: Store, part: Part) -> Iterator[str]:
    return bad_values(store.db)


def _steps(store: Store, part: Part) -> Iterator[str]:
    for run, count, last in store.db.rows(
        f"SELECT run, count(*), max(step) FROM invocation WHERE run IN ({part.runs})"
        " GROUP BY run HAVING count(*) <> max(step) + 1"
    ):
        yield f"run {run}: {last + 1 - count} missing before its last step {last}"
    for run, step in store.db.rows(
        "WITH chain AS (SELECT run, step, input, lag(output) OVER (PARTITION BY run ORDER BY step) AS given,"
        "   lag(step) OVER (PARTITION BY run ORDER BY step) AS before FROM invocation"
        f"   WHERE run IN ({part.runs}))"
        " SELECT chain.run, chain.step FROM chain JOIN run ON run.id = chain.run"
        " LEFT JOIN intervention AS made ON made.run = chain.run AND made.step = chain.step AND made.place ="
        "  (SELECT max(place) FROM intervention AS one WHERE one.run = chain.run AND one.step = chain.step)"
        " WHERE (chain.step = 0 AND chain.input <> coalesce(made.output, prompt))"
        " OR (before = chain.step - 1 AND chain.input <> coalesce(made.output, given)) ORDER BY 1, 2"
    ):
        yield f"run {run}: the input of step {step} is not the output of the step before (or the prompt)"
    for run, length, max_length in store.db.rows(
        "SELECT run.id, max(step) + 1, max_length FROM run JOIN invocation ON invocation.run = run.id"
        f" WHERE run.id IN ({part.runs}) GROUP BY run.id HAVING max(step) + 1 > max_length"
    ):
        yield f"run {run}: {length} steps, more than its maximum length {max_length}"


def _interventions(store: Store, part: Part) -> Iterator[str]:
    if store.db.value("SELECT 1 FROM run WHERE arm <> 'baseline' UNION SELECT 1 FROM intervention"):
        yield from intervention_problems(store, part.runs)


def _calls(store: Store, part: Part) -> Iterator[str]:
    """A step was made by a call of its network's model, and what stepped in by that of its arm."""
    known = set(store.db.rows("SELECT experiment, CAST(name AS BLOB), model FROM epoch"))
    experiments = dict(store.db.rows(f"SELECT id, experiment FROM run WHERE id IN ({part.runs})"))
    ways = courses(store, part.runs)
    told: set[int] = set()
    for table, place in (("invocation", "NULL"), ("intervention", "i.place")):
        for run, step, nth, model in store.db.stream(
            f"SELECT i.run, i.step, {place}, batch.model FROM run CROSS JOIN {table} AS i ON i.run = run.id"
            f" JOIN batch ON batch.id = i.batch WHERE run.id IN ({part.runs})"
        ):
            course = ways[run]
            if run in told or not course.network or course.arm is None:  # told of the row
                continue
            name = course.maker(step, nth)
            if (experiments[run], name.encode(errors="surrogatepass"), model) not in known:
                told.add(run)
                what = "step" if nth is None else "what stepped in before step"
                yield f"run {run}: {what} {step} was made by a call of another model than {writable(name)}"


def _outputs(store: Store, part: Part) -> Iterator[str]:
    lost: set[bytes] = set()
    for digest, modality, text, width, height in store.db.stream(
        "SELECT digest, modality, CAST(text AS BLOB), width, height FROM output"
        f" WHERE {part.outputs} ORDER BY id"
    ):
        if modality == "text":
            try:
                is_it = text is not None and text_digest(text.decode()) == digest
            except UnicodeDecodeError as error:
                yield f"text {digest.hex()}: its content is no UTF-8 ({error.reason})"
            else:
                if not is_it:
                    yield f"text {digest.hex()}: its content is another text"
            continue
        if not store.has_images:  # told once, of the file
            lost.add(digest)
        elif problem := image_problem(store, digest, width, height):
            lost.add(digest)
            yield f"image {digest.hex()}: {problem}"
    yield from remedies(store, lost) if lost else ()


def _vectors(store: Store, part: Part) -> Iterator[str]:
    import numpy as np

    dimensions: dict[int, int] = {}
    for model, name, digest, dimension, data in store.db.stream(
        "SELECT model.id, name, digest, dimension, vector FROM embedding JOIN model ON model.id = model"
        f" JOIN output ON output.id = output WHERE {part.outputs} ORDER BY model.id, embedding.rowid"
    ):
        what = f"vector of {digest.hex()} under {name}"
        expected = dimensions.setdefault(model, dimension)
        if len(data) != 4 * expected:
            yield f"{what}: {len(data)} bytes, not {expected} numbers of 4 bytes"
        elif not np.isfinite(decode_vector(data)).all():
            yield f"{what}: not all numbers are finite"


def _stuck(store: Store, part: Part) -> Iterator[str]:
    rows = store.db.rows(f"SELECT run, entry_step, period FROM stuck WHERE run IN ({part.runs})")
    recorded = {run: Stuck(entry_step=entry_step, period=period) for run, entry_step, period in rows}
    others = _unrepeatable(store, part)
    ways = courses(store, f"SELECT id FROM run WHERE seed <> -1 AND id IN ({part.runs})")
    steps = store.db.stream(
        "SELECT i.run, input, output, epoch FROM run CROSS JOIN invocation AS i ON i.run = run.id"
        f" JOIN batch ON batch.id = i.batch WHERE run.seed <> -1 AND run.id IN ({part.runs})"
        " ORDER BY run.id, i.step"
    )
    for run, group in itertools.groupby(steps, key=lambda row: row[0]):
        if run in others:
            continue
        inputs, outputs, epochs = zip(*(row[1:] for row in group), strict=True)
        course = ways[run]
        if not course.network or course.arm is None:  # told of the row
            recorded.pop(run, None)
            continue
        last = course.input_of(len(inputs), outputs[-1])
        states = inputs if last is None else [*inputs, last]
        expected = first_repeat(states, course.period, course.settled_from(epochs))
        found = recorded.pop(run, None)
        if found != expected:
            yield f"run {run}: stuck is recorded as {_cycle(found)}, but its steps say {_cycle(expected)}"
        elif expected is not None and expected.entry_step + expected.period < len(inputs):
            yield f"run {run}: has steps after it got stuck"
    for run in recorded:
        why = "its models are not repeatable" if run in others else "it has no steps with a fixed seed"
        yield f"run {run}: stuck is recorded, but {why}"


def _unrepeatable(store: Store, part: Part) -> dict[int, int]:
    """The runs with a model that is not repeatable, and after how many steps the same models follow there."""
    if not (names := unrepeatable(store)):
        return {}
    experiments = dict(store.db.rows(f"SELECT id, experiment FROM run WHERE id IN ({part.runs})"))
    return {
        run: course.period
        for run, course in courses(store, part.runs).items()
        if course.network and any((experiments[run], name) in names for name in course.models)
    }


def _repeated(store: Store, part: Part) -> Iterator[str]:
    """A run that was ended because it repeats itself does so, as often as is recorded."""
    others = _unrepeatable(store, part)
    for run, entry_step, period, times in store.db.rows(
        f"SELECT run, entry_step, period, times FROM repeated WHERE run IN ({part.runs})"
    ):
        outputs = [
            o for (o,) in store.db.rows("SELECT output FROM invocation WHERE run = ? ORDER BY step", run)
        ]
        cycle = outputs[entry_step : entry_step + period]
        if run not in others or period % others[run]:
            yield f"run {run}: repeated is recorded, but models are repeatable, or these are no whole rounds"
        elif len(outputs) - entry_step != len(cycle) * times or outputs[entry_step:] != cycle * times:
            yield f"run {run}: repeated {times} times is recorded, but its steps do not say so"


def _cycle(found: Stuck | None) -> str:
    return "not stuck" if found is None else f"entry step {found.entry_step}, period {found.period} steps"


def _diagrams(store: Store, part: Part) -> Iterator[str]:
    import numpy as np

    for run, dimension, data, generators in store.db.stream(
        "SELECT run, dimension, bars, generators FROM diagram JOIN diagram_bars ON diagram = diagram.id"
        f" WHERE run IN ({part.runs}) ORDER BY diagram.id"
    ):
        if generators is not None and _array(generators) is None:
            yield f"diagram of run {run}, dimension {dimension}: the bytes of its generators are no array"
        if len(data) % 16:
            yield f"diagram of run {run}, dimension {dimension}: {len(data)} bytes are no bars of 16 bytes"
            continue
        births, deaths = decode_bars(data).T
        if not (np.isfinite(births).all() and (births <= deaths).all()):
            yield f"diagram of run {run}, dimension {dimension}: not all bars are births and later deaths"
    for run, dimension, measure, data in store.db.stream(
        "SELECT run, dimension, CAST(measure.settings AS BLOB), vector FROM vectorisation"
        " JOIN diagram ON diagram.id = diagram JOIN measure ON measure.id = measure"
        f" WHERE run IN ({part.runs}) ORDER BY diagram.id"
    ):
        what = f"vectorisation of run {run}, dimension {dimension}, {measure.decode(errors='replace')}"
        values = _array(data)
        if values is None:
            yield f"{what}: its bytes are no array"
        elif not np.isfinite(values).all():
            yield f"{what}: not all numbers are finite"
    for one, other in store.db.rows(
        "SELECT DISTINCT one.run, two.run FROM distance JOIN diagram AS one ON one.id = a"
        " JOIN diagram AS two ON two.id = b"
        f" WHERE one.run IN ({part.runs}) AND"
        " (one.model <> two.model OR one.settings_digest <> two.settings_digest)"
    ):
        yield f"distance of runs {one} and {other}: their diagrams are of other models or settings"


def _array(data: bytes) -> NDArray[Any] | None:
    try:
        return decode_array(data)
    except StoreCorrupt:
        return None


def _epochs(store: Store, part: Part) -> Iterator[str]:
    for batch, epoch, name in store.db.rows(
        "SELECT batch.id, batch.epoch, model.name FROM batch JOIN session ON session.id = session"
        " JOIN model ON model.id = batch.model WHERE session.experiment NOTNULL AND NOT EXISTS"
        " (SELECT 1 FROM epoch WHERE epoch.experiment = session.experiment AND epoch.model = batch.model"
        " AND number = batch.epoch)"
    ):
        yield f"batch {batch}: shape epoch {epoch} of {name} was never opened in its experiment"
    for name, number, size, threads in store.db.rows(
        "SELECT name, number, batch_size, coalesce(threads, 1) FROM epoch"
        " WHERE batch_size > ? OR threads > ?",
        *(MAX_BATCH, MAX_WORKERS),
    ):
        yield (
            f"shape epoch {number} of {name}: batches of {size:,} in {threads:,} threads are none that a"
            f" config can ask for (at most {MAX_BATCH:,} and {MAX_WORKERS:,})"
        )
    for batch, size in store.db.rows("SELECT id, padded_size FROM batch WHERE padded_size > ?", MAX_BATCH):
        yield f"batch {batch}: {size:,} items are more than a batch can have ({MAX_BATCH:,})"


def _captions(store: Store, part: Part) -> Iterator[str]:
    return captions.problems(store)


Check = Callable[[Store, Part], Iterator[str]]
WHOLE: list[Check] = [_main_file, _image_file, _lost_log, _values, _epochs, _captions]
"""What concerns the files as a whole."""
PARTS: list[Check] = [_steps, _calls, _interventions, _outputs, _vectors, _stuck, _repeated, _diagrams]
"""What can be checked of a part."""
