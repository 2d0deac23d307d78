"""What a dry run says of diagrams that are to come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from panic import run
from panic.engine.preview import preview
from panic.topology import estimate
from tests.engine.conftest import make_config

EMBEDDED: dict[str, Any] = {"embeddings": ["synthetic/state-embedding"], "diagram_workers": 2}


def test_missing_diagrams_are_estimated_at_the_full_length_of_runs(tmp_path: Path) -> None:
    config = make_config(**EMBEDDED, max_length=400, diagrams={"max_dimension": 2})
    # 6 runs of 400 steps, every second one a text.
    assert preview(config, tmp_path / "none").diagrams == estimate(6, 200, 768, 2, workers=2)


def test_without_diagrams_to_come_there_is_no_estimate(tmp_path: Path) -> None:
    assert preview(make_config(embeddings=[], diagrams=None), tmp_path / "none").diagrams is None
    config = make_config(**EMBEDDED, max_length=4)
    run(config, tmp_path / "s")
    assert preview(config, tmp_path / "s").diagrams is None
