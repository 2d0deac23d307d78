"""The report of an experiment: one HTML file that works offline and loads nothing from anywhere.

It takes what the store has: an experiment that still runs, has no embeddings or has failed runs gets a
report that says so. The libraries that draw the charts stand in the file once; texts are untrusted and
escaped; a content security policy in the page forbids any request.

    panic report latest --output report.html
    write_report(Store("panic-store"), "latest", "report.html")
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from panic.analysis.charts import counted
from panic.analysis.evidence import Evidence
from panic.analysis.grouping import course_name
from panic.analysis.null_bands import figures_beside
from panic.analysis.origin import facts
from panic.analysis.page import render_page, write_page
from panic.analysis.questions import ask, questions, stuck
from panic.analysis.sampling import spread
from panic.analysis.strips import Strip, Thumbnails, strip
from panic.arms import models_of
from panic.store import Store, reading, standing
from panic.store.annotations import list_annotations, marks_of
from panic.store.codec import prompt_label
from panic.store.provenance import short_paths
from panic.store.records import Counts, ExperimentRow, RunRow
from panic.store.served import served

MAX_RUNS = 60
MAX_TILES = 24
MAX_ROWS = 200  # of a table
PICTURE_BUDGET_BYTES = 12 * 2**20


def write_report(
    store: Store, experiment: int | str, path: str | os.PathLike[str], *, part: str = ""
) -> Path:
    """Write the report of an experiment (row number, name, uid prefix or "latest") to `path` and return it.

    part: says which of its runs are seen, where that is not all. Raises NotFound for an unknown experiment,
    OSError that names `path` where it cannot be written.
    """
    return write_page(render(store, reading.experiment(store, experiment), part=part), path)


def render(
    store: Store,
    experiment: ExperimentRow,
    *,
    picture_budget_bytes: int = PICTURE_BUDGET_BYTES,
    part: str = "",
) -> str:
    """The page as a text."""
    now = standing.standing(store, experiment)
    counts = now.counts
    evidence = Evidence.of(
        store, experiment, is_over=now.is_over, image_budget_bytes=picture_budget_bytes // 4
    )
    runs, sessions = evidence.whole.rows, evidence.sessions
    thumbnails = Thumbnails(store, picture_budget_bytes)
    shown = spread([run for run in runs if run.num_steps], MAX_RUNS)
    strips = [strip(store, run, thumbnails, MAX_TILES) for run in shown]
    of_nulls = list(dict.fromkeys(kind for kind, _ in evidence.nulls))
    figures = []
    for question in questions():
        figures += ask(question, evidence)
        if of_nulls and hasattr(question, "STATISTIC"):
            figures += figures_beside(question, evidence, of_nulls)
    specs = [spec for figure in figures for spec in figure.specs]
    remarks = list_annotations(store, "experiment", experiment.uid)
    are_stuck = [run for run in runs if run.state == "stuck"]
    failed = [run for run in runs if run.failure is not None]
    return render_page(
        "report.html",
        specs=specs,
        title=experiment.name,
        experiment=experiment,
        config_json=short_paths(json.dumps(experiment.config, indent=2, ensure_ascii=False)),
        state=now.state,
        remarks=remarks,
        marks=marks_of(remarks),
        counts=counts,
        tiles=key_figures(counts, runs),
        part=part,
        notes=_notes(runs, counts, now.state, shown, strips, thumbnails),
        models=_models(evidence),
        groups=_groups(strips),
        endpoints=served(store, experiment),
        stuck=sorted(are_stuck, key=lambda run: (run.entry_step or 0, run.id))[:MAX_ROWS],
        num_stuck=len(are_stuck),
        stuck_reading=stuck.summary(runs),
        stuck_caveat=stuck.SUMMARY_CAVEAT,
        failed=failed[:MAX_ROWS],
        num_failed=len(failed),
        figures=figures,
        sessions=sessions,
        origin={name: short_paths(text) for name, text in facts(sessions).items()},
        written_at=time.time(),
        revision=store.revision,
    )


def key_figures(counts: Counts, runs: list[RunRow]) -> list[tuple[str, str, str]]:
    """(label, value, what qualifies it) of the numbers at the top."""
    total = sum(run.max_length for run in runs)
    return [
        ("runs ended", f"{counts.ended:,}", f"of {counts.runs:,}"),
        ("stuck", f"{counts.stuck:,}", "known to repeat"),
        *([("repeated", f"{counts.repeated:,}", "ended on request")] if counts.repeated else []),
        ("failed", f"{counts.failed:,}", "ended by an error"),
        ("model calls", f"{counts.invocations:,}", f"of at most {total:,}"),
        ("embeddings", f"{counts.embeddings:,}", "distinct outputs"),
        ("diagrams", f"{counts.diagrams:,}", "of whole runs"),
    ]


def _notes(
    runs: list[RunRow],
    counts: Counts,
    state: str,
    shown: list[RunRow],
    strips: list[Strip],
    thumbnails: Thumbnails,
) -> dict[str, str]:
    """What is missing or left out, by section."""
    notes = {"state": "", "strips": "", "pictures": ""}
    open_runs = counts.todo + counts.running
    have, them = ("has", "it") if open_runs == 1 else ("have", "them")
    still_open = f"{counted(open_runs, 'run')} {have}"
    if state == "running":
        notes["state"] = f"A process is working on it: {still_open} not ended. This page is a snapshot."
    elif open_runs:
        notes["state"] = f"{still_open} not ended and nobody works on {them}; `panic resume` goes on."
    elif state == "interrupted":
        notes["state"] = "Embeddings or diagrams may be missing; `panic resume` goes on."
    begun = sum(run.num_steps > 0 for run in runs)
    if begun > len(shown):
        notes["strips"] = (
            f"{len(shown)} of {begun:,} runs are shown, spread over networks, kinds of seed and prompts. "
        )
    cut = sum(s.num_left_out > 0 for s in strips)
    if cut:
        notes["strips"] += f"Long runs show their first and last {MAX_TILES // 2} pictures or texts."
    if thumbnails.num_left_out:
        notes["pictures"] = (
            f"{thumbnails.num_left_out:,} more pictures are left out to keep this file small. "
        )
    if thumbnails.num_missing:
        notes["pictures"] += (
            f"{thumbnails.num_missing:,} pictures are missing from the store (`panic check`)."
        )
    return notes


def _models(evidence: Evidence) -> list[dict[str, Any]]:
    """The models in the order of networks and embeddings, with the shape they were called with."""
    config = evidence.experiment.config
    epochs = {epoch.name: epoch for epoch in evidence.whole.epochs}
    known = {model.id: model for model in evidence.whole.models}
    networks = config.get("networks", [])
    arms = evidence.whole.arms.get(evidence.experiment.id, {})
    stepping_in = [name for arm in arms.values() for name in models_of((), arm)]
    called = [name for network in networks for name in network] + stepping_in
    names = dict.fromkeys(called + evidence.embedding_models)
    rows = []
    for name in names:
        epoch = epochs.get(name)
        spec = known[epoch.model].spec if epoch else {}
        parameters = ", ".join(
            f"{key} {short_paths(str(value))}"
            for key, value in (spec.get("parameters") or {}).items()
            if value is not None
        )
        rows.append(
            {
                "name": name,
                "does": " → ".join(
                    filter(None, [", ".join(spec.get("modalities_in", [])), spec.get("modality_out")])
                ),
                "source": ", ".join(
                    filter(
                        None,
                        [short_paths(spec.get("source") or spec.get("base") or ""), spec.get("revision")],
                    )
                ),
                "parameters": parameters,
                "licence": spec.get("licence") or "",
                "shape": f"{epoch.batch_size} on {epoch.device_kind}" if epoch else "not used yet",
                "epochs": epoch.number + 1 if epoch else 0,
                "fingerprint": epoch.fingerprint[:12] if epoch else "",
            }
        )
    return rows


def _groups(strips: list[Strip]) -> list[tuple[str, list[tuple[str, list[Strip]]]]]:
    """Strips by network and, within it, by prompt."""
    groups: dict[str, dict[str, list[Strip]]] = {}
    for one in strips:
        prompts = groups.setdefault(course_name(one.run), {})
        prompts.setdefault(prompt_label(one.run.prompt), []).append(one)
    return [(network, list(prompts.items())) for network, prompts in groups.items()]
