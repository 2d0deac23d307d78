"""GGUF files in place of a model's own weights: what they give, their sizes, what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from panic import run
from panic.cli.app import app
from panic.config import ExperimentConfig
from panic.devices.cache import ModelCache
from panic.devices.simulated import SimulatedDevice
from panic.errors import ConfigError, ModelError, ModelMissing
from panic.models import library_source, registry
from panic.models.gguf_files import Header, NoGGUF, misfit_of_writer, read_header
from panic.models.protocol import ModelSpec
from panic.store import Store, reading
from tests import tiny, tiny_classes, tiny_edits, tiny_gguf, tiny_language
from tests.models.conftest import TEXTS, sample_images

pytest.importorskip("gguf")
BUILDERS: dict[str, Callable[[Path], Path]] = {
    "flux": tiny.build_flux,
    "klein": tiny_edits.build_klein,
    "z-image": tiny_classes.build_z_image,
    "stable-diffusion": tiny.build_stable_diffusion,
    **{kind: lambda folder, kind=kind: tiny_language.build(kind, folder) for kind in tiny_language.CLASSES},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "flux": {"steps": 2, "guidance": 1.0, "width": 64, "height": 64},
    "klein": {"adapter": "image-to-image", "steps": 2, "max_sequence_length": 32},
    "z-image": {"steps": 2, "guidance": 0.0, "width": 64, "height": 64},
    "stable-diffusion": {"steps": 2, "guidance": 2.0, "width": 64, "height": 64},
}
WRITES = {"max_new_tokens": 8}
Built = Callable[[str], Path]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The folder of a tiny model."""
    folders: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind) / "model"
            BUILDERS[kind](folders[kind])
        return folders[kind]

    return folder


def spec_of(folder: Path, kind: str, **parameters: Any) -> ModelSpec:
    variant = {"base": f"local:{folder}", **SETTINGS.get(kind, WRITES), **parameters}
    return registry.resolve("it", {"it": variant})


def loaded(spec: ModelSpec) -> Any:
    model = registry.build(spec)
    model.load("cpu")
    return model


def called(model: Any) -> list[bytes]:
    inputs = sample_images(2) if model.modality_in == "image" else TEXTS[:2]
    outputs = model.invoke(inputs, [7, 8])
    return [one.encode() if isinstance(one, str) else np.asarray(one).tobytes() for one in outputs]


def with_rounded(folder: Path, copy: Path, kind: str, part: str = "") -> Path:
    """A copy of a model whose weights are what is read again of such a file."""
    shutil.copytree(folder, copy)
    (path,) = (copy / part).glob("*.safetensors")
    tensors = {
        name: tiny_gguf.rounded(tensor, kind, half=bool(part)) for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, metadata={"format": "pt"})
    return copy


# What they give


@pytest.mark.parametrize(
    ("kind", "stored"),
    [("flux", "Q8_0"), ("flux", "Q4_0"), ("flux", "BF16"), ("flux", "F16"), ("klein", "Q8_0")],
)
def test_a_transformer_of_a_file_draws_as_its_unpacked_weights_do(
    built: Built, tmp_path: Path, kind: str, stored: str
) -> None:
    folder = built(kind)
    path = tiny_gguf.of_transformer(folder, tmp_path / "file.gguf", stored)
    of_file = loaded(spec_of(folder, kind, gguf=str(path)))
    unpacked = with_rounded(folder, tmp_path / "unpacked", stored, "transformer")
    assert called(of_file) == called(loaded(spec_of(unpacked, kind)))
    assert called(of_file) != called(loaded(spec_of(folder, kind)))


