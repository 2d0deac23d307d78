"""Tests of the quality of stored images along runs, of squares whose contrast is known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from panic.analysis.checks import AnalysisError
from panic.analysis.questions import image_quality
from panic.store import Commit, NewFailure, NewInvocation, NewOutput, NewRun, writing
from panic.store.codec import encode_image, image_digest, text_digest
from tests.analysis.looks import assert_shown


def square(contrast: float, number: int) -> Image.Image:
    """A square of two halves, `contrast` apart, with one pixel that tells it from others."""
    pixels = np.full((16, 16, 3), 100, dtype=np.uint8)
    pixels[:, 8:] = 100 + round(155 * contrast)
    pixels[0, 0] = number % 256, number // 256, 7
    return Image.fromarray(pixels)


def add_run(
    bench, number: int, contrasts: list[float], *, seed: int = -1, network: tuple[str, ...] = ("draw",)
) -> int:
    """A run of images with these contrasts."""
    prompt = f"start {number}"
    length = len(contrasts)
    new = NewRun(network=network, prompt=prompt, seed=seed, repeat=0, max_length=length)
    (row,) = writing.add_runs(bench.store, bench.experiment, [new])
    batch = bench._batch("draw", length)
    outputs, steps, before = [], [], text_digest(prompt)
    for step, contrast in enumerate(contrasts):
        image = square(contrast, 100 * number + step)
        made = NewOutput(
            digest=image_digest(image), modality="image", width=16, height=16, image=encode_image(image)
        )
        steps.append(NewInvocation(row, step, before, made.digest, abs(seed), batch.id))
        outputs.append(made)
        before = made.digest
    writing.commit(bench.store, Commit(batches=[batch], outputs=outputs, invocations=steps))
    return row


def test_images_that_fade(bench):
    for number in range(8):
        add_run(bench, number, [1.0, 1.0, 0.6, 0.5, 0.1, 0.1])
    answer = image_quality.table(bench.evidence)
    assert (answer.num_read, answer.num_images, answer.num_missing) == (48, 48, 0)
    assert len(answer.values) == 48
    row = answer.tests.filter(measure="contrast").row(0, named=True)
    assert row["early"] == pytest.approx(155 / 255 / 2, abs=0.01)
    assert row["late"] == pytest.approx(16 / 255 / 2, abs=0.01)
    assert (row["falls"], row["num_runs"]) == (8, 8)
    assert row["p_value"] == pytest.approx(2 / 2**8)
    said = image_quality.sentence(answer)
    assert said.startswith(
        "Measured: 48 different images. Means over runs, of the first and of the last third: draw: "
    )
    assert "RMS contrast falls from 0.30" in said
    charts = assert_shown(image_quality, answer)
    assert list(charts) == list(image_quality.MEASURES.values())


def test_images_of_failed_runs_are_left_out(bench):
    rows = [add_run(bench, number, [1.0, 1.0, 0.6, 0.5, 0.1, 0.1]) for number in range(3)]
    failures = [NewFailure(run=row, step=6, kind="output", message="the image was black") for row in rows]
    writing.commit(bench.store, Commit(failures=failures[:1]))
    answer = image_quality.table(bench.evidence)
    assert set(answer.values["run"]) == set(rows[1:])
    assert answer.num_images == 12
    writing.commit(bench.store, Commit(failures=failures[1:]))
    with pytest.raises(AnalysisError, match="all runs that have images failed"):
        image_quality.table(bench.evidence)


def test_images_that_stay_are_not_said_to_change(bench):
    rng = np.random.default_rng(0)
    for number in range(8):
        add_run(bench, number, list(rng.uniform(0.2, 1.0, 6)))
    said = image_quality.sentence(image_quality.table(bench.evidence))
    assert "RMS contrast goes from" in said
    assert "falls" not in said
    assert "rises" not in said


def test_of_many_images_some_are_read_and_that_is_said(bench):
    for number in range(6):
        add_run(bench, number, [0.5] * 30)
    answer = image_quality.table(bench.evidence)
    assert answer.num_read == 6 * image_quality.MAX_STEPS
    of_run = answer.values.filter(run=answer.values["run"][0])
    assert of_run["stretch"].to_list() == [1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 26, 28]
    assert (of_run["step"] - of_run["stretch"]).abs().max() <= 2
    assert "Measured: 72 of 180 different images" in image_quality.sentence(answer)


def test_a_cycle_in_step_in_all_runs_is_no_change(bench):
    """Of 8 runs that go round in 7 in step, images at equal distances were said to lose contrast."""
    for number in range(8):
        add_run(bench, number, [0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0] * 9)
    answer = image_quality.table(bench.evidence)
    assert answer.tests.filter(measure="contrast")["p_value"][0] > 0.05
    assert answer.values.group_by("step").len()["len"].max() < 8  # runs are met at steps of their own


def test_models_that_draw_in_turn_are_compared_each_with_itself(bench):
    """Of two models in turn, the early images that were read were of one, the late ones of the other."""
    for number in range(8):
        add_run(bench, number, [1.0, 0.5] * 12, network=("draw", "draw"))
    tests = image_quality.table(bench.evidence).tests.filter(measure="contrast")
    assert tests["early"][0] == pytest.approx(tests["late"][0], rel=0.01)


def test_lost_and_tiny_images_are_counted(bench):
    rows = [add_run(bench, number, [0.5, 0.4]) for number in range(2)]
    lost = image_digest(square(0.5, 0))
    bench.store.images.execute(f"DELETE FROM image WHERE digest = x'{lost.hex()}'")
    answer = image_quality.table(bench.evidence)
    assert (answer.num_read, answer.num_missing) == (3, 1)
    assert "Measured: 3 of 4 different images (1 more are missing or too small)" in image_quality.sentence(
        answer
    )
    assert answer.values["run"].unique().sort().to_list() == sorted(rows)


def test_few_starts_are_not_tested(bench):
    for number in range(3):
        add_run(bench, number, [1.0, 0.5, 0.1])
    answer = image_quality.table(bench.evidence)
    assert answer.tests["p_value"].is_nan().all()
    assert "With fewer than 6 independent starts no change is tested." in image_quality.sentence(answer)


def test_without_images_nobody_asks(bench):
    bench.add("a start", ["one"], network=("tell",))
    assert image_quality.table(bench.evidence) is None


def test_images_that_cannot_be_read_are_refused(bench):
    add_run(bench, 0, [0.5, 0.4])
    bench.store.images.execute("DELETE FROM image")
    with pytest.raises(AnalysisError, match="none of the images can be read"):
        image_quality.table(bench.evidence)


def test_twelve_images_of_each_of_50_runs_are_read(bench):
    for number in range(51):
        add_run(bench, number, [0.5] * 13)
    answer = image_quality.table(bench.evidence)
    assert (answer.num_read, answer.num_images) == (600, 51 * 13)
    assert answer.values["run"].n_unique() == 50


@pytest.mark.parametrize(("width", "num_read"), [(2500, 24), (2501, 22)])
def test_images_of_60_million_pixels_together_are_read(bench, width, num_read):
    """24 of 2.5 million; of 23 that would fit, two of each of 11 runs."""
    for number in range(13):
        add_run(bench, number, [0.5] * 3)
    bench.store.db.execute(f"UPDATE output SET width = {width}, height = 1000 WHERE modality = 'image'")
    assert image_quality.table(bench.evidence).num_read == num_read


def test_a_stuck_run_goes_on_for_as_long_again_as_it_was_computed(bench):
    row = add_run(bench, 0, [0.5, 0.4, 0.3, 0.2], seed=7)
    bench.stuck(row, 0, 4)
    bench.store.db.execute("UPDATE run SET max_length = 40")
    assert image_quality.table(bench.evidence).values["step"].to_list() == list(range(8))
