"""`check` finds every damage and calls it by its name."""

import contextlib
import dataclasses
import shutil
import sqlite3
import struct

import numpy as np
import pytest

from panic.errors import StoreCorrupt
from panic.store import Commit, NewDiagram, NewStuck, Store, check, contents, writing
from panic.store.codec import ENCODING, encode_array, encode_bars, encode_image, image_digest, text_digest
from panic.store.records import NewDistance, NewVectorisation
from tests.store.sample import SETTINGS, output, picture, remark, steps
from tests.store.test_files import corrupt_page


def damage(path, *statements, parameters=()):
    """Change a file behind the store's back, constraints ignored."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            assert other.execute(statement, parameters).rowcount != 0


def problems(folder):
    with Store(folder) as store:
        return check.check(store)


def only_problem(folder):
    (problem,) = problems(folder)
    return problem


def remedy(name, folder):
    return f"`panic resume {name} --repair --store {folder}` computes what is lost"


def only_lost(folder, *experiments):
    """The only problem, of an image, which is followed by a remedy per experiment that has it."""
    problem, *remedies = problems(folder)
    assert remedies == [
        f"experiment {name}: an image is missing or damaged; {remedy(name, folder)}" for name in experiments
    ]
    return problem


def test_a_sound_store_has_no_problems(folder, sample):
    assert problems(folder) == []


def test_a_hole_in_the_steps(folder, sample):
    damage(folder / "store.sqlite", f"DELETE FROM invocation WHERE run = {sample.noisy} AND step = 1")
    assert only_problem(folder) == f"run {sample.noisy}: 1 missing before its last step 3"


def test_a_broken_chain(folder, sample):
    damage(
        folder / "store.sqlite",
        f"UPDATE invocation SET input = (SELECT prompt FROM run WHERE id = {sample.failed})"
        f" WHERE run = {sample.noisy} AND step = 2",
    )
    problem = only_problem(folder)
    assert problem.startswith(f"run {sample.noisy}: the input of step 2 is not the output of the step before")


def test_a_wrong_start(folder, sample):
    damage(folder / "store.sqlite", f"UPDATE run SET prompt = 1 + prompt WHERE id = {sample.noisy}")
    assert f"run {sample.noisy}: the input of step 0 is not" in only_problem(folder)


def test_too_many_steps(folder, sample):
    damage(folder / "store.sqlite", f"UPDATE run SET max_length = 3 WHERE id = {sample.noisy}")
    assert only_problem(folder) == f"run {sample.noisy}: 4 steps, more than its maximum length 3"


@pytest.mark.parametrize(
    ("damaged", "told"),
    [
        ("epoch SET batch_size = 65537 WHERE rowid_is_first", "batches of 65,537 in"),
        ("epoch SET threads = 1099511627776 WHERE rowid_is_first", "in 1,099,511,627,776 threads are none"),
        ("batch SET padded_size = 1099511627776 WHERE id = 1", "batch 1: 1,099,511,627,776 items are more"),
    ],
)
def test_numbers_that_would_fill_the_memory(folder, sample, damaged, told):
    first = "(experiment, name, number) = (SELECT experiment, name, number FROM epoch LIMIT 1)"
    damage(folder / "store.sqlite", f"UPDATE {damaged.replace('rowid_is_first', first)}")
    assert told in only_problem(folder)


def test_rounds_without_end_are_counted_and_not_laid_out(folder, sample):
    """The recorded rounds were multiplied out before they were compared: 2^60 of them."""
    connection = f"INSERT INTO repeated VALUES ({sample.noisy}, 0, 2, {2**60})"
    damage(folder / "store.sqlite", "UPDATE model SET is_repeatable = 0")
    damage(folder / "store.sqlite", connection)
    assert any(f"repeated {2**60} times is recorded" in problem for problem in problems(folder))


def test_a_missing_image(folder, sample):
    digest = image_digest(picture(3))
    damage(folder / "images.sqlite", "DELETE FROM image WHERE digest = ?", parameters=(digest,))
    assert only_lost(folder, "alpha") == f"image {digest.hex()}: its pixels are missing"
    shared = image_digest(picture(1))
    with Store(folder, write=True) as store:
        writing.commit(store, Commit(outputs=[output(picture(3))]))
    damage(folder / "images.sqlite", "DELETE FROM image WHERE digest = ?", parameters=(shared,))
    assert only_lost(folder, "alpha", "beta") == f"image {shared.hex()}: its pixels are missing"


def test_a_missing_file_of_images(folder, sample):
    (folder / "images.sqlite").unlink()
    of_file, *remedies = problems(folder)
    assert "images.sqlite is missing" in of_file
    assert remedies == [
        f"experiment alpha: 4 images are missing or damaged; {remedy('alpha', folder)}",
        f"experiment beta: an image is missing or damaged; {remedy('beta', folder)}",
    ]


@pytest.fixture
def unfinished(folder, sample):
    """A store being written: a session is open, and an image is there that nothing refers to yet."""
    with Store(folder, write=True) as store:
        writing.start_session(store, sample.alpha, "panic run", {})
        store.db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with store.images.transaction() as connection:
            row = (image_digest(picture(9)), ENCODING, encode_image(picture(9)))
            connection.execute("INSERT INTO image VALUES (?, ?, ?)", row)
        store.images.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        yield store


def test_an_image_of_a_commit_that_failed_is_no_problem(folder, unfinished):
    unfinished.close()  # as when the disk was full: the images are written first, the rest was not
    assert problems(folder) == []


def test_a_copy_without_its_log_is_told(folder, unfinished, tmp_path):
    shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    (problem,) = problems(tmp_path / "copy")
    assert "was the store copied while it was written" in problem
    (tmp_path / "copy" / "lock").unlink()
    assert problems(tmp_path / "copy") == [problem]
    with Store(tmp_path / "copy", write=True):
        pass
    assert problems(tmp_path / "copy") == []  # a driver has taken it as it is


def test_nothing_is_lost_while_a_driver_works(folder, unfinished):
    assert problems(folder) == []


def test_a_copy_that_knows_its_images_or_whose_sessions_ended_has_lost_nothing(folder, unfinished, tmp_path):
    def copy(name, statement):
        shutil.copytree(folder, tmp_path / name, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
        file = "images" if "image" in statement else "store"
        damage(tmp_path / name / f"{file}.sqlite", statement)
        return problems(tmp_path / name)

    assert copy("known", f"DELETE FROM image WHERE digest = x'{image_digest(picture(9)).hex()}'") == []
    assert copy("ended", "UPDATE session SET end_state = 'done'") == []
    (told,) = copy("unending", "UPDATE session SET end_state = 'done' WHERE id = 1")
    assert told.startswith("store.sqlite knows 4 images, and there are 5; a session never ended,")


def test_a_remark_leaves_the_log_of_a_killed_driver(folder, unfinished, tmp_path):
    with unfinished.transaction():
        pass
    killed = tmp_path / "killed"
    shutil.copytree(folder, killed, ignore=shutil.ignore_patterns("*-shm"))
    with Store(killed) as store:
        remark(store, "alpha", "killed")
    assert (killed / "store.sqlite-wal").stat().st_size > 0
    assert problems(killed) == []


def test_a_remark_on_a_closed_store_leaves_no_log(folder, sample):
    with Store(folder) as store:
        remark(store, "alpha", "fine")
    log = folder / "store.sqlite-wal"
    assert not log.exists() or log.stat().st_size == 0


def test_other_pixels(folder, sample):
    digest = image_digest(picture(3))
    update = "UPDATE image SET bytes = ? WHERE digest = ?"
    damage(folder / "images.sqlite", update, parameters=(encode_image(picture(9)), digest))
    assert only_lost(folder, "alpha") == f"image {digest.hex()}: its pixels are those of another image"
    damage(folder / "images.sqlite", update, parameters=(encode_image(picture(9, (9, 9))), digest))
    assert only_lost(folder, "alpha") == f"image {digest.hex()}: 9 x 9 pixels, not 8 x 6"


def test_bytes_that_are_no_image(folder, sample):
    digest = image_digest(picture(3))
    with Store(folder) as store:
        data = bytearray(contents.image_bytes(store, digest))
    for broken in (b"nonsense", bytes(data[: len(data) // 2])):
        update = "UPDATE image SET bytes = ? WHERE digest = ?"
        damage(folder / "images.sqlite", update, parameters=(broken, digest))
        assert only_lost(folder, "alpha").startswith(f"image {digest.hex()}: its bytes cannot be decoded")
        with Store(folder) as store, pytest.raises(StoreCorrupt, match="cannot be decoded") as caught:
            contents.image(store, digest)
        assert "panic resume EXPERIMENT --repair" in caught.value.hint


def test_another_text(folder, sample):
    damage(folder / "store.sqlite", "UPDATE output SET text = 'cc' WHERE text = 'c'")
    assert only_problem(folder) == f"text {text_digest('c').hex()}: its content is another text"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE stuck SET period = 4", "stuck is recorded as entry step 2, period 4 steps"),
        ("UPDATE stuck SET entry_step = 0", "but its steps say entry step 2, period 2 steps"),
        (
            "DELETE FROM stuck",
            "stuck is recorded as not stuck, but its steps say entry step 2, period 2 steps",
        ),
    ],
)
def test_a_wrong_stuck_record(folder, sample, change, told):
    damage(folder / "store.sqlite", change)
    problem = only_problem(folder)
    assert problem.startswith(f"run {sample.stuck}: ")
    assert told in problem


def test_stuck_with_fresh_noise(folder, sample):
    damage(folder / "store.sqlite", f"INSERT INTO stuck VALUES ({sample.noisy}, 0, 2)")
    assert (
        only_problem(folder)
        == f"run {sample.noisy}: stuck is recorded, but it has no steps with a fixed seed"
    )


def test_steps_after_getting_stuck(folder, sample):
    damage(
        folder / "store.sqlite",
        "INSERT INTO invocation SELECT one.run, 4, one.output, one.input, one.seed, before.batch"
        " FROM invocation AS one JOIN invocation AS before ON before.run = one.run AND before.step = 2"
        f" WHERE one.run = {sample.stuck} AND one.step = 3",
    )
    assert only_problem(folder) == f"run {sample.stuck}: has steps after it got stuck"


@pytest.mark.parametrize("step", [0, 3])
def test_a_step_that_was_made_by_another_model_than_that_of_its_place(folder, sample, step):
    """Every second step is drawn; both models are of the experiment, in the same shape epoch."""
    name, other = [("draw", sample.tell), ("tell", sample.draw)][step % 2]
    damage(
        folder / "store.sqlite",
        f"UPDATE batch SET model = {other} WHERE id ="
        f" (SELECT batch FROM invocation WHERE run = {sample.stuck} AND step = {step})",
    )
    told = f"run {sample.stuck}: step {step} was made by a call of another model than {name}"
    assert only_problem(folder) == told


def test_a_network_of_half_a_character_is_told_and_the_calls_of_others_are_checked(folder, sample):
    damage(
        folder / "store.sqlite",
        f"""UPDATE run SET network = '["\\ud800", "tell"]' WHERE id = {sample.stuck}""",
        f"UPDATE batch SET model = {sample.draw} WHERE id ="
        f" (SELECT batch FROM invocation WHERE run = {sample.noisy} AND step = 1)",
    )
    told = [one for one in problems(folder) if "was made by a call" in one]
    assert [one.partition(":")[0] for one in told] == [f"run {sample.stuck}", f"run {sample.noisy}"]
    assert all(one.encode() for one in told), "they can be printed"


def test_a_reference_to_nothing(folder, sample):
    damage(folder / "store.sqlite", "DELETE FROM model WHERE name = 'draw'")
    found = problems(folder)
    assert any("batch refers to a missing row of model" in problem for problem in found)
    assert any("epoch refers to a missing row of model" in problem for problem in found)


@pytest.mark.parametrize("dimension", [3, 2])
def test_a_vector_of_another_length(folder, sample, dimension):
    digest = text_digest("b")
    damage(
        folder / "store.sqlite",
        f"UPDATE embedding SET vector = zeroblob(8), dimension = {dimension}"
        " WHERE output = (SELECT id FROM output WHERE text = 'b')",
    )
    expected = f"vector of {digest.hex()} under embed: 8 bytes, not 3 numbers of 4 bytes"
    assert expected in problems(folder)


def test_a_vector_that_is_not_finite(folder, sample):
    damage(
        folder / "store.sqlite",
        "UPDATE embedding SET vector = X'0000C07F0000C07F0000C07F'"
        " WHERE output = (SELECT id FROM output WHERE text = 'b')",
    )
    assert only_problem(folder).endswith("under embed: not all numbers are finite")


def test_a_batch_of_an_unknown_epoch(folder, sample):
    damage(folder / "store.sqlite", "UPDATE batch SET epoch = 5 WHERE id = 1")
    assert only_problem(folder) == "batch 1: shape epoch 5 of draw was never opened in its experiment"


@pytest.mark.parametrize(("name", "table"), [("store.sqlite", "invocation"), ("images.sqlite", "image")])
def test_a_corrupted_page(folder, sample, name, table):
    corrupt_page(folder / name, table)
    found = problems(folder)
    assert f"{name}: in {table} page" in found[0]  # what is affected, by name
    assert any(f"{name} is damaged" in problem for problem in found)
    assert not any("panic check" in problem for problem in found)
    assert found == list(dict.fromkeys(found))


def test_a_broken_index(folder, sample):
    damage(
        folder / "store.sqlite",
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'failure')"
        " WHERE name = 'stuck'",
    )
    assert any(problem.startswith("store.sqlite: ") for problem in problems(folder))


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_vector_with_one_number_that_is_not_finite(folder, sample, value):
    update = "UPDATE embedding SET vector = ? WHERE output = (SELECT id FROM output WHERE text = 'b')"
    damage(folder / "store.sqlite", update, parameters=(floats(1.0, value, 2.0),))
    assert (
        only_problem(folder) == f"vector of {text_digest('b').hex()} under embed: not all numbers are finite"
    )


def put_bars(folder, bars):
    update = "UPDATE diagram_bars SET bars = ? WHERE dimension = 0"
    damage(folder / "store.sqlite", update, parameters=(encode_bars(np.array(bars)),))


@pytest.mark.parametrize(
    "bar",
    [(1.0, 0.5), (-np.inf, 1.0), (np.inf, np.inf), (np.nan, 1.0), (0.0, np.nan)],
    ids=["death before birth", "birth -inf", "birth inf", "birth nan", "death nan"],
)
def test_a_bar_that_is_none(folder, sample, bar):
    bars = encode_bars(np.array([[0.0, 0.5], bar]))
    damage(
        folder / "store.sqlite", "UPDATE diagram_bars SET bars = ? WHERE dimension = 0", parameters=(bars,)
    )
    told = f"diagram of run {sample.stuck}, dimension 0: not all bars are births and later deaths"
    assert only_problem(folder) == told


@pytest.mark.parametrize("bar", [(0.0, np.inf), (0.0, 0.0), (0.5, 0.5)])
def test_a_bar_that_lasts_for_ever_or_no_time_is_one(folder, sample, bar):
    bars = encode_bars(np.array([bar]))
    damage(
        folder / "store.sqlite", "UPDATE diagram_bars SET bars = ? WHERE dimension = 0", parameters=(bars,)
    )
    assert problems(folder) == []


def test_what_is_wrong_with_a_diagram_is_told_of_its_run_alone(folder, sample):
    with Store(folder, write=True) as store:
        measure = writing.add_measure(store, {"kind": "entropy"})
        other = writing.add_measure(store, {"kind": "other"})
        diagram = NewDiagram(
            run=sample.noisy, model=sample.embed, settings=SETTINGS, settings_digest="settings", num_points=2,
            num_unique=1, bars={0: np.array([[0.0, 1.0]])},
        )  # fmt: skip
        writing.commit(store, Commit(diagrams=[diagram]))
        taken = [
            NewVectorisation(diagram=number, dimension=0, measure=kind, vector=np.ones(1))
            for number in (1, 2)
            for kind in (measure, other)
        ]
        writing.commit(store, Commit(vectorisations=taken))
    path = folder / "store.sqlite"
    damage(path, "UPDATE diagram_bars SET bars = x'00' WHERE diagram = 2")
    damage(path, f"UPDATE vectorisation SET vector = x'00' WHERE diagram = 2 AND measure = {measure}")
    assert problems(folder) == [
        f"diagram of run {sample.noisy}, dimension 0: 1 bytes are no bars of 16 bytes",
        f'vectorisation of run {sample.noisy}, dimension 0, {{"kind":"entropy"}}: its bytes are no array',
    ]


@pytest.fixture
def vectorised(folder, sample):
    """The bytes of the only vectorisation in the store."""
    with Store(folder, write=True) as store:
        measure = writing.add_measure(store, {"kind": "landscape"})
        vector = np.arange(6.0).reshape(2, 3)
        row = NewVectorisation(diagram=1, dimension=0, measure=measure, vector=vector)
        writing.commit(store, Commit(vectorisations=[row]))
    assert problems(folder) == []
    return encode_array(vector)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_vectorisation_with_a_number_that_is_not_finite(folder, sample, vectorised, value):
    data = encode_array(np.array([[0.0, value]]))
    damage(folder / "store.sqlite", "UPDATE vectorisation SET vector = ?", parameters=(data,))
    what = f'vectorisation of run {sample.stuck}, dimension 0, {{"kind":"landscape"}}'
    assert only_problem(folder) == f"{what}: not all numbers are finite"


@pytest.mark.parametrize("length", [1, 5, 40, -1, -8, -48])
def test_a_vectorisation_whose_bytes_were_cut(folder, sample, vectorised, length):
    data = vectorised[:length]
    damage(folder / "store.sqlite", "UPDATE vectorisation SET vector = ?", parameters=(data,))
    assert only_problem(folder).endswith('{"kind":"landscape"}: its bytes are no array')


def test_a_batch_of_an_epoch_that_is_another_models(folder, sample):
    """Epoch 1 was opened for `tell` alone; a batch of `draw` cannot be of it."""
    with Store(folder, write=True) as store:
        writing.add_epoch(store, sample.alpha, "tell", model=sample.tell, batch_size=4, device_kind="cpu")
    assert problems(folder) == []
    damage(folder / "store.sqlite", "UPDATE batch SET epoch = 1 WHERE id = 1")
    assert only_problem(folder) == "batch 1: shape epoch 1 of draw was never opened in its experiment"


def test_a_batch_of_an_epoch_of_another_experiment(folder, sample):
    with Store(folder, write=True) as store:
        writing.add_epoch(store, sample.beta, "draw", model=sample.draw, batch_size=4, device_kind="cpu")
    damage(folder / "store.sqlite", "UPDATE batch SET epoch = 1 WHERE id = 1")
    assert only_problem(folder) == "batch 1: shape epoch 1 of draw was never opened in its experiment"


def test_a_distance_between_diagrams_of_two_models(folder, sample):
    with Store(folder, write=True) as store:
        other = writing.add_model(store, "embed2", "fingerprint of embed2", {})
        measure = writing.add_measure(store, {"kind": "wasserstein"})
        for run, model in ((sample.noisy, sample.embed), (sample.noisy, other)):
            diagram = NewDiagram(
                run=run, model=model, settings=SETTINGS, settings_digest="settings", num_points=2,
                num_unique=2, bars={0: np.array([[0.0, 1.0]])},
            )  # fmt: skip
            writing.commit(store, Commit(diagrams=[diagram]))
        writing.commit(store, Commit(distances=[NewDistance(1, 2, 0, measure, 0.5)]))
    assert problems(folder) == []
    with Store(folder, write=True) as store:
        writing.commit(store, Commit(distances=[NewDistance(1, 3, 0, measure, 0.5)]))
    told = (
        f"distance of runs {sample.stuck} and {sample.noisy}: their diagrams are of other models or settings"
    )
    assert only_problem(folder) == told


ONE_MORE = "has steps after it got stuck"


@pytest.mark.parametrize(
    ("made", "stuck", "told"),
    [
        ([1, "b", 1], (1, 2), []),
        (
            [1, "b", 1],
            None,
            ["stuck is recorded as not stuck, but its steps say entry step 1, period 2 steps"],
        ),
        ([1, "b", 1, "b"], (1, 2), [ONE_MORE]),
        ([1, "b", 2, "b"], (2, 2), []),
        ([1, "b", 2, "b", 2], (2, 2), [ONE_MORE]),
        ([1, "b", 2, "c"], None, []),
    ],
)
def test_from_the_last_change_of_a_shape_on_states_tell_whether_a_run_is_stuck(
    folder, sample, made, stuck, told
):
    """From step 2 on drawings are of another epoch: the first state that counts is that of step 1."""
    content = [picture(part) if isinstance(part, int) else part for part in made]
    with Store(folder, write=True) as store:
        writing.add_epoch(store, sample.alpha, "draw", model=sample.draw, batch_size=4, device_kind="cpu")
        session = writing.start_session(store, sample.alpha, "x", {})
        models = (sample.draw, sample.tell)
        commit = steps(store, session, models, sample.untouched, "untouched", content)
        for place in range(2, len(made), 2):
            commit.batches[place] = dataclasses.replace(commit.batches[place], epoch=1)
        if stuck:
            commit.stuck.append(NewStuck(run=sample.untouched, entry_step=stuck[0], period=stuck[1]))
        writing.commit(store, commit)
    assert problems(folder) == [f"run {sample.untouched}: {problem}" for problem in told]


NO_ROUNDS = "repeated is recorded, but models are repeatable, or these are no whole rounds"
OTHERWISE = "repeated {} times is recorded, but its steps do not say so"
ROUNDS = [1, "b", 2, "c", 2, "c", 2, "c"]


@pytest.mark.parametrize(
    ("made", "record", "told"),
    [
        (ROUNDS, (2, 2, 3), []),
        (ROUNDS, (2, 2, 2), [OTHERWISE.format(2)]),
        (ROUNDS, (2, 2, 4), [OTHERWISE.format(4)]),
        (ROUNDS, (4, 2, 2), []),
        (ROUNDS, (3, 2, 2), [OTHERWISE.format(2)]),
        (ROUNDS, (0, 4, 2), [OTHERWISE.format(2)]),
        (ROUNDS, (2, 1, 6), [NO_ROUNDS]),
        (ROUNDS, (2, 3, 2), [NO_ROUNDS]),
        ([1, "b", 2, "c", 2, "d", 2, "c"], (2, 2, 3), [OTHERWISE.format(3)]),
        ([1, "b", 1, "b", 1, "b"], (0, 2, 3), []),
        (ROUNDS, None, []),
    ],
)
def test_a_run_that_was_ended_as_repeated_repeats_itself_as_often(folder, sample, made, record, told):
    """Its model is not repeatable; that of the same name in the other experiment is."""
    content = [picture(part) if isinstance(part, int) else part for part in made]
    damage(folder / "store.sqlite", f"UPDATE run SET max_length = 9 WHERE id = {sample.untouched}")
    with Store(folder, write=True) as store:
        model = writing.add_model(store, "tell", "fingerprint of a server", {})
        session = writing.start_session(store, sample.alpha, "x", {})
        models = (sample.draw, sample.tell)
        writing.commit(store, steps(store, session, models, sample.untouched, "untouched", content))
        with store.transaction() as connection:
            connection.execute("DELETE FROM stuck")
            connection.execute("UPDATE model SET is_repeatable = 0 WHERE id = ?", (model,))
            for table, of in (("epoch", "experiment"), ("batch", "session")):
                where = sample.alpha if of == "experiment" else (1, session)
                placed = f"= {where}" if of == "experiment" else f"IN {where}"
                connection.execute(
                    f"UPDATE {table} SET model = ? WHERE model = ? AND {of} {placed}", (model, sample.tell)
                )
            if record:
                connection.execute("INSERT INTO repeated VALUES (?, ?, ?, ?)", (sample.untouched, *record))
    assert problems(folder) == [f"run {sample.untouched}: {problem}" for problem in told]


def test_models_that_are_repeatable_repeat_nothing_and_others_are_never_stuck(folder, sample):
    damage(folder / "store.sqlite", f"INSERT INTO repeated VALUES ({sample.shared}, 0, 2, 2)")
    damage(folder / "store.sqlite", "UPDATE run SET max_length = 4 WHERE seed = 7")
    assert only_problem(folder) == f"run {sample.shared}: {NO_ROUNDS}"
    damage(folder / "store.sqlite", "DELETE FROM repeated")
    damage(folder / "store.sqlite", "UPDATE model SET is_repeatable = 0 WHERE name = 'draw'")
    told = f"run {sample.stuck}: stuck is recorded, but its models are not repeatable"
    assert only_problem(folder) == told
    with Store(folder) as store:
        assert check.check(store, sample.beta) == []
        assert check.check(store, run=sample.noisy) == []
        assert check.check(store, run=sample.stuck) == [told]


def test_a_text_that_is_gone_is_another_one(folder, sample):
    damage(folder / "store.sqlite", "UPDATE output SET text = NULL WHERE text = 'c'")
    assert f"text {text_digest('c').hex()}: its content is another text" in problems(folder)


def test_a_run_of_an_arm_that_nobody_knows_is_told_once(folder, sample):
    damage(folder / "store.sqlite", f"UPDATE run SET arm = 'swap' WHERE id = {sample.stuck}")
    assert only_problem(folder) == f"run {sample.stuck}: its arm is not known in its experiment"


def test_of_a_run_whose_arm_nobody_knows_it_is_not_judged_whether_it_is_stuck(folder, sample):
    damage(folder / "store.sqlite", f"UPDATE run SET arm = 'swap' WHERE id = {sample.stuck}")
    damage(folder / "store.sqlite", "UPDATE stuck SET period = 4")
    assert only_problem(folder) == f"run {sample.stuck}: its arm is not known in its experiment"


def test_a_model_that_is_not_repeatable_in_one_experiment_is_judged_in_the_other(folder, sample):
    """There another model has its name."""
    with Store(folder, write=True) as store, store.transaction() as connection:
        connection.execute(
            "INSERT INTO model (name, fingerprint, spec, is_repeatable) VALUES ('x', 'x', '{}', 0)"
        )
        connection.execute("UPDATE epoch SET model = (SELECT max(id) FROM model)"
                           " WHERE experiment = ? AND name = 'tell'", (sample.alpha,))  # fmt: skip
        connection.execute("UPDATE batch SET model = (SELECT max(id) FROM model)"
                           " WHERE session = 1 AND model = ?", (sample.tell,))  # fmt: skip
        connection.execute("DELETE FROM stuck")
        connection.execute("INSERT INTO stuck VALUES (?, 0, 2)", (sample.shared,))
    told = "stuck is recorded as entry step 0, period 2 steps, but its steps say not stuck"
    assert only_problem(folder) == f"run {sample.shared}: {told}"


def test_what_a_batch_and_an_epoch_may_have_at_most(folder, sample):
    damage(folder / "store.sqlite", "UPDATE epoch SET batch_size = 65536, threads = 1024")
    damage(folder / "store.sqlite", "UPDATE batch SET padded_size = 65536")
    assert problems(folder) == []
    damage(folder / "store.sqlite", "UPDATE epoch SET threads = 1025")
    assert len(problems(folder)) == 3  # of two experiments in the same words
    with Store(folder) as store:
        assert check.check(store, sample.alpha) == []  # that concerns the files as a whole


def test_each_problem_is_told_once_and_errors_in_one_line(folder, sample):
    """A table that is gone is told of the file alone, whoever reads it."""
    damage(folder / "store.sqlite", "DROP TABLE repeated")
    with Store(folder, is_whole=False) as store:
        assert check.check(store) == [
            "store.sqlite: the table repeated is missing",
        ]
