"""`panic optimize`: the space, a study that goes on after a kill, pruning, former results."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from panic.config.problems import Source
from panic.config.searching import search_space
from panic.config.sources import parse
from panic.errors import ConfigError
from tests.cli.conftest import SLOWED, Invoke
from tests.patience import until
from tests.train import small

CONFIG = """\
name: look
networks: [[draw, chain]]
models:
  draw: {{base: synthetic/text-to-image, states: 5, size: 16, delay_s: {delay_s}}}
  chain: {{base: synthetic/image-to-text, states: 5, kernel: dirichlet, epsilon: {epsilon}}}
prompts: [state 0, state 3]
seeds: [-1]
max_length: {max_length}
device: cpu
executor: local
"""
RANGE = "{optimize: {from: 0, to: 1}}"
DRAW = "synthetic/text-to-image, states: 5, size: 16, delay_s: 0.0}"


def write(folder: Path, epsilon: str = RANGE, delay_s: float = 0.0, max_length: int = 6) -> Path:
    path = folder / "look.yaml"
    path.write_text(CONFIG.format(epsilon=epsilon, delay_s=delay_s, max_length=max_length))
    return path


def space(text: str) -> list[Any]:
    return search_space(parse(Source(name="x.yaml", text=text), "YAML"))


def test_the_space_is_what_says_optimize_else_the_sweeps() -> None:
    swept = "a: {values: [1, 2]}\nb: {c: {from: 1, to: 8, whole: true}}\nd: {from: 1, to: 4, n: 2}\n"
    one, two, three = space(swept)
    assert (one.name, list(one.values)) == ("a", [1, 2])
    assert (two.name, two.low, two.high, two.is_whole) == ("b.c", 1, 8, True)
    assert list(three.values) == [1, 4]
    [only] = space(f"{swept}e: {{optimize: {{from: 0.1, to: 7, scale: log}}}}\n")
    assert (only.name, only.is_log) == ("e", True)
    [drawn] = space("f: {random: log, low: 1, high: 2, n: 3}\n")
    assert (drawn.low, drawn.high, drawn.is_log) == (1, 2, True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\n", "nothing in it is to be optimized"),
        ("a: {optimize: 3}\n", "x.yaml:1:"),
        ("a: {optimize: {from: 3, to: 1}}\n", "must be more than from"),
        ("a: {optimize: {from: 0, to: 1, scale: log}}\n", "begins above 0"),
        ("a: {optimize: {from: 0, to: 1, scale: lag}}\n", "did you mean 'log'?"),
        ("a: {optimize: {from: 0, to: x}}\n", "a range has numbers"),
        ("a: {optimize: {from: 1.2, to: 1.8, whole: true}}\n", "no whole number lies in this range"),
        ("a: {optimize: {from: 1, to: 1e400, whole: true}}\n", "a range ends somewhere"),
        ("a: {optimize: {from: 1, to: 8, whole: no}}\n", "must be true or false"),
        ("a: {optimize: {from: 0, to: 1, form: 3}}\n", "a range has no 'form'"),
    ],
)
def test_a_mistake_in_the_space_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as found:
        space(text)
    assert told in str(found.value)


def test_a_whole_number_larger_than_any_other_ended_in_an_error_of_python() -> None:
    source = Source(name="x.json", text='{"a": {"optimize": {"from": 1, "to": 1' + "0" * 400 + "}}}")
    with pytest.raises(ConfigError, match="a range ends somewhere"):
        search_space(parse(source, "JSON"))


def test_a_range_of_whole_numbers_went_outside_of_what_is_said() -> None:
    [small] = space("a: {optimize: {from: 0.4, to: 8, whole: true, scale: log}}\n")
    assert (small.least, small.high) == (1, 8)
    [between] = space("a: {optimize: {from: 1.6, to: 3.4, whole: true}}\n")
    assert between.told() == "a whole number from 2 to 3"


def test_a_study_with_a_trial_without_parameters_was_stuck_for_ever(panic: Invoke, tmp_path: Path) -> None:
    """A kill left it so: the journal takes a trial and each of its parameters as lines of their own."""
    pytest.importorskip("optuna", reason="Optuna is not installed (extra optimize)")
    command = ("optimize", write(tmp_path, max_length=2), "--maximise", "entropy", "--quiet")
    assert panic(*command, "--trials", "1").exit_code == 0
    journal = tmp_path / "panic-store" / "studies" / "look.journal"
    lines = journal.read_text().splitlines()
    begun = next(line for line in lines if json.loads(line)["op_code"] == 4)
    journal.write_text("\n".join([*lines, begun]) + "\n")
    done = panic(*command, "--trials", "2")
    assert done.exit_code == 0, done.output
    assert [one["name"] for one in trials(panic)] == ["look-trial-0000", "look-trial-0002"]
    assert panic(*command, "--trials", "2").exit_code == 0
    assert len(trials(panic)) == 2


def test_bad_options_are_answered(panic: Invoke, tmp_path: Path) -> None:
    config = write(tmp_path)
    for arguments, told in (
        ([], "either --maximise"),
        (["--maximise", "entropi"], "Did you mean entropy?"),
        (["--maximise", "entropy", "--sampler", "tpa"], "Did you mean tpe?"),
        (["--maximise", "entropy", "--pruner", "mediam"], "Did you mean median?"),
        (["--maximise", "entropy", "--set", "name="], "no name"),
    ):
        done = panic("optimize", config, *arguments)
        assert (done.exit_code, told in done.stderr) == (2, True), done.output
        assert "Traceback" not in done.output
    done = panic("optimize", config, "--maximise", "entropy", "--dry-run")
    assert done.exit_code == 0
    assert "models.chain.epsilon" in done.stdout
    assert not (tmp_path / "panic-store").exists()


def trials(panic: Invoke) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        panic("list", "--where", "'optimize-look' in tags", "--json").stdout
    )
    return found


def test_it_goes_on_and_takes_former_results(panic: Invoke, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="Optuna is not installed (extra optimize)")
    plain = write(tmp_path, "0.5")
    assert panic("run", plain, "--name", "before", "--quiet").exit_code == 0
    config = write(tmp_path)
    command = ("optimize", config, "--maximise", "entropy", "--from", "before")
    done = panic(*command, "--trials", "2")
    assert done.exit_code == 0, done.output
    assert "3 complete" in done.stdout
    assert [one["name"] for one in trials(panic)] == ["look-trial-0001", "look-trial-0002"]
    done = panic(*command, "--trials", "3", "--sampler", "random")
    assert done.exit_code == 0, done.output
    assert "4 complete" in done.stdout
    assert [one["name"] for one in trials(panic)][2:] == ["look-trial-0003"]
    assert len({one["label"] for one in trials(panic)}) == 3
    done = panic("optimize", config, "--minimise", "entropy")
    assert done.exit_code == 2
    assert "has another direction" in done.stderr
    (tmp_path / "panic-store" / "studies" / "look.journal").write_text("no json\n")
    done = panic("optimize", config, "--maximise", "entropy")
    assert done.exit_code == 1
    assert "is damaged" in done.stderr


def test_values_and_whole_numbers_are_written_as_configs_have_them(panic: Invoke, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="Optuna is not installed (extra optimize)")
    config = write(tmp_path, "{optimize: {values: [0.25, 0.75]}}")
    config.write_text(
        config.read_text().replace("size: 16", "size: {optimize: {from: 16, to: 20, whole: true}}")
    )
    done = panic("optimize", config, "--minimise", "seconds", "--trials", "2", "--sampler", "random")
    assert done.exit_code == 0, done.output
    for one in trials(panic):
        models = json.loads(panic("show", one["name"], "--config", "--json").stdout)["models"]
        assert models["chain"]["epsilon"] in (0.25, 0.75)
        assert models["draw"]["size"] in range(16, 21)


REMOVING = """
from pathlib import Path
from panic.models.synthetic import TextToImage

