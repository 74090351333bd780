"""Rows of matrices whose numbers lie on several ranks.

Megatron's distributed optimizer cuts the flat parameter buffer into equal shares, one for each data-parallel rank, so
a share begins and ends in the middle of a row; a row-parallel matrix (`partition_dim == 1`) has a part of each row on
each tensor-parallel rank. `RowPlan` knows which local numbers belong to which row, and sums over whole rows with two
small all-reduces: one over the tensor-parallel group for row-parallel matrices, one over the data-parallel group with
a number ("slot") for each row that a share boundary cuts. The slot table follows from the buffer layout alone, so all
ranks agree on it without talking.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from nemo_summer.optim.sphere import SHORTEST_ROW

if TYPE_CHECKING:
    from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer


@dataclass(frozen=True, slots=True)
class Piece:
    """Numbers `start:stop` of a share: whole rows, or the part of one row that lies here."""

    start: int
    stop: int
    first_row: int
    """Index of its first row in the plan."""
    rows: int

    def of(self, flat: Tensor) -> Tensor:
        """The piece of the share `flat`, [rows, numbers of each]."""
        return flat[self.start : self.stop].view(self.rows, -1)

    def values(self, per_row: Tensor) -> Tensor:
        """The piece's entries of `per_row` as a column, to multiply with `of(...)`."""
        return per_row[self.first_row : self.first_row + self.rows, None]


@dataclass(frozen=True, slots=True)
class Share:
    """What this rank holds of one constrained matrix, and where its rows stand in the plan."""

    name: str
    main: Tensor
    """Flat float32 main parameter; its `.grad` is the reduced gradient."""
    pieces: tuple[Piece, ...]
    first_row: int
    rows: int
    begins_inside: bool
    """The first row begins on another data-parallel rank."""
    split: int | None
    """Dimension that tensor parallelism cuts (0: other rows elsewhere, 1: other columns), or None."""


