"""What each task learns and writes: losses fall, what is exported loads in its library and runs in a loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from panic import Store, load_config, run
from panic.errors import UsageError
from panic.store.reading import runs
from panic.train.adapters import save_adapters
from panic.train.batches import Batch
from panic.train.image_tensors import recolour
from panic.train.tasks import build
from panic.train.training import open_data
from tests import tiny
from tests.train import small

EASY = {"steps": 40, "learning_rate": 0.01, "batch_size": 8, "evaluate_every": 1000, "log_every": 10}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One model of each task, trained on the same pictures: settings by task."""
    folder = tmp_path_factory.mktemp("trained")
    settings = {
        task: small.config(task, folder, output=str(folder / task), sample_steps=2, **EASY)
        if task == "diffusion"
        else small.config(task, folder, output=str(folder / task), **EASY)
        for task in small.MODELS
    }
    torch.set_num_threads(1)
    for each in settings.values():
        small.fit(each)
    return settings


@pytest.mark.parametrize(("task", "share"), [("autoencoder", 0.7), ("diffusion", 0.7), ("captioning", 0.3)])
def test_loss_falls(trained, task, share):
    losses = small.losses(trained[task])
    assert losses[-1] < share * losses[0], losses


def test_a_contrastive_loss_falls_to_what_it_can_be(trained):
    """Four pictures of each batch have the same text: no one can say which of them is meant."""
    losses = small.losses(trained["contrastive"])
    assert losses[0] > 1.5
    assert losses[-1] == pytest.approx(np.log(4), rel=1e-3)


def test_evaluation_writes_figures_and_samples(trained):
    for task, settings in trained.items():
        (row,) = small.rows(settings, "evaluation")
        assert row["step"] == "40"
        assert 0 < float(row["loss"]) < 10
        samples = [path.name for path in (small.folder_of(settings) / "samples").iterdir()]
        expected = {"autoencoder": ["00000040.png"], "diffusion": ["00000040.png"], "contrastive": []}
        assert samples == expected.get(task, ["00000040.txt"])


def test_captions_are_the_classes(trained):
    assert float(small.rows(trained["captioning"], "evaluation")[0]["exact"]) == 1.0


def test_exported_models_load_in_their_libraries_as_float32(trained):
    from diffusers import AutoencoderTiny
    from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPModel

    captioner = AutoModelForImageTextToText.from_pretrained(trained["captioning"].output)
    clip = CLIPModel.from_pretrained(trained["contrastive"].output)
    autoencoder = AutoencoderTiny.from_pretrained(trained["autoencoder"].output)
    assert captioner.dtype == clip.dtype == autoencoder.dtype == torch.float32
    processor = AutoProcessor.from_pretrained(trained["captioning"].output)
    red = np.full((small.SIDE, small.SIDE, 3), (255, 0, 0), np.uint8)
    ids = captioner.generate(**processor(images=[red], return_tensors="pt"), do_sample=False)
    assert processor.batch_decode(ids, skip_special_tokens=True)[0].strip() == "red"


def test_exported_autoencoder_gives_normal_latents(trained):
    """The batch normalisation of training is folded into the encoder."""
    from diffusers import AutoencoderTiny

    settings = trained["autoencoder"]
    autoencoder = AutoencoderTiny.from_pretrained(settings.output)
    task = build(settings, open_data(settings.data, settings.image_size))
    pictures = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    state = small.newest(settings)
    task.load_state_dict(small.averages(state) | state["buffers"], strict=False)
    with torch.no_grad():
        ours, theirs = task.eval().encode(pictures), autoencoder.encode(pictures).latents
    torch.testing.assert_close(theirs, ours, rtol=0.02, atol=0.02)


def test_a_latent_model_is_a_plain_stable_diffusion_pipeline(trained, tmp_path):
    from diffusers import DiffusionPipeline, StableDiffusionPipeline

    unet = small.UNET | {"sample_size": 8, "in_channels": 4, "out_channels": 4}
    model = {"unet": unet, "text_encoder": small.TRANSFORMER, "autoencoder": trained["autoencoder"].output}
    settings = small.config("diffusion", tmp_path, model=model, steps=2, sample_steps=1)
    small.fit(settings)
    pipeline = DiffusionPipeline.from_pretrained(settings.output)
    assert type(pipeline) is StableDiffusionPipeline
    assert {part.dtype for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)} == {torch.float32}
    drawn = pipeline(["red", "a horse"], num_inference_steps=2, output_type="np").images
    assert drawn.shape == (2, 16, 16, 3)