class Draw:
    modality_in, modality_out, size_bytes = "text", "image", 0
    def load(self, device): self.model = TextToImage(states=5, size=16)
    def invoke(self, inputs, seeds):
        for file in Path("panic-store", "studies").glob("*.journal"):
            {act}
        return self.model.invoke(inputs, seeds)
"""


@pytest.mark.parametrize("act", ["file.unlink()", "file.rename('x'); Path(file).write_bytes(b'')"])
def test_a_study_that_goes_while_it_is_worked_on_is_told(panic: Invoke, tmp_path: Path, act: str) -> None:
    """Its trials were written into a new file, which had no study; the next call began another one."""
    pytest.importorskip("optuna", reason="Optuna is not installed (extra optimize)")
    (tmp_path / "removing.py").write_text(REMOVING.format(act=act))
    config = write(tmp_path)
    config.write_text(config.read_text().replace(DRAW, '"python:removing.py:Draw"}'))
    done = panic("optimize", config, "--maximise", "entropy", "--trials", "2")
    assert done.exit_code == 1
    assert "look.journal was removed or replaced while it was worked on" in done.stderr
    [one] = trials(panic)
    assert (one["name"], one["state"]) == ("look-trial-0000", "complete")


@pytest.mark.slow
def test_a_bad_trial_is_pruned_and_keeps_what_it_has(panic: Invoke, tmp_path: Path) -> None:
    """Good ones take long enough to be heard of in their middle: else nothing is known to compare with."""
    pytest.importorskip("optuna", reason="Optuna is not installed (extra optimize)")
    config = write(tmp_path, max_length=24)
    config.write_text(
        config.read_text().replace("delay_s: 0.0", "delay_s: {optimize: {values: [0.05, 0.051, 0.052, 1.0]}}")
    )
    config.write_text(config.read_text().replace(RANGE, "0.5"))
    command = ("optimize", config, "--minimise", "seconds", "--pruner", "median", "--sampler", "random")
    done = panic(*command, "--trials", "9")
    assert done.exit_code == 0, done.output
    assert "pruned" in done.stdout
    assert {one["state"] for one in trials(panic)} == {"complete", "interrupted"}


@pytest.mark.slow
def test_a_killed_search_finishes_its_trial_first(panic: Invoke, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="Optuna is not installed (extra optimize)")
    (tmp_path / "slowed.py").write_text(SLOWED)
    config = write(tmp_path, max_length=60)
    config.write_text(config.read_text().replace(DRAW, '"python:slowed.py:Draw"}'))
    command = [
        sys.executable,
        "-m",
        "panic",
        "optimize",
        str(config),
        "--maximise",
        "entropy",
        "--trials",
        "2",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def has_begun() -> bool:
        done = panic("list", "--json")
        return done.exit_code == 0 and any(one["invocations"] for one in json.loads(done.stdout))

    until(has_begun, process)
    process.kill()
    process.wait()
    assert [one["state"] for one in trials(panic)] == ["interrupted"]
    (tmp_path / "go").touch()
    done = panic(*command[3:])
    assert done.exit_code == 0, done.output
    assert "2 complete" in done.stdout
    assert [(one["name"], one["state"]) for one in trials(panic)] == [
        ("look-trial-0000", "complete"),
        ("look-trial-0001", "complete"),
    ]


def test_without_optuna_the_extra_is_named(
    panic: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = panic("optimize", write(tmp_path), "--maximise", "entropy")
    assert done.exit_code == 2
    assert "panic[optimize]" in done.stderr
    assert not (tmp_path / "panic-store").exists()


def write_training(folder: Path, **changes: Any) -> Path:
    """A training whose learning rate is looked for."""
    path = folder / "train.yaml"
    values = small.raw("autoencoder", folder, steps=3, evaluate_every=1, log_every=3)
    rate = {"optimize": {"from": 1e-4, "to": 1e-2, "scale": "log"}}
    path.write_text(yaml.safe_dump(values | {"learning_rate": rate} | changes))
    return path


def trained(panic: Invoke) -> list[dict[str, Any]]:
    done = panic("trainings", "--where", "'optimize-model' in tags", "--json")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_trainings_are_optimized_and_bad_metrics_are_answered(
    panic: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="Optuna is not installed (extra optimize)")
    monkeypatch.setattr(logging, "raiseExceptions", False)
    config = write_training(tmp_path)
    done = panic("optimize", config, "--minimise", "val_los")
    assert (done.exit_code, "Did you mean val_loss?" in done.stderr) == (2, True)
    done = panic("optimize", config, "--minimise", "val_loss", "--set", "output=a b/c d")
    assert (done.exit_code, "is no name" in done.stderr) == (2, True)
    assert not (tmp_path / "panic-store").exists()
    command = ("optimize", config, "--minimise", "val_loss", "--sampler", "random")
    done = panic(*command, "--trials", 1)
    assert done.exit_code == 0, done.output
    assert "of model-trial-0000" in done.stdout
    done = panic(*command, "--trials", 2, "--from", "model-trial-0000")
    assert done.exit_code == 0, done.output
    rows = trained(panic)
    assert [(row["name"], row["state"]) for row in rows] == [
        ("model-trial-0000", "complete"),
        ("model-trial-0002", "complete"),  # the former one counts, too
    ]
    assert [row["label"].startswith("learning_rate=") for row in rows] == [True, True]
    assert f"{min(row['val_loss'] for row in rows):.6g}" in done.stdout
    done = panic("optimize", config, "--set", "output=other", "--maximise", "measures.nothing", "--trials", 1)
    assert done.exit_code == 1
    assert "An evaluation tells" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_bad_training_is_pruned_and_a_killed_one_goes_on(panic: Invoke, tmp_path: Path) -> None:
    """Rates so small that nothing is learnt are pruned; a killed trial goes on from its checkpoint."""
    pytest.importorskip("optuna", reason="Optuna is not installed (extra optimize)")
    rates = {"optimize": {"values": [1e-9, 1e-2, 2e-2, 3e-2]}}  # the bad one is worse than the median
    config = write_training(
        tmp_path, steps=16, evaluate_every=4, learning_rate=rates, checkpoint_minutes=60.0
    )
    command = [
        *("optimize", str(config), "--minimise", "val_loss", "--pruner", "median"),
        "--sampler",
        "random",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "panic", *command, "--trials", "1"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    first = tmp_path / "model-trial-0000.training"
    until(lambda: list(first.glob("step-*.pt")), process)
    process.kill()
    process.wait()
    done = subprocess.run(
        [sys.executable, "-m", "panic", *command, "--trials", "10"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "pruned" in done.stdout
    rows = trained(panic)
    assert {row["state"] for row in rows} == {"complete", "interrupted"}
    assert rows[0]["step"] == 16
    assert len((first / "loss.csv").read_text().splitlines()) == 6, "a header, and every third step once"
