"""Are results independent of batch mates on this GPU? The resume guarantee rests on it.

Random-weight models in standard shapes, one batch shape: bit-equal when the batch is permuted, has other
neighbours, or is padded? And how far apart are different shapes? Eager and compiled, float32, bfloat16
and float16. Needs torch and transformers (a UNet as well if diffusers is there); downloads nothing.

    python benchmarks/gpu/invariance.py --json benchmarks/results/gpu_invariance.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

Batch = torch.Tensor
Call = Callable[[Batch], torch.Tensor]
SIZE = 8


def transformer(dtype: torch.dtype) -> tuple[Call, Batch]:
    """A 12-layer decoder over 64 tokens: the text side."""
    from transformers import GPT2Config, GPT2Model

    model = GPT2Model(GPT2Config(vocab_size=1000)).eval().to("cuda", dtype)
    tokens = torch.randint(0, 1000, (SIZE, 64), device="cuda")
    return lambda batch: model(input_ids=batch).last_hidden_state, tokens


def vision(dtype: torch.dtype) -> tuple[Call, Batch]:
    """A ViT-base over 224 px pictures: the image side."""
    from transformers import ViTConfig, ViTModel

    model = ViTModel(ViTConfig()).eval().to("cuda", dtype)
    return lambda batch: model(pixel_values=batch).last_hidden_state, torch.randn(
        SIZE, 3, 224, 224, device="cuda", dtype=dtype
    )


def unet(dtype: torch.dtype) -> tuple[Call, Batch]:
    """A UNet of Stable Diffusion's layout at 64x64 latents, a quarter of its width."""
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=64, cross_attention_dim=768, block_out_channels=(80, 160, 320, 320), attention_head_dim=8
    )
    model = model.eval().to("cuda", dtype)
    text = torch.randn(1, 77, 768, device="cuda", dtype=dtype)

    def call(batch: Batch) -> torch.Tensor:
        return model(batch, 500, encoder_hidden_states=text.expand(len(batch), -1, -1)).sample

    return call, torch.randn(SIZE, 4, 64, 64, device="cuda", dtype=dtype)


@torch.inference_mode()
def measure(call: Call, batch: Batch, others: Batch) -> dict[str, Any]:
    """Largest differences of the first half of a batch under changes that must not matter."""
    half = SIZE // 2
    reference = call(batch)
    order = torch.randperm(SIZE, device="cuda")
    permuted = call(batch[order])[order.argsort()]
    neighbours = call(torch.cat([batch[:half], others[half:]]))
    padded = call(torch.cat([batch[:half], batch[half - 1 : half].expand(half, *batch.shape[1:])]))
    again = call(batch)
    smaller = call(batch[:half])

    def largest(other: torch.Tensor, rows: int = SIZE) -> float:
        return float((reference[:rows].float() - other[:rows].float()).abs().max())

    return {
        "again": largest(again),
        "permuted": largest(permuted),
        "other_neighbours": largest(neighbours, half),
        "padded": largest(padded, half),
        "half_the_batch": largest(smaller, half),
        "scale": float(reference.float().abs().mean()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the records here")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing was measured", file=sys.stderr)
        return 1
    records = []
    for name, build in {"transformer": transformer, "vision": vision, "unet": unet}.items():
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for compiled in (False, True):
                mode = "compiled" if compiled else "eager"
                torch.manual_seed(0)
                try:
                    call, batch = build(dtype)
                except ImportError as error:
                    print(f"{name}: skipped, {error}", file=sys.stderr)
                    break
                others = torch.roll(batch, 1, 0) if batch.dtype == torch.long else torch.randn_like(batch)
                found = measure(torch.compile(call) if compiled else call, batch, others)
                must_be_zero = [found[key] for key in ("again", "permuted", "other_neighbours", "padded")]
                records.append(
                    {
                        "name": f"gpu.invariance.{name}.{str(dtype)[6:]}.{mode}",
                        "value": max(must_be_zero),
                        "baseline": found["half_the_batch"],
                        "ratio": None,
                        "limit": 0.0,
                        **found,
                        "hardware": {"gpu": torch.cuda.get_device_name(0)},
                        "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
                        "command": " ".join(sys.argv),
                        "date": datetime.now(UTC).isoformat(timespec="seconds"),
                    }
                )
                print(records[-1]["name"], json.dumps(found))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(records, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
