"""Where results come from: the command, the code, the packages, the hardware, the environment.

Recorded once per session. Values of environment variables that look secret are left out, and so are
user names and passwords in URLs. Nothing here raises: what cannot be found out is None.

Try it: `python -c "from panic.store.provenance import provenance; print(provenance())"`
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

PATCH_LIMIT = 256 * 1024
SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|COOKIE", re.IGNORECASE)
URL_CREDENTIALS = re.compile(r"(\w+://)[^/\s@]+@")
TIMEOUT_S = 10


SECRET_LENGTH = 8
"""Shorter values are no secrets, and might stand anywhere."""
ABSOLUTE = re.compile(r"(?<![\w/:.~-])/[\w.@+~-]+(?:/[\w.@+~-]+)+/?")


def provenance(hidden: Collection[str] = ()) -> dict[str, Any]:
    """Everything about this process that may explain its results; takes about 0.1 s.

    hidden: variables of the environment that hold secrets, whatever they are called.
    """
    return {
        "command": [readable(argument) for argument in sys.argv],
        "folder": working_folder(),
        "host": socket.gethostname(),
        "python": sys.version,
        "git": git_state(Path(__file__).parent) or git_state(Path(".")),
        "source_digest": source_digest(),
        "packages": packages(),
        "hardware": hardware(),
        "environment": redacted(os.environ, hidden),
    }


def without(content: Any, secrets: Collection[str]) -> Any:
    """A text, or JSON values, with every secret cut out, wherever it stands."""
    if isinstance(content, str):
        for secret in secrets:
            if len(secret) >= SECRET_LENGTH:
                content = content.replace(secret, "(redacted)")
        return content
    if isinstance(content, Mapping):
        return {without(key, secrets): without(value, secrets) for key, value in content.items()}
    if isinstance(content, list):
        return [without(value, secrets) for value in content]
    return content


def working_folder() -> str | None:
    """The working directory, None if it has been deleted."""
    try:
        return readable(os.getcwd())
    except OSError:
        return None


def redacted(environment: Mapping[str, str], hidden: Collection[str] = ()) -> dict[str, str]:
    """An environment without its secrets."""
    return {
        readable(name): "(redacted)"
        if name in hidden or SECRET_NAME.search(name)
        else readable(URL_CREDENTIALS.sub(r"\1(redacted)@", value))
        for name, value in sorted(environment.items())
    }


def readable(text: str) -> str:
    """A text of the operating system as UTF-8, which its bytes need not be: others are shown as \\xff."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit, whether there are changes, and the patch of the checkout that holds a folder, if it is one.

    A patch of more than PATCH_LIMIT characters is cut; its SHA-256 is of the whole.
    """
    # Without locks: a session that is killed meanwhile would leave one, and nobody could commit.
    quietly = ("--no-optional-locks", "-c", "diff.autoRefreshIndex=false")
    git = partial(_output, "git", *quietly, "-C", str(folder))
    commit = git("rev-parse", "HEAD")
    # A folder in somebody else's checkout (an environment inside a project) is not that project's code.
    if commit is None or git("ls-files", "--error-unmatch", ".") is None:
        return None
    changes = git("status", "--porcelain")
    patch = (changes and git("diff", "HEAD", "--no-ext-diff", "--no-color")) or ""
    return {
        "commit": commit.strip(),
        "dirty": bool(changes),
        "patch": patch[:PATCH_LIMIT],
        "patch_sha256": hashlib.sha256(patch.encode(errors="replace")).hexdigest(),
        "patch_is_complete": len(patch) <= PATCH_LIMIT,
    }


def source_digest() -> str:
    """SHA-256 over the names and contents of panic's own source files."""
    folder = Path(__file__).parent.parent
    state = hashlib.sha256()
    for path in sorted(path for kind in ("*.py", "*.sql") for path in folder.rglob(kind)):
        try:
            content = path.read_bytes()
        except OSError:  # a checkout that is being updated
            content = b"unreadable"
        state.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return state.hexdigest()


@cache
def packages() -> Mapping[str, str]:
    """Versions of all installed distributions; the remains of a broken installation have no name.

    They are read once per process, and each file once: it is an e-mail to the standard library.
    """
    known = [distribution.metadata for distribution in metadata.distributions()]
    return dict(sorted({one["Name"]: one["Version"] for one in known if one["Name"]}.items()))


def hardware() -> dict[str, Any]:
    """Processor, memory and NVIDIA GPUs."""
    gpus = None
    if shutil.which("nvidia-smi"):
        gpus = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": processor(),
        "num_cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus.splitlines() if gpus else [],
    }


def processor() -> str:
    """The name of the processor's model."""
    try:
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor()


def _output(*command: str) -> str | None:
    """What a command prints, None if it fails, hangs or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


def short_paths(text: str) -> str:
    """The text with absolute paths cut to their last part: a page that is passed on tells of no disk."""
    return ABSOLUTE.sub(lambda found: found[0].rstrip("/").rpartition("/")[2], text)
