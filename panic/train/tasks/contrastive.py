"""Joint text and image embeddings: CLIP (Radford et al. 2021), cross-entropy of a batch's pairs, both ways.

The negatives of an item are all other items of the batch, those of other processes among them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_gather
from torch.nn import functional

from panic.errors import UsageError
from panic.train.adapters import add_lora, merged, save_adapters
from panic.train.bases import folder_of, tokenizer_of, whole_model
from panic.train.batches import Batch
from panic.train.config import ContrastiveTraining
from panic.train.data import DataSet, TrainingItem
from panic.train.image_tensors import spoil
from panic.train.saving import save_half, whole

# CLIP of transformers reads a text's vector at its end token, but where that is number 2, at the token with
# the highest number (an old bug kept alive): the words behind that one would not count.
LEGACY_END = 2


class Contrastive(nn.Module):
    """Losses: mean cross-entropy of finding each image's text and each text's image."""

    def __init__(self, config: ContrastiveTraining, data: DataSet) -> None:
        super().__init__()
        self.config, self.data = config, data
        self.model, self.processor = _from_base(config) if config.model.base else _new(config, data)
        if config.lora:
            add_lora(self.model, config.lora, config.seed)

    def forward(self, batch: Batch) -> Tensor:
        """The losses of the items: (n,)."""
        images = spoil(batch.images(), self.config.spoil, batch)
        seen, read = self.embed(images, batch.texts())
        all_seen, all_read, first = seen, read, 0
        if self.training and distributed.is_initialized():
            all_seen, all_read = (torch.cat(all_gather(v)) for v in (seen, read))  # type: ignore[no-untyped-call]
            first = distributed.get_rank() * len(seen)
        scale = self.model.logit_scale.clamp(max=4.6052).exp()  # at most 100, as in the paper
        right = first + torch.arange(len(seen), device=seen.device)
        by_image = functional.cross_entropy(scale * seen @ all_read.T, right, reduction="none")
        by_text = functional.cross_entropy(scale * read @ all_seen.T, right, reduction="none")
        losses: Tensor = (by_image + by_text) / 2
        return losses

    def embed(self, images: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Unit vectors of images (n, 3, h, w) in [-1, 1] and of texts: (n, d), (n, d)."""
        device = self.model.device
        processor = self.processor.image_processor
        mean, std = (torch.tensor(v)[:, None, None] for v in (processor.image_mean, processor.image_std))
        tokens = self.processor.tokenizer(
            texts, padding=True, max_length=self.config.max_tokens, truncation=True, return_tensors="pt"
        ).to(device)
        output = self.model(
            pixel_values=(((images + 1) / 2 - mean) / std).to(device),
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
        )
        return output.image_embeds.float(), output.text_embeds.float()

    def samples(self, items: list[TrainingItem], first: int = 0) -> Any:
        """Make nothing: there is nothing to look at."""
        return None

    @torch.no_grad()
    def measures(self, items: list[TrainingItem]) -> dict[str, float]:
        """How often the right one of the items is found, by image and by text."""
        batch = Batch(items, range(len(items)), len(items), 0, 0)
        seen, read = self.embed(batch.images(), batch.canonical())
        right, found = torch.arange(len(items), device=seen.device), seen @ read.T
        return {
            "text of picture": (found.argmax(1) == right).float().mean().item(),
            "picture of text": (found.argmax(0) == right).float().mean().item(),
        }

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


def _from_base(config: ContrastiveTraining) -> tuple[Any, Any]:
    from transformers import AutoProcessor, CLIPModel

    assert config.model.base is not None
    folder = folder_of(config.model.base, "model.base")
    return whole_model(CLIPModel, folder, config.image_size), AutoProcessor.from_pretrained(folder)


def _new(config: ContrastiveTraining, data: DataSet) -> tuple[Any, Any]:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    tokens = tokenizer_of(config.model.tokenizer, data)
    if tokens.eos_token_id == LEGACY_END:
        raise UsageError(
            f"model.tokenizer: its end of a text is token {LEGACY_END}, with which CLIP takes the token of "
            "the highest number for the end",
            hint="Leave out model.tokenizer to learn one on the captions.",
        )
    text = {
        "vocab_size": len(tokens),
        "max_position_embeddings": config.max_tokens,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
    }
    torch.manual_seed(config.seed + 4)
    model = CLIPModel(
        CLIPConfig(
            vision_config={"image_size": config.image_size} | (config.model.vision or {}),
            text_config=text | (config.model.text or {}),
            projection_dim=config.model.projection,
        )
    )
    side = {"height": config.image_size, "width": config.image_size}
    images = CLIPImageProcessor(size=side, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return model, CLIPProcessor(images, tokens)
