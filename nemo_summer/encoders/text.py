"""Captions to vectors: the embedded encoder, which needs no weights, and T5.

L caption tokens of one caption, D numbers per token. Each caption comes back at its true length, never padded.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WORDS = re.compile(r"\w{1,64}|[^\w\s]")
"""A word (a longer one in pieces: what is remembered must stay small), or one sign: an emoji or a NUL is a token."""
BEGIN = "<begin>"
"""Cannot come out of WORDS, so no caption can fake it."""
POSITION_SHARE = 0.1
"""Length of the position signal beside the word's 1."""
LETTERS_PER_TOKEN = 64
"""A caption is cut to so many letters per allowed token before T5's tokenizer reads it: 1 MB would take seconds."""
BATCH = 32


class TextKind(Enum):
    embedded = "embedded"
    t5 = "t5"


@dataclass(kw_only=True)
class TextConfig:
    """Which text encoder makes the caption vectors."""

    kind: TextKind = TextKind.embedded
    """embedded: words hashed to fixed random vectors, no weights. t5: a T5, mT5 or umT5 encoder of transformers."""
    path: str = ""
    """t5: folder or hub id of the encoder and its tokenizer, or of a pipeline that contains both."""
    width: int = 64
    """Numbers per caption token (D); with t5 the width of the checkpoint: 4096 for umT5-XXL."""
    max_tokens: int = 64
    """Longer captions are cut."""

    def __post_init__(self) -> None:
        if self.width < 2 or self.max_tokens < 1:
            raise ValueError(f"text.width={self.width} must be 2 or more, text.max_tokens={self.max_tokens} 1 or more")

    def build(self, device: torch.device | str = "cpu") -> TextEncoder:
        """The encoder, ready to use. ValueError when its weights cannot be read or have another width."""
        if self.kind is TextKind.embedded:
            return HashedWords(self.width, self.max_tokens)
        if not self.path:
            raise ValueError("the T5 encoder needs its weights: set text.path=FOLDER or text.kind=embedded")
        encoder = T5Text(self.path, self.max_tokens, device)
        if encoder.width != self.width:
            raise ValueError(
                f"the text encoder at text.path={self.path} gives {encoder.width} numbers per token, text.width says "
                f"{self.width}: set text.width={encoder.width}"
            )
        return encoder


class TextEncoder(ABC):
    """A frozen text encoder."""

    width: int

    @abstractmethod
    def encode(self, captions: list[str]) -> list[Tensor]:
        """One [L, D] per caption, float32 on the CPU, 1 <= L <= max_tokens, also for an empty caption."""


class HashedWords(TextEncoder):
    """One fixed random unit vector per lower-cased word, the same on every machine, plus a weak sign of its place."""

    def __init__(self, width: int, max_tokens: int):
        self.width, self.max_tokens = width, max_tokens
        self.place_LD = POSITION_SHARE * waves(max_tokens, width)

    def encode(self, captions: list[str]) -> list[Tensor]:
        return [self._encode_one(caption) for caption in captions]

    def _encode_one(self, caption: str) -> Tensor:
        found = (match.group() for match in WORDS.finditer(caption.lower()))
        words = [BEGIN, *islice(found, self.max_tokens - 1)]
        return torch.stack([word_vector(word, self.width) for word in words]) + self.place_LD[: len(words)]


@lru_cache(maxsize=50_000)
def word_vector(word: str, width: int) -> Tensor:
    """A unit vector [D] drawn from the hash of the word."""
    digest = hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.nn.functional.normalize(torch.randn(width, generator=generator), dim=0)


def waves(length: int, width: int) -> Tensor:
    """Sines and cosines of the place, [L, D], each row of unit norm (Vaswani et al. 2017, sec. 3.5)."""
    place = torch.arange(length, dtype=torch.float64)[:, None]
    angle = place * 10_000.0 ** (-2 * torch.arange((width + 1) // 2, dtype=torch.float64) / width)
    both = torch.stack([angle.sin(), angle.cos()], -1).reshape(length, -1)[:, :width]
    return torch.nn.functional.normalize(both, dim=1).float()


class T5Text(TextEncoder):
    """The last hidden states of a T5, mT5 or umT5 encoder."""

    def __init__(self, path: str, max_tokens: int, device: torch.device | str = "cpu"):
        self.max_tokens, self.device = max_tokens, torch.device(device)
        self.tokenizer, self.model = _read_t5(path)
        self.model.requires_grad_(False).eval().to(self.device)
        self.width = int(self.model.config.d_model)

    @torch.no_grad()
    def encode(self, captions: list[str]) -> list[Tensor]:
        batches = [captions[k : k + BATCH] for k in range(0, len(captions), BATCH)]
        return [hidden_LD for batch in batches for hidden_LD in self._encode_batch(batch)]

    def _encode_batch(self, captions: list[str]) -> list[Tensor]:
        ids = [self._ids(caption) for caption in captions]
        lengths = [len(row) for row in ids]
        ids_NL = torch.full((len(ids), max(lengths)), self.model.config.pad_token_id or 0)
        mask_NL = torch.zeros_like(ids_NL)
        for k, row in enumerate(ids):
            ids_NL[k, : len(row)] = torch.tensor(row)
            mask_NL[k, : len(row)] = 1
        out = self.model(input_ids=ids_NL.to(self.device), attention_mask=mask_NL.to(self.device))
        hidden_NLD = out.last_hidden_state.float().cpu()
        return [hidden_NLD[k, :length].clone() for k, length in enumerate(lengths)]

    def _ids(self, caption: str) -> list[int]:
        """Token ids, the end token included; at least one."""
        text = " ".join(caption[: self.max_tokens * LETTERS_PER_TOKEN * 4].split())
        text = text[: self.max_tokens * LETTERS_PER_TOKEN].encode(errors="replace").decode()
        ids = self.tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        return ids or [self.model.config.eos_token_id or 0]


def _read_t5(path: str) -> tuple[Any, Any]:
    """Tokenizer and encoder from a folder or the hub; of a pipeline its folders `tokenizer` and `text_encoder`."""
    from transformers import AutoConfig, AutoTokenizer, MT5EncoderModel, T5EncoderModel, UMT5EncoderModel

    kinds = {"t5": T5EncoderModel, "mt5": MT5EncoderModel, "umt5": UMT5EncoderModel}
    local = Path(path)
    pipeline = (local / "text_encoder").is_dir()
    model_at, words_at = (str(local / "text_encoder"), str(local / "tokenizer")) if pipeline else (path, path)
    options: dict[str, Any] = {"local_files_only": local.exists(), "trust_remote_code": False}
    try:
        kind = AutoConfig.from_pretrained(model_at, **options).model_type
        if kind not in kinds:
            raise ValueError(f"it is a {kind!r} model, known are {', '.join(kinds)}")
        options["use_safetensors"] = True  # a pickle from outside is never read
        model = kinds[kind].from_pretrained(model_at, dtype=torch.float32, **options)
        del options["use_safetensors"]
        return AutoTokenizer.from_pretrained(words_at, **options), model
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"no T5 text encoder could be read from text.path={path}: {reason}") from error
