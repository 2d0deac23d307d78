"""Who makes a remark, and the signature that proves it: an SSH key of git's configuration, or none.

Nobody sets anything up for it: the author is git's `user.name <user.email>`, else user@host. Where git signs
with SSH (`gpg.format=ssh`, `user.signingkey`), remarks are signed by `ssh-keygen -Y sign` in the namespace
`panic`, so that no signature of a commit or a letter counts as one of a remark. Programs that git's
configuration names are not run: a checkout's own configuration may come from anybody.

    author = present_author()
    signature = sign(b"what is said", author.key) if author.key else None
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from panic.errors import PanicError, UsageError

log = logging.getLogger("panic.store")
Made = TypeVar("Made")
NAMESPACE = "panic"
TIMEOUT_S = 10
PATIENCE_S = 120  # of signing: a passphrase, a key that wants to be touched
LITERAL_KEYS = ("key::", "ssh-", "ecdsa-", "sk-")
"""How a public key itself begins, which an agent signs with, where others are names of files."""
SETTINGS = r"^(user\.(name|email|signingkey)|gpg\.format)$"


class SigningError(PanicError):
    """A remark could not be signed, or no signature be verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Whoever makes remarks; `key` is what they are signed with, a file or a public key, None for nothing."""

    name: str
    key: str | None = None


def present_author() -> Author:
    """Return who is at work here, as git knows them, else by user and host."""
    settings = _git_settings()
    name, email = (_line(settings.get(f"user.{part}", "")) for part in ("name", "email"))
    told = f"{name} <{email}>" if name and email else name or email or _user_at_host()
    is_signed = settings.get("gpg.format") == "ssh"
    return Author(name=told, key=settings.get("user.signingkey") if is_signed else None)


def signed_if_possible(perform: Callable[[Author], Made], author: Author, what: str) -> Made:
    """Return what is made of an author: signed remarks, or where that fails, which is logged, unsigned ones.

    what: is stored, as the log says it.
    """
    try:
        return perform(author)
    except SigningError as error:
        log.warning("%s is stored without a signature: %s", what, error.message)
        return perform(replace(author, key=None))


def _git_settings() -> dict[str, str]:
    """The settings that matter, the last value of each; none where git is missing or says nothing."""
    command = ("git", "config", "--null", "--get-regexp", SETTINGS)
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return {}
    found = done.stdout.decode("utf-8", "backslashreplace") if done.returncode == 0 else ""
    entries = (entry.partition("\n") for entry in found.split("\0") if entry)
    return {key: value for key, _, value in entries}


def _line(text: str) -> str:
    """A text on one line, without the brackets that mark an address."""
    return " ".join(text.replace("<", " ").replace(">", " ").split())


def _user_at_host() -> str:
    import getpass

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without an entry in the system's list
        user = str(os.getuid())
    named = f"{user}@{socket.gethostname()}"
    return named.encode(errors="backslashreplace").decode()  # names of users are bytes


def identity(author: str) -> str:
    """Return what an allowed-signers file calls an author: the address, or all of it where there is none."""
    _, bracket, rest = author.partition("<")
    return rest.rstrip("> ") if bracket else author


def sign(message: bytes, key: str) -> str:
    """Return the armoured signature of a message.

    Raises SigningError with what ssh-keygen says.
    """
    import tempfile

    with tempfile.TemporaryDirectory(prefix="panic-sign-") as folder:
        file, options = key, []
        if key.startswith(LITERAL_KEYS):
            public = Path(folder) / "key.pub"
            public.write_text(key.removeprefix("key::") + "\n")
            file, options = str(public), ["-U"]
        file = os.path.expanduser(file)
        done = _keygen("sign", "-n", NAMESPACE, "-f", file, *options, message=message, timeout_s=PATIENCE_S)
    if done.returncode:
        raise SigningError(
            f"The remark could not be signed with {key}: {_said(done)}.",
            hint="Nothing was stored. ssh-add gives an agent the key; --unsigned stores it unsigned.",
        )
    return done.stdout.decode()


def verify(message: bytes, signature: str, author: str, at: float, allowed_signers: Path) -> str:
    """Return why a signature does not prove that the author said this, "" if it does.

    allowed_signers: a file as ssh-keygen(1) describes it, whose principals are addresses of authors.

    Raises SigningError where ssh-keygen is missing.
    """
    try:
        moment = time.strftime("%Y%m%d%H%M%S", time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return "its time is none"
    import tempfile

    with tempfile.TemporaryDirectory(prefix="panic-verify-") as folder:
        file = Path(folder) / "signature"
        file.write_text(signature)
        options = ("-n", NAMESPACE, "-f", str(allowed_signers), "-I", identity(author), "-s", str(file))
        done = _keygen("verify", *options, "-O", f"verify-time={moment}", message=message)
    return _said(done) if done.returncode else ""


def require_signers(path: Path) -> None:
    """Raise UsageError unless an allowed-signers file can be read, as often as there are signatures."""
    if path.is_fifo():  # nobody may ever write into a FIFO
        raise UsageError(f"{path} is a pipe.", hint="What a pipe holds can be read once: write a file of it.")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read: {error.strerror}.",
            hint="Its lines are an address and a public key: me@example.org ssh-ed25519 AAAA...",
        ) from None


def _keygen(
    verb: str, *options: str, message: bytes, timeout_s: float = TIMEOUT_S
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ("ssh-keygen", "-Y", verb, *options), input=message, capture_output=True, timeout=timeout_s
        )
    except FileNotFoundError:
        raise SigningError(
            "ssh-keygen is not installed, which signs remarks and verifies them.",
            hint="It belongs to OpenSSH. --unsigned stores a remark without a signature.",
        ) from None
    except subprocess.TimeoutExpired:
        raise SigningError(
            f"ssh-keygen did not answer within {timeout_s:.0f} s.",
            hint="Nothing was stored. --unsigned stores a remark without a signature.",
        ) from None


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    """The first line of what a program complained of."""
    lines = (done.stderr + b"\n" + done.stdout).decode("utf-8", "backslashreplace").split("\n")
    return next((line.strip().rstrip(".") for line in lines if line.strip()), f"exit code {done.returncode}")
