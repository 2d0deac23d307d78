"""Hidden states of layers whose outputs are known: computed by hand from the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from panic.errors import ConfigError, ModelError, OutputRejected
from panic.models import registry
from panic.models.protocol import Modality
from tests import tiny, tiny_language

Load = Callable[..., Any]
TEXTS = ["a red circle", "two dogs run"]  # of 14 tokens each, padded to 16


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """A loaded model of the hidden states of a tiny one: `load("blip", layer=...)`."""
    folders: dict[str, Path] = {}

    def built(kind: str, **parameters: Any) -> Any:
        if kind not in folders:
            folders[kind] = tiny.BUILDERS[kind](tmp_path_factory.mktemp(kind))
        spec = registry.resolve("it", {"it": {"base": f"local:{folders[kind]}", **parameters}})
        model = registry.build(spec)
        model.load("cpu")
        return model

    return built


def test_states_of_a_text_model_are_those_of_its_tokens_without_padding(load: Load) -> None:
    model = load("sentence-bert", layer="encoder.layer.0")
    assert (model.spec.modality_out, model.spec.modalities_in) == (Modality.VECTOR, (Modality.TEXT,))
    (bert,) = model.weight_modules()
    reader = model._base._reader
    tokens = reader.tokens(TEXTS)
    assert tokens["attention_mask"].sum(dim=1).tolist() == [14, 14]
    with torch.no_grad():
        states = bert(**tokens, output_hidden_states=True).hidden_states[1].numpy()[:, :14]
    for given, wanted in {
        (): states.mean(axis=1),
        (("pool", "last"),): states[:, 13],
        (("pool", "first"),): states[:, 0],
        (("pool", "cls"),): states[:, 0],
        (("token", 3),): states[:, 3],
        (("token", -2),): states[:, 12],
    }.items():
        found = load("sentence-bert", layer="encoder.layer.0", **dict(given)).invoke(TEXTS, [0, 0])
        np.testing.assert_allclose(np.stack(found), wanted, rtol=1e-4, atol=1e-5)


def test_a_token_beyond_the_end_is_rejected_alone(load: Load) -> None:
    model = load("sentence-bert", layer="encoder.layer.0", token=5)
    short, long = model.invoke(["abc", "abcdefgh"], [0, 0])
    assert isinstance(short, OutputRejected)
    assert "5 tokens, and no token 5" in short.message
    assert len(long) == 32


def test_states_of_a_captioner_s_eye_are_those_of_its_patches(load: Load) -> None:
    model = load("blip", layer="vision_model.encoder.layers.0")
    images = [Image.effect_noise((32, 32), 90).convert("RGB") for _ in range(2)]
    blip, features = model._base._model, model._base._features(images)
    with torch.no_grad():
        states = blip.vision_model(features["pixel_values"], output_hidden_states=True).hidden_states[1]
    found = np.stack(model.invoke(images, [0, 0]))
    np.testing.assert_allclose(found, states.mean(dim=1).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "layer"), [("llama", "model.layers.0"), ("t5", "encoder.block.0")])
@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_padding_of_a_language_model_is_left_out(tmp_path: Path, kind: str, layer: str, pool: str) -> None:
    """Texts stand on the right of a causal model's padding, and an encoder is not called by its model."""
    folder = tiny_language.build(kind, tmp_path / kind)
    model = registry.build(
        registry.resolve("it", {"it": {"base": f"local:{folder}", "layer": layer, "pool": pool}})
    )
    model.load("cpu")
    found = np.stack(model.invoke(["abc", "a red circle"], [0, 0]))
    for text, vector in zip(["abc", "a red circle"], found, strict=True):
        ids = torch.tensor([model._base._reader.tokens(text)])
        whole = model._base._model
        with torch.no_grad():
            states = (whole.encoder if kind == "t5" else whole.model)(ids, output_hidden_states=True)
        own = states.hidden_states[1][0].numpy()
        np.testing.assert_allclose(
            vector, own.mean(axis=0) if pool == "mean" else own[0], rtol=1e-3, atol=1e-4
        )


def test_layer_and_pool_are_no_settings_of_a_pipeline_that_is_read_from_a_folder(tmp_path: Path) -> None:
    """They were refused as what "a StableDiffusionPipeline does not take"."""
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    variant = {"base": f"local:{tmp_path}", "layer": "unet.mid_block", "pool": "mean"}
    assert registry.resolve("it", {"it": variant}).modality_out is Modality.VECTOR
    with pytest.raises(ConfigError, match=r"^model it: max_sequence_length does nothing here"):
        registry.resolve("it", {"it": {**variant, "max_sequence_length": 64}})


