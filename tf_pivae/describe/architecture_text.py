"""An `Architecture` for people: one at length, several as a table of Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tf_pivae.describe.architecture import Architecture

HEADER = (
    "| row | images | classes | encoder | decoder | head | critic | latent dimensions | bound, GFLOP | sample, GFLOP "
    "| step, TFLOP (batch) | memory, GB |"
)


def describe(architecture: Architecture, title: str) -> str:
    """Every block, the latents, and what a training step costs, as text."""
    a = architecture
    classes = f"{a.data.num_classes} classes" if a.conditional else "unconditional"
    rows = [("part", "block", "output", "weights", "MFLOP/image")]
    rows += [(b.part, b.name, _shape(b.shape), f"{b.parameters:,}", f"{b.flops / 1e6:.1f}") for b in a.blocks]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [f"{title}: {_shape(a.data.image_shape)} images of {a.data.name}, {classes}", ""]
    for part, block, shape, *numbers in rows:
        left = f"{part:<{widths[0]}}  {block:<{widths[1]}}  {shape:<{widths[2]}}"
        lines.append("  ".join([left, *(f"{n:>{w}}" for n, w in zip(numbers, widths[3:], strict=True))]))
    width = max(len(name) for name in a.latents)
    lines += ["", f"latents  {_latent_dimensions(a):,} dimensions"]
    lines += [f"  {name:<{width}}  {_shape(shape)}" for name, shape in a.latents.items()]
    p = a.parameters
    lines += [
        "",
        f"weights  VAE {p.vae:,} (inference {p.inference:,}, generative {p.generative:,}), "
        f"head {p.head:,} ({100 * p.head / p.vae:.2f} % of the VAE), critic {p.critic:,}",
        f"compute  bound {a.bound_flops / 1e9:.2f}, sample {a.sample_flops / 1e9:.2f} GFLOP/image; training step of "
        f"batch {a.batch_size}: {a.step_flops / 1e12:.3f} TFLOP (convolutions and matrix products, a multiplication "
        "and an addition are two)",
        f"memory   about {a.all_bytes / 1e9:.2f} GB: {_memory(a)} (on one device)",
    ]
    return "\n".join(lines)


def table_row(architecture: Architecture, name: str) -> str:
    """The line of one row of `HEADER`'s table."""
    a = architecture
    p = architecture.parameters
    cells = [
        name,
        _shape(a.data.image_shape),
        str(a.data.num_classes) if a.conditional else "-",
        *(f"{count:,}" for count in (p.inference, p.generative, p.head, p.critic)),
        f"{_latent_dimensions(a):,}",
        f"{a.bound_flops / 1e9:.2f}",
        f"{a.sample_flops / 1e9:.2f}",
        f"{a.step_flops / 1e12:.2f} ({a.batch_size})",
        f"{(a.state_bytes + a.step_bytes) / 1e9:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def table(lines: Sequence[str]) -> str:
    """The table of lines that `table_row` made."""
    return "\n".join([HEADER, "|" + "---|" * (HEADER.count("|") - 1), *lines])


def _memory(architecture):
    a = architecture
    parts = [
        f"{a.state_bytes / 1e9:.2f} GB of weights, optimizer moments and averages",
        f"{a.step_bytes / 1e9:.2f} GB of tensors alive at once in a training step",
        f"{a.workspace_bytes / 1e9:.2f} GB of the convolutions' own",
    ]
    if a.program_bytes is None:
        return f"{', '.join(parts)}; TensorFlow itself comes on top"
    return f"{', '.join(parts)}, {a.program_bytes / 1e9:.2f} GB of TensorFlow and the graphs that it runs"


def _shape(shape):
    return "x".join(map(str, shape))


def _latent_dimensions(architecture):
    return sum(math.prod(shape) for shape in architecture.latents.values())
