"""Where results come from: the command, the code, the packages, the hardware, the environment.

Recorded once per session. Values of environment variables that look secret are left out, and so are
user names and passwords in URLs, and what looks like a secret in a patch. Nothing here raises: what cannot be
found out is None.

Try it: `python -c "from panic.store.provenance import provenance; print(provenance())"`
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

from panic.errors import UsageError
from panic.store.codec import canonical_json, readable
from panic.store.secrets import ADDRESS, CERTAIN, INSTEAD, PATTERNS, RANDOM, RANDOM_BITS, SECRET_NAME

PATCH_LIMIT = 256 * 1024
PATCH_MARGIN = 4096
"""So much more of a patch is read for secrets than is kept: longer than what a pattern needs to know one."""
NAME_OR_VERSION = re.compile(r"^(Name|Version):[ \t]*(.*?)[ \t]*$", re.MULTILINE)
SHOWN_CHANGES = 100
TIMEOUT_S = 10
STATUS_TIMEOUT_S = 60
"""A guard may wait longer than a record."""
VECTOR = re.compile(r"sse4|avx|fma|amx|asimd|neon|sve|sme2?$|bf16")
"""How the names of sets of vector instructions begin in Linux's list of a processor's abilities."""


SECRET_LENGTH = 8
"""Shorter values are no secrets, and might stand anywhere."""
ABSOLUTE = re.compile(r"(?:(?<![\w/.~-])|(?<=file://))/[\w.@+~-]+(?:/[\w.@+~-]+)+/?")
"""Absolute paths, also in names of models; no parts of other URLs, or of relative paths."""


def provenance(hidden: Collection[str] = (), project: Path | None = None) -> dict[str, Any]:
    """Everything about this process that may explain its results; takes about 0.1 s.

    hidden: variables of the environment that hold secrets, whatever they are called. project: a folder of the
    user's repository, such as that of a config; by default the working directory.
    """
    own = git_state(Path(__file__).parent, hidden)
    return {
        "command": [without_tokens(readable(argument)) for argument in sys.argv],
        "folder": working_folder(),
        "host": socket.gethostname(),
        "git": own,
        "repository": _repository(project or Path("."), own, hidden),
        **surroundings(),
        "environment": redacted(os.environ, hidden),
    }


def surroundings() -> dict[str, Any]:
    """What can be compared between two machines: versions, the source, the hardware; git is not asked."""
    return {
        "python": sys.version,
        "source_digest": _loaded_digest(),
        "packages": packages(),
        "hardware": hardware(),
    }


@cache
def _loaded_digest() -> str:
    """The digest of panic's source as this process' first session finds it: what changes later is not run."""
    return source_digest()


def _repository(
    folder: Path, own: Mapping[str, Any] | None, hidden: Collection[str]
) -> dict[str, Any] | None:
    """The state of the user's repository; where panic runs from the same one, the patch stands there."""
    found = git_state(folder, hidden)
    if found is not None and own is not None and found["root"] == own["root"]:
        return {key: value for key, value in found.items() if key != "patch"}
    return found


def without(content: Any, secrets: Collection[str]) -> Any:
    """A text, or JSON values, with every secret cut out, wherever it stands."""
    if isinstance(content, str):
        for secret in sorted(secrets, key=len, reverse=True):  # one may be the beginning of another
            if len(secret) >= SECRET_LENGTH:
                content = content.replace(secret, INSTEAD)
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
        readable(name): INSTEAD if _is_secret(name, value, hidden) else _without_patterns(readable(value))
        for name, value in sorted(environment.items())
    }


def _is_secret(name: str, value: str, hidden: Collection[str]) -> bool:
    """Whether a variable of the environment holds a secret, or looks as if it did."""
    return bool(name in hidden or SECRET_NAME.search(name) or ADDRESS.match(value))


