"""Starts the ranks: torchrun with the settings that make its restarts work, here or on the nodes of a Slurm job.

    summer train          launch()        this process: waits, passes signals on, hands back the exit code
      python -m ...launch   agent()       torchrun's agent, one per node: starts the ranks, restarts them
        python -m MODULE      rank        calls die_with_parent() before anything else

No torch here until the agent runs, so that a rank can ask for its end with its parent at once.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

REQUEUE = 75
"""Exit code of a run that a signal ended before its last step: start it again and it goes on (EX_TEMPFAIL)."""
BAD_INPUT = 2
"""Exit code of a rank that was told something wrong: starting it again cannot help."""
LOST = 1
"""Exit code of a node whose neighbours are gone; below the others, since srun hands on the highest one."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
_PARENT = "SUMMER_PARENT_PID"
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Has the kernel kill this process when its launcher ends, also by kill -9; ends it where that is past already.

    For ranks that `launch` starts: a no-op elsewhere, and on systems other than Linux.
    """
    parent = os.environ.get(_PARENT)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # it ended before the kernel knew
        os._exit(128 + signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Nodes:
    """The machines of this job, as seen from one of them."""

    count: int = 1
    here: int = 0
    """place of this machine among them"""
    address: str = "127.0.0.1"
    """under which the other machines reach this one"""
    head: str = "127.0.0.1"
    """address of the machine where the ranks meet"""
    port: int = 0
    """0: any free one"""
    job: str = field(default_factory=lambda: f"summer-{os.getpid()}")


def launch(
    module: str,
    args: Sequence[str],
    ranks: int = 0,
    *,
    restarts: int = 3,
    grace_s: int = 120,
    nodes: Nodes | None = None,
) -> int:
    """Runs `python -m module *args` on `ranks` ranks; gives back 0, or the exit code of the rank that failed first.

    `ranks` counts all nodes; 0 is one per GPU, and one per node where there is none. Ranks that fail are started anew,
    all together, at most `restarts` times. SIGTERM, SIGUSR1 and their like reach every rank once, which then has
    `grace_s` seconds to save; the exit code is then REQUEUE. Under Slurm each node runs one launcher (srun).
    """
    nodes = nodes or nodes_of_slurm(os.environ) or Nodes()
    per_node = ranks_per_node(ranks, nodes.count)
    command = [sys.executable, "-m", "nemo_summer.parallel.launch"]
    command += [*torchrun_words(nodes, per_node, restarts, grace_s), "--module", module, *args]
    agent = subprocess.Popen(command, env=_environment(nodes, per_node))
    before = {number: signal.signal(number, _pass_on(agent)) for number in _SIGNALS}
    try:
        code = agent.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code


def ranks_per_node(ranks: int, nodes: int) -> int:
    """Ranks on each of `nodes` machines. ValueError where they do not divide evenly."""
    if ranks == 0:
        return max(1, gpu_count())
    if ranks % nodes:
        fits = -(-ranks // nodes) * nodes
        raise ValueError(
            f"ranks={ranks} do not divide among {nodes} nodes: set ranks={fits}, or ranks=0 for one per GPU"
        )
    return ranks // nodes


def gpu_count() -> int:
    """GPUs of this machine that the job may use; asked of the driver, so that no CUDA context is made here."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1", "NoDevFiles")])
    try:
        found = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in found.stdout.splitlines())


def torchrun_words(nodes: Nodes, per_node: int, restarts: int, grace_s: int) -> list[str]:
    """The options of torchrun. The static rendezvous is never used: after a restart it hands out the old addresses."""
    words = {
        "nnodes": nodes.count,
        "nproc-per-node": per_node,
        "max-restarts": restarts,
        "monitor-interval": 0.2,
        "shutdown-timeout": grace_s,
        "signals-to-handle": ",".join(number.name for number in _SIGNALS),
        "rdzv-backend": "c10d",
        "rdzv-endpoint": f"{nodes.head}:{nodes.port}",
        "rdzv-id": nodes.job,
        "rdzv-conf": f"is_host={int(nodes.here == 0)}",
        "local-addr": nodes.address,
    }
    return [f"--{name}={value}" for name, value in words.items()]


def _environment(nodes: Nodes, per_node: int) -> dict[str, str]:
    env = dict(os.environ)
    env[_PARENT] = str(os.getpid())
    # torch 2.13 keeps one store for all attempts, in which a restarted rank finds the addresses of the dead ones.
    env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    env.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // per_node)))
    if nodes.count == 1:
        env.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return env


def _pass_on(agent: subprocess.Popen) -> Callable[[int, FrameType | None], None]:
    def pass_on(number: int, frame: FrameType | None) -> None:
        agent.send_signal(number)

    return pass_on


