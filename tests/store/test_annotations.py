"""Remarks: only ever added, targets checked, signed where git signs, written beside a driver that writes."""

from __future__ import annotations

import multiprocessing
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from panic.errors import NotFound, StoreReadOnly, UsageError
from panic.store import Commit, NewInvocation, NewOutput, Store, check, dump, reading, writing
from panic.store.annotations import (
    Marks,
    Target,
    add_tags,
    annotate,
    check_project,
    check_remark,
    check_tag,
    find_target,
    has_marks,
    list_annotations,
    mark_as_configured,
    marks,
    marks_of,
    remove_tags,
    run_target,
    verify_remarks,
)
from panic.store.codec import text_digest
from panic.store.records import NewIntervention
from panic.store.signing import Author, SigningError, identity, present_author, sign
from panic.store.tombstones import hide
from tests.rights import folder_of_others, without_rights
from tests.store.effort import counted
from tests.store.sample import Sample, batch, remark, steps

ME = Author(name="me <me@example.org>")
needs_ssh = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")


def test_a_target_that_is_not_there_is_refused(writer: Store, sample: Sample) -> None:
    """A remark on the experiment "no-such" was stored once."""
    no_such = [
        Target(kind="experiment", uid="no-such", name="x"),
        Target(kind="output", uid="no-such", name="x"),
        Target(kind="output", uid="ab" * 32, name="x"),
        Target(kind="run", uid="ab" * 8, name="x", run=99),
        Target(kind="session", uid="99", name="x"),
        Target(kind="training", uid="mine", name="x"),
        Target(kind="model", uid="x", name="x"),
    ]
    for target in no_such:
        with pytest.raises(NotFound, match=f"There is no {target.kind}"):
            annotate(writer, "comment", [(target, "lost")], ME)
    assert list_annotations(writer) == []


def test_what_can_be_remarked_on(writer: Store, sample: Sample) -> None:
    runs = {run.id: run for run in reading.runs(writer, "alpha")}
    digest = text_digest("b").hex()
    targets = [
        find_target(writer, "alpha"),
        find_target(writer, reading.experiment(writer, "beta").uid[:20]),
        find_target(writer, digest[:9].upper()),
        run_target("alpha", runs[sample.stuck]),
        Target(kind="session", uid="1", name="session 1"),
        Target(kind="training", uid="ab" * 32, name="training"),
    ]
    assert [target.kind for target in targets[:4]] == ["experiment", "experiment", "output", "run"]
    assert targets[2].uid == digest
    before = list(dump.dump(writer))
    assert annotate(writer, "comment", [(target, "seen") for target in targets], ME) == len(targets)
    assert {row.target for row in list_annotations(writer)} == {target.uid for target in targets}
    assert list(dump.dump(writer)) == before
    assert check.check(writer) == []
    with pytest.raises(NotFound, match="No experiment 'abc'"):
        find_target(writer, "abc")
    assert find_target(writer, digest).uid == digest
    with pytest.raises(NotFound, match="No experiment"):
        find_target(writer, digest[:7])


def test_the_last_remark_on_a_tag_or_label_holds_and_all_are_kept(writer: Store, sample: Sample) -> None:
    target, other = find_target(writer, "alpha"), find_target(writer, "beta")
    assert add_tags(writer, [target, other], ["good", "odd", "good"], ME) == 4
    assert add_tags(writer, [target, other], ["odd", "late"], ME) == 2
    assert remove_tags(writer, [target], ["odd"], ME) == 1
    for text in ("first", "second"):
        annotate(writer, "label", [(target, text)], ME)
    expected = {
        target.uid: Marks(tags=("good", "late"), label="second"),
        other.uid: Marks(tags=("good", "odd", "late")),
    }
    assert marks(writer, "experiment") == expected
    assert marks_of(list_annotations(writer, "experiment", target.uid)) == expected[target.uid]
    assert marks(writer, "run") == {}
    assert add_tags(writer, [target], ["odd"], ME) == 1
    annotate(writer, "label", [(target, "")], ME)
    assert marks(writer, "experiment")[target.uid] == Marks(tags=("good", "late", "odd"))
    kinds = [row.kind for row in list_annotations(writer, "experiment", target.uid)]
    assert kinds == ["tag", "tag", "tag", "untag", "label", "label", "tag", "label"]


