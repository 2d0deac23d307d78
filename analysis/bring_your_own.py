"""Trajectories made elsewhere: import them, embed them, ask them.

marimo edit analysis/bring_your_own.py        # or: marimo run, python analysis/bring_your_own.py

PANIC_IMPORT names what is imported, as `panic import` takes it; without it a small game of telephone is made.
PANIC_IMPORT_STORE names the folder of the store that it goes into; by default a temporary one.
"""

import marimo

app = marimo.App(width="medium", app_title="panic · bring your own")

with app.setup:
    import json
    import os
    import random
    import tempfile
    from pathlib import Path

    import marimo as mo

    from panic import run
    from panic.analysis.evidence import Evidence
    from panic.analysis.notebooks import show
    from panic.config import stored
    from panic.engine.importing.write import ImportOptions, read_import, write_import
    from panic.store import Store, reading


@app.cell
def _():
    turns = [
        ("king", "queen"), ("queen", "princess"), ("fox", "dog"), ("dog", "puppy"), ("met", "saw"),
        ("saw", "heard"), ("old", "grey"), ("grey", "white"), ("forest", "wood"), ("wood", "garden"),
        ("night", "evening"), ("evening", "day"),
    ]  # fmt: skip
    starts = [
        "the old king met a fox in the forest",
        "at night a dog saw the queen",
        "the fox heard an old wood",
    ]

    def telephone(folder, steps=30, repeats=5):
        """Chains in which a word is exchanged, back and forth, at every step: what people might bring."""
        rows = []
        for number, start in enumerate(starts):
            for repeat in range(repeats):
                rng, text = random.Random(100 * number + repeat), start
                for step in range(steps + 1):
                    rows.append({"run": f"{number}-{repeat}", "step": step, "text": text})
                    old, new = rng.choice(turns)[:: rng.choice((1, 1, 1, -1))]
                    text = " ".join(new if word == old else word for word in text.split())
        path = Path(folder) / "telephone.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    folder = tempfile.TemporaryDirectory(prefix="panic-import-")
    given = os.environ.get("PANIC_IMPORT")
    path = Path(given) if given else telephone(folder.name)
    place = Path(os.environ.get("PANIC_IMPORT_STORE") or Path(folder.name) / "store")
    deterministic = mo.ui.checkbox(label="the process is deterministic (`--deterministic`)")
    mo.vstack(
        [
            mo.md(
                f"""# Bring your own

                `{path.name}` has a row per step: which run, which step, and its text or image.
                `docs/import.md` says what else it may have. On the command line this is

                ```bash
                panic import {path.name} --name {path.stem}
                panic embed {path.stem} PocketText
                panic report {path.stem}
                ```"""
            ),
            deterministic,
        ]
    )
    return deterministic, folder, path, place


@app.cell
def _(deterministic, folder, path, place):
    name = path.stem if not deterministic.value else f"{path.stem}-deterministic"
    assert folder  # which goes when nobody holds it
    found = read_import(ImportOptions(name=name, path=path, deterministic=deterministic.value))
    with Store(place, write=True, create=True) as _store:
        write_import(_store, found)
        _row = reading.experiment(_store, name)
    # The import is of texts or images: an embedding model of the pocket family for each.
    _kinds = {modality for one in found.trajectories for modality in one.modalities}
    _models = [model for kind, model in (("text", "PocketText"), ("image", "PocketPixels")) if kind in _kinds]
    config = stored(_row.config, name).model_copy(update={"embeddings": _models})
    outcome = run(config, place)
    mo.md(
        f"## Imported and embedded\n\n**{outcome.name}** is {outcome.state}: {outcome.counts}. Nothing was "
        "generated: its outputs are given."
    )
    return (outcome,)


@app.cell
def _(outcome):
    from panic.analysis.questions import clusters, drift, lag, novelty, recurrence
    from panic.analysis.questions import map as places

    store = Store(outcome.store)
    evidence = Evidence.of(store, reading.experiment(store, outcome.name))
    show(novelty, evidence)
    return clusters, drift, evidence, lag, places, recurrence


@app.cell
def _(evidence, recurrence):
    show(recurrence, evidence)
    return


@app.cell
def _(drift, evidence):
    show(drift, evidence)
    return


@app.cell
def _(evidence, lag):
    show(lag, evidence)
    return


@app.cell
def _(evidence, places):
    show(places, evidence)
    return


@app.cell
def _(clusters, evidence):
    show(clusters, evidence)
    return


if __name__ == "__main__":
    app.run()
