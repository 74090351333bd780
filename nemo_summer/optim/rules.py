"""Which parameter gets which rule: on the sphere or not, how fast it learns, how it starts. By name and shape alone."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from nemo_summer.optim.config import OptimConfig


class Init(Enum):
    """How a parameter starts."""

    UNIT_ROWS = "unit rows"
    """N(0, 1), then each row divided by its length."""
    ZERO = "zero"
    HALF = "half"
    """0.5: both weights of the value residual."""
    ONE = "one"
    """Gains of norms."""


@dataclass(frozen=True, slots=True)
class Rule:
    sphere: bool
    """Rows keep length 1."""
    lr_mult: float
    """Factor on the learning rate of the run."""
    init: Init


TIME_MLP = re.compile(r"(time_mlp|blocks\.\d+\.modulation|final_modulation)\.(0|2)\.(weight|bias)")
MATRIX = re.compile(r"(patch_proj|text_proj|final_proj|blocks\.(?P<block>\d+)\.(w_in|w_out))\.weight")
BIAS = re.compile(r"(patch_proj|text_proj|final_proj|blocks\.\d+\.(w_in|w_out))\.bias")
NORM = re.compile(r"(.*\.)?(q|k|qk|final)?_?norm\.(weight|bias)")
VALUE_MIX = re.compile(r"blocks\.\d+\.value_mix")
FREE_MATRIX = re.compile(r"(final_proj|blocks\.\d+\.modulation\.2|final_modulation\.2)\.weight")
"""The matrices that start at zero and so have no direction to keep (Summer-22B sec. 4.3)."""


def rules_for(shapes: Mapping[str, Sequence[int]], cfg: OptimConfig) -> dict[str, Rule]:
    """A rule for each parameter; `shapes` are those of the whole, unsplit parameters.

    muP (DESIGN sec. 4; Yang et al. 2022): matrices `base_width / d_in`, those of the blocks between the first and the
    last times `middle_mult`; biases, norms and scalars `vector_mult`; the time and modulation MLPs `time_mult`, their
    biases too. ValueError for a name or shape that no rule covers.
    """
    last = max((int(m["block"]) for name in shapes if (m := MATRIX.fullmatch(name)) and m["block"]), default=0)
    return {name: _rule(name, tuple(shape), cfg, last) for name, shape in shapes.items()}


def _rule(name: str, shape: tuple[int, ...], cfg: OptimConfig, last: int) -> Rule:
    dims = 2 if name.endswith(".weight") and not NORM.fullmatch(name) else 1
    if len(shape) != dims:
        raise ValueError(f"parameter {name} has shape {shape}, a rule of optim/rules.py wants {dims} dimension(s)")
    sphere = dims == 2 and not FREE_MATRIX.fullmatch(name)
    init = Init.UNIT_ROWS if sphere else Init.ZERO
    if TIME_MLP.fullmatch(name):
        return Rule(sphere, cfg.time_mult, init)
    if matrix := MATRIX.fullmatch(name):
        middle = matrix["block"] is not None and 0 < int(matrix["block"]) < last
        return Rule(sphere, cfg.base_width / shape[1] * (cfg.middle_mult if middle else 1.0), init)
    if VALUE_MIX.fullmatch(name):
        return Rule(False, cfg.vector_mult, Init.HALF)
    if NORM.fullmatch(name):
        return Rule(False, cfg.vector_mult, Init.ONE if name.endswith("weight") else Init.ZERO)
    if BIAS.fullmatch(name):
        return Rule(False, cfg.vector_mult, Init.ZERO)
    raise ValueError(f"parameter {name} of shape {shape} has no rule: give it one in nemo_summer/optim/rules.py")


def describe(rules: Mapping[str, Rule], shapes: Mapping[str, Sequence[int]], lr: float) -> str:
    """A table for people: a line for each set of like parameters, with their number, rule and learning rate."""
    rows: dict[tuple[str, tuple[int, ...], Rule], list[str]] = {}
    for name, rule in rules.items():
        rows.setdefault((re.sub(r"^blocks\.\d+", "blocks.*", name), tuple(shapes[name]), rule), []).append(name)
    table = [("parameters", "shape", "rows", "starts", "learning rate")]
    for (family, shape, rule), names in rows.items():
        family = names[0] if len(names) == 1 else f"{family} ({len(names)}: {_blocks(names)})"
        rate = f"{lr * rule.lr_mult:.3g} = {lr:g} x {rule.lr_mult:.3g}"
        size = "x".join(map(str, shape))
        table.append((family, size, "unit length" if rule.sphere else "free", rule.init.value, rate))
    widths = [max(map(len, column)) for column in zip(*table)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in table)


def _blocks(names: Sequence[str]) -> str:
    """`1-4` or `0, 5`: the blocks that the names belong to."""
    blocks = sorted(int(name.split(".")[1]) for name in names)
    if blocks == list(range(blocks[0], blocks[-1] + 1)):
        return f"{blocks[0]}-{blocks[-1]}"
    return ", ".join(map(str, blocks))
