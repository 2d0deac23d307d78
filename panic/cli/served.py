"""What endpoints were sent, or would be, as `panic status` and the dry run tell it.

for line in forecast(preview, config): print(line)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panic.config import ExperimentConfig
    from panic.engine.preview import Preview

COLUMNS = ["endpoint", "requests #", "answers #", "tokens in #", "tokens out #", "cost #", "says that it is"]


def rows(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The rows of a table of what `store.served` has found, under COLUMNS."""
    return [
        (
            *(one["model"], one["requests"], one["answers"], one["input_tokens"], one["output_tokens"]),
            *(None if one["cost"] is None else f"{one['cost']:,.4f}", ", ".join(one["served"])),
        )
        for one in found
    ]


def forecast(plan: Preview, config: ExperimentConfig) -> list[str]:
    """What performing a plan would send to endpoints at most, and what that costs by what was seen so far."""
    found = []
    for model in plan.models:
        if not model.is_remote or not model.num_items:
            continue
        told = f"{model.name} is behind an endpoint, and its results are not repeatable: at most"
        told += f" {model.num_items:,} requests"
        seen = next((one for one in plan.served if one.model == model.name and one.answers), None)
        if seen is not None:
            share = model.num_items / seen.answers
            tokens = {"input_tokens": seen.input_tokens * share, "output_tokens": seen.output_tokens * share}
            told += f", about {sum(tokens.values()):,.0f} tokens by those that were answered"
            if (price := config.prices.get(model.name)) is not None:
                told += f", which cost about {price.of(requests=model.num_items, **tokens):,.2f}"
        elif (price := config.prices.get(model.name)) is not None and price.request:
            told += f", which cost {price.request * model.num_items:,.2f} without their tokens"
        found.append(told)
    return found