# --- Slurm


def nodes_of_slurm(env: Mapping[str, str]) -> Nodes | None:
    """The nodes of the Slurm step that this process is a task of; `None` outside of Slurm."""
    if "SLURM_STEP_ID" not in env or "SLURM_NODEID" not in env:
        return None
    count = int(env.get("SLURM_STEP_NUM_NODES") or env.get("SLURM_NNODES") or 1)
    tasks = int(env.get("SLURM_STEP_NUM_TASKS") or count)
    if tasks != count:
        raise ValueError(
            f"{tasks} tasks on {count} nodes: give srun --ntasks-per-node=1; torchrun starts the ranks itself"
        )
    if count == 1:
        return Nodes(job=_job_name(env))
    names = _ask_slurm(["show", "hostnames", env.get("SLURM_STEP_NODELIST") or env["SLURM_JOB_NODELIST"]]).split()
    here = int(env["SLURM_NODEID"])
    return Nodes(
        count=count,
        here=here,
        address=_address_of(names[here]),
        head=_address_of(names[0]),
        port=_port_of(env),
        job=_job_name(env),
    )


def _job_name(env: Mapping[str, str]) -> str:
    return f"summer-{env.get('SLURM_JOB_ID', 0)}-{env.get('SLURM_STEP_ID', 0)}-{env.get('SLURM_RESTART_COUNT', 0)}"


def _port_of(env: Mapping[str, str]) -> int:
    """A port that all nodes know without asking, below the range from which the system hands out ports."""
    return 15000 + (int(env.get("SLURM_JOB_ID", 0)) * 8 + int(env["SLURM_STEP_ID"])) % 15000


def _address_of(node: str) -> str:
    """Where Slurm itself reaches the node: its name need not be one that the resolver knows."""
    for word in _ask_slurm(["--oneliner", "show", "node", node]).split():
        if word.startswith("NodeAddr="):
            return word.removeprefix("NodeAddr=")
    return socket.gethostbyname(node)


def _ask_slurm(words: list[str]) -> str:
    try:
        return subprocess.run(["scontrol", *words], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise OSError(f"scontrol {' '.join(words)} failed, so the nodes of this job stay unknown: {error}") from None


# --- the agent


def agent(words: Sequence[str]) -> int:
    """torchrun in this process, with our exit codes: that of the first rank to fail, or REQUEUE after a signal."""
    die_with_parent()
    os.environ[_PARENT] = str(os.getpid())
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    _hear_signals_once()
    _spare_hopeless_restarts()
    _leave_known_ends_to_the_ranks()
    try:
        run.main(list(words))
    except SignalException as ended:
        print(f"summer: ended by {ended.sigval.name}", file=sys.stderr)
        return REQUEUE
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        code = failure.exitcode
        if code not in (BAD_INPUT, REQUEUE):
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            print(f"summer: rank {rank} {how}; its own messages are above", file=sys.stderr)
        return 128 - code if code < 0 else code
    except RendezvousError as lost:
        print(f"summer: the nodes lost each other, another one may have ended the job: {lost}", file=sys.stderr)
        return LOST
    return 0


def _hear_signals_once() -> None:
    """Slurm signals every process of a job and a terminal the whole group, so the agent hears the same wish twice.

    torch's handler raises wherever it happens to be, the second time in the middle of the wait for ranks that save.
    """
    from torch.distributed.elastic.multiprocessing import api

    raise_it: Callable[[int, Any], None] = api._terminate_process_handler
    heard: list[int] = []

    def first_only(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) == 1:
            raise_it(number, frame)

    api._terminate_process_handler = first_only


def _spare_hopeless_restarts() -> None:
    """A rank that was told something wrong, or that saved because of a signal, is not started anew."""
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

    look = LocalElasticAgent._monitor_workers

    def look_and_judge(self: Any, group: Any) -> Any:
        result = look(self, group)
        if any(failure.exitcode in (BAD_INPUT, REQUEUE) for failure in result.failures.values()):
            self._remaining_restarts = 0
        return result

    LocalElasticAgent._monitor_workers = look_and_judge


def _leave_known_ends_to_the_ranks() -> None:
    """A rank that ends with BAD_INPUT or REQUEUE has said why in one line; torch would add some about process ids."""
    known = ("Sending process", *(f"failed (exitcode: {code})" for code in (BAD_INPUT, REQUEUE)))
    logger = logging.getLogger("torch.distributed.elastic.multiprocessing.api")
    logger.addFilter(lambda record: not record.getMessage().startswith(known))


if __name__ == "__main__":
    sys.exit(agent(sys.argv[1:]))
