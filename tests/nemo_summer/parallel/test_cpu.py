import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module

import pytest
import torch

from nemo_summer.parallel import cpu

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU nothing is replaced")


@pytest.fixture
def bare_torch() -> Iterator[None]:
    """torch as it came, also where a test before installed the names; put back afterwards."""
    was_installed = bool(cpu._UNDO)
    cpu.uninstall()
    yield
    cpu.uninstall()
    if was_installed:
        cpu.install()


def look_up(dotted: str) -> object:
    module, _, name = dotted.rpartition(".")
    owner = torch.Tensor if module == "torch.Tensor" else import_module(module)
    return vars(owner).get(name)


def test_every_listed_name_is_replaced_once_and_comes_back(bare_torch: None) -> None:
    before = {name: look_up(name) for name in cpu.NAMES}
    assert cpu.install() and cpu.install()
    replaced = {f"{getattr(owner, '__module__', None) or owner.__name__}.{name}" for owner, name, _ in cpu._UNDO}
    assert len(cpu._UNDO) == len(cpu.NAMES) == len(replaced)
    assert all(look_up(name) is not before[name] for name in cpu.NAMES)
    cpu.uninstall()
    assert all(look_up(name) is before[name] for name in cpu.NAMES)


def test_tensors_asked_for_on_cuda_are_made_on_the_cpu(bare_torch: None) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        torch.zeros(2, device="cuda")
    cpu.install()
    for made in (
        torch.zeros(2, device="cuda"),
        torch.tensor([1.0], device=torch.device("cuda", 0)),
        torch.ones(2).cuda(),
    ):
        assert made.device.type == "cpu"
    assert torch.zeros(2, device="meta").device.type == "meta"
    assert torch.ones(1).type() == "torch.cuda.FloatTensor"
    assert torch.ones(1).type(torch.int64).dtype == torch.int64


def test_where_there_is_a_gpu_nothing_changes(bare_torch: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = {name: look_up(name) for name in cpu.NAMES}
    assert cpu.install() is False
    assert {name: look_up(name) for name in cpu.NAMES} == before


def test_a_run_from_start_to_stop_warns_of_nothing() -> None:
    words = (
        "from nemo_summer.parallel.init import start, stop; g = start(); "
        "from nemo_summer.dit.config import DitConfig; from nemo_summer.dit.megatron import MegatronDit; "
        "from nemo_summer.parallel.schedule import replicate; "
        "replicate(MegatronDit(DitConfig(width=16, heads=2, layers=1), g), g); stop(g); print('done')"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", words], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("done", "")


def test_our_own_warnings_stay_audible(bare_torch: None) -> None:
    cpu.install()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        warnings.warn("something of ours", stacklevel=1)
    assert len(heard) == 1
