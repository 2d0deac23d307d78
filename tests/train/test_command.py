"""`panic train` from outside: exit codes and messages, kills for real, several processes."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from panic import pocket
from panic.cli import logs
from panic.cli.app import app
from panic.store.provenance import TRAINED, training_of
from panic.train.config import load
from panic.train.training import train
from tests import tiny
from tests.patience import LONGEST_S
from tests.ports import free_ports
from tests.train import small
from tests.train.test_loop import assert_close, downhill

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_places(monkeypatch, tmp_path):
    """Logs lie here; loggers of other packages keep the stream that CliRunner has closed since."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setenv("PANIC_STORE", str(tmp_path / "panic-store"))


def write(path: Path, task: str, **changes) -> Path:
    """A config file, whose data and output lie beside it."""
    values = small.raw(task, path.parent, **changes)
    path.write_text(yaml.safe_dump(values))
    return path


def panic(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def start(config: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "panic", "train", str(config), *arguments]
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(process: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    """Until there is such a file (the last one if there are several)."""
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_says_where_the_model_is(tmp_path):
    result = panic("train", write(tmp_path / "a.yaml", "autoencoder", steps=2))
    assert result.exit_code == 0, result.output
    assert "step 2 of 2, loss 0." in result.output
    assert f"The model is in {tmp_path / 'model'}; as a network's node: local:{tmp_path / 'model'}" in (
        result.output
    )


def test_writes_a_log_where_libraries_chatter(tmp_path):
    config = write(tmp_path / "a.yaml", "autoencoder", steps=2)

    def chatter(progress):
        warnings.warn("a library warns", stacklevel=1)
        logging.getLogger("diffusers.models").warning("a library says something")

    file = logs.log_file(tmp_path / "panic-store", "a", "train")
    with logs.logging_command(file, "info", stderr_level=logging.WARNING, what="a"):
        train(load(config), chatter)
    assert "a library warns" in file.read_text()
    assert "a library says something" in file.read_text()
    file.unlink()
    done = panic("train", config)
    assert done.exit_code == 0, done.output
    [file] = (tmp_path / "panic-store" / "logs").iterdir()
    assert re.fullmatch(r"a_train_[\d-]+\.log", file.name)
    assert str(file) in done.output.replace("\n", "")
    assert "a.yaml: " in file.read_text()


def test_what_libraries_print_is_logged_and_not_shown(tmp_path):
    """A hook of torch prints at every call of a layer, without ever ending the line."""
    hook = torch.nn.modules.module.register_module_forward_hook(lambda *of: print("a layer prints", end=" "))
    try:
        done = panic("train", write(tmp_path / "a.yaml", "autoencoder", steps=2))
    finally:
        hook.remove()
    assert done.exit_code == 0, done.output
    assert "a layer prints" not in done.output
    assert "step 2 of 2, loss 0." in done.stdout
    assert "The model is in" in done.stdout
    [file] = (tmp_path / "panic-store" / "logs").iterdir()
    assert "printed: a layer prints a layer prints" in file.read_text()


def test_what_is_printed_is_logged_by_lines_up_to_a_limit(caplog):
    caplog.set_level(logging.INFO, logger="panic.cli")
    prints = logs.Prints(room=12)
    print("one", "two", file=prints)
    print(end="th", file=prints)
    print("ree\n\nmore", file=prints)
    print("unheard", file=prints)
    assert caplog.messages == ["printed: one two", "printed: thre", "what else is printed is not logged"]
    caplog.clear()
    prints = logs.Prints()
    print(end="x" * logs.LONGEST_LINE, file=prints)
    assert caplog.messages == []
    print(end="x", file=prints)
    assert [len(message) for message in caplog.messages] == [len("printed: ") + logs.LONGEST_LINE + 1]
    prints.end_line()
    assert len(caplog.messages) == 1


def test_without_a_store_the_log_lies_beside_the_model(tmp_path, monkeypatch):
    monkeypatch.delenv("PANIC_STORE")
    monkeypatch.chdir(tmp_path)
    done = panic("train", write(tmp_path / "a.yaml", "autoencoder", steps=2))
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "panic-store").exists()
    [file] = (tmp_path / "model.training" / "logs").iterdir()
    assert str(file) in done.output.replace("\n", "")
    assert panic("train", tmp_path / "a.yaml").exit_code == 0


def test_says_that_time_is_up(tmp_path):
    config = write(tmp_path / "a.yaml", "autoencoder")
    result = panic("train", config, "--set", "minutes=0.00001")
    assert result.exit_code == 0
    assert "Time is up after step 1 of 6; the same command goes on." in result.output
    assert panic("train", config, "--quiet").output == ""
    assert small.newest(small.config("autoencoder", tmp_path))["step"] == 6


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("autoencoder", {"steps": 0}, "steps must be at least 1"),
        ("autoencoder", {"stesp": 5}, "did you mean"),
        ("autoencoder", {"batch_size": 6, "accumulate": 4}, "no multiple of accumulate"),
        ("autoencoder", {"lora": {}}, "lora has nothing to hold on to"),
        ("autoencoder", {"data": {"folder": "nowhere"}}, "there is no folder"),
        ("autoencoder", {"precision": "fp16"}, "precision: fp16 does not work on cpu"),
        ("autoencoder", {"model": {"autoencoder": {"latent_chanels": 4}}}, "latent_chanels"),
        ("diffusion", {"model": {"unet": {"layers": 3}}}, "model.unet: UNet2DConditionModel has no layers"),
        ("diffusion", {"image_size": 32}, "pictures of image_size 32 are (3, 32, 32)"),
        ("diffusion", {"predict": "epsilon"}, "zero_terminal_snr must be false"),
        ("diffusion", {"model": {"base": "x", "unet": {}}}, "its parts are the base's: unet"),
        ("diffusion", {"model": {"base": "x"}, "predict": "epsilon"}, "has a base, which decides on predict"),
        ("diffusion", {"model": {"base": "nowhere/mine"}}, "model.base: there is no folder nowhere/mine"),
        (
            "diffusion",
            {"model": small.MODELS["diffusion"] | {"tokenizer": "gone"}},
            "model.tokenizer: there is",
        ),
        ("diffusion", {"lora": {"targets": ["q"]}}, "no layer is called q"),
        ("contrastive", {"accumulate": 2}, "needs the whole batch at once"),
        (
            "contrastive",
            {"model": small.MODELS["contrastive"] | {"tokenizer": str(pocket.folder("PocketDiffusion"))}},
            "its end of a text is token 2",
        ),
        ("captioning", {"emphasis": {"left": -1}}, "emphasis.left must be more than 0"),
        ("captioning", {"emphasis": {"unheard of": 2}}, "only a word of one token"),
    ],
)
def test_mistakes_are_told_without_a_traceback(tmp_path, task, changes, message):
    result = panic("train", write(tmp_path / "a.yaml", task, **changes))
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split()), result.output
    assert "Traceback" not in result.output


