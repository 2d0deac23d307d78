"""A dump of a version whose experiments had an identity digest, as one dumps it whose experiments are names.

    python -m tests.store.rename_dump < old.jsonl > new.jsonl
    python -m tests.store.rename_dump DIGEST=demo-2 < old.jsonl

The experiment line loses its digest, the keys of runs follow from the name, and so does the order of what is
sorted by them. All else stays. Names are given for experiments that have another one now.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from panic.store.codec import canonical_json
from panic.store.dump import run_key

Line = dict[str, Any]


def rename(lines: Iterable[Line], names: Mapping[str, str] | None = None) -> Iterator[Line]:
    """The lines of a dump with runs named by their experiment's name.

    names: by identity digest, of the experiments that have another name now.
    """
    experiments: dict[str, list[Line]] = {}
    rest = []
    for line in lines:
        if line["kind"] == "experiment":
            name = (names or {}).get(line["identity_digest"], line["name"])
            assert name not in experiments, f"two experiments are called {name}"
            of = experiments[name] = [{"kind": "experiment", "name": name}]
        elif "run" in line:
            of.append(line)
        else:
            rest.append(line)
    for name in sorted(experiments):
        yield from _renamed(name, experiments[name])
    yield from rest


def _renamed(name: str, lines: list[Line]) -> Iterator[Line]:
    keys = {
        line["run"]: run_key(name, line["network"], line["prompt"], line["seed"], line["repeat"])
        for line in lines
        if line["kind"] == "run"
    }
    distances = []
    for line in lines:
        if line["kind"] == "distance":
            distances.append(_distance(line, keys))
        else:
            yield {key: keys[value] if key == "run" else value for key, value in line.items()}
    yield from sorted(distances, key=_order)


def _distance(line: Line, keys: Mapping[str, str]) -> Line:
    """A pair begins with the run whose key comes first."""
    (run, points), (other, other_points) = sorted(
        zip((keys[line["run"]], keys[line["other"]]), line["num_points"], strict=True)
    )
    return line | {"run": run, "other": other, "num_points": [points, other_points]}


def _order(line: Line) -> tuple[Any, ...]:
    settings, measure = canonical_json(line["settings"]), canonical_json(line["measure"])
    ends = (line["run"], line["other"])
    return (*ends, line["model"], settings, *line["num_points"], line["dimension"], measure)


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    for entry in rename(map(json.loads, sys.stdin), given):
        print(json.dumps(entry, ensure_ascii=False))
