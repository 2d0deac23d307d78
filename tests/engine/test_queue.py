"""What the ready queue serves next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from panic.engine.contents import ContentCache, RemoteImage
from panic.engine.queue import JOINT_IMAGES, Buckets, Item, Lane, ReadyQueue
from panic.models import registry
from panic.models.protocol import Modality
from panic.store.codec import encode_image

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
    assert [(item.subject, item.attempts) for item in taken] == [(1, 0), (2, 0), (3, 0), (4, 0)]
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


def test_work_counts_all_lanes_of_a_model() -> None:
    queue = make_queue(draw=3)
    for bucket in (16, 16, 32, 32):
        queue.put(lane("embed", bucket), Item(bucket, b"", 0))
    queue.put(lane("describe"), Item(1, b"", 0))
    assert queue.work() == {"draw": 3, "embed": 4, "describe": 1}
    # Four texts in two buckets are more work than three prompts in one.
    assert queue.choose(NOTHING, only_full=False) == lane("embed", 16)
    assert len(queue) == 8
    queue.take(lane("describe"))
    assert queue.work() == {"draw": 3, "embed": 4}, "nothing is left of it"


def test_of_two_lanes_with_as_much_the_first_and_of_two_buckets_the_fuller_one() -> None:
    queue = make_queue(embed=1)
    queue.put(lane("draw"), Item(1, b"", 0))
    assert queue.choose(NOTHING, only_full=False) == lane("draw"), "by the config, not by arrival"
    for bucket in (32, 16, 16):
        queue.put(lane("embed", bucket), Item(1, b"", 0))
    assert queue.choose(NOTHING, only_full=False) == lane("embed", 16)


def test_a_batch_of_exactly_the_size_is_full() -> None:
    resident = frozenset({"draw"})
    assert make_queue(draw=4).choose(resident, only_full=True) == lane("draw")
    assert make_queue(draw=3).choose(resident, only_full=True) is None
    assert make_queue(draw=9).choose(NOTHING, only_full=True) is None, "a load can wait"
    assert len(make_queue(draw=9).take(lane("draw"))) == 4
    assert make_queue().choose(resident, only_full=False) is None


def test_eagerness_is_for_full_batches_and_stays_after_a_halving() -> None:
    both = frozenset({"draw", "describe"})
    assert make_queue(draw=50, describe=3).choose(both, only_full=False) == lane("draw")
    queue = make_queue(draw=50, describe=3)
    queue.resize("describe", 2)
    assert queue.choose(both, only_full=False) == lane("describe", batch_size=2)
    # Without its model there an eager one still comes before more images.
    assert make_queue(draw=50, describe=4).choose(NOTHING, only_full=False) == lane("describe")


def test_a_new_shape_epoch_leaves_other_models_and_keeps_the_order() -> None:
    queue = make_queue(draw=3, embed=2)
    queue.put(lane("draw", batch_size=2), Item("first", b"", 0))
    queue.put(lane("draw", 16), Item("other bucket", b"", 0))
    queue.resize("draw", 2)
    assert [item.subject for item in queue.take(lane("embed"))] == [1, 2]
    assert [item.subject for item in queue.take(lane("draw", 16, 2))] == ["other bucket"]
    smaller = lane("draw", batch_size=2)
    found = [item.subject for _ in range(2) for item in queue.take(smaller)]
    assert sorted(map(str, found)) == ["1", "2", "3", "first"]
    assert [subject for subject in found if subject != "first"] == [1, 2, 3]
    assert len(queue) == 0


def test_what_comes_back_comes_first_also_into_a_lane_that_is_new() -> None:
    queue = make_queue(draw=1)
    queue.put_back(lane("draw"), [Item("a", b"", 0), Item("b", b"", 0)])
    assert [item.subject for item in queue.take(lane("draw"))] == ["a", "b", 1]
    queue.put_back(lane("draw", 7), [Item("c", b"", 0)])
    assert [item.subject for item in queue.take(lane("draw", 7))] == ["c"]


def test_a_full_batch_comes_before_more_work_in_short_ones() -> None:
    queue = make_queue(draw=4)
    for bucket in (16, 16, 16, 32, 32, 32):
        queue.put(lane("embed", bucket), Item(1, b"", 0))
    assert queue.choose(frozenset({"draw", "embed"}), only_full=False) == lane("draw")


def test_an_empty_lane_hides_nothing() -> None:
    queue = make_queue(draw=1, embed=4)
    queue.take(lane("draw"))
    assert queue.choose(NOTHING, only_full=False) == lane("embed")
    assert queue.choose(frozenset({"embed"}), only_full=True) == lane("embed")


def test_what_a_worker_does_not_serve_hides_nothing_from_it() -> None:
    queue = make_queue(draw=9, embed=1)
    assert queue.choose(NOTHING, only_full=False, serves=lambda model: model == "embed") == lane("embed")
    assert queue.choose(NOTHING, only_full=False, serves=lambda model: False) is None


# Buckets

BUCKETING = """
from panic.models.synthetic import ImageToText, TextToImage