def test_bases_that_cannot_be_trained_are_told(tmp_path):
    tiny.build_flux(tmp_path / "flux")
    tiny.build_git(tmp_path / "git")
    tiny.build_blip(tmp_path / "blip")
    for task, base, message in [
        ("diffusion", "flux", "is a FluxPipeline, and a diffusion training goes on from"),
        ("diffusion", "git", "is no pipeline"),
        ("captioning", "git", "is a git model, and this task goes on from a BlipForConditionalGeneration"),
        ("captioning", "blip", "looks at pictures of 32x32, and image_size is 16"),
        ("contrastive", "blip", "is a blip model, and this task goes on from a CLIPModel"),
        ("autoencoder", "blip", "is no AutoencoderTiny"),
    ]:
        result = panic("train", write(tmp_path / "a.yaml", task, model={"base": base}))
        assert result.exit_code == 2, result.output
        assert message in " ".join(result.output.split()), result.output


def test_a_training_that_fails_exits_with_1(tmp_path):
    changes = {"learning_rate": 1.0, "clip": 1e30, "steps": 400, "weight_decay": 1e30, "evaluate_every": 1000}
    result = panic("train", write(tmp_path / "a.yaml", "contrastive", **changes))
    assert result.exit_code == 1
    assert "is not a number" in result.output
    assert "Try a lower learning_rate" in result.output