def git_state(folder: Path, hidden: Collection[str] = ()) -> dict[str, Any] | None:
    """Commit, whether there are changes, and the patch of the checkout that holds a folder, if it is one.

    A patch of more than PATCH_LIMIT characters is cut; its SHA-256 is of the whole. What looks like a secret
    in it is left out. Whether there are changes is None where git does not say so in time.

    hidden: variables that hold secrets. The patch does not have their values, and git does not get them, nor
    the filters that a repository's settings have it start.
    """
    git = partial(_git, folder, hidden=hidden)
    commit = git("rev-parse", "HEAD")
    # A folder in somebody else's checkout (an environment inside a project) is not that project's code.
    if commit is None or git("ls-files", "--error-unmatch", ".") is None:
        return None
    root, changes = (git("rev-parse", "--show-toplevel") or "").strip(), git("status", "--porcelain")
    told = "" if changes == "" else git("diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color")
    patch = told or ""
    kept = without_keys(patch, PATCH_LIMIT, hidden)
    return {
        "root": root,
        "commit": commit.strip(),
        "dirty": None if changes is None else bool(changes),
        "changes": (changes or "").splitlines()[:SHOWN_CHANGES],
        "patch": kept,
        "patch_sha256": hashlib.sha256(patch.encode(errors="replace")).hexdigest(),
        "patch_is_complete": told is not None and kept == patch,
    }


def without_keys(patch: str, limit: int | None = None, hidden: Collection[str] = ()) -> str:
    """A patch without what looks like keys in it, and without values of variables that look secret.

    Args:
        limit: at most so many characters of it. What is cut in two is no longer known for a secret, so values
            are looked for in all of the patch, and what a pattern may have seen half of is not kept.
        hidden: variables that hold secrets, whatever they are called.
    """
    values = [value.strip() for name, value in os.environ.items() if _is_secret(name, value, hidden)]
    text: str = without(patch, values)
    if limit is None or len(text) <= limit + PATCH_MARGIN:
        return _without_patterns(text)[:limit]
    seen = _without_patterns(text[: limit + PATCH_MARGIN])
    return seen[: min(limit, max(0, len(seen) - PATCH_MARGIN))]


def without_tokens(text: str) -> str:
    """A command line without passwords in URLs and known tokens; what else stands in it is what was asked."""
    for pattern, instead in CERTAIN:
        text = pattern.sub(instead, text)
    return text


def _without_patterns(text: str) -> str:
    """A text without what looks like a secret by its name, its form, or its randomness."""
    for pattern, instead in PATTERNS:
        text = pattern.sub(instead, text)
    return RANDOM.sub(lambda found: INSTEAD if _bits(found[0]) > RANDOM_BITS else found[0], text)


def _bits(text: str) -> float:
    """The entropy of a text's characters, in bits for each of them."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def uncommitted(file: Path, apart: Collection[Path] = (), hidden: Collection[str] = ()) -> list[str] | None:
    """What no commit of the checkout that holds a file has, as git status tells it; None without a checkout.

    apart: folders of results, which are no part of it. hidden: variables that git does not get, nor its
    filters. Raises UsageError where git does not answer: what is not known is not clean.
    """
    git = partial(_git, file.absolute().parent, hidden=hidden)
    root = git("rev-parse", "--show-toplevel")
    if root is None or git("rev-parse", "HEAD") is None:
        return None
    top = Path(root.strip())
    inside = [path.resolve() for path in apart]
    inside = [path.relative_to(top) for path in inside if path != top and path.is_relative_to(top)]
    left_out = [f":(top,exclude,literal){path}" for path in inside]
    told = git("status", "--porcelain", "--", ":/", *left_out, timeout_s=STATUS_TIMEOUT_S)
    if told is None:
        raise UsageError(
            f"Whether all is committed is not known: git status failed in {top}, or took too long.",
            hint=f"git -C {top} status tells what is wrong; --allow-dirty asks for nothing.",
        )
    changes = told.splitlines()
    if not changes and git("ls-files", "--error-unmatch", "--", str(file.absolute())) is None:
        return [f"!! {file}"]
    return changes


def _git(
    folder: Path, *arguments: str, timeout_s: float = TIMEOUT_S, hidden: Collection[str] = ()
) -> str | None:
    """What git prints in a folder.

    It takes no locks: a session that is killed meanwhile would leave one, and nobody could commit. What the
    repository's own settings would start is not started.
    """
    quietly = ("--no-optional-locks", "-c", "diff.autoRefreshIndex=false", "-c", "core.fsmonitor=false")
    return _output("git", *quietly, "-C", str(folder), *arguments, timeout_s=timeout_s, hidden=hidden)


def trained_step(folder: Path, uid: str) -> int | None:
    """After how many steps of the training with this uid a folder's model was written, if it was."""
    with contextlib.suppress(*UNREADABLE):
        content = json.loads((folder / TRAINED).read_bytes())
        return int(content["step"]) if content["training"] == uid else None
    return None


