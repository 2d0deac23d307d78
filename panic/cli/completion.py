"""Scripts with which shells complete panic's commands; `app`, which has the tree, prints them.

source <(panic completion bash)
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

NUSHELL_TYPES = {
    **dict.fromkeys(("CONFIG", "DIR", "FILE", "PATH"), "path"),
    **dict.fromkeys(("N", "PIXELS", "RUN", "STEP"), "int"),
    "EXPERIMENT": 'string@"nu-complete panic experiments"',
    **dict.fromkeys(("EXPERIMENT|TRAINING", "TARGET"), 'string@"nu-complete panic targets"'),
    "SECONDS": "number",
}


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    NUSHELL = "nushell"
    NU = "nu"


def scripts(shell: Shell, trees: dict[str, Any]) -> Iterator[str]:
    """The completion script of a shell for programs given as command trees, in parts to be printed."""
    if shell in (Shell.NU, Shell.NUSHELL):
        yield from nushell_script(trees)
        return
    from typer._completion_shared import get_completion_script

    for program in trees:
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
        yield get_completion_script(prog_name=program, complete_var=variable, shell=shell.value)


def nushell_script(trees: dict[str, Any]) -> Iterator[str]:
    """Extern definitions for programs given as command trees, line by line."""
    yield "# Completions for nushell: save this as a file and `source` it in your config.nu."
    yield 'def "nu-complete panic experiments" [] {'
    yield "  try { ^panic list --columns name --json | from json | get name"
    yield '    | append "latest" } catch { ["latest"] }'
    yield "}"
    yield 'def "nu-complete panic targets" [] {'
    yield "  try { ^panic trainings --columns name --json | from json | get name"
    yield "    | append (nu-complete panic experiments) } catch { nu-complete panic experiments }"
    yield "}"
    for program, tree in trees.items():
        yield from _extern(program, tree)
        for name, child in getattr(tree, "commands", {}).items():
            yield from _extern(f"{program} {name}", child)


def _extern(name: str, node: Any) -> Iterator[str]:
    summary = (node.get_short_help_str(200) or "").strip()
    yield ""
    if summary:
        yield f"# {summary}"
    yield f'export extern "{name}" ['
    for parameter in node.params:
        yield f"  {_nushell_parameter(parameter)}"
    yield "]"


def _nushell_parameter(parameter: Any) -> str:
    """A parameter as nushell declares it: `--set: string  # help`, `...configs: path`, `name?: string`."""
    kind = NUSHELL_TYPES.get(parameter.metavar or "", "string")
    if parameter.param_type_name == "argument":
        name = parameter.name
        if parameter.nargs == -1:
            return f"...{name}: {kind}"
        return f"{name}{'' if parameter.required else '?'}: {kind}"
    long = next(name for name in parameter.opts if name.startswith("--"))
    short = next((name for name in parameter.opts if not name.startswith("--")), "")
    flag = f"{long}({short})" if short else long
    value = "" if parameter.is_flag else f": {kind}"
    return f"{flag}{value}  # {' '.join((parameter.help or '').split())}".rstrip(" #")
