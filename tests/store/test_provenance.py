"""Provenance is complete, small and without secrets."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from panic.cli.logs import logging_command
from panic.errors import UsageError
from panic.store import Store, writing
from panic.store.provenance import (
    PATCH_LIMIT,
    PATCH_MARGIN,
    energy_used,
    git_state,
    gpu_energy_j,
    hardware,
    packages,
    processor,
    provenance,
    redacted,
    short_paths,
    source_digest,
    trained_step,
    training_of,
    training_uid,
    uncommitted,
    vector_instructions,
    without,
    without_keys,
    without_tokens,
)


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("one\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_it_is_json_with_everything(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "sesame")
    found = provenance()
    text = json.dumps(found)
    assert "sesame" not in text
    assert found["packages"]["numpy"]
    assert found["hardware"]["num_cpus"] >= 1
    assert found["hardware"]["memory_bytes"] > 1e8
    assert {"command", "host", "python", "git", "source_digest", "environment"} <= set(found)


def test_secrets_are_left_out():
    environment = {
        "HF_TOKEN": "hf_abc",
        "aws_secret_access": "xyz",
        "DB_PASSWORD": "pw",
        "API_KEY": "k",
        "PROXY": "http://me:word@proxy.example:80/x",
        "HOME": "/home/me",
    }
    found = redacted(environment)
    assert set(found) == set(environment)
    assert found["HOME"] == "/home/me"
    assert found["PROXY"] == "http://(redacted)@proxy.example:80/x"
    for name in ("HF_TOKEN", "aws_secret_access", "DB_PASSWORD", "API_KEY"):
        assert found[name] == "(redacted)"


def test_a_clean_checkout(checkout):
    state = git_state(checkout)
    assert len(state["commit"]) == 40
    assert (state["dirty"], state["patch"], state["patch_is_complete"]) == (False, "", True)


def test_changes_are_kept_as_a_patch(checkout):
    (checkout / "code.py").write_text("two\n")
    state = git_state(checkout)
    assert state["dirty"]
    assert "-one\n+two\n" in state["patch"]


def test_a_checkout_that_is_looked_at_is_not_locked(checkout):
    """A session that was killed meanwhile left the lock of git's index behind, and nobody could commit."""
    before = (checkout / ".git" / "index").read_bytes()
    (checkout / "new.py").touch()
    for text in ("one\n", "two\n"):
        (checkout / "code.py").write_text(text)
        os.utime(checkout / "code.py", ns=(0, 0))  # else git has nothing to write
        assert ("+two" in git_state(checkout)["patch"]) == (text == "two\n")
        assert (checkout / ".git" / "index").read_bytes() == before


def test_a_long_patch_is_cut(checkout):
    (checkout / "code.py").write_text("x" * 2 * PATCH_LIMIT)
    state = git_state(checkout)
    assert len(state["patch"]) == PATCH_LIMIT
    assert not state["patch_is_complete"]


def test_the_half_of_a_secret_is_not_what_a_patch_ends_with(checkout, monkeypatch):
    """The value of a variable was looked for in what is kept of the patch, where it may be cut in two."""
    secret = "only words nobody would take for a key"
    monkeypatch.setenv("SERVICE_PASSWORD", secret)
    (checkout / "code.py").write_text("x")
    begin = git_state(checkout)["patch"].index("+x") + 1
    for known in range(1, len(secret) + 1, 9):
        text = "x" * (PATCH_LIMIT - begin - known)
        (checkout / "code.py").write_text(f"{text}{secret}{'x' * 99}")
        kept = git_state(checkout)["patch"]
        assert len(kept) == PATCH_LIMIT
        assert kept.endswith(f"x(redacted){'x' * 99}"[: known + 1])