class RowPlan:
    """Sums over whole rows of the constrained matrices; see the head of this file."""

    def __init__(self, optimizer: "DistributedOptimizer", sphere: Mapping[Tensor, str], tp_group: dist.ProcessGroup):
        self.dp_group, self.tp_group = optimizer.data_parallel_group, tp_group
        slot_of = cut_rows(optimizer, sphere, self.dp_group.size())
        self.slots = len(slot_of)
        self.shares: list[Share] = []
        self.rows = 0
        split_rows: list[int] = []
        local: list[tuple[int, int]] = []
        for parameter, main in main_parameters(optimizer):
            if parameter not in sphere:
                continue
            share, first = self._share(optimizer, parameter, main, sphere[parameter])
            self.shares.append(share)
            at = range(share.first_row, share.first_row + share.rows)
            split_rows += at if share.split == 1 else ()
            local += [
                (at[i], slot_of[parameter, first + i]) for i in {0, share.rows - 1} if (parameter, first + i) in slot_of
            ]
            self.rows += share.rows
        self.device = next(iter(sphere)).device if sphere else torch.device("cpu")
        self.split_rows = torch.tensor(split_rows, dtype=torch.long, device=self.device)
        self.local_row = torch.tensor([row for row, _ in local], dtype=torch.long, device=self.device)
        self.local_slot = torch.tensor([slot for _, slot in local], dtype=torch.long, device=self.device)
        self._check_peers()

    def _share(
        self, optimizer: "DistributedOptimizer", parameter: Tensor, main: Tensor, name: str
    ) -> tuple[Share, int]:
        """The share and the index of its first row within the (local) matrix."""
        length = parameter.shape[1]
        held = optimizer._get_model_param_range_map(parameter)["param"]
        first, last = held.start // length, (held.end - 1) // length
        share = Share(
            name=name,
            main=main,
            pieces=cut_pieces(held.start, held.end, length, self.rows),
            first_row=self.rows,
            rows=last - first + 1,
            begins_inside=held.start % length > 0,
            split=parameter.partition_dim if getattr(parameter, "tensor_model_parallel", False) else None,
        )
        return share, first

    def _check_peers(self) -> None:
        """Tensor-parallel peers hold equal layouts and so make the same calls; anything else would hang later."""
        if self.tp_group.size() == 1:
            return
        mine = torch.tensor([self.rows, len(self.split_rows)], device=self.device)
        theirs = [torch.empty_like(mine) for _ in range(self.tp_group.size())]
        dist.all_gather(theirs, mine, group=self.tp_group)
        assert all(torch.equal(mine, other) for other in theirs), "tensor-parallel peers hold different rows"

    def dots(self, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """`<x, y>` of each row that this rank touches, over all ranks that hold a part of it; a pair for each share."""
        sums = torch.zeros(self.rows, dtype=torch.float32, device=self.device)
        for share, (x, y) in zip(self.shares, pairs, strict=True):
            for piece in share.pieces:
                sums[piece.first_row : piece.first_row + piece.rows] = (piece.of(x) * piece.of(y)).sum(dim=1)
        if self.tp_group.size() > 1 and len(self.split_rows):
            parts = sums[self.split_rows]
            dist.all_reduce(parts, group=self.tp_group)
            sums[self.split_rows] = parts
        if self.dp_group.size() > 1 and self.slots:
            parts = torch.zeros(self.slots, dtype=torch.float32, device=self.device)
            parts[self.local_slot] = sums[self.local_row]
            dist.all_reduce(parts, group=self.dp_group)
            sums[self.local_row] = parts[self.local_slot]
        return sums

    @torch.no_grad()
    def project_grads(self) -> None:
        """Takes from each row's gradient its part along the row (optim/sphere.py: `tangent`)."""
        along = self.dots([(share.main, share.main.grad) for share in self.shares])
        for share in self.shares:
            for piece in share.pieces:
                piece.of(share.main.grad).addcmul_(piece.of(share.main), piece.values(along), value=-1)

    @torch.no_grad()
    def retract_weights(self) -> None:
        """Divides each row by its length (optim/sphere.py: `retract`)."""
        factor = 1 / self.norms().clamp_min(SHORTEST_ROW)
        for share in self.shares:
            for piece in share.pieces:
                piece.of(share.main.data).mul_(piece.values(factor))

    @torch.no_grad()
    def norms(self) -> Tensor:
        """Length of each row that this rank touches."""
        return self.dots([(share.main, share.main) for share in self.shares]).sqrt()


def main_parameters(optimizer: "DistributedOptimizer") -> list[tuple[Tensor, Tensor]]:
    """Each model parameter of which this rank holds a share, with the flat float32 share."""
    half = zip(optimizer.model_float16_groups, optimizer.shard_fp32_from_float16_groups, strict=True)
    full = zip(optimizer.model_fp32_groups, optimizer.shard_fp32_groups, strict=True)
    return [pair for groups in (half, full) for models, mains in groups for pair in zip(models, mains, strict=True)]


RowKey = tuple[Tensor, int]
"""A model parameter and the index of a row in it."""


def cut_rows(optimizer: "DistributedOptimizer", sphere: Mapping[Tensor, str], ranks: int) -> dict[RowKey, int]:
    """A slot for each row that a boundary between the shares of two ranks cuts; equal on all ranks."""
    slots: dict[RowKey, int] = {}
    for buffer in optimizer.buffers:
        for parameter, (start, end, bucket_index) in buffer.param_index_map.items():
            if parameter not in sphere:
                continue
            bucket = buffer.buckets[bucket_index]
            share = bucket.grad_data.numel() // ranks
            for boundary in range(bucket.offset + share, bucket.offset + share * ranks, share):
                row, inside = divmod(boundary - start, parameter.shape[1])
                if start < boundary < end and inside:
                    slots.setdefault((parameter, row), len(slots))
    return slots


def cut_pieces(start: int, end: int, length: int, first_row: int) -> tuple[Piece, ...]:
    """Numbers `start:end` of a matrix with rows of `length` in at most three pieces: part, rows, part.

    Pieces count from `start`; rows count from `first_row`, the row in which `start` lies.
    """
    first_full, last_full = -(-start // length), end // length
    if first_full > last_full:
        return (Piece(0, end - start, first_row, 1),)
    cuts = sorted({start, first_full * length, last_full * length, end})
    pieces = []
    for a, b in pairwise(cuts):
        row = first_row + a // length - start // length
        pieces.append(Piece(a - start, b - start, row, max(1, (b - a) // length)))
    return tuple(pieces)