@pytest.mark.parametrize("kind", ["flux", "qwen3"])
@pytest.mark.parametrize("stored_as", ["blobs/0ab1", "file.GGUF"])
def test_a_file_may_have_any_name(built: Built, tmp_path: Path, kind: str, stored_as: str) -> None:
    """As in a cache of the hub, where names are links to files called by their digests."""
    write = tiny_gguf.of_transformer if kind == "flux" else tiny_gguf.of_language_model
    path = write(built(kind), tmp_path / "file.gguf", "Q8_0")
    expected = called(loaded(spec_of(built(kind), kind, gguf=str(path))))
    (tmp_path / "blobs").mkdir()
    path.rename(tmp_path / stored_as)
    link = tmp_path / "link.gguf"
    link.symlink_to(tmp_path / stored_as)
    assert called(loaded(spec_of(built(kind), kind, gguf=str(link)))) == expected


def test_a_file_as_it_was_published_has_other_names(built: Built, tmp_path: Path) -> None:
    folder = built("z-image")
    path = tiny_gguf.of_transformer(folder, tmp_path / "file.gguf", "Q8_0", published=True)
    assert "layers.0.attention.qkv.weight" in read_header(path).tensors
    unpacked = with_rounded(folder, tmp_path / "unpacked", "Q8_0", "transformer")
    of_file = loaded(spec_of(folder, "z-image", gguf=str(path)))
    assert called(of_file) == called(loaded(spec_of(unpacked, "z-image")))


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gemma3"])
@pytest.mark.parametrize("stored", ["F32", "Q8_0"])
def test_a_language_model_of_a_file_writes_as_its_unpacked_weights_do(
    built: Built, tmp_path: Path, kind: str, stored: str
) -> None:
    folder = built(kind)
    path = tiny_gguf.of_language_model(folder, tmp_path / "file.gguf", stored)
    unpacked = with_rounded(folder, tmp_path / "unpacked", stored)
    expected = loaded(spec_of(unpacked, kind))
    of_file = loaded(spec_of(folder, kind, gguf=str(path)))
    assert called(of_file) == called(expected)
    assert of_file._model.generation_config.eos_token_id == expected._model.generation_config.eos_token_id


def test_what_the_folder_says_of_writing_holds_beside_a_file(built: Built, tmp_path: Path) -> None:
    """The library does not read generation_config.json then, which may name a second token that ends."""
    folder = shutil.copytree(built("qwen3"), tmp_path / "model")
    told = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(told | {"eos_token_id": [2, 77]}))
    path = tiny_gguf.of_language_model(folder, tmp_path / "file.gguf", "F32")
    model = loaded(spec_of(folder, "qwen3", gguf=str(path)))
    assert model._model.generation_config.eos_token_id == [2, 77]


def test_an_item_does_not_depend_on_its_mates(built: Built, tmp_path: Path) -> None:
    path = tiny_gguf.of_transformer(built("flux"), tmp_path / "file.gguf", "Q8_0")
    model = loaded(spec_of(built("flux"), "flux", gguf=str(path)))
    here = model.invoke([TEXTS[0], TEXTS[1], TEXTS[2]], [7, 8, 9])[0]
    there = model.invoke([TEXTS[3], TEXTS[4], TEXTS[0]], [1, 2, 7])[2]
    assert np.array_equal(np.asarray(here), np.asarray(there))


def test_a_folder_needs_no_weights_where_a_file_has_them(built: Built, tmp_path: Path) -> None:
    for kind, part in (("flux", "transformer"), ("qwen3", "")):
        folder = shutil.copytree(built(kind), tmp_path / kind)
        write = tiny_gguf.of_transformer if part else tiny_gguf.of_language_model
        path = write(folder, tmp_path / f"{kind}.gguf", "Q8_0")
        whole = loaded(spec_of(folder, kind, gguf=str(path)))
        for weights in (folder / part).glob("*.safetensors"):
            weights.unlink()
        spec = spec_of(folder, kind, gguf=str(path))
        assert called(loaded(spec)) == called(whole)
        assert registry.size_bytes(spec) == registry.size_bytes(whole.spec)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_transformer_of_a_file_can_be_compiled(built: Built, tmp_path: Path) -> None:
    path = tiny_gguf.of_transformer(built("flux"), tmp_path / "file.gguf", "Q8_0")
    eager, compiled = (
        np.frombuffer(called(loaded(spec_of(built("flux"), "flux", gguf=str(path), **more)))[0], np.uint8)
        for more in ({}, {"compile": True})
    )
    assert np.abs(eager.astype(int) - compiled).max() <= 1


