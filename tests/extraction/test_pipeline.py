"""Items through models: order, batches, what fails alone and what fails altogether."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

import pytest

from panic.engine.serving import LocalWorker, ServerSettings
from panic.engine.workers import Workers
from panic.errors import ModelDoesNotFit, ModelError
from panic.extraction.inputs import Item, list_images
from panic.extraction.pipeline import BLOCK_BATCHES, FAILURES_IN_A_ROW, Block, Pipeline
from panic.extraction.worker import try_out
from panic.models import registry

from .counted import Counted, counted


def texts(*values: str) -> list[Item]:
    return [
        Item(source="t", id=str(place), place=str(place), stamp="", text=value)
        for place, value in enumerate(values)
    ]


def perform(items: Iterable[Item], batch_size: int = 4) -> tuple[list[Block], dict[str, int]]:
    specs = {"counted": counted(batch_size=batch_size)}
    settings = ServerSettings(device="cpu", specs=specs)
    with closing(Workers(lambda deliver: [LocalWorker(settings, registry.build, deliver)])) as workers:
        pipeline = Pipeline(workers, specs, {"counted": batch_size})
        return list(pipeline.blocks(items)), pipeline.batch_sizes


def lengths(blocks: Iterable[Block]) -> dict[str, int]:
    return {
        item.id: int(vectors["counted"][0])
        for block in blocks
        for item, _, vectors in block.rows(["counted"])
    }


def test_every_item_has_its_own_answer_in_blocks_of_whole_batches() -> None:
    items = texts(*("x" * number for number in range(1, 71)))
    blocks, _ = perform(items)
    assert [len(block.items) for block in blocks] == [4 * BLOCK_BATCHES, 4 * BLOCK_BATCHES, 6]
    assert lengths(blocks) == {item.id: len(item.text or "") for item in items}
    assert {len(call) for call in Counted.calls} == {4}  # what is left over is padded
    assert len(Counted.calls) == 18


def test_images_are_decoded_ahead_and_keep_their_order(photos: str) -> None:
    blocks, _ = perform(list_images(photos).items)
    assert list(lengths(blocks).values()) == list(range(1, 21))
    assert [call[0][0] for call in Counted.calls] == [1, 5, 9, 13, 17]


def test_one_bad_item_costs_itself_alone() -> None:
    Counted.broken = {"bad"}
    blocks, _ = perform(texts("a", "b", "bad", "c", " ", "d"))
    assert lengths(blocks).keys() == {"0", "1", "3", "5"}
    assert blocks[0].reasons == {2: "counted: ValueError: this one is broken", 4: "empty text"}


def test_a_model_that_fails_at_everything_is_told() -> None:
    Counted.broken = {"a", "b"}
    with pytest.raises(ModelError, match="failed at every item") as caught:
        perform(texts("a", "b"))
    assert "this one is broken" in caught.value.hint
    Counted.broken = {"a"}
    with pytest.raises(ModelError, match=f"failed at {FAILURES_IN_A_ROW} items in a row"):
        perform(texts("x", "x", "x", "x", *["a"] * 500))
    assert Counted.calls == [["x"] * 4]


def test_a_batch_without_room_becomes_smaller() -> None:
    Counted.room = 3
    blocks, sizes = perform(texts(*"abcdefghij"), batch_size=8)
    assert sizes == {"counted": 2}
    assert len(lengths(blocks)) == 10
    assert {len(call) for call in Counted.calls} == {2}
    Counted.room = 0
    with pytest.raises(ModelDoesNotFit):
        perform(texts("a"))


def test_no_items_are_no_blocks() -> None:
    assert perform([]) == ([], {"counted": 4})


def test_a_model_tried_out_is_refused_if_it_has_nothing_for_all_of_what_it_is_given() -> None:
    """It has no words of empty texts and of ones longer than three letters."""
    spec = counted(batch_of="Picky")
    try_out({"it": spec}, "cpu")
    assert Counted.calls == [["a"]]
    try_out({"it": spec}, "cpu", {"text": ["", "long one", "one"], "image": []})
    with pytest.raises(ModelError, match="none of '' here") as refused:
        try_out({"it": spec}, "cpu", {"text": ["", "long one"]})
    assert "all of 2" in refused.value.hint
    Counted.broken = {"b", "long one"}
    try_out({"it": spec}, "cpu", {"text": ["", "a", "b"]})  # what fails costs itself alone
    with pytest.raises(ModelError, match="none of '' here"):
        try_out({"it": spec}, "cpu", {"text": ["b", ""]})
    with pytest.raises(ModelError, match="this one is broken"):
        try_out({"it": spec}, "cpu", {"text": ["b", "long one"]})
