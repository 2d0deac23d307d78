"""A model's files are found here: in the hub's local cache, in a folder, or in the package itself.

Nothing is downloaded here: what a run needs has to be known (and fingerprinted) before it starts, so
missing weights end in `ModelMissing` with the command that fetches them. The hub's own environment
variables (HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN) hold as everywhere.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from panic.errors import ModelError, ModelMissing
from panic.models import gguf_files
from panic.models.protocol import BYTES_PER_ELEMENT, ModelSpec

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_DOCUMENTS = {".md", ".lock"}
_digests: dict[tuple[str, int, int], str] = {}


def folder_of(spec: ModelSpec) -> Path:
    """The local folder with a model's files.

    Raises ModelMissing if it is not there, with the command that fetches it; ModelError if it can have none.
    """
    kind, _, rest = spec.source.partition(":")
    if kind == "local":
        return _local_folder(spec.name, Path(rest).expanduser())
    if kind == "pocket":
        from panic.pocket import folder as pocket_folder

        folder = Path(pocket_folder(rest))
        if not folder.is_dir():
            raise ModelMissing(f"{spec.name}: the weights {rest} are not in the package ({folder})")
        return folder
    if not spec.is_hub:
        raise ModelError(f"{spec.name} has no folder of weights")
    return _hub_snapshot(spec)


def _local_folder(name: str, folder: Path) -> Path:
    if not folder.exists():
        raise ModelMissing(f"{name}: there is no folder {folder}")
    if not folder.is_dir():
        raise ModelMissing(f"{name}: {folder} is a file; a folder as written by save_pretrained is needed")
    if index_file(folder) is None:
        raise ModelError(f"{name}: {folder} has neither model_index.json (diffusers) nor config.json")
    return folder


def index_file(folder: Path) -> Path | None:
    """The file that says what a folder holds: a diffusers pipeline or a transformers model."""
    for name in ("model_index.json", "config.json"):
        if (folder / name).is_file():
            return folder / name
    return None


def pipeline_index(spec: ModelSpec, folder: Path) -> dict[str, Any]:
    """The content of model_index.json. Raises ModelError if there is none: it is no diffusers pipeline."""
    path = folder / "model_index.json"
    if not path.is_file():
        raise ModelError(f"{spec.name}: {folder} has no model_index.json: it is no diffusers pipeline")
    return read_json(path, spec.name)


def pipeline_class(spec: ModelSpec, folder: Path) -> str:
    """The pipeline class that a folder was saved from."""
    name = pipeline_index(spec, folder).get("_class_name", "")
    return str(name[-1] if isinstance(name, list) else name)


def _hub_snapshot(spec: ModelSpec) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(spec):
        folder = Path(snapshot_download(spec.source, revision=spec.revision, local_files_only=True))
    if index_file(folder) is None or not any(weight_files(folder)):
        raise ModelMissing(f"{spec.name}: only a part of {spec.source} is here", hint=fetch_hint(spec))
    return folder


def fetch_hint(spec: ModelSpec) -> str:
    """The command that fetches a hub model, and what a gated one needs besides."""
    revision = f" --revision {spec.revision}" if spec.revision else ""
    hint = f"fetch it with: hf download {spec.source}{revision}"
    if spec.gated:
        hint += (
            f"\nit is gated: accept its licence at https://huggingface.co/{spec.source} "
            "and log in with a token first (hf auth login)"
        )
    return hint


@contextmanager
def hub_errors(spec: ModelSpec) -> Iterator[None]:
    """Turns what the hub's client and the loaders raise about files into errors with a remedy."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelMissing(
            f"{spec.name}: {spec.source} is gated and this login has no access",
            hint=f"accept its licence at https://huggingface.co/{spec.source}, then: hf auth login",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelMissing(f"{spec.name}: {spec.source} has no revision {spec.revision}") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelMissing(
            f"{spec.name}: no model {spec.source} on the hub, or it is private", hint=fetch_hint(spec)
        ) from error
    except errors.HFValidationError as error:
        raise ModelError(f"{spec.name}: {spec.source!r} is not a hub id (organisation/name)") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        at = f" at revision {spec.revision}" if spec.revision else ""
        raise ModelMissing(
            f"{spec.name}: the weights of {spec.source}{at} are not on this machine", hint=fetch_hint(spec)
        ) from error


def read_json(path: Path, name: str) -> dict[str, Any]:
    """A model folder's JSON file that holds an object. Raises ModelError if it does not."""
    content = _json(path, name)
    if not isinstance(content, dict):
        raise ModelError(f"{name}: {path} should hold a JSON object")
    return content


def read_json_list(path: Path, name: str) -> list[dict[str, Any]]:
    """A model folder's JSON file that holds a list of objects. Raises ModelError if it does not."""
    content = _json(path, name)
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise ModelError(f"{name}: {path} should hold a list of JSON objects")
    return content


