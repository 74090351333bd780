"""A model of bare matrices with given gradients, and how tensor parallelism cuts them."""

import torch
from torch import Tensor, nn

GIVEN = {"blocks.0.w_in.weight": 0, "blocks.0.w_out.weight": 1}
"""The matrices that are cut, and along which dimension."""


class Matrices(nn.Module):
    """Parameters with a transformer's names, odd sizes, and no forward pass."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.patch_proj = nn.Linear(11, 9)
        self.blocks = nn.ModuleList([nn.Module()])
        self.blocks[0].w_in = nn.Linear(9, 14, bias=False)
        self.blocks[0].w_out = nn.Linear(26, 9, bias=False)
        self.final_proj = nn.Linear(9, 11)
        for _, parameter in sorted(self.named_parameters()):
            parameter.data = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 2:
                parameter.data /= parameter.data.norm(dim=1, keepdim=True)


def gradients(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return {name: torch.randn(p.shape, generator=generator) for name, p in sorted(Matrices().named_parameters())}


def piece(whole: Tensor, axis: int | None, rank: int, ranks: int) -> Tensor:
    """What `rank` holds of a parameter that is cut along `axis`; all of it where it is not."""
    return whole if axis is None else whole.chunk(ranks, axis)[rank].contiguous()
