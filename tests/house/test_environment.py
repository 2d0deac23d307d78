"""The environment that the scripts make: which Python, when they install, what they say when they cannot.

The scripts are the real ones, in a project folder of their own; the interpreter is a stand-in that answers
`-c` with the real Python, makes an "environment" by copying itself and notes what pip is asked for, so that
the tests take no minutes and need no network. `.ci/run` sees the real installation.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ["bash", "env", "cat", "dirname", "cksum", "mkdir", "rm", "sed", "awk", "cp", "echo", "ps"]
STAND_IN = """#!/usr/bin/env bash
case "$1 $2" in
  "-c "*) exec "{real}" "$@" ;;
  "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip") echo "$*" >>"{notes}"; [ ! -e "{notes}.offline" ] ;;
  "-m pytest") echo "pytest in $PWD" ;;
esac
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A clone with only the scripts in it, and the PATH they are run with."""

    root: Path
    bin: Path
    notes: Path
    run: Callable[..., subprocess.CompletedProcess[str]]

    def installs(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def python(self, name: str, code: str) -> None:
        path = self.bin / name
        path.write_text(code)
        path.chmod(0o755)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root, bin_, notes = tmp_path / "a clone", tmp_path / "bin", tmp_path / "notes"
    (root / "scripts").mkdir(parents=True)
    bin_.mkdir()
    for name in ("test.sh", "scripts/environment.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root / name)
    for tool in TOOLS:
        if found := shutil.which(tool):
            (bin_ / tool).symlink_to(found)

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(root / "test.sh"), *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PATH": str(bin_), **variables},
            timeout=250,
        )

    project = Project(root=root, bin=bin_, notes=notes, run=run)
    project.python("python3.11", STAND_IN.format(real=sys.executable, notes=notes))
    return project


needs_3_11 = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the stand-in answers as this Python")


@needs_3_11
def test_the_second_run_installs_nothing(project: Project) -> None:
    first = project.run()
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1] == f"pytest in {project.root}"
    assert len(project.installs()) == 1
    assert "--constraint constraints.txt --editable .[test]" in project.installs()[0]
    second = project.run()
    assert (second.returncode, second.stderr) == (0, "")
    assert len(project.installs()) == 1


@needs_3_11
@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_a_change_of_the_requirements_is_installed(project: Project, changed: str) -> None:
    project.run()
    with (project.root / changed).open("a") as file:
        file.write("# changed\n")
    assert project.run().returncode == 0
    assert len(project.installs()) == 2


@needs_3_11
def test_extras_are_added_and_kept(project: Project) -> None:
    (project.root / "other.sh").write_text("source scripts/environment.sh; ensure_environment $1")

    def ensure(extra: str) -> None:
        subprocess.run(
            ["bash", "other.sh", extra],
            cwd=project.root,
            env={"PATH": str(project.bin)},
            check=True,
            timeout=250,
        )

    ensure("")
    ensure("test")
    ensure("")
    ensure("gpu")
    ensure("test")
    assert [line.split()[-2] for line in project.installs()] == [".", ".[test]", ".[test,gpu]"]


@needs_3_11
def test_a_failed_installation_is_noticed_and_made_again(project: Project) -> None:
    offline = project.notes.with_name("notes.offline")
    offline.touch()
    failed = project.run()
    assert failed.returncode == 1
    assert "The installation failed" in failed.stderr
    (project.root / ".venv" / "half").touch()
    offline.unlink()
    again = project.run()
    assert again.returncode == 0
    assert "was interrupted: making it again" in again.stderr
    assert not (project.root / ".venv" / "half").exists()
    assert project.run().stderr == ""


@needs_3_11
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the start time from /proc")
def test_an_installation_under_way_is_left_alone(project: Project) -> None:
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    venv = project.root / ".venv"
    venv.mkdir()
    (venv / "panic-installing").write_text(f"{os.getpid()} {started}\n")
    other = project.run()
    assert other.returncode == 1
    assert f"under way (PID {os.getpid()})" in other.stderr
    assert project.installs() == []


@needs_3_11
def test_a_moved_clone_is_installed_anew(project: Project, tmp_path: Path) -> None:
    project.run()
    moved = tmp_path / "moved"
    project.root.rename(moved)
    done = subprocess.run(
        [str(moved / "test.sh")], capture_output=True, text=True, env={"PATH": str(project.bin)}, timeout=250
    )
    assert done.returncode == 0
    assert "making it again" in done.stderr
    assert len(project.installs()) == 2


def test_an_environment_made_by_hand_is_not_deleted(project: Project) -> None:
    (project.root / ".venv" / "bin").mkdir(parents=True)
    precious = project.root / ".venv" / "precious"
    precious.touch()
    refused = project.run()
    assert refused.returncode == 1
    assert "delete it" in refused.stderr
    assert precious.exists()


def test_another_python_is_refused_with_what_was_seen(project: Project) -> None:
    (project.bin / "python3.11").unlink()
    project.python("python3", "#!/usr/bin/env bash\necho 3.9\n")
    project.python("python3.12", "#!/usr/bin/env bash\necho 'not installed' >&2; exit 127\n")
    refused = project.run()
    assert refused.returncode == 1
    assert "panic needs Python 3.11" in refused.stderr
    assert f"{project.bin}/python3 (3.9)" in refused.stderr
    assert f"{project.bin}/python3.12 (does not run)" in refused.stderr
    assert not (project.root / ".venv").exists()


def test_no_python_at_all_is_said(project: Project) -> None:
    (project.bin / "python3.11").unlink()
    refused = project.run()
    assert refused.returncode == 1
    assert "no Python at all" in refused.stderr


@needs_3_11
def test_a_python_named_otherwise_is_found_by_its_version(project: Project) -> None:
    project.python("python3.11", "#!/usr/bin/env bash\nexit 127\n")
    project.python("python", STAND_IN.format(real=sys.executable, notes=project.notes))
    assert project.run().returncode == 0
    assert len(project.installs()) == 1


@needs_3_11
def test_the_python_can_be_named(project: Project, tmp_path: Path) -> None:
    (project.bin / "python3.11").rename(tmp_path / "mine")
    assert project.run().returncode == 1
    assert project.run(PANIC_PYTHON=str(tmp_path / "mine")).returncode == 0
