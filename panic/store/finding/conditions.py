"""A filter's tree becomes SQL: names are replaced by what stands in `fields`, every value is a parameter.

A comparison with what is not there is false, and `not` of it true: `not (period > 2)` and `period != 2` hold
for runs without a period.

    Conditions(Fields(), "run").add(parse("state = stuck"))
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from panic.errors import FilterError, UsageError
from panic.store.finding.fields import (
    EXPERIMENT_STATES,
    RUN_STATES,
    TRAINING_STATES,
    Field,
    Fields,
    Target,
    meant,
)
from panic.store.finding.matching import Matcher
from panic.store.finding.syntax import Compound, Condition, Operand, Tree

UNITS_S = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
DURATION = re.compile(r"([-+]\d+(?:\.\d+)?)(s|min|m|h|d|w)")
INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
FLAGS = {"true": 1, "yes": 1, "false": 0, "no": 0}
MAX_LIKE = 1_000
MAX_ANY = 200
"""Conditions on fields with several texts, of which SQLite takes 2 s for 400 and many minutes for 5,000."""
NUMBERS = "IN ('integer', 'real')"


class Conditions:
    """SQL of filters over one kind of rows, with its parameters.

    Args:
        now: the time from which relative times count, in Unix seconds.
    """

    def __init__(self, fields: Fields, target: Target, *, now: float | None = None) -> None:
        self.fields, self.target = fields, target
        self.now = time.time() if now is None else now
        self.parameters: list[Any] = []
        self.used: dict[str, Field] = {}
        self.num_any = 0
        self.matcher = Matcher()

    def parameter(self, value: Any) -> str:
        """Bind a value, and return what stands for it in SQL."""
        self.parameters.append(value)
        return f"?{len(self.parameters)}"

    def use(self, field: Field) -> str:
        """Return the SQL of a field, whose tables are needed now."""
        self.used[f"{field.of}.{field.name}"] = field
        return field.sql.format(path=self.parameter(field.path)) if field.path else field.sql

    def add(self, tree: Tree) -> str:
        """Return the SQL of a filter. Raises FilterError, which points at the place."""
        if isinstance(tree, Condition):
            return self._condition(tree)
        parts = [self.add(part) for part in tree.parts]
        return f"NOT {parts[0]}" if tree.kind == "not" else _balanced(parts, tree)

    def _condition(self, condition: Condition) -> str:
        field = self._field(condition)
        if field.type == "texts" or (condition.operator == "has" and field.type == "any"):
            found = self._any_of(field, condition)
        else:
            found = self._holds(field, self.use(field), condition)
        is_negated = condition.is_negated != (condition.operator == "!=")
        return f"NOT {found}" if is_negated else found

    def _field(self, condition: Condition) -> Field:
        subject = condition.subject
        if subject.kind != "word":
            raise subject.place.error("A field stands here, not a value.", _turn_round(condition))
        try:
            field = self.fields.find(subject.text, self.target)
        except UsageError as error:
            raise subject.place.error(error.message, error.hint) from None
        if condition.operator == "has" and field.type not in ("texts", "any"):
            raise subject.place.error(
                f"{subject.text} is one {_called(field)} and holds no others.", "Compare it with = or like."
            )
        return self._of_whom(field, condition.values, is_plain="." not in subject.text)

    def _of_whom(self, field: Field, values: Sequence[Operand], *, is_plain: bool) -> Field:
        """Return the other target's field where only that can have these values, as in `state = stuck`."""
        other = self.fields.other_meaning(field)
        asked = {value.text for value in values}
        if is_plain and other and field.values and asked and not asked & {*field.values}:
            return other if asked <= {*other.values} else field
        return field

    def _any_of(self, field: Field, condition: Condition) -> str:
        """SQL of: one of the texts of a field is as asked."""
        self.num_any += 1
        if self.num_any > MAX_ANY:
            raise condition.subject.place.error(
                f"A filter has at most {MAX_ANY} conditions on fields with several texts.",
                f"{condition.subject.text} in ('a', 'b') asks for one of many.",
            )
        if field.type == "any":
            rows = f"SELECT value FROM json_each({field.column}, {self.parameter(field.path)})"
        else:
            rows = self.use(field)
        if condition.operator == "null":
            return f"(NOT EXISTS ({rows}))"
        test = self._holds(field, "one.value", condition)
        return f"(EXISTS (SELECT 1 FROM ({rows}) AS one WHERE {test}))"

    def _holds(self, field: Field, sql: str, condition: Condition) -> str:
        """SQL, never NULL, of: a value is as asked."""
        operator, values = condition.operator, condition.values
        if operator == "null":
            return f"({sql} ISNULL)"
        if operator in ("like", "matches"):
            return self._pattern(field, sql, operator, values[0])
        read = [self._value(field, value) for value in values]
        if operator in ("in", "has", "=", "!="):
            bound = [self.parameter(value) for value in read]
            found = f"= {bound[0]}" if len(bound) == 1 else f"IN ({', '.join(bound)})"
            return f"coalesce({sql} {found}, FALSE)"
        if field.type in ("flag", "state"):
            raise condition.subject.place.error(
                f"{condition.subject.text} has no order: = and != are all that it can be compared by."
            )
        # Numbers of a config are below all of its texts in SQLite, which nobody means.
        is_number = isinstance(read[0], int | float)
        kind = (
            f"typeof({sql}) {NUMBERS if is_number else '= ' + repr('text')} AND "
            if field.type == "any"
            else ""
        )
        return f"coalesce({kind}{sql} {operator} {self.parameter(read[0])}, FALSE)"

    def _pattern(self, field: Field, sql: str, operator: str, value: Operand) -> str:
        if field.type in ("number", "time", "flag"):
            raise value.place.error(f"{field.name} is a {_called(field)}, and `{operator}` is for texts.")
        if operator == "like":
            if len(value.text) > MAX_LIKE:
                raise value.place.error(f"A pattern of `like` has at most {MAX_LIKE:,} characters.")
            return f"coalesce({sql} LIKE {self.parameter(value.text)}, FALSE)"
        try:
            self.matcher.add(value.text)
        except UsageError as error:
            raise value.place.error(error.message) from None
        return f"panic_matches({self.parameter(value.text)}, {sql})"

    def _value(self, field: Field, value: Operand) -> Any:
        """The value that an operand is for a field of its type. Raises FilterError where it is none."""
        reader: Callable[[Field, Operand], Any] = {
            "number": _number, "time": self._time, "flag": _flag, "state": _state, "any": _of_config,
        }.get(field.type, _text)  # fmt: skip
        return reader(field, value)

    def _time(self, field: Field, value: Operand) -> float:
        if duration := DURATION.fullmatch(value.text):
            return self.now + float(duration[1]) * UNITS_S[duration[2]]
        if value.text == "now":
            return self.now
        try:
            found = datetime.fromisoformat(value.text).timestamp()
        except (ValueError, OverflowError):
            raise value.place.error(
                f"{field.name} is a time, and this is none.",
                "For example -6h, -2d (units s, m, h, d, w), 2026-11-29 or '2026-11-29 18:30'.",
            ) from None
        return found


