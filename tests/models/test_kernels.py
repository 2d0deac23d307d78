"""Quantised, compiled and differently attending models: what they give, their sizes, what is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from panic import run
from panic.config import ExperimentConfig
from panic.devices.cache import ModelCache
from panic.devices.device import CpuDevice
from panic.devices.main_memory import MainMemoryCache
from panic.devices.simulated import SimulatedDevice
from panic.errors import ConfigError, ModelDoesNotFit, ModelMissing
from panic.models import kinds, registry
from panic.models.kernels import PACKAGES
from panic.models.protocol import KERNELS, Modality, ModelSpec
from panic.models.table import TABLE
from panic.store import Store, reading
from tests import tiny, tiny_edits, tiny_language
from tests.models.conftest import TEXTS, sample_images

BUILDERS: dict[str, Callable[[Path], Path]] = {
    **{kind: tiny.BUILDERS[kind] for kind in ("stable-diffusion", "flux", "blip", "llava")},
    "sentence-bert": tiny.build_sentence_bert,
    "klein": tiny_edits.BUILDERS["klein"],
    "qwen3": lambda folder: tiny_language.build("qwen3", folder, hidden_size=64),
    "t5": lambda folder: tiny_language.build("t5", folder),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "stable-diffusion": {"steps": 2, "guidance": 2.0, "width": 64, "height": 64},
    "flux": {"steps": 2, "guidance": 1.0, "width": 64, "height": 64},
    "klein": {"adapter": "image-to-image", "steps": 2, "max_sequence_length": 32},
    "sentence-bert": {},
}
WRITES = {"max_new_tokens": 8}
LARGEST_STEP = {"int8": 3, "float8": 12}
"""Levels of 255 that a pixel differs by at most, by quantisation."""


def needs(package: str) -> Any:
    """A mark for tests of a package of the extra `quantize`."""
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"needs {package}, of the extra quantize")


@pytest.fixture(scope="module")
def spec_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelSpec]:
    """The spec of a tiny model with some parameters: `spec_of("qwen3", quantize="int8")`."""
    folders: dict[str, Path] = {}

    def spec(kind: str, **parameters: Any) -> ModelSpec:
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind) / "model"
            BUILDERS[kind](folders[kind])
        variant = {"base": f"local:{folders[kind]}", **SETTINGS.get(kind, WRITES), **parameters}
        return registry.resolve("it", {"it": variant})

    return spec


def loaded(spec: ModelSpec) -> Any:
    model = registry.build(spec)
    model.load("cpu")
    return model


def called(model: Any, inputs: list[Any] | None = None) -> list[np.ndarray[Any, Any]]:
    """What a model gives for two inputs, as arrays."""
    is_of_text = Modality.TEXT in model.spec.modalities_in
    inputs = inputs or (TEXTS[:2] if is_of_text else sample_images(2))
    outputs = model.invoke(inputs, list(range(len(inputs))))
    return [np.frombuffer(o.encode(), np.uint8) if isinstance(o, str) else np.asarray(o) for o in outputs]


def same(first: list[Any], second: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# Quantised


@needs("torchao")
@pytest.mark.parametrize("kind", ["stable-diffusion", "qwen3", "blip", "sentence-bert"])
def test_int8_weights_are_smaller_and_give_nearly_the_same(
    spec_of: Callable[..., ModelSpec], kind: str
) -> None:
    plain, small = loaded(spec_of(kind)), loaded(spec_of(kind, quantize="int8"))
    assert small.size_bytes < 0.9 * plain.size_bytes  # convolutions and embeddings stay
    quantised = [
        name
        for module in small.weight_modules()
        for name, weight in module.named_parameters()
        if type(weight).__name__ == "Int8Tensor"
    ]
    assert quantised
    assert not [name for name in quantised if "lm_head" in name or "embed_tokens" in name]
    first, second = called(plain), called(small)
    if Modality.TEXT is plain.spec.modality_out:
        assert [len(text) > 0 for text in second] == [len(text) > 0 for text in first]
    elif Modality.IMAGE is plain.spec.modality_out:
        differences = [np.abs(a.astype(int) - b).max() for a, b in zip(first, second, strict=True)]
        assert 0 < max(differences) <= LARGEST_STEP["int8"]
    else:
        assert 1 > min(float(a @ b) for a, b in zip(first, second, strict=True)) > 0.99
    assert same(second, called(small))


@needs("torchao")
def test_the_scoring_layer_stays_and_is_not_counted(spec_of: Callable[..., ModelSpec]) -> None:
    """Every row of a matrix has a scale of four bytes and a zero point of one."""
    plain, small = loaded(spec_of("qwen3")), loaded(spec_of("qwen3", quantize="int8"))
    linear = [
        layer.weight
        for name, layer in plain.weight_modules()[0].named_modules()
        if isinstance(layer, torch.nn.Linear) and name != "lm_head"
    ]
    saved = sum(3 * weight.numel() - 5 * weight.shape[0] for weight in linear)
    assert plain.size_bytes - small.size_bytes == saved
    assert registry.size_bytes(small.spec) > 0.99 * plain.size_bytes, "before they are read: what that takes"


@needs("torchao")
def test_float8_runs_on_a_cpu(spec_of: Callable[..., ModelSpec]) -> None:
    plain, small = loaded(spec_of("flux")), loaded(spec_of("flux", quantize="float8"))
    assert small.size_bytes < 0.9 * plain.size_bytes
    pairs = zip(called(plain), called(small), strict=True)
    assert 0 < max(np.abs(a.astype(int) - b).max() for a, b in pairs) <= LARGEST_STEP["float8"]


@needs("bitsandbytes")
@pytest.mark.slow
def test_nf4_runs_on_a_cpu(spec_of: Callable[..., ModelSpec]) -> None:
    plain, small = loaded(spec_of("stable-diffusion")), loaded(spec_of("stable-diffusion", quantize="nf4"))
    assert small.size_bytes < 0.8 * plain.size_bytes
    first, second = called(plain), called(small)
    assert 0 < max(np.abs(a.astype(int) - b).mean() for a, b in zip(first, second, strict=True)) < 20
    assert same(second, called(small))


@needs("torchao")
def test_an_item_of_a_quantised_model_does_not_depend_on_its_mates(
    spec_of: Callable[..., ModelSpec],
) -> None:
    model = loaded(spec_of("stable-diffusion", quantize="int8"))
    here = model.invoke([TEXTS[0], TEXTS[1], TEXTS[2]], [7, 8, 9])[0]
    there = model.invoke([TEXTS[3], TEXTS[4], TEXTS[0]], [1, 2, 7])[2]
    assert np.array_equal(np.asarray(here), np.asarray(there))


@needs("torchao")
def test_quantised_weights_move_as_a_whole_and_the_cache_knows_their_size(
    spec_of: Callable[..., ModelSpec],
) -> None:
    specs = {"small": spec_of("qwen3", quantize="int8"), "plain": spec_of("qwen3")}
    size = loaded(specs["small"]).size_bytes
    device = SimulatedDevice(name="sim", capacity_bytes=64 * 2**20)
    cache = ModelCache(device, lambda name: registry.build(specs[name]))
    with cache.lease("small", 2) as model:
        first = called(model)
    state = cache._state()
    assert state.sizes["small"] == device.rounded(size)
    assert state.whole == {"small"}
    assert cache.evict_idle() == 1
    with cache.lease("small", 2) as model:
        assert same(first, called(model))
    assert not cache.offload("small")
    with cache.lease("plain", 2):
        pass
    assert cache.offload("plain")
    held = MainMemoryCache(CpuDevice(), lambda name: registry.build(specs[name]))
    with held.lease("small", 2):
        assert held._models["small"].num_bytes == size


@needs("torchao")
def test_a_quantised_model_without_room_says_that_its_layers_do_not_come_alone(
    spec_of: Callable[..., ModelSpec],
) -> None:
    device = SimulatedDevice(name="sim", capacity_bytes=2**10)
    cache = ModelCache(device, lambda name: registry.build(spec_of("qwen3", quantize="int8")))
    with pytest.raises(ModelDoesNotFit) as error, cache.lease("it", 1):
        pass
    assert "Quantised and compiled models come as a whole" in error.value.hint


@needs("torchao")
def test_variants_are_models_of_their_own_in_one_experiment(
    spec_of: Callable[..., ModelSpec], tmp_path: Path
) -> None:
    base = {"base": spec_of("stable-diffusion").source, **SETTINGS["stable-diffusion"]}
    captioner = {"base": spec_of("blip").source, **WRITES}
    config = ExperimentConfig.model_validate(
        {
            "name": "variants",
            "networks": [["plain", "says"], ["small", "says"]],
            "models": {"plain": base, "small": {**base, "quantize": "int8"}, "says": captioner},
            "prompts": ["a red circle"],
            "seeds": [-1],
            "max_length": 4,
            "device": "cpu",
        }
    )
    assert run(config, tmp_path / "store").counts.invocations == 8
    with Store(tmp_path / "store") as store:
        (experiment,) = reading.experiments(store)
        prints = {epoch.name: epoch.fingerprint for epoch in reading.epochs(store, experiment.id)}
    assert len(set(prints.values())) == 3


def test_a_parameter_that_is_not_set_leaves_the_fingerprint(spec_of: Callable[..., ModelSpec]) -> None:
    plain = registry.fingerprint(spec_of("qwen3"))
    assert registry.fingerprint(spec_of("qwen3", quantize=None, attention=None)) == plain
    assert registry.fingerprint(spec_of("qwen3", attention="eager")) != plain


# Refused


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("qwen3", {"quantize": "int4"}, "quantize: int4 needs a CUDA device"),
        ("qwen3", {"attention": "flash_attention_2"}, "attention: flash_attention_2 needs a CUDA device"),
        ("flux", {"attention": "sage"}, "attention: sage needs a CUDA device"),
        ("flux", {"attention": "sdpa"}, "attention is not one of the allowed values"),
        ("qwen3", {"quantize": "int2"}, "quantize is not one of the allowed values"),
        ("qwen3", {"compile": False}, "compile of false is what there is without it: leave it out"),
        ("blip", {"compile": True}, "compile cannot be: transformers cannot compile the steps of a blip"),
        ("stable-diffusion", {"attention": "_native_math"}, "a UNet2DConditionModel has only one"),
        ("sentence-bert", {"compile": True}, "has no parameter 'compile'"),
        ("qwen3", {"layer": "model.layers.0", "compile": True}, "compile cannot be beside layer"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    spec_of: Callable[..., ModelSpec], kind: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        spec_of(kind, **parameters)
    assert message in error.value.message


def test_a_gpu_is_refused_nothing(spec_of: Callable[..., ModelSpec]) -> None:
    variant = {"base": spec_of("flux").source, "quantize": "int4", "attention": "_flash_3", "compile": True}
    spec = registry.resolve("it", {"it": variant}, device_kind="cuda")
    assert spec.parameters["quantize"] == "int4"


def test_a_machine_without_a_compiler_is_told(
    spec_of: Callable[..., ModelSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"compile: on a CPU it needs a C\+\+ compiler"):
        spec_of("qwen3", compile=True)


@pytest.mark.parametrize("how", ["int8", "nf4"])
def test_a_package_that_is_missing_is_named_with_its_extra(
    spec_of: Callable[..., ModelSpec], how: str
) -> None:
    if importlib.util.find_spec(PACKAGES[how]):
        pytest.skip(f"{PACKAGES[how]} is here")
    with pytest.raises(ModelMissing, match=rf"{PACKAGES[how]} \(the extra quantize: pip install"):
        registry.fingerprints({"it": spec_of("qwen3", quantize=how)})


def test_every_entry_whose_weights_are_files_takes_them() -> None:
    for name, spec in TABLE.items():
        kind = kinds.kind_of(spec)
        if kind.name in ("diffusers", "image-to-image", "captioner", "text-to-text") and spec.is_hub:
            assert set(KERNELS) <= kind.parameters_of(spec).keys(), name


# Attention


def test_an_attention_is_that_of_its_model_alone(spec_of: Callable[..., ModelSpec]) -> None:
    """The library makes the last one that was chosen that of all models."""
    before = loaded(spec_of("flux"))
    first = called(before)
    other = loaded(spec_of("flux", attention="_native_math"))
    assert {p._attention_backend.value for p in other._model.transformer.attn_processors.values()} == {
        "_native_math"
    }
    pairs = zip(first, called(other), strict=True)
    assert max(np.abs(a.astype(int) - b).max() for a, b in pairs) <= 1
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as backends

    assert backends.get_active_backend()[0].value == "native"
    assert same(first, called(before))


@pytest.mark.parametrize("kind", ["qwen3", "llava", "sentence-bert"])
def test_an_attention_of_transformers_is_the_one_that_was_asked_for(
    spec_of: Callable[..., ModelSpec], kind: str
) -> None:
    for name in ("eager", "sdpa"):
        model = loaded(spec_of(kind, attention=name))
        assert model.weight_modules()[0].config._attn_implementation == name
        assert len(called(model)) == 2


# Compiled


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["stable-diffusion", "qwen3", "llava"])
def test_a_compiled_model_gives_nearly_the_same_and_moves_in_blocks(
    spec_of: Callable[..., ModelSpec], kind: str
) -> None:
    plain, spec = loaded(spec_of(kind)), spec_of(kind, compile=True)
    device = SimulatedDevice(name="sim", capacity_bytes=64 * 2**20)
    cache = ModelCache(device, lambda name: registry.build(spec))
    with cache.lease("it", 2) as model:
        first = called(model)
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert graphs > 0
    cache.evict_idle()
    with cache.lease("it", 2) as model:
        assert same(first, called(model)), "weights elsewhere, the same results"
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs, "nothing was compiled again"
    assert not cache.offload("it")
    pairs = zip(called(plain), first, strict=True)
    if Modality.TEXT is spec.modality_out:
        assert all(np.array_equal(a, b) for a, b in pairs)
    else:
        assert max(np.abs(a.astype(int) - b).max() for a, b in pairs) <= 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_a_shape_computes_does_not_depend_on_the_shapes_before_it(
    spec_of: Callable[..., ModelSpec],
) -> None:
    """By itself torch would compile the second shape for any, and stop compiling after eight."""
    model = loaded(spec_of("stable-diffusion", compile=True))
    first = called(model, TEXTS[:3])
    for size in (1, 2, 4, 5, 6, 7, 8):
        called(model, TEXTS[:size])
    called(model, [*TEXTS, *TEXTS[:2]])
    assert same(first, called(model, TEXTS[:3]))
    torch._dynamo.reset()
    assert same(first, called(loaded(spec_of("stable-diffusion", compile=True)), TEXTS[:3]))


@needs("torchao")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_quantised_model_can_be_compiled(spec_of: Callable[..., ModelSpec]) -> None:
    eager = called(loaded(spec_of("stable-diffusion", quantize="int8")))
    compiled = called(loaded(spec_of("stable-diffusion", quantize="int8", compile=True)))
    pairs = zip(eager, compiled, strict=True)
    assert max(np.abs(a.astype(int) - b).max() for a, b in pairs) <= 2
