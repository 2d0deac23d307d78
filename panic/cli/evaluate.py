"""`panic evaluate MODEL DATA`: FID and its relatives, or what the pocket world's oracle says.

panic evaluate PocketDiffusion pocket-world --n 100
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from panic.cli.common import JsonOption, Shared, command, read_devices
from panic.cli.render import console, print_json, print_table

SHOW_EVERY_S = 10.0


@command
def evaluate(
    shared: Shared,
    model: Annotated[str, typer.Argument(help="Name of a model, or folder of its weights.")],
    data: Annotated[str, typer.Argument(help="Folder of pictures with captions, or pocket-world.")],
    n: Annotated[
        int, typer.Option("--n", min=1, help="How many pictures (or captions) the model makes.")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the first picture, then counting.")] = 0,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the model: steps=8."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda:N, cuda:0,cuda:1, cuda:all, mps, or auto (the best).")
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures drawn at once.")] = 16,
    as_json: JsonOption = False,
) -> None:
    """Judge a model: FID, KID, Inception score, precision and recall, or the oracle of the pocket world."""
    from panic.cli import logs

    logs.silence_libraries()
    from panic.devices.device import members, open_devices
    from panic.train import evaluation

    places = [one.torch_name for one in members(open_devices(read_devices(device)))]
    spec = evaluation.model_to_evaluate(model, _parameters(overrides or []), device=places[0])
    shown_at = time.monotonic()

    def show(done: int, n: int) -> None:
        nonlocal shown_at
        if not shared.quiet and time.monotonic() - shown_at > SHOW_EVERY_S:
            console(err=True).print(f"{done:,} of {n:,} pictures drawn")
            shown_at = time.monotonic()

    store = shared.store_for_log()
    file = store and logs.log_file(store, "panic", "evaluate")
    with (
        logs.logging_command(file, "info", stderr_level=shared.stderr_level, what=model),
        logs.logging_prints(file),
    ):
        scores = evaluation.evaluate(
            spec, data, n=n, seed=seed, device=places, batch_size=batch_size, show=show
        )
    if as_json:
        return print_json(scores)
    rows = [
        (name, f"{value:.4g}" if isinstance(value, float) else str(value)) for name, value in scores.items()
    ]
    return print_table(["figure", "value"], rows)


def _parameters(overrides: list[str]) -> dict[str, object]:
    """KEY=VALUE as a mapping; values are read as in YAML."""
    import yaml

    from panic.errors import UsageError

    values: dict[str, object] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {text}: a parameter is set by KEY=VALUE, for example steps=8.")
        values[key] = yaml.safe_load(value)
    return values
