"""What is said of answers that few stores give: one of every turn that a sentence can take."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from panic.analysis.movement import Movement
from panic.analysis.questions import (
    chain,
    clusters,
    diagrams,
    drift,
    dwell,
    effects,
    forgetting,
    grid,
    image_quality,
    initial_cluster,
    lag,
    map,
    matched_pairs,
    milestones,
    networks,
    novelty,
    period,
    probes,
    recoverability,
    recurrence,
    regimes,
    reversal,
    semantic_drift,
    shock,
    stuck,
    territories,
    time,
    twins,
    two_periodicity,
    vendi,
)
from tests.analysis.looks import assert_said

NAN, INF = float("nan"), float("inf")


def frame(first: dict[str, Any], *others: dict[str, Any]) -> pl.DataFrame:
    """Rows; of the others what differs from the first."""
    return pl.DataFrame([first | other for other in ({}, *others)], infer_schema_length=None)


# One answer of each question, which the variants change


def of_clusters(**changes: Any) -> str:
    known = {
        "num_outputs": 1200, "modality": "text", "num_known": 0, "num_runs": 12, "num_clusters": 5,
        "most": ("1 “a boat”", 0.1), "outside": 0.25, "shared": 3, "own": None, "agreement": None,
        "shown": frame({"network": "a"}),
    }  # fmt: skip
    return clusters.sentence(SimpleNamespace(**known | changes))


def of_chain(**changes: Any) -> str:
    known = {
        "network": "a", "num_moves": 1200, "num_runs": 3, "num_states": 4, "longest": 40, "slowest": 2.345,
        "endings": [], "entropy_rate": None, "shuffled": None,
    }  # fmt: skip
    return chain.sentence(SimpleNamespace(chains=[chain.Chain(**known | changes)], absent=()))


def of_milestones(**changes: Any) -> str:
    known = {
        "network": "a", "num_runs": 3, "num_left_out": 0, "num_moves": 1200, "num_cores": 2, "in_cores": 0.7,
        "longest": 400, "relaxation": 4.0, "low": NAN, "high": NAN, "shuffled": None, "num_parts": 1,
        "mixing": 12.4,
    }  # fmt: skip
    way = changes.pop("way", INF)
    ends = frame({"network": "a", "target": "sea", "source": "land"})
    ways = frame({"network": "a", "source": "sea", "target": "land", "outputs": way})
    made = milestones.CoreChain(**known | changes)
    return milestones.sentence(SimpleNamespace(chains=[made], passages=ways, committors=ends, absent=()))


def of_lag(course: str, memory: str = "nearer", num_runs: int = 3, **changes: Any) -> str:
    moved = Movement(
        memory=memory, course=course, returns_after=changes.get("returns_after"), num_runs=num_runs,
        growth=changes.get("growth", 0.12), growth_low=0.05, growth_high=0.2,
    )  # fmt: skip
    lags = changes.get("lags", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    curves = pl.DataFrame({"lag": lags, "distance": [0.2 + 0.02 * one if one else 0.0 for one in lags]})
    curves = curves.with_columns(group=pl.lit("a"))
    return lag.sentence(
        SimpleNamespace(
            movements={"a": moved}, num_stuck=changes.get("num_stuck", 0), modality="text", curves=curves
        )
    )


def of_bars(*rows: tuple[str, int, int, float, float]) -> str:
    columns = ("network", "run", "dimension", "birth", "death")
    return diagrams.sentence(pl.DataFrame(rows, columns, orient="row"))


def of_effects(*rows: dict[str, Any], **absent: str) -> str:
    first = {
        "measure": effects.ENDS, "factor": "prompt", "within": "", "beyond": 0.4, "p_adjusted": 0.3,
        "p_least": 0.001, "num_runs": 24,
    }  # fmt: skip
    return effects.sentence(SimpleNamespace(tests=frame(first | rows[0], *rows[1:]), absent=absent))


def of_quality(*rows: dict[str, Any], num_read: int = 90, num_missing: int = 0) -> str:
    first = {
        "network": "a", "measure": next(iter(image_quality.MEASURES)), "early": 2.0, "late": 1.0, "falls": 7,
        "num_runs": 8, "p_value": 0.01, "p_adjusted": 0.02, "p_least": 0.001,
    }  # fmt: skip
    tests = frame(first, *rows) if rows else frame(first).clear()
    return image_quality.sentence(
        SimpleNamespace(tests=tests, num_read=num_read, num_images=90, num_missing=num_missing)
    )


def of_returns(**changes: Any) -> str:
    row = {
        "network": "a", "late": 0.5, "num_runs": 8, "num_prompts": 4, "by_chance": 0.2, "p_adjusted": 0.01,
        "p_least": 0.001, "num_outside": 0, "left": 0.6, "came_back": 0.25,
    }  # fmt: skip
    absent = changes.pop("absent", ())
    return initial_cluster.sentence(
        SimpleNamespace(scores=frame(row | changes), modality="text", absent=absent)
    )


def of_pairs(relation: str = matched_pairs.PAIRS, **changes: Any) -> str:
    row = {
        "network": "a", "pairs": 0.2, "unrelated": 0.5, "repeats": 0.1, "p_adjusted": 0.01, "p_least": 0.001,
        "num_pairs": 4, "num_prompts": 8,
    }  # fmt: skip
    curve = frame(
        {"network": "a", "relation": relation, "step": 1, "distance": 0.123},
        {"step": 9, "distance": 0.456},
        {"relation": "other", "step": 12, "distance": 0.9},
    )
    answer = SimpleNamespace(scores=frame(row | changes), curve=curve, modality="text", relation=relation)
    return matched_pairs.sentence(answer)


def of_networks(num_pairs: int, p_value: float, model: pl.DataFrame | None = None, **changes: Any) -> str:
    test = {
        "p_value": p_value, "p_least": 0.001, "effect": 0.4, "effect_name": "eta squared", "baseline": 0.1,
        "resampling": "units within strata",
    }  # fmt: skip
    pairs = frame(
        {"a": "x", "b": "y", "cliffs_delta": 0.2, "cohens_d": 0.5},
        *({"a": f"x{k}", "cliffs_delta": -0.3 - k / 10, "cohens_d": NAN} for k in range(num_pairs - 1)),
    )
    late = pl.DataFrame({"network": ["x", "y"] * 12})
    answer = SimpleNamespace(test=SimpleNamespace(**test | changes), late=late, pairs=pairs, model=model)
    return networks.sentence(answer)


def mixed(variance: float, converged: bool = True) -> pl.DataFrame:
    return frame({"term": "Group Var", "estimate": variance, "is_converged": converged})


def of_probes(*p_values: float, p_least: float = 0.001, **absent: str) -> str:
    rows = [
        {
            "target": "prompt", "first": 10 * number, "last": 10 * number + 9,
            "accuracy": 0.8, "baseline": 0.25, "p_adjusted": p_value, "p_least": p_least, "num_runs": 24,
        }
        for number, p_value in enumerate(p_values)
    ]  # fmt: skip
    return probes.sentence(SimpleNamespace(scores=pl.DataFrame(rows), absent=absent))


def of_recoverability(*p_values: float, p_least: float = 0.001) -> str:
    rows = [
        {
            "network": "a", "first_step": 10 * number, "last_step": 10 * number + 9, "rank": 0.8,
            "first": 0.5, "p_adjusted": p_value, "p_least": p_least, "num_runs": 24, "num_prompts": 6,
        }
        for number, p_value in enumerate(p_values)
    ]  # fmt: skip
    return recoverability.sentence(SimpleNamespace(stretches=pl.DataFrame(rows)))


def of_recurrence(shares: list[float], num_stuck: int = 0, num_begun: int = 0) -> str:
    rows = pl.DataFrame({"run": range(len(shares)), "share": shares}).with_columns(modality=pl.lit("text"))
    return recurrence.sentence(SimpleNamespace(shares=rows, num_stuck=num_stuck, num_begun=num_begun))


def of_period(num_runs: int, *periods: int, tested: int | None = None) -> str:
    tested = num_runs if tested is None else tested
    names = [f"run {number}" for number in range(tested)]
    band = pl.DataFrame({"x": names, "value": 2.0, "low": 0.1, "high": 1.0})
    found = pl.DataFrame({"period": list(periods)}, {"period": pl.Int64})
    answer = SimpleNamespace(band=band, periods=found, num_runs=num_runs, modality="text")
    return period.sentence(answer)


def of_regimes(num_short: int, *counts: int) -> str:
    rows = [
        {"network": f"n{k}", "regime": "still", "share": 0.5, "low": 0.2, "high": 0.8, "num_runs": count}
        for k, count in enumerate(counts)
    ]
    return regimes.sentence(SimpleNamespace(shares=pl.DataFrame(rows), num_short=num_short))


def of_reversal(**changes: Any) -> str:
    row = {
        "network": "a", "num_clusters": 4, "num_moves": 1200, "num_runs": 3, "num_left_out": 0,
        "p_value": 0.2, "p_adjusted": 0.4, "net_share": 0.3, "null_low": 0.1, "null_high": 0.25,
    }  # fmt: skip
    absent = changes.pop("absent", ())
    return reversal.sentence(SimpleNamespace(tests=frame(row | changes), absent=absent))


def of_drift(**changes: Any) -> str:
    row = {
        "network": "a", "direction": "text to text", "low": -0.001, "cumulative": 0.4, "high": 0.6,
        "num_generations": 8, "num_starts": 4, "rate": 0.1, "level": 0.2, "r2": 0.99, "early": 0.8,
        "late": 0.3, "p_value": 0.01, "p_adjusted": 0.02, "p_least": 0.001, "halving": 2.0,
    }  # fmt: skip
    return semantic_drift.sentence(SimpleNamespace(scores=frame(row | changes)))


def of_shock(**changes: Any) -> str:
    row = {
        "network": "a", "arm": "cold", "began": 5, "num_pairs": 8, "num_starts": 4, "first": 0.5,
        "late": 0.2, "chance": 0.6, "p_adjusted": 0.01, "p_least": 0.001,
    }  # fmt: skip
    absent = changes.pop("absent", {})
    return shock.sentence(SimpleNamespace(scores=frame(row | changes), absent=absent, modality="text"))


def of_territories(
    p_value: float, *rows: dict[str, Any], p_least: float = 0.001, p_adjusted: float = 0.01
) -> str:
    first = {
        "network": "a", "label": 0, "name": "1 “a boat”", "share": 0.5, "others": 0.1, "low": 0.3,
        "high": 0.7, "p_adjusted": p_adjusted,
    }  # fmt: skip
    answer = SimpleNamespace(
        shares=frame(first, *rows), cramers_v=0.5, baseline=0.2, p_value=p_value, p_least=p_least, num_runs=12
    )
    return territories.sentence(answer)


def of_twins(fit: Any, num_pairs: int = 2, num_failed: int = 0) -> str:
    pairs = pl.DataFrame(
        [(f"p{k}", step, 0.1 * step * (k + 1)) for k in range(num_pairs) for step in (1, 2, 3)],
        ("pair", "step", "distance"), orient="row",
    ).with_columns(network=pl.lit("a"))  # fmt: skip
    return twins.sentence(SimpleNamespace(pairs=pairs, fits={"a": fit}, num_failed=num_failed))


def of_alternations(absent: dict[str, str] | None = None, **changes: Any) -> str:
    row = {
        "network": "a", "lag1": 0.4, "lag2": 0.9, "p_adjusted": 0.01, "equal": 0.5, "num_runs": 3,
        "p_least": 0.001,
    }  # fmt: skip
    answer = SimpleNamespace(scores=frame(row | changes), absent=absent or {}, modality="text")
    return two_periodicity.sentence(answer)


def of_vendi(**changes: Any) -> str:
    row = {
        "network": "a", "early": 5.0, "late": 3.0, "num_runs": 8, "num_units": 8, "p_value": 0.01,
        "p_adjusted": 0.02, "p_least": 0.001,
    }  # fmt: skip
    runs = frame({"network": "a", "score": 2.0, "num_outputs": 1000}, {"score": 4.0, "num_outputs": 3000})
    return vendi.sentence(SimpleNamespace(tests=frame(row | changes), runs=runs, modality="text"))


def of_novelty(num_runs: int, num_shared: int = 1) -> str:
    shares = frame({"network": "a", "share": 0.9, "num_runs": num_runs}, {"share": 0.4})
    one = SimpleNamespace(
        shares=shares, modality="text", num_outputs=1200, num_shared=num_shared, num_runs=num_runs
    )
    return novelty.sentence([one])


def of_forgetting(**changes: Any) -> str:
    row = {
        "network": "a", "strength": 0.75, "position": 12.3, "num_prompts": 6, "num_runs": 24,
        "p_value": 0.01, "p_least": 0.001,
    }  # fmt: skip
    return forgetting.sentence(frame(row | changes))


def of_dwells(*curves: tuple[str, list[float], list[float]]) -> str:
    rows = [
        {"group": group, "length": length, "survival": survival}
        for group, lengths, survivals in curves
        for length, survival in zip(lengths, survivals, strict=True)
    ]
    dwells = pl.DataFrame({"is_censored": [True, False, False]})
    return dwell.sentence(SimpleNamespace(curves=pl.DataFrame(rows), dwells=dwells, band=None))


def of_work(told_s: float, *rows: tuple[str, float]) -> str:
    spent = pl.DataFrame(
        [("worker 1", name, "", 0.0, 1.0, seconds) for name, seconds in rows],
        {
            "place": pl.String, "name": pl.String, "model": pl.String, "at": pl.Float64,
            "width_s": pl.Float64, "seconds": pl.Float64,
        },
        orient="row",
    )  # fmt: skip
    calls = pl.DataFrame({"seconds": [30.0, 45.0]})
    return time.sentence(SimpleNamespace(spent=spent, frame=calls, wall_s=50.0, told_s=told_s))


def of_grid(num_prompts: int, num_networks: int, has_arms: bool = False) -> str:
    return grid.sentence(
        SimpleNamespace(num_prompts=num_prompts, num_networks=num_networks, has_arms=has_arms)
    )


def of_map(rows: list[int], share: float | None) -> str:
    places = pl.DataFrame({"run": [1 + (n > 2) for n in range(len(rows))], "row": rows})
    return map.sentence(SimpleNamespace(places=places, share=share, modality="text"))


def of_stuck(*entries: int | None) -> str:
    rows = [
        {"run": n, "entry_step": at, "period": None if at is None else 2 * n, "num_models": 2}
        for n, at in enumerate(entries, 1)
    ]
    return stuck.sentence(pl.DataFrame(rows, infer_schema_length=None))


BAR = ("a", 1, 0, 0.0, 0.5)
FIT = SimpleNamespace(rate=0.2, r2=0.95)
BAND = SimpleNamespace(low=1.2, high=3.4)

SAID: dict[str, Callable[[], str]] = {
    "clusters: none": lambda: of_clusters(num_clusters=0),
    "clusters: none, one run": lambda: of_clusters(num_clusters=0, num_runs=1, num_known=3),
    "clusters: all the same": lambda: of_clusters(most=("1 “a boat”", 1.0)),
    "clusters: nearly all the same": lambda: of_clusters(most=("1 “a boat”", 0.75)),
    "clusters: just half": lambda: of_clusters(most=("1 “a boat”", 0.5)),
    "clusters: one, of one run": lambda: of_clusters(num_clusters=1, shared=0, outside=0.0),
    "clusters: a frequent one": lambda: of_clusters(most=("1 “a boat”", 0.2), shared=1, own=2),
    "clusters: that agree": lambda: of_clusters(agreement=0.876),
    "chain: ends": lambda: of_chain(endings=[0.5, 0.3, 0.1, 0.06, 0.04]),
    "chain: ends that are all told": lambda: of_chain(endings=[0.25, 0.75]),
    "chain: ends that are rare": lambda: of_chain(endings=[0.004] * 250),
    "chain: a ring": lambda: of_chain(slowest=INF, num_runs=1),
    "chain: slow": lambda: of_chain(slowest=41.0, longest=40),
    "chain: as slow as a run": lambda: of_chain(slowest=40.0, longest=40, entropy_rate=0.987),
    "chain: news": lambda: of_chain(entropy_rate=0.5, shuffled=BAND),
    "milestones: parts": lambda: of_milestones(num_parts=2, num_left_out=1000),
    "milestones: few": lambda: of_milestones(relaxation=NAN),
    "milestones: a ring": lambda: of_milestones(relaxation=INF, way=3.0),
    "milestones: an interval": lambda: of_milestones(low=2.5, high=8.25, way=1.0),
    "milestones: chance": lambda: of_milestones(shuffled=BAND),
    "milestones: both": lambda: of_milestones(shuffled=BAND, low=2.5, high=8.25, num_runs=1),
    "milestones: slow": lambda: of_milestones(relaxation=1.0, mixing=NAN, longest=1234),
    "lag: still": lambda: of_lag("still", num_stuck=1),
    "lag: short": lambda: of_lag("short", "farther", lags=[0, 1, 2], num_stuck=2),
    "lag: returns": lambda: of_lag("returns", "none", returns_after=3),
    "lag: returns at once": lambda: of_lag("returns", returns_after=1, num_runs=1),
    "lag: grows": lambda: of_lag("grows"),
    "lag: grows, every second lag": lambda: of_lag("grows", lags=[0, 2, 4, 6, 8, 10, 12, 14, 16]),
    "lag: creeps": lambda: of_lag("creeps"),
    "lag: stays": lambda: of_lag("stays", growth=-0.01),
    "lag: unknown": lambda: of_lag("unknown", lags=[0, *range(1, 31)]),
    "lag: of two runs": lambda: of_lag("unknown", num_runs=2),
    "diagrams: points": lambda: of_bars(("a", 1, 0, 0.0, INF), ("b", 2, 0, 0.0, INF)),
    "diagrams: no loops, one a point": lambda: of_bars(BAR, ("b", 2, 0, 0.0, INF), ("c", 3, 0, 0.0, INF)),
    "diagrams: one loop": lambda: of_bars(BAR, ("a", 2, 1, 0.5, 1.25), ("a", 2, 1, 0.5, INF)),
    "diagrams: many bars": lambda: of_bars(
        *([BAR] * (diagrams.MAX_POINTS + 3)), *([("b", 2, 1, 0.0, 0.25)] * 2)
    ),
    "diagrams: as many as are drawn": lambda: of_bars(*([BAR] * diagrams.MAX_POINTS)),
    "diagrams: many networks": lambda: of_bars(
        *((f"n{k}", k, 0, 0.0, 0.5) for k in range(diagrams.MAX_CHARTS + 1))
    ),
    "diagrams: networks that are drawn": lambda: of_bars(
        *((f"n{k}", k, 0, 0.0, 0.5 if k else INF) for k in range(diagrams.MAX_CHARTS + 1))
    ),
    "effects: nothing": lambda: of_effects({}, {"factor": "network", "p_adjusted": 0.2}),
    "effects: nothing, one could not": lambda: of_effects({}, {"factor": "network", "p_least": 0.2}),
    "effects: could not": lambda: of_effects({"p_least": 0.25}, {"factor": "network", "p_least": 0.2}),
    "effects: two": lambda: of_effects(
        {"p_adjusted": 0.01}, {"factor": "network", "p_adjusted": 0.05, "beyond": 0.1, "num_runs": 30}
    ),
    "effects: two measures": lambda: of_effects(
        {"p_adjusted": 0.01}, {"measure": "other", "p_adjusted": 0.02}, seed="one only", arm="none"
    ),
    "effects: in another way": lambda: of_effects(
        {"p_adjusted": 0.01, "within": "network"}, {"factor": "seed", "p_least": 0.1, "within": "prompt"}
    ),
    "effects: plainly and in another way": lambda: of_effects(
        {"p_adjusted": 0.01}, {"within": "network", "p_adjusted": 0.02}, {"within": "seed", "p_least": 0.2}
    ),
    "image_quality: falls and rises": lambda: of_quality({"late": 3.0, "falls": 1, "num_runs": 1000}),
    "image_quality: not clear": lambda: of_quality({"p_adjusted": 0.06, "num_runs": 1}, num_read=80),
    "image_quality: untested": lambda: of_quality(
        {"p_value": NAN, "p_adjusted": NAN, "p_least": NAN, "late": 2.5}, num_missing=1234
    ),
    "image_quality: few": lambda: of_quality({"p_least": 0.03}),
    "image_quality: nothing": lambda: of_quality(),
    "initial_cluster: clear": of_returns,
    "initial_cluster: at the level": lambda: of_returns(p_adjusted=0.05, left=0.0),
    "initial_cluster: not clear": lambda: of_returns(p_adjusted=0.06, num_outside=1234, p_least=0.1),
    "initial_cluster: some not asked": lambda: of_returns(absent=("b", "c")),
    "matched_pairs: clear": of_pairs,
    "matched_pairs: not clear": lambda: of_pairs(repeats=None, p_adjusted=0.2, p_least=0.06),
    "matched_pairs: of languages": lambda: of_pairs("in two languages"),
    "networks: one pair": lambda: of_networks(1, 0.01),
    "networks: one pair, not clear": lambda: of_networks(1, 0.2, p_least=0.2),
    "networks: two pairs": lambda: of_networks(2, 0.05, mixed(0.0484)),
    "networks: four pairs": lambda: of_networks(4, 0.01, mixed(-0.001)),
    "networks: four pairs, not clear": lambda: of_networks(4, 0.06, mixed(0.04, converged=False)),
    "novelty: one run": lambda: of_novelty(1),
    "novelty: one shared": lambda: of_novelty(2),
    "novelty: many shared": lambda: of_novelty(1500, 1100),
    "period: one run, none": lambda: of_period(1),
    "period: one run": lambda: of_period(1, 3),
    "period: none of many": lambda: of_period(4),
    "period: the most common": lambda: of_period(1234, 5, 3, 3, 5, 7, tested=8),
    "period: every one": lambda: of_period(2, 1),
    "probes: to the end": lambda: of_probes(0.01, 0.02, 0.05),
    "probes: once": lambda: of_probes(0.01),
    "probes: at first": lambda: of_probes(0.01, 0.2),
    "probes: no more": lambda: of_probes(0.01, 0.02, 0.2),
    "probes: never": lambda: of_probes(0.3, 0.4, p_least=0.2, network="one only", seed="one only"),
    "probes: not once": lambda: of_probes(0.3),
    "recoverability: to the end": lambda: of_recoverability(0.01, 0.05),
    "recoverability: no more": lambda: of_recoverability(0.01, 0.02, 0.2),
    "recoverability: never": lambda: of_recoverability(0.3, 0.4),
    "recoverability: not once": lambda: of_recoverability(0.3),
    "recoverability: too few": lambda: of_recoverability(0.3, p_least=0.1),
    "recurrence: one run": lambda: of_recurrence([0.25], num_begun=1),
    "recurrence: nothing twice": lambda: of_recurrence([0.0], num_stuck=1, num_begun=2),
    "recurrence: some": lambda: of_recurrence([0.0, 0.2, 0.6], num_stuck=1200, num_begun=1300),
    "regimes: one run": lambda: of_regimes(1, 1),
    "regimes: many": lambda: of_regimes(1234, 1, 2, 3, 4, 1005, 6, 7),
    "reversal: not clear": lambda: of_reversal(num_left_out=1234),
    "reversal: clear": lambda: of_reversal(p_value=0.01, p_adjusted=0.05),
    "reversal: the least": lambda: of_reversal(p_value=0.0001, p_adjusted=0.0001, absent=("b",)),
    "semantic_drift: falls": of_drift,
    "semantic_drift: rises": lambda: of_drift(late=0.9, num_generations=1, num_starts=1000, r2=0.1),
    "semantic_drift: not clear": lambda: of_drift(p_adjusted=0.06, p_least=0.06, num_starts=1),
    "semantic_drift: untested": lambda: of_drift(p_value=NAN, p_adjusted=NAN, p_least=NAN, low=NAN, high=NAN),
    "shock: near": of_shock,
    "shock: far": lambda: of_shock(p_adjusted=0.06, p_least=0.06, num_pairs=1200, absent={"b": "one run"}),
    "territories: not shown": lambda: of_territories(0.06, p_least=0.06),
    "territories: none stands out": lambda: of_territories(0.01, {"p_adjusted": 0.2}, p_adjusted=0.1),
    "territories: some": lambda: of_territories(
        0.05, {"label": -1, "share": 0.9}, {"share": 0.8, "low": NAN, "high": NAN}, {"p_adjusted": 0.06}
    ),
    "territories: many": lambda: of_territories(0.01, *[{"network": f"n{k}"} for k in range(6)]),
    "twins: a rate": lambda: of_twins(FIT),
    "twins: no rate": lambda: of_twins("too short", num_pairs=1, num_failed=1200),
    "two_periodicity: alternates": of_alternations,
    "two_periodicity: not shown": lambda: of_alternations({"b": "short"}, p_adjusted=0.06, num_runs=1),
    "vendi: falls": of_vendi,
    "vendi: rises": lambda: of_vendi(late=8.0, p_adjusted=0.05, num_runs=1200),
    "vendi: not shown": lambda: of_vendi(p_adjusted=0.06, p_least=0.06),
    "vendi: untested": lambda: of_vendi(num_units=1, p_value=NAN, p_adjusted=NAN),
    "vendi: few": lambda: of_vendi(num_units=2, p_value=NAN, p_adjusted=NAN),
    "forgetting: tested": of_forgetting,
    "forgetting: few runs": lambda: of_forgetting(p_value=0.2, p_least=0.1),
    "forgetting: untested": lambda: of_forgetting(p_value=NAN),
    "dwell: half": lambda: of_dwells(("a", [1, 2, 3], [0.9, 0.5, 0.1]), ("b", [1, 2], [0.4, 0.2])),
    "dwell: long": lambda: of_dwells(("a", [2, 5], [0.9, 0.6])),
    "time: nothing told": lambda: of_work(0.0),
    "time: told": lambda: of_work(100.0, ("calling", 60.0), ("committing", 20.0), ("idle", 0.4)),
    "time: seven": lambda: of_work(100.0, *((f"doing {k}", 20.0 - k) for k in range(7))),
    "grid: one": lambda: of_grid(1, 1),
    "grid: all": lambda: of_grid(2, 2, True),
    "grid: some": lambda: of_grid(grid.MAX_ROWS + 1, 2),
    "grid: as many as are shown": lambda: of_grid(grid.MAX_ROWS, grid.MAX_COLUMNS),
    "grid: some columns": lambda: of_grid(1, grid.MAX_COLUMNS + 1),
    "map: by UMAP": lambda: of_map([0, 1, 2], None),
    "map: equal ones": lambda: of_map([0, 1, 1, 2, 0], 0.456),
    "stuck: still": lambda: of_stuck(3),
    "stuck: at once": lambda: of_stuck(3, None, 3),
    "stuck: one later": lambda: of_stuck(3, 9, None),
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_every_turn_of_a_sentence_is_as_it_was_read(name: str) -> None:
    assert_said(name, SAID[name]())


def test_drift_of_some_runs_says_of_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "drift_sentence", lambda bands, modality, unrelated: "It drifts.")
    monkeypatch.setattr(drift, "step_sentence", lambda bands, modality: " By steps.")
    answer = SimpleNamespace(
        frame=pl.DataFrame({"run": [1, 1, 2]}), bands=None, step_bands=None, modality="text", unrelated=None,
        num_begun=2,
    )  # fmt: skip
    assert drift.sentence(answer) == "It drifts. By steps."
    answer.num_begun = 1234
    assert drift.sentence(answer) == "It drifts. By steps. This is of 2 of 1,234 runs."


AT_THE_LEVEL: dict[str, Callable[[float], str]] = {
    "effects": lambda p: of_effects({"p_adjusted": p}),
    "effects: could": lambda p: of_effects({"p_least": p}),
    "image_quality": lambda p: of_quality({"p_adjusted": p}),
    "initial_cluster": lambda p: of_returns(p_adjusted=p),
    "matched_pairs": lambda p: of_pairs(p_adjusted=p),
    "networks": lambda p: of_networks(2, p),
    "networks: could": lambda p: of_networks(2, 0.2, p_least=p),
    "probes": of_probes,
    "recoverability": of_recoverability,
    "reversal": lambda p: of_reversal(p_adjusted=p),
    "semantic_drift": lambda p: of_drift(p_adjusted=p),
    "shock": lambda p: of_shock(p_adjusted=p),
    "territories": of_territories,
    "territories: one": lambda p: of_territories(0.01, p_adjusted=p),
    "two_periodicity": lambda p: of_alternations(p_adjusted=p),
    "vendi": lambda p: of_vendi(p_adjusted=p),
}


@pytest.mark.parametrize("name", AT_THE_LEVEL)
def test_a_p_of_5_percent_is_clear_and_one_that_is_a_trifle_more_is_not(name: str) -> None:
    """Both are told as 0.05, so that the sentences differ in their verdict alone."""
    at, above, clear, unclear = (AT_THE_LEVEL[name](p) for p in (0.05, 0.05001, 0.0499, 0.0504))
    assert at == clear
    assert above == unclear
    assert at != above


@pytest.mark.parametrize(("number", "more"), [(4, ""), (5, " 1 more network is not told.")])
def test_of_many_networks_four_are_told_and_the_others_counted(number: int, more: str) -> None:
    names = [f"n{place}" for place in range(number)]
    known = {
        "num_runs": 3, "num_left_out": 0, "num_moves": 1200, "num_cores": 2, "in_cores": 0.7, "longest": 400,
        "relaxation": 4.0, "low": NAN, "high": NAN, "shuffled": None, "num_parts": 1, "mixing": 12.4,
    }  # fmt: skip
    ends = pl.DataFrame({"network": names}).with_columns(target=pl.lit("sea"), source=pl.lit("land"))
    ways = pl.DataFrame({"network": names}).with_columns(
        source=pl.lit("sea"), target=pl.lit("land"), outputs=2.0
    )
    chains = [milestones.CoreChain(network=name, **known) for name in names]
    row = {
        "network": "n0", "num_clusters": 4, "num_moves": 1200, "num_runs": 3, "num_left_out": 0,
        "p_value": 0.2, "p_adjusted": 0.4, "net_share": 0.3, "null_low": 0.1, "null_high": 0.25,
    }  # fmt: skip
    tests = frame(row, *({"network": name} for name in names[1:]))
    for said in (
        milestones.sentence(SimpleNamespace(chains=chains, passages=ways, committors=ends, absent=())),
        reversal.sentence(SimpleNamespace(tests=tests, absent=())),
    ):
        assert [name in said for name in names] == [True] * 4 + [False] * (number - 4)
        assert said.endswith(more or ".")
        assert ("not told" in said) == bool(more)
