"""How long to train and what happens once in a while."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class TrainConfig:
    """Settings of the loop; what is learned, and how, is set in `model`, `objective` and `optim`."""

    steps: int = 400
    """Steps of the optimizer until the end."""
    packs_per_step: int = 1
    """Packs that make one step, over all ranks and rounds of accumulation; a multiple of the data-parallel size."""
    log_every: int = 5
    """Steps between two lines of history.jsonl and TensorBoard."""
    validate_every: int = 100
    """Steps between two looks at the held-out clips; the last step is always one."""
    watch_every: int = 20
    """Steps between two measurements of how far the rows turn."""
    pictures_every: int = 0
    """Steps between two sampled pictures for TensorBoard; 0 is never."""
    checkpoint_every: int = 50
    """Steps between two checkpoints; the last step always is one. Averages are made from these."""
    keep_full: int = 2
    """Newest checkpoints kept whole; older ones keep only the weights, which averages need."""
    skipped_at_most: int = 5
    """Steps in a row without finite gradients after which training stops."""
    resume: bool = True
    """Go on from the newest whole checkpoint in `out`; false refuses a folder that has one."""
    accept_changes: bool = False
    """Go on from a checkpoint although model, objective, optimizer or seed were set otherwise when it was written."""
    reset_data: bool = False
    """When going on from a checkpoint, keep weights and moments but read the dataset from its beginning."""

    def __post_init__(self) -> None:
        for name in ("steps", "packs_per_step", "log_every", "validate_every", "watch_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name}={getattr(self, name)} must be at least 1")

    def rounds(self, dp_size: int) -> int:
        """Packs that each rank takes one after the other for one step."""
        if self.packs_per_step % dp_size:
            fits = -(-self.packs_per_step // dp_size) * dp_size
            raise ValueError(
                f"{self.packs_per_step} packs do not divide among {dp_size} data-parallel ranks: "
                f"set train.packs_per_step={fits}"
            )
        return self.packs_per_step // dp_size
