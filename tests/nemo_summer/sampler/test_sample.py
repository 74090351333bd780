"""Sampling with models whose answer is known."""

import json

import av
import pytest
import torch

from nemo_summer.diffusion.time import ObjectiveConfig
from nemo_summer.dit.config import DitConfig
from nemo_summer.dit.linear import PlainLinears
from nemo_summer.dit.model import Dit, init_weights
from nemo_summer.encoders.text import HashedWords
from nemo_summer.encoders.video_vae import LinearVae
from nemo_summer.sampler.sample import (
    SampleConfig,
    SolverKind,
    clip_seeds,
    file_words,
    latent_shape,
    sample_latents,
    sample_videos,
)
from nemo_summer.shapes import ClipShape
from tests.nemo_summer.dit.packs import fill_zeros

TEXT = HashedWords(16, 8)
SHAPE = (3, 2, 2)


class TowardsItsCaption:
    """Knows the answer: each clip's clean latents are one number, the mean of its caption's vectors, everywhere."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, bool]] = []

    def __call__(self, noisy_SE, t_N, pack):
        captions = pack.text_LD.split(pack.text_lengths_N().tolist())
        self.calls.append((float(t_N[0]), bool((pack.text_lengths_N() == 1).all())))
        clean_N = torch.stack([caption.mean() for caption in captions])
        lengths = pack.lengths_N()
        clean_S1, t_S1 = clean_N.repeat_interleave(lengths)[:, None], t_N.repeat_interleave(lengths)[:, None]
        return (clean_S1 - noisy_SE) / t_S1.clamp_min(1e-6)


def gaussian_model(noisy_SE, t_N, pack):
    """Best velocity for data N(0, 1/4): the end of a path is half its beginning."""
    t = t_N.repeat_interleave(pack.lengths_N())[:, None]
    return ((1 - t) / 4 - t) * noisy_SE / ((1 - t) ** 2 / 4 + t**2)


def run(model, prompts, **settings):
    cfg = SampleConfig(**{"steps": 4, "solver": SolverKind.euler, "guidance": 1.0, **settings})
    return list(sample_latents(model, TEXT, prompts, SHAPE, cfg, ObjectiveConfig()))


def meaning(prompt: str) -> float:
    return float(TEXT.encode([prompt])[0].mean())


def test_a_model_that_knows_the_answer_gives_each_prompt_its_own_video():
    prompts = ["a red ball", "", "two dogs run on sand"]
    for z, prompt in zip(run(TowardsItsCaption(), prompts), prompts, strict=True):
        assert z.shape == (48, 3, 2, 2)
        torch.testing.assert_close(z, torch.full_like(z, meaning(prompt)), atol=1e-5, rtol=0)


def test_guidance_goes_beyond_the_caption_by_its_scale():
    for scale in (0.0, 1.0, 3.0):
        (z,) = run(TowardsItsCaption(), ["a red ball"], guidance=scale)
        wanted = meaning("") + scale * (meaning("a red ball") - meaning(""))
        assert float(z.mean()) == pytest.approx(wanted, abs=1e-4)


def test_a_scale_of_one_or_zero_calls_the_model_once_per_step():
    for scale, calls in ((0.0, 4), (1.0, 4), (2.0, 8)):
        model = TowardsItsCaption()
        run(model, ["a red ball"], guidance=scale)
        assert len(model.calls) == calls
        assert model.calls[0][0] == 1.0


def test_the_result_for_a_prompt_does_not_depend_on_what_is_sampled_beside_it():
    (alone,) = run(gaussian_model, ["a red ball"])
    beside = run(gaussian_model, ["two dogs", "a red ball", "three words more"], videos_at_once=2)
    torch.testing.assert_close(beside[1], alone)
    assert not torch.allclose(beside[0], alone, atol=0.1)


def test_the_same_prompt_twice_gives_two_videos_and_another_seed_others():
    first, second = run(gaussian_model, ["a red ball"] * 2)
    (other,) = run(gaussian_model, ["a red ball"], seed=1)
    for one in (second, other):
        assert float((first - one).std()) > 0.3
    assert len(set(clip_seeds(0, ["a", "a", "b"]) + clip_seeds(1, ["a", "a", "b"]))) == 6


def test_latents_of_a_gaussian_model_have_its_deviation():
    many = torch.stack(run(gaussian_model, ["x"] * 40, steps=64, solver=SolverKind.heun))
    # 40 clips of 48 x 3 x 2 x 2 numbers: the deviation is known to 0.5 %
    assert float(many.std()) == pytest.approx(0.5, rel=0.02)
    assert abs(float(many.mean())) < 0.02


def test_the_transformer_itself_gives_a_prompt_the_same_video_alone_and_in_company():
    model = Dit(DitConfig(width=32, heads=2, layers=2, text_width=16, time_width=16), PlainLinears())
    init_weights(model, seed=0)
    fill_zeros(model)  # else the velocity is 0, whatever the caption
    (alone,) = run(model, ["a red ball"], guidance=3.0)
    beside = run(model, ["two dogs run on sand", "a red ball", ""], guidance=3.0)
    torch.testing.assert_close(beside[1], alone, atol=1e-4, rtol=1e-4)
    (without,) = run(model, ["a red ball"], guidance=0.0)
    assert not torch.allclose(without, alone, atol=1e-3)


def test_no_gradient_is_recorded():
    weight = torch.ones(1, requires_grad=True)
    (z,) = run(lambda x, t, pack: x * weight, ["a"])
    assert not z.requires_grad


def test_latents_have_the_shape_of_the_recipes_clip():
    assert latent_shape(ClipShape(frames=81, height=352, width=640)) == (21, 22, 40)


@pytest.fixture(scope="module")
def codec() -> LinearVae:
    return LinearVae(torch.zeros(3072), torch.linalg.qr(torch.randn(3072, 48))[0], torch.ones(48))


def test_videos_and_a_record_of_how_they_were_made_are_written(tmp_path, codec):
    clip = ClipShape(frames=9, height=32, width=48, fps=12)
    prompts = ["A red ball!", "../../etc/passwd", "狗", "", "x" * 1000]
    cfg = SampleConfig(prompts=prompts, steps=2, guidance=2.0, videos_at_once=2)
    made = sample_videos(gaussian_model, TEXT, codec, clip, cfg, ObjectiveConfig(), tmp_path, show_progress=False)
    record = json.loads((tmp_path / "samples.json").read_text())
    assert [one["prompt"] for one in record["samples"]] == prompts and record["guidance"] == 2.0
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([one.file for one in made] + ["samples.json"])
    with av.open(str(tmp_path / made[0].file)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, float(stream.average_rate)) == (48, 32, 12)
        assert sum(1 for _ in container.decode(stream)) == 9


def test_file_names_hold_only_letters_digits_and_dashes():
    assert file_words("../../etc/passwd") == "etc-passwd"
    assert file_words("狗 \0 $(rm -rf)") == "rm-rf"
    assert file_words("") == file_words("狗") == "video"
    assert len(file_words("word " * 100_000)) <= 40


def test_sampling_without_a_prompt_is_refused_with_the_knob(tmp_path, codec):
    with pytest.raises(ValueError, match=r"set sample\.prompts"):
        sample_videos(gaussian_model, TEXT, codec, ClipShape(), SampleConfig(), ObjectiveConfig(), tmp_path)
    with pytest.raises(ValueError, match=r"sample\.steps=0"):
        SampleConfig(steps=0)
