"""Models with known dynamics: no weights, exact answers.

`TextToImage` draws the state that its text names, `ImageToText` reads the state from the image, moves
by a Markov kernel with the item's seed, and names the new state: together they are a feedback loop whose
transition matrix is known (`transition_matrix`). `RandomWalk` walks on a sphere and writes its
coordinates into its text; `WalkEmbedding` reads them. `StateEmbedding` puts state k of n on the unit
circle at the angle 2 pi k / n, so the persistence diagram of a cycle is known, too.

    panic run configs/synthetic.yaml
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from panic.models.kind import Kind, Parameter, settled
from panic.models.protocol import ModelSpec

_STATES = Parameter(kind=int, default=8, low=1, high=4096)
_DISTINCT = Parameter(kind=bool, default=False)
_DELAY_S = Parameter(kind=float, default=0.0, low=0)
_FAIL_AT = Parameter(kind=int)
_DIMENSION = Parameter(kind=int, default=16, low=2, high=4096)
CHAIN: dict[str, Parameter] = {
    "states": _STATES,
    "kernel": Parameter(
        kind=str, default="cycle", choices=("identity", "column", "cycle", "dirichlet", "slow", "dead")
    ),
    "epsilon": Parameter(kind=float, default=0.0, low=0, high=1),
    "alpha": Parameter(kind=float, default=1.0, above=0),
    "kernel_seed": Parameter(kind=int, default=0, low=0),
    "kernel_version": Parameter(kind=int, low=1, high=2, in_identity=True),
}
"""What the transition matrix is made from."""
_MAGIC = 0x9A71C
_STATE = re.compile(r"state (\d{1,4000})\b")  # of more digits Python makes no number
_SEED_BYTES = 16


def _hash64(*parts: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(b"\0".join(parts), digest_size=8).digest(), "little")


def _seed_bytes(seed: int) -> bytes:
    return seed.to_bytes(_SEED_BYTES, "little", signed=True)


def _uniform(seed: int) -> float:
    """A number in [0, 1) that depends on the seed only."""
    return (_hash64(b"uniform", _seed_bytes(seed)) >> 11) / 2**53


def transition_matrix(
    states: int,
    kernel: str,
    epsilon: float = 0.0,
    alpha: float = 1.0,
    kernel_seed: int = 0,
    kernel_version: int | None = None,
) -> NDArray[np.float64]:
    """The loop's transition matrix T = (1 - epsilon) M + epsilon D, rows summing to 1.

    M is `identity` (fixed points), `column` (every state moves to state 0), `cycle` (k moves to k + 1),
    `dirichlet` (rows drawn from Dirichlet(alpha)), `slow` (such rows with the largest entry of T swapped onto
    the diagonal) or `dead` (swapped into column 0: not absorbing, only likely). The rows of D are drawn
    from Dirichlet(alpha), independently of M. Version 1 swapped the entries of M, so that with noise another
    entry of T could be the largest; version 2 is the present one.

    Returns: (states, states) float64. Raises: ModelError for values out of their limits.
    """
    given = {
        "states": states,
        "kernel": kernel,
        "epsilon": epsilon,
        "alpha": alpha,
        "kernel_seed": kernel_seed,
        "kernel_version": kernel_version,
    }
    settled("the transition matrix", CHAIN, given)
    rng = np.random.default_rng(kernel_seed)
    noise = rng.dirichlet(np.full(states, alpha), size=states)
    rows = np.arange(states)
    if kernel == "identity":
        main = np.eye(states)
    elif kernel == "column":
        main = np.zeros((states, states))
        main[:, 0] = 1.0
    elif kernel == "cycle":
        main = np.roll(np.eye(states), 1, axis=1)
    else:
        main = rng.dirichlet(np.full(states, alpha), size=states)
    target = {"slow": rows, "dead": np.zeros_like(rows)}.get(kernel)
    if target is not None and kernel_version == 1:
        _swap_largest(main, target)
    mixed: NDArray[np.float64] = (1.0 - epsilon) * main + epsilon * noise
    if target is not None and kernel_version != 1:
        _swap_largest(mixed, target)
    return mixed


def _swap_largest(matrix: NDArray[np.float64], target: NDArray[np.int64]) -> None:
    """Swap the largest entry of every row with that in the row's target column."""
    rows, largest = np.arange(len(matrix)), matrix.argmax(axis=1)
    matrix[rows, largest], matrix[rows, target] = matrix[rows, target], matrix[rows, largest]


def named_state(text: str, states: int) -> int:
    """The state a text names ("state 3"); any other text hashes to one."""
    match = _STATE.search(text)
    return int(match[1]) % states if match else _hash64(b"text", text.encode()) % states


@lru_cache(maxsize=64)
def _palette(states: int) -> NDArray[np.uint8]:
    """(states, 3) distinct saturated colours around the colour circle."""
    hue = np.arange(states) / states * 6.0
    channels = [np.clip(np.abs((hue + shift) % 6.0 - 3.0) - 1.0, 0.0, 1.0) for shift in (0.0, 4.0, 2.0)]
    return (np.stack(channels, axis=1) * 190 + 40).astype(np.uint8)


