"""What runs start from: images whose files change, and outputs of other experiments that are no prompts."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from panic import run
from panic.config import ExperimentConfig
from panic.config.labels import PromptLabels
from panic.config.prompt_origins import ImagePrompts, OutputPrompts, Where
from panic.engine.plan import check_config, load_config
from panic.engine.starts import Starts, _is_meant, given_images, missing_images
from panic.errors import ConfigError, StoreTooOld
from panic.extraction import inputs
from panic.store import Commit, NewRun, Store, contents, images, reading, writing
from panic.store.codec import image_digest, prompt_digest
from panic.store.records import RunRow
from tests.store.sample import fill, output, picture
from tests.store.test_migrate import build

CONFIG = (
    "name: x\nnetworks: [[blur]]\nprompts: [{images: a.png}]\nseeds: [1]\nmax_length: 1\ndevice: cpu\n"
    "executor: local\n"
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    (tmp_path / "x.yaml").write_text(CONFIG)
    return tmp_path / "x.yaml"


def test_an_image_that_changes_after_the_check_is_told(config: Path, tmp_path: Path) -> None:
    checked = check_config(config)
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="is another image than it was when the config was read"):
        run(checked, tmp_path / "store")
    run(check_config(config), tmp_path / "store")
    with Store(tmp_path / "store") as store:
        (one,) = reading.runs(store, "x")
        assert one.num_steps == 1


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_photo_is_upright_as_a_prompt_and_when_it_is_embedded(tmp_path: Path, is_damaged: bool) -> None:
    """Prompts came as they lay in their files, and damaged EXIF data ended an embedding with a traceback."""
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown, it is turned clockwise
    lying = Image.linear_gradient("L").resize((24, 16)).convert("RGB")
    lying.save(tmp_path / "a.jpg", exif=b"Exif\0\0damaged" if is_damaged else exif)
    with Image.open(tmp_path / "a.jpg") as stored:
        upright = stored.copy() if is_damaged else stored.transpose(Image.Transpose.ROTATE_270)
    assert (
        Starts(store=lambda named: tmp_path / "store").image(tmp_path, "a.jpg")
        == f"image:{image_digest(upright).hex()}"
    )
    [item] = inputs.list_images(str(tmp_path)).items
    assert inputs.read(item).digest == image_digest(upright)


def test_a_config_without_its_files_is_refused_before_anything_is_stored(
    config: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="in this store") as told:
        run(load_config(config), tmp_path / "store")
    assert "from its own file" in told.value.hint
    assert not (tmp_path / "store").exists()
    run(str(config), tmp_path / "store")
    run(load_config(config), tmp_path / "store")  # the store has the image now


def test_texts_that_look_like_images_are_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The words of a prompt are cut to one, which stands for an image that nobody has."""
    look = f"image:{'0' * 64}"
    values = {
        "name": "x",
        "networks": [["truncate"]],
        "models": {"truncate": {"base": "truncate", "words": 1}},
    }
    prompts = {"prompts": [f"{look} and more", "plain text"], "seeds": [1], "max_length": 1, "device": "cpu"}
    run(ExperimentConfig.model_validate(values | prompts), tmp_path / "store")
    starts = Starts(store=lambda named: tmp_path / "store")
    with caplog.at_level(logging.WARNING, "panic.engine"):
        assert starts.outputs(OutputPrompts(experiment="x"), None) == ["plain"]
    assert "run 1 of x: its text at step 0 cannot be a prompt" in caplog.text
    assert starts.outputs(OutputPrompts(experiment="x", where=Where(state="running")), None) == []
    with pytest.raises(ConfigError, match="No experiment"):
        starts.outputs(OutputPrompts(experiment="y"), None)


def test_a_text_with_a_nul_is_no_prompt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Store(tmp_path / "store", write=True, create=True) as store:
        sample = fill(store)
        with store.transaction() as connection:
            connection.execute("UPDATE output SET text = 'b' || char(0) || 'b' WHERE text = 'b'")
    starts = Starts(store=lambda named: tmp_path / "store")
    wanted = OutputPrompts(experiment="alpha", step=1, where=Where(prompt="a"))
    with caplog.at_level(logging.WARNING, "panic.engine"):
        assert starts.outputs(wanted, None) == ["c"]
    assert f"run {sample.stuck} of alpha: its text at step 1 cannot be a prompt" in caplog.text


def test_outputs_are_read_from_a_store_of_an_older_schema(tmp_path: Path) -> None:
    build(tmp_path / "store", "0004")
    found = Starts(store=lambda named: tmp_path / "store").outputs(OutputPrompts(experiment="demo"), None)
    assert found
    with pytest.raises(StoreTooOld):
        Store(tmp_path / "store")


def test_images_that_the_store_lacks_are_read_from_their_files(tmp_path: Path) -> None:
    """One that it has comes first, texts are none, and one that nobody has is refused."""
    here, there, lost, nowhere = (f"image:{image_digest(picture(number)).hex()}" for number in range(4))
    runs = [
        NewRun(network=("blur",), prompt=prompt, seed=1, max_length=1)
        for prompt in (here, "a text", there, there, lost, here)
    ]
    with Store(tmp_path / "store", write=True, create=True) as store:
        writing.commit(store, Commit(outputs=[output(picture(0)), output(picture(2))]))
        images.drop_images(store, [prompt_digest(lost)])
        files = {there: (tmp_path, "there.png")}
        assert missing_images(store, runs, files) == [there]
        with pytest.raises(ConfigError, match=f"there is no {nowhere[:18]}... in this store"):
            missing_images(store, [*runs, replace(runs[0], prompt=nowhere)], files)
        picture(1).save(tmp_path / "there.png")
        assert [row.digest for row in given_images([there], files)] == [prompt_digest(there)]


