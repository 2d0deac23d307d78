"""The pages in a real browser: live steps, the slider, addresses, keys, a phone, hostile texts.

They skip where there is no Chromium.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from panic.store import Commit, NewFailure, NewRun, NewStuck, Store, reading, writing
from panic.view import bundle, tiles
from tests.patience import LONGEST_S
from tests.store import sample
from tests.view import browser as of_tests
from tests.view.browser import Browser
from tests.view.conftest import HOSTILE, LENGTH, Looked, Served, kept_port, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(of_tests.find() is None, reason="no Chromium here"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(autouse=True)
def no_complaint(browser: Browser) -> Iterator[None]:
    """No test leaves an error in the console, or asks another host for anything."""
    browser.complaints.clear()
    browser.asked.clear()
    yield
    browser.close_pages()
    assert browser.complaints == []
    assert [url for url in browser.asked if not url.startswith(("http://127.0.0.1:", "blob:", "data:"))] == []


@pytest.fixture
def looked(tmp_path: Path) -> Iterator[Looked]:
    found = Looked(tmp_path / "panic-store")
    for run in found.runs:
        found.step(run, *(f"text {place} of run {run}" for place in range(LENGTH // 2)))
    yield found
    found.store.close()


@contextlib.contextmanager
def seen(browser: Browser, *paths: Path) -> Iterator[Served]:
    """A server of stores, whose pages are closed before it ends: they would ask it again and again."""
    with serving(*paths) as served:
        try:
            yield served
        finally:
            browser.close_pages()


@pytest.fixture
def wall(browser: Browser, looked: Looked) -> Iterator[Served]:
    with seen(browser, looked.store.path) as served:
        yield served


CURRENT = """Object.fromEntries([...document.querySelectorAll('.row')].map(row => [
  row.querySelector('[data-run]').dataset.run,
  [...row.querySelectorAll('.tile.current')].map(tile => tile.dataset.text)]))"""
SLIDE = """(() => { const one = document.querySelector('input[type=range]'); one.value = STEP;
  one.dispatchEvent(new Event('input', {bubbles: true})) })()"""
ALL_TEXT = "[...document.querySelectorAll('button')].find(one => one.textContent.includes('100,000'))"
BOX = "(() => { const b = document.querySelector('.wall').getBoundingClientRect(); return [b.x, b.y] })()"
TO_THE_END = "(() => { const one = document.querySelector('.wall'); one.scrollTop = one.scrollHeight })()"
CANVAS = """(() => { const b = document.querySelector('canvas').getBoundingClientRect();
  return [b.x, b.y, b.width, b.height] })()"""
MARK = """(() => {
  const all = [...document.querySelectorAll('[data-chart=drawn] svg [aria-roledescription=bar]')];
  if (!all.length) return [0, 0];
  all[0].scrollIntoView({block: 'center'});
  const b = all[0].getBoundingClientRect();
  return [b.x + b.width / 2, b.y + b.height / 2]
})()"""
NOTE_ALL = """(() => {
  window.noted = new Set();
  const note = () => document.querySelectorAll('.tile.current').forEach(
    one => [one.dataset.digest, one.dataset.text].forEach(digest => window.noted.add(digest)));
  new MutationObserver(note).observe(document.body, {subtree: true, childList: true, attributes: true});
})()"""
SLOWLY = """(() => {
  const [later, ask] = [window.setTimeout, window.fetch];
  window.requestAnimationFrame = () => 0;
  window.setTimeout = (act, ms, ...rest) => later(act, ms === 100 ? 1000 : ms, ...rest);
  window.fetch = async (url, ...rest) => {
    if (String(url).endsWith("/experiments/wall")) await new Promise(resolve => later(resolve, 500));
    return ask(url, ...rest);
  };
})()"""
"""As on a busy machine: what a page does only after its next frame is done a second later, and it hears of
the experiment after it has the rows, so that the slider and the rows are drawn at once."""
LATEST = "[...document.querySelectorAll('.tile[data-step]')].some(one => Number(one.dataset.step) >= STEP)"
LOADED = "[...document.images].every(one => one.complete && one.naturalWidth)"


def draw_round(page: of_tests.Page) -> None:
    """Draw a lasso round all of a map."""
    x, y, width, height = page.eval(CANVAS)
    left, right, top, bottom = x + 2, x + width - 2, y + 2, y + height - 2
    page.draw([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])


def shown(page: of_tests.Page, run: int, digest: str) -> None:
    """Wait until a row of the wall shows an output as that of the step."""
    tile = ", ".join(f'.tile.current[data-{kind}="{digest}"]' for kind in ("digest", "text"))
    row = f"row.querySelector('[data-run=\"{run}\"]') && row.querySelector('{tile}')"
    page.wait(f"[...document.querySelectorAll('.row')].some(row => {row})")


def test_the_token_leaves_the_address(browser: Browser, wall: Served) -> None:
    page = browser.open(wall.url)
    page.wait("document.querySelector('[data-experiment=wall]')")
    assert "token" not in page.eval("location.href")
    assert wall.access.token not in page.eval("document.documentElement.outerHTML")
    page.call("Page.reload")
    page.wait("document.querySelector('[data-experiment=wall]')")


def test_the_slider_moves_every_run_to_the_same_step(browser: Browser, wall: Served, looked: Looked) -> None:
    page = browser.open(f"{wall.url}#/0/wall?step=0", height=1400)
    for step in (0, 1, 4, 7, LENGTH - 1):
        page.wait("document.querySelector('input[type=range]')")
        page.eval(SLIDE.replace("STEP", str(step)))
        for run, outputs in looked.outputs.items():
            shown(page, run, outputs[step])
    assert page.eval(CURRENT) == {str(run): [outputs[-1]] for run, outputs in looked.outputs.items()}
    page.wait(LOADED)
    images = [url for url in browser.asked if "/thumbnails/" in url or "/tiles/" in url]
    assert images
    assert all("?digests=" in url for url in images), "one by one they took longer than to make them"


def test_remarks_stand_below_the_runs(browser: Browser, wall: Served) -> None:
    """Whichever answer comes first: the remarks came before everything in seven of twelve."""
    for _ in range(6):
        page = browser.open(f"{wall.url}#/0/wall?step=4")
        page.wait("document.querySelector('.remarks') && document.querySelector('.tile.current')")
        order = page.eval("[...document.querySelectorAll('h1, .wall, .remarks')].map(one => one.className)")
        assert order == ["", "wall", "card remarks"]
        browser.close_pages()


def test_a_new_step_is_seen_within_two_seconds(browser: Browser, tmp_path: Path) -> None:
    """It is what server and page take by themselves that counts: the fastest of some."""
    looked = Looked(tmp_path / "panic-store", 3)
    looked.step(looked.runs[0], "first")
    with seen(browser, looked.store.path) as served:
        page = browser.open(f"{served.url}#/0/wall")
        shown(page, looked.runs[0], looked.outputs[looked.runs[0]][-1])
        took = []
        while len(took) < 6 or (min(took[1:]) >= 2 and len(took) < 15):
            number = len(took)
            run = looked.runs[(1, 0, 2)[number % 3]]
            begin = time.monotonic()
            looked.step(run, f"news {number} of {run}")
            shown(page, run, looked.outputs[run][-1])
            took.append(time.monotonic() - begin)
        assert min(took[1:]) < 2  # the first comes at any moment between two looks
        steps = f"{2 + 2 * len(took)} steps"
        page.wait(f"document.querySelector('[data-counts]').textContent.includes('{steps}')")
        assert "token" not in page.eval("location.href"), "it was not loaded again"
    looked.store.close()


LIVE = """
name: live
networks: [[draw, noisy]]
models:
  draw: {base: synthetic/text-to-image, states: 7, delay_s: 0.4}
  noisy: {base: synthetic/image-to-text, states: 7, kernel: cycle, epsilon: 0.1, delay_s: 0.4}
