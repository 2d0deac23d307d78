"""Where weights are: the hub's cache, folders, and what is said when they are missing or broken."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants, errors

from panic.errors import ModelError, ModelMissing, OutOfMemory
from panic.models import registry, weights
from panic.models.loading import calling, loading
from panic.models.table import TABLE
from tests.models.conftest import sample_images

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache: Path, source: str, folder: Path, commit: str = COMMIT, revision: str = "main") -> Path:
    """Lay a folder into the hub cache as a download would."""
    repository = cache / f"models--{source.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / revision).write_text(commit)
    return snapshot


def test_missing_weights_say_the_command(cache: Path) -> None:
    for name in ("sd-turbo", "BLIP-base", "all-mpnet-base-v2", "clip-vit-base-patch32", "dinov2-base"):
        spec = registry.resolve(name)
        assert not registry.is_present(spec)
        with pytest.raises(ModelMissing) as caught:
            registry.build(spec).load("cpu")
        assert caught.value.hint == f"fetch it with: hf download {spec.source}"
    with pytest.raises(ModelMissing) as caught:
        registry.build(registry.resolve("SD3.5-medium")).load("cpu")
    assert "accept its licence at https://huggingface.co/stabilityai/stable-diffusion-3.5-medium" in str(
        caught.value
    )
    assert "token" in caught.value.hint


def test_a_revision_is_part_of_the_command(cache: Path) -> None:
    spec = registry.resolve("it", {"it": {"base": "sd-turbo", "revision": "v2"}})
    with pytest.raises(ModelMissing, match="at revision v2") as caught:
        registry.fingerprint(spec)
    assert caught.value.hint.endswith("hf download stabilityai/sd-turbo --revision v2")


def test_a_model_of_the_hub_loads_from_its_cache(cache: Path, folder_of: Any) -> None:
    put(cache, "Salesforce/blip-image-captioning-base", folder_of("blip"))
    spec = registry.resolve("BLIP-base")
    assert registry.is_present(spec)
    model = registry.build(spec)
    model.load("cpu")
    assert len(model.invoke(sample_images(2), [1, 2])) == 2

    first = registry.fingerprint(spec)
    put(cache, "Salesforce/blip-image-captioning-base", folder_of("blip"), "f" * 40, "next")
    assert registry.fingerprint(spec) == first
    assert registry.fingerprint(replace(spec, revision="next")) != first


def test_an_unlisted_model_of_the_hub_is_recognised_once_it_is_here(cache: Path, folder_of: Any) -> None:
    variants = {"it": {"base": "someone/captions"}}
    with pytest.raises(ModelMissing, match="not on this machine"):
        registry.resolve("it", variants)
    put(cache, "someone/captions", folder_of("blip"))
    assert registry.resolve("it", variants).adapter == "captioner"


def test_a_part_of_a_model_is_not_enough(cache: Path, folder_of: Any) -> None:
    snapshot = put(cache, "Salesforce/blip-image-captioning-base", folder_of("blip"))
    (snapshot / "model.safetensors").unlink()
    spec = registry.resolve("BLIP-base")
    assert not registry.is_present(spec)
    with pytest.raises(ModelMissing, match="only a part"):
        registry.fingerprint(spec)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder.rmdir(), "there is no folder"),
        (lambda folder: (folder.rmdir(), folder.write_text("x")), "is a file"),
        (lambda folder: None, "neither model_index.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "should hold a JSON object"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[" * 5000), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{}"), "no adapter for the architecture missing"),
    ],
)
def test_broken_folders_are_told(tmp_path: Path, make: Any, message: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    make(folder)
    with pytest.raises(ModelError, match=message) as caught:
        registry.resolve(f"local:{folder}")
    assert str(folder) in caught.value.message


@pytest.mark.parametrize("kind", ["stable-diffusion", "blip", "sentence-bert", "clip", "dinov2"])
def test_weights_that_are_cut_off_are_told(folder_of: Any, tmp_path: Path, kind: str) -> None:
    shutil.copytree(folder_of(kind), tmp_path / "cut")
    for file in weights.weight_files(tmp_path / "cut"):
        file.write_bytes(file.read_bytes()[:1000])
    model = registry.build(registry.resolve(f"local:{tmp_path / 'cut'}"))
    with pytest.raises(ModelError, match="cannot be loaded from") as caught:
        model.load("cpu")
    assert str(tmp_path / "cut") in caught.value.message


def test_a_pipeline_of_another_version_is_told(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "PipelineOfTheFuture"}')
    model = registry.build(registry.resolve(f"local:{tmp_path}"))
    with pytest.raises(ModelError, match="PipelineOfTheFuture"):
        model.load("cpu")


def hub_error(kind: type[Exception]) -> Exception:
    if not issubclass(kind, errors.HfHubHTTPError):
        return kind("as the hub's client says it")
    return kind("as the hub's client says it", response=SimpleNamespace(headers={}, request=None))


@pytest.mark.parametrize(
    ("kind", "message", "hint"),
    [
        (errors.GatedRepoError, "is gated", "hf auth login"),
        (errors.RevisionNotFoundError, "has no revision v2", ""),
        (errors.RepositoryNotFoundError, "no model stabilityai/sd-turbo on the hub", "hf download"),
        (errors.LocalEntryNotFoundError, "not on this machine", "hf download"),
        (errors.OfflineModeIsEnabled, "not on this machine", "hf download"),
    ],
)
def test_errors_of_the_hub_are_explained(kind: type[Exception], message: str, hint: str) -> None:
    spec = replace(TABLE["sd-turbo"], revision="v2")
    with pytest.raises(ModelMissing, match=message) as caught, weights.hub_errors(spec):
        raise hub_error(kind)
    assert hint in caught.value.hint


def test_ids_that_are_none_are_told() -> None:
    spec = replace(TABLE["sd-turbo"], source="not an id!/x")
    with pytest.raises(ModelError, match="is not a hub id"):
        weights.folder_of(spec)


def test_running_out_of_memory_is_our_error(tmp_path: Path) -> None:
    for context in (loading(TABLE["sd-turbo"], tmp_path), calling(TABLE["sd-turbo"], 4)):
        with pytest.raises(OutOfMemory, match=r"sd-turbo: no room.*2 GiB"), context:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_parameters_are_counted_from_headers(folder_of: Any) -> None:
    spec = registry.resolve(f"local:{folder_of('sentence-bert')}")
    count = registry.count_parameters(spec)
    from transformers import AutoModel

    loaded = AutoModel.from_pretrained(folder_of("sentence-bert"))
    assert count == sum(parameter.numel() for parameter in loaded.parameters())
    assert registry.size_bytes(spec) == 4 * count


def test_copies_in_half_precision_are_not_counted_twice(folder_of: Any, tmp_path: Path) -> None:
    shutil.copytree(folder_of("blip"), tmp_path / "blip")
    before = registry.count_parameters(registry.resolve(f"local:{tmp_path / 'blip'}"))
    shutil.copy(tmp_path / "blip/model.safetensors", tmp_path / "blip/model.fp16.safetensors")
    (tmp_path / "blip/pytorch_model.bin").write_bytes(b"0" * 4000)
    assert registry.count_parameters(registry.resolve(f"local:{tmp_path / 'blip'}")) == before


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"abc", b"version https://git-lfs.github.com/spec/v1\n", bytes(4096)),
        b"\2" + bytes(7) + b"[]",
        struct.pack("<Q", 5000) + b"[" * 5000,
    ],
    ids=["empty", "cut off", "a pointer of Git LFS", "zeros", "no header", "brackets"],
)
def test_a_file_of_weights_that_is_none_is_told(tmp_path: Path, folder_of: Any, content: bytes) -> None:
    folder = tmp_path / "blip"
    shutil.copytree(folder_of("blip"), folder)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors is no file of safetensors") as caught:
        registry.size_bytes(registry.resolve(f"local:{folder}"))
    assert "git lfs pull" in caught.value.hint


def test_a_subfolder_that_is_a_link_belongs_to_the_model(tmp_path: Path, folder_of: Any) -> None:
    """Its weights are counted and part of the fingerprint; a link that leads back up ends nowhere."""
    pipeline = tmp_path / "pipeline"
    shutil.copytree(folder_of("stable-diffusion"), pipeline)
    spec = registry.resolve(f"local:{pipeline}")
    plain, fingerprint = registry.count_parameters(spec), registry.fingerprint(spec)
    shutil.move(pipeline / "unet", tmp_path / "elsewhere")
    (pipeline / "unet").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(pipeline)
    (tmp_path / "elsewhere" / "itself").symlink_to(tmp_path / "elsewhere" / "itself")
    assert registry.count_parameters(spec) == plain
    assert registry.fingerprint(spec) == fingerprint
    with next((tmp_path / "elsewhere").glob("*.safetensors")).open("ab") as file:
        file.write(b"!")
    assert registry.fingerprint(spec) != fingerprint
