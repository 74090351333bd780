"""One answer on all ranks: whether something worked."""

import errno
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
    """One line: what the system said, about which file, and what helps; for our own errors their text."""
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}{_advice(error.errno)}"
    if isinstance(error, CheckpointError):
        return str(error)
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1]}"


def _advice(number: int | None) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "; free space there, write to another disk (out=DIR) or lower train.keep_full"
    return ""
