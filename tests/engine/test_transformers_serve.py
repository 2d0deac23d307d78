"""A model behind a server of somebody else: `transformers serve` with a tiny language model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from panic import run
from panic.config import ExperimentConfig
from panic.store import Store, check, reading, served
from tests import tiny_language
from tests.ports import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_language.build("qwen3", tmp_path / "tiny")


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    from transformers.utils.import_utils import is_serve_available

    if not is_serve_available():
        pytest.skip("transformers serve needs pip install 'transformers[serving]'")
    [port] = free_ports(1)
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = folder.parent / "server.log"
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    try:
        while not _answers(port):
            assert server.poll() is None, log.read_text()[-3000:]
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.communicate()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_chats_with_transformers_serve(url: str, folder: Path, tmp_path: Path) -> None:
    model = {"base": f"openai:{folder}", "base_url": url, "task": "text-to-text", "max_tokens": 12}
    config = ExperimentConfig.model_validate(
        {
            "name": "served",
            "networks": [["chat"], ["chat", "upper-case"]],
            "models": {"chat": {**model, "concurrency": 3}},
            "prompts": ["a red circle", "a blue square", "äöü ✓"],
            "seeds": [42],
            "max_length": 4,
            "device": "cpu",
        }
    )
    outcome = run(config, tmp_path / "store")
    assert (outcome.state, outcome.counts.invocations) == ("complete", 24)
    run(config, tmp_path / "store")
    with Store(tmp_path / "store") as store:
        assert check.check(store) == []
        assert [run.state for run in reading.runs(store)] == ["done"] * 6
        [told] = served.served_models(store, 1)
        assert told.requests == 18
        assert told.output_tokens == 18 * 12
        assert told.input_tokens > 18 * 12
