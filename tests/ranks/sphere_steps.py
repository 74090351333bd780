"""What test_sphere_steps.py looks at: trainings of a small transformer on one or two ranks, saved, resumed, disturbed.

    python -m tests.ranks.sphere_steps FOLDER one      five steps; checkpoint after three; bad gradients; failing saves
    torchrun ... sphere_steps FOLDER two               the same steps on two ranks, and from one rank's checkpoint
    python -m tests.ranks.sphere_steps FOLDER again    a new process goes on from both checkpoints

Sizes are odd, so that ranks' shares begin inside rows; buckets are small, so that there are many shares.
"""

from __future__ import annotations

import dataclasses
import resource
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from energon_datasets.batch import PackedBatch
from nemo_summer.checkpoints import layout
from nemo_summer.checkpoints.layout import CheckpointError
from nemo_summer.checkpoints.load import load, newest, read_weights
from nemo_summer.checkpoints.save import save
from nemo_summer.dit.config import DitConfig
from nemo_summer.optim.config import OptimConfig
from nemo_summer.optim.rules import Rule, rules_for
from nemo_summer.parallel.groups import ParallelGroups
from nemo_summer.parallel.init import start, stop
from nemo_summer.parallel.schedule import RoundLoss, replicate, run_rounds
from tests.nemo_summer.dit.packs import fill_zeros, random_pack

CFG = DitConfig(width=36, heads=2, layers=3, mlp_ratio=1.5, text_width=7, time_width=18, in_channels=13)
OPTIM = OptimConfig(lr=0.05, clip_grad=1.0)
STEPS, SAVED = 5, 3


def packs(step: int) -> list[PackedBatch]:
    """Four packs, others at each step."""
    grids = [[(2, 2, 3)], [(3, 2, 2), (1, 2, 2)], [(4, 2, 2)], [(2, 2, 2), (1, 1, 3)]]
    return [
        random_pack(g, [3] * len(g), seed=10 * step + i, channels=CFG.in_channels, text_width=CFG.text_width)
        for i, g in enumerate(grids)
    ]


def loss_of(model: nn.Module, pack: PackedBatch) -> RoundLoss:
    error_S = (model(pack.latents_SE, pack.uniform_N, pack) - pack.latents_SE).square().mean(dim=1)
    return RoundLoss(loss_sum=error_S.sum(), tokens=float(len(error_S)), log=float(error_S.detach().sum()))


def rules_of(model: nn.Module) -> dict[str, Rule]:
    return rules_for({name.removeprefix("module."): p.shape for name, p in model.named_parameters()}, OPTIM)


def build(groups: ParallelGroups, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Any]:
    """The transformer in megatron's wrappers and its optimizer; two ranks sum and gather in many small buckets."""
    from nemo_summer.dit.megatron import MegatronDit
    from nemo_summer.optim.distributed import build_optimizer

    bare = MegatronDit(CFG, groups)
    fill_zeros(bare)
    bare.to(dtype)
    bare.config.params_dtype, bare.config.bf16 = dtype, dtype == torch.bfloat16
    model = replicate(bare, groups, bucket_size=5003, overlap=groups.dp_size > 1)
    return model, build_optimizer(OPTIM, [model], rules_of(bare), groups)


def take_step(model: nn.Module, optimizer: Any, groups: ParallelGroups, step: int) -> tuple[bool, float]:
    model.zero_grad_buffer()
    optimizer.zero_grad()
    run_rounds(groups, model, packs(step)[groups.dp_rank :: groups.dp_size], loss_of)
    updated, norm, _ = optimizer.step()
    return updated, norm


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    model.start_param_sync(force_sync=True)
    return {name: p.detach().clone() for name, p in model.module.named_parameters()}


def train(groups: ParallelGroups, checkpoints: Path) -> dict[str, Any]:
    from nemo_summer.optim.distributed import Rotation, row_norm_error

    model, optimizer = build(groups)
    rotation, found = Rotation(optimizer), {"norms": [], "rotations": [], "slots": optimizer.rows.slots}
    for step in range(STEPS):
        rotation.before()
        found["norms"].append(take_step(model, optimizer, groups, step)[1])
        found["rotations"].append(rotation.after())
        if step + 1 == SAVED:
            save_to(checkpoints, SAVED, model, optimizer, groups)
            found["at_save"] = weights_of(model)
    found |= {"weights": weights_of(model), "row_norm_error": row_norm_error(optimizer)}
    return found | {"after_nan": step_on_nan(model, optimizer, groups), "faults": faults(model, optimizer, groups)}


