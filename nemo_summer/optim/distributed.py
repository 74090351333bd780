"""Sphere AdamW on megatron's distributed optimizer: its buffers, its collectives, its checkpoints, our two hooks.

    gradients reduced -> project rows -> clip (the projected gradient) -> Adam -> divide rows by their length -> copy

The inner optimizer is the stock one: Transformer Engine's or apex's FusedAdam where installed, else torch's AdamW.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nemo_summer.optim.config import OptimConfig
from nemo_summer.optim.rows import RowPlan
from nemo_summer.optim.rules import Rule
from nemo_summer.optim.sphere import angle_of_chord
from nemo_summer.parallel import cpu
from nemo_summer.parallel.groups import ParallelGroups

cpu.install()  # must come before the first import of megatron; does nothing where there is a GPU

from megatron.core import __version__ as megatron_version  # noqa: E402
from megatron.core.distributed import DistributedDataParallel  # noqa: E402
from megatron.core.optimizer import USING_PYTORCH_OPTIMIZER, Adam, OptimizerConfig  # noqa: E402
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer  # noqa: E402

log = logging.getLogger(__name__)

TESTED_MEGATRON = ((0, 16, 1), (0, 20, 0))
"""From the first to before the second: the private names used here were read in these versions."""


class SphereOptimizer(DistributedOptimizer):
    """Megatron's distributed optimizer that keeps the rows of constrained weights on the sphere.

    `step()` gives `(updated, gradient norm, zeros)` as megatron does; the norm is that of the projected gradient before
    clipping. A gradient that is not finite anywhere leaves all weights and moments of all ranks as they were: updated
    is False and the norm says nan or inf.
    """

    def __init__(self, *args: Any, sphere: Mapping[Tensor, str], tp_group: dist.ProcessGroup, **named: Any) -> None:
        super().__init__(*args, **named)
        self.sphere_names = sorted(sphere.values())
        self.rows = RowPlan(self, sphere, tp_group)
        self._pad_buckets = False

    def prepare_grads(self) -> bool:
        found_inf = super().prepare_grads()
        if not found_inf:
            self.rows.project_grads()
        return found_inf

    @torch.no_grad()
    def step(self) -> tuple[bool, float | None, int | None]:
        """One update; see the class for what comes back. Replaces megatron's to look at the norm before the update."""
        if self.prepare_grads():
            return False, None, None
        clip = self.config.clip_grad
        grad_norm = float(self.clip_grad_norm(clip) if clip > 0 else self.get_grad_norm())
        # The norm is summed over all ranks, so all of them see the same nan; without a loss scaler (float32, bfloat16)
        # megatron itself would step on it. One number that is not finite makes the norm so.
        if not math.isfinite(grad_norm):
            if dist.get_rank() == 0:
                log.warning("the gradient norm is %s: this update is skipped on all ranks", grad_norm)
            return False, grad_norm, None
        return self.step_with_ready_grads(), grad_norm, 0

    def _copy_main_params_to_model_params(self) -> None:
        self.rows.retract_weights()
        super()._copy_main_params_to_model_params()

    def _copy_main_params_to_param_buffer(self) -> None:
        self.rows.retract_weights()
        super()._copy_main_params_to_param_buffer()

    @torch.no_grad()
    def constrain(self) -> None:
        """Puts the rows on the sphere as they stand, and the result into the model on every rank."""
        self._copy_main_params_to_model_params()
        for chunk in self.model_chunks:
            chunk.start_param_sync(force_sync=True)

    # ---- checkpoints: what megatron-core gets wrong, each remedy with the condition under which it can go

    def state_dict(self) -> dict[str, Any]:
        # torch's AdamW has no state before its first step, but megatron asks it for 'step'. Goes when megatron's
        # state_dict() no longer asserts `len(steps) == 1` (it does in 0.16.1 .. 0.19.2); needless with TE or apex.
        if USING_PYTORCH_OPTIMIZER:
            start_state(self.optimizer)
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._check_groups(state_dict)
        settings = [{k: v for k, v in g.items() if k not in ("params", "step")} for g in self.optimizer.param_groups]
        super().load_state_dict(state_dict)
        # Loading takes over whole groups, with the constants of the recipe and of the Adam that saved; ours stand.
        for group, ours in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(ours)
        # megatron gives all parameters one and the same 'step' tensor, and torch's AdamW then counts it once for each
        # of them. Goes when load_state_dict() clones it per parameter (not in 0.16.1 .. 0.19.2).
        for state in self.optimizer.state.values():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].clone()

    def _check_groups(self, state_dict: Mapping[str, Any]) -> None:
        """megatron 0.16.1 finds a saved group by its `lr_mult` (and three constants): they must be the same set.

        0.19 looks at more keys, which are constants here; the check stays useful for its message.
        """
        saved = sorted(group["lr_mult"] for group in state_dict["optimizer"]["param_groups"])
        ours = sorted(group["lr_mult"] for group in self.optimizer.param_groups)
        if saved != ours:
            raise ValueError(
                f"the checkpoint has learning-rate factors {_few(saved)}, this recipe gives {_few(ours)}: "
                "keep optim.base_width, middle_mult, vector_mult, time_mult and the model as they were"
            )

    @torch.no_grad()
    def _set_main_param_and_optimizer_states(self, model_param: Tensor, tensors: Mapping[str, Tensor]) -> None:
        # megatron's own copies without no_grad (an error for float32 models) and asks for tensors['step'], which is in
        # the group instead. Goes when both are mended (not in 0.16.1 .. 0.19.2).
        group, order = self.model_param_group_index_map[model_param]
        main = self.optimizer.param_groups[group]["params"][order]
        for key, value in {"param": main, **self.optimizer.state[main]}.items():
            if key != "step":
                value.copy_(tensors[key])

    def sharded_param_state_fully_reshardable(self, *args: Any, **named: Any) -> Any:
        self._pad_buckets = True
        try:
            return super().sharded_param_state_fully_reshardable(*args, **named)
        finally:
            self._pad_buckets = False

    def get_parameter_state_dp_zero(self, *args: Any, **named: Any) -> Any:
        # Megatron-LM #5077: offsets with the padding between buckets are taken from tensors without it, and weights and
        # moments come back shifted, without an error. Mended on Megatron's main on 2026-08-21, in no release up to
        # 0.19.2; there the tensors arrive with padding, and pad_buckets leaves them alone.
        state = super().get_parameter_state_dp_zero(*args, **named)
        if state is not None and self._pad_buckets:
            for index, buffer in enumerate(self.buffers):
                for tensors in state[index].values():
                    pad_buckets(tensors, buffer)
        return state


