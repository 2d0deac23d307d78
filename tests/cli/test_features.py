"""`panic embed` of files, of layers, and the comparison of two files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from panic.store import Store, contents, reading
from tests.patience import LONGEST_S, until

from .conftest import Invoke, write_config


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of five images, of which the fourth is damaged."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(1, 6):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"p_{number:03}.png")
    (folder / "p_004.png").write_bytes(b"x")
    return folder


def test_a_folder_becomes_a_file(panic: Invoke, photos: Path) -> None:
    call = ("embed", "--folder", "photos", "PocketPixels", "-o", "f.parquet")
    plan = panic(*call, "--dry-run")
    assert plan.stdout == "5 items, 0 of them there, 5 missing: PocketPixels\n"
    assert not list(Path.cwd().glob("f.parquet*"))
    done = panic(*call)
    assert (done.exit_code, done.stdout) == (0, "f.parquet: 4 rows with the vector (4 new)\n")
    assert "Skipped: p_004.png of photos: it cannot be decoded" in done.stderr
    assert pl.read_parquet("f.parquet").schema["PocketPixels"] == pl.Array(pl.Float32, 64)
    again = panic(*call, "--strict")
    assert (again.exit_code, again.stdout) == (1, "f.parquet: 4 rows with the vector (0 new)\n")
    assert "1 skipped; the file's metadata lists all." in again.stderr
    quiet = panic(*call, "-q", "--id", r"_(\d+)$")
    assert (quiet.exit_code, quiet.stdout) == (0, "")
    assert pl.read_parquet("f.parquet")["id"].to_list() == ["1", "2", "3", "5"]


def test_two_files_are_compared(panic: Invoke, photos: Path) -> None:
    call = ("embed", "--folder", "photos", "PocketPixels", "-o")
    assert panic(*call, "a.parquet").exit_code == 0
    (photos / "p_001.png").unlink()
    Image.new("RGB", (8, 8), "red").save(photos / "p_002.png")
    assert panic(*call, "b.parquet").exit_code == 0
    told = panic("embed", "--compare", "a.parquet", "b.parquet")
    assert "3 items in both, 1 of other content\nonly in a.parquet: 1 (p_001)\n" in told.stdout
    found = json.loads(panic("embed", "--compare", "a.parquet", "b.parquet", "--json").stdout)
    model = found["models"]["PocketPixels"]
    assert model["cosine"]["median"] == 0
    assert model["cosine"]["worst"] > 0.1
    assert panic("embed", "--compare", "a.parquet").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--folder", "photo", "PocketPixels", "-o", "f.parquet"], "Did you mean photos?"),
        (["--folder", "photos", "PocketPixel", "-o", "f.parquet"], "did you mean PocketPixels"),
        (["--folder", "photos", "PocketText", "-o", "f.parquet"], "takes text, and these are images"),
        (["--folder", "photos", "PocketDiffusion", "-o", "f.parquet"], "gives image; an embedding model"),
        (["--folder", "photos", "PocketPixels"], "need a file"),
        (["--folder", "", "PocketPixels", "-o", "f.parquet"], "An empty name is no folder"),
        (["--folder", "photos", "PocketPixels", "-o", "f.csv"], "-o f.parquet"),
        (["--folder", "photos", "PocketPixels", "-o", "f.parquet", "--regions", "3"], "needs a detector"),
        (["--folder", "photos", "PocketPixels", "-o", "f.parquet", "--id", "("], "no regular expression"),
        (["--folder", "photos", "--folder", "./photos", "PocketPixels", "-o", "f.parquet"], "also as photos"),
        (["--folder", "photos", "--texts", "a.txt", "PocketPixels", "-o", "f.parquet"], "images or of texts"),
        (["--texts", "a.txt", "PocketPixels", "-o", "f.parquet"], "There is no file a.txt"),
        (["demo", "PocketText", "-o", "f.parquet"], "-o is for files"),
        (["demo", "PocketText", "--column", ""], "--column is for files"),
        (
            ["--folder", "photos", "PocketText", "-o", "f.parquet", "--layer", "", "--token", "0"],
            "--layer, --token: without effect for files",
        ),
        (["demo"], "A model is needed"),
        (
            ["demo", "PocketCaptioner", "--layer", "a", "--pool", "mean", "--token", "1"],
            "Leave one of them out",
        ),
    ],
)
def test_mistakes_are_answered(panic: Invoke, photos: Path, arguments: list[str], says: str) -> None:
    done = panic("embed", *arguments)
    assert done.exit_code == 2
    assert says in done.stderr
    assert not list(Path.cwd().glob("f.parquet*"))


SLOW = """
import os
import time
class Slow:
    modality_in = "image"
    modality_out = "vector"
    size_bytes = 0
    batch_size = 1
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        with open("calls", "a") as file: file.write("x" * len(inputs))
        time.sleep(0.05 if os.path.getsize("calls") < 30 or os.path.exists("go") else 1)
        return [[float(image.width), 1.0] for image in inputs]
"""


MEETING = """
import os
import time
from pathlib import Path

