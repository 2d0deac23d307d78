"""The loops stage: where each run stands, what it does next, which runs share their future.

A run advances from output to input: stuck check, end check, then the next item. With a fixed seed the same
(model, seed, input) gives the same output, so it is computed once in an experiment: runs that meet go on
together (`_memo` for what is known, `_waiting` for what is being computed). Of a model that is not repeatable
nothing is remembered and nobody waits for another's item: each run asks for itself. A run with such a model
is never stuck; on request (`stuck_after`) it ends when it has gone through one cycle that often.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from panic.engine.forecast import Place
from panic.engine.plan import FRESH, run_root, step_seed
from panic.engine.progress import Progress
from panic.engine.queue import Item
from panic.engine.session import Session
from panic.engine.stages.stage import CallStage, Failed, Made
from panic.models import registry
from panic.models.protocol import Modality
from panic.store import Commit, missing, reading
from panic.store.codec import is_image_prompt, prompt_digest
from panic.store.missing import FixedSeedStep, Tail
from panic.store.records import NewFailure, NewInvocation, NewRepeated, NewRun, NewStuck, RunRow
from panic.store.stuck import RepeatDetector, StuckDetector

Key = tuple[str, int, bytes]
"""(model name, seed, input digest): what an output of a fixed seed depends on within a shape epoch."""


class Loop:
    """One run on its way.

    `begins` is what its prompt is, `root` is empty for a fixed seed. detector: None for fresh noise, and
    where a model is not repeatable. rounds: counts how often such a run has gone through a cycle, if that
    ends it; `cycle` is where it has (its first step and period).
    """

    __slots__ = (
        *("begins", "cycle", "detector", "id", "max_length", "network", "root", "rounds", "seed", "step"),
    )

    def __init__(
        self,
        id: int,
        run: NewRun,
        root_seed: int,
        max_length: int,
        *,
        is_repeatable: bool = True,
        stuck_after: int | None = None,
    ) -> None:
        self.id = id
        self.network = run.network
        self.seed = run.seed
        self.max_length = max_length
        self.step = 0
        self.begins = Modality.IMAGE if is_image_prompt(run.prompt) else Modality.TEXT
        fresh = run.seed == FRESH
        self.root = run_root(root_seed, run.network, run.prompt, run.repeat) if fresh else b""
        self.detector = None if fresh or not is_repeatable else StuckDetector(len(run.network))
        self.rounds = None
        if stuck_after is not None and not is_repeatable:
            self.rounds = RepeatDetector(len(run.network), stuck_after, max_length)
        self.cycle: tuple[int, int] | None = None

    @property
    def model(self) -> str:
        """The model of the next step."""
        return self.model_at(self.step)

    @property
    def place(self) -> Place:
        """Where the next step is."""
        return self.network, self.step % len(self.network)

    def count_round(self, output: bytes) -> None:
        """Know the run's next output."""
        if self.rounds is not None:
            self.cycle = self.rounds.visit(output)

    def model_at(self, step: int) -> str:
        """The model of a step."""
        return self.network[step % len(self.network)]


