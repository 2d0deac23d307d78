"""What docs/models.md says of models is so: every parameter is named; the examples of the README run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from panic import run
from panic.config import sources
from panic.models import endpoints, kinds, registry
from panic.models.controls import CONTROLS
from panic.store import Store, reading
from tests import tiny_language
from tests.engine.endpoint_server import Server

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
(OWN,) = re.findall(r"^## Your own model\n(.*?)(?=^## )", README, re.DOTALL | re.MULTILINE)


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    return str(found)


def test_every_kind_and_parameter_is_named() -> None:
    for title, kind in (("Text to text", "text-to-text"), ("Image to image", "image-to-image")):
        known = kinds.named(kind)
        assert known is not None
        assert not callable(known.parameters)
        missing = [name for name in known.parameters if f"`{name}`" not in section(title)]
        assert not missing, missing
    for name, control in CONTROLS.items():
        assert f"`{name}`" in section("Controls")
        assert all(f"`{parameter}`" in section("Controls") for parameter in control.parameters)
    endpoint = section("Models behind an endpoint and their keys")
    asked = [name for task in endpoints.OF_TASK.values() for name in task]
    assert [
        name for name in (*endpoints.SERVER, *endpoints.TASKS, *asked) if f"`{name}`" not in endpoint
    ] == []
    named = TEXT.split("\n## ", 1)[0]
    assert [kind for kind in kinds.adapters() if f"`{kind}`" not in named] == []


@pytest.mark.parametrize("block", [text for language, text in BLOCKS if language == "yaml"])
def test_an_example_is_a_part_of_a_config(block: str) -> None:
    """Its models are known, and its parameters are theirs."""
    raw: dict[str, Any] = sources.parse(sources.Source(name="example", text=block), "YAML").data
    assert registry.check_config(raw) == []


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the weights that the examples name, one of them in a cache of the hub."""
    tiny_language.build("qwen3", tmp_path / "checkpoints" / "mine")
    cache = tmp_path / "hub" / "models--org--name"
    tiny_language.build("t5", cache / "snapshots" / ("0" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (code,) = re.findall(r"```python\n(.*?)```", OWN, re.DOTALL)
    (tmp_path / "shout.py").write_text(code)
    return tmp_path


@pytest.mark.slow
def test_your_own_models_run_as_the_examples_say(place: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", OWN, re.DOTALL)
    assert len(examples) == 4
    asked = {"networks": [["mine"]], "prompts": ["hello"], "seeds": [1], "max_length": 2, "device": "cpu"}
    with Server(text=lambda number, seen: f"answer {number}") as server:
        for number, example in enumerate(examples):
            file = place / f"own{number}.yaml"
            text = example.replace("http://localhost:8000/v1", server.url)
            file.write_text(text + yaml.safe_dump(asked | {"name": f"own{number}"}))
            run(file, place / "store", overrides=[] if "Shout" in example else ["executor=local"])
    assert [seen.fields["model"] for seen in server.requests] == ["qwen3", "qwen3"]
    with Store(place / "store") as store:
        states = [one.state for one in reading.runs(store)]
        assert set(states) <= {"done", "stuck", "failed"}
        assert states[2] in ("done", "stuck")
        assert states[3] == "done"
        assert all(one.num_steps for one in reading.runs(store)), "each has answered once at least"
