"""A run on its way: which step it stands before, what steps in there, whose call it waits for.

loop = Loop(id, run, root_seed, run.max_length, arm=plan.arms.get(run.arm, ()))
loop.arrive(0); print(loop.model, loop.call_seed)
"""

from __future__ import annotations

from panic.arms import Arm, Intervention, due, model_at, network_at, period_of, settled_step
from panic.engine.forecast import Place
from panic.engine.plan import FRESH, intervention_seed, run_root, step_seed
from panic.models.protocol import Modality
from panic.store.records import NewRun
from panic.store.stuck import RepeatDetector, StuckDetector


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
