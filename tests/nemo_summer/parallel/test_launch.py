"""The launcher: ranks that die are started anew, nobody is left behind, exit codes arrive, signals reach every rank."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemo_summer.parallel import launch as door
from nemo_summer.parallel.launch import BAD_INPUT, REQUEUE, Nodes, nodes_of_slurm, ranks_per_node, torchrun_words

JOB = "tests.nemo_summer.parallel.sum_of_ranks"


def start(folder: Path, deed: str) -> subprocess.Popen:
    """The launcher as a process of its own, as `summer train` is one."""
    code = f"import sys; from nemo_summer.parallel.launch import launch; sys.exit(launch({JOB!r}, sys.argv[1:], 2))"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code, str(folder), deed], env=env, stderr=subprocess.PIPE, text=True)


def wait_for(*paths: Path, within_s: float = 40) -> None:
    end = time.monotonic() + within_s
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end, f"{[str(path) for path in paths if not path.exists()]} did not appear"
        time.sleep(0.05)


def pids(folder: Path) -> list[int]:
    return [int((folder / f"pid_{rank}").read_text()) for rank in range(2)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.ranks
def test_a_rank_killed_with_9_comes_back_and_the_work_goes_on_where_it_was(tmp_path: Path) -> None:
    job = start(tmp_path, "die")
    assert job.wait(60) == 0, job.stderr.read()
    assert (tmp_path / "state").read_text() == "10"
    for rank in range(2):
        assert len((tmp_path / f"starts_{rank}").read_text().split()) == 2


@pytest.mark.ranks
def test_nobody_is_left_when_the_launcher_is_killed_with_9(tmp_path: Path) -> None:
    job = start(tmp_path, "long")
    wait_for(tmp_path / "state")
    agents = [int(pid) for pid in Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()]
    family = [*agents, *pids(tmp_path)]
    assert len(agents) == 1 and all(alive(pid) for pid in family)
    job.kill()
    job.wait(10)
    end = time.monotonic() + 5
    while any(alive(pid) for pid in family) and time.monotonic() < end:
        time.sleep(0.05)
    assert not [pid for pid in family if alive(pid)]


@pytest.mark.ranks
def test_a_signal_reaches_every_rank_and_the_code_asks_for_another_go(tmp_path: Path) -> None:
    job = start(tmp_path, "long")
    wait_for(tmp_path / "state")
    for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
        job.send_signal(number)  # Slurm signals launcher and agent, ahead of time and at the end, while the ranks save
        time.sleep(0.3)
    assert job.wait(30) == REQUEUE, job.stderr.read()
    steps = {(tmp_path / f"asked_{rank}").read_text().split()[0] for rank in range(2)}
    assert len(steps) == 1, "all ranks must stop at the same step"


@pytest.mark.ranks
def test_a_rank_that_was_told_something_wrong_is_not_started_again(tmp_path: Path) -> None:
    job = start(tmp_path, "bad-input")
    assert job.wait(40) == BAD_INPUT
    assert len((tmp_path / "starts_1").read_text().split()) == 1
    assert not any(alive(pid) for pid in pids(tmp_path))


@pytest.mark.ranks
def test_two_nodes_end_together_when_one_was_told_something_wrong(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "import sys; from nemo_summer.parallel.launch import Nodes, launch; "
        f"nodes = Nodes(count=2, here=int(sys.argv[1]), port={port}, job='two-nodes'); "
        f"sys.exit(launch({JOB!r}, sys.argv[2:], 2, nodes=nodes))"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", code]
    both = [
        subprocess.Popen([*words, here, str(tmp_path), "bad-input"], env=env, stderr=subprocess.PIPE, text=True)
        for here in ("0", "1")
    ]
    said = [node.communicate(timeout=90)[1] for node in both]
    assert max(node.returncode for node in both) == BAD_INPUT and min(node.returncode for node in both) > 0
    assert not any("torch/distributed/run.py" in words for words in said), said


def test_the_end_with_the_parent_is_asked_for_before_torch_is_loaded() -> None:
    code = "import sys, nemo_summer.parallel.launch; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_die_with_parent_ends_a_process_whose_parent_is_gone_already() -> None:
    code = "from nemo_summer.parallel.launch import die_with_parent; die_with_parent(); print('still here')"
    env = {**os.environ, door._PARENT: "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (137, "")


def test_the_rendezvous_is_never_static_and_stays_on_this_machine() -> None:
    words = torchrun_words(Nodes(), 2, restarts=3, grace_s=120)
    assert "--rdzv-backend=c10d" in words and "--rdzv-endpoint=127.0.0.1:0" in words
    assert any(word.startswith("--signals-to-handle=") and "SIGUSR1" in word for word in words)
    env = door._environment(Nodes(), 2)
    assert env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1" and env["GLOO_SOCKET_IFNAME"] == "lo"


def test_ranks_are_divided_among_nodes_and_what_does_not_divide_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(door, "gpu_count", lambda: 8)
    assert ranks_per_node(0, 4) == 8
    assert ranks_per_node(6, 2) == 3
    with pytest.raises(ValueError, match="ranks=3 do not divide among 2 nodes: set ranks=4"):
        ranks_per_node(3, 2)
    monkeypatch.setattr(door, "gpu_count", lambda: 0)
    assert ranks_per_node(0, 4) == 1


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("0", 1), ("0,1,3", 3), ("-1", 0), ("NoDevFiles", 0)])
def test_visible_devices_are_counted(visible: str, count: int, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert door.gpu_count() == count


SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}


def test_in_a_slurm_step_the_first_node_is_where_the_ranks_meet(monkeypatch) -> None:
    def answer(words: list[str]) -> str:
        if words[1] == "hostnames":
            return "gpu07\ngpu08\n"
        return f"NodeName={words[-1]} Arch=x86_64 NodeAddr=10.0.0.{words[-1][-1]} NodeHostName={words[-1]}"

    monkeypatch.setattr(door, "_ask_slurm", answer)
    here, head = nodes_of_slurm(SLURM), nodes_of_slurm({**SLURM, "SLURM_NODEID": "0"})
    assert (here.count, here.here, here.address, here.head) == (2, 1, "10.0.0.8", "10.0.0.7")
    assert (head.port, head.job, head.head) == (here.port, here.job, here.head)
    assert 15000 <= here.port < 30000
    assert nodes_of_slurm({**SLURM, "SLURM_RESTART_COUNT": "1"}).job != here.job


def test_outside_of_a_slurm_step_there_is_one_node() -> None:
    assert nodes_of_slurm({}) is None
    assert nodes_of_slurm({"SLURM_JOB_ID": "77"}) is None, "the batch script itself is no step"


def test_more_than_one_task_per_node_is_refused_with_the_option_to_change() -> None:
    with pytest.raises(ValueError, match="8 tasks on 2 nodes: give srun --ntasks-per-node=1"):
        nodes_of_slurm({**SLURM, "SLURM_STEP_NUM_TASKS": "8"})
