"""How well the pocket family draws, tells and matches, by the oracle; no weights but their own are needed.

Scenes of the test split are drawn and read back, their images described and parsed, texts and images
matched, and the loop is run, all through the adapters that an experiment calls.

    python -m panic.train.pocket_scores --n 200 > scores.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from panic.errors import ModelError
from panic.models import registry, weights
from panic.models.protocol import Model
from panic.models.table import TABLE
from panic.pocket.oracle import Score, compare, read, says, to_scene
from panic.pocket.scene import Scene, is_held_out
from panic.pocket.world import Example, describe, examples, parse, shift_background
from panic.train.image_tensors import to_images

SEED = 1000
BATCH = 16
LOOP_PROMPTS = 32
LOOP_ROUNDS = 25  # 50 steps of drawing and telling
MATCHED = 100  # pairs among which the right one is to be found
PAIR = ("PocketDiffusion", "PocketCaptioner")
SHIFT = 1  # of the backgrounds of PocketDiffusion-B, as in its training's config

# What the family is meant to reach: part of the scores, figure, at least.
BARS = (
    ("telling", "exact", 0.95),
    ("telling", "exact, combinations held out", 0.85),
    ("drawing", "all, background", 0.98),
    ("drawing", "1 objects, attributes", 0.95),
    ("drawing", "2 objects, attributes", 0.85),
    ("drawing", "2 objects, relations", 0.85),
    ("matching", "caption of a picture, top 1", 0.90),
    ("matching", "picture of a caption, top 1", 0.90),
    ("loop", "captions that parse", 0.90),
)


def load(folder: Path, name: str) -> Model:
    """A loaded model from a folder of the family: it is whole, or adapters beside the model they are for."""
    place, base = folder / name, name.removesuffix("-B")
    variant = {key: value for key, value in TABLE[name].parameters.items() if value is not None}
    is_whole = weights.index_file(place) is not None
    if variant.pop("lora", None) and not is_whole:
        variant["lora"] = str(place)
    variant["base"] = f"local:{place if is_whole else folder / base}"
    model = registry.build(registry.resolve(name, {name: variant}))
    model.load("cpu")
    return model


class Called(Protocol):
    """What is called: a model, or one on several devices, which then says how many (`num_devices`)."""

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> Sequence[Any]:
        """See `Model.invoke`."""


def call(model: Called, inputs: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
    """A model's outputs of any number of inputs. Raises ModelError for one that cannot be used."""
    parts = [slice(start, start + BATCH) for start in range(0, len(inputs), BATCH)]

    def perform(part: slice) -> Sequence[Any]:
        return model.invoke(list(inputs[part]), list(seeds[part]))

    num_devices = min(getattr(model, "num_devices", 1), len(parts))
    if num_devices > 1:
        with ThreadPoolExecutor(num_devices) as pool:
            done = list(pool.map(perform, parts))
    else:
        done = [perform(part) for part in parts]
    outputs = [output for part in done for output in part]
    for output in outputs:
        if isinstance(output, Exception):
            raise ModelError(str(output)) from output
    return outputs


def draw(model: Called, prompts: Sequence[str], *, seed: int = 0) -> np.ndarray:
    """Draw each prompt with its own seed: (n, 64, 64, 3) uint8."""
    return np.stack([np.asarray(image) for image in call(model, prompts, range(seed, seed + len(prompts)))])


def tell(model: Called, images: np.ndarray) -> list[str]:
    """Describe images (n, 64, 64, 3) uint8."""
    return call(model, [Image.fromarray(image) for image in images], range(len(images)))


def score_drawing(
    model: Called, shown: Sequence[Example], *, seed: int = 0, background_shift: int = 0
) -> dict[str, float]:
    """Rates of what the oracle finds right in drawings of the examples' canonical captions.

    Right is the background that many colours further, for a painter who has learnt that.
    """
    images = draw(model, [describe(example.scene) for example in shown], seed=seed)
    wanted = [shift_background(example.scene, background_shift) for example in shown]
    return _by_count([compare(scene, read(p)) for scene, p in zip(wanted, images, strict=True)], shown)


def score_telling(model: Called, shown: Sequence[Example], *, terse: bool = False) -> dict[str, float]:
    """Rates of captions of rendered images that are true in everything, and of those that parse.

    A terse one tells the largest object alone, and has to tell that one.
    """
    parsed = [parse(text) for text in tell(model, np.stack([example.picture for example in shown]))]

    def is_right(example: Example, scene: Scene | None) -> bool:
        if terse:
            return scene == parse(example.terse)
        return says(example.scene, example.layout, scene)

    right = [is_right(example, scene) for example, scene in zip(shown, parsed, strict=True)]
    unseen = [is_held_out(example.scene) for example in shown]
    return {
        "parse": _mean([scene is not None for scene in parsed]),
        "exact": _mean(right),
        "exact, combinations seen": _mean([r for r, u in zip(right, unseen, strict=True) if not u]),
        "exact, combinations held out": _mean([r for r, u in zip(right, unseen, strict=True) if u]),
        "background": _mean(
            [s is not None and s.colour == e.scene.colour for s, e in zip(parsed, shown, strict=True)]
        ),
    }


