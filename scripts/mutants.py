"""Change one place of a module at a time and see whether its tests notice: a small mutation tester.

    python scripts/mutants.py --module panic/engine/driver.py --tests tests/engine/test_driver.py --number 30
    python scripts/mutants.py --module panic/engine/queue.py --list
    python scripts/mutants.py --module panic/topology/*.py --tests tests/topology --number 15 --touching 30

Every mutant is made in a temporary copy of the package, where the tests run with a time limit, those first
that run the changed line; the checkout is not touched. The same seed chooses the same mutants of the same
module. A mutant that lives is shown with its place and difference: write the test that notices it, or say why
nothing can be noticed. Of several modules each gets so many mutants, and which test runs which line is
measured once; `--lines FILE` keeps that for a next time, in which new tests count as running every line.
`--touching SECONDS` is for machines that are busy: of the tests that run the changed line the quickest in up
to so many seconds are run, then of those that run its module (or, where none does, of all). What others
notice lives.

What is changed: comparisons, `and` and `or`, one operand of them dropped, conditions negated, whole numbers
by one, True and False, arithmetic, `min` and `max` and their like, statements dropped, None returned, `break`
and `continue`; in SQL one comparison at a time is made always true. Not changed: what is logged or asserted
(the `strict` of a `zip` is, too), docstrings, annotations, type variables, decorators.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import gc
import importlib
import os
import pickle
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
COPIED = (
    *("panic", "tests", "analysis", "benchmarks", "configs", "docs", "scripts"),
    *("pyproject.toml", "README.md"),
)
SLOWEST = 4.0
"""Time limit of a mutant's tests, in multiples of what they took where their lines were measured."""
GRACE_S = 60.0
FEW_FILES = 4

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
NAMES = {
    "min": "max", "max": "min", "any": "all", "all": "any", "popleft": "pop", "appendleft": "append",
    "extendleft": "extend", "reversed": "list",
}  # fmt: skip
SQL = re.compile(r"\b(SELECT|WHERE|WITH|JOIN|HAVING)\b")
SIDE = r"(?:\{{1,2}\w+\}{1,2}\.)?[\w.]+"
"""A column, also of a table that a formatted text names."""
SQL_COMPARISON = re.compile(
    rf"(?<!SET )(?<![\w.}}{{]){SIDE} (?:=|<>|>=|<=|<|>) (?:\?\d?|-?\d+|'\w+'|{SIDE})(?![\w.({{])"
)


@dataclass(frozen=True, slots=True, order=True)
class Mutation:
    """Characters `start` to `end` of a module, and what stands there instead."""

    start: int
    end: int
    new: str

    def apply(self, text: str) -> str:
        """The module's text with the change."""
        return text[: self.start] + self.new + text[self.end :]


