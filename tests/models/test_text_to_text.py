"""Language models: real classes with random weights, mates, seeds, the cache, stops, thinking, templates."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from panic import run
from panic.config import ExperimentConfig
from panic.errors import ModelError, OutputRejected
from panic.models import registry
from panic.models.table import TABLE
from panic.models.text_to_text import LanguageModel, without_thinking
from panic.store import Store, reading
from tests import tiny_language
from tests.models.conftest import TEXTS

Load = Callable[..., LanguageModel]
SLOW = pytest.mark.slow
KINDS = [pytest.param(kind, marks=[] if kind == "qwen3" else SLOW) for kind in tiny_language.CLASSES]
LONG = "a much longer text, which says the same thing again and again and never comes to its end " * 6
SAMPLED = {"do_sample": True, "temperature": 1.5, "top_k": 40, "top_p": 0.95}
SEEDS = [0, 1, 2**31, 3, 2**63 - 1, 5, 6, 7]
REAL = {
    "Qwen3-0.6B": "qwen3",
    "Qwen3-1.7B": "qwen3",
    "Qwen3-4B": "qwen3",
    "Gemma-3-270M": "gemma3",
    "Gemma-3-1B": "gemma3",
    "SmolLM3-3B": "smollm3",
    "Llama-3.2-1B": "llama",
    "flan-t5-base": "t5",
}
"""The entries of the table and the tiny one of their class."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    built: dict[Any, Path] = {}

    def build(kind: str, **options: Any) -> Path:
        key = (kind, *options.items())
        if key not in built:
            built[key] = tiny_language.build(kind, tmp_path_factory.mktemp(kind), **options)
        return built[key]

    return build


@pytest.fixture(scope="module")
def load(folders: Callable[..., Path]) -> Load:
    """A loaded language model: `load("qwen3", max_new_tokens=5)`."""

    def loaded(kind: str, dtype: str | None = None, **parameters: Any) -> LanguageModel:
        parameters = {"max_new_tokens": 12, **parameters}
        variants = {"it": {"base": f"local:{folders(kind)}", "dtype": dtype, **parameters}}
        model = registry.build(registry.resolve("it", variants))
        assert isinstance(model, LanguageModel)
        model.load("cpu")
        return model

    return loaded


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=SLOW)])
def test_a_text_does_not_depend_on_its_mates(load: Load, kind: str, dtype: str) -> None:
    """Other places, other mates, and mates that share the bucket and nearly double the length."""
    model = load(kind, dtype, **SAMPLED)
    bucket = model._reader.bucket
    of_one = [text for text in TEXTS if bucket(text) == bucket(TEXTS[0])]
    inputs = (of_one * 8)[:8]
    first = model.invoke(inputs, SEEDS)
    assert len(set(first)) > 3, "a model that is blind proves nothing"
    order = [3, 1, 7, 0, 5, 2, 4, 6]
    permuted = model.invoke([inputs[i] for i in order], [SEEDS[i] for i in order])
    assert permuted == [first[i] for i in order]
    longer = [TEXTS[0] + "!" * n for n in range(64) if bucket(TEXTS[0] + "!" * n) == bucket(TEXTS[0])]
    assert model.invoke([longer[-1]] * 2 + inputs[2:3] + [longer[-1]] * 5, SEEDS)[2] == first[2]


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_gives_the_tokens_that_there_are_without_it(load: Load, kind: str) -> None:
    """Prompts of several lengths in one batch: padding and position ids are right, in float32."""
    inputs = ["x", "a red circle", LONG, TEXTS[1]]
    for parameters in ({}, SAMPLED | {"repetition_penalty": 1.3}):
        model = load(kind, **parameters)
        assert model.invoke(inputs, SEEDS[:4]) == model.invoke(inputs, SEEDS[:4], use_cache=False)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_change_what_a_text_says(load: Load, kind: str) -> None:
    """Alone without padding by transformers itself, and beside a text of many times its length."""
    model = load(kind)
    ids = torch.tensor([model._reader.tokens(TEXTS[0])])
    plain = model._model.generate(input_ids=ids, do_sample=False, max_new_tokens=12, pad_token_id=0)
    begin = 0 if kind == "t5" else ids.shape[1]
    expected = model._reader.tokenizer.decode(plain[0, begin:], skip_special_tokens=True).strip()
    assert model.invoke([TEXTS[0], LONG], [0, 0])[0] == expected


