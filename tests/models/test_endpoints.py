"""What a config may say of models behind an endpoint, what is sent, and what of an answer is taken."""

from __future__ import annotations

import base64
import io
import json
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from panic.engine.contents import Output, finish
from panic.errors import OutputRejected
from panic.models import endpoints, openai, registry
from panic.models.protocol import Modality, ModelSpec
from panic.models.resolve import Names, Resolver, parameter_problems

CHAT = {"base": "openai:tiny", "base_url": "http://localhost:8000/v1", "task": "text-to-text"}


def spec_of(**variant: Any) -> ModelSpec:
    return Resolver(Names(variants={"served": CHAT | variant})).spec("served")


def problems(**variant: Any) -> str:
    return "; ".join(problem.message for problem in parameter_problems(spec_of(**variant)))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://example.com/v1", "insecure: true"),
        ("http://127.0.0.1.example.com/v1", "insecure: true"),
        ("http://localhost.example.com/v1", "insecure: true"),
        ("http://0.0.0.0/v1", "insecure: true"),
        ("https://user:word@example.com/v1", "must not hold a name or password"),
        ("https://example.com/v1?key=1", "must end with its path"),
        ("ftp://example.com", "is no URL"),
        ("example.com/v1", "is no URL"),
        ("https://exa mple.com/v1", "is no URL"),
        ("https://example.com:port/v1", "is no URL"),
        ("https://", "is no URL"),
    ],
)
def test_a_base_url_that_nothing_is_sent_to(url: str, told: str) -> None:
    assert told in problems(base_url=url)


@pytest.mark.parametrize(
    "url", ["https://example.com/v1", "http://localhost:1/v1", "http://127.3.2.1/v1", "http://[::1]:80/v1"]
)
def test_a_base_url_that_is_taken(url: str) -> None:
    assert problems(base_url=url) == ""
    assert problems(base_url="http://example.com/v1", insecure=True) == ""


def test_what_is_missing_or_never_meant_is_told() -> None:
    assert "has no parameter 'steps'" in problems(steps=3)
    assert "is not one of the allowed values" in problems(task="chat")
    assert "never the key itself" in problems(api_key_env="sk-0123")
    assert "needs the parameter 'prompt'" in problems(task="image-to-image")
    assert "should be a mapping" in problems(extra=3)
    assert "further fields: messages, model would" in problems(extra={"model": "y", "messages": [], "n": 1})


def test_how_a_server_is_asked_is_not_what_it_is() -> None:
    same = [
        spec_of(),
        spec_of(base_url="HTTP://LOCALHOST:8000/v1/", concurrency=2, timeout_s=1.0, api_key_env="KEY"),
    ]
    others = [spec_of(base_url="http://localhost:8001/v1"), spec_of(base="openai:other"), spec_of(prompt="x")]
    prints = [registry.fingerprint(spec) for spec in (*same, *others)]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4
    assert not registry.is_repeatable(same[0])


def test_a_key_that_would_break_a_header_is_refused_without_being_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCESS", "abc\r\nX-Other: 1")
    with pytest.raises(Exception, match="no key") as caught:
        endpoints.key(spec_of(api_key_env="ACCESS"))
    assert "abc" not in str(caught.value)


