"""Factors of designs on paper: which there are, what may be shuffled, what is held out together."""

from __future__ import annotations

import polars as pl
import pytest

from panic.analysis import factors, load
from panic.analysis.checks import AnalysisError
from panic.analysis.grouping import ARROW
from tests.analysis.conftest import Bench

PLAIN = {"arm": pl.lit("baseline"), "repeat": 0, "tags": pl.lit(""), "group": pl.lit(None, pl.String)}
"""Columns of runs that nothing steps into, of prompts without labels."""


def runs_of(networks: list[str], prompts: str | None = None, seeds: list[int] | None = None) -> pl.DataFrame:
    """Runs of these networks (a letter for each model), prompts and seeds, as a store's data has them."""
    size = len(networks)
    return pl.DataFrame(
        {
            "run": range(1, size + 1),
            "prompt": list(prompts or "p" * size),
            "network": [ARROW.join(network) for network in networks],
            "seed": seeds or [-1] * size,
        }
    ).with_columns(plain_network="network", num_models=pl.Series(map(len, networks)), **PLAIN)


@pytest.mark.parametrize(
    ("networks", "models"),
    [
        (["ab", "ac"], []),  # the second place is the network by another name
        (["ac", "ad", "bc", "bd"], ["model at place 1", "model at place 2"]),
        (["ab", "cd"], []),  # networks share nothing
        (["ab", "a"], []),  # of different lengths
        (["a", "b"], []),
        (["a", "b", "b"], []),
        (["ab", "ab"], []),
        (["ab"], []),
        (["ab", "ac", "bd"], ["model at place 1", "model at place 2"]),
    ],
)
def test_places_are_factors_where_networks_share_models(networks: list[str], models: list[str]) -> None:
    found = factors.with_factors(runs_of(networks))
    assert [name for name in found.columns if name.startswith("model ")] == models


def test_seeds_are_words() -> None:
    assert factors.with_factors(runs_of(["a"] * 3, seeds=[-1, 0, 42]))["seed"].to_list() == [
        "fresh",
        "0",
        "42",
    ]


def test_a_place_at_which_every_network_has_its_own_model_is_the_network() -> None:
    found = factors.with_factors(runs_of(["ac", "ad", "be"], "pqr", [1, 1, 1]))
    assert found.columns == ["run", "prompt", "network", "seed", "model at place 1", "model at place 2"]
    assert factors.factors_of(found) == ["prompt", "network", "model at place 1"]
    assert factors.factors_of(factors.with_factors(runs_of(["a", "a"]))) == []
    assert factors.factors_of(factors.with_factors(runs_of(["a", "a"], seeds=[1, 2]))) == ["seed"]


def test_runs_of_a_model_that_is_not_repeatable_are_no_copies(bench: Bench) -> None:
    """With one seed they end with the same text; the same model may go on otherwise from there."""
    for prompt in ("a start", "another"):
        bench.add(prompt, [f"from {prompt}", "same"], seed=42, max_length=4)
    for is_repeatable, count in ((1, 1), (0, 2)):
        bench.store.db.execute(f"UPDATE model SET is_repeatable = {is_repeatable} WHERE name = 'tell'")
        found = factors.trajectories(load(bench.store, "demo"))
        assert found["trajectory"].n_unique() == count


def test_copies_count_once_with_all_their_prompts() -> None:
    found = factors.with_factors(runs_of(["a"] * 6, "srqpsp", [7] * 6))
    runs = found.with_columns(trajectory=pl.Series([2, 1, 1, 1, 3, 3]))
    assert factors.collapsed(runs, "prompt").equals(runs)
    kept = factors.collapsed(runs, "network")
    assert kept.columns == runs.columns
    assert kept["trajectory"].to_list() == [2, 1, 3]
    assert kept["prompt"].to_list() == ["s", "p\nq\nr", "p\ns"]
    taken = {tuple(factors.collapsed(runs, "network", seed=seed)["run"]) for seed in range(60)}
    assert taken == {(1, second, third) for second in (2, 3, 4) for third in (5, 6)}
    assert factors.collapsed(runs, "network", seed=3).equals(factors.collapsed(runs, "network", seed=3))
    many = found.select(pl.all().repeat_by(20).explode()).with_columns(
        run=pl.int_range(120), trajectory=pl.int_range(120) % 9
    )
    plain, same, other = (factors.collapsed(many, "seed", **how) for how in ({}, {"seed": 0}, {"seed": 1}))
    assert plain.equals(same)
    assert plain["run"].to_list() != other["run"].to_list()