@pytest.mark.parametrize("kind", ["qwen3", "t5"])
def test_samples_follow_their_own_seed_alone(load: Load, kind: str) -> None:
    texts = load(kind, **SAMPLED).invoke([TEXTS[0]] * 4, [1, 2, 1, 3])
    assert texts[0] == texts[2]
    assert len({texts[0], texts[1], texts[3]}) == 3
    torch.manual_seed(5)
    state = torch.get_rng_state()
    load(kind, **SAMPLED).invoke(TEXTS[:2], [1, 2])
    assert torch.equal(torch.get_rng_state(), state)


def test_an_answer_ends_before_its_stop_string(load: Load) -> None:
    free = load("llama", **SAMPLED, max_new_tokens=40).invoke(TEXTS, SEEDS)
    stop = free[0][5:7]
    assert free[0].index(stop) == 5
    model = load("llama", **SAMPLED, max_new_tokens=40, stop=["never found", stop])
    assert model.invoke(TEXTS, SEEDS) == [text.split(stop, 1)[0].strip() for text in free]
    (criterion,) = model._criteria(0, [False, False])
    ids = torch.tensor(
        [model._reader.tokenizer(text).input_ids for text in (f"ab{stop}", f"{stop[0]}b{stop[0]}b")]
    )
    assert criterion(ids, None).tolist() == [True, False], "and nothing is written after it"


def test_the_penalty_of_a_text_leaves_the_padding_out(load: Load) -> None:
    """Padding is the token 0 here, and often the one that ends a text: it must cost nothing."""
    model = load("qwen3", repetition_penalty=1.5)
    mask = torch.tensor([[0, 0, 1], [1, 1, 1]])
    chain = model._processors(
        [1, 2], type("Finite", (), {"__call__": lambda self, ids, scores: scores})(), mask
    )
    scores = chain(torch.tensor([[0, 0, 7], [0, 7, 7]]), torch.ones(2, 300))
    assert scores[0, 0] == 1
    assert scores[1, 0] == scores[0, 7] == pytest.approx(1 / 1.5)
    assert load("qwen3", repetition_penalty=3.0).invoke(TEXTS, SEEDS) != load("qwen3").invoke(TEXTS, SEEDS)


@pytest.mark.parametrize(
    ("text", "answer", "thinking"),
    [
        ("<think>a</think> b", " b", "a"),
        ("a</think>b", "b", "a"),  # begun by the template
        ("<think>a", "", "a"),  # never ended
        ("b <think>x</think>c<think>y</think>d", "b cd", "xy"),
        ("plain", "plain", ""),
    ],
)
def test_thinking_is_parted_from_the_answer(text: str, answer: str, thinking: str) -> None:
    assert without_thinking(text) == (answer, thinking)


def test_thinking_is_removed_and_counted(load: Load) -> None:
    model = load("qwen3", thinking=True, stop=["\n"])
    prompt = model._reader.tokens("text")
    assert model._reader.tokenizer.decode(prompt).endswith("[assistant]")
    model.thought_tokens = [0, 0]
    assert model._answer(0, "<think>one\ntwo</think>\n\nred", prompt, is_broken=False) == "red"
    assert model._answer(1, "one\ntwo</think>\n\nred\nblue", prompt, is_broken=False) == "red"
    assert model.thought_tokens == [7, 7]
    rejected = model._answer(0, "<think>one and", prompt, is_broken=False)
    assert isinstance(rejected, OutputRejected)
    assert "gave no answer" in rejected.message
    assert "<think>\n\n</think>" in load("qwen3")._reader.tokenizer.decode(load("qwen3")._reader.tokens("a"))


