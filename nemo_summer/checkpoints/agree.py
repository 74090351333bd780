"""One answer on all ranks: whether something worked."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from nemo_summer.checkpoints.layout import CheckpointError


@contextmanager
def all_agree(failure: str) -> Iterator[None]:
    """Where the block raises on any rank, all ranks raise CheckpointError: `failure`, then the reason of the first.

    Every rank must enter it. Without it the rank that failed would leave, and the others wait for it.
    """
    reason: tuple[int, int, str] | None = None
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # torch's CheckpointException is no Exception
        reason = (0 if isinstance(error, OSError) else 1, dist.get_rank(), describe(error))
        cause = error
    reasons: list[tuple[int, int, str] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(reasons, reason)
    if found := [r for r in reasons if r]:
        raise CheckpointError(f"{failure}: {min(found)[2]}") from (cause if reason else None)


def describe(error: BaseException) -> str:
    """One line: what the system said and about which file, for our own errors their text."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}" + (f" ({error.filename})" if error.filename else "")
    lines = str(error).strip().splitlines() or [""]
    return str(error) if isinstance(error, CheckpointError) else f"{type(error).__name__}: {lines[-1]}"
