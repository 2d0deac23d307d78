"""Fingerprints stay what they were before kinds described themselves: stores refer to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from panic.models import registry
from panic.models.kinds import image_backend

FOLDERS = {
    "blip": {
        "config.json": '{"architectures": ["BlipForConditionalGeneration"], "model_type": "blip"}',
        "model.safetensors": "weights",
    },
    "sd": {
        "model_index.json": '{"_class_name": "StableDiffusionPipeline"}',
        "unet/weights.safetensors": "noise",
    },
    "bert": {
        "config.json": '{"architectures": ["BertModel"], "model_type": "bert"}',
        "model.safetensors": "words",
    },
    "dino": {
        "config.json": '{"architectures": ["Dinov2Model"], "image_size": 8, "patch_size": 2}',
        "model.safetensors": "x",
    },
    "clip": {
        "config.json": '{"architectures": ["CLIPModel"], "model_type": "clip"}',
        "model.safetensors": "both",
    },
    "t5": {
        "config.json": '{"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}',
        "model.safetensors": "answers",
    },
    "pix2pix": {
        "model_index.json": '{"_class_name": "StableDiffusionInstructPix2PixPipeline"}',
        "unet/weights.safetensors": "edits",
    },
    "lora": {"adapter_model.safetensors": "low rank"},
}
OWN = """class Own:
    modality_in = "text"
    modality_out = "image"
    size_bytes = 0
    batch_size = 4

    def __init__(self, a, b=2, c=-0.5, d="x", e=None, *, f=True, g=(1,)):
        pass

    def load(self, device):
        pass

    def invoke(self, inputs, seeds):
        return inputs
"""
VARIANTS: dict[str, dict[str, Any]] = {
    "blip": {"base": "local:blip"},
    "blip-sampled": {"base": "local:blip", "do_sample": True, "temperature": 0.5, "dtype": "bfloat16"},
    "blip-lora": {"base": "local:blip", "lora": "lora"},
    "sd": {"base": "local:sd", "steps": 3, "guidance": 2.0, "negative_prompt": "blue"},
    "t5": {"base": "local:t5", "instruction": "Rephrase:"},
    "t5-prompt": {"base": "local:t5", "prompt": "Rephrase:"},
    "pix2pix": {"base": "local:pix2pix", "instruction": "make it red"},
    "pix2pix-prompt": {"base": "local:pix2pix", "prompt": "make it red"},
    "bert": {"base": "local:bert"},
    "dino": {"base": "local:dino"},
    "clip": {"base": "local:clip"},
    "own": {"base": "python:own.py:Own", "a": 1},
    "own-b": {"base": "python:own.py:Own", "a": 1, "b": 3},
    "cycle": {"base": "synthetic/image-to-text", "states": 7, "kernel": "cycle", "epsilon": 0.1},
}
PINS = {
    "blip": "7f37bd09a173b01eabeeba7785aa510ef7b42aad3f309197a78a52cf27a743e8",
    "blip-sampled": "7f8e76ed73e773c14dfc157f29629b82a6e564d278f42deb802a5a9fb7650306",
    "blip-lora": "c67b4a0dfd14d1dadf93881d97d1d2d59f956811ae5d84b26971d0cc4bc9e24b",
    "sd": "a42c8abcef48de65c775e7b648d161db7db5874cb9100a36deceed3cd442fc22",
    "t5": "ad96db48c584f7fa1dc39e2842c0778b71777ae6ce941ade71aa3748a9a0acef",
    "t5-prompt": "ad96db48c584f7fa1dc39e2842c0778b71777ae6ce941ade71aa3748a9a0acef",
    "pix2pix": "82ff26565dd902e694b416933c32eee2e9e85b74694e3f911c62a5c997547da2",
    "pix2pix-prompt": "82ff26565dd902e694b416933c32eee2e9e85b74694e3f911c62a5c997547da2",
    "bert": "589d96e19320cffa20fa1b21854807ae1b94589141d67f6faa5b63cc827225d9",
    "dino": "a65549d640cff6796f5c1006bf1e2a21b5022631e4ba6b91d2401f359af3ad64",
    "clip": "4703cafcb71f9f9307a445119e9c6195b72bec3fedc7cb103d403ff75c320e47",
    "own": "310c02005481d17680a9a29ac868945ef425f799057588f6003ba47b9f10e56f",
    "own-b": "0a95a9a4604b7b19af1e89e44bacdd35e7acf38f338c09e35a102ef4ba06e005",
    "cycle": "45c59e1f3f44dd550b246a7f9a00a2c43b3990dd4a2f202939917c9005719660",
    "PocketDiffusion": "17af6977c41223613cf855f32627948aca9e95ee97a4b66b0f8a27aac230c21a",
    "PocketDiffusion-B": "2368b4393a372c4dc1b0af25a2aa4b4d36ac396496d1f76d265f89b652ecf3e2",
    "PocketCaptioner": "955564db56926754c837a3a4fde3b45b97e4980b436c062fdf602a98f5d46b4a",
    "PocketCaptioner-B": "3c69b73cb62d9af792f484da8c8ba869da3bb3ca584c119e70ac3979f09eea55",
    "PocketCLIP": "4e05878771255fcf01de11b5dba0d857707a834d5d18e8ed9db657478304b58f",
    "PocketText": "664c7a10852aec23738c61912fa7a5b6c4dc59f8a02275ab3c263cddb6dc8674",
    "PocketPixels": "2b171abd970aa9ec91a9890bea110823dffb37910b31930ad5ab891c4cf80218",
    "synthetic/text-to-image": "e08e29a6efb52f4a9ba5c37b94b6e7a2355ebc91afa05500c52d3a71e1a23d3e",
    "synthetic/image-to-text": "ad4041b1e77515686097af8f7e414910c143958d0f0bf98acb7cf4d97e908333",
    "synthetic/random-walk": "9912a4a61f25b4ee2bdc118675bf16ecb74379373038394b9f25ab59a6f01f4d",
    "synthetic/walk-embedding": "4e3672ea5d896f0e4ea12fee059bd24ad17f359b1f19a8216cfc509f4b5a3fc1",
    "synthetic/state-embedding": "26db07af87d5af2650ff3b3d72defb74c10d7f0e40078fd92090e9dcec96c6b8",
}
READS_IMAGES = {
    "blip",
    "blip-sampled",
    "blip-lora",
    "pix2pix",
    "pix2pix-prompt",
    "dino",
    "clip",
    "PocketCaptioner",
    "PocketCaptioner-B",
    "PocketCLIP",
}


@pytest.mark.parametrize("name", PINS)
def test_a_fingerprint_is_the_one_that_stores_refer_to(tmp_path: Path, name: str) -> None:
    if name in READS_IMAGES and image_backend() != "pil":
        pytest.skip("the pins were taken without torchvision")
    for folder, files in FOLDERS.items():
        for file, text in files.items():
            (tmp_path / folder / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / file).write_text(text)
    (tmp_path / "own.py").write_text(OWN)
    assert registry.fingerprint(registry.resolve(name, VARIANTS, base_folder=tmp_path)) == PINS[name]


def test_a_stored_spec_with_a_former_word_is_understood() -> None:
    known = registry.resolve("instruct-pix2pix")
    stored = replace(known, name="gone", parameters={"instruction": "x"}, accepts=("instruction", "steps"))
    resolver = registry.Resolver(registry.Names())
    resolver.keep("gone", stored)
    found = resolver.resolve("gone")
    assert (found.parameters, found.accepts) == ({"prompt": "x"}, ("prompt", "steps"))
