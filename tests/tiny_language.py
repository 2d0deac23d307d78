"""Tiny language models of the real classes, built offline and saved to a folder, with random weights.

Each class is that of a table entry. The chat templates are short ones with what matters in the real ones: a
system turn or none, thinking that is switched, the date of the day.

    from tests import tiny_language
    tiny_language.build("qwen3", tmp_path / "qwen3")     # then use "local:.../qwen3" in a network
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.tiny import SPECIAL, VOCABULARY, sharpen, tokenizer

_TURNS = (
    "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
_NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
TEMPLATES = {
    "qwen3": _TURNS + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}",
    "gemma3": _NO_SYSTEM + _TURNS,
    "smollm3": "Today Date: {{ strftime_now('%d %B %Y') }}\n" + _TURNS,
    "llama": "{% set day = date_string if date_string is defined else strftime_now('%d %b %Y') %}{{ day }}\n"
    + _TURNS,
}
CLASSES = {
    "qwen3": "Qwen3ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "t5": "T5ForConditionalGeneration",
}


def _config(kind: str, max_positions: int, hidden_size: int, num_layers: int) -> Any:
    import transformers

    ids = {f"{name}_token_id": SPECIAL[name] for name in ("pad", "bos", "eos")}
    if kind == "t5":
        return transformers.T5Config(
            vocab_size=VOCABULARY, d_model=hidden_size, d_kv=8, d_ff=2 * hidden_size, num_layers=num_layers,
            num_heads=4,
            decoder_start_token_id=SPECIAL["pad"], n_positions=max_positions, **ids,
        )  # fmt: skip
    if kind == "gpt2":
        return transformers.GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=hidden_size,
            n_layer=num_layers,
            n_head=4,
            n_positions=max_positions,
            **ids,
        )
    names = {"qwen3": "Qwen3Config", "gemma3": "Gemma3TextConfig", "smollm3": "SmolLM3Config",
             "llama": "LlamaConfig"}  # fmt: skip
    more = {"gemma3": {"sliding_window": 16}}.get(kind, {})
    return getattr(transformers, names[kind])(
        vocab_size=VOCABULARY, hidden_size=hidden_size, intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=max_positions,
        **ids, **more,
    )  # fmt: skip


def build(
    kind: str,
    folder: Path,
    seed: int = 0,
    *,
    max_positions: int = 2048,
    hidden_size: int = 32,
    num_layers: int = 2,
) -> Path:
    """A model with one byte per token, by default of 32 dimensions and two layers."""
    import transformers

    torch.manual_seed(seed)
    model = getattr(transformers, CLASSES[kind])(_config(kind, max_positions, hidden_size, num_layers))
    sharpen(model, 5.0 if kind == "smollm3" else 8.0).save_pretrained(folder)
    words = tokenizer(max_length=max_positions, ends=kind == "t5")
    words.chat_template = TEMPLATES.get(kind)
    words.save_pretrained(folder)
    return folder
