"""What all parts of a config have in common: their base, and the kinds of values that fields have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, LiteralString

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

MAX_COUNT = 2**31 - 1
MAX_SEED = 2**63 - 1
LEAST_EXPONENT = 1000  # smaller numbers with a point or an exponent are slips
MAX_EXACT = 2**53  # beyond, a number with an exponent need not be the one that was written
MAX_BATCH = 65_536  # batches are padded to their size, so a slip of the finger would fill the memory
MAX_WORKERS = 1024  # processes or threads
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
"""A plain name, or organisation/name on the hub; neither can be a path out of a folder or an address."""
SIZE_UNITS = {"": 1, "B": 1} | {
    prefix + unit: base**power
    for power, prefix in enumerate("KMGT", start=1)
    for unit, base in (("B", 1000), ("iB", 1024))
}


class Part(BaseModel):
    """Base of all parts of a config: no unknown keys, no guessing of types, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def parse_size(value: Any) -> Any:
    """Return the bytes that a text like "8GiB" or "512MB" means; other types pass unchanged."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
    unit = (
        {name.lower(): factor for name, factor in SIZE_UNITS.items()}.get(match[2].lower()) if match else None
    )
    if match is None or unit is None:
        raise PydanticCustomError("size", "must be a size such as 8GiB, 512MB or a number of bytes")
    return int(float(match[1]) * unit)


def parse_whole(value: Any) -> Any:
    """Return the whole number that 5e6 means, which is a text in YAML; other values pass unchanged.

    Of numbers that were read already, only large ones are taken so: 2.0 stays a mistake.
    """
    if isinstance(value, str) and re.fullmatch(r"\+?\d{1,18}(\.\d*)?[eE]\+?\d{1,2}", value):
        return int(float(value)) if float(value).is_integer() and float(value) <= MAX_EXACT else value
    if isinstance(value, float) and value.is_integer() and LEAST_EXPONENT <= value <= MAX_EXACT:
        return int(value)
    return value


DEVICES = ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:all", "sim:8GiB"]


def check_device(value: Any) -> Any:
    """Accept auto, cpu, mps, cuda, cuda:N, cuda:all and sim:SIZE, or a list, also with commas in a text.

    A list of one is that one. Several are GPUs, or simulated: one process each, so none is named twice.
    """
    if isinstance(value, str) and "," in value:
        value = [one.strip() for one in value.split(",")]
    if isinstance(value, str):
        return _check_one_device(value, "is not a known device")
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise PydanticCustomError("device", "must name a device, or list some", {"allowed": DEVICES})
    unknown = "has '{one}', which is not a known device"
    names = [re.sub(r"^cuda$", "cuda:0", _check_one_device(one, unknown)) for one in value]
    if len(names) == 1:
        return value[0]
    if alone := [one for one in names if one in ("auto", "mps", "cuda:all")]:
        raise PydanticCustomError("device", "has '{one}' in a list: it stands alone", {"one": alone[0]})
    sorts = list(dict.fromkeys(one.partition(":")[0] for one in names))
    if len(sorts) > 1:
        raise PydanticCustomError(
            "device",
            "mixes {sorts}: results depend on the kind of device",
            {"sorts": " and ".join(sorts), "hint": "several devices are all cuda:N, or all sim:SIZE"},
        )
    double = next((one for place, one in enumerate(names) if one in names[:place]), None)
    if double == "cpu":
        hint = f"device: cpu with workers: {len(names)} has as many processes"
        raise PydanticCustomError("device", "names cpu twice", {"hint": hint})
    if double is not None and sorts == ["cuda"]:
        hint = "every device has one process; name it once"
        raise PydanticCustomError("device", "names {one} twice", {"one": double, "hint": hint})
    return names


def _check_one_device(value: str, otherwise: LiteralString) -> str:
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,4}|:all)?", value):
        return value
    if value.startswith("sim:"):
        parse_size(value.removeprefix("sim:"))
        return value
    raise PydanticCustomError("device", otherwise, {"allowed": DEVICES, "one": value})


def check_name(value: str) -> str:
    """Accept names that can be part of a file name."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        return value
    raise PydanticCustomError(
        "name", "may have letters, digits, '.', '_' and '-', and starts with a letter or digit"
    )


