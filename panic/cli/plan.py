"""What a dry run prints: the plan of an experiment, what is there of it, and what the rest may take.

panic run configs/demo.yaml --dry-run
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from panic.analysis.shortening import shorten
from panic.cli.common import say
from panic.cli.render import console, duration, print_table, size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from panic.engine.plan import CheckedConfig
    from panic.engine.preview import Preview
    from panic.store.records import NewRun

SHOWN_PROMPTS = 10
SHAPE_FROM = {
    "experiment": "experiment",
    "config": "config",
    "model": "model",
    "trial": "model, less if it does not fit",
}


def print_plan(config: CheckedConfig, path: Path, runs: Sequence[NewRun] | None = None) -> None:
    """Print what performing a config, or these runs of it, in the store at `path` would do."""
    from panic.cli.served import forecast
    from panic.engine.preview import preview

    plan = preview(config, path, runs)
    out = console()
    known = "goes on" if plan.is_known else "is new"
    out.print(f"{plan.name} {known} in {plan.store}")
    if config.config.ray is not None and config.config.executor != "ray":  # a session's log warns of it
        executor = f"executor: {config.config.executor}"
        say(f"{plan.name}: `ray` is without effect, for it has {executor}.", err=True)
    for sentence in plan.left_alone:
        out.print(f"{sentence}.")
    _print_prompts(config.config.prompts)
    if arms := config.config.arms:
        out.print(f"{'arms:':<12} {', '.join(arms)}")
    out.print(f"runs:        {plan.runs_total:,}, of which {plan.runs_existing:,} have ended")
    out.print(
        f"invocations: at most {plan.invocations_total:,}, "
        f"of which {plan.invocations_existing:,} are in the store"
    )
    if plan.parts:
        print_table(
            ["taken of the runs", "of", "in the store #", "missing, at most #"],
            [(part.stage, part.of, part.stored, part.missing) for part in plan.parts],
        )
    rows = [
        (
            *(m.order, m.name, m.modality, size(m.size_bytes)),
            *(
                m.batch_size,
                SHAPE_FROM[m.shape_from],
                None if m.padding is None else f"{m.padding:.0%}",
                "yes" if m.is_present else "missing",
            ),
        )
        for m in sorted(plan.models, key=lambda m: m.order or len(plan.models) + 1)
    ]
    columns = ["load order #", "model", "modality", "size #", "batch size #", "from", "padding #", "present"]
    print_table(columns, rows)
    for m in plan.models:
        if m.absence:
            say(m.absence)
    for sentence in forecast(plan, config.config):
        out.print(f"{sentence}.")
    _advise(plan)
    if plan.images_missing:
        out.print(f"images:      {plan.images_missing:,} are missing and are computed again")
    if plan.invocations_existing == plan.invocations_total:
        out.print("All runs have ended.")
    elif plan.eta_s is None:
        out.print("time: unknown until these models have been seen in this store")
    else:
        out.print(f"time: at most {duration(plan.eta_s)} of model time, without embeddings and diagrams")
    if plan.diagrams is not None and plan.diagrams.most_s >= 1:
        least, most = duration(plan.diagrams.least_s), duration(plan.diagrams.most_s)
        memory = size(plan.diagrams.memory_bytes)
        out.print(f"diagrams: {least} to {most}, by the shape of the clouds, in up to {memory} of memory")


def _print_prompts(prompts: Sequence[str]) -> None:
    """Show how the prompts were read: a comma or # in a YAML list may have cut one in two."""
    out = console()
    for number, prompt in enumerate(prompts[:SHOWN_PROMPTS]):
        out.print(f"{'prompts:' if number == 0 else '':<12} {shorten(prompt, 160)}")
    if len(prompts) > SHOWN_PROMPTS:
        out.print(f"{'':<12} and {len(prompts) - SHOWN_PROMPTS:,} more")


def _advise(plan: Preview) -> None:
    """Say what pinned shapes cost that do not fit the work, and what changes them; who serves what."""
    if plan.placing is not None:
        from panic.cli.devices import print_devices

        print_devices(plan, plan.placing)
    misfits = [model for model in plan.models if model.shape_from == "experiment" and model.is_misfit]
    for model in misfits:
        now, fitting = model.batch_size or 0, model.fitting_batch_size
        console().print(
            f"{model.name} is pinned to batches of {now:,}: at most {model.num_calls(now):,} calls, "
            f"{model.padding or 0:.0%} padding; with batches of {fitting:,} "
            f"{model.num_calls(fitting):,} calls"
        )
    if misfits:
        console().print("panic run CONFIG --repin pins shapes that fit, for what is not computed yet.")
