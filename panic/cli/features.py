"""`panic embed --folder` and `--texts`: vectors of files, without an experiment.

panic embed --folder photos PocketPixels -o features.parquet; panic embed --texts prompts.csv PocketText -o
t.parquet
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from panic.analysis.shortening import shorten
from panic.cli.common import Shared, read_devices, say, tell_options
from panic.cli.render import console, duration, print_json, print_table
from panic.errors import ConfigError, Interrupted, PanicError, UsageError

if TYPE_CHECKING:
    from panic.extraction.extract import Extracted, Extraction, Show
    from panic.extraction.inputs import Item
    from panic.models.protocol import ModelSpec

LINE_EVERY_S = 10.0
MOST_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of an extraction, as they were given."""

    models: list[str]
    output: Path | None
    folders: list[str]
    texts: list[str]
    pattern: str | None
    column: str | None
    device: str | None
    batch_size: int | None
    regions: int | None
    strict: bool


def extract_features(shared: Shared, asked: Asked, *, dry_run: bool) -> None:
    """Embed the images of folders, or the texts of files, into one Parquet file."""
    from panic.cli.logs import silence_libraries
    from panic.extraction.extract import Extraction, extract

    silence_libraries()
    if asked.output is None:
        raise UsageError("The features need a file.", hint="-o features.parquet")
    wanted = Extraction(
        items=_items(asked, quiet=shared.quiet),
        specs=_specs(asked),
        device=read_devices(asked.device or "auto"),
        output=asked.output,
        batch_size=asked.batch_size,
        how={"sources": asked.folders or asked.texts, "id_pattern": asked.pattern},
    )
    if dry_run:
        return _tell_plan(wanted)
    with _showing(str(asked.output), quiet=shared.quiet) as show:
        done = extract(wanted, show, lambda text: say(text, err=True))
    return _tell(shared, asked, done)


def _items(asked: Asked, *, quiet: bool) -> list[Item]:
    """What there is to embed; what else lies there is told."""
    from panic.extraction.inputs import list_images, list_texts, listed, pattern_of

    if asked.folders and asked.texts:
        raise UsageError("A file has features of images or of texts.", hint="Call it for each of them.")
    if asked.folders:
        tell_options({"--column": asked.column}, "for images")
    else:
        tell_options({"--id": asked.pattern}, "for texts")
    pattern = pattern_of(asked.pattern) if asked.folders and asked.pattern is not None else None
    listings = [list_images(folder, pattern) for folder in asked.folders]
    listings += [list_texts(file, asked.column or "text") for file in asked.texts]
    others = sum((listing.others for listing in listings), Counter[str]())
    if others and not quiet:
        names = ", ".join(f"{name} {count:,}" for name, count in others.most_common(MOST_SHOWN))
        say(f"{others.total():,} other files or links are left alone ({names}).", err=True)
    return listed(asked.folders or asked.texts, listings)


def _specs(asked: Asked) -> dict[str, ModelSpec]:
    """The models by name. Raises ConfigError for what is none, or cannot embed what is given."""
    from panic.devices.device import open_devices
    from panic.models import registry

    device_kind = open_devices(read_devices(asked.device or "auto")).kind.split()[0]
    modality = "image" if asked.folders else "text"
    if not asked.models:
        raise UsageError(
            "A model is needed.", hint="panic models lists them; vectors come from embedding models."
        )
    specs = {}
    for name in asked.models:
        spec = registry.resolve(name, device_kind=device_kind)
        if not spec.is_embedding:
            raise ConfigError(f"{name} gives {spec.modality_out}; an embedding model gives a vector.")
        if modality not in spec.modalities_in:
            raise ConfigError(f"{name} takes {' or '.join(spec.modalities_in)}, and these are {modality}s.")
        specs[name] = spec
    if asked.regions is None:
        return specs
    detecting = {name for name, spec in specs.items() if "regions" in spec.parameters}
    if not detecting:
        told = f"--regions needs a detector, and {', '.join(specs)} is none."
        raise ConfigError(told, hint="A folder of DETR or OWLv2: local:FOLDER")
    for name in detecting:
        variant = {name: {"base": name, "regions": asked.regions}}
        specs[name] = registry.resolve(name, variant, device_kind=device_kind)
    return specs