def test_thinking_that_the_template_has_opened_is_not_ended_by_a_stop_string(load: Load) -> None:
    model = load("qwen3", stop=["\n"])
    opened = model._reader.tokenizer("[assistant]<think>\n").input_ids
    texts = ["one\ntwo", "a</think>b\nc", "</think>\n\nbc"]
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(model._reader.tokenizer(text).input_ids) for text in texts], batch_first=True
    )
    (criterion,) = model._criteria(0, [model._is_opened(opened)] * 3)
    assert criterion(ids, None).tolist() == [False, True, False]
    model.thought_tokens = [0, 0]
    assert model._answer(1, texts[1], opened, is_broken=False) == "b"


def test_a_prompt_has_its_parts_in_their_order(load: Load) -> None:
    parts = {"system_prompt": "Be short.", "prompt": "Say {text} again.", "examples": [["a", "b"]]}
    reader = load("qwen3", **parts)._reader
    assert reader.tokenizer.decode(reader.tokens("c")).startswith(
        "[system]Be short.\n[user]Say a again.\n[assistant]b\n[user]Say c again.\n[assistant]"
    )
    reader = load("gpt2", **parts)._reader
    assert reader.tokenizer.decode(reader.tokens("c")) == "Be short.\n\nSay a again.\nb\n\nSay c again.\n"
    reader = load("t5", prompt="Rephrase:")._reader
    assert reader.tokenizer.decode(reader.tokens("c")) == "<s>Rephrase:\n\nc</s>"


def test_control_tokens_in_a_text_are_text(load: Load) -> None:
    """A loop must not be able to write itself another turn."""
    reader = load("qwen3")._reader
    ids = reader.tokens("a</s>b")
    assert reader.tokenizer.eos_token_id not in ids
    assert "a</s>b" in reader.tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ["smollm3", "llama"])
def test_a_template_that_writes_todays_date_writes_the_same_one_each_day(load: Load, kind: str) -> None:
    reader = load(kind)._reader
    assert re.search(r"01 Jan(uary)? 2025", reader.tokenizer.decode(reader.tokens("a")))


def test_a_template_without_system_prompts_says_so(load: Load) -> None:
    with pytest.raises(ModelError, match="its chat template refuses this: no system role"):
        load("gemma3", system_prompt="Be short.")


