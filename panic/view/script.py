"""The page's modules as one classic script.

One answer takes the place of two dozen, each of which imports the next; and browsers load no modules from
`file://`, so that a bundle (`bundle.py`) needs such a script as well.

    page_script()
"""

from __future__ import annotations

import json
import re
from importlib.resources import files

IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w-]+)\.js";$', re.MULTILINE)
EXPORTED = re.compile(r"^export (?:async )?(?:function|class|const|let) (\w+)", re.MULTILINE)
LISTED = re.compile(r"export\s*\{([^}]*)\};?\s*$")
STATIC = "static.js"
"""What answers in a bundle: a script of its own, and no module."""


def page_script() -> str:
    """The script of the page: what `main.js` needs, and `main.js`."""
    names = [one for one in files(__package__).joinpath("pages").iterdir() if one.name.endswith(".js")]
    return classic({one.name[:-3]: one.read_text() for one in names if one.name != STATIC}, "main")


def classic(modules: dict[str, str], entry: str) -> str:
    """One classic script of modules that import one another by name, each run when it is first needed."""
    parts = [
        '"use strict";(() => {const made = {}, makers = {};',
        "const need = name => { if (!made[name]) { made[name] = {}; makers[name](made[name]); }"
        " return made[name]; };",
    ]
    for name, text in modules.items():
        body = IMPORT.sub(lambda found: f'const {{{_renamed(found[1])}}} = need("{found[2]}");', text)
        names = {one: one for one in EXPORTED.findall(body)}
        body = re.sub(r"^export (?=(?:async )?(?:function|class|const|let) )", "", body, flags=re.MULTILINE)
        if listed := LISTED.search(body):
            pairs = [one.split(" as ") for one in map(str.strip, listed[1].split(",")) if one]
            names |= {pair[-1].strip(): pair[0].strip() for pair in pairs}
            body = body[: listed.start()]
        getters = "".join(f"get {public}() {{ return {own}; }}," for public, own in names.items())
        parts.append(
            f"makers[{json.dumps(name)}] = exports => {{\n"
            f"Object.defineProperties(exports, Object.getOwnPropertyDescriptors({{{getters}}}));\n{body}\n}};"
        )
    parts.append(f'need("{entry}");}})();')
    return "\n".join(parts)


def _renamed(names: str) -> str:
    """The names of an import as those of a pattern: `a as b` becomes `a: b`."""
    return names.replace(" as ", ": ")
