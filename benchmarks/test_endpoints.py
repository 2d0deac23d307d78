"""What asking an endpoint costs, beside what its server takes.

Figures go to benchmarks/results/endpoints.json.

    pytest benchmarks/test_endpoints.py -m ''
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.record import record
from panic import run
from panic.config import ExperimentConfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
ROOT = Path(__file__).parents[1]
FILE = "endpoints"
REQUESTS, CONCURRENCY, DELAY_S = 2000, 32, 0.05
LEAST_SHARE = 0.9
NOTE = "2,000 requests of chat, 200 runs x 10 steps, a server of its own process that answers after 50 ms"


@pytest.fixture
def url() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.answering_server", str(DELAY_S)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert server.stdout is not None
    yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    server.kill()
    server.communicate()


def test_requests_per_second(url: str, tmp_path: Path) -> None:
    model = {"base": "openai:x", "base_url": url, "task": "text-to-text", "concurrency": CONCURRENCY}
    config = ExperimentConfig.model_validate(
        {
            "name": "served",
            "networks": [["chat"]],
            "models": {"chat": model},
            "prompts": [f"prompt {number}" for number in range(REQUESTS // 10)],
            "seeds": [42],
            "max_length": 10,
            "device": "cpu",
        }
    )
    cpu, start = time.process_time(), time.perf_counter()
    assert run(config, tmp_path / "store").counts.invocations == REQUESTS
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    most = CONCURRENCY / DELAY_S
    rate = REQUESTS / seconds
    record(
        "endpoint.requests_per_s",
        rate,
        unit="1/s",
        baseline=most,
        ratio=rate / most,
        limit=LEAST_SHARE * most,
        file=FILE,
        cpu_ms_per_request=1e3 * cpu / REQUESTS,
        note=NOTE,
    )
    assert rate >= LEAST_SHARE * most
