"""A server that answers every request after a fixed time and costs next to nothing, to measure a client.

python -m benchmarks.answering_server 0.05          # prints its port
"""

from __future__ import annotations

import asyncio
import sys

BODY = b'{"choices":[{"message":{"content":"%d"}}],"usage":{"prompt_tokens":9,"completion_tokens":3}}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


class Answers(asyncio.Protocol):
    """One connection: each request is answered after `delay_s`, with a text that no other has."""

    number = 0

    def __init__(self, delay_s: float) -> None:
        self._delay_s, self._data = delay_s, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields[b"content-length"])
        if len(body) >= length:
            self._data = body[length:]
            asyncio.get_running_loop().call_later(self._delay_s, self._answer)

    def _answer(self) -> None:
        Answers.number += 1
        body = BODY % Answers.number
        self._transport.write(HEAD % len(body) + body)


async def main(delay_s: float) -> None:
    """Serve on a free port until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Answers(delay_s), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
