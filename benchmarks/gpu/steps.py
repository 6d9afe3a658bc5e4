"""A training step on a GPU beside the twin's there; of our own step what XLA, bfloat16 and further GPUs make."""

from typing import NamedTuple

from benchmarks import cases
from benchmarks.options import Options
from benchmarks.process import Competitor, Pool, Timing, compare
from benchmarks.report import Section, against, failures, milliseconds

TITLE = "Step times beside the twin"
_PEERS = {"plain": "without XLA", "bfloat16": "bfloat16", "eager": "eager PyTorch", "compile": "torch.compile"}


class Steps(NamedTuple):
    """What was measured."""

    section: Section
    rates: dict  # kind -> FLOP/s of our fastest step as the command takes it; kinds that failed are not in it


def measure(pool: Pool, options: Options, devices: int) -> Steps:
    """A table of models by batch sizes.

    Args:
      pool: the workers, on GPUs; where there are none, the processor takes their place.
      options: kinds, factors, batches, side, peers, rounds, budget.
      devices: GPUs, or parts of the processor: beyond one, a step on all of them is measured, too.
    """
    rows = []
    notes = []
    rates = {}
    for kind in options.kinds:
        for factor in options.factors:
            for batch in options.batches:
                pool.close()
                results, flops = _measure(
                    pool, options, devices, cases.case("train", kind, factor, batch, options.side)
                )
                rows.append([kind, f"{factor:g}", str(batch), *_cells(results, batch, flops, devices, options.peers)])
                notes += failures(results)
                if flops and isinstance(results["ours"], Timing):
                    rates[kind] = max(rates.get(kind, 0.0), flops / results["ours"].median)
                options.say(" | ".join(rows[-1]))
    text = (
        "A training step of Table 1's CQFG (`table1`) and of the CQFG with IAF and residual blocks (`iaf_res`), width "
        "1 being the paper's, as the command takes it on one GPU: compiled by XLA, convolutions in TensorFloat-32. "
        "PyTorch's twin, which has TensorFloat-32 for convolutions and products, searches for the fastest convolutions "
        "as TensorFlow does; under `torch.compile` its gradient penalty stays eager. Clocks stop when the GPU has "
        "finished. TFLOP/s are multiplications and additions of the step's graph over its time; memory is the most "
        "that tensors held on the GPU."
    )
    header = ["model", "width", "batch", "ours", "images/s", "TFLOP/s"]
    header += [f"{name} / ours" for system, name in _PEERS.items() if system in ("plain", "bfloat16", *options.peers)]
    if devices > 1:
        header.append(f"{devices} devices, {devices} times the batch / ours")
    header += ["memory, MB: ours, " + ", ".join(options.peers), "s to the first step: the same"]
    return Steps(Section(TITLE, text, header, rows, tuple(dict.fromkeys(notes))), rates)


def _measure(pool, options, devices, case):
    """dict of a name -> `Timing` or message, and the arithmetic of a step (None: not known)."""
    competitors = {
        "ours": Competitor("ours", case | {"xla": True}),
        "plain": Competitor("ours", case, copy=1),
        "bfloat16": Competitor("ours", case | {"xla": True, "convolutions": "bfloat16"}, copy=2),
        **{peer: Competitor(peer, case) for peer in options.peers},
    }
    if devices > 1:
        several = case | {"replicas": devices, "batch": devices * case["batch"]}
        logical_cpus = devices if pool.device == "cpu" else 1
        competitors["several"] = Competitor("ours", several, logical_cpus, copy=3)
    results = compare(pool, competitors, options.rounds, options.budget)
    counted = isinstance(results["plain"], Timing)
    return results, pool.worker("ours", copy=1).ask("flops")["flops"] if counted else None


def _cells(results, batch, flops, devices, peers):
    ours = results["ours"]
    cells = ["failed"] * 3
    if isinstance(ours, Timing):
        rate = f"{flops / ours.median / 1e12:.3g}" if flops else "-"
        cells = [milliseconds(ours.median), f"{batch / ours.median:.4g}", rate]
    others = ["plain", "bfloat16", *peers] + ["several"] * (devices > 1)
    cells += against(results, "ours", others)
    timings = [results[name] if isinstance(results[name], Timing) else None for name in ("ours", *peers)]
    cells.append(", ".join("-" if t is None or t.peak_bytes is None else f"{t.peak_bytes / 1e6:.0f}" for t in timings))
    cells.append(", ".join("-" if t is None else f"{t.since_start or t.first:.1f}" for t in timings))
    return cells
