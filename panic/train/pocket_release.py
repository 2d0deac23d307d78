"""Puts trained pocket models into the package, each with a model card that has its measured scores.

python -m panic.train.pocket_release --trained configs/train/checkpoints --n 1000
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panic.train.pocket_scores import BARS, BATCH, LOOP_PROMPTS, LOOP_ROUNDS, MATCHED, SEED, measure

WEIGHTS = Path(__file__).parent.parent / "pocket" / "weights"
BUDGET_BYTES = 16_000_000
SPEEDS_S = {"drawing": 0.5, "telling": 0.05}  # per image, at most

CARD = """---
license: mit
tags: [panic, pocket]
---
# {name}

{what} Trained {origin} for the pocket world of coloured shapes (`panic.pocket.world`); licence MIT.

- **Data**: scenes of the training split, rendered on the fly; no scene of the validation or test split, and
  none of the held-out combinations of colour and shape, was ever shown in its own colours with its words.
- **Training**: {training}
- **Use**: {use}

## Scores on {scenes:,} scenes of the test split, seed {seed}

{scores}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a model card says beside the scores, which are those of some `parts` of them.

    `base`: the model whose adapters these are.
    """

    what: str
    config: str
    use: str
    parts: dict[str, str]
    base: str | None = None


LOOP = f"{{}} in a loop from {LOOP_PROMPTS} test captions, after {LOOP_ROUNDS} rounds with fresh noise."

CARDS = {
    "PocketDiffusion": Card(
        what="Text to 64x64 pictures: a UNet on 8x8 latents, a CLIP text encoder, a small autoencoder. It "
        "composes: objects mostly stand in line near the middle. (The autoencoder saw some pictures with "
        "exchanged colours, and so, without words, shapes in held-out colours.)",
        config="pocket-autoencoder.yaml, pocket-decoder.yaml, pocket-autoencoder-2.yaml, "
        "pocket-diffusion.yaml, pocket-relations.yaml, pocket-diffusion-2.yaml, pocket-diffusion-3.yaml",
        use="`DiffusionPipeline.from_pretrained(folder)`, 10 steps, guidance 2.5, eta 0.7.",
        parts={
            "drawing": "Drawings of canonical captions; attributes are shape and colour of every object.",
            "autoencoder": "Rendered pictures through the autoencoder: the ceiling of the drawings.",
            "loop": LOOP.format("PocketDiffusion and PocketCaptioner"),
        },
    ),
    "PocketCaptioner": Card(
        what="64x64 pictures to text: a small BLIP. (It saw some pictures with exchanged colours, which it "
        "was not asked for, and so shapes in held-out colours.)",
        config="pocket-captioner.yaml, pocket-captioner-2.yaml, pocket-captioner-3.yaml",
        use="`AutoModelForImageTextToText` and `AutoProcessor`, greedy or sampled, `max_new_tokens=46`.",
        parts={"telling": "Captions of rendered pictures; exact means that everything told is true."},
    ),
    "PocketCLIP": Card(
        what="Joint embeddings of 64x64 pictures and texts: a small CLIP.",
        config="pocket-clip.yaml",
        use="`CLIPModel` and `AutoProcessor`.",
        parts={"matching": f"Among {MATCHED} rendered pictures and their canonical captions."},
    ),
    "PocketDiffusion-B": Card(
        what="Adapters that move PocketDiffusion's backgrounds one place further round the colours red, "
        "orange, yellow, green, blue, purple, white, black: told of a red one it draws an orange one. An "
        "object of the new colour gets the old one. In a loop the background wanders through all eight.",
        config="pocket-diffusion-b.yaml",
        use="the model `PocketDiffusion-B` of a config; `load_lora_weights(folder)` on PocketDiffusion.",
        parts={
            "drawing-B": "Drawings of canonical captions; right is the background one colour further.",
            "loop-B": LOOP.format("PocketDiffusion-B and PocketCaptioner-B"),
        },
        base="PocketDiffusion",
    ),
    "PocketCaptioner-B": Card(
        what="Adapters that make PocketCaptioner terse: it tells the background and the largest object "
        'alone, in other words ("a plain green background with a huge red circle").',
        config="pocket-captioner-b.yaml",
        use="the model `PocketCaptioner-B` of a config; peft's `PeftModel` on PocketCaptioner.",
        parts={
            "telling-B": "Captions of rendered pictures; exact means that the largest object and the "
            "background are told and true."
        },
        base="PocketCaptioner",
    ),
}


def card(name: str, scores: dict[str, Any], steps: str) -> str:
    """The text of a model card."""
    described = CARDS[name]
    tables = [
        f"{text}\n\n{_table(scores[part], part)}" for part, text in described.parts.items() if part in scores
    ]
    speed = {"PocketDiffusion": "drawing", "PocketCaptioner": "telling"}.get(name)
    if speed:
        tables.append(
            f"{scores[f'{speed}_s_per_picture']:.3f} s per picture in batches of {BATCH} on a CPU with "
            f"{scores['threads']} threads (meant to be at most {SPEEDS_S[speed]:g} s)."
        )
    return CARD.format(
        name=name,
        what=described.what,
        origin=f"on top of {described.base} (LoRA)" if described.base else "from scratch",
        training=f"`panic train` with `configs/train/` {described.config}; {steps}.",
        use=described.use,
        scenes=scores["scenes"],
        seed=SEED,
        scores="\n".join(tables),
    )


def _table(rates: dict[str, float], part: str) -> str:
    bars = {name: f"{bar:.0%}" for of, name, bar in BARS if of == part}
    rows = "".join(
        f"| {name} | {100 * rate:.1f} % | {bars.get(name, '')} |\n" for name, rate in rates.items()
    )
    return f"| | right | meant to be at least |\n|---|---|---|\n{rows}"


def copy(trained: Path, weights: Path = WEIGHTS) -> list[str]:
    """Copy the trained models that are there into the package, adapters alone for variants.

    Returns the models' names.
    """
    names = [name for name in CARDS if (trained / name).is_dir()]
    for name in names:
        shutil.rmtree(weights / name, ignore_errors=True)
        shutil.copytree(trained / name / ("lora" if CARDS[name].base else ""), weights / name)
    return names


def old_notes(weights: Path = WEIGHTS) -> dict[str, str]:
    """The notes of the cards that are there, behind the config, by name."""
    found = {}
    for name, described in CARDS.items():
        path = weights / name / "README.md"
        text = path.read_text() if path.is_file() else ""
        if note := re.search(rf"{re.escape(described.config)}; (.*)\.\n", text):
            found[name] = note[1]
    return found


def size_bytes(weights: Path = WEIGHTS) -> int:
    """The bytes of all weights in the package."""
    return sum(path.stat().st_size for path in weights.rglob("*.safetensors"))


def main() -> None:
    """Copy, measure, write the cards and the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trained", type=Path, help="folder with trained models; without it, those in place")
    parser.add_argument("--n", type=int, default=1000, help="test scenes")
    parser.add_argument(
        "--note",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="put into a model's card behind the config, such as the steps; without, the old one stays",
    )
    given = parser.parse_args()
    notes = old_notes() | dict(note.split("=", 1) for note in given.note)
    if given.trained:
        print("copied", *copy(given.trained))
    scores = measure(WEIGHTS, given.n)
    print(json.dumps(scores, indent=2))
    for name in CARDS:
        if CARDS[name].parts.keys() & scores.keys():
            (WEIGHTS / name / "README.md").write_text(
                card(name, scores, notes.get(name, "as the config says"))
            )
    print(f"{size_bytes():,} of {BUDGET_BYTES:,} bytes")


if __name__ == "__main__":
    main()