def _json(path: Path, name: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{name}: {path} cannot be read: {error}") from error


def weight_files(folder: Path) -> Iterator[Path]:
    """The weight files under a folder, hidden folders excepted."""
    for path in sorted(files_in(folder)):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix in _WEIGHTS and not hidden:
            yield path


def files(spec: ModelSpec) -> list[Path]:
    """The weight files of a model; empty for one without any, or whose weights are not here."""
    if not (spec.is_hub or spec.source.startswith(("local:", "pocket:"))):
        return []
    try:
        found = list(weight_files(folder_of(spec)))
    except ModelError:
        return []
    return [path for path in found if path.suffix == ".safetensors"] or found


def files_in(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """All files below a folder, also where a subfolder is a link; not again where it leads back up."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from files_in(path, (*above, real))
        elif path.is_file():
            yield path


def folder_digest(folder: Path) -> str:
    """SHA-256 over the relative names and contents of a model folder's files (documents excepted)."""
    digest = hashlib.sha256()
    for path in sorted(files_in(folder)):
        relative = path.relative_to(folder)
        if path.suffix in _DOCUMENTS or relative.parts[0].startswith("."):
            continue
        digest.update(f"{relative.as_posix()}\0{file_digest(path)}\n".encode())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, computed once as long as its size and time of change stay."""
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    if key not in _digests:
        with path.open("rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]


def known_digests() -> dict[tuple[str, int, int], str]:
    """The digests of files by path, size and time of change (ns), as far as they were computed here."""
    return dict(_digests)


def learn_digests(known: Mapping[tuple[str, int, int], str]) -> None:
    """Take over what another process has computed: the files are read again only where they have changed."""
    _digests.update(known)


def digest(path: Path) -> str:
    """SHA-256 of a file, or of a model folder's files."""
    return file_digest(path) if path.is_file() else folder_digest(path)


def size_bytes(spec: ModelSpec) -> int:
    """Bytes of the weights at the spec's dtype: from the table, or counted in the files' headers."""
    if (path := spec.parameters.get("gguf")) is None:
        return count_parameters(spec) * BYTES_PER_ELEMENT[spec.dtype or "float32"]
    folder = folder_of(spec)
    others = None
    if (folder / "model_index.json").is_file():
        others = _count(part for part in weight_files(folder) if part.parent.name != gguf_files.PART)
    return gguf_files.size_bytes(Path(path), others, spec.dtype)


def count_parameters(spec: ModelSpec) -> int:
    """Number of parameters, from the table or from the headers of the safetensors files."""
    if spec.num_parameters is not None:
        return spec.num_parameters
    return _count(weight_files(folder_of(spec) / str(spec.options.get("model_folder", ""))))


def count_of_part(folder: Path, part: str) -> int | None:
    """Number of parameters of a pipeline's part, from its files; None where they are not here."""
    inside = folder / part
    return (_count(weight_files(inside)) or None) if inside.is_dir() else None


def _count(files: Iterable[Path]) -> int:
    """Number of parameters in weight files, of each folder's in one format and without copies."""
    by_folder: dict[Path, dict[str, list[Path]]] = {}
    for path in files:
        by_folder.setdefault(path.parent, {}).setdefault(path.suffix, []).append(path)
    total = 0
    for by_suffix in by_folder.values():
        if ".safetensors" in by_suffix:
            total += sum(_count_safetensors(path) for path in _without_variants(by_suffix[".safetensors"]))
        else:
            total += sum(path.stat().st_size // 4 for paths in by_suffix.values() for path in paths)
    return total


def variant(folder: Path) -> str | None:
    """The variant of a folder's weights ("fp16") where one of its parts has no plain files; else None."""
    parts: dict[Path, set[str]] = {}
    for path in weight_files(folder):
        parts.setdefault(path.parent, set()).add(_variant_of(path))
    only = {next(iter(sorted(found))) for found in parts.values() if "" not in found}
    return min(only, default=None)


def _variant_of(path: Path) -> str:
    """ "fp16" of model.fp16.safetensors or model.fp16-00001-of-00002.safetensors; "" of a plain file."""
    words = path.name.split(".")
    return words[1].split("-")[0] if len(words) == 3 else ""


def is_pocket(spec: ModelSpec) -> bool:
    """Return whether a model's weights came with the package."""
    return spec.source.startswith("pocket:")


def _without_variants(paths: list[Path]) -> list[Path]:
    """Drops copies at other precision (model.fp16.safetensors) where the plain file is there."""
    plain = [path for path in paths if path.name.count(".") == 1]
    return plain or paths


def _count_safetensors(path: Path) -> int:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, path.stat().st_size)))
        return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (struct.error, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        hint = "is it cut off, or a pointer of Git LFS (git lfs pull fetches what it stands for)?"
        raise ModelError(f"{path} is no file of safetensors", hint=hint) from error