def test_exported_models_are_nodes_of_a_network(trained, tmp_path):
    config = tmp_path / "loop.yaml"
    config.write_text(
        f"""
name: own
networks: [["local:{trained["diffusion"].output}", "local:{trained["captioning"].output}"]]
prompts: [red]
seeds: [1]
max_length: 4
embeddings: ["local:{trained["contrastive"].output}"]
models: {{}}
device: cpu
"""
    )
    run(load_config(config), store=tmp_path / "store")
    with Store(tmp_path / "store") as store:
        (performed,) = runs(store)
        assert (performed.state, performed.num_steps) in [("done", 4), ("stuck", performed.num_steps)]


@pytest.mark.parametrize("predict", ["epsilon", "sample", "v_prediction"])
def test_min_snr_is_the_formula(tmp_path, predict):
    settings = small.config(
        "diffusion", tmp_path, predict=predict, zero_terminal_snr=predict != "epsilon", min_snr=5.0
    )
    task = build(settings, open_data(settings.data, settings.image_size))
    times = torch.tensor([0, 100, 500, 900, 998])
    kept = task.scheduler.alphas_cumprod[times].double()
    snr = kept / (1 - kept)
    assert (snr > 5).any()
    assert (snr < 5).any()
    capped = torch.minimum(snr, torch.tensor(5.0))
    expected = {"epsilon": capped / snr, "sample": capped, "v_prediction": capped / (snr + 1)}[predict]
    torch.testing.assert_close(task.min_snr(times, 5.0).double(), expected, rtol=1e-4, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("predict", ["epsilon", "sample"])
def test_other_predictions_learn_to_draw(tmp_path, predict):
    changes = {"predict": predict, "zero_terminal_snr": False, "min_snr": 5.0, "steps": 20, "log_every": 5}
    settings = small.config("diffusion", tmp_path, **(EASY | changes), sample_steps=2)
    small.fit(settings)
    losses = small.losses(settings)
    assert losses[-1] < 0.8 * losses[0], losses


@pytest.mark.slow
def test_compiled_and_not_are_the_same_training(tmp_path):
    settings = small.config("autoencoder", tmp_path)
    task = build(settings, open_data(settings.data, settings.image_size))
    task.compile_parts("default")
    assert task.model.encoder._compiled_call_impl is not None
    assert list(task.state_dict()) == list(build(settings, task.data).state_dict())


def test_frozen_parts_never_drop(tmp_path):
    tiny.build_stable_diffusion(tmp_path / "base")
    settings = small.config(
        "diffusion", tmp_path, model={"base": str(tmp_path / "base")}, image_size=64, train_text_encoder=False
    )
    task = build(settings, open_data(settings.data, settings.image_size)).train()
    assert task.unet.training
    assert not task.autoencoder.training
    assert not task.text_encoder.training


def draw(pipeline, text="a red circle"):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        text, num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np"
    ).images


@pytest.mark.slow
def test_lora_changes_only_its_weights_and_is_exported_merged_and_apart(tmp_path):
    from diffusers import DiffusionPipeline, StableDiffusionPipeline

    base: Path = tiny.build_stable_diffusion(tmp_path / "base")
    settings = small.config(
        "diffusion",
        tmp_path,
        model={"base": str(base)},
        image_size=64,
        lora={"rank": 2, "alpha": 8},
        steps=5,
        learning_rate=0.05,
        ema=0.0,
        sample_steps=1,
    )
    task = small.fit(settings)
    before = DiffusionPipeline.from_pretrained(base)
    for name, weight in before.unet.state_dict().items():
        adapted = name.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias")
        now = task.unet.state_dict()
        assert torch.equal(weight, now.get(name, now.get(adapted))), name
    for name, weight in before.text_encoder.state_dict().items():
        assert torch.equal(weight, task.text_encoder.state_dict()[name])
    assert all("lora" in name for name in small.newest(settings)["weights"])
    assert all(value.abs().max() > 0 for value in small.newest(settings)["weights"].values())

    merged = DiffusionPipeline.from_pretrained(settings.output)
    assert type(merged) is StableDiffusionPipeline
    assert not any("lora" in name for name in merged.unet.state_dict())
    assert merged.scheduler.config == before.scheduler.config
    plain, right = draw(before), draw(task.eval().pipeline())
    assert abs(plain - right).max() > 0.05
    assert abs(draw(merged) - right).max() < 0.02  # float16 on disk
    before.load_lora_weights(f"{settings.output}/lora")
    assert abs(draw(before) - right).max() < 0.02