def test_taking_away_what_is_not_there_names_the_nearest_and_takes_nothing(
    writer: Store, sample: Sample
) -> None:
    target = find_target(writer, "alpha")
    with pytest.raises(NotFound) as raised:
        remove_tags(writer, [target], ["x"], ME)
    assert raised.value.hint == "It has no tags."
    add_tags(writer, [target], ["baseline"], ME)
    with pytest.raises(NotFound) as raised:
        remove_tags(writer, [target], ["baseline", "baselime"], ME)
    assert raised.value.hint == "Did you mean baseline?"
    assert marks(writer, "experiment")[target.uid].tags == ("baseline",)


@pytest.mark.parametrize("tag", ["", "two words", "a,b", "-x", "x" * 65, "line\n", "\x1b[2J", "\ud800"])
def test_what_is_no_tag(tag: str) -> None:
    with pytest.raises(UsageError, match="is no tag"):
        check_tag(tag)
    assert check_tag("größer-als=3") == "größer-als=3"


def test_the_nearest_tag_is_told() -> None:
    with pytest.raises(UsageError) as raised:
        check_tag("-looks good, really")
    assert raised.value.hint == "For example looks-good-really."


def test_what_is_no_label_and_no_comment() -> None:
    for kind, text in (("label", "a\nb"), ("label", "x" * 201), ("comment", " \n"), ("comment", "a\0b")):
        with pytest.raises(UsageError):
            check_remark(kind, text)
    with pytest.raises(UsageError, match="UTF-8"):
        check_remark("comment", "\ud800")
    assert check_remark("comment", "a\nb") == "a\nb"
    assert check_remark("label", "") == ""


def test_borders_of_labels_comments_and_tags() -> None:
    assert check_remark("label", "x" * 200)
    assert check_remark("comment", "x" * 100_000)
    assert check_tag("x" * 64)
    with pytest.raises(UsageError, match="A comment has at most 100,000 characters, and this has 100,001"):
        check_remark("comment", "x" * 100_001)
    with pytest.raises(UsageError, match="A label has at most 200 characters, and this has 201"):
        check_remark("label", "x" * 201)
    with pytest.raises(UsageError, match="A label is one line") as raised:
        check_remark("label", "a\nb")
    assert raised.value.hint == "panic comment takes several."
    with pytest.raises(UsageError, match="A comment says something"):
        check_remark("comment", " \n")
    assert check_remark("label", " ") == " "
    for text in ("a\0b", "\ud800", "\udfff"):
        for kind in ("label", "comment"):
            with pytest.raises(UsageError, match="UTF-8"):
                check_remark(kind, text)
    assert check_remark("comment", "\ud7ff\ue000") == "\ud7ff\ue000"


@pytest.mark.parametrize(
    ("name", "near"),
    [("a b", "a-b"), ("-a", "a"), ("..", ""), ("größe", "gr-e"), ("a/b/", "a-b"), ("_a", "a"), ("", "")],
)
def test_what_is_no_name_of_a_project(name: str, near: str) -> None:
    assert check_project("A.b_c-9") == "A.b_c-9"
    with pytest.raises(UsageError, match="cannot be the name of a project") as raised:
        check_project(name)
    expected = f"For example {near}." if near and near != name else ""
    assert raised.value.hint in (expected, f"For example {near}.")
    assert bool(raised.value.hint) == bool(near)


