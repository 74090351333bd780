from collections.abc import Iterator

import pytest
import torch

from nemo_summer.parallel.groups import ParallelConfig, ParallelGroups
from nemo_summer.parallel.init import start, stop, threads_per_rank


@pytest.fixture(scope="module")
def groups() -> Iterator[ParallelGroups]:
    alone = start(seed=7, threads=1)
    yield alone
    stop(alone)


def test_without_torchrun_a_process_is_its_own_only_rank(groups: ParallelGroups) -> None:
    assert (groups.rank, groups.world, groups.dp_rank, groups.dp_size) == (0, 1, 0, 1)
    assert groups.is_first and groups.dp_group.size() == 1
    assert groups.backend == ("nccl" if torch.cuda.is_available() else "gloo")
    assert torch.get_num_threads() == 1


def test_sums_over_one_rank_are_copies(groups: ParallelGroups) -> None:
    values = torch.tensor([1.0, 2.0])
    total = groups.sum_over_data(values)
    assert torch.equal(total, values) and total.data_ptr() != values.data_ptr()
    assert torch.equal(groups.max_over_all(values), values)


def test_starting_twice_is_an_error(groups: ParallelGroups) -> None:
    with pytest.raises(RuntimeError, match="started already"):
        start()


@pytest.mark.parametrize("axis", ["tensor", "pipeline", "context"])
def test_a_layout_that_is_not_built_is_refused_by_name(axis: str) -> None:
    with pytest.raises(ValueError, match=f"parallel.{axis}=2 is not built.* set parallel.{axis}=1"):
        ParallelConfig(**{axis: 2})
    with pytest.raises(ValueError, match=f"parallel.{axis}=0 is no number of ranks"):
        ParallelConfig(**{axis: 0})


def test_ranks_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for local_ranks, threads in ((1, 16), (3, 5), (64, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local_ranks))
        assert threads_per_rank() == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads_per_rank() == 4
