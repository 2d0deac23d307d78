"""Controls: known changes, the item's seed alone, networks of texts alone from the command line."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from panic import run
from panic.config import ExperimentConfig
from panic.models import registry
from panic.models.controls import CONTROLS
from panic.store import Store, reading

TEXT = "the quick brown fox jumps over the lazy dog again and again"
RANDOM = {"shuffle-words", "drop-words", "noise"}


def changed(name: str, item: Any, seed: int = 1, **parameters: Any) -> Any:
    spec = registry.resolve("it", {"it": {"base": name, **parameters}})
    (output,) = registry.build(spec).invoke([item], [seed])
    return output


def image_of(width: int = 40, height: int = 30) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_texts_change_as_their_names_say() -> None:
    shuffled = changed("shuffle-words", TEXT)
    assert shuffled != TEXT
    assert Counter(shuffled.split()) == Counter(TEXT.split())
    assert changed("upper-case", TEXT) == TEXT.upper()
    assert changed("truncate", TEXT, words=3) == "the quick brown"
    assert changed("truncate", "a  b") == "a b"


def test_words_are_dropped_at_the_rate_that_is_asked_for_and_one_stays() -> None:
    text = " ".join(f"w{i}" for i in range(5000))
    left = changed("drop-words", text, share=0.3).split()
    assert abs(len(left) / 5000 - 0.7) < 0.03
    assert left == sorted(left, key=lambda word: int(word[1:])), "the order stays"
    assert changed("drop-words", TEXT, share=0.0) == TEXT
    assert [len(changed("drop-words", TEXT, seed, share=1.0).split()) for seed in range(5)] == [1] * 5


def test_images_change_as_their_names_say() -> None:
    image = image_of()
    file = io.BytesIO()
    image.save(file, "JPEG", quality=20)
    assert changed("jpeg", image, quality=20).tobytes() == Image.open(file).tobytes()
    assert changed("blur", image, radius=2.0).tobytes() == image.filter(ImageFilter.GaussianBlur(2)).tobytes()
    assert changed("blur", image, radius=0).tobytes() == image.tobytes()
    small = changed("resize", image, scale=0.1)
    assert small.size == image.size
    assert np.asarray(small).std() < np.asarray(image).std() / 2, "what is finer than the small size is gone"
    assert changed("resize", Image.new("RGB", (1, 3)), scale=0.1).size == (1, 3)


def test_noise_has_its_deviation_and_is_clipped() -> None:
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    difference = np.asarray(changed("noise", grey, deviation=0.05)).astype(float) - 128
    assert abs(difference.std() - 0.05 * 255) < 0.1
    assert abs(difference.mean()) < 0.2
    white = np.asarray(changed("noise", Image.new("RGB", (50, 50), "white"), deviation=0.2))
    assert white.max() == 255
    assert white.min() > 0, "values do not wrap around"
    assert changed("noise", grey, deviation=0).tobytes() == grey.tobytes()


@pytest.mark.parametrize("name", CONTROLS)
def test_only_the_items_own_seed_counts(name: str) -> None:
    model = registry.build(registry.resolve(name))
    item: Any = TEXT if model.modality_in == "text" else image_of()
    other: Any = "another text" if model.modality_in == "text" else image_of(7, 9)
    content = [out if isinstance(out, str) else out.tobytes() for out in model.invoke([item] * 3, [5, 6, 5])]
    assert content[0] == content[2]
    assert (content[0] != content[1]) == (name in RANDOM)
    beside = model.invoke([other, item], [9, 5])[1]
    assert (beside if isinstance(beside, str) else beside.tobytes()) == content[0]


def test_controls_need_no_torch() -> None:
    code = (
        "import sys\nfrom panic.models import registry\nfrom panic.models.controls import CONTROLS\n"
        "for name in CONTROLS: registry.fingerprint(registry.resolve(name))\n"
        "registry.build(registry.resolve('drop-words')).invoke(['a b'], [1])\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_users_class_cannot_take_the_name_of_a_control(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class blur:\n    modality_in = modality_out = 'text'\n    size_bytes = 0\n"
        "    def load(self, device): pass\n    def invoke(self, inputs, seeds): return inputs\n"
    )
    (problem,) = registry.check_config({"networks": [["blur"]], "model_folder": str(tmp_path)})
    assert "the name blur is taken" in problem.message


def test_a_variant_may_be_called_like_its_control() -> None:
    spec = registry.resolve("jpeg", {"jpeg": {"base": "jpeg", "quality": 7}})
    assert dict(spec.parameters) == {"quality": 7}
    (problem,) = registry.check_config({"models": {"jpeg": {"base": "jpeg", "quality": 0}}})
    assert problem.message == "quality should be at least 1"


def test_a_shuffle_with_a_fixed_seed_comes_back_after_the_order_of_its_permutation(tmp_path: Path) -> None:
    """Words a to e: the seed's permutation is repeated, so its order is the period."""
    words = ["a", "b", "c", "d", "e"]
    permutation = np.random.default_rng(3).permutation(5)
    state, order = list(permutation), 1
    while state != list(range(5)):
        state, order = [state[i] for i in permutation], order + 1
    values = {"name": "x", "networks": [["shuffle-words"]], "prompts": [" ".join(words)], "seeds": [3]}
    run(ExperimentConfig(**values, max_length=100, device="cpu"), tmp_path / "store")
    with Store(tmp_path / "store") as store:
        (one,) = reading.runs(store, 1)
        assert (one.entry_step, one.period, one.num_steps) == (0, order, order)