def score_loop(painter: Called, teller: Called, prompts: Sequence[str], rounds: int) -> dict[str, float]:
    """What the loop keeps up with fresh noise: rates over the runs, in the last of the rounds.

    Besides, over all rounds, how often the background of a caption is one colour further than the one before.
    """
    texts, moved = list(prompts), []
    for step in range(rounds):
        images = draw(painter, texts, seed=1_000_000 + 10_000 * step)
        before, texts = texts, tell(teller, images)
        both = [(a, b) for a, b in zip(map(parse, before), map(parse, texts), strict=True) if a and b]
        moved += [shift_background(a, 1).colour == b.colour for a, b in both]
    return {
        "captions that parse": _mean([parse(text) is not None for text in texts]),
        "pictures read as scenes": _mean([to_scene(read(image)) is not None for image in images]),
        "background one colour further, each round": _mean(moved),
    }


def score_autoencoder(autoencoder: Any, shown: Sequence[Example]) -> dict[str, float]:
    """What the oracle still finds right in images that went through the latents: the pipeline's ceiling."""
    import torch

    back: list[np.ndarray] = []
    with torch.no_grad():
        for start in range(0, len(shown), BATCH):
            images = torch.from_numpy(np.stack([e.picture for e in shown[start : start + BATCH]]))
            scaled = images.permute(0, 3, 1, 2).float() / 127.5 - 1
            back += to_images(autoencoder.decode(autoencoder.encode(scaled).latents).sample)
    return _by_count([compare(e.scene, read(p)) for e, p in zip(shown, back, strict=True)], shown)


def score_matching(model: Called, shown: Sequence[Example]) -> dict[str, float]:
    """How often an image's own caption is the nearest one of `MATCHED`, and a caption's own image."""
    texts = np.stack(call(model, [describe(example.scene) for example in shown], range(len(shown))))
    seen = np.stack(call(model, [Image.fromarray(e.picture) for e in shown], range(len(shown))))
    by_image: list[bool] = []
    by_caption: list[bool] = []
    for start in range(0, len(shown), MATCHED):
        near = seen[start : start + MATCHED] @ texts[start : start + MATCHED].T
        own = np.arange(len(near))
        by_image += list(near.argmax(1) == own)
        by_caption += list(near.argmax(0) == own)
    return {
        "caption of a picture, top 1": _mean(by_image),
        "picture of a caption, top 1": _mean(by_caption),
    }


def measure(folder: Path, n: int) -> dict[str, Any]:
    """Scores of the family's models that are there on n test scenes; the loop's on `LOOP_PROMPTS` of them."""
    import torch

    shown = examples("test", n, SEED)
    scores: dict[str, Any] = {"scenes": n, "threads": torch.get_num_threads()} | _score_pair(folder, shown)
    scores["autoencoder"] = score_autoencoder(_autoencoder(folder / "PocketDiffusion"), shown)
    if all(_is_there(folder / f"{name}-B") for name in PAIR):
        scores |= _score_pair(folder, shown, "-B", background_shift=SHIFT)
    if _is_there(folder / "PocketCLIP"):
        scores["matching"] = score_matching(load(folder, "PocketCLIP"), shown)
    return scores


def _score_pair(
    folder: Path, shown: Sequence[Example], suffix: str = "", background_shift: int = 0
) -> dict[str, Any]:
    """The scores of a painter and a teller, and of their loop; those of the variants are called by suffix."""
    painter, teller = (load(folder, name + suffix) for name in PAIR)
    drawing, drawing_s = _timed(lambda: score_drawing(painter, shown, background_shift=background_shift))
    telling, telling_s = _timed(lambda: score_telling(teller, shown, terse=suffix == "-B"))
    prompts = [describe(example.scene) for example in shown[:LOOP_PROMPTS]]
    scores = {
        "drawing": drawing,
        "drawing_s_per_picture": drawing_s / len(shown),
        "telling": telling,
        "telling_s_per_picture": telling_s / len(shown),
        "loop": score_loop(painter, teller, prompts, LOOP_ROUNDS),
    }
    return {name + suffix: value for name, value in scores.items()}


def _is_there(folder: Path) -> bool:
    return next(weights.weight_files(folder), None) is not None


def _autoencoder(folder: Path) -> Any:
    from diffusers import AutoencoderTiny

    return AutoencoderTiny.from_pretrained(folder, subfolder="vae")


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
