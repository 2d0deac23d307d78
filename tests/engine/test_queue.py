"""What the ready queue serves next."""

from __future__ import annotations

from panic.engine.queue import Item, Lane, ReadyQueue

NOTHING: frozenset[str] = frozenset()


def make_queue(**waiting: int) -> ReadyQueue:
    lanes = [
        Lane(name, batch_size=4, order=order, eager=name == "describe")
        for order, name in enumerate(["draw", "describe", "embed"])
    ]
    queue = ReadyQueue(lanes)
    for name, count in waiting.items():
        for number in range(count):
            queue.put(name, 0, Item(number + 1, 0, b"", 0))
    return queue


def test_the_model_with_most_work_is_loaded_first() -> None:
    assert make_queue(draw=2, describe=3).choose(NOTHING, only_full=False) == ("describe", 0)


def test_what_is_resident_is_served_while_it_has_work() -> None:
    queue = make_queue(draw=1, describe=100)
    assert queue.choose(frozenset({"draw"}), only_full=False) == ("draw", 0)


def test_full_batches_come_before_short_ones() -> None:
    queue = make_queue(draw=3, embed=4)
    assert queue.choose(frozenset({"draw", "embed"}), only_full=False) == ("embed", 0)


def test_pictures_are_consumed_before_more_are_drawn() -> None:
    queue = make_queue(draw=50, describe=4)
    assert queue.choose(frozenset({"draw", "describe"}), only_full=False) == ("describe", 0)


def test_a_busy_device_waits_for_full_batches_of_what_is_resident() -> None:
    queue = make_queue(draw=3, describe=9)
    assert queue.choose(frozenset({"draw"}), only_full=True) is None
    assert queue.choose(frozenset({"draw", "describe"}), only_full=True) == ("describe", 0)


def test_first_in_first_out_and_back_in_the_old_order() -> None:
    queue = make_queue(draw=6)
    taken = queue.take("draw", 0)
    assert [item.run for item in taken] == [1, 2, 3, 4]
    queue.put_back("draw", 0, taken)
    assert [item.run for item in queue.take("draw", 0)] == [1, 2, 3, 4]
    assert [item.run for item in queue.take("draw", 0)] == [5, 6]
    assert len(queue) == 0


def test_buckets_are_not_mixed_and_ties_follow_the_config() -> None:
    queue = make_queue()
    for bucket in (16, 32):
        queue.put("embed", bucket, Item(1, 0, b"", 0))
    queue.put("embed", 32, Item(2, 0, b"", 0))
    assert queue.choose(NOTHING, only_full=False) == ("embed", 32)
    assert len(queue.take("embed", 32)) == 2
    assert make_queue(draw=1, embed=1).choose(NOTHING, only_full=False) == ("draw", 0)


def test_a_new_shape_epoch_takes_smaller_batches() -> None:
    queue = make_queue(draw=4)
    queue.set_batch_size("draw", 2)
    assert len(queue.take("draw", 0)) == 2
