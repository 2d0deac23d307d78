"""`panic embed` and `panic diagrams`: more of what is stored, without generating any of it again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panic.store import Store, check, contents, reading
from panic.store.dump import dump as dump_lines

from .conftest import Invoke, write_config

EMBEDDER = """
from pathlib import Path

class Letters:
    modality_in, modality_out, size_bytes = "text", "vector", 0
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        return [[float(len(text)), float(text.count("s")), 1.0] for text in inputs]
"""


@pytest.fixture
def plain(panic: Invoke, tmp_path: Path) -> Path:
    """A store of an experiment without diagrams, and the folder's embedder."""
    assert panic("run", write_config(tmp_path), "--quiet").exit_code == 0
    (tmp_path / "letters.py").write_text(EMBEDDER)
    return tmp_path / "panic-store"


def config_of(path: Path | str = "panic-store", name: str = "demo") -> dict[str, Any]:
    with Store(path) as store:
        return reading.experiment(store, name).config


def dump(path: str) -> list[dict[str, Any]]:
    with Store(path) as store:
        return list(dump_lines(store))


def state(panic: Invoke) -> str:
    return str(json.loads(panic("status", "demo", "--json").stdout)["state"])


def test_more_embeddings_become_part_of_the_experiment(panic: Invoke, plain: Path) -> None:
    known = config_of()
    done = panic("embed", "demo", "synthetic/state-embedding")
    assert done.exit_code == 0, done.stderr
    assert "demo is complete" in done.stdout
    assert config_of() == known | {"embeddings": ["circle", "synthetic/state-embedding"]}
    with Store(plain) as store:
        vectors = contents.vectors(store, "synthetic/state-embedding")
        assert vectors.digests == contents.vectors(store, "circle").digests
        assert check.check(store) == []
    assert panic("resume", "demo").stdout == "demo is complete.\n"
    before = dump("panic-store")
    assert panic("embed", "demo", "synthetic/state-embedding").exit_code == 0
    assert dump("panic-store") == before


@pytest.mark.slow
def test_adding_later_equals_asking_at_once(panic: Invoke, tmp_path: Path) -> None:
    settings = "diagrams: [{max_dimension: 1}, {max_dimension: 0, metric: cosine}]\n"
    measures = "vectorisations: [entropy]\ndistances: [{kind: wasserstein, order: 2}]"
    assert panic("run", write_config(tmp_path, diagrams=settings + measures), "--store", "a").exit_code == 0
    assert panic("run", write_config(tmp_path), "--store", "b").exit_code == 0
    for more in (
        ["--max-dimension", 1, "--vectorisation", "entropy"],
        ["--metric", "cosine", "--max-dimension", 0],
        ["--distance", "{kind: wasserstein, order: 2}"],
    ):
        done = panic("diagrams", "demo", *more, "--store", "b")
        assert done.exit_code == 0, done.stderr
    assert dump("a") == dump("b")
    assert config_of("b")["diagrams"] == config_of("a")["diagrams"]


def test_neither_embeddings_nor_diagrams_need_what_the_outputs_were_made_with(
    panic: Invoke, tmp_path: Path
) -> None:
    """panic embed took the fingerprints of generators, whose weights had to be there."""
    for name, out in (("talker", "text"), ("seer", "vector")):
        (tmp_path / f"{name}.py").write_text(
            f"class Model:\n    modality_in, modality_out, size_bytes = 'text', '{out}', 0\n"
            "    def load(self, device): pass\n    def invoke(self, inputs, seeds):\n        return "
            + ("[text + '!' for text in inputs]\n" if out == "text" else "[[1.0, len(t)] for t in inputs]\n")
        )
    (tmp_path / "gone.yaml").write_text(
        "name: gone\nnetworks: [['python:talker.py:Model']]\nprompts: [a]\nseeds: [1]\nmax_length: 4\n"
        "embeddings: ['python:seer.py:Model']\ndevice: cpu\nexecutor: local\n"
    )
    done = panic("run", "gone.yaml")
    assert done.exit_code == 0, done.stderr
    (tmp_path / "talker.py").unlink()
    (tmp_path / "seer.py").unlink()
    embed, diagrams = ["embed", "gone", "PocketText"], ["diagrams", "gone", "--max-dimension", 0]
    for command in ([*embed, "--dry-run"], embed, diagrams):
        done = panic(*command, "--trust")
        assert done.exit_code == 0, done.stderr
    with Store("panic-store") as store:
        assert reading.counts(store, "gone").embeddings == 10
        assert reading.counts(store, "gone").diagrams == 2