def test_outputs_are_named_by_eight_digits_or_more_of_their_digest(writer: Store, sample: Sample) -> None:
    [(digest, modality)] = writer.db.rows("SELECT digest, modality FROM output WHERE text = 'b'")
    uid = digest.hex()
    for selector in (uid[:8], uid, f"image:{uid[:8]}", uid[:12].upper()):
        assert find_target(writer, selector) == Target(kind="output", uid=uid, name=f"{modality} {uid[:12]}")
    for selector in (uid[:7], f"{uid}0", f"x{uid[:8]}", "0" * 8):
        with pytest.raises(NotFound, match="No experiment"):
            find_target(writer, selector)
    for last in (0, 255):  # the smallest and the largest digest that begin so
        with writer.transaction() as connection:
            connection.execute(
                "INSERT INTO output (digest, modality, text) VALUES (?, 'text', ?)",
                (bytes.fromhex("ab" * 4) + bytes([last] * 28), f"{last}"),
            )
            which = "SELECT run, step FROM invocation ORDER BY run, step LIMIT 1 OFFSET ?"
            connection.execute(  # so that a run has it
                f"UPDATE invocation SET output = ? WHERE (run, step) = ({which})",
                (connection.last_insert_rowid(), last % 2),
            )
        if not last:
            assert find_target(writer, "ab" * 4).uid == "ab" * 4 + "00" * 28
    with pytest.raises(NotFound, match="Several outputs begin with 'abababab'"):
        find_target(writer, "abababab")
    assert find_target(writer, "ab" * 4 + "f").uid == "ab" * 4 + "ff" * 28


def test_marks_of_one_kind_are_not_those_of_another(writer: Store, sample: Sample) -> None:
    """Nor is what is listed: by kind, by target, or all."""
    alpha = find_target(writer, "alpha")
    text = find_target(writer, text_digest("b").hex())
    one = Target(kind="training", uid="ab" * 32, name="x")
    for target, tag in ((alpha, "a"), (text, "b"), (one, "c")):
        add_tags(writer, [target], [tag], ME)
        annotate(writer, "label", [(target, f"label {tag}")], ME)
    for target, tag in ((alpha, "a"), (text, "b"), (one, "c")):
        assert marks(writer, target.kind) == {target.uid: Marks(tags=(tag,), label=f"label {tag}")}
        assert [row.text for row in list_annotations(writer, target.kind)] == [tag, f"label {tag}"]
        assert list_annotations(writer, uid=target.uid) == list_annotations(writer, target.kind, target.uid)
        assert list_annotations(writer, target.kind, "other") == []
    assert len(list_annotations(writer)) == 6
    assert add_tags(writer, [alpha, text], ["a", "b"], ME) == 2
    assert remove_tags(writer, [alpha, text, one], ["a", "c"], ME) == 3
    with pytest.raises(NotFound, match="None has the tag 'zzz'") as raised:
        remove_tags(writer, [alpha, text], ["zzz"], ME)
    assert raised.value.hint == "Its tags are b."
    with pytest.raises(NotFound, match="alpha has no tag 'zzz'"):
        remove_tags(writer, [alpha], ["zzz"], ME)


def test_whether_any_target_has_marks_is_what_is_said_last(writer: Store, sample: Sample) -> None:
    alpha, beta = find_target(writer, "alpha"), find_target(writer, "beta")
    assert has_marks(writer, "experiment") == (False, False)
    add_tags(writer, [alpha, beta], ["a"], ME)
    annotate(writer, "label", [(alpha, "first")], ME)
    assert has_marks(writer, "experiment") == (True, True)
    assert has_marks(writer, "run") == (False, False)
    annotate(writer, "label", [(alpha, "")], ME)
    remove_tags(writer, [alpha], ["a"], ME)
    assert has_marks(writer, "experiment") == (False, True), "beta has one"
    remove_tags(writer, [beta], ["a"], ME)
    assert has_marks(writer, "experiment") == (False, False)


