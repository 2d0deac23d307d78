"""A server of the web view beside the test, and a store whose every step is known."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

from panic.store import Commit, NewEmbedding, NewRun, Store, contents, reading, writing
from panic.store.codec import text_digest
from panic.view.access import Access
from panic.view.server import Application, application, listening
from tests.patience import LONGEST_S
from tests.store import sample

HOSTILE = (
    "<script>document.body.dataset.owned=1</script>"
    '<img src=x onerror="document.body.dataset.owned=2"> "quotes" \u202eRTL'
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: status, headers by lower-case name, bytes."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server that answers."""

    port: int
    access: Access
    app: Application
    server: uvicorn.Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/?token={self.access.token}"

    def get(self, path: str, *, with_token: bool = True, **how: Any) -> Answer:
        """Ask for a path; headers may be given, by name with _ for -."""
        headers = {name.replace("_", "-"): value for name, value in how.pop("headers", {}).items()}
        if with_token:
            headers.setdefault("Authorization", f"Bearer {self.access.token}")
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, headers=headers, **how)
        try:
            with urllib.request.urlopen(request, timeout=LONGEST_S) as answer:
                return Answer(
                    status=answer.status, headers={k.lower(): v for k, v in answer.headers.items()},
                    body=answer.read(),
                )  # fmt: skip
        except urllib.error.HTTPError as error:
            headers = {k.lower(): v for k, v in error.headers.items()}
            return Answer(status=error.code, headers=headers, body=error.read())

    def post(self, path: str, said: Any, **headers: str) -> Answer:
        """Write, with the value that this session was given."""
        write = self.get("/api/1/session").json["write"]
        return self.get(
            path,
            method="POST",
            data=json.dumps(said).encode(),
            headers={"x_panic_write": write or "", **headers},
        )


@contextmanager
def serving(*paths: Path, port: int = 0, trainings: Sequence[Path] = (), **how: Any) -> Iterator[Served]:
    access = Access(hosts=("127.0.0.1", "localhost"), scope="test", **{"is_writable": True, **how})
    app = application(paths, access, trainings)
    listener = listening("127.0.0.1", port)
    # As the product's: a browser's connection on which nothing is ever asked keeps no server from its end.
    config = uvicorn.Config(
        app.asgi, log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Served(port=listener.getsockname()[1], access=access, app=app, server=server)
    finally:
        app.events.stop()
        server.should_exit = True
        thread.join(LONGEST_S)
        listener.close()
    assert not thread.is_alive(), "the server does not end"


@contextmanager
def kept_port() -> Iterator[int]:
    """A port that nobody else is given, whether or not a server of ours listens on it."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


@pytest.fixture
def known(tmp_path: Path) -> tuple[Path, sample.Sample]:
    """The sample store of the store's tests, closed."""
    with Store(tmp_path / "panic-store", write=True, create=True) as store:
        return tmp_path / "panic-store", sample.fill(store)


LENGTH = 12


class Looked:
    """A store of an experiment "wall" that is written while it is looked at; every run's outputs are known.

    outputs: digests by run and step.
    """

    def __init__(self, path: Path, num_runs: int = 6) -> None:
        self.store = Store(path, write=True, create=True)
        writing.start_experiment(self.store, "wall", {"name": "wall", "max_length": LENGTH})
        self.experiment = reading.experiment(self.store, "wall").id
        self.models = tuple(
            writing.add_model(self.store, name, f"fingerprint of {name}", {"name": name, "modality_out": end})
            for name, end in (("draw", "image"), ("tell", "text"))
        )
        self.session = writing.start_session(self.store, self.experiment, "panic run wall.yaml", {})
        self.outputs: dict[int, list[str]] = {}
        self.runs = [self.add(f"prompt {number}") for number in range(num_runs)]

    def add(self, prompt: str, *, seed: int = -1) -> int:
        """A run without a step."""
        writing.commit(self.store, Commit(outputs=[sample.output(prompt)]))
        new = NewRun(
            network=("draw", "tell"), prompt=prompt, seed=seed, repeat=0 if seed != -1 else len(self.outputs),
            max_length=LENGTH,
        )  # fmt: skip
        (run,) = writing.add_runs(self.store, self.experiment, [new])
        self.outputs[run] = []
        return run

    def step(self, run: int, *texts: str) -> None:
        """Two further steps of a run for every text: an image, the text."""
        done = len(self.outputs[run])
        made_of = [
            one
            for number, text in enumerate(texts)
            for one in (sample.picture(run * 1000 + done + number, (300, 200)), text)
        ]
        made = sample.steps(self.store, self.session, self.models, run, "unused", made_of, 1)
        before = self.outputs[run][-1] if done else reading.runs(self.store, only=[run])[0].prompt
        first = bytes.fromhex(before) if done else text_digest(before)
        invocations = [one._replace(step=one.step + done) for one in made.invocations]
        invocations[0] = invocations[0]._replace(input=first)
        made = Commit(batches=made.batches, outputs=made.outputs, invocations=invocations)
        writing.commit(self.store, made)
        self.outputs[run] += [one.output.hex() for one in invocations]

    def embed(self) -> None:
        """A vector for every text, of a model called "embed"."""
        spec = {"modalities_in": ["text"], "modality_out": "vector"}
        model = writing.add_model(self.store, "embed", "fingerprint of embed", spec)
        writing.add_epoch(
            self.store, self.experiment, "embed", model=model, batch_size=8, device_kind="cpu", threads=1
        )
        rng = np.random.default_rng(0)
        texts = [one for one in contents.outputs(self.store, "wall") if one.modality == "text"]
        batch = sample.batch(self.store, self.session, model)
        vectors = [
            NewEmbedding(
                output=bytes.fromhex(one.digest), model=model, batch=batch.id,
                vector=rng.normal(size=5).astype(np.float32),
            )
            for one in texts
        ]  # fmt: skip
        writing.commit(self.store, Commit(batches=[batch], embeddings=vectors))


Shared = tuple[Served, Path, sample.Sample]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A server of the sample store for all tests of a module that change nothing."""
    path = tmp_path_factory.mktemp("shared") / "panic-store"
    with Store(path, write=True, create=True) as store:
        known = sample.fill(store)
    with serving(path) as found:
        yield found, path, known


@pytest.fixture
def served(known: tuple[Path, sample.Sample]) -> Iterator[Served]:
    with serving(known[0]) as found:
        yield found
