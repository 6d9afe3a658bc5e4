"""The whole model beside its twin: training step, log_prob, sample, reconstruct."""

from benchmarks import cases
from benchmarks.process import Competitor, compare, ratio
from benchmarks.report import Section, against, failures, milliseconds, worst_of

NAMES = {
    "train": "training step",
    "log_prob": "log_prob, K = 1",
    "log_prob_16": "log_prob, K = 16",
    "sample": "sample",
    "reconstruct": "reconstruct",
}


def run(pool, options):
    """A table of cases; systems start anew for every model and batch size."""
    rows, notes, measured = [], [], []
    for kind in options.kinds:
        for factor in options.factors:
            for batch in options.batches:
                if not options.quick:
                    pool.close()
                for task in options.tasks:
                    case = cases.case(task, kind, factor, batch, options.side)
                    systems = ("ours", *options.peers_at(factor, batch))
                    competitors = {system: Competitor(system, case) for system in systems}
                    results = compare(pool, competitors, options.rounds, options.budget)
                    rows.append(_row(case, results, options.peers))
                    notes += failures(results)
                    measured.append((case, {name: r for name, r in results.items() if not isinstance(r, str)}))
                    options.say(" | ".join(rows[-1]))
    header = ["model", "width", "batch", "task", "ours", "images/s"]
    header += [f"{peer} / ours" for peer in options.peers]
    header += ["peak memory (libraries), MB: ours, " + ", ".join(options.peers)]
    header += ["s to first result: ours, " + ", ".join(options.peers)]
    text = (
        "The PyTorch twin of the same model (`benchmarks/twin`, equal to ours to 1e-4 in values and gradients: "
        "`tests/benchmarks`), eager and through `torch.compile`. `table1` is Table 1's CQFG, `iaf_res` the one with "
        "IAF and residual blocks; width 1 is the paper's, 0.25 that of the preset for two cores. Under `torch.compile` "
        "the gradient penalty stays eager: compiled functions have no second derivative; compiling takes a minute a "
        f"case, and is done at width {min(options.factors):g} and batch "
        f"{', '.join(map(str, options.compile_batches))} alone. Peak memory is the highest resident size "
        "of the process while it builds the case and runs it; in parentheses what it held before its first case, the "
        "libraries. Seconds to the first result count from the start of the process, imports included, for the first "
        "task of a process, and from the call for the others."
    )
    return Section("The model beside PyTorch", text, header, rows, tuple(dict.fromkeys(notes)), _targets(measured))


def _targets(measured):
    """`Target`s from pairs of a case and its timings."""

    def ratios(tasks, peers):
        return [
            (ratio(results[peer], results["ours"]).median, _where(case, peer))
            for case, results in measured
            for peer in peers
            if case["task"] in tasks and {peer, "ours"} <= set(results)
        ]

    def memory(of):
        return [
            (of(results["ours"]) / of(results["eager"]), _where(case, "eager"))
            for case, results in measured
            if case["task"] == "train" and {"eager", "ours"} <= set(results) and results["ours"].peak_bytes
        ]

    peak = memory(lambda timing: timing.peak_bytes)
    beyond = memory(lambda timing: timing.peak_bytes - timing.libraries_bytes)
    return (
        *worst_of("training step: peer / ours at least 1", 1.0, ratios(["train"], ["eager", "compile"])),
        *worst_of("training step: eager PyTorch / ours at least 1.2", 1.2, ratios(["train"], ["eager"])),
        *worst_of("log_prob: eager PyTorch / ours at least 1.5", 1.5, ratios(["log_prob", "log_prob_16"], ["eager"])),
        *worst_of("sample: eager PyTorch / ours at least 1.5", 1.5, ratios(["sample"], ["eager"])),
        *worst_of("peak memory of a training step: ours / eager PyTorch at most 1", 1.0, peak, at_least=False),
        *worst_of("the same without what the libraries take: at most 1", 1.0, beyond, at_least=False),
    )


def _where(case, peer):
    return f"{case['kind']}, width {case['factor']:g}, batch {case['batch']}, {NAMES[case['task']]}, {peer}"


def _row(case, results, peers):
    everyone = [results.get(name, "not measured") for name in ("ours", *peers)]

    def cells(show):
        return ", ".join("-" if isinstance(r, str) else show(r) for r in everyone)

    ours = everyone[0]
    failed = isinstance(ours, str)
    return [
        case["kind"],
        f"{case['factor']:g}",
        str(case["batch"]),
        NAMES[case["task"]],
        "failed" if failed else milliseconds(ours.median),
        "-" if failed else f"{case['batch'] / ours.median:.3g}",
        *against(results, "ours", peers),
        cells(lambda r: "?" if r.peak_bytes is None else f"{r.peak_bytes / 1e6:.0f} ({r.libraries_bytes / 1e6:.0f})"),
        cells(lambda r: f"{r.first if r.since_start is None else r.since_start:.1f}"),
    ]
