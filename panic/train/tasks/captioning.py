"""Image to text: a small BLIP (a vision transformer, and a causal decoder that looks at it), or a base.

Hiding words that were already said (`forget_words`) makes the decoder look at the image: otherwise words
that training never shows together rule each other out for ever. Some words may count more (`emphasis`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from panic.errors import UsageError
from panic.train.adapters import add_lora, merged, save_adapters
from panic.train.bases import folder_of, tokenizer_of, whole_model
from panic.train.batches import Batch
from panic.train.config import CaptioningTraining
from panic.train.data import DataSet, TrainingItem
from panic.train.image_tensors import recolour, spoil
from panic.train.saving import save_half, whole


class Captioning(nn.Module):
    """Losses: weighted cross-entropy of each item's canonical caption."""

    def __init__(self, config: CaptioningTraining, data: DataSet) -> None:
        super().__init__()
        self.config, self.data = config, data
        self.model, self.processor = _from_base(config) if config.model.base else _new(config, data)
        self.tokenizer = self.processor.tokenizer
        if config.lora:
            add_lora(self.model, config.lora, config.seed)
        importance = torch.ones(len(self.tokenizer))
        for word, weight in config.emphasis.items():
            importance[self._token(word)] = weight
        self.register_buffer("importance", importance, persistent=False)
        colours = torch.tensor([self._token(word) for word in config.colour_words], dtype=torch.long)
        self.register_buffer("colours", colours, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """The losses of the items: (n,)."""
        device = self.model.device
        tokens = self.tokenizer(
            batch.canonical(),
            padding="max_length",
            max_length=self.config.max_tokens,
            truncation=True,
            return_tensors="pt",
        ).to(device)
        shown, unasked = batch.images(), torch.zeros(len(batch), dtype=torch.bool)
        if self.config.recolour:
            shown, unasked = recolour(shown, self.config.recolour, batch)
        images = spoil(shown, self.config.spoil, batch).to(device)
        share = self.config.forget_words * batch.rand(1)
        forgotten = (batch.rand(self.config.max_tokens) < share).to(device)
        forgotten[:, 0] = False
        longest = int(tokens.attention_mask.sum(1).max())
        ids, mask = tokens.input_ids[:, :longest], tokens.attention_mask[:, :longest]
        ids[:, 0] = self.model.config.text_config.bos_token_id  # what `generate` begins with
        hidden = unasked.to(device)[:, None] & torch.isin(ids, self.colours)  # type: ignore[arg-type]
        logits = self.model(
            pixel_values=self._normalise(images),
            input_ids=ids.masked_fill(forgotten[:, :longest] | hidden, self.tokenizer.pad_token_id),
            attention_mask=mask,
        ).logits[:, :-1]
        said = ids[:, 1:]
        error = functional.cross_entropy(logits.transpose(1, 2).float(), said, reduction="none")
        weight = self.importance[said] * mask[:, 1:] * ~hidden[:, 1:]  # type: ignore[index]
        losses: Tensor = (weight * error).sum(1) / weight.sum(1).clamp(min=1)
        return losses

    def describe(self, items: list[TrainingItem]) -> list[str]:
        """Captions of the items' images, greedily."""
        inputs = self.processor(images=[item.image for item in items], return_tensors="pt").to(
            self.model.device
        )
        with torch.autocast(self.model.device.type, enabled=False):
            ids = self.model.generate(**inputs, do_sample=False, max_new_tokens=self.config.max_tokens - 2)
        return [text.strip() for text in self.processor.batch_decode(ids, skip_special_tokens=True)]

    def samples(self, items: list[TrainingItem], first: int = 0) -> Any:
        """The captions of images, said and right."""
        said = self.describe(items)
        return "".join(f"{text}\n    {item.texts[0]}\n" for text, item in zip(said, items, strict=True))

    def measures(self, items: list[TrainingItem]) -> dict[str, float]:
        """The share of captions that are right to the word."""
        said = self.describe(items)
        return {"exact": sum(t == i.texts[0] for t, i in zip(said, items, strict=True)) / len(items)}

    def compile_parts(self, mode: str) -> None:
        """Compile the whole model."""
        self.model.compile(mode=mode)

    def save(self, folder: Path) -> None:
        """Write the model with its processor; adapters are merged into it, and beside it in `lora/`."""
        with whole(folder) as partial:
            save_half(merged(self.model) if self.config.lora else self.model, partial)
            self.processor.save_pretrained(partial)
            if self.config.lora:
                save_adapters(self.model, partial / "lora")

    def _normalise(self, images: Tensor) -> Tensor:
        """[-1, 1] -> what the processor makes of such images."""
        processor = self.processor.image_processor
        mean, std = (
            torch.tensor(v, device=images.device)[:, None, None]
            for v in (processor.image_mean, processor.image_std)
        )
        normalised: Tensor = ((images + 1) / 2 - mean) / std
        return normalised

    def _token(self, word: str) -> int:
        ids = self.tokenizer(f" {word}", add_special_tokens=False).input_ids
        if len(ids) != 1:
            raise UsageError(
                f"emphasis and colour_words: {word!r} is {len(ids)} tokens, and only a word of one token can "
                "count more or not at all"
            )
        return int(ids[0])


def _from_base(config: CaptioningTraining) -> tuple[Any, Any]:
    from transformers import AutoProcessor, BlipForConditionalGeneration

    assert config.model.base is not None
    folder = folder_of(config.model.base, "model.base")
    return (
        whole_model(BlipForConditionalGeneration, folder, config.image_size),
        AutoProcessor.from_pretrained(folder),
    )


def _new(config: CaptioningTraining, data: DataSet) -> tuple[Any, Any]:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    tokens = tokenizer_of(config.model.tokenizer, data)
    special = {
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
    }
    # BLIP's own initializer_range is 1e-10.
    seeing: dict[str, Any] = {"initializer_range": 0.02, "hidden_size": 128} | (config.model.vision or {})
    speaking: dict[str, Any] = config.model.text or {}
    torch.manual_seed(config.seed + 2)
    model: Any = BlipForConditionalGeneration(
        BlipConfig(
            vision_config=seeing | {"image_size": config.image_size},
            text_config={
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
                "label_smoothing": 0.0,
                "encoder_hidden_size": seeing["hidden_size"],
                "vocab_size": len(tokens),
                "max_position_embeddings": config.max_tokens,
                "sep_token_id": tokens.eos_token_id,
            }
            | special
            | speaking,
            projection_dim=seeing["hidden_size"],
            image_text_hidden_size=seeing["hidden_size"],
        )
    )
    model.generation_config.update(max_new_tokens=config.max_tokens - 2, **special)
    side = {"height": config.image_size, "width": config.image_size}
    return model, BlipProcessor(
        BlipImageProcessor(size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3), tokens
    )
