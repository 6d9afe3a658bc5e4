"""The whole model beside its twin: training step, log_prob, sample, reconstruct."""

from benchmarks import cases
from benchmarks.options import Options
from benchmarks.process import Competitor, Pool, compare, ratio
from benchmarks.report import Section, against, failures, milliseconds, worst_of

NAMES = {
    "train": "training step",
    "log_prob": "log_prob, K = 1",
    "log_prob_16": "log_prob, K = 16",
    "sample": "sample",
    "reconstruct": "reconstruct",
}


TITLES = {"table1": "Table 1's CQFG", "iaf_res": "CQFG with IAF and residual blocks"}


def run(kind: str, pool: Pool, options: Options) -> Section:
    """A table of cases of one of `cases.KINDS`; systems start anew for every width and batch size."""
    rows, notes, measured = _measure(kind, pool, options, options.tasks)
    text = (
        "The PyTorch twin of the same model (`benchmarks/twin`, equal to ours to 1e-4 in values and gradients: "
        f"`tests/benchmarks`), eager and through `torch.compile`: {TITLES[kind]}. Width 1 is the "
        "paper's, 0.25 that of the preset for two cores. Under `torch.compile` the gradient penalty stays eager: "
        "compiled functions have no second derivative; compiling takes a minute a "
        f"case, and is done at width {min(options.factors):g} and batch "
        f"{', '.join(map(str, options.compile_batches))} alone. Peak memory is the highest resident size "
        "of the process while it builds the case and runs it; in parentheses what it held before its first case, the "
        "libraries. Seconds to the first result count from the start of the process, imports included, for the first "
        "task of a process, and from the call for the others, which follow in the order of the table."
    )
    title = f"Beside PyTorch: {TITLES[kind]}"
    return Section(title, text, _header(options), rows, notes, _targets(kind, measured))


def run_alone(kind: str, pool: Pool, options: Options) -> Section:
    """The same of what needs no training: systems start anew for every task, too."""
    tasks = [task for task in options.tasks if task != "train"]
    rows, notes, measured = _measure(kind, pool, options, tasks, new_processes=True)
    text = (
        "As above, but every row in processes that do nothing else, as one that serves or filters images does. It "
        "matters to PyTorch, which leaves its memory to the C library: that gives a tensor's pages back to the system "
        "after each call and asks for them again, until a process has once freed something as large as training "
        "does. Our commands tell the C library to keep them (`tf_pivae/system/memory.py`)."
    )
    title = f"Beside PyTorch, each task alone: {TITLES[kind]}"
    return Section(title, text, _header(options), rows, notes, _targets(f"{kind} alone", measured))


def _header(options):
    header = ["width", "batch", "task", "ours", "images/s"]
    header += [f"{peer} / ours" for peer in options.peers]
    header += ["peak memory (libraries), MB: ours, " + ", ".join(options.peers)]
    return [*header, "s to first result: ours, " + ", ".join(options.peers)]


def _measure(kind, pool, options, tasks, new_processes=False):
    """Rows of the table, notes below it, and pairs of a case and its timings; each task in new processes, or not."""
    rows = []
    notes = []
    measured = []
    for factor in options.factors:
        for batch in options.batches:
            systems = ("ours", *options.peers_at(factor, batch))
            for i, task in enumerate(tasks):
                if not options.quick and (new_processes or i == 0):
                    pool.close()
                case = cases.case(task, kind, factor, batch, options.side)
                competitors = {system: Competitor(system, case) for system in systems}
                results = compare(pool, competitors, options.rounds, options.budget)
                rows.append(_row(case, results, options.peers))
                notes += failures(results)
                measured.append((case, {name: r for name, r in results.items() if not isinstance(r, str)}))
                options.say(" | ".join(rows[-1]))
    return rows, tuple(dict.fromkeys(notes)), measured


def _targets(kind, measured):
    """`Target`s from pairs of a case and its timings."""

    def ratios(tasks, peers):
        return [
            (ratio(results[peer], results["ours"]).median, _label(case, peer))
            for case, results in measured
            for peer in peers
            if case["task"] in tasks and {peer, "ours"} <= set(results)
        ]

    def memory(of):
        return [
            (of(results["ours"]) / of(results["eager"]), _label(case, "eager"))
            for case, results in measured
            if case["task"] == "train" and {"eager", "ours"} <= set(results) and results["ours"].peak_bytes
        ]

    density = ["log_prob", "log_prob_16"]
    peak = memory(lambda timing: timing.peak_bytes)
    beyond = memory(lambda timing: timing.peak_bytes - timing.libraries_bytes)
    return (
        *worst_of(f"{kind}, training step: peer / ours at least 1", 1.0, ratios(["train"], ["eager", "compile"])),
        *worst_of(f"{kind}, training step: eager PyTorch / ours at least 1.2", 1.2, ratios(["train"], ["eager"])),
        *worst_of(f"{kind}, log_prob: eager PyTorch / ours at least 1.5", 1.5, ratios(density, ["eager"])),
        *worst_of(f"{kind}, sample: eager PyTorch / ours at least 1.5", 1.5, ratios(["sample"], ["eager"])),
        *worst_of(f"{kind}, peak memory of a training step: ours / eager PyTorch at most 1", 1.0, peak, at_least=False),
        *worst_of(f"{kind}, the same without what the libraries take: at most 1", 1.0, beyond, at_least=False),
    )


def _label(case, peer):
    return f"width {case['factor']:g}, batch {case['batch']}, {NAMES[case['task']]}, {peer}"


def _row(case, results, peers):
    everyone = [results.get(name, "not measured") for name in ("ours", *peers)]

    def cells(show):
        return ", ".join("-" if isinstance(r, str) else show(r) for r in everyone)

    ours = everyone[0]
    failed = isinstance(ours, str)
    return [
        f"{case['factor']:g}",
        str(case["batch"]),
        NAMES[case["task"]],
        "failed" if failed else milliseconds(ours.median),
        "-" if failed else f"{case['batch'] / ours.median:.3g}",
        *against(results, "ours", peers),
        cells(lambda r: "?" if r.peak_bytes is None else f"{r.peak_bytes / 1e6:.0f} ({r.libraries_bytes / 1e6:.0f})"),
        cells(lambda r: f"{r.first if r.since_start is None else r.since_start:.1f}"),
    ]
