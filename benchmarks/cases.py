"""What is timed: sizes of models, and cases that travel between processes as JSON. Imports neither framework."""

import math
from typing import Any, NamedTuple

KINDS = ("table1", "iaf_res")
TASKS = ("train", "log_prob", "log_prob_16", "sample", "reconstruct")
# Factors on the widths of the paper; SMALL is `gin/presets/small.gin`. TINY, a test of the program, is not as deep.
FULL = 1.0
SMALL = 0.25
TINY = 0.0625
REPEATS = 8  # Operations in a call of the task "operation".
_HEAD = 35  # The width of `gin/models/flow.gin`; narrower heads are in multiples of 8, as in `gin/presets/small.gin`.


class Size(NamedTuple):
    """The widths of a model: those of `gin/models/plain.gin` or `residual.gin`, times a factor."""

    residual: bool  # Table 6's blocks with IAF posteriors; otherwise Table 1's with Gaussian ones.
    stem: int
    widths: tuple
    top: int
    latents: int
    head: int


def size(kind: str, factor: float, latents: int | None = None) -> Size:
    """The `Size` of a kind, every width times `factor` (at least 4); the first two widths alone for `TINY`."""
    residual = {"table1": False, "iaf_res": True}[kind]

    def scaled(width):
        return max(4, round(width * factor))

    widths = (32, 64, 128, 256) if residual else (64, 128, 256, 512)
    if factor == TINY:
        widths = widths[:2]
    return Size(
        residual,
        scaled(16),
        tuple(2 * scaled(width // 2) for width in widths),
        scaled(32 if residual else 128),
        latents or scaled(32),
        _HEAD if factor == 1.0 else 8 * math.ceil(_HEAD * factor / 8),
    )


def case(
    task: str, kind: str = "iaf_res", factor: float = SMALL, batch: int = 16, side: int = 32, **others: Any
) -> dict:
    """A case as a dict.

    `others`: `latents`, `scales`, `squeezed`, `replicas`, `importance_samples` or `convolutions`.
    """
    return {"task": task, "kind": kind, "factor": factor, "batch": batch, "side": side, **others}


def head_options(case: dict) -> dict:
    """Keyword arguments of the Real-NVP head of a case."""
    depth = dict(num_couplings=2, num_blocks=1) if case["factor"] == TINY else dict(num_couplings=3, num_blocks=2)
    return dict(width=size(case["kind"], case["factor"]).head, **depth)