class Mutator(ast.NodeVisitor):
    """Collects the mutations of a module."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: set[Mutation] = set()
        lines = text.encode().splitlines(keepends=True)
        self._lines = lines
        self._starts = [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line.decode()))

    def mutations(self) -> list[Mutation]:
        """All of them, in the order of their places."""
        self.visit(ast.parse(self.text))
        return sorted(self.found)

    def _offset(self, line: int, column: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1][:column].decode())

    def _replace(self, node: ast.expr | ast.stmt, new: ast.AST | str) -> None:
        """Let something else stand in a node's place."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._offset(node.lineno, node.col_offset)
        end = self._offset(node.end_lineno, node.end_col_offset)
        if isinstance(new, ast.expr):
            new = f"({ast.unparse(new)})"
        elif isinstance(new, ast.AST):
            new = ast.unparse(new)
        if new != self.text[start:end]:
            self.found.add(Mutation(start, end, new))

    # What is left as it is

    def visit_Assert(self, node: ast.Assert) -> None: ...

    def visit_arg(self, node: ast.arg) -> None: ...

    def visit_Raise(self, node: ast.Raise) -> None:
        self._replace(node, "pass")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None: ...

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in node.body:
            self.visit(part)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        for part in node.body:
            self.visit(part)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self._sql(node)  # places inside are not known before Python 3.12

    # What is changed

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._replace(node, str(not node.value))
        elif isinstance(node.value, int):
            self._replace(node, str(node.value + 1))
            if node.value > 0:
                self._replace(node, str(node.value - 1))
        elif isinstance(node.value, float):
            self._replace(node, str(node.value * 2 + 1))
        elif isinstance(node.value, str):
            self._sql(node)

    def _sql(self, node: ast.Constant | ast.JoinedStr) -> None:
        """Make each comparison of a query always true; its parameters stay."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._offset(node.lineno, node.col_offset)
        end = self._offset(node.end_lineno, node.end_col_offset)
        if SQL.search(self.text[start:end]):
            for match in SQL_COMPARISON.finditer(self.text, start, end):
                self.found.add(Mutation(match.start(), match.end(), f"({match[0]} OR TRUE)"))

    def visit_Compare(self, node: ast.Compare) -> None:
        for place, operator in enumerate(node.ops):
            if (other := COMPARISONS.get(type(operator))) is not None:
                operators = [*node.ops[:place], other(), *node.ops[place + 1 :]]
                self._replace(node, ast.Compare(node.left, operators, node.comparators))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        self._replace(node, ast.BoolOp(other, node.values))
        for place in range(len(node.values)):
            left = [value for number, value in enumerate(node.values) if number != place]
            self._replace(node, left[0] if len(left) == 1 else ast.BoolOp(node.op, left))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if (other := ARITHMETIC.get(type(node.op))) is not None and not _is_text(node):
            self._replace(node, ast.BinOp(node.left, other(), node.right))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._replace(node, node.operand)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in NAMES:
            self._replace(node, NAMES[node.id])

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in NAMES:
            self._replace(node, ast.Attribute(node.value, NAMES[node.attr], node.ctx))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func)
        if not name.startswith("log.") and name not in ("TypeVar", "ParamSpec"):
            self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg != "strict":  # an assertion
            self.generic_visit(node)

    def _negate(self, node: ast.If | ast.While | ast.IfExp) -> None:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if not (isinstance(node.test, ast.Compare) and len(node.test.ops) == 1):  # those are swapped anyway
            self._replace(node.test, ast.UnaryOp(ast.Not(), node.test))
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        self._negate(node)

    def visit_While(self, node: ast.While) -> None:
        self._negate(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._replace(test, "True")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            if ast.unparse(node.value) != "None":
                self._replace(node, "return None")
            self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call) and not ast.unparse(node.value.func).startswith("log."):
            self._replace(node, "pass")
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._replace(node, "pass")
        if (other := ARITHMETIC.get(type(node.op))) is not None:
            self._replace(node, ast.AugAssign(node.target, other(), node.value))
        self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.targets[0], ast.Attribute | ast.Subscript):  # without a local name nothing runs
            self._replace(node, "pass")
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._replace(node, "pass")

    def visit_Break(self, node: ast.Break) -> None:
        self._replace(node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._replace(node, "break")


def _is_text(node: ast.BinOp) -> bool:
    """Whether a sum or a remainder is one of texts."""
    sides = (node.left, node.right)
    texts = (side.value for side in sides if isinstance(side, ast.Constant))
    return any(isinstance(side, ast.JoinedStr) for side in sides) or any(isinstance(t, str) for t in texts)


def chosen(text: str, number: int | None, seed: int) -> list[Mutation]:
    """So many mutations of a module, or all, in the order of their places."""
    every = []
    for mutation in Mutator(text).mutations():
        try:
            compile(mutation.apply(text), "mutant", "exec")
        except SyntaxError:
            continue
        every.append(mutation)
    if number is None or number >= len(every):
        return every
    return sorted(random.Random(seed).sample(every, number))


def difference(module: str, text: str, mutation: Mutation) -> str:
    """What a mutation changes, with its place."""
    before, after = text.splitlines(), mutation.apply(text).splitlines()
    lines = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
    place = text.count("\n", 0, mutation.start) + 1
    return "\n".join([f"{module}:{place}", *(f"    {line}" for line in lines if not line.startswith("@@"))])


@dataclass(slots=True)
class Order:
    """A pytest plugin: tests that run a mutated line come first, the fastest of them at the front.

    folder: of the package. modules: its files that count. lines: which (file, line) of them each test
    has run, and its seconds. mutated: lines; as long as there are none, `lines` is measured. tests: those to
    run, in this order; others are left out unless they are new.
    """

    folder: Path
    modules: set[str]
    lines: dict[str, tuple[set[tuple[str, int]], float]]
    mutated: set[tuple[str, int]] | None = None
    tests: list[str] = field(default_factory=list)

    def groups(self, touching: float | None) -> Iterator[list[str]]:
        """The tests that run a mutated line, then the others of its module, or else all; the fastest first.

        What runs at import or is cached counts for one test only, though others see it. touching: so many
        seconds of each group, of which a tenth comes first, from the few files that are named after the
        module or have the most of them: mostly it is enough, and little is imported; None: all tests at once,
        in this order.
        """
        mutated = self.mutated or set()
        files = {file for file, _ in mutated}

        def distance(test: str) -> int:
            lines = self.lines[test][0]
            if not lines.isdisjoint(mutated):
                return 0
            return 1 if any(file in files for file, _ in lines) else 2

        found = sorted((distance(test), seconds, test) for test, (_, seconds) in self.lines.items())
        if touching is None:
            yield [test for _, _, test in found]
            return
        for near, tests in groupby(found, key=lambda one: one[0]):
            if near == 2 and found[0][0] < 2:
                return
            group = [test for _, _, test in tests]
            group.sort(key=lambda test: not _is_named_after(file_of(test), files))
            counts = Counter(map(file_of, group))
            likely = sorted(counts, key=lambda file: (not _is_named_after(file, files), -counts[file]))
            few = likely[:FEW_FILES]
            first = self._up_to(touching / 10, [test for test in group if file_of(test) in few])
            yield first
            yield self._up_to(touching, [test for test in group if test not in first])

    def _up_to(self, most_s: float, tests: list[str]) -> list[str]:
        """As many tests from the front as take so many seconds, but one at least."""
        ends = accumulate(self.lines[test][1] for test in tests)
        return [test for test, end in zip(tests, ends, strict=True) if end <= most_s] or tests[:1]

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self.mutated is None:
            return
        places = {test: place for place, test in enumerate(self.tests)}
        items[:] = [item for item in items if item.nodeid in places or item.nodeid not in self.lines]
        items.sort(key=lambda item: places.get(item.nodeid, len(places)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        if self.mutated is not None:
            return (yield)
        seen: set[tuple[str, int]] = set()
        names = {str(self.folder / module): module for module in self.modules}

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            file = names.get(frame.f_code.co_filename)
            if file is None:
                return None
            seen.add((file, frame.f_lineno))
            return trace

        start = time.monotonic()
        threading.settrace(trace)
        sys.settrace(trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            self.lines[item.nodeid] = (seen, time.monotonic() - start)


def file_of(test: str) -> str:
    """The file that a test is in."""
    return test.partition("::")[0]


def _is_named_after(file: str, modules: set[str]) -> bool:
    """Whether a file of tests has a module's name in its own."""
    return any(Path(module).stem in Path(file).stem for module in modules)


