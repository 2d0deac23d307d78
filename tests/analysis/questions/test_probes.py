"""Probes of what every text names."""

from __future__ import annotations

from panic.analysis import load
from panic.analysis.questions.probes import probe_table
from tests.analysis.conftest import TEXT, corner


def test_a_prompt_that_every_text_names_can_be_read_from_it(bench):
    for prompt, letters in (("start", "ab"), ("another", "cd")):
        for repeat in range(4):
            bench.add(prompt, list(letters) * 3, seed=-1, repeat=repeat, max_length=12)
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    scores, absent = probe_table(load(bench.store, "demo"), *TEXT, num_shuffles=9)
    assert scores["target"].to_list() == ["prompt"]
    assert scores["accuracy"][0] == 1.0
    assert scores["chance"][0] == 0.5
    assert set(absent) == {"network", "seed"}
