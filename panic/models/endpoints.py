"""Models behind an endpoint: any server that speaks OpenAI's protocol over HTTP, here or elsewhere.

`openai:MODEL` with a `base_url` is a model of vLLM, SGLang, Ollama, llama.cpp, `transformers serve` or a paid
service. `task` says what it is asked for, and so what it maps from and to:

    models:
      caption: {base: "openai:qwen-vl", base_url: "http://localhost:8000/v1", task: image-to-text}
      draw: {base: "openai:some-model", base_url: "https://api.example.com/v1", task: text-to-image,
             api_key_env: EXAMPLE_KEY, width: 1024, height: 1024}

Its results are not repeatable: a server may answer the same request in another way. Nothing here sends
anything; `panic.models.openai` writes requests and reads answers, `panic.engine.endpoints` sends them. A key
stays in the environment variable that `api_key_env` names: no spec, store or log ever holds it.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import SplitResult, urlsplit

from panic.errors import ModelError, ModelMissing, NotFound
from panic.models.kind import Kind, Parameter
from panic.models.protocol import Modality, ModelSpec

PREFIX = "openai:"
TASKS: dict[str, tuple[Modality, Modality]] = {
    "text-to-text": (Modality.TEXT, Modality.TEXT),
    "image-to-text": (Modality.IMAGE, Modality.TEXT),
    "text-to-image": (Modality.TEXT, Modality.IMAGE),
    "image-to-image": (Modality.IMAGE, Modality.IMAGE),
    "embedding": (Modality.TEXT, Modality.VECTOR),
}
"""What a model is asked for: (what it takes, what it gives)."""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
KEY = re.compile(r"[!-~]{1,4096}", re.ASCII)
DEFAULT_PORTS = {"http": 80, "https": 443}


def _url_problem(values: Mapping[str, Any]) -> str:
    """Say why a base URL is none that anything is sent to, or return an empty string."""
    try:
        url = urlsplit(str(values.get("base_url")))
        host, _ = url.hostname, url.port
    except ValueError:
        return "is no URL such as http://localhost:8000/v1"
    if url.scheme not in DEFAULT_PORTS or not host or re.search(r"[\s\\]", url.geturl()):
        return "is no URL such as http://localhost:8000/v1"
    if url.username is not None or url.password is not None:
        return "must not hold a name or password: a key comes from the variable that api_key_env names"
    if url.query or url.fragment:
        return "must end with its path: nothing after ? or # would be sent"
    if url.scheme == "http" and not values.get("insecure") and not _is_this_machine(host):
        return (
            f"sends what is asked, and a key, to {host} where others can read it:"
            " https, or insecure: true if that network is yours"
        )
    return ""


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _variable_problem(values: Mapping[str, Any]) -> str:
    if VARIABLE.fullmatch(str(values.get("api_key_env"))):
        return ""
    return "is the name of an environment variable, such as EXAMPLE_API_KEY, and never the key itself"


OWN_FIELDS = frozenset({"model", "messages", "prompt", "image", "input", "stream"})
"""Fields of requests that say what is asked, and how the answer comes."""


def _extra_problem(values: Mapping[str, Any]) -> str:
    extra = values.get("extra")
    if not isinstance(extra, dict):
        return "should be a mapping of fields to send, such as {n: 1}"
    if own := ", ".join(sorted(OWN_FIELDS.intersection(extra))):
        return f"is for further fields: {own} would replace what is asked for each item"
    return ""


_ours = partial(Parameter, in_identity=True)
"""A parameter that says how the server is asked, and nothing of what it answers."""


SERVER: dict[str, Parameter] = {
    "base_url": Parameter(kind=str, is_required=True, in_identity=True, idle=_url_problem),
    "task": Parameter(kind=str, is_required=True, choices=tuple(TASKS)),
    "api_key_env": _ours(kind=str, default=None, idle=_variable_problem),
    "insecure": _ours(kind=bool, default=False),
    "concurrency": _ours(kind=int, default=8, low=1, high=1024),
    "requests_per_minute": _ours(kind=float, default=None, above=0),
    "timeout_s": _ours(kind=float, default=120.0, above=0),
    "patience_s": _ours(kind=float, default=300.0, low=0),
    "max_answer_bytes": _ours(kind=int, default=64 * 2**20, low=1024),
    "max_pixels": _ours(kind=int, default=4096 * 4096, low=1),
    "send_seed": Parameter(kind=bool),
    "extra": Parameter(kind=object, idle=_extra_problem),
}
"""What every endpoint takes; `extra` are fields of the request by their own names, null leaves one out."""
_CHAT = {
    "system_prompt": Parameter(kind=str),
    "prompt": Parameter(kind=str),
    "max_tokens": Parameter(kind=int, default=512, low=1),
    "temperature": Parameter(kind=float, low=0, high=2),
    "top_p": Parameter(kind=float, above=0, high=1),
}
_IMAGES = {"width": Parameter(kind=int, low=1), "height": Parameter(kind=int, low=1)}
OF_TASK: dict[str, dict[str, Parameter]] = {
    "text-to-text": _CHAT,
    "image-to-text": _CHAT | {"prompt": Parameter(kind=str, default="Describe this image in one sentence.")},
    "text-to-image": _IMAGES,
    "image-to-image": _IMAGES | {"prompt": Parameter(kind=str, is_required=True)},
    "embedding": {"dimensions": Parameter(kind=int, low=1)},
}


def _parameters(spec: ModelSpec) -> dict[str, Parameter]:
    return SERVER | OF_TASK.get(str(spec.parameters.get("task")), {})


def _completed(spec: ModelSpec) -> ModelSpec:
    """The spec with what its task says: modalities, and defaults of what a config leaves open."""
    takes, gives = TASKS.get(str(spec.parameters.get("task")), (Modality.TEXT, Modality.TEXT))
    defaults = {name: one.default for name, one in _parameters(spec).items() if not one.is_required}
    return replace(
        spec, modalities_in=(takes,), modality_out=gives, parameters={**defaults, **spec.parameters}
    )


def _read_name(name: str, path: Callable[[str], Path], *, ask: bool) -> ModelSpec:
    if not name.removeprefix(PREFIX).strip():
        raise NotFound(f"there is no model {name}", hint="openai:MODEL, as its server calls it")
    return KIND.spec(name, modalities_in=("text",), num_parameters=0, batch_size=1)


def _build(spec: ModelSpec) -> NoReturn:
    raise ModelError(f"{spec.name} is not built: requests are sent to its server")


def model_name(spec: ModelSpec) -> str:
    """What its server calls a model."""
    return spec.base.removeprefix(PREFIX)


def base_url(spec: ModelSpec) -> str:
    """The base URL of a model's server, written in one way."""
    url = urlsplit(str(spec.parameters["base_url"]))
    return f"{url.scheme}://{host(url)}{url.path.rstrip('/')}"


