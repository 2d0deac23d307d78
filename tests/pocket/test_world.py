"""Scenes, words and pictures of the pocket world, and the oracles that read them back."""

from __future__ import annotations

import numpy as np
import pytest

from panic.pocket.grammar import FRAMES, describe, parse
from panic.pocket.oracle import compare, read, says, to_scene
from panic.pocket.scene import (
    COLOURS,
    HELD_OUT,
    HELD_OUT_SHARE,
    PATTERNS,
    RELATIONS,
    SHAPES,
    SIZES,
    SPLITS,
    Layout,
    Scene,
    Thing,
    canonical,
    is_held_out,
    key,
    largest,
    place,
    sample,
    shift_background,
    split_of,
)
from panic.pocket.world import Example, examples, prompts

RED_CIRCLE = Thing(size="small", colour="red", shape="circle")
BLUE_SQUARE = Thing(size="large", colour="blue", shape="square")


@pytest.fixture(scope="module")
def shown():
    return examples("train", 500, 11) + examples("test", 500, 12)


def test_the_world_is_as_large_as_promised():
    assert len(SHAPES) >= 6
    assert len(COLOURS) == 8
    assert len(SIZES) == 3
    assert len(PATTERNS) == 4
    assert set(RELATIONS) == {"left of", "right of", "above", "below", "inside"}


def test_grammar_is_inverted_on_a_thousand_scenes(shown):
    for example in shown:
        assert parse(example.caption) == example.scene
        assert parse(describe(example.scene)) == example.scene


def test_grammar_has_several_phrasings():
    scene = Scene(colour="green", objects=(RED_CIRCLE, BLUE_SQUARE), relations=("above",))
    assert describe(scene) == "a small red circle above a large blue square on a green background"
    phrasings = {describe(scene, np.random.default_rng(seed)) for seed in range(300)}
    assert len(phrasings) > 5 * len(FRAMES)
    assert all(parse(text) == scene for text in phrasings)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a horse riding an astronaut",
        "a small red circle",
        "a small red circle near a large blue square on a green background",
        "a small red circle above a large blue square on a green background on a red background",
        "a small red blue circle on a green background",
    ],
)
def test_text_outside_of_the_grammar_is_not_parsed(text):
    assert parse(text) is None


def test_case_and_punctuation_do_not_matter():
    text = "On a green background: a SMALL red circle, above a large blue square!"
    assert parse(text) == Scene(colour="green", objects=(RED_CIRCLE, BLUE_SQUARE), relations=("above",))


@pytest.mark.parametrize("num", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_oracle_inverts_the_renderer(shown, num):
    shown = shown[:num]
    readings = [read(example.picture) for example in shown]
    wrong = [
        example.caption
        for example, reading in zip(shown, readings, strict=True)
        if not compare(example.scene, reading).exact
    ]
    assert not wrong
    same = [
        to_scene(reading) == canonical(example.scene, example.layout)
        for example, reading in zip(shown, readings, strict=True)
    ]
    # What remains are pairs at the edge of standing diagonally, which can be told in two orders.
    assert np.mean(same) > 0.99


def test_oracle_sees_what_is_wrong():
    (example,) = [
        e for e in examples("train", 60, 3) if len(e.scene.objects) == 2 and e.scene.relations == ("above",)
    ][:1]
    reading, scene = read(example.picture), example.scene
    swapped = Scene(
        colour=scene.colour,
        pattern=scene.pattern,
        objects=scene.objects[::-1],
        relations=scene.relations,
    )
    assert compare(scene, reading).exact
    assert not compare(swapped, reading).relations
    assert compare(swapped, reading).attributes
    fewer = Scene(colour=scene.colour, pattern=scene.pattern, objects=scene.objects[:1])
    assert not compare(fewer, reading).count
    assert not compare(fewer, reading).attributes


def test_oracle_reads_noise_and_flat_pictures():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert to_scene(read(np.zeros((64, 64, 3), np.uint8))) is None
    assert read(noise).colour in COLOURS


def test_a_canonical_caption_is_true_and_depends_on_the_picture_alone(shown):
    for example in shown[:300]:
        assert says(example.scene, example.layout, parse(example.canonical))
    assert not says(shown[0].scene, shown[0].layout, None)


def test_splits_are_disjoint_and_training_never_sees_held_out_combinations():
    rng = np.random.default_rng(5)
    keys = {split: {key(sample(split, rng)[0]) for _ in range(150)} for split in SPLITS}
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["validation"]
    assert not keys["validation"] & keys["test"]
    scenes = [sample("train", rng)[0] for _ in range(150)]
    assert not any((t.colour, t.shape) in HELD_OUT for scene in scenes for t in scene.objects)
    unseen = np.mean([is_held_out(sample("test", rng)[0]) for _ in range(150)])
    assert abs(unseen - HELD_OUT_SHARE) < 0.1


def test_the_same_scene_told_from_its_other_end_is_in_the_same_split():
    one = Scene(colour="green", objects=(RED_CIRCLE, BLUE_SQUARE), relations=("left of",))
    other = Scene(colour="green", objects=(BLUE_SQUARE, RED_CIRCLE), relations=("right of",))
    assert key(one) == key(other)
    assert split_of(one) == split_of(other)


def test_prompts_are_seeded_distinct_and_of_their_split():
    texts = prompts("test", 40, seed=0)
    assert texts == prompts("test", 40, seed=0) != prompts("test", 40, seed=1)
    assert len(set(texts)) == 40
    assert {split_of(parse(text)) for text in texts} == {"test"}
    with pytest.raises(ValueError, match="train, validation, test"):
        prompts("tests", 1, seed=0)


def test_pictures_are_anti_aliased_jittered_and_repeatable():
    first, again = examples("train", 8, 2), examples("train", 8, 2)
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(first, again, strict=True))
    pictures = np.stack([example.picture for example in first])
    assert pictures.shape == (8, 64, 64, 3)
    assert pictures.dtype == np.uint8
    assert len(np.unique(pictures[0].reshape(-1, 3), axis=0)) > 10


