"""Small copies of images, made in processes: as the thread that asks would make them, whatever comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from panic.store.codec import encode_image
from panic.store.thumbnails import shrunk
from panic.view.shrinking import Shrinkers
from tests.patience import LONGEST_S


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    noise = np.random.default_rng(0)
    return [
        encode_image(Image.fromarray(noise.integers(0, 255, (300, 200 + n, 3), dtype=np.uint8)))
        for n in range(4)
    ]


@pytest.fixture
def shrink() -> Iterator[Shrinkers]:
    with closing(Shrinkers(2)) as found:
        deadline = time.monotonic() + LONGEST_S
        while found.num_ready < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert found.num_ready == 2
        yield found


def test_many_threads_get_their_own_images(shrink: Shrinkers, images: list[bytes]) -> None:
    found: dict[int, bytes] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: shrink(images[n % 4], 64 + n)}))
        for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: shrunk(images[n % 4], 64 + n) for n in range(12)}
    assert shrink(images[0], 512) == images[0], "small enough"
    assert shrink(b"RIFF0000WEBPdamaged", 64) == b"RIFF0000WEBPdamaged"
    assert shrink(images[1], 64) == shrunk(images[1], 64), "the process goes on after it"


def test_without_processes_the_thread_does_it_itself(shrink: Shrinkers, images: list[bytes]) -> None:
    for child in shrink.children:
        child.kill()
        child.wait()
    for _ in range(3):
        assert shrink(images[0], 64) == shrunk(images[0], 64)
    assert shrink.num_ready == 0
    with closing(Shrinkers(0)) as none:
        assert none(images[0], 64) == shrunk(images[0], 64)
