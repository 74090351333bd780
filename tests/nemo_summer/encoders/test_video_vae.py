"""The codecs: principal components against an SVD, causality, statistics, files, and Wan's VAE on random weights."""

import json

import pytest
import torch

from nemo_summer.encoders.video_vae import (
    BlockSums,
    CodecConfig,
    CodecKind,
    LinearVae,
    WanVae,
    blocks_of,
    leading_components,
    load_codec,
    video_of,
)
from nemo_summer.shapes import LATENT_CHANNELS


def moving_textures(count: int, frames: int = 9, seed: int = 0) -> list[torch.Tensor]:
    """Coloured noise, smooth in space, drifting in time: a falling spectrum with far more than 48 directions."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, frames // 2 + 1, 6, 8, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(frames, 32, 48), mode="trilinear", align_corners=True)
    return list((0.35 * fine + 0.02 * torch.randn(fine.shape, generator=generator)).clamp(-1, 1))


@pytest.fixture(scope="module")
def videos() -> list[torch.Tensor]:
    return moving_textures(32)


@pytest.fixture(scope="module")
def codec(videos) -> LinearVae:
    return LinearVae.fit(videos)


@pytest.fixture(scope="module")
def centred(videos) -> torch.Tensor:
    """All blocks of the footage with the mean taken off, cut by plain loops."""
    blocks = []
    for x in videos:
        for k in range(3):
            frames = x[:, :1].repeat(1, 4, 1, 1) if k == 0 else x[:, 4 * k - 3 : 4 * k + 1]
            blocks += [frames[:, :, r : r + 16, c : c + 16].flatten() for r in (0, 16) for c in (0, 16, 32)]
    stacked = torch.stack(blocks).double()
    return stacked - stacked.mean(0)


def test_blocks_and_back_is_the_identity(videos):
    torch.testing.assert_close(video_of(blocks_of(videos[0][None])), videos[0][None])


def test_components_and_deviations_are_those_of_an_svd(codec, centred):
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    deviations = singular[:LATENT_CHANNELS] / len(centred) ** 0.5
    torch.testing.assert_close(codec.std_C.double(), deviations, rtol=1e-4, atol=0)
    cosines = (directions[:LATENT_CHANNELS] * codec.basis_EC.T).sum(1).abs()
    assert cosines.min() > 0.999


def test_the_error_of_a_round_trip_is_the_sum_of_the_discarded_eigenvalues(codec, videos, centred):
    x = torch.stack(videos)
    z = codec.encode(x)
    raw = (z.permute(0, 2, 3, 4, 1) * codec.std_C) @ codec.basis_EC.T + codec.mean_E
    error = (raw - blocks_of(x)).double().square().sum(-1).mean()
    discarded = (torch.linalg.svdvals(centred) ** 2 / len(centred))[LATENT_CHANNELS:].sum()
    assert float(error) == pytest.approx(float(discarded), rel=1e-4)


def test_latents_of_the_footage_have_zero_mean_and_unit_variance_per_channel(codec, videos):
    z = codec.encode(torch.stack(videos))
    assert z.shape == (32, 48, 3, 2, 3)
    torch.testing.assert_close(z.mean((0, 2, 3, 4)), torch.zeros(48), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.var((0, 2, 3, 4), correction=0), torch.ones(48), atol=1e-3, rtol=0)


def test_changing_a_frame_leaves_all_earlier_latents_as_they_were(codec, videos):
    x = videos[0][None].clone()
    before = codec.encode(x)
    for frame, first_touched in ((0, 0), (1, 1), (4, 1), (5, 2), (8, 2)):
        changed = x.clone()
        changed[:, :, frame] = -changed[:, :, frame]
        after = codec.encode(changed)
        assert torch.equal(after[:, :, :first_touched], before[:, :, :first_touched])
        assert not torch.equal(after[:, :, first_touched], before[:, :, first_touched])


def test_latents_survive_being_decoded_and_encoded_again(codec):
    # small latents: their pixels are not clipped. The first latent frame is left out: its four pixel frames become one
    z = 0.1 * torch.randn(2, 48, 4, 2, 3, generator=torch.Generator().manual_seed(6))
    x = codec.decode(z)
    assert x.shape == (2, 3, 13, 32, 48)
    torch.testing.assert_close(codec.encode(x)[:, :, 1:], z[:, :, 1:], atol=1e-3, rtol=0)


def test_a_picture_of_footage_comes_back_as_well_as_a_video(codec, videos):
    x = torch.stack(videos)
    video, picture = (float((codec.decode(codec.encode(v)) - v).square().mean()) for v in (x, x[:, :, :1]))
    assert picture < 2 * video < 0.5 * float(x.var())


def test_fitting_twice_gives_the_same_codec_bit_for_bit(codec, videos):
    again = LinearVae.fit(iter(videos))
    assert torch.equal(codec.basis_EC, again.basis_EC) and torch.equal(codec.std_C, again.std_C)


def test_signs_do_not_turn_when_the_footage_changes_a_little(codec, videos):
    other = LinearVae.fit([x + 1e-4 * torch.randn(x.shape) for x in videos])
    products = (codec.basis_EC * other.basis_EC).sum(0)
    assert (products > 0).all()


def test_leading_components_of_a_flat_spectrum_are_found_too():
    generator = torch.Generator().manual_seed(2)
    base = torch.linalg.qr(torch.randn(150, 150, generator=generator, dtype=torch.float64)).Q
    values = torch.linspace(1.0, 0.9, 150, dtype=torch.float64)
    found, vectors = leading_components(base @ torch.diag(values) @ base.T, 48, rounds=20)
    torch.testing.assert_close(found, values[:48])
    torch.testing.assert_close((vectors * base[:, :48]).sum(0).abs(), torch.ones(48, dtype=torch.float64))


def test_moments_do_not_depend_on_how_the_blocks_arrive():
    blocks = torch.randn(300, 3072, generator=torch.Generator().manual_seed(4))
    sums = BlockSums()
    for part in blocks.split([1, 200, 99]):
        sums.add(part)
    mean, covariance = sums.moments()
    torch.testing.assert_close(mean, blocks.double().mean(0))
    torch.testing.assert_close(
        covariance[:50, :50], torch.cov(blocks[:, :50].double().T, correction=0), atol=1e-6, rtol=0
    )


def test_a_saved_codec_is_read_back_bit_for_bit(codec, videos, tmp_path):
    codec.save(tmp_path)
    again = load_codec(tmp_path)
    x = videos[3][None]
    assert torch.equal(codec.encode(x), again.encode(x))
    assert again.fitted_on == codec.fitted_on and again.fitted_on["clips"] == 32
    assert sorted(file.name for file in tmp_path.iterdir()) == ["codec.safetensors", "config.json"]


def damage(folder, how: str) -> None:
    weights, config = folder / "codec.safetensors", folder / "config.json"
    if how == "cut off":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "one bit":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif how == "no weights":
        weights.unlink()
    elif how == "no config":
        config.unlink()
    elif how == "half a config":
        config.write_text(config.read_text()[:40])
    elif how == "a list":
        config.write_text("[]")
    elif how == "another format":
        config.write_text(json.dumps({**json.loads(config.read_text()), "format": 9}))
    elif how == "other channels":
        config.write_text(json.dumps({**json.loads(config.read_text()), "channels": 16}))


HOW = ["cut off", "one bit", "no weights", "no config", "half a config", "a list", "another format", "other channels"]


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_codec_is_refused_with_its_file(codec, tmp_path, how):
    codec.save(tmp_path)
    damage(tmp_path, how)
    with pytest.raises(ValueError, match=str(tmp_path)) as caught:
        load_codec(tmp_path)
    assert "\n" not in str(caught.value)


SHAPES = [(1, 3, 8, 32, 32), (1, 3, 9, 30, 32), (1, 1, 9, 32, 32), (3, 9, 32, 32), (1, 3, 0, 32, 32)]


@pytest.mark.parametrize("shape", SHAPES)
def test_videos_that_do_not_divide_into_latents_are_refused(codec, shape):
    with pytest.raises(ValueError, match=r"divide into latents|takes videos"):
        codec.encode(torch.zeros(shape))


def test_too_little_or_flat_footage_is_refused(videos):
    with pytest.raises(ValueError, match="too few"):
        LinearVae.fit([])
    with pytest.raises(ValueError, match="flat colour"):
        LinearVae.fit([torch.full((3, 33, 32, 48), 0.5)])


def test_a_config_fits_at_most_so_many_clips_or_reads_what_was_fitted_before(codec, videos, tmp_path):
    assert CodecConfig(fit_clips=9).build(iter(videos)).fitted_on["clips"] == 9
    codec.save(tmp_path)
    assert torch.equal(CodecConfig(path=str(tmp_path)).build([]).basis_EC, codec.basis_EC)
    with pytest.raises(ValueError, match=r"set codec\.path"):
        CodecConfig(kind=CodecKind.wan).build([])


def write_wan(folder, **changes) -> None:
    """A random VAE of Wan2.2's architecture, 8 numbers wide instead of 160."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    options = {
        "base_dim": 8, "decoder_base_dim": 8, "z_dim": 48, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 1,
        "temperal_downsample": [False, True, True], "is_residual": True, "in_channels": 12, "out_channels": 12,
        "patch_size": 2, "scale_factor_temporal": 4, "scale_factor_spatial": 16,
        "latents_mean": [0.1 * k for k in range(48)], "latents_std": [1 + 0.1 * k for k in range(48)],
    }  # fmt: skip
    AutoencoderKLWan(**{**options, **changes}).save_pretrained(folder)


