"""Digests and codecs: exact, and known answers."""

import hashlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from panic.errors import StoreCorrupt
from panic.store.codec import (
    MAX_PIXELS,
    MAX_SIDE,
    canonical_json,
    config_problems,
    decode_array,
    decode_bars,
    decode_image,
    decode_json,
    decode_network,
    decode_object,
    decode_vector,
    decode_vectors,
    encode_array,
    encode_bars,
    encode_image,
    encode_vector,
    image_digest,
    is_image_prompt,
    prompt_digest,
    prompt_label,
    prompt_modality,
    run_key,
    size_problem,
    sound_config,
    text_digest,
    told_json,
)

floats = st.floats(width=32, allow_nan=False)


def test_digests_are_the_documented_ones():
    assert text_digest("né").hex() == hashlib.sha256(b"text\0n\xc3\xa9").hexdigest()
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    content = b"image\0" + bytes([2, 0, 0, 0, 1, 0, 0, 0]) + bytes([1, 2, 3, 1, 2, 3])
    assert image_digest(image).hex() == hashlib.sha256(content).hexdigest()


def test_pictures_of_equal_bytes_and_other_shape_differ():
    wide, tall = Image.new("RGB", (3, 2)), Image.new("RGB", (2, 3))
    assert wide.tobytes() == tall.tobytes()
    assert image_digest(wide) != image_digest(tall)


def test_text_without_utf8_has_no_digest():
    with pytest.raises(UnicodeEncodeError):
        text_digest("\ud800")


@settings(deadline=None)
@given(st.text(), st.text())
def test_texts_differ_when_their_digests_do(one, other):
    assert (text_digest(one) == text_digest(other)) == (one == other)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.booleans())
def test_images_come_back_exactly(width, height, seed, flat):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (1, 1, 3) if flat else (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(np.broadcast_to(pixels, (height, width, 3)).copy())
    back = decode_image(encode_image(image))
    assert back.mode == "RGB"
    assert back.tobytes() == image.tobytes()
    assert image_digest(back) == image_digest(image)


@settings(deadline=None)
@given(st.lists(floats, min_size=1))
def test_vectors_come_back_exactly(numbers):
    vector = np.array(numbers, np.float32)
    assert decode_vector(encode_vector(vector)).tobytes() == vector.tobytes()
    assert len(encode_vector(vector)) == 4 * len(numbers)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0))))
def test_bars_come_back_exactly(pairs):
    bars = np.array(pairs, np.float64).reshape(-1, 2)
    assert np.array_equal(decode_bars(encode_bars(bars)), bars)


def test_generators_come_back_with_shape_and_type():
    generators = np.arange(6, dtype=np.int32).reshape(2, 3)
    back = decode_array(encode_array(generators))
    assert back.dtype == generators.dtype
    assert np.array_equal(back, generators)


def npy(header: str, data: bytes = bytes(8)) -> bytes:
    text = header.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def test_bytes_that_are_no_array_are_told_as_damage_whatever_numpy_makes_of_them():
    """Nothing was an EOFError, a quote too few a TokenError: `panic check` and `dump` ended with them."""
    good = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }"
    assert decode_array(npy(good)).tolist() == [0.0]
    for data in (
        *(b"", b"x", b"PK\x03\x04", npy(good)[:40], npy(good)[:-3], npy(good.replace("'", "("))),
        *(npy(good.replace("(1,)", f"({10**15},)")), npy(good.replace("<f8", "|O")), npy(good + "\x00")),
    ):
        with pytest.raises(StoreCorrupt, match=f"array should be, it has {len(data):,} other bytes"):
            decode_array(data)
    for kind in ("|S8", "<c8", "<M8[s]"):
        with pytest.raises(StoreCorrupt, match="where numbers should be, it has an array of"):
            decode_array(npy(good.replace("<f8", kind)))


def test_parts_of_numbers_are_told_as_damage():
    with pytest.raises(StoreCorrupt, match="where a vector should be, it has 7 bytes"):
        decode_vector(bytes(7))
    assert decode_vectors([bytes(8), bytes(8)], 2).shape == (2, 2)
    assert decode_vectors([], 2).shape == (0, 2)
    with pytest.raises(StoreCorrupt, match="not all vectors of a model have 2 numbers"):
        decode_vectors([bytes(4), bytes(12)], 2)
    with pytest.raises(StoreCorrupt, match="where bars should be, it has 24 bytes"):
        decode_bars(bytes(24))


def test_an_image_is_a_prompt_by_its_digest():
    digest = image_digest(Image.new("RGB", (2, 1)))
    prompt = f"image:{digest.hex()}"
    assert (is_image_prompt(prompt), prompt_modality(prompt)) == (True, "image")
    assert prompt_digest(prompt) == digest
    assert prompt_label(prompt) == f"image {digest.hex()[:12]}"
    for text in ("image", f"image:{digest.hex()[:-1]}", f"{prompt} ", f"a {prompt}", "image:" + "g" * 64):
        assert (is_image_prompt(text), prompt_modality(text)) == (False, "text")
        assert (prompt_digest(text), prompt_label(text)) == (text_digest(text), text)