def pad_buckets(tensors: dict[str, Any], buffer: Any) -> None:
    """Puts the padding between buckets back into `tensors` ("param", "exp_avg", "exp_avg_sq"), in place."""
    for key in ("param", "exp_avg", "exp_avg_sq"):
        if len(tensors[key]) == buffer.numel:
            continue
        padded, taken = torch.zeros(buffer.numel, dtype=tensors[key].dtype), 0
        for bucket in buffer.buckets:
            held = bucket.numel_unpadded
            padded[bucket.offset : bucket.offset + held] = tensors[key][taken : taken + held]
            taken += held
        tensors[key] = padded


def build_optimizer(
    cfg: OptimConfig, chunks: list[DistributedDataParallel], rules: Mapping[str, Rule], groups: ParallelGroups
) -> SphereOptimizer:
    """The optimizer over `chunks`, which it puts on the sphere; `rules` by parameter name, learning rate `cfg.lr`.

    ValueError where a parameter has no rule or megatron-core is of a version whose insides were not read.
    """
    check_megatron()
    names = parameter_names(chunks)
    for name in names.values():
        if name not in rules:
            raise ValueError(f"parameter {name} has no rule: give it one in nemo_summer/optim/rules.py")
    config = _megatron_config(cfg, next(iter(names)).dtype)
    constants = {"lr": cfg.lr, "betas": (cfg.beta1, cfg.beta2), "eps": cfg.eps, "weight_decay": 0.0}
    if USING_PYTORCH_OPTIMIZER:
        constants["fused"] = True  # one pass over each share; on a CPU a tenth of the time
    adam = Adam(_lr_groups(cfg, names, rules), **constants)
    dp_group = chunks[0].buffers[0].data_parallel_group
    optimizer = SphereOptimizer(
        adam,
        config,
        None,
        lambda inner, config=None: start_state(inner),
        model_chunks=chunks,
        per_model_buffers={index: chunk.buffers for index, chunk in enumerate(chunks)},
        data_parallel_group=dp_group,
        data_parallel_group_gloo=None,  # only for the formats that gather on one rank, which we do not write
        data_parallel_group_idx=0,  # only for the formats that cannot change the layout, which we do not write
        distributed_optimizer_instance_id=0,
        sphere={parameter: name for parameter, name in names.items() if rules[name].sphere},
        tp_group=groups.tp_group,
    )
    optimizer.grad_stats_parallel_group = dist.group.WORLD
    optimizer.constrain()
    return optimizer


def check_megatron() -> None:
    """ValueError outside the megatron-core versions whose private names this file uses."""
    found = tuple(int(part) for part in megatron_version.split("+")[0].split(".")[:3] if part.isdigit())
    if not TESTED_MEGATRON[0] <= found < TESTED_MEGATRON[1]:
        first, last = (".".join(map(str, version)) for version in TESTED_MEGATRON)
        raise ValueError(
            f"found megatron-core {megatron_version}, wanted >= {first} and < {last}: install one of these"
        )


def parameter_names(chunks: list[DistributedDataParallel]) -> dict[Tensor, str]:
    """The model's own name of each trained parameter, without the wrappers' `module.`."""
    names = {}
    for chunk in chunks:
        for name, parameter in chunk.named_parameters():
            if parameter.requires_grad:
                names[parameter] = strip_wrappers(name)
    return names