class TextToImage:
    """Draws the state that the text names: its colour, a dial with one hand, a marker to read back."""

    modality_in: ClassVar[str] = "text"
    modality_out: ClassVar[str] = "image"
    PARAMETERS: ClassVar = {
        "states": _STATES,
        "size": Parameter(kind=int, default=64, low=3, high=4096),
        "distinct": _DISTINCT,
        "delay_s": _DELAY_S,
        "fail_at": _FAIL_AT,
    }
    size_bytes = 0

    def __init__(self, **settings: Any) -> None:
        values = settled("synthetic/text-to-image", TextToImage.PARAMETERS, settings)
        self.states, self.size, self.distinct = values["states"], values["size"], values["distinct"]
        self.delay_s, self.fail_at = values["delay_s"], values["fail_at"]
        states, size = self.states, self.size
        grid = np.arange(size) - (size - 1) / 2
        x, y = np.meshgrid(grid, grid)
        angle = np.arctan2(x, -y) % (2 * np.pi)
        self._cell = np.minimum((angle / (2 * np.pi) * states).astype(np.int64), states - 1)
        self._disc = np.hypot(x, y) < size * 0.42

    def load(self, device: str) -> None:
        """There are no weights."""

    def invoke(self, inputs: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        if self.delay_s:
            time.sleep(self.delay_s)
        palette = _palette(self.states)
        images = []
        for text, seed in zip(inputs, seeds, strict=True):
            state = named_state(text, self.states)
            _fail(state, self.fail_at)
            image = np.empty((self.size, self.size, 3), dtype=np.uint8)
            image[:] = palette[state]
            image[self._disc & (self._cell == state)] = 250
            nonce = _hash64(b"image", _seed_bytes(seed), text.encode()) if self.distinct else 0
            marker = np.array([_MAGIC, state, nonce & 0xFFFFFFFF, nonce >> 32], dtype="<u4").view(np.uint8)
            image.reshape(-1)[: marker.size] = marker
            images.append(Image.fromarray(image))
        return images


class ImageToText:
    """Reads the state from the image, moves by the kernel with the item's seed, names the new state."""

    modality_in: ClassVar[str] = "image"
    modality_out: ClassVar[str] = "text"
    PARAMETERS: ClassVar = {**CHAIN, "distinct": _DISTINCT, "delay_s": _DELAY_S, "fail_at": _FAIL_AT}
    size_bytes = 0

    def __init__(self, **settings: Any) -> None:
        values = settled("synthetic/image-to-text", ImageToText.PARAMETERS, settings)
        self.states, self.distinct = values["states"], values["distinct"]
        self.delay_s, self.fail_at = values["delay_s"], values["fail_at"]
        self.matrix = transition_matrix(**{name: values[name] for name in CHAIN})
        self._cumulative = self.matrix.cumsum(axis=1)

    def load(self, device: str) -> None:
        """There are no weights."""

    def invoke(self, inputs: Sequence[Image.Image], seeds: Sequence[int]) -> list[str]:
        if self.delay_s:
            time.sleep(self.delay_s)
        texts = []
        for image, seed in zip(inputs, seeds, strict=True):
            state, nonce = drawn_state(image, self.states)
            _fail(state, self.fail_at)
            row = self._cumulative[state]
            new = min(int(np.searchsorted(row, _uniform(seed) * row[-1], side="right")), self.states - 1)
            text = f"state {new}"
            if self.distinct:
                text += f" #{_hash64(b'caption', _seed_bytes(seed), nonce):016x}"
            texts.append(text)
        return texts


def drawn_state(image: Image.Image, states: int) -> tuple[int, bytes]:
    """The state in an image's marker and the bytes that make the image distinct; other images hash."""
    content = image.tobytes()
    marker = np.frombuffer(content[:16], dtype="<u4") if len(content) >= 16 else np.zeros(4, dtype="<u4")
    if int(marker[0]) == _MAGIC:
        return int(marker[1]) % states, content[8:16]
    return _hash64(b"pixels", content) % states, hashlib.blake2b(content, digest_size=8).digest()


def _fail(state: int, fail_at: int | None) -> None:
    if fail_at is not None and state == fail_at:
        raise RuntimeError(f"synthetic failure at state {state}")


class RandomWalk:
    """A driftless walk on the unit sphere: every step turns by a fixed angle towards a random direction.

    Its text carries the coordinates, so that E<x_0, x_k> = cos(angle)^k can be seen in the embeddings.
    """

    modality_in: ClassVar[str] = "text"
    modality_out: ClassVar[str] = "text"
    PARAMETERS: ClassVar = {"dimension": _DIMENSION, "angle": Parameter(kind=float, default=0.2)}
    size_bytes = 0

    def __init__(self, **settings: Any) -> None:
        values = settled("synthetic/random-walk", RandomWalk.PARAMETERS, settings)
        self.dimension, self.angle = values["dimension"], values["angle"]

    def load(self, device: str) -> None:
        """There are no weights."""

    def invoke(self, inputs: Sequence[str], seeds: Sequence[int]) -> list[str]:
        return [self._step(text, seed) for text, seed in zip(inputs, seeds, strict=True)]

    def _step(self, text: str, seed: int) -> str:
        point = walk_point(text, self.dimension)
        direction = np.random.default_rng(_hash64(b"walk", _seed_bytes(seed))).standard_normal(self.dimension)
        direction -= (direction @ point) * point
        direction /= np.linalg.norm(direction)
        moved = np.cos(self.angle) * point + np.sin(self.angle) * direction
        return "walk " + " ".join(f"{value:.9f}" for value in moved)


def walk_point(text: str, dimension: int) -> NDArray[np.float64]:
    """The unit vector (dimension,) that a walk's text holds; any other text hashes to one."""
    words = text.split()
    point = np.zeros(dimension)
    if words[:1] == ["walk"] and len(words) == dimension + 1:
        with suppress(ValueError):  # a walk in the park
            point = np.array([float(word) for word in words[1:]])
    with np.errstate(over="ignore"):
        length = np.linalg.norm(point)
    if not 0 < length < np.inf:
        point = np.random.default_rng(_hash64(b"start", text.encode())).standard_normal(dimension)
    unit: NDArray[np.float64] = point / np.linalg.norm(point)
    return unit


class WalkEmbedding:
    """The coordinates that a walk's text holds, as its embedding."""

    modality_in: ClassVar[str] = "text"
    modality_out: ClassVar[str] = "vector"
    PARAMETERS: ClassVar = {"dimension": _DIMENSION}
    size_bytes = 0

    def __init__(self, **settings: Any) -> None:
        self.dimension = settled("synthetic/walk-embedding", WalkEmbedding.PARAMETERS, settings)["dimension"]

    def load(self, device: str) -> None:
        """There are no weights."""

    def invoke(self, inputs: Sequence[str], seeds: Sequence[int]) -> list[NDArray[np.float32]]:
        return [walk_point(text, self.dimension).astype(np.float32) for text in inputs]


class StateEmbedding:
    """The state named by a text or drawn in an image, as the point exp(2 pi i k / states) of the circle."""

    modality_in: ClassVar[tuple[str, ...]] = ("text", "image")
    modality_out: ClassVar[str] = "vector"
    PARAMETERS: ClassVar = {"states": _STATES, "delay_s": _DELAY_S}
    size_bytes = 0

    def __init__(self, **settings: Any) -> None:
        values = settled("synthetic/state-embedding", StateEmbedding.PARAMETERS, settings)
        self.states, self.delay_s = values["states"], values["delay_s"]

    def load(self, device: str) -> None:
        """There are no weights."""

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> list[NDArray[np.float32]]:
        if self.delay_s:
            time.sleep(self.delay_s)
        states = [
            named_state(item, self.states) if isinstance(item, str) else drawn_state(item, self.states)[0]
            for item in inputs
        ]
        angles = 2 * np.pi * np.asarray(states) / self.states
        return list(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))