prompts: [state 0]
seeds: [-1]
max_length: 10000
"""


def test_an_experiment_is_seen_while_it_is_performed(browser: Browser, tmp_path: Path) -> None:
    """A step is on the page within 2 s of when another process can read it: three of some at least."""
    (tmp_path / "live.yaml").write_text(LIVE)
    path = tmp_path / "panic-store"
    Store(path, write=True, create=True).close()
    command = [sys.executable, "-m", "panic", "-q", "--store", str(path), "run", str(tmp_path / "live.yaml")]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        with seen(browser, path) as served, Store(path) as store:
            page = browser.open(served.url)
            page.wait("document.querySelector('[data-experiment=live] a')")
            page.eval("document.querySelector('[data-experiment=live] a').click()")
            page.wait("document.querySelector('.tile[data-step]')")
            took = []
            while len(took) < 5 or (sorted(took)[2] >= 2 and len(took) < 30):
                begin = time.monotonic()
                [run] = reading.runs(store, "live")
                step = (run.num_steps - 1) // 2 * 2  # that of the last image
                page.wait(LATEST.replace("STEP", str(step)))
                took.append(time.monotonic() - begin)
                while reading.runs(store, "live")[0].num_steps < step + 3:
                    assert driver.poll() is None
                    time.sleep(0.02)
            assert sorted(took)[2] < 2
            page.eval("location.hash = '#/0/live/status'")
            page.wait("document.querySelector('main').innerText.includes('Devices')")
            assert "running" in page.text()
    finally:
        driver.kill()
        driver.wait()


def test_an_image_that_is_waited_for_is_not_shown_as_broken(
    browser: Browser, wall: Served, looked: Looked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty tile, until it comes with its caption for those who do not see it."""
    may_go, make = threading.Event(), tiles._made
    monkeypatch.setattr(tiles, "_made", lambda *asked: may_go.wait(LONGEST_S) and make(*asked))
    page = browser.open(f"{wall.url}#/0/wall?step=1")
    page.wait("document.querySelector('.tile img')")
    shown_as = "[...document.querySelectorAll('.tile img')].map(one => [one.hasAttribute('src'), one.alt])"
    assert {tuple(one) for one in page.eval(shown_as)} == {(False, "")}
    may_go.set()
    page.wait(f"document.querySelector('.tile img[src]') && {LOADED}")
    assert [True, f"text 0 of run {looked.runs[0]}"] in page.eval(shown_as)


