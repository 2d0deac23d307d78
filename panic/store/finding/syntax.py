"""The filter language: a text becomes a tree of conditions, or an error that points at the place.

    condition   FIELD = VALUE (or != < <= > >=), FIELD like 'a %', FIELD ~ 'red|blue' (or `matches`),
                FIELD in (VALUE, VALUE), 'baseline' in FIELD, FIELD is null
    filter      conditions with `and`, `or`, `not` and parentheses; `not` also stands before in, like, null

Words are case-insensitive as far as they are the language's own. A value is a word, a number, a date, a time
from now (-6h, -2d) or a text in quotes, single or double, in which two of them stand for one.

    >>> parse("state = stuck and not period > 2").kind
    'and'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from panic.errors import FilterError

MAX_CHARACTERS = 100_000
MAX_LEVELS = 50
"""SQLite takes expressions of 1,000 levels; a level here may become twenty of its own."""
SHOWN_AROUND = 36  # characters of a filter on either side of what an error points at

GRAMMAR = r"""
?filter: alternatives
alternatives: together (OR together)*
together: negated (AND negated)*
?negated: NOT negated -> negation
    | "(" alternatives ")"
    | operand COMPARISON operand -> comparison
    | operand [NOT] (LIKE | MATCHES) operand -> pattern
    | operand [NOT] IN operand -> membership
    | operand [NOT] IN "(" operand ("," operand)* [","] ")" -> listed
    | operand IS [NOT] NULL -> absence
operand: WORD | TEXT | LITERAL

