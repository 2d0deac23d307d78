"""Names, variants, dtypes, the table."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from panic.errors import ConfigError, ModelError, ModelMissing, NotFound
from panic.models import registry
from panic.models.kinds import adapters
from panic.models.protocol import Modality, Model
from panic.models.resolve import UnknownModel
from panic.models.table import TABLE

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
EXPECTED = {
    "sd-turbo": "stabilityai/sd-turbo",
    "sdxl-turbo": "stabilityai/sdxl-turbo",
    "FLUX.1-schnell": "black-forest-labs/FLUX.1-schnell",
    "FLUX.2-klein-4B": "black-forest-labs/FLUX.2-klein-4B",
    "Z-Image-Turbo": "Tongyi-MAI/Z-Image-Turbo",
    "SD3.5-medium": "stabilityai/stable-diffusion-3.5-medium",
    "BLIP-base": "Salesforce/blip-image-captioning-base",
    "BLIP-2": "Salesforce/blip2-opt-2.7b",
    "Qwen3-VL-2B": "Qwen/Qwen3-VL-2B-Instruct",
    "all-mpnet-base-v2": "sentence-transformers/all-mpnet-base-v2",
    "Qwen3-Embedding-0.6B": "Qwen/Qwen3-Embedding-0.6B",
    "dinov2-base": "facebook/dinov2-base",
}
POOLINGS = {
    "all-mpnet-base-v2": "mean",
    "all-MiniLM-L6-v2": "mean",
    "Qwen3-Embedding-0.6B": "last",
    "embeddinggemma-300m": "mean",
    "nomic-embed-text-v1.5": "mean",
}


@pytest.mark.parametrize("name", TABLE)
def test_every_entry_of_the_table_is_whole(name: str) -> None:
    spec = registry.resolve(name)
    assert spec.name == spec.base == name
    assert HUB_ID.fullmatch(spec.source) or spec.source.startswith(("pocket:", "class:panic."))
    assert spec.licence
    assert spec.batch_size >= 1
    if spec.is_hub:
        assert spec.num_parameters is not None
        assert spec.num_parameters > 1e7
    if spec.adapter == "diffusers":
        assert spec.parameters["steps"] >= 1
        assert spec.parameters["guidance"] >= 0
    if spec.adapter in adapters():
        assert spec.dtype == "float32"
        assert registry.resolve(name, device_kind="cuda").dtype == TABLE[name].dtype


def test_the_table_has_the_promised_models() -> None:
    assert {name: TABLE[name].source for name in EXPECTED} == EXPECTED
    assert {name: TABLE[name].parameters["pooling"] for name in POOLINGS} == POOLINGS
    assert TABLE["Z-Image-Turbo"].parameters["steps"] == 8
    assert TABLE["Z-Image-Turbo"].parameters["guidance"] == 0
    assert TABLE["FLUX.2-klein-4B"].parameters["steps"] == 4
    assert TABLE["SD3.5-medium"].parameters["steps"] == 28
    assert TABLE["nomic-embed-text-v1.5"].parameters["prefix"].endswith(": ")


def test_everything_known_resolves_under_its_name() -> None:
    for spec in registry.known():
        assert registry.resolve(spec.name).modality_out == spec.modality_out
        assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize("name", [spec.name for spec in registry.known() if spec.adapter == "synthetic"])
def test_synthetic_models_are_built_from_their_parameters(name: str) -> None:
    model = registry.build(registry.resolve(name))
    assert isinstance(model, Model)
    assert model.size_bytes == 0


def test_a_variant_changes_parameters_and_nothing_else() -> None:
    variants = {"quick": {"base": "sd-turbo", "steps": 2, "dtype": "bfloat16", "revision": "abc"}}
    spec, base = registry.resolve("quick", variants), registry.resolve("sd-turbo", variants)
    assert (spec.name, spec.base, spec.dtype, spec.revision) == ("quick", "sd-turbo", "bfloat16", "abc")
    assert spec.parameters == {**base.parameters, "steps": 2}
    assert base.dtype == "float32"


def test_variants_build_on_each_other() -> None:
    variants: dict[str, Any] = {
        "a": {"base": "sd-turbo", "steps": 2, "dtype": "float16"},
        "b": {"base": "a", "guidance": 1.5},
        "sd-turbo": {"base": "sd-turbo", "steps": 3},
    }
    spec = registry.resolve("b", variants)
    assert (spec.parameters["steps"], spec.parameters["guidance"], spec.dtype) == (2, 1.5, "float16")
    assert registry.resolve("sd-turbo", variants).parameters["steps"] == 3


def test_variants_may_be_objects_of_the_validated_config() -> None:
    variant = SimpleNamespace(
        model_dump=lambda: {"base": "BLIP-base", "revision": None, "dtype": None, "prompt": "x"}
    )
    spec = registry.resolve("it", {"it": variant})
    assert (spec.parameters["prompt"], spec.dtype) == ("x", "float32")


def test_variants_in_a_circle_are_told() -> None:
    with pytest.raises(NotFound, match="a -> b -> a are based on each other"):
        registry.resolve("a", {"a": {"base": "b"}, "b": {"base": "a"}})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("SD-Turbo", "sd-turbo"),
        ("pocketdifusion", "PocketDiffusion"),
        ("stabilityai/sd-turbo", "sd-turbo"),
        ("synthetic/text-to-imge", "synthetic/text-to-image"),
        ("quik", "quick"),
    ],
)
def test_unknown_names_get_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        registry.resolve(name, {"quick": {"base": "sd-turbo"}})
    assert nearest in caught.value.hint


def test_all_wrong_parameters_are_told_at_once() -> None:
    variants = {"it": {"base": "sd-turbo", "stepz": 1, "guidance": "much", "width": 100, "steps": 0}}
    with pytest.raises(ConfigError) as caught:
        registry.resolve("it", variants)
    for part in ("'stepz'", "guidance should be a number", "multiple of 8", "at least 1"):
        assert part in caught.value.message


def test_accelerators_get_the_tables_dtype() -> None:
    dtypes = {
        kind: registry.resolve("sd-turbo", device_kind=kind).dtype for kind in ("cuda", "mps", "cpu", "sim")
    }
    assert dtypes == {"cuda": "float16", "mps": "float16", "cpu": "float32", "sim": "float32"}
    asked = {"it": {"base": "sd-turbo", "dtype": "float32"}}
    assert registry.resolve("it", asked, device_kind="cuda").dtype == "float32"
    assert registry.resolve("synthetic/random-walk", device_kind="cuda").dtype is None


def test_hub_models_outside_the_table_name_their_adapter() -> None:
    spec = registry.resolve("it", {"it": {"base": "someone/draws", "adapter": "diffusers", "steps": 5}})
    assert (spec.source, spec.modality_out, spec.parameters["steps"]) == ("someone/draws", Modality.IMAGE, 5)
    with pytest.raises(ConfigError, match="there is no adapter magic"):
        registry.resolve("it", {"it": {"base": "someone/draws", "adapter": "magic"}})
    with pytest.raises(UnknownModel) as caught:
        registry.resolve("someone/draws")
    assert "{base: someone/draws, adapter: diffusers}" in caught.value.hint


def test_a_hub_id_of_the_table_is_that_entry() -> None:
    spec = registry.resolve("it", {"it": {"base": "stabilityai/sdxl-turbo"}})
    assert spec.parameters == TABLE["sdxl-turbo"].parameters


def test_a_known_model_keeps_its_adapter() -> None:
    with pytest.raises(ConfigError, match="has an adapter already"):
        registry.resolve("it", {"it": {"base": "sd-turbo", "adapter": "captioner"}})


@pytest.mark.parametrize(
    ("kind", "adapter"),
    [
        ("stable-diffusion", "diffusers"),
        ("blip", "captioner"),
        ("git", "captioner"),
        ("llava", "captioner"),
        ("vision-encoder-decoder", "captioner"),
        ("sentence-bert", "text-embedder"),
        ("clip", "joint-embedder"),
        ("siglip", "joint-embedder"),
        ("dinov2", "image-embedder"),
    ],
)
def test_local_folders_are_recognised(folder_of: Any, kind: str, adapter: str) -> None:
    spec = registry.resolve(f"local:{folder_of(kind)}")
    assert spec.adapter == adapter
    assert registry.is_present(spec)


def test_a_folder_of_an_unknown_kind_needs_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["StrangeForEverything"]}')
    with pytest.raises(ModelError, match="StrangeForEverything") as caught:
        registry.resolve(f"local:{tmp_path}")
    assert "adapter:" in caught.value.hint
    told = {"it": {"base": f"local:{tmp_path}", "adapter": "captioner"}}
    assert registry.resolve("it", told).modality_out == Modality.TEXT


def test_what_a_check_has_resolved_is_resolved_for_good(folder_of: Any, tmp_path: Path) -> None:
    shutil.copytree(folder_of("blip"), tmp_path / "blip")
    raw = {
        "networks": [["sd-turbo", "mine"]],
        "models": {"mine": {"base": "local:blip", "max_new_tokens": 7}},
        "base_folder": str(tmp_path),
    }
    resolver = registry.resolver_of(raw, ask=False)
    assert registry.check_config(raw, resolver) == []
    shutil.rmtree(tmp_path / "blip")
    spec = resolver.resolve("mine")
    assert (spec.adapter, spec.parameters["max_new_tokens"], spec.dtype) == ("captioner", 7, "float32")
    assert resolver.resolve("sd-turbo", "cuda").dtype == "float16"
    with pytest.raises(ModelMissing):
        registry.resolver_of(raw, ask=False).resolve("mine")


def test_the_registry_does_not_import_torch() -> None:
    code = (
        "import sys; from panic.models import registry; registry.known(); "
        "registry.check_config({'networks': [['sd-turbo', 'BLIP-base']]}); "
        "print({'torch', 'transformers', 'diffusers'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


@pytest.mark.parametrize(
    "config",
    ['{"architectures": [1]}', '{"architectures": {"a": 1}}', '{"architectures": []}', '{"model_type": []}'],
)
def test_a_config_of_another_form_is_told(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelError, match=r"no adapter for the architecture missing in config\.json"):
        registry.resolve(f"local:{tmp_path}")


def test_links_that_lead_to_each_other_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ModelMissing, match="there is no folder"):
        registry.resolve(f"local:{tmp_path}/loop")
    with pytest.raises(NotFound, match="there is no Python file"):
        registry.resolve(f"python:{tmp_path}/loop:Model")


@pytest.mark.parametrize("name", ["PocketDiffusion", "PocketDiffusion-B", "PocketText", "PocketCLIP"])
def test_how_much_text_a_pocket_model_reads_is_what_its_tokenizer_says(name: str) -> None:
    """Trials of batch sizes use texts of that length; longer ones were cut, with a warning."""
    spec = registry.resolve(name)
    folder = Path(registry.__file__).parents[1] / "pocket" / "weights" / spec.source.removeprefix("pocket:")
    (config,) = folder.rglob("tokenizer_config.json")
    assert spec.context_tokens == json.loads(config.read_text(encoding="utf-8"))["model_max_length"]
