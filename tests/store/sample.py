"""A small real store with something of everything, for the tests of the store and of what reads it.

Experiment "alpha" has a run that gets stuck, one with fresh noise, one that fails and one that is
untouched; "beta" shares a prompt and a picture with it. The content does not depend on `shuffled`,
row numbers and batches do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from panic.store import (
    Commit,
    NewBatch,
    NewDiagram,
    NewEmbedding,
    NewFailure,
    NewInvocation,
    NewOutput,
    NewRun,
    NewStuck,
    Store,
    writing,
)
from panic.store.annotations import annotate, find_target
from panic.store.codec import encode_image, image_digest, text_digest
from panic.store.signing import Author
from panic.store.trainings import TrainingRow

NETWORK = ("draw", "tell")
SETTINGS = {"max_dimension": 1, "metric": "euclidean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    alpha: int
    beta: int
    draw: int
    tell: int
    embed: int
    stuck: int
    noisy: int
    failed: int
    untouched: int
    shared: int


def picture(number: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    """A picture of noise that its number determines."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def output(content: str | Image.Image) -> NewOutput:
    if isinstance(content, str):
        return NewOutput(digest=text_digest(content), modality="text", text=content)
    return NewOutput(
        digest=image_digest(content),
        modality="image",
        width=content.width,
        height=content.height,
        image=encode_image(content),
    )


def batch(store: Store, session: int, model: int, size: int = 1) -> NewBatch:
    return NewBatch(
        id=writing.next_batch_id(store),
        session=session,
        model=model,
        epoch=0,
        device="cpu",
        size=size,
        padded_size=8,
        started_at=time.time(),
        duration_s=0.25,
    )


def steps(
    store: Store,
    session: int,
    models: tuple[int, int],
    run: int,
    prompt: str,
    contents: list[str | Image.Image],
    seed: int = 42,
) -> Commit:
    """Everything to commit for the steps of a run that put out `contents`, one batch per step."""
    found = Commit()
    before = text_digest(prompt)
    for step, content in enumerate(contents):
        made = output(content)
        call = batch(store, session, models[step % 2])
        found.batches.append(call)
        found.outputs.append(made)
        found.invocations.append(NewInvocation(run, step, before, made.digest, seed, call.id))
        before = made.digest
    return found


def remark(store: Store, experiment: str, text: str, kind: str = "comment") -> int:
    """Say something of an experiment."""
    return annotate(store, kind, [(find_target(store, experiment), text)], Author(name="me"))


def fill(store: Store, *, shuffled: bool = False) -> Sample:
    """Store the sample; `shuffled` in another order, with other row numbers."""
    if shuffled:
        writing.add_model(store, "unused", "fingerprint of nobody", {})
        writing.next_batch_id(store)
    order = -1 if shuffled else 1
    draw, tell, embed = (
        writing.add_model(store, n, f"fingerprint of {n}", {"name": n}) for n in (*NETWORK, "embed")
    )
    experiments = {
        name: writing.start_experiment(store, name, {"name": name, "max_length": 6})
        for name in ("alpha", "beta")[::order]
    }
    alpha, beta = experiments["alpha"], experiments["beta"]
    for name, model in (("draw", draw), ("tell", tell), ("embed", embed)):
        for experiment in (alpha, beta):
            writing.add_epoch(
                store, experiment, name, model=model, batch_size=8, device_kind="cpu", threads=1
            )
    wanted = [
        NewRun(network=NETWORK, prompt="a", seed=42, max_length=6),
        NewRun(network=NETWORK, prompt="a", seed=-1, max_length=4),
        NewRun(network=NETWORK, prompt="z", seed=42, max_length=6),
        NewRun(network=NETWORK, prompt="untouched", seed=42, max_length=6),
    ]
    numbers = writing.add_runs(store, alpha, wanted[::order])[::order]
    stuck, noisy, failed, untouched = numbers
    (shared,) = writing.add_runs(store, beta, [NewRun(network=NETWORK, prompt="a", seed=7, max_length=2)])

    models = (draw, tell)
    first = writing.start_session(store, alpha, "panic run alpha.yaml", {"host": "here"})
    commits = [
        steps(store, first, models, stuck, "a", [picture(1), "b", picture(2), "b"]),
        steps(store, first, models, noisy, "a", [picture(3), "c", picture(1), "a"], seed=5),
        steps(store, first, models, failed, "z", [picture(4)]),
    ]
    commits[0].stuck.append(NewStuck(run=stuck, entry_step=2, period=2))
    commits[2].failures.append(
        NewFailure(run=failed, step=1, kind="empty text", message="nothing", attempts=3)
    )
    for commit in commits[::order]:
        writing.commit(store, commit)
    writing.end_session(store, first, "done")

    second = writing.start_session(store, beta, "panic run beta.yaml", {"host": "here"})
    writing.commit(store, steps(store, second, models, shared, "a", [picture(1), "d"], seed=7))

    call = batch(store, second, embed, size=4)
    vectors = [
        NewEmbedding(output=text_digest(t), model=embed, batch=call.id, vector=np.full(3, ord(t), np.float32))
        for t in ("a", "b", "c", "d")[::order]
    ]
    writing.commit(store, Commit(batches=[call], embeddings=vectors))
    diagram = NewDiagram(
        run=stuck,
        model=embed,
        settings=SETTINGS,
        settings_digest="settings",
        num_points=2,
        num_unique=1,
        bars={0: np.array([[0.0, 0.5], [0.0, np.inf]]), 1: np.empty((0, 2))},
        generators={0: np.array([[0, 1, 2]])},
    )
    writing.commit(store, Commit(diagrams=[diagram]))
    return Sample(
        alpha=alpha,
        beta=beta,
        draw=draw,
        tell=tell,
        embed=embed,
        stuck=stuck,
        noisy=noisy,
        failed=failed,
        untouched=untouched,
        shared=shared,
    )


def entry(name: str, **changes: Any) -> TrainingRow:
    """A training of this name that another host performed and did not end."""
    values = {
        "uid": (name.encode().hex() * 64)[:64],
        "folder": f"/somewhere/{name}",
        "name": name,
        "task": "diffusion",
        "config": {"learning_rate": 0.1},
        "provenance": {"command": ["panic", "train"]},
        "host": "elsewhere",
        "pid": 1,
        "steps": 10,
        "measures": {},
        "seconds": 1.0,
        **dict.fromkeys(("created_at", "started_at", "updated_at"), 1.0),
    }
    return TrainingRow(**(values | changes))