MODELS: dict[str, type[Any]] = {
    "synthetic/text-to-image": TextToImage,
    "synthetic/image-to-text": ImageToText,
    "synthetic/random-walk": RandomWalk,
    "synthetic/walk-embedding": WalkEmbedding,
    "synthetic/state-embedding": StateEmbedding,
}


def _models() -> Iterable[ModelSpec]:
    for name, cls in MODELS.items():
        yield KIND.spec(
            name,
            modalities_in=cls.modality_in,
            modality_out=cls.modality_out,
            parameters={key: parameter.default for key, parameter in cls.PARAMETERS.items()},
            num_parameters=0,
            licence="MIT",
        )


def _has_versions(spec: ModelSpec) -> bool:
    return spec.parameters.get("kernel") in ("slow", "dead") and spec.parameters.get("epsilon", 0) > 0


def _identity(spec: ModelSpec) -> str:
    """The version is told where it changes what the kernel is; all other models stay what they were."""
    name = spec.source or spec.base
    is_first = spec.parameters.get("kernel_version") == 1
    return f"{name} version 2" if _has_versions(spec) and not is_first else name


def _earlier(spec: ModelSpec) -> list[ModelSpec]:
    """Version 1, where the config does not say which."""
    if not _has_versions(spec) or spec.parameters.get("kernel_version") is not None:
        return []
    return [replace(spec, parameters={**spec.parameters, "kernel_version": 1})]


KIND = Kind(
    name="synthetic",
    build=lambda spec: MODELS[spec.base](**spec.parameters),
    parameters=lambda spec: MODELS[spec.base].PARAMETERS,
    weights="none",
    identity=_identity,
    earlier=_earlier,
    prefix="synthetic/",
    models=_models,
)
