"""Every sentence of a report is true at its stated level, of designs whose truth is known."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from panic.analysis.evidence import Evidence
from panic.analysis.questions import named
from panic.errors import UsageError
from panic.store.codec import decode_image, image_digest
from tests.referee import counting
from tests.referee.counting import SUMMARY, Counts, rulings, work_through
from tests.referee.designs import DESIGNS
from tests.referee.keeping import Kept, Ruled, code
from tests.referee.predicates import PREDICATES, factors, motion, predicates
from tests.referee.rulings import Case, Count, Predicate, Ruling
from tests.referee.truth import Truth
from tests.referee.worlds import SIDE, World, evidence_of, image_of, one_coloured

PAGE = Path(__file__).parents[2] / "docs" / "truth.md"
SMALL = [name for name, design in DESIGNS.items() if design.is_small]
BUDGET_S = 900  # of a busy machine; 2 minutes on 2 free cores


def test_every_question_has_a_predicate() -> None:
    assert {SUMMARY, *named()} == set(predicates())


def test_designs_ask_questions_that_there_are() -> None:
    asked = {ask.rstrip("*") for design in DESIGNS.values() for ask in design.asks.split()}
    assert asked == set(PREDICATES), "every question is asked of some design in the short round"


def test_the_page_is_about_the_present_questions_and_designs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sections = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert sections == ["Designs", SUMMARY, *(name for name in named() if name in PREDICATES)]
    for name, design in DESIGNS.items():
        assert f"| {name} | {design.what} |" in text


def test_stores_hold_what_the_designs_say() -> None:
    """Stuck, failed and finished runs, their texts in order, and one image per different text."""
    world = DESIGNS["failing"].make(np.random.default_rng(0))
    with evidence_of(world) as evidence:
        runs = evidence.data.runs
        assert (runs["state"] == "failed").sum() == sum(run.is_failed for run in world.runs) > 0
        assert _texts(evidence) == [run.texts for run in world.runs]
    with evidence_of(DESIGNS["stuck, in one"].make(np.random.default_rng(0))) as evidence:
        stuck = evidence.data.runs.filter(pl.col("period").is_not_null())
        assert stuck.select("entry_step", "period", "num_steps").unique().rows() == [(2, 14, 16)]
        images = evidence.data.outputs.filter(pl.col("modality") == "image")
        assert len(images) == 7


def _texts(evidence: Evidence) -> list[list[str]]:
    told = evidence.data.invocations.filter(pl.col("modality") == "text").join(
        evidence.data.outputs, on="output"
    )
    groups = told.sort("run", "step").group_by("run", maintain_order=True)
    return [rows["text"].to_list() for _, rows in groups]


def test_images_of_one_colour_are_what_they_say() -> None:
    for colour in ((0, 0, 0), (255, 255, 255), (1, 2, 3), (200, 128, 7)):
        for spare in range(3):
            image = decode_image(one_coloured(*colour, spare=spare))
            assert image.size == (SIDE, SIDE)
            assert image.getcolors() == [(SIDE * SIDE, colour)]
    made = image_of("a text")
    assert made.image is not None
    assert image_digest(decode_image(made.image)) == made.digest


def test_a_replicate_is_the_same_at_every_call() -> None:
    make = DESIGNS["few"].make
    one, other = (list(rulings("few", make(np.random.default_rng(3)), ["lag", "effects"])) for _ in range(2))
    assert one == other
    assert {question for question, _ in one} == {"lag", "effects"}


def test_a_count_goes_on_where_it_was_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of a line: what was whole is not ruled again, what was torn is."""
    path, ruled = tmp_path / "counted.jsonl", []
    real = counting._replicate

    def noted(design: str, replicate: int, is_whole: bool) -> Ruled:
        ruled.append((design, replicate))
        return real(design, replicate, is_whole)

    monkeypatch.setattr(counting, "_replicate", noted)
    kept = Kept(path)
    whole = work_through(["few", "copies"], 2, whole_every=0, kept=kept)
    with pytest.raises(UsageError, match="another count"):
        Kept(path)
    del kept
    assert ruled == [("few", 0), ("copies", 0), ("few", 1), ("copies", 1)]
    path.write_bytes(path.read_bytes()[:-20])
    again = work_through(["few", "copies"], 3, whole_every=0, kept=Kept(path))
    assert ruled[4:] == [("copies", 1), ("few", 2), ("copies", 2)]
    assert again.num_replicates == 3
    assert work_through(["few", "copies"], 2, whole_every=0, kept=Kept(path)) == whole
    path.write_bytes(path.read_bytes().replace(code().encode(), b"of yesterday"))
    assert work_through(["few"], 4, whole_every=0, kept=Kept(path)).num_versions == 2