def test_a_damaged_checkpoint_is_told(tmp_path):
    config = write(tmp_path / "a.yaml", "autoencoder", steps=2)
    assert panic("train", config).exit_code == 0
    damaged = tmp_path / "model.training" / "step-00000002.pt"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    result = panic("train", config)
    assert result.exit_code == 1
    assert "step-00000002.pt: this checkpoint cannot be read" in result.output
    damaged.unlink()
    assert panic("train", config).exit_code == 0


HELD = """
import sys, time
from panic.train.config import load
from panic.train.training import train

def tell(progress):
    if progress.step == 38:
        time.sleep(600)

train(load(sys.argv[1]), tell)
"""
"""A training that comes to its last steps only when it is killed before."""


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    """SIGKILL of a real process; goes on in this one."""
    changes = {"steps": 40, "checkpoint_minutes": 0.0, "evaluate_every": 1000, "precision": "bf16"}
    pieces, whole = tmp_path / "pieces", tmp_path / "whole"
    for folder in (pieces, whole):
        folder.mkdir()
        write(folder / "a.yaml", "autoencoder", **changes)
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, pieces / "a.yaml"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(process, pieces / "model.training", "step-000000[1-3]?.pt")
    process.kill()
    process.communicate()
    settings = small.config("autoencoder", pieces)
    assert 10 <= small.newest(settings)["step"] < 40
    for folder in (pieces, whole):
        assert panic("train", folder / "a.yaml").exit_code == 0
    a, b = (small.newest(small.config("autoencoder", folder)) for folder in (pieces, whole))
    assert a["step"] == b["step"] == 40
    assert all(torch.equal(x, small.averages(b)[name]) for name, x in small.averages(a).items())
    assert len(small.losses(settings)) == 40


@pytest.mark.slow
def test_a_signal_ends_with_a_checkpoint_and_130(tmp_path):
    config = write(tmp_path / "a.yaml", "autoencoder", steps=100_000, checkpoint_minutes=60.0)
    process = start(config)
    wait_for(process, tmp_path / "model.training", "loss.csv")
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 130
    assert "The same command goes on from there" in error
    assert (tmp_path / "model" / "config.json").exists()
    assert small.newest(small.config("autoencoder", tmp_path))["step"] >= 1


