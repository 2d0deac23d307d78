"""A lab bench for feedback loops of generative models.

`from panic import Store, load_config, run, is_stuck` is the Python side of the command line. Importing
`panic` alone imports nothing heavy: every name is looked up when it is first used.

Try it: `python -c "import panic; print(panic.__version__)"`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panic.analysis.measured import find
    from panic.engine.perform import run
    from panic.engine.plan import load_config
    from panic.store import Store
    from panic.store.reading import is_stuck

__version__ = "0.1.0"
__all__ = ["Store", "__version__", "find", "is_stuck", "load_config", "run"]

HOMES = {
    "Store": "panic.store",
    "find": "panic.analysis.measured",
    "is_stuck": "panic.store.reading",
    "load_config": "panic.engine.plan",
    "run": "panic.engine.perform",
}


def __getattr__(name: str) -> Any:
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module 'panic' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
