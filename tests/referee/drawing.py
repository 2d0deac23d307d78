"""How the worlds of the designs are drawn: one function per design, from a random generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from panic.models.synthetic import transition_matrix
from tests.referee.worlds import DRAW, DULL, TELL, Array, SimulatedRun, World

DIMENSIONS = 16
PARTING = 1.4  # factor per output
NETWORKS = ((DRAW, TELL), (DRAW, "tell2"))
Places = NDArray[np.int64]


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


def kernel(name: str, alpha: float) -> Callable[[Generator], World]:
    """Runs of the synthetic chain of 7 states with this kernel, whose outputs have noise, from anywhere."""

    def make(rng: Generator) -> World:
        matrix = transition_matrix(7, name, alpha=alpha, kernel_seed=7)
        return crossed(lambda n, p, r: chain_path(matrix, 48, r), rng, repeats=2)

    return make


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


def tellers(regions_of_second: int) -> Callable[[Generator], World]:
    """Two models tell in turn: the first of 4 regions, the second of those beginning at this one."""
    network = (DRAW, TELL, DRAW, "tell2")

    def make(rng: Generator) -> World:
        shift = regions_of_second * (np.arange(16) % 2)
        return crossed(lambda n, p, r: r.integers(4, size=16) + shift, rng, networks=(network,))

    return make


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


def paired_prompts() -> dict[str, Array]:
    """Ten prompts in five pairs that differ in one word; their vectors are alike in pairs alone."""
    return {
        f"thing{i} beside thing{i + 5} is {colour}": unit(
            np.eye(DIMENSIONS)[i] + side * np.eye(DIMENSIONS)[5 + i]
        )
        for i in range(5)
        for colour, side in (("red", 0.4), ("blue", -0.4))
    }


def near_prompts(share: Callable[[int], float], rng: Generator, *, fades: bool = False) -> World:
    """Runs of 24 texts, of which the i-th is near the prompt with this probability, and else in one place.

    With `fades`, images of texts from the eleventh on are dull.
    """
    known = paired_prompts()
    runs = []
    for network in NETWORKS:
        for prompt, start in known.items():
            for repeat in range(2):
                is_near = rng.random(24) < [share(i) for i in range(24)]
                centres = np.where(is_near[:, None], start, np.eye(DIMENSIONS)[-1])
                vectors = unit(centres + 0.1 * rng.normal(size=centres.shape))
                told = texts(is_near.astype(np.int64), rng)
                if fades:
                    told = [text if i < 10 else f"{DULL} {text}" for i, text in enumerate(told)]
                runs.append(
                    SimulatedRun(network=network, prompt=prompt, repeat=repeat, texts=told, vectors=vectors,
                                 places=is_near.astype(np.int64), num_outputs=24)
                )  # fmt: skip
    return World(runs=runs, prompts=known)


def deaf(rng: Generator) -> World:
    """Texts of paired prompts in any of four regions, none of which is near a prompt."""
    known = paired_prompts()
    runs = [
        run(10 + rng.integers(4, size=24), rng, network=network, prompt=prompt, repeat=repeat)
        for network in NETWORKS
        for prompt in known
        for repeat in range(2)
    ]
    return World(runs=runs, prompts=known)


def keeping(rng: Generator) -> World:
    return near_prompts(lambda i: 0.5, rng)


def fading(rng: Generator) -> World:
    return near_prompts(lambda i: max(0.0, 1 - i / 6), rng, fades=True)


SHOCK, STARTS = 8, 6


def shocked(late: Callable[[int, Generator], int], rng: Generator) -> World:
    """Runs that stay where their prompt is; from call 8 on those of an arm are anywhere, then `late`."""
    known = prompts(STARTS)
    runs = []
    for p, prompt in enumerate(known):
        for repeat in range(2):
            how: dict[str, Any] = {"prompt": prompt, "repeat": repeat}
            away = [*np.full(4, p), *rng.integers(STARTS, size=4), *np.full(8, late(p, rng))]
            runs.append(run(np.full(16, p), rng, **how))
            runs.append(run(away, rng, arm="shock", **how))
    return World(runs=runs, prompts=known, arms={"baseline": [], "shock": [{"at": SHOCK, "text": "a shock"}]})


def shock_passes(rng: Generator) -> World:
    return shocked(lambda p, r: p, rng)


def shock_decides(rng: Generator) -> World:
    return shocked(lambda p, r: int(r.integers(STARTS)), rng)
