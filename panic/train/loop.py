"""A training loop that can be killed: AdamW, warm-up and linear decay, clipping, EMA, exact resume.

`fit` knows nothing of what it trains: it is given a module and a function `loss(step)`. All randomness must
come from the step (`generator(seed, step)`), so a checkpoint needs no random state and a resumed training
gives the same weights as an uninterrupted one. The checkpoint holds weights, EMA and optimiser.
"""

from __future__ import annotations

import csv
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train. The rate rises over `warmup` steps and falls to 5 % over the last `decay` share."""

    steps: int
    learning_rate: float = 6e-4
    warmup: int = 300
    decay: float = 0.3
    weight_decay: float = 0.01
    ema: float = 0.999
    clip: float = 1.0
    bfloat16: bool = False
    checkpoint_every_s: float = 180.0
    log_every: int = 20


def generator(*seed: int) -> torch.Generator:
    """A CPU generator that depends on these whole numbers only."""
    mixed = 0
    for part in seed:
        mixed = (mixed * 6364136223846793005 + part + 1442695040888963407) % 2**63
    return torch.Generator().manual_seed(mixed)


def rate(step: int, settings: Settings) -> float:
    """The learning rate of a step."""
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    left = (settings.steps - step) / max(1.0, settings.decay * settings.steps)
    return settings.learning_rate * rise * max(0.05, min(1.0, left))


def fit(
    module: nn.Module,
    loss: Callable[[int], Tensor],
    settings: Settings,
    folder: Path,
    *,
    minutes: float = float("inf"),
) -> dict[str, Tensor]:
    """Train up to `settings.steps` or for `minutes`, from the folder's checkpoint if there is one.

    Returns the EMA weights. SIGTERM ends it after the step in flight, with a checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, settings.learning_rate, betas=(0.9, 0.98), weight_decay=settings.weight_decay
    )
    average = {name: value.detach().clone() for name, value in module.state_dict().items()}
    step = 0
    if (folder / CHECKPOINT).exists():
        saved = torch.load(folder / CHECKPOINT, weights_only=True)
        module.load_state_dict(saved["weights"])
        optimiser.load_state_dict(saved["optimiser"])
        average, step = saved["ema"], saved["step"]
    stop = False

    def on_term(signum: int, frame: FrameType | None) -> None:
        nonlocal stop
        stop = True

    before = signal.signal(signal.SIGTERM, on_term)
    started = saved_at = logged_at = time.monotonic()
    recent: list[float] = []
    while step < settings.steps and not stop and time.monotonic() - started < minutes * 60:
        for group in optimiser.param_groups:
            group["lr"] = rate(step, settings)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            value = loss(step)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        _blend(average, module, min(settings.ema, (1 + step) / (10 + step)))
        recent.append(value.item())
        step += 1
        now = time.monotonic()
        if step % settings.log_every == 0:
            _log(folder / "loss.csv", step, sum(recent) / len(recent), (now - logged_at) / len(recent))
            recent, logged_at = [], now
        if now - saved_at > settings.checkpoint_every_s:
            _save(folder, step, module, average, optimiser)
            saved_at = now
    _save(folder, step, module, average, optimiser)
    signal.signal(signal.SIGTERM, before)
    return average


@torch.no_grad()
def _blend(average: dict[str, Tensor], module: nn.Module, keep: float) -> None:
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - keep)


def _save(
    folder: Path, step: int, module: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.Optimizer
) -> None:
    state = {
        "step": step,
        "weights": module.state_dict(),
        "ema": average,
        "optimiser": optimiser.state_dict(),
    }
    torch.save(state, folder / "checkpoint.tmp")
    (folder / "checkpoint.tmp").rename(folder / CHECKPOINT)


def _log(path: Path, step: int, loss: float, seconds_per_step: float) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", "loss", "seconds_per_step"])
        writer.writerow([step, f"{loss:.5f}", f"{seconds_per_step:.3f}"])
