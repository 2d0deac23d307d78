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
from pathlib import Path
from typing import Any

import psutil

from tests.view.browser import Browser, Page

SEEN = """(() => {
  const box = document.querySelector('.wall').getBoundingClientRect();
  const rows = [...document.querySelectorAll('.row')].filter(one => {
    const own = one.getBoundingClientRect();
    return own.top < box.bottom && own.bottom > box.top;
  });
  const of = what => rows.flatMap(row => [...row.querySelectorAll(what)]);
  const [tiles, images] = [of('.tile.current'), of('.tile img')];
  return tiles.length > 2 && tiles.every(one => one.dataset.step == STEP || one.dataset.step == STEP - 1)
    && images.length > 3 && images.every(one => one.complete && one.naturalWidth);
})()"""
SLIDE = """new Promise(done => {
  const begin = performance.now();
  const one = document.querySelector('input[type=range]');
  one.value = STEP;
  one.dispatchEvent(new Event('input', {bubbles: true}));
  const look = () => {
    const took = performance.now() - begin;
    if (SEEN) done(took); else if (took > 20000) done(-1); else setTimeout(look, 4);
  };
  setTimeout(look, 4);
})"""
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


def slide(page: Page, step: int) -> float:
    """Milliseconds from a move of the slider until every tile of the wall shows the step."""
    seen = SEEN.replace("STEP", str(step))
    return float(page.eval(SLIDE.replace("SEEN", seen).replace("STEP", str(step))))


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
            found["slider_new_ms"] = [slide(page, step) for step in steps]
            found["slider_seen_ms"] = [slide(page, step) for step in reversed(steps)]
            found["single_new_ms"] = [slide(page, step) for step in range(31, 41)]
            browser.close_pages()
            page = browser.open(f"{url}#/0/large?step=20", width=1281)  # nothing is in the page any more
            page.wait(PAINTED, 60)
            page.call("Network.setCacheDisabled", cacheDisabled=True)
            found["slider_cached_ms"] = [slide(page, step) for step in steps]
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
    finally:
        server.terminate()
        server.wait(20)
    return found


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1])), indent=1))
