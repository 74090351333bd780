"""A toy job for the launcher: ranks add up their numbers round by round, and one of them may be told to misbehave."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from nemo_summer.parallel.launch import BAD_INPUT, REQUEUE, die_with_parent


def main(folder: Path, deed: str) -> int:
    """Ten rounds; `state` holds the next round, as a checkpoint would. `deed` happens once, in rank 1, in round 5."""
    die_with_parent()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    (folder / f"pid_{rank}").write_text(str(os.getpid()))
    with (folder / f"starts_{rank}").open("a") as log:
        log.write(f"{os.getpid()}\n")
    stop: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: stop.append(number))
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    saved = folder / "state"
    done = int(saved.read_text()) if saved.exists() else 0
    for step in range(done, 10 if deed != "long" else 10_000):
        total = torch.tensor([float(rank + 1 + step), float(len(stop) > 0)])
        dist.all_reduce(total)
        assert total[0] == sum(r + 1 + step for r in range(world))
        if deed == "bad-input" and rank == 1:
            return BAD_INPUT
        if rank == 0:
            saved.write_text(str(step + 1))
        if deed == "die" and step == 5 and rank == 1 and not (folder / "died").exists():
            (folder / "died").write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        if total[1]:
            time.sleep(1.5)  # saving takes its time
            (folder / f"asked_{rank}").write_text(f"{step} {len(stop)}")
            return REQUEUE
        time.sleep(0.01)
    (folder / f"finished_{rank}").write_text(str(step + 1))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
