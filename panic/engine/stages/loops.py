"""The loops stage: where each run stands, what it does next, which runs share their future.

A run advances from output to input: what steps in, stuck check, end check, then the next item. The same
(model, seed, input) gives the same output, so runs that meet wait for one item (`_waiting`): with a fixed
seed, or as arms of one run of fresh noise. With a fixed seed it is computed once in an experiment (`_memo`).
Of a model that is not repeatable nothing is remembered and nobody waits for another's item: each run asks for
itself. A run with such a model is never stuck; on request (`stuck_after`) it ends when it has gone through
one cycle that often.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from panic.arms import (
    BASELINE,
    Arm,
    Intervention,
    due,
    maker,
    model_at,
    network_at,
    period_of,
    settled_step,
)
from panic.engine.contents import Output
from panic.engine.forecast import Place
from panic.engine.plan import FRESH, intervention_seed, run_root, step_seed
from panic.engine.progress import Progress
from panic.engine.queue import Item
from panic.engine.session import Session
from panic.engine.stages.stage import CallStage, Failed, Made
from panic.models import registry
from panic.models.protocol import Modality
from panic.store import Commit, missing, reading, writing
from panic.store.codec import prompt_digest, prompt_modality, text_digest
from panic.store.missing import FixedSeedStep, Tail
from panic.store.records import (
    NewFailure,
    NewIntervention,
    NewInvocation,
    NewRepeated,
    NewRun,
    NewStuck,
    RunRow,
)
from panic.store.stuck import RepeatDetector, StuckDetector

Key = tuple[str, int, bytes]
"""A call, as (model name, seed, input digest): what its output depends on within a shape epoch."""


class Loop:
    """One run on its way.

    `root` is empty for a fixed seed. modality: what the input of the next step is. network: the one that
    the next step belongs to, from the step `begin` on. waiting: what has yet to step in before the next
    step; `place` counts what has. detector: None for fresh noise, and where a model is not repeatable.
    rounds: counts how often such a run has gone through a cycle, if that ends it; `cycle` is where it has
    (its first step and period).
    """

    __slots__ = (
        *("_run", "arm", "begin", "cycle", "detector", "id", "max_length", "modality", "network", "place"),
        *("root", "rounds", "seed", "step", "waiting"),
    )

    def __init__(
        self,
        id: int,
        run: NewRun,
        root_seed: int,
        max_length: int,
        *,
        arm: Arm = (),
        is_repeatable: bool = True,
        stuck_after: int | None = None,
    ) -> None:
        self.id, self._run, self.arm = id, run, arm
        self.network, self.begin = run.network, 0
        self.seed = run.seed
        self.max_length = max_length
        self.step = self.place = 0
        self.waiting: list[Intervention] = []
        self.modality = Modality.TEXT
        fresh = run.seed == FRESH
        self.root = run_root(root_seed, run.network, run.prompt, run.repeat) if fresh else b""
        length, start = (period_of(run.network, arm), settled_step(arm)) if arm else (len(run.network), 0)
        self.detector = None if fresh or not is_repeatable else StuckDetector(length, start)
        self.rounds = None
        if stuck_after is not None and not is_repeatable:
            self.rounds = RepeatDetector(length, stuck_after, max_length, start)
        self.cycle: tuple[int, int] | None = None

    def arrive(self, step: int, num_made: int = 0) -> None:
        """Stand before a step; what steps in before it is still to be made, but for `num_made`."""
        self.step = step
        if self.arm:
            self.waiting, self.place = due(self.arm, step)[num_made:], num_made
            self.network, self.begin = network_at(self._run.network, self.arm, step)

    @property
    def model(self) -> str:
        """The model that the run waits for: one that steps in, or that of the next step."""
        if self.waiting:
            return self.waiting[0].model
        network, place = self.position
        return network[place]

    @property
    def call_seed(self) -> int:
        """The seed of the call that the run waits for."""
        if self.seed != FRESH:
            return self.seed
        if self.waiting:
            return intervention_seed(self.root, self.step, self.place)
        return step_seed(self.root, self.step)

    @property
    def position(self) -> Place:
        """Where the next step is."""
        return self.network, (self.step - self.begin) % len(self.network)

    def count_round(self, output: bytes) -> None:
        """Know the run's next output."""
        if self.rounds is not None:
            self.cycle = self.rounds.visit(output)

    def last_made_by(self, model: str) -> int:
        """The last state that was left by a model: its last step; -1 if there is none.

        The state of a step follows what stepped in before it, so that says something of the states before.
        """
        for step in range(self.step, -1, -1):
            if step < self.step and model_at(self._run.network, self.arm, step) == model:
                return step
            made = due(self.arm, step) if self.arm else ()
            if any(one.model == model for one in (made[: self.place] if step == self.step else made)):
                return step - 1
        return -1


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
        rows = {row.id: row for row in self._rows()}
        # Of a new experiment there is nothing to ask, unless something has stepped in before its first step.
        begun = bool(session.plan.arms) or any(row.num_steps for row in rows.values())
        tails = {tail.run: tail for tail in missing.tails(store, session.experiment)} if begun else {}
        wanted = dict(zip(session.run_ids, session.plan.runs, strict=True))
        unfinished = [id for id in wanted if rows[id].state in ("todo", "running")]
        for id in unfinished:
            self.add(self._loop(id, wanted[id]))
        if begun:
            self._recall_all(rows)
        commit = Commit()
        for id in unfinished:
            prompt = wanted[id].prompt
            self.start(tails.get(id) or Tail(id, 0, prompt_digest(prompt), prompt_modality(prompt)), commit)
        ended = [rows[id] for id in wanted if rows[id].state not in ("todo", "running")]
        self._before = Progress(
            runs_total=len(wanted),
            runs_stuck=sum(row.state == "stuck" for row in ended),
            runs_repeated=sum(row.state == "repeated" for row in ended),
            runs_failed=sum(row.state == "failed" for row in ended),
            invocations=sum(row.num_steps for row in rows.values()),
        )
        found = len(session.ready)
        if commit.invocations or commit.interventions or commit.stuck or commit.repeated:
            self.written(commit, session.writer.add(commit))
            found += 1  # what was known already is stored soon: then the other stages must be asked again
        return found

    def _rows(self) -> list[RunRow]:
        """The experiment's runs, once arms have the steps that another arm of the same run has already."""
        store, experiment = self.session.reader, self.session.experiment
        rows = reading.runs(store, experiment)
        has_arms = len({row.arm for row in rows}) > 1
        shared = missing.shared_steps(store, experiment, rows) if has_arms else ()
        wanted = set(self.session.run_ids)
        if not (shared := [one for one in shared if one.run in wanted]):
            return rows
        writing.share_steps(self.session.store, shared)
        return reading.runs(store, experiment)

    def _loop(self, id: int, run: NewRun) -> Loop:
        plan = self.session.plan
        return Loop(
            *(id, run, plan.config.root_seed, run.max_length),
            arm=plan.arms.get(run.arm, ()),
            is_repeatable=self._unrepeatable.isdisjoint(plan.models_of(run)),
            stuck_after=plan.config.stuck_after,
        )

    def _recall_all(self, rows: dict[int, RunRow]) -> None:
        """Know what fixed-seed runs have computed already; nothing can go on from a lost image."""
        pins = self.session.pins
        counting = [loop.id for loop in self._loops.values() if loop.rounds is not None]
        for run, output in missing.outputs(self.session.reader, counting) if counting else ():
            self._loops[run].count_round(output)
        arms = reading.arms(self.session.reader, self.session.experiment)  # also those that are not asked for
        for known in missing.fixed_seed_history(self.session.reader, self.session.experiment):
            if known.output in self.session.lost:
                continue
            row = rows[known.run]
            arm = arms[row.arm] if row.arm != BASELINE else ()
            network = row.network
            model = (
                maker(network, arm, known.step, known.place) if arm else network[known.step % len(network)]
            )
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
            if known.place is None and loop is not None and loop.detector is not None:
                loop.detector.visit(known.step, known.input)
        elif loop is not None and loop.detector is not None:
            loop.detector.forget_until(known.step if known.place is None else known.step - 1)

    def forget(self, model: str) -> None:
        """A shape epoch of a model begins: its earlier results say nothing about the future."""
        self._memo = {key: known for key, known in self._memo.items() if key[0] != model}
        for loop in self._loops.values():
            if loop.detector is not None:
                loop.detector.forget_until(loop.last_made_by(model))

    def start(self, tail: Tail, commit: Commit) -> None:
        """Set a run going where it stands."""
        loop = self._loops[tail.run]
        loop.arrive(tail.num_steps, tail.num_made)
        loop.modality = Modality(tail.modality)
        self.standing[loop.position] += 1
        self._advance(loop, tail.output, commit)

    def absorb(self, work: Item, result: Made, commit: Commit) -> None:
        """Take an item's output: every run that waited for it makes a step."""
        output, model, batch = result
        digest = output.digest
        self.session.contents.add_unsaved(digest, output.value)
        commit.outputs.append(output.as_row())
        for loop in self._waiters(work, model):
            if loop.seed != FRESH and model not in self._unrepeatable:
                self._remember(model, work.seed, work.input, digest, batch)
            self._take(loop, (model, work.seed, work.input), digest, batch, commit)
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

    def _remember(self, model: str, seed: int, input: bytes, output: bytes, batch: int) -> None:
        self._memo.setdefault((model, seed), {})[input] = (output, batch)

    def _waiters(self, item: Item, model: str) -> Sequence[Loop]:
        if model in self._unrepeatable:
            return [item.subject]
        return self._waiting.pop((model, item.seed, item.input))

    def _take(self, loop: Loop, call: Key, output: bytes, batch: int, commit: Commit) -> None:
        """Note what a call (model, seed, input) has given a run: its next step, or what steps in there."""
        model, seed, input = call
        loop.modality = self._gives[model]
        if loop.waiting:
            self._step_in(loop, input, output, (seed, batch), commit)
            return
        commit.invocations.append(NewInvocation(loop.id, loop.step, input, output, seed, batch))
        loop.count_round(output)
        self.standing[loop.position] -= 1
        loop.arrive(loop.step + 1)
        self.standing[loop.position] += 1

    def _step_in(
        self,
        loop: Loop,
        input: bytes,
        output: bytes,
        call: tuple[int | None, int | None],
        commit: Commit,
    ) -> None:
        """Note an intervention; call: its seed and batch, if a model was called."""
        one = loop.waiting.pop(0)
        commit.interventions.append(
            NewIntervention(loop.id, loop.step, loop.place, one.kind, input, output, *call)
        )
        loop.place += 1

    def _replaced(self, loop: Loop, input: bytes, commit: Commit) -> bytes:
        """Make the next intervention of a run, which calls no model; returns the input as it is then."""
        one, output = loop.waiting[0], input
        if one.kind == "text":
            made = Output(Modality.TEXT, text_digest(one.value), one.value)
            self.session.contents.add_unsaved(made.digest, made.value)
            commit.outputs.append(made.as_row())
            loop.modality, output = Modality.TEXT, made.digest
        self._step_in(loop, input, output, (None, None), commit)
        return output

    def _advance(self, loop: Loop, input: bytes, commit: Commit) -> None:
        """Go on from an input as far as results are known; then ask for the next one."""
        while True:
            if loop.id in self.session.writer.broken:  # the writer has stored why
                self._num_failed += 1
                self._end(loop)
                return
            if loop.cycle is not None:
                self._end_repeated(loop, loop.cycle, commit)
                return
            if loop.waiting and loop.step < loop.max_length:
                if not loop.waiting[0].model:
                    input = self._replaced(loop, input, commit)
                    continue
            elif not loop.waiting and loop.detector and (cycle := loop.detector.visit(loop.step, input)):
                commit.stuck.append(NewStuck(run=loop.id, entry_step=cycle.entry_step, period=cycle.period))
                self._num_stuck += 1
                self._end(loop)
                return
            if loop.step >= loop.max_length:
                self._end(loop)
                return
            call = loop.model, loop.call_seed, input
            known = self._known(loop, call)
            if known is None:
                self._ask(loop, call)
                return
            input, batch = known
            self._take(loop, call, input, batch, commit)

    def _known(self, loop: Loop, call: Key) -> tuple[bytes, int] | None:
        """The output and batch of a call, if it is known; of fresh noise nothing is remembered."""
        return None if loop.seed == FRESH else self._memo.get(call[:2], {}).get(call[2])

    def _ask(self, loop: Loop, call: Key) -> None:
        """Let a run wait for a call, together with others that wait for the same."""
        model, seed, input = call
        if model not in self._unrepeatable:
            if call in self._waiting:
                self._waiting[call].append(loop)
                return
            self._waiting[call] = [loop]
        self.enqueue(model, loop.modality, Item(loop, input, seed))

    def _end_repeated(self, loop: Loop, cycle: tuple[int, int], commit: Commit) -> None:
        times = self.session.plan.config.stuck_after
        assert times is not None
        entry_step, period = cycle
        commit.repeated.append(NewRepeated(run=loop.id, entry_step=entry_step, period=period, times=times))
        self._num_repeated += 1
        self._end(loop)

    def _end(self, loop: Loop) -> None:
        del self._loops[loop.id]
        self.standing[loop.position] -= 1
        self._ended.append(loop.id)
