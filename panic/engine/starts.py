"""What runs start from where a config names more than texts: images, outputs of another experiment, files.

`Starts` reads them while a config is checked, and remembers where each came from: which file an image is in,
so that its pixels can be stored at the start, and what is kept with the session (`lineage`). After the start
the store has all of it: an experiment is resumed without its files.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from panic.config.labels import PromptLabels
from panic.config.prompt_origins import ImagePrompts, OutputPrompts
from panic.engine.contents import Output, finish
from panic.engine.importing.images import read_image
from panic.errors import ConfigError, PanicError
from panic.models.protocol import Modality
from panic.models.weights import file_digest
from panic.store import Store, contents, images, reading
from panic.store.codec import image_prompt, is_image_prompt, prompt_digest
from panic.store.records import ENDED, NewOutput, NewRun, RunRow

log = logging.getLogger("panic.engine")

MANY = 1000


@dataclass(slots=True, kw_only=True)
class Starts:
    """What a config's prompts come from, as far as they are no texts of its own.

    Args:
        store: the folder of the store, given the one that the config names.
        files: the file that each image was read from, by its prompt: (folder, name).
        lineage: what is told of where prompts came from: the entry of the config, and the digests it gave, or
            that of its file of texts.
    """

    store: Callable[[Path | None], Path]
    files: dict[str, tuple[Path, str]] = field(default_factory=dict)
    lineage: list[dict[str, Any]] = field(default_factory=list)
    _steps: dict[str, tuple[int, int]] = field(default_factory=dict)
    _uids: dict[str, str] = field(default_factory=dict)

    def image(self, folder: Path, name: str) -> str:
        """Read an image; its prompt. Raises ConfigError."""
        output = _image(folder, name)
        prompt = image_prompt(output.digest)
        self.files.setdefault(prompt, (folder, name))
        if len(self.files) == MANY:
            log.info("reading images to start from; all of them are decoded to know them by their pixels")
        return prompt

    def outputs(self, wanted: OutputPrompts, store: Path | None) -> list[str]:
        """Read what another experiment came to, as prompts in the order of its runs. Raises ConfigError."""
        if wanted.experiment == "latest":  # the second time it would be the one that begins with it
            raise ConfigError("latest is another experiment after each run", hint="say its name")
        path = self.store(store)
        try:
            with Store(path, copy_older=True) as opened:
                row = reading.experiment(opened, wanted.experiment)
                runs = [run for run in reading.runs(opened, row.id) if _is_meant(run, wanted)]
                last = None if wanted.step == "last" else wanted.step
                found = contents.outputs_at(opened, [run.id for run in runs], last, wanted.modality)
        except PanicError as error:
            raise ConfigError(f"{wanted.experiment}: {error.message}", hint=error.hint) from None
        self._uids[wanted.experiment] = row.uid
        for run, step, modality, prompt in found:
            if modality == "text" and (is_image_prompt(prompt) or "\0" in prompt):
                log.warning("run %d of %s: its text at step %d cannot be a prompt", run, row.name, step)
            else:
                self._steps.setdefault(prompt, (run, step))
        prompts = dict.fromkeys(prompt for *_, prompt in found)
        return [prompt for prompt in prompts if prompt in self._steps]

    def note(self, wanted: ImagePrompts | OutputPrompts, prompts: Sequence[str]) -> None:
        """Take down which prompts an entry of the config has given."""
        told: list[dict[str, Any]] = []
        for prompt in prompts:
            place = {"digest": prompt_digest(prompt).hex()}
            if isinstance(wanted, ImagePrompts):
                told.append(
                    place | {"file": os.fsencode(self.files[prompt][1]).decode(errors="backslashreplace")}
                )
            else:
                run, step = self._steps[prompt]
                told.append(place | {"run": run, "step": step})
        entry = wanted.model_dump(mode="json", exclude_defaults=True)
        uid = {"uid": self._uids[wanted.experiment]} if isinstance(wanted, OutputPrompts) else {}
        self.lineage.append({"from": entry, **uid, "prompts": told})

    def note_file(self, wanted: PromptLabels, file: Path, num_prompts: int) -> None:
        """Take down which file of texts an entry of the config has named: its digest, and what DVC knows."""
        entry = wanted.model_dump(mode="json", exclude_defaults=True)
        digest = {}
        with contextlib.suppress(OSError):  # it has gone since it was read
            if file.is_file():  # a pipe can be read once
                digest = {"sha256": file_digest(file), **_of_dvc(file)}
        self.lineage.append({"from": entry, **digest, "num_prompts": num_prompts})


def _of_dvc(file: Path) -> dict[str, str]:
    """The md5 that a `.dvc` beside a file says that it has."""
    import yaml

    with contextlib.suppress(OSError, ValueError, yaml.YAMLError, LookupError, TypeError):
        said = yaml.safe_load(file.with_name(f"{file.name}.dvc").read_text(encoding="utf-8"))
        [md5] = [one["md5"] for one in said["outs"] if one["path"] == file.name]
        return {"md5": str(md5)}
    return {}


def _image(folder: Path, name: str) -> Output:
    try:
        output = finish(read_image(folder, name), Modality.IMAGE, reject_constant_images=False)
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from None
    if isinstance(output, Output):
        return output
    raise ConfigError(output.reason)


def _is_meant(run: RunRow, wanted: OutputPrompts) -> bool:
    where = wanted.where
    return (
        (run.state == where.state if where.state else run.state in ENDED)
        and (where.network is None or list(run.network) == where.network)
        and where.prompt in (None, run.prompt)
        and where.seed in (None, run.seed)
        and where.repeat in (None, run.repeat)
    )


def missing_images(store: Store, runs: Iterable[NewRun], files: Mapping[str, tuple[Path, str]]) -> list[str]:
    """The prompts of runs that are images whose pixels the store does not have, and some file has.

    Raises ConfigError for one that is in no file, unless the store knows it, and lost its pixels alone.
    """
    found = []
    for prompt in dict.fromkeys(run.prompt for run in runs if is_image_prompt(run.prompt)):
        digest = prompt_digest(prompt)
        if images.has_image(store, digest):
            continue
        if prompt in files:
            found.append(prompt)
        elif not images.has_output(store, digest):
            raise ConfigError(
                f"there is no {prompt[:18]}... in this store",
                hint="A config that was written from a store, or read before, names images by digest alone:"
                " perform it in that store, or from its own file, or name the image: {images: FILE}.",
            )
    return found


def given_images(prompts: Iterable[str], files: Mapping[str, tuple[Path, str]]) -> Iterator[NewOutput]:
    """The images that these prompts are, read one by one. Raises ConfigError for a file that has changed."""
    for prompt in prompts:
        folder, name = files[prompt]
        output = _image(folder, name)
        if output.digest != prompt_digest(prompt):
            raise ConfigError(f"{folder / name} is another image than it was when the config was read")
        yield output.as_row()
