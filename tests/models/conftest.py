"""Tiny real models, each built once per test session, and inputs for them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from PIL import Image

from panic.models import registry
from tests import tiny

torch.set_num_threads(1)

TEXTS = [
    "a red circle",
    "a blue square above",
    "x",
    "a small green triangle to the left",
    "zebra",
    "two dogs",
    "nothing here",
    "the end",
]


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What diffusers warns of, which its loggers keep from those above them."""
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def sample_images(count: int, size: int = 64, seed: int = 0) -> list[Image.Image]:
    """Blotches of random colours."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize((size, size)) for pixels in coarse]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Builds a tiny model once and returns its folder; do not change what is in it."""
    built: dict[Any, Path] = {}

    def build(kind: str, **options: Any) -> Path:
        key = (kind, tuple(options.items()))
        if key not in built:
            built[key] = tiny.BUILDERS[kind](tmp_path_factory.mktemp(kind), **options)
        return built[key]

    return build


@pytest.fixture(scope="session")
def loaded(folder_of: Callable[..., Path]) -> Callable[..., Any]:
    """A loaded model: `loaded("blip", prompt="a")`; builder options go into `built`."""
    models: dict[Any, Any] = {}

    def load(kind: str, built: tuple[tuple[str, Any], ...] = (), **parameters: Any) -> Any:
        key = (kind, built, tuple(parameters.items()))
        if key not in models:
            variants = {"it": {"base": f"local:{folder_of(kind, **dict(built))}", **parameters}}
            models[key] = registry.build(registry.resolve("it", variants))
            models[key].load("cpu")
        return models[key]

    return load
