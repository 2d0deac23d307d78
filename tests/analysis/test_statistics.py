"""Statistics against textbook answers, null rates, and designs that must be refused."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from panic.analysis.checks import AnalysisError
from panic.analysis.statistics import (
    adjust,
    cliffs_delta,
    cohens_d,
    decompose,
    design_of,
    kruskal,
    label_test,
    mixed_model,
    permanova,
    permutation_test,
)

RNG = np.random.default_rng


def distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None, :], axis=-1)


def test_the_permutation_test_is_f_and_exact_on_a_small_example():
    """Six values in two groups: 20 ways to split them, 2 as extreme as the one seen: p = 0.1."""
    values, groups = [1, 2, 3, 7, 8, 9], ["a"] * 3 + ["b"] * 3
    found = permutation_test(values, groups, num_permutations=4000)
    assert found.statistic == pytest.approx(stats.f_oneway(values[:3], values[3:]).statistic)
    assert found.p_value == pytest.approx(0.1, abs=0.02)
    assert found.effect == pytest.approx(54 / 58)
    assert (found.resampling, found.num_units) == ("between units", 6)
    assert found.baseline == pytest.approx(1 / 5, abs=0.02)  # two groups of six values: 1 / (n - 1)
    assert found.baseline < found.baseline_high <= 54 / 58


def test_null_p_values_are_uniform_although_runs_of_a_prompt_are_alike():
    """10 prompts x 6 runs, prompts differ, groups of prompts do not: about 5 % of p values below 0.05."""
    prompts = np.repeat(np.arange(10), 6)
    groups = prompts // 5
    by_prompt, naive = [], []
    for seed in range(150):
        rng = RNG(seed)
        values = rng.normal(size=10)[prompts] + 0.3 * rng.normal(size=60)
        by_prompt.append(permutation_test(values, groups, units=prompts, num_permutations=99).p_value)
        naive.append(permutation_test(values, groups, num_permutations=99).p_value)
    assert np.mean(np.array(by_prompt) <= 0.05) < 0.11
    assert np.mean(np.array(naive) <= 0.05) > 0.3  # what pretending independence would do


def test_networks_within_prompts_are_permuted_within_them():
    prompts, networks = np.repeat(np.arange(12), 4), np.tile([0, 0, 1, 1], 12)
    rng = RNG(0)
    values = 5 * rng.normal(size=12)[prompts] + 0.8 * networks + 0.3 * rng.normal(size=48)
    within = permutation_test(values, networks, units=prompts, num_permutations=499)
    assert (within.resampling, within.num_units) == ("within units", 12)
    assert within.p_value < 0.01
    assert permutation_test(values, networks, num_permutations=499).p_value > 0.05


def test_permanova_of_points_on_a_line_is_anova():
    values, groups = RNG(1).normal(size=30), np.arange(30) % 3
    values[groups == 1] += 1
    found = permanova(distances(values[:, None]), groups, num_permutations=499)
    anova = stats.f_oneway(*(values[groups == g] for g in range(3)))
    assert found.statistic == pytest.approx(anova.statistic, rel=1e-9)
    assert found.effect == pytest.approx(anova.statistic * 2 / (anova.statistic * 2 + 27), rel=1e-9)
    assert found.p_value < 0.05
    assert permanova(distances(RNG(3).normal(size=(30, 4))), groups, num_permutations=199).p_value > 0.05


def test_groups_of_diagrams_are_told_apart_by_their_labels():
    """Robinson and Turner: circles of two sizes differ, halves of one size do not."""
    from panic.topology import diagram, distance_matrix

    def bars(radius: float, seed: int) -> np.ndarray:
        angle = 2 * np.pi * np.arange(15) / 15
        points = radius * np.c_[np.cos(angle), np.sin(angle)] + 0.02 * RNG(seed).normal(size=(15, 2))
        return diagram(points).bars(1)

    groups = np.arange(12) % 2
    two = distance_matrix([bars(1 + g, seed) for seed, g in enumerate(groups)])
    found = label_test(two, groups, num_permutations=499)
    assert found.p_value < 0.02
    assert 0.8 < found.effect <= 1
    assert found.baseline == pytest.approx(0, abs=1e-12)
    assert 0 < found.baseline_high < found.effect
    one = distance_matrix([bars(1, seed) for seed in range(12)])
    assert label_test(one, groups, num_permutations=199).p_value > 0.05


def test_the_joint_loss_by_hand():
    """Two groups of two: half the distance within each, over 1."""
    matrix = np.array([[0, 2, 9, 9], [2, 0, 9, 9], [9, 9, 0, 4], [9, 9, 4, 0.0]])
    assert label_test(matrix, [0, 0, 1, 1], num_permutations=50).statistic == pytest.approx(3.0)
    assert label_test(matrix, [0, 0, 1, 1], order=2, num_permutations=50).statistic == pytest.approx(10.0)


def test_kruskal_is_scipys_on_means_of_units():
    values, groups = RNG(0).normal(size=24), np.arange(24) % 3
    found = kruskal(values, groups)
    want = stats.kruskal(*(values[groups == g] for g in range(3)))
    assert (found.statistic, found.p_value) == pytest.approx((want.statistic, want.pvalue))
    assert found.effect == pytest.approx(want.statistic / 23)
    assert (found.baseline, found.baseline_high) == pytest.approx((2 / 23, 5.991 / 23), rel=1e-3)
    units = np.repeat(np.arange(12), 2)
    by_unit = kruskal(values, units % 3, units=units)
    means = values.reshape(12, 2).mean(axis=1)
    want = stats.kruskal(*(means[np.arange(12) % 3 == g] for g in range(3)))
    assert by_unit.p_value == pytest.approx(want.pvalue)
    same = kruskal(np.ones(6), [0, 0, 0, 1, 1, 1])
    assert (same.statistic, same.p_value, same.effect) == (0.0, 1.0, 0.0)


def test_a_mixed_model_finds_its_terms():
    prompts = np.repeat([f"p{i}" for i in range(30)], 10)
    network = np.tile(["one", "two"], 150)
    rng = RNG(0)
    drift = 1 + 0.5 * (network == "two") + np.repeat(rng.normal(size=30), 10) + 0.4 * rng.normal(size=300)
    frame = pl.DataFrame({"prompt": prompts, "network": network, "drift": drift})
    found = mixed_model(frame, "drift ~ network", groups="prompt")
    effect, variance = found.row(1, named=True), found.row(2, named=True)
    assert effect["term"] == "network[T.two]"
    assert effect["low"] < 0.5 < effect["high"]
    assert effect["p_value"] < 1e-6
    assert variance["term"] == "Group Var"
    assert variance["estimate"] == pytest.approx(1, abs=0.5)
    assert found["is_converged"].all()
    with pytest.raises(AnalysisError, match="no column"):
        mixed_model(frame, "drift ~ network", groups="promt")
    with pytest.raises(AnalysisError, match="cannot be fitted"):
        mixed_model(frame, "drift ~ nothing", groups="prompt")
    with pytest.raises(AnalysisError, match="one prompt"):
        mixed_model(frame.filter(pl.col("prompt") == "p0"), "drift ~ network", groups="prompt")
    with pytest.raises(AnalysisError, match="several rows each"):
        mixed_model(frame.gather_every(10), "drift ~ network", groups="prompt")
    with pytest.raises(AnalysisError, match="NaN"):
        mixed_model(frame.with_columns(drift=float("nan")), "drift ~ network", groups="prompt")


def test_variance_is_shared_among_factors():
    """Balanced, prompt variance 4, network variance 1, noise 0.25: the shares of a two-way design."""
    prompt, network = np.repeat(np.arange(8), 8), np.tile(np.repeat(np.arange(2), 4), 8)
    effect_p, effect_n = np.linspace(-3, 3, 8), np.array([-1.0, 1.0])
    clean = effect_p[prompt] + effect_n[network]
    found = decompose(clean, {"prompt": prompt, "network": network})
    total = effect_p.var() + 1
    assert found["factor"].to_list() == ["prompt", "network", "all", "rest"]
    assert found["alone"].to_list() == pytest.approx([effect_p.var() / total, 1 / total, 1, 0], abs=1e-12)
    assert found["unique"].to_list()[:2] == pytest.approx(found["alone"].to_list()[:2])
    noise = decompose(RNG(0).normal(size=(64, 500)), {"prompt": prompt, "network": network})
    assert noise["alone"][0] == pytest.approx(noise["by_chance"][0], rel=0.1)
    confounded = decompose(clean, {"prompt": prompt, "again": prompt})
    assert confounded["unique"].to_list()[:2] == pytest.approx([0, 0], abs=1e-12)
    assert decompose(np.ones(4), {"prompt": [0, 0, 1, 1]})["alone"].to_list() == [0, 0, 0]


def test_corrections_by_hand():
    p = [0.01, 0.04, 0.03]
    assert adjust(p).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert adjust(p, "bh").tolist() == pytest.approx([0.03, 0.04, 0.04])
    assert adjust([]).size == 0
    with pytest.raises(AnalysisError, match="holm, bh"):
        adjust(p, "bonferoni")
    with pytest.raises(AnalysisError, match="from 0 to 1"):
        adjust([2.0])


def test_effects_by_hand():
    assert cliffs_delta([1, 2, 3], [0, 2]) == pytest.approx((4 - 1) / 6)
    assert cliffs_delta([5], [1, 2]) == 1.0
    a, b = RNG(0).normal(1, 1, 4000), RNG(1).normal(0, 1, 4000)
    assert cohens_d(a, b) == pytest.approx(1, abs=0.06)
    assert np.isnan(cohens_d([1, 1], [1, 1]))
    assert np.isnan(cohens_d([0.1] * 3, [0.3] * 10)), "means of equal values are off by a rounding"
    assert np.isfinite(cohens_d([1e-9, 2e-9], [3e-9, 4e-9])), "small is not without spread"


@pytest.mark.parametrize("test", [permutation_test, kruskal])
@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        ([1, 2, 3], ["a", "a", "a"], "at least 2 groups"),
        ([1, 2], ["a", "b"], "one unit per group"),
        ([1, np.nan, 3], ["a", "b", "a"], "NaN"),
        ([1, 2, 3], ["a", "b"], "pair up"),
        ([], [], "at least 2 groups"),
    ],
)
def test_designs_that_tell_nothing_are_refused(test, values, groups, message):
    with pytest.raises(AnalysisError, match=message):
        test(values, groups)


def test_more_refusals():
    with pytest.raises(AnalysisError, match="several groups"):
        kruskal([1, 2, 3, 4], [0, 1, 0, 1], units=[0, 0, 1, 1])
    with pytest.raises(AnalysisError, match="square"):
        permanova(np.ones((2, 3)), [0, 1])
    with pytest.raises(AnalysisError, match="symmetric"):
        permanova([[0, 1, 2], [3, 0, 1], [1, 1, 0]], [0, 1, 1])
    with pytest.raises(AnalysisError, match="no factors"):
        decompose([1, 2], {})
    equal = permutation_test([1, 1, 1, 1], [0, 0, 1, 1], num_permutations=19)
    assert (equal.statistic, equal.p_value) == (0.0, 1.0)


def test_a_mixed_model_with_one_row_per_group_is_refused():
    """It gave p = 0 and "converged": of nothing, in 35 of 100 cases."""
    rng = RNG(0)
    frame = pl.DataFrame(
        {"prompt": [f"p{i}" for i in range(12)], "network": ["a", "b"] * 6, "x": rng.normal(size=12)}
    )
    with pytest.raises(AnalysisError, match="2 values of prompt with several rows"):
        mixed_model(frame, "x ~ network", groups="prompt")


@pytest.mark.slow
def test_a_mixed_model_has_its_level_where_networks_do_nothing():
    """Of 60 frames without an effect of the network: p is below 0.05 in 5 % + 2 deviations at most."""
    found = 0
    for seed in range(60):
        rng = RNG(seed)
        x = np.repeat(rng.normal(size=8), 2) + rng.normal(size=16)
        frame = pl.DataFrame({"prompt": np.repeat(list("abcdefgh"), 2), "network": ["a", "b"] * 8, "x": x})
        table = mixed_model(frame, "x ~ network", groups="prompt")
        found += bool(table["is_converged"].all()) and table["p_value"][1] <= 0.05
    assert found <= 6


def test_a_mixed_model_compares_within_groups_by_their_rows_and_between_them_by_their_number():
    """Four prompts under each of four networks, 20 times: their few prompts do not hide what networks do.

    What is one value for a prompt has as many degrees of freedom as prompts leave: of two and two, 2.
    """
    rng = RNG(0)
    prompt, network = np.repeat(np.arange(4), 80), np.tile(np.repeat(np.arange(4), 20), 4)
    x = rng.normal(size=4)[prompt] + 2.0 * (network == 3) + rng.normal(size=320)
    frame = pl.DataFrame(
        {
            "prompt": np.array(list("abcd"))[prompt],
            "network": np.array(list("klmn"))[network],
            "kind": np.array(["old", "old", "new", "new"])[prompt],
            "x": x,
        }
    )
    table = mixed_model(frame, "x ~ network + kind", groups="prompt")
    rows = {row["term"]: row for row in table.iter_rows(named=True)}
    assert rows["network[T.n]"]["p_value"] < 1e-6
    for term, freedom in (("network[T.n]", 320 - 4 - 3), ("kind[T.old]", 2), ("Intercept", 2)):
        row = rows[term]
        wanted = 2 * stats.t.sf(abs(row["estimate"]) / row["standard_error"], freedom)
        assert row["p_value"] == pytest.approx(wanted)


@pytest.mark.slow
def test_a_mixed_model_of_four_prompts_has_its_level_within_and_between_them():
    """Of 60 frames without any effect: each p is below 0.05 in 5 % + 2 deviations at most."""
    within = between = 0
    for seed in range(60):
        rng = RNG(seed)
        x = np.repeat(rng.normal(size=4), 20) + rng.normal(size=80)
        frame = pl.DataFrame(
            {
                "prompt": np.repeat(list("abcd"), 20),
                "network": np.tile(np.repeat(["k", "l"], 10), 4),
                "kind": np.repeat(["new", "old"], 40),
                "x": x,
            }
        )
        table = mixed_model(frame, "x ~ network + kind", groups="prompt")
        rows = {row["term"]: row["p_value"] for row in table.iter_rows(named=True)}
        within += rows["network[T.l]"] <= 0.05
        between += rows["kind[T.old]"] <= 0.05
    assert within <= 6
    assert between <= 6


def test_a_mixed_model_of_nearly_one_row_per_group_is_refused():
    """Of 16 rows in 14 groups p was below 0.05 in 23 of 91 frames without an effect."""
    prompts = ["p0", "p0", "p1", "p1", *(f"s{i}" for i in range(12))]
    frame = pl.DataFrame({"prompt": prompts, "network": ["a", "b"] * 8, "x": RNG(0).normal(size=16)})
    with pytest.raises(AnalysisError, match="16 rows in 14 values of prompt"):
        mixed_model(frame, "x ~ network", groups="prompt")


def test_a_difference_that_is_another_one_in_every_level_is_seen_within_levels():
    """Two groups that swap their places from level to level: R squared 0 over all, 1 within levels."""
    level, group = np.repeat(np.arange(6), 4), np.tile([0, 0, 1, 1], 6)
    place = np.where((level + group) % 2 == 0, 1.0, -1.0)
    square = distances(place[:, None])
    plain = permanova(square, group, units=level, num_permutations=199)
    within = permanova(square, group, units=level, within=level, num_permutations=199)
    assert (plain.effect, within.effect) == pytest.approx((0, 1))
    assert within.p_value == pytest.approx(1 / 200)
    assert plain.p_value > 0.5
    with pytest.raises(AnalysisError, match="nothing repeats"):
        permanova(square[::2, ::2], group[::2], units=level[::2], within=level[::2])


@pytest.mark.parametrize(
    ("groups", "units", "within", "want"),
    [
        ([0, 0, 1, 1], None, None, 2 / 6),  # 6 ways, two of them the same groups by other names
        ([0, 0, 0, 1], None, None, 1 / 4),  # groups of unequal size cannot be renamed
        ([0, 0, 1, 1] * 2, [0] * 4 + [1] * 4, None, 2 / 36),
        ([0, 0, 1, 1] * 2, [0] * 4 + [1] * 4, [0] * 4 + [1] * 4, 4 / 36),  # in each level by itself
        (
            [0, 0, 1, 1, 1, 1],
            [0, 0, 1, 1, 2, 2],
            None,
            1 / 3,
        ),  # three units, of which one is in the first group
    ],
)
def test_the_least_p_of_a_design_by_hand(groups, units, within, want):
    found = design_of(len(groups), groups, units, within)
    assert found.p_least == pytest.approx(want)
    points = RNG(0).normal(size=(len(groups), 2)) + 99 * np.array(groups)[:, None]
    test = permanova(distances(points), groups, units=units, within=within, num_permutations=999)
    assert test.p_value == pytest.approx(want, abs=0.05)
    assert test.p_value >= test.p_least


def test_cohens_d_of_six_values_by_hand():
    """Sums of squares 5 and 0.5 over 4 degrees of freedom; Hedges' correction is 1 - 3 / 15."""
    want = 2 / np.sqrt(5.5 / 4) * 0.8
    assert cohens_d([1, 2, 3, 4], [0, 1]) == pytest.approx(want)
    assert cohens_d([0, 1], [1, 2, 3, 4]) == pytest.approx(-want)