def test_filters_are_in_the_address_and_the_back_button_goes_back(browser: Browser, wall: Served) -> None:
    page = browser.open(f"{wall.url}#/0/wall")
    page.wait("document.querySelector('.wall')?.dataset.total == 6")
    page.press("/")
    page.type("run in (2, 4)")
    page.press("Enter", "\r")
    page.wait("document.querySelector('.wall')?.dataset.total == 2")
    assert "where=run+in" in page.eval("location.hash")
    page.eval("history.back()")
    page.wait("document.querySelector('.wall')?.dataset.total == 6")
    assert page.eval("document.querySelector('[data-search]').value") == ""
    page.eval("history.forward()")
    page.wait("document.querySelector('.wall')?.dataset.total == 2")
    page.eval("document.querySelector('.row .label').click()")
    page.wait("document.querySelector('.strip .piece')")
    page.eval("history.back()")
    page.wait("document.querySelector('.wall')?.dataset.total == 2")


def test_a_filter_that_cannot_be_read_says_where(browser: Browser, wall: Served) -> None:
    page = browser.open(f"{wall.url}#/0/wall?where=stat+%3D+stuck")
    page.wait("document.querySelector('[role=alert]')?.innerText.includes('state')")
    browser.forget()  # the browser notes that the server answered 400


def test_keys_alone_are_enough(browser: Browser, wall: Served, looked: Looked) -> None:
    page = browser.open(f"{wall.url}#/0/wall?step=3")
    run, outputs = next(iter(looked.outputs.items()))
    shown(page, run, outputs[3])
    page.press("ArrowRight")
    shown(page, run, outputs[4])
    page.press("Home")
    shown(page, run, outputs[0])
    page.press("End")
    shown(page, run, outputs[-1])
    page.eval(NOTE_ALL)
    page.press(" ")  # from the beginning
    page.wait(f"window.noted.has('{outputs[2]}')")  # for a third of a second: it may be over already
    page.press(" ")
    page.press("?")
    page.wait("document.querySelector('[role=dialog]')")
    page.press("Escape")
    page.wait("!document.querySelector('[role=dialog]')")


