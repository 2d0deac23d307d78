"""The images stage: images whose bytes the store has lost are computed again from what made them.

Work is what the store lacks: images that invocations refer to and whose bytes are gone. The same model,
seed, input and batch shape give the same image (promise 2), and the digest tells whether they did. An image
that comes out differently, or not at all, is not stored: the runs that put it out end with a failure of the
kind "lost". This comes before everything else, because loops and embeddings need the images.

    rm panic-store/images.sqlite; panic resume demo
"""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import groupby

from panic.config.fields import MAX_BATCH
from panic.engine.pinning import refuse_more
from panic.engine.progress import Progress
from panic.engine.queue import Item
from panic.engine.session import LOST, Session
from panic.engine.stages.stage import CallStage, Failed, Made
from panic.models import registry
from panic.models.protocol import Modality
from panic.store import Commit, images, missing, reading
from panic.store.missing import ImageOrigin
from panic.store.records import Counts, NewFailure

log = logging.getLogger("panic.engine")


class ImageStage(CallStage):
    """Brings back an experiment's missing images, in the shapes that made them.

    Those that an earlier session could not bring back are left alone until their failures are forgotten.
    Images that stay lost are told to the session.
    """

    name = "images"
    is_pinned = False
    memory_hint = "Images are computed again in the shape that made them, batches of {batch_size}."

    def __init__(self, session: Session, before: Counts) -> None:
        super().__init__(session)
        self._counts = before
        self._left: dict[bytes, ImageOrigin] | None = None
        self._reasons: dict[bytes, str] = {}
        self._num_wanted = 0
        self._num_back = 0

    def refill(self, *, thorough: bool) -> int:
        """Ask for the images whose inputs are there; those that are made from lost ones come later."""
        if not thorough:
            return 0
        if self._left is None:
            self._left = self._find()
        gone = self._left.keys() | self._reasons.keys() | self.session.lost
        ready = [origin for origin in self._left.values() if origin.input not in gone]
        for origin in ready:
            modality = Modality(origin.input_modality)
            refuse_more(MAX_BATCH, origin.batch_size, f"items in a batch of {origin.model}")
            self.enqueue(origin.model, modality, Item(origin, origin.input, origin.seed), origin.batch_size)
        if not ready:
            self._reasons |= dict.fromkeys(self._left, "what it was made from is lost")
            self._left.clear()
            self._give_up()
        return len(ready)

    def _find(self) -> dict[bytes, ImageOrigin]:
        """The origins of what is missing, by digest."""
        store, experiment = self.session.reader, self.session.experiment
        absent = frozenset(missing.images(store, experiment))
        self.session.lost |= missing.lost_images(store, experiment) & absent
        wanted = absent - self.session.lost
        self._num_wanted = len(wanted)
        if not wanted:
            return {}
        log.warning("%d of the experiment's images are missing: computing them again", len(wanted))
        found = {origin.digest: origin for origin in missing.image_origins(store, experiment, wanted)}
        given = "runs begin with it, and no model made it: perform a config that names its file"
        self._reasons |= dict.fromkeys(wanted - found.keys(), given)
        specs = self.session.plan.specs
        others: set[bytes] = set()
        for digest, origin in list(found.items()):
            if origin.model not in specs or origin.input in others:
                others.add(digest)
                del found[digest]
            elif not registry.is_repeatable(specs[origin.model]):
                self._reasons[digest] = f"{origin.model} is not repeatable, and is not asked again"
                del found[digest]
        if others:
            self._num_wanted -= len(others)
            log.warning("%d of them are of models that this config does not ask for: left alone", len(others))
        return found

    def absorb(self, work: Item, result: Made, commit: Commit) -> None:
        """Take an image if it is the one that was lost."""
        origin: ImageOrigin = work.subject
        self._settle(origin)
        if result.output.digest != origin.digest:
            self._reasons[origin.digest] = f"{origin.model} gives another picture now"
            return
        self.session.contents.add_unsaved(origin.digest, result.output.value)
        commit.outputs.append(result.output.as_row())
        self._num_back += 1

    def fail(self, work: Item, failed: Failed, commit: Commit) -> None:
        """Take that an image is lost."""
        origin: ImageOrigin = work.subject
        self._settle(origin)
        self._reasons[origin.digest] = f"{origin.model} gives none now: {failed.message}"

    def _settle(self, origin: ImageOrigin) -> None:
        assert self._left is not None
        del self._left[origin.digest]

    def _give_up(self) -> None:
        """End the runs that put out an image that stays lost, unless they have a failure already."""
        if self._num_wanted:
            log.info("%d of %d images are back", self._num_back, self._num_wanted)
        if not self._reasons:
            return
        store, experiment = self.session.reader, self.session.experiment
        has_failed = {run.id for run in reading.runs(store, experiment) if run.failure is not None}
        users = images.image_users(store, experiment, self._reasons.keys())
        commit = Commit()
        for run, steps in groupby(users, key=lambda user: user[0]):
            lost = {digest: step for _, step, digest in reversed(list(steps))}
            digest, step = min(lost.items(), key=lambda item: item[1])
            message = f"image {digest.hex()} is lost: {self._reasons[digest]}"
            log.warning("run %d, step %d: %s", run, step, message)
            if run not in has_failed:
                detail = "\n".join(digest.hex() for digest in lost)
                commit.failures.append(
                    NewFailure(run=run, step=step, kind=LOST, message=message, detail=detail)
                )
        self.session.writer.add(commit)
        self.session.writer.flush()
        self.session.lost |= self._reasons.keys()
        self._reasons.clear()

    def written(self, commit: Commit, number: int) -> None:
        """Do nothing: the driver waits for all images before it asks again."""

    def progress(self, before: Progress) -> Progress:
        """Where the experiment stands meanwhile."""
        counts, message = self._counts, ""
        if self._num_wanted:
            message = f"images computed again: {self._num_back:,} of {self._num_wanted:,}"
        return replace(
            before,
            runs_total=counts.runs,
            runs_ended=counts.ended,
            runs_stuck=counts.stuck,
            runs_repeated=counts.repeated,
            runs_failed=counts.failed,
            invocations=counts.invocations,
            invocations_total=counts.invocations,
            message=message,
        )
