"""What the README, the example configs and the package's metadata say is true."""

from __future__ import annotations

import ast
import re
import shlex
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import typer

import panic
import panic.errors
from panic.cli.app import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CODE = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)


def command_lines() -> list[list[str]]:
    """The words of each command line of panic in the README and in docs/."""
    texts = [README, *(path.read_text() for path in (ROOT / "docs").glob("*.md"))]
    code = [code for text in texts for code in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)]
    lines = [line for block in code for line in block.splitlines()]
    lines += [line for text in texts for line in re.findall(r"`(panic [a-z][^`]*)`", text)]
    return [words[1:] for line in lines if (words := shlex.split(line, comments=True))[:1] == ["panic"]]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_example_configs_are_right(path: Path) -> None:
    assert panic.load_config(path).name == path.stem


def test_the_readmes_configs_are_right(tmp_path: Path) -> None:
    examples = [code for language, code in CODE if language == "yaml" and "networks:" in code]
    assert examples
    for example in examples:
        (tmp_path / "example.yaml").write_text(example)
        panic.load_config(tmp_path / "example.yaml")


def test_the_design_s_config_is_right(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "design.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "prompts.csv").write_text("text,split\n" + "".join(f"a{n},test\n" for n in range(20)))
    (tmp_path / "example.yaml").write_text(example)
    assert len(panic.load_config(tmp_path / "example.yaml").prompts) == 21


def test_prompts_come_from_the_pocket_world(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    entry = "prompts=[{dataset: pocket-world, split: test, n: 5, seed: 0}]"
    path.write_text((ROOT / "configs" / "demo.yaml").read_text())
    once, again = panic.load_config(path, [entry]), panic.load_config(path, [entry])
    assert len(once.prompts) == 5
    assert once == again
    with pytest.raises(panic.errors.ConfigError, match="unknown split 'tset'"):
        panic.load_config(path, [entry.replace("test", "tset")])


def test_the_readmes_python_is_python() -> None:
    examples = [code for language, code in CODE if language == "python"]
    assert examples
    for example in examples:
        compile(example, "README.md", "exec")


def test_documented_command_lines_are_right() -> None:
    """Each is parsed as it would be when called: commands, options, their values, the number of arguments."""
    lines = command_lines()
    assert len(lines) > 15
    for words in lines:
        node: Any = typer.main.get_command(app)
        while words and hasattr(node, "commands"):
            assert words[0] in node.commands, words
            node, words = node.commands[words[0]], words[1:]
        try:
            if words or "--help" in words:
                node.make_context(node.name, [word for word in words if word != "--help"])
        except Exception as error:
            pytest.fail(f"{node.name} {shlex.join(words)}: {error!r}")


def test_the_readmes_links_and_files_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_what_the_package_imports_is_declared() -> None:
    imported = set()
    for path in (ROOT / "panic").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"panic"}
    distributions = {"umap": ["umap-learn"], "pynvml": ["nvidia-ml-py"], **packages_distributions()}
    # ... of which not all need be installed
    extras = PROJECT["optional-dependencies"]
    required = [*PROJECT["dependencies"], *extras["gpu"], *extras["fidelity"], *extras["umap"]]
    required += [*extras["quantize"], *extras["optimize"], *extras["view"], *extras["ray"], *extras["notify"]]
    required += extras["notebooks"]  # `panic.analysis.notebooks`, which nothing else imports
    declared = {canonical(requirement) for requirement in required} | {"pydantic-core", "markupsafe"}
    # ... which pydantic and jinja2 are made of.
    unknown = [n for n in foreign if not {canonical(d) for d in distributions.get(n, [n])} & declared]
    assert unknown == []


def canonical(requirement: str) -> str:
    """The name in a requirement, in lower case and with dashes."""
    return re.split(r"[<>=\[ ]", requirement)[0].lower().replace("_", "-")


def test_each_dependency_has_its_licence_and_its_exact_version_written_down() -> None:
    required = (
        PROJECT["dependencies"]
        + PROJECT["optional-dependencies"]["test"]
        + PROJECT["optional-dependencies"]["gpu"]
    )
    names = {canonical(requirement) for requirement in required}
    exact = {
        line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    assert names <= exact, names - exact
    licences = (ROOT / "docs" / "dependencies.md").read_text().lower()
    assert [name for name in sorted(names) if name not in licences] == []
