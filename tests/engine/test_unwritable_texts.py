r"""Texts that no file can hold (lone surrogates, which JSON writes as "\ud800") end their own run.

They come as outputs, and in what models and servers say of a failure.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from panic import run
from panic.store import Store, check, reading
from tests.engine.conftest import make_config
from tests.engine.endpoint_server import Server
from tests.engine.test_endpoints import endpoint_config

MODELS = r"""
from panic.errors import OutputRejected

class Own(str):
    pass

class Tell:
    modality_in = modality_out = "text"
    size_bytes, batch_size = 0, 1
    def load(self, device): pass
    def invoke(self, inputs, seeds):
        if inputs[0].startswith("raise"):
            raise ValueError("a \ud800 b")
        if inputs[0].startswith("reject"):
            return [OutputRejected("a \ud800 b")]
        if inputs[0].startswith("refuse"):
            raise OutputRejected("a \ud800 b", hint="c \ud800")
        return [Own("a \ud800 b") if inputs[0].startswith("say") else inputs[0] + "!"]
"""
SAID = r"a \ud800 b"


@pytest.mark.parametrize("executor", ["local", "process"])
def test_what_a_users_class_says_of_a_failure_is_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, executor: str
) -> None:
    (tmp_path / "own.py").write_text(MODELS)
    config = make_config(
        networks=[[f"python:{tmp_path}/own.py:Tell"]],
        models={},
        batch_sizes={},
        prompts=["good", "raise", "reject", "refuse", "say"],
        seeds=[42],
        repeats=1,
        max_length=3,
        max_retries=0,
        executor=executor,
    )
    assert run(config, tmp_path / "s").state == "failed"
    with Store(tmp_path / "s") as store:
        runs = {row.prompt: row for row in reading.runs(store)}
        assert check.check(store) == []
    assert runs.pop("good").num_steps == 3
    assert SAID in caplog.text
    assert caplog.text.encode(), "what is logged can be written"
    reasons = {prompt: row.failure.message for prompt, row in runs.items() if row.failure}
    assert reasons.pop("say") == "text that is not valid Unicode"
    assert reasons == {"raise": f"ValueError: {SAID}", "reject": SAID, "refuse": SAID}


def test_what_a_server_says_of_a_failure_is_stored(tmp_path: Path) -> None:
    answers = {
        1: r'{"error": {"message": "a \ud800 b", "code": "\ud800"}}',
        2: r'{"choices": [{"message": {"content": null, "refusal": "a \ud800 b"}}]}',
        3: r'{"choices": [{"message": {"content": "a \ud800 b"}}], "model": "\ud800"}',
    }
    with Server(faults=lambda number: answers.get(number, "")) as server:
        config = endpoint_config(server, max_length=1, max_retries=0, model={"concurrency": 1})
        assert run(config, tmp_path / "s").state == "failed"
        port = server.port
    with Store(tmp_path / "s") as store:
        found = [row.failure.message for row in reading.runs(store) if row.failure]
        assert check.check(store) == []
    assert sorted(found) == [
        f"127.0.0.1:{port}: answers 400: {SAID}",
        "text that is not valid Unicode",
        f"the model refuses: {SAID}",
    ]