@pytest.mark.parametrize(
    ("key", "done"),
    [
        ("ArrowRight", "document.querySelector('.slider output').innerText.startsWith('step 4')"),
        ("ArrowDown", "document.querySelector('.wall').scrollTop > 0"),
    ],
)
def test_a_key_pressed_as_soon_as_the_wall_is_seen_is_not_lost(
    browser: Browser, wall: Served, looked: Looked, key: str, done: str
) -> None:
    page = browser.open("about:blank", height=400)
    page.call("Page.addScriptToEvaluateOnNewDocument", source=SLOWLY)
    page.call("Page.navigate", url=f"{wall.url}#/0/wall?step=3")
    run, outputs = next(iter(looked.outputs.items()))
    shown(page, run, outputs[3])
    page.press(key)
    page.wait(done)


def test_stuck_failed_and_short_runs_are_shown_as_they_are(browser: Browser, tmp_path: Path) -> None:
    looked = Looked(tmp_path / "panic-store", 1)
    stuck, failed = looked.add("a", seed=1), looked.add("b", seed=2)
    looked.step(stuck, "one", "two")
    looked.step(failed, "bad")
    writing.commit(
        looked.store,
        Commit(
            stuck=[NewStuck(run=stuck, entry_step=2, period=2)],
            failures=[NewFailure(run=failed, step=2, kind="output", message="empty")],
        ),
    )
    with seen(browser, looked.store.path) as served:
        page = browser.open(f"{served.url}#/0/wall?step=9", height=1400)
        shown(page, stuck, looked.outputs[stuck][3])
        again = page.eval("document.querySelector('.tile.current.again')?.dataset.text")
        assert again == looked.outputs[stuck][3]
        said = page.text()
        calls = ("stuck since model call 2, period 2 calls", "failed at model call 2: empty")
        for words in (*calls, "failed at model call 2", "not begun"):
            assert words in said
    looked.store.close()


def test_hostile_texts_are_shown_as_texts(browser: Browser, tmp_path: Path) -> None:
    looked = Looked(tmp_path / "panic-store", 0)
    run = looked.add(HOSTILE)
    long = "x" * 100_000
    looked.step(run, HOSTILE, long, "__proto__", "${alert(1)}")
    sample.remark(looked.store, "wall", HOSTILE)
    with seen(browser, looked.store.path) as served:
        for place in ("wall", f"wall/run/{run}?step=1", f"wall/run/{run}?step=3", "wall/status"):
            page = browser.open(f"{served.url}#/0/{place}")
            page.wait("document.querySelector('.tile .caption, .step, .log')")
            time.sleep(0.3)
            assert page.eval("document.body.dataset.owned") is None
            assert page.eval("document.querySelectorAll('script').length") == 1
        page = browser.open(f"{served.url}#/0/wall/run/{run}?step=3")
        page.wait(ALL_TEXT)
        # A click is lost where the page is drawn anew at that moment.
        page.wait(f"document.querySelector('.long').textContent.length >= 100000 || ({ALL_TEXT}?.click(), 0)")
        assert page.eval("document.documentElement.scrollWidth <= innerWidth")
    looked.store.close()


def test_a_phone_has_one_column_and_swipes(browser: Browser, wall: Served, looked: Looked) -> None:
    page = browser.open(f"{wall.url}#/0/wall?step=2", 390, 844, is_phone=True)
    run, outputs = next(iter(looked.outputs.items()))
    shown(page, run, outputs[2])
    for place, there in {
        "wall?step=2": ".row .tile", f"wall/run/{run}": ".strip .piece", "wall/status": "[data-steps]",
    }.items():  # fmt: skip
        page.eval(f"location.hash = '#/0/{place}'")
        page.wait(f"document.querySelector('{there}')")
        assert page.eval("document.documentElement.scrollWidth") == 390
    page.eval("location.hash = '#/0/wall?step=2'")
    shown(page, run, outputs[2])
    box = page.eval(BOX)
    page.draw([(box[0] + 250, box[1] + 90), (box[0] + 130, box[1] + 92)], finger=True)
    shown(page, run, outputs[5])