@pytest.mark.slow
def test_states_of_a_pipeline_are_below_the_names_of_its_components(load: Load) -> None:
    model = load("stable-diffusion", layer="text_encoder.encoder.layers.0", steps=1, token=2)
    found = np.stack(model.invoke(TEXTS, [0, 0]))
    parts = model._base._model.components
    encoder = parts["text_encoder"]
    ids = parts["tokenizer"](
        TEXTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        states = encoder(ids, output_hidden_states=True).hidden_states[1]
    np.testing.assert_allclose(found, states[:, 2].numpy(), rtol=1e-4, atol=1e-5)
    of_denoiser = load("stable-diffusion", layer="unet.mid_block", steps=1)
    assert np.stack(of_denoiser.invoke(TEXTS, [0, 0])).shape == (2, 32)


def test_a_state_does_not_depend_on_batch_mates(load: Load) -> None:
    model = load("sentence-bert", layer="encoder.layer.1")
    first = model.invoke(["a red circle", "x"], [0, 0])[0]
    np.testing.assert_array_equal(first, model.invoke(["a red circle", "zebra"], [0, 0])[0])


CHAIN = """
import torch

class Chain:
    modality_in = modality_out = "text"
    size_bytes = 0

    def load(self, device):
        layers = [torch.nn.Linear(2, 3, bias=False), torch.nn.ReLU(), torch.nn.Linear(3, 1)]
        self.net = torch.nn.Sequential(*layers)
        with torch.no_grad():
            self.net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0]]))
        self.idle = torch.nn.Linear(1, 1)

    def invoke(self, inputs, seeds):
        numbers = torch.tensor([[float(len(text)), float(text.count("s"))] for text in inputs])
        return [f"{float(value):.3f}" for value in self.net(numbers)]

class Once(torch.nn.Linear):
    # cannot be watched at first

    def register_forward_pre_hook(self, *given, **how):
        self.asked = getattr(self, "asked", 0) + 1
        if self.asked == 1:
            raise RuntimeError("not yet")
        return super().register_forward_pre_hook(*given, **how)

class Shy(Chain):
    def load(self, device):
        super().load(device)
        self.idle = Once(1, 1)

class Layered:
    modality_in = modality_out = "text"
    size_bytes = 0
    def __init__(self, layer=1): self.layer = layer
    def load(self, device): pass
    def invoke(self, inputs, seeds): return list(inputs)
"""


@pytest.fixture
def chain(tmp_path: Path) -> Callable[..., Any]:
    (tmp_path / "chain.py").write_text(CHAIN)

    def resolve(name: str = "Chain", **parameters: Any) -> Any:
        variant = {"base": f"python:{tmp_path}/chain.py:{name}", **parameters}
        return registry.resolve("it", {"it": variant})

    return resolve


def test_states_of_a_user_s_chain_have_their_known_values(chain: Callable[..., Any]) -> None:
    for layer, wanted in (("net.0", [[5, 1, -4], [4, 4, 0]]), ("net.1", [[5, 1, 0], [4, 4, 0]])):
        model = registry.build(chain(layer=layer))
        model.load("cpu")
        assert np.stack(model.invoke(["start", "ssss"], [0, 0])).tolist() == wanted


def test_a_model_that_could_not_be_watched_is_left_as_it_was(chain: Callable[..., Any]) -> None:
    model = registry.build(chain("Shy", layer="net.0"))
    model.load("cpu")
    with pytest.raises(RuntimeError, match="not yet"):
        model.invoke(["start"], [0])
    assert np.stack(model.invoke(["start", "ssss"], [0, 0])).tolist() == [[5, 1, -4], [4, 4, 0]]


def test_a_wrong_layer_lists_the_layers_nearest_first(chain: Callable[..., Any], load: Load) -> None:
    with pytest.raises(ModelError, match=r"no layer 'net\.7'") as caught:
        registry.build(chain(layer="net.7")).load("cpu")
    assert caught.value.hint.startswith("its layers, nearest first: net.")
    assert ", idle" in caught.value.hint
    with pytest.raises(ModelError) as caught:
        load("sentence-bert", layer="encoder.layers.1")
    assert caught.value.hint.startswith("its layers, nearest first: encoder.layer.1,")
    assert " more" in caught.value.hint


def test_a_layer_that_is_not_called_and_a_model_without_layers_are_told(chain: Callable[..., Any]) -> None:
    model = registry.build(chain(layer="idle"))
    model.load("cpu")
    with pytest.raises(ModelError, match="does not call its layer idle"):
        model.invoke(["a"], [0])
    nothing = registry.build(
        registry.resolve("it", {"it": {"base": "synthetic/text-to-image", "layer": "a"}})
    )
    with pytest.raises(ModelError, match="holds no torch modules"):
        nothing.load("cpu")


def test_layer_pool_and_token_are_in_the_fingerprint(chain: Callable[..., Any]) -> None:
    given = [{}, {"pool": "mean"}, {"pool": "last"}, {"token": 0}, {"token": -1}]
    specs = [chain(layer=layer, **more) for layer in ("net.0", "net.1") for more in given]
    assert len({registry.fingerprint(spec) for spec in [*specs, chain()]}) == 11
    assert registry.fingerprint(chain(layer="net.0")) == registry.fingerprint(chain(layer="net.0"))


def test_mistakes_in_a_variant_are_answered(chain: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="has no effect while token is set"):
        chain(layer="net.0", pool="mean", token=1)
    with pytest.raises(ConfigError, match="not one of the allowed"):
        chain(layer="net.0", pool="max")


def test_a_parameter_of_the_model_s_own_that_is_called_layer_stays_its_own(chain: Callable[..., Any]) -> None:
    spec = chain("Layered", layer=2)
    assert (spec.adapter, spec.modality_out) == ("python", Modality.TEXT)
