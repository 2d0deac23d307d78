"""Puts trained pocket models into the package, each with a model card that tells its measured scores.

python -m panic.train.pocket_release --trained configs/train/checkpoints --n 1000
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panic.train.pocket_scores import BATCH, SEED, measure

WEIGHTS = Path(__file__).parent.parent / "pocket" / "weights"
BUDGET_BYTES = 16_000_000

CARD = """---
license: mit
tags: [panic, pocket]
---
# {name}

{what} Trained from scratch for the pocket world of coloured shapes (`panic.pocket.world`); licence MIT.

- **Data**: scenes of the training split, rendered on the fly; no scene of the validation or test split, and
  none of the held-out combinations of colour and shape, was ever shown.
- **Training**: {training}
- **Use**: {use}

## Scores on {scenes:,} scenes of the test split, seed {seed}

{scores}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a model card says beside the scores, which are those of some `parts` of them."""

    what: str
    config: str
    use: str
    parts: dict[str, str]


CARDS = {
    "PocketDiffusion": Card(
        what="Text to 64x64 pictures: a UNet on 8x8 latents, a CLIP text encoder, a small autoencoder.",
        config="pocket-autoencoder.yaml, then pocket-diffusion.yaml",
        use="`DiffusionPipeline.from_pretrained(folder)`, 8 steps, guidance 2.5.",
        parts={
            "drawing": "Drawings of canonical captions; attributes are shape and colour of every object.",
            "autoencoder": "Rendered pictures through the autoencoder: the ceiling of the drawings.",
            "loop": "PocketDiffusion and PocketCaptioner in a loop from 32 test captions, fresh noise.",
        },
    ),
    "PocketCaptioner": Card(
        what="64x64 pictures to text: a small BLIP.",
        config="pocket-captioner.yaml",
        use="`AutoModelForImageTextToText` and `AutoProcessor`, greedy or sampled, `max_new_tokens=46`.",
        parts={"telling": "Captions of rendered pictures; exact means that everything told is true."},
    ),
    "PocketCLIP": Card(
        what="Joint embeddings of 64x64 pictures and texts: a small CLIP.",
        config="pocket-clip.yaml",
        use="`CLIPModel` and `AutoProcessor`.",
        parts={"matching": "Among 100 rendered pictures and their canonical captions."},
    ),
}


def card(name: str, scores: dict[str, Any], steps: str) -> str:
    """The text of a model card."""
    told = CARDS[name]
    tables = [f"{text}\n\n{_table(scores[part])}" for part, text in told.parts.items() if part in scores]
    speed = {"PocketDiffusion": "drawing", "PocketCaptioner": "telling"}.get(name)
    if speed:
        tables.append(
            f"{scores[f'{speed}_s_per_picture']:.3f} s per picture in a batch of {BATCH} on 2 CPU cores."
        )
    return CARD.format(
        name=name,
        what=told.what,
        training=f"`panic train` with `configs/train/` {told.config}; {steps}.",
        use=told.use,
        scenes=scores["scenes"],
        seed=SEED,
        scores="\n".join(tables),
    )


def _table(rates: dict[str, float]) -> str:
    rows = "".join(f"| {name} | {100 * rate:.1f} % |\n" for name, rate in rates.items())
    return f"| | right |\n|---|---|\n{rows}"


def copy(trained: Path, weights: Path = WEIGHTS) -> list[str]:
    """Copy the trained models that are there into the package; their names."""
    names = [name for name in CARDS if (trained / name).is_dir()]
    for name in names:
        shutil.rmtree(weights / name, ignore_errors=True)
        shutil.copytree(trained / name, weights / name)
    return names


def size_bytes(weights: Path = WEIGHTS) -> int:
    """The bytes of all weights in the package."""
    return sum(path.stat().st_size for path in weights.rglob("*.safetensors"))


def main() -> None:
    """Copy, measure, write the cards and the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trained", type=Path, help="folder with trained models; without it, those in place")
    parser.add_argument("--n", type=int, default=1000, help="test scenes")
    parser.add_argument("--note", default="", help="put into the cards behind the config, such as the steps")
    given = parser.parse_args()
    if given.trained:
        print("copied", *copy(given.trained))
    scores = measure(WEIGHTS, given.n)
    print(json.dumps(scores, indent=2))
    for name in CARDS:
        if (WEIGHTS / name).is_dir():
            (WEIGHTS / name / "README.md").write_text(card(name, scores, given.note or "as the config says"))
    print(f"{size_bytes():,} of {BUDGET_BYTES:,} bytes")


if __name__ == "__main__":
    main()