def test_what_is_said_of_a_run_is_stored(browser: Browser, wall: Served, looked: Looked) -> None:
    run = looked.runs[2]
    page = browser.open(f"{wall.url}#/0/wall/run/{run}")
    page.wait("document.querySelector('.remarks form')")
    page.eval("document.querySelector('.remarks').open = true")
    page.eval("document.querySelector('.remarks input').focus()")
    page.type("odd")
    page.press("Enter", "\r")
    page.wait("[...document.querySelectorAll('.tag')].some(one => one.textContent === 'odd')")
    page.eval("location.hash = '#/0/wall?where=%27odd%27+in+tags'")
    page.wait("document.querySelector('.wall')?.dataset.total == 1")


def test_a_server_that_was_killed_and_comes_back(browser: Browser, looked: Looked) -> None:
    run = looked.runs[0]
    with kept_port() as port:
        with serving(looked.store.path, port=port) as first:
            page = browser.open(f"{first.url}#/0/wall")
            page.wait("document.querySelector('.wall')")
        page.wait("document.querySelector('.top')?.innerText.includes('does not answer')")
        with serving(looked.store.path, port=port):
            page.wait("!document.querySelector('.top').innerText.includes('does not answer')")
            page.eval(f"location.hash = '#/0/wall/run/{run}'")
            page.wait("document.querySelector('.strip .piece')")
            browser.forget()  # the browser notes every attempt that nobody answered


def test_another_store_at_the_path_is_shown_instead(browser: Browser, looked: Looked, tmp_path: Path) -> None:
    """Its runs have the numbers of the old ones; what those put out is not shown for them."""
    other = Looked(tmp_path / "other", 2)
    other.step(other.runs[0], "of the other store")
    with seen(browser, looked.store.path) as served:
        page = browser.open(f"{served.url}#/0/wall")
        shown(page, looked.runs[0], looked.outputs[looked.runs[0]][-1])
        looked.store.path.rename(tmp_path / "moved")
        other.store.path.rename(looked.store.path)
        shown(page, other.runs[0], other.outputs[other.runs[0]][-1])
        page.wait("document.querySelector('.wall')?.dataset.total == 2")
        old = looked.outputs[looked.runs[0]][-1]
        assert page.eval(f"document.querySelectorAll('[data-text=\"{old}\"]').length") == 0
    browser.forget()  # for a moment there was no store
    other.store.close()


def test_experiments_of_two_stores_stand_side_by_side(
    browser: Browser, looked: Looked, tmp_path: Path
) -> None:
    """Of whole experiments only the figures were shown, and no run."""
    other = Looked(tmp_path / "other", 1)
    other.step(other.runs[0], "a", "b")
    with seen(browser, looked.store.path, other.store.path) as served:
        page = browser.open(f"{served.url}#/side?of=0/wall,1/wall&step=1")
        for one, run in ((other, other.runs[0]), (looked, looked.runs[3])):
            page.wait(f"document.querySelector('.sides [data-digest=\"{one.outputs[run][1]}\"]')")
        page.eval(SLIDE.replace("STEP", "2"))
        for one, run in ((other, other.runs[0]), (looked, looked.runs[3])):
            page.wait(f"document.querySelector('.sides [data-digest=\"{one.outputs[run][2]}\"]')")
        page.wait("document.querySelector('[data-compared]')")
    other.store.close()


def test_shards_stand_beside_another_experiment(browser: Browser, looked: Looked, tmp_path: Path) -> None:
    """Each of their runs once, with the images of the store that has it, and counted once."""
    other = Looked(tmp_path / "other", 1)
    other.step(other.runs[0], "a", "b")
    new = other.add("of the other alone")
    other.step(new, "c")
    with seen(browser, looked.store.path, other.store.path) as served:
        page = browser.open(f"{served.url}#/side?of=0+1/wall,0/wall&step=1", height=2000)
        for one, run in ((other, new), (looked, looked.runs[3])):
            digest = one.outputs[run][1]
            page.wait(f"document.querySelector('.sides .card:first-child [data-digest=\"{digest}\"]')")
        total = len(looked.runs) + 1
        assert page.eval("document.querySelectorAll('.sides .card:first-child article').length") == total
        page.wait("document.querySelector('[data-compared]')")
        page.eval("location.hash = '#/0+1/wall/status'")
        page.wait(f"document.querySelector('main').innerText.includes('of {total} have ended')")
    other.store.close()


