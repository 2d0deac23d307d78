"""The pocket models: tiny, really trained models in the standard classes, and the world they know.

The weights are folders inside the package: `PocketDiffusion` loads with `diffusers.DiffusionPipeline`,
`PocketCaptioner` with transformers' `AutoModelForImageTextToText` and `AutoProcessor`, `PocketCLIP` with its
`CLIPModel`. Those of the variants, `-B`, are adapters (LoRA) on the first two.

    python -c "from panic.pocket import NAMES, folder; print(*map(folder, NAMES), sep='\\n')"
"""

from __future__ import annotations

from pathlib import Path

NAMES = ("PocketDiffusion", "PocketCaptioner", "PocketCLIP", "PocketDiffusion-B", "PocketCaptioner-B")


def folder(name: str) -> Path:
    """The folder with a pocket model's weights."""
    if name not in NAMES:
        raise KeyError(name)
    return Path(__file__).parent / "weights" / name
