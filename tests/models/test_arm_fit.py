"""Whether interventions fit: the config's line, what is there, what would fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from panic.engine.plan import load_config
from panic.errors import ConfigError

CONFIG = """name: demo
networks: [[draw, tell]]
models:
  draw: {base: synthetic/text-to-image}
  tell: {base: synthetic/image-to-text}
  other: {base: synthetic/text-to-image, states: 3}
prompts: [state 0]
seeds: [-1]
max_length: 100
arms:
  one:
"""


def load_arm(folder: Path, arm: str, **changes: str) -> None:
    file = folder / "c.yaml"
    file.write_text(CONFIG + f"    - {arm}\n")
    load_config(file, [f"{key}={value}" for key, value in changes.items()])


@pytest.mark.parametrize(
    "arm",
    [
        "{at: 20, model: shuffle-words}",
        "{at: 0, text: a lighthouse}",
        "{at: 21, noise: 0.05}",
        "{at: 11, every: 10, noise: 0.05}",
        "{every: 10, model: upper-case}",
        "{at: 30, network: [other, tell]}",
        "{at: 31, network: [tell, other]}",
        "{at: 30, network: [upper-case, draw, tell]}\n    - {at: 31, text: a lighthouse}",
    ],
)
def test_what_fits_is_accepted(tmp_path: Path, arm: str) -> None:
    load_arm(tmp_path, arm)


@pytest.mark.parametrize(
    ("arm", "told"),
    [
        ("{at: 20, noise: 0.05}", "there is a text, and noise is added to an image|at: 21 would fit"),
        ("{every: 10, noise: 0.05}", "before step 10 of draw → tell|at: 11, every: 10 would fit"),
        ("{every: 7, noise: 0.05}", "before step 14 of draw → tell there is a text"),
        ("{at: 21, text: a lighthouse}", "there is an image, and a text replaces a text|at: 22 would fit"),
        ("{at: 21, model: upper-case}", "there is an image, and upper-case takes a text"),
        ("{at: 20, model: other}", "an image comes of it, and step 20 is draw, which takes a text"),
        ("{at: 31, network: [other, tell]}", "there is an image, and other takes a text"),
        ("{at: 30, network: [other, tell, other]}", "the last model is followed by the first"),
        ("{at: 20, model: shufle-words}", "there is no model shufle-words|did you mean 'shuffle-words'"),
        ("{at: 20, model: synthetic/state-embedding}", "is an embedding model; a generative one can step in"),
        (
            "{at: 20, model: truncate}\n    - {at: 20, noise: 0.1}",
            "before step 20 of draw → tell there is a text",
        ),
        (
            "{at: 30, network: [upper-case, draw, tell]}\n    - {at: 32, text: x}",
            "before step 32 of draw → tell",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_its_line(tmp_path: Path, arm: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_arm(tmp_path, arm)
    message = str(caught.value)
    assert "mistakes" not in message, "one mistake is told once"
    line = 11 + len(arm.split("\n"))
    assert f"c.yaml:{line}:" in message
    for part in told.split("|"):
        assert part in message


def test_prompts_that_are_images_decide_what_fits_before_the_first_step(tmp_path: Path) -> None:
    image = f"image:{'0' * 64}"
    load_arm(tmp_path, "{at: 0, noise: 0.1}", prompts=f'["{image}"]', networks="[[tell, draw]]")
    with pytest.raises(ConfigError, match="before step 0 of draw → tell there is a text"):
        load_arm(tmp_path, "{at: 0, noise: 0.1}")


def test_another_network_that_fits_nowhere_is_not_told_to_fit_after_itself(tmp_path: Path) -> None:
    image = f"image:{'0' * 64}"
    with pytest.raises(ConfigError, match="upper-case takes a text") as caught:
        load_arm(
            tmp_path, "{at: 2, network: [upper-case]}", prompts=f'["{image}"]', networks="[[jpeg, blur]]"
        )
    assert "would fit" not in str(caught.value)