def test_runs_are_compared_and_an_address_that_is_none_is_told(browser: Browser, wall: Served) -> None:
    page = browser.open(f"{wall.url}#/side?of=0/wall/1,0/wall/2&step=3")
    page.wait("document.querySelector('[data-compared]')")
    assert "wall run 2 \N{MINUS SIGN} wall run 1" in page.text()
    page.eval("location.hash = '#/side?of=%25'")  # it ended every page until it was loaded again
    page.wait("document.querySelector('[role=alert]')")
    page.eval("location.hash = '#/0/wall'")
    page.wait("document.querySelector('.wall')?.dataset.total == 6")
    browser.forget()  # the browser notes that the server answered 404


def test_a_phone_whose_clock_is_wrong_sees_what_is_new(browser: Browser, looked: Looked) -> None:
    run = looked.add("late")
    looked.step(run, "first")
    for years in (-9, 9):
        with seen(browser, looked.store.path) as served:
            page = browser.open("about:blank", 390, 844, is_phone=True)
            wrong = f"const now = Date.now; Date.now = () => now() + {years} * 31557600000"
            page.call("Page.addScriptToEvaluateOnNewDocument", source=wrong)
            page.call("Page.navigate", url=f"{served.url}#/0/wall")
            shown(page, run, looked.outputs[run][-1])
            looked.step(run, f"seen in {years} years")
            shown(page, run, looked.outputs[run][-1])


def test_ten_thousand_rows_are_a_few_elements(browser: Browser, tmp_path: Path) -> None:
    looked = Looked(tmp_path / "panic-store", 0)
    new = [
        NewRun(network=("draw", "tell"), prompt="p", seed=-1, repeat=repeat, max_length=LENGTH)
        for repeat in range(10_000)
    ]
    writing.commit(looked.store, Commit(outputs=[sample.output("p")]))
    rows = writing.add_runs(looked.store, looked.experiment, new)
    looked.outputs[rows[-1]] = []
    looked.step(rows[-1], "the last of all")
    with seen(browser, looked.store.path) as served:
        page = browser.open(f"{served.url}#/0/wall")
        page.wait("document.querySelector('.wall')?.dataset.total == 10000")
        assert page.eval("document.querySelectorAll('.row').length") < 40
        page.eval(
            "(() => { const one = document.querySelector('.wall'); one.scrollTop = one.scrollHeight })()"
        )
        shown(page, rows[-1], looked.outputs[rows[-1]][-1])
    looked.store.close()


def test_runs_of_two_stores_stand_on_one_wall(browser: Browser, looked: Looked, tmp_path: Path) -> None:
    other = Looked(tmp_path / "shard", 0)
    other.runs = [other.add(f"prompt {number}", seed=7) for number in range(2)]
    other.step(other.runs[1], "in the other store")
    with seen(browser, looked.store.path, other.store.path) as served:
        page = browser.open(f"{served.url}#/0+1/wall", height=2000)
        page.wait("document.querySelector('.wall')?.dataset.total == 8")
        page.wait(f"document.querySelector('.tile.current[data-text=\"{other.outputs[other.runs[1]][1]}\"]')")
        page.wait(LOADED)
        page.eval("location.hash = '#/0+1/wall?sort=prompt,run'")
        page.wait(
            "[...document.querySelectorAll('.row .prompt')].slice(0, 4).map(one => one.textContent).join()"
            " === 'prompt 0,prompt 0,prompt 1,prompt 1'"
        )
        tabs = "[...document.querySelectorAll('.tabs a')].find(one => one.textContent === 'NAME').click()"
        page.eval(tabs.replace("NAME", "progress"))
        page.wait("document.querySelector('[data-steps]')?.textContent === '74'")
        page.eval(tabs.replace("NAME", "wall"))
        page.wait("document.querySelectorAll('.remarks form').length == 2")
        page.eval("document.querySelectorAll('.remarks')[1].open = true")
        page.eval("document.querySelectorAll('.remarks form input')[1].focus()")
        page.type("odd")
        page.press("Enter", "\r")
        page.wait("document.querySelectorAll('.remarks')[1].querySelector('.tag')?.textContent === 'odd'")
        assert page.eval("document.querySelectorAll('.remarks')[0].querySelector('.tag')") is None
    assert reading.experiment(other.store, "wall").name == "wall"
    other.store.close()


