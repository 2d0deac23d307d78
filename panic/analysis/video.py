"""A mosaic video of an experiment: one tile per run, one frame per turn of the loops, by ffmpeg.

A stuck run goes on in its cycle; a run that has ended otherwise keeps its last picture, darkened. Frames are
piped to ffmpeg one by one, so memory holds one frame and the pictures of a cycle, not the video.

    panic video latest --fps 8 --size 128
    write_video(store, "latest", "demo.mp4")
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageEnhance

from panic.errors import NotFound, PanicError, StoreCorrupt, UsageError
from panic.store import Store, contents, reading
from panic.store.records import RunRow

CODECS = {
    ".mp4": ("-c:v", "libx264", "-crf", "18", "-preset", "medium", "-movflags", "+faststart"),
    ".webm": ("-c:v", "libvpx-vp9", "-crf", "28", "-b:v", "0"),
    ".gif": (
        "-filter_complex", "split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse=dither=none",
    ),
}  # fmt: skip
MAX_SIDE = 4096  # pixels; what players take
MAX_TILES_KEPT = 2048
GROUND = (16, 18, 20)
GAP = 2


class VideoError(PanicError):
    """The video cannot be made: ffmpeg is missing, or failed."""


@dataclass(kw_only=True)
class Reel:
    """The pictures of a run by turn: digests, and the turn from which they repeat, if it is stuck."""

    run: RunRow
    digests: list[str]
    loop_from: int | None = None

    def at(self, turn: int) -> tuple[str, bool]:
        """The digest shown at a turn, and whether the run still moves or repeats (else it has ended)."""
        if turn < len(self.digests):
            return self.digests[turn], True
        if self.loop_from is not None and self.loop_from < len(self.digests):
            cycle = self.digests[self.loop_from :]
            return cycle[(turn - self.loop_from) % len(cycle)], True
        return self.digests[-1], False


@dataclass(kw_only=True)
class Tiles:
    """Pictures scaled to the tile, the latest ones kept."""

    store: Store
    size: int
    kept: OrderedDict[tuple[str, bool], Image.Image] = field(default_factory=OrderedDict)

    def get(self, digest: str, is_live: bool) -> Image.Image:
        key = digest, is_live
        if key not in self.kept:
            self.kept[key] = self._made(digest, is_live)
            if len(self.kept) > MAX_TILES_KEPT:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]

    def _made(self, digest: str, is_live: bool) -> Image.Image:
        try:
            picture = contents.image(self.store, digest)
        except (NotFound, StoreCorrupt):  # a lost picture is a gap, not the end of the video
            return Image.new("RGB", (self.size, self.size), GROUND)
        scale = self.size / max(picture.size)
        how = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
        small = picture.resize([max(1, round(side * scale)) for side in picture.size], how)
        tile = Image.new("RGB", (self.size, self.size), GROUND)
        tile.paste(small, ((self.size - small.width) // 2, (self.size - small.height) // 2))
        return tile if is_live else ImageEnhance.Brightness(tile).enhance(0.35)


def write_video(
    store: Store,
    experiment: int | str,
    path: str | Path,
    *,
    fps: float = 8.0,
    size: int = 128,
    max_runs: int = 400,
) -> tuple[int, int]:
    """Write the mosaic of an experiment's runs to `path` (.mp4, .webm, .gif): (number of runs, of frames).

    `size`: pixels of a tile; smaller where all tiles together would be wider than a player takes. VideoError
    without ffmpeg or when it fails; UsageError for another ending; NotFound for an unknown experiment or
    one without pictures.
    """
    path = Path(path)
    if path.suffix.lower() not in CODECS:
        raise UsageError(f"{path} is no name for a video.", hint=f"Known endings: {', '.join(CODECS)}.")
    ffmpeg = find_ffmpeg()
    row = reading.experiment(store, experiment)
    reels = list(reels_of(store, row.id))[:max_runs]
    if not reels:
        raise NotFound(f"{row.name} has no pictures yet.")
    columns = math.ceil(math.sqrt(len(reels)))
    size = max(2, min(size, MAX_SIDE // columns - GAP))
    num_frames = max(len(reel.digests) for reel in reels)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        _encode(ffmpeg, frames(reels, Tiles(store=store, size=size), columns, num_frames), temporary, fps)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return len(reels), num_frames


def find_ffmpeg() -> str:
    """Where ffmpeg is. VideoError, with what to install, where it is not."""
    found = shutil.which("ffmpeg")
    if found is None:
        raise VideoError(
            "ffmpeg is not installed, and the video needs it.",
            hint="Install it: apt-get install ffmpeg, brew install ffmpeg, or conda install ffmpeg.\n"
            "Without it, `panic images` draws the same pictures as one PNG.",
        )
    return found


def reels_of(store: Store, experiment: int) -> Iterator[Reel]:
    """Runs that have pictures, in their order; where a turn draws several times, every picture."""
    for run in reading.runs(store, experiment):
        steps = [step for step in contents.invocations(store, run.id) if step.modality == "image"]
        if not steps:
            continue
        loop_from = None
        if run.entry_step is not None:
            loop_from = sum(step.step < run.entry_step for step in steps)
        yield Reel(run=run, digests=[step.output for step in steps], loop_from=loop_from)


def frames(reels: list[Reel], tiles: Tiles, columns: int, num_frames: int) -> Iterator[Image.Image]:
    """The frames, one by one; their sides are even, as codecs want them."""
    rows = math.ceil(len(reels) / columns)
    pitch = tiles.size + GAP
    width, height = (count * pitch + GAP for count in (columns, rows))
    for turn in range(num_frames):
        frame = Image.new("RGB", (width + width % 2, height + height % 2), GROUND)
        for place, reel in enumerate(reels):
            corner = GAP + place % columns * pitch, GAP + place // columns * pitch
            frame.paste(tiles.get(*reel.at(turn)), corner)
        yield frame


def _encode(ffmpeg: str, pictures: Iterator[Image.Image], path: Path, fps: float) -> None:
    """Pipe frames into ffmpeg. VideoError with its last words when it fails."""
    first = next(pictures)
    plain = () if path.suffix.lower() == ".gif" else ("-pix_fmt", "yuv420p")
    command = [
        ffmpeg, "-hide_banner", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24",
        "-s", f"{first.width}x{first.height}", "-r", f"{fps:g}", "-i", "-",
        *CODECS[path.suffix.lower()], *plain, str(path),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stderr is not None
    with process:
        try:
            process.stdin.write(first.tobytes())
            for picture in pictures:
                process.stdin.write(picture.tobytes())
            process.stdin.close()
        except BrokenPipeError:
            pass  # its exit status and words say why
        except BaseException:
            process.kill()
            raise
        words = process.stderr.read().decode(errors="replace").strip()
        status = process.wait()
    if status:
        raise VideoError(f"ffmpeg failed (exit {status}): {words[-500:] or 'it did not say why'}")