def save_to(folder: Path, step: int, model: nn.Module, optimizer: Any, groups: ParallelGroups, **more: Any) -> Path:
    return save(
        folder,
        step,
        model=model,
        optimizer=optimizer,
        groups=groups,
        loader_state=f"rank {groups.dp_rank}".encode(),
        extra={"clips_seen": 12},
        **more,
    )


def step_on_nan(model: nn.Module, optimizer: Any, groups: ParallelGroups) -> dict[str, Any]:
    """A step whose gradient is nan in one number of the last rank: what it says and what it changes."""
    before, moments = weights_of(model), [s["exp_avg"].clone() for s in optimizer.optimizer.state.values()]
    model.zero_grad_buffer()
    run_rounds(groups, model, packs(77)[groups.dp_rank :: groups.dp_size], loss_of)
    if groups.rank == groups.world - 1:
        optimizer.buffers[0].buckets[0].grad_data.chunk(groups.dp_size)[groups.dp_rank][0] = float("nan")
    updated, norm, _ = optimizer.step()
    same = all(torch.equal(before[name], now) for name, now in weights_of(model).items())
    kept = all(torch.equal(m, s["exp_avg"]) for m, s in zip(moments, optimizer.optimizer.state.values(), strict=True))
    return {"updated": updated, "norm": norm, "weights_same": same, "moments_same": kept}


def faults(model: nn.Module, optimizer: Any, groups: ParallelGroups) -> dict[str, Any]:
    """Saves that end badly; what they say, and what is left in the folder afterwards."""
    folder = Path(sys.argv[1]) / f"faults_{groups.world}"
    save_to(folder, 1, model, optimizer, groups)
    found = {"full disk": saving_with_a_full_disk(folder, model, optimizer, groups)}
    found["killed"] = saving_while_killed(folder, model, optimizer, groups)
    for step in (3, 4, 5, 6):
        save_to(folder, step, model, optimizer, groups, keep_full=2, keep_every=2)
        groups.barrier()
    manifests = {path.name: layout.Manifest.read(path) for path in layout.checkpoints_in(folder)}
    found["kept"] = {name: manifest.kind for name, manifest in manifests.items()}
    found["files"] = {name: sum(1 for f in (folder / name).rglob("*") if f.is_file()) for name in manifests}
    return found | {"left": sorted(path.name for path in folder.glob(".*"))}


