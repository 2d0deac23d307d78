"""Texts of any length are cut before they are split into words."""

from __future__ import annotations

import textwrap
import tracemalloc

import pytest

from panic.analysis.shortening import shorten


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("", ""),
        ("a  red\n circle ", "a red circle"),
        ("a red circle!", "a red circl…"),
        ("0123456789ab", "0123456789ab"),
        ("0123456789abc", "0123456789a…"),
        ("a red cup  of", "a red cup of"),
        ("a red big  one", "a red big o…"),
        ("a reddish    on it", "a reddish o…"),
        ("ein rotes,,  Ding", "ein rotes,,…"),
        ("赤い円" * 5, "赤い円赤い円赤い円赤い…"),
    ],
)
def test_a_text_is_on_one_line_and_not_longer(text, short):
    """A text without spaces, such as a Japanese one, was cut down to its ellipsis."""
    assert shorten(text, 12) == short
    assert len(short) <= 12


def test_of_a_text_of_a_megabyte_no_words_are_made():
    text = "a small red circle " * 50_000
    tracemalloc.start()
    assert shorten(text, 18) == "a small red circl…"
    (_, own), _ = tracemalloc.get_traced_memory(), tracemalloc.reset_peak()
    textwrap.shorten(text, 18)
    (_, others) = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert own < 10_000 < len(text) < others


def test_sixty_characters_are_kept_unless_told_otherwise():
    assert shorten("x" * 60) == "x" * 60
    assert shorten("x" * 61) == "x" * 59 + "…"