def run_tests(folder: Path, tests: list[str], limit_s: float, order: Order, told: Path | None = None) -> str:
    """How the tests in a folder end: "lived" if they pass, "killed" if not, "timeout", or "no tests".

    They run in a fork, which has the libraries already. told: where it says what it measured and imported.
    """
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(output, stream)
            os.chdir(folder)
            os.environ |= {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1"}
            ours = (ROOT, ROOT / "scripts")
            foreign = [part for part in sys.path if Path(part or ".").resolve() not in ours]
            sys.path[:] = [str(folder), *foreign]
            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests], plugins=[order]))
            if told is not None and code == 0:
                told.write_bytes(pickle.dumps((order.lines, list(sys.modules))))
        finally:
            os._exit(code)
    deadline = time.monotonic() + limit_s
    try:
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                return "timeout"
            time.sleep(0.02)
        child = 0
        code = os.waitstatus_to_exitcode(ended[1])
        if code == 4:  # what cannot be imported is noticed; or a test that is asked for is gone
            said = (folder / "output").read_text(encoding="utf-8", errors="replace")
            is_gone = "ERROR: not found:" in said or "ERROR: file or directory not found:" in said
            return "no tests" if is_gone and "found no collectors" not in said else "killed"
        return {0: "lived", 5: "no tests"}.get(code, "killed")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(ended[0] or child, signal.SIGKILL)  # also what the tests have started
        if child:
            os.waitpid(child, 0)


