"""One tiny dataset per test run, and copies of it for tests that break things."""

import shutil
from pathlib import Path

import pytest

from tests.energon_datasets.tiny_dataset import write_tiny_dataset


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "dataset"
    write_tiny_dataset(folder)
    return folder


@pytest.fixture
def copy(dataset, tmp_path) -> Path:
    return Path(shutil.copytree(dataset, tmp_path / "copy", ignore=shutil.ignore_patterns("views")))
