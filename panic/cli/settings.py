"""`panic config`, `panic stores`: what files of settings and the environment say.

panic config; PANIC_DEVICE=cpu panic config --json; panic stores
"""

from __future__ import annotations

import os
from typing import Any

from panic.cli.common import JsonOption, Shared, command, read_settings, settings_files, user_settings
from panic.cli.render import console, print_json, print_table


@command
def config(shared: Shared, as_json: JsonOption = False) -> None:
    """Show every setting: its value, and where it was said.

    What the command line says comes first, then the environment (PANIC_ and the setting's name), then the
    experiment's config, then the nearest panic.toml (or [tool.panic] of a pyproject.toml) of this folder and
    those above it, then the user's panic.toml.
    """
    rows = [
        {"setting": name, "value": value, "origin": origin, "about": about}
        for name, value, origin, about in _rows(shared)
    ]
    if as_json:
        return print_json(rows)
    print_table(
        ["setting", "value", "origin", "about"],
        [(row["setting"], _shown(row["value"]), row["origin"], row["about"]) for row in rows],
    )
    if not settings_files():
        console().print(f"No file of settings: no panic.toml here or above, and no {user_settings()}.")
    return None


def _rows(shared: Shared) -> list[tuple[str, Any, str, str]]:
    """Name, value, origin and description of every setting."""
    from panic.config.schema import ExperimentConfig
    from panic.config.settings import DEFAULT, NAMES, OF_CONFIGS, Settings, resolve

    known = resolve(settings_files(), os.environ, user_settings())
    found = []
    for name in NAMES:
        value = ExperimentConfig.model_fields[name].default if name in OF_CONFIGS else None
        origin = DEFAULT
        if name in known.values:
            value, origin = known.values[name].value, known.values[name].origin
        if name == "enforce_clean":
            value = bool(value)
        if name == "store":
            origin = "command line" if shared.store else origin
            value = str(shared.store_path())
        about = Settings.model_fields[name].description or ""
        found.append((name, value if isinstance(value, str | int | float) or value is None else str(value),
                      origin, about))  # fmt: skip
    for name, one in sorted(known.stores.items()):
        found.append((f"stores.{name}", str(known.folder_of(name)), one.origin, "a named store"))
    return found


def _shown(value: Any) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@command
def stores(shared: Shared, as_json: JsonOption = False) -> None:
    """List the named stores of the settings. A name works wherever a store is given."""
    settings = read_settings()
    rows = []
    for name, one in sorted(settings.stores.items()) if settings else ():
        path = settings.folder_of(name) if settings else None
        is_there = path is not None and (path / "store.sqlite").is_file()
        rows.append({"name": name, "path": str(path), "is_there": is_there, "origin": one.origin})
    if as_json:
        return print_json(rows)
    if not rows:
        return console().print(
            'No stores have names. In panic.toml:\n\n[stores]\nlab = "/data/lab"\n\n'
            f"panic.toml lies in this folder, in one above it, or is {user_settings()}.",
            soft_wrap=True,
        )
    return print_table(
        ["name", "folder", "there", "origin"],
        [(row["name"], row["path"], "yes" if row["is_there"] else "no", row["origin"]) for row in rows],
    )
