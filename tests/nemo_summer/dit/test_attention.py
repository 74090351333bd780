from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as fn

from nemo_summer.dit.attention import Segments, attend, backend, by_transformer_engine, by_varlen, clip_by_clip

LENGTHS = (3, 1, 17, 6)


def inputs(dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[torch.Tensor | Segments, ...]:
    generator = torch.Generator().manual_seed(0)
    ends = fn.pad(torch.tensor(LENGTHS).cumsum(0), (1, 0)).to(device, torch.int32)
    tensors = [torch.randn(sum(LENGTHS), 4, 64, generator=generator).to(device, dtype) for _ in range(3)]
    return *tensors, Segments(LENGTHS, ends)


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """One softmax over the whole sequence, with -inf between tokens of different clips."""
    clip = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS)).to(q.device)
    scores = torch.einsum("ikd,jkd->kij", q, k) / q.shape[2] ** 0.5
    scores = scores.masked_fill(clip[:, None] != clip[None, :], -torch.inf)
    return torch.einsum("kij,jkd->ikd", scores.softmax(-1), v)


def test_attention_is_a_softmax_that_sees_its_own_clip_only() -> None:
    *qkv, segments = inputs()
    assert torch.allclose(attend(*qkv, segments), dense(*qkv), atol=1e-5)


def test_a_cpu_and_float32_take_the_exact_way() -> None:
    assert backend("cpu", torch.bfloat16) == backend("cpu", torch.float32) == "clip by clip"
    assert backend("cuda", torch.float32) == "clip by clip"


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", [clip_by_clip, by_varlen, by_transformer_engine])
def test_gpu_kernels_agree_with_the_dense_softmax(kernel: Callable[..., torch.Tensor]) -> None:
    if kernel is by_transformer_engine:
        pytest.importorskip("transformer_engine")
    *qkv, segments = inputs(torch.bfloat16, "cuda")
    wanted = dense(*(x.double() for x in qkv))
    assert (kernel(*qkv, segments).double() - wanted).norm() < 0.01 * wanted.norm()
