"""The embeddings stage: each distinct output is embedded once per embedding model in a store.

Work is what the store lacks: outputs of the runs that have ended, prompts included, without a vector. It
becomes items of the same ready queue that the loops use.
"""

from __future__ import annotations

from panic.engine.progress import Progress
from panic.engine.queue import Item
from panic.engine.session import Session
from panic.engine.stages.loops import LoopStage
from panic.engine.stages.stage import Account, CallStage, Failed, Made
from panic.models.protocol import Modality
from panic.store import Commit, contents, missing
from panic.store.records import Counts, NewEmbedding


class EmbeddingStage(CallStage):
    """Finds outputs without vectors and keeps account of them.

    Args:
        loops: tells which runs have ended.
    """

    name = "embeddings"

    def __init__(self, session: Session, loops: LoopStage, before: Counts) -> None:
        super().__init__(session)
        self._loops = loops
        # Claims are of models by name and outputs by digest.
        self._account: Account[tuple[str, bytes]] = Account(before.embeddings)
        self._dimensions: dict[int, int] = {}

    def refill(self, *, thorough: bool) -> int:
        """Enqueue outputs of the runs that have ended meanwhile, or of all runs."""
        writer = self.session.writer
        committed = writer.committed
        ended = self._loops.take_ended(committed)
        self._account.settle(committed, writer.incomplete)
        return self._find(None) if thorough else sum(self._find(run) for run in ended)

    def _find(self, run: int | None) -> int:
        """Enqueue what the store lacks of one run or of the whole experiment; returns how many items."""
        found = 0
        session = self.session
        for name, spec in session.plan.embedding.items():
            model = session.pins[name].model
            for digest, modality in missing.embeddings(
                session.reader, session.experiment, model, spec.modalities_in, run=run
            ):
                if digest not in session.lost and self._account.claim((name, digest)):
                    self.enqueue(name, Modality(modality), Item(name, digest, seed=0))
                    found += 1
        return found

    def absorb(self, work: Item, result: Made, commit: Commit) -> None:
        """Take an output's vector."""
        model = self.session.pins[result.model].model
        vector = result.output.value
        dimension = self._dimension(model, len(vector))
        if len(vector) != dimension:
            message = f"a vector of {len(vector):,} numbers, where the model's others have {dimension:,}"
            self.fail(work, Failed("rejected", message, model=result.model), commit)
            return
        commit.embeddings.append(
            NewEmbedding(output=work.input, model=model, batch=result.batch, vector=vector)
        )
        self._account.num_done += 1

    def _dimension(self, model: int, default: int) -> int:
        """How many numbers a model's vectors have: those in the store, or else the first one's."""
        if model not in self._dimensions:
            self._dimensions[model] = contents.dimension(self.session.reader, model) or default
        return self._dimensions[model]

    def fail(self, work: Item, failed: Failed, commit: Commit) -> None:
        """Leave an output without a vector; it stays claimed, so that this session does not try again."""
        what = f"{failed.model}: output {work.input.hex()[:12]} has no vector"
        self.given_up.append(f"{what}: {failed.message}")

    def written(self, commit: Commit, number: int) -> None:
        """Know that the commit's vectors are on their way into the store."""
        names = {self.session.pins[name].model: name for name in self.session.plan.embedding}
        self._account.written([(names[row.model], row.output) for row in commit.embeddings], number)

    def progress(self, before: Progress) -> Progress:
        """The progress of the whole with what there is by now, and that plus what was found missing."""
        return before.with_stage(self.name, self._account.num_done, self._account.num_found)
