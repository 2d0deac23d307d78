"""What is said of clusters: of which runs they are, and what is visited where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from panic.analysis.questions import clusters
from tests.analysis.conftest import TEXT, corner


def test_a_text_that_fills_most_steps_is_named_where_there_is_no_cluster(bench):
    bench.walk("a" * 34 + "bcdefg", seed=-1)
    bench.embed({name: np.eye(8)[i] for i, name in enumerate("abcdefg")})
    said = clusters.sentence(clusters.table(bench.evidence, TEXT))
    assert "The one visited most is 85% of them: a." in said


def test_what_is_scattered_around_one_text_is_no_cluster(bench):
    """85 % of the steps are one text, the rest anywhere: HDBSCAN parts them, and both were clusters."""
    rng = np.random.default_rng(0)
    vectors = {"same": np.eye(64)[0]}
    for repeat in range(6):
        texts = [f"{repeat} {step}" if rng.random() > 0.85 else "same" for step in range(30)]
        bench.add("start", texts, seed=-1, repeat=repeat, max_length=60)
        vectors |= {text: rng.normal(size=64) for text in texts if text != "same"}
    bench.embed(vectors)
    answer = clusters.table(bench.evidence, TEXT)
    assert answer.num_clusters == 1
    assert answer.most[0] == "same"
    assert answer.outside == pytest.approx(1 - answer.most[1], abs=0.03)
    said = clusters.sentence(answer)
    assert "are one and the same: same. Beside it, clusters of the other" in said
    assert "in one cluster" not in said, "their number may be chance"


def test_clusters_that_are_single_runs_are_told_and_have_no_agreement(bench):
    for repeat, letters in enumerate(("abcdef", "ghijkl", "mnopqr", "stuvwx")):
        bench.walk(letters, seed=-1, repeat=repeat)
    rng = np.random.default_rng(0)
    names = "abcdefghijklmnopqrstuvwx"
    bench.embed({name: corner(i // 6) + 0.01 * rng.normal(size=4) for i, name in enumerate(names)})
    answer = clusters.table(bench.evidence, TEXT)
    assert (answer.num_clusters, answer.shared, answer.agreement) == (4, 0, None)
    assert "No cluster is visited by more than one run" in clusters.sentence(answer)


def test_steps_are_counted_with_those_that_stuck_runs_were_spared(bench):
    bench.stuck(bench.add("start", list("abab"), max_length=40), 0, 4)
    bench.walk("ababababab", seed=-1)
    bench.walk("babababaab", seed=-1, repeat=1)
    bench.embed({"a": corner(0), "b": corner(1)})
    said = clusters.sentence(clusters.table(bench.evidence, TEXT))
    assert said == (
        "Of 40 texts of 3 runs, 16 of them known from the cycles of stuck runs, 100% lie in 2 clusters. "
        "The text visited most is 50% of all: b. 2 of 2 are visited by more than "
        "one run. Clusters found without a fifth of the runs agree with these by 1.00."
    )
