"""One made-up demo folder for all tests here: making it takes longer than reading it."""

from pathlib import Path

import pytest
import torch

from tests.nemo_summer.demo.fabricate import fabricate


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def fabricated(tmp_path_factory) -> Path:
    """Never written to; tests that change something copy it."""
    return fabricate(tmp_path_factory.mktemp("fabricated") / "out")
