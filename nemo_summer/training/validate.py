"""Loss on held-out clips at fixed noise levels, beside what the best linear denoiser would reach."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from energon_datasets.batch import PackedBatch
from nemo_summer.diffusion.loss import fixed_levels, fresh_error_S, linear_denoiser_loss
from nemo_summer.diffusion.noise import noise_for
from nemo_summer.diffusion.path import interpolate, velocity
from nemo_summer.parallel.groups import ParallelGroups
from nemo_summer.training.run import Run
from nemo_summer.training.state import TrainState
from nemo_summer.whole_files import write_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Validation:
    """Mean squared error of the velocity per noise level; the same noise at every call, so that calls compare."""

    levels: tuple[float, ...]
    losses: tuple[float, ...]
    baseline: tuple[float, ...]
    """The optimal linear denoiser, one number at a time, for latents of unit variance: `1 / ((1-t)^2 + t^2)`."""

    @property
    def mean(self) -> float:
        return sum(self.losses) / len(self.losses)

    @property
    def baseline_mean(self) -> float:
        return sum(self.baseline) / len(self.baseline)

    def to_json(self, step: int) -> dict[str, object]:
        return {"step": step, **asdict(self), "mean": self.mean, "baseline_mean": self.baseline_mean}


@torch.no_grad()
def validate(model: nn.Module, packs: Sequence[PackedBatch], groups: ParallelGroups | None = None) -> Validation:
    """Every pack at every level. Ranks of `groups` share the packs and get one answer; ValueError without packs."""
    if not packs:
        raise ValueError(
            "there is no held-out clip to validate on: curate more footage or raise curate.split.val_share"
        )
    levels = fixed_levels().tolist()
    mine = packs[groups.dp_rank :: groups.dp_size] if groups else packs
    sums = torch.zeros(len(levels), 2, dtype=torch.float64)
    was_training = model.training
    model.eval()
    for pack in mine:
        pack = pack.to(groups.device) if groups else pack
        for row, t in enumerate(levels):
            sums[row] += _error_at(model, pack, t).cpu()
    model.train(was_training)
    sums = groups.sum_over_data(sums.to(groups.device)).cpu() if groups else sums
    losses = (sums[:, 0] / sums[:, 1]).tolist()
    return Validation(
        levels=tuple(levels),
        losses=tuple(losses),
        baseline=tuple(float(linear_denoiser_loss(torch.tensor(t))) for t in levels),
    )


def _error_at(model: nn.Module, pack: PackedBatch, t: float) -> Tensor:
    """Summed error and number of tokens of one pack at one noise level."""
    lengths_N = pack.lengths_N()
    noise_SE = noise_for(pack.seed_N, lengths_N, pack.latents_SE.shape[1]).to(pack.latents_SE)
    t_N = torch.full((len(lengths_N),), t, device=noise_SE.device)
    predicted_SE = model(interpolate(pack.latents_SE, noise_SE, t), t_N, pack)
    error_S, share_S = fresh_error_S(predicted_SE, velocity(pack.latents_SE, noise_SE), pack.repeated_S())
    return torch.stack([(error_S * share_S).sum(), share_S.sum()]).double()


@dataclass(kw_only=True)
class Validate:
    """Validates every `every` steps and after the last one; writes validation.json and TensorBoard."""

    packs: Sequence[PackedBatch]
    every: int
    steps: int
    out: Path
    before_stopping: bool = False

    def due(self, step: int) -> bool:
        return step % self.every == 0 or step == self.steps

    def do(self, run: Run, state: TrainState) -> None:
        found = validate(run.model, self.packs, run.groups)
        if run.groups.rank == 0:
            append_validation(self.out / "validation.json", found, state.step)
        per_level = {f"t={t:.3f}": loss for t, loss in zip(found.levels, found.losses)}
        run.log.scalars(
            state.step, {"mean": found.mean, "linear_denoiser": found.baseline_mean, **per_level}, "held_out"
        )
        share = found.mean / found.baseline_mean
        run.log.say(f"step {state.step}: held-out loss {found.mean:.4f}, {share:.0%} of the best linear denoiser's")


def append_validation(path: Path, found: Validation, step: int) -> None:
    """Adds one entry to the list in `path`; entries of this step or later ones (a run before a resume) are replaced."""
    entries = [entry for entry in _read_entries(path) if entry["step"] < step] + [found.to_json(step)]
    write_whole(path, json.dumps(entries, indent=1))


def _read_entries(path: Path) -> list[dict]:
    """What the list in `path` holds; [] without it, and where it is damaged, which a line in the log says."""
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text())
        return [entry for entry in found if isinstance(entry["step"], int)]
    except (ValueError, TypeError, KeyError) as error:
        log.warning("%s is damaged (%s): a new list is begun", path, error)
        return []
