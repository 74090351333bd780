"""Energon's steps for us: lines of the list become references, these become packs, and then latents are read."""

from __future__ import annotations

import hashlib
from typing import Any

from megatron.energon import Cooker, Sample, TaskEncoder, WorkerConfig, stateless
from megatron.energon.edataclass import edataclass
from megatron.energon.task_encoder.cooking import basic_sample_keys

from energon_datasets.cook import ClipError, EncodedClip, ListedClip, ShardReader, draw_for, read_clip
from energon_datasets.packing import lay_end_to_end, pack_bfd


@edataclass
class ClipRef(Sample):
    """A clip that was not read yet."""

    clip: ListedClip


@edataclass
class Visit(Sample):
    """A clip that was read, or why it could not be."""

    key: str
    clip: EncodedClip | None
    fault: str


@stateless
def cook(sample: dict[str, Any]) -> ClipRef:
    """A line of the list as a reference."""
    return ClipRef(**basic_sample_keys(sample), clip=ListedClip.from_dict(sample["json"]))


class PackingTaskEncoder(TaskEncoder):
    """Yields `{"pack": PackedBatch | None, "faults": [(key, why)]}`.

    A clip that cannot be read leaves its pack smaller and rides along as a fault, so that what was delivered and what
    failed is counted exactly, also when batches are played again after a restart. `pack` is None where nothing is left.
    """

    decoder = None
    cookers = (Cooker(cook),)

    def __init__(
        self, reader: ShardReader, budget: int, seed: int, shares: dict[str, float], text_dropout: float
    ) -> None:
        self.reader = reader
        self.budget = budget
        self.seed = seed
        self.shares = shares
        self.text_dropout = text_dropout
        self.rows_of_worker: list[int] = []
        """Clips of each worker of this rank: set when the dataset is built, before the workers start."""

    def select_samples_to_pack(self, samples: list[ClipRef]) -> list[list[ClipRef]]:
        """All of `samples`, in packs, in an order that mixes long and short ones and is the same at every run."""
        groups = pack_bfd([sample.clip.row.tokens for sample in samples], self.budget)
        packs = [[samples[i] for i in group] for group in groups]
        return sorted(packs, key=lambda pack: self._place(pack[0]))

    def _place(self, sample: ClipRef) -> bytes:
        address = f"{self.seed}/place/{sample.clip.row.key}/{self._number(sample)}"
        return hashlib.blake2b(address.encode(), digest_size=8).digest()

    @stateless
    def postencode_sample(self, sample: ClipRef) -> Visit:
        """Reads the clip with what is drawn for this visit."""
        key, number = sample.clip.row.key, self._number(sample)
        draw = draw_for(self.seed, key, number, self.shares, self.text_dropout)
        clip, fault = None, ""
        try:
            clip = read_clip(self.reader, sample.clip, draw)
        except ClipError as error:
            fault = str(error)
        return Visit.derive_from(sample, key=key, clip=clip, fault=fault)

    @stateless
    def pack_selected_samples(self, samples: list[Visit]) -> dict[str, Any]:
        clips = [visit.clip for visit in samples if visit.clip is not None]
        return {
            "__key__": "+".join(visit.key for visit in samples),
            "__restore_key__": (),
            "pack": lay_end_to_end(clips) if clips else None,
            "faults": [(visit.key, visit.fault) for visit in samples if visit.clip is None],
        }

    def _number(self, sample: ClipRef) -> int:
        """How often this worker went through its part of the list before it read the sample: Energon counts the rows
        that a worker reads, and each pass reads every row once."""
        *_, kind, rows_read, source, _index = sample.__restore_key__
        assert kind == "MapDataset" and source == "Webdataset", sample.__restore_key__
        worker = WorkerConfig.active_worker_config.rank_worker_id()
        return int(rows_read) // self.rows_of_worker[worker]
