"""Language models of transformers as models: texts in, texts out.

Causal models are asked by their chat template if they have one, else they continue the text; sequence-to-
sequence models (T5, BART) rewrite it. Decoding is greedy, or with `do_sample` exact sampling with the item's
own seed. A batch is padded on the left to one of a few lengths, told by each text alone (`Reader.bucket`),
so an item's tokens do not depend on its mates; with position ids that follow the padding, the key-value cache
gives the tokens that there are without it.

    networks: [[rewrite]]
    models: {rewrite: {base: Qwen3-0.6B, prompt: Rewrite this in your own words., do_sample: true}}
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panic.errors import ModelError, OutputRejected
from panic.models import gguf_files, kernels, weights
from panic.models.kind import Bucketer, Folder, Kind, Parameter
from panic.models.loading import FromFolder, calling, fuse_model, loading, reading_options
from panic.models.protocol import Modality, ModelSpec

if TYPE_CHECKING:
    import torch

SHORTEST = 32
"""Tokens of the shortest bucket; every longer one is twice as long, up to what the model reads."""
_SEQ_TO_SEQ = {"t5", "mt5", "umt5", "longt5", "switch_transformers", "bart", "mbart", "pegasus", "pegasus_x",
               "led", "marian", "m2m_100", "blenderbot", "blenderbot-small", "prophetnet",
               "bigbird_pegasus"}  # fmt: skip
_SIGHT = {"vision_config", "image_token_id", "image_token_index", "vision_tower", "audio_config"}
_LENGTHS = ("max_position_embeddings", "n_positions", "max_target_positions")
_DAY = datetime(2025, 1, 1)
_THINKING = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)

log = logging.getLogger("panic.models")


class Reader:
    """What is put before a language model for a text: the tokenizer, read at its first use, no weights."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._values = spec.parameters

    @cached_property
    def config(self) -> dict[str, Any]:
        return weights.read_json(weights.folder_of(self._spec) / "config.json", self._spec.name)

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        folder = weights.folder_of(self._spec)
        with loading(self._spec, folder):
            tokenizer = AutoTokenizer.from_pretrained(folder)
        if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_tokens):  # made of nothing, silently
            hint = "save it beside the model: tokenizer.save_pretrained(FOLDER)"
            raise ModelError(f"{self._spec.name}: there is no tokenizer in {folder}", hint=hint)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        if "strftime_now" in str(tokenizer.chat_template):
            tokenizer.chat_template = _same_day() + tokenizer.chat_template
        return tokenizer

    @property
    def is_encoder_decoder(self) -> bool:
        return bool(self.config.get("is_encoder_decoder"))

    @property
    def limit(self) -> int | None:
        """The most tokens of a prompt; those that a causal model is to write need room beside it."""
        read = self.reads
        if read is None or self.is_encoder_decoder:
            return read
        return max(1, read - int(self._values["max_new_tokens"]))

    @property
    def reads(self) -> int | None:
        """The most tokens that the model reads at once, as far as that is known."""
        if self._spec.context_tokens:
            return self._spec.context_tokens
        return next((one for name in _LENGTHS if isinstance(one := self.config.get(name), int)), None)

    def tokens(self, text: str) -> list[int]:
        """The token ids of the whole prompt for a text.

        Raises ModelError where the chat template does not take what is set, such as a system prompt.
        """
        if not self.tokenizer.chat_template:
            return list(self.tokenizer(self._plain(text)).input_ids)
        try:
            ids: list[int] = self.tokenizer.apply_chat_template(
                self._messages(text),
                add_generation_prompt=True,
                return_dict=False,
                sanitize_control_tokens=True,
                enable_thinking=self._values["thinking"],
            )
        except Exception as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise ModelError(f"{self._spec.name}: its chat template refuses this: {reason}") from error
        return ids

    def bucket(self, text: str) -> int:
        """The number of tokens that the prompt of a text is padded to."""
        return self.length([self.tokens(text)])

    def length(self, rows: Sequence[Sequence[int]]) -> int:
        """The bucket of the longest of some prompts."""
        longest, size = max(map(len, rows)), SHORTEST
        while size < longest:
            size *= 2
        return min(size, self.limit or size)

    def _asked(self, text: str) -> str:
        prompt = self._values["prompt"]
        if prompt is None:
            return text
        if "{text}" in prompt:
            return str(prompt.replace("{text}", text))
        return f"{prompt}\n\n{text}"

    def _messages(self, text: str) -> list[dict[str, str]]:
        system = self._values["system_prompt"]
        messages = [{"role": "system", "content": system}] if system else []
        for given, answer in self._values["examples"] or ():
            messages.append({"role": "user", "content": self._asked(given)})
            messages.append({"role": "assistant", "content": answer})
        return [*messages, {"role": "user", "content": self._asked(text)}]

    def _plain(self, text: str) -> str:
        """The prompt of a model without a chat template: its parts one below the other."""
        examples = self._values["examples"] or ()
        parts = [self._values["system_prompt"] or ""]
        parts += [f"{self._asked(given)}\n{answer}" for given, answer in examples]
        parts.append(self._asked(text) + ("\n" if examples else ""))
        return "\n\n".join(part for part in parts if part)


