"""What a store's one writer costs per image and text, and what follows for 8, 64 and 512 GPUs.

Measured here: processor seconds of the driver's process by thread, with images of 512 and 1024 px that come
from four child processes; encoding of images as photographs are, which compress worse than drawn discs; bytes
per second onto this disk. The rest is arithmetic, which docs/clusters.md shows. Figures go to
benchmarks/results/cluster.json.

    python -m benchmarks.cluster_costs
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.record import record
from benchmarks.threads import watch
from benchmarks.workload import synthetic_config
from panic import run
from panic.config import ExperimentConfig
from panic.store.codec import encode_image

SIDES = (512, 1024)
FILE = "cluster"
CORES = 16
"""Of the host of a driver, which encodes with eight of them."""
ENCODERS = 8
NETWORK_BYTES_PER_S = 1.25e9
"""Ten gigabit a second: what snapshots to a shared file system take at most."""
TOTAL = 3_700_000
GPUS = (8, 64, 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """A pair of models: seconds of a GPU per image and per text, and the side of the images."""

    name: str
    image_s: float
    text_s: float
    side: int

    @property
    def invocations_per_s(self) -> float:
        """Of one GPU."""
        return 2 / (self.image_s + self.text_s)


SPEEDS = (
    Speed(name="SDXL-turbo-like", image_s=0.1, text_s=0.02, side=512),
    Speed(name="FLUX-like", image_s=2.5, text_s=0.05, side=1024),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Per pair of an image and a text, in seconds of a processor, and bytes.

    serial_s: of the threads that hold Python's lock in the driver's process. encode_s: of the pool.
    disk_bytes_per_s: onto the store's disk.
    """

    serial_s: float
    encode_s: float
    image_bytes: int
    disk_bytes_per_s: float


def photograph(side: int, seed: int) -> Image.Image:
    """Smooth shapes with the grain of a sensor, which compresses about as a photograph does."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), np.int16)
    grain = generator.normal(0, 3, (side, side, 3))
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


def measure_encoding(side: int) -> tuple[float, int]:
    """(seconds, bytes) per image."""
    images = [photograph(side, seed) for seed in range(6)]
    started = time.process_time()
    encoded = [encode_image(image) for image in images]
    return (time.process_time() - started) / len(images), sum(map(len, encoded)) // len(images)


def measure_driver(side: int, folder: Path, steps: int) -> float:
    """Processor seconds per pair of the threads of the driver's process, those that encode excepted."""
    config = synthetic_config(runs=32, steps=steps, batch_size=4, delay_s=0.02)
    models = config.model_dump()["models"]
    models["draw"] |= {"size": side}
    changes = {"models": models, "device": ["sim:4GiB"] * 4, "executor": "process"}
    config = ExperimentConfig.model_validate(config.model_dump() | changes)
    with watch() as seconds:
        run(config, folder)
    found = dict(seconds)
    print(side, {name: round(value, 2) for name, value in found.items()})
    return sum(value for name, value in found.items() if name != "encode") / (32 * steps / 2)


def measure_disk(folder: Path, image_bytes: int) -> float:
    """Bytes per second of transactions of 16 images into a database as the store's."""
    connection = sqlite3.connect(folder / "images.sqlite")
    for pragma in ("page_size=16384", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE image (digest BLOB PRIMARY KEY, bytes BLOB) STRICT")
    content, number = os.urandom(image_bytes), max(64, 200 * 2**20 // image_bytes)
    started = time.perf_counter()
    for first in range(0, number, 16):
        with connection:
            rows = [(os.urandom(32), content) for _ in range(first, min(first + 16, number))]
            connection.executemany("INSERT INTO image VALUES (?, ?)", rows)
    connection.close()
    return number * image_bytes / (time.perf_counter() - started)


def limits(speed: Speed, costs: Costs) -> dict[str, float]:
    """Pairs per second that each part of one driver takes."""
    return {
        "Python's lock": 1 / costs.serial_s,
        "encoding": ENCODERS / costs.encode_s,
        "disk": costs.disk_bytes_per_s / costs.image_bytes,
        "network": NETWORK_BYTES_PER_S / costs.image_bytes,
    }


def rows(speed: Speed, costs: Costs) -> list[str]:
    """The lines of the table of docs/clusters.md for one pair of models."""
    found = limits(speed, costs)
    first = min(("Python's lock", "encoding", "disk"), key=lambda name: found[name])
    lines = []
    for number in GPUS:
        pairs = number * speed.invocations_per_s / 2
        use = min(1.0, found[first] / pairs)
        stores = max(1, -(-pairs // (0.8 * found[first])))
        hours = TOTAL / 2 / (pairs * use) / 3600
        split = TOTAL / 2 / pairs / 3600
        sent = pairs * costs.image_bytes / 1e6
        lines.append(
            f"| {speed.name} | {number} | {2 * pairs:,.0f} | {use:.0%} | {first} | {stores:.0f}"
            f" | {hours:,.1f} h | {split:,.1f} h | {sent:,.0f} MB/s |"
        )
    return lines


def main() -> None:
    """Measure, record and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40, help="of each of 32 runs")
    arguments = parser.parse_args()
    costs = {}
    with tempfile.TemporaryDirectory() as place:
        for side in SIDES:
            encode_s, image_bytes = measure_encoding(side)
            serial_s = measure_driver(side, Path(place) / str(side), arguments.steps)
            (Path(place) / f"disk{side}").mkdir()
            disk = measure_disk(Path(place) / f"disk{side}", image_bytes)
            costs[side] = Costs(
                serial_s=serial_s, encode_s=encode_s, image_bytes=image_bytes, disk_bytes_per_s=disk
            )
            record(
                f"cost of a pair at {side} px", serial_s * 1e3, unit="ms of the driver's threads", file=FILE,
                encode_ms=encode_s * 1e3, image_bytes=image_bytes, disk_bytes_per_s=disk,
                input="32 runs, batches of 4 from 4 child processes",
            )  # fmt: skip
    print(costs)
    for speed in SPEEDS:
        print(limits(speed, costs[speed.side]))
        print(*rows(speed, costs[speed.side]), sep="\n")


if __name__ == "__main__":
    main()