def test_lora_of_a_captioner(tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    tiny.build_blip(tmp_path / "base")
    settings = small.config(
        "captioning",
        tmp_path,
        model={"base": str(tmp_path / "base")},
        image_size=32,
        lora={"rank": 2},
        steps=3,
        learning_rate=0.05,
        ema=0.0,
    )
    task = small.fit(settings)
    inputs = {"pixel_values": torch.ones(1, 3, 32, 32), "input_ids": torch.tensor([[1, 9, 9, 9]])}
    base = AutoModelForImageTextToText.from_pretrained(tmp_path / "base").eval()
    with torch.no_grad():
        plain, right = base(**inputs).logits, task.model.eval()(**inputs).logits
        merged = AutoModelForImageTextToText.from_pretrained(settings.output).eval()(**inputs).logits
        apart = PeftModel.from_pretrained(base, f"{settings.output}/lora").eval()(**inputs).logits
    assert (plain - right).abs().max() > 0.1
    torch.testing.assert_close(merged, right, rtol=0.02, atol=0.05)
    torch.testing.assert_close(apart, right, rtol=0.02, atol=0.05)

    files = [path.read_bytes() for path in sorted(Path(settings.output, "lora").iterdir())]
    assert len(files) == 2
    assert not any(str(tmp_path).encode() in content for content in files)
    save_adapters(task.model, tmp_path / "again")
    assert [path.read_bytes() for path in sorted((tmp_path / "again").iterdir())] == files


def test_a_decoder_alone_learns_without_touching_the_latents(tmp_path):
    from diffusers import AutoencoderTiny

    first = small.config("autoencoder", tmp_path / "first")
    small.fit(first)
    second = small.config(
        "autoencoder", tmp_path / "second", model={"base": first.output}, learn="decoder", learning_rate=1e-3
    )
    small.fit(second)
    before, after = (
        AutoencoderTiny.from_pretrained(config.output).state_dict() for config in (first, second)
    )
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}


def test_recoloured_pictures_are_the_same_shapes_in_other_colours(tmp_path):
    """Channels are exchanged and turned over: distances from the middle stay, as a set, at every pixel."""
    data = open_data(small.config("autoencoder", tmp_path).data, small.SIDE)
    batch = Batch(data.training(0, 0, 8, range(8)), range(8), 8, 0, 0)
    plain = batch.images()
    shown, chosen = recolour(plain, 1.0, batch)
    assert chosen.all()
    torch.testing.assert_close(shown.abs().sort(1).values, plain.abs().sort(1).values)
    assert sum(not torch.equal(a, b) for a, b in zip(shown, plain, strict=True)) >= 5
    shown, chosen = recolour(plain, 0.5, batch)
    assert 0 < chosen.sum() < 8
    torch.testing.assert_close(shown[~chosen], plain[~chosen])


def test_an_autoencoder_learns_from_recoloured_pictures(tmp_path):
    def loss(**changes: object) -> torch.Tensor:
        settings = small.config("autoencoder", tmp_path, roughen=0.0, **changes)
        data = open_data(settings.data, small.SIDE)
        return build(settings, data)(Batch(data.training(0, 0, 8, range(8)), range(8), 8, 0, 0))

    torch.testing.assert_close(loss(), loss())
    assert (loss() - loss(recolour=1.0)).abs().max() > 1e-3


