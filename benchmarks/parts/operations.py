"""Single operations of both libraries: what is in no model's hands."""

from benchmarks import cases
from benchmarks.options import Options
from benchmarks.process import Competitor, Pool, compare_all, ratio
from benchmarks.report import Section, milliseconds

OPERATIONS = ("convolution", "addition", "exponential", "logarithm", "tanh", "elu", "split", "normal")
NAMES = {
    "convolution": "3x3 convolution",
    "split": "split of the channels in four",
    "normal": "normal numbers",
}
_CHANNELS = 16


def run(pool: Pool, options: Options) -> Section:
    """A row for each operation and batch."""
    systems = ("ours", "eager")
    # Freed memory stays with the process after it: see "each task alone".
    train = cases.case("train", "table1", options.factors[0], options.batches[-1], options.side)
    compare_all(pool, {name: Competitor(name, train) for name in systems}, 1, 0.0)
    rows = []
    for batch in (batch for batch in options.batches if batch > 1):
        for operation in OPERATIONS:
            case = {"task": "operation", "operation": operation, "batch": batch, "side": options.side}
            case["channels"] = _CHANNELS
            results = compare_all(
                pool, {name: Competitor(name, case) for name in systems}, options.rounds, options.budget
            )
            ours = results["ours"]
            rows.append([NAMES.get(operation, operation), str(batch), milliseconds(ours.median / cases.REPEATS)])
            rows[-1].append(str(ratio(results["eager"], ours)))
            options.say(" | ".join(rows[-1]))
    text = (
        f"TensorFlow's operations beside PyTorch's on float32 tensors of batch x {options.side} x {options.side} x "
        f"{_CHANNELS}, {cases.REPEATS} of them in a call, each on a tensor of its own, in processes that have "
        "trained before. Both libraries take their convolutions from oneDNN, which writes its code for the processor "
        "that it finds; all else TensorFlow's packages have compiled for processors with AVX, and say so at the start, "
        "while PyTorch's choose among AVX2 and AVX-512."
    )
    header = ["operation", "batch", "TensorFlow", "PyTorch / TensorFlow"]
    return Section("Single operations", text, header, rows)
