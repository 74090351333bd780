"""One step of the optimizer: noise the clips, predict the velocity, sum the squared errors, turn the weights."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from energon_datasets.batch import PackedBatch
from nemo_summer.diffusion.loss import fresh_error_S
from nemo_summer.diffusion.noise import noise_for
from nemo_summer.diffusion.path import interpolate, velocity
from nemo_summer.diffusion.time import ObjectiveConfig, time_of
from nemo_summer.diffusion.weight import level_weight
from nemo_summer.optim.distributed import set_lr
from nemo_summer.optim.schedule import lr_factor
from nemo_summer.parallel.schedule import RoundLoss, run_rounds
from nemo_summer.plan.flops import train_flops
from nemo_summer.training.run import Run
from nemo_summer.training.state import StepReport, TrainState

LEVELS = 8
"""Bins of the noise level in the log of the training loss."""


def take_step(run: Run, packs: Sequence[PackedBatch], state: TrainState) -> StepReport:
    """Trains on `packs`, one per round of accumulation, and says what happened over all ranks."""
    lr = run.optim.lr * lr_factor(state.step, run.cfg.steps, run.optim.warmup_steps, run.optim.cooldown_share)
    set_lr(run.optimizer, lr)
    run.optimizer.zero_grad()
    rounds = run_rounds(run.groups, run.model, packs, lambda model, pack: flow_loss(model, pack, run.objective))
    watched = run.watch.due(state.step + 1)
    if watched:
        run.watch.before()
    finite, grad_norm, _ = run.optimizer.step()
    band = run.watch.after(lr) if watched else None
    sums = run.groups.sum_over_data(_sums_of(run, rounds, packs))
    loss, by_level, clips, tokens, flops, stops = _read_sums(sums)
    return StepReport(
        loss=loss,
        loss_by_level=by_level,
        clips=clips,
        tokens=tokens,
        flops=flops,
        lr=lr,
        grad_norm=float(grad_norm or 0.0),
        finite=bool(finite),
        seconds=time.perf_counter() - run.step_began,
        stop_asked=stops > 0,
        band=band,
        clip_ids=tuple(clip for pack in packs for clip in pack.clip_ids),
    )


def flow_loss(model: nn.Module, pack: PackedBatch, objective: ObjectiveConfig) -> RoundLoss:
    """Weighted squared errors of the predicted velocity, summed over the pack's tokens, per number of a token."""
    lengths_N = pack.lengths_N()
    t_N = time_of(pack.uniform_N, objective, tokens_N=lengths_N)
    t_S1 = t_N.repeat_interleave(lengths_N)[:, None]
    noise_SE = noise_for(pack.seed_N, lengths_N, pack.latents_SE.shape[1]).to(pack.latents_SE)
    noisy_SE = interpolate(pack.latents_SE, noise_SE, t_S1)
    predicted_SE = model(noisy_SE, t_N, pack)
    error_S, share_S = fresh_error_S(predicted_SE, velocity(pack.latents_SE, noise_SE), pack.repeated_S())
    weight_N = pack.loss_weight_N.to(error_S) * level_weight(t_N, objective.weight)
    weight_S = share_S * weight_N.repeat_interleave(lengths_N)
    return RoundLoss(
        loss_sum=(error_S * weight_S).sum(), tokens=weight_S.sum(), log=_by_level(error_S, weight_S, t_S1[:, 0])
    )


def _by_level(error_S: Tensor, weight_S: Tensor, t_S: Tensor) -> Tensor:
    """Rows: weighted error and weight; columns: eighths of the noise level."""
    level_S = (t_S * LEVELS).long().clamp(0, LEVELS - 1)
    sums = torch.zeros(2, LEVELS, dtype=torch.float64, device=error_S.device)
    sums[0].index_add_(0, level_S, (error_S * weight_S).detach().double())
    sums[1].index_add_(0, level_S, weight_S.double())
    return sums


def _sums_of(run: Run, rounds: Sequence[Tensor], packs: Sequence[PackedBatch]) -> Tensor:
    """This rank's share of the report as one vector, so that one reduction serves the whole report."""
    flops = sum(train_flops(run.dit, p.lengths_N().tolist(), p.text_lengths_N().tolist()) for p in packs)
    counts = [sum(len(p.clip_ids) for p in packs), sum(p.tokens for p in packs), flops, run.stop.asked]
    by_level = torch.stack(list(rounds)).sum(0).flatten()
    return torch.cat([by_level, by_level.new_tensor([float(count) for count in counts])])


def _read_sums(sums: Tensor) -> tuple[float, tuple[float | None, ...], int, int, float, int]:
    error, weight = sums[:LEVELS].tolist(), sums[LEVELS : 2 * LEVELS].tolist()
    clips, tokens, flops, stops = sums[2 * LEVELS :].tolist()
    by_level = tuple(e / w if w else None for e, w in zip(error, weight))
    return sum(error) / max(sum(weight), 1e-9), by_level, int(clips), int(tokens), flops, int(stops)