def test_ties_count_for_neither_side():
    assert cliffs_delta([1, 1, 3], [1, 2]) == pytest.approx((2 - 2) / 6)
    assert cliffs_delta([0, 0], [1, 1, 1]) == -1.0
    assert cliffs_delta([1, 2], [1, 2]) == 0.0


@pytest.mark.parametrize("groups", [[0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1, 1, 2]])
def test_what_the_permutation_test_tells_beside_p(groups):
    values = np.array([1.0, 4, 2, 8, 5, 7, 0])
    found = permutation_test(values, groups, num_permutations=200)
    means = np.array([values[np.equal(groups, g)].mean() for g in groups])
    share = ((means - values.mean()) ** 2).sum() / ((values - values.mean()) ** 2).sum()
    assert found.effect == pytest.approx(share)
    assert found.statistic == pytest.approx(share / 2 / ((1 - share) / 4))
    assert (found.num_groups, found.num_values, found.num_units) == (3, 7, 7)
    assert found.effect_name == "eta squared"
    assert found.baseline == pytest.approx(2 / 6, abs=0.06)


def test_groups_that_alone_vary_explain_all():
    found = permutation_test([1, 1, 2, 2], [0, 0, 1, 1], num_permutations=300)
    assert (found.statistic, found.effect) == (np.inf, 1.0)
    assert found.p_value == pytest.approx(1 / 3, abs=0.08)
    assert found.p_value >= found.p_least == pytest.approx(1 / 3)
    same = permutation_test([1, 2, 1, 2], [0, 0, 1, 1], num_permutations=50)
    assert (same.statistic, same.effect, same.p_value) == (0.0, 0.0, 1.0)


