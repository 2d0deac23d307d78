"""What a store knows of servers: what they were sent, what they said, and what that costs.

for one in served(store, reading.experiment(store, "latest")):
    print(one["model"], one["requests"], one["cost"])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from panic.errors import ConfigError
from panic.store.codec import decode_json
from panic.store.records import ExperimentRow
from panic.store.store import Store


class Spent(NamedTuple):
    """What was sent to servers."""

    requests: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """What was sent to a model's server and answered. requests: sent, answered or not; tokens: as reckoned.

    input_tokens, output_tokens: as the server has said; served: names by which it said what it is.
    """

    model: str
    requests: int
    tokens: int
    answers: int
    input_tokens: int
    output_tokens: int
    served: tuple[str, ...]


def spent(store: Store, experiment: int) -> Spent:
    """What the sessions of an experiment have sent to servers in all."""
    row = store.db.row(
        "SELECT coalesce(sum(requests), 0), coalesce(sum(tokens), 0) FROM spending"
        " JOIN session ON session.id = session WHERE experiment = ?",
        experiment,
    )
    return Spent(*row)


def served_models(store: Store, experiment: int) -> list[ServedModel]:
    """What the sessions of an experiment have sent to servers and been answered, by model."""
    of = "JOIN session ON session.id = session WHERE experiment = ?1"
    names = dict(store.db.rows("SELECT DISTINCT model, name FROM epoch WHERE experiment = ?1", experiment))
    sent = store.db.rows(
        f"SELECT model, sum(requests), sum(tokens) FROM spending {of} GROUP BY 1", experiment
    )
    answers = store.db.rows(
        "SELECT model, count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0),"
        " json_group_array(DISTINCT concat_ws(' ', served_model, system_fingerprint))"
        f" FROM answer JOIN batch ON batch.id = batch {of} GROUP BY 1",
        experiment,
    )
    told = {model: row for model, *row in answers}
    found = []
    for model, requests, tokens in sent:
        number, into, out_of, served = told.get(model, (0, 0, 0, "[]"))
        found.append(
            ServedModel(
                model=names[model],
                requests=requests,
                tokens=tokens,
                answers=number,
                input_tokens=into,
                output_tokens=out_of,
                served=tuple(sorted(name for name in decode_json(served) if name)),
            )
        )
    return found


def served(store: Store, row: ExperimentRow) -> list[dict[str, Any]]:
    """What each model's server was sent and said, as JSON; cost is null without a price in the config."""
    from panic.config import stored  # not imported where nobody asks

    known = served_models(store, row.id)
    try:
        prices = stored(row.config, row.name).prices if known else {}
    except ConfigError:
        prices = {}
    return [
        {**{name: getattr(one, name) for name in one.__slots__}, "cost": _cost(one, prices.get(one.model))}
        for one in known
    ]


def budget(store: Store, row: ExperimentRow) -> str:
    """How much of the budget is spent, in words; empty without a budget."""
    limits = {what: most for what, most in (row.config.get("budget") or {}).items() if most is not None}
    now = spent(store, row.id)
    told = [f"{getattr(now, what):,} of {limits[what]:,} {what}" for what in now._fields if what in limits]
    return ", ".join(told)


def _cost(one: ServedModel, price: Any) -> float | None:
    if price is None:
        return None
    return float(
        price.of(requests=one.requests, input_tokens=one.input_tokens, output_tokens=one.output_tokens)
    )


def answer_tokens(store: Store) -> list[tuple[int, int]]:
    """(batch, tokens sent and answered) of every call of a server that has counted them."""
    return store.db.rows(
        "SELECT batch, coalesce(input_tokens, 0) + coalesce(output_tokens, 0) FROM answer"
        " WHERE input_tokens NOTNULL OR output_tokens NOTNULL"
    )
