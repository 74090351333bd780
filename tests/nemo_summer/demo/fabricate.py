"""A folder as a whole demo leaves it, made up for the tests of the report: hostile names and captions included."""

from __future__ import annotations

import io
import json
import math
import tarfile
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save

from energon_datasets.columns import write_columns
from energon_datasets.shard_schema import count_tokens
from nemo_summer.demo.footage import film, plan_videos, truth_of
from nemo_summer.demo.scenes import render
from nemo_summer.encoders.video_vae import LinearVae
from nemo_summer.mp4.write import write_mp4

HOSTILE_VIDEO = '<img src=x onerror=alert(1)> & "Größe".mp4'
HOSTILE_CAPTION = "a <script>alert('red')</script> star moves & turns"
SHAPE = (48, 5, 4, 7)
LEVELS = [(k + 0.5) / 8 for k in range(8)]


def fabricate(out: Path, steps: int = 40, seed: int = 0) -> Path:
    """The folder, with clips of real pictures: two generated clips, eight kept ones, five dropped ones."""
    (out / "footage").mkdir(parents=True)
    plan = plan_videos(seed, 24, 1)[0]
    film(plan, out / "footage" / plan.name)
    (out / "footage" / "truth.json").write_text(json.dumps({"videos": [truth_of(plan)], "broken": []}))
    clips = _clips(out / "dataset", plan)
    _dataset(out / "dataset", clips)
    _training(out / "train", steps)
    _average(out / "ema")
    _samples(out / "samples", plan)
    _state(out)
    return out


def _pixels(scene, frames: int = 17) -> np.ndarray:
    pictures = [
        cv2.resize(render(scene, i / 24, 128, 224), (112, 64), interpolation=cv2.INTER_AREA) for i in range(frames)
    ]
    return np.stack(pictures)


def _clips(folder: Path, plan) -> list[dict]:
    (folder / "thumbs").mkdir(parents=True)
    rows, start = [], 0
    rules = ["", "", "", "static", "", "duplicate", "", "short", "", "dark", "", "", ""]
    for number in range(13):
        shot = plan.shots[number % len(plan.shots)]
        frames = shot.frames if number < len(plan.shots) else 80
        key = f"clip-{number:03d}"
        rgb_THWC = _pixels(shot.scene)
        cv2.imwrite(str(folder / "thumbs" / f"{key}.jpg"), rgb_THWC[8, :, :, ::-1])
        inside = number < len(plan.shots)
        rows.append(
            {
                "clip_id": key,
                "video": plan.name if inside else HOSTILE_VIDEO,
                "start_s": start / 24, "end_s": (start + frames) / 24,
                "status": "dropped" if rules[number] else "kept",
                "dropped_by": rules[number] or None,
                "why_dropped": f"{rules[number]} <b>limit</b> 0.9 broken" if rules[number] else "",
                "duplicate_of": "clip-001" if rules[number] == "duplicate" else None,
                "motion": 3.0 + number, "static_share": 0.0, "sharpness": 80.0, "brightness": 0.5, "contrast": 0.2,
                "camera": ["still", "pan left", "zoom in"][number % 3],
                "caption_detailed": f"{HOSTILE_CAPTION}, blue ground", "caption_short": HOSTILE_CAPTION,
                "caption_words": "star, moves, outdoors", "frame_count": 17, "height": 64, "width": 112,
                "latent_shape": list(SHAPE), "split": "" if rules[number] else ("val" if number == 2 else "train"),
                "thumb": f"thumbs/{key}.jpg", "shard": "shard_000000.tar",
                "pixels": rgb_THWC,
            }
        )  # fmt: skip
        start = start + frames if number + 1 != len(plan.shots) else 0
    return rows


