"""The fingerprint follows what makes results, and nothing else."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from panic.errors import ModelMissing
from panic.models import kinds as module
from panic.models import registry, weights


def of(base: str, **variant: Any) -> str:
    return registry.fingerprint(registry.resolve("it", {"it": {"base": base, **variant}}))


@pytest.fixture
def blip(folder_of: Any, tmp_path: Path) -> Path:
    shutil.copytree(folder_of("blip"), tmp_path / "blip")
    return tmp_path / "blip"


def test_name_and_place_do_not_count(blip: Path, tmp_path: Path) -> None:
    first = of(f"local:{blip}")
    assert len(first) == 64
    shutil.copytree(blip, tmp_path / "elsewhere")
    assert of(f"local:{tmp_path / 'elsewhere'}") == first
    assert registry.fingerprint(registry.resolve(f"local:{blip}")) == first
    (blip / "README.md").write_text("words")
    assert of(f"local:{blip}") == first


def test_parameters_and_dtype_count(blip: Path) -> None:
    base = f"local:{blip}"
    variants = [{}, {"prompt": "a"}, {"max_new_tokens": 5}, {"do_sample": True}, {"dtype": "bfloat16"}]
    assert len({of(base, **variant) for variant in variants}) == len(variants)
    assert of(base, max_new_tokens=48) == of(base), "a default said aloud is the same model"
    on_gpu = registry.fingerprint(registry.resolve("PocketPixels", device_kind="cuda"))
    assert on_gpu == registry.fingerprint(registry.resolve("PocketPixels"))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_every_file_of_the_weights_counts(blip: Path, file: str) -> None:
    first = of(f"local:{blip}")
    content = (blip / file).read_bytes()
    (blip / file).write_bytes(content + b" " if file.endswith("json") else content[:-1] + b"!")
    os.utime(blip / file, ns=(1, 1))  # even within the clock's resolution
    assert of(f"local:{blip}") != first


def test_a_file_that_moves_inside_the_folder_counts(blip: Path) -> None:
    first = of(f"local:{blip}")
    (blip / "config.json").rename(blip / "generation_config_old.json")
    (blip / "generation_config.json").rename(blip / "config.json")
    assert weights.folder_digest(blip) != first


def test_files_are_hashed_once(blip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = of(f"local:{blip}")
    monkeypatch.setattr(weights.hashlib, "file_digest", None)
    assert of(f"local:{blip}") == first


def test_the_image_back_end_counts(blip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = of(f"local:{blip}")
    monkeypatch.setattr(module, "image_backend", lambda: "other")
    assert of(f"local:{blip}") != first


def test_the_source_of_a_python_model_counts(tmp_path: Path) -> None:
    file = tmp_path / "m.py"
    code = "class M:\n    modality_in = modality_out = 'text'\n    size_bytes = 0\n"
    code += "    def __init__(self, a=1): ...\n    def load(self, device): ...\n"
    code += "    def invoke(self, inputs, seeds): return inputs\n"
    file.write_text(code)
    first = of(f"python:{file}:M")
    assert of(f"python:{file}:M", a=2) != first
    (tmp_path / "sub").mkdir()
    shutil.copy(file, tmp_path / "sub/n.py")
    assert of(f"python:{tmp_path}/sub/n.py:M") == first
    file.write_text(code + "# more\n")
    assert of(f"python:{file}:M") != first


def test_synthetic_models_differ_by_their_parameters() -> None:
    base = "synthetic/image-to-text"
    assert of(base) == of(base, kernel="cycle")
    assert len({of(base), of(base, kernel="identity"), of("synthetic/random-walk")}) == 3


def test_an_option_not_set_does_not_count() -> None:
    spec = registry.resolve("synthetic/random-walk")
    more = replace(spec, parameters={**spec.parameters, "later": None})
    assert registry.fingerprint(more) == registry.fingerprint(spec)


def test_missing_weights_have_no_fingerprint() -> None:
    spec = registry.resolve("it", {"it": {"base": "nobody/nothing", "adapter": "diffusers"}})
    with pytest.raises(ModelMissing, match="not on this machine"):
        registry.fingerprint(spec)
