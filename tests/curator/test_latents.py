import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from curator.frames import write_clip
from curator.latent_files import latent_file
from curator.latents.encode import EncodeLatents
from curator.latents.fit import FitCodec, read_pixels, sample_of
from nemo_summer.encoders.video_vae import CodecConfig, load_codec
from tests.curator.made_clips import camera, clip_of, moving_square


def clips_in(out, count=4, frames=21, size=(32, 64)):
    """Train clips with their mp4s in `out`."""
    made = []
    for i in range(count):
        rgb_THWC = camera(frames, right=1.0 - i, seed=i, size=size)
        clip = clip_of(rgb_THWC, clip_id=f"clip-{i}", file=f"work/clips/clip-{i}.mp4", split="train")
        (out / clip.file).parent.mkdir(parents=True, exist_ok=True)
        write_clip(out / clip.file, clip.frames, crf=18)
        made.append(replace(clip, frames=None))
    return made


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """Folder, clips, and the latents of each, codec fitted on the same clips."""
    out = tmp_path_factory.mktemp("out")
    clips = FitCodec(out=str(out), clip_frames=17).process_all(clips_in(out))
    stage = EncodeLatents(out=str(out), clip_frames=17)
    stage.setup()
    clips = [stage.process(clip)[0] for clip in clips]
    return out, clips, [load_file(latent_file(out, clip.clip_id))["latent"] for clip in clips]


def test_latents_have_the_shape_in_the_record_and_as_many_frames_as_the_recipe_allows(encoded):
    _, clips, latents = encoded
    # 21 frames on disk, 17 allowed: 5 latent frames of 2 x 4
    assert [tuple(z.shape) for z in latents] == [clip.latent_shape for clip in clips] == [(48, 5, 2, 4)] * 4


def test_latents_of_the_train_clips_have_no_mean_and_unit_variance_per_channel(encoded):
    _, _, latents = encoded
    z_CN = torch.cat([z.flatten(1) for z in latents], dim=1)
    assert z_CN.mean(dim=1).abs().max() < 1e-3
    assert z_CN.std(dim=1, correction=0)[:16] == pytest.approx(torch.ones(16), abs=1e-2)


def test_latents_decode_to_the_pixels_they_came_from(encoded):
    out, clips, latents = encoded
    x_CTHW = read_pixels(out / clips[0].file, 17)
    back_CTHW = load_codec(out / "codec").decode(latents[0][None])[0]
    assert back_CTHW.shape == x_CTHW.shape
    assert (back_CTHW - x_CTHW).square().mean() < 0.1 * x_CTHW.var()


def test_pixels_are_between_minus_one_and_one_and_4n_plus_1(tmp_path):
    write_clip(tmp_path / "a.mp4", clip_of(moving_square(20)[:, :96, :192]).frames, crf=18)
    x_CTHW = read_pixels(tmp_path / "a.mp4", 81)
    assert x_CTHW.shape == (3, 17, 96, 192)
    assert -1 <= x_CTHW.min() < -0.5 and 0.5 < x_CTHW.max() <= 1


def test_the_codec_is_fitted_on_train_clips_alone(tmp_path, monkeypatch):
    seen = []

    def build(self, videos, device="cpu"):
        seen.extend(videos)
        return SimpleNamespace(save=lambda folder: None)

    monkeypatch.setattr(CodecConfig, "build", build)
    clips = clips_in(tmp_path)
    rest = [replace(clips[2], split="val"), replace(clips[3], dropped_by="blur")]
    FitCodec(out=str(tmp_path), clip_frames=17).process_all([*clips[:2], *rest])
    expected = [read_pixels(tmp_path / clip.file, 17) for clip in sample_of(clips[:2], 2)]
    assert len(seen) == 2 and all(torch.equal(a, b) for a, b in zip(seen, expected))


def test_the_sample_for_the_fit_does_not_depend_on_the_order():
    clips = [clip_of(np.zeros((1, 8, 8, 3), np.uint8), clip_id=f"c{i}") for i in range(20)]
    assert sample_of(clips, 5) == sample_of(clips[::-1], 5)
    assert len(sample_of(clips, 50)) == 20


def test_a_clip_that_is_no_mp4_is_named(tmp_path):
    (tmp_path / "a.mp4").write_text("not a video")
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be read .*delete it and run the same command again"):
        read_pixels(tmp_path / "a.mp4", 81)


def test_latents_of_another_codec_lie_elsewhere(encoded, tmp_path):
    out, _, _ = encoded
    with pytest.raises(ValueError, match="run `summer curate"):
        latent_file(tmp_path, "a")
    shutil.copytree(out / "codec", tmp_path / "codec")
    assert latent_file(out, "a").relative_to(out) == latent_file(tmp_path, "a").relative_to(tmp_path)
    (tmp_path / "codec/config.json").write_text('{"kind": "wan", "path": "elsewhere"}')
    assert latent_file(out, "a").parent.name != latent_file(tmp_path, "a").parent.name


def test_with_no_clip_kept_there_is_no_codec_and_no_complaint(tmp_path):
    dropped = [replace(clip, dropped_by="static") for clip in clips_in(tmp_path, count=1)]
    assert FitCodec(out=str(tmp_path)).process_all(dropped) == dropped
    stage = EncodeLatents(out=str(tmp_path))
    stage.setup()
    assert stage.process(dropped[0]) == dropped
    assert not (tmp_path / "codec").exists()