def saving_with_a_full_disk(folder: Path, model: nn.Module, optimizer: Any, groups: ParallelGroups) -> dict[str, Any]:
    """The last rank may write 20 kB to a file and no more: the shards do not fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if groups.rank == groups.world - 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        save_to(folder, 2, model, optimizer, groups)
        said = ""
    except CheckpointError as error:
        said = str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    groups.barrier()
    return {"said": said, "left": sorted(path.name for path in folder.iterdir()), "newest": str(newest(folder, groups))}


def saving_while_killed(folder: Path, model: nn.Module, optimizer: Any, groups: ParallelGroups) -> dict[str, Any]:
    """A save that ends before its manifest, as kill -9 would end it: nothing is tidied up."""
    import nemo_summer.checkpoints.save as module

    kept, tidy = module.layout.write_manifest, module.shutil.rmtree
    try:
        module.layout.write_manifest = _killed
        module.shutil.rmtree = lambda *args, **named: None
        save_to(folder, 2, model, optimizer, groups)
    except CheckpointError:
        pass
    finally:
        module.layout.write_manifest, module.shutil.rmtree = kept, tidy
    groups.barrier()
    return {"left": sorted(path.name for path in folder.iterdir()), "newest": str(newest(folder, groups))}


def _killed(*args: Any) -> None:
    raise RuntimeError("killed")


def go_on(groups: ParallelGroups, path: Path, dtype: torch.dtype = torch.float32, **named: Any) -> dict[str, Any]:
    """Two steps from a checkpoint, by a model that started elsewhere."""
    model, optimizer = build(groups, dtype)
    take_step(model, optimizer, groups, 99)
    for group in optimizer.param_groups:
        group["max_lr"] = 7.0  # a constant of this run, unlike that of the run that saved
    restored = load(path, model=model, optimizer=optimizer, groups=groups, **named)
    at_load = weights_of(model)
    for step in range(restored.step, STEPS):
        take_step(model, optimizer, groups, step)
    return {
        "at_load": at_load,
        "weights": weights_of(model),
        "extra": restored.extra,
        "constants": sorted({group["max_lr"] for group in optimizer.param_groups}),
        "loader": restored.loader_state,
    }


def train_in_half(groups: ParallelGroups, folder: Path) -> dict[str, Any]:
    """The same steps with a model in bfloat16, whose rows are kept in float32; and again from the checkpoint."""
    from nemo_summer.optim.distributed import row_norm_error

    model, optimizer = build(groups, torch.bfloat16)
    for step in range(STEPS):
        take_step(model, optimizer, groups, step)
        if step + 1 == SAVED:
            save_to(folder, SAVED, model, optimizer, groups)
            at_save = weights_of(model)
    found = {"weights": weights_of(model), "at_save": at_save, "row_norm_error": row_norm_error(optimizer)}
    again = go_on(groups, newest(folder, groups), torch.bfloat16)
    return found | {
        "again": again["weights"],
        "at_load": again["at_load"],
        "read": read_weights(newest(folder, groups)),
    }


def train_without_slots(groups: ParallelGroups) -> dict[str, Tensor]:
    """The control: rows that a boundary cuts are treated as two rows."""
    model, optimizer = build(groups)
    optimizer.rows.slots = 0
    for step in range(STEPS):
        take_step(model, optimizer, groups, step)
    return weights_of(model)


def refusal(groups: ParallelGroups, path: Path) -> str:
    try:
        go_on(groups, path)
    except CheckpointError as error:
        return str(error)
    return ""


def split_over_tensor_ranks(groups: ParallelGroups) -> dict[str, Any]:
    """Three steps on given gradients with matrices cut along rows and columns over two tensor-parallel ranks."""
    from megatron.core import parallel_state
    from megatron.core.transformer import TransformerConfig

    from nemo_summer.optim.distributed import Rotation, build_optimizer, full_shapes, row_norm_error
    from tests.nemo_summer.optim.matrices import GIVEN, Matrices, gradients, piece

    parallel_state.destroy_model_parallel()
    parallel_state.initialize_model_parallel(2)
    tensor = parallel_state.get_tensor_model_parallel_group()
    alone = parallel_state.get_data_parallel_group()
    groups = dataclasses.replace(groups, tp=2, tp_group=tensor, dp_rank=0, dp_size=1, dp_group=alone, dp_cp_group=alone)
    bare = Matrices()
    bare.config = TransformerConfig(
        num_layers=1, hidden_size=16, num_attention_heads=2, tensor_model_parallel_size=2, use_cpu_initialization=True
    )
    for name, axis in GIVEN.items():
        parameter = bare.get_parameter(name)
        parameter.data = piece(parameter.data, axis, groups.rank, 2)
        parameter.tensor_model_parallel, parameter.partition_dim, parameter.partition_stride = True, axis, 1
    model = replicate(bare, groups)
    shapes = full_shapes([model], groups)
    optimizer = build_optimizer(OPTIM, [model], rules_for(shapes, OPTIM), groups)
    rotation, norms = Rotation(optimizer), []
    for step in range(3):
        for name, grad in gradients(step).items():
            bare.get_parameter(name).main_grad.copy_(piece(grad, GIVEN.get(name), groups.rank, 2))
        rotation.before()
        norms.append(optimizer.step()[1])
        turned = rotation.after()
    return {
        "shapes": shapes,
        "weights": {name: p.detach().clone() for name, p in bare.named_parameters()},
        "norms": norms,
        "rotation": turned,
        "row_norm_error": row_norm_error(optimizer),
    }


def with_other_factors(groups: ParallelGroups, path: Path) -> str:
    """What loading says where the middle blocks learn with another factor than in the run that saved."""
    global OPTIM
    kept, OPTIM = OPTIM, dataclasses.replace(OPTIM, middle_mult=0.5)
    try:
        go_on(groups, path)
    except ValueError as error:
        return str(error)
    finally:
        OPTIM = kept
    return ""


def main(folder: Path, mode: str) -> None:
    groups = start()
    results: dict[str, Any] = {}
    if mode == "one":
        results = train(groups, folder / "one")
        results["read"] = read_weights(newest(folder / "one"))
    elif mode == "two":
        results = train(groups, folder / "two")
        results["without_slots"] = train_without_slots(groups)
        results["from_one"] = go_on(groups, newest(folder / "one", groups), with_loader=False)
        results["refusal"] = refusal(groups, folder / "one" / layout.folder_of(SAVED))
        results["read"] = read_weights(newest(folder / "two", groups))
        results["half"] = train_in_half(groups, folder / "half")
        results["tensor"] = split_over_tensor_ranks(groups)
    else:
        results = {"one": go_on(groups, newest(folder / "one"))}
        results["two"] = go_on(groups, newest(folder / "two"), with_loader=False)
        results["other factors"] = with_other_factors(groups, newest(folder / "one"))
    torch.save(results, folder / f"{mode}_{groups.rank}.pt")
    dist.barrier()
    stop(groups)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
