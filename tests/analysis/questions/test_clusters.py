"""What is said of clusters: of which runs they are, and what is visited where there are none."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from panic.analysis.questions import clusters
from tests.analysis.conftest import TEXT, corner
from tests.analysis.looks import assert_shown
from tests.analysis.test_charts import rows_of


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


def test_a_long_cycle_is_seen_in_the_timeline(bench):
    """Every third of 300 texts was drawn, and a run that goes round in three as one that stays."""
    for repeat in range(clusters.MAX_RUNS + 1):
        bench.walk("abc" * 100, seed=-1, repeat=repeat)
    bench.embed({letter: corner(i) for i, letter in enumerate("abc")})
    answer = clusters.table(bench.evidence, TEXT)
    made = assert_shown(clusters, answer)
    [rows] = rows_of(made)
    one = rows.filter(pl.col("run") == rows["run"][0]).sort("step")
    assert (one["step"][0], one["step"][-1], len(one)) == (1, 599, 100)
    assert one["end"][:-1].equals(one["step"][1:], check_dtypes=False, check_names=False)
    shown = one["cluster"].value_counts()["count"]
    assert (len(shown), shown.min() > 15) == (3, True)
    said = " ".join(made.to_dict()["title"]["subtitle"])
    assert "40 of 41 runs are drawn. 8,000 texts of these runs are left out, ever others in a cycle" in said


def test_a_cell_reaches_to_the_next_output_of_its_run():
    """Two networks: one tells at every model call, one at every second."""
    frame = pl.DataFrame({"run": [1, 1, 1, 2, 2], "step": [0, 1, 2, 1, 3], "label": 0})
    [rows] = rows_of(clusters.cluster_timeline(frame, names={0: "a circle"}))
    assert rows.select("run", "step", "end").rows() == [(1, 0, 1), (1, 1, 2), (1, 2, 3), (2, 1, 3), (2, 3, 5)]
    assert rows["cluster"].unique().to_list() == ["0: a circle"]


def test_steps_of_which_nothing_is_known_are_gaps(bench):
    """A cell reached over outputs without a vector, and a run seemed to stay where it was not seen to be."""
    for repeat, texts in enumerate(("aabbaabb", "aaxxxabb")):
        bench.walk(texts, seed=-1, repeat=repeat)
    bench.embed({"a": corner(0), "b": corner(1)})
    answer = clusters.table(bench.evidence, TEXT)
    made = clusters.chart(answer)
    [rows] = rows_of(made)
    whole, torn = (rows.filter(pl.col("run") == run).sort("step") for run in (1, 2))
    assert whole.select("step", "end").rows() == [(step, step + 2) for step in range(1, 16, 2)]
    assert torn.select("step", "end").rows() == [(1, 3), (3, 5), (11, 13), (13, 15), (15, 17)]
    assert made.to_dict()["title"]["subtitle"][-1].endswith("Gaps: 3 texts without a vector.")


@pytest.mark.parametrize(
    ("arms", "networks", "said"),
    [
        (["baseline", "shock"], 1, ", 1 by one arm only"),
        (["baseline"], 2, ", 1 by one network only"),
        (["baseline", "shock"], 2, ", 0 by one network and arm only"),
    ],
)
def test_whose_clusters_are_is_told_of_what_runs_are_grouped_by(bench, arms, networks, said):
    groups = [(arm, network) for arm in arms for network in (("draw", "tell"), ("tell",))[:networks]]
    for number, (arm, network) in enumerate(groups):
        letters = "abcdabcd" if number in (0, 3) else "abcabcab"
        for repeat in range(6):
            bench.add("start", list(letters), network=network, arm=arm, seed=-1, repeat=repeat, max_length=16)
    bench.embed({letter: corner(i) for i, letter in enumerate("abcd")})
    assert said in clusters.sentence(clusters.table(bench.evidence, TEXT))


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


@pytest.mark.parametrize(("length", "left_out"), [(4000, 0), (4001, 1)])
def test_4000_outputs_are_drawn(bench, length, left_out):
    bench.add("start", (list("ab") * 2001)[:length], network=("tell",), seed=-1, max_length=length)
    bench.embed({"a": corner(0), "b": corner(1)})
    answer = clusters.table(bench.evidence, TEXT)
    assert (len(answer.shown), answer.num_left_out) == (length - left_out, left_out)