def test_permanova_within_levels_by_hand():
    """Points on a line: F of cells inside levels, and its share of the whole sum of squares."""
    level = np.repeat([0, 1], 6)
    group = np.tile([0, 0, 0, 1, 1, 1], 2)
    place = np.array([0.0, 1, 2, 4, 5, 9, 20, 22, 21, 30, 28, 29])

    def squares(cells):
        return sum(((place[cells == c] - place[cells == c].mean()) ** 2).sum() for c in np.unique(cells))

    inside, cells = squares(level), squares(2 * level + group)
    found = permanova(distances(place[:, None]), group, within=level, num_permutations=99)
    assert found.statistic == pytest.approx(((inside - cells) / 2) / (cells / 8))
    assert found.effect == pytest.approx((inside - cells) / squares(np.zeros(12)))
    assert found.baseline < found.effect
    assert found.effect_name == "R squared"


def test_a_group_of_one_adds_nothing_to_the_joint_loss():
    matrix = np.array([[0, 2, 9], [2, 0, 9], [9, 9, 0.0]])
    found = label_test(matrix, [0, 0, 1], num_permutations=400)
    assert found.statistic == pytest.approx(1.0)
    # The pair is one of three: losses 1, 4.5 and 4.5 have the mean 10 / 3.
    assert found.effect == pytest.approx(1 - 1 / (10 / 3), abs=0.05)
    assert found.p_value == pytest.approx(1 / 3, abs=0.07)
    assert (found.num_groups, found.effect_name) == (2, "relative tightness")


