"""The exported file, read without megatron, against the checkpoint in megatron's own model."""

from __future__ import annotations

from pathlib import Path

import torch

from nemo_summer.checkpoints.export import read_model, write_model
from nemo_summer.checkpoints.load import load, newest, read_weights
from nemo_summer.checkpoints.save import save
from nemo_summer.diffusion.time import ObjectiveConfig
from nemo_summer.dit.config import DitConfig
from nemo_summer.encoders.text import TextConfig
from nemo_summer.optim.config import OptimConfig
from nemo_summer.optim.rules import rules_for
from nemo_summer.parallel.groups import ParallelGroups
from nemo_summer.parallel.init import start, stop
from nemo_summer.parallel.schedule import replicate
from nemo_summer.sampler.sample import SampleConfig, sample_latents
from tests.nemo_summer.dit.packs import fill_zeros

DIT = DitConfig(width=32, heads=2, layers=2, text_width=16, time_width=16, seed=3)
PROMPTS = ["a red ball rolls to the left", "night, rain"]


def megatron_model(groups: ParallelGroups, seed: int) -> tuple[torch.nn.Module, object]:
    from nemo_summer.dit.megatron import MegatronDit
    from nemo_summer.optim.distributed import build_optimizer, full_shapes

    bare = MegatronDit(DIT, groups)
    fill_zeros(bare, scale=0.05 * seed)
    model = replicate(bare, groups)
    return model, build_optimizer(
        OptimConfig(), [model], rules_for(full_shapes([model], groups), OptimConfig()), groups
    )


def samples(model: torch.nn.Module) -> list[torch.Tensor]:
    cfg, text = SampleConfig(prompts=PROMPTS, steps=4, guidance=3.0), TextConfig(width=16).build()
    return list(sample_latents(model, text, PROMPTS, (5, 2, 3), cfg, ObjectiveConfig()))


def test_samples_of_the_exported_file_equal_those_of_the_megatron_checkpoint(tmp_path: Path):
    groups = start()
    try:
        model, optimizer = megatron_model(groups, seed=1)
        save(tmp_path, 7, model=model, optimizer=optimizer, groups=groups)
        other, its_optimizer = megatron_model(groups, seed=2)
        before = samples(other)
        load(newest(tmp_path), model=other, optimizer=its_optimizer, groups=groups)
        from_checkpoint = samples(other)
    finally:
        stop(groups)
    write_model(tmp_path / "export", read_weights(newest(tmp_path)), DIT, {})
    exported, _ = read_model(tmp_path / "export")
    for ours, theirs, unloaded in zip(samples(exported), from_checkpoint, before, strict=True):
        assert float((ours - theirs).abs().max()) < 1e-5 * float(theirs.abs().max())
        assert float((unloaded - theirs).abs().max()) > 1e-2  # the checkpoint did change the samples