def test_a_run_that_two_stores_have_stands_once_on_the_wall(
    browser: Browser, looked: Looked, tmp_path: Path
) -> None:
    copies = Looked(tmp_path / "copies", 2)  # of the first two, without a step
    with seen(browser, copies.store.path, looked.store.path) as served:
        page = browser.open(f"{served.url}#/0+1/wall", height=2000)
        page.wait("document.querySelector('.wall')?.dataset.total == 6")
        page.wait(
            f"document.querySelector('.tile.current[data-text=\"{looked.outputs[looked.runs[0]][-1]}\"]')"
        )
        page.eval("location.hash = '#/0+1/wall?sort=-prompt'")
        page.wait("document.querySelector('.row .prompt')?.textContent === 'prompt 5'")
        assert page.eval("document.querySelector('.wall').dataset.total") == "6"
    copies.store.close()


def test_a_bundle_opens_from_a_disk(browser: Browser, looked: Looked, tmp_path: Path) -> None:
    """No server, no network; the same pages, every step of every run."""
    run = looked.runs[1]
    hostile = looked.add(HOSTILE)
    looked.step(hostile, HOSTILE)
    folder = tmp_path / "a folder #1"
    row = reading.experiment(looked.store, "wall")
    bundle.write(looked.store, row, folder, lambda *told: None)
    url = (folder / "index.html").as_uri()
    page = browser.open(f"{url}#/0/wall?step=4", height=1600)
    page.call(
        "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
    )
    for one in looked.runs:
        shown(page, one, looked.outputs[one][4])
    page.wait(LOADED)
    page.eval("location.hash = '#/0/wall?where=prompt+1'")
    page.wait("document.querySelector('.wall')?.dataset.total == 1")
    page.eval(f"location.hash = '#/0/wall/run/{run}?step=7'")
    page.wait(f"document.querySelector('[data-shown=\"{looked.outputs[run][7]}\"]')")
    assert page.eval("document.body.dataset.owned") is None
    assert [one for one in browser.asked if not one.startswith("file:")] == []
    browser.asked.clear()


def test_a_lasso_selects_runs_and_questions_are_answered(browser: Browser, tmp_path: Path) -> None:
    """Both are worked out in processes of their own, while the page waits."""
    looked = Looked(tmp_path / "panic-store", 4)
    for run in looked.runs:
        looked.step(run, *(f"{run} {place}" for place in range(6)))
    looked.embed()
    with seen(browser, looked.store.path) as served:
        page = browser.open(f"{served.url}#/0/wall/map?colour=cluster")
        page.wait("document.querySelector('canvas')?.dataset.drawn == 24")
        draw_round(page)
        page.wait("document.querySelector('[data-chosen]')?.dataset.chosen == 4")
        page.eval("document.querySelector('[data-chosen] + a').click()")
        page.wait("document.querySelector('.wall')?.dataset.total == 4")
        page.eval("location.hash = '#/0/wall/questions/stuck'")
        page.wait("document.querySelector('[data-answered]')?.innerText.includes('revision')")
        page.eval("location.hash = '#/0/wall/questions/time'")
        page.wait("document.querySelector('[data-chart=drawn] svg [aria-roledescription=bar]') !== null")
        tip = "document.querySelector('.tip')?.textContent.length > 3"
        while not page.eval(tip):  # the mark moves while other charts are drawn
            mark = page.eval(MARK)
            page.call("Input.dispatchMouseEvent", type="mouseMoved", x=mark[0], y=mark[1])
            time.sleep(0.1)
    looked.store.close()