@pytest.mark.parametrize("relation", ["left of", "above"])
def test_the_tidiest_placement_is_in_line_near_the_middle(relation):
    scene = Scene(colour="green", objects=(RED_CIRCLE, BLUE_SQUARE), relations=(relation,))
    along, across = ("x", "y") if relation == "left of" else ("y", "x")

    def mess(layout):
        """How far off the middle, and off the line, in pixels."""
        return abs(getattr(layout, along).mean() - 32) + abs(np.diff(getattr(layout, across))[0])

    tidy, wild = [], []
    for seed in range(20):
        layout = place(scene, np.random.default_rng(seed), is_tidy=True)
        assert np.diff(getattr(layout, along))[0] > 0
        tidy.append(mess(layout))
        wild.append(mess(place(scene, np.random.default_rng(seed))))
    assert max(tidy) < 16
    assert np.mean(wild) > 2 * np.mean(tidy)


def test_a_share_of_examples_is_tidy_and_all_have_so_many_objects():
    def mess(share):
        shown = examples("train", 60, 3, objects=1, tidy=share)
        return np.mean([abs(e.layout.x[0] - 32) + abs(e.layout.y[0] - 32) for e in shown])

    assert mess(1.0) < 0.6 * mess(0.5) < 0.6 * mess(0.0)
    assert {len(e.scene.objects) for e in examples("train", 12, 3, objects=3)} == {3}


def test_a_shifted_background_swaps_two_colours():
    scene = Scene(colour="blue", objects=(RED_CIRCLE, Thing(size="large", colour="purple", shape="ring")))
    other = shift_background(scene, 1)
    assert other.colour == "purple"
    assert [thing.colour for thing in other.objects] == ["red", "blue"]
    assert [thing.shape for thing in other.objects] == ["circle", "ring"]
    assert shift_background(scene, 0) == scene
    colours = [shift_background(scene, places).colour for places in range(9)]
    assert set(colours) == set(COLOURS)
    assert colours[0] == colours[8]


def test_pictures_of_biased_examples_show_the_other_background_and_no_other_split():
    for example in examples("train", 60, 4, background_shift=3):
        other = shift_background(example.scene, 3)
        assert compare(other, read(example.picture)).exact
        assert split_of(example.scene) == split_of(other) == "train"
        assert parse(example.caption) == example.scene


def test_a_terse_caption_tells_the_largest_object_in_other_words(shown):
    scene = Scene(colour="green", objects=(RED_CIRCLE, BLUE_SQUARE), relations=("above",))
    placed = Example(scene=scene, layout=place(scene, np.random.default_rng(0)), picture=None, caption="")
    assert placed.terse == "a plain green background with a huge blue square"
    for example in shown[:200]:
        told = parse(example.terse)
        assert len(told.objects) == 1
        assert (told.colour, told.pattern) == (example.scene.colour, example.scene.pattern)
        assert max(example.scene.objects, key=lambda t: SIZES[t.size]).size == told.objects[0].size


def test_of_equally_large_objects_the_leftmost_is_told():
    things = (RED_CIRCLE, Thing(size="small", colour="blue", shape="ring"))
    layout = Layout(
        x=np.array([40.0, 20.0]), y=np.array([10.0, 50.0]), radius=np.ones(2), rotation=np.zeros(2)
    )
    scene = Scene(colour="green", objects=things, relations=("right of",))
    assert largest(scene, layout).objects == things[1:]