def strip_wrappers(name: str) -> str:
    """`module.module.blocks.0.w_in.weight` -> `blocks.0.w_in.weight`."""
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def full_shapes(chunks: list[DistributedDataParallel], groups: ParallelGroups) -> dict[str, tuple[int, ...]]:
    """Shapes of the unsplit parameters by name, as `rules_for` wants them."""
    shapes = {}
    for parameter, name in parameter_names(chunks).items():
        shape = list(parameter.shape)
        if getattr(parameter, "tensor_model_parallel", False):
            shape[parameter.partition_dim] *= groups.tp_group.size()
        shapes[name] = tuple(shape)
    return shapes


def _lr_groups(cfg: OptimConfig, names: Mapping[Tensor, str], rules: Mapping[str, Rule]) -> list[dict[str, Any]]:
    """One group for each learning-rate factor. megatron 0.16.1 tells groups apart by `lr_mult`, not by `max_lr`."""
    by_mult: dict[float, list[Tensor]] = {}
    for parameter, name in names.items():
        by_mult.setdefault(rules[name].lr_mult, []).append(parameter)
    constants = {"wd_mult": 0.0, "is_expert_parallel": False, "is_decoupled_lr": False, "default_config": False}
    constants |= {"max_lr": cfg.lr, "min_lr": 0.0}
    return [{"params": p, "lr": cfg.lr * m, "lr_mult": m, **constants} for m, p in sorted(by_mult.items())]


def _megatron_config(cfg: OptimConfig, dtype: torch.dtype) -> OptimizerConfig:
    """The one place where our numbers get megatron's names."""
    return OptimizerConfig(
        optimizer="adam",
        lr=cfg.lr,
        min_lr=0.0,
        weight_decay=0.0,
        adam_beta1=cfg.beta1,
        adam_beta2=cfg.beta2,
        adam_eps=cfg.eps,
        clip_grad=cfg.clip_grad,
        bf16=dtype == torch.bfloat16,
        params_dtype=dtype,
        use_distributed_optimizer=True,
    )


def start_state(inner: torch.optim.Optimizer) -> None:
    """Zero moments for parameters that have none yet."""
    for group in inner.param_groups:
        for main in group["params"]:
            if not inner.state[main]:
                inner.state[main] = {"exp_avg": torch.zeros_like(main), "exp_avg_sq": torch.zeros_like(main)}
                if USING_PYTORCH_OPTIMIZER:
                    inner.state[main]["step"] = torch.zeros((), device=main.device)


def set_lr(optimizer: DistributedOptimizer, lr: float) -> None:
    """Every group learns with `lr` times its own factor from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_mult"]


def row_norm_error(optimizer: SphereOptimizer) -> float:
    """Largest `| ||w|| - 1 |` over the constrained rows of all ranks; every rank must call it."""
    norms = optimizer.rows.norms()
    worst = (norms - 1).abs().max() if len(norms) else torch.zeros((), device=optimizer.rows.device)
    dist.all_reduce(worst, op=dist.ReduceOp.MAX)
    return float(worst)


class Rotation:
    """How far the rows of each constrained weight turn between two moments. Every rank must call both methods.

    Keeps a copy of this rank's constrained shares between `before()` and `after()`, and nothing else.
    """

    def __init__(self, optimizer: SphereOptimizer) -> None:
        self.optimizer = optimizer
        self._kept: list[Tensor] = []

    def before(self) -> None:
        self._kept = [share.main.detach().clone() for share in self.optimizer.rows.shares]

    @torch.no_grad()
    def after(self) -> dict[str, float]:
        """Mean angle in radians over all rows since `before()`, by parameter name; the names of this pipeline stage."""
        plan = self.optimizer.rows
        if len(self._kept) != len(plan.shares):
            raise ValueError("Rotation.after() needs a Rotation.before() first")
        moved = [share.main - kept for share, kept in zip(plan.shares, self._kept, strict=True)]
        angle_R = angle_of_chord(plan.dots([(move, move) for move in moved]))
        self._kept = []
        names = self.optimizer.sphere_names
        totals = torch.zeros(len(names), 2, dtype=torch.float64, device=plan.device)
        for share in plan.shares:
            first = share.first_row + share.begins_inside  # a cut row counts where it begins
            angles = angle_R[first : share.first_row + share.rows].double()
            weight = (
                1 / plan.tp_group.size() if share.split != 0 else 1.0
            )  # the same rows on every tensor-parallel rank
            totals[names.index(share.name)] += weight * torch.stack([angles.sum(), angles.new_tensor(len(angles))])
        dist.all_reduce(totals, group=plan.dp_group)
        if plan.tp_group.size() > 1:
            dist.all_reduce(totals, group=plan.tp_group)
        return {name: float(total / count) for name, (total, count) in zip(names, totals, strict=True)}


def _few(numbers: list[float]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)
