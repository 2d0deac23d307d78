"""Who somebody is to git, what ssh-keygen is asked, and what it answers or does not."""

from __future__ import annotations

import getpass
import logging
import os
import time
from pathlib import Path

import pytest

from panic.errors import UsageError
from panic.store import signing
from panic.store.signing import Author, SigningError, identity, present_author, sign, verify

NOTES = """#!/bin/sh
printf '%s\\n' "$@" > "$NOTED"
cat >> "$NOTED"
for one in "$@"; do [ -f "$one" ] && cat "$one" >> "$NOTED"; done
printf 'signed\\n'
"""
"""Takes down its arguments, its input and the files that it was given."""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with programs, beside those of the system's shell."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("NOTED", str(tmp_path / "noted"))
    return folder


def keygen(folder: Path, script: str) -> None:
    (folder / "ssh-keygen").write_text(script.replace("cat ", "/bin/cat "))
    (folder / "ssh-keygen").chmod(0o755)


def noted(folder: Path) -> list[str]:
    return (folder.parent / "noted").read_text().splitlines()


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("name = Me", "Me"),
        ("email = me@example.org", "me@example.org"),
        ("name = Me\nemail = me@example.org", "Me <me@example.org>"),
        ("name = <>\nemail = me@example.org", "me@example.org"),
    ],
)
def test_an_author_is_what_git_says_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, name: str
) -> None:
    (tmp_path / "settings").write_text(f"[user]\n{said}\n[gpg]\nformat = openpgp\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "settings"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.chdir(tmp_path)
    assert present_author() == Author(name=name)


def test_without_git_an_author_is_a_user_of_this_host(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = os.uname().nodename
    monkeypatch.setenv("LOGNAME", "somebody")
    assert present_author() == Author(name=f"somebody@{host}")

    def nobody() -> str:
        raise KeyError("a number without a name")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert present_author() == Author(name=f"{os.getuid()}@{host}")


def test_an_address_is_what_allowed_signers_call_an_author() -> None:
    assert [identity(name) for name in ("A <a@b>", "A <a@b> ", "a@b", "A")] == ["a@b", "a@b", "a@b", "A"]


def test_a_key_is_a_file_or_stands_there_itself(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keygen(programs, NOTES)
    (tmp_path / "mine").write_text("private")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sign(b"message\n", "~/mine") == "signed\n"
    asked = ["-Y", "sign", "-n", "panic", "-f"]
    assert noted(programs) == [*asked, str(tmp_path / "mine"), "message", "private"]
    for key in ("key::ssh-ed25519 AAAA", "ssh-ed25519 AAAA", "ecdsa-x AAAA", "sk-x AAAA"):
        assert sign(b"message\n", key) == "signed\n"
        *told, file, option, message, content = noted(programs)
        assert (told, option, message) == (asked, "-U", "message")
        assert content == key.removeprefix("key::")
        assert not Path(file).exists(), "it was a copy"


def test_a_signature_is_verified_for_its_author_and_its_time(programs: Path, tmp_path: Path) -> None:
    keygen(programs, NOTES)
    at = time.mktime((2026, 11, 30, 12, 34, 56, 0, 0, -1))
    assert verify(b"message\n", "a signature", "Me <me@b>", at, tmp_path / "allowed") == ""
    *told, file, option, moment, message, content = noted(programs)
    expected = ["-Y", "verify", "-n", "panic", "-f", str(tmp_path / "allowed"), "-I", "me@b", "-s"]
    assert (told, option, moment) == (expected, "-O", "verify-time=20261130123456")
    assert (message, content) == ("message", "a signature")
    assert not Path(file).exists()
    for never in (float("inf"), 1e300, float("nan")):
        assert verify(b"", "", "me", never, tmp_path / "allowed") == "its time is none"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("printf '\\n  no such key.  \\nmore\\n' >&2; exit 3", "no such key"),
        ("printf 'on stdout\\n'; exit 255", "on stdout"),
        ("printf 'first\\n' >&2; printf 'other\\n'; exit 1", "first"),
        ("printf '\\377\\n' >&2; exit 1", "\\xff"),
        ("exit 7", "exit code 7"),
    ],
)
def test_what_ssh_keygen_complains_of_is_told_in_one_line(
    programs: Path, tmp_path: Path, script: str, said: str
) -> None:
    keygen(programs, f"#!/bin/sh\n{script}\n")
    with pytest.raises(SigningError) as raised:
        sign(b"x", "/a/key")
    assert raised.value.message == f"The remark could not be signed with /a/key: {said}."
    assert raised.value.hint.startswith("Nothing was stored.")
    assert verify(b"x", "", "me", 1.0, tmp_path) == said


def test_a_program_that_is_missing_or_never_answers_is_told(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for perform in (lambda: sign(b"x", "/a/key"), lambda: verify(b"x", "", "me", 1.0, tmp_path)):
        with pytest.raises(SigningError, match="ssh-keygen is not installed") as raised:
            perform()
        assert "--unsigned" in raised.value.hint
    keygen(programs, "#!/bin/sh\nexec /bin/sleep 60\n")
    monkeypatch.setattr(signing, "PATIENCE_S", 0.01)
    with pytest.raises(SigningError, match="ssh-keygen did not answer within 0 s") as raised:
        sign(b"x", "/a/key")
    assert raised.value.hint.startswith("Nothing was stored. --unsigned")


def test_what_cannot_be_signed_is_done_unsigned_where_nobody_is_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = []

    def perform(author: Author) -> str:
        asked.append(author)
        if author.key:
            raise SigningError("no such key")
        return author.name

    with caplog.at_level(logging.WARNING, "panic.store"):
        assert signing.signed_if_possible(perform, Author(name="me", key="/k"), "the label") == "me"
        assert caplog.messages == ["the label is stored without a signature: no such key"]
        assert signing.signed_if_possible(perform, Author(name="you"), "the label") == "you"
    assert asked == [Author(name="me", key="/k"), Author(name="me"), Author(name="you")]
    assert len(caplog.messages) == 1


def test_a_pipe_that_nobody_writes_into_is_no_file_of_signers(tmp_path: Path) -> None:
    """It was opened, and `panic check` waited for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is a pipe"):
        signing.require_signers(tmp_path / "pipe")


def test_allowed_signers_are_in_a_file_that_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: Is a directory") as raised:
        signing.require_signers(tmp_path)
    assert "an address and a public key" in raised.value.hint
    (tmp_path / "allowed").touch()
    signing.require_signers(tmp_path / "allowed")
