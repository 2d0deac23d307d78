"""For all tests: nothing is downloaded, library bars stay quiet, and kernels do not round by place."""

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TQDM_DISABLE", "1")

from hypothesis import settings

from panic.engine import pinning

pinning.ask_for_steady_kernels()  # before torch is loaded, as the engine does

# The same examples every time; `pytest --hypothesis-profile explore` looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("same")


def pytest_collection_finish() -> None:
    """Nothing that is imported by now is looked through again by every collection: tests ask for many."""
    gc.collect()
    gc.freeze()
