"""Results that are computed again: what is said of each, and of where they were made."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from panic import run
from panic.config import ExperimentConfig
from panic.devices.device import CpuDevice
from panic.engine import verify as verifying
from panic.engine.contents import Output
from panic.engine.pinning import MAX_BATCH
from panic.engine.plan import CheckedConfig, make_plan
from panic.engine.verify import Finding, Verification, verify
from panic.errors import StoreCorrupt
from panic.models.protocol import Modality
from panic.store import Store, contents, origins, provenance, writing
from panic.store.codec import encode_image, image_digest
from panic.store.origins import Origin
from tests.engine.conftest import make_config

CONFIG = make_config(
    prompts=["state 0"],
    seeds=[-1],
    repeats=2,
    max_length=40,
    embeddings=["synthetic/state-embedding"],
    diagrams=[{"modality": "text"}],
)
"""80 steps; both runs go through a circle of 7 states, which has a bar in dimension 1."""


@pytest.fixture(scope="module")
def performed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("performed") / "store"
    run(CONFIG, path)
    return path


@pytest.fixture
def path(performed: Path, tmp_path: Path) -> Path:
    """A store of its own."""
    return shutil.copytree(performed, tmp_path / "store")


def change(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            assert connection.execute(statement).rowcount >= 1


def verified(path: Path, config: ExperimentConfig = CONFIG, **options: Any) -> list[Finding]:
    with Store(path) as store:
        return verify(CheckedConfig.of(config, ask=False), store, 1, **options).findings


def test_progress_and_defaults(path: Path) -> None:
    told: list[tuple[int, int]] = []
    found = verified(path, sample=3, on_progress=lambda done, total: told.append((done, total)))
    kinds = [one.kind for one in found]
    assert sorted(kinds) == ["diagram"] * 2 + ["embedding"] * 3 + ["invocation"] * 3
    assert told == [(number, 8) for number in range(1, 9)]
    found = verified(path)
    assert [one.kind for one in found].count("invocation") == 50
    assert found == verified(path, sample=50, seed=0)
    assert {one.verdict for one in found} == {"same"}


def test_what_was_found_is_counted() -> None:
    found = [
        Finding(kind="diagram", what="a", verdict=verdict)
        for verdict in ("same", "different", "same", "damaged", "given")
    ]
    verification = Verification(findings=found, surroundings={})
    assert verification.counts == {"same": 2, "different": 1, "damaged": 1, "given": 1}
    assert verification.num_compared == 3


def test_of_some_models_the_number_of_threads_is_not_known(path: Path) -> None:
    change(path / "store.sqlite", "UPDATE epoch SET threads = NULL WHERE name = 'draw'")
    assert {one.verdict for one in verified(path, sample=5)} == {"same"}


ORIGIN = Origin(
    what="run 1, step 0", name="draw", fingerprint="f" * 64, output=b"o", modality="image", input=b"i",
    input_modality="text", seed=1, batch_size=1, bucket=0, device_kind="cpu", threads=1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("of", "fingerprint", "is_repeatable", "verdict", "detail"),
    [
        ({"device_kind": "given"}, "", False, "given", "draw was imported"),
        ({}, "f" * 64, False, "not repeatable", "draw is behind an endpoint"),
        ({}, "", True, "not comparable", "draw is not here"),
        ({}, "e" * 64, True, "changed", f"draw had the fingerprint {'f' * 12}, now {'e' * 12}"),
        ({"device_kind": "cuda T4"}, "f" * 64, True, "not comparable", "made on cuda T4, this is cpu"),
    ],
)
def test_why_a_result_cannot_be_compared(
    of: dict[str, Any], fingerprint: str, is_repeatable: bool, verdict: str, detail: str
) -> None:
    origin = replace(ORIGIN, **of)
    found = verifying._obstacle(origin, fingerprint, CpuDevice(), is_repeatable=is_repeatable)
    assert found == (verdict, detail)


@pytest.mark.parametrize("kind", ["cpu", ""])
def test_what_can_be_compared(kind: str) -> None:
    """Of a deleted experiment's model it is not known where it was called."""
    origin = replace(ORIGIN, device_kind=kind)
    assert verifying._obstacle(origin, "f" * 64, CpuDevice(), is_repeatable=True) is None


def test_a_model_that_is_not_here_has_no_fingerprint() -> None:
    spec = make_plan(CONFIG).specs["draw"]
    assert len(verifying._fingerprint(spec)) == 64
    assert verifying._fingerprint(replace(spec, adapter="gone")) == ""


