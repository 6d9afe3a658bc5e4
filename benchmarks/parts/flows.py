"""The flow head and the IAF by themselves, beside the twin's and beside normflows and nflows."""

import importlib.util

from benchmarks import cases
from benchmarks.options import Options
from benchmarks.process import Competitor, Pool, WorkerFailed, compare, ratio
from benchmarks.report import Section, against, failures, milliseconds, worst_of

NAMES = {  # (task, whether our checkerboards are squeezed) -> its name
    ("flow", False): "head: density and gradient",
    ("flow_inverse", False): "head: inverse",
    ("flow", True): "head, squeezed: density and gradient",
    ("flow_inverse", True): "head, squeezed: inverse",
    ("iaf", False): "IAF: density and gradient",
}
HEADS = {  # A target's subject -> names of its tasks
    "head": ("head: density and gradient", "head: inverse"),
    "squeezed head": ("head, squeezed: density and gradient", "head, squeezed: inverse"),
}


def run(pool: Pool, options: Options) -> Section:
    """A table of tasks by batch sizes."""
    libraries = [name for name in ("normflows", "nflows") if importlib.util.find_spec(name)]
    peers = [*options.peers, *libraries]
    rows = []
    notes = []
    ratios: dict[str, list] = {title: [] for title in NAMES.values()}
    for factor in options.factors:
        for batch in options.batches:
            for (task, squeezed), title in NAMES.items():
                case = cases.case(task, factor=factor, batch=batch, side=options.side)
                if task == "iaf":  # The latents of the second smallest map at full size; dense networks end there.
                    case |= {"side": 4, "latents": 32, "width": 64}
                systems = ("ours", *options.peers_at(factor, batch), *libraries)
                competitors = {name: Competitor(name, case) for name in systems}
                competitors["ours"] = Competitor("ours", case | {"squeezed": squeezed})
                results = compare(pool, competitors, options.rounds, options.budget)
                ours = results["ours"]
                median = "failed" if isinstance(ours, str) else milliseconds(ours.median)
                work = [_work(pool, library) for library in libraries]
                rows.append([title, f"{factor:g}", str(batch), median, *against(results, "ours", peers), *work])
                notes += failures(results)
                ratios[title] += _ratios(results, f"{title}, width {factor:g}, batch {batch}")
                options.say(" | ".join(rows[-1]))
    text = (
        f"Three couplings with two residual blocks on {options.side}x{options.side} colour images. The couplings of "
        "normflows and nflows split the colours, since neither has checkerboards with a network on the whole image; "
        "their networks have the width, depth and batch normalisation of ours, but a 1x1 first convolution and no "
        "weight normalisation. A squeezed head is ours with `RealNVP.squeezed_checkerboards`: networks as wide as "
        "before, which transform the same pixels given the same pixels, at half the resolution; the others are as they "
        "were. The IAF works on latents of 4x4x32: ours with masked convolutions of width 64, the "
        "libraries' with the dense masked networks that they have, as wide as the latents. The head's inverse is "
        "ours as `PiVAE.sample` computes it: with one thread an operation, as many parts of the batch side by side as "
        "there are threads; the others give an operation all of them. `work` is a library's arithmetic over ours, that "
        "of convolutions and matrix products."
    )
    if len(libraries) < 2:
        notes.append("Not installed, hence left out: " + ", ".join({"normflows", "nflows"} - set(libraries)) + ".")
    header = ["task", "width", "batch", "ours", *[f"{peer} / ours" for peer in peers]]
    header += [f"{library}, work" for library in libraries]
    targets: list = []
    for head, titles in HEADS.items():
        measured = [pair for title in titles for pair in ratios[title]]
        targets += worst_of(f"{head}: every peer / ours at least 1", 1.0, measured)
    return Section("The flows by themselves", text, header, rows, tuple(dict.fromkeys(notes)), tuple(targets))


def _ratios(results, place):
    """Pairs of a peer's time over ours and where it was measured, of those that ran."""
    timings = {name: result for name, result in results.items() if not isinstance(result, str)}
    ours = timings.pop("ours", None)
    return [(ratio(timing, ours).median, f"{place}, {name}") for name, timing in timings.items()] if ours else []


def _work(pool, library):
    """A library's arithmetic of the case that was timed last, over ours; "failed" where either did not run."""
    try:
        theirs, ours = (pool.worker(system).ask("flops")["flops"] for system in (library, "ours"))
    except WorkerFailed:
        return "failed"
    return f"{theirs / ours:.2f}"
