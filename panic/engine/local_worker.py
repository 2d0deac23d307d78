"""Models in a thread of this process: begins at once, and takes this process along if a model does.

worker = LocalWorker(ServerSettings(device="cpu", specs={...}), build, inbox.put)
worker.submit(Call(model="blip", batch_size=8, inputs=images, seeds=seeds))
inbox.get()
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from panic.engine.calls import Call, CallResult
from panic.engine.serving import CallServer, ServerSettings
from panic.models.protocol import Model
from panic.models.spec import ModelSpec


class LocalWorker:
    """Runs models in a thread of this process: for the CPU and the simulated device.

    The thread "models" owns the server and its cache; the thread "finish" only checks and hashes what came
    out.
    """

    is_ready = True

    def __init__(
        self,
        settings: ServerSettings,
        build: Callable[[ModelSpec], Model],
        deliver: Callable[[CallResult], None],
    ) -> None:
        self._deliver = deliver
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._server = CallServer(settings, build)
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="finish")
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)
        self._thread.start()

    def submit(self, call: Call) -> None:
        self._calls.put(call)

    def check(self) -> None:
        """Do nothing: a thread cannot be killed, time limits need a process."""

    def close(self) -> None:
        self._calls.put(None)
        self._thread.join()
        self._finisher.shutdown()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            result, raw = self._server.serve(call)
            self._finisher.submit(self._finish, call, result, raw)
        self._server.close()

    def _finish(self, call: Call, result: CallResult, raw: list[Any]) -> None:
        self._deliver(self._server.finish(call, result, raw))