def training_of(folder: Path) -> str | None:
    """The uid of the training that a folder's model came out of, if it is one of `panic train`."""
    for file in (folder / TRAINED, folder.with_name(f"{folder.name}.training") / "recipe.json"):
        with contextlib.suppress(*UNREADABLE):
            content = json.loads(file.read_bytes())
            return str(content["training"]) if file.name == TRAINED else training_uid(content)
    return None


UNREADABLE = (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""What reading a file that says where a model comes from can raise."""
TRAINED = ".training.json"
"""A file beside a trained model's weights that says which training it came out of."""


def training_uid(recipe: Any) -> str:
    """The uid of a training: the digest of its recipe, which has the digest of the data in it."""
    return hashlib.sha256(canonical_json(recipe).encode()).hexdigest()


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

    They are read once per process, and only the two lines that count: the standard library takes a whole file
    apart as an e-mail, which takes 0.1 s for a hundred of them.
    """
    texts = (one.read_text("METADATA") or one.read_text("PKG-INFO") or "" for one in metadata.distributions())
    known = (dict(NAME_OR_VERSION.findall(text.partition("\n\n")[0])) for text in texts)
    return dict(sorted({one["Name"]: one.get("Version") for one in known if one.get("Name")}.items()))


def hardware() -> dict[str, Any]:
    """Processor, memory and NVIDIA GPUs."""
    gpus = None
    if shutil.which("nvidia-smi"):
        gpus = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": processor(),
        "vector_instructions": " ".join(vector_instructions()),
        "num_cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus.splitlines() if gpus else [],
        **_cuda(),
    }


def _cuda() -> dict[str, Any]:
    """Versions of the libraries that torch brought for GPUs, where it is loaded already."""
    torch = sys.modules.get("torch")
    if torch is None or not getattr(torch.version, "cuda", None):
        return {}
    return {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}


def gpu_energy_j() -> dict[str, float]:
    """What NVIDIA GPUs have used since their driver was loaded, in joules by UUID, where they tell.

    It is that of whole GPUs: what other processes do there counts.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return {
            str(pynvml.nvmlDeviceGetUUID(one)): pynvml.nvmlDeviceGetTotalEnergyConsumption(one) / 1000
            for one in handles
        }
    except Exception:  # no library, no GPU, an old or a divided one
        return {}


def energy_used(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, Any]:
    """What a record of provenance says of the energy that GPUs have used between two questions."""
    if not before:
        return {}
    return {
        "gpu_energy_j": {uuid: round(now[uuid] - used, 3) for uuid, used in before.items() if uuid in now}
    }


@cache
def processor() -> str:
    """The name of the processor's model."""
    return _of_processor("model name") or platform.processor()


@cache
def vector_instructions() -> tuple[str, ...]:
    """The sets of vector instructions that the processor offers, which decide how its kernels round."""
    return tuple(sorted(flag for flag in _of_processor("flags|Features").split() if VECTOR.match(flag)))


def _of_processor(key: str) -> str:
    """The first line of that key in Linux's list of processors; "" where there is none."""
    try:
        found = re.search(rf"^(?:{key})\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found[1] if found else ""


def _output(*command: str, timeout_s: float = TIMEOUT_S, hidden: Collection[str] = ()) -> str | None:
    """What a command prints, None if it fails, hangs or does not exist. hidden: variables it does not get."""
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, check=True, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


def short_paths(text: str) -> str:
    """The text with absolute paths cut to their last part: a page that is passed on tells of no disk."""
    return ABSOLUTE.sub(lambda found: found[0].rstrip("/").rpartition("/")[2], text)
