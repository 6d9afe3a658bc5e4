"""Where the time goes: the kernels' seconds by TensorFlow's profiler, in kinds."""

import re

from benchmarks import cases
from benchmarks.options import Options
from benchmarks.process import Competitor, Pool, compare_all
from benchmarks.report import Section, milliseconds

# The first kind whose pattern is in an operation's type.
KINDS = {
    "gradients to kernels": r"Conv2DBackpropFilter",
    "gradients to inputs": r"Conv2DBackpropInput",
    "convolutions": r"Conv2D",
    "casts": r"^Cast$",
    "matrix products": r"MatMul",
    "batch norm": r"BatchNorm",
    "random numbers": r"Random",
    "split, concat, copy": r"Split|Concat|Slice|Pad|Pack|Transpose|Tile",
    "sums": r"^(Sum|Mean|AddN|L2Loss|SquaredDifference)$",
    "optimiser": r"ResourceApply|Assign",
    "other, element by element": r"",
}
_CALLS = 5


def run(pool: Pool, options: Options) -> Section:
    """A row for each of a few cases."""
    rows = []
    narrow = options.factors[0]
    full = options.factors[-1]
    one = options.batches[0]
    many = options.batches[-1]
    for task, kind, factor, batch, dtype in (
        ("train", "table1", narrow, one, "float32"),
        ("train", "table1", narrow, many, "float32"),
        ("train", "table1", narrow, many, "bfloat16"),
        ("train", "table1", full, many, "float32"),
        ("train", "table1", full, many, "bfloat16"),
        ("train", "iaf_res", full, many, "float32"),
        ("log_prob", "table1", narrow, many, "float32"),
        ("log_prob", "table1", full, many, "float32"),
        ("sample", "table1", narrow, many, "float32"),
    ):
        case = cases.case(task, kind, factor, batch, options.side, convolutions=dtype)
        seconds = compare_all(pool, {"ours": Competitor("ours", case)}, options.rounds, options.budget)["ours"].median
        kernels = pool.worker("ours").ask("profile", calls=_CALLS)["seconds"]
        total = sum(kernels.values())
        shares = dict.fromkeys(KINDS, 0.0)
        for operation, spent in kernels.items():
            shares[next(name for name, pattern in KINDS.items() if re.search(pattern, operation))] += spent
        rows.append([task, kind, f"{factor:g}", str(batch), dtype, milliseconds(seconds), milliseconds(total)])
        rows[-1] += [f"{100.0 * share / total:.0f} %" for share in shares.values()]
        options.say(" | ".join(rows[-1]))
    text = (
        f"TensorFlow's profiler over {_CALLS} calls. `kernels` is the sum over all operations, of which up to "
        f"{options.threads} run at a time, so that it is more than the time of a call. The columns behind it are "
        "shares of that sum; `convolutions` are those forward."
    )
    header = ["task", "model", "width", "batch", "convolutions in", "time", "kernels", *KINDS]
    return Section("Where the time goes", text, header, rows)