RUN = RunRow(
    id=1, experiment=1, network=("blur",), prompt="a", seed=1, repeat=2, max_length=1, num_steps=1,
    state="done", entry_step=None, period=None, failure=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("field", "its", "others"),
    [
        ("network", ["blur"], ["blur", "blur"]), ("prompt", "a", "b"), ("seed", 1, -1), ("repeat", 2, 0),
        ("state", "done", "stuck"),
    ],
)  # fmt: skip
def test_runs_are_meant_that_have_all_of_what_is_said(field: str, its: object, others: object) -> None:
    whole = {"network": ["blur"], "prompt": "a", "seed": 1, "repeat": 2, "state": "done"}
    for where, is_meant in (
        (whole | {field: its}, True),
        (whole | {field: others}, False),
        ({field: others}, False),
    ):
        wanted = OutputPrompts(experiment="x", where=Where.model_validate(where))
        assert _is_meant(RUN, wanted) is is_meant
    assert _is_meant(RUN, OutputPrompts(experiment="x"))


@pytest.mark.parametrize(("state", "is_meant"), [("failed", True), ("running", False), ("todo", False)])
def test_without_a_state_runs_that_have_ended_are_meant(state: str, is_meant: bool) -> None:
    assert _is_meant(replace(RUN, state=state), OutputPrompts(experiment="x")) is is_meant


def test_where_prompts_came_from_is_told_with_their_digests(config: Path, tmp_path: Path) -> None:
    run(check_config(config), tmp_path / "store")
    with Store(tmp_path / "store") as store:
        uid = reading.experiment(store, "x").uid
    starts = Starts(store=lambda named: tmp_path / "store")
    [image] = [starts.image(tmp_path, "a.png")]
    starts.note(ImagePrompts(images="a.png"), [image])
    wanted = OutputPrompts(experiment="x", step=0, where=Where(seed=1))
    [blurred] = starts.outputs(wanted, None)
    starts.note(wanted, [blurred])
    assert starts.lineage == [
        {"from": {"images": "a.png"}, "prompts": [{"digest": prompt_digest(image).hex(), "file": "a.png"}]},
        {
            "from": {"experiment": "x", "step": 0, "where": {"seed": 1}},
            "uid": uid,
            "prompts": [{"digest": prompt_digest(blurred).hex(), "run": 1, "step": 0}],
        },
    ]


@pytest.mark.timeout(20)
def test_a_pipe_of_prompts_is_not_opened_again_for_its_digest(tmp_path: Path) -> None:
    """It waited for somebody to write into it once more."""
    starts = Starts(store=lambda named: tmp_path / "store")
    os.mkfifo(tmp_path / "pipe.txt")
    starts.note_file(PromptLabels(), tmp_path / "pipe.txt", 3)
    assert starts.lineage == [{"from": {}, "num_prompts": 3}]
    (tmp_path / "file.txt").write_text("a red barn\n")
    starts.note_file(PromptLabels(), tmp_path / "file.txt", 1)
    noted = starts.lineage[-1]
    assert noted["sha256"] == sha256(b"a red barn\n").hexdigest()


def test_that_many_images_are_read_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("panic.engine.starts.MANY", 2)
    caplog.set_level(logging.INFO, "panic.engine")
    starts = Starts(store=lambda named: tmp_path / "store")
    for number, colour in enumerate(("red", "red", "blue", "lime")):
        Image.new("RGB", (2, 2), colour).save(tmp_path / f"{number}.png")
    told = []
    for number in range(4):
        starts.image(tmp_path, f"{number}.png")
        told.append(len(caplog.messages))
    assert told == [0, 0, 1, 1]
    assert [name for _, name in starts.files.values()] == ["0.png", "2.png", "3.png"], (
        "the first of equal ones"
    )


def test_what_is_no_image_to_start_from_is_told_in_words(tmp_path: Path) -> None:
    starts = Starts(store=lambda named: tmp_path / "store")
    (tmp_path / "a.png").write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match="it cannot be decoded as PNG"):
        starts.image(tmp_path, "a.png")
    with pytest.raises(ConfigError, match="No such file"):
        starts.image(tmp_path / "none", "a.png")
    with pytest.raises(ConfigError, match="latest is another experiment after each run") as told:
        starts.outputs(OutputPrompts(experiment="latest"), None)
    assert told.value.hint == "say its name"


def test_outputs_of_an_experiment_are_each_told_once_where_they_came_first(tmp_path: Path) -> None:
    with Store(tmp_path / "store", write=True, create=True) as store:
        fill(store)
    asked: list[Path | None] = []

    def store_of(named: Path | None) -> Path:
        asked.append(named)
        return tmp_path / "store"

    starts = Starts(store=store_of)
    found = starts.outputs(OutputPrompts(experiment="alpha"), tmp_path / "said")
    assert asked == [tmp_path / "said"]
    assert found
    assert len(found) == len(set(found)) == len(starts._steps)
    with Store(tmp_path / "store") as store:
        ended = [run.id for run in reading.runs(store, "alpha") if run.state not in ("todo", "running")]
        rows = contents.outputs_at(store, ended, None, None)
    assert starts._steps == {prompt: (run, step) for run, step, _, prompt in reversed(rows)}


def test_an_image_is_asked_for_once_and_read_as_it_was(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2), "red").save(tmp_path / "a.png")
    prompt = Starts(store=lambda named: tmp_path / "store").image(tmp_path, "a.png")
    files = {prompt: (tmp_path, "a.png")}
    [row] = given_images([prompt], files)
    assert (row.width, row.height, row.digest) == (2, 2, prompt_digest(prompt))
    Image.new("RGB", (2, 2), "blue").save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=r"a\.png is another image than it was"):
        list(given_images([prompt], files))
