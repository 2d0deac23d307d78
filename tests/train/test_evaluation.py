"""`panic evaluate`: scores of the oracle, figures against a folder, and what is said when something lacks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from panic.cli.app import app
from panic.errors import ModelMissing, UsageError
from panic.store import Store
from panic.train import evaluation, pocket_scores
from panic.train.evaluation import model_to_evaluate
from panic.train.folder import Folder
from tests import tiny
from tests.train import small


@pytest.fixture(autouse=True)
def _own_store(monkeypatch, tmp_path):
    """Logs lie here."""
    monkeypatch.setenv("PANIC_STORE", str(tmp_path / "panic-store"))


def panic(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


PERFECT = """
from PIL import Image
from panic.pocket.world import describe, examples

class Perfect:
    modality_in, modality_out, size_bytes = "text", "image", 0

    def load(self, device):
        self.pictures = {describe(e.scene): e.picture for e in examples("test", 12, SEED)}

    def invoke(self, inputs, seeds):
        return [Image.fromarray(self.pictures[text]) for text in inputs]
"""


def test_a_perfect_painter_of_the_world_is_right_in_everything(tmp_path):
    (tmp_path / "perfect.py").write_text(PERFECT.replace("SEED", str(pocket_scores.SEED)))
    scores = evaluation.evaluate(
        model_to_evaluate(f"python:{tmp_path / 'perfect.py'}:Perfect"), "pocket-world", n=12
    )
    assert scores["scenes"] == 12
    assert scores["all, attributes"] == scores["all, background"] == 1.0


MEETING = """
import threading
both = threading.Barrier(2)
"""


@pytest.mark.slow
def test_the_oracle_s_judgement_takes_all_devices(tmp_path):
    """The first calls on the two devices wait for each other."""
    waiting = PERFECT.replace(
        "return [", "self.met = getattr(self, 'met', None) or both.wait(100) + 1\n        return ["
    )
    text = MEETING + waiting.replace("SEED", str(pocket_scores.SEED)).replace('"test", 12', '"test", 40')
    (tmp_path / "perfect.py").write_text(text)
    spec = model_to_evaluate(f"python:{tmp_path / 'perfect.py'}:Perfect")
    scores = evaluation.evaluate(spec, "pocket-world", n=40, device=["cpu", "cpu"])
    assert scores["all, exact"] == 1.0


TELLER = """
from panic.pocket.world import examples

class Teller:
    modality_in, modality_out, size_bytes = "image", "text", 0

    def load(self, device):
        self.texts = {e.picture.tobytes(): e.canonical for e in examples("test", 12, SEED)}

    def invoke(self, inputs, seeds):
        return [self.texts[picture.tobytes()] for picture in inputs]
"""


def test_a_perfect_teller_is_right_in_everything(tmp_path):
    (tmp_path / "teller.py").write_text(TELLER.replace("SEED", str(pocket_scores.SEED)))
    scores = evaluation.evaluate(
        model_to_evaluate(f"python:{tmp_path / 'teller.py'}:Teller"), "pocket-world", n=12
    )
    assert scores["exact"] == scores["background"] == 1.0


def test_scores_of_a_tiny_pipeline_are_none(tmp_path):
    """64x64 pictures of noise: it runs, by its own number of steps, and hits nothing."""
    tiny.build_stable_diffusion(tmp_path / "sd")
    result = panic("evaluate", tmp_path / "sd", "pocket-world", "--n", 2, "--set", "steps=1", "--json")
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)
    assert scores["scenes"] == 2
    assert scores["all, exact"] == 0.0
    assert len(list((tmp_path / "panic-store" / "logs").glob("panic_evaluate_*.log"))) == 1


def test_without_a_store_evaluating_makes_none_for_a_log(tmp_path, monkeypatch):
    """It needs none, and may be called where nothing can be written."""
    monkeypatch.delenv("PANIC_STORE")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teller.py").write_text(TELLER.replace("SEED", str(pocket_scores.SEED)))
    arguments = ("evaluate", "python:teller.py:Teller", "pocket-world", "--n", 12)
    assert panic(*arguments).exit_code == 0
    assert not (tmp_path / "panic-store").exists()
    Store(tmp_path / "panic-store", write=True, create=True).close()
    assert panic(*arguments).exit_code == 0
    assert len(list((tmp_path / "panic-store" / "logs").iterdir())) == 1


def test_what_a_model_prints_is_logged_and_no_part_of_the_answer(tmp_path, monkeypatch):
    """Without a log it goes to stderr."""
    loud = TELLER.replace("def invoke", "def invoke_quietly").replace("SEED", str(pocket_scores.SEED))
    loud += """
    def invoke(self, inputs, seeds):
        print("a library \\x1b[2Jprints", end="")
        return self.invoke_quietly(inputs, seeds)
