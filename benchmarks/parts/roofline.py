"""The arithmetic of a training step over its time, as a fraction of what convolutions reach on this machine."""

from benchmarks import cases
from benchmarks.options import Options
from benchmarks.process import Competitor, Pool, compare_all
from benchmarks.report import Section, worst_of

# (batch, side, channels) of convolutions such as the model has: the fastest one is the roof.
CONVOLUTIONS = ((64, 32, 64), (64, 16, 128), (64, 8, 256))


def run(pool: Pool, options: Options) -> Section:
    """One row for each model and batch; the roof is measured before each."""
    rows = []
    fractions = []
    for kind in options.kinds:
        for factor in options.factors:
            for batch in options.batches:
                roof = max(_rate(pool, options, *shape)[0] for shape in CONVOLUTIONS)
                case = cases.case("train", kind, factor, batch, options.side)
                rate, flops, seconds = _case_rate(pool, options, case)
                rows.append(
                    [
                        kind,
                        f"{factor:g}",
                        str(batch),
                        f"{flops / 1e9:.3g}",
                        f"{seconds:.3g}",
                        f"{rate / 1e9:.3g}",
                        f"{roof / 1e9:.3g}",
                        f"{100.0 * rate / roof:.0f} %",
                    ]
                )
                fractions.append((100.0 * rate / roof, f"{kind}, width {factor:g}, batch {batch}"))
                options.say(" | ".join(rows[-1]))
    text = (
        "Multiplications and additions of the convolutions and matrix products of a training step, counted from its "
        "graph, over its time; the roof is the fastest of three 3x3 convolutions (float32, "
        + ", ".join(f"{b}x{s}x{s}x{c}" for b, s, c in CONVOLUTIONS)
        + "), as many at a time as operations run, measured just before it in the same process."
    )
    header = ["model", "width", "batch", "GFLOP a step", "s a step", "GFLOP/s", "roof, GFLOP/s", "of the roof"]
    targets = worst_of("training step: at least half of the convolution rate", 50.0, fractions, unit=" %")
    return Section("Roofline", text, header, rows, targets=tuple(targets))


def _rate(pool, options, batch, side, channels):
    case = {"task": "convolution", "batch": batch if not options.quick else 2, "side": side, "channels": channels}
    return _case_rate(pool, options, case)


def _case_rate(pool, options, case):
    """FLOP/s, FLOP and median seconds of a case of ours."""
    results = compare_all(pool, {"ours": Competitor("ours", case)}, options.rounds, options.budget)
    flops = pool.worker("ours").ask("flops")["flops"]
    return flops / results["ours"].median, flops, results["ours"].median
