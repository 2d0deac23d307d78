"""An item's result does not depend on its batch mates, its place or earlier calls; its seed matters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from panic.models import registry
from tests.models.conftest import TEXTS, sample_images

DRAWN = {"steps": 2, "guidance": 4.0}
FLUX = {"steps": 2, "guidance": 0.0, "width": 64, "height": 64}
SAMPLED = {"do_sample": True, "temperature": 1.5, "max_new_tokens": 12}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("stable-diffusion", "text", DRAWN),
    ("flux", "text", FLUX),
    ("blip", "image", {"max_new_tokens": 12}),
    ("blip", "image", {"prompt": "a picture of", "max_new_tokens": 12}),
    ("blip", "image", SAMPLED),
    ("git", "image", {"max_new_tokens": 12}),
    ("git", "image", SAMPLED),
    ("vision-encoder-decoder", "image", {"max_new_tokens": 12}),
    ("llava", "image", {"prompt": "What is it?", "max_new_tokens": 12}),
    ("llava", "image", {**SAMPLED, "top_k": 50, "top_p": 0.95}),
    ("sentence-bert", "text", {}),
    ("clip", "text", {}),
    ("clip", "image", {}),
    ("siglip", "text", {}),
    ("siglip", "image", {}),
    ("dinov2", "image", {}),
]
IDS = [f"{kind}-{modality}-{'-'.join(parameters)}" for kind, modality, parameters in CASES]
SEEDS = [0, 1, 2**31, 3, 2**63 - 1, 5, 6, 7]


def content(output: Any) -> bytes:
    return output.encode() if isinstance(output, str) else np.asarray(output).tobytes()


def contents(model: Any, inputs: list[Any], seeds: list[int]) -> list[bytes]:
    return [content(output) for output in model.invoke(inputs, seeds)]


@pytest.mark.parametrize(("kind", "modality", "parameters"), CASES, ids=IDS)
def test_results_do_not_depend_on_batch_mates(
    loaded: Any, kind: str, modality: str, parameters: dict[str, Any]
) -> None:
    model = loaded(kind, **parameters)
    inputs: list[Any] = TEXTS if modality == "text" else sample_images(8)
    first = contents(model, inputs, SEEDS)
    assert len(set(first)) > 3, "a model that is blind to its input proves nothing"

    order = [3, 1, 7, 0, 5, 2, 4, 6]
    permuted = contents(model, [inputs[i] for i in order], [SEEDS[i] for i in order])
    assert permuted == [first[i] for i in order]

    others = list(reversed(TEXTS)) if modality == "text" else sample_images(8, seed=1)
    others[2], seeds = inputs[2], [99] * 8
    seeds[2] = SEEDS[2]
    assert contents(model, others, seeds)[2] == first[2]

    padded = contents(model, inputs[:3] + inputs[2:3] * 5, SEEDS[:3] + SEEDS[2:3] * 5)
    assert padded[:3] == first[:3]


@pytest.mark.parametrize(("kind", "parameters"), [("stable-diffusion", DRAWN), ("flux", FLUX)])
def test_drawings_follow_their_own_seed(loaded: Any, kind: str, parameters: dict[str, Any]) -> None:
    drawn = contents(loaded(kind, **parameters), ["one text"] * 4, [1, 2, 1, 3])
    assert drawn[0] == drawn[2]
    assert len({drawn[0], drawn[1], drawn[3]}) == 3


@pytest.mark.parametrize("kind", ["blip", "git", "llava"])
def test_sampled_captions_follow_their_own_seed(loaded: Any, kind: str) -> None:
    image = sample_images(1)[0]
    texts = contents(loaded(kind, **SAMPLED), [image] * 4, [1, 2, 1, 3])
    assert texts[0] == texts[2]
    assert len({texts[0], texts[1], texts[3]}) == 3


def test_greedy_captions_ignore_seeds(loaded: Any) -> None:
    model = loaded("blip", max_new_tokens=12)
    assert contents(model, sample_images(3), [1, 2, 3]) == contents(model, sample_images(3), [7, 8, 9])


@pytest.mark.parametrize(("kind", "modality", "parameters"), CASES, ids=IDS)
def test_calls_leave_global_state_alone(
    loaded: Any, kind: str, modality: str, parameters: dict[str, Any]
) -> None:
    model = loaded(kind, **parameters)
    inputs: list[Any] = TEXTS[:2] if modality == "text" else sample_images(2)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = contents(model, inputs, [1, 2])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert contents(model, inputs, [1, 2]) == first
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "modality", "parameters"), CASES, ids=IDS)
def test_results_do_not_depend_on_batch_mates_on_a_gpu(
    folder_of: Any, kind: str, modality: str, parameters: dict[str, Any], dtype: str
) -> None:
    variants = {"it": {"base": f"local:{folder_of(kind)}", "dtype": dtype, **parameters}}
    model = registry.build(registry.resolve("it", variants, device_kind="cuda"))
    model.load("cuda:0")
    inputs: list[Any] = TEXTS if modality == "text" else sample_images(8)
    first = contents(model, inputs, SEEDS)
    order = [3, 1, 7, 0, 5, 2, 4, 6]
    assert contents(model, [inputs[i] for i in order], [SEEDS[i] for i in order]) == [first[i] for i in order]
    assert contents(model, inputs[:3] + inputs[2:3] * 5, SEEDS[:3] + SEEDS[2:3] * 5)[:3] == first[:3]
