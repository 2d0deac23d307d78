"""What the ready queue serves next."""

from __future__ import annotations

from panic.engine.queue import Item, Lane, ReadyQueue

NOTHING: frozenset[str] = frozenset()


def lane(model: str, bucket: int = 0, batch_size: int = 4) -> Lane:
    return Lane("stage", model, bucket, batch_size)


def make_queue(**waiting: int) -> ReadyQueue:
    queue = ReadyQueue({"draw": 0, "describe": 1, "embed": 2}, eager=["describe"])
    for name, count in waiting.items():
        for number in range(count):
            queue.put(lane(name), Item(number + 1, b"", 0))
    return queue


def test_the_model_with_most_work_is_loaded_first() -> None:
    assert make_queue(draw=2, describe=3).choose(NOTHING, only_full=False) == lane("describe")


def test_what_is_resident_is_served_while_it_has_work() -> None:
    queue = make_queue(draw=1, describe=100)
    assert queue.choose(frozenset({"draw"}), only_full=False) == lane("draw")


def test_full_batches_come_before_short_ones() -> None:
    queue = make_queue(draw=3, embed=4)
    assert queue.choose(frozenset({"draw", "embed"}), only_full=False) == lane("embed")


def test_pictures_are_consumed_before_more_are_drawn() -> None:
    queue = make_queue(draw=50, describe=4)
    assert queue.choose(frozenset({"draw", "describe"}), only_full=False) == lane("describe")


def test_a_busy_device_waits_for_full_batches_of_what_is_resident() -> None:
    queue = make_queue(draw=3, describe=9)
    assert queue.choose(frozenset({"draw"}), only_full=True) is None
    assert queue.choose(frozenset({"draw", "describe"}), only_full=True) == lane("describe")


def test_first_in_first_out_and_back_in_the_old_order() -> None:
    queue = make_queue(draw=6)
    taken = queue.take(lane("draw"))
    assert [item.subject for item in taken] == [1, 2, 3, 4]
    queue.put_back(lane("draw"), taken)
    assert [item.subject for item in queue.take(lane("draw"))] == [1, 2, 3, 4]
    assert [item.subject for item in queue.take(lane("draw"))] == [5, 6]
    assert len(queue) == 0


def test_buckets_are_not_mixed_and_ties_follow_the_config() -> None:
    queue = make_queue()
    for bucket in (16, 32):
        queue.put(lane("embed", bucket), Item(1, b"", 0))
    queue.put(lane("embed", 32), Item(2, b"", 0))
    assert queue.choose(NOTHING, only_full=False) == lane("embed", 32)
    assert len(queue.take(lane("embed", 32))) == 2
    assert make_queue(draw=1, embed=1).choose(NOTHING, only_full=False) == lane("draw")


def test_a_new_shape_epoch_takes_smaller_batches() -> None:
    queue = make_queue(draw=4)
    queue.resize("draw", 2)
    smaller = lane("draw", batch_size=2)
    assert [item.subject for item in queue.take(smaller)] == [1, 2]
    assert [item.subject for item in queue.take(smaller)] == [3, 4]
