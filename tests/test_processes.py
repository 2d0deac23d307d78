"""Processes of ours find modules where this one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from panic.processes import _Heedless, python


def test_what_python_ignores_on_its_path_harms_no_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A path that is no text ended every child with a NameError; the empty one is the working folder."""
    (tmp_path / "json.py").write_text("raise SystemExit('the working folder came first')\n")
    monkeypatch.setattr(sys, "path", ["", *sys.path, Path("src")])
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(python("json:dumps", "text"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_command_calls_a_function_with_its_arguments_and_says_at_once_what_it_says() -> None:
    command = python("panic.errors:nearest", "a", "b")
    assert command[1:4] == ["-P", "-u", "-c"]
    assert command[-2:] == ["a", "b"]
    assert "from panic.errors import nearest; nearest(*sys.argv[1:])" in command[4]


SAYING = """
import gc, os, sys
from panic.processes import lose_unread
lose_unread()
if sys.argv[1] == "closed":
    os.close(2)
print("said", chr(0xdc80), file=sys.stderr)
sys.stderr = sys.__stderr__
gc.collect()
os.fstat(2)  # it is not closed with what stood in for it
print("went on")
"""


@pytest.mark.parametrize(("how", "lives"), [("read", True), ("unread", True), ("closed", False)])
def test_only_what_nobody_reads_is_lost(how: str, lives: bool) -> None:
    """A pipe without a reader takes everything; a stderr that was closed is a mistake, which is told."""
    reader, writer = os.pipe()
    if how != "read":
        os.close(reader)
    command = [sys.executable, "-c", SAYING, how]
    done = subprocess.run(command, stderr=writer, stdout=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.stdout == "went on\n") is lives
    if how == "read":
        assert os.read(reader, 100) == b"said \\udc80\n"
        os.close(reader)


def test_of_what_is_lost_all_counts_as_written() -> None:
    """A number is what a text file asks of what is below it; another error is one."""
    reader, writer = os.pipe()
    with _Heedless(writer, "w") as file:
        assert file.write(b"abc") == 3
        os.close(reader)
        assert file.write(b"abcd") == 4
    with _Heedless(os.open("/dev/full", os.O_WRONLY), "w") as full, pytest.raises(OSError, match="No space"):
        full.write(b"abc")


def test_what_is_said_is_said_at_once() -> None:
    """Also half a line, before a process that ends in the middle of it."""
    code = "import os, sys; from panic.processes import lose_unread; lose_unread()\n"
    code += "sys.stderr.write('half a line'); os._exit(0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "half a line"
