"""What the README, the example configs and the package's metadata say is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import panic
import panic.errors

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CODE = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[tuple[str, ...]]:
    """Each command line of panic in the README: the command and its options."""
    lines = [
        line.split("#")[0] for language, code in CODE if language == "bash" for line in code.splitlines()
    ]
    lines += re.findall(r"`(panic [a-z][^`]*)`", README)
    words = [line.split() for line in lines]
    return sorted(
        {
            (line[1], *(word for word in line[2:] if word.startswith("-")))
            for line in words
            if line[:1] == ["panic"]
        }
    )


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


def test_the_readme_names_commands_and_options_that_exist() -> None:
    assert len(commands()) > 5
    for command, *options in commands():
        shown = subprocess.run(
            [sys.executable, "-m", "panic", command, "--help"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
        )
        assert shown.returncode == 0, (command, shown.stderr)
        for option in options:
            assert re.search(rf"(?<![\w-]){re.escape(option)}\b", shown.stdout), (command, option)


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
    distributions = packages_distributions()
    extras = PROJECT["optional-dependencies"]
    required = [*PROJECT["dependencies"], *extras["gpu"], *extras["fidelity"]]
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