def host(url: SplitResult) -> str:
    """Host and port of a URL; the port that its scheme implies is left out."""
    name = (url.hostname or "").lower()
    name = f"[{name}]" if ":" in name else name
    return name if url.port in (None, DEFAULT_PORTS.get(url.scheme)) else f"{name}:{url.port}"


def key(spec: ModelSpec) -> str | None:
    """The key of a model's server, read from the environment; None where it needs none.

    Raises ModelMissing if the variable is not set or holds what is no key.
    """
    variable = spec.parameters.get("api_key_env")
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ModelMissing(f"{spec.name}: the environment has no {variable}", hint=f"export {variable}=...")
    if not KEY.fullmatch(value):  # it would be told in an error of the HTTP client
        raise ModelMissing(f"{spec.name}: what {variable} holds is no key: keys are of printable ASCII")
    return value


def _absence(spec: ModelSpec) -> str:
    try:
        key(spec)
    except ModelMissing as error:
        return str(error)
    return ""


def _identity(spec: ModelSpec) -> list[str]:
    return [base_url(spec), model_name(spec)]


def _secrets(spec: ModelSpec) -> list[str]:
    variable = spec.parameters.get("api_key_env")
    return [] if variable is None else [str(variable)]


KIND = Kind(
    name="endpoint",
    build=_build,
    parameters=_parameters,
    weights="none",
    prefix=PREFIX,
    read_name=_read_name,
    completed=_completed,
    identity=_identity,
    absence=_absence,
    secrets=_secrets,
    is_repeatable=False,
    is_remote=True,
)
