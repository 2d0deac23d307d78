"""The pocket models' tokenizer: byte-level BPE whose merges were learnt on the world's captions.

A word of the world is one token; any other text falls back to bytes, so nothing is unknown. Lower case only.

    python -c "from panic.pocket.tokens import build; print(build(['a red circle']).tokenize('a horse'))"
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_TOKENS = 48
VOCABULARY = 512
BOS, EOS, PAD = "<s>", "</s>", "<pad>"
SPECIAL = [PAD, EOS, BOS]  # EOS must not be number 2: see panic.train.tasks.contrastive


def build(texts: Iterable[str]) -> object:
    """Learn a `PreTrainedTokenizerFast` of at most VOCABULARY tokens that puts BOS and EOS around a text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = {token: tokenizer.token_to_id(token) for token in (BOS, EOS)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=list(ids.items())
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=MAX_TOKENS,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
