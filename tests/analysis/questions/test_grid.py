"""The last image of every prompt under every network."""

from __future__ import annotations

import polars as pl

from panic.analysis import load
from panic.analysis.questions import grid
from panic.analysis.questions.grid import final_images
from panic.store import contents
from tests.analysis.looks import assert_shown


def test_final_images_are_those_of_the_last_drawing_step(full):
    cells = final_images(load(full.store, "demo"))
    assert cells["row"].to_list()[0] == "a start"
    assert cells["column"].unique().to_list() == ["draw → tell"]
    steps = contents.invocations(full.store, cells["run"][0])
    assert cells["digest"][0] == [s.output for s in steps if s.modality == "image"][-1]
    assert cells["text"][0] == "text 3"


def test_a_cell_shows_a_run_that_ended_and_where_its_cycle_is_at_the_end(bench):
    bench.fail(bench.add("one", ["a"], seed=-1), 2)
    bench.stuck(bench.add("one", ["a", "b", "c"], max_length=12), 2, 4)
    bench.fail(bench.add("two", ["a"]), 2)
    cells = final_images(load(bench.store, "demo"))
    assert cells.select("row", "run").rows() == [("one", 2)]
    steps = contents.invocations(bench.store, 2)
    assert cells["digest"][0] == steps[2].output  # step 10 is step 2 of the cycle, and 4 is the last stored


def test_rows_that_are_alike_are_read_the_right_way_round(bench):
    """It was "rows that look alike have forgotten the network, columns the prompt"."""
    for network in (("draw", "tell"), ("tell", "draw")):
        for prompt in ("one", "two"):
            bench.add(prompt, ["a"], network=network, seed=-1, max_length=len(network))
    answer = grid.table(bench.evidence)
    assert_shown(grid, answer)
    said = grid.sentence(answer)
    assert "Where the pictures of one row are alike, the network made no difference to that prompt." in said
    assert said.endswith("Where those of one column are alike, the prompt is forgotten there.")


def test_the_longest_network_has_room_above_its_column():
    columns = ["a", "a → b → c", "a → b"]
    cells = pl.DataFrame({"row": "one", "column": columns, "image": "data:,", "text": "words"})
    made = grid.chart(grid.Grid(cells=cells, has_arms=False, num_prompts=1, num_networks=3)).to_dict()
    assert made["encoding"]["x"]["axis"]["labelPadding"] == 6 + 2 * 13
    assert (made["width"], made["height"]) == (3 * (grid.CELL + grid.GAP), grid.CELL + grid.GAP)