def test_a_recoloured_picture_is_not_asked_for_its_colours(tmp_path):
    """Whatever colour the text tells, the loss is the same where the picture is recoloured, only there."""
    words = list(small.COLOURS)
    data = open_data(small.config("captioning", tmp_path).data, small.SIDE)
    items = data.training(0, 0, 8, range(8))
    others = [replace(item, texts=(words[1 - words.index(item.texts[0])],)) for item in items]
    assert {item.texts[0] for item in items} == set(words)

    def losses(some: list[Any], share: float) -> torch.Tensor:
        changes = {"recolour": share, "colour_words": words} if share else {}
        task = build(small.config("captioning", tmp_path, spoil=0.0, **changes), data).eval()
        seen.clear()
        task.model.vision_model.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs.get("pixel_values", args[0] if args else None)),
            with_kwargs=True,
        )
        with torch.no_grad():
            return task(Batch(some, range(8), 8, 0, 0))

    seen: list[torch.Tensor] = []
    assert (losses(items, 0.0) - losses(others, 0.0)).abs().min() > 1e-6
    plain = seen[0]
    torch.testing.assert_close(losses(items, 1.0), losses(others, 1.0))
    assert not torch.equal(seen[0], plain)
    same = (losses(items, 0.5) - losses(others, 0.5)).abs() < 1e-6
    assert 0 < same.sum() < 8
    for changes in ({"recolour": 1.0}, {"colour_words": words}):
        with pytest.raises(ValueError, match="colour_words"):
            small.config("captioning", tmp_path, **changes)


def test_words_start_far_apart(tmp_path):
    """A new text encoder tells words apart that pictures hardly do: left and right."""
    task = build(
        small.config("diffusion", tmp_path), open_data(small.config("diffusion", tmp_path).data, small.SIDE)
    )
    words = task.text_encoder.get_input_embeddings().weight
    assert 0.4 < words.std() < 0.6


def test_fresh_words_begin_anew_and_no_others(tmp_path, trained):
    model = {"base": trained["diffusion"].output}
    settings = small.config("diffusion", tmp_path, model=model, fresh_words=["red"])
    data = open_data(settings.data, small.SIDE)
    task, same = build(settings, data), build(small.config("diffusion", tmp_path, model=model), data)
    moved = (
        task.text_encoder.get_input_embeddings().weight != same.text_encoder.get_input_embeddings().weight
    ).any(1)
    row = task.parts.tokenizer.convert_tokens_to_ids(task.parts.tokenizer.tokenize(" red")[0])
    assert moved.nonzero().ravel().tolist() == [row]
    for word in ("no such words", ""):
        with pytest.raises(UsageError, match="must be one"):
            build(small.config("diffusion", tmp_path, model=model, fresh_words=[word]), data)
    with pytest.raises(ValueError, match="without lora"):
        small.config("diffusion", tmp_path, model=model, fresh_words=["red"], lora={"rank": 2})


def test_noise_levels_that_a_sampler_visits(tmp_path):
    """Four trailing steps of 1,000: 999, 749, 499 and 249, each met by a quarter of what is visited."""

    def times(**changes: object) -> torch.Tensor:
        settings = small.config("diffusion", tmp_path, sample_steps=4, **changes)
        data = open_data(settings.data, small.SIDE)
        return build(settings, data)._times(Batch([], range(64), 64, 0, 0))

    assert sorted(times(visited_times=1.0).tolist()) == [t for t in (249, 499, 749, 999) for _ in range(16)]
    assert times().unique().numel() > 32
    assert times(least_time=900).min() >= 900
    assert times(visited_times=1.0, least_time=300).unique().tolist() == [499, 749, 999]
    settings = small.config("diffusion", tmp_path, sample_steps=4, least_time=900)
    task = build(settings, open_data(settings.data, small.SIDE))
    task.scheduler = DDIMScheduler.from_config(task.scheduler.config, timestep_spacing="leading")
    with pytest.raises(UsageError, match="none is from least_time 900"):
        task._levels_of_drawing()
    half = times(visited_times=0.5)
    assert 20 <= sum(int((half == t).sum()) for t in (249, 499, 749, 999)) <= 44


def test_every_word_of_a_text_counts_for_its_vector(trained):
    """CLIP of transformers has two ways to find a text's end, one of which stops at a rare word."""
    from transformers import AutoProcessor, CLIPModel

    folder = trained["contrastive"].output
    model, tokens = CLIPModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder).tokenizer
    texts = ["blue red a", "blue red b", "red blue a", "a a a", "a a b"]
    with torch.no_grad():
        vectors = model.get_text_features(**tokens(texts, padding=True, return_tensors="pt")).pooler_output
    assert torch.pdist(vectors).min() > 1e-4
