"""Settings of diagrams and of what is taken of them: the digests that stores know, and what is refused."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from pydantic import ValidationError

from panic.config.diagrams import DiagramSettings, Distance, Vectorisation, diagram_problems

LANDSCAPE = {"kind": "landscape", "range": [0, 1]}


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({}, '{"generators":false,"max_dimension":1,"metric":"euclidean","modality":"text"}'),
        ({"window": {"dimension": 3}, "landmarks": 9, "threshold": 1, "metric": "cosine"},
         '{"generators":false,"landmarks":9,"max_dimension":1,"metric":"cosine","modality":"text",'
         '"threshold":1.0,"window":{"delay":1,"dimension":3}}'),
    ],
)  # fmt: skip
def test_digests_stay_the_same_over_versions(settings: dict[str, Any], key: str) -> None:
    """Another one would compute all diagrams of a store again."""
    assert DiagramSettings.model_validate(settings).digest == hashlib.sha256(key.encode()).hexdigest()


def told(**raw: Any) -> list[tuple[Any, str]]:
    return [(one.path, one.message) for one in diagram_problems(raw)]


def test_what_is_taken_of_diagrams_needs_some() -> None:
    message = "are taken of diagrams, and there are none"
    for none in (None, []):
        assert told(diagrams=none, vectorisations=["entropy"], distances=["bottleneck"]) == [
            (("vectorisations",), f"vectorisations {message}"),
            (("distances",), f"distances {message}"),
        ]
    assert told(vectorisations=["entropy"]) == [(("vectorisations",), f"vectorisations {message}")]
    assert told(diagrams={}, vectorisations=["entropy"], distances=["bottleneck"]) == []
    assert told(vectorisations=[], distances="entropy") == []


@pytest.mark.parametrize(
    ("entries", "places"),
    [
        (["entropy", {"kind": "entropy"}], [1]),
        ([LANDSCAPE, LANDSCAPE | {"resolution": 100}],
         [1]),
        ([LANDSCAPE, LANDSCAPE | {"resolution": 99}],
         []),
        ([LANDSCAPE | {"num_landscapes": 5}, LANDSCAPE],
         [1]),
        ([{"kind": "silhouette", "range": [0, 1]}, {"kind": "silhouette", "range": [0, 1], "power": 1}], [1]),
        ([{"kind": "betti_curve", "range": [0, 1]}, {"kind": "betti_curve", "range": [0, 2]}], []),
        (["entropy", 5, None, "entropy", "entropy"], [3, 4]),
        ([{"kind": "entropy", "range": None}, "entropy"], [1]),
        (["x", "x"], [1]),
    ],
)  # fmt: skip
def test_the_same_vectorisation_twice_is_told_whatever_is_written_out(
    entries: list[Any], places: list[int]
) -> None:
    found = diagram_problems({"diagrams": {}, "vectorisations": entries})
    assert [one.path for one in found] == [("vectorisations", place) for place in places]
    first = next((place for place, entry in enumerate(entries) if place not in places), 0)
    assert {one.message for one in found} <= {f"the same vectorisation as vectorisations.{first}"}
    assert {one.first for one in found} <= {("vectorisations", first)}


def test_the_same_distance_twice_is_told() -> None:
    one, other = {"kind": "wasserstein"}, {"kind": "wasserstein", "order": 1, "internal_p": 2}
    assert told(diagrams={}, distances=[one, "bottleneck", other]) == [
        (("distances", 2), "the same distance as distances.0")
    ]
    assert told(diagrams={}, distances=[one, {**other, "internal_p": "inf"}]) == []


def test_settings_of_another_kind_and_settings_that_lack_are_told() -> None:
    entries = [
        {"kind": "entropy", "range": [0, 1], "rang": 1},
        {"kind": "image", "resolution": 3},
        {"kind": 3},
    ]
    assert told(diagrams={}, vectorisations=entries, distances=[{"kind": "bottleneck", "order": 1}]) == [
        (("vectorisations", 0, "range"), "entropy has no setting 'range'"),
        (("vectorisations", 1), "the key 'range' is missing in vectorisations.1"),
        (("vectorisations", 1), "the key 'bandwidth' is missing in vectorisations.1"),
        (("distances", 0, "order"), "bottleneck has no setting 'order'"),
    ]
    [of_another, *lacking, _] = diagram_problems(
        {"diagrams": {}, "vectorisations": entries, "distances": [{"kind": "bottleneck", "order": 1}]}
    )
    assert (of_another.on_key, of_another.allowed) == (True, ())
    assert all(one.hint.startswith("for example ") for one in lacking)


def test_the_same_diagrams_twice_and_landmarks_under_cosine_are_told() -> None:
    cosine = {"metric": "cosine", "landmarks": 3}
    assert told(diagrams=[{}, 5, {"max_dimension": 1}, {"metric": 3}, {"metric": 3}, cosine]) == [
        (("diagrams", 2), "the same settings as diagrams.0"),
        (("diagrams", 5, "landmarks"),
         "landmarks need a metric that keeps the triangle inequality, and cosine does not"),
    ]  # fmt: skip
    [alone] = diagram_problems({"diagrams": cosine})
    assert (alone.path, alone.on_key) == (("diagrams", "landmarks"), True)
    assert told(diagrams={"landmarks": 3}) == told(diagrams={"metric": "cosine"}) == []
    assert told(diagrams={"metric": "cosine", "landmarks": None}) == []


@pytest.mark.parametrize("given", [[0], [0, 0], [1, 0], [0, 1, 2], []])
def test_a_range_is_two_rising_numbers(given: list[float]) -> None:
    assert Vectorisation(kind="betti_curve", range=[0, 1e-9]).range == [0, 1e-9]
    with pytest.raises(ValidationError, match="must be two rising numbers"):
        Vectorisation(kind="betti_curve", range=given)


@pytest.mark.parametrize("given", [0.99, True, float("inf"), float("nan"), "2", "Inf"])
def test_the_norm_of_the_plane_is_a_number_from_1_on(given: Any) -> None:
    assert Distance(kind="wasserstein", internal_p=1).internal_p == 1.0
    assert Distance(kind="wasserstein", internal_p="inf").internal_p == "inf"
    with pytest.raises(ValidationError, match="must be a number from 1 on"):
        Distance(kind="wasserstein", internal_p=given)
