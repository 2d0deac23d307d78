"""A report reads everything once, and every function of the libraries serves a question or a notebook."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from panic.analysis.checks import AnalysisError
from panic.analysis.evidence import Evidence, by_run, each_model, first_model, once, undirected
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


def test_a_vector_with_some_zeros_has_a_direction(bench):
    bench.walk("abcabc", seed=-1)
    bench.embed({letter: np.eye(3, dtype=np.float32)[place] for place, letter in enumerate("abc")})
    assert bench.evidence.zeros(TEXT).is_empty()
    assert undirected(bench.evidence, TEXT) == ""
    [(run, points)] = bench.evidence.directions(TEXT)
    assert (run, points.shape) == (1, (6, 3))


def test_directions_are_of_so_many_outputs_in_three_dimensions_or_more(bench):
    runs = [bench.walk("ab" * half, seed=-1, repeat=half) for half in (2, 3, 101)]
    bench.embed({letter: 5 * np.eye(3, dtype=np.float32)[place] for place, letter in enumerate("ab")})
    found = bench.evidence.directions(TEXT)
    assert [(run, len(points)) for run, points in found] == [(runs[1], 6), (runs[2], 200)]
    assert {float(np.linalg.norm(point)) for point in found[0][1]} == {1.0}
    with pytest.raises(AnalysisError, match="no run has 203 text vectors of embed in 3 or more dimensions"):
        bench.evidence.directions(TEXT, least=203)


def test_vectors_in_a_plane_have_no_surrogates_on_a_sphere(bench):
    bench.walk("ab" * 4, seed=-1)
    bench.embed({"a": angle_vector(0), "b": angle_vector(90)})
    with pytest.raises(AnalysisError, match="no run has 6 text vectors of embed in 3 or more dimensions"):
        bench.evidence.directions(TEXT)


def test_copies_are_one_path_and_one_case(bench):
    """Two runs in one cycle of a fixed seed, and one with fresh noise."""
    for prompt in ("one", "two"):
        bench.stuck(bench.add(prompt, [*"abab"], max_length=8), 0, 4)
    bench.walk("abab", seed=-1)
    bench.embed({"a": angle_vector(0), "b": angle_vector(90)})
    assert bench.evidence.distinct == {1, 3}
    assert bench.evidence.fresh == {3}
    assert [run for run, _ in bench.evidence.paths(TEXT, least=4)] == [1, 3]
    assert bench.evidence.paths(TEXT, least=5) == []


def test_models_that_were_brought_later_come_after_those_that_are_asked_for(two_models):
    """One that is neither asked for nor has vectors of these runs is none of them."""
    evidence = two_models.evidence
    assert evidence.embedding_models == ["embed", "second"]
    assert evidence.views == [("embed", "text"), ("second", "text")]
    assert evidence.states is evidence.states_under(evidence.views[0])
    assert evidence.states_under(evidence.views[1]) is not evidence.states
    row = writing.add_model(two_models.store, "third", "third-fingerprint", {"modality_out": "vector"})
    writing.add_epoch(
        two_models.store, two_models.experiment, "third", model=row, batch_size=4, device_kind="cpu"
    )
    assert two_models.evidence.embedding_models == ["embed", "second"]
    evidence = two_models.evidence
    evidence.experiment.config["embeddings"] = ["second", "never", "third"]
    assert evidence.embedding_models == ["second", "never", "third", "embed"]
    assert [view.model for view in evidence.views] == ["second", "embed"]


def test_without_vectors_there_are_no_states(bench):
    bench.walk("ab")
    with pytest.raises(AnalysisError, match="There are no vectors"):
        _ = bench.evidence.states


def test_what_has_no_direction_is_counted_in_words(bench):
    for repeat in range(2):
        bench.walk("abcd", seed=-1, repeat=repeat)
    bench.walk("acca", seed=-1, repeat=2)
    zero = np.zeros(2, np.float32)
    bench.embed({"a": angle_vector(0), "b": zero, "c": angle_vector(9), "d": zero})
    said = undirected(bench.evidence, TEXT)
    assert said.startswith("2 texts have no direction under embed")
    assert "2 runs with one are left out" in said
    assert set(bench.evidence.zeros(TEXT)["run"]) == {1, 2}
    assert [run for run, _ in bench.evidence.paths(TEXT, least=2)] == [3]


def test_a_statistic_has_places_from_1_on_and_no_value_where_it_is_no_number(bench):
    """Of runs that are long enough, of their first outputs alone, and not of those with a zero among them."""
    bench.walk("abab", seed=-1)
    bench.walk("abcb", seed=-1, repeat=1)
    bench.walk("a", seed=-1, repeat=2)
    bench.embed({"a": angle_vector(0), "b": angle_vector(90), "c": np.zeros(2, np.float32)})

    def of(measure, **how):
        return by_run(measure, **how)(bench.evidence, TEXT).rows()

    assert of(len) == [(1, 1, 4.0)]
    assert of(len, most=2) == [(1, 1, 2.0), (2, 1, 2.0)]
    assert of(len, most=2, least=1) == [(1, 1, 2.0), (2, 1, 2.0), (3, 1, 1.0)]
    assert of(len, least=5) == []
    assert of(lambda points: [7.0, np.nan]) == [(1, 1, 7.0), (1, 2, None)]
    bench.walk("ab" * 201, seed=-1, repeat=3)
    assert of(len, least=5) == [(4, 1, 400.0)]


def test_a_question_is_asked_once_of_the_first_or_of_every_model(two_models):
    evidence = two_models.evidence
    assert (once(evidence), first_model(evidence)) == ([None], evidence.views[:1])
    assert each_model(evidence) == evidence.views
    assert len(evidence.views) == 2


def test_pictures_of_a_figure_are_small_and_their_bytes_limited(bench):
    found = Evidence.of(bench.store, reading.experiment(bench.store, "demo"))
    assert (found.is_over, found.thumbnails.remaining_bytes, found.thumbnails.side) == (True, 3 * 2**20, 96)


def test_a_statistic_is_of_two_outputs_or_more_and_of_the_first_400(bench):
    for repeat, length in enumerate((1, 2, 401)):
        bench.add(
            "start", list("ab" * 201)[:length], network=("tell",), seed=-1, repeat=repeat, max_length=402
        )
    bench.embed({"a": np.eye(2)[0], "b": np.eye(2)[1]})
    assert by_run(len)(bench.evidence, TEXT)["value"].to_list() == [2, 400]