def test_a_factor_that_varies_with_another_one_only_is_confounded() -> None:
    runs = factors.with_factors(runs_of(["a", "a", "b", "b"], "ppqq", [1, 1, 2, 2]))
    with pytest.raises(AnalysisError, match=r"the seed is confounded: .* agree in network, prompt"):
        factors.exchangeable(runs, "seed")
    with pytest.raises(AnalysisError, match=r"the prompt is confounded: .* agree in network, seed"):
        factors.exchangeable(runs, "prompt")
    assert factors.exchangeable(runs, "network") == list("ppqq")  # whole prompts move
    mixed = factors.with_factors(runs_of(["a", "a", "b", "b"], "ppqp", [1, 1, 2, 2]))
    with pytest.raises(AnalysisError, match="the network is confounded"):
        factors.exchangeable(mixed, "network")


def test_labels_move_among_runs_that_agree_in_what_varies() -> None:
    runs = factors.with_factors(runs_of(["a", "b", "a", "b"], "ppqq", [1, 1, 2, 2]))
    assert factors.exchangeable(runs, "network") == ["p\n1", "p\n1", "q\n2", "q\n2"]
    alone = factors.with_factors(runs_of(["a", "b"] * 2))
    assert factors.exchangeable(alone, "network") is None


def sets(networks: str, units: list[str] | None) -> list[list[int]]:
    """The sets of places that `matched` makes."""
    found = factors.matched(factors.with_factors(runs_of(list(networks))), "network", units)
    return sorted([place for place, one in enumerate(found) if one == number] for number in set(found))


def test_sets_have_every_label_of_a_unit_once() -> None:
    assert sets("abab", list("ppqq")) == [[0, 1], [2, 3]]
    assert sets("aabb", None) == [[0, 2], [1, 3]]
    assert sets("aabab", list("ppppq")) == [[0, 2], [1], [3], [4]]
    assert sets("aaab", list("pppp")) == [[0, 3], [1], [2]]


def test_where_whole_prompts_move_the_first_of_each_label_belong_together() -> None:
    """Prompts p and q have network a, r and s have b: p goes with r, q with s, with all of their runs."""
    assert sets("aaaabbb", list("ppqqrrs")) == [[0, 1, 4, 5], [2, 3, 6]]


def test_arms_that_are_copies_start_by_start_are_one_start() -> None:
    """Of six starts the first three are copies, arm by arm; labels of arms move within a start."""
    of_arms = {"arm": pl.Series(["baseline", "shock"] * 4), "repeat": 0}
    runs = factors.with_factors(runs_of(["a"] * 8, "ppqqrrss", [7] * 8).with_columns(**of_arms))
    known = runs.with_columns(trajectory=pl.Series([1, 2, 1, 2, 1, 2, 1, 3]))
    assert factors.factors_of(runs) == ["prompt", "arm"]
    kept = factors.collapsed(known, "arm")
    assert kept["run"].to_list() == [1, 2, 7, 8]
    assert factors.exchangeable(kept, "arm") == list("ppss")
    assert factors.exchangeable(runs, "prompt") == ["baseline", "shock"] * 4


def test_groups_and_tags_move_with_whole_prompts() -> None:
    labels = {"group": pl.Series(list("xxyy")), "tags": pl.Series(["red, old", "red", "", "old"])}
    runs = factors.with_factors(runs_of(["a"] * 4, "pqrs").with_columns(**labels))
    assert factors.factors_of(runs) == ["prompt", "group", "tag old", "tag red"]
    assert runs["tag old"].to_list() == ["yes", "no", "no", "yes"]
    assert factors.exchangeable(runs, "group") == list("pqrs")
    own = runs_of(["a"] * 4, "pqrs").with_columns(group=pl.Series(list("wxyz")))
    assert "group" not in factors.with_factors(own).columns, "a group for each prompt says nothing new"