@pytest.fixture(scope="module")
def wan_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wan")
    write_wan(folder / "vae")
    return folder


def test_wan_latents_are_normalised_by_the_statistics_of_its_config(wan_folder, tmp_path):
    from diffusers import AutoencoderKLWan

    codec = WanVae(str(wan_folder))
    x = moving_textures(1, frames=5)[0][None]
    z = codec.encode(x)
    assert z.shape == (1, 48, 2, 2, 3)
    raw = AutoencoderKLWan.from_pretrained(wan_folder / "vae").encode(x).latent_dist.mode()
    wanted = torch.stack([(raw[:, k] - 0.1 * k) / (1 + 0.1 * k) for k in range(48)], 1)
    torch.testing.assert_close(z, wanted.detach(), atol=1e-5, rtol=1e-4)
    back = codec.decode(z)
    assert back.shape == x.shape and back.abs().max() <= 1
    codec.save(tmp_path)
    assert torch.equal(load_codec(tmp_path).encode(x), z)


def test_wan_decodes_what_its_own_encoder_gave(wan_folder):
    codec = WanVae(str(wan_folder / "vae"))
    x = moving_textures(1, frames=5)[0][None]
    raw = codec.vae.encode(x).latent_dist.mode()
    torch.testing.assert_close(codec.decode(codec.encode(x)), codec.vae.decode(raw).sample, atol=1e-4, rtol=1e-3)


def test_a_vae_of_another_layout_is_refused_with_what_was_found(tmp_path):
    statistics = {"latents_mean": [0.0] * 16, "latents_std": [1.0] * 16}
    write_wan(tmp_path, z_dim=16, patch_size=None, in_channels=3, out_channels=3, **statistics)
    with pytest.raises(ValueError, match=r"16 channels, stride \(4, 8, 8\)"):
        WanVae(str(tmp_path))


def test_a_folder_without_a_vae_is_refused_with_the_path(tmp_path):
    with pytest.raises(ValueError, match=r"codec\.path"):
        WanVae(str(tmp_path))
