"""The loader: packs without end, exact to the batch over save and restore; and the fixed packs of validation."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energon_datasets import loader_state
from energon_datasets.batch import PackedBatch
from energon_datasets.cook import ClipError, Draw, ListedClip, ShardReader, draw_for, read_clip
from energon_datasets.lists import Lists, prepare, read_list
from energon_datasets.packing import lay_end_to_end, pack_bfd
from energon_datasets.shard_schema import LEVELS, SPLITS
from energon_datasets.view import View

if TYPE_CHECKING:
    from energon_datasets.stream import Stream

log = logging.getLogger(__name__)

FAULTS_IN_A_ROW = 100
"""So many unreadable clips without a readable one end the run, whatever their share: the disk is gone."""

COUNTS = ("packs", "delivered", "failed", "tokens", "faults")
"""What a loader remembers of its past, beside its place."""


@dataclass(kw_only=True)
class CaptionMix:
    """How often each caption level is taken; shares of their sum."""

    detailed: float = 0.6
    short: float = 0.3
    words: float = 0.1


@dataclass(kw_only=True)
class DataConfig:
    path: str = ""
    """Folder of the dataset, as `summer curate out=DIR` wrote it."""
    where: str = ""
    """Which clips: a condition over the columns of clips.parquet, such as `motion > 5`; empty for all kept ones."""
    budget: int = 19360
    """Video tokens of a pack at most; captions come on top. At least as many as the longest clip has."""
    drop_too_long: bool = False
    """Leave out clips of more tokens than `budget` (counted as too_long) instead of refusing the dataset."""
    packing_buffer: int = 512
    """Clips among which packs are chosen; about 50 budget / (tokens of a mean clip) wastes 1 %."""
    workers: int = 2
    """Reading processes per rank; 0 reads in the training process."""
    prefetch: int = 2
    """Packs that each worker keeps ready."""
    caption_mix: CaptionMix = field(default_factory=CaptionMix)
    text_dropout: float = 0.1
    """Share of visits without a caption, for guidance."""
    max_failed_share: float = 0.05
    """Training stops when more than this share of a rank's clips turned out unreadable."""
    lists: str = ""
    """Where the lists of the views are kept; empty: PATH/views."""

    def check(self) -> None:
        """ValueError that names the first setting that cannot be."""
        if not self.path:
            raise ValueError("data.path is empty: set data.path to the folder that `summer curate out=DIR` wrote")
        for name, least in (("budget", 1), ("packing_buffer", 1), ("workers", 0), ("prefetch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"data.{name}={getattr(self, name)} is too small: at least {least} is wanted")
        for name in ("text_dropout", "max_failed_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"data.{name}={getattr(self, name)} is no share: set it from 0 to 1")
        shares = self.shares()
        if min(shares.values()) < 0 or sum(shares.values()) <= 0:
            raise ValueError(f"data.caption_mix={shares}: shares are not negative, and one is above 0")

    def shares(self) -> dict[str, float]:
        return {level: float(getattr(self.caption_mix, level)) for level in LEVELS}

    def open_lists(self) -> Lists:
        """The lists of this View. ValueError where clips are longer than the budget and not told to be dropped."""
        self.check()
        folder = Path(self.lists) if self.lists else None
        lists = prepare(Path(self.path), self.where, self.budget if self.drop_too_long else None, folder)
        key, tokens = lists.longest
        if tokens > self.budget and not self.drop_too_long:
            raise ValueError(
                f"clip {key} has {tokens} tokens, a pack holds data.budget={self.budget}: "
                f"set data.budget={tokens}, or data.drop_too_long=true to train without the longer ones"
            )
        return lists


class Loader(Iterator[PackedBatch]):
    """Packs without end, each clip once per pass. `state` at any time; `restore` before or after any pack.

    Use it as a context manager, or call `close`, so that its workers end.
    """

    def __init__(self, cfg: DataConfig, lists: Lists, split: str, dp_rank: int, dp_size: int, seed: int) -> None:
        self.cfg, self.lists, self.split, self.seed = cfg, lists, split, seed
        self.dp_rank, self.dp_size = dp_rank, dp_size
        self._stream = self._open()
        self._reset_counts()

    def _open(self) -> Stream:
        # Energon takes a second to import, and whoever only reads settings or looks at clips does not need it.
        from energon_datasets.stream import Stream

        self._broken = False
        return Stream(self.cfg, self.lists, self.split, self.dp_rank, self.dp_size, self.seed)

    def _reset_counts(self) -> None:
        self.packs = self.delivered = self.failed = self.tokens = 0
        self.faults: dict[str, str] = {}
        self._faults_in_a_row = 0

    @property
    def clips(self) -> int:
        """Clips of this rank."""
        return self._stream.clips

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> PackedBatch:
        """ValueError when too many clips cannot be read."""
        while True:
            found = self._next_found()
            self._count_faults(found["faults"])
            pack: PackedBatch | None = found["pack"]
            if pack is not None:
                self.packs += 1
                self.delivered += len(pack.clip_ids)
                self.tokens += pack.tokens
                self._faults_in_a_row = 0
                return pack

    def _next_found(self) -> dict[str, Any]:
        if self._broken:
            raise ValueError("the loader ended with an error before: open it again and restore its state")
        try:
            return next(self._stream)
        except BaseException:
            self._broken = True
            raise

    def _count_faults(self, faults: list[tuple[str, str]]) -> None:
        self.failed += len(faults)
        self._faults_in_a_row += len(faults)
        for key, why in faults:
            if key not in self.faults:
                self.faults[key] = why
                log.warning("clip %s is skipped: %s", key, why)
        share = len(self.faults) / self.clips
        if faults and (share > self.cfg.max_failed_share or self._faults_in_a_row >= FAULTS_IN_A_ROW):
            key, why = next(iter(self.faults.items()))
            raise ValueError(
                f"{len(self.faults)} of {self.clips} clips of {self.cfg.path} cannot be read ({share:.1%}), the first "
                f"is {key}: {why}. Mend the dataset, or set data.max_failed_share above {self.cfg.max_failed_share:g}"
            )

    def report(self) -> dict[str, int | float]:
        """Where every clip is. In both splits: `total = filtered + too_long + listed`. On this rank, counted in visits:
        `passes * clips = delivered + failed + pending`."""
        seen = self.delivered + self.failed
        passes = max(1, -(-seen // self.clips))
        return {
            "total": self.lists.total,
            "filtered": self.lists.filtered,
            "too_long": self.lists.too_long,
            "listed": sum(self.lists.clips.values()),
            "clips": self.clips,
            "passes": passes,
            "delivered": self.delivered,
            "failed": self.failed,
            "pending": passes * self.clips - seen,
            "unreadable_clips": len(self.faults),
            "packs": self.packs,
            "fill_share": self.tokens / (self.packs * self.cfg.budget) if self.packs else 0.0,
        }

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for a state to continue: another value is another stream."""
        return {
            "data.where": View(self.cfg.where).canonical,
            "clips in the view": self.lists.content[self.split],
            "dataset": self.lists.dataset,
            "split": self.split,
            "data.budget": self.cfg.budget,
            "data.packing_buffer": self.cfg.packing_buffer,
            "data.workers": self.cfg.workers,
            "data.caption_mix": self.cfg.shares(),
            "data.text_dropout": self.cfg.text_dropout,
            "seed": self.seed,
            "data-parallel rank": self.dp_rank,
            "data-parallel ranks": self.dp_size,
            "megatron-energon": version("megatron-energon"),
        }

    def state(self) -> bytes:
        """The place in the stream: the next pack after `restore` is the one that would come next now."""
        if self._broken:
            raise ValueError("the loader ended with an error, it has no state to save")
        counts = {name: getattr(self, name) for name in COUNTS}
        return loader_state.to_bytes(
            {"fingerprint": self.fingerprint(), "counts": counts, "energon": self._stream.state()}
        )

    def restore(self, state: bytes) -> None:
        """Goes on where `state` was taken. ValueError that lists what differs when this loader gives another stream."""
        saved = loader_state.from_bytes(state)
        _check_same(saved["fingerprint"], self.fingerprint())
        if self._stream.started:
            self._stream.close()
            self._stream = self._open()
        self._stream.restore(saved["energon"])
        self._reset_counts()
        for name in COUNTS:
            setattr(self, name, saved["counts"][name])

    def close(self) -> None:
        """Ends the workers."""
        self._stream.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_loader(cfg: DataConfig, split: str = "train", dp_rank: int = 0, dp_size: int = 1, seed: int = 0) -> Loader:
    """The packs of one data-parallel rank. ValueError for settings or a dataset that cannot serve."""
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}: {' or '.join(SPLITS)} is wanted")
    if not 0 <= dp_rank < dp_size:
        raise ValueError(f"data-parallel rank {dp_rank} of {dp_size}: a rank from 0 to {dp_size - 1} is wanted")
    lists = cfg.open_lists()
    readers = dp_size * max(1, cfg.workers)
    if lists.clips[split] < readers:
        raise ValueError(
            f"{lists.clips[split]} clips in split {split} of {cfg.path} (where={cfg.where!r}) are too few "
            f"for {readers} readers ({dp_size} ranks x {max(1, cfg.workers)} workers): "
            + (
                "loosen data.where"
                if not lists.clips[split]
                else "set data.workers=0, train on fewer ranks, or add clips"
            )
        )
    return Loader(cfg, lists, split, dp_rank, dp_size, seed)


def _check_same(then: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [f"{name}: {then.get(name)!r} then, {now[name]!r} now" for name in now if then.get(name) != now[name]]
    if changed:
        raise ValueError(
            f"the loader cannot go on where it was, since its stream changed ({'; '.join(changed)}). "
            "Set these back, or begin the data anew with train.reset_data=true"
        )


def read_validation(cfg: DataConfig, seed: int = 0) -> list[PackedBatch]:
    """The val split in packs that are the same at every call: one caption level (the most frequent of training), no
    dropout, noise levels and seeds by a hash of the clip. A clip that cannot be read is named in the log and left out;
    [] where the View has no val clip."""
    lists = cfg.open_lists()
    clips = read_list(lists.path("val"))
    shares = cfg.shares()
    level = max(LEVELS, key=lambda name: shares[name])
    reader, packs = ShardReader(Path(cfg.path)), []
    for group in pack_bfd([clip.row.tokens for clip in clips], cfg.budget):
        read = [_read_for_validation(reader, clips[i], seed, level) for i in group]
        present = [clip for clip in read if clip is not None]
        if present:
            packs.append(lay_end_to_end(present))
    reader.close()
    return packs


def _read_for_validation(reader: ShardReader, clip: ListedClip, seed: int, level: str) -> Any:
    drawn = draw_for(seed, clip.row.key, "validation", dict.fromkeys(LEVELS, 1.0), text_dropout=0.0)
    try:
        return read_clip(reader, clip, Draw(uniform=drawn.uniform, seed=drawn.seed, caption=level))
    except ClipError as error:
        log.warning("validation clip %s is left out: %s", clip.row.key, error)
        return None