def test_the_largest_images_that_are_stored():
    assert [size_problem(*size) for size in ((1, 1), (MAX_SIDE, 1), (1, MAX_SIDE))] == [""] * 3
    assert size_problem(0, 3) == "image of 0 x 3: it has no pixels"
    assert size_problem(3, 0) == "image of 3 x 0: it has no pixels"
    told = f"a side may have at most {MAX_SIDE:,}"
    assert size_problem(MAX_SIDE + 1, 1).endswith(told)
    assert size_problem(1, MAX_SIDE + 1).endswith(told)
    side = next(
        side for side in range(2, MAX_SIDE) if MAX_PIXELS % side == 0 and MAX_PIXELS // side <= MAX_SIDE
    )
    other = MAX_PIXELS // side
    assert size_problem(side, other) == ""
    assert size_problem(side + 1, other).endswith(f"it may have at most {MAX_PIXELS:,}")


def test_runs_are_known_by_a_digest_of_what_they_are():
    """As `printf '["demo",["A","B"],"né",42,0]' | sha256sum` has it."""
    known = hashlib.sha256('["demo",["A","B"],"né",42,0]'.encode()).hexdigest()[:16]
    assert run_key("demo", ("A", "B"), "né", 42, 0) == known
    assert run_key("demo", ("A", "B"), "né", 42, 0, "shock") != known
    assert canonical_json({"b": [1, None], "a": "é"}) == '{"a":"é","b":[1,null]}'


@pytest.mark.parametrize("text", ["", "{", "nonsense", None, "[" * 100_000])
def test_what_is_no_json_is_told_as_damage(text):
    for decode, kind in ((decode_json, "value"), (decode_object, "value"), (decode_network, "value")):
        with pytest.raises(StoreCorrupt, match=f"where a JSON {kind} should be"):
            decode(text)


def test_stored_objects_and_networks_are_such():
    assert decode_object('{"a": [1]}') == {"a": [1]}
    assert decode_network('["A", "B"]') == ("A", "B")
    for text in ("[1]", "1", "null", '"a"'):
        with pytest.raises(StoreCorrupt, match="where a JSON object should be"):
            decode_object(text)
    for text in ("[]", "{}", '["A", 1]', '"AB"', "null"):
        with pytest.raises(StoreCorrupt, match="where a JSON list of models should be"):
            decode_network(text)


def test_only_webp_is_decoded():
    good = encode_image(Image.new("RGB", (2, 1), (1, 2, 3)))
    file = io.BytesIO()
    Image.new("RGB", (2, 1)).save(file, "PNG")
    for data in (b"", file.getvalue(), b"riff" + good[4:], good[:8] + b"WEBX" + good[12:]):
        with pytest.raises(ValueError, match="no WebP"):
            decode_image(data)
    with pytest.raises(ValueError, match="cannot be decoded"):
        decode_image(good[:20])


def test_the_longest_side_is_the_one_that_webp_can_have():
    assert decode_image(encode_image(Image.new("RGB", (MAX_SIDE, 1)))).size == (MAX_SIDE, 1)
    with pytest.raises(ValueError, match="encoding error"):
        encode_image(Image.new("RGB", (MAX_SIDE + 1, 1)))


def test_parts_of_a_config_are_of_the_kinds_that_its_readers_expect():
    """What is not there, or is None where it may be, is no problem; nor are single settings of diagrams."""
    sound = {
        "networks": [["draw", "tell"], ["draw"]],
        "diagrams": {"metric": "cosine"},
        "embeddings": ["PocketText"],
        "tags": [],
        "models": {"draw": {"base": "PocketDiffusion"}},
        "labels": None,
        "budget": None,
    }
    for config in ({}, {"null": "shuffle"}, sound, sound | {"diagrams": [{}, {}], "labels": {"a": "b"}}):
        assert config_problems(config) == {}
        assert sound_config(config) == config
    wrong = {
        "networks": (None, "no lists of names"),
        "diagrams": (["x"], "no settings"),
        "embeddings": ("PocketText", "no list of texts"),
        "tags": ([1], "no list of texts"),
        "arms": (["baseline"], "no mapping"),
        "budget": (5, "no mapping"),
    }
    for name, (part, what) in wrong.items():
        damaged = sound | {name: part}
        assert config_problems(damaged) == {name: what}
        assert sound_config(damaged) == {key: value for key, value in sound.items() if key != name}
    assert config_problems({"networks": [["draw", 1]]}) == {"networks": "no lists of names"}


def test_numbers_without_bounds_are_null_for_others():
    value = {"a": [1.5, float("inf"), (float("nan"), -float("inf"))], "b": "inf", "c": {"d": None}}
    assert told_json(value) == '{"a": [1.5, null, [null, null]], "b": "inf", "c": {"d": null}}'
    assert told_json({"\u00e9": 0.1}, ensure_ascii=False, separators=(",", ":")) == '{"\u00e9":0.1}'
    with pytest.raises(TypeError):
        told_json({"a": object()})
