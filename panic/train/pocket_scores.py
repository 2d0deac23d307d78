"""How well the pocket family draws, tells and matches, by the oracle; no weights but their own are needed.

Scenes of the test split are drawn and read back, their pictures described and parsed, texts and pictures
matched, and the loop is run.

    python -m panic.train.pocket_scores --n 200 > scores.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from panic.pocket.oracle import Score, compare, read, says
from panic.pocket.scene import is_held_out
from panic.pocket.tokens import MAX_TOKENS
from panic.pocket.world import Example, describe, examples, parse
from panic.train.grids import to_pictures

SEED = 1000
BATCH = 16
STEPS = 8
GUIDANCE = 2.5
LOOP_ROUNDS = 25  # 50 steps of drawing and telling


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
    return _by_count(scores, shown)


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


def score_loop(pipeline: Any, model: Any, processor: Any, prompts: Sequence[str], rounds: int) -> list[float]:
    """The share of captions that parse after each round of drawing and telling, with fresh noise."""
    texts, rates = list(prompts), []
    for step in range(rounds):
        texts = tell(model, processor, draw(pipeline, texts, seed=1_000_000 + 10_000 * step))
        rates.append(_mean([parse(text) is not None for text in texts]))
    return rates


def score_autoencoder(autoencoder: Any, shown: Sequence[Example]) -> dict[str, float]:
    """What the oracle still finds right in pictures that went through the latents: the pipeline's ceiling."""
    import torch

    back: list[np.ndarray] = []
    with torch.no_grad():
        for start in range(0, len(shown), BATCH):
            pictures = torch.from_numpy(np.stack([e.picture for e in shown[start : start + BATCH]]))
            scaled = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
            back += to_pictures(autoencoder.decode(autoencoder.encode(scaled).latents).sample)
    return _by_count([compare(e.scene, read(p)) for e, p in zip(shown, back, strict=True)], shown)


def score_matching(model: Any, processor: Any, shown: Sequence[Example]) -> dict[str, float]:
    """How often a picture's own caption is the nearest one of all, and a caption's own picture."""
    import torch

    texts = [describe(example.scene) for example in shown]
    with torch.no_grad():
        inputs = processor(
            text=texts, images=[e.picture for e in shown], return_tensors="pt", padding=True, truncation=True
        )
        output = model(**inputs)
    near = (output.image_embeds @ output.text_embeds.T).numpy()
    own = np.arange(len(shown))
    return {
        "caption of a picture, top 1": _mean(list(near.argmax(1) == own)),
        "picture of a caption, top 1": _mean(list(near.argmax(0) == own)),
    }


def load(folder: Path) -> tuple[Any, Any, Any]:
    """The pair from its folders: pipeline, captioner, processor."""
    from diffusers import DiffusionPipeline
    from transformers import AutoModelForImageTextToText, AutoProcessor

    pipeline = DiffusionPipeline.from_pretrained(folder / "PocketDiffusion")
    pipeline.set_progress_bar_config(disable=True)
    model = AutoModelForImageTextToText.from_pretrained(folder / "PocketCaptioner").eval()
    return pipeline, model, AutoProcessor.from_pretrained(folder / "PocketCaptioner")


def load_clip(folder: Path) -> tuple[Any, Any]:
    """The joint model and its processor."""
    from transformers import AutoProcessor, CLIPModel

    clip = folder / "PocketCLIP"
    return CLIPModel.from_pretrained(clip).eval(), AutoProcessor.from_pretrained(clip)


def measure(folder: Path, n: int) -> dict[str, Any]:
    """All scores of the family on n test scenes; matching on 100 of them, the loop on 32."""
    pipeline, model, processor = load(folder)
    shown = examples("test", n, SEED)
    drawing, drawing_s = _timed(lambda: score_drawing(pipeline, shown))
    telling, telling_s = _timed(lambda: score_telling(model, processor, shown))
    rounds = score_loop(pipeline, model, processor, [describe(e.scene) for e in shown[:32]], LOOP_ROUNDS)
    scores: dict[str, Any] = {
        "scenes": n,
        "steps": STEPS,
        "guidance": GUIDANCE,
        "autoencoder": score_autoencoder(pipeline.vae, shown),
        "drawing": drawing,
        "drawing_s_per_picture": drawing_s / n,
        "telling": telling,
        "telling_s_per_picture": telling_s / n,
        "loop": {f"captions that parse after {len(rounds)} rounds": rounds[-1]},
    }
    if (folder / "PocketCLIP").is_dir():
        scores["matching"] = score_matching(*load_clip(folder), shown[:100])
    return scores


def _timed(work: Callable[[], dict[str, float]]) -> tuple[dict[str, float], float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def _by_count(scores: Sequence[Score], shown: Sequence[Example]) -> dict[str, float]:
    """Rates over all scenes, and over those with one, two and three objects."""
    rates = {f"all, {name}": rate for name, rate in _rates(scores)}
    for count in (1, 2, 3):
        these = [s for s, e in zip(scores, shown, strict=True) if len(e.scene.objects) == count]
        rates |= {f"{count} objects, {name}": rate for name, rate in _rates(these)}
    return rates


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
    given = parser.parse_args()
    print(json.dumps(measure(given.folder, given.n), indent=2))


if __name__ == "__main__":
    main()