def check_experiment_name(value: str) -> str:
    """Accept names that select nothing else."""
    if value == "latest":
        raise PydanticCustomError("reserved", "cannot be 'latest', which means the newest experiment")
    return value


def check_no_nul(value: Any) -> Any:
    """Accept what an operating system takes as a path."""
    if "\0" in str(value):
        raise PydanticCustomError("nul", "must not contain the character NUL")
    return value


def is_utf8(text: str) -> bool:
    """Whether a file can hold a text; names of files may be of any bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def check_utf8(value: Any) -> Any:
    """Accept texts and paths that a file can hold."""
    if not is_utf8(str(value)):
        raise PydanticCustomError("surrogate", "must be a text that can be written as UTF-8")
    return value


def check_text(value: str) -> str:
    """Accept texts with something to read in them."""
    check_no_nul(value)
    if not value.strip():
        raise PydanticCustomError("blank", "must not be empty")
    return str(check_utf8(value))


TAG = re.compile(r"[^\s,\x00-\x1f\x7f-\x9f\ud800-\udfff-][^\s,\x00-\x1f\x7f-\x9f\ud800-\udfff]{0,63}")
"""One word that shells, configs and filters can say."""
MAX_LABEL = 200


def check_tag(value: str) -> str:
    """Accept what can be a tag."""
    if TAG.fullmatch(value):
        return value
    raise PydanticCustomError(
        "tag", "must be one word of at most 64 characters, without commas, not beginning with -"
    )


def check_label(value: str) -> str:
    """Accept one line."""
    if "\n" not in value and len(value) <= MAX_LABEL:
        return check_text(value)
    raise PydanticCustomError("label", f"must be one line of at most {MAX_LABEL} characters")


def check_variable(value: str) -> str:
    """Accept names of environment variables; a value that stands there by mistake is not repeated."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", value, re.ASCII):
        return value
    raise PydanticCustomError(
        "variable",
        "is the name of an environment variable, such as TEAM_CHAT, and never what it holds, which is secret",
    )


def is_revision(value: str) -> bool:
    """Whether git may name a commit, a branch or a tag so: the hub's client makes a path of it."""
    return bool(re.fullmatch(r"\w[\w.+-]*(/\w[\w.+-]*)*", value, re.ASCII)) and ".." not in value


def check_revision(value: str) -> str:
    """Accept names of commits, branches and tags."""
    if is_revision(value):
        return value
    raise PydanticCustomError("revision", "must be a commit, a branch or a tag, such as main or refs/pr/1")


Whole = Annotated[int, BeforeValidator(parse_whole)]
Count = Annotated[Whole, Field(ge=1, le=MAX_COUNT)]
BatchSize = Annotated[Whole, Field(ge=1, le=MAX_BATCH)]
Workers = Annotated[Whole, Field(ge=1, le=MAX_WORKERS)]
Seed = Annotated[Whole, Field(ge=0, le=MAX_SEED)]
Name = Annotated[str, AfterValidator(check_name)]
ExperimentName = Annotated[Name, AfterValidator(check_experiment_name)]
Text = Annotated[str, AfterValidator(check_text)]
Tag = Annotated[str, AfterValidator(check_tag)]
Label = Annotated[str, AfterValidator(check_label)]
Revision = Annotated[str, AfterValidator(check_revision)]
Variable = Annotated[str, AfterValidator(check_variable)]
Size = Annotated[int, BeforeValidator(parse_size), Field(ge=0, le=2**63 - 1)]
FilePath = Annotated[Path, Field(strict=False), AfterValidator(check_no_nul), AfterValidator(check_utf8)]
Devices = Annotated[str | list[str], BeforeValidator(check_device)]