"""
    (tmp_path / "teller.py").write_text(loud)
    arguments = ("evaluate", f"python:{tmp_path / 'teller.py'}:Teller", "pocket-world", "--n", 12, "--json")
    done = panic(*arguments)
    assert json.loads(done.stdout)["exact"] == 1.0, done.output
    assert "prints" not in done.output
    [file] = (tmp_path / "panic-store" / "logs").iterdir()
    assert "panic.cli: printed: a library " in file.read_text()
    assert "\x1b" not in file.read_text()
    monkeypatch.delenv("PANIC_STORE")
    monkeypatch.chdir(tmp_path)
    Path("panic-store").rename("elsewhere")
    done = panic(*arguments)
    assert json.loads(done.stdout)["exact"] == 1.0
    assert "prints" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PocketDifusion", "pocket-world"], "did you mean PocketDiffusion"),
        (["PocketCaptioner", "."], "draws no pictures"),
        (["PocketText", "pocket-world"], "the oracle judges drawings, captions and joint embeddings"),
        (["PocketDiffusion", "pocket-world", "--set", "steps"], "a parameter is set by KEY=VALUE"),
        (["PocketDiffusion", "pocket-world", "--set", "steps=0"], "steps should be at least 1"),
    ],
)
def test_mistakes_are_told(arguments, message):
    result = panic("evaluate", *arguments)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())


def test_torch_fidelity_and_its_weights_are_asked_for_before_anything_is_drawn(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    if evaluation.importlib.util.find_spec("torch_fidelity") is None:
        with pytest.raises(UsageError, match=r"pip install 'panic\[fidelity\]'"):
            evaluation.evaluate(model_to_evaluate("PocketDiffusion"), str(tmp_path))
    else:
        with pytest.raises(ModelMissing, match=r"curl .*weights-inception"):
            evaluation.evaluate(model_to_evaluate("PocketDiffusion"), str(tmp_path))


@pytest.fixture(scope="module")
def extractor():
    """Features of torch-fidelity that need no weights: mean colours, and logits of the brightest one."""
    pytest.importorskip("torch_fidelity")
    from torch_fidelity import register_feature_extractor
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class Colours(FeatureExtractorBase):
        def __init__(self, name, features_list, **how):
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list():
            return "means", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "logits" if metric == "isc" else "means"

        def forward(self, pictures):
            means = pictures.float().mean((2, 3)) / 255
            return tuple({"means": means, "logits": 20 * means}[name] for name in self.features_list)

    register_feature_extractor("colours", Colours)
    return "colours"


def test_figures_against_a_folder(extractor, tmp_path):
    same = Folder(small.pictures(tmp_path / "real", each=12), size=small.SIDE, held_back=0.0).paths
    perfect = evaluation.fidelity(same, same, small.SIDE, extractor=extractor)
    assert perfect["drawn"] == perfect["real"] == 24
    assert perfect["fid"] == pytest.approx(0, abs=1e-6)
    assert perfect["precision"] == perfect["recall"] == 1.0
    assert perfect["inception_score"] == pytest.approx(2, rel=0.05)  # two kinds, both certain
    assert "compare equal counts" in perfect["note"]
    grey = tmp_path / "grey.png"
    Image.fromarray(np.full((16, 16, 3), 128, np.uint8)).save(grey)
    poor = evaluation.fidelity([grey] * 24, same, small.SIDE, extractor=extractor)
    assert poor["fid"] > 0.1
    assert poor["precision"] == 0.0
    assert poor["inception_score"] == pytest.approx(1)  # of the drawn pictures, not of the real ones
    half = evaluation.fidelity(
        [p for p in same if p.parent.name == "red"], same, small.SIDE, extractor=extractor
    )
    assert (half["precision"], half["recall"]) == (
        1.0,
        0.5,
    )  # all drawn ones are real, half of the real ones drawn


def test_a_model_is_drawn_with_and_compared(extractor, tmp_path):
    tiny.build_stable_diffusion(tmp_path / "sd")
    small.pictures(tmp_path / "real", each=6)
    spec = model_to_evaluate(str(tmp_path / "sd"), {"steps": 1})
    scores = evaluation.evaluate(spec, str(tmp_path / "real"), n=10, extractor=extractor)
    assert (scores["drawn"], scores["real"]) == (10, 12)
    assert np.isfinite(scores["fid"])
    several = evaluation.evaluate(
        spec, str(tmp_path / "real"), n=10, extractor=extractor, device=["cpu", "cpu"], batch_size=4
    )
    assert several.keys() == scores.keys()
    assert several["fid"] == pytest.approx(scores["fid"], rel=1e-3), "the same images, whoever drew them"
    with pytest.raises(UsageError, match="too few"):
        evaluation.evaluate(
            model_to_evaluate(str(tmp_path / "sd")), str(tmp_path / "real"), n=9, extractor=extractor
        )


def test_captions_are_spread_evenly():
    counts = np.bincount(evaluation._spread(7, 17, 0), minlength=7)
    assert sorted(counts) == [2, 2, 2, 2, 3, 3, 3]
    assert torch.equal(*(torch.from_numpy(evaluation._spread(7, 17, 5)) for _ in range(2)))