def _balanced(parts: list[str], tree: Compound) -> str:
    """Join SQL by AND or OR so that it is nested by the logarithm of their number."""
    while len(parts) > 1:
        pairs = [parts[place : place + 2] for place in range(0, len(parts), 2)]
        parts = [f"({f' {tree.kind.upper()} '.join(pair)})" for pair in pairs]
    return parts[0]


def _turn_round(condition: Condition) -> str:
    if condition.subject.kind == "text":
        return (
            "In `'x' in tags` the field is on the right, otherwise on the left. Fields stand without quotes."
        )
    return "For example period > 2, not 2 < period."


def _called(field: Field) -> str:
    return {"any": "value", "state": "state", "flag": "yes or no", "texts": "text"}.get(
        field.type, field.type
    )


def _number(field: Field, value: Operand) -> float:
    if value.kind == "literal" and INTEGER.fullmatch(value.text):
        return int(value.text)  # a seed may have more digits than a float
    try:
        found = float(value.text) if value.kind == "literal" else math.nan
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise value.place.error(f"{field.name} is a number, and this is none.")
    return int(found) if found == int(found) and abs(found) < 2**53 else found


def _flag(field: Field, value: Operand) -> int:
    if value.text.lower() not in FLAGS:
        raise value.place.error(f"{field.name} is true or false.")
    return FLAGS[value.text.lower()]


def _state(field: Field, value: Operand) -> str:
    if value.text not in field.values and field.of == "training":
        raise value.place.error(
            f"A training is never {value.text!r}.",
            f"{meant(value.text, TRAINING_STATES)}It is one of {', '.join(TRAINING_STATES)}.",
        )
    if value.text not in field.values:
        states = {*RUN_STATES, *EXPERIMENT_STATES}
        raise value.place.error(
            f"{field.of}.state is never {value.text!r}.",
            f"{'' if value.text in states else meant(value.text, states)}Of an experiment it is one of"
            f" {', '.join(EXPERIMENT_STATES)}; of a run one of {', '.join(RUN_STATES)}.",
        )
    return value.text


def _text(field: Field, value: Operand) -> str:
    return value.text


def _of_config(field: Field, value: Operand) -> str | float:
    if value.kind == "word" and value.text.lower() in FLAGS:
        return FLAGS[value.text.lower()]
    try:
        return _number(field, value)
    except FilterError:
        return value.text