def test_ten_tags_are_named_where_another_one_is_meant(writer: Store, sample: Sample) -> None:
    target = find_target(writer, "alpha")
    add_tags(writer, [target], [f"{letter}{letter}" for letter in "abcdefghijkl"], ME)
    with pytest.raises(NotFound) as raised:
        remove_tags(writer, [target], ["zzz"], ME)
    assert raised.value.hint == f"Its tags are {', '.join(letter * 2 for letter in 'abcdefghij')}."


def test_a_config_without_tags_or_label_takes_none_away(writer: Store, sample: Sample) -> None:
    target = find_target(writer, "beta")
    add_tags(writer, [target], ["kept"], ME)
    perform(writer, sample.beta, ["kept"], None)
    perform(writer, sample.beta, [], "")
    assert len(list_annotations(writer)) == 1
    perform(writer, sample.beta, ["kept", "new"], "said")
    assert marks(writer, "experiment") == {target.uid: Marks(tags=("kept", "new"), label="said")}
    remove_tags(writer, [target], ["new"], ME)
    perform(writer, sample.beta, ["new"], "said")  # as before: what people said holds
    assert marks(writer, "experiment")[target.uid] == Marks(tags=("kept",), label="said")
    perform(writer, sample.alpha, ["a"], None)  # of another experiment it is the first
    assert marks(writer, "experiment")[find_target(writer, "alpha").uid] == Marks(tags=("a",))


def perform(store: Store, experiment: int, tags: list[str], label: str | None) -> None:
    """Say what a config says, and begin a session of it, as `panic run` does."""
    config = {"tags": tags, "label": label}
    mark_as_configured(store, experiment, config, ME)
    writing.start_session(store, experiment, "panic run", {}, config)


def test_what_people_said_holds_over_a_config_that_says_it_again(writer: Store, sample: Sample) -> None:
    target = find_target(writer, "alpha")
    perform(writer, sample.alpha, ["a", "b"], "first")
    perform(writer, sample.alpha, ["a", "b"], "first")
    assert len(list_annotations(writer)) == 3
    remove_tags(writer, [target], ["a"], ME)
    annotate(writer, "label", [(target, "better")], ME)
    perform(writer, sample.alpha, ["a", "b", "c"], "first")
    assert marks(writer, "experiment") == {target.uid: Marks(tags=("b", "c"), label="better")}
    perform(writer, sample.alpha, [], "another")
    assert marks(writer, "experiment")[target.uid].label == "another"


def test_a_config_that_goes_back_to_an_earlier_label_says_it_again(writer: Store, sample: Sample) -> None:
    target = find_target(writer, "alpha")
    for label in ("A", "B", "A"):
        perform(writer, sample.alpha, [], label)
        assert marks(writer, "experiment")[target.uid].label == label


def test_a_store_that_cannot_be_written_takes_no_remark(filled: tuple[Path, Sample]) -> None:
    with folder_of_others() as base:
        folder = base / "store"
        shutil.copytree(filled[0], folder)
        for path in (*folder.iterdir(), folder):
            path.chmod(0o555 if path.is_dir() else 0o444)
        refused = pytest.raises(StoreReadOnly, match="cannot be written")
        with without_rights(), Store(folder) as store, refused:
            remark(store, "alpha", "lost", kind="tag")


# --- several processes


def keep_tagging(folder: Path, name: str, number: int) -> None:
    with Store(folder) as store:
        target = find_target(store, "alpha")
        for place in range(number):
            add_tags(store, [target], [f"{name}-{place}"], Author(name=name))


