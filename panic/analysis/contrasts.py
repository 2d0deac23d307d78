"""What experiments, trainings or runs differ in: what was asked for, models, code, versions, hardware.

for one in contrasts(store, rows):
    print(one.section, one.field, one.values, one.is_same)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from panic.analysis.measured import fields as known_fields
from panic.analysis.origin import listed, mapping, positive
from panic.analysis.shortening import shorten
from panic.store import Store, contents, reading
from panic.store.finding.queries import table
from panic.store.provenance import short_paths
from panic.store.records import ExperimentRow, RunRow, SessionRow
from panic.store.trainings import TrainingRow

MAX_CHARACTERS = 60
SHOWN_ENTRIES = 5
"""Entries of a list in a config that one experiment alone has."""
PLACES = ("name", "store", "base_folder", "tags", "label")
"""Fields of a config that say nothing of what is computed."""
NOTHING = "-"
Fields = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A field of a section, and what each experiment says to it."""

    section: str
    field: str
    values: list[str]

    @property
    def is_same(self) -> bool:
        """Whether they all say the same."""
        return len(set(self.values)) == 1


def contrasts(store: Store, experiments: Sequence[ExperimentRow]) -> list[Contrast]:
    """Return every field of every section, of which those that differ are mostly wanted."""
    return contrasted([(store, row) for row in experiments])


def contrasted(sides: Sequence[tuple[Store, ExperimentRow]]) -> list[Contrast]:
    """Return every field of every section of experiments that may be of several stores."""
    found = [
        Contrast(section="config", field=field, values=values)
        for field, values in said([row.config for _, row in sides])
    ]
    fingerprints = [
        {epoch.name: epoch.fingerprint[:12] for epoch in reading.epochs(store, row.id)}
        for store, row in sides
    ]
    found += _beside("models", fingerprints)
    sessions = [_last(reading.sessions(store, row.id)) for store, row in sides]
    for section, fields in (("code", _code), ("versions", _versions), ("hardware", _hardware)):
        found += _beside(section, [fields(provenance) for provenance in sessions])
    return found


TOLD_OF_TRAININGS = ("step", "steps", "loss", "val_loss", "best_loss", "best_step", "seconds")


def training_names(rows: Sequence[TrainingRow]) -> list[str]:
    """Return what tells trainings apart: their names, else their folders, else their uids, too."""
    for names in ([row.name for row in rows], [row.folder for row in rows]):
        if len(set(names)) == len(names):
            return names
    return [f"{row.folder} ({row.uid[:12]})" for row in rows]  # begun anew in the folder of another


def training_contrasts(rows: Sequence[TrainingRow]) -> list[Contrast]:
    """Return what trainings say of config, metrics, code, versions and hardware, as `contrasts` does."""
    configs = [{key: value for key, value in row.config.items() if key != "output"} for row in rows]
    found = [Contrast(section="config", field=field, values=values) for field, values in said(configs)]
    metrics = [
        {name: getattr(row, name) for name in TOLD_OF_TRAININGS}
        | {f"measures.{name}": value for name, value in row.measures.items()}
        for row in rows
    ]
    found += _beside(
        "metrics", [{k: shortened(v) for k, v in one.items() if v is not None} for one in metrics]
    )
    for section, fields in (("code", _code), ("versions", _versions), ("hardware", _hardware)):
        found += _beside(section, [fields(row.provenance) for row in rows])
    return found


RUN_IS = ("network", "prompt", "prompt_tags", "group", "seed", "repeat", "arm", "length")
"""Fields of runs that say what they are; others say how they went."""
OF_REMARKS = ("tags", "label", "comments")
NAMES_OF_RUNS = ("run", "uid", "model")
"""What tells one run from any other, and what its network says already."""


def run_contrasts(store: Store, ids: Sequence[int]) -> list[Contrast]:
    """Return what runs (rows) are and how they went, and what their experiments say, as `contrasts` does.

    `parts at model call` is since when a run's outputs are others than those of the first of them.
    """
    known = known_fields()
    names = [one.name for one in known.all if one.of == "run" and one.name not in NAMES_OF_RUNS]
    rows = [dict(zip(names, map(_plain, row), strict=True)) for row in table(store, "run", ids, names, known)]
    found = []
    for section, chosen in (
        ("run", RUN_IS),
        ("results", [name for name in names if name not in (*RUN_IS, *OF_REMARKS)]),
        ("remarks", OF_REMARKS),
    ):
        told = said([{f"its {name}": row[name] for name in chosen} for row in rows])
        found += [Contrast(section=section, field=name[4:], values=values) for name, values in told]
    runs = {run.id: run for run in reading.runs(store, only=ids)}
    courses = [_course(store, runs[id]) for id in ids]
    parted = [NOTHING, *(_parted(courses[0], other) for other in courses[1:])]
    found.append(Contrast(section="results", field="parts at model call", values=parted))
    experiments = reading.experiment_rows(store, [runs[id].experiment for id in ids])
    of = {row.id: row for row in experiments}
    return found + contrasts(store, [of[runs[id].experiment] for id in ids])


