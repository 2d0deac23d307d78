"""Tiny detectors with random weights, built offline and saved as any other."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.tiny import sharpen


def build_detr(folder: Path, seed: int = 0) -> Path:
    """A DetrForObjectDetection with 20 queries of 32 numbers, of images of 64 to 96 pixels."""
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessorPil, ResNetConfig

    torch.manual_seed(seed)
    backbone = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        out_features=["stage2"],
    )
    config = DetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        num_queries=20,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_labels=5,
    )
    sharpen(DetrForObjectDetection(config), 2.0).save_pretrained(folder)
    DetrImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder


def build_owlv2(folder: Path, seed: int = 0) -> Path:
    """An Owlv2ForObjectDetection with 64 patches and class embeddings of 16 numbers, of 64x64 pixels."""
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessorPil

    torch.manual_seed(seed)
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = {"vocab_size": 300, "hidden_size": 16, "bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 0}
    config = Owlv2Config(
        text_config={**text, **shape},
        vision_config={"hidden_size": 32, "image_size": 64, "patch_size": 8, **shape},
        projection_dim=16,
    )
    sharpen(Owlv2ForObjectDetection(config), 4.0).save_pretrained(folder)
    Owlv2ImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


BUILDERS = {"detr": build_detr, "owlv2": build_owlv2}
