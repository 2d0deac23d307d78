"""The pocket tokenizer: words of the world are whole tokens, anything else falls back to bytes."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from panic.pocket import folder


@pytest.fixture(scope="module")
def tokens():
    return AutoTokenizer.from_pretrained(folder("PocketDiffusion") / "tokenizer")


@pytest.mark.parametrize("text", ["", "a horse riding an astronaut", "日本語 ß 🎈", "\x00\n\t", "x" * 500])
def test_any_text_tokenises_and_comes_back(tokens, text):
    ids = tokens(text, truncation=True, padding="max_length").input_ids
    assert len(ids) == tokens.model_max_length
    assert tokens.decode(tokens(text).input_ids, skip_special_tokens=True).strip() == text.lower().strip()


def test_a_word_of_the_world_is_one_token(tokens):
    caption = "a small red circle above a large blue square on a checkered green background"
    assert len(tokens.tokenize(caption)) == len(caption.split())
