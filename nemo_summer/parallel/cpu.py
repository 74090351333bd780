"""What megatron-core needs in order to run on `gloo` ranks without a GPU.

megatron-core (0.16.1 to 0.19.2) asks torch for the current CUDA device, seeds the CUDA generator and writes
`device="cuda"` into a few calls. `install()` answers those names for the CPU; each is listed with the place that asks.
On a machine with a GPU it changes nothing. One infidelity stays: the "CUDA" generator and the CPU generator are one.
This can go once megatron-core runs on a torch without CUDA by itself.
"""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

CPU = torch.device("cpu")

NAMES: dict[str, str] = {
    "torch.cuda.current_device": "device of parameter, gradient, exchange and gather buffers",
    "torch.cuda.current_stream": "gradient reduction of 0.19 waits on it for CUDA graphs, of which there are none",
    "torch.cuda.synchronize": "pipeline exchange, checkpoint writers",
    "torch.cuda.manual_seed": "generators of the tensor-parallel ranks",
    "torch.cuda.manual_seed_all": "torch.manual_seed calls it",
    "torch.cuda.get_rng_state": "generators of the tensor-parallel ranks",
    "torch.cuda.random.get_rng_state": "the same, under its other name",
    "torch.Tensor.cuda": "gathering of optimizer states, checkpoint exchange",
    "torch.Tensor.type": "the optimizers compare type names such as torch.cuda.FloatTensor",
    "torch.tensor": 'device="cuda" written out: optimizer, clipping, schedules, checkpoint exchange',
    "torch.zeros": "the same",
    "torch.empty_like": "the same",
    "megatron.core.tensor_parallel.random._set_cuda_rng_state": "switching between generators",
}
"""Every name that `install` replaces, and who asks for it."""

NOISE = (
    "full scope is deprecated",
    "`torch.distributed.*` is deprecated",
    "The .grad attribute of a Tensor that is not a leaf",
)
"""Warnings about megatron's own calls, which its users cannot change."""

_UNDO: list[tuple[Any, str, Any]] = []
_ABSENT = object()


def install() -> bool:
    """Makes megatron-core usable where there is no GPU; True where it did (or had done) so.

    Call it before the first megatron import, so that megatron's notes about missing GPU packages stay quiet.
    """
    if torch.cuda.is_available():
        return False
    if _UNDO:
        return True
    # `@jit_fuser` is torch.compile: minutes of compiler for nothing on a CPU.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    seed = lambda value: torch.default_generator.manual_seed(int(value)) and None  # noqa: E731
    state = lambda device="cuda": torch.get_rng_state()  # noqa: E731
    _replace(torch.cuda, "current_device", lambda: CPU)
    _replace(torch.cuda, "current_stream", lambda device=None: _NoStream())
    _replace(torch.cuda, "synchronize", lambda device=None: None)
    _replace(torch.cuda, "manual_seed", seed)
    _replace(torch.cuda, "manual_seed_all", seed)
    _replace(torch.cuda, "get_rng_state", state)
    _replace(torch.cuda.random, "get_rng_state", state)
    _replace(torch.Tensor, "cuda", lambda self, *args, **kwargs: self)
    _replace(torch.Tensor, "type", _type_with_cuda_names(torch.Tensor.type))
    for name in ("tensor", "zeros", "empty_like"):
        _replace(torch, name, _on_cpu(getattr(torch, name)))
    with quiet_import():
        import megatron.core.tensor_parallel.random as megatron_random
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    _replace(megatron_random, "_set_cuda_rng_state", lambda state, *args, **kwargs: torch.set_rng_state(state))
    return True


def uninstall() -> None:
    """Puts the original names back (for tests)."""
    while _UNDO:
        owner, name, old = _UNDO.pop()
        if old is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, old)


@contextmanager
def quiet_import() -> Iterator[None]:
    """Imports inside do not warn about packages that only a GPU needs (Transformer Engine, Apex)."""
    level = logging.getLogger("megatron").level
    logging.getLogger("megatron").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # All modules that warn when they are imported, so that none does so later.
            import megatron.core.dist_checkpointing
            import megatron.core.distributed
            import megatron.core.models.backends
            import megatron.core.optimizer
            import megatron.core.transformer  # noqa: F401

            yield
    finally:
        logging.getLogger("megatron").setLevel(level)


def _replace(owner: Any, name: str, new: Callable[..., Any]) -> None:
    _UNDO.append((owner, name, vars(owner).get(name, _ABSENT)))
    setattr(owner, name, new)


class _NoStream:
    """Stands for a CUDA stream: on a CPU everything has happened by the time that it is waited for."""

    def wait_event(self, event: Any) -> None: ...

    def wait_stream(self, stream: Any) -> None: ...


def _means_cuda(device: Any) -> bool:
    """Whether a `device=` argument names a GPU: "cuda", "cuda:0", torch.device("cuda") or a bare index."""
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return (isinstance(device, str) and device.startswith("cuda")) or isinstance(device, int)


def _on_cpu(make: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(make)
    def inner(*args: Any, **kwargs: Any) -> Any:
        if _means_cuda(kwargs.get("device")):
            kwargs["device"] = CPU
        return make(*args, **kwargs)

    return inner


def _type_with_cuda_names(original: Callable[..., Any]) -> Callable[..., Any]:
    def inner(self: torch.Tensor, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        if dtype is None:
            return original(self).replace("torch.", "torch.cuda.", 1)
        return original(self, dtype, *args, **kwargs)

    return inner
