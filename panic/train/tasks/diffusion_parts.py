"""The parts of a diffusion model: those of a base, or new ones from a config."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from panic.errors import UsageError
from panic.models.conditional import ConditionalPipeline
from panic.train.bases import as_usage_error, folder_of, tokenizer_of
from panic.train.config import DiffusionTraining
from panic.train.data import DataError, DataSet

NUM_TIMES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a text-to-image pipeline consists of.

    `scheduler` says how much noise there is at a time, `sampler` is the scheduler that the pipeline draws
    with. `labels` are the names of classes, () for models of texts.
    """

    unet: Any
    scheduler: Any
    sampler: Any
    autoencoder: Any = None
    text_encoder: Any = None
    tokenizer: Any = None
    labels: tuple[str, ...] = ()

    def pipeline(self) -> Any:
        """A StableDiffusionPipeline where it can do this, else a ConditionalPipeline."""
        from diffusers import StableDiffusionPipeline

        parts = {
            "unet": self.unet,
            "scheduler": self.sampler,
            "vae": self.autoencoder,
            "text_encoder": self.text_encoder,
            "tokenizer": self.tokenizer,
        }
        if self.autoencoder is None or self.labels:
            labels = {str(i): label for i, label in enumerate(self.labels)} or None
            return ConditionalPipeline(**parts, labels=labels)
        return StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )


def from_base(config: DiffusionTraining, data: DataSet) -> Parts:
    """The parts of a pipeline that is there.

    Raises UsageError for a pipeline that works in another way.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    assert config.model.base is not None
    folder = folder_of(config.model.base, "model.base")
    kinds: dict[str, Any] = {kind.__name__: kind for kind in (StableDiffusionPipeline, ConditionalPipeline)}
    with as_usage_error(f"model.base: {folder} is no pipeline"):
        name = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    if name not in kinds:
        raise UsageError(
            f"model.base: {folder} is a {name}, and a diffusion training goes on from {' or '.join(kinds)}"
        )
    checker = {"safety_checker": None} if name == "StableDiffusionPipeline" else {}
    with as_usage_error(f"model.base: {folder} cannot be loaded"):
        base: Any = kinds[name].from_pretrained(folder, dtype=torch.float32, **checker)
    labels = tuple((base.config.get("labels") or {}).values())
    _check_labels(config, data, labels or None)
    return Parts(
        unet=base.unet,
        scheduler=DDIMScheduler.from_config(base.scheduler.config),
        sampler=base.scheduler,
        autoencoder=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        labels=labels,
    )


def new(config: DiffusionTraining, data: DataSet) -> Parts:
    """Parts with fresh weights, beside an autoencoder and a tokenizer that may be there already.

    Raises UsageError for arguments that the classes do not take.
    """
    from diffusers import DDIMScheduler, UNet2DConditionModel

    by_class = config.condition == "class"
    if by_class:
        _check_labels(config, data, None)
    tokens = None if by_class else tokenizer_of(config.model.tokenizer, data)
    given: dict[str, Any] = config.model.unet or {}
    takes = inspect.signature(UNet2DConditionModel.__init__).parameters
    if unknown := sorted(given.keys() - takes.keys()):
        raise UsageError(f"model.unet: UNet2DConditionModel has no {', '.join(unknown)}")
    own = {"num_class_embeds": len(data.labels) + 1} if by_class else {}
    torch.manual_seed(config.seed)
    with as_usage_error("model.unet"):
        unet: Any = UNet2DConditionModel(**given, **own)
    scheduler = DDIMScheduler(
        num_train_timesteps=NUM_TIMES,
        beta_schedule=config.betas or "squaredcos_cap_v2",
        prediction_type=config.predict or "v_prediction",
        rescale_betas_zero_snr=config.zero_terminal_snr is not False,
        timestep_spacing="trailing",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=True,
    )
    return Parts(
        unet=unet,
        scheduler=scheduler,
        sampler=scheduler,
        autoencoder=_autoencoder(config.model.autoencoder),
        text_encoder=None if by_class else _text_encoder(config, tokens),
        tokenizer=tokens,
        labels=data.labels if by_class else (),
    )


def _check_labels(config: DiffusionTraining, data: DataSet, known: tuple[str, ...] | None) -> None:
    """Raises UsageError if a model of classes and the classes of the data do not go together."""
    if config.condition == "text" and known:
        raise UsageError("model.base is a model of classes", hint="Say condition: class.")
    if config.condition == "class" and not data.labels:
        raise DataError("condition: class needs pictures in subfolders, one for each class")
    if config.condition == "class" and config.model.base and known != data.labels:
        raise DataError(
            f"model.base knows the classes {', '.join(known or ()) or '(none)'}, and the data have "
            f"{', '.join(data.labels)}"
        )


def _autoencoder(name: str | None) -> Any:
    """The autoencoder of a folder, or of the pipeline in it; None for a model of pixels."""
    import diffusers

    if name is None:
        return None
    folder = folder_of(name, "model.autoencoder")
    if (folder / "vae").is_dir():
        folder = folder / "vae"
    with as_usage_error(f"model.autoencoder: {folder} cannot be loaded"):
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"]
        return getattr(diffusers, kind).from_pretrained(folder)


def _text_encoder(config: DiffusionTraining, tokens: Any) -> Any:
    """A new CLIP text encoder, or that of a CLIP model or of a pipeline."""
    from transformers import CLIPTextConfig, CLIPTextModel

    given = config.model.text_encoder or {}
    if isinstance(given, str):
        folder = folder_of(given, "model.text_encoder")
        inner: Path = folder / "text_encoder"
        with as_usage_error(f"model.text_encoder: {folder} cannot be loaded"):
            return CLIPTextModel.from_pretrained(inner if inner.is_dir() else folder, dtype=torch.float32)
    with as_usage_error("model.text_encoder"):
        arguments: dict[str, Any] = {
            "vocab_size": len(tokens),
            "max_position_embeddings": tokens.model_max_length,
            "bos_token_id": tokens.bos_token_id,
            "eos_token_id": tokens.eos_token_id,
            "pad_token_id": tokens.pad_token_id,
        }
        encoder: Any = CLIPTextModel(CLIPTextConfig(**(arguments | given)))
    for name, weight in encoder.named_parameters():
        if "embedding" in name:  # CLIP's 0.02 leaves left and right alike for thousands of steps: LOG.md
            torch.nn.init.normal_(weight, std=0.5 if "token" in name else 0.2)
    return encoder
