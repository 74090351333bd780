"""What is written to an mp4 is what a decoder reads back."""

import errno
import os
import resource

import av
import numpy as np
import pytest

from nemo_summer.mp4.write import CannotWrite, write_mp4


def drifting_colours(frames: int = 13, rows: int = 48, columns: int = 64) -> np.ndarray:
    t, y, x = np.meshgrid(np.arange(frames), np.arange(rows), np.arange(columns), indexing="ij")
    waves = [np.sin(0.10 * x + 0.2 * t), np.cos(0.08 * y), np.sin(0.05 * (x + y) - 0.1 * t)]
    return np.rint(127.5 + 100 * np.stack(waves, -1)).astype(np.uint8)


def read_back(path) -> tuple[np.ndarray, float]:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.stack(frames), float(container.streams.video[0].average_rate)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.square(a.astype(float) - b).mean())


def test_every_frame_comes_back_with_its_rate_and_looks_the_same(tmp_path):
    rgb = drifting_colours()
    write_mp4(tmp_path / "a.mp4", rgb, 24)
    back, fps = read_back(tmp_path / "a.mp4")
    assert back.shape == rgb.shape and fps == 24
    assert psnr(rgb, back) > 35


def test_colours_keep_their_place(tmp_path):
    # 8 bits round by up to 4; a wrong colour matrix or range moves pure colours by 10 and more
    patches = np.zeros((5, 32, 96, 3), np.uint8)
    for k, colour in enumerate([(200, 30, 30), (30, 200, 30), (30, 30, 200)]):
        patches[:, :, 32 * k : 32 * k + 32] = colour
    write_mp4(tmp_path / "a.mp4", patches, 24, crf=1)
    back, _ = read_back(tmp_path / "a.mp4")
    for k in range(3):
        middle = (slice(None), slice(8, 24), slice(32 * k + 8, 32 * k + 24))
        assert np.abs(back[middle].astype(int).mean((0, 1, 2)) - patches[middle].mean((0, 1, 2))).max() < 5


def test_a_lower_crf_is_closer_to_the_original(tmp_path):
    rgb = drifting_colours()
    found = []
    for crf in (5, 40):
        write_mp4(tmp_path / f"{crf}.mp4", rgb, 24, crf=crf)
        found.append(psnr(rgb, read_back(tmp_path / f"{crf}.mp4")[0]))
    assert found[0] > found[1] + 3


def test_one_picture_and_a_broken_rate_work(tmp_path):
    write_mp4(tmp_path / "a.mp4", drifting_colours(1), 24000 / 1001)
    back, fps = read_back(tmp_path / "a.mp4")
    assert len(back) == 1 and fps == pytest.approx(23.976, abs=1e-3)


def test_a_file_of_that_name_is_replaced_and_nothing_else_is_left(tmp_path):
    target = tmp_path / "wären & 'so'.mp4"
    for frames in (3, 6):
        write_mp4(target, drifting_colours(frames), 24)
    assert len(read_back(target)[0]) == 6
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_told_in_one_line_and_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.mp4"
    target.write_bytes(b"old")
    noise = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # the system refuses more bytes, as a full disk does
    try:
        with pytest.raises(CannotWrite, match="could not be written") as caught:
            write_mp4(target, noise, 24)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.strerror(errno.EFBIG) in str(caught.value) and "\n" not in str(caught.value)
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_a_missing_folder_is_told_with_the_path(tmp_path):
    with pytest.raises(CannotWrite, match=r"nowhere/a\.mp4"):
        write_mp4(tmp_path / "nowhere" / "a.mp4", drifting_colours(1), 24)


BAD = {
    "odd rows": (np.zeros((2, 31, 32, 3), np.uint8), 24),
    "no frame": (np.zeros((0, 32, 32, 3), np.uint8), 24),
    "floats": (np.zeros((2, 32, 32, 3), np.float32), 24),
    "no rate": (np.zeros((2, 32, 32, 3), np.uint8), 0),
}


@pytest.mark.parametrize("name", BAD)
def test_pictures_that_no_mp4_holds_are_refused_before_a_file_is_made(tmp_path, name):
    with pytest.raises(CannotWrite):
        write_mp4(tmp_path / "a.mp4", *BAD[name])
    assert not list(tmp_path.iterdir())