def test_shuffles_keep_what_must_stay():
    """Whole units change groups where they are in one each; else labels change within their unit."""
    rng = RNG(0)
    units = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    between = design_of(8, [0, 0, 0, 0, 1, 1, 1, 1], units)
    within = design_of(8, [0, 1, 0, 1, 1, 0, 0, 0], units)
    assert (between.resampling, within.resampling) == ("between units", "within units")
    seen = set()
    for _ in range(60):
        labels = between.shuffled(rng)
        assert (labels[::2] == labels[1::2]).all()
        assert labels.sum() == 4
        seen.add(tuple(labels[::2]))
        mixed = within.shuffled(rng).reshape(4, 2)
        assert mixed.sum(axis=1).tolist() == [1, 1, 1, 0]
        seen.add(tuple(mixed[:3, 0]))
    assert len(seen) == 6 + 8


def test_one_unit_more_than_groups_is_enough():
    assert permutation_test([1, 2, 5], ["a", "a", "b"], num_permutations=20).num_units == 3
    with pytest.raises(AnalysisError, match="3 values, 3 groups and 2 units do not pair up"):
        permutation_test([1, 2, 5], ["a", "a", "b"], units=[1, 2])
    with pytest.raises(AnalysisError, match="2 units in 2 groups"):
        permutation_test([1, 2, 5], ["a", "a", "b"], units=[1, 1, 2])


