"""How many modules a value walks through: counted while real data takes its way.

    python scripts/walks.py                      # of the checkout that this file stands in
    python scripts/walks.py ANOTHER/CHECKOUT     # of another one

"Entered" is a module of the package in which at least one function body ran, in any thread of this process.

prompt   a prompt in a config until its first image is stored (pocket models, one run of one step)
vector   a vector until it is a point in the report's map (two embedding models; the map's question alone)
report   the same report as a whole: how often vectors are loaded and specs of models are parsed
class    a user's Python class until it is called: constructed where, how often, its file run how often
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

HERE = Path(__file__).resolve().parents[1]

CONFIG = """\
name: walk
networks: [[PocketDiffusion, PocketCaptioner]]
models: {PocketDiffusion: {base: PocketDiffusion, steps: 1}}
prompts: [a small red circle]
seeds: [-1]
max_length: 1
"""
EMBEDDED = """\
name: walk
networks: [[draw, tell]]
models:
  draw: {base: synthetic/text-to-image, states: 5, size: 16}
  tell: {base: synthetic/image-to-text, states: 5, kernel: dirichlet}
prompts: [state 0, state 1]
seeds: [-1]
repeats: 4
max_length: 30
embeddings: [synthetic/state-embedding, PocketText]
"""
CLASS = """\
import os, pathlib
FILE = pathlib.Path(__file__).with_suffix(".log")
def note(what):
    with FILE.open("a") as out:
        print(what, os.getpid(), file=out)
note("file run")
class Shout:
    modality_in = modality_out = "text"
    size_bytes = 0
    def __init__(self, mark="!"):
        note("constructed")
        self.mark = mark
    def load(self, device): ...
    def invoke(self, inputs, seeds):
        note("called")
        return [text + self.mark for text in inputs]
"""


class Walk:
    """Functions of the package whose bodies ran, with how often."""

    def __init__(self, package: Path) -> None:
        self.package = str(package) + os.sep
        self.calls: Counter[CodeType] = Counter()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_name != "<module>" and code.co_filename.startswith(self.package):
            self.calls[code] += 1

    @property
    def modules(self) -> set[str]:
        """Paths below the package, of everything but class bodies, which run at import."""
        return {
            code.co_filename.removeprefix(self.package)
            for code in self.calls
            if code.co_flags & 0x2  # CO_NEWLOCALS and optimized: a function, no class body
            and code.co_flags & 0x1
        }

    def count(self, *names: str) -> dict[str, int]:
        """How often functions of these qualified names ran, by module and name."""
        return {
            f"{code.co_filename.removeprefix(self.package)}:{code.co_qualname}": number
            for code, number in sorted(self.calls.items(), key=lambda item: item[0].co_filename)
            if code.co_qualname in names
        }


@contextmanager
def walking(package: Path) -> Iterator[Walk]:
    """Count what runs within, in threads that begin meanwhile, too."""
    walk = Walk(package)
    threading.setprofile(walk)
    sys.setprofile(walk)
    try:
        yield walk
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def prompt(package: Path, folder: Path) -> None:
    """A prompt in a config until its first image is stored."""
    (folder / "walk.yaml").write_text(CONFIG)
    from panic.cli import main as command

    sys.argv = ["panic", "run", str(folder / "walk.yaml"), "--store", str(folder / "walk"), "--quiet"]
    with walking(package) as walk, suppress(SystemExit):
        command()
    show("prompt", walk)
    for what, names in {
        "resolved": ("resolve", "unchecked"),
        "constructed": ("DiffusersModel.__init__", "Captioner.__init__"),
        "store opened": ("Store.__init__",),
        "text read back": ("text",),
    }.items():
        print(f"  {what}: {walk.count(*names)}")


def vector(package: Path, folder: Path) -> None:
    """A vector until it is a point in the report's map; and the whole report."""
    (folder / "embedded.yaml").write_text(EMBEDDED)
    import panic

    path = folder / "embedded"
    panic.run(folder / "embedded.yaml", path)
    with panic.Store(path) as store:
        draw = map_question(store)
        with walking(package) as walk:
            draw()
    show("vector", walk)
    from panic.analysis.report import write_report

    with panic.Store(path) as store, walking(package) as walk:
        write_report(store, "latest", folder / "report.html")
    loads = walk.count("Frames._load_vectors", "ExperimentData._load_vectors", "load_vectors", "vectors")
    print(
        f"report: {len(walk.modules)} modules; vectors loaded {loads}; models listed {walk.count('models')}"
    )


def map_question(store: Any) -> Callable[[], Any]:
    """What draws the map of the newest experiment, imported already."""
    from panic.store import reading

    row = reading.experiment(store, "latest")
    try:
        from panic.analysis.evidence import Evidence
        from panic.analysis.questions import ask
        from panic.analysis.questions import map as question
    except ImportError:  # a checkout from before there were questions
        from panic.analysis.figures import Material, states

        return lambda: states.map_figures(Material.of(store, row, is_over=True))
    return lambda: ask(question, Evidence.of(store, row, is_over=True))


def python_class(folder: Path) -> None:
    """A user's class until it is called, by two workers of this machine."""
    (folder / "shout.py").write_text(CLASS)
    import panic

    panic.run(_written(folder), folder / "class")
    told: Counter[str] = Counter()
    for line in (folder / "shout.log").read_text().splitlines():
        *what, process = line.split()
        told[" ".join(what) + (" in the driver" if process == str(os.getpid()) else " in a worker")] += 1
    print(f"class, two workers: {dict(sorted(told.items()))}")


def _written(folder: Path) -> Path:
    path = folder / "class.yaml"
    path.write_text(
        "name: class\nnetworks: [['python:shout.py:Shout']]\nprompts: [a, b, c, d]\nseeds: [1]\n"
        "max_length: 200\nbatch_sizes: {'python:shout.py:Shout': 1}\nworkers: 2\nexecutor: process\n"
    )
    return path


def show(name: str, walk: Walk) -> None:
    """Print how many modules a walk entered, and which."""
    modules = sorted(walk.modules)
    print(f"{name}: {len(modules)} modules\n  {' '.join(modules)}")


def main() -> None:
    """Walk in the checkout that is named, each walk in a process of its own."""
    if len(sys.argv) == 3:
        name, root = sys.argv[1], Path(sys.argv[2])
        package = root / "panic"
        with tempfile.TemporaryDirectory() as folder:
            if name == "class":
                python_class(Path(folder))
            else:
                {"prompt": prompt, "vector": vector}[name](package, Path(folder))
        return
    root = Path(sys.argv[1] if len(sys.argv) > 1 else HERE).resolve()
    for name in ("prompt", "vector", "class"):
        environment = os.environ | {"PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-P", __file__, name, str(root)]
        subprocess.run(command, env=environment, cwd=root, check=False)


if __name__ == "__main__":
    main()
