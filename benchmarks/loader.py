"""How fast packs come, against a plain torch DataLoader that reads the same tar files with the same packer.

    python -m benchmarks.loader [--clips 192] [--rounds 2] [--out benchmarks/results/loader.json]

The plain one has no shuffle over epochs, no save and no restore, so it is what reading itself costs. Rounds alternate,
the best of each is shown: other work on the machine can only make a round slower. CPU time is of the reading process.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from energon_datasets.batch import PackedBatch
from energon_datasets.cook import ShardReader, draw_for, read_clip
from energon_datasets.lists import read_list
from energon_datasets.loader import DataConfig, open_loader
from energon_datasets.packing import lay_end_to_end, pack_bfd
from tests.energon_datasets.tiny_dataset import write_tiny_dataset

LATENTS = {"channels": 48, "height": 11, "width": 20, "frames": (5, 21)}
"""Random clips of up to 81 frames of 176 x 320 pixels: 660 to 2,420 tokens, 0.2 to 0.9 MB each."""
BUDGET = 9680


class PlainPacks(Dataset):
    """The packs of one epoch, read when they are asked for."""

    def __init__(self, cfg: DataConfig, path: Path) -> None:
        self.cfg, self.clips, self.reader = cfg, read_list(path), ShardReader(Path(cfg.path))
        self.packs = pack_bfd([clip.row.tokens for clip in self.clips], cfg.budget)

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, index: int) -> PackedBatch:
        return lay_end_to_end([self._read(i) for i in self.packs[index]])

    def _read(self, i: int):
        draw = draw_for(0, self.clips[i].row.key, 0, self.cfg.shares(), self.cfg.text_dropout)
        return read_clip(self.reader, self.clips[i], draw)


def endless(loader: DataLoader) -> Iterator[PackedBatch]:
    while True:
        yield from loader


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/loader.json"))
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_dataset(Path(folder), arguments.clips, **LATENTS, val=0, dropped=0, shards=4, text_width=64)
        results = [compare(folder, workers, arguments.rounds) for workers in (0, 2)]
    show(results)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    machine = {"machine": platform.machine(), "torch": torch.__version__, "clips": arguments.clips}
    arguments.out.write_text(json.dumps(machine | {"budget": BUDGET, "latents": LATENTS, "results": results}, indent=1))


def compare(folder: str, workers: int, rounds: int) -> dict:
    """The best round of each loader."""
    cfg = DataConfig(path=folder, budget=BUDGET, workers=workers)
    ours, plain = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        with open_loader(cfg) as loader:
            ours.append(measure(loader, start, loader.clips))
            path = loader.lists.path("train")
        start = time.perf_counter()
        packs = DataLoader(
            PlainPacks(cfg, path), batch_size=None, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        plain.append(measure(endless(packs), start, len(packs.dataset.clips)))
    best = {"ours": max(ours, key=lambda r: r["clips_per_s"]), "plain": max(plain, key=lambda r: r["clips_per_s"])}
    ratio = best["ours"]["clips_per_s"] / best["plain"]["clips_per_s"]
    return {"workers": workers, "ratio": ratio, **best}


def measure(packs: Iterator[PackedBatch], start: float, clips: int) -> dict:
    """Rates over about two epochs after the first pack."""
    next(packs)
    first, cpu = time.perf_counter(), time.process_time()
    read = count = tokens = 0
    while read < 2 * clips:
        pack = next(packs)
        read, count, tokens = read + len(pack.clip_ids), count + 1, tokens + pack.tokens
    passed = time.perf_counter() - first
    return {
        "packs_per_s": count / passed,
        "clips_per_s": read / passed,
        "cpu_ms_per_clip": 1000 * (time.process_time() - cpu) / read,
        "first_pack_s": first - start,
        "fill_share": tokens / (count * BUDGET),
    }


def show(results: list[dict]) -> None:
    print(f"{'workers':>7}  {'loader':<6} {'packs/s':>8} {'clips/s':>8} {'CPU ms/clip':>12} {'first s':>8} {'fill':>6}")
    for result in results:
        for name in ("ours", "plain"):
            r = result[name]
            print(
                f"{result['workers']:>7}  {name:<6} {r['packs_per_s']:8.1f} {r['clips_per_s']:8.0f} "
                f"{r['cpu_ms_per_clip']:12.2f} {r['first_pack_s']:8.2f} {r['fill_share']:6.1%}"
            )
        print(f"{'':>7}  ours / plain, clips per second: {result['ratio']:.2f}")


if __name__ == "__main__":
    main()
