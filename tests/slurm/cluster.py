"""A real Slurm with two nodes on this machine: munge, slurmctld and two slurmd, in a folder of their own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MUNGE_KEY = Path("/etc/munge/munge.key")
READY_WITHIN_S = 30


@dataclass(frozen=True)
class Cluster:
    """Where the cluster's configuration lies, and the environment in which its commands find it."""

    folder: Path
    env: dict[str, str]

    def said(self, *command: str) -> str:
        """What a Slurm command prints; CalledProcessError with its words where it fails."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """COMPLETED, RUNNING, ... of a job."""
        return self.fact(job, "JobState")

    def fact(self, job: str, name: str) -> str:
        words = self.said("scontrol", "--oneliner", "show", "job", job).split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{name}="))

    def wait(self, job: str, wanted: tuple[str, ...], within_s: float) -> str:
        """The job's state once it is one of `wanted`, or whatever it is when the time is up."""
        end = time.monotonic() + within_s
        while (state := self.state(job)) not in wanted and time.monotonic() < end:
            time.sleep(0.3)
        return state


def why_not() -> str:
    """Why this machine cannot have such a cluster; empty where it can."""
    if not sys.platform.startswith("linux"):
        return "Slurm runs on Linux"
    if os.geteuid() != 0:
        return "starting slurmctld, slurmd and munged by hand needs root"
    if shutil.which("slurmctld") is None and shutil.which("apt-get") is None:
        return "no slurmctld here and no apt-get to install it with"
    return ""


def install() -> str:
    """Installs Slurm and munge where they are missing; gives back why that failed, or nothing."""
    if all(shutil.which(program) for program in ("slurmctld", "slurmd", "munged", "sbatch")):
        return ""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # The packages would start their daemons, with a configuration that does not exist yet.
    quiet = ["-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Options::=--force-confold", "-qq"]
    for command in (
        ["apt-get", *quiet, "update"],
        ["apt-get", *quiet, "install", "-y", "--no-install-recommends", "slurm-wlm", "munge"],
    ):
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False)
        if done.returncode:
            return f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()[-300:]}"
    return ""


@contextmanager
def two_nodes(folder: Path) -> Iterator[Cluster]:
    """The cluster, while the block lasts; every daemon that was started is ended by its pid file."""
    with _munge(folder):
        ports = _free_ports(3)
        configuration = folder / "slurm.conf"
        configuration.write_text(_configuration(folder, ports))
        env = {**os.environ, "SLURM_CONF": str(configuration)}
        cluster = Cluster(folder, env)
        try:
            _start(["slurmctld"], env)
            for node in ("n1", "n2"):
                (folder / f"spool-{node}").mkdir()
                _start(["slurmd", "-N", node], env)
            _wait_for_idle(cluster)
            yield cluster
        finally:
            for pid_file in ("slurmd-n1.pid", "slurmd-n2.pid", "slurmctld.pid"):
                _end(folder / pid_file)


def _configuration(folder: Path, ports: list[int]) -> str:
    host = socket.gethostname().partition(".")[0]
    return "\n".join(
        [
            "ClusterName=summer",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={ports[0]}",
            "SlurmUser=root",
            "SlurmdUser=root",
            "AuthType=auth/munge",
            "CredType=cred/munge",
            f"StateSaveLocation={_made(folder / 'state')}",
            f"SlurmdSpoolDir={folder}/spool-%n",
            f"SlurmctldPidFile={folder}/slurmctld.pid",
            f"SlurmdPidFile={folder}/slurmd-%n.pid",
            f"SlurmctldLogFile={folder}/slurmctld.log",
            f"SlurmdLogFile={folder}/slurmd-%n.log",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            "MpiDefault=none",
            "ReturnToService=2",
            "SchedulerParameters=batch_sched_delay=0,sched_interval=2",
            "KillWait=5",
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
            f"NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=4000",
            f"NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=4000",
            "PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 GraceTime=20 State=UP",
            "PartitionName=high Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF State=UP",
            "",
        ]
    )


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


@contextmanager
def _munge(folder: Path) -> Iterator[None]:
    """munged, which one machine needs once: one that runs already is used and left running."""
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        yield
        return
    if not MUNGE_KEY.exists():
        MUNGE_KEY.parent.mkdir(parents=True, exist_ok=True)
        MUNGE_KEY.write_bytes(secrets.token_bytes(1024))
    for path in (MUNGE_KEY.parent, MUNGE_KEY, _there("/run/munge"), _there("/var/lib/munge"), _there("/var/log/munge")):
        shutil.chown(path, "munge", "munge")
    MUNGE_KEY.chmod(0o400)
    Path("/run/munge").chmod(0o755)
    pid_file = Path("/run/munge/munged.pid")
    _start(["runuser", "-u", "munge", "--", "munged", f"--pid-file={pid_file}"], dict(os.environ))
    try:
        yield
    finally:
        _end(pid_file)


def _there(folder: str) -> Path:
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


def _start(command: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr or done.stdout}")


def _end(pid_file: Path) -> None:
    """Ends the daemon of this pid file and waits until it has left."""
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        return
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for entry in sockets:
        entry.bind(("127.0.0.1", 0))
    ports = [entry.getsockname()[1] for entry in sockets]
    for entry in sockets:
        entry.close()
    return ports


def _wait_for_idle(cluster: Cluster) -> None:
    end = time.monotonic() + READY_WITHIN_S
    states = ""
    while time.monotonic() < end:
        states = cluster.said("sinfo", "--noheader", "--Node", "--partition=low", "--format=%N %T")
        if states.split() == ["n1", "idle", "n2", "idle"]:
            return
        time.sleep(0.3)
    logs = "\n".join(f"{path.name}:\n{path.read_text()[-1500:]}" for path in sorted(cluster.folder.glob("*.log")))
    raise RuntimeError(f"the nodes are {states!r} after {READY_WITHIN_S} s\n{logs}")