@pytest.mark.parametrize(
    ("stored", "made", "found"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], ("same", "", None)),
        ([1, 2, 3, 4], [1, 2, 3], ("different", "shape (4,) is stored, (3,) comes out", None)),
        ([1, -2, 3, 4], [1, 2, 3.5, 4], ("different", "50.00% of its numbers differ", 4.0)),
        ([0, np.inf, 3, 0], [0, 5, 3.25, 0], ("different", "50.00% of its numbers differ", 0.25)),
        ([np.inf], [1], ("different", "100.00% of its numbers differ", 0.0)),
        ([np.inf, 1], [np.inf, 1], ("same", "", None)),
    ],
)
def test_how_far_numbers_differ(stored: list[float], made: list[float], found: object) -> None:
    assert verifying._numbers(np.array(stored), np.array(made)) == found


def test_a_text_or_an_image_that_comes_out_otherwise(path: Path) -> None:
    with Store(path) as store:
        image = contents.image(store, (drawn := origins.of_step(store, 1, 0)).output)
        text = contents.text(store, (said := origins.of_step(store, 1, 1)).output)

    def output(value: Any, digest: bytes) -> Output:
        return Output(Modality.TEXT if isinstance(value, str) else Modality.IMAGE, digest, value)

    smaller = image.resize((8, 8))
    other = Image.fromarray(np.asarray(image) ^ np.uint8(1))
    with closing(sqlite3.connect(path / "images.sqlite")) as connection, connection:
        added = "INSERT INTO image (digest, encoding, bytes) SELECT ?, encoding, ? FROM image LIMIT 1"
        connection.execute(added, (b"x" * 32, encode_image(image)))
    with Store(path) as store:
        assert verifying._output(store, said, output(text, said.output)) == ("same", "", None)
        assert verifying._output(store, said, output("x", b"")) == ("different", "another text", None)
        assert verifying._output(store, drawn, output(image, drawn.output)) == ("same", "", None)
        size = f"{image.size} pixels are stored, {smaller.size} come out"
        assert verifying._output(store, drawn, output(smaller, b"")) == ("different", size, None)
        changed = ("different", "100.00% of its numbers differ", 1.0)
        assert verifying._output(store, drawn, output(other, image_digest(other))) == changed
        renamed = replace(drawn, output=b"x" * 32)
        another = ("different", "the digest is that of another image", None)
        assert verifying._output(store, renamed, output(image, drawn.output)) == another
        assert verifying._content(store, drawn.output, "image") == image
        with pytest.raises(StoreCorrupt, match="the pixels of image 787878787878 are not those"):
            verifying._content(store, b"x" * 32, "image")


def compared(path: Path, of: Callable[[Origin, Store], Origin]) -> Finding:
    """What is found of the first step, with another origin."""
    checked, device = CheckedConfig.of(CONFIG, ask=False), CpuDevice()
    specs = make_plan(checked).specs
    settings = verifying._settings(checked, device, specs, 1)
    assert (settings.device, settings.threads) == ("cpu", 1)
    server = verifying.CallServer(settings, verifying.registry.build)
    with Store(path) as store, closing(server):
        return verifying._compare(store, server, "draw", of(origins.of_step(store, 1, 0), store))


def test_a_batch_that_no_config_can_ask_for_is_damaged(path: Path) -> None:
    assert compared(path, lambda origin, store: replace(origin, batch_size=2)).verdict == "same"
    found = compared(path, lambda origin, store: replace(origin, batch_size=MAX_BATCH + 1))
    assert (found.verdict, found.what) == ("damaged", "run 1, step 0")
    assert found.detail == "its input: the store says 65,537 items in its batch, and 65,536 is the most"


def test_what_a_model_makes_no_sense_of_is_not_comparable(path: Path) -> None:
    found = compared(path, lambda origin, store: replace(origin, input=origin.output, input_modality="image"))
    assert (found.verdict, found.kind) == ("not comparable", "invocation")
    assert found.detail


def test_what_gives_nothing_now_is_different(tmp_path: Path) -> None:
    words = {"networks": [["truncate"]], "prompts": ["a b"], "seeds": [-1], "max_length": 1, "device": "cpu"}
    config = ExperimentConfig.model_validate({"name": "x", **words})
    run(config, tmp_path / "store")
    change(tmp_path / "store" / "store.sqlite", "UPDATE output SET text = '  ' WHERE text = 'a b'")
    [found] = verified(tmp_path / "store", config)
    assert (found.verdict, found.detail) == ("different", "it gives nothing now: empty text")


