"""The place of a loader in its stream, as bytes: JSON with a short list of classes, never pickle."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

MAGIC = b"summer loader 1\n"
ARRAYS = {"uint8", "uint32", "uint64", "int64", "float64"}
LARGEST = 1 << 30
"""Bytes of a state after unpacking; a file that claims more is refused."""


@cache
def classes() -> dict[str, type]:
    """What a state may be made of, besides plain values. Imported late: Energon takes a second."""
    from megatron.energon.flavors.webdataset.sample_loader import SliceState
    from megatron.energon.rng import SystemRngState
    from megatron.energon.savable_loader import SavableDataLoaderState, SavableDatasetCheckpoint, SavableDatasetState
    from megatron.energon.state import FlexState

    dataclasses = (SavableDataLoaderState, SavableDatasetCheckpoint, SavableDatasetState, SystemRngState, SliceState)
    return {cls.__name__: cls for cls in (*dataclasses, FlexState)}


def to_bytes(state: dict[str, Any]) -> bytes:
    """`state` may hold JSON's types, tuples, bytes, tensors, arrays and Energon's state classes."""
    return MAGIC + zlib.compress(json.dumps(_plain(state)).encode(), 1)


def from_bytes(data: bytes) -> dict[str, Any]:
    """The state again. ValueError for anything that `to_bytes` did not write."""
    if not data.startswith(MAGIC):
        raise ValueError("this is no state of a loader, or one of another version")
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(data[len(MAGIC) :], LARGEST)
        if not unpacker.eof:
            raise ValueError("it is cut off, or too large")
        state = _rich(json.loads(text))
    except (ValueError, TypeError, KeyError, zlib.error, RecursionError) as error:
        raise ValueError(f"the loader's state is damaged: {error}") from None
    if not isinstance(state, dict):
        raise ValueError("the loader's state is damaged: it holds no fields")
    return state


def _plain(value: Any) -> Any:
    """JSON's types; every other kind as an object of one key, its name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_plain(item) for item in value]}
    if isinstance(value, dict):  # Energon's FlexState is a dict by another name
        kind = type(value).__name__
        if kind != "dict" and kind not in classes():
            raise TypeError(f"a loader's state cannot hold {kind}")
        return {kind: {str(name): _plain(item) for name, item in value.items()}}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, torch.Tensor):
        return {"tensor": _plain_array(value.numpy())}
    if isinstance(value, np.ndarray):
        return {"array": _plain_array(value)}
    if is_dataclass(value) and type(value).__name__ in classes():
        return {type(value).__name__: {f.name: _plain(getattr(value, f.name)) for f in fields(value)}}
    raise TypeError(f"a loader's state cannot hold {type(value).__name__}")


def _plain_array(value: np.ndarray) -> list[Any]:
    return [str(value.dtype), list(value.shape), base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()]


def _rich(value: Any) -> Any:
    if isinstance(value, list):
        return [_rich(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tuple":
        return tuple(_rich(item) for item in inner)
    if kind == "dict":
        return {name: _rich(item) for name, item in inner.items()}
    if kind == "bytes":
        return base64.b64decode(inner)
    if kind == "tensor":
        return torch.from_numpy(_rich_array(inner))
    if kind == "array":
        return _rich_array(inner)
    return classes()[kind](**{name: _rich(item) for name, item in inner.items()})


def _rich_array(value: list[Any]) -> np.ndarray:
    dtype, shape, data = value
    if dtype not in ARRAYS:
        raise ValueError(f"an array of {dtype}")
    return np.frombuffer(base64.b64decode(data), dtype=dtype).reshape(shape).copy()
