"""Each remedy is needed: without it the fault is there."""

import logging
import threading
import time

import pytest
from megatron.energon.flavors.jsonl.ijsonl_reader import IJsonlReader
from megatron.energon.savable_loader import SavableDataLoader
from torch.utils.data import get_worker_info

from energon_datasets import energon_remedies
from energon_datasets.loader import open_loader
from energon_datasets.shard_schema import read_index
from tests.energon_datasets.test_loader import config, one_pass, take


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(energon_remedies, "version", lambda _: "7.5.0")
    with pytest.raises(RuntimeError, match=r"megatron-energon 7\.5\.0 is installed.*==7\.4\.1"):
        energon_remedies.apply()


def forgetful(self, state):
    """What 7.4.1 does with the counters of workers that have not delivered yet."""
    energon_remedies.apply()
    remedied(self, state)
    if state is not None and self.num_workers > 0:
        self._worker_sample_counters = [
            worker.state.sample_index - 1 if worker.state else -1 for worker in state.worker_states
        ]


energon_remedies.apply()
remedied = SavableDataLoader.restore_state_rank


def test_without_the_remedy_the_counters_of_idle_workers_fall_back(dataset, monkeypatch):
    # With it: test_loader.py, test_saving_right_after_a_restore_loses_nothing
    monkeypatch.setattr(SavableDataLoader, "restore_state_rank", forgetful)
    cfg = config(dataset, workers=2)
    with open_loader(cfg) as loader:
        expected = take(loader, 12)
    with open_loader(cfg) as loader:
        take(loader, 7)
        loader.restore(loader.state())
        take(loader, 1)
        loader.restore(loader.state())
        assert take(loader, 4) != expected[8:]


def test_a_state_waits_for_workers_that_have_not_begun(dataset, monkeypatch):
    original = threading.Thread.start

    def start(self):
        original(self)
        if self.name == "command_thread" and get_worker_info().id == 1:
            time.sleep(1.5)  # between the thread that answers and the first batch

    cfg = config(dataset, workers=2)
    with open_loader(cfg) as loader:
        expected = take(loader, 5)
    monkeypatch.setattr(threading.Thread, "start", start)
    with open_loader(cfg) as loader:
        take(loader, 1)
        state = loader.state()
        loader.restore(state)
        assert take(loader, 4) == expected[1:]


def test_an_error_while_reading_the_list_costs_one_clip_and_one_line(dataset, monkeypatch, caplog):
    original = IJsonlReader.__getitem__

    def failing(self, index):
        if index == 3:
            raise OSError(5, "Input/output error")
        return original(self, index)

    monkeypatch.setattr(IJsonlReader, "__getitem__", failing)
    with caplog.at_level(logging.WARNING), open_loader(config(dataset, packing_buffer=1)) as loader:
        keys = [key for pack in one_pass(loader)[:19] for key in pack["clip_ids"]]
    assert len(set(keys)) == 19 < sum(row.split == "train" for row in read_index(dataset))
    assert "line 4 is skipped: [Errno 5] Input/output error" in caplog.text


def test_loading_is_silent_on_both_streams(dataset, capfd):
    with open_loader(config(dataset, workers=2)) as loader:
        take(loader, 3)
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")
