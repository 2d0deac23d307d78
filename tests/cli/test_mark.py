"""`panic tag`, `untag`, `label`, `comment`, `--tag`, `tags:`: what is said, where it is shown, by whom."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from panic import find
from panic.errors import NotFound
from panic.store import Store
from panic.store.annotations import Target, annotate, list_annotations
from panic.store.signing import Author

from .conftest import Invoke, write_config

needs_ssh = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")


@pytest.fixture(autouse=True)
def author(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Git's settings of somebody, without those of whoever runs the tests."""
    settings = tmp_path / "gitconfig"
    settings.write_text("[user]\nname = Ann Author\nemail = ann@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return settings


def shown(panic: Invoke, *arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(panic("show", *arguments, "--json").stdout)
    return found


def test_what_is_said_of_an_experiment_is_shown_everywhere(panic: Invoke, store: Path) -> None:
    done = panic("tag", "demo", "baseline", "keep")
    assert (done.exit_code, done.stdout) == (0, "demo: tags baseline, keep\n")
    assert panic("tag", "demo", "keep").stdout == "demo: tags baseline, keep, as before\n"
    assert panic("label", "demo", "the [first] one").exit_code == 0
    assert panic("comment", "demo", "looks\nodd \x1b[2J").exit_code == 0
    assert panic("untag", "demo", "baseline").stdout == "demo: tags keep; label the [first] one; 1 comment\n"
    listed = {row["name"]: row for row in json.loads(panic("list", "--json").stdout)}
    assert (listed["demo"]["tags"], listed["demo"]["label"]) == (["keep"], "the [first] one")
    assert (listed["broken"]["tags"], listed["broken"]["label"]) == ([], None)
    assert "the [first] one" in panic("list").stdout
    found = shown(panic, "demo")
    assert [row["kind"] for row in found["remarks"]] == ["tag", "tag", "label", "comment", "untag"]
    assert {row["author"] for row in found["remarks"]} == {"Ann Author <ann@example.org>"}
    text = panic("show", "demo").stdout
    assert "\x1b" not in text
    assert "tags:             keep\n" in text
    assert "Ann Author <ann@example.org>  looks" in text
    assert "Ann Author" in panic("comment", "demo").stdout
    assert panic("export", "-o", "tables").exit_code == 0
    assert pl.read_parquet("tables/annotation.parquet")["kind"].to_list().count("tag") == 2


@pytest.mark.slow
def test_a_report_shows_what_is_said_and_obeys_none_of_it(panic: Invoke, store: Path) -> None:
    assert panic("tag", "demo", "keep").exit_code == 0
    assert panic("label", "demo", "the [first] one").exit_code == 0
    assert panic("comment", "demo", "<script>alert(1)</script>").exit_code == 0
    assert panic("report", "demo", "-o", "report.html").exit_code == 0
    page = Path("report.html").read_text()
    assert '<span class="badge">keep</span>' in page
    assert "the [first] one" in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_what_nobody_can_have_said_is_shown_and_stops_nothing(panic: Invoke, store: Path) -> None:
    """A store comes from anybody: times that are none, and origins that say nothing."""
    with Store(store, write=True) as opened, opened.transaction() as connection:
        [(uid,)] = opened.db.rows("SELECT uid FROM experiment WHERE name = 'demo'")
        connection.executemany(
            "INSERT INTO annotation (target_kind, target, kind, text, author, at, signature)"
            " VALUES ('experiment', ?, ?, ?, 'me <me@example.org>', ?, ?)",
            [(uid, "comment", "odd", at, "none") for at in (1e300, -1e300, float("inf"))]
            + [(uid, "origin", text, 1.0, None) for text in ("[]", "3", "{", '{"name": 3}')],
        )
    for command in (["show", "demo"], ["comment", "demo"], ["report", "demo", "-o", "report.html"]):
        assert panic(*command).exit_code == 0, command
    assert "no time" in panic("comment", "demo").stdout
    Path("signers").write_text("me@example.org ssh-ed25519 AAAA\n")
    done = panic("check", "--allowed-signers", "signers")
    assert done.exit_code == 1
    assert "its time is none" in done.output


def test_a_run_and_an_output_have_remarks_of_their_own(panic: Invoke, store: Path) -> None:
    done = panic("tag", "demo", "odd", "--run", 2)
    assert (done.exit_code, done.stdout) == (0, "run 2 of demo: tags odd\n")
    assert panic("label", "demo", "look here", "--run", 2).exit_code == 0
    assert [run["tags"] for run in shown(panic, "demo")["runs"]] == [[], ["odd"], [], [], [], []]
    assert shown(panic, "demo", "--run", 2)["label"] == "look here"
    assert "“look here”  [odd]" in panic("show", "demo").stdout
    assert "tags:             odd" in panic("show", "demo", "--run", 2).stdout
    assert shown(panic, "demo")["tags"] == []
    done = panic("tag", "demo", "odd", "--run", 7)
    assert (done.exit_code, "Its runs are 1 to 6." in done.stderr) == (2, True)
    image = next(step["output"] for step in shown(panic, "demo", "--run", 1)["steps"] if step["text"] is None)
    assert panic("comment", image[:12], "a circle").stdout == f"image {image[:12]}: 1 comment\n"
    assert "a circle" in panic("comment", image).stdout
    text = next(step["output"] for step in shown(panic, "demo", "--run", 1)["steps"] if step["text"])
    assert "Nothing was said of text" in panic("comment", text).stdout


def test_the_runs_that_a_filter_finds_are_marked_and_deleted(panic: Invoke, store: Path) -> None:
    stuck = [run["run"] for run in shown(panic, "demo")["runs"] if run["state"] == "stuck"]
    assert panic("tag", "demo", "odd", "--where", "state = stuck").stdout == f"{len(stuck)} runs\n"
    assert [run["run"] for run in shown(panic, "demo")["runs"] if run["tags"]] == stuck
    assert panic("comment", "demo", "--where", "state = stuck").stdout.count("tag: odd") == len(stuck)
    assert panic("tag", "demo", "x", "--where", "state = stuck", "--run", 1).exit_code == 2
    assert panic("tag", "demo", "x", "--where", "state = nothing").exit_code == 2
    assert panic("list", "--where", "'odd' in tags", "--json", "--runs").stdout.count('"name"') == len(stuck)
    assert (
        f"{len(stuck)} runs of demo are" in panic("delete", "demo", "--where", "'odd' in tags", "-y").stdout
    )
    assert [run["tags"] for run in shown(panic, "demo")["runs"]] == [[]] * (6 - len(stuck))
    assert "odd" not in panic("list", "--runs", "--columns", "tags").stdout
    assert panic("undelete", "demo").exit_code == 0
    assert len([run for run in shown(panic, "demo")["runs"] if run["tags"]]) == len(stuck)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tag", "demmo", "x"), "Did you mean demo?"),
        (("tag", "demo", "two words"), "For example two-words."),
        (("untag", "demo", "x"), "It has no tags."),
        (("label", "demo", "a\nb"), "A label is one line."),
        (("label", "demo", "x" * 201), "at most 200 characters"),
        (("comment", "demo", ""), "A comment says something."),
        (("tag", "./nothing", "x"), "is the folder of no training"),
        (("tag", "checkpoints/\udcff", "x"), "is the folder of no training"),
        (("tag", "", "x"), "No experiment ''"),
        (("tag", "/", "x"), "is the folder of no training"),
    ],
)
def test_mistakes_have_an_answer_and_nothing_is_stored(
    panic: Invoke, store: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = panic(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output
    with Store(store) as opened:
        assert opened.db.value("SELECT count(*) FROM annotation") == 0


def test_a_config_and_options_give_tags_once(panic: Invoke, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    config.write_text(config.read_text() + "tags: [a, b]\nlabel: from the config\n")
    done = panic("run", config, "--tag", "c", "--tag", "a")
    assert done.exit_code == 0, done.output
    assert shown(panic, "demo")["tags"] == ["a", "b", "c"]
    assert shown(panic, "demo")["label"] == "from the config"
    assert panic("untag", "demo", "a").exit_code == 0
    assert panic("run", config, "--label", "from the command").exit_code == 0
    assert panic("resume", "demo").stdout == "demo is complete.\n"
    found = shown(panic, "demo")
    assert (found["tags"], found["label"]) == (["b", "c"], "from the command")
    for wrong in ("tags: [a b]", "tags: [-x]", "tags: x", "label: ''"):
        config.write_text(config.read_text().split("tags:")[0] + wrong + "\n")
        done = panic("run", config)
        assert done.exit_code == 2
        assert "demo.yaml:" in done.stderr
    assert panic("run", write_config(tmp_path), "--tag", "a b").exit_code == 2


def test_tags_are_no_part_of_what_is_computed(panic: Invoke, tmp_path: Path) -> None:
    assert panic("run", write_config(tmp_path), "--store", "one").exit_code == 0
    assert panic("run", write_config(tmp_path), "--store", "two", "--tag", "x", "--label", "y").exit_code == 0
    dumps = [panic("dump", "--store", name).stdout for name in ("one", "two")]
    assert dumps[0] == dumps[1]


def test_a_training_in_a_folder_that_is_no_utf8_could_not_be_marked(panic: Invoke, store: Path) -> None:
    Path("checkpoints", "\udcff.training").mkdir(parents=True)
    Path("checkpoints", "\udcff.training", "recipe.json").write_text("{}")
    done = panic("tag", "checkpoints/\udcff", "good")
    assert done.exit_code == 0, done.output
    [row] = json.loads(panic("trainings", "--json").stdout)
    assert row["tags"] == ["good"]
    assert row["folders"] == [str(Path("checkpoints", "\\xff").absolute())]


def test_a_training_is_known_by_its_recipe(panic: Invoke, store: Path) -> None:
    for name in ("mine", "moved"):
        Path("checkpoints", f"{name}.training").mkdir(parents=True)
        recipe = {"task": "diffusion", "data_digest": "ab", "seed": 1}
        Path("checkpoints", f"{name}.training", "recipe.json").write_text(json.dumps(recipe))
    done = panic("tag", "checkpoints/mine", "good")
    assert done.exit_code == 0, done.output
    assert "(checkpoints/mine): tags good" in done.stdout
    assert panic("label", "checkpoints/mine.training/", "first try").exit_code == 0
    assert "tags good; label first try" in panic("tag", "checkpoints/moved", "good").stdout
    (row,) = json.loads(panic("trainings", "--json").stdout)
    assert (row["tags"], row["label"]) == (["good"], "first try")
    assert row["folders"] == [str(Path("checkpoints", name).absolute()) for name in ("mine", "moved")]
    assert "first try" in panic("trainings").stdout
    os.chdir("checkpoints")
    assert panic("tag", "mine", "here", "--store", store).exit_code == 0
    os.chdir("..")


@needs_ssh
def test_remarks_are_signed_where_git_signs_and_check_verifies_them(
    panic: Invoke, store: Path, author: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key), check=True)
    allowed = tmp_path / "allowed"
    allowed.write_text(f"ann@example.org {key.with_suffix('.pub').read_text()}")
    assert panic("tag", "demo", "unsigned").exit_code == 0
    author.write_text(author.read_text() + f"signingkey = {key}.pub\n[gpg]\nformat = ssh\n")
    assert panic("tag", "demo", "signed").exit_code == 0
    assert panic("comment", "demo", "on purpose", "--unsigned").exit_code == 0
    assert panic("run", write_config(tmp_path, "third"), "--tag", "t").exit_code == 0
    assert [row["is_signed"] for row in shown(panic, "demo")["remarks"]] == [False, True, False]
    assert ", signed  tag: signed" in panic("comment", "demo").stdout
    done = panic("check", "--allowed-signers", allowed)
    assert done.exit_code == 0, done.output
    assert "Remarks: 2 signed by whom they name, 2 by nobody." in done.stdout
    with Store(store, write=True) as opened, opened.transaction() as connection:
        connection.execute("UPDATE annotation SET text = 'forged' WHERE text = 'signed'")
    done = panic("check", "--allowed-signers", allowed, "--json")
    assert done.exit_code == 1
    (problem,) = json.loads(done.stdout)["problems"]
    assert "by Ann Author <ann@example.org>" in problem
    assert panic("check", "--allowed-signers", "none").exit_code == 2
    key.unlink()
    done = panic("tag", "demo", "again")
    assert done.exit_code == 1
    assert "could not be signed" in done.stderr
    assert "--unsigned" in done.stderr


def test_an_experiment_moves_to_a_project_and_back(panic: Invoke, store: Path) -> None:
    assert "colours" in panic("project", "demo").stdout
    before = panic("dump").stdout
    assert panic("project", "demo", "night").exit_code == 0
    assert panic("project", "demo", "night").exit_code == 0  # said once
    assert panic("dump").stdout == before
    assert json.loads(panic("show", "demo", "--json").stdout)["project"] == "night"
    assert "night" in panic("show", "demo").stdout
    names = [row["name"] for row in json.loads(panic("list", "--project", "night", "--json").stdout)]
    assert names == ["demo"]
    rows = json.loads(panic("list", "--project", "colours", "--runs", "--columns", "name", "--json").stdout)
    assert {row["name"] for row in rows} == {"broken"}
    assert json.loads(panic("list", "--where", "project = night", "--json").stdout)[0]["name"] == "demo"
    with Store(store) as opened:
        said = [row.text for row in list_annotations(opened, "experiment") if row.kind == "project"]
    assert said == ["night"]
    assert panic("project", "demo", "").exit_code == 0
    assert json.loads(panic("show", "demo", "--json").stdout)["project"] == "colours"


def test_null_models_are_in_no_project_and_that_is_no_name_of_one(panic: Invoke, store: Path) -> None:
    """For `--project nope` the project "None" was offered."""
    assert panic("nulls", "demo", "shuffled").exit_code == 0
    done = panic("list", "--project", "nope")
    assert done.exit_code == 2
    assert "There are colours." in done.stderr


def test_what_is_no_project_is_told_with_the_nearest(panic: Invoke, store: Path) -> None:
    done = panic("list", "--project", "colurs")
    assert done.exit_code == 2
    assert "Did you mean colours?" in done.stderr
    done = panic("list", "--project", "it's")
    assert done.exit_code == 2
    done = panic("project", "demo", "no such name/")
    assert done.exit_code == 2
    assert "For example no-such-name." in done.stderr
    assert panic("project", "none", "night").exit_code == 2


def test_the_outputs_that_a_filter_finds_are_listed_and_marked(panic: Invoke, store: Path) -> None:
    rows = json.loads(panic("list", "--outputs", "--json").stdout)
    told = {row["text"] for row in rows if row["modality"] == "text"}
    assert told == {f"state {number}" for number in range(5)}
    assert {row["text"] for row in rows if row["modality"] == "image"} == {None}
    wanted = "text like 'state 3' or text = 'state 4'"
    assert panic("tag", "odd", "--of", "output", "--where", wanted).stdout == "2 outputs\n"
    found = json.loads(panic("list", "--outputs", "--where", "'odd' in tags", "--json").stdout)
    assert [row["text"] for row in found] == ["state 3", "state 4"]
    with Store(store) as opened:
        [row] = find(opened, "'odd' in tags and text ~ '3'", of="output", columns=["digest", "experiment"])
        made = opened.db.value(
            "SELECT count(*) FROM invocation JOIN output ON output.id = output WHERE text = 'state 3'"
        )
    assert row["experiment"] == ["demo"]
    assert panic("label", row["digest"][:8], "a label").exit_code == 0
    counted = panic("list", "--outputs", "--where", "label = 'a label'", "--columns", "invocations", "--json")
    assert json.loads(counted.stdout) == [{"invocations": made}]
    assert (
        panic("untag", "odd", "--of", "output", "--where", "label is null and 'odd' in tags").exit_code == 0
    )
    found = json.loads(panic("list", "--outputs", "--where", "'odd' in tags", "--json").stdout)
    assert [row["text"] for row in found] == ["state 3"]
    done = panic("list", "--outputs", "--where", "period > 2")
    assert (done.exit_code, "There is no field 'period'" in done.stderr) == (2, True)
    assert panic("list", "--outputs", "--project", "colours").exit_code == 2
    assert panic("tag", "odd", "--of", "output", "--where", "width > 4000").exit_code == 2


def test_outputs_of_what_was_deleted_are_not_found(panic: Invoke, store: Path) -> None:
    assert json.loads(panic("list", "--outputs", "--json").stdout)
    names = [row["name"] for row in json.loads(panic("list", "--json").stdout)]
    with Store(store, write=True) as opened, opened.transaction() as connection:
        connection.execute(
            "INSERT INTO output (digest, modality, text) VALUES (zeroblob(32), 'text', 'stray')"
        )
    told = json.loads(panic("list", "--outputs", "--json").stdout)
    assert "stray" not in {row["text"] for row in told}
    assert panic("tag", "0" * 64, "odd").exit_code == 2
    assert "state 0" in {row["text"] for row in told}
    stray = "(SELECT id FROM output WHERE text = 'stray')"
    stepped_in = (
        f"INSERT INTO intervention SELECT min(id), 0, 0, 'text', {stray}, {stray}, NULL, NULL FROM run"
    )
    begins = f"UPDATE run SET prompt = {stray} WHERE id = (SELECT max(id) FROM run)"
    for sql in (stepped_in, begins):  # what only steps in, or only begins, is found, too
        with Store(store, write=True) as opened, opened.transaction() as connection:
            connection.execute("DELETE FROM intervention")
            connection.execute(sql)
        listed = json.loads(panic("list", "--outputs", "--where", "text = stray", "--json").stdout)
        assert [row["text"] for row in listed] == ["stray"]
    digests = [row["digest"] for row in json.loads(panic("list", "--outputs", "--json").stdout)]
    for name in names:
        assert panic("delete", name, "-y").exit_code == 0
    assert json.loads(panic("list", "--outputs", "--json").stdout) == []
    for digest in digests:  # by its digest one could still be tagged
        done = panic("tag", digest, "odd")
        assert (done.exit_code, "No experiment" in done.stderr) == (2, True), done.output
    it = Target(kind="output", uid=digests[0], name="it")
    with Store(store) as opened, pytest.raises(NotFound):
        annotate(opened, "tag", [(it, "odd")], Author(name="me"))
    assert panic("tag", "odd", "--of", "output", "--where", "modality = text").exit_code == 2
    assert panic("undelete", names[0]).exit_code == 0
    [digest, *_] = [row["digest"] for row in json.loads(panic("list", "--outputs", "--json").stdout)]
    assert panic("tag", digest, "odd").exit_code == 0