@pytest.mark.parametrize("content", ["a note", "a note\n", '{"code": 1}\n', "# Truth\n\nof it"])
def test_a_file_of_something_else_stays_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.md"
    path.write_text(content)
    with pytest.raises(UsageError, match="holds no rulings"):
        Kept(path)
    assert path.read_text() == content


def test_runs_of_an_arm_are_judged_beside_their_own_kind() -> None:
    """Pictures and distances of an arm were held against the runs of its network without it."""
    world = DESIGNS["a shock that decides"].make(np.random.default_rng(1))
    found = [ruling for _, ruling in rulings("a shock that decides", world, ["grid", "drift"])]
    assert len([ruling for ruling in found if ruling.claim == "the median distance is this"]) == 2
    assert [ruling for ruling in found if ruling.said and not ruling.is_true] == []


def test_counts_are_held_against_a_claim_beyond_luck_only() -> None:
    def counted(said: int, of: int, *, is_true: bool) -> Count:
        found = Count(level=0.05, must_find=True)
        for number in range(of):
            found.add(Ruling(claim="c", said=number < said, is_true=is_true))
        return found

    assert not counted(4, 20, is_true=False).is_wrong_too_often  # p = 0.016
    assert counted(6, 20, is_true=False).is_wrong_too_often  # p = 0.0003
    assert not counted(6, 20, is_true=True).is_blind
    assert counted(2, 20, is_true=True).is_blind
    assert not counted(0, 20, is_true=False).is_blind


def test_predicates_see_what_is_false() -> None:
    """Sentences of designs of which they are not true."""
    walk = _ruled(motion.lag, "a → b stays in its region (D(1) = 0.1)", DESIGNS["walks"].truth)
    assert ("stays in its region", 1, False) in walk
    cycle = _ruled(motion.lag, "a → b and comes back after 6 outputs", DESIGNS["noisy cycle"].truth)
    assert ("comes back after a wrong number", 1, False) in cycle
    assert ("comes back after so many outputs", 0, True) in cycle
    grows = "early on it grows by a factor of 0.82 per model call"
    twins = _ruled(motion.twins, grows, DESIGNS["memory"].truth)
    assert ("it grows by a factor below 1", 1, False) in twins
    told = "Late distances from the start differ between networks: these explain 40%"
    networks = _ruled(factors.networks, told, DESIGNS["no effect"].truth)
    assert networks == [("networks end at different distances", 1, False)]


def _ruled(predicate: Predicate, sentence: str, truth: Truth) -> list[tuple[str, int, bool]]:
    answer = SimpleNamespace(movements={"a → b": None}, pairs=pl.DataFrame({"network": ["a → b"]}))
    case = Case(answer=answer, sentence=sentence, view=None, world=World(runs=[], prompts={}), truth=truth)
    return [(ruling.claim, int(ruling.said), ruling.is_true) for ruling in predicate(case)]


@cache
def short_round() -> Counts:
    return work_through(SMALL, 20, whole_every=0, processes=2).counts


def failures(counts: Counts) -> list[str]:
    """The claims that are false too often or find too little."""
    return [
        f"{question}: {claim} ({design}): false {found.errors} of {found.asked}, "
        f"found {found.hits} of {found.could_hit}"
        for (question, claim, design), found in counts.items()
        if found.is_wrong_too_often or found.is_blind
    ]


@pytest.mark.slow
@pytest.mark.timeout(BUDGET_S)
def test_sentences_are_true_of_the_small_designs() -> None:
    assert failures(short_round()) == []


@pytest.mark.slow
@pytest.mark.timeout(BUDGET_S)
def test_every_predicate_judges_something() -> None:
    """A sentence in other words than its predicate reads is judged by nobody."""
    assert {question for question, *_ in short_round()} == set(PREDICATES)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_sentences_are_true_of_all_designs() -> None:
    assert failures(work_through(list(DESIGNS), 200, processes=2).counts) == []
