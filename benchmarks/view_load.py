"""How fast the web view is with a large store: paint, slider, frames while scrolling, memory of the server.

python -m benchmarks.view_store /tmp/large 10000 100
python -m benchmarks.view_load /tmp/large
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from tests.view.browser import Browser, Page

SLIDE = """new Promise(done => {
  const rowsInSight = () => {
    const box = document.querySelector('.wall').getBoundingClientRect();
    return [...document.querySelectorAll('.row')].filter(one => {
      const own = one.getBoundingClientRect();
      return own.top < box.bottom && own.bottom > box.top;
    });
  };
  const loaded = image => image.complete && image.naturalWidth;
  const begin = performance.now();
  const slider = document.querySelector('input[type=range]');
  slider.value = STEP;
  slider.dispatchEvent(new Event('input', {bubbles: true}));
  let first = null;
  const look = () => {
    const took = performance.now() - begin;
    const rows = rowsInSight();
    const of = what => rows.flatMap(row => [...row.querySelectorAll(what)]);
    const [tiles, images] = [of('.tile.current'), of('.tile img')];
    const isThere = tiles.length === rows.length && tiles.length > 2
      && tiles.every(one => [STEP, STEP - 1].includes(Number(one.dataset.step)));
    if (first === null && isThere && of('.tile.current img').every(loaded)) first = took;
    if (isThere && images.length > 3 && images.every(loaded)) done([first, took]);
    else if (took > 20000) done([-1, -1]); else setTimeout(look, 4);
  };
  setTimeout(look, 4);
})"""
"""Milliseconds from a move of the slider until every run in sight shows that step, and its whole strip."""
SCROLL = """new Promise(done => {
  const wall = document.querySelector('.wall');
  const frames = [];
  let before = null;
  const begin = performance.now();
  const go = now => {
    if (before !== null) frames.push(now - before);
    before = now;
    wall.scrollTop += SPEED;
    if (now - begin < 4000) requestAnimationFrame(go); else done(frames);
  };
  requestAnimationFrame(go);
})"""
PAINTED = (
    "[...document.querySelectorAll('.row .tile img')].filter(i => i.complete && i.naturalWidth).length > 3"
)


def slide(page: Page, steps: Iterable[int]) -> dict[str, list[float]]:
    """Milliseconds of moves of the slider: until the tiles of the step are there, and until all are."""
    took = [page.eval(SLIDE.replace("STEP", str(step))) for step in steps]
    return {"step_ms": [one for one, _ in took], "strips_ms": [all_of_them for _, all_of_them in took]}


def painted(page: Page) -> float:
    """Seconds until a page shows rows with images."""
    begin = time.monotonic()
    page.wait(PAINTED, 60)
    return time.monotonic() - begin


def measure(store: Path) -> dict[str, Any]:
    for file in store.glob("thumbnails.sqlite*"):
        file.unlink()
    command = [sys.executable, "-m", "panic", "view", str(store)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    found: dict[str, Any] = {"store": str(store), "load": os.getloadavg()}
    try:
        url = server.stdout.readline().strip()
        with tempfile.TemporaryDirectory() as folder, Browser(Path(folder)) as browser:
            page = browser.open(f"{url}#/0/large?step=20")
            found["first_paint_s"] = painted(page)
            browser.close_pages()
            page = browser.open(f"{url}#/0/large?step=20")
            found["second_paint_s"] = painted(page)
            steps = (30, 41, 52, 63, 74, 85)
            found["slider_new"] = slide(page, steps)
            found["slider_seen"] = slide(page, reversed(steps))
            found["single_new"] = slide(page, range(31, 41))
            browser.close_pages()
            page = browser.open(f"{url}#/0/large?step=20", width=1281)  # nothing is in the page any more
            page.wait(PAINTED, 60)
            page.call("Network.setCacheDisabled", cacheDisabled=True)
            found["slider_cached"] = slide(page, steps)
            for speed in (12, 120):
                frames = page.eval(SCROLL.replace("SPEED", str(speed)))
                found[f"frames_{speed}_px"] = {
                    "median_ms": statistics.median(frames),
                    "most_ms": max(frames),
                    "number": len(frames),
                }
            begin = time.monotonic()
            page.eval("location.hash = '#/0/large?where=state+%3D+stuck&sort=-run'")
            page.wait("document.querySelector('.wall')?.dataset.total == 3300", 60)
            found["filter_s"] = time.monotonic() - begin
            browser.close_pages()
            page = browser.open(f"{url}#/")
            begin = time.monotonic()
            page.wait("document.querySelector('[data-experiment]')", 60)
            found["experiments_s"] = time.monotonic() - begin
            page.eval("location.hash = '#/0/large/status'")
            page.wait("document.querySelector('main').innerText.includes('as of')", 90)
        process = psutil.Process(server.pid)
        found["server_mb"] = process.memory_info().rss / 2**20
        found["load_after"] = os.getloadavg()
    finally:
        server.terminate()
        server.wait(20)
    return found


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1])), indent=1))