def test_once_leaves_what_the_experiment_asks_for_as_it_is(panic: Invoke, store: Path) -> None:
    known = config_of()
    done = panic("embed", "demo", "synthetic/state-embedding", "--once")
    assert done.exit_code == 0, done.stderr
    assert config_of() == known
    assert state(panic) == "complete"
    with Store(store) as opened:
        own, more = (contents.vectors(opened, name) for name in ("circle", "synthetic/state-embedding"))
        assert own.digests == more.digests
        assert contents.diagram_settings(opened, "demo", "synthetic/state-embedding") == {}


@pytest.mark.slow
def test_vectors_that_were_computed_once_are_in_the_report(panic: Invoke, store: Path) -> None:
    """Only models that the config names had figures, so that nothing showed what --once had computed."""
    assert panic("embed", "demo", "PocketText", "--once").exit_code == 0
    assert panic("report", "demo", "-o", "report.html").exit_code == 0
    html = Path("report.html").read_text(encoding="utf-8")
    assert "Drift of the texts from the prompt · PocketText" in html
    assert html.index("from the prompt · circle") < html.index("from the prompt · PocketText")


@pytest.mark.slow
def test_diagrams_once_are_of_these_settings_and_nothing_else(panic: Invoke, store: Path) -> None:
    known = config_of()
    done = panic("diagrams", "demo", "--metric", "chordal", "--vectorisation", "entropy", "--once")
    assert done.exit_code == 0, done.stderr
    assert config_of() == known
    assert state(panic) == "complete"
    with Store(store) as opened:
        of_circle = contents.diagram_settings(opened, "demo", "circle").values()
        assert sorted(one["metric"] for one in of_circle) == ["chordal", "euclidean"]
        assert reading.counts(opened, "demo").vectorisations == 6 * 2  # runs, dimensions; of one setting


def test_unfinished_runs_do_not_go_on_and_no_generator_is_loaded(panic: Invoke, tmp_path: Path) -> None:
    (tmp_path / "counted.py").write_text(
        "from pathlib import Path\n"
        "class Counted:\n"
        "    modality_in = modality_out = 'text'\n"
        "    size_bytes = 0\n"
        "    def load(self, device):\n"
        "        with Path('loads').open('a') as out: out.write('x')\n"
        "    def invoke(self, inputs, seeds):\n"
        "        return [text + '!' for text in inputs]\n"
    )
    (tmp_path / "letters.py").write_text(EMBEDDER)
    config = tmp_path / "counted.yaml"
    config.write_text(
        "name: demo\nnetworks: [['python:counted.py:Counted']]\nprompts: [a, b]\nseeds: [-1]\n"
        "max_length: 3\ndevice: cpu\nexecutor: local\n"
    )
    assert panic("run", config).exit_code == 0
    with Store("panic-store", write=True) as store:  # as if one of them had been stopped
        store.db.execute("UPDATE run SET max_length = 9 WHERE id = 1")
    Path("loads").unlink()
    Path("below").mkdir()
    done = panic("embed", "demo", "python:letters.py:Letters", "--trust")
    assert done.exit_code == 0, done.stderr
    assert "demo: 1 unfinished runs do not go on here (panic resume demo" in done.stderr
    assert "beyond" not in done.stderr
    assert not Path("loads").exists()
    with Store("panic-store") as store:
        assert [run.num_steps for run in reading.runs(store)] == [3, 3]
        model = config_of()["embeddings"][0]
        vectors = contents.vectors(store, model)
        texts = [contents.text(store, bytes.fromhex(digest)) for digest in vectors.digests]
        np.testing.assert_array_equal(vectors.vectors[:, 0], [len(text) for text in texts])
    assert panic("resume", "demo", "--trust").exit_code == 0
    with Store("panic-store") as store:
        assert [run.num_steps for run in reading.runs(store)] == [9, 3]
        assert reading.counts(store).embeddings == 2 + 9 + 3