def test_a_text_that_does_not_fit_fails_alone(folders: Callable[..., Path]) -> None:
    folder = folders("gpt2", max_positions=64)
    model = registry.build(registry.resolve("it", {"it": {"base": f"local:{folder}", "max_new_tokens": 20}}))
    model.load("cpu")
    fits, too_long, also = model.invoke(["x" * 44, "x" * 45, "y" * 44], [1, 2, 3])
    assert isinstance(too_long, OutputRejected)
    assert "reads 44 tokens, and this text makes 45" in too_long.message
    assert isinstance(fits, str)
    assert isinstance(also, str)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"stop": "end"}, "stop should be a list of texts"),
        ({"stop": [""]}, "stop should be a list of texts"),
        ({"examples": [["a"]]}, "examples should be a list of pairs of texts"),
        ({"temperature": 0.5}, "temperature has no effect while do_sample is false"),
        ({"max_new_tokens": 0}, "max_new_tokens should be at least 1"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(parameters: dict[str, Any], told: str) -> None:
    problems = registry.check_config({"models": {"it": {"base": "Qwen3-0.6B", **parameters}}})
    assert [told in problem.message for problem in problems] == [True]


def test_each_entry_of_the_table_has_a_tiny_one() -> None:
    assert {name for name, spec in TABLE.items() if spec.adapter == "text-to-text"} == REAL.keys()


@pytest.mark.slow
def test_the_entries_of_the_table_are_taken_by_their_classes(
    load: Load, folders: Callable[..., Path]
) -> None:
    for name, kind in REAL.items():
        parameters = {key: value for key, value in TABLE[name].parameters.items() if value is not None}
        model = load(kind, TABLE[name].dtype, **parameters | {"max_new_tokens": 6})
        assert all(isinstance(text, str) and "Re" not in text for text in model.invoke(TEXTS[:2], [1, 2]))
        architecture = json.loads((folders(kind) / "config.json").read_text())["architectures"]
        assert architecture == [tiny_language.CLASSES[kind]]


def test_the_configuration_says_that_a_folder_writes(folders: Callable[..., Path], tmp_path: Path) -> None:
    """A GPT-2 folder was called an embedding model, and a T5 folder a captioner."""
    for kind in ("gpt2", "t5", "qwen3"):
        assert registry.resolve(f"local:{folders(kind)}").mapping == "text → text"
    for architecture, more, adapter in [
        ("GitForCausalLM", {"model_type": "git"}, "captioner"),
        ("Gemma3ForConditionalGeneration", {"model_type": "gemma3", "vision_config": {}}, "captioner"),
        ("BertModel", {"model_type": "bert"}, "text-embedder"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture], **more}))
        (tmp_path / "model.safetensors").write_text("x")
        assert registry.resolve(f"local:{tmp_path}").adapter == adapter


def test_a_network_of_language_models_is_performed(folders: Callable[..., Path], tmp_path: Path) -> None:
    models = {
        "say": {"base": f"local:{folders('qwen3')}", "max_new_tokens": 12, **SAMPLED},
        "tell": {
            "base": f"local:{folders('t5')}",
            "max_new_tokens": 12,
            "prompt": "Rephrase: {text}",
            **SAMPLED,
        },
    }
    config = ExperimentConfig.model_validate({
        "name": "x", "networks": [["say", "tell"], ["tell", "upper-case"]], "models": models,
        "prompts": ["a red circle", LONG], "seeds": [-1], "repeats": 2, "max_length": 4, "device": "cpu",
    })  # fmt: skip
    run(config, tmp_path / "store")
    with Store(tmp_path / "store") as store:
        states = [(one.state, one.num_steps) for one in reading.runs(store, 1) if one.state != "failed"]
        assert states == [("done", 4)] * len(states)
        assert len(states) >= 6, "a random model may write nothing that can be read now and then"


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    """The library makes one of nothing, to which every text is empty."""
    folder = tiny_language.build("qwen3", tmp_path / "qwen3")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    model = registry.build(registry.resolve("it", {"it": {"base": f"local:{folder}"}}))
    with pytest.raises(ModelError, match="there is no tokenizer in"):
        model.load("cpu")


def test_new_tokens_that_leave_no_room_for_a_text_are_told_before_anything_is_read(tmp_path: Path) -> None:
    for kind, told in (("qwen3", 1), ("gpt2", 1), ("t5", 0)):
        folder = tiny_language.build(kind, tmp_path / kind, max_positions=64)
        for tokens, number in ((64, told), (63, 0)):
            variant = {"base": f"local:{folder}", "max_new_tokens": tokens}
            problems = registry.check_config({"models": {"it": variant}})
            assert [problem.path for problem in problems] == [("models", "it", "max_new_tokens")] * number
            assert all("the model reads 64 tokens in all" in problem.message for problem in problems)


def test_a_broken_configuration_does_not_stop_the_check_of_a_config(
    folders: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders("qwen3"), tmp_path / "model"))
    (folder / "config.json").write_text('{"model_type": ')
    variant = {"base": f"local:{folder}", "adapter": "text-to-text", "max_new_tokens": 5}
    problems = registry.check_config({"models": {"it": variant, "other": {"base": "No-Model"}}})
    assert any("No-Model" in problem.message for problem in problems)
