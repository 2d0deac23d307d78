"""Messages between processes: what arrives is what was sent, images beside it, and an end is an end."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from panic.engine.calls import Call, CallResult
from panic.engine.channel import STRETCHES_AT_ONCE, Channel
from panic.engine.contents import Output
from panic.models.protocol import Modality


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    first, second = (Channel(end.detach()) for end in socket.socketpair())
    yield first, second
    for end in (first, second):
        if not end.closed:
            end.close()


def sent(ends: tuple[Channel, Channel], message: Any) -> Any:
    """What arrives of a message that is longer than the pipe holds."""
    sender = threading.Thread(target=ends[0].send, args=(message,))
    sender.start()
    arrived = ends[1].recv()
    sender.join()
    return arrived


def noise(seed: int, *size: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


def test_a_message_arrives_as_it_was_sent(ends: tuple[Channel, Channel]) -> None:
    images = [noise(1, 512, 500), noise(2, 1, 1), noise(3, 64, 32)]
    call = Call(number=3, model="m", batch_size=4, inputs=["é", *images], seeds=[1, 2, 3, 2**62])
    arrived = sent(ends, call)
    assert (arrived.number, arrived.seeds, arrived.inputs[0]) == (3, call.seeds, "é")
    assert [image.tobytes() for image in arrived.inputs[1:]] == [image.tobytes() for image in images]
    assert [image.size for image in arrived.inputs[1:]] == [(500, 512), (1, 1), (32, 64)]
    assert sent(ends, ("invoking", 3)) == ("invoking", 3)
    assert sent(ends, None) is None


def test_more_images_than_the_system_takes_at_once(ends: tuple[Channel, Channel]) -> None:
    outputs = [
        Output(Modality.IMAGE, bytes([n % 256]), noise(n, 4, 4)) for n in range(2 * STRETCHES_AT_ONCE + 3)
    ]
    arrived = sent(ends, CallResult(number=1, outputs=outputs))
    assert [(one.modality, one.digest, one.value.tobytes()) for one in arrived.outputs] == [
        (one.modality, one.digest, one.value.tobytes()) for one in outputs
    ]


def test_vectors_that_arrived_stay_as_they_are(ends: tuple[Channel, Channel]) -> None:
    """The memory that they arrive in is theirs."""
    first = sent(ends, [np.arange(5, dtype=np.float32), np.zeros((0, 3))])
    sent(ends, [np.full(5, 7, np.float32), noise(1, 64, 64)])
    assert first[0].tolist() == [0, 1, 2, 3, 4]
    assert first[1].shape == (0, 3)
    first[0][0] = 9


def test_images_that_no_model_gave_arrive_too(ends: tuple[Channel, Channel]) -> None:
    gray, marked = noise(1, 8, 8).convert("L"), noise(2, 8, 8)
    marked.info["what"] = "kept"
    arrived = sent(ends, [gray, marked])
    assert arrived[0].mode == "L"
    assert arrived[0].tobytes() == gray.tobytes()
    assert arrived[1].info == {"what": "kept"}


def test_what_cannot_be_sent_leaves_the_pipe_as_it_was(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(Exception, match="pickle"):
        ends[0].send([noise(1, 8, 8), lambda: None])
    assert sent(ends, "next") == "next"


def test_an_end_within_a_message_is_told(ends: tuple[Channel, Channel]) -> None:
    first, second = ends
    data = os.dup(second.fileno())
    sender = threading.Thread(target=first.send, args=([noise(1, 16, 16)],))
    sender.start()
    sender.join()
    whole = os.read(data, 2**20)
    for cut in (0, 2, 10, len(whole) - 1):
        here, there = socket.socketpair()
        with Channel(there.detach()) as cut_off, here:
            here.sendall(whole[:cut])
            here.shutdown(socket.SHUT_WR)
            with pytest.raises((EOFError, OSError)):
                cut_off.recv()
    os.close(data)
