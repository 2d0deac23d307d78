"""A server that answers every request after a fixed time and costs next to nothing, to measure a client.

Of a request only its length is read. The time is kept to a tenth of a millisecond: `epoll`, which asyncio
waits with by default, rounds it up to whole ones, so that every answer would be one too late.

python -m benchmarks.answering_server 0.05          # prints its port
"""

from __future__ import annotations

import asyncio
import re
import selectors
import sys
from itertools import count

BODY = b'{"choices":[{"message":{"content":"%d"}}],"usage":{"prompt_tokens":9,"completion_tokens":3}}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
NUMBERS = count(1)


class Answers(asyncio.Protocol):
    """One connection: each request is answered after `delay_s`, with a text that no other has."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s, self._data = delay_s, b""
        self._later = asyncio.get_running_loop().call_later

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head_end = self._data.find(b"\r\n\r\n") + 4
        if head_end < 4 or (length := LENGTH.search(self._data, 0, head_end)) is None:
            return
        request_end = head_end + int(length[1])
        if len(self._data) >= request_end:
            self._data = self._data[request_end:]
            self._later(self._delay_s, self._answer)

    def _answer(self) -> None:
        body = BODY % next(NUMBERS)
        self._transport.write(HEAD % len(body) + body)


async def main(delay_s: float) -> None:
    """Serve on a free port until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Answers(delay_s), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(main(float(sys.argv[1])))