class Meeting:
    modality_in, modality_out, size_bytes, batch_size = ("text", "image"), "vector", 0, 1

    def load(self, device):
        self.calls = 0

    def invoke(self, inputs, seeds):
        Path(f"met/{os.getpid()}").touch()
        self.calls += 1
        until = time.monotonic() + (200 if self.calls > 3 else 0)  # what is tried out first has one process
        while len(os.listdir("met")) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        return [[float(len(one) if isinstance(one, str) else one.width), 1.0] for one in inputs]
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("several", "one"),
    [("device=[sim:1GiB, sim:1GiB]", "device=sim:1GiB"), ("workers=2", "workers=1")],
    ids=["devices", "workers"],
)
def test_an_experiment_is_embedded_by_all_of_its_devices(
    panic: Invoke, tmp_path: Path, several: str, one: str
) -> None:
    """Both have to be at work before either goes on; vectors are those of one."""
    (tmp_path / "meeting.py").write_text(MEETING)
    (tmp_path / "met").mkdir()
    prompts = [f"state {'0' * number}1" for number in range(20)]
    config, found = write_config(tmp_path, prompts=prompts, max_length=2), []
    meeting = f"python:{tmp_path}/meeting.py:Meeting"
    for name, where in (("several", several), ("one", one)):
        settings = ("--set", "executor=process", "--set", where, "--store", name)
        assert panic("run", config, *settings).exit_code == 0
        done = panic("embed", "demo", meeting, "--store", name)
        assert done.exit_code == 0, done.output
        if name == "several":
            assert len(list((tmp_path / "met").iterdir())) == 2
        with Store(name) as store:
            vectors = contents.vectors(store, meeting)
            found.append(dict(zip(vectors.digests, vectors.vectors.tolist(), strict=True)))
    assert found[0] == found[1]
    assert len(found[0]) > 20


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_repeated_it_ends_alike(panic: Invoke, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "photos").mkdir()
    for place in range(1, 61):
        Image.new("RGB", (place, 8)).save(tmp_path / "photos" / f"{place:03}.png")
    call = ["embed", "--folder", "photos", "python:slow.py:Slow", "-o", "f.parquet"]
    process = subprocess.Popen([sys.executable, "-m", "panic", *call], stderr=subprocess.PIPE, text=True)
    until(lambda: list(tmp_path.glob("f.parquet.parts/*02.parquet")), process)
    process.send_signal(number)
    _, told = process.communicate(timeout=LONGEST_S)
    assert process.returncode == (130 if number is signal.SIGINT else -number)
    assert number is signal.SIGKILL or "the same command goes on" in told
    (tmp_path / "go").touch()
    before = len((tmp_path / "calls").read_text())
    kept = sum(pl.read_parquet(path).height for path in tmp_path.glob("f.parquet.parts/*.parquet"))
    assert kept >= 16
    assert before - kept <= 8 + 3  # a block, a call behind it, one that was just given
    done = panic(*call)
    assert done.stdout == f"f.parquet: 60 rows with the vector ({60 - kept} new)\n"
    assert len((tmp_path / "calls").read_text()) == before + 60 - kept
    frame = pl.read_parquet("f.parquet")
    assert frame["python:slow.py:Slow"].to_numpy()[:, 0].tolist() == list(range(1, 61))


CHAIN = """
import torch
class Chain:
    modality_in = modality_out = "text"
    size_bytes = 0
    def load(self, device):
        self.net = torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False), torch.nn.Linear(2, 1))
        with torch.no_grad():
            self.net[0].weight.copy_(torch.tensor([[1.0], [2.0]]))
    def invoke(self, inputs, seeds):
        self.net(torch.tensor([[float(len(text))] for text in inputs]))
        return [text + "!" for text in inputs]
"""


@pytest.mark.slow
def test_hidden_states_of_a_chain_become_an_embedding_of_its_experiment(
    panic: Invoke, tmp_path: Path
) -> None:
    (tmp_path / "chain.py").write_text(CHAIN)
    assert panic("run", write_config(tmp_path), "--quiet").exit_code == 0
    wrong = panic("embed", "demo", "python:chain.py:Chain", "--layer", "net.3")
    assert wrong.exit_code == 1
    assert "its layers, nearest first: net.0, net.1, net" in wrong.stderr
    assert "Nothing was done." in wrong.stderr
    with Store("panic-store") as store:
        assert "Chain@net.3" not in reading.experiment(store, "demo").config["models"]
    for token in ("1", "-2"):
        nowhere = panic("embed", "demo", "python:chain.py:Chain", "--layer", "net.0", "--token", token)
        assert nowhere.exit_code == 1
        assert f"Chain@net.0@{token}: 1 tokens, and no token {token}" in nowhere.stderr
        assert "So it is with all of 5 that were tried.\nNothing was done." in nowhere.stderr
    with Store("panic-store") as store:
        assert reading.experiment(store, "demo").config["embeddings"] == ["circle"]
    done = panic("embed", "demo", "python:chain.py:Chain", "--layer", "net.0", "--pool", "last")
    assert done.exit_code == 0, done.stderr
    with Store("panic-store") as store:
        config = reading.experiment(store, "demo").config
        assert config["embeddings"] == ["circle", "Chain@net.0@last"]
        found = contents.vectors(store, "Chain@net.0@last")
        lengths = [len(contents.text(store, bytes.fromhex(digest))) for digest in found.digests]
        assert found.vectors.tolist() == [[length, 2 * length] for length in lengths]
    assert panic("resume", "demo", "--trust").stdout == "demo is complete.\n"
