"""How well the pocket pair draws and tells, by the oracle; no weights but their own are needed.

Scenes of the test split are drawn and read back, pictures of it described and parsed, and the loop is run.

    python -m panic.train.pocket_scores --n 200 --write
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from panic.pocket.oracle import Score, compare, read, says
from panic.pocket.scene import is_held_out
from panic.pocket.tokens import MAX_TOKENS
from panic.pocket.world import Example, describe, examples, parse

SEED = 1000
BATCH = 16
STEPS = 8
GUIDANCE = 2.5


def draw(
    pipeline: Any, prompts: Sequence[str], *, seed: int = 0, steps: int = STEPS, guidance: float = GUIDANCE
) -> np.ndarray:
    """Draw each prompt with its own seed: (n, 64, 64, 3) uint8."""
    import torch

    pictures: list[np.ndarray] = []
    for start in range(0, len(prompts), BATCH):
        texts = list(prompts[start : start + BATCH])
        output = pipeline(
            texts,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(seed + start + i) for i in range(len(texts))],
        )
        pictures += [np.asarray(image) for image in output.images]
    return np.stack(pictures)


def tell(model: Any, processor: Any, pictures: np.ndarray) -> list[str]:
    """Describe pictures (n, 64, 64, 3) uint8 greedily."""
    texts: list[str] = []
    for start in range(0, len(pictures), BATCH):
        inputs = processor(images=list(pictures[start : start + BATCH]), return_tensors="pt")
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_TOKENS - 2)
        texts += [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]
    return texts


def score_drawing(pipeline: Any, shown: Sequence[Example], **how: Any) -> dict[str, float]:
    """Rates of what the oracle finds right in drawings of the examples' canonical captions."""
    pictures = draw(pipeline, [describe(example.scene) for example in shown], **how)
    scores = [compare(example.scene, read(picture)) for example, picture in zip(shown, pictures, strict=True)]
    rates = {f"all, {name}": rate for name, rate in _rates(scores)}
    for count in (1, 2, 3):
        these = [s for s, e in zip(scores, shown, strict=True) if len(e.scene.objects) == count]
        rates |= {f"{count} objects, {name}": rate for name, rate in _rates(these)}
    return rates


def score_telling(model: Any, processor: Any, shown: Sequence[Example]) -> dict[str, float]:
    """Rates of captions of rendered pictures that are true in everything, and of those that parse."""
    texts = tell(model, processor, np.stack([example.picture for example in shown]))
    told = [parse(text) for text in texts]
    right = [says(example.scene, example.layout, scene) for example, scene in zip(shown, told, strict=True)]
    unseen = [is_held_out(example.scene) for example in shown]
    return {
        "parse": _mean([scene is not None for scene in told]),
        "exact": _mean(right),
        "exact, combinations seen": _mean([r for r, u in zip(right, unseen, strict=True) if not u]),
        "exact, combinations held out": _mean([r for r, u in zip(right, unseen, strict=True) if u]),
        "background": _mean(
            [s is not None and s.colour == e.scene.colour for s, e in zip(told, shown, strict=True)]
        ),
    }


def score_loop(pipeline: Any, model: Any, processor: Any, prompts: Sequence[str], steps: int) -> list[float]:
    """The share of captions that parse after each round of drawing and telling, with fresh noise."""
    texts, rates = list(prompts), []
    for step in range(steps):
        texts = tell(model, processor, draw(pipeline, texts, seed=1_000_000 + 10_000 * step))
        rates.append(_mean([parse(text) is not None for text in texts]))
    return rates


def load(folder: Path) -> tuple[Any, Any, Any]:
    """The pair from its folders: pipeline, captioner, processor."""
    from diffusers import DiffusionPipeline
    from transformers import AutoModelForImageTextToText, AutoProcessor

    pipeline = DiffusionPipeline.from_pretrained(folder / "PocketDiffusion")
    pipeline.set_progress_bar_config(disable=True)
    model = AutoModelForImageTextToText.from_pretrained(folder / "PocketCaptioner").eval()
    return pipeline, model, AutoProcessor.from_pretrained(folder / "PocketCaptioner")


def measure(folder: Path, n: int) -> dict[str, Any]:
    """All scores of a pair on n test scenes."""
    pipeline, model, processor = load(folder)
    shown = examples("test", n, SEED)
    started = time.perf_counter()
    drawing = score_drawing(pipeline, shown)
    middle = time.perf_counter()
    telling = score_telling(model, processor, shown)
    return {
        "scenes": n,
        "steps": STEPS,
        "guidance": GUIDANCE,
        "drawing": drawing,
        "drawing, seconds per image": (middle - started) / n,
        "telling": telling,
        "telling, seconds per image": (time.perf_counter() - middle) / n,
        "loop of 10 rounds, captions that parse": score_loop(
            pipeline, model, processor, [describe(e.scene) for e in shown[:32]], 10
        ),
    }


def write_cards(folder: Path, scores: dict[str, Any]) -> None:
    """Put the scores into the model cards, in place of older ones."""
    drawing = _table(scores["drawing"]) + (
        f"\n{scores['steps']} steps, guidance {scores['guidance']}; read by the oracle; attributes "
        f"are shape and colour of every object. {scores['drawing, seconds per image']:.2f} s each in a "
        "batch of 16.\n"
    )
    telling = _table(scores["telling"]) + (
        "\nCaptions of rendered pictures; exact means all attributes and relations true. "
        f"{scores['telling, seconds per image']:.3f} s per picture in a batch of 16.\n"
    )
    for name, text in (("PocketDiffusion", drawing), ("PocketCaptioner", telling)):
        card = folder / name / "README.md"
        before = card.read_text().split("\n## Scores")[0].rstrip()
        title = f"## Scores on {scores['scenes']} scenes of the test split, seed {SEED}"
        card.write_text(f"{before}\n\n{title}\n\n{text}")


def _table(rates: dict[str, float]) -> str:
    rows = "".join(f"| {name} | {100 * rate:.1f} % |\n" for name, rate in rates.items())
    return f"| | right |\n|---|---|\n{rows}"


def _rates(scores: Sequence[Score]) -> Iterator[tuple[str, float]]:
    for name in ("background", "pattern", "count", "attributes", "sizes", "relations", "exact"):
        yield name, _mean([getattr(score, name) for score in scores])


def _mean(flags: Sequence[bool]) -> float:
    return round(sum(flags) / max(1, len(flags)), 3)


def main() -> None:
    """Parse the command line and print the scores as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("panic/pocket/weights"))
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="put the scores into the model cards")
    given = parser.parse_args()
    scores = measure(given.folder, given.n)
    print(json.dumps(scores, indent=2))
    if given.write:
        write_cards(given.folder, scores)


if __name__ == "__main__":
    main()