# What else is known of them


def test_packed_weights_are_counted_as_they_are_kept(built: Built, tmp_path: Path) -> None:
    """A block of Q8_0 has 32 values in 34 bytes."""
    folder = built("flux")
    path = tiny_gguf.of_transformer(folder, tmp_path / "file.gguf", "Q8_0")
    plain, spec = loaded(spec_of(folder, "flux")), spec_of(folder, "flux", gguf=str(path))
    packed = loaded(spec)
    linear = [
        layer.weight.numel()
        for layer in plain._model.transformer.modules()
        if isinstance(layer, torch.nn.Linear) and layer.in_features % 32 == 0
    ]
    assert linear
    assert plain.size_bytes - packed.size_bytes == sum(values * 4 - values // 32 * 34 for values in linear)
    buffers = plain.size_bytes - registry.size_bytes(plain.spec)  # are in no file
    assert registry.size_bytes(spec) == packed.size_bytes - buffers
    device = SimulatedDevice(name="sim", capacity_bytes=64 * 2**20)
    cache = ModelCache(device, lambda name: registry.build(spec))
    with cache.lease("it", 2) as model:
        first = called(model)
    assert cache._state().sizes["it"] == device.rounded(packed.size_bytes)
    assert cache._state().whole == {"it"}
    assert cache.evict_idle() == 1
    with cache.lease("it", 2) as model:
        assert called(model) == first


def test_a_language_model_is_as_large_as_unpacked(built: Built, tmp_path: Path) -> None:
    folder = built("qwen3")
    path = tiny_gguf.of_language_model(folder, tmp_path / "file.gguf", "Q8_0")
    spec = spec_of(folder, "qwen3", gguf=str(path))
    assert loaded(spec).size_bytes == loaded(spec_of(folder, "qwen3")).size_bytes
    assert registry.size_bytes(spec) == registry.size_bytes(spec_of(folder, "qwen3"))


def test_what_is_in_a_file_is_in_the_fingerprint_and_its_name_is_not(built: Built, tmp_path: Path) -> None:
    folder = built("qwen3")
    path = tiny_gguf.of_language_model(folder, tmp_path / "file.gguf", "Q8_0")
    other = tiny_gguf.of_language_model(folder, tmp_path / "other.gguf", "F16")
    copy = Path(shutil.copy(path, tmp_path / "copy.gguf"))
    prints = [registry.fingerprint(spec_of(folder, "qwen3", gguf=str(one))) for one in (path, other, copy)]
    assert prints[0] == prints[2] != prints[1]
    plain = registry.fingerprint(spec_of(folder, "qwen3"))
    assert plain not in prints
    assert registry.fingerprint(spec_of(folder, "qwen3", gguf=None)) == plain


def test_files_are_variants_in_a_loop_named_relative_to_the_config(built: Built, tmp_path: Path) -> None:
    path = tiny_gguf.of_language_model(built("qwen3"), tmp_path / "file.gguf", "Q4_0")
    base = {"base": f"local:{built('qwen3')}", **WRITES}
    config = ExperimentConfig.model_validate(
        {
            "name": "files",
            "networks": [["plain"], ["small"]],
            "models": {"plain": base, "small": {**base, "gguf": path.name}},
            "prompts": ["a red circle"],
            "seeds": [-1],
            "max_length": 3,
            "device": "cpu",
            "base_folder": str(tmp_path),
        }
    )
    assert run(config, tmp_path / "store").counts.invocations == 6
    with Store(tmp_path / "store") as store:
        prints = {epoch.name: epoch.fingerprint for epoch in reading.epochs(store, config.name)}
    assert len(set(prints.values())) == 2


# Refused


@pytest.fixture(scope="module")
def good(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.of_language_model(built("qwen3"), tmp_path_factory.mktemp("good") / "file.gguf", "Q8_0")


def broken(good: Path, path: Path, how: str) -> Path:
    content = good.read_bytes()
    version = struct.pack("<I", 3)
    assert content[4:8] == version
    made = {
        "empty": b"",
        "text": b"not weights at all",
        "pointer": b"version https://git-lfs.github.com/spec/v1\n",
        "cut in the weights": content[:-100],
        "cut in the header": content[:200],
        "cut at once": content[:10],
        "version 1": content[:4] + struct.pack("<I", 1) + content[8:],
        "many tensors": content[:8] + struct.pack("<Q", 2**62) + content[16:],
        "much said": content[:16] + struct.pack("<Q", 2**62) + content[24:],
        "many sides": content[:8]
        + struct.pack("<QQQ", 1, 0, 1)
        + b"x"
        + struct.pack("<I", 1_000_000)
        + b"\xff" * 8_000_000,
        "a long name": content[:24] + struct.pack("<Q", 2**62) + content[32:],
    }
    path.write_bytes(made[how])
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("empty", "is no GGUF file"),
        ("text", "is no GGUF file"),
        ("pointer", "is no GGUF file"),
        ("cut in the weights", "is cut off: it should have"),
        ("cut in the header", "is cut off"),
        ("cut at once", "is cut off"),
        ("version 1", "is of version 1, which is not read here"),
        ("many tensors", "has a tensor of a type that is not known here"),
        ("much said", "is cut off"),
        ("a long name", "is cut off"),
        ("many sides", "has a tensor of 1,000,000 dimensions: x"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_by_the_check_of_a_config(
    built: Built, good: Path, tmp_path: Path, how: str, message: str
) -> None:
    path = broken(good, tmp_path / "it.gguf", how)
    variant = {"base": f"local:{built('qwen3')}", "gguf": str(path)}
    (problem,) = registry.check_config({"models": {"it": variant}})
    assert problem.path == ("models", "it", "gguf")
    assert f"gguf cannot be: it.gguf {message}" in problem.message


def test_every_cut_is_noticed(good: Path, tmp_path: Path) -> None:
    content = good.read_bytes()
    end = content.rindex(b"weight") + 64
    for length in [*range(0, end, 7), *range(end, len(content), 4001), len(content) - 1]:
        (tmp_path / f"{length}.gguf").write_bytes(content[:length])
        with pytest.raises(NoGGUF):
            read_header(tmp_path / f"{length}.gguf")


def test_a_broken_header_is_never_a_traceback(good: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    content, path = good.read_bytes(), tmp_path / "it.gguf"
    end, told = content.rindex(b"weight") + 64, 0
    for number in range(400):
        changed = bytearray(content)
        for place in random.integers(4, end, size=3):
            changed[place] = random.choice([0, 1, 9, 255, int(random.integers(256))])
        path.write_bytes(changed)
        os.utime(path, ns=(number, number))
        try:
            read_header(path)
        except NoGGUF:
            told += 1
    assert told > 100


@pytest.mark.parametrize(
    ("kind", "of", "parameters", "message"),
    [
        ("llama", "qwen3", {}, "the file is of the architecture qwen3, the model is a llama"),
        ("smollm3", "qwen3", {}, "the file is of the architecture qwen3, the model is a smollm3"),
        ("flux", "qwen3", {}, "the file is of another model (qwen3): it has"),
        ("stable-diffusion", "qwen3", {}, "gguf cannot be: the pipeline has no transformer"),
        ("flux", "klein", {}, "and a FluxTransformer2DModel of this pipeline"),
        ("qwen3", "flux", {}, "transformers reads no GGUF files of the architecture tiny"),
        ("qwen3", "qwen3", {"quantize": "int8"}, "gguf cannot be beside quantize"),
        ("flux", "flux", {"lora": "{folder}"}, "gguf cannot be beside lora"),
        ("t5", "qwen3", {}, "the file is of the architecture qwen3, the model is a t5"),
    ],
)
def test_a_file_of_another_model_is_told_by_the_check_of_a_config(
    built: Built, tmp_path: Path, kind: str, of: str, parameters: dict[str, Any], message: str
) -> None:
    write = tiny_gguf.of_transformer if of in SETTINGS else tiny_gguf.of_language_model
    path = write(built(of), tmp_path / "file.gguf", "Q8_0")
    given = {key: value.format(folder=tmp_path) for key, value in parameters.items()}
    with pytest.raises(ConfigError) as error:
        spec_of(built(kind), kind, gguf=str(path), **given)
    assert message in error.value.message


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"qwen3.block_count": 36}, "its block_count is 36, and the model's 2"),
        ({"qwen3.embedding_length": 4096}, "its embedding_length is 4096, and the model's 32"),
        ({"qwen3.attention.head_count": None}, "the file does not say its attention.head_count"),
    ],
)
def test_a_file_of_a_larger_model_of_the_family_is_refused(
    built: Built, tmp_path: Path, said: dict[str, Any], message: str
) -> None:
    path = tiny_gguf.of_language_model(built("qwen3"), tmp_path / "file.gguf", "Q8_0", **said)
    with pytest.raises(ConfigError, match=message):
        spec_of(built("qwen3"), "qwen3", gguf=str(path))


