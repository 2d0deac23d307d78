"""`panic completion`: scripts that the shells accept and that complete."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from panic.cli.app import app
from panic.cli.ask import complete_question
from panic.store import Store, reading
from panic.store.trainings import keep
from tests.patience import LONGEST_S
from tests.store.sample import entry

from .conftest import Invoke

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with `panic` and `run-experiments`, as an installation puts them on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, call in (("panic", "main"), ("run-experiments", "run_experiments")):
        program = folder / name
        program.write_text(f"#!{sys.executable}\nfrom panic.cli import {call}\n{call}()\n")
        program.chmod(0o755)
    return folder


def completed(programs: Path, *lines: str) -> list[list[str]]:
    """What bash offers for lines that end where the cursor is."""
    script = f"source <({programs}/panic completion bash)\n"
    for line in lines:
        program, *rest = line.split(" ")
        words = " ".join(f"'{word}'" for word in (program, *rest))
        complete = f"_{program.replace('-', '_')}_completion {program}"
        script += f"COMP_WORDS=({words}); COMP_CWORD={len(rest)}; {complete}\n"
        script += 'echo "${COMPREPLY[@]}"\n'
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_bash_completes_commands_options_and_experiments(programs: Path, store: Path) -> None:
    commands, some, option, experiment, other, question, several, run = completed(
        *(programs, "panic ", "panic st", "panic run --dr", "panic show d", "run-experiments --dr"),
        *("panic table recurr", "panic figure time demo b", "panic show demo --run 6a49"),
    )
    assert sorted(commands) == COMMANDS
    assert some == ["stop", "status", "stuck", "stores"]
    assert option == ["--dry-run"]
    assert experiment == ["demo"]
    assert other == ["--dry-run"]
    assert question == ["recurrence"]
    assert several == ["broken"]
    assert run == ["6a49eba9a5fd8600"]


def test_bash_completes_trainings_and_ids(programs: Path, store: Path) -> None:
    with Store(store) as opened:
        for digit, folder in {"a": "/x/dim", "b": "/y/twin", "c": "/z/twin"}.items():
            keep(opened, entry(Path(folder).name, folder=folder, uid=digit * 64))
        own = reading.experiment(opened, "demo").uid
    either, alone, several, begun, of_experiment = completed(
        *(programs, "panic stop d", "panic verify d", "panic tag /", "panic requirements aa"),
        f"panic show {own[:20]}",
    )
    assert sorted(either) == ["demo", "dim"]
    assert alone == ["demo"]
    assert sorted(several) == ["/y/twin", "/z/twin"]
    assert begun == ["a" * 64]
    assert of_experiment == [own]


def test_questions_that_other_packages_add_are_completed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "plugins"))
    assert complete_question("long") == ["longest_text"]
    assert "panic_plugin" not in sys.modules


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "nushell"])
def test_every_shell_has_a_script_for_both_programs(panic: Invoke, shell: str) -> None:
    done = panic("completion", shell)
    assert done.exit_code == 0, done.output
    assert "panic" in done.stdout
    assert "run-experiments" in done.stdout
    binary = {"nushell": "nu"}.get(shell, shell)
    if shutil.which(binary):
        Path("script").write_text(done.stdout)
        check = {"nu": ["nu", "script"]}.get(binary, [binary, "-n", "script"])
        subprocess.run(check, check=True, timeout=LONGEST_S)


def test_an_unknown_shell_is_told_with_the_known_ones(panic: Invoke) -> None:
    done = panic("completion", "tcsh")
    assert done.exit_code == 2
    assert "nushell" in done.stderr
    assert panic("completion").exit_code == 2


def test_the_nushell_script_knows_every_command_and_option(panic: Invoke) -> None:
    script = panic("completion", "nushell").stdout
    externs = dict(re.findall(r'export extern "([^"]+)" \[\n(.*?)^\]', script, re.M | re.S))
    assert set(externs) == {"panic", "run-experiments", *(f"panic {name}" for name in COMMANDS)}
    assert "  ...configs: path" in externs["panic run"]
    assert "  --set: string  # " in externs["panic run"]
    assert "  --verbose(-v)  # " in externs["panic list"]
    assert '  experiment?: string@"nu-complete panic experiments"' in externs["panic verify"]
    assert '  experiment?: string@"nu-complete panic targets"' in externs["panic show"]
    assert '  experiment: string@"nu-complete panic targets"' in externs["panic project"]
    assert '  target: string@"nu-complete panic targets"' in externs["panic tag"]
    assert "  --output(-o): path" in externs["panic export"]
    assert "  --every: int" in externs["panic images"]
    tree = typer.main.get_command(app)
    for name, command in tree.commands.items():  # type: ignore[attr-defined]
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in externs[f"panic {name}"]