AND.2: /and(?![\w.:\/-])/i
OR.2: /or(?![\w.:\/-])/i
NOT.2: /not(?![\w.:\/-])/i
IN.2: /in(?![\w.:\/-])/i
IS.2: /is(?![\w.:\/-])/i
NULL.2: /null(?![\w.:\/-])/i
LIKE.2: /like(?![\w.:\/-])/i
MATCHES.2: /matches(?![\w.:\/-])/i
COMPARISON: /<=|>=|!=|<>|==|!~|=|<|>|~/
WORD: /[^\W\d][\w:\/-]*(\.("[^"\n]*"|[\w:\/-]+))*/
TEXT: /'([^']|'')*'|"([^"]|"")*"/
LITERAL: /[-+]?[\d.][\w.:+-]*/
%ignore /\s+/
"""

SAID = {
    "AND": "and", "OR": "or", "NOT": "not", "IN": "in", "IS": "is", "NULL": "null", "LIKE": "like",
    "MATCHES": "matches", "COMPARISON": "a comparison (= != < <= > >= ~)", "WORD": "a field or value",
    "LPAR": "(", "RPAR": ")", "COMMA": "a comma", "$END": "the end",
}  # fmt: skip
"""How messages call what may follow; what is not here goes without saying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The part of a filter's text from `start` to before `end`."""

    text: str = field(repr=False)
    start: int
    end: int

    def error(self, message: str, hint: str = "") -> FilterError:
        """Return an error that shows the filter around this part, with carets below it."""
        begin, stop = max(0, self.start - SHOWN_AROUND), min(len(self.text), self.end + SHOWN_AROUND)
        before, after = "..." if begin else "", "..." if stop < len(self.text) else ""
        line = f"{before}{self.text[begin:stop]}{after}".translate({ord(c): " " for c in "\n\r\t"})
        offset = len(before) + self.start - begin
        width = max(1, self.end - self.start)
        return FilterError(f"{message}\n  {line}\n  {' ' * offset}{'^' * width}", hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """A field or a value as it was written; the kind is "word", "text" (in quotes) or "literal"."""

    kind: str
    text: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One comparison. The operator is = != < <= > >= like matches in has null.

    `has` is `VALUE in FIELD`, with the field as `subject`. is_negated: `not` stood before the operator.
    """

    operator: str
    subject: Operand
    values: tuple[Operand, ...] = ()
    is_negated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Compound:
    """Filters under one word: `kind` is "and", "or" (of at least two) or "not" (of one)."""

    kind: str
    parts: tuple[Tree, ...]


Tree = Condition | Compound


@cache
def _parser() -> Any:
    from lark import Lark

    return Lark(GRAMMAR, start="filter", parser="lalr", maybe_placeholders=False)


def parse(text: str) -> Tree:
    """Read a filter.

    Raises FilterError for one that is longer or deeper than anybody writes, is empty, or cannot be read.
    """
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    if len(text) > MAX_CHARACTERS:
        raise FilterError(f"The filter has {len(text):,} characters; {MAX_CHARACTERS:,} are the most.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise FilterError("The filter has bytes in it that are not UTF-8.")
    if not text.strip():
        raise FilterError("The filter is empty.", hint="For example: state = stuck and period > 2")
    try:
        found = _parser().parse(text)
    except UnexpectedCharacters as error:
        start = error.pos_in_stream or 0
        place = Place(text=text, start=start, end=start + 1)
        raise _unreadable(text, place) from None
    except UnexpectedToken as error:
        token = error.token
        is_end = token.type == "$END"
        start = len(text) if is_end else token.start_pos
        place = Place(text=text, start=start, end=start + 1 if is_end else token.end_pos)
        accepted = error.accepts
        words = [SAID[name] for name in SAID if name in accepted]
        said = "The filter ends too soon." if is_end else f"{str(token)[:40]!r} cannot stand here."
        raise place.error(said, hint=f"Here may stand: {', '.join(words)}." if words else "") from None
    return _Builder(text).build(found)


def _unreadable(text: str, place: Place) -> FilterError:
    character = text[place.start]
    if character in "'\"":
        return Place(text=text, start=place.start, end=len(text)).error("A text is not closed.")
    return place.error(
        f"{character!r} cannot stand here.", hint="Texts with such characters stand in quotes: 'a, b'."
    )


class _Builder:
    """Turns lark's tree into ours, without Python's own stack: filters may be nested deeply."""

    def __init__(self, text: str) -> None:
        self.text = text

    def build(self, root: Any) -> Tree:
        """Return our tree of lark's. Raises FilterError where it is deeper than MAX_LEVELS."""
        built: dict[int, tuple[Tree, int]] = {}
        for node in self._in_order(root):
            built[id(node)] = self._level(node, built)
        return built[id(root)][0]

    def _in_order(self, root: Any) -> list[Any]:
        """The nodes that are filters, every one after those below it."""
        waiting, found = [root], []
        while waiting:
            node = waiting.pop()
            found.append(node)
            waiting += self._below(node)
        return found[::-1]

    def _below(self, node: Any) -> list[Any]:
        if node.data in ("alternatives", "together", "negation"):
            return [child for child in node.children if hasattr(child, "data")]
        return []

    def _level(self, node: Any, built: dict[int, tuple[Tree, int]]) -> tuple[Tree, int]:
        below = [built[id(child)] for child in self._below(node)]
        if not below:
            return self._condition(node), 1
        if len(below) == 1 and node.data != "negation":
            return below[0]
        level = 1 + max(level for _, level in below)
        if level > MAX_LEVELS:
            raise FilterError(
                f"The filter is nested more than {MAX_LEVELS} levels deep.",
                hint="`not`, and `and` within `or`, are a level each. `FIELD in (A, B)` saves many an `or`.",
            )
        kind = {"alternatives": "or", "together": "and", "negation": "not"}[node.data]
        return Compound(kind=kind, parts=tuple(tree for tree, _ in below)), level

    def _condition(self, node: Any) -> Condition:
        operands = [self._operand(child) for child in node.children if hasattr(child, "data")]
        tokens = [child for child in node.children if not hasattr(child, "data")]
        is_negated = any(token.type == "NOT" for token in tokens)
        first, *rest = operands
        if node.data == "membership":
            return Condition(operator="has", subject=rest[0], values=(first,), is_negated=is_negated)
        operator = {"listed": "in", "absence": "null"}.get(node.data)
        if operator is None:
            (written,) = [str(token).lower() for token in tokens if token.type != "NOT"]
            operator = {"==": "=", "<>": "!=", "~": "matches", "!~": "matches"}.get(written, written)
            is_negated |= written == "!~"
        return Condition(operator=operator, subject=first, values=tuple(rest), is_negated=is_negated)

    def _operand(self, node: Any) -> Operand:
        (token,) = node.children
        kind, text = token.type.lower(), str(token)
        if kind == "text":
            text = text[1:-1].replace(text[0] * 2, text[0])
        place = Place(text=self.text, start=token.start_pos, end=token.end_pos)
        return Operand(kind=kind, text=text, place=place)


def conditions(tree: Tree) -> Sequence[Condition]:
    """The conditions of a filter, from left to right."""
    if isinstance(tree, Condition):
        return [tree]
    return [one for part in tree.parts for one in conditions(part)]
