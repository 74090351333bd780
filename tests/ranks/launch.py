"""Starts a test's own module on several ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_ranks(
    module: str | Path,
    ranks: int,
    args: Sequence[str | Path] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> str:
    """Output of `module` (a dotted name, or the path of a script) on `ranks` ranks; AssertionError where one failed.

    One thread per rank. The rendezvous is c10d with a store per attempt (notes/reliability: the static one hangs).
    """
    target = ["--module", module] if isinstance(module, str) and not module.endswith(".py") else [str(module)]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", *target, *map(str, args)]
    settings = {
        "OMP_NUM_THREADS": "1",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **settings, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{ranks} ranks of {module} ended with {done.returncode}:\n{done.stdout[-6000:]}"
    return done.stdout
