"""The engine against the plain loop that a user would write by hand, on tiny real pipelines.

By hand: for every run and step one call of a diffusers pipeline or a transformers captioner, a PNG file per
image, one SQLAlchemy object and commit per row. Same models, prompts and seeds per item; both include loading
the models, the engine also the start of its second worker. They take turns, each in a process of its own: in
a process that had run the loop before, the engine was a third slower. Figures go to
benchmarks/results/handwritten.json.

    pytest benchmarks/test_handwritten.py -m ''
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoPipelineForText2Image
from sqlalchemy import ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.record import record
from panic import run
from panic.config import ExperimentConfig
from panic.engine.plan import run_root, step_seed
from tests import tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LOOP_STEPS, ENGINE_STEPS = 20, 320  # a rate each; the loop's does not change with its length
PROMPTS, REPEATS = 4, 8
BATCH_SIZE = 16  # two batches of the 32 runs: one for each of two workers
DIFFUSION_STEPS, MAX_NEW_TOKENS = 4, 12
TURNS = 1
TEXTS = ["a red circle", "two dogs under a tree", "x", "the sea at night"]
ROOT = Path(__file__).parents[1]


class Base(DeclarativeBase):
    """Tables as one would write them down."""


class Run(Base):
    __tablename__ = "run"
    id: Mapped[int] = mapped_column(primary_key=True)
    prompt: Mapped[str]
    repeat: Mapped[int]


class Invocation(Base):
    __tablename__ = "invocation"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("run.id"))
    step: Mapped[int]
    seed: Mapped[int]
    text: Mapped[str | None]
    image: Mapped[str | None]


def plain_loop(models: Path, folder: Path, prompts: list[str], size: int, steps: int) -> int:
    """Perform all runs, one call per run and step; number of invocations."""
    folder.mkdir()
    pipeline = AutoPipelineForText2Image.from_pretrained(models / "sd")
    pipeline.set_progress_bar_config(disable=True)
    captioner = AutoModelForImageTextToText.from_pretrained(models / "blip").eval()
    processor = AutoProcessor.from_pretrained(models / "blip")
    engine = create_engine(f"sqlite:///{folder / 'runs.sqlite'}")
    Base.metadata.create_all(engine)
    count = 0
    with Session(engine) as session, torch.inference_mode():
        for prompt in prompts:
            for repeat in range(REPEATS):
                row = Run(prompt=prompt, repeat=repeat)
                session.add(row)
                session.commit()
                root = run_root(0, ["draw", "caption"], prompt, repeat)
                text, picture = prompt, None
                for step in range(steps):
                    seed = step_seed(root, step)
                    path = None
                    if step % 2 == 0:
                        picture = pipeline(
                            text,
                            num_inference_steps=DIFFUSION_STEPS,
                            height=size,
                            width=size,
                            generator=torch.Generator().manual_seed(seed),
                        ).images[0]
                        path = folder / f"{row.id}_{step}.png"
                        picture.save(path)
                    else:
                        inputs = processor(images=picture, return_tensors="pt")
                        tokens = captioner.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS)
                        text = processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
                    session.add(
                        Invocation(
                            run_id=row.id,
                            step=step,
                            seed=seed,
                            text=None if path else text,
                            image=str(path) if path else None,
                        )
                    )
                    session.commit()
                    count += 1
    engine.dispose()
    return count


def config_of(models: Path, prompts: list[str], size: int, steps: int, workers: int) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "name": "handwritten",
            "networks": [["draw", "caption"]],
            "models": {
                "draw": {
                    "base": f"local:{models / 'sd'}",
                    "steps": DIFFUSION_STEPS,
                    "width": size,
                    "height": size,
                },
                "caption": {"base": f"local:{models / 'blip'}", "max_new_tokens": MAX_NEW_TOKENS},
            },
            "prompts": prompts,
            "seeds": [-1],
            "repeats": REPEATS,
            "max_length": steps,
            "device": "cpu",
            "workers": workers,
            "batch_sizes": dict.fromkeys(["draw", "caption"], BATCH_SIZE * 2 // workers),
        }
    )


def measure(who: str, models: str, folder: str, size: int, share: int, steps: int) -> None:
    """Print the invocations per second of the loop or of the engine; runs in a process of its own.

    share: torch's threads for the loop, workers of one thread for the engine.
    """
    start = time.perf_counter()
    if who == "loop":
        torch.set_num_threads(share)
        count = plain_loop(Path(models), Path(folder), TEXTS, size, steps)
    else:
        config = config_of(Path(models), TEXTS, size, steps, share)
        count = run(config, folder).counts.invocations
    seconds = time.perf_counter() - start
    assert count == steps * PROMPTS * REPEATS
    print(count / seconds)


@pytest.mark.parametrize("size", [64, 32])
def test_throughput_against_a_plain_loop(tmp_path: Path, benchmark: Any, size: int) -> None:
    """32 runs; best of the turns. The loop runs with one thread and with torch's own number of them.

    The engine runs with one worker of one thread and with two; the faster loop and the two workers count. On
    a busy machine a loop with two threads may take ten times as long: PLAIN_LOOP_THREADS=1 leaves it out.
    """
    tiny.build_stable_diffusion(tmp_path / "sd")
    tiny.build_blip(tmp_path / "blip")
    asked = os.environ.get("PLAIN_LOOP_THREADS", f"1,{torch.get_num_threads()}")
    by_hand: dict[int, list[float]] = {int(threads): [] for threads in asked.split(",")}
    engine: dict[int, list[float]] = {1: [], 2: []}

    def turn(who: str, share: int, steps: int, number: int) -> float:
        code = (
            "import sys; from benchmarks.test_handwritten import measure; "
            f"measure({who!r}, sys.argv[1], sys.argv[2], {size}, {share}, {steps})"
        )
        folder = tmp_path / f"{who}-{share}-{number}"
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), str(folder)],
            capture_output=True, text=True, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return float(done.stdout.split()[-1])

    def take_turns() -> None:
        for threads, speeds in by_hand.items():
            speeds.append(turn("loop", threads, LOOP_STEPS, len(speeds)))
        for workers, speeds in engine.items():
            speeds.append(turn("engine", workers, ENGINE_STEPS, len(speeds)))

    benchmark.pedantic(take_turns, rounds=TURNS)
    fastest_loop = max(max(speeds) for speeds in by_hand.values())
    ratio = max(engine[2]) / fastest_loop
    record(
        f"throughput against a plain loop, tiny pipelines, {size} px, 32 runs", max(engine[2]),
        unit="invocations/s", baseline=fastest_loop, ratio=ratio, limit=8.0, file="handwritten",
        engine_by_workers={str(workers): speeds for workers, speeds in engine.items()},
        plain_loop_by_threads={str(threads): speeds for threads, speeds in by_hand.items()},
        input=f"32 runs; {ENGINE_STEPS} steps by the engine, {LOOP_STEPS} by hand; {DIFFUSION_STEPS} "
        f"diffusion steps, {MAX_NEW_TOKENS} tokens; batches of {BATCH_SIZE} with two workers",
    )  # fmt: skip
    assert ratio >= 8