def diagrams(path: Path, *changes: str) -> Finding:
    """What is found of the diagram of run 1 after these statements."""
    change(path / "store.sqlite", *changes)
    what = "diagram of run 1 by synthetic/state-embedding"
    [found] = [one for one in verified(path, sample=2) if one.what == what]
    return found


def bars(path: Path, dimension: int, moved_by: float = 0.0, *, with_another: bool = False) -> str:
    """Move the end of the first finite bar of run 1; or add one."""
    with closing(sqlite3.connect(path / "store.sqlite")) as connection:
        of = "dimension = ? AND diagram = (SELECT id FROM diagram WHERE run = 1)"
        (data,) = connection.execute(f"SELECT bars FROM diagram_bars WHERE {of}", (dimension,)).fetchone()
    found = np.frombuffer(data, "<f8").reshape(-1, 2).copy()
    assert len(found)
    found[np.isfinite(found[:, 1]).argmax(), 1] += moved_by
    if with_another:
        found = np.concatenate([found, found[:1]])
    return (
        f"UPDATE diagram_bars SET bars = x'{found.tobytes().hex()}' WHERE {of.replace('?', str(dimension))}"
    )


def test_the_dimension_of_a_diagram_that_differs_most_speaks_for_it(path: Path) -> None:
    found = diagrams(path, bars(path, 0, 0.5), bars(path, 1, 0.25))
    assert (found.verdict, found.difference) == ("different", pytest.approx(0.5))
    assert diagrams(path, bars(path, 0, -0.25)).difference == pytest.approx(0.25)


@pytest.mark.parametrize("dimension", [0, 1])
def test_bars_that_are_others_in_one_dimension_alone_are_different(path: Path, dimension: int) -> None:
    found = diagrams(path, bars(path, dimension, with_another=True))
    assert (found.verdict, found.difference) == ("different", None)
    found = diagrams(path, bars(path, 1 - dimension, 0.25))
    assert found.difference == pytest.approx(0.25), "which says more than that there are others"


def test_a_diagram_of_other_points_is_not_comparable(path: Path) -> None:
    found = diagrams(path, "UPDATE diagram SET num_points = 19")
    assert found.verdict == "not comparable"
    assert found.detail == "it is of 19 points, and the run has 20 now"


def test_where_results_were_made_is_what_the_last_session_says_that_says_it(path: Path) -> None:
    here: dict[str, Any] = provenance.provenance()
    versions = here["packages"]
    then = {
        "python": "2.7.18",
        "packages": {**versions, "numpy": "0.1", "gone": "1"},
        "hardware": here["hardware"],
        "source_digest": here["source_digest"],
    }
    with Store(path, write=True) as store:
        for said in ({"python": "1.5"}, then, {}):
            writing.start_session(store, 1, "panic run", said)
        assert verifying._surroundings(store, 1) == {
            "python": ("2.7.18", here["python"]),
            "numpy": ("0.1", versions["numpy"]),
            "gone": ("1", None),
        }
        writing.start_session(store, 1, "panic run", {"python": here["python"]})
        found = verifying._surroundings(store, 1)
        assert found["source of panic"] == (None, here["source_digest"])
        assert found["numpy"] == (None, versions["numpy"])
        assert "python" not in found


def test_to_compare_machines_git_is_not_asked(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filters of a repository were started for it, which saw the keys of endpoints."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\ntouch '{tmp_path / 'asked'}'\nexit 3\n")
    (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with Store(path) as store:
        verifying._surroundings(store, 1)
    assert not (tmp_path / "asked").exists()
    assert provenance.surroundings().items() <= provenance.provenance().items()
    assert (tmp_path / "asked").exists()


def test_progress_is_told_while_models_are_called_again_and_they_are_dropped(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told when all had been computed; models are dropped for each number of threads."""
    told: list[int | str] = []

    class Server(verifying.CallServer):
        def __init__(self, *of: Any) -> None:
            super().__init__(*of)
            told.append("opened")

        def close(self) -> None:
            super().close()
            told.append("closed")

    monkeypatch.setattr(verifying, "CallServer", Server)
    change(path / "store.sqlite", "UPDATE epoch SET threads = 1 WHERE name = 'draw'")
    found = verified(path, sample=9, on_progress=lambda done, total: told.append(done))
    assert {one.verdict for one in found} == {"same"}
    num_drawn = told.index("closed") - 1
    assert 0 < num_drawn < 18
    assert told == [
        *("opened", *range(1, num_drawn + 1), "closed"),
        *("opened", *range(num_drawn + 1, 19), "closed"),
        *(19, 20),
    ]
