"""What sessions tell of where results come from, and of stores that say nonsense."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from panic.analysis.origin import facts, last_provenance, models, positive


def told(host: str = "here", **provenance: Any) -> Any:
    return SimpleNamespace(host=host, provenance=provenance)


def test_the_last_session_that_says_something_speaks_and_hosts_and_energy_are_of_all():
    hardware = {
        "processor": "p", "num_cpus": 4, "memory_bytes": 8.4 * 2**30, "gpus": ["A", "B"], "cuda": "12.4",
        "cudnn": 9, "platform": "Linux",
    }  # fmt: skip
    first = told(
        "old", command=["panic", "run"], gpu_energy_j={"0": 1500.0, "1": -3, "2": "x"}, hosts=["api"]
    )
    last = told(
        command=["panic", "resume", 1], folder="/f", python="3.11.7 (main)", hardware=hardware,
        packages={"torch": "2.1", "panic": "0.1", "other": "9"}, gpu_energy_j={"0": 500}, hosts=["api", "b"],
        git={"commit": "a" * 40, "root": "/repo", "dirty": True}, source_digest="0123456789abcdef",
        repository={"commit": "b" * 40, "dirty": None},
    )  # fmt: skip
    assert facts([first, last, told("old")]) == {
        "command": "panic resume 1", "folder": "/f", "processor": "p, 4 cores", "memory": "8 GiB",
        "GPUs": "A; B", "CUDA": "12.4, cuDNN 9", "GPU energy": "2 kJ of 3 sessions, as the GPUs tell",
        "system": "Linux", "hosts": "old, api, here, b", "python": "3.11.7",
        "packages": "panic 0.1, torch 2.1", "panic": "/repo aaaaaaaaaaaa with changes",
        "source": "0123456789ab", "repository": "bbbbbbbbbbbb, changes not known",
    }  # fmt: skip
    assert last_provenance([first, last, told()]) is last.provenance


def test_what_nobody_says_is_no_fact_and_nonsense_is_none():
    assert facts([]) == {}
    assert last_provenance([told()]) == {}
    wrong = told(hardware="x", packages=[1], command="rm", git={"dirty": True}, hosts="x", gpu_energy_j=[1])
    assert facts([wrong]) == {"hosts": "here"}
    clean = told(git={"commit": "c" * 40, "dirty": False}, hardware={"platform": "Linux"})
    assert facts([clean])["panic"] == "c" * 12
    assert facts([clean])["processor"] == ", ? cores"


def test_models_come_from_where_the_last_session_says_that_had_each():
    sessions = [
        told(models={"a": {"source": 1}, "b": {"source": 2}}), told(models={"a": {"source": 3}, "c": "x"}),
        told(models=[1]),
    ]  # fmt: skip
    assert models(sessions) == {"a": {"source": 3}, "b": {"source": 2}}


@pytest.mark.parametrize(
    ("said", "number"),
    [
        (2, 2.0), (0.5, 0.5), (0, 0.0), (-1, 0.0), ("3", 0.0), (None, 0.0), (10**400, 0.0),
        (float("inf"), 0.0), (float("nan"), 0.0),
    ],
)  # fmt: skip
def test_a_positive_number_is_one(said, number):
    assert positive(said) == number
