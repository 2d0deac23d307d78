"""An experiment is its name: growing, shrinking, refusing, resuming; shapes that fit, and `--repin`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from panic.store import Store, check, contents, reading
from panic.store.dump import dump as dump_lines

from .conftest import DIAGRAMS, Invoke, write_config


def dump(path: str) -> list[dict[str, Any]]:
    with Store(path) as store:
        return list(dump_lines(store))


def batches(path: str = "panic-store") -> int:
    with Store(path) as store:
        return sum(times.batches for times in reading.model_times(store))


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("root_seed=3", "root_seed is 3; demo started with 0"),
        ("reject_constant_images=true", "reject_constant_images is true; demo started with false"),
        ("models.chain.epsilon=0.5", "epsilon: 0.5}; demo started with {base: "),
    ],
)
def test_what_a_name_means_is_fixed(
    panic: Invoke, store: Path, tmp_path: Path, setting: str, says: str
) -> None:
    before = dump("panic-store")
    config = write_config(tmp_path, diagrams=DIAGRAMS)
    for more in ([], ["--dry-run"]):
        done = panic("run", config, "--set", setting, *more)
        assert done.exit_code == 2
        assert says in done.stderr
        assert "started with" in done.stderr
        assert "--name NAME" in done.stderr
    assert dump("panic-store") == before
    assert panic("run", config, "--set", setting, "--name", "other").exit_code == 0


def test_a_variant_that_is_written_otherwise_and_is_the_same_goes_on(
    panic: Invoke, store: Path, tmp_path: Path
) -> None:
    """A default that is written out changes no model."""
    done = panic("run", write_config(tmp_path, diagrams=DIAGRAMS), "--set", "models.chain.alpha=1.0")
    assert done.exit_code == 0, done.output


def test_growing_step_by_step_equals_asking_for_all_at_once(panic: Invoke, tmp_path: Path) -> None:
    one, other = "prompts=[state 0]", "prompts=[state 0, state 3]"
    sizes = ["--set", "batch_sizes={draw: 4, chain: 4}"]
    everything = [
        "diagrams=[{max_dimension: 1}, {max_dimension: 0, metric: cosine}]",
        "distances=[bottleneck]",
    ]
    config = write_config(tmp_path)
    panic(
        "run", config, *sizes, "--store", "a", "--set", one, "--set", "max_length=4", "--set", "embeddings=[]"
    )
    panic("run", config, *sizes, "--store", "a", "--set", other, "--set", f"{everything[0]}")
    for path in ("a", "b"):
        more = [part for text in everything for part in ("--set", text)]
        done = panic("run", config, *sizes, "--store", path, "--set", other, *more)
        assert done.exit_code == 0, done.output
    assert dump("a") == dump("b")
    kinds = [line["settings"]["metric"] for line in dump("a") if line["kind"] == "distance"]
    assert set(kinds) == {"euclidean", "cosine"}


def test_what_a_config_leaves_alone_is_told_and_resume_performs_it(panic: Invoke, tmp_path: Path) -> None:
    """Networks and prompts that were never asked for together are not performed."""
    config = write_config(tmp_path, diagrams=DIAGRAMS)
    idle = ["--set", "models.idle={base: synthetic/image-to-text}"]
    short = ["--set", "max_length=6", "--set", "prompts=[state 3]"]
    other = ["--set", "networks=[[draw, idle]]", "--set", "prompts=[state 1]", "--set", "max_length=4"]
    assert panic("run", config, *idle, *short).exit_code == 0
    before = batches()
    done = panic("run", config, *idle, *other, "--set", "embeddings=[]", "--set", "diagrams=[]")
    assert done.exit_code == 0, done.output
    assert "3 runs of other networks are left alone, all of them ended" in done.stderr
    assert "1 of the embeddings asked for before are left alone" in done.stderr
    assert "demo is incomplete: 6 runs" in done.stdout  # new runs have no vectors
    assert json.loads(panic("status", "demo", "--json").stdout)["state"] == "incomplete"
    assert batches() > before
    shown = panic("show", "demo").stdout
    assert "asked for in all: 2 networks, 2 prompts, 2 seeds, 2 repeats, 1 embedding model" in shown
    assert re.search(
        r"asked for last: +1 network, 1 prompt, 2 seeds, 2 repeats, at most 4 model calls a run", shown
    )
    done = panic("resume", "demo")
    assert "demo is complete: 6 runs" in done.stdout
    with Store("panic-store") as store:
        asked = {(row.network, row.prompt, row.max_length) for row in reading.runs(store, "demo")}
        assert check.check(store) == []
    assert asked == {(("draw", "chain"), "state 3", 6), (("draw", "idle"), "state 1", 4)}
    assert panic("resume", "demo").stdout == "demo is complete.\n"


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_shown_config_that_asks_for_more_than_was_asked_for_says_so(
    panic: Invoke, tmp_path: Path, form: list[str]
) -> None:
    config = write_config(tmp_path)
    panic("run", config, "--set", "max_length=6", "--set", "prompts=[state 3]")
    shown = panic("show", "--config", *form)
    assert (shown.stderr, "#" in shown.stdout) == ("", False)
    for seed in (7, 9):
        changes = ["max_length=4", "prompts=[state 1]", f"seeds=[{seed}]", "repeats=1"]
        panic("run", config, *(part for change in changes for part in ("--set", change)))
    shown = panic("show", "--config", *form)
    more = (
        "this config joins what demo was asked for at different times, 5 runs in all: "
        "performing it adds 3 runs and continues 2 further"
    )
    assert shown.stderr == more + "\n"
    assert shown.stdout.startswith("{" if form else f"# {more}\n")
    again = tmp_path / f"again.{'json' if form else 'yaml'}"
    again.write_text(shown.stdout)
    assert "demo is complete: 8 runs" in panic("run", again).stdout
    assert panic("show", "--config", *form).stderr == ""


def test_an_unfinished_run_is_not_continued_beyond_a_smaller_max_length(
    panic: Invoke, tmp_path: Path
) -> None:
    config = write_config(tmp_path)
    sizes = ["--set", "batch_sizes={draw: 4, chain: 4}", "--set", "seeds=[-1]"]
    panic("run", config, *sizes, "--set", "max_length=4")
    with Store("panic-store", write=True) as store:  # as if a longer one had been stopped at once
        store.db.execute("UPDATE run SET max_length = 30")
    done = panic("run", config, *sizes, "--set", "max_length=6")
    assert "4 unfinished runs were to be longer and are not continued beyond 6 steps" in done.stderr
    with Store("panic-store") as store:
        assert {row.num_steps for row in reading.runs(store)} == {6}
    assert json.loads(panic("status", "--json").stdout)["state"] == "incomplete"
    assert "demo is complete: 4 runs" not in done.stdout
    with Store("panic-store", write=True) as store:
        store.db.execute("UPDATE run SET max_length = 8")
    assert "demo is complete: 4 runs" in panic("resume").stdout


def test_the_dry_run_tells_every_part(panic: Invoke, store: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, diagrams="diagrams: [{max_dimension: 1}, {max_dimension: 0}]")
    with Store(store) as opened:
        counts = reading.counts(opened, "demo")
    done = panic(
        "run", config, "--dry-run", "--set", "vectorisations=[entropy]", "--set", "distances=[bottleneck]"
    )
    told = re.sub(" +", " ", done.stdout)
    assert f"embeddings circle {counts.embeddings} 0" in told
    assert "diagrams circle, text, H0 to H1 6 0" in told
    assert "diagrams circle, text, H0 to H0 0 6" in told
    assert "vectorisations entropy of circle, text, H0 to H1 0 12" in told
    assert "distances bottleneck of circle, text, H0 to H0 0 15" in told
    assert "All runs have ended." in told
    done = panic("run", config, "--set", "vectorisations=[entropy]", "--set", "distances=[bottleneck]")
    assert done.exit_code == 0, done.output
    done = panic(
        "run", config, "--dry-run", "--set", "vectorisations=[entropy]", "--set", "distances=[bottleneck]"
    )
    missing = re.findall(
        r"(?:embeddings|diagrams|vectorisations|distances) .* (\d+) *$", done.stdout, re.MULTILINE
    )
    assert missing == ["0"] * 7


def test_a_new_embedding_loads_no_generator(panic: Invoke, tmp_path: Path) -> None:
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
    config = tmp_path / "counted.yaml"
    config.write_text(
        "name: counted\nnetworks: [['python:counted.py:Counted']]\nprompts: [a]\nseeds: [-1]\n"
        "max_length: 3\ndevice: cpu\nexecutor: local\n"
    )
    panic("run", config)
    assert Path("loads").read_text() == "x"
    done = panic("run", config, "--set", "embeddings=[synthetic/state-embedding]", "--set", "diagrams={}")
    assert done.exit_code == 0, done.output
    with Store("panic-store") as store:
        assert (reading.counts(store).embeddings, reading.counts(store).diagrams) == (4, 1)
    assert Path("loads").read_text() == "x"


def test_a_small_experiment_that_has_grown_is_told_of_repin(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path, prompts=["state 0"])
    run = ["run", config, "--set", "seeds=[7, -1]"]
    panic(*run, "--set", "repeats=1")
    with Store("panic-store") as store:
        assert {row.name: row.batch_size for row in reading.epochs(store, "demo")} == {
            "draw": 2, "chain": 2, "circle": 9 * 2 - 1
        }  # fmt: skip
    told = panic(*run, "--set", "repeats=40", "--dry-run").stdout
    assert re.search(
        r"draw is pinned to batches of 2: at most \d+ calls, \d+% padding; with batches of 32", told
    )
    assert "panic run CONFIG --repin" in told
    before = dump("panic-store")
    refused = panic(*run, "--set", "repeats=40", "--repin")
    assert refused.exit_code == 2
    assert "-y pins anew without asking" in refused.stderr
    assert dump("panic-store") == before
    done = panic(*run, "--set", "repeats=40", "--repin", "--yes")
    assert done.exit_code == 0, done.output
    assert "draw: batches of 2 → 32" in done.stderr
    with Store("panic-store") as store:
        found = {
            (row.name, row.number): (row.batch_size, row.reason) for row in reading.epochs(store, "demo")
        }
        assert check.check(store) == []
    assert found["draw", 0] == (2, "start")
    assert found["draw", 1] == (32, "request")
    kept = [line for line in before if line["kind"] in ("run", "invocation", "stuck")]
    after = dump("panic-store")
    assert all(line in after for line in kept)
    assert "nothing is pinned anew" in panic(*run, "--set", "repeats=40", "--repin").stdout


def test_a_batch_size_that_the_config_says_is_changed_by_repin_only(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path, prompts=["state 0"])
    panic("run", config, "--set", "batch_sizes.draw=2")
    longer = ["run", config, "--set", "batch_sizes.draw=3", "--set", "max_length=20"]
    assert "batch_sizes.draw is 3; this experiment started with 2" in panic(*longer).stderr
    assert panic(*longer, "--repin", "-y").exit_code == 0
    again = panic("run", config, "--set", "batch_sizes.draw=2", "--set", "max_length=20")
    assert "batch_sizes.draw is 2; this experiment was pinned anew to 3" in again.stderr
    assert panic("run", config, "--set", "max_length=20").exit_code == 0


def test_diagrams_of_several_settings_are_picked_or_refused(panic: Invoke, tmp_path: Path) -> None:
    settings = "diagrams: [{max_dimension: 1}, {max_dimension: 1, metric: cosine}]\ndistances: [bottleneck]"
    panic("run", write_config(tmp_path, diagrams=settings))
    from panic.errors import NotFound

    with Store("panic-store") as store:
        of = {"dimension": 0, "kind": "bottleneck"}
        run = reading.runs(store)[0].id
        known = contents.diagram_settings(store, "demo", "circle")
        for ask in (
            lambda: contents.distances(store, "demo", "circle", **of),
            lambda: contents.bars(store, run, "circle", 0),
        ):
            with pytest.raises(NotFound, match="several settings") as raised:
                ask()
            assert '"metric":"cosine"' in raised.value.hint
            assert '"metric":"euclidean"' in raised.value.hint
        cosine = contents.distances(store, "demo", "circle", diagrams={"metric": "cosine"}, **of)
        other = contents.distances(store, "demo", "circle", diagrams={"metric": "euclidean"}, **of)
        assert (cosine.matrix != other.matrix).any()
        [digest] = [digest for digest, found in known.items() if found["metric"] == "cosine"]
        again = contents.distances(store, "demo", "circle", diagrams=digest, **of)
        assert (again.matrix == cosine.matrix).all()
        with pytest.raises(NotFound, match="no diagrams with the settings"):
            contents.bars(store, run, "circle", 0, {"metric": "chordal"})