def test_a_mixed_models_columns_belong_together():
    rng = RNG(2)
    frame = pl.DataFrame({"unit": np.repeat(list("abcdefgh"), 6), "x": np.tile([0.0, 1, 2], 16)})
    frame = frame.with_columns(y=0.2 * pl.col("x") + np.repeat(rng.normal(size=8), 6) + rng.normal(size=48))
    table = mixed_model(frame, "y ~ x", groups="unit")
    assert table["term"].to_list() == ["Intercept", "x", "Group Var"]
    for row in table.head(2).iter_rows(named=True):
        freedom = 7 if row["term"] == "Intercept" else 39
        half = stats.t.ppf(0.975, freedom) * row["standard_error"]
        assert (row["low"], row["high"]) == pytest.approx((row["estimate"] - half, row["estimate"] + half))
        assert row["p_value"] == pytest.approx(
            2 * stats.t.sf(abs(row["estimate"]) / row["standard_error"], freedom)
        )
    assert table.row(2)[2:6] == (None,) * 4
    two = frame.filter(pl.col("unit").is_in(["a", "b"]))
    assert len(mixed_model(two, "y ~ x", groups="unit")) == 3
    once = pl.concat([two.filter(pl.col("unit") == "a"), two.filter(pl.col("unit") == "b").head(1)])
    with pytest.raises(AnalysisError, match="2 values of unit with several rows"):
        mixed_model(once, "y ~ x", groups="unit")


