"""`panic cache stats`, `panic cache clear`: what the model cache did, and forgetting what it has learnt.

panic cache stats latest --json
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from panic.cli.common import ExperimentArgument, JsonOption, Shared, command
from panic.cli.render import console, print_json, print_table, size

if TYPE_CHECKING:
    from panic.devices.events import Summary

app = typer.Typer(
    help="What the model cache did on devices with memory of their own.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@command
def stats(shared: Shared, experiment: ExperimentArgument = "latest", as_json: JsonOption = False) -> None:
    """Hits, bytes moved, seconds waited, evictions, and the regret: bytes over the fewest possible."""
    from panic.devices.events import read_events, summarise
    from panic.store import reading

    with shared.open_store() as store:
        row = reading.experiment(store, experiment)
        files = event_files(store.path, row.uid)
    total = summarise(read_events(files))
    if as_json:
        return print_json(as_dict(total))
    if not files:
        return console().print(f"{row.name}: no events. Models in main memory are not moved.")
    return print_table(["", row.name], [(key.replace("_", " "), value) for key, value in _told(total)])


@command
def clear(shared: Shared) -> None:
    """Forget what was learnt about working memory, and the events of all experiments. Results stay."""
    from panic.store import Store, working

    with Store(shared.store_path(), write=True) as store:
        num_learnt = working.forget(store)
        files = event_files(store.path)
        for file in files:
            file.unlink()
    console().print(f"Forgot {num_learnt} observations of working memory and {len(files)} files of events.")


for each in (stats, clear):
    app.command(name=each.__name__, context_settings={"help_option_names": ["-h", "--help"]})(each)


def event_files(store: Path, uid: str = "") -> list[Path]:
    """The files of events of an experiment, or of all, oldest first."""
    return sorted((store / "cache").glob(f"{uid}*.jsonl"), key=lambda file: file.stat().st_mtime)


PLACES = {
    "device": "on the device",
    "prefetch": "brought ahead",
    "host": "in main memory",
    "disk": "on disk",
}


def as_dict(total: Summary) -> dict[str, Any]:
    """The JSON of a summary; bytes, seconds, bytes per second."""
    return {
        "calls": total.calls,
        "hits": total.hits,
        "calls_by_tier": dict(total.calls_by_tier),
        "loads_by_tier": dict(total.loads_by_tier),
        "bytes_by_tier": dict(total.bytes_by_tier),
        "moved_bytes": total.moved_bytes,
        "least_bytes": total.least_bytes,
        "regret": total.regret,
        "bytes_per_s": total.bytes_per_s,
        "stall_s": total.stall_s,
        "prefetches": total.prefetches,
        "prefetch_hits": total.prefetch_hits,
        "evictions_by_reason": dict(total.evictions_by_reason),
        "out_of_memory": total.out_of_memory,
        "streamed_calls": dict(total.streamed_calls),
        "streamed_bytes": total.streamed_bytes,
    }


def _told(total: Summary) -> list[tuple[str, str]]:
    by_tier = ", ".join(f"{size(num)} from {tier}" for tier, num in sorted(total.bytes_by_tier.items()))
    reasons = ", ".join(f"{num} for {why}" for why, num in sorted(total.evictions_by_reason.items()))
    streamed = ", ".join(f"{model} {num:,} times" for model, num in sorted(total.streamed_calls.items()))
    found = ", ".join(f"{where} {total.calls_by_tier[tier]:,}" for tier, where in PLACES.items())
    return [
        ("calls", f"{total.calls:,}; the model was {found}"),
        ("bytes_moved", f"{size(total.moved_bytes)} ({by_tier or 'none'})"),
        ("regret", "nothing had to move" if total.regret is None else f"{100 * total.regret:.1f} %"),
        ("rate", f"{total.bytes_per_s / 1e9:.2f} GB/s"),
        ("waited", f"{total.stall_s:.2f} s"),
        ("prefetches", f"{total.prefetches:,}, of which {total.prefetch_hits:,} were used"),
        ("evictions", reasons or "none"),
        ("out_of_memory", f"{total.out_of_memory:,}"),
        ("layer_by_layer", f"{streamed}: {size(total.streamed_bytes)}" if streamed else "none"),
    ]
