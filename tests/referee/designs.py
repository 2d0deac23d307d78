"""The designs of the referee: experiments of which is known what is true, drawn anew for every replicate.

design = DESIGNS["prompt"]
world = design.make(np.random.default_rng(0))
design.truth.ends                       # {"prompt"}
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tests.referee.worlds import DRAW, TELL, Array, SimulatedRun, World

DIMENSIONS = 16
PARTING = 1.4  # factor per output
NETWORKS = ((DRAW, TELL), (DRAW, "tell2"))
Places = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """What is true of a design; None where the design does not say, and nobody is judged by it.

    `ends`: factors that make a difference to where runs end; `largest` of them explains most beyond chance.
    `could_show`: whether tests of the ends could have come out at all. `readable`: factors that an output,
    of whatever step, tells something of; `readable_late`: of the last third.
    `remembers`: whether the next output depends on the one before; `is_near`: whether it is nearer to it than
    to others. `wanders`: whether distance grows with the lag up to the end. `period`: of the outputs, 0 for
    none. `regions`: how many there are, 0 for none; `shares_regions`: whether several runs visit each.
    `chain`: the matrix of moves among regions. `drift_differs`: whether networks end at different
    distances from the start. `length_kept`: whether the length of the prompt is that of the end.
    `mean_share`: of the steps in each cluster, over all prompts that could be.
    `stays_plainly`: whether runs are long enough to tell that distances do not grow.
    `parting_factor`: by which runs of a prompt, which begin near each other, part per step (model call).
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """How worlds of a kind are drawn, what is true of them, and in a sentence what they are.

    `asks`: the questions that it is plain for, which the short round asks of it; the long one asks all.
    """

    what: str
    make: Callable[[Generator], World]
    truth: Truth
    asks: str = ""
    is_small: bool = True


NOTHING: frozenset[str] = frozenset()


def factors(*names: str) -> frozenset[str]:
    return frozenset(names)


def prompts(count: int) -> dict[str, Array]:
    """Prompts of 3, 4, ... words, whose vectors lie in a corner that no region has."""
    start = np.eye(DIMENSIONS)[-1]
    return dict.fromkeys(("a start of " + "many " * i + f"kind{i}" for i in range(count)), start)


def around(places: Sequence[int] | Places, rng: Generator, noise: float = 0.1) -> Array:
    """Unit vectors (n, DIMENSIONS) about the corners of these numbers."""
    return unit(np.eye(DIMENSIONS)[np.asarray(places)] + noise * rng.normal(size=(len(places), DIMENSIONS)))


def unit(vectors: Array) -> Array:
    found: Array = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return found


def texts(places: Places, rng: Generator, *, is_exact: bool = False, words: int | None = None) -> list[str]:
    """Texts that name their place, of random lengths or of so many words; all different unless `is_exact`."""
    if is_exact:
        return [f"state {place}" for place in places]
    lengths = rng.integers(4, 10, len(places)) if words is None else [max(words, 3)] * len(places)
    nonces = rng.integers(2**60, size=len(places))
    return [
        f"place {place} n{nonce:x}" + " more" * (int(length) - 3)
        for place, nonce, length in zip(places, nonces, lengths, strict=True)
    ]


def run(places: Sequence[int] | Places, rng: Generator, *, noise: float = 0.1, **how: Any) -> SimulatedRun:
    """A run through regions, with other texts every time, or the same where there is no noise."""
    numbers = np.asarray(places)
    return SimulatedRun(
        places=numbers,
        texts=texts(numbers, rng, is_exact=noise == 0, words=how.pop("words", None)),
        vectors=how.pop("vectors", None) if "vectors" in how else around(numbers, rng, noise),
        **{"num_outputs": len(numbers), **how},
    )