class Looks(ImageToText):
    PARAMETERS = {}

    def __init__(self):
        super().__init__()

    def bucket(self, image):
        return image.getpixel((0, 0))[0]


class Counts(TextToImage):
    PARAMETERS = {}

    def __init__(self):
        super().__init__()

    def bucket(self, text):
        return len(text)
"""
RED = Image.new("RGB", (2, 2), (201, 0, 0))


def buckets(folder: Path) -> Buckets:
    """Of a plain model, of one that takes texts and images, and of two that say theirs.

    The store gives "words", and images as they are in a cluster.
    """
    (folder / "mine.py").write_text(BUCKETING)
    plain = registry.resolve("synthetic/image-to-text")
    remote = RemoteImage(size=RED.size, encoded=encode_image(RED))
    return Buckets(
        {
            "plain": plain,
            "joint": replace(plain, modalities_in=(Modality.TEXT, Modality.IMAGE)),
            "looks": registry.resolve(f"python:{folder / 'mine.py'}:Looks"),
            "counts": registry.resolve(f"python:{folder / 'mine.py'}:Counts"),
        },
        ContentCache(0, lambda digest, modality: "words" if modality is Modality.TEXT else remote),
    )


def test_images_of_a_joint_model_have_a_bucket_of_their_own(tmp_path: Path) -> None:
    assert JOINT_IMAGES == -1, "as it is stored"
    found = buckets(tmp_path)
    images = [found.of(model, b"", Modality.IMAGE) for model in ("plain", "joint")]
    assert images == [found.of_content(model, RED) for model in ("plain", "joint")] == [0, JOINT_IMAGES]
    texts = [found.of(model, b"", Modality.TEXT) for model in ("plain", "joint")]
    assert texts == [found.of_content(model, "words") for model in ("plain", "joint")] == [0, 0]
    assert [found.modality("joint", bucket) for bucket in (0, JOINT_IMAGES)] == ["text", "image"]
    assert found.modality("plain", 0) == "image"


def test_a_users_class_says_its_buckets_by_pixels_and_by_texts_unless_lengths_decide(tmp_path: Path) -> None:
    found = buckets(tmp_path)
    remote = RemoteImage(size=RED.size, encoded=encode_image(RED))
    assert found.of("looks", b"", Modality.IMAGE) == 201
    assert found.of_content("looks", remote) == found.of_content("looks", RED) == 201
    assert found.of("counts", b"", Modality.TEXT) == found.of_content("counts", "w" * 5) == 5
    found.by_length(["looks"])  # nobody can count the tokens of an image
    assert (found.of("looks", b"", Modality.IMAGE), found.of("counts", b"", Modality.TEXT)) == (0, 5)