class LoopStage(CallStage):
    """All unfinished runs of an experiment's plan.

    `standing` counts the runs by the place of their next step.
    """

    name = "invocations"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._loops: dict[int, Loop] = {}
        # (model, seed) -> input -> (output, batch): a key of its own per step would cost 64 bytes more.
        self._memo: dict[tuple[str, int], dict[bytes, tuple[bytes, int]]] = {}
        self._waiting: dict[Key, list[Loop]] = {}
        generative = session.plan.generative
        self._gives = {name: spec.modality_out for name, spec in generative.items()}
        self._unrepeatable = {name for name, spec in generative.items() if not registry.is_repeatable(spec)}
        self._ended: list[int] = []
        self._ended_at: deque[tuple[int, int]] = deque()
        self._before: Progress | None = None
        self.standing: Counter[Place] = Counter()
        self._num_invocations = 0
        self._num_stuck = 0
        self._num_repeated = 0
        self._num_failed = 0

    def __len__(self) -> int:
        return len(self._loops)

    @property
    def remaining_steps(self) -> int:
        """Invocations that are missing if no run gets stuck."""
        return sum(loop.max_length - loop.step for loop in self._loops.values())

    def refill(self, *, thorough: bool) -> int:
        """Set the unfinished runs going where the store has them; once, afterwards they go on by
        themselves."""
        if self._before is not None:
            return 0
        session, store = self.session, self.session.reader
        rows = {row.id: row for row in reading.runs(store, session.experiment)}
        begun = any(row.num_steps for row in rows.values())  # of a new experiment there is nothing to ask
        tails = {tail.run: tail for tail in missing.tails(store, session.experiment)} if begun else {}
        wanted = dict(zip(session.run_ids, session.plan.runs, strict=True))
        unfinished = [id for id in wanted if rows[id].state in ("todo", "running")]
        for id in unfinished:
            self.add(self._loop(id, wanted[id]))
        if begun:
            self._recall_all(rows)
        commit = Commit()
        for id in unfinished:
            tail = tails.get(id) or Tail(id, 0, prompt_digest(wanted[id].prompt))
            self.start(id, tail.num_steps, tail.output, commit)
        ended = [rows[id] for id in wanted if rows[id].state not in ("todo", "running")]
        self._before = Progress(
            runs_total=len(wanted),
            runs_stuck=sum(row.state == "stuck" for row in ended),
            runs_repeated=sum(row.state == "repeated" for row in ended),
            runs_failed=sum(row.state == "failed" for row in ended),
            invocations=sum(row.num_steps for row in rows.values()),
        )
        found = len(session.ready)
        if commit.invocations or commit.stuck or commit.repeated:
            self.written(commit, session.writer.add(commit))
            found += 1  # what was known already is stored soon: then the other stages must be asked again
        return found

    def _loop(self, id: int, run: NewRun) -> Loop:
        config = self.session.plan.config
        is_repeatable = self._unrepeatable.isdisjoint(run.network)
        return Loop(
            *(id, run, config.root_seed, run.max_length),
            is_repeatable=is_repeatable,
            stuck_after=config.stuck_after,
        )

    def _recall_all(self, rows: dict[int, RunRow]) -> None:
        """Know what fixed-seed runs have computed already; nothing can go on from a lost image."""
        pins = self.session.pins
        counting = [loop.id for loop in self._loops.values() if loop.rounds is not None]
        for run, output in missing.outputs(self.session.reader, counting) if counting else ():
            self._loops[run].count_round(output)
        for known in missing.fixed_seed_history(self.session.reader, self.session.experiment):
            if known.output in self.session.lost:
                continue
            network = rows[known.run].network
            model = network[known.step % len(network)]
            self.recall(model, known, is_current=model in pins and pins[model].epoch == known.epoch)

    def add(self, loop: Loop) -> None:
        """Know an unfinished run; `start` sets it going."""
        self._loops[loop.id] = loop

    def recall(self, model: str, known: FixedSeedStep, *, is_current: bool) -> None:
        """Know a stored step of a fixed-seed run.

        is_current: it was computed in its model's current shape epoch; earlier ones say nothing about
        what comes.
        """
        loop = self._loops.get(known.run)
        if is_current and model not in self._unrepeatable:
            self._remember(model, known.seed, known.input, known.output, known.batch)
            if loop is not None and loop.detector is not None:
                loop.detector.visit(known.step, known.input)
        elif loop is not None and loop.detector is not None:
            loop.detector.forget_until(known.step)

    def forget(self, model: str) -> None:
        """A shape epoch of a model begins: its earlier results say nothing about the future."""
        self._memo = {key: known for key, known in self._memo.items() if key[0] != model}
        for loop in self._loops.values():
            if loop.detector is not None:
                made = (step for step in range(loop.step - 1, -1, -1) if loop.model_at(step) == model)
                loop.detector.forget_until(next(made, -1))

    def start(self, run: int, step: int, input: bytes, commit: Commit) -> None:
        """Set a run going at a step."""
        loop = self._loops[run]
        loop.step = step
        self.standing[loop.place] += 1
        self._advance(loop, input, commit)

    def absorb(self, work: Item, result: Made, commit: Commit) -> None:
        """Take an item's output: every run that waited for it makes a step."""
        output, model, batch = result
        digest = output.digest
        self.session.contents.add_unsaved(digest, output.value)
        commit.outputs.append(output.as_row())
        for loop in self._waiters(work, model):
            if self._is_shared(loop, model):
                self._remember(model, work.seed, work.input, digest, batch)
            self._step(loop, work.input, digest, work.seed, batch, commit)
            self._advance(loop, digest, commit)

    def fail(self, work: Item, failed: Failed, commit: Commit) -> None:
        """End the runs that waited for an item."""
        for loop in self._waiters(work, failed.model):
            commit.failures.append(
                NewFailure(
                    run=loop.id,
                    step=loop.step,
                    kind=failed.kind,
                    message=failed.message,
                    detail=failed.detail,
                    attempts=max(1, work.attempts),
                )
            )
            self._num_failed += 1
            self._end(loop)

    def written(self, commit: Commit, number: int) -> None:
        """Know in which commit the runs that have ended meanwhile are stored."""
        self._num_invocations += len(commit.invocations)
        self._ended_at.extend((number, run) for run in self._ended)
        self._ended = []

    def take_ended(self, committed: int) -> list[int]:
        """Runs that have ended since this was last asked and are in the store as a whole."""
        ended = []
        while self._ended_at and self._ended_at[0][0] <= committed:
            ended.append(self._ended_at.popleft()[1])
        return ended

    def progress(self, before: Progress) -> Progress:
        """How far the runs are."""
        start = self._before or Progress()
        invocations = start.invocations + self._num_invocations
        return replace(
            before,
            runs_total=start.runs_total,
            runs_ended=start.runs_total - len(self._loops),
            runs_stuck=start.runs_stuck + self._num_stuck,
            runs_repeated=start.runs_repeated + self._num_repeated,
            runs_failed=start.runs_failed + self._num_failed,
            invocations=invocations,
            invocations_total=invocations + self.remaining_steps,
        )

    def _is_shared(self, loop: Loop, model: str) -> bool:
        """Whether what a model gives a run is what it gives any run with this input and seed."""
        return loop.seed != FRESH and model not in self._unrepeatable

    def _remember(self, model: str, seed: int, input: bytes, output: bytes, batch: int) -> None:
        self._memo.setdefault((model, seed), {})[input] = (output, batch)

    def _waiters(self, item: Item, model: str) -> Sequence[Loop]:
        loop: Loop = item.subject
        return self._waiting.pop((model, item.seed, item.input)) if self._is_shared(loop, model) else [loop]

    def _step(self, loop: Loop, input: bytes, output: bytes, seed: int, batch: int, commit: Commit) -> None:
        commit.invocations.append(NewInvocation(loop.id, loop.step, input, output, seed, batch))
        loop.count_round(output)
        self.standing[loop.place] -= 1
        loop.step += 1
        self.standing[loop.place] += 1

    def _advance(self, loop: Loop, input: bytes, commit: Commit) -> None:
        """Go on from an input as far as results are known; then ask for the next one."""
        while True:
            if loop.id in self.session.writer.broken:  # the writer has stored why
                self._num_failed += 1
                self._end(loop)
                return
            if loop.detector is not None and (cycle := loop.detector.visit(loop.step, input)):
                commit.stuck.append(NewStuck(run=loop.id, entry_step=cycle.entry_step, period=cycle.period))
                self._num_stuck += 1
                self._end(loop)
                return
            if loop.cycle is not None:
                self._end_repeated(loop, loop.cycle, commit)
                return
            if loop.step >= loop.max_length:
                self._end(loop)
                return
            if not self._is_shared(loop, loop.model):
                seed = step_seed(loop.root, loop.step) if loop.seed == FRESH else loop.seed
                self._ask(loop, input, seed)
                return
            key = (loop.model, loop.seed, input)
            known = self._memo.get(key[:2], {}).get(input)
            if known is None:
                waiting = self._waiting.get(key)
                if waiting is not None:
                    waiting.append(loop)
                    return
                self._waiting[key] = [loop]
                self._ask(loop, input, loop.seed)
                return
            output, batch = known
            self._step(loop, input, output, loop.seed, batch, commit)
            input = output

    def _ask(self, loop: Loop, input: bytes, seed: int) -> None:
        modality = self._gives[loop.model_at(loop.step - 1)] if loop.step else loop.begins
        self.enqueue(loop.model, modality, Item(loop, input, seed))

    def _end_repeated(self, loop: Loop, cycle: tuple[int, int], commit: Commit) -> None:
        times = self.session.plan.config.stuck_after
        assert times is not None
        entry_step, period = cycle
        commit.repeated.append(NewRepeated(run=loop.id, entry_step=entry_step, period=period, times=times))
        self._num_repeated += 1
        self._end(loop)

    def _end(self, loop: Loop) -> None:
        del self._loops[loop.id]
        self.standing[loop.place] -= 1
        self._ended.append(loop.id)