def crossed(
    path: Callable[[int, int, Generator], Any],
    rng: Generator,
    *,
    num_prompts: int = 4,
    repeats: int = 3,
    networks: Sequence[tuple[str, ...]] = NETWORKS,
    **how: Any,
) -> World:
    """Runs of every network and prompt with fresh noise; `path` gives the places by (network, prompt)."""
    known = prompts(num_prompts)
    runs = [
        run(path(n, p, rng), rng, network=network, prompt=prompt, repeat=repeat, **how)
        for n, network in enumerate(networks)
        for p, prompt in enumerate(known)
        for repeat in range(repeats)
    ]
    return World(runs=runs, prompts=known)


def chain_path(matrix: Array, length: int, rng: Generator) -> Places:
    """A path of a Markov chain that starts anywhere, with its stationary law where that is uniform."""
    path = [int(rng.integers(len(matrix)))]
    while len(path) < length:
        path.append(int(rng.choice(len(matrix), p=matrix[path[-1]])))
    return np.array(path)


def staying(num_regions: int, share: float) -> Array:
    """The chain that stays with this probability and else goes anywhere else."""
    found = np.full((num_regions, num_regions), (1 - share) / (num_regions - 1))
    np.fill_diagonal(found, share)
    return found


EVEN = np.full((4, 4), 0.25)


def no_effect(rng: Generator) -> World:
    return crossed(lambda n, p, r: r.integers(4, size=16), rng)


def shaped(rng: Generator) -> World:
    world = crossed(lambda n, p, r: r.integers(4, size=16), rng, num_prompts=3, repeats=2, noise=0.3)
    return World(runs=world.runs, prompts=world.prompts, has_diagrams=True)


def prompt_decides(rng: Generator) -> World:
    known = prompts(6)
    runs = [
        run(np.full(16, p), rng, network=network, prompt=prompt, repeat=repeat, words=len(prompt.split()))
        for network in NETWORKS
        for p, prompt in enumerate(known)
        for repeat in range(2)
    ]
    return World(runs=runs, prompts=known)


def network_decides(rng: Generator) -> World:
    """The first network stays near the prompts, the second goes elsewhere."""
    return crossed(lambda n, p, r: np.full(16, DIMENSIONS - 1 if n == 0 else 0), rng, noise=0.2)


def interaction(rng: Generator) -> World:
    return crossed(lambda n, p, r: np.full(16, (p + 2 * n) % 4), rng)


def slow_mixing(rng: Generator) -> World:
    return crossed(lambda n, p, r: chain_path(staying(4, 0.9), 40, r), rng)


def unbalanced(rng: Generator) -> World:
    """Networks (2) explain more than prompts (8), whose number alone explains much."""
    known = prompts(8)
    runs = []
    for n, network in enumerate(NETWORKS):
        for p, prompt in enumerate(known):
            for repeat in range(1 + (n + p) % 3):
                centre = np.zeros(DIMENSIONS)
                centre[0], centre[1], centre[2 + p] = 0.55 * (1 - n), 0.55 * n, 0.3
                vectors = unit(centre + 0.22 * rng.normal(size=(16, DIMENSIONS)))
                where = np.zeros(16, dtype=np.int64)
                runs.append(run(where, rng, vectors=vectors, network=network, prompt=prompt, repeat=repeat))
    return World(runs=runs, prompts=known)


def few(rng: Generator) -> World:
    return crossed(lambda n, p, r: r.integers(4, size=16), rng, num_prompts=2, repeats=2)


