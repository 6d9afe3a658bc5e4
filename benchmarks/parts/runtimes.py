"""An exported model as users may run it: TensorFlow, OpenVINO in float32 and bfloat16, and the PyTorch twin."""

import json
import subprocess
import sys
import tempfile

import numpy as np

from benchmarks import cases
from benchmarks.options import Options
from benchmarks.process import ROOT, Competitor, Pool, Timing, compare, ratio
from benchmarks.report import Section, failures, milliseconds, worst_of

SYSTEMS = {
    "tensorflow": "TensorFlow",
    "openvino": "OpenVINO",
    "openvino_bf16": "OpenVINO, bfloat16",
    "eager": "PyTorch twin",
}
_SAMPLES = (1, 16)  # K
_BUDGET = 8.0  # seconds of a comparison at most
_EXPORT = """
import json, sys
from benchmarks import ours
from tf_pivae.export.write.saved_model import write_saved_model
from tf_pivae.export.write.signatures import Options
for case in json.loads(sys.argv[1]):
    write_saved_model(ours.model_of(case), case["folder"], Options(importance_samples=case["importance_samples"]))
"""


def run(pool: Pool, options: Options) -> Section:
    """Start, memory, latency, throughput and difference for each width, K and batch size; a process for each."""
    rows = []
    notes = []
    measured = []
    systems = [name for name in SYSTEMS if name != "eager" or name in options.peers]
    counts = _SAMPLES[1:] if options.quick else _SAMPLES
    with tempfile.TemporaryDirectory() as folder:
        exports = [
            cases.case("log_prob", "iaf_res", factor, side=16, importance_samples=samples)
            | {"folder": f"{folder}/{factor}/{samples}"}
            for factor in options.factors
            for samples in counts
        ]
        subprocess.run([sys.executable, "-c", _EXPORT, json.dumps(exports)], cwd=ROOT, check=True, stdout=sys.stderr)
        for case in [case | {"batch": batch} for case in exports for batch in options.batches]:
            pool.close()
            competitors = {name: Competitor(name, case) for name in systems}
            results = compare(pool, competitors, options.rounds, min(options.budget, _BUDGET))
            exact = _values(pool, results, "tensorflow")
            for name, result in results.items():
                values = _values(pool, results, name) if name != "eager" else None
                rows.append(_row(case, name, result, values, exact))
                options.say(" | ".join(rows[-1]))
            measured.append((case, {name: r for name, r in results.items() if isinstance(r, Timing)}))
            notes += failures(results)
    text = (
        "`log_prob` of an export (16x16 colour images, IAF, residual blocks) "
        "through `tf_pivae.export.load`, each in a process of its own; the PyTorch twin (`benchmarks/twin`) is the "
        "same model with weights and noise of its own, eager. Start is from the start of the process to the first "
        "result, imports included; memory the highest resident size from the first call on, libraries included; the "
        "difference the largest of an image's from TensorFlow's, relative."
    )
    header = ["width", "K", "batch", "runtime", "start, s", "memory, MB", "a call", "images/s", "difference"]
    title = "Runtimes of an exported model"
    return Section(title, text, header, rows, tuple(dict.fromkeys(notes)), _targets(measured))


def _targets(measured):
    """`Target`s of the fastest runtime of each case that needs no more memory than the twin, beside the twin.

    Where each needs more, of the fastest of all.

    Args:
      measured: pairs of a case and its timings, a dict of a system's name -> `Timing`.
    """
    speed = []
    memory = []
    for case, results in measured:
        exported = [name for name in results if name != "eager"]
        if "eager" not in results or not exported:
            continue
        twin = results["eager"]
        small = [name for name in exported if not twin.peak_bytes or results[name].peak_bytes <= twin.peak_bytes]
        fastest = max(small or exported, key=lambda name: ratio(twin, results[name]).median)
        place = f"width {case['factor']:g}, K = {case['importance_samples']}, batch {case['batch']}, {SYSTEMS[fastest]}"
        speed.append((ratio(twin, results[fastest]).median, place))
        if twin.peak_bytes:
            memory.append((results[fastest].peak_bytes / twin.peak_bytes, place))
    return (
        *worst_of("exported, log_prob: eager PyTorch / the fastest runtime at least 1.5", 1.5, speed),
        *worst_of("exported, log_prob: memory of that runtime / eager PyTorch at most 1", 1.0, memory, at_least=False),
    )


def _values(pool, results, name):
    """What a system computes, float64 [batch], or None where it failed."""
    if not isinstance(results.get(name), Timing):
        return None
    return np.array(pool.worker(name).ask("values")["values"])


def _row(case, name, timing, values, exact):
    batch = case["batch"]
    row = [f"{case['factor']:g}", str(case["importance_samples"]), str(batch), SYSTEMS[name]]
    if not isinstance(timing, Timing):
        return [*row, *["failed"] * 5]
    is_comparable = name != "tensorflow" and values is not None and exact is not None
    difference = f"{np.max(np.abs(values / exact - 1.0)):.0e}" if is_comparable else "-"
    memory = "-" if timing.peak_bytes is None else f"{timing.peak_bytes / 1e6:.0f}"
    numbers = [f"{timing.since_start:.1f}", memory, milliseconds(timing.median), f"{batch / timing.median:.0f}"]
    return [*row, *numbers, difference]