def test_a_file_with_other_words_is_refused(built: Built, tmp_path: Path) -> None:
    path = tiny_gguf.of_language_model(built("qwen3"), tmp_path / "file.gguf", "Q8_0")
    folder = shutil.copytree(built("qwen3"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 999}))
    with pytest.raises(ConfigError, match="the file has 300 words, and the model 999"):
        spec_of(folder, "qwen3", gguf=str(path))


def test_a_file_without_some_weights_is_refused(built: Built, tmp_path: Path) -> None:
    """The library fills in random ones, and warns."""
    path = tiny_gguf.of_language_model(
        built("qwen3"), tmp_path / "file.gguf", "Q8_0", leave_out="layers.1.mlp.up"
    )
    with pytest.raises(ModelError, match=r"file\.gguf lacks what the model needs: .*layers\.1\.mlp\.up_proj"):
        loaded(spec_of(built("qwen3"), "qwen3", gguf=str(path)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("final_layer.linear.weight"), "has not all weights of a ZImage"),
        (lambda tensors: tensors.update(more_of(tensors)), r"another model \(tiny\)"),
        (lambda tensors: tensors.update({"x_embedder.weight": torch.zeros(8, 8)}), "is not read as a ZImage"),
    ],
)
def test_a_transformer_that_does_not_fit_is_refused_also_without_weights_to_compare_it_with(
    built: Built, tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    """The library leaves out what it does not know, and warns."""
    folder = shutil.copytree(built("z-image"), tmp_path / "model")
    tensors = tiny_gguf.of_part(folder, published=True)
    for weights in (folder / "transformer").glob("*.safetensors"):
        weights.unlink()
    change(tensors)
    path = tiny_gguf.write(tmp_path / "file.gguf", {"architecture": "tiny"}, tensors, "Q8_0")
    with pytest.raises(ModelError, match=message):
        loaded(spec_of(folder, "z-image", gguf=str(path)))


def more_of(tensors: dict[str, Any]) -> dict[str, Any]:
    """Another layer."""
    return {
        name.replace("layers.1.", "layers.2."): one for name, one in tensors.items() if "layers.1." in name
    }


@pytest.mark.parametrize(
    ("base", "value", "message"),
    [
        ("{qwen3}", "nowhere.gguf", "gguf should be a file, and there is none of this name"),
        ("{qwen3}", "{folder}", "gguf should be a file, and there is none of this name"),
        ("{qwen3}", 5, "gguf should be text"),
        ("PocketDiffusion", "{good}", "PocketDiffusion has no parameter 'gguf'"),
        ("PocketCaptioner", "{good}", "PocketCaptioner has no parameter 'gguf'"),
    ],
)
def test_what_is_no_file_is_told_by_the_check_of_a_config(
    built: Built, good: Path, tmp_path: Path, base: str, value: Any, message: str
) -> None:
    filled = value.format(folder=tmp_path, good=good) if isinstance(value, str) else value
    variant = {"base": base.format(qwen3=f"local:{built('qwen3')}"), "gguf": filled}
    problems = registry.check_config({"models": {"it": variant}})
    assert [problem.message for problem in problems] == [message]


def test_a_package_that_is_missing_is_named_with_its_extra(
    built: Built, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else found(name))
    spec = spec_of(built("qwen3"), "qwen3", gguf=str(good))
    with pytest.raises(ModelMissing, match=r"gguf \(the extra quantize: pip install"):
        registry.fingerprints({"it": spec})


def test_a_config_with_a_file_whose_package_is_missing_is_told_so_by_a_run(
    built: Built, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes are asked for before, of a header that nothing has read yet."""
    monkeypatch.setitem(sys.modules, "gguf", None)  # as where it is not installed
    path = shutil.copy(good, tmp_path / "file.gguf")
    config = {
        "name": "files",
        "networks": [["small"]],
        "models": {"small": {"base": f"local:{built('qwen3')}", **WRITES, "gguf": str(path)}},
        "prompts": ["a red circle"],
        "seeds": [-1],
        "max_length": 3,
        "device": "cpu",
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    for more in ([], ["--dry-run"]):
        ran = CliRunner().invoke(
            app, ["run", str(tmp_path / "config.yaml"), "--store", str(tmp_path / "store"), *more]
        )
        told = ran.output if more else ran.stderr  # a preview goes on and tells what is absent
        assert "small needs what is not installed: gguf (the extra quantize" in " ".join(told.split()), told
        assert (ran.exit_code == 0) == bool(more), told


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("qwen2moe", "qwen2_moe"),
        ("qwen3moe", "qwen3_moe"),
        ("gpt-oss", "gpt_oss"),
        ("minimax-m2", "minimax_m2"),
        ("llama", "mistral"),
        ("gemma3", "gemma3_text"),
    ],
)
def test_files_and_models_join_words_differently(architecture: str, kind: str) -> None:
    says = {
        "general.architecture": architecture,
        f"{architecture}.block_count": 2,
        f"{architecture}.attention.head_count": 4,
    }
    header = Header(says=says, tensors={})
    assert misfit_of_writer(header, {"model_type": kind, "num_hidden_layers": 2}) == ""
    assert "the file is of the architecture" in misfit_of_writer(header, {"model_type": "bloom"})


def test_the_libraries_are_asked_what_they_read() -> None:
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    assert {*GGUF_SUPPORTED_ARCHITECTURES} - {"general", "tokenizer"} <= library_source.gguf_architectures()
    assert '    "FluxTransformer2DModel": {' in library_source.single_files()
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES

    assert {kind.name for kind in SUPPORTED_GGUF_QUANT_TYPES} == library_source.unpacked_types()


def test_the_package_reads_of_a_header_what_we_read(good: Path) -> None:
    import gguf

    header = read_header(good)
    assert {name: (one.shape, one.type, one.num_bytes) for name, one in header.tensors.items()} == {
        one.name: (tuple(map(int, reversed(one.shape))), one.tensor_type.name, int(one.n_bytes))
        for one in gguf.GGUFReader(good).tensors
    }
    assert header.architecture == "qwen3"
    assert header.says["qwen3.block_count"] == 2