def _tell_plan(wanted: Extraction) -> None:
    """Print what would be computed."""
    from panic.extraction.extract import look

    now = look(wanted)
    for text in now.told:
        say(text, err=True)
    names = ", ".join(wanted.specs)
    there = len(wanted.items) - len(now.missing)
    console().print(
        f"{len(wanted.items):,} items, {there:,} of them there, {len(now.missing):,} missing: {names}"
    )


@contextlib.contextmanager
def _showing(name: str, *, quiet: bool) -> Iterator[Show]:
    """Show on stderr how far an extraction is: a bar on a terminal, else a line now and then."""
    from panic.interrupts import stop_on_signals

    started_at = shown_at = time.monotonic()
    first: int | None = None
    with contextlib.ExitStack() as stack:
        stop_requested = stack.enter_context(stop_on_signals())
        status = None
        if sys.stderr.isatty() and not quiet:
            status = stack.enter_context(console(err=True).status(f"{name}: starting"))

        def show(done: int, total: int, skipped: int) -> None:
            nonlocal shown_at, first
            if stop_requested():
                raise Interrupted(f"{name}: stopped; the same command goes on.")
            now = time.monotonic()
            first = done if first is None else first
            if quiet or now - shown_at < (0.25 if status else LINE_EVERY_S):
                return
            shown_at = now
            text = _line(name, done, total, skipped)
            if rate := (done - first) / (now - started_at):
                text += f", {rate:,.3g} a second, about {duration((total - done) / rate)} left"
            if status:
                status.update(text)
            else:
                say(text, err=True)

        yield show


def _line(name: str, done: int, total: int, skipped: int) -> str:
    return f"{name}: {done:,} of {total:,}" + (f" ({skipped:,} skipped)" if skipped else "")


def _tell(shared: Shared, asked: Asked, done: Extracted) -> None:
    """Print what has come of it; skipped items on stderr, which is a failure if so asked."""
    if not shared.quiet:
        number = len(set(asked.models))
        models = "vector" if number == 1 else f"vectors of {number} models"
        console().print(f"{asked.output}: {done.num_rows:,} rows with the {models} ({done.num_new:,} new)")
    if not done.skipped:
        return
    for one in done.skipped[:MOST_SHOWN]:
        say(f"Skipped: {one['file']} of {one['source']}: {one['reason']}", err=True)
    told = f"{len(done.skipped):,} skipped; the file's metadata lists all"
    if asked.strict:
        raise PanicError(f"{told}.")
    say(f"{told}.", err=True)


def compare_features(names: list[str], *, as_json: bool) -> None:
    """Print how far two files of features differ."""
    from dataclasses import asdict

    from panic.extraction.comparing import compare

    if len(names) != 2:
        raise UsageError("--compare takes two files.", hint="panic embed --compare a.parquet b.parquet")
    found = compare(Path(names[0]), Path(names[1]))
    if as_json:
        return print_json(asdict(found))
    out = console()
    out.print(f"{found.num_common:,} items in both, {found.num_changed:,} of other content")
    for name, ids in zip(names, (found.only_a, found.only_b), strict=True):
        if ids:
            more = " ..." if len(ids) > MOST_SHOWN else ""
            shown = ", ".join(map(shorten, ids[:MOST_SHOWN]))
            out.print(f"only in {name}: {len(ids):,} ({shown}{more})")
    for name, models in zip(names, (found.models_only_a, found.models_only_b), strict=True):
        if models:
            out.print(f"models only in {name}: {', '.join(models)}")
    rows: list[tuple[str | None, ...]] = []
    for model, one in found.models.items():
        first = (model, "same model" if one.same_fingerprint else "another fingerprint")
        what = {"1 - cosine": one.cosine, "largest number": one.absolute}
        what |= {"boxes' overlap": one.overlap, "scores": one.scores}
        rows += [(*first, name, f"{of.median:.3g}", f"{of.worst:.3g}") for name, of in what.items() if of]
        rows += [(*first, one.problem, None, None)] if one.problem else []
    if rows:
        print_table(["model", "fingerprint", "difference", "median #", "worst #"], rows)
    return None
