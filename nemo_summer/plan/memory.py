"""How much memory one rank needs, before anything is started."""

from __future__ import annotations

from dataclasses import dataclass

from nemo_summer.dit.config import DitConfig

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one rank. Every rank holds the whole model; ranks share the optimizer's state."""

    parameters: int
    """How many numbers the model has."""
    ranks: int
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations

    def sentences(self) -> list[str]:
        """For `dry_run`."""
        shared = "" if self.ranks == 1 else f" (shared by {self.ranks} ranks)"
        return [
            f"The model has {self.parameters:,} parameters.",
            f"Each rank needs about {show_bytes(self.total)}: weights {show_bytes(self.weights)}, "
            f"gradients {show_bytes(self.gradients)}, optimizer {show_bytes(self.optimizer)}{shared}, "
            f"activations {show_bytes(self.activations)}.",
        ]


def estimate_memory(cfg: DitConfig, tokens: int, ranks: int = 1, bytes_per_number: int = 4) -> Memory:
    """For packs of `tokens` tokens, text included; 4 bytes per number is float32, 2 is bfloat16.

    Gradients are summed in float32. The optimizer keeps two float32 moments per parameter, and in bfloat16 a float32
    copy of the weights, each cut into one piece per rank.
    """
    parameters = cfg.parameter_count()
    optimizer_bytes = 8 if bytes_per_number == 4 else 12
    return Memory(
        parameters=parameters,
        ranks=ranks,
        weights=parameters * bytes_per_number,
        gradients=parameters * 4,
        optimizer=parameters * optimizer_bytes // ranks,
        activations=tokens * numbers_kept_per_token(cfg) * bytes_per_number,
    )


def numbers_kept_per_token(cfg: DitConfig) -> int:
    """What the backward pass needs of each token, all blocks together, without recomputation; an estimate.

    D width, F hidden width, K heads. Per block: x, its square's mean and norm, scale, gate and offset, u, the output
    of W_in (3D + 2F), turned queries and keys with their cosines and sines, mixed values, attention with its logarithm
    per head, SiLU(h1) and the product, the input and the output of W_out.
    """
    D, F = cfg.width, cfg.hidden
    norm_and_modulation = D + D + 3 * D + D + D  # x, norm, modulation of the token, u, gate with offset
    projected = 3 * D + 2 * F
    attention = 2 * D + D + 2 * (D // 2) + D + cfg.heads  # turned q and k, mixed v, cos and sin, output, logarithm
    gated = F
    output = (D + F) + D
    return cfg.layers * (norm_and_modulation + projected + attention + gated + output)


def show_bytes(count: float) -> str:
    """`1.5 GiB`, `12 MiB`."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.0f} MiB"