def test_what_factors_explain_by_chance():
    found = decompose([1.0, 2, 3, 4, 6], {"a": [0, 0, 1, 1, 2], "b": [0, 1, 0, 1, 0]})
    assert found["by_chance"].to_list() == pytest.approx([2 / 4, 1 / 4, 0, 0])
    assert found["num_levels"].to_list() == [3, 2, 0, 0]
    assert found["alone"][2] + found["alone"][3] == pytest.approx(1)
    assert found["alone"][0] == pytest.approx(1 - 1 / 14.8)  # within: 0.5 + 0.5 of 14.8
    with pytest.raises(AnalysisError, match="5 values and 2 levels of a"):
        decompose([1.0, 2, 3, 4, 6], {"a": [0, 1]})
    assert decompose(np.ones(4), {"a": [0, 0, 1, 1]})["alone"].to_list() == [0, 0, 0]


def test_p_values_from_0_to_1_are_corrected():
    assert adjust([0.0, 1.0]).tolist() == [0.0, 1.0]
    for wrong in ([-0.1], [1.1], [[0.1]], [0.1, 2.0], [float("nan")]):
        with pytest.raises(AnalysisError, match="from 0 to 1"):
            adjust(wrong)


def test_matrices_that_hold_no_distances_are_refused():
    good = np.array([[0.0, 1, 2], [1, 0, 1], [2, 1, 0]])
    assert permanova(good, [0, 0, 1], num_permutations=9).num_values == 3
    assert permanova(good + 1e-9 * np.triu(good), [0, 0, 1], num_permutations=9).num_values == 3
    for wrong in (-good, good + 1e-3 * np.triu(good)):
        with pytest.raises(AnalysisError, match="symmetric and not negative"):
            permanova(wrong, [0, 0, 1])


