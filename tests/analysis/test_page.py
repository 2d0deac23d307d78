"""Pages as files and as texts: written whole or not at all, times as people read them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from panic.analysis.page import _moment, render_page, write_page


def test_a_page_is_written_whole_in_place_of_another(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("a longer page that was there before")
    assert write_page("<p>ä</p>", str(path)) == path
    assert path.read_bytes() == "<p>ä</p>".encode()
    assert os.listdir(tmp_path) == ["page.html"]


@pytest.mark.parametrize("name", ["nowhere/page.html", "taken"])
def test_a_page_that_cannot_be_written_is_told_by_its_own_name(tmp_path, name):
    """And not by that of the file that was to take its place, which is gone."""
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match=name) as caught:
        write_page("text", tmp_path / name)
    assert caught.value.filename == str(tmp_path / name)
    assert caught.value.strerror == os.strerror(caught.value.errno)
    assert [path.name for path in Path(tmp_path).iterdir()] == ["taken"]


def test_times_are_those_of_the_place_and_nonsense_is_no_time(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert _moment(86_399.0) == "1970-01-01 23:59:59 UTC"
    assert [_moment(at) for at in (None, 0.0)] == ["", ""]
    assert [_moment(at) for at in (1e300, float("nan"), float("inf"))] == ["no time"] * 3
    monkeypatch.undo()
    time.tzset()


def test_what_a_template_lacks_is_no_page():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        render_page("trainings.html", specs=[])