@pytest.mark.slow
def test_two_processes_tag_while_a_third_writes(writer: Store, folder: Path, sample: Sample) -> None:
    """The driver commits runs meanwhile; nothing of either is lost, and nobody waits for the driver's end."""
    number, context = 40, multiprocessing.get_context("spawn")
    taggers = [context.Process(target=keep_tagging, args=(folder, name, number)) for name in ("one", "two")]
    session = writing.start_session(writer, sample.alpha, "x", {})
    for process in taggers:
        process.start()
    commits = 0
    while any(process.is_alive() for process in taggers) or commits < 5:
        digest = steps(writer, session, (sample.draw, sample.tell), sample.untouched, "untouched", [])
        digest.batches.append(batch(writer, session, sample.draw))
        writing.commit(writer, digest)
        commits += 1
    for process in taggers:
        process.join()
    assert [process.exitcode for process in taggers] == [0, 0]
    [found] = marks(writer, "experiment").values()
    assert sorted(found.tags) == sorted(
        f"{name}-{place}" for name in ("one", "two") for place in range(number)
    )
    assert writer.db.value("SELECT count(*) FROM batch WHERE session = ?", session) == commits
    assert check.check(writer) == []


@pytest.mark.slow
def test_half_a_million_tags_cost_a_listing_little(writer: Store, sample: Sample) -> None:
    """They are on runs and outputs mostly; what is on experiments is told without reading them."""
    uid = reading.experiment(writer, "alpha").uid
    with writer.transaction() as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000)"
            " INSERT INTO annotation (target_kind, target, kind, text, author, at)"
            " SELECT 'output', printf('%064x', i / 5), 'tag', 'tag-' || (i % 5), 'me', 0.0 FROM n"
        )
    remark(writer, "alpha", "good", kind="tag")
    with counted(writer) as thousands:
        assert marks(writer, "experiment") == {uid: Marks(tags=("good",))}
        assert len(list_annotations(writer, "experiment", uid)) == 1
    assert len(thousands) < 10  # one tag takes some, and half a million some millions


# --- signatures


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file), check=True)
    return file


def signers(path: Path, **keys: Path) -> Path:
    lines = [f"{name}@example.org {key.with_suffix('.pub').read_text()}" for name, key in keys.items()]
    path.write_text("".join(lines))
    return path


@needs_ssh
def test_a_signature_proves_who_said_it_and_fails_on_another_remark(
    folder: Path, sample: Sample, tmp_path: Path, key: Path
) -> None:
    me = Author(name="Me <me@example.org>", key=str(key))
    with Store(folder) as store:
        alpha, beta = find_target(store, "alpha"), find_target(store, "beta")
        add_tags(store, [alpha], ["good"], me)
        annotate(store, "comment", [(alpha, "mine"), (beta, "mine")], me)
        annotate(store, "comment", [(beta, "anybody's")], ME)
    allowed = signers(tmp_path / "allowed", me=key, you=key)
    with Store(folder) as store:
        found = verify_remarks(store, allowed)
        assert (found.signed, found.unsigned, found.problems) == (3, 1, [])
        others = verify_remarks(store, signers(tmp_path / "others", you=key))
        assert (others.signed, len(others.problems)) == (0, 3)
    changes = ["target = (SELECT uid FROM experiment WHERE name = 'beta')", "text = 'bad'", "kind = 'untag'"]
    changes += ["author = 'You <you@example.org>'", "at = at + 1", "target_kind = 'run'"]
    for change in changes:
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        with sqlite3.connect(copy / "store.sqlite") as connection:
            connection.execute(f"UPDATE annotation SET {change} WHERE id = 1")
        connection.close()
        with Store(copy) as store:
            found = verify_remarks(store, allowed)
        assert found.signed == 2, change
        [problem] = found.problems
        assert problem.startswith(("tag 1 on", "untag 1 on")), change
        shutil.rmtree(copy)


@needs_ssh
def test_a_signature_of_something_else_is_none_of_a_remark(key: Path, tmp_path: Path) -> None:
    """Such as one that git made of a commit, in its own namespace."""
    letter = tmp_path / "letter"
    letter.write_text("x")
    subprocess.run(("ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", key, letter), check=True)
    from panic.store.signing import verify

    allowed = signers(tmp_path / "allowed", me=key)
    signature = letter.with_suffix(".sig").read_text()
    assert verify(b"x", sign(b"x", str(key)), ME.name, time.time(), allowed) == ""
    assert verify(b"x", signature, ME.name, time.time(), allowed)
    assert verify(b"x", "no signature at all", ME.name, time.time(), allowed)


