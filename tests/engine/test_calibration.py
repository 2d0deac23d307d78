"""Batch sizes that are tried out before an experiment's first item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from panic import run
from panic.config import ExperimentConfig
from panic.engine.preview import preview
from panic.errors import ModelDoesNotFit
from panic.store import Store, reading
from tests.engine.conftest import dump, make_config

MODELS = '''
import json
from pathlib import Path

from panic.models.synthetic import ImageToText, TextToImage


class Draw(TextToImage):
    PARAMETERS = {}
    size_bytes = 40
    batch_size = 4

    def __init__(self):
        super().__init__(size=24)

    def working_bytes(self, batch_size):
        return 10 * batch_size


class Chain(ImageToText):
    """Tells in a file what it was called with."""

    PARAMETERS = {}
    size_bytes = 60
    batch_size = 16

    def __init__(self, file, item_bytes=100, is_strict=False):
        super().__init__(kernel="cycle")
        self.file, self.item_bytes, self.is_strict = Path(file), item_bytes, is_strict

    def working_bytes(self, batch_size):
        return self.item_bytes * batch_size

    def invoke(self, inputs, seeds):
        with self.file.open("a") as out:
            out.write(json.dumps([len(inputs), inputs[0].size]) + "\\n")
        if self.is_strict and len({item.tobytes() for item in inputs}) == 1:
            raise ValueError("all pictures are the same")
        return super().invoke(inputs, seeds)
'''


def config_with(folder: Path, device: str = "sim:1000", **parameters: Any) -> ExperimentConfig:
    (folder / "models.py").write_text(MODELS)
    return make_config(
        models={
            "draw": {"base": f"python:{folder}/models.py:Draw"},
            "chain": {
                "base": f"python:{folder}/models.py:Chain",
                "file": str(folder / "calls"),
                **parameters,
            },
        },
        prompts=["state 0", "state 1"],
        seeds=[-1],
        repeats=8,
        max_length=4,
        batch_sizes={},
        device=device,
        headroom=0,
    )


def batch_sizes(path: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    with Store(path) as store:
        for epoch in reading.epochs(store, "test"):
            found.setdefault(epoch.name, []).append(epoch.batch_size)
    return found


def calls(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def test_the_largest_batch_that_fits_is_pinned_before_the_first_item(tmp_path: Path) -> None:
    """16 items of 100 bytes beside 60 of weights do not fit in 1000 bytes; 8 do."""
    config = config_with(tmp_path)
    before = preview(config, tmp_path / "s")
    assert {m.name: (m.batch_size, m.shape_from) for m in before.models} == {
        "draw": (4, "trial"),
        "chain": (16, "trial"),
    }
    run(config, tmp_path / "s")
    assert batch_sizes(tmp_path / "s") == {"draw": [4], "chain": [8]}
    assert calls(tmp_path)[0] == [8, [24, 24]], "the dummy is a picture that was drawn"
    number = len(calls(tmp_path))
    after = preview(config, tmp_path / "s")
    assert {m.name: (m.batch_size, m.shape_from) for m in after.models} == {
        "draw": (4, "experiment"),
        "chain": (8, "experiment"),
    }
    longer = config.model_copy(update={"max_length": 6})
    run(longer, tmp_path / "s")
    assert len(calls(tmp_path)) == number + 2, "what is pinned is not tried out again"

    said = config.model_copy(update={"batch_sizes": {"draw": 4, "chain": 8}, "max_length": 6})
    assert {m.shape_from for m in preview(said, tmp_path / "other").models} == {"config"}
    (tmp_path / "calls").unlink()
    run(said, tmp_path / "other")
    assert len(calls(tmp_path)) == 3 + 6, "what the config says is not tried out, but proven in three calls"
    assert dump(tmp_path / "other") == dump(tmp_path / "s")


def test_a_model_that_refuses_the_dummy_keeps_its_batch_size(tmp_path: Path) -> None:
    config = config_with(tmp_path, is_strict=True, item_bytes=1)
    assert run(config, tmp_path / "s").state == "complete"
    assert batch_sizes(tmp_path / "s") == {"draw": [4], "chain": [16]}


def test_a_model_of_which_not_one_item_fits_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(ModelDoesNotFit, match="chain needs"):
        run(config_with(tmp_path, item_bytes=2000), tmp_path / "s")
    assert batch_sizes(tmp_path / "s") == {}
    with Store(tmp_path / "s") as store:
        assert reading.counts(store, "test").invocations == 0


def test_in_main_memory_nothing_is_tried_out(tmp_path: Path) -> None:
    run(config_with(tmp_path, device="cpu"), tmp_path / "s")
    assert batch_sizes(tmp_path / "s") == {"draw": [4], "chain": [16]}
    assert len(calls(tmp_path)) == 3 + 2, "that results do not depend on batch mates is proven in three calls"
