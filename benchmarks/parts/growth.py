"""How the cost grows: one factor is varied at a time."""

import math

from benchmarks import cases
from benchmarks.options import Options
from benchmarks.process import Competitor, Pool, compare_all, ratio
from benchmarks.report import Section, milliseconds

# A factor -> the values of it; the arithmetic says where growth is expected to be worse than linear.
VARIED: dict[str, tuple[str, list]] = {
    "batch": ("train", [8, 16, 32, 64]),
    "side": ("train", [32, 64, 96]),
    "factor": ("train", [0.125, 0.25, 0.5, 1.0]),
    "scales": ("train", [1, 2, 3]),
    "latents": ("train", [4, 8, 16, 32]),
    "importance_samples": ("log_prob", [1, 4, 16, 64]),
}
_QUICK = ("batch", "importance_samples")
NAMES = {
    "side": "resolution (pixels)",
    "factor": "width",
    "scales": "scales of the head",
    "importance_samples": "importance samples K of log_prob",
}


def run(pool: Pool, options: Options) -> Section:
    """All values of a factor in turns: the time, that relative to the first value's, and the arithmetic."""
    rows = []
    for factor, (task, values) in VARIED.items():
        if options.quick:
            if factor not in _QUICK:
                continue
            values = values[:2]
        else:
            pool.close()  # Every value in a process that has done nothing else.
        measured = _measure(pool, options, task, factor, values)
        first, first_work = measured[0]
        for value, (timing, work) in zip(values, measured, strict=True):
            # An image's size is its number of pixels.
            size = (value / values[0]) ** (2 if factor == "side" else 1)
            growth = ratio(timing, first)
            row = [NAMES.get(factor, factor), f"{value:g}", milliseconds(timing.median), f"{size:.3g}", str(growth)]
            row.append(f"{math.log(growth.median) / math.log(size):.2f}" if size > 1 else "-")
            row.append(f"{work / first_work:.2f}" if work else "-")
            rows.append(row)
            options.say(" | ".join(row))
    text = (
        "The small `iaf_res` model (width 0.25) at batch 16 and 32x32, with one thing varied at a time; a training "
        "step unless stated otherwise. The values of one thing take turns. The exponent e of time ~ size^e is taken "
        "from the first value to this one: 1 is linear. `work` is the growth of the arithmetic counted from the step's "
        "graph. Where time grows faster than size but no faster than work, the model itself asks for it: arithmetic is "
        "quadratic in the width, since every convolution has that many inputs and outputs, and every scale of the head "
        "adds couplings that are twice as many, on channels and on checkerboards."
    )
    header = ["varied", "value", "time", "size", "time / first value's", "exponent", "work"]
    return Section("Growth", text, header, rows)


def _measure(pool, options, task, factor, values):
    """A `Timing` and the arithmetic of a step (None: not counted) for each value."""
    base = {"batch": 16, "side": 32, "factor": cases.SMALL}
    if options.quick:
        base |= {"batch": 2, "side": 16, "factor": cases.TINY}
    competitors = {
        value: Competitor("ours", cases.case(task, **(base | {factor: value})), copy=i)
        for i, value in enumerate(values)
    }
    timings = compare_all(pool, competitors, options.rounds, options.budget)
    counted = task == "train"
    return [
        (timings[value], pool.worker("ours", copy=i).ask("flops")["flops"] if counted else None)
        for i, value in enumerate(values)
    ]