def confounded(rng: Generator) -> World:
    """The third network ends elsewhere, which is its captioner's doing and not that of its painter."""
    networks = ((DRAW, "tell1"), (DRAW, "tell2"), ("draw2", "tell3"))
    return crossed(lambda n, p, r: np.full(16, n // 2), rng, networks=networks)


def copies(rng: Generator) -> World:
    """Runs with a fixed seed fall together at their first step, so that each seed is one path of one law."""
    known = prompts(4)
    runs = []
    for network in NETWORKS:
        for seed in (1, 2, 3):
            path = rng.integers(4, size=16)
            vectors, told = around(path, rng), texts(path, rng)
            runs += [
                SimulatedRun(
                    network=network, prompt=prompt, seed=seed, texts=told, vectors=vectors, places=path,
                    num_outputs=16,
                ) for prompt in known
            ]  # fmt: skip
    return World(runs=runs, prompts=known)


def transient(rng: Generator) -> World:
    """The prompt decides the first third and nothing after it."""
    return crossed(lambda n, p, r: np.r_[np.full(10, p), r.integers(4, size=20)], rng)


def walks(rng: Generator) -> World:
    """Steps of 0.08 to 0.22 at right angles to where the run is; each run begins anywhere."""
    known = prompts(4)
    runs = []
    for network in NETWORKS:
        for prompt in known:
            for repeat in range(2):
                points = [unit(rng.normal(size=DIMENSIONS))]
                while len(points) < 40:
                    step = rng.normal(size=DIMENSIONS)
                    step -= (step @ points[-1]) * points[-1]
                    points.append(unit(points[-1] + rng.uniform(0.08, 0.22) * unit(step)))
                where = np.zeros(40, dtype=np.int64)
                vectors = np.array(points)
                runs.append(run(where, rng, vectors=vectors, network=network, prompt=prompt, repeat=repeat))
    return World(runs=runs, prompts=known, has_diagrams=True)


def memory(rng: Generator, rho: float = 0.8) -> World:
    """First-order autoregression about one centre, from its stationary law on."""
    known = prompts(4)
    runs = []
    for network in NETWORKS:
        for prompt in known:
            for repeat in range(2):
                noise = rng.normal(size=(40, DIMENSIONS))
                for i in range(1, 40):
                    noise[i] = rho * noise[i - 1] + np.sqrt(1 - rho**2) * noise[i]
                where = np.zeros(40, dtype=np.int64)
                vectors = unit(np.eye(DIMENSIONS)[0] + 0.15 * noise)
                runs.append(run(where, rng, vectors=vectors, network=network, prompt=prompt, repeat=repeat))
    return World(runs=runs, prompts=known)


def parting(rng: Generator) -> World:
    """Runs of a prompt begin 0.001 apart and part by 40 % an output, up to 0.5."""
    known = prompts(4)
    size = np.minimum(0.001 * PARTING ** np.arange(30), 0.5)[:, None]
    runs = []
    for network in NETWORKS:
        for p, prompt in enumerate(known):
            for repeat in range(2):
                away = unit(rng.normal(size=DIMENSIONS)) + 0.1 * rng.normal(size=(30, DIMENSIONS))
                where = np.full(30, p)
                vectors = unit(np.eye(DIMENSIONS)[p] + size * away)
                runs.append(run(where, rng, vectors=vectors, network=network, prompt=prompt, repeat=repeat))
    return World(runs=runs, prompts=known)


def cycle(period: int, noise: float, length: int) -> Callable[[Generator], World]:
    def make(rng: Generator) -> World:
        return crossed(
            lambda n, p, r: (r.integers(period) + np.arange(length)) % period, rng, repeats=2, noise=noise
        )

    return make


def stuck(rng: Generator, *, is_one_state: bool = False) -> World:
    """A cycle of seven states without noise, to length 20 (10 texts); prompts are states, or hash to one."""
    names = [f"state {i}" for i in range(7)] if not is_one_state else [f"prompt {i}" for i in range(7)]
    first = [0 if is_one_state else i for i in range(7)]
    known = {name: np.eye(DIMENSIONS)[-1 if is_one_state else i] for i, name in enumerate(names)}
    runs = []
    for seed in (1, -1):
        for start, prompt in zip(first, known, strict=True):
            entry = 1 if is_one_state else 0
            length = 10 if seed == -1 else 7 + entry
            path = (start + 1 + np.arange(length)) % 7
            how: dict[str, Any] = {"entry": entry, "period": 7} if seed != -1 else {}
            runs.append(run(path, rng, noise=0, prompt=prompt, seed=seed, num_outputs=10, **how))
    return World(runs=runs, prompts=known)


def stuck_long(rng: Generator) -> World:
    """Fixed seeds end in a cycle of 12 texts after a random way there; one law for all, fresh runs beside."""
    known = prompts(5)
    runs = []
    for network in NETWORKS:
        for prompt in known:
            for seed in (1, 2, -1):
                begin = int(rng.integers(12))
                path = (begin + np.arange(40 if seed == -1 else 12)) % 12
                how: dict[str, Any] = {"entry": 0, "period": 12} if seed != -1 else {}
                runs.append(
                    run(path, rng, noise=0, network=network, prompt=prompt, seed=seed, num_outputs=40, **how)
                )
    return World(runs=runs, prompts=known)


def failing(rng: Generator) -> World:
    """The second network fails in a region of its own; those that do not fail end as those of the first."""
    known = prompts(4)
    runs = []
    for n, network in enumerate(NETWORKS):
        for prompt in known:
            for repeat in range(4):
                path = rng.integers(2, size=16)
                hit = np.flatnonzero(rng.random(16) < 0.06)
                is_failed = bool(n == 1 and len(hit))
                if is_failed:
                    path = np.r_[path[: hit[0]], 2]
                runs.append(
                    run(path, rng, network=network, prompt=prompt, repeat=repeat, num_outputs=16,
                        is_failed=is_failed)
                )  # fmt: skip
    return World(runs=runs, prompts=known)


def one_text(rng: Generator) -> World:
    """One text is said at 85 % of all steps, and nothing else twice."""
    known = prompts(3)
    runs = []
    for network in NETWORKS:
        for prompt in known:
            for repeat in range(2):
                is_same = rng.random(20) < 0.85
                vectors = unit(rng.normal(size=(20, DIMENSIONS)))
                vectors[is_same] = np.eye(DIMENSIONS)[0]
                told = texts(np.ones(20, dtype=np.int64), rng)
                told = ["the same" if same else text for same, text in zip(is_same, told, strict=True)]
                runs.append(
                    SimulatedRun(network=network, prompt=prompt, repeat=repeat, texts=told, vectors=vectors,
                                 places=(~is_same).astype(np.int64), num_outputs=20)
                )  # fmt: skip
    return World(runs=runs, prompts=known)


def two_experiments(rng: Generator, num_prompts: int = 4) -> World:
    """Prompts differ in their share of one of two regions, which is 50 % on average over all prompts."""
    worlds = []
    for name in ("other", "referee"):
        known = prompts(num_prompts)
        shares = rng.beta(2, 2, num_prompts)
        runs = [
            run((rng.random(20) < share).astype(int), rng, prompt=prompt, repeat=repeat)
            for prompt, share in zip(known, shares, strict=True)
            for repeat in range(3)
        ]
        worlds.append(World(runs=runs, prompts=known, name=name))
    other, own = worlds
    return World(runs=own.runs, prompts=own.prompts, others=[other])


def lengths(rng: Generator) -> World:
    """Some runs are of 4 texts and some of 60."""
    return crossed(lambda n, p, r: r.integers(4, size=int(r.choice([4, 8, 16, 60]))), rng)


def large(rng: Generator) -> World:
    """900 runs; those of fresh noise, which come last, end elsewhere than those of fixed seeds."""
    known = prompts(3)
    runs = [
        run(rng.integers(2, size=6) + 2 * (seed == -1), rng, network=network, prompt=prompt, seed=seed,
            repeat=repeat)
        for network in NETWORKS
        for prompt in known
        for seed, repeat in [*((s, 0) for s in range(100)), *((-1, r) for r in range(50))]
    ]  # fmt: skip
    return World(runs=runs, prompts=known)


IID = {
    "readable": NOTHING, "readable_late": NOTHING, "remembers": False, "is_near": False, "wanders": False,
    "period": 0, "drift_differs": False, "length_kept": False,
}  # fmt: skip
SETTLED = {"remembers": False, "is_near": False, "wanders": False, "period": 0, "length_kept": False}

DESIGNS: dict[str, Design] = {
    "no effect": Design(
        what="2 networks x 4 prompts x 3 repeats of 16 texts, each in one of 4 regions at random",
        asks="lag effects clusters period dwell mean_dwells chain twins forgetting drift map novelty probes*"
        " networks*",
        make=no_effect,
        truth=Truth(ends=NOTHING, regions=4, chain=EVEN, **IID),
    ),
    "shapes": Design(
        what="the same with more noise, and diagrams",
        asks="effects* diagrams* entropies* loops* dimension*",
        make=shaped,
        truth=Truth(ends=NOTHING, chain=EVEN, **IID),
    ),
    "prompt": Design(
        what="each of 6 prompts has its region, and keeps its length",
        asks="effects forgetting clusters probes*",
        make=prompt_decides,
        truth=Truth(
            ends=factors("prompt"),
            largest="prompt",
            readable=factors("prompt"),
            readable_late=factors("prompt"),
            regions=6,
            drift_differs=False,
            **{**SETTLED, "length_kept": True},
        ),
    ),
    "network": Design(
        what="each of 2 networks has its region, one of them near the prompts",
        asks="effects networks*",
        make=network_decides,
        truth=Truth(
            ends=factors("network"),
            largest="network",
            readable=factors("network"),
            readable_late=factors("network"),
            regions=2,
            drift_differs=True,
            **SETTLED,
        ),
    ),
    "interaction": Design(
        what="each network takes each of 4 prompts to another of the same 4 regions",
        asks="effects",
        make=interaction,
        truth=Truth(ends=factors("prompt", "network"), regions=4, drift_differs=False, **SETTLED),
    ),
    "slow mixing": Design(
        what="a chain of 4 regions that stays with 90 %, from anywhere, 40 texts",
        asks="lag dwell mean_dwells chain clusters",
        make=slow_mixing,
        truth=Truth(
            ends=NOTHING,
            readable=NOTHING,
            readable_late=NOTHING,
            remembers=True,
            is_near=True,
            wanders=False,
            period=0,
            regions=4,
            chain=staying(4, 0.9),
            drift_differs=False,
            length_kept=False,
        ),
    ),
    "unbalanced": Design(
        what="2 networks that differ much, 8 prompts that differ little, 1 to 3 repeats",
        asks="effects",
        make=unbalanced,
        truth=Truth(ends=factors("prompt", "network"), largest="network", **SETTLED),
    ),
    "few": Design(
        what="2 networks x 2 prompts x 2 repeats without an effect: no p below 0.05 is possible",
        asks="effects",
        make=few,
        truth=Truth(ends=NOTHING, could_show=False, regions=4, chain=EVEN, **IID),
    ),
    "confounded": Design(
        what="3 networks of which the third differs, by one of its models",
        asks="effects",
        make=confounded,
        truth=Truth(
            ends=factors("network", "model 2"),
            largest="network",
            readable=factors("network"),
            regions=2,
            **SETTLED,
        ),
    ),
    "copies": Design(
        what="fixed seeds under which the runs of all prompts are one path of one law",
        asks="effects",
        make=copies,
        truth=Truth(ends=NOTHING, regions=4, length_kept=False, wanders=False, period=0),
    ),
    "transient": Design(
        what="the prompt decides the first third of 30 texts, nothing the rest",
        asks="probes*",
        make=transient,
        truth=Truth(
            ends=NOTHING,
            readable=factors("prompt"),
            readable_late=NOTHING,
            regions=4,
            drift_differs=False,
            length_kept=False,
        ),
    ),
    "walks": Design(
        what="random walks on the sphere, 40 steps of 0.08 to 0.22, from anywhere",
        asks="lag clusters patterns twins loops* entropies* dimension*",
        make=walks,
        truth=Truth(
            ends=NOTHING,
            readable=NOTHING,
            readable_late=NOTHING,
            remembers=True,
            is_near=True,
            wanders=True,
            period=0,
            regions=0,
            shares_regions=False,
            drift_differs=False,
            length_kept=False,
        ),
    ),
    "memory": Design(
        what="first-order autoregression (0.8) about one centre, 40 texts",
        asks="lag twins",
        make=memory,
        truth=Truth(
            ends=NOTHING,
            readable=NOTHING,
            readable_late=NOTHING,
            remembers=True,
            is_near=True,
            wanders=False,
            period=0,
            stays_plainly=True,
            drift_differs=False,
            length_kept=False,
        ),
    ),
    "parting": Design(
        what="runs of a prompt begin 0.001 apart, and part by 40 % an output up to 0.5",
        asks="twins",
        make=parting,
        truth=Truth(ends=factors("prompt"), remembers=True, is_near=True, parting_factor=PARTING**0.5),
    ),
    "noisy cycle": Design(
        what="7 regions in turn from anywhere, with noise, 42 texts",
        asks="lag period chain",
        make=cycle(7, 0.15, 42),
        truth=Truth(
            ends=NOTHING,
            readable=NOTHING,
            readable_late=NOTHING,
            remembers=True,
            is_near=False,
            wanders=False,
            period=7,
            regions=7,
            chain=np.roll(np.eye(7), 1, axis=1),
            drift_differs=False,
            length_kept=False,
        ),
    ),
    "clean cycle": Design(
        what="7 texts in turn from anywhere, exactly, 42 of them, fresh noise that does nothing",
        asks="lag period novelty recurrence",
        make=cycle(7, 0.0, 42),
        truth=Truth(
            ends=NOTHING,
            readable=NOTHING,
            readable_late=NOTHING,
            remembers=True,
            is_near=False,
            wanders=False,
            period=7,
            regions=7,
            chain=np.roll(np.eye(7), 1, axis=1),
            drift_differs=False,
            length_kept=False,
        ),
    ),
    "alternation": Design(
        what="2 regions in turn from either, with noise, 30 texts",
        asks="lag chain period",
        make=cycle(2, 0.1, 30),
        truth=Truth(
            ends=NOTHING,
            readable=NOTHING,
            readable_late=NOTHING,
            remembers=True,
            is_near=False,
            wanders=False,
            period=2,
            regions=2,
            chain=np.roll(np.eye(2), 1, axis=1),
            drift_differs=False,
            length_kept=False,
        ),
    ),
    "stuck, by prompt": Design(
        what="7 states in turn without noise, 7 prompts that name them, seeds 1 and -1, length 20",
        asks="effects stuck grid drift",
        make=stuck,
        truth=Truth(
            ends=factors("prompt"), largest="prompt", wanders=False, remembers=True, length_kept=None
        ),
    ),
    "stuck, in one": Design(
        what="the same with 7 prompts that all hash to one state",
        asks="effects stuck grid",
        make=lambda rng: stuck(rng, is_one_state=True),
        truth=Truth(ends=NOTHING, wanders=False, remembers=True, regions=7),
    ),
    "stuck, long periods": Design(
        what="12 texts in turn from anywhere; fixed seeds are stuck after the first turn, fresh ones are not",
        asks="clusters stuck summary recurrence novelty",
        make=stuck_long,
        truth=Truth(ends=NOTHING, remembers=True, wanders=False, regions=12, drift_differs=False),
    ),
    "failing": Design(
        what="2 regions at random; one network fails in a third",
        asks="effects grid stuck time summary",
        make=failing,
        truth=Truth(ends=NOTHING, remembers=False, wanders=False, period=0, length_kept=False),
    ),
    "lengths": Design(
        what="4 regions at random, in runs of 4, 8, 16 or 60 texts",
        asks="drift effects lag",
        make=lengths,
        truth=Truth(ends=NOTHING, regions=4, chain=EVEN, **IID),
    ),
    "one text": Design(
        what="one text at 85 % of the steps, all others different and anywhere",
        asks="clusters recurrence novelty",
        make=one_text,
        truth=Truth(ends=NOTHING, regions=1, **IID),
    ),
    "two experiments": Design(
        what="4 prompts each, which differ in their share of one of 2 regions, 50 % on average",
        asks="shares",
        make=two_experiments,
        truth=Truth(regions=2, wanders=False, period=0, remembers=False, mean_share=0.5),
    ),
    "large": Design(
        what="900 runs of 6 texts, of which the 300 with fresh noise come last and end elsewhere",
        asks="effects",
        make=large,
        truth=Truth(ends=factors("seed"), largest="seed", wanders=False, regions=4),
        is_small=False,
    ),
}