def test_the_half_of_a_secret_that_only_the_config_names_ended_a_patch(checkout, monkeypatch):
    """It was cut out of what had been kept: the names of variables of endpoints look like nothing."""
    secret = "my own words that only the config knows of"
    monkeypatch.setenv("SOME_NAME", f" {secret}\n")
    (checkout / "code.py").write_text("x")
    begin = git_state(checkout)["patch"].index("+x") + 1
    for known in range(1, len(secret) + 1, 9):
        text = "x" * (PATCH_LIMIT - begin - known)
        (checkout / "code.py").write_text(f"{text}{secret}{'x' * 99}")
        kept = git_state(checkout, {"SOME_NAME"})["patch"]
        assert kept.endswith(f"x(redacted){'x' * 99}"[: known + 1])
        assert provenance({"SOME_NAME"}, checkout)["repository"]["patch"] == kept


@pytest.mark.parametrize(
    ("secret", "part"),
    [
        ("password = 'Tr0ub4dor&3-swordfish'", "Tr0"),
        ("https://me:swordfish@a.example/b", "swo"),
        ("hf_swordfishAbCdEfGhIjKlMn", "swo"),
    ],
)
@pytest.mark.parametrize(
    "before",
    ["", "diff --git a/.env b/.env\n" + "+A=b\n" * 1800 + "diff --git a/x b/x\n"],
    ids=["", "shorter"],
)
def test_the_half_of_a_secret_that_a_pattern_finds_ended_a_patch(secret, part, before):
    """Also of one that lies behind the limit, until what stands before it is left out."""
    limit = 10_000
    for end in (limit, limit + PATCH_MARGIN):
        for known in range(1, len(secret) + 1, 2):
            filled = before + "+ x y\n" * ((end - known - len(before)) // 6)
            text = filled + " " * (end - known - len(filled)) + secret + "\n+ x y" * 2_000
            kept = without_keys(text, limit)
            assert part not in kept
            assert limit - len(before) - len(secret) < len(kept) <= limit


def test_a_secret_that_begins_with_another_one_is_left_out_as_a_whole():
    assert without("correct-horse-battery", ["correct-horse", "correct-horse-battery"]) == "(redacted)"


def test_no_checkout(tmp_path, checkout):
    inside = checkout / "environment"
    inside.mkdir()
    (inside / "module.py").touch()
    assert git_state(inside) is None  # it lies in a checkout, but is no part of it
    assert git_state(tmp_path / "missing") is None


def test_the_source_digest_is_stable():
    assert source_digest() == source_digest()
    assert "pytest" in packages()


def test_packages_are_those_that_their_metadata_name(monkeypatch, tmp_path):
    """Of a file only its header counts; what an installation left behind has no name."""
    files = {
        "one-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: One.Two\nVersion: 1.0+cpu \n\nName: text\n",
        "old.egg-info/PKG-INFO": "Name: old\nVersion: 3\n",
        "left-2.dist-info/METADATA": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert packages.__wrapped__() == {"One.Two": "1.0+cpu", "old": "3"}


def test_names_and_values_that_are_not_utf8_are_shown(monkeypatch, tmp_path):
    """The operating system gives bytes; what is no UTF-8 among them must not end in the store as an error."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NAME", os.fsdecode(b"J\xfcrgen \xc3\xa9"))
    monkeypatch.setattr(sys, "argv", ["panic", os.fsdecode(b"\xff.yaml")])
    found = provenance()
    assert found["environment"]["NAME"] == "J\\xfcrgen \u00e9"
    assert found["command"] == ["panic", "\\xff.yaml"]
    assert found["folder"].endswith("/caf\\xe9")
    json.dumps(found, ensure_ascii=False).encode()


def test_a_deleted_working_folder_and_a_file_that_vanishes_stop_nothing(monkeypatch, tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert provenance()["folder"] is None
    package = tmp_path / "package" / "store"
    package.mkdir(parents=True)
    (package / "here.py").write_text("1")
    monkeypatch.setattr("panic.store.provenance.__file__", str(package / "here.py"))
    before = source_digest()
    (package / "broken.py").symlink_to(package / "nowhere")
    assert source_digest() != before


BLOCK = (
    "-----BEGIN PRIVATE KEY-----\n+MIIEvQIBADANBgkqhkiG9w0\n+swordfish8f3k2j4h5\n+-----END PRIVATE KEY-----"
)
FILE = "diff --git a/deploy/.netrc b/deploy/.netrc\n+machine a.example login me password swordfish1\n"


@pytest.mark.parametrize(
    "line",
    [
        "+SECRET_KEY = 'django-insecure-swordfish8f3k2j4h5g6f7d8s9a0'",
        "+aws_secret_access_key = swordfishwJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1",
        "+access_key: 9f8e7d6cswordfish5b4a39281706",
        "+private_key = 'abc123swordfishdef456ghi789'",
        "+client_secret_value=1234567890swordfish",
        '+  "token_v2": "8c9dswordfish0e1f2a3b4c5d6e7f"',
        "+password = 'correct-horse-battery-swordfish'",
        "+password = 'it isn\\'t swordfish'",
        "+passphrase: correct horse battery swordfish",
        "+DB_PASSWORD=swordfish17",
        '+os.environ["API_KEY"] = "open-swordfish"',
        "+token = (\n+    b'open-swordfish'",
        "+<password>swordfish17</password>",
        "+curl --auth-token open1swordfish",
        "+Authorization: Bearer swordfishhbGciOiJIUzI1NiJ9",
        "+Authorization: Basic bWU6swordfish==",
        f"+{BLOCK}",
        FILE,
        "+github: gho_swordfishC7e42F292c6912E7710c838347Ae178B4a",
        "+AIzaSyD-9swordfishtSrke72PouQMnMX-a7eZSW0jkFMBWY",
        "+x = eyJhbGciOiJIUzI1NiJ9.swordfishJzdWIiOiIx.dozjgNryP4J3j",
        "+https://hooks.slack.com/services/T01/B02/swordfish",
        "+value('7Gh2kQ9swordfishxVb4TzR8mWp1LdYc6NfJs3A0uE')",
        "+url = 'https://me:open@swordfish@a.example/b'",
        '+os.environ.setdefault("API_KEY", "open1swordfish")',
        "+ENV HF_TOKEN open1swordfish",
        "+set -x API_KEY open1swordfish",
        "+machine a.example login me password swordfish17",
        "+curl -u me:swordfish17 https://a.example",
    ],
)
def test_usual_forms_of_secrets_were_kept_in_the_stored_patch(line):
    assert "swordfish" not in without_keys(line)
    assert without_keys(f"+before\n{line}\n").startswith("+before\n")


@pytest.mark.parametrize(
    "line",
    [
        "+password = some_function(row)",
        "+tokenizer: bert-base-uncased-model",
        '+author = "Somebody Else"',
        '+parser.add_argument("--token", help="where it stands")',
        "+docker run --user 1000:1000 -e PLACE=here image",
        "+env PYTHONPATH=. pytest tests/store",
        "+pip install git+https://a.example/me/tool@v1.2.3",
        "+keywords: [one, two, three, fourteen]",
        "+max_tokens: 1024",
        "+revision: 9f8e7d6c5b4a392817069f8e7d6c5b4a39281706",
        "+from panic.analysis.questions.Something2 import read_all_of_the_stored_Names4You",
        "+key: str = field(default='')",
    ],
)
def test_ordinary_changes_stay_in_the_stored_patch(line, monkeypatch):
    """Also where a variable of a harmless name has just that value."""
    monkeypatch.setenv("LAST_LINE", line.removeprefix("+"))
    assert without_keys(line) == line


def test_a_token_in_a_variable_with_a_harmless_name_was_kept():
    found = redacted({"OPTIONS": "--user me --password=open-swordfish1", "PLACE": "/opt/data/Models/v2"})
    assert found == {"OPTIONS": "--user me --password=(redacted)", "PLACE": "/opt/data/Models/v2"}


def test_addresses_of_notices_were_kept_by_whatever_else_ran_in_their_shell():
    """A config says which variables hold them; other experiments and trainings know nothing of that."""
    addresses = ("slack://swordfish/B/C", "tgram://bot/swordfish", " json://127.0.0.1:9/swordfish,ntfy://x")
    assert redacted({str(n): one for n, one in enumerate(addresses)}) == dict.fromkeys("012", "(redacted)")
    plain = {"A": "https://a.example/simple", "B": "unix:path=/run/bus", "C": "tcp://node7:2375", "D": "a: b"}
    assert redacted(plain) == plain


def test_a_token_in_a_command_line_was_kept(monkeypatch):
    token = "hf_swordfishAbCdEfGhIjKlMn"
    monkeypatch.setattr(sys, "argv", ["panic", "run", f"--set=models.x.url=https://me:{token}@a.example/b"])
    assert provenance()["command"][2] == "--set=models.x.url=https://(redacted)@a.example/b"
    assert without_tokens(f"panic run x.yaml --name {token}") == "panic run x.yaml --name (redacted)"


def test_a_token_in_a_command_line_was_kept_by_logs_imports_and_ends(monkeypatch, tmp_path):
    command = ["panic", "run", "--set=models.x.url=https://me:open-swordfish1@a.example/b"]
    monkeypatch.setattr(sys, "argv", command)
    with logging_command(tmp_path / "log", "info", stderr_level=logging.ERROR, what="x"):
        pass
    assert "x: panic run" in (tmp_path / "log").read_text()
    assert "swordfish" not in (tmp_path / "log").read_text()
    with Store(tmp_path / "store", write=True, create=True) as store:
        writing.start_session(store, writing.start_experiment(store, "x", {}), " ".join(command), {})
        assert "swordfish" not in store.db.value("SELECT command FROM session")


def test_long_lines_are_read_for_secrets_at_once():
    begun = time.thread_time()
    lines = ["key" * 50_000, "--key-" * 25_000, "-" * 150_000, "key" + "-" * 150_000, "a+B1" * 40_000]
    lines += ["env key " * 5_000, "-u a:" * 8_000, "x://" + "a@" * 20_000]
    for line in lines:
        without_keys(line)
    assert time.thread_time() - begun < 5


def test_what_is_told_of_changes(checkout):
    (checkout / "code.py").write_text("two\n")
    for number in range(120):
        (checkout / f"new{number:03d}.py").touch()
    state = git_state(checkout)
    assert state["root"] == str(checkout.resolve())
    assert state["changes"] == [" M code.py", *(f"?? new{number:03d}.py" for number in range(99))]
    assert state["patch_sha256"] == hashlib.sha256(state["patch"].encode()).hexdigest()
    assert state["patch_is_complete"]


def test_a_patch_is_complete_unless_it_is_cut_or_something_is_left_out(checkout):
    def patch(text):
        (checkout / "code.py").write_text(text)
        return git_state(checkout)

    length = len(patch("x" * 1000)["patch"]) - 1000
    most = patch("x" * (PATCH_LIMIT - length))
    assert (len(most["patch"]), most["patch_is_complete"]) == (PATCH_LIMIT, True)
    more = patch("x" * (PATCH_LIMIT - length + 1))
    assert (len(more["patch"]), more["patch_is_complete"]) == (PATCH_LIMIT, False)
    assert more["patch_sha256"] != most["patch_sha256"]
    assert PATCH_LIMIT == 262_144
    secret = patch("password = 'correct-horse-battery'\n")
    assert "(redacted)" in secret["patch"]
    assert not secret["patch_is_complete"]


def git_that_fails_at(word, folder, monkeypatch):
    """Put a git before the real one that fails at one of its commands."""
    (folder / "bin").mkdir(exist_ok=True)
    script = f'#!/bin/sh\ncase " $* " in *" {word} "*) exit 3;; esac\nexec {shutil.which("git")} "$@"\n'
    (folder / "bin" / "git").write_text(script)
    (folder / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def test_a_filter_of_the_repository_does_not_get_a_key(checkout, monkeypatch):
    """Git starts it to see whether a file has changed."""
    monkeypatch.setenv("SOME_NAME", "tahini")
    git(checkout, "config", "filter.look.clean", f"env > '{checkout}/seen'; cat")
    (checkout / ".gitattributes").write_text("code.py filter=look\n")
    (checkout / "code.py").write_text("two\n")
    assert provenance({"SOME_NAME"}, checkout)["repository"]["dirty"]
    seen = (checkout / "seen").read_text()
    assert "PATH=" in seen
    assert "tahini" not in seen
    (checkout / "seen").unlink()
    os.utime(checkout / "code.py", ns=(0, 0))  # else git knows already
    assert " M code.py" in uncommitted(checkout / "code.py", hidden={"SOME_NAME"})
    seen = (checkout / "seen").read_text()
    assert "PATH=" in seen
    assert "tahini" not in seen


def test_what_git_does_not_say_is_not_known(checkout, monkeypatch, tmp_path_factory):
    (checkout / "code.py").write_text("two\n")
    path = os.environ["PATH"]
    git_that_fails_at("status", tmp_path_factory.mktemp("a"), monkeypatch)
    state = git_state(checkout)
    assert (state["dirty"], state["changes"]) == (None, [])
    assert "+two" in state["patch"]
    with pytest.raises(UsageError, match="Whether all is committed is not known"):
        uncommitted(checkout / "code.py")
    monkeypatch.setenv("PATH", path)
    git_that_fails_at("diff", tmp_path_factory.mktemp("b"), monkeypatch)
    state = git_state(checkout)
    assert (state["dirty"], state["patch"], state["patch_is_complete"]) == (True, "", False)
    monkeypatch.setenv("PATH", path)
    git_that_fails_at("rev-parse", tmp_path_factory.mktemp("c"), monkeypatch)
    assert git_state(checkout) is None
    assert uncommitted(checkout / "code.py") is None


def test_the_users_repository_is_told_and_its_patch_once(checkout, monkeypatch):
    (checkout / "code.py").write_text("two\n")
    monkeypatch.chdir(checkout)
    found = provenance()
    assert found["repository"] == git_state(checkout)
    assert provenance(project=Path("/"))["repository"] is None
    package = checkout / "package" / "store"
    package.mkdir(parents=True)
    (package / "here.py").touch()
    git(checkout, "add", "package")
    monkeypatch.setattr("panic.store.provenance.__file__", str(package / "here.py"))
    same = provenance()
    assert same["git"]["root"] == same["repository"]["root"]
    assert "+two" in same["git"]["patch"]
    assert "patch" not in same["repository"]
    assert same["repository"].keys() | {"patch"} == same["git"].keys()


def test_what_is_not_committed(checkout, tmp_path_factory):
    file = checkout / "code.py"
    assert uncommitted(file) == []
    (checkout / "store").mkdir()
    (checkout / "store" / "x").touch()
    (checkout / "st[o]re").mkdir()
    assert uncommitted(file) == ["?? store/"]
    assert uncommitted(file, [checkout / "store", checkout / "none", tmp_path_factory.mktemp("else")]) == []
    assert uncommitted(file, [checkout / "st[o]re"]) == ["?? store/"]  # a path, and no pattern
    assert uncommitted(file, [checkout]) == ["?? store/"]
    (checkout / ".gitignore").write_text("store\nmine.yaml\n")
    git(checkout, "add", ".gitignore")
    git(checkout, "commit", "-m", "ignored")
    (checkout / "mine.yaml").touch()
    assert uncommitted(file) == []
    assert uncommitted(checkout / "mine.yaml") == [f"!! {checkout / 'mine.yaml'}"]
    file.write_text("two\n")
    assert uncommitted(checkout / "mine.yaml") == [" M code.py"]
    assert uncommitted(tmp_path_factory.mktemp("outside") / "x.yaml") is None
    fresh = tmp_path_factory.mktemp("fresh")
    git(fresh, "init")
    assert uncommitted(fresh / "x.yaml") is None


def test_a_models_folder_says_which_training_it_came_out_of(tmp_path):
    model, beside = tmp_path / "mine", tmp_path / "mine.training"
    assert training_of(model) is None
    model.mkdir()
    beside.mkdir()
    recipe = {"b": 1, "a": [2]}
    (beside / "recipe.json").write_text(json.dumps(recipe))
    uid = hashlib.sha256(b'{"a":[2],"b":1}').hexdigest()
    assert training_of(model) == training_uid(recipe) == uid
    for broken in ("[", "3", "{}"):
        (model / ".training.json").write_text(broken)
        assert training_of(model) == uid
    (model / ".training.json").write_text('{"training": "abc"}')
    assert training_of(model) == "abc"
    (beside / "recipe.json").unlink()
    (model / ".training.json").unlink()
    assert training_of(model) is None


def test_secrets_are_cut_out_wherever_they_stand():
    found = {"a-swordfish": ["x swordfish y", 3, None, ("swordfish",)], "b": {"c": "swordfish" * 2}}
    assert without(found, ["swordfish"]) == {
        "a-(redacted)": ["x (redacted) y", 3, None, ("swordfish",)],
        "b": {"c": "(redacted)(redacted)"},
    }
    assert without("12345678 1234567", ["12345678", "1234567"]) == "(redacted) 1234567"
    assert without("a b", []) == "a b"


def test_the_digest_of_the_source_is_of_names_and_contents(monkeypatch, tmp_path):
    package = tmp_path / "package" / "store"
    package.mkdir(parents=True)
    (package / "b.py").write_text("1")
    (package.parent / "a.sql").write_text("22")
    (package.parent / "c.txt").write_text("333")
    monkeypatch.setattr("panic.store.provenance.__file__", str(package / "b.py"))
    assert source_digest() == hashlib.sha256(b"a.sql\x002\x0022" + b"store/b.py\x001\x001").hexdigest()


def test_texts_without_order_are_secrets_and_words_are_none():
    """One of each: the border is a number of bits for each character."""
    assert without_keys("+value('7Gh2kQ9sMnBvxVb4TzR8mWp1LdYc6NfJs3A0uE')") == "+value('(redacted)')"
    assert without_keys("+value('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaA1')").endswith("aaaA1')")


def test_what_hardware_is_told(monkeypatch, tmp_path):
    script = "#!/bin/sh\necho 'NVIDIA X, 81559 MiB, 550.1'\necho 'NVIDIA Y, 1 MiB, 550.1'\n"
    (tmp_path / "nvidia-smi").write_text(script)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = hardware()
    assert found["gpus"] == ["NVIDIA X, 81559 MiB, 550.1", "NVIDIA Y, 1 MiB, 550.1"]
    assert found["num_cpus"] == os.cpu_count()
    assert found["memory_bytes"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert hardware()["gpus"] == []
    if Path("/proc/cpuinfo").exists():
        assert vector_instructions() == tuple(sorted(vector_instructions()))
        flags = Path("/proc/cpuinfo").read_text()
        assert all(flag in flags for flag in vector_instructions())
        assert processor() in flags or "model name" not in flags


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("/home/me/models/x.safetensors", "x.safetensors"),
        ("local:/home/me/sd/", "local:sd"),
        ("python:/home/me/own.py:Own", "python:own.py:Own"),
        ('{"base": "local:/home/me/sd", "store": "/data/runs"}', '{"base": "local:sd", "store": "runs"}'),
        ("--store=/home/me/s (/tmp/a+b/c@d)", "--store=s (c@d)"),
        ("file:///home/me/a", "file://a"),
        ("https://host.org/a/b", "https://host.org/a/b"),
        ("http://127.0.0.1:8000/v1/chat", "http://127.0.0.1:8000/v1/chat"),
        ("a/b/c ./d/e ../f/g ~/h/i", "a/b/c ./d/e ../f/g ~/h/i"),
        ("/tmp or/and", "/tmp or/and"),
    ],
)
def test_of_absolute_paths_the_last_part_is_left(text, short):
    """Those behind `local:` and `python:` stood in pages that are passed on."""
    assert short_paths(text) == short


def test_energy_is_what_gpus_have_used_between_two_questions(monkeypatch):
    """A stand-in for the library of NVIDIA, which tells millijoules; whatever it cannot tell is left out."""
    library = types.ModuleType("pynvml")
    library.nvmlInit = library.nvmlDeviceGetUUID = lambda *index: f"GPU-{index}"
    library.nvmlDeviceGetCount = lambda: 2
    library.nvmlDeviceGetHandleByIndex = lambda index: index
    library.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 1500 * (handle + 1)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert gpu_energy_j() == {"GPU-(0,)": 1.5, "GPU-(1,)": 3.0}
    library.nvmlDeviceGetCount = lambda: 1 // 0
    assert gpu_energy_j() == {}
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_energy_j() == {}
    assert energy_used({"a": 1.0, "b": 2.0}, {"a": 3.4567, "c": 9.0}) == {"gpu_energy_j": {"a": 2.457}}
    assert energy_used({"a": 1.0}, {}) == {"gpu_energy_j": {}}
    assert energy_used({}, {"a": 1.0}) == {}


def test_a_models_folder_says_after_how_many_steps_it_was_written(tmp_path):
    assert trained_step(tmp_path, "abc") is None
    for content, step in (
        ('{"training": "abc", "step": 12}', 12),
        ('{"training": "other", "step": 12}', None),
        ('{"training": "abc"}', None),
        ('{"training": "abc", "step": "x"}', None),
        ('{"training": "abc", "step": null}', None),
        ("[1]", None),
        ("{", None),
    ):
        (tmp_path / ".training.json").write_text(content)
        assert trained_step(tmp_path, "abc") == step, content


def test_a_program_that_hangs_or_fails_has_said_nothing(monkeypatch, tmp_path):
    def git_says(script):
        (tmp_path / "git").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "git").chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SOME_NAME", "tahini")
    monkeypatch.setattr("panic.store.provenance.STATUS_TIMEOUT_S", 0.05)
    git_says(f'case " $* " in *" status "*) exec sleep 60;; *) echo {tmp_path};; esac')
    with pytest.raises(UsageError, match=r"git status failed in .*, or took too long") as raised:
        uncommitted(tmp_path / "x.yaml")
    assert raised.value.hint.startswith(f"git -C {tmp_path} status tells")
    git_says("echo half; exit 1")
    assert git_state(tmp_path) is None
    git_says("printf '\\377'")
    assert git_state(tmp_path)["commit"] == "\ufffd", "bytes that are no UTF-8 are shown"
    git_says(f'echo "$SOME_NAME|$*" >> {tmp_path}/asked')
    git_state(tmp_path, {"SOME_NAME"})
    asked = (tmp_path / "asked").read_text().splitlines()
    options = "--no-optional-locks -c diff.autoRefreshIndex=false -c core.fsmonitor=false"
    assert all(line.startswith(f"|{options} -C {tmp_path} ") for line in asked)
    assert [line.partition(f"-C {tmp_path} ")[2] for line in asked] == [
        "rev-parse HEAD",
        "ls-files --error-unmatch .",
        "rev-parse --show-toplevel",
        "status --porcelain",
    ], "without changes no difference is asked for"