class LanguageModel(FromFolder):
    """A text-to-text model. `invoke` raises OutOfMemory; broken rows come back as OutputRejected.

    `thought_tokens` counts, for each item of the last call, the tokens of thinking that were removed.
    """

    modality_in = modality_out = "text"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.thought_tokens: list[int] = []
        self._reader = Reader(spec)

    def load(self, device: str) -> None:
        if self._model is None:
            self._reader.tokens("text")  # a template that refuses what is set is told before the weights
        super().load(device)

    def _read(self, folder: Path) -> Any:
        import transformers

        name = "AutoModelForSeq2SeqLM" if self._reader.is_encoder_decoder else "AutoModelForCausalLM"
        loader, options = getattr(transformers, name), reading_options(self.spec, folder)
        if self.spec.parameters.get("gguf"):
            model = gguf_files.language_model(self.spec, folder, loader, options)
        else:
            model = loader.from_pretrained(folder, **options)
        if lora := self.spec.parameters.get("lora"):
            model = fuse_model(self.spec.name, model, Path(lora))
        # The checkpoint's own sampling is not asked for, and would be warned of at each call.
        model.generation_config.update(do_sample=False, temperature=None, top_k=None, top_p=None)
        return model.eval()

    def invoke(self, inputs: Sequence[str], seeds: Sequence[int], *, use_cache: bool = True) -> list[Any]:
        """n texts -> n texts (or OutputRejected in place of one).

        use_cache: whether keys and values of earlier tokens are kept; the tokens are the same without.
        """
        from panic.models.seeding import FiniteScores

        rows = [self._reader.tokens(text) for text in inputs]
        length, finite = self._reader.length(rows), FiniteScores()
        with calling(self.spec, len(inputs)):
            ids, mask = (part.to(self._model.device) for part in self._padded(rows, length))
            begin = 0 if self._reader.is_encoder_decoder else length
            tokens = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,  # that of the parameters does not count the padding
                max_new_tokens=self.parameters["max_new_tokens"],
                pad_token_id=self._reader.tokenizer.pad_token_id,
                logits_processor=self._processors(seeds, finite, mask),
                stopping_criteria=self._criteria(begin, [self._is_opened(row) for row in rows]),
                use_cache=use_cache,
                **(kernels.steps_compiled() if self.is_compiled else {}),
            )
        texts = self._reader.tokenizer.batch_decode(tokens[:, begin:].cpu(), skip_special_tokens=True)
        broken, self.thought_tokens = finite.rows(len(rows)), [0] * len(rows)
        answers = [
            self._answer(place, text, rows[place], is_broken)
            for place, (text, is_broken) in enumerate(zip(texts, broken, strict=True))
        ]
        if any(self.thought_tokens):
            log.debug("%s: %d tokens of thinking removed", self.spec.name, sum(self.thought_tokens))
        return answers

    def _padded(self, rows: Sequence[Sequence[int]], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask (n, length): texts stand where the answer is to follow them."""
        import torch

        ids = torch.full((len(rows), length), int(self._reader.tokenizer.pad_token_id))
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            kept = torch.tensor(row[:length])
            at = slice(0, len(kept)) if self._reader.is_encoder_decoder else slice(length - len(kept), None)
            ids[place, at], mask[place, at] = kept, 1
        return ids, mask

    def _processors(self, seeds: Sequence[int], finite: Any, mask: torch.Tensor) -> Any:
        from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

        from panic.models.seeding import processors

        chain = processors(self.parameters, seeds, finite)
        if (penalty := self.parameters["repetition_penalty"]) is not None:
            padding = None if self._reader.is_encoder_decoder else (mask == 0).sum(dim=1)
            chain.insert(1, RepetitionPenaltyLogitsProcessor(float(penalty), prompt_ignore_length=padding))
        return chain

    def _is_opened(self, prompt: Sequence[int]) -> bool:
        """Whether the template has opened a row's thinking, which the model then only closes."""
        return str(self._reader.tokenizer.decode(prompt[-16:])).rstrip().endswith("<think>")

    def _criteria(self, begin: int, opened: Sequence[bool]) -> Any:
        """What ends a row before its greatest length: a stop string in its answer, not in its thinking."""
        import torch
        from transformers import StoppingCriteriaList

        stops, thinks = self.parameters["stop"] or [], self.parameters["thinking"] or any(opened)
        if not stops:
            return None
        begun = ["<think>" if is_open else "" for is_open in opened]
        window = max(len(stop.encode()) for stop in stops) + SHORTEST  # a token has a byte or more
        tokenizer = self._reader.tokenizer

        def has_stopped(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            tail = ids[:, begin if thinks else max(begin, ids.shape[1] - window) :]
            texts = tokenizer.batch_decode(tail, skip_special_tokens=True)
            whole = [before + text for before, text in zip(begun, texts, strict=True)]
            answers = [without_thinking(text)[0].lstrip() for text in whole]
            found = [any(stop in answer for stop in stops) for answer in answers]
            return torch.tensor(found, device=ids.device)

        return StoppingCriteriaList([has_stopped])

    def _answer(self, place: int, text: str, prompt: Sequence[int], is_broken: bool) -> str | OutputRejected:
        name, limit = self.spec.name, self._reader.limit
        if limit is not None and len(prompt) > limit:
            return OutputRejected(
                f"{name} reads {limit} tokens, and this text makes {len(prompt)} with its prompt"
            )
        if is_broken:
            return OutputRejected(f"{name} computed not-a-number scores")
        answer, thinking = without_thinking("<think>" + text if self._is_opened(prompt) else text)
        if thinking:
            self.thought_tokens[place] = len(self._reader.tokenizer(thinking).input_ids)
        answer = answer.strip()
        for stop in self.parameters["stop"] or ():
            answer = answer.split(stop, 1)[0]
        if thinking and not answer:
            return OutputRejected(f"{name} gave no answer beside its thinking: max_new_tokens may be too few")
        return answer.strip()


def without_thinking(text: str) -> tuple[str, str]:
    """Return a text without its `<think>` parts, and these; one that is not closed goes on to the end.

    A text with an end alone has begun with thinking: some templates open it in the prompt.
    """
    if "</think>" in text and "<think>" not in text.split("</think>", 1)[0]:
        text = "<think>" + text
    return _THINKING.sub("", text), "".join(_THINKING.findall(text))


def _same_day() -> str:
    """What is put before a chat template that writes today's date: else each day has another model."""
    parts = "".join(f".replace('%{part}', '{_DAY:%{part}}')" for part in "aAbBdHIjmMpSyY")
    return f"{{% macro strftime_now(form) %}}{{{{ form{parts} }}}}{{% endmacro %}}"


def _detect(folder: Folder) -> bool:
    """Tell by what the configuration says: a head that writes, and nothing that sees or hears."""
    if folder.is_sentence_transformer or folder.is_pipeline or _SIGHT & folder.config.keys():
        return False
    if folder.model_type in _SEQ_TO_SEQ:
        return folder.architecture.endswith("ForConditionalGeneration") or folder.model_type == "marian"
    return folder.architecture.endswith(("ForCausalLM", "LMHeadModel")) and folder.model_type != "git"


def _file_conflicts(spec: ModelSpec, asked: Collection[str]) -> dict[str, str]:
    """Which of the parameters that were asked for the model's files cannot follow: name -> reason."""

    def misfit(header: gguf_files.Header) -> str:
        return gguf_files.misfit_of_writer(header, reader.config)

    reader, wanted = Reader(spec), spec.parameters.get("max_new_tokens")
    try:
        reads = None if reader.is_encoder_decoder else reader.reads
    except ModelError:  # no folder, or a broken one
        return {}
    found = kernels.writer_conflicts(spec, asked) | gguf_files.conflicts(spec, asked, misfit)
    if "max_new_tokens" in asked and reads is not None and isinstance(wanted, int) and wanted >= reads:
        found["max_new_tokens"] = f"leaves no room for a text: the model reads {reads:,} tokens in all"
    return found


def _bucketing(spec: ModelSpec) -> Bucketer:
    return Reader(spec).bucket


def _while_greedy(values: Mapping[str, Any]) -> str:
    return "" if values.get("do_sample") else "has no effect while do_sample is false"


def _stop_problem(values: Mapping[str, Any]) -> str:
    stops = values["stop"]
    is_good = isinstance(stops, list) and all(isinstance(stop, str) and stop for stop in stops)
    return "" if is_good else 'should be a list of texts, such as ["\\n"]'


def _examples_problem(values: Mapping[str, Any]) -> str:
    pairs = values["examples"]
    is_good = isinstance(pairs, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in pairs
    )
    return "" if is_good else "should be a list of pairs of texts: [[given, answer], [given, answer]]"


KIND = Kind(
    name="text-to-text",
    build=LanguageModel,
    modalities_in=(Modality.TEXT,),
    modality_out=Modality.TEXT,
    parameters={
        "system_prompt": Parameter(kind=str),
        "prompt": Parameter(kind=str),
        "examples": Parameter(kind=object, idle=_examples_problem),
        "thinking": Parameter(kind=bool, default=False),
        "max_new_tokens": Parameter(kind=int, default=128, low=1, high=32_768),
        "stop": Parameter(kind=object, idle=_stop_problem),
        "do_sample": Parameter(kind=bool, default=False),
        "temperature": Parameter(kind=float, above=0, idle=_while_greedy),
        "top_p": Parameter(kind=float, above=0, high=1, idle=_while_greedy),
        "top_k": Parameter(kind=int, low=1, idle=_while_greedy),
        "repetition_penalty": Parameter(kind=float, above=0),
        "lora": Parameter(kind=str, is_folder=True),
        **gguf_files.OF_WRITERS,
        **kernels.OF_WRITERS,
    },
    former={"instruction": "prompt"},
    weights="files",
    detect=_detect,
    bucketing=_bucketing,
    file_conflicts=_file_conflicts,
)