NAMES = "[...document.querySelectorAll('.legend span')].map(one => one.textContent)"


def test_a_map_is_coloured_by_tags_and_by_what_is_measured(browser: Browser, tmp_path: Path) -> None:
    looked = Looked(tmp_path / "panic-store", 4)
    for number, run in enumerate(looked.runs):
        looked.step(run, *(f"{run} {place}" for place in range(number + 2)))
    looked.embed()
    with seen(browser, looked.store.path) as served:
        said = {"target": "run", "experiment": "wall", "run": looked.runs[2], "kind": "tag", "text": "odd"}
        assert served.post("/api/1/stores/0/remarks", said).status == 200
        page = browser.open(f"{served.url}#/0/wall/map?colour=tags")
        page.wait("document.querySelector('canvas')?.dataset.drawn == 14")
        page.wait("document.querySelector('canvas').dataset.colours == 2")
        assert sorted(page.eval(NAMES)) == ["odd", "\u2013"]
        page.eval("location.hash = '#/0/wall/map?colour=steps'")
        page.wait("document.querySelector('canvas')?.dataset.colours == 4")
        assert page.eval(NAMES) == ["4", "7", "10"]
        page.eval("location.hash = '#/0/wall/map?colour=cluster'")
        page.wait("document.querySelector('canvas')?.dataset.colours != 4")
        page.eval("location.hash = '#/0/wall/map?colour=entropy'")  # of 2 to 5 distinct texts: log2
        page.wait(f"{NAMES}.join() === '1,1.66,2.32'")
        assert page.eval("document.querySelector('canvas').dataset.colours") == "4"
    looked.store.close()


def test_shards_are_one_experiment_on_every_page(browser: Browser, tmp_path: Path) -> None:
    """Progress, map and questions are of the runs of both stores; a run is found in the one that has it."""
    shards = [Looked(tmp_path / name, 0) for name in ("one", "two")]
    for number, shard in enumerate(shards):
        for place in range(3):
            run = shard.add(f"prompt {place} of shard {number}")
            shard.step(run, *(f"{number} {run} {step}" for step in range(4)))
        shard.embed()
    failed = shards[1].add("the one that fails")
    failure = NewFailure(run=failed, step=0, kind="output", message="empty")
    writing.commit(shards[1].store, Commit(failures=[failure]))
    with seen(browser, *(shard.store.path for shard in shards)) as served:
        page = browser.open(f"{served.url}#/0+1/wall/status")
        page.wait("document.querySelector('[data-steps]')?.textContent === '48'")
        page.wait("document.querySelector('[data-ended]').textContent === '1'")
        page.wait("document.querySelector('main').innerText.includes('30 embeddings')")
        page.wait(f"document.querySelector('a[href^=\"#/1/wall/run/{failed}\"]')")
        page.eval("location.hash = '#/0+1/wall/map?colour=prompt'")
        page.wait("document.querySelector('canvas')?.dataset.drawn == 24")
        assert page.eval("document.querySelector('canvas').dataset.colours") == "6"
        draw_round(page)
        page.wait("document.querySelector('[data-chosen]')?.dataset.chosen == 6")
        page.eval("document.querySelector('[data-chosen] + a').click()")
        page.wait("document.querySelector('.wall')?.dataset.total == 6")
        page.eval("location.hash = '#/0+1/wall/map?colour=steps'")
        page.wait("document.querySelector('.legend')?.textContent === '048'")
        page.eval("location.hash = '#/0+1/wall/questions/time'")
        page.wait("document.querySelector('[data-answered]')?.innerText.includes('As of')")
        answer = served.get("/api/1/stores/0+1/experiments/wall/map").json
        for order in ("0+1", "1+0"):  # what is merged keeps the uid of one of them
            assert served.get(f"/api/1/stores/{order}/experiments/wall/questions/time").status == 200
    assert answer["conflicts"] == []
    found = {(run["store"], run["number"], run["prompt"]) for run in answer["runs"]}
    known = {
        (str(number), run.id, run.prompt)
        for number, shard in enumerate(shards)
        for run in reading.runs(shard.store, "wall")
    }
    assert found == known
    for shard in shards:
        shard.store.close()
