"""States of torch's generators as plain JSON. Our own draws have an address and need none; dropout would."""

import base64
from collections.abc import Mapping

import torch
from torch import Tensor


def random_state() -> dict[str, str]:
    """`cpu`, and `cuda` of the current device where there is one."""
    state = {"cpu": _to_text(torch.get_rng_state())}
    if torch.cuda.is_available():
        state["cuda"] = _to_text(torch.cuda.get_rng_state())
    return state


def restore_random_state(state: Mapping[str, str]) -> None:
    """Sets the generators; a device that is not here, or was not there, is left alone."""
    torch.set_rng_state(_to_tensor(state["cpu"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_to_tensor(state["cuda"]))


def _to_text(state: Tensor) -> str:
    return base64.b64encode(bytes(state.tolist())).decode()


def _to_tensor(text: str) -> Tensor:
    return torch.tensor(list(base64.b64decode(text)), dtype=torch.uint8)