def _plain(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


class _Course(NamedTuple):
    """What a run puts out: digests by step, the last `period` of which come again up to `length`."""

    made: list[str]
    period: int
    length: int

    def at(self, step: int) -> str:
        """The digest of the output of a step."""
        beyond = step - len(self.made)
        return self.made[step] if beyond < 0 else self.made[beyond % self.period - self.period]


def _course(store: Store, run: RunRow) -> _Course:
    """The outputs of a run; those of a stuck one to its full length, which is known."""
    made = [step.output for step in contents.invocations(store, run.id)]
    if run.period is None or not 0 < run.period <= len(made):  # nobody's record, of which `panic check` tells
        return _Course(made, 0, len(made))
    return _Course(made, run.period, max(run.max_length, len(made)))


def _parted(one: _Course, other: _Course) -> str:
    """The first step at which two courses have different outputs, as far as both go; NOTHING of none.

    Two that repeat themselves and are alike for as long as both periods together are alike for ever (Fine and
    Wilf 1965): a run may be stuck for billions of steps.
    """
    both = min(one.length, other.length)
    enough = max(len(one.made), len(other.made)) + one.period + other.period
    step = next((step for step in range(min(both, enough)) if one.at(step) != other.at(step)), None)
    if step is not None:
        return str(step)
    return f"not within {both:,} model call{'s' * (both != 1)}" if both else NOTHING


def _beside(section: str, sides: Sequence[Fields]) -> Iterator[Contrast]:
    for field in dict.fromkeys(chain.from_iterable(sides)):
        values = [side.get(field, NOTHING) for side in sides]
        yield Contrast(section=section, field=field, values=values)


def _last(sessions: Sequence[SessionRow]) -> Mapping[str, Any]:
    """The provenance of the last session that called models or might have, which says where it worked."""
    return next((one.provenance for one in reversed(sessions) if one.provenance.get("hardware")), {})


def _code(provenance: Mapping[str, Any]) -> Fields:
    """The commit and the patch of panic's own code, and of the user's repository."""
    found = {}
    for field, key in (("panic", "git"), ("repository", "repository")):
        git = mapping(provenance.get(key))
        if commit := git.get("commit"):
            patch = f" and a patch ({str(git.get('patch_sha256'))[:8]})" if git.get("dirty") else ""
            found[f"{field} commit"] = f"{str(commit)[:12]}{patch}"
    if digest := provenance.get("source_digest"):
        found["panic source"] = str(digest)[:12]
    return found


def _versions(provenance: Mapping[str, Any]) -> Fields:
    python = {"python": str(provenance.get("python", "")).split(" ")[0]} if provenance else {}
    packages = mapping(provenance.get("packages"))
    return python | {str(name): str(version) for name, version in packages.items()}


def _hardware(provenance: Mapping[str, Any]) -> Fields:
    hardware = mapping(provenance.get("hardware"))
    if not hardware:
        return {}
    memory = positive(hardware.get("memory_bytes"))
    return {
        "host": str(provenance.get("host", NOTHING)),
        "processor": f"{hardware.get('processor', '')}, {hardware.get('num_cpus', '?')} cores",
        "memory": f"{memory / 2**30:.0f} GiB" if memory else NOTHING,
        "GPUs": "; ".join(map(str, listed(hardware.get("gpus")))) or "none",
        "system": str(hardware.get("platform", NOTHING)),
    }


def commit_range(values: Sequence[str]) -> str:
    """Return what `git log` or `git diff` takes to tell two states apart, "" where no commits are known."""
    commits = [value.split(" ")[0] for value in values]
    known = [commit for commit in dict.fromkeys(commits) if commit != NOTHING]
    return "..".join((known[0], known[-1])) if len(known) > 1 else ""


def differences(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """What configs say differently: the field, and what each says; of lists what one of them alone has."""
    return [(field, values) for field, values in said(configs) if len(set(values)) > 1]


def said(configs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Every field of configs and what each says: of lists that differ what one of them alone has."""
    flat = [dict(_fields(config)) for config in configs]
    for name in dict.fromkeys(name for config in flat for name in config):
        values = [config.get(name) for config in flat]
        if all(value == values[0] for value in values):
            text = NOTHING if values[0] is None else short_paths(shortened(_as_text(values[0])))
            yield name, [text] * len(values)
            continue
        others = [[o for j, o in enumerate(values) if j != i] for i in range(len(values))]
        texts = [_said(value, rest) for value, rest in zip(values, others, strict=True)]
        alike = [[j for j, other in enumerate(texts) if other == text] for text in texts]
        texts = [
            text if all(values[j] == value for j in of) else _told_apart(text, value, [values[j] for j in of])
            for text, value, of in zip(texts, values, alike, strict=True)
        ]
        yield name, texts


def _told_apart(text: str, value: Any, alike: Sequence[Any]) -> str:
    """A text that says the same of values that differ, so that it differs: by their order, or by a digest."""
    if isinstance(value, list) and len({_as_text(sorted(map(_as_text, one))) for one in alike}) == 1:
        return text if value == alike[0] else f"{text}, in another order"
    return f"{text} ({hashlib.sha256(_as_text(value).encode()).hexdigest()[:8]})"


def _fields(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of a config but what it is called and where it lies; every model and batch size is one."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}: {key}", one) for key, one in value.items())
        elif name not in PLACES:
            yield name, value


def _said(value: Any, others: Sequence[Any]) -> str:
    if value is None:
        return NOTHING
    if not isinstance(value, list) or not value:
        return short_paths(_as_text(value))
    elsewhere = [entry for other in others if isinstance(other, list) for entry in other]
    own = [short_paths(shortened(_as_text(entry))) for entry in value if entry not in elsewhere]
    more = f"; and {len(own) - SHOWN_ENTRIES:,} more" if len(own) > SHOWN_ENTRIES else ""
    if not own:
        return f"{len(value):,}, none of them only here"
    return f"{len(value):,}, only here: {'; '.join(own[:SHOWN_ENTRIES])}{more}"


def _as_text(value: Any) -> str:
    if value == []:
        return "none"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return " → ".join(value)
    if isinstance(value, Mapping):
        value = {key: one for key, one in value.items() if one is not None}
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shortened(value: Any) -> str:
    """A value in a cell: four digits of a number, the beginning of a text."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return shorten(str(value), MAX_CHARACTERS)