def test_corrections_for_many_tests_are_those_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(0)
    for p in (rng.uniform(size=20), rng.choice([0.0, 0.01, 0.02, 1.0], 15), np.array([0.04]), np.array([])):
        for method, theirs in (("holm", "holm"), ("bh", "fdr_bh")):
            expected = multipletests(p, method=theirs)[1] if p.size else p
            np.testing.assert_allclose(adjust(p, method), expected)


@pytest.mark.parametrize("groups", [[0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 0, 1], [1, 0, 0, 0, 1, 1]])
def test_orders_that_are_as_extreme_count_although_their_sums_differ_in_the_last_bits(groups):
    """Of all 20 ways to share six values out, by hand; numbers that are no sums of powers of two."""
    values = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])

    def apart(first):
        return abs(values[list(first)].sum() - values.sum() / 2)

    seen = apart(np.flatnonzero(groups))
    ways = list(combinations(range(6), 3))
    want = np.mean([apart(way) >= seen - 1e-9 for way in ways])
    assert permutation_test(values, groups, num_permutations=4000).p_value == pytest.approx(want, abs=0.025)
    matrix = distances(values[:, None])
    assert permanova(matrix, groups, num_permutations=4000).p_value == pytest.approx(want, abs=0.025)


def test_a_mixed_model_of_as_few_rows_as_may_be():
    """Four rows beyond the first of each group; three are too few."""
    frame = pl.DataFrame(
        {"unit": ["a"] * 3 + ["b"] * 3, "x": [0.0, 1, 2] * 2, "y": [0.0, 1.2, 1.9, 5, 6.1, 7]}
    )
    assert mixed_model(frame, "y ~ x", groups="unit")["term"].to_list() == ["Intercept", "x", "Group Var"]
    with pytest.raises(AnalysisError, match="5 rows in 2 values of unit are too few"):
        mixed_model(frame.head(5), "y ~ x", groups="unit")
    with pytest.raises(AnalysisError, match="NaN or infinity"):
        mixed_model(frame.with_columns(z=pl.Series([0.0, 0, 0, 0, 0, np.inf])), "y ~ x", groups="unit")


def test_tests_draw_999_permutations_or_9999_by_the_seed_0():
    """Far groups of 12 values: no order but theirs and its mirror image parts them so."""
    values = np.r_[np.arange(12.0), 100 + np.arange(12.0)]
    groups = np.repeat([0, 1], 12)
    apart = np.abs(np.subtract.outer(values, values))
    assert permutation_test(values, groups).p_value == 1 / 10_000
    assert permanova(apart, groups).p_value == 1 / 1000
    assert label_test(apart, groups).p_value == 1 / 1000
    mixed = np.random.default_rng(3).permutation(groups)
    for test, of, less in ((permutation_test, values, {}), (permanova, apart, {}), (label_test, apart, {})):
        plain, same, other = (test(of, mixed, **less, **how) for how in ({}, {"seed": 0}, {"seed": 1}))
        assert plain == same
        assert plain != other


def test_a_mixed_model_that_did_not_converge_says_so():
    """Two groups that are alike: the variance between them has no maximum inside of what is allowed."""
    frame = pl.DataFrame({"unit": ["a"] * 4 + ["b"] * 4, "x": [0.0, 1, 2, 3] * 2, "y": [2e5, 2e5, 0, 0] * 2})
    assert mixed_model(frame, "y ~ x", groups="unit")["is_converged"].to_list() == [False] * 3