def perform(
    mutations: dict[str, list[Mutation]], tests: list[str], touching: float | None, known: Path | None
) -> Iterator[tuple[str, Mutation, str]]:
    """Each module's mutations, what tests made of them. Raises SystemExit if they fail without one."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # some tests read as somebody else
        for part in COPIED:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / part)
        order, told = Order(folder, set(mutations), {}), known or folder / "told"
        if not told.exists() and run_tests(folder, tests, 3600.0, order, told) != "lived":
            output = (folder / "output").read_text(errors="replace")
            raise SystemExit(f"{output[-2000:]}\nthe tests do not pass as things are")
        measured, imported = pickle.loads(told.read_bytes())
        order.lines = {
            test: ({line for line in lines if line[0] in order.modules}, seconds)
            for test, (lines, seconds) in measured.items()
        }
        del measured
        for library in imported:  # once, and not for each mutant
            if not (ROOT / library.partition(".")[0]).exists() and library != "conftest":
                with contextlib.suppress(Exception):
                    importlib.import_module(library)
        gc.collect()
        gc.freeze()  # nothing of this is looked through in each fork
        assert "panic" not in sys.modules, "forks would have it without its mutations"
        new = {
            str(path)
            for path in map(Path, tests)
            if (ROOT / file_of(str(path))).stat().st_mtime > told.stat().st_mtime
        }
        written_at = time.time()
        for module, every in mutations.items():
            text = (ROOT / module).read_text(encoding="utf-8")
            for mutation in every:
                (folder / module).write_text(mutation.apply(text), encoding="utf-8")
                # Python tells by the second whether what it has compiled is still the same.
                written_at += 1
                os.utime(folder / module, (written_at,) * 2)
                order.mutated = {(module, line) for line in statement_lines(text, mutation)}
                fate = "no tests"
                for group in filter(None, order.groups(touching)):
                    order.tests = group
                    limit_s = SLOWEST * sum(order.lines[test][1] for test in group) + GRACE_S
                    files = sorted({*map(file_of, group), *new})
                    fate = run_tests(folder, files, limit_s, order)
                    if fate != "lived":
                        break
                yield module, mutation, fate
            shutil.copy(ROOT / module, folder / module)
            written_at += 1
            os.utime(folder / module, (written_at,) * 2)


def statement_lines(text: str, mutation: Mutation) -> range:
    """The lines of the innermost statement that a mutation is in."""
    line = text.count("\n", 0, mutation.start) + 1
    around = (
        range(node.lineno, (node.end_lineno or node.lineno) + 1)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    )
    return min(around, key=len)


def main() -> int:
    """Read the command line, test the mutants, print those that lived and the score; 1 if any lived."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", required=True, nargs="+", help="files below the repository's root")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="what pytest is given")
    parser.add_argument("--number", type=int, help="how many mutants of each module; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="show the mutants, run nothing")
    parser.add_argument("--touching", type=float, help="seconds of the tests of each mutant, run alone")
    parser.add_argument("--lines", type=Path, help="where it is kept which test runs which line")
    given = parser.parse_args()
    texts = {module: (ROOT / module).read_text(encoding="utf-8") for module in given.module}
    mutations = {module: chosen(text, given.number, given.seed) for module, text in texts.items()}
    if given.list:
        for module, every in mutations.items():
            print("\n".join(difference(module, texts[module], mutation) for mutation in every))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else its copy and its tests would stay behind
    counts: dict[str, Counter[str]] = {module: Counter() for module in mutations}
    for module, mutation, fate in perform(
        mutations, given.tests, given.touching, given.lines and given.lines.resolve()
    ):
        counts[module][fate] += 1
        if fate not in ("killed", "timeout"):
            print(f"{fate}: {difference(module, texts[module], mutation)}", flush=True)
        if counts[module].total() == len(mutations[module]):
            fates = ", ".join(f"{fate} {count}" for fate, count in sorted(counts[module].items()))
            noticed = counts[module]["killed"] + counts[module]["timeout"]
            of = f"{noticed} of {len(mutations[module])} noticed"
            print(f"{module}: {of} ({fates}); seed {given.seed}", flush=True)
    return int(any(count.keys() - {"killed", "timeout"} for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
