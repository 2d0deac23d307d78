"""What is known to be true of a design, by which predicates judge sentences."""

from __future__ import annotations

from dataclasses import dataclass

from tests.referee.worlds import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """What is true of a design; None where the design does not say, and nobody is judged by it.

    `ends`: factors that make a difference to where runs end; `largest` of them explains most beyond chance.
    `could_show`: whether tests of the ends could have come out at all. `readable`: factors that an output,
    of whatever step, tells something of, among them the model that made it; `readable_late`: of the last
    third.
    `remembers`: whether the next output depends on the one before; `is_near`: whether it is nearer to it than
    to others. `wanders`: whether distance grows with the lag up to the end. `period`: of the outputs, 0 for
    none. `regions`: how many there are, 0 for none; `shares_regions`: whether several runs visit each.
    `chain`: the matrix of moves among regions. `drift_differs`: whether networks end at different
    distances from the start. `length_kept`: whether the length of the prompt is that of the end.
    `mean_share`: of the steps in each cluster, over all prompts that could be.
    `stays_plainly`: whether runs are long enough to tell that distances do not grow.
    `parting_factor`: by which runs of a prompt, which begin near each other, part per step (model call).
    `likeness_changes`: whether likeness to the prompt is another one late than early; `diversity_changes`:
    whether runs become more or less alike; `images_fade`: whether saturation falls, and nothing else of an
    image. `prompt_told`, `prompt_told_late`: whether the own prompt is nearer than others, early, and late.
    `pairs_nearer`: whether prompts that differ in one word end nearer than others. `stays_home`: whether runs
    are late in the cluster of their first output more often than in that of others.
    `regime`: what all runs do in the end. `shock_passes`: whether runs are late where they would have been
    without the shock. `networks_apart`: whether networks differ in the regions that they are in, prompts
    taken together; None: not where the network makes no difference to `ends`.
    """

    ends: frozenset[str] | None = None
    largest: str | None = None
    could_show: bool = True
    readable: frozenset[str] | None = None
    readable_late: frozenset[str] | None = None
    remembers: bool | None = None
    is_near: bool | None = None
    wanders: bool | None = None
    period: int | None = None
    regions: int | None = None
    shares_regions: bool = True
    chain: Array | None = None
    drift_differs: bool | None = None
    length_kept: bool | None = None
    mean_share: float | None = None
    stays_plainly: bool = False
    parting_factor: float | None = None
    likeness_changes: bool | None = None
    diversity_changes: bool | None = None
    images_fade: bool | None = None
    prompt_told: bool | None = None
    prompt_told_late: bool | None = None
    pairs_nearer: bool | None = None
    stays_home: bool | None = None
    regime: str | None = None
    shock_passes: bool | None = None
    networks_apart: bool | None = None