ACCELERATE = ["accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=1",
              "--mixed_precision=no", "--dynamo_backend=no"]  # fmt: skip
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def launched(words: list[str], config: Path) -> str:
    """What a training says that a launcher of processes starts."""
    command = [sys.executable, "-m", *words, "-m", "panic.train", str(config)]
    on_cpu = environment() | {"ACCELERATE_USE_CPU": "true"}  # gloo, also where there is a GPU
    done = subprocess.run(command, env=on_cpu, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_accelerate_starts_it(tmp_path):
    """One process: without MPI it starts no more on a CPU. Its port is 29500 for all of a machine."""
    write(tmp_path / "a.yaml", "diffusion", steps=2, batch_size=8, **_few_samples("diffusion"))
    port = f"--main_process_port={free_ports(1)[0]}"
    assert launched([*ACCELERATE, port], tmp_path / "a.yaml").count("The model is in") == 1
    assert small.newest(small.config("diffusion", tmp_path))["step"] == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", ["contrastive", "diffusion", "captioning"])
def test_two_processes_equal_one(tmp_path, task):
    """Negatives, gradients and noise are those of the whole batch; the main process alone writes."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        write(folder / "a.yaml", task, steps=4, batch_size=8, evaluate_every=2, **_few_samples(task))
    assert launched(TORCHRUN, two / "a.yaml").count("The model is in") == 1
    assert panic("train", one / "a.yaml").exit_code == 0
    a, b = (small.config(task, folder) for folder in (one, two))
    assert_close(small.newest(a), small.newest(b))
    assert small.losses(b) == pytest.approx(small.losses(a), rel=1e-3)
    assert len(small.rows(b, "evaluation")) == 2
    shown = [{path.name: path for path in small.folder_of(c).glob("samples/*")} for c in (a, b)]
    assert shown[0].keys() == shown[1].keys()
    assert len(shown[0]) == (0 if task == "contrastive" else 2)
    for name, path in shown[0].items():
        if path.suffix == ".png":
            alone, together = (np.asarray(Image.open(of[name])).astype(int) for of in shown)
            assert abs(alone - together).max() <= 2
        else:
            assert path.read_text() == shown[1][name].read_text()


SHARED_OUT = """
import os, sys
from pathlib import Path
from panic.train import loop
from tests.train.test_loop import Downhill, Points, downhill

class Telling(Downhill):
    def samples(self, items, first=0):
        who = os.environ["RANK"]
        return "".join(f"{first + place} by {who}\\n" for place in range(len(items)))

class Few(Points):
    def validation(self, n):
        return super().validation(min(n, int(sys.argv[2])))

settings = downhill(Path(sys.argv[1]), steps=2, batch_size=6, evaluate_every=1)
loop.fit(Telling(), Few(), settings)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("number", "makers"),
    [(16, [0] * 6 + [1] * 6 + [2] * 4), (2, [0, 1])],
    ids=["a remainder", "fewer samples than processes"],
)
def test_samples_are_made_by_all_processes(tmp_path, number, makers):
    """Each makes its share of them, by the places that they have in the whole."""
    (tmp_path / "share.py").write_text(SHARED_OUT)
    folder = small.folder_of(downhill(tmp_path)) / "samples"
    words = [*TORCHRUN[:-1], "--nproc-per-node=3", str(tmp_path / "share.py"), str(tmp_path), str(number)]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env=environment() | {"ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    told = "".join(f"{place} by {maker}\n" for place, maker in enumerate(makers))
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "00000001.txt": told,
        "00000002.txt": told,
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_process_on_each_of_two_nodes_equals_one(tmp_path):
    """The same command on both, which meet at one address and have `output` on a shared disk."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        write(folder / "a.yaml", "contrastive", steps=4, batch_size=8, evaluate_every=2)
    words = ["torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"]
    words += [f"--rdzv-endpoint=127.0.0.1:{free_ports(1)[0]}", "-m", "panic.train", str(two / "a.yaml")]
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", *words],
            env=environment() | {"ACCELERATE_USE_CPU": "true"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [node.communicate(timeout=800) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert sum(out.count("The model is in") for out, _ in said) == 1
    assert panic("train", one / "a.yaml").exit_code == 0
    a, b = (small.config("contrastive", folder) for folder in (one, two))
    assert_close(small.newest(a), small.newest(b))
    assert small.losses(b) == pytest.approx(small.losses(a), rel=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_that_are_stopped_go_on_as_one(tmp_path):
    """Slurm's warning goes to the launcher, which passes it on; the checkpoint is that of any number."""
    config = write(tmp_path / "a.yaml", "autoencoder", steps=100_000, batch_size=4, checkpoint_minutes=60.0)
    command = [sys.executable, "-m", *TORCHRUN, "-m", "panic.train", str(config)]
    process = subprocess.Popen(
        command,
        env=environment() | {"ACCELERATE_USE_CPU": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(process, tmp_path / "model.training", "loss.csv")
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=LONGEST_S)
    assert process.returncode != 0
    step = small.newest(small.config("autoencoder", tmp_path))["step"]
    assert step >= 1, error
    done = panic("train", config, "--set", f"steps={step + 1}")
    assert done.exit_code == 0, done.output


def _few_samples(task: str) -> dict[str, int]:
    return {"sample_steps": 1} if task == "diffusion" else {}


def test_a_trained_model_says_which_training_it_came_out_of(tmp_path: Path) -> None:
    done = panic("train", write(tmp_path / "train.yaml", "contrastive", steps=1), "--quiet")
    assert done.exit_code == 0, done.output
    model = Path(small.raw("contrastive", tmp_path)["output"])
    uid = training_of(model)
    assert uid == json.loads((model / TRAINED).read_text())["training"]
    (model / TRAINED).unlink()
    assert training_of(model) == uid  # of the folder of its checkpoints
    [line] = model.with_name(f"{model.name}.training").joinpath("sessions.jsonl").read_text().splitlines()
    assert json.loads(line)["provenance"]["packages"]["torch"]