@needs_ssh
def test_what_cannot_be_signed_is_not_stored(writer: Store, sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(SigningError, match="could not be signed with"):
        add_tags(writer, [find_target(writer, "alpha")], ["x"], Author(name="me", key=str(tmp_path / "none")))
    assert list_annotations(writer) == []
    with pytest.raises(UsageError, match="cannot be read"):
        verify_remarks(writer, tmp_path / "none")


def test_authors_are_gits_or_user_and_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "settings"
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.chdir(tmp_path)
    settings.write_text("")
    name = present_author().name
    assert "@" in name
    assert "<" not in name
    monkeypatch.setenv("LOGNAME", "a\udcff")  # a name that is no UTF-8
    assert present_author().name.startswith("a\\udcff@")
    settings.write_text('[user]\nname = "A <B>\\n C"\nemail = a@example.org\nsigningkey = ~/key\n')
    assert present_author() == Author(name="A B C <a@example.org>")
    settings.write_text(settings.read_text() + '[gpg]\nformat = ssh\n[gpg "ssh"]\nprogram = /evil\n')
    assert present_author() == Author(name="A B C <a@example.org>", key="~/key")
    assert identity("A B C <a@example.org>") == "a@example.org"
    assert identity("me@host") == "me@host"


@pytest.mark.parametrize("role", ["prompt", "output", "intervention"])
def test_an_output_is_there_in_whatever_role_unless_all_that_has_it_is_deleted(
    writer: Store, sample: Sample, role: str
) -> None:
    """Two experiments have it, in this role alone."""
    new = NewOutput(digest=text_digest("new"), modality="text", text="new")
    writing.commit(writer, Commit(outputs=[new]))
    given = text_digest("a")
    for run in (sample.untouched, sample.shared):
        match role:
            case "prompt":
                with writer.transaction() as connection:
                    connection.execute(
                        "UPDATE run SET prompt = (SELECT id FROM output WHERE text = 'new') WHERE id = ?",
                        (run,),
                    )
            case "output":
                call = batch(writer, 1, sample.tell)
                made = NewInvocation(run, 5, given, new.digest, 1, call.id)
                writing.commit(writer, Commit(batches=[call], invocations=[made]))
            case _:
                put = NewIntervention(run, 0, 0, "text", given, new.digest, None, None)
                writing.commit(writer, Commit(interventions=[put]))
    target = Target(kind="output", uid=new.digest.hex(), name=f"text {new.digest.hex()[:12]}")
    for name in ("alpha", "beta"):
        assert find_target(writer, target.uid) == target
        assert annotate(writer, "comment", [(target, f"beside {name}")], ME) == 1
        hide(writer, reading.experiment(writer, name), "me")
    with pytest.raises(NotFound):
        find_target(writer, target.uid)
    with pytest.raises(NotFound, match="There is no output"):
        annotate(writer, "comment", [(target, "of nobody")], ME)


def test_a_config_says_what_the_last_session_of_its_own_experiment_had_otherwise(
    writer: Store, sample: Sample
) -> None:
    """An earlier session of alpha and the last one of all, of beta, had the same tag and label."""
    before = {"tags": ["t"], "label": "one"}
    for experiment, config in (
        (sample.alpha, before),
        (sample.alpha, {"tags": [], "label": "two"}),
        (sample.beta, before),
    ):
        writing.start_session(writer, experiment, "x", {}, config)
    mark_as_configured(writer, sample.alpha, before, ME)
    mark_as_configured(writer, sample.beta, before, ME)
    alpha, _ = reading.experiments(writer)
    assert [(row.target, row.kind, row.text) for row in list_annotations(writer)] == [
        (alpha.uid, "tag", "t"), (alpha.uid, "label", "one")
    ]  # fmt: skip