def test_diagrams_tell_how_many_runs_have_none_because_they_have_not_ended(
    panic: Invoke, store: Path
) -> None:
    """Runs stopped at different lengths: no one number of steps is where they are not continued."""
    with Store(store, write=True) as opened:
        ids = [run.id for run in reading.runs(opened, "demo") if run.state == "done"][:2]
        for number, id in enumerate(ids):
            opened.db.execute(f"UPDATE run SET max_length = {30 + number} WHERE id = {id}")
            opened.db.execute(f"DELETE FROM invocation WHERE run = {id} AND step > {4 + number}")
    done = panic("diagrams", "demo", "--metric", "cosine", "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "demo: 2 unfinished runs do not go on here, and diagrams are of ended runs alone" in done.stderr
    assert "beyond" not in done.output
    assert "unfinished" not in panic("diagrams", "demo", "--metric", "cosine", "--dry-run", "-q").stderr


def test_a_dry_run_tells_what_is_missing_and_changes_nothing(panic: Invoke, store: Path) -> None:
    before, known = dump("panic-store"), config_of()
    done = panic("embed", "demo", "synthetic/state-embedding", "--dry-run")
    assert done.exit_code == 0, done.stderr
    told = re.sub(" +", " ", done.stdout)
    with Store(store) as opened:
        num = reading.counts(opened, "demo").embeddings
    assert f"embeddings synthetic/state-embedding 0 {num}" in told
    assert "diagrams synthetic/state-embedding, text, H0 to H1 0 6" in told
    done = panic("diagrams", "demo", "--metric", "cosine", "--distance", "bottleneck", "--dry-run")
    told = re.sub(" +", " ", done.stdout)
    assert "diagrams circle, text, H0 to H1, metric cosine 0 6" in told
    assert "distances bottleneck of circle, text, H0 to H1 0 30" in told
    assert dump("panic-store") == before
    assert config_of() == known


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["embed", "demo", "PocketTxt"], "did you mean PocketText?"),
        (["embed", "demo", "draw"], "draw gives image; an embedding model gives a vector"),
        (["embed", "dmeo", "PocketText"], "Did you mean demo?"),
        (["diagrams", "demo", "--vectorisation", "entropie"], "entropy"),
        (["diagrams", "demo", "--vectorisation", "landscape"], "the key 'range' is missing"),
        (["diagrams", "demo", "--distance", "[1]"], "a kind or a mapping"),
        (["diagrams", "demo", "--distance", "9" * 5000], "a kind or a mapping"),
        (["diagrams", "demo", "--vectorisation", "2026-13-45"], "a kind or a mapping"),
        (["diagrams", "demo", "--window", "x"], "a window is N or N:DELAY"),
        (["diagrams", "demo", "--window", "9" * 5000], "a window is N or N:DELAY"),
        (["diagrams", "demo", "--landmarks", "5", "--metric", "cosine"], "landmarks need a metric"),
        (["diagrams", "demo", "--max-dimension", "3"], "less than or equal to 2"),
    ],
)
def test_mistakes_are_answered_before_anything_is_done(
    panic: Invoke, store: Path, arguments: list[str], says: str
) -> None:
    before = config_of()
    for more in ([], ["--dry-run"], ["--once"]):
        done = panic(*arguments, *more)
        assert done.exit_code == 2
        assert says in done.stderr
    assert config_of() == before


def test_diagrams_without_embeddings_are_refused_with_the_way(panic: Invoke, tmp_path: Path) -> None:
    assert panic("run", write_config(tmp_path), "--set", "embeddings=[]").exit_code == 0
    assert "First panic embed demo MODEL." in panic("diagrams", "demo").stderr


def test_a_path_on_the_command_line_is_relative_to_where_it_is_typed(
    panic: Invoke, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "letters.py").rename(tmp_path / "below" / "letters.py")
    monkeypatch.chdir(tmp_path / "below")
    done = panic("embed", "demo", "python:letters.py:Letters", "--store", plain)
    assert done.exit_code == 0, done.stderr
    name = f"python:{tmp_path}/below/letters.py:Letters"
    assert config_of(plain)["embeddings"] == ["circle", name]
    refused = panic("diagrams", "demo", "--store", plain)
    assert refused.exit_code == 2
    assert "--trust" in refused.stderr


def test_windows_and_landmarks_become_settings(panic: Invoke, store: Path) -> None:
    options = ["--window", "2:1", "--landmarks", 3, "--generators", "--threshold", 1.5, "--dry-run"]
    told = re.sub(" +", " ", panic("diagrams", "demo", *options).stdout)
    assert "diagrams circle, text, H0 to H1 6 0" in told
    new = 'H0 to H1, generators True, threshold 1.5, window {"delay":1,"dimension":2}, landmarks 3 0 6'
    assert f"diagrams circle, text, {new}" in told


def test_a_model_that_takes_nothing_of_what_there_is_is_told(panic: Invoke, tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("run,step,text\na,0,one\na,1,two\n")
    assert panic("import", "texts.csv", "--name", "texts").exit_code == 0
    done = panic("embed", "texts", "PocketPixels")
    assert done.exit_code == 0
    assert "PocketPixels is of images, and texts has none: it has nothing to embed there." in done.stderr
    assert "nothing to embed" not in panic("embed", "texts", "PocketText").stderr