def _dataset(folder: Path, clips: list[dict]) -> None:
    kept = [clip for clip in clips if clip["status"] == "kept"]
    videos = {c["clip_id"]: torch.from_numpy(c.pop("pixels")).permute(3, 0, 1, 2) / 127.5 - 1 for c in clips}
    generator = torch.Generator().manual_seed(0)
    basis_EC = torch.linalg.qr(torch.randn(3072, 48, generator=generator)).Q
    codec = LinearVae(torch.zeros(3072), basis_EC, torch.ones(48))
    codec.save(folder / "codec")
    latents, mp4s = {}, {}
    for clip in kept:
        key = clip["clip_id"]
        latents[f"{key}.latent.safetensors"] = save({"latent": codec.encode(videos[key][None])[0]})
        write_mp4(folder / "one.mp4", ((videos[key].permute(1, 2, 3, 0) + 1) * 127.5).round().byte().numpy(), 24)
        mp4s[f"{key}.mp4"] = (folder / "one.mp4").read_bytes()
    (folder / "one.mp4").unlink()
    _tar(folder / "latents" / "shard_000000.tar", latents)
    _tar(folder / "video" / "shard_000000.tar", mp4s)
    write_columns(clips, folder / "clips.parquet")
    lines = [json.dumps(_index_row(clip)) for clip in kept]
    (folder / "index").mkdir()
    (folder / "index" / "clips.jsonl").write_text("\n".join(lines) + "\n")
    failures = [{"file": HOSTILE_VIDEO, "message": f"{HOSTILE_VIDEO} has no picture in it: remove it"}]
    (folder / "manifest.json").write_text(json.dumps({"clips": len(clips), "failures": failures}))
    (folder / "dataset.json").write_text(json.dumps({"format": 1, "codec": "codec", "files": {}}))


def _index_row(clip: dict) -> dict:
    caption = {level: clip[f"caption_{level}"] for level in ("detailed", "short", "words")}
    return {
        "key": clip["clip_id"], "video": clip["video"], "start_s": clip["start_s"], "end_s": clip["end_s"],
        "split": clip["split"], "fps": 24.0, "frames": 17, "latent_shape": list(SHAPE), "tokens": count_tokens(SHAPE),
        "shard": clip["shard"], "caption": caption,
    }  # fmt: skip


def _tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def _training(folder: Path, steps: int) -> None:
    folder.mkdir()
    names = [f"blocks.{i}.{part}.weight" for i in range(4) for part in ("w_in", "w_out")]
    with open(folder / "history.jsonl", "w") as file:
        for step in range(1, steps + 1):
            line = {
                "step": step, "lr": min(step, 8) * 1e-3,
                "loss": 0.9 + math.exp(-step / 9) + 0.05 * math.sin(step * 1.7),
                "grad_norm": 0.4 + 2 / step, "tokens_per_s": 9000 + 50 * math.sin(step), "seconds": 0.31, "mfu": 0.21,
            }  # fmt: skip
            if step % 10 == 0:
                line["row_norm_error"] = 1.2e-7
                line["rotation"] = {name: 0.02 * (1 + 0.2 * i) for i, name in enumerate(names)}
                line["band"] = {name: [0.01, 0.045 if i else 0.015] for i, name in enumerate(names)}
            file.write(json.dumps(line) + "\n")
    baseline = [1 / ((1 - t) ** 2 + t**2) for t in LEVELS]
    looks = []
    for step in (steps // 4, steps // 2, steps):
        losses = [
            b * (0.8 + 0.4 * math.exp(-4 * step / steps) + (0.25 if i == 7 else 0)) for i, b in enumerate(baseline)
        ]
        means = {"mean": sum(losses) / 8, "baseline_mean": sum(baseline) / 8}
        looks.append({"step": step, "levels": LEVELS, "losses": losses, "baseline": baseline, **means})
    (folder / "validation.json").write_text(json.dumps(looks))


def _average(folder: Path) -> None:
    folder.mkdir()
    table = [{"gamma": g, "sigma_rel": 0.3 / g, "loss": 1.25 + abs(g - 4) / 100} for g in (1.0, 4.0, 10.0)]
    told = {**table[1], "checkpoints": ["step_00000020", "step_00000040"], "table": table}
    (folder / "average.json").write_text(json.dumps(told))


def _samples(folder: Path, plan) -> None:
    folder.mkdir()
    for number in range(2):
        write_mp4(
            folder / f"{number}.mp4",
            cv2.GaussianBlur(_pixels(plan.shots[number].scene)[0], (0, 0), 2)[None].repeat(17, 0),
            24,
        )
    told = [{"file": f"{number}.mp4", "prompt": f"{HOSTILE_CAPTION} {number}"} for number in range(2)]
    (folder / "samples.json").write_text(json.dumps({"samples": told}))


def _state(out: Path) -> None:
    names = ("footage", "curate", "train", "ema", "convert", "sample")
    phases = {
        name: {"state": "done", "seconds": 3.5 + 20 * i, "peak_bytes": (400 + 150 * i) * 2**20}
        for i, name in enumerate(names)
    }
    state = {
        "phases": phases,
        "settings": {"seed": 0, "name": HOSTILE_CAPTION},
        "versions": {"torch": "2.13.0", "python": "3.11"},
    }
    (out / "demo.json").write_text(json.dumps(state))