def test_what_is_sent() -> None:
    spec = spec_of(
        system_prompt="be short", prompt="rewrite", temperature=0.5, extra={"max_tokens": None, "n": 1}
    )
    request = openai.write(spec, "a barn", 2**40 + 5)
    assert request.path == "chat/completions"
    assert request.fields == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "be short"},
            {"role": "user", "content": "rewrite\n\na barn"},
        ],
        "temperature": 0.5,
        "seed": 5,
        "n": 1,
    }
    seeing = openai.write(spec_of(task="image-to-text"), Image.new("RGB", (2, 3)), 1)
    assert seeing.fields["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    editing = openai.write(spec_of(task="image-to-image", prompt="older"), Image.new("RGB", (2, 3)), 1)
    assert (editing.path, editing.fields["prompt"]) == ("images/edits", "older")
    assert Image.open(io.BytesIO(editing.files["image"])).size == (2, 3)


def answer(spec: ModelSpec, body: Any) -> Any:
    return openai.read(spec, body if isinstance(body, bytes) else json.dumps(body).encode())


def test_what_is_read() -> None:
    body = {
        "choices": [{"message": {"content": "<think>hm</think>\n a barn "}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": True},
        "model": "x" * 500 + "\n",
        "system_fingerprint": 7,
    }
    found = answer(spec_of(), body)
    assert (found.output, found.input_tokens, found.output_tokens) == ("a barn", 3, None)
    assert (len(found.served_model), found.system_fingerprint) == (200, None)
    refused = answer(spec_of(), {"choices": [{"message": {"content": None, "refusal": "no"}}]})
    assert isinstance(refused.output, OutputRejected)
    vector = answer(spec_of(task="embedding"), {"data": [{"embedding": [1, 2.5]}]})
    np.testing.assert_array_equal(vector.output, np.float32([1, 2.5]))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": ["a"]}}]}',
        b'{"choices": [{"message": {"content": "a"}}], "usage": 3}',
    ],
)
def test_an_answer_that_is_none(body: bytes) -> None:
    with pytest.raises(openai.BadAnswer):
        answer(spec_of(), body)


def test_images_have_limits_and_urls_are_not_followed() -> None:
    spec = spec_of(task="text-to-image", max_pixels=100)

    def of(size: tuple[int, int], kind: str = "PNG") -> Any:
        out = io.BytesIO()
        Image.new("RGB", size, (1, 2, 3)).save(out, kind)
        return answer(spec, {"data": [{"b64_json": base64.b64encode(out.getvalue()).decode()}]}).output

    assert of((10, 10)).getpixel((0, 0)) == (1, 2, 3)
    assert isinstance(of((10, 11)), OutputRejected)
    with pytest.raises(openai.BadAnswer):
        of((3, 3), "GIF")
    assert isinstance(answer(spec, {"data": [{"url": "http://localhost/x.png"}]}).output, OutputRejected)
    with pytest.raises(openai.BadAnswer):
        answer(spec, {"data": [{"b64_json": "not base64!"}]})


def drawn(image: Image.Image, kind: str = "PNG", **how: Any) -> Any:
    out = io.BytesIO()
    image.save(out, kind, **how)
    body = {"data": [{"b64_json": base64.b64encode(out.getvalue()).decode()}]}
    return answer(spec_of(task="text-to-image"), body).output


def test_images_of_16_bits_keep_their_scale_and_none_is_clipped() -> None:
    """What was not RGB was converted before it was checked: a grey of 40,000 of 65,535 became white."""
    grey = Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16))
    made = finish(drawn(grey), Modality.IMAGE, False)
    assert isinstance(made, Output)
    assert (made.value.mode, made.value.getpixel((0, 0))) == ("RGB", (156, 156, 156))
    for mode in ("L", "RGBA", "P", "1"):
        assert isinstance(finish(drawn(Image.new(mode, (4, 4))), Modality.IMAGE, False), Output)
    moving = drawn(Image.new("L", (4, 4)), save_all=True, append_images=[Image.new("L", (4, 4), 9)])
    assert isinstance(moving, OutputRejected)
    assert moving.message == "an image of several frames"


def test_an_image_that_is_too_large_is_refused_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = drawn(Image.new("1", (10_000, 9_500)))
    assert isinstance(found, OutputRejected)
    assert found.message == "an image of 10000 x 9500: at most 16,777,216 pixels"


def test_images_that_are_read_side_by_side_leave_the_warnings_of_others_as_they_are() -> None:
    """Filters are the process's: what one thread put back was what another one had set for a moment."""
    before, often = list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: drawn(Image.new("1", (2, 2))), range(400)))
    finally:
        sys.setswitchinterval(often)
        found, warnings.filters[:] = list(warnings.filters), before
    assert found == before


def test_counts_that_no_request_can_have_are_none() -> None:
    """A server that claims 2^53 tokens each time took the sum beyond what the store can hold."""
    body = {"choices": [{"message": {"content": "a"}}]}
    for count, kept in ((10**9, 10**9), (10**9 + 1, None), (2**53 - 1, None), (-1, None), (1.0, None)):
        assert answer(spec_of(), {**body, "usage": {"prompt_tokens": count}}).input_tokens == kept


def test_a_request_takes_no_more_tokens_than_reckoned() -> None:
    spec = spec_of(max_tokens=100, prompt="é" * 10)
    assert openai.most_tokens(spec, "a" * 50) == 50 + 20 + 100 + openai.OVERHEAD_TOKENS
    assert openai.most_tokens(spec_of(task="image-to-text"), Image.new("RGB", (2, 2))) > openai.IMAGE_TOKENS
