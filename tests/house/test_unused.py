"""Nothing in the package is unused, but for what an explained list names (`unused.txt`).

vulture reads names and does not run anything: what is said here to be used is used by the package, or by the
notebooks in analysis/, which are users like any other. Its confidence is 60 % for functions, classes, methods
and attributes; above that it finds only arguments and imports, which ruff finds, too. So the list holds what
frameworks call by name, what a file format or a table reads by name, and what waits for its use.
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from vulture import Vulture

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("unused.txt")
MIN_CONFIDENCE = 60
CALLED_BY_DECORATORS = ["@model_validator", "@field_validator", "@app.callback", "@command"]

Entry = tuple[str, str]


def unused(*paths: Path) -> set[Entry]:
    """(file, name) of what vulture calls unused below the first of some paths; the others only use."""
    vulture = Vulture(ignore_decorators=CALLED_BY_DECORATORS)
    vulture.scavenge([str(path) for path in paths])
    return {
        (str(item.filename.relative_to(paths[0].parent)), item.name)
        for item in vulture.get_unused_code(min_confidence=MIN_CONFIDENCE)
        if item.filename.is_relative_to(paths[0])
    }


def explained(text: str) -> dict[Entry, str]:
    """The reasons of a list by pattern of files and name."""
    entries: dict[Entry, str] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            files, names, reason = line.split(maxsplit=2)
            entries |= {(files, name): reason for name in names.split(",")}
    return entries


def matches(item: Entry, entry: Entry) -> bool:
    """Whether an entry of the list is about what vulture found."""
    return fnmatch(item[0], entry[0]) and item[1] == entry[1]


def test_nothing_is_unused_that_the_list_does_not_explain() -> None:
    found, entries = unused(ROOT / "panic", ROOT / "analysis"), explained(LIST.read_text())
    unexplained = [item for item in sorted(found) if not any(matches(item, entry) for entry in entries)]
    assert unexplained == [], "delete it, use it, or say in unused.txt why it stays"
    outdated = [entry for entry in entries if not any(matches(item, entry) for item in found)]
    assert outdated == [], "unused.txt names what is used, or gone"


def test_every_entry_has_a_reason() -> None:
    assert [entry for entry, reason in explained(LIST.read_text()).items() if len(reason.split()) < 3] == []


def test_the_rule_can_fail(tmp_path: Path) -> None:
    package, notebooks = tmp_path / "package", tmp_path / "notebooks"
    package.mkdir()
    notebooks.mkdir()
    (package / "module.py").write_text("def used(): ...\ndef shown(): ...\ndef forgotten(): ...\nused()\n")
    (notebooks / "notebook.py").write_text("from package.module import shown\nshown()\n")
    assert unused(package, notebooks) == {("package/module.py", "forgotten")}
    assert matches(("a/b/c.py", "name"), ("a/*.py", "name"))
    assert not matches(("a/b/c.py", "other"), ("a/*.py", "name"))


def test_names_of_a_line_share_its_reason() -> None:
    text = "# a comment\n\npackage/*.py  called,waits  torch calls them by name\n"
    reason = "torch calls them by name"
    assert explained(text) == {("package/*.py", "called"): reason, ("package/*.py", "waits"): reason}
