"""A report reads everything once, and every function of the libraries serves a question or a notebook."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from panic.analysis.questions import ask, clusters, drift, lag, patterns, period, regimes
from panic.analysis.report import render
from panic.store import reading, writing
from panic.store.codec import text_digest
from panic.store.records import Commit, NewEmbedding
from tests.analysis.conftest import TEXT, angle_vector

ROOT = Path(__file__).parents[2]
LIBRARIES = ("dynamics", "statistics", "clustering", "nulls", "projections", "probing")


def calls(run: Callable[[], object]) -> Counter[str]:
    """How often each function of the store was called, by module and name."""
    found: Counter[str] = Counter()

    def count(frame, event, _):
        if event == "call" and "/panic/store/" in frame.f_code.co_filename:
            found[f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"] += 1

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found


@pytest.fixture
def two_models(full):
    """The same texts under two embedding models."""
    row = writing.add_model(full.store, "second", "second-fingerprint", {"modality_out": "vector"})
    writing.add_epoch(full.store, full.experiment, "second", model=row, batch_size=4, device_kind="cpu")
    full.models["second"] = row
    batch = full._batch("second", 5)
    rng = np.random.default_rng(0)
    vectors = [
        NewEmbedding(output=text_digest(f"text {i}"), model=row, batch=batch.id, vector=rng.normal(size=3))
        for i in range(5)
    ]
    writing.commit(full.store, Commit(batches=[batch], embeddings=vectors))
    return full


def test_a_report_reads_each_set_of_vectors_and_all_else_once(two_models):
    experiment = reading.experiment(two_models.store, "demo")
    experiment.config["embeddings"] = ["embed", "second"]
    found = calls(lambda: render(two_models.store, experiment))
    assert found["bulk.vectors"] == 2  # one per model
    for name in (
        "bulk.steps",
        "bulk.outputs",
        "bulk.bars",
        "reading.runs",
        "reading.models",
        "reading.epochs",
    ):
        assert found[name] == 1, name


def names(nodes: Iterable[ast.AST]) -> set[str]:
    """Every name that some code refers to, plainly or as an attribute."""
    inside = [node for top in nodes for node in ast.walk(top)]
    plain = {node.id for node in inside if isinstance(node, ast.Name)}
    return plain | {node.attr for node in inside if isinstance(node, ast.Attribute)}


def unused(libraries: list[str], users: list[str]) -> set[str]:
    """Public functions of library sources that no user's source needs, directly or through another one."""
    functions: dict[str, set[str]] = {}
    used = names(ast.parse(source) for source in users)
    for source in libraries:
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef):
                functions[node.name] = names([node]) - {node.name}
            elif not isinstance(node, ast.ImportFrom):
                used |= names([node])
    due = list(used & functions.keys())
    while due:
        new = functions[due.pop()] & functions.keys() - used
        used |= new
        due += new
    return {name for name in functions if not name.startswith("_")} - used


def test_every_public_function_of_the_libraries_is_used_by_a_question_or_a_notebook():
    analysis = ROOT / "panic" / "analysis"
    places = [analysis / f"{name}.py" for name in LIBRARIES] + list((analysis / "dynamics").glob("*.py"))
    libraries = {path for path in places if path.exists()}
    users = (set(analysis.rglob("*.py")) | set((ROOT / "analysis").glob("*.py"))) - libraries
    assert unused([p.read_text() for p in libraries], [p.read_text() for p in users]) == set()


def test_the_rule_on_unused_functions_can_fail():
    library = (
        "def a():\n    return b()\ndef b():\n    return 1\ndef c():\n    return d()\ndef d():\n    return c()"
    )
    assert unused([library], ["lib.a()"]) == {"c", "d"}


def test_a_run_with_a_zero_vector_has_no_statistic_and_others_have(bench):
    """One vector without a direction left a question without any null band, and drift with a usage error."""
    for number in range(3):
        bench.add(f"start {number}", [f"{number} {i}" for i in range(14)], seed=-1)
    vectors = {f"{number} {i}": angle_vector(7 * i * i + number) for number in range(3) for i in range(14)}
    bench.embed({**vectors, "1 3": np.zeros(2, np.float32)})
    for question in (drift, lag, patterns, period):
        found = question.STATISTIC.of(bench.evidence, TEXT)
        assert found["run"].n_unique() == 2


def test_a_zero_vector_leaves_no_question_without_an_answer(bench):
    """One output without a direction left lag, patterns, period, regimes and clusters without an answer."""
    for number in range(4):
        bench.add(f"start {number}", [f"{number} {i}" for i in range(18)], seed=-1, max_length=36)
    vectors = {f"{number} {i}": angle_vector(7 * i * i + number) for number in range(4) for i in range(18)}
    bench.embed({**vectors, "1 3": np.zeros(2, np.float32)})
    told = "1 text has no direction under embed (a vector of zeros, or not finite)"
    for question in (lag, patterns, period, regimes, clusters):
        [figure] = ask(question, bench.evidence)
        assert figure.missing == ""
        assert told in figure.sentence
    [movement] = lag.table(bench.evidence, TEXT).movements.values()
    assert movement.num_runs == period.table(bench.evidence, TEXT).num_runs == 3
    assert set(regimes.table(bench.evidence, TEXT).runs["run"]) == {1, 3, 4}
    states = bench.evidence.states_under(TEXT)
    assert states.frame.filter(run=2)["label"][3] == -1
    assert len(states.frame) == 72


def test_zero_vectors_alone_are_told(bench):
    bench.walk("ababababababab", seed=-1)
    bench.embed({letter: np.zeros(2, np.float32) for letter in "ab"})
    for question in (lag, patterns, period, regimes, clusters):
        [figure] = ask(question, bench.evidence)
        assert "2 texts have no direction" in figure.missing
